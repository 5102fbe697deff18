//! Where log messages go: standard error, for procd and systemd to take up, or the system's log.

use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::io::fault;

/// Facility `daemon` (RFC 3164, section 4.1.1), at its place in a message's priority.
const DAEMON: u8 = 3 << 3;

/// What libraries say below a warning is theirs.
fn is_wanted(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("bonding") || metadata.level() <= Level::Warn
}

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_wanted(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // Nobody is left to be told when standard error is gone.
            let _ = writeln!(std::io::stderr(), "{:<5} {}", record.level(), record.args());
        }
    }

    fn flush(&self) {}
}

/// The system's log. Each message is addressed anew, so that the log daemon may come and go; none waits for it, because
/// packets would wait as well.
struct Syslog {
    socket: UnixDatagram,
    path: &'static Path,
}

impl Syslog {
    /// `None` where nobody listens.
    fn open(path: &'static Path) -> Option<Syslog> {
        let socket = UnixDatagram::unbound().ok()?;
        socket.set_nonblocking(true).ok()?;
        path.exists().then_some(Syslog { socket, path })
    }
}

impl Log for Syslog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_wanted(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = message(std::process::id(), record);
        if self.socket.send_to(line.as_bytes(), self.path).is_err() {
            Stderr.log(record);
        }
    }

    fn flush(&self) {}
}

/// As of RFC 3164, without the time, which the log daemon knows. OpenWrt's takes the first 16 bytes for the time, and drops
/// them, where the last of them is a space: of a process id with five digits it would be the one behind our name.
fn message(process: u32, record: &Record<'_>) -> String {
    format!("<{}>bonding[{process:06}]: {}", priority(record.level()), record.args())
}

fn priority(level: Level) -> u8 {
    DAEMON
        | match level {
            Level::Error => 3,
            Level::Warn => 4,
            Level::Info => 6,
            Level::Debug | Level::Trace => 7,
        }
}

/// Sets the log up, once for the whole program. Falls back to standard error where there is no system log.
pub fn init(syslog: bool, level: LevelFilter) {
    let system = syslog.then(|| Syslog::open(Path::new(fault::LOG))).flatten();
    if system.is_some()
        && let Err(error) = fault::report_to_syslog()
    {
        let _ =
            writeln!(std::io::stderr(), "the place of a bug would not get into the system's log: {error}");
    }
    let set = match system {
        Some(system) => log::set_boxed_logger(Box::new(system)),
        None => log::set_logger(&Stderr),
    };
    if set.is_ok() {
        log::set_max_level(level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_a_log_daemon_that_comes_and_goes() {
        let folder = lab::directory::Directory::new("bonding-log").unwrap();
        let path: &'static Path = Box::leak(folder.path("log").into_boxed_path());
        assert!(Syslog::open(path).is_none(), "nobody listens");

        let say = |system: &Syslog, level, target: &str| {
            let record =
                Record::builder().level(level).target(target).args(format_args!("a link is up")).build();
            system.log(&record);
        };
        let mut system = None;
        for _ in 0..2 {
            let daemon = UnixDatagram::bind(path).unwrap();
            daemon.set_nonblocking(true).unwrap();
            let system = system.get_or_insert_with(|| Syslog::open(path).unwrap());
            say(system, Level::Info, "bonding::daemon");
            say(system, Level::Debug, "tokio");
            let mut buffer = [0; 100];
            let length = daemon.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]);
            assert_eq!(text, format!("<30>bonding[{:06}]: a link is up", std::process::id()));
            assert!(daemon.recv(&mut buffer).is_err(), "what libraries have to say is left out");
            std::fs::remove_file(path).unwrap();
            // Goes to standard error.
            say(system, Level::Info, "bonding::daemon");
        }
    }

    #[test]
    fn no_message_looks_as_if_it_began_with_the_time() {
        for process in [1, 22, 333, 4_444, 55_555, 666_666, 4_194_304] {
            let text =
                message(process, &Record::builder().args(format_args!("a b c d e f g h i j k l")).build());
            let (_, text) = text.split_once('>').unwrap();
            assert_ne!(text.as_bytes()[15], b' ', "{text}");
        }
    }

    #[test]
    fn priorities() {
        assert_eq!([Level::Error, Level::Warn, Level::Info, Level::Trace].map(priority), [27, 28, 30, 31]);
    }
}
