//! Spaces the packets of one link to its rate, so that the queue builds at our end and not in the modem.

use std::time::Duration;

use super::Time;

/// How much lateness of the caller is made up for by sending several packets at once.
const CREDIT: Duration = Duration::from_micros(1_500);
/// The same where the rate is somebody's wish and no modem's: a burst harms nobody, and a busy machine is late by more.
const LIMIT_CREDIT: Duration = Duration::from_millis(20);

/// The pacer of one link.
#[derive(Debug)]
pub struct Pacer {
    /// Bytes a second.
    rate: u64,
    next: Time,
    idle: Duration,
    credit: Duration,
}

impl Pacer {
    /// A pacer of `rate` bytes a second.
    pub fn new(rate: u64, now: Time) -> Self {
        Pacer { rate: rate.max(1), next: now, idle: Duration::ZERO, credit: CREDIT }
    }

    /// A pacer that keeps the mean at `rate` bytes a second, however late its caller is, within reason.
    pub fn of_limit(rate: u64, now: Time) -> Self {
        Pacer { credit: LIMIT_CREDIT, ..Pacer::new(rate, now) }
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
        let earliest = now - self.credit;
        if self.next < earliest {
            self.idle += earliest.since(self.next);
            self.next = earliest;
        }
        self.next += self.duration(bytes);
    }

    /// Time so far in which the link could have sent and was given nothing.
    pub fn idle(&self, now: Time) -> Duration {
        self.idle + (now - self.credit).since(self.next)
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

    #[test]
    fn a_limit_is_reached_by_a_caller_who_is_late_each_time() {
        let mut pacer = Pacer::of_limit(250_000, Time::ZERO);
        let (mut now, mut sent) = (Time::ZERO, 0);
        while now < Time::from_millis(10_000) {
            now = now.max(pacer.next()) + Duration::from_millis(15);
            while pacer.next() <= now {
                pacer.sent(1_290, now);
                sent += 1_290;
            }
        }
        assert!((2_475_000..=2_510_000).contains(&sent), "{sent}");
        // After a pause only the credit is there at once.
        let later = now + Duration::from_secs(60);
        let mut burst = 0;
        while pacer.next() <= later {
            pacer.sent(1_000, later);
            burst += 1_000;
        }
        assert!(burst <= 6_000, "{burst}");
    }
}
