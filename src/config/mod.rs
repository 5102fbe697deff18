//! `/etc/config/bonding`: from text to typed, checked options.
//!
//! ```text
//! text → uci (the format) → read (by the schema: types, ranges, defaults) → consistency (contradictions) → Config
//! ```
//!
//! [`load`] finds every problem of a file at once, each with its line. A file with an error gives no [`Config`]: it is
//! refused whole. What a right file lacks to run (a key that only the user can supply) is [`Config::not_ready`].

pub mod edit;
pub mod invitation;
pub mod key;
pub mod mlvpn;
pub mod schema;
pub mod store;
pub mod types;
pub mod uci;
pub mod value;

mod consistency;
mod log;
mod problem;
mod read;
mod reader;
mod servers;
pub(crate) mod spelling;

use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use zeroize::Zeroizing;

pub use problem::{Problem, Severity};
pub use read::{MAX_LINKS, MAX_PEERS};
pub use servers::{MAX_SERVERS, Server};
pub use types::*;

use log::{At, Log};

use crate::bond::sorted::insert_by_key;

/// What [`load`] found in a file.
#[derive(Clone, Debug)]
pub struct Report {
    /// The configuration; `None` if there is any error.
    pub config: Option<Config>,
    /// Errors and warnings, in the order of the file.
    pub problems: Vec<Problem>,
}

impl Report {
    /// The problems that made the file be refused.
    pub fn errors(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter().filter(|problem| problem.severity == Severity::Error)
    }
}

/// Reads the text of a configuration. `file` is its name in messages.
pub fn load(text: &str, file: &str) -> Report {
    let (document, syntax_errors) = uci::parse(text);
    let mut log = Log::new(file, &document, syntax_errors.is_empty());
    for error in syntax_errors {
        log.error(At { line: Some(error.line), ..At::default() }, error.message);
    }
    let sourced = read::read(&mut log);
    consistency::check(&sourced, &mut log);
    let config = (!log.has_errors()).then_some(sourced.config);
    Report { config, problems: log.problems }
}

/// Reads a configuration as it lies on the disk. Bytes that are not UTF-8 (a comment in Latin-1) get a warning and are
/// replaced.
pub fn load_bytes(bytes: &[u8], file: &str) -> Report {
    // One byte too many is enough to be refused for.
    let bytes = bytes.get(..=uci::MAX_BYTES).unwrap_or(bytes);
    let error = match std::str::from_utf8(bytes) {
        Ok(text) => return load(text, file),
        Err(error) => error,
    };
    let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
    let mut report = load(&Zeroizing::new(String::from_utf8_lossy(bytes).into_owned()), file);
    let problem = Problem {
        severity: Severity::Warning,
        file: file.to_owned(),
        line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
        section: None,
        option: None,
        message: "a character is not UTF-8".into(),
    };
    insert_by_key(&mut report.problems, problem, |problem| problem.line);
    report
}

/// Reads a file. Others than its owner being able to read a secret in it is a warning.
///
/// # Errors
///
/// When the file cannot be read. What is wrong inside is in the report.
pub fn load_file(path: &Path) -> io::Result<Report> {
    let limit = u64::try_from(uci::MAX_BYTES).unwrap_or(u64::MAX) + 1;
    let name = path.display().to_string();
    let mut file = store::open(path)?;
    let metadata = file.metadata()?;
    let mode = metadata.mode();
    // With room for all of it, no part of a key is left behind where the buffer grew out of its place.
    let room = usize::try_from(metadata.len()).unwrap_or(usize::MAX).min(uci::MAX_BYTES);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room + 64));
    store::at_most(&mut file, limit).read_to_end(&mut bytes)?;
    let mut report = load_bytes(&bytes, &name);
    if mode & 0o044 != 0 && report.config.as_ref().is_some_and(Config::holds_secret) {
        report.problems.push(Problem {
            severity: Severity::Warning,
            message: format!("holds a secret key and others can read it: run `chmod 600 {name}`"),
            file: name,
            line: 0,
            section: None,
            option: None,
        });
    }
    Ok(report)
}

impl Config {
    fn holds_secret(&self) -> bool {
        self.globals.private_key.is_some()
            || self.bond.preshared_key.is_some()
            || self.servers.iter().any(|server| server.preshared_key.is_some())
            || self.peers.iter().any(|peer| peer.preshared_key.is_some())
    }

    /// The addresses of the other end inside the bond: the server's, or those of the first peer.
    pub fn other_ends(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let hosts = self.peers.first().into_iter().flat_map(|peer| &peer.addresses);
        let hosts =
            hosts.filter(|net| net.prefix == value::IpNet::host(net.address).prefix).map(|net| net.address);
        self.bond.remote_addresses.iter().copied().chain(hosts)
    }

    /// What this configuration lacks before it can run although nothing in it is wrong: things that only the user can
    /// supply. `file` is its name in messages. The private key's file is not looked at; see
    /// [`Globals::read_private_key`].
    pub fn not_ready(&self, file: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.globals.role == Role::Client && self.bond.public_key.is_none() {
            problems.push(Problem {
                severity: Severity::NotReady,
                file: file.to_owned(),
                line: 0,
                section: Some(self.bond.name.clone()),
                option: Some("public_key".into()),
                message: "the server's public key is not set; `bonding server add-peer NAME` on the server prints it, or \
                          `bonding pubkey < /etc/bonding/private.key` there"
                    .into(),
            });
        }
        problems
    }
}

#[cfg(test)]
mod tests;
