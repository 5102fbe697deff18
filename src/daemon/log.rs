//! Where log messages go: standard error, for procd and systemd to take up, or the system's log.

use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What libraries say below a warning is theirs.
        metadata.target().starts_with("bonding") || metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        use std::io::Write as _;
        if self.enabled(record.metadata()) {
            // Nobody is left to be told when standard error is gone.
            let _ = writeln!(std::io::stderr(), "{:<5} {}", record.level(), record.args());
        }
    }

    fn flush(&self) {}
}

/// Sets the log up, once for the whole program. Falls back to standard error where there is no system log.
pub fn init(syslog: bool, level: LevelFilter) {
    if syslog && syslog::init(syslog::Facility::LOG_DAEMON, level, Some("bonding")).is_ok() {
        return;
    }
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}
