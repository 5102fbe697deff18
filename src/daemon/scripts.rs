//! Hooks that wait for their turn: one runs at a time, in the order in which things happened.

use std::future::Future;
use std::pin::Pin;

use super::runner::job::Finished;
use super::runner::{Hook, Outcome, Runner, Task};
use crate::bond::sorted::SortedMap;

/// Hooks that wait, at most: one that hangs must not make a link that flaps fill the memory.
const MAX_WAITING: usize = 64;

/// A hook that is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which.
    pub hook: Hook,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: SortedMap<String, String>,
}

impl Call {
    /// For people: the option, and what the script is told.
    pub fn label(&self) -> String {
        let words = self.arguments.iter().skip(1).map(String::as_str);
        [self.hook.option()].into_iter().chain(words).collect::<Vec<_>>().join(" ")
    }
}

/// What became of a hook.
#[derive(Debug, PartialEq, Eq)]
pub struct Report {
    /// See [`Call::label`].
    pub label: String,
    /// How it went.
    pub outcome: Outcome,
}

impl Report {
    /// What went wrong, in one line; `None` if nothing did.
    pub fn failure(&self) -> Option<String> {
        match &self.outcome {
            Outcome::Refused { reason } => Some(format!("not run: {reason}")),
            Outcome::NoRunner => Some("not run: the process that runs scripts is gone".to_owned()),
            Outcome::Ran(Finished { failure: Some(failure), output, .. }) => {
                let last = output.lines().rfind(|line| !line.trim().is_empty());
                Some(last.map_or_else(|| failure.clone(), |line| format!("{failure}: {}", clean(line))))
            }
            _ => None,
        }
    }

    /// The lines that it has printed, for the log.
    pub fn output(&self) -> Vec<String> {
        let Outcome::Ran(finished) = &self.outcome else { return Vec::new() };
        let mut lines: Vec<String> = finished.output.lines().map(clean).collect();
        if finished.omitted > 0 {
            lines.push(format!("… and {} bytes more", finished.omitted));
        }
        lines
    }
}

/// Text of a script as it may stand in a log.
fn clean(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim_end().to_owned()
}

type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// The hooks that run and wait.
pub struct Scripts {
    runner: Runner,
    waiting: Vec<Call>,
    running: Option<(String, Running)>,
}

impl Scripts {
    /// With the process that runs them.
    pub fn new(runner: Runner) -> Self {
        Scripts { runner, waiting: Vec::new(), running: None }
    }

    /// Lets a hook run after those that wait. Returns a link's event that is dropped for it, if there are too many.
    #[must_use]
    pub fn push(&mut self, call: Call) -> Option<Call> {
        let full = self.waiting.len() >= MAX_WAITING;
        let oldest = full.then(|| self.waiting.iter().position(|call| call.hook == Hook::Link)).flatten();
        let dropped = oldest.map(|position| self.waiting.remove(position));
        self.waiting.push(call);
        dropped
    }

    /// Forgets the hooks of links that wait: the end makes them pointless.
    pub fn forget_links(&mut self) {
        self.waiting.retain(|call| call.hook != Hook::Link);
    }

    /// Whether nothing runs or waits.
    pub fn is_idle(&self) -> bool {
        self.running.is_none() && self.waiting.is_empty()
    }

    /// Waits for the end of the hook that runs; for ever while there is none. Can be cancelled.
    pub async fn next(&mut self) -> Report {
        if self.running.is_none() {
            if self.waiting.is_empty() {
                return std::future::pending().await;
            }
            let call = self.waiting.remove(0);
            let label = call.label();
            let Call { hook, arguments, environment } = call;
            let runner = self.runner.clone();
            let run = async move { runner.run(Task::Script { hook, arguments, environment }).await };
            self.running = Some((label, Box::pin(run)));
        }
        let Some((_, running)) = &mut self.running else { return std::future::pending().await };
        let outcome = running.await;
        let label = self.running.take().map(|(label, _)| label).unwrap_or_default();
        Report { label, outcome }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(hook: Hook, what: &str) -> Call {
        let arguments = vec!["bond0".to_owned(), what.to_owned()];
        Call { hook, arguments, environment: SortedMap::new() }
    }

    #[test]
    fn a_flapping_link_drops_its_own_oldest_events_only() {
        let (stream, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut scripts = Scripts::new(Runner::over(stream));
            assert_eq!(scripts.push(call(Hook::Up, "up")), None);
            for n in 1..MAX_WAITING {
                assert_eq!(scripts.push(call(Hook::Link, &n.to_string())), None);
            }
            assert_eq!(scripts.push(call(Hook::Link, "last")), Some(call(Hook::Link, "1")));
            assert_eq!(scripts.waiting.len(), MAX_WAITING);
            scripts.forget_links();
            assert_eq!(scripts.waiting, [call(Hook::Up, "up")]);
        });
    }

    #[test]
    fn reports_are_one_line_for_events_and_all_for_the_log() {
        let ran = |failure: Option<&str>, output: &str| Report {
            label: String::new(),
            outcome: Outcome::Ran(Finished {
                failure: failure.map(str::to_owned),
                output: output.to_owned(),
                omitted: 7,
                took_ms: 1,
            }),
        };
        assert_eq!(ran(None, "done\n").failure(), None);
        let failed = ran(Some("ended with exit status 1"), "a\nno \x1b[31msuch file\n\n");
        assert_eq!(failed.failure().unwrap(), "ended with exit status 1: no  [31msuch file");
        assert_eq!(failed.output(), ["a", "no  [31msuch file", "", "… and 7 bytes more"]);
        assert_eq!(call(Hook::Link, "rtun_up").label(), "link_script rtun_up");
    }
}
