//! One program, run to its end within a limit of time, with a limit of what is kept of its output.

use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

use crate::daemon::spawn_blocking;
use crate::json::decimal;

/// Bytes of output that are kept.
pub const KEPT_OUTPUT: usize = 4_096;

/// Between the request to end (SIGTERM) and the end (SIGKILL).
const GRACE: Duration = Duration::from_secs(2);

/// A process that is stuck in the kernel may not even die; it is waited for so long.
const BURIAL: Duration = Duration::from_secs(2);

/// How a program has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// What went wrong, in words; `None` after exit status 0.
    pub failure: Option<String>,
    /// The beginning of its output, standard error included.
    pub output: String,
    /// Bytes of output behind that.
    pub omitted: u64,
    /// How long it ran, in milliseconds.
    pub took_ms: u64,
}

/// Runs `command` in a process group of its own, in `/`, with nothing to read. When it has not ended after `limit` its
/// group is told to end and, where that does not help, killed. What it leaves in the background stays, but nobody
/// reads its output any more.
pub fn run(command: &mut Command, limit: Duration) -> Finished {
    let started = Instant::now();
    let mut output = Output::default();
    let failure = attempt(command, limit, started, &mut output).unwrap_or_else(|error| {
        let why = match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT) => "its interpreter (the first line, behind #!) does not exist".to_owned(),
            Some(Errno::ENOEXEC) => {
                "it is neither a program nor a script with #! in its first line".to_owned()
            }
            _ => error.to_string(),
        };
        Some(format!("could not be run: {why}"))
    });
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let text = String::from_utf8_lossy(&output.kept).into_owned();
    Finished { failure, output: text, omitted: output.omitted, took_ms }
}

/// Returns what went wrong after it was started.
fn attempt(
    command: &mut Command,
    limit: Duration,
    started: Instant,
    output: &mut Output,
) -> io::Result<Option<String>> {
    let (mut reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer).process_group(0).current_dir("/");
    let spawned = command.spawn();
    // The command holds the writing end: without this there is no end of output.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = spawned?;
    let group =
        Pid::from_raw(i32::try_from(child.id()).map_err(|error| io::Error::other(error.to_string()))?);
    let flags = OFlag::from_bits_truncate(fcntl(&reader, FcntlArg::F_GETFL)?);
    fcntl(&reader, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;

    // Tells of the end by closing a pipe, and leaves the dead process to be reaped below: until then its number, and that
    // of its group, cannot belong to anybody else.
    let (ended, tell) = io::pipe()?;
    spawn_blocking(move || {
        while waitid(Id::Pid(group), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
        drop(tell);
    });

    if wait(&mut reader, &ended, started + limit, output)? {
        output.read(&mut reader);
        return Ok(describe(child.wait()?));
    }
    // Whoever is gone already needs no signal.
    let _ = killpg(group, Signal::SIGTERM);
    wait(&mut reader, &ended, Instant::now() + GRACE, output)?;
    let _ = killpg(group, Signal::SIGKILL);
    bury(child, &mut reader, &ended, output)?;
    Ok(Some(format!("was ended because it ran for more than {} s", decimal(&limit.as_secs_f64().into()))))
}

fn bury(
    mut child: Child,
    reader: &mut PipeReader,
    ended: &PipeReader,
    output: &mut Output,
) -> io::Result<()> {
    if wait(reader, ended, Instant::now() + BURIAL, output)? {
        child.wait()?;
    }
    output.read(reader);
    Ok(())
}

fn describe(status: ExitStatus) -> Option<String> {
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(code), _) => Some(format!("ended with exit status {code}")),
        (None, Some(signal)) => Some(format!(
            "was killed by {}",
            Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string())
        )),
        (None, None) => Some("ended in an unknown way".to_owned()),
    }
}

/// Reads output until the process has ended (true) or the time is up.
fn wait(
    reader: &mut PipeReader,
    ended: &PipeReader,
    deadline: Instant,
    output: &mut Output,
) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that the last wait does not spin.
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let mut descriptors = vec![PollFd::new(ended.as_fd(), PollFlags::POLLIN)];
        let source: BorrowedFd<'_> = reader.as_fd();
        if !output.closed {
            descriptors.push(PollFd::new(source, PollFlags::POLLIN));
        }
        let ready = match poll(&mut descriptors, timeout) {
            Ok(ready) => ready,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error.into()),
        };
        let has = |index: usize| {
            descriptors.get(index).and_then(PollFd::revents).is_some_and(|events| !events.is_empty())
        };
        let (is_over, has_output) = (has(0), has(1));
        if has_output {
            output.read(reader);
        }
        if is_over {
            return Ok(true);
        }
        if ready == 0 || left.is_zero() {
            return Ok(false);
        }
    }
}

#[derive(Default)]
struct Output {
    kept: Vec<u8>,
    omitted: u64,
    closed: bool,
}

impl Output {
    /// Takes what is there, up to a limit that lets the deadline be looked at.
    fn read(&mut self, reader: &mut PipeReader) {
        let mut buffer = [0; 4_096];
        for _ in 0..64 {
            match reader.read(&mut buffer) {
                Ok(0) => self.closed = true,
                Ok(length) => {
                    let fresh = buffer.get(..length).unwrap_or_default();
                    let room = KEPT_OUTPUT.saturating_sub(self.kept.len()).min(length);
                    self.kept.extend(fresh.iter().take(room));
                    self.omitted += (length - room) as u64;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => self.closed = true,
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str, limit: Duration) -> Finished {
        let _descriptors = lab::descriptors();
        run(Command::new("/bin/sh").arg("-c").arg(script), limit)
    }

    /// With a limit that is short, and yet long enough for the first output.
    fn shell_that_says_something(script: &str) -> (Finished, Duration) {
        let limits = [300, 3_000, 30_000].map(Duration::from_millis);
        let tried = limits.map(|limit| std::cell::LazyCell::new(move || (shell(script, limit), limit)));
        let said = tried.iter().find(|tried| !tried.0.output.is_empty());
        (**said.expect("some output")).clone()
    }

    #[test]
    fn output_and_failure_are_told() {
        let finished = shell("echo out; echo err >&2; pwd", LONG);
        assert_eq!((finished.output.as_str(), finished.failure), ("out\nerr\n/\n", None));
        let failed = shell("echo why; exit 3", LONG);
        assert_eq!(failed.failure.as_deref(), Some("ended with exit status 3"));
        assert_eq!(failed.output, "why\n");
        assert_eq!(shell("kill -9 $$", LONG).failure.as_deref(), Some("was killed by SIGKILL"));
        let _descriptors = lab::descriptors();
        let absent = run(&mut Command::new("/nonexistent/program"), LONG).failure.unwrap();
        assert!(absent.starts_with("could not be run: "), "{absent}");
    }

    #[test]
    fn much_output_is_read_and_forgotten() {
        let finished = shell("yes x | head -c 20000000", LONG);
        assert_eq!(finished.failure, None);
        assert_eq!(finished.output.len(), KEPT_OUTPUT);
        assert_eq!(finished.omitted, 20_000_000 - KEPT_OUTPUT as u64);
    }

    #[test]
    fn whoever_hangs_is_ended_with_all_children() {
        let (finished, limit) = shell_that_says_something("sleep 1000 & echo $!; sleep 1000");
        let reason = format!("was ended because it ran for more than {} s", limit.as_secs_f64());
        assert_eq!(finished.failure, Some(reason));
        let grandchild: u32 = finished.output.trim().parse().unwrap();
        // Dead, or a zombie that nobody has reaped yet.
        let state = || std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        let lives = |state: &str| !state.is_empty() && !state.contains(") Z ");
        assert!(lab::becomes(|| !lives(&state())), "{}", state());

        let deaf = shell("trap '' TERM; while :; do sleep 0.05; done", Duration::from_millis(300));
        assert!(deaf.failure.unwrap().starts_with("was ended"));
    }

    #[test]
    fn endless_output_does_not_hold_up_the_limit() {
        let (finished, limit) = shell_that_says_something("yes");
        assert!(finished.failure.is_some() && finished.omitted > 0);
        assert!(Duration::from_millis(finished.took_ms) < limit + Duration::from_secs(60));
    }

    #[test]
    fn what_stays_in_the_background_is_not_waited_for() {
        let finished = shell("sleep 30 & echo ready", LONG);
        assert_eq!((finished.output.as_str(), finished.failure), ("ready\n", None));
        assert!(finished.took_ms < 20_000, "{} ms", finished.took_ms);
    }
}
