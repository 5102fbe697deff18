//! The size of a terminal.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// How many lines a terminal has; `None` if it does not say, or is none.
pub fn rows(terminal: impl AsFd) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open through the call, and the kernel writes a `winsize` to where one is.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    let known = result == 0 && size.ws_row > 0;
    known.then(|| usize::from(size.ws_row))
}

/// [`rows`] of standard output.
pub fn own_rows() -> Option<usize> {
    rows(io::stdout())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pseudo_terminal_has_the_size_that_it_was_given() {
        // Without /dev/pts there is none.
        if let Ok(terminal) = std::fs::File::options().read(true).write(true).open("/dev/ptmx") {
            let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
            // SAFETY: the descriptor is open, and the kernel only reads the size.
            let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
            assert_eq!((result, rows(&terminal)), (0, Some(24)));
        }
        assert_eq!(rows(std::fs::File::open("/dev/null").unwrap()), None);
    }
}
