//! The service: what `bonding run` does.
//!
//! * [`Daemon`] (in `service.rs`) joins everything: one loop over packets ([`crate::io::Driver`]), signals, the control
//!   socket and the tasks below.
//! * [`client`] and [`server`]: the two roles.
//! * [`servers`]: which of several servers a client is at.
//! * [`network`]: a task that keeps addresses, routes and rules as they shall be; [`desired`] says how that is.
//! * [`places`] and [`names`]: where links and servers are, asked in the background.
//! * [`kernel`]: kernel mode's bonding device and its slaves.
//! * [`mapping`]: the configuration in the core's terms; [`reload`]: what of it can change.
//! * [`runner`]: a process of its own for everything that is executed.
//! * [`clock`]: the clock of handshakes, kept over reboots.
//! * [`control`], [`status`], [`events`]: what `bonding status` and its like see. `log`: where messages go.

pub mod client;
pub mod clock;
pub mod control;
pub mod desired;
pub mod events;
pub mod firewall;
pub mod introduction;
pub mod kernel;
mod log;
pub mod mapping;
pub mod metrics;
pub mod names;
pub mod network;
pub mod outside;
pub mod places;
pub mod quota;
pub mod reload;
pub mod runner;
pub mod scripts;
pub mod server;
pub mod servers;
pub mod service;
pub mod speedtest;
pub mod start;
pub mod status;
pub mod watchdog;

pub use service::{Daemon, plan};
pub use start::{Options, StartError, run};

use std::io;
use std::pin::{Pin, pin};

/// Runs an event loop on this thread until `work` is done; what else was begun meanwhile is not waited for.
///
/// # Errors
///
/// When the system refuses the loop's descriptors.
#[inline(never)] // The frame of whoever calls this would hold all of `work`.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let mut result = None;
    until_done(pin!(async { result = Some(work.await) }))?;
    result.ok_or_else(|| io::ErrorKind::Interrupted.into())
}

/// The loop itself, once for all of them.
fn until_done(work: Pin<&mut dyn Future<Output = ()>>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(work);
    runtime.shutdown_background();
    Ok(())
}

/// Starts a task. To the runtime all are of one type: its machinery is not built again for each, 1.3 KB on MIPS.
fn spawn(work: impl Future<Output = ()> + Send + 'static) -> tokio::task::JoinHandle<()> {
    let work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(work);
    tokio::spawn(work)
}

/// Does on a thread of its own what blocks. All are of one type here too.
pub(crate) fn spawn_blocking(work: impl FnOnce() + Send + 'static) -> std::thread::JoinHandle<()> {
    let work: Box<dyn FnOnce() + Send> = Box::new(work);
    std::thread::spawn(work)
}
