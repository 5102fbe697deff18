//! Processes in a namespace, which die with this one.

use std::collections::VecDeque;
use std::ffi::CStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::ptr;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Namespace, context, ready_within};

/// Lines of output that are kept of a process; the oldest are forgotten.
const LINES_KEPT: usize = 20_000;

/// A process in a namespace. It is killed when this is dropped, and when this process ends in any way.
///
/// Its output is collected line by line, stdout and stderr in one list. With `LAB_OUTPUT=1` in the environment it is
/// also copied to stderr, for a person who wants to see what happens.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
    name: String,
    status: Option<ExitStatus>,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
}

/// What a process that has ended leaves.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// Its output, stdout and stderr, a line each.
    pub output: Vec<String>,
}

#[derive(Debug, Default)]
struct Output {
    state: Mutex<OutputState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct OutputState {
    lines: VecDeque<String>,
    /// How many lines were forgotten.
    forgotten: usize,
    open_streams: usize,
}

impl Namespace {
    /// Starts a process in the namespace. Its stdin is empty and its output is collected; set anything else
    /// (arguments, environment) on `command`.
    ///
    /// The process has a mount namespace of its own in which `/sys` shows the devices of the network namespace, where
    /// the kernel lets us mount that.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn spawn(&self, mut command: Command) -> io::Result<Process> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let namespace = self.clone();
        let parent = std::process::id();
        // SAFETY: between fork and exec the closure makes system calls only; it neither allocates nor locks.
        unsafe {
            command.pre_exec(move || enter(namespace.as_fd(), parent));
        }
        let mut child = spawn_on_lasting_thread(command)
            .map_err(|error| context(error, format_args!("cannot start {name} in {}", self.name())))?;
        let pidfd = match pidfd(&child) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        };
        let output = Arc::new(Output::default());
        output.lock().open_streams = 2;
        let label = format!("{} {name}", self.name());
        let stdout = child.stdout.take().map(|stream| output.collect(stream, &label));
        let stderr = child.stderr.take().map(|stream| output.collect(stream, &label));
        let readers = stdout.into_iter().chain(stderr).collect();
        Ok(Process { child, pidfd, name, status: None, output, readers })
    }

    /// Runs a process in the namespace to its end.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or does not end in time (it is killed then).
    pub fn execute(&self, command: Command, timeout: Duration) -> io::Result<Finished> {
        let mut process = self.spawn(command)?;
        match process.wait(timeout)? {
            Some(status) => Ok(process.finish(status)),
            None => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "{} did not end within {timeout:?}; output:\n{}",
                    process.name,
                    process.output().join("\n")
                ),
            )),
        }
    }
}

impl Process {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Puts it before what else the machine has to do, where we may: a measurement is to be of the program and not of
    /// its neighbours.
    pub fn prefer(&self) {
        // SAFETY: a system call with plain values. Its failure costs accuracy only.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, self.id(), -10) };
    }

    /// Whether it still runs.
    ///
    /// # Errors
    ///
    /// Those of waitpid(2).
    pub fn is_running(&mut self) -> io::Result<bool> {
        Ok(self.wait(Duration::ZERO)?.is_none())
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// When it has ended.
    pub fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.status.is_some() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} has ended", self.name)));
        }
        // Until we have waited for it the id cannot belong to another process.
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// Waits until it has ended; `None` when it has not within `timeout`.
    ///
    /// # Errors
    ///
    /// Those of waitpid(2).
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        if self.status.is_none() && ready_within(self.pidfd.as_fd(), PollFlags::POLLIN, timeout)? {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Asks it to end (SIGTERM), and kills it when it has not within `timeout`.
    ///
    /// # Errors
    ///
    /// `TimedOut` when it had to be killed.
    pub fn terminate(mut self, timeout: Duration) -> io::Result<Finished> {
        if self.is_running()? {
            self.signal(Signal::SIGTERM)?;
        }
        match self.wait(timeout)? {
            Some(status) => Ok(self.finish(status)),
            None => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("{} did not end within {timeout:?} of SIGTERM", self.name),
            )),
        }
    }

    /// Its output so far, stdout and stderr, a line each.
    pub fn output(&self) -> Vec<String> {
        self.output.lock().lines.iter().cloned().collect()
    }

    /// The first line of its output, past or coming, that contains `text`; `None` when there is none within
    /// `timeout`, or the output has ended.
    pub fn wait_for_output(&self, text: &str, timeout: Duration) -> Option<String> {
        let deadline = Instant::now() + timeout;
        let mut state = self.output.lock();
        let mut seen = 0;
        loop {
            let skip = usize::saturating_sub(seen, state.forgotten);
            if let Some(line) = state.lines.iter().skip(skip).find(|line| line.contains(text)) {
                return Some(line.clone());
            }
            seen = state.forgotten + state.lines.len();
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.open_streams == 0 {
                return None;
            }
            state = self.output.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn finish(mut self, status: ExitStatus) -> Finished {
        // A grandchild may hold the pipes open; what it writes is not waited for.
        let deadline = Instant::now() + Duration::from_secs(1);
        while self.readers.iter().any(|reader| !reader.is_finished()) && Instant::now() < deadline {
            let state = self.output.lock();
            if state.open_streams == 0 {
                break;
            }
            drop(self.output.changed.wait_timeout(state, Duration::from_millis(100)));
        }
        self.readers.clear();
        Finished { status, output: self.output() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() {
            // It may have ended by itself, which is just as well.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, OutputState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(self: &Arc<Self>, stream: impl Read + Send + 'static, label: &str) -> JoinHandle<()> {
        let output = Arc::clone(self);
        let copy_label =
            std::env::var("LAB_OUTPUT").is_ok_and(|value| value == "1").then(|| label.to_owned());
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while matches!(stream.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if let Some(label) = &copy_label {
                    let _ = writeln!(io::stderr(), "[{label}] {text}");
                }
                let mut state = output.lock();
                state.lines.push_back(text);
                if state.lines.len() > LINES_KEPT {
                    state.lines.pop_front();
                    state.forgotten += 1;
                }
                output.changed.notify_all();
            }
            output.lock().open_streams -= 1;
            output.changed.notify_all();
        })
    }
}

/// What the new process does before it becomes the program.
fn enter(namespace: BorrowedFd<'_>, parent: u32) -> io::Result<()> {
    let check = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    const SYS: &CStr = c"/sys";
    // SAFETY: system calls with constant strings and descriptors that live through the call.
    unsafe {
        check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
        if libc::getppid().cast_unsigned() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        check(libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET))?;
        check(libc::unshare(libc::CLONE_NEWNS))?;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        check(libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), private, ptr::null()))?;
        // Where this is not allowed /sys keeps showing another namespace's devices; most programs do not look.
        libc::mount(c"sysfs".as_ptr(), SYS.as_ptr(), c"sysfs".as_ptr(), 0, ptr::null());
    }
    Ok(())
}

type Job = (Command, Sender<io::Result<Child>>);

/// Starts `command` from a thread that lives as long as this process: the "parent" whose death kills the child is a
/// thread, and the caller's may be short-lived.
fn spawn_on_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                // The caller waits for the answer, so it is there.
                let _ = answer.send(command.spawn());
            }
        });
        jobs
    });
    let (answer, result) = channel();
    spawner
        .send((command, answer))
        .map_err(|_| io::Error::other("the thread that starts processes is gone"))?;
    result.recv().map_err(io::Error::other)?
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers, and gives a new descriptor that nobody else owns.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_open, child.id(), 0);
        match i32::try_from(fd) {
            Ok(fd) if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
