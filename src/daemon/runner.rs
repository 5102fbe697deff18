//! The process that runs other programs for the daemon: hooks, the watchdog's action, and netifd's `ubus`.
//!
//! It is started first of all and keeps the privileges that the daemon then gives up. It takes the daemon's word for *when*
//! something is run and never for *what*: paths, limits and commands it reads from the configuration itself. It
//! speaks to nobody but the daemon, over a socket pair, a line of JSON each way; when the daemon is gone it ends what
//! runs within its limit, and itself.
//!
//! * [`Task`] and [`Outcome`]: what is said.
//! * [`Runner`]: the daemon's end. [`process`]: the other one.
//! * [`job`]: one program with a limit of time and output. [`trust`]: who can change a script.

pub mod job;
pub mod process;
pub mod trust;

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as BlockingStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::bond::sorted::SortedMap;
use crate::json::{self, FromJson};

/// The hidden subcommand that is this process.
pub const SUBCOMMAND: &str = "run-scripts";

/// Bytes of a line, at most. The longest is netifd's answer, 64 KiB before it became a text in JSON.
const MAX_LINE: u64 = 512 * 1024;

/// Tasks on their way; more wait.
const PIPELINE: usize = 64;

/// The scripts of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// `preup`.
    PreUp,
    /// `up`.
    Up,
    /// `predown`.
    PreDown,
    /// `down`.
    Down,
    /// `link_script`.
    Link,
}

impl Hook {
    /// The option that names the script.
    pub fn option(self) -> &'static str {
        match self {
            Hook::PreUp => "preup",
            Hook::Up => "up",
            Hook::PreDown => "predown",
            Hook::Down => "down",
            Hook::Link => "link_script",
        }
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Run a script.
    Script {
        /// Which.
        hook: Hook,
        /// Its arguments.
        arguments: Vec<String>,
        /// Its environment; names are those of [`process::VARIABLES`].
        environment: SortedMap<String, String>,
    },
    /// Run the watchdog's action.
    Action,
    /// Ask netifd for an interface.
    Interface {
        /// Its name.
        name: String,
    },
    /// Read the configuration again.
    Configure,
}

/// How it went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There is nothing to run, and nobody asked for it by name.
    Absent,
    /// It was not run: why.
    Refused {
        /// A sentence.
        reason: String,
    },
    /// It was run.
    Ran(job::Finished),
    /// What netifd has answered for the interface.
    Found(String),
    /// netifd could not tell.
    NotFound {
        /// The interface does not exist, as opposed to netifd that does not answer.
        nowhere: bool,
        /// A sentence.
        reason: String,
    },
    /// The configuration was read.
    Configured,
    /// The runner has ended, or was never there.
    NoRunner,
}

impl Hook {
    const ALL: [Hook; 5] = [Hook::PreUp, Hook::Up, Hook::PreDown, Hook::Down, Hook::Link];
}

impl FromJson for Hook {
    fn from_json(value: &Value) -> Option<Self> {
        Hook::ALL.into_iter().find(|hook| value == hook.option())
    }
}

/// A task on its way: a line with its number and its parts.
struct Order {
    id: u32,
    task: Task,
}

impl Order {
    fn line(&self) -> String {
        let id = self.id;
        let parts = match &self.task {
            Task::Script { hook, arguments, environment } => {
                json!([id, "script", hook.option(), arguments, environment])
            }
            Task::Action => json!([id, "action"]),
            Task::Interface { name } => json!([id, "interface", name]),
            Task::Configure => json!([id, "configure"]),
        };
        format!("{parts}\n")
    }
}

impl FromJson for Order {
    fn from_json(value: &Value) -> Option<Self> {
        let [id, kind, parts @ ..] = value.as_array()?.as_slice() else { return None };
        let task = match (kind.as_str()?, parts) {
            ("script", [hook, arguments, environment]) => Task::Script {
                hook: FromJson::from_json(hook)?,
                arguments: FromJson::from_json(arguments)?,
                environment: FromJson::from_json(environment)?,
            },
            ("action", []) => Task::Action,
            ("interface", [name]) => Task::Interface { name: FromJson::from_json(name)? },
            ("configure", []) => Task::Configure,
            _ => return None,
        };
        Some(Order { id: FromJson::from_json(id)?, task })
    }
}

/// An outcome on its way back.
struct Answer {
    id: u32,
    outcome: Outcome,
}

impl Answer {
    fn line(&self) -> String {
        let id = self.id;
        let parts = match &self.outcome {
            Outcome::Absent => json!([id, "absent"]),
            Outcome::Refused { reason } => json!([id, "refused", reason]),
            Outcome::Ran(job::Finished { failure, output, omitted, took_ms }) => {
                json!([id, "ran", failure, output, omitted, took_ms])
            }
            Outcome::Found(answer) => json!([id, "found", answer]),
            Outcome::NotFound { nowhere, reason } => json!([id, "not-found", nowhere, reason]),
            Outcome::Configured => json!([id, "configured"]),
            Outcome::NoRunner => json!([id, "no-runner"]),
        };
        format!("{parts}\n")
    }
}

impl FromJson for Answer {
    fn from_json(value: &Value) -> Option<Self> {
        let [id, kind, parts @ ..] = value.as_array()?.as_slice() else { return None };
        let outcome = match (kind.as_str()?, parts) {
            ("absent", []) => Outcome::Absent,
            ("refused", [reason]) => Outcome::Refused { reason: FromJson::from_json(reason)? },
            ("ran", [failure, output, omitted, took_ms]) => Outcome::Ran(job::Finished {
                failure: FromJson::from_json(failure)?,
                output: FromJson::from_json(output)?,
                omitted: FromJson::from_json(omitted)?,
                took_ms: FromJson::from_json(took_ms)?,
            }),
            ("found", [answer]) => Outcome::Found(FromJson::from_json(answer)?),
            ("not-found", [nowhere, reason]) => Outcome::NotFound {
                nowhere: FromJson::from_json(nowhere)?,
                reason: FromJson::from_json(reason)?,
            },
            ("configured", []) => Outcome::Configured,
            ("no-runner", []) => Outcome::NoRunner,
            _ => return None,
        };
        Some(Answer { id: FromJson::from_json(id)?, outcome })
    }
}

type Request = (Task, oneshot::Sender<Outcome>);

/// The daemon's end. Clones speak to the same process.
#[derive(Clone, Debug)]
pub struct Runner {
    requests: mpsc::Sender<Request>,
}

/// A process that runs, and that nobody speaks with yet.
pub struct Started {
    stream: BlockingStream,
}

impl Runner {
    /// Starts the process, for the configuration in `config`. To be called before privileges are given up.
    ///
    /// # Errors
    ///
    /// When this program cannot be executed once more.
    pub fn start(config: &Path) -> io::Result<Started> {
        Self::start_program(Path::new("/proc/self/exe"), config)
    }

    fn start_program(program: &Path, config: &Path) -> io::Result<Started> {
        let (stream, theirs) = BlockingStream::pair()?;
        // It is not waited for: it outlives the daemon by what it is just doing.
        Command::new(program)
            .arg0("bonding")
            .args([SUBCOMMAND.as_ref(), config.as_os_str()])
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Not killed by the terminal's Ctrl-C, which is the daemon's to answer.
            .process_group(0)
            .spawn()?;
        Ok(Started { stream })
    }

    #[cfg(test)]
    pub(super) fn over(stream: BlockingStream) -> Runner {
        Started { stream }.attach().expect("a runtime")
    }

    /// Does a task, and waits for it.
    pub async fn run(&self, task: Task) -> Outcome {
        let (answer, answered) = oneshot::channel();
        if self.requests.send((task, answer)).await.is_err() {
            return Outcome::NoRunner;
        }
        answered.await.unwrap_or(Outcome::NoRunner)
    }
}

impl Started {
    /// Begins to speak with it. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the runtime does not take the socket.
    pub fn attach(self) -> io::Result<Runner> {
        self.stream.set_nonblocking(true)?;
        let stream = UnixStream::from_std(self.stream)?;
        let (requests, inbox) = mpsc::channel(PIPELINE);
        super::spawn(speak(stream, inbox));
        Ok(Runner { requests })
    }
}

/// Passes requests on and answers back until one end is gone.
async fn speak(mut stream: UnixStream, mut inbox: mpsc::Receiver<Request>) {
    let (reader, mut writer) = stream.split();
    let mut reader = BufReader::new(reader);
    let mut waiting: SortedMap<u32, oneshot::Sender<Outcome>> = SortedMap::new();
    let mut next = 0u32;
    let mut line = Vec::new();
    loop {
        let room = MAX_LINE.saturating_sub(line.len() as u64);
        let mut limited = (&mut reader).take(room);
        tokio::select! {
            request = inbox.recv() => {
                let Some((task, answer)) = request else { return };
                next = next.wrapping_add(1);
                waiting.insert(next, answer);
                if let Err(error) = writer.write_all(Order { id: next, task }.line().as_bytes()).await {
                    return log::error!("the process that runs scripts is gone: {error}");
                }
            }
            // What was read of a line stays in `line` when the other branch comes first.
            read = limited.read_until(b'\n', &mut line) => {
                let whole = matches!(read, Ok(1..)) && line.ends_with(b"\n");
                let answer = whole.then(|| json::read::<Answer>(&line).ok()).flatten();
                let Some(Answer { id, outcome }) = answer else {
                    return log::error!("the process that runs scripts is gone: hooks are not run any more, restart the daemon");
                };
                line.clear();
                if let Some(waiter) = waiting.remove(&id) {
                    let _ = waiter.send(outcome);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
