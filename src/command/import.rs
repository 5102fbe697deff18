//! `bonding import mlvpn.conf`: the equivalent `/etc/config/bonding` on the output, advice beside it.

use std::io::{self, Read as _, Write};
use std::path::Path;

use crate::config::uci::MAX_BYTES;
use crate::config::{self, mlvpn, store};

/// Prints the translation of `path` to `out`, and to `advice` what the user still has to do and what `bonding check`
/// would say about the result.
///
/// Exit code: 0 if the result passes `bonding check`, 1 if it does not or the file is not an `mlvpn.conf`, 2 if it
/// cannot be read.
///
/// # Errors
///
/// When `out` or `advice` cannot be written.
pub fn run(path: &Path, out: &mut dyn Write, advice: &mut dyn Write) -> io::Result<u8> {
    let file = path.display();
    let mut bytes = Vec::new();
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX) + 1;
    if let Err(error) =
        store::open(path).and_then(|mut file| store::at_most(&mut file, limit).read_to_end(&mut bytes))
    {
        writeln!(advice, "{file}: cannot be read: {error}")?;
        return Ok(2);
    }
    let import = match mlvpn::import(&String::from_utf8_lossy(&bytes)) {
        Ok(import) => import,
        Err(error) => {
            writeln!(advice, "{file}: {error}")?;
            return Ok(1);
        }
    };
    out.write_all(import.uci.as_bytes())?;
    for note in &import.notes {
        writeln!(advice, "{file}: {note}")?;
    }
    let report = config::load(&import.uci, "the result");
    for problem in &report.problems {
        writeln!(advice, "{problem}")?;
    }
    Ok(u8::from(report.config.is_none()))
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
