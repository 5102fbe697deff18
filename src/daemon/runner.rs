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

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

use crate::bond::sorted::SortedMap;
use crate::net::netifd::Resolved;

/// The hidden subcommand that is this process.
pub const SUBCOMMAND: &str = "run-scripts";

/// Bytes of a line, at most. The longest is netifd's answer or a script's output, both far below.
const MAX_LINE: u64 = 256 * 1024;

/// Tasks on their way; more wait.
const PIPELINE: usize = 64;

/// The scripts of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
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
    /// Where netifd has the interface.
    Found(Resolved),
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

#[derive(Serialize, Deserialize)]
struct Order {
    id: u32,
    task: Task,
}

#[derive(Serialize, Deserialize)]
struct Answer {
    id: u32,
    outcome: Outcome,
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
                let Ok(mut order) = serde_json::to_vec(&Order { id: next, task }) else { continue };
                order.push(b'\n');
                waiting.insert(next, answer);
                if let Err(error) = writer.write_all(&order).await {
                    return log::error!("the process that runs scripts is gone: {error}");
                }
            }
            // What was read of a line stays in `line` when the other branch comes first.
            read = limited.read_until(b'\n', &mut line) => {
                let whole = matches!(read, Ok(1..)) && line.ends_with(b"\n");
                let answer = whole.then(|| serde_json::from_slice::<Answer>(&line).ok()).flatten();
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
