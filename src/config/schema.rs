//! The schema: every section and option of `/etc/config/bonding`, in one table.
//!
//! [`SECTIONS`] is the only place where an option exists: [`super::load`] reads by it, `bonding options --json`,
//! `docs/options.md`, the LuCI page and the manual page are made from it.

mod json;
mod kind;
mod manual;
mod options;
#[cfg(test)]
mod roff;

pub use json::options_json;
pub use kind::{Choice, Kind};
pub use manual::options_markdown;
pub use options::SECTIONS;

/// Which end of the bond an option is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Both ends.
    Both,
    /// The router, which has the links and starts the session.
    Client,
    /// The server in the datacentre.
    Server,
}

impl Side {
    /// `both`, `client` or `server`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Side::Both => "both",
            Side::Client => "client",
            Side::Server => "server",
        }
    }
}

/// One type of section.
#[derive(Debug)]
pub struct SectionSpec {
    /// The word after `config`.
    pub kind: &'static str,
    /// What its name (the second word) means, for the manual.
    pub name: &'static str,
    /// Whether there may be only one.
    pub single: bool,
    /// The end it is for.
    pub side: Side,
    /// One sentence of help.
    pub help: &'static str,
    /// The options it may have.
    pub options: &'static [OptionSpec],
}

/// One option.
#[derive(Debug)]
pub struct OptionSpec {
    /// Its name in the file.
    pub name: &'static str,
    /// How its value is written and what is allowed.
    pub kind: Kind,
    /// Whether it may have several values: as `list`, or as an `option` with white space between them.
    pub list: bool,
    /// The value that counts when the option is absent, as it would be written; empty when there is none.
    pub default: &'static str,
    /// Whether an enabled section must have it.
    pub required: bool,
    /// The end it is for.
    pub side: Side,
    /// Whether it belongs on the advanced pages of a user interface.
    pub advanced: bool,
    /// One sentence of help.
    pub help: &'static str,
}

impl SectionSpec {
    /// The schema of sections `config KIND`.
    pub fn find(kind: &str) -> Option<&'static SectionSpec> {
        SECTIONS.iter().find(|section| section.kind == kind)
    }

    /// The option `name`.
    pub fn option(&self, name: &str) -> Option<&'static OptionSpec> {
        self.options.iter().find(|option| option.name == name)
    }
}

#[cfg(test)]
mod tests;
