//! The watchdog of the bond: who gets no answer for too long runs an action, and each time waits longer for the next.

use std::future::{Future as _, poll_fn};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::task::Poll;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use crate::bond::Time;
use crate::config::{self, store};
use crate::io::ping::{self, TOKEN_BYTES};
use crate::json::{self, FromJson, get};

/// The longest pause between two actions, unless `watchdog_timeout` is longer.
const MAX_PAUSE: Duration = Duration::from_secs(3_600);

/// Addresses that are pinged at the same time, at most.
const MAX_ADDRESSES: usize = 8;

/// What the watchdog knows.
#[derive(Debug)]
pub struct Watchdog {
    config: config::Watchdog,
    /// Actions since the bond has last worked.
    actions: u32,
    /// From here on silence counts: the last answer, the last action, or when a link came up.
    quiet_from: Time,
    last_action: Option<Time>,
    last_answer: Option<(Time, Duration)>,
    last_error: Option<String>,
    pinged: Option<Time>,
    pending: bool,
    waiting: bool,
    acting: bool,
    memory: PathBuf,
}

/// What it tells of itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WatchdogStatus {
    /// Who is pinged.
    pub addresses: Vec<String>,
    /// `ok`, `silent`, `acting`, or `waiting` while no link is up.
    pub state: &'static str,
    /// Milliseconds since the last answer; `null` if there was none.
    pub last_answer_ms: Option<u64>,
    /// How long that took, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Why the last ping had no answer; empty if it had one.
    pub error: String,
    /// Actions since the bond has last worked.
    pub actions: u32,
    /// Milliseconds until the next action, if nobody answers and a link stays up.
    pub next_action_ms: Option<u64>,
}

/// What a daemon leaves to the one that its action starts.
#[derive(Serialize)]
struct Memory {
    actions: u32,
    /// When the last action was, in milliseconds since the system's start.
    at_ms: u64,
}

impl FromJson for Memory {
    fn from_json(value: &Value) -> Option<Self> {
        Some(Memory { actions: get(value, "actions")?, at_ms: get(value, "at_ms")? })
    }
}

impl Watchdog {
    /// `memory` is a file that a reboot removes: it holds the number of actions over a restart of the daemon, which
    /// most likely is the action.
    pub fn new(config: config::Watchdog, memory: PathBuf, now: Time) -> Self {
        let mut watchdog = Watchdog {
            config,
            actions: 0,
            quiet_from: now,
            last_action: None,
            last_answer: None,
            last_error: None,
            pinged: None,
            pending: false,
            waiting: true,
            acting: false,
            memory,
        };
        watchdog.actions = watchdog.recall(now);
        watchdog
    }

    /// Takes other options, and goes on where it was.
    pub fn configure(&mut self, config: config::Watchdog) {
        self.config = config;
    }

    /// The addresses to ping, if it is time. The answer goes to [`Watchdog::answer`].
    pub fn due_ping(&mut self, link_up: bool, now: Time) -> Option<Vec<IpAddr>> {
        // Ticks come a little late, never early: without some slack every second one would be missed.
        let period = self.config.period.saturating_sub(Duration::from_millis(100));
        if !link_up || self.pending || self.pinged.is_some_and(|at| now.since(at) < period) {
            return None;
        }
        self.pinged = Some(now);
        self.pending = true;
        Some(self.config.addresses.iter().take(MAX_ADDRESSES).copied().collect())
    }

    /// How long an answer is waited for.
    pub fn patience(&self) -> Duration {
        self.config.period.min(self.config.timeout)
    }

    /// Takes the answer to a ping. Returns whether the bond works again after an action.
    pub fn answer(&mut self, answer: io::Result<Duration>, now: Time) -> bool {
        self.pending = false;
        match answer {
            Ok(rtt) => {
                self.last_answer = Some((now, rtt));
                self.last_error = None;
                self.quiet_from = now;
                // One answer between two actions is no recovery.
                let settled = self.last_action.is_none_or(|at| now.since(at) >= self.config.timeout);
                if self.actions > 0 && settled {
                    self.actions = 0;
                    self.forget();
                    return true;
                }
            }
            Err(error) => {
                self.last_error = Some(match error.kind() {
                    io::ErrorKind::TimedOut => "no answer".to_owned(),
                    _ => error.to_string(),
                });
            }
        }
        false
    }

    /// Whether the action is to be run now; if so, [`Watchdog::acted`] is to follow. While no link is up there is
    /// nothing that an action could mend, and silence does not count.
    pub fn due_action(&mut self, link_up: bool, now: Time) -> bool {
        self.waiting = !link_up;
        if !link_up {
            self.quiet_from = now;
        }
        if self.acting || now.since(self.quiet_from) < self.pause() {
            return false;
        }
        self.actions = self.actions.saturating_add(1);
        self.acting = true;
        self.last_action = Some(now);
        self.remember(now);
        true
    }

    /// The action has ended.
    pub fn acted(&mut self, now: Time) {
        self.acting = false;
        self.quiet_from = now;
    }

    /// For how long nobody has answered, to say why the action is run.
    pub fn silence(&self, now: Time) -> Duration {
        now.since(self.last_answer.map_or(self.quiet_from, |(at, _)| at))
    }

    /// The command to run.
    pub fn action(&self) -> String {
        self.config.action.join(" ")
    }

    /// For the status.
    pub fn status(&self, now: Time) -> WatchdogStatus {
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let quiet = now.since(self.quiet_from);
        WatchdogStatus {
            addresses: self.config.addresses.iter().map(IpAddr::to_string).collect(),
            state: match () {
                () if self.waiting => "waiting",
                () if self.acting => "acting",
                () if self.last_error.is_some() => "silent",
                () => "ok",
            },
            last_answer_ms: self.last_answer.map(|(at, _)| ms(now.since(at))),
            rtt_ms: self.last_answer.map(|(_, rtt)| (rtt.as_secs_f64() * 1e5).round() / 1e2),
            error: self.last_error.clone().unwrap_or_default(),
            actions: self.actions,
            next_action_ms: (!self.waiting && !self.acting).then(|| ms(self.pause().saturating_sub(quiet))),
        }
    }

    /// How much silence there must be: twice as much after each action.
    fn pause(&self) -> Duration {
        let longest = MAX_PAUSE.max(self.config.timeout);
        self.config.timeout.saturating_mul(1 << self.actions.min(16)).min(longest)
    }

    /// Actions before the start, as far as they still matter.
    fn recall(&self, now: Time) -> u32 {
        let known = std::fs::read(&self.memory).ok();
        let Some(memory) = known.and_then(|text| json::read::<Memory>(&text).ok()) else {
            return 0;
        };
        // Long ago, the bond must have been stopped or have worked in between.
        let age = now.since(Time::from_millis(memory.at_ms));
        if age > MAX_PAUSE.max(self.config.timeout) * 2 { 0 } else { memory.actions }
    }

    fn remember(&self, now: Time) {
        let memory = Memory { actions: self.actions, at_ms: now.as_nanos() / 1_000_000 };
        if let Err(error) = store::replace(&self.memory, &json!(memory).to_string()) {
            log::warn!(
                "{}: {error}: the watchdog's pauses do not grow over a restart",
                self.memory.display()
            );
        }
    }

    fn forget(&self) {
        let _ = std::fs::remove_file(&self.memory);
    }
}

/// Pings all of them by `device`; the first answer counts.
///
/// # Errors
///
/// Why the last one did not answer.
pub async fn ping_any(device: String, addresses: Vec<IpAddr>, limit: Duration) -> io::Result<Duration> {
    let ping = async |address| {
        let mut token = [0; TOKEN_BYTES];
        getrandom::fill(&mut token).map_err(|error| io::Error::other(error.to_string()))?;
        ping::echo(&device, address, token, limit).await
    };
    let mut pings: Vec<_> = addresses.into_iter().map(|address| Box::pin(ping(address))).collect();
    let mut result = Err(io::ErrorKind::AddrNotAvailable.into());
    poll_fn(|context| {
        pings.retain_mut(|ping| match ping.as_mut().poll(context) {
            Poll::Ready(answer) if result.is_err() => {
                result = answer;
                false
            }
            Poll::Ready(_) => false,
            Poll::Pending => true,
        });
        if result.is_ok() || pings.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    result
}

#[cfg(test)]
#[path = "watchdog_tests.rs"]
mod tests;
