//! A timer of nanosecond resolution: tokio's own rounds to a millisecond, which is a packet time at 12 Mbit/s.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::task::{Context, Poll, ready};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use nix::time::{ClockId as Clock, clock_gettime};
use tokio::io::unix::AsyncFd;

use bonding_core::Time;

/// The monotonic clock (`CLOCK_MONOTONIC`).
pub fn now() -> Time {
    match clock_gettime(Clock::CLOCK_MONOTONIC) {
        Ok(at) => Time::from_nanos(at.tv_sec() as u64 * 1_000_000_000 + at.tv_nsec() as u64),
        Err(_) => Time::ZERO,
    }
}

#[derive(Debug)]
struct Descriptor(TimerFd);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// One deadline, registered with tokio.
#[derive(Debug)]
pub struct Timer {
    io: AsyncFd<Descriptor>,
    deadline: Option<Time>,
}

impl Timer {
    /// A timer without deadline. Must be called within a tokio runtime.
    pub fn new() -> io::Result<Timer> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        // SAFETY: the descriptor belongs to the timer, which the AsyncFd owns from here on; nothing else closes it.
        let io = unsafe { AsyncFd::register(Descriptor(timer)) }?;
        Ok(Timer { io, deadline: None })
    }

    /// Sets the deadline; `None` stops the timer. Costs nothing when it stays the same.
    pub fn set(&mut self, deadline: Option<Time>) -> io::Result<()> {
        if deadline == self.deadline {
            return Ok(());
        }
        self.deadline = deadline;
        match deadline {
            None => self.io.get_ref().0.unset()?,
            Some(at) => {
                // Zero would stop it.
                let nanos = at.as_nanos().max(1);
                let at = TimeSpec::new((nanos / 1_000_000_000) as _, (nanos % 1_000_000_000) as _);
                self.io.get_ref().0.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
            }
        }
        Ok(())
    }

    /// Ready when the deadline has passed; the timer is then without deadline.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Ok(mut guard) = ready!(self.io.poll_read_ready(cx)) else { return Poll::Pending };
            let mut count = [0; 8];
            let read = guard
                .try_io(|timer| nix::unistd::read(timer.get_ref().0.as_fd(), &mut count).map_err(Into::into));
            match read {
                Ok(_) => {
                    self.deadline = None;
                    return Poll::Ready(());
                }
                Err(_would_block) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_fires_after_the_deadline_and_not_before() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut timer = Timer::new().unwrap();
            let deadline = now() + Duration::from_micros(2_500);
            timer.set(Some(deadline)).unwrap();
            let fired = std::future::poll_fn(|cx| timer.poll_expired(cx));
            tokio::time::timeout(Duration::from_secs(10), fired).await.unwrap();
            assert!(now() >= deadline);
        });
    }
}
