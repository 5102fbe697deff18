//! Network namespaces without names and without iproute2.
//!
//! A [`Namespace`] is a file descriptor: nothing under `/run/netns`, so when the process ends, also by `kill -9`, the
//! kernel removes the namespace with all that is in it. Processes started in one die with this process.

mod netlink;
mod process;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns, unshare};

pub use netlink::{Route, Rule};
pub use process::{Finished, Process};

/// A network namespace. Clones are the same namespace; it ends when the last one is dropped and the last process and
/// socket in it are gone.
#[derive(Clone, Debug)]
pub struct Namespace {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    file: OwnedFd,
}

impl Namespace {
    /// A new namespace with nothing but a loopback device, which is up. `name` is for messages only.
    ///
    /// IPv6 duplicate address detection, router advertisements and solicitations are off, so that addresses work at
    /// once and nothing is sent unasked; so is the reverse path filter.
    ///
    /// # Errors
    ///
    /// Without the privilege to make one ([`enter_privileged`](crate::enter_privileged)).
    pub fn new(name: &str) -> io::Result<Self> {
        let file = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            File::open("/proc/thread-self/ns/net")
        })?;
        let inner = Inner { name: name.to_owned(), file: file.into() };
        let namespace = Namespace { inner: Arc::new(inner) };
        for (key, value) in DEFAULTS {
            // A kernel without IPv6 has no such sysctls; everything IPv4 still works there.
            match namespace.set_sysctl(key, value) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        namespace.link_up("lo")?;
        Ok(namespace)
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Runs `work` on a thread of its own inside the namespace and gives its result. Sockets, devices and
    /// `/proc/thread-self/net` that it opens belong to the namespace and may be used anywhere afterwards.
    ///
    /// Do not start processes with it, [`Namespace::spawn`] does that better.
    ///
    /// # Panics
    ///
    /// When `work` panics.
    pub fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        on_thread(|| {
            setns(&self.inner.file, CloneFlags::CLONE_NEWNET)
                .expect("the namespace can be entered by its maker");
            work()
        })
    }

    /// Sets a sysctl of the namespace: `set_sysctl("net.ipv4.ip_forward", "1")`. A device name with a dot needs the
    /// form with slashes: `net/ipv4/conf/eth0.1/rp_filter`.
    ///
    /// # Errors
    ///
    /// When there is none of that name, or it refuses the value.
    pub fn set_sysctl(&self, name: &str, value: &str) -> io::Result<()> {
        let path = sysctl_path(name);
        // /proc/sys/net shows the namespace of the thread that opens it.
        self.run(|| fs::write(&path, value))
            .map_err(|error| context(error, format_args!("{} := {value} in {}", path, self.name())))
    }

    /// The value of a sysctl of the namespace.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn sysctl(&self, name: &str) -> io::Result<String> {
        let path = sysctl_path(name);
        let value = self.run(|| fs::read_to_string(&path));
        value
            .map(|value| value.trim_end().to_owned())
            .map_err(|error| context(error, format_args!("{} in {}", path, self.name())))
    }

    /// Lets the namespace forward IPv4 and IPv6 packets between its devices.
    ///
    /// # Errors
    ///
    /// As [`Namespace::set_sysctl`].
    pub fn enable_forwarding(&self) -> io::Result<()> {
        self.set_sysctl("net.ipv4.ip_forward", "1")?;
        self.set_sysctl("net.ipv6.conf.all.forwarding", "1")
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.file.as_fd()
    }
}

/// The settings of a new namespace.
const DEFAULTS: [(&str, &str); 11] = [
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.all.accept_ra", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv6.conf.all.router_solicitations", "0"),
    ("net.ipv6.conf.default.router_solicitations", "0"),
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
];

fn sysctl_path(name: &str) -> String {
    let name = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    format!("/proc/sys/{name}")
}

/// Runs `work` on a thread of its own, because a thread that has changed its namespace must not be used for others.
fn on_thread<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| scope.spawn(work).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// `error`, with what was tried.
pub(crate) fn context(error: io::Error, what: impl std::fmt::Display) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Waits until `fd` is ready for `what`, or has an error; `false` when it is not in time.
pub(crate) fn ready_within(fd: BorrowedFd<'_>, what: PollFlags, timeout: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Rounded up, so that a wait does not end a fraction of a millisecond early.
        let left = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, what)], left) {
            Err(Errno::EINTR) => {}
            result => return Ok(result? > 0),
        }
    }
}
