//! What is wrong with a configuration, in words for the person who wrote it.

use std::fmt;

/// Whether a problem stops the daemon from taking the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file is refused whole.
    Error,
    /// The file is taken; something in it has no effect or is unlikely to be meant.
    Warning,
    /// The file is right, but [`super::Config::not_ready`] found that something is missing before it can run.
    NotReady,
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The name of the file, as the user gave it.
    pub file: String,
    /// The line, from 1; 0 when the problem has no line (something is missing from the file altogether).
    pub line: usize,
    /// The section's name, or `@TYPE[N]`.
    pub section: Option<String>,
    /// The option's name.
    pub option: Option<String>,
    /// What is wrong and what is allowed. Never holds the value of a secret.
    pub message: String,
}

impl fmt::Display for Problem {
    /// `FILE:LINE: section 'link0', option 'remote_port': '99999' is not a port (1-65535)`; warnings have `warning: `
    /// after the line and missing things `not ready: `.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        f.write_str(": ")?;
        match self.severity {
            Severity::Error => {}
            Severity::Warning => f.write_str("warning: ")?,
            Severity::NotReady => f.write_str("not ready: ")?,
        }
        match (&self.section, &self.option) {
            (Some(section), Some(option)) => write!(f, "section '{section}', option '{option}': ")?,
            (Some(section), None) => write!(f, "section '{section}': ")?,
            (None, _) => {}
        }
        f.write_str(&self.message)
    }
}
