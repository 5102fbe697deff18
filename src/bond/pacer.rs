//! Spaces the packets of one link to its rate, so that the queue builds at our end and not in the modem.

use std::time::Duration;

use super::Time;

/// How much lateness of the caller is made up for by sending several packets at once.
const CREDIT: Duration = Duration::from_micros(1_500);

/// The pacer of one link.
#[derive(Debug)]
pub struct Pacer {
    /// Bytes a second.
    rate: u64,
    next: Time,
    idle: Duration,
}

impl Pacer {
    /// A pacer of `rate` bytes a second.
    pub fn new(rate: u64, now: Time) -> Self {
        Pacer { rate: rate.max(1), next: now, idle: Duration::ZERO }
    }

    /// Changes the rate, in bytes a second, for what is sent from now on.
    pub fn set_rate(&mut self, rate: u64) {
        self.rate = rate.max(1);
    }

    /// The rate in bytes a second.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// The earliest time for the next packet.
    pub fn next(&self) -> Time {
        self.next
    }

    /// How long `bytes` take at the present rate.
    pub fn duration(&self, bytes: usize) -> Duration {
        Duration::from_nanos((bytes as u64).saturating_mul(1_000_000_000) / self.rate)
    }

    /// Accounts for a packet of `bytes` on the line.
    pub fn sent(&mut self, bytes: usize, now: Time) {
        let earliest = now - CREDIT;
        if self.next < earliest {
            self.idle += earliest.since(self.next);
            self.next = earliest;
        }
        self.next += self.duration(bytes);
    }

    /// Time so far in which the link could have sent and was given nothing.
    pub fn idle(&self, now: Time) -> Duration {
        self.idle + (now - CREDIT).since(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds_with_a_late_caller_and_idle_time_is_counted() {
        let mut pacer = Pacer::new(1_000_000, Time::from_millis(100));
        let (mut now, mut sent) = (Time::from_millis(100), 0);
        while now < Time::from_millis(1_100) {
            while pacer.next() <= now {
                pacer.sent(1_000, now);
                sent += 1;
            }
            now += Duration::from_micros(1_300);
        }
        assert!((998..=1_003).contains(&sent), "{sent} packets of 1 ms in 1 s");
        let idle = pacer.idle(Time::from_millis(1_200));
        assert!((95..=100).contains(&idle.as_millis()), "{idle:?}");
    }
}
