//! The emulator's thread: it waits for frames and for the next arrival.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::SharedCore;
use crate::punctual::be_punctual;
use crate::tap::Tap;

/// The largest frame: Ethernet header and the largest IP packet.
const LARGEST_FRAME: usize = 14 + 65_535;

/// Works until it is told to stop.
pub(super) fn run(shared: &SharedCore) {
    be_punctual();
    let mut buffer = vec![0; LARGEST_FRAME];
    let mut taps = Vec::new();
    loop {
        let wait = {
            let mut core = shared.lock();
            if core.stop {
                return;
            }
            let more = core.receive(&mut buffer);
            core.deliver();
            core.alive_taps(&mut taps);
            if more {
                Some(Duration::ZERO)
            } else {
                core.next_due().map(|due| due.saturating_sub(core.now()))
            }
        };
        wait_for_work(shared, &taps, wait);
    }
}

/// Waits until a device has a frame, a command has come, or the time is over.
fn wait_for_work(shared: &SharedCore, taps: &[Arc<Tap>], wait: Option<Duration>) {
    let mut polled = vec![PollFd::new(shared.wake.as_fd(), PollFlags::POLLIN)];
    polled.extend(taps.iter().map(|tap| PollFd::new(tap.as_fd(), PollFlags::POLLIN)));
    match ppoll(&mut polled, wait.map(TimeSpec::from_duration), None) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => panic!("the emulator cannot wait for its devices: {errno}"),
    }
    if polled.first().is_some_and(|wake| wake.any() == Some(true)) {
        // It is empty when another wait has been faster, which is all right.
        let _ = shared.wake.read();
    }
}
