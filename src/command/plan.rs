//! `bonding plan FILE`: what a start would set up, `--stop`: what a stop would remove. Nothing is done.

use std::io::{self, Write};
use std::path::Path;

use crate::config;
use crate::daemon::{block_on, plan};

/// Prints the steps, a line each.
///
/// Exit code: 0 if they were printed, 1 if the file has errors or the kernel cannot be asked, 2 if the file cannot be
/// read.
///
/// # Errors
///
/// When `out` cannot be written.
pub fn run(path: &Path, stop: bool, out: &mut dyn Write) -> io::Result<u8> {
    let file = path.display().to_string();
    let report = match config::load_file(path) {
        Ok(report) => report,
        Err(error) => {
            writeln!(out, "{file}: cannot be read: {error}")?;
            return Ok(2);
        }
    };
    let Some(config) = report.config.as_ref() else {
        for problem in &report.problems {
            writeln!(out, "{problem}")?;
        }
        return Ok(1);
    };
    let missing = if stop { Vec::new() } else { config.not_ready(&file) };
    for problem in &missing {
        writeln!(out, "{problem}")?;
    }
    // A question to netifd that is still open in the end is nobody's business any more.
    let steps = block_on(async {
        match stop {
            true => plan::stop(config).await,
            false => plan::start(config).await,
        }
    })?;
    match steps {
        Ok(steps) => {
            for step in steps {
                writeln!(out, "{step}")?;
            }
            Ok(u8::from(!missing.is_empty()))
        }
        Err(error) => {
            writeln!(out, "{error}")?;
            Ok(1)
        }
    }
}
