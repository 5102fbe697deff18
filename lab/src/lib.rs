//! The test laboratory of `bonding`: network namespaces, emulated WAN lines and traffic, made by this process alone.
//!
//! No iproute2, netem, iperf3 or ping; a kernel with TUN, veth and network namespaces is all it takes. What it makes
//! lives as long as the process, also when that is killed. The namespace it is started in is never touched.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`mod@line`] | one direction of a line as a pure model: rate, delay, jitter, loss, queue, MTU; in any kind of time |
//! | [`namespace`] | namespaces, devices, addresses, routes, sysctls; processes that live in one |
//! | [`emulator`] | lines in real time between TAP devices, with a modem-router (NAT, ARP, ICMP) at the near end |
//! | [`scenario`] | the named scenarios `sym2`, `asym2`, `lte2`, `loss2` |
//! | [`topology`] | the standard network: LAN, router, lines, server, internet |
//! | [`traffic`] | TCP, UDP and echo between namespaces, with reports |
//! | [`usage`] | processor time and memory of a process |
//! | [`document`] | figures between the marks of a document |
//! | [`directory`] | a place for keys and configurations of a run |
//! | [`packet`] | reading the IP headers of captured packets |
//! | [`privilege`] | whether this is possible here, and what to do about it |
//!
//! # Example
//!
//! Two ADSL lines, a program on the router and one on the server, and a download through them, during which one line
//! goes dead:
//!
//! ```no_run
//! use std::process::Command;
//! use std::time::Duration;
//!
//! use lab::emulator::Cut;
//! use lab::scenario::Scenario;
//! use lab::topology::{Plan, Topology};
//! use lab::traffic::Tcp;
//!
//! # fn main() -> std::io::Result<()> {
//! // In a test: lab::need_privilege!();
//! let net = Plan::new(Scenario::sym2()).build()?;
//! let mut command = Command::new("target/debug/bonding");
//! command.args(["run", "--config", "server.conf"]);
//! let server = net.server.spawn(command)?;
//! server.wait_for_output("listening", Duration::from_secs(5)).expect("the server starts");
//! // … the same on net.router …
//!
//! let download = Tcp::new(&net.lan, &net.inet, Topology::INET_V4).seconds(10).start()?;
//! assert!(download.wait_for_bytes(5_000_000, Duration::from_secs(10)));
//! net.line(0).cut(Cut::Silent);
//! let report = download.finish();
//! assert!(report.completed && report.longest_gap.length < Duration::from_secs(1), "{report:?}");
//! server.terminate(Duration::from_secs(5))?;
//! # Ok(())
//! # }
//! ```
//!
//! Tests that look at times or rates begin with `let _alone = lab::alone();`, so that they do not take each other's CPU.
//!
//! # Environment
//!
//! * `LAB_REQUIRE_ROOT=1`: tests that cannot run for lack of privilege fail instead of being skipped.
//! * `LAB_OUTPUT=1`: what processes in namespaces print is copied to stderr.

pub mod bond;
pub mod directory;
pub mod document;
pub mod emulator;
pub mod line;
pub mod namespace;
pub mod packet;
pub mod prefix;
pub mod privilege;
mod punctual;
pub mod random;
pub mod scenario;
pub mod tap;
pub mod topology;
pub mod traffic;
pub mod usage;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use privilege::{enter_privileged, privileged};

/// Puts the calling thread before what else the machine has to do, where we may: as [`namespace::Process::prefer`].
pub fn prefer_this_thread() {
    // SAFETY: a system call with plain values, on the calling thread. Its failure costs accuracy only.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -10) };
}

/// Waits until no other test of this process holds what this gives: for tests that look at times or rates.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that has failed while alone is no reason for others to.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until no other test of this process holds what this gives: for tests that start programs, and for those to
/// which it matters when a descriptor is closed.
///
/// Between fork and exec a child has every descriptor of its parent, also those that exec closes. Meanwhile a device,
/// a port or a lock that the parent has given back is still taken, and a script that it has just written is busy
/// (`ETXTBSY`).
pub fn descriptors() -> MutexGuard<'static, ()> {
    static DESCRIPTORS: Mutex<()> = Mutex::new(());
    DESCRIPTORS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Measures until the figures are reached, three times at the most: what else a machine does makes them worse, never
/// better. `measure` tells what was not reached.
///
/// # Panics
///
/// When they were not reached.
pub fn reached(mut measure: impl FnMut() -> Result<(), String>) {
    let mut missed = Vec::new();
    while missed.len() < 3 {
        match measure() {
            Ok(()) => return,
            Err(message) => {
                println!("not reached: {message}");
                missed.push(message);
            }
        }
    }
    panic!("not reached in {} measurements: {missed:#?}", missed.len());
}

/// For [`reached`].
///
/// # Errors
///
/// `message`, where it does not hold.
pub fn demand(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}

/// Looks until it is so, for half a minute at the most: whether it is, not how soon.
pub fn becomes(mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if is_so() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
