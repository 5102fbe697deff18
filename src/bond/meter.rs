//! The rate of something that flows, for people to look at.

use std::time::Duration;

use super::Time;

const SPAN: Duration = Duration::from_millis(500);

/// Counts bytes and tells the rate of the last whole half second.
#[derive(Clone, Debug, Default)]
pub struct Meter {
    started: Time,
    bytes: u64,
    rate: u64,
}

impl Meter {
    /// Counts.
    pub fn add(&mut self, bytes: usize, now: Time) {
        self.turn(now);
        self.bytes += bytes as u64;
    }

    /// Bits a second.
    pub fn rate(&self, now: Time) -> u64 {
        let mut meter = self.clone();
        meter.turn(now);
        meter.rate
    }

    fn turn(&mut self, now: Time) {
        let elapsed = now.since(self.started);
        if elapsed >= SPAN {
            let nanos = elapsed.as_nanos() as u64;
            self.rate = (self.bytes.saturating_mul(8_000_000) / (nanos / 1_000).max(1)).min(u64::MAX / 2);
            self.bytes = 0;
            self.started = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_and_its_end_are_seen() {
        let mut meter = Meter::default();
        for ms in 0..2_000 {
            meter.add(1_000, Time::from_millis(ms));
        }
        let rate = meter.rate(Time::from_millis(2_000));
        assert!((7_900_000..8_100_000).contains(&rate), "{rate}");
        assert_eq!(meter.rate(Time::from_millis(60_000)) / 1_000_000, 0);
    }
}
