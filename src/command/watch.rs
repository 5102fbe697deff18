//! `bonding status --watch`: the state again and again, until Ctrl-C.
//!
//! On a terminal it has a screen of its own, and what was there before comes back at the end. Elsewhere the states
//! follow each other: as JSON, one line each.

use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::status::render;
use super::text::wrap;
use crate::daemon::control::{Command, ask};
use crate::daemon::{block_on, spawn_blocking};
use crate::io::terminal;

/// How often it looks.
const REFRESH: Duration = Duration::from_secs(1);

/// Alternate screen (xterm's private mode 1049), no cursor (mode 25), and lines that end at the margin (mode 7).
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const ERASE_LINE_END: &str = "\x1b[K";
const ERASE_BELOW: &str = "\x1b[J";

/// Shows the state every second; gives the exit code.
///
/// Ends with 0 on Ctrl-C, SIGTERM and SIGHUP and when nobody reads the output any more. On a terminal a daemon that
/// goes away is waited for, for it may just be restarting; elsewhere, or if it was never there, the end is that of
/// `bonding status`.
pub fn run(socket: &Path, json: bool, colour: bool) -> u8 {
    let watched = block_on(async {
        match Signals::new() {
            Ok(signals) => watch(socket, json, colour, signals).await,
            Err(error) => super::failure(&format!("signals: {error}")),
        }
    });
    watched.unwrap_or_else(|error| super::failure(&format!("event loop: {error}")))
}

async fn watch(socket: &Path, json: bool, colour: bool, mut signals: Signals) -> u8 {
    let own_screen = io::stdout().is_terminal() && !json;
    let mut screen: Option<Screen> = None;
    let mut next = Instant::now();
    loop {
        let status = tokio::select! {
            biased;
            () = signals.next() => return 0,
            status = async { sleep_until(next).await; question(socket).await } => status,
        };
        next = Instant::now() + REFRESH;
        let text = match (status, &screen) {
            (Ok(status), _) if json => format!("{status}\n"),
            (Ok(status), _) => render(status, colour),
            (Err(error), Some(_)) => wrap(&super::why_no_daemon(socket, &error), 0),
            (Err(error), None) => return super::no_daemon(socket, &error),
        };
        let text = if own_screen {
            screen.get_or_insert_with(Screen::enter);
            frame(&text, terminal::own_rows())
        } else {
            text
        };
        let mut out = io::stdout().lock();
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            return 0;
        }
    }
}

/// Asks on another thread, so that signals are not kept waiting.
async fn question(socket: &Path) -> io::Result<Value> {
    let (answer, answered) = oneshot::channel();
    let socket = socket.to_owned();
    spawn_blocking(move || drop(answer.send(ask(&socket, &Command::Status))));
    answered.await.unwrap_or_else(|error| Err(io::Error::other(error.to_string())))
}

/// `text` over what was on the screen before, without the flicker of an empty one. What does not fit `rows` is left out,
/// and the last line says so: a screen that scrolls would lose its beginning.
fn frame(text: &str, rows: Option<usize>) -> String {
    let count = text.lines().count();
    // The cursor rests below the last line.
    let room = rows.map_or(count, |rows| rows.saturating_sub(1));
    let shown = if count <= room { count } else { room.saturating_sub(1) };
    let mut lines: String = text.lines().take(shown).flat_map(|line| [line, ERASE_LINE_END, "\n"]).collect();
    if shown < count {
        lines += &format!("… {} more lines: `bonding status` shows all{ERASE_LINE_END}\n", count - shown);
    }
    format!("{HOME}{lines}{ERASE_BELOW}")
}

/// The alternate screen; the terminal is as before when this is dropped.
struct Screen;

impl Screen {
    fn enter() -> Screen {
        show(ENTER);
        Screen
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        show(LEAVE);
    }
}

fn show(sequence: &str) {
    let mut out = io::stdout().lock();
    // A terminal that is gone needs no order.
    let _ = out.write_all(sequence.as_bytes()).and_then(|()| out.flush());
}

/// The signals that end a program which a person watches.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_leaves_nothing_of_the_one_before() {
        assert_eq!(frame("a\nb\n", None), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
        assert_eq!(frame("", Some(24)), "\x1b[H\x1b[J");
    }

    #[test]
    fn a_low_terminal_does_not_scroll() {
        let text = "1\n2\n3\n4\n5\n";
        assert_eq!(frame(text, Some(6)), frame(text, None));
        let low = frame(text, Some(5));
        assert!(low.contains("3\x1b[K\n… 2 more lines") && !low.contains('4'), "{low}");
        assert_eq!(low.matches('\n').count(), 4);
        for rows in 0..3 {
            assert!(frame(text, Some(rows)).matches('\n').count() <= 1 + rows);
        }
    }
}
