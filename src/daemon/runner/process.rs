//! The process itself: reads tasks from its standard input, a socket, and runs what the configuration names.
//!
//! Scripts run one after the other, in the order of their tasks. The watchdog's action does not wait for them, nor they
//! for it: it may well be a restart of the daemon, whose end waits for scripts.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Answer, Hook, MAX_LINE, Order, Outcome, Task, job, trust};
use crate::bond::sorted::SortedMap;
use crate::config::{self, Hooks, MAX_LINKS, Script};
use crate::daemon::{block_on, spawn_blocking};
use crate::io::confine::survive_termination;
use crate::json;
use crate::net::netifd::Ubus;

/// Where programs are looked for.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables that a script is given: MLVPN's, and our own.
pub const VARIABLES: [&str; 15] = [
    "DEVICE",
    "MTU",
    "IP4",
    "IP6",
    "IP4_GATEWAY",
    "IP6_GATEWAY",
    "IP4_ROUTES",
    "IP6_ROUTES",
    "BONDING_EVENT",
    "BONDING_ROLE",
    "BONDING_CONFIG",
    "BONDING_PEER",
    "BONDING_LINK",
    "BONDING_LINK_DEVICE",
    "BONDING_REASON",
];

/// Bytes of a variable's value or of an argument, at most.
const MAX_TEXT: usize = 32 * 1_024;

/// Questions to netifd at the same time; as many again as a client has links may wait. It asks for each once.
const MAX_QUERIES: usize = 8;

/// What of the configuration this process needs.
#[derive(Default)]
struct Allowed {
    hooks: Option<Hooks>,
    action: Vec<String>,
}

struct State {
    config: PathBuf,
    allowed: Mutex<Allowed>,
    answers: Mutex<UnixStream>,
    queries: Mutex<Queries>,
    /// The daemon is gone: nothing more is begun.
    closing: AtomicBool,
}

/// Questions to netifd.
#[derive(Default)]
struct Queries {
    running: usize,
    waiting: VecDeque<(u32, String)>,
}

/// Serves until the daemon closes its end of the socket, which is standard input, and until what runs then has ended.
///
/// # Errors
///
/// When standard input is not a socket.
pub fn serve(config: &Path) -> io::Result<()> {
    survive_termination()?;
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Fails for anything else that a person may have connected.
    stream.peer_addr()?;
    serve_on(stream, config)
}

pub(super) fn serve_on(stream: UnixStream, config: &Path) -> io::Result<()> {
    let state = Arc::new(State {
        config: config.to_owned(),
        allowed: Mutex::default(),
        answers: Mutex::new(stream.try_clone()?),
        queries: Mutex::default(),
        closing: AtomicBool::new(false),
    });
    state.configure();
    let (mut scripts, mut actions) = (Lane::default(), Lane::default());
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = (&mut reader).take(MAX_LINE).read_until(b'\n', &mut line);
        if !matches!(read, Ok(1..)) {
            break;
        }
        // Both ends are the same program: whoever cannot be understood is not the daemon.
        let Ok(order) = json::read::<Order>(&line) else { break };
        match order.task {
            Task::Script { .. } => scripts.push(&state, order),
            Task::Action => actions.push(&state, order),
            Task::Interface { name } => state.query(order.id, name),
            Task::Configure => {
                state.configure();
                state.answer(order.id, Outcome::Configured);
            }
        }
    }
    state.closing.store(true, Ordering::Relaxed);
    // What runs has its limit of time.
    scripts.finish();
    actions.finish();
    Ok(())
}

/// What is done one after the other: each on a thread that waits for the one before. The daemon has one hook at a time
/// and one action on their way.
#[derive(Default)]
struct Lane(Option<JoinHandle<()>>);

impl Lane {
    fn push(&mut self, state: &Arc<State>, Order { id, task }: Order) {
        let (before, state) = (Lane(self.0.take()), state.clone());
        self.0 = Some(spawn_blocking(move || {
            before.finish();
            if !state.closing.load(Ordering::Relaxed) {
                state.answer(id, state.perform(task));
            }
        }));
    }

    /// Waits for what was begun.
    fn finish(self) {
        if let Some(last) = self.0 {
            let _ = last.join();
        }
    }
}

impl State {
    fn perform(&self, task: Task) -> Outcome {
        match task {
            Task::Script { hook, arguments, environment } => self.script(hook, &arguments, &environment),
            Task::Action => self.action(),
            Task::Interface { .. } | Task::Configure => Outcome::Absent,
        }
    }

    /// Reads the configuration; one that cannot be used changes nothing, as in the daemon.
    fn configure(&self) {
        let Some(config) = config::load_file(&self.config).ok().and_then(|report| report.config) else {
            return;
        };
        let action = config.bond.watchdog.map(|watchdog| watchdog.action).unwrap_or_default();
        let allowed = Allowed { hooks: Some(config.bond.hooks), action };
        *self.allowed.lock().unwrap_or_else(PoisonError::into_inner) = allowed;
    }

    fn script(&self, hook: Hook, arguments: &[String], environment: &SortedMap<String, String>) -> Outcome {
        let known = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(hooks) = &known.hooks else { return Outcome::Absent };
        let Some(script) = script_of(hooks, hook).cloned() else { return Outcome::Absent };
        let limit = hooks.timeout;
        drop(known);
        if !script.configured && !script.path.exists() {
            return Outcome::Absent;
        }
        let harmless = |text: &String| text.len() <= MAX_TEXT && !text.contains('\0');
        let fits =
            environment.iter().all(|(name, value)| VARIABLES.contains(&name.as_str()) && harmless(value));
        if arguments.len() > 8 || !arguments.iter().all(harmless) || !fits {
            return Outcome::Refused { reason: "its arguments are not those of a hook".into() };
        }
        execute(&script.path, arguments, environment, limit)
    }

    fn action(&self) -> Outcome {
        let known = self.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(hooks), Some((program, arguments))) = (&known.hooks, known.action.split_first()) else {
            return Outcome::Absent;
        };
        let (program, arguments, limit) = (PathBuf::from(program), arguments.to_vec(), hooks.timeout);
        drop(known);
        execute(&program, &arguments, &SortedMap::new(), limit)
    }

    /// Asks netifd, on a thread of its own.
    fn query(self: &Arc<Self>, id: u32, name: String) {
        let mut queries = self.queries.lock().unwrap_or_else(PoisonError::into_inner);
        if queries.waiting.len() >= MAX_LINKS {
            drop(queries);
            let reason = "too many questions to netifd wait for an answer".to_owned();
            return self.answer(id, Outcome::NotFound { nowhere: false, reason });
        }
        queries.waiting.push_back((id, name));
        if queries.running < MAX_QUERIES {
            queries.running += 1;
            let state = self.clone();
            spawn_blocking(move || {
                while let Some((id, name)) = state.next_query() {
                    state.answer(id, ask_netifd(&name));
                }
            });
        }
    }

    /// The question that has waited for longest; none ends the thread that asks.
    fn next_query(&self) -> Option<(u32, String)> {
        let mut queries = self.queries.lock().unwrap_or_else(PoisonError::into_inner);
        let next = queries.waiting.pop_front();
        queries.running -= usize::from(next.is_none());
        next
    }

    fn answer(&self, id: u32, outcome: Outcome) {
        let line = Answer { id, outcome }.line();
        // Nobody is left to be told when the daemon is gone.
        let _ = self.answers.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}

fn script_of(hooks: &Hooks, hook: Hook) -> Option<&Script> {
    match hook {
        Hook::PreUp => Some(&hooks.preup),
        Hook::Up => Some(&hooks.up),
        Hook::PreDown => Some(&hooks.predown),
        Hook::Down => Some(&hooks.down),
        Hook::Link => hooks.link_script.as_ref(),
    }
}

fn execute(
    program: &Path,
    arguments: &[String],
    environment: &SortedMap<String, String>,
    limit: Duration,
) -> Outcome {
    if let Err(distrust) = trust::check(program) {
        return Outcome::Refused { reason: distrust.to_string() };
    }
    // By the name that was written: a program may do different things by different names.
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("PATH", PATH).envs(environment);
    Outcome::Ran(job::run(&mut command, limit))
}

fn ask_netifd(name: &str) -> Outcome {
    match block_on(Ubus::default().ask(name)) {
        Ok(Ok(answer)) => Outcome::Found(String::from_utf8_lossy(&answer).into_owned()),
        Ok(Err(error)) => Outcome::NotFound { nowhere: error.is_final(), reason: error.to_string() },
        Err(error) => Outcome::NotFound { nowhere: false, reason: error.to_string() },
    }
}
