//! Whether this process may make network namespaces and TAP devices, and how it may come to that.
//!
//! Root may. Anybody else may inside a user namespace of their own, where the kernel allows these and `/dev/net/tun`
//! can be opened.

use std::fs;
use std::io::{self, Write};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use crate::namespace::Namespace;
use crate::tap::Tap;

/// Why the laboratory cannot work here, in words for the person at the keyboard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unprivileged(String);

impl std::fmt::Display for Unprivileged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unprivileged {}

/// Whether the process can make namespaces and TAP devices as it is. Tried once (in a namespace that is gone at
/// once), then remembered.
///
/// # Errors
///
/// Says what is missing.
pub fn privileged() -> Result<(), Unprivileged> {
    static RESULT: OnceLock<Result<(), Unprivileged>> = OnceLock::new();
    RESULT.get_or_init(attempt).clone()
}

/// Makes sure that the process can make namespaces and TAP devices. To be called first in `main`, before any thread
/// is started: where the process is not root it moves into a new user, network and mount namespace, in which it is.
///
/// # Errors
///
/// Says what is missing, and what to do about it.
pub fn enter_privileged() -> Result<(), Unprivileged> {
    let Err(before) = attempt() else { return Ok(()) };
    if geteuid().is_root() {
        return Err(before);
    }
    enter_user_namespace()?;
    attempt()
}

/// Prints why a test is skipped, past the capture of the test harness. With `LAB_REQUIRE_ROOT=1` in the environment
/// (a CI that must not skip) it panics instead. See [`need_privilege!`](crate::need_privilege).
pub fn skip(test: &str, why: &Unprivileged) {
    let required = std::env::var("LAB_REQUIRE_ROOT").is_ok_and(|value| value == "1");
    assert!(!required, "{test} must not be skipped (LAB_REQUIRE_ROOT=1): {why}");
    // Not eprintln!, which the harness shows for failed tests only. Nothing can be done about a closed stderr.
    let _ = writeln!(io::stderr(), "skipped: {test}: {why}");
}

/// Ends a test with a message where the laboratory cannot work: `lab::need_privilege!();`
#[macro_export]
macro_rules! need_privilege {
    () => {
        if let Err(why) = $crate::privileged() {
            let name = std::thread::current().name().unwrap_or(module_path!()).to_owned();
            $crate::privilege::skip(&name, &why);
            return;
        }
    };
}

fn attempt() -> Result<(), Unprivileged> {
    let namespace = Namespace::new("privilege").map_err(|error| {
        let hint = if geteuid().is_root() {
            "the process lacks CAP_SYS_ADMIN (in a container: give it that capability)"
        } else {
            "run as root"
        };
        Unprivileged(format!("cannot make a network namespace: {error}; {hint}"))
    })?;
    Tap::open(&namespace, "tap", [0x02, 0, 0, 0, 0, 1]).map(drop).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "load the module (modprobe tun), or give the container the device",
            _ => "run as root, or make the device readable and writable for this user",
        };
        Unprivileged(format!("cannot make a TAP device through /dev/net/tun: {error}; {hint}"))
    })
}

fn enter_user_namespace() -> Result<(), Unprivileged> {
    let (uid, gid) = (geteuid(), getegid());
    let flags = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
    unshare(flags).map_err(|errno| {
        Unprivileged(match errno {
            Errno::EINVAL => "cannot enter a user namespace after threads were started; run as root".into(),
            Errno::ENOSPC => {
                "user namespaces are switched off (sysctl user.max_user_namespaces); run as root".into()
            }
            Errno::EPERM => "user namespaces are not allowed for this user (sysctl \
                             kernel.unprivileged_userns_clone, or a container's seccomp filter); run as root"
                .into(),
            other => format!("cannot enter a user namespace: {other}; run as root"),
        })
    })?;
    let map = |path: &str, content: String| {
        fs::write(path, content).map_err(|error| {
            Unprivileged(format!(
                "cannot write {path}: {error}; the kernel restricts user namespaces (on Ubuntu: sysctl \
                 kernel.apparmor_restrict_unprivileged_userns); run as root"
            ))
        })
    };
    map("/proc/self/setgroups", "deny".into())?;
    map("/proc/self/uid_map", format!("0 {uid} 1"))?;
    map("/proc/self/gid_map", format!("0 {gid} 1"))
}
