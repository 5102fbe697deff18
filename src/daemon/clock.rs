//! The file that keeps the clock of handshakes over a reboot; see [`crate::bond::logical_clock`] for what is in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::events::unix_ms;
use crate::bond::Time;
use crate::config::store;

/// Its name in `state_dir`.
const NAME: &str = "clock";

/// Later than this (in the year 4199) no reservation is: the file is damaged.
const LATEST: u64 = 1 << 46;

/// Without an answer of the server for so long the date is believed to be wrong.
const DOUBT: Duration = Duration::from_secs(10);

/// The file.
#[derive(Clone, Debug)]
pub struct ClockFile {
    path: PathBuf,
}

impl ClockFile {
    /// The file in this directory, which is made where it is missing.
    pub fn in_directory(directory: &Path) -> Self {
        if let Err(error) = fs::create_dir_all(directory) {
            log::warn!("{}: {error}", directory.display());
        }
        ClockFile { path: directory.join(NAME) }
    }

    /// Where the clock begins, in milliseconds: later than every stamp before, and than the date as this machine believes.
    pub fn begin(&self) -> u64 {
        let stored = match self.read() {
            Ok(stored) => stored,
            Err(error) => {
                log::warn!("{}: {error}: handshakes go by the system's clock", self.path.display());
                None
            }
        };
        unix_ms().max(stored.map_or(0, |stored| stored.saturating_add(1)))
    }

    fn read(&self) -> io::Result<Option<u64>> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let number = text.trim().parse().ok().filter(|number| *number <= LATEST);
        number.map(Some).ok_or_else(|| io::Error::other("it does not hold a time in milliseconds"))
    }

    /// Stores a reservation so that a loss of power leaves the old one or the new one. Takes as long as the flash does.
    ///
    /// # Errors
    ///
    /// As the file system says: it is full, or read-only.
    pub fn write(&self, reservation: u64) -> io::Result<()> {
        store::replace(&self.path, &format!("{reservation}\n"))
    }

    /// Says that a reservation could not be stored.
    pub fn complain(&self, error: &io::Error) {
        log::warn!(
            "{}: {error}: after a reboot the server may refuse handshakes until this machine knows the date; set 'state_dir' to a place that can be written",
            self.path.display()
        );
    }
}

/// Whether the date is to be asked again: the server has not answered for so long that it may think our stamps old.
pub fn in_doubt(up: bool, since: Time, now: Time) -> bool {
    !up && now.since(since) >= DOUBT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_gone_on_from() {
        let place = lab::directory::Directory::new("bonding-clock").unwrap();
        let directory = place.path("clock");
        let file = ClockFile::in_directory(&directory.join("state"));
        let before = unix_ms();
        let of_the_system = |time: u64| (before..=unix_ms()).contains(&time);
        assert!(of_the_system(file.begin()));
        // A machine that wakes up in the past goes on from the file.
        let future = before + 1_000_000_000;
        file.write(future).unwrap();
        assert_eq!(file.begin(), future + 1);
        assert_eq!(fs::read_to_string(&file.path).unwrap(), format!("{future}\n"));
        // One whose clock is right does not need it.
        file.write(5).unwrap();
        assert!(file.begin() >= before);
        for damaged in ["", "x", "99999999999999999999", "-1", &u64::MAX.to_string()] {
            fs::write(&file.path, damaged).unwrap();
            let begin = file.begin();
            assert!(of_the_system(begin), "{damaged}");
        }
        // A file stands where its directory should be.
        fs::remove_dir_all(&directory).unwrap();
        fs::write(&directory, "").unwrap();
        assert!(file.write(7).is_err());
    }
}
