//! The command line: one file a subcommand.
//!
//! Exit codes: 0 done; 1 failed, or the file has errors; 2 wrong usage, or a file that cannot be read; 3 no daemon
//! answers.

mod arguments;
pub mod check;
pub mod completion;
mod given;
pub mod import;
mod installed;
pub mod join;
pub mod keys;
pub mod options;
pub mod plan;
pub mod rpcd;
pub mod server;
pub mod speedtest;
pub mod status;
pub mod text;
pub mod watch;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::Value as Json;

use arguments::Invocation;

use crate::daemon;
use crate::daemon::control::{Command as Request, ask};
use crate::daemon::runner;
use crate::io::fault;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NO_DAEMON: u8 = 3;

/// Runs the program.
pub fn main() -> ExitCode {
    // Without it a bug ends the program as before, and only says less.
    let _ = fault::report();
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    let help = arguments::help_with(words.first().map(OsString::as_os_str));
    match arguments::parse(words) {
        Ok(invocation) => ExitCode::from(run(invocation)),
        Err(error) => {
            complain(&format!("{error}\nTry '{help}'."));
            ExitCode::from(USAGE)
        }
    }
}

/// Carries out what was typed; gives the exit code.
fn run(invocation: Invocation) -> u8 {
    let mut out = io::stdout().lock();
    let written = match invocation {
        Invocation::Help(text) => out.write_all(text.as_bytes()).map(|()| 0),
        Invocation::Version => writeln!(out, "bonding {}", env!("CARGO_PKG_VERSION")).map(|()| 0),
        Invocation::Run { config, syslog, log_level } => {
            drop(out);
            return match daemon::run(&daemon::Options { config, syslog, log_level }) {
                Ok(()) => 0,
                Err(error) => failure(&error.to_string()),
            };
        }
        Invocation::Status { socket, json, watch } => {
            drop(out);
            return status::run(&socket, json, watch);
        }
        Invocation::Metrics { socket } => return status::metrics(&socket, &mut out),
        Invocation::Routes { socket, json } => return status::routes(&socket, json, &mut out),
        Invocation::Ask { socket, request } => return answer(&socket, &request, &mut out),
        Invocation::Check(file) => check::run(&file, &mut out),
        Invocation::Plan { file, stop } => plan::run(&file, stop, &mut out),
        Invocation::Options { json } => options::run(json, &mut out),
        Invocation::Completion { socket, topic } => completion::run(topic, &socket, &mut out),
        Invocation::RunScripts(config) => {
            drop(out);
            return match runner::process::serve(&config) {
                Ok(()) => 0,
                Err(error) => {
                    failure(&format!("{}: only the daemon starts this: {error}", runner::SUBCOMMAND))
                }
            };
        }
        Invocation::SpeedTest(options) => speedtest::run(&options, &mut out),
        Invocation::Join(options) => join::run(&options, &mut out),
        Invocation::Server(invocation) => server::run(&invocation, &mut out),
        Invocation::Import(file) => import::run(&file, &mut out, &mut io::stderr()),
        Invocation::GenKey => {
            keys::warn_if_readable(io::stdout());
            keys::generate(&mut out)
        }
        Invocation::GenPsk => {
            keys::warn_if_readable(io::stdout());
            keys::generate_preshared(&mut out)
        }
        Invocation::PubKey => stdin().and_then(|mut input| keys::public(&mut input, &mut out)),
        Invocation::Rpcd { method: None, .. } => rpcd::list(&mut out),
        Invocation::Rpcd { places, method: Some(method) } => {
            stdin().and_then(|mut input| rpcd::call(&method, &places, &mut input, &mut out))
        }
    };
    match written.and_then(|code| io::stdout().flush().map(|()| code)) {
        Ok(code) => code,
        // Whoever read our output has enough of it.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => failure(&error.to_string()),
    }
}

/// Standard input, which is read to its end at once: what the standard library puts around it for lines is not needed.
fn stdin() -> io::Result<File> {
    io::stdin().as_fd().try_clone_to_owned().map(File::from)
}

/// Tells the person what is wrong. Unlike `eprintln!` it does not panic when standard error is closed.
fn complain(text: &str) {
    let _ = io::stderr().write_all(format!("bonding: {}\n", text.trim_end()).as_bytes());
}

/// Tells what failed; gives the exit code.
fn failure(text: &str) -> u8 {
    complain(text);
    FAILED
}

/// Says why no daemon answers; gives the exit code.
fn no_daemon(socket: &Path, error: &io::Error) -> u8 {
    complain(&why_no_daemon(socket, error));
    NO_DAEMON
}

fn why_no_daemon(socket: &Path, error: &io::Error) -> String {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => "only root and the control_group may ask it",
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused if installed::is_openwrt() => {
            "is it running? Start it with /etc/init.d/bonding start"
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "is it running? Start it with `systemctl start bonding@NAME` or `bonding run --config FILE`"
        }
        _ => "it may be busy; look at its log",
    };
    format!("no daemon answers at {}: {error}; {hint}", socket.display())
}

fn answer(socket: &Path, request: &Request, out: &mut dyn Write) -> u8 {
    match ask(socket, request) {
        Ok(reply) => print_answer(request, reply, out),
        Err(error) => no_daemon(socket, &error),
    }
}

fn print_answer(request: &Request, mut reply: Json, out: &mut dyn Write) -> u8 {
    let message = reply["error"].as_str().or(reply["message"].as_str()).unwrap_or_default();
    // A refused configuration gives a line for each mistake.
    let message: String = message.lines().flat_map(|line| [text::clean(line), "\n".to_owned()]).collect();
    text::clean_value(&mut reply);
    let text = match request {
        Request::Events if reply.is_array() => status::render_events(&reply),
        _ if reply["ok"] == true => message,
        _ if message.is_empty() => return failure("the daemon ended before it answered; look at its log"),
        _ => return failure(&message),
    };
    // A closed pipe is no failure of ours.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::control::LinkAction;

    #[test]
    fn an_answer_is_printed_or_is_a_failure() {
        let printed = |request: &Request, reply: Json| {
            let mut out = Vec::new();
            (print_answer(request, reply, &mut out), String::from_utf8(out).unwrap())
        };
        let link = Request::Link { name: "adsl1".into(), action: LinkAction::Up };
        assert_eq!(printed(&link, serde_json::json!({ "ok": true })), (0, String::new()));
        let reply = serde_json::json!({ "ok": true, "message": "1 link changed\n\u{1b}[2J" });
        assert_eq!(printed(&Request::Reload, reply), (0, "1 link changed\n\u{fffd}[2J\n".to_owned()));
        for reply in [serde_json::json!({ "ok": false, "error": "no such link" }), Json::Null] {
            assert_eq!(printed(&link, reply.clone()), (FAILED, String::new()));
            assert_eq!(printed(&Request::Events, reply).0, FAILED);
        }
        let (code, text) =
            printed(&Request::Events, serde_json::json!([{ "link": "adsl1", "what": "down" }]));
        assert!(code == 0 && text.contains("adsl1") && text.contains("down"), "{text}");
    }
}
