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

use crate::command::given::{Given, Takes};
use crate::command::installed;
use crate::config::edit::{EditError, Editor};
use crate::config::key::{KeyFileError, PublicKey};
use crate::config::value::{self, IpNet};
use crate::config::{self, Config, store};
use crate::daemon::control::{Command as Request, ask};

/// The server's configuration when nothing else is said.
const CONFIG: &str = "/etc/bonding/server.conf";

/// How long a line can be used when nothing else is said, and at most.
const INVITATION: Duration = Duration::from_secs(7 * 86_400);
const MAX_INVITATION: Duration = Duration::from_secs(366 * 86_400);

/// What `--address` must be.
const HOST: &str = "an address or a host name";

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

/// The actions, and what each takes.
const ACTIONS: [(&str, Takes); 5] = [
    (
        "init",
        Takes { flags: &["no-start", "force"], values: &["config", "address", "port", "pool"], words: 0 },
    ),
    (
        "add-peer",
        Takes {
            flags: &["renew", "line"],
            values: &["config", "lan", "address", "ip", "expires", "public-key"],
            words: 1,
        },
    ),
    ("list", Takes { flags: &["json"], values: &["config"], words: 0 }),
    ("show", Takes { flags: &["json"], values: &["config"], words: 1 }),
    ("remove", Takes { flags: &[], values: &["config"], words: 1 }),
];

/// Understands the arguments behind `server`; `Ok(Err(…))` is a text to print.
///
/// # Errors
///
/// What is wrong with them.
pub(super) fn parse(parser: &mut lexopt::Parser) -> Result<Result<Invocation, &'static str>, lexopt::Error> {
    let action = match parser.next()? {
        None | Some(Short('h') | Long("help")) => return Ok(Err(HELP)),
        Some(Value(action)) => action.string()?,
        Some(other) => return Err(other.unexpected()),
    };
    let Some((_, takes)) = ACTIONS.iter().find(|(name, _)| *name == action) else {
        return Err(format!("server: '{action}' is not init, add-peer, list, show or remove").into());
    };
    let Some(given) = takes.read(parser)? else { return Ok(Err(HELP)) };
    let config = given.path("config").unwrap_or_else(|| CONFIG.into());
    let action = match action.as_str() {
        "init" => Action::Init(init::Options {
            addresses: given.all("address", HOST, value::host)?,
            ports: given.all("port", "a port (1-65535)", value::port)?,
            pools: given.all("pool", "the server's address in a network (10.77.0.1/24)", net)?,
            start: !given.has("no-start"),
            force: given.has("force"),
        }),
        "list" => Action::List { json: given.has("json") },
        _ => {
            let word = given.words()?.pop().ok_or_else(|| format!("server {action}: which peer?"))?;
            let name = peer_name(word)?;
            match action.as_str() {
                "add-peer" => Action::AddPeer(new_peer(name, &given)?),
                "show" => Action::Show { name, json: given.has("json") },
                _ => Action::Remove { name },
            }
        }
    };
    Ok(Ok(Invocation { config, action }))
}

fn new_peer(name: String, given: &Given) -> Result<peers::NewPeer, lexopt::Error> {
    let fits = |text: &str| value::duration(text).filter(|time| *time <= MAX_INVITATION);
    let expires = given.all("expires", "a duration (30m, 2h, 7d; a year at most)", fits)?;
    let key = "a public key as `bonding pubkey` prints it";
    Ok(peers::NewPeer {
        name,
        lans: given.all("lan", "a network (192.168.1.0/24)", |text| net(text).map(|net| net.trunc()))?,
        addresses: given.all("address", HOST, value::host)?,
        inside: given.all("ip", "an address", |text| text.parse().ok())?,
        expires: expires.last().copied().unwrap_or(INVITATION),
        public_key: given.all("public-key", key, PublicKey::from_base64)?.pop(),
        renew: given.has("renew"),
        line_only: given.has("line"),
    })
}

fn net(text: &str) -> Option<IpNet> {
    let (address, prefix) = value::network(text)?;
    Some(IpNet { address, prefix: prefix? })
}

/// A section's name: what UCI allows.
fn peer_name(text: String) -> Result<String, lexopt::Error> {
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    match fits {
        true => Ok(text),
        false => {
            Err(format!("'{}' is no name: use letters, digits and '_'", super::text::clean(&text)).into())
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

/// The server's configuration.
struct ServerFile {
    path: PathBuf,
    editor: Editor,
    config: Config,
    /// Nobody else changes it meanwhile.
    _lock: Option<Flock<std::fs::File>>,
}

impl ServerFile {
    /// To be looked at, where nothing can be written as well.
    fn read(path: &Path) -> Result<ServerFile, ServerError> {
        Self::open(path, false)
    }

    /// To be changed.
    fn lock(path: &Path) -> Result<ServerFile, ServerError> {
        Self::open(path, true)
    }

    fn open(path: &Path, lock: bool) -> Result<ServerFile, ServerError> {
        let name = path.display().to_string();
        if !path.exists() {
            return Err(ServerError::NotInitialised(name));
        }
        let failed = |error| ServerError::File(name.clone(), error);
        let lock = lock.then(|| store::lock(path)).transpose().map_err(failed)?;
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
            Err(_) => {
                format!("No server runs now; start it: {}\n", installed::start_command(&self.path))
            }
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
