//! A small process that watches over the TUN device while the daemon runs.
//!
//! When the daemon dies without cleaning up (`kill -9`, out of memory, a fault) its device stays, because it is
//! persistent ([`Tun::keep`](super::Tun::keep)), with its addresses and routes: what would go into the bond is lost for
//! the moment, and does not leave through a WAN, whose answers (a TCP reset from a server that knows nothing of the
//! WAN's address) would end every connection. A daemon that is started again takes the device over. When none is started
//! within [`HOLD`] the keeper removes the device, and what is left is what was before.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{ForkResult, fork, pipe2, setsid, write};

use super::tun;

/// How long a device waits for the next daemon: procd starts one that has died again after 5 s (`respawn`, its default).
pub const HOLD: Duration = Duration::from_secs(10);

/// What the daemon says when the device has become persistent.
const HELD: u8 = b'+';
/// What it says when it ends in order.
const FAREWELL: u8 = b'.';

/// The daemon's end of the keeper, which ends at once when this is dropped.
#[derive(Debug)]
pub struct Keeper {
    pipe: OwnedFd,
}

impl Keeper {
    /// Starts the keeper of the device with this name. The process must have one thread only, and the privilege to make
    /// the device.
    ///
    /// # Errors
    ///
    /// When the kernel gives no pipe or no process.
    pub fn start(device: &str) -> io::Result<Keeper> {
        let (theirs, ours) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        // SAFETY: there is one thread, so the child has all that it needs: no lock is held by a thread that it lacks.
        match unsafe { fork() }? {
            ForkResult::Parent { .. } => Ok(Keeper { pipe: ours }),
            ForkResult::Child => {
                drop(ours);
                keep(device, &theirs);
                // SAFETY: ends the process without the parent's exit handlers.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// Tells the keeper that the device would outlive the daemon from now on.
    ///
    /// # Errors
    ///
    /// When there is no keeper any more: then nobody would remove the device.
    pub fn hold(&self) -> io::Result<()> {
        write(&self.pipe, &[HELD])?;
        Ok(())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Without a keeper there is nobody to be told.
        let _ = write(&self.pipe, &[FAREWELL]);
    }
}

/// The child's life.
fn keep(device: &str, pipe: &OwnedFd) {
    // Signals from a terminal are the daemon's.
    let _ = setsid();
    forget_everything_but(pipe.as_raw_fd());
    // What ends the daemon's whole group (a supervisor that stops it) may reach this process first: the device goes when
    // the daemon is gone, not before.
    let mut ending = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        ending.add(signal);
    }
    let (Ok(()), Ok(told)) = (ending.thread_block(), SignalFd::with_flags(&ending, SfdFlags::SFD_CLOEXEC))
    else {
        return;
    };
    let mut held = false;
    loop {
        let mut said = [0];
        match (nix::unistd::read(pipe, &mut said), said) {
            (Err(nix::errno::Errno::EINTR), _) => {}
            (Ok(1), [HELD]) => held = true,
            (Ok(0), _) if held => break,
            _ => return,
        }
    }
    // Told to end, or nobody took the device over in time.
    let limit = PollTimeout::try_from(HOLD).unwrap_or(PollTimeout::ZERO);
    let _ = poll(&mut [PollFd::new(told.as_fd(), PollFlags::POLLIN)], limit);
    tun::remove_kept(device);
}

/// Closes what was inherited: whoever waits for the end of the daemon's output must not wait for us.
fn forget_everything_but(kept: RawFd) {
    let open = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let numbers: Vec<RawFd> = open.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for fd in numbers.into_iter().chain(0..3).filter(|fd| *fd != kept) {
        // SAFETY: this process uses none of these descriptors any more, and one that is closed already does no harm.
        unsafe { libc::close(fd) };
    }
}
