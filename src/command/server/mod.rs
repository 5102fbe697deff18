//! `bonding server …`: a server in one command, a router in another.
//!
//! Everything is kept in one configuration file. A change is checked before it is written, written whole or not at all,
//! and told to the running daemon, which drops nobody that the change does not concern.

mod init;
mod peers;
mod picture;
mod pool;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lexopt::prelude::*;
use nix::fcntl::Flock;

use crate::config::edit::{EditError, Editor};
use crate::config::key::{KeyFileError, PublicKey};
use crate::config::value::{self, Host, IpNet};
use crate::config::{self, Config, store};
use crate::daemon::control::{Command as Request, ask};

/// The server's configuration when nothing else is said.
const CONFIG: &str = "/etc/bonding/server.conf";

/// How long a line can be used when nothing else is said, and at most.
const INVITATION: Duration = Duration::from_secs(7 * 86_400);
const MAX_INVITATION: Duration = Duration::from_secs(366 * 86_400);

const HELP: &str = "\
bonding server init [--address HOST]… [--port PORT]… [--pool NET]… [--no-start] [--force]
bonding server add-peer NAME [--lan NET]… [--address HOST]… [--ip ADDR]… [--expires TIME]
                       [--public-key KEY] [--renew] [--line]
bonding server list [--json]
bonding server show NAME [--json]
bonding server remove NAME
                                 each with [--config FILE]

init makes this machine a server: keys, configuration, and a service that starts with the system. It asks nothing,
changes nothing that is there, and prints what it did.
add-peer lets a router in: prints the line bonding://… that `bonding join` and LuCI take, the same for `uci batch`, and
as a picture for a camera. The line is good for one router and for a week (--expires 2h, 3d …). --renew makes a new line
for a peer that is there already; --public-key lets in a router whose key is known; --line prints the line alone.
list, show and remove take effect at once; nobody else is dropped.
";

/// What a person typed after `bonding server`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    config: PathBuf,
    action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Init(init::Options),
    AddPeer(peers::NewPeer),
    List { json: bool },
    Show { name: String, json: bool },
    Remove { name: String },
}

/// Understands the arguments behind `server`; `Err(Ok(…))` is a text to print.
///
/// # Errors
///
/// What is wrong with them.
pub fn parse(mut parser: lexopt::Parser) -> Result<Result<Invocation, &'static str>, lexopt::Error> {
    let action = match parser.next()? {
        None | Some(Short('h') | Long("help")) => return Ok(Err(HELP)),
        Some(Value(action)) => action.string()?,
        Some(other) => return Err(other.unexpected()),
    };
    let mut words = Words::default();
    while let Some(argument) = parser.next()? {
        let of = |actions: &[&str]| actions.contains(&action.as_str());
        match argument {
            Short('h') | Long("help") => return Ok(Err(HELP)),
            Short('c') | Long("config") => words.config = Some(parser.value()?.into()),
            Long("address") if of(&["init", "add-peer"]) => {
                words.addresses.push(value_of(&mut parser, "an address or a host name", value::host)?);
            }
            Long("port") if of(&["init"]) => {
                words.ports.push(value_of(&mut parser, "a port (1-65535)", value::port)?);
            }
            Long("pool") if of(&["init"]) => {
                words.nets.push(value_of(
                    &mut parser,
                    "the server's address in a network (10.77.0.1/24)",
                    net,
                )?);
            }
            Long("lan") if of(&["add-peer"]) => {
                words.nets.push(value_of(&mut parser, "a network (192.168.1.0/24)", net)?.trunc());
            }
            Long("ip") if of(&["add-peer"]) => {
                words.ips.push(value_of(&mut parser, "an address", |text| text.parse().ok())?);
            }
            Long("expires") if of(&["add-peer"]) => {
                let fits = |text: &str| value::duration(text).filter(|time| *time <= MAX_INVITATION);
                words.expires =
                    Some(value_of(&mut parser, "a duration (30m, 2h, 7d; a year at most)", fits)?);
            }
            Long("public-key") if of(&["add-peer"]) => {
                let key = value_of(
                    &mut parser,
                    "a public key as `bonding pubkey` prints it",
                    PublicKey::from_base64,
                )?;
                words.public_key = Some(key);
            }
            Long(flag @ ("no-start" | "force")) if of(&["init"]) => words.flags.push(flag.to_owned()),
            Long(flag @ ("renew" | "line")) if of(&["add-peer"]) => words.flags.push(flag.to_owned()),
            Long(flag @ "json") if of(&["list", "show"]) => words.flags.push(flag.to_owned()),
            Value(name) if of(&["add-peer", "show", "remove"]) && words.name.is_none() => {
                words.name = Some(peer_name(&name.string()?)?);
            }
            other => return Err(other.unexpected()),
        }
    }
    words.finish(&action).map(Ok)
}

#[derive(Default)]
struct Words {
    config: Option<PathBuf>,
    name: Option<String>,
    addresses: Vec<Host>,
    ports: Vec<u16>,
    nets: Vec<IpNet>,
    ips: Vec<std::net::IpAddr>,
    expires: Option<Duration>,
    public_key: Option<PublicKey>,
    flags: Vec<String>,
}

impl Words {
    fn finish(self, action: &str) -> Result<Invocation, lexopt::Error> {
        let flag = |flag: &str| self.flags.iter().any(|given| given == flag);
        let (json, renew, line_only) = (flag("json"), flag("renew"), flag("line"));
        let (start, force) = (!flag("no-start"), flag("force"));
        let name =
            || self.name.clone().ok_or_else(|| lexopt::Error::from(format!("server {action}: which peer?")));
        let action = match action {
            "init" => Action::Init(init::Options {
                addresses: self.addresses,
                ports: self.ports,
                pools: self.nets,
                start,
                force,
            }),
            "add-peer" => Action::AddPeer(peers::NewPeer {
                name: name()?,
                lans: self.nets,
                addresses: self.addresses,
                inside: self.ips,
                expires: self.expires.unwrap_or(INVITATION),
                public_key: self.public_key,
                renew,
                line_only,
            }),
            "list" => Action::List { json },
            "show" => Action::Show { name: name()?, json },
            "remove" => Action::Remove { name: name()? },
            other => {
                return Err(format!("server: '{other}' is not init, add-peer, list, show or remove").into());
            }
        };
        Ok(Invocation { config: self.config.unwrap_or_else(|| CONFIG.into()), action })
    }
}

fn value_of<T>(
    parser: &mut lexopt::Parser,
    expected: &str,
    read: impl Fn(&str) -> Option<T>,
) -> Result<T, lexopt::Error> {
    let text = parser.value()?.string()?;
    read(&text).ok_or_else(|| format!("'{}' is not {expected}", super::text::clean(&text)).into())
}

fn net(text: &str) -> Option<IpNet> {
    let (address, prefix) = value::network(text)?;
    Some(IpNet { address, prefix: prefix? })
}

/// A section's name: what UCI allows.
fn peer_name(text: &str) -> Result<String, lexopt::Error> {
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match fits {
        true => Ok(text.to_owned()),
        false => {
            Err(format!("'{}' is no name: use letters, digits and '_'", super::text::clean(text)).into())
        }
    }
}

/// Why a command came to nothing.
#[derive(Debug, thiserror::Error)]
enum ServerError {
    #[error("there is no {0}: run `bonding server init` first")]
    NotInitialised(String),
    #[error("{0}: {1}")]
    File(String, #[source] io::Error),
    #[error("{0}: {1}")]
    Edit(String, #[source] EditError),
    #[error("nothing was changed, because the result would have mistakes:\n{0}")]
    Refused(String),
    #[error(transparent)]
    Key(#[from] KeyFileError),
    #[error("{0}")]
    Other(String),
}

/// Carries out what was typed; gives the exit code.
///
/// # Errors
///
/// When `out` cannot be written.
pub fn run(invocation: &Invocation, out: &mut dyn Write) -> io::Result<u8> {
    let config = &invocation.config;
    let done = match &invocation.action {
        Action::Init(options) => init::run(config, options),
        Action::AddPeer(peer) => peers::add(config, peer),
        Action::List { json } => peers::list(config, *json),
        Action::Show { name, json } => peers::show(config, name, *json),
        Action::Remove { name } => peers::remove(config, name),
    };
    match done {
        Ok(text) => out.write_all(text.as_bytes()).map(|()| 0),
        Err(error) => Ok(super::failure(&format!("server: {error}"))),
    }
}

/// The server's configuration while it is changed. Nobody else changes it meanwhile.
struct ServerFile {
    path: PathBuf,
    editor: Editor,
    config: Config,
    _lock: Flock<std::fs::File>,
}

impl ServerFile {
    fn open(path: &Path) -> Result<ServerFile, ServerError> {
        let name = path.display().to_string();
        if !path.exists() {
            return Err(ServerError::NotInitialised(name));
        }
        let failed = |error| ServerError::File(name.clone(), error);
        let lock = store::lock(path).map_err(failed)?;
        let text = store::read(path).map_err(failed)?;
        let editor = Editor::new(&text).map_err(|error| ServerError::Edit(name.clone(), error))?;
        let config = checked(editor.text(), &name)?;
        if config.globals.role != config::Role::Server {
            return Err(ServerError::Other(format!(
                "{name} is the configuration of a router, not of a server"
            )));
        }
        Ok(ServerFile { path: path.to_owned(), editor, config, _lock: lock })
    }

    fn edit<T>(&mut self, edit: impl FnOnce(&mut Editor) -> Result<T, EditError>) -> Result<T, ServerError> {
        edit(&mut self.editor).map_err(|error| ServerError::Edit(self.path.display().to_string(), error))
    }

    /// Checks and writes what was changed, and tells the daemon. Gives a line about that.
    fn save(&mut self) -> Result<String, ServerError> {
        let name = self.path.display().to_string();
        self.config = checked(self.editor.text(), &name)?;
        store::replace(&self.path, self.editor.text())
            .map_err(|error| ServerError::File(name.clone(), error))?;
        Ok(match ask(&self.config.globals.control_socket, &Request::Reload) {
            Ok(reply) if reply["ok"] == true => "The running server has taken it over.\n".to_owned(),
            Ok(reply) => format!(
                "The running server has refused it: {}\n",
                super::text::clean(reply["message"].as_str().unwrap_or_default())
            ),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "The running server was not told: you may not use its control socket.\n".to_owned()
            }
            Err(_) => format!(
                "No server runs now; start it: systemctl start bonding@server, or bonding run --config {name}\n"
            ),
        })
    }
}

fn checked(text: &str, name: &str) -> Result<Config, ServerError> {
    let report = config::load(text, name);
    match report.config {
        Some(config) => Ok(config),
        None => {
            let mistakes: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
            Err(ServerError::Refused(mistakes.join("\n")))
        }
    }
}

#[cfg(test)]
mod tests;
