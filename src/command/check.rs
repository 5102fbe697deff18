//! `bonding check FILE`: every problem of a configuration, without starting anything.

use std::io::{self, Write};
use std::path::Path;

use crate::config::{self, Severity};

/// Prints all problems of `path`, then one line with the result.
///
/// Exit code: 0 if the file can be used (warnings and missing keys do not count), 1 if it has errors, 2 if it cannot be
/// read.
///
/// # Errors
///
/// When `out` cannot be written.
pub fn run(path: &Path, out: &mut dyn Write) -> io::Result<u8> {
    let file = path.display().to_string();
    let report = match config::load_file(path) {
        Ok(report) => report,
        Err(error) => {
            writeln!(out, "{file}: cannot be read: {error}")?;
            return Ok(2);
        }
    };
    for problem in &report.problems {
        writeln!(out, "{problem}")?;
    }
    let count = |severity| report.problems.iter().filter(|problem| problem.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    let Some(config) = report.config else {
        writeln!(out, "{file}: {}{}", plural(errors, "error"), and_warnings(warnings))?;
        return Ok(1);
    };
    let missing = config.not_ready(&file);
    for problem in &missing {
        writeln!(out, "{problem}")?;
    }
    let state = match (config.globals.enabled, missing.is_empty()) {
        (false, _) => "right, but not enabled",
        (true, false) => "right, but not ready to run",
        (true, true) => "right",
    };
    writeln!(out, "{file}: {state}{}", and_warnings(warnings))?;
    Ok(0)
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn and_warnings(count: usize) -> String {
    if count == 0 { String::new() } else { format!(", {}", plural(count, "warning")) }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
