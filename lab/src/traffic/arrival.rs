//! When a packet came in, by the kernel's clock: what a busy machine adds until the reading thread runs is not the
//! network's delay.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, SystemTime};

use nix::cmsg_space;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;

/// A clock that both this process and the kernel's receive stamps can read.
#[derive(Clone, Copy, Debug)]
pub(super) struct WallClock(SystemTime);

impl WallClock {
    pub(super) fn start() -> Self {
        WallClock(SystemTime::now())
    }

    /// The time since the start.
    pub(super) fn now(&self) -> Duration {
        self.0.elapsed().unwrap_or_default()
    }

    fn at(&self, stamp: TimeSpec) -> Duration {
        let stamp = SystemTime::UNIX_EPOCH + Duration::from(stamp);
        stamp.duration_since(self.0).unwrap_or_default()
    }
}

/// Makes the kernel stamp what a socket receives.
pub(super) fn stamp(socket: &impl AsFd) -> io::Result<()> {
    Ok(setsockopt(&socket.as_fd(), sockopt::ReceiveTimestampns, &true)?)
}

/// The next packet of a socket: its length, and when it came in.
pub(super) fn receive(
    socket: &impl AsFd,
    buffer: &mut [u8],
    clock: &WallClock,
) -> io::Result<(usize, Duration)> {
    let mut control = cmsg_space!(TimeSpec);
    let mut parts = [IoSliceMut::new(buffer)];
    let socket = socket.as_fd().as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(socket, &mut parts, Some(&mut control), MsgFlags::empty())?;
    let stamp = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmTimestampns(stamp) => Some(stamp),
        _ => None,
    });
    Ok((message.bytes, stamp.map_or_else(|| clock.now(), |stamp| clock.at(stamp))))
}
