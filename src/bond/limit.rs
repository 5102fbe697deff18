//! What a peer may send in all, over whatever links.

use std::time::Duration;

use super::Time;

/// So much of the rate may come at once: what the resequencer has held back comes together.
const BURST: Duration = Duration::from_millis(500);
/// In bytes, at least: a few packets at the lowest rates.
const LEAST_BURST: u64 = 64_000;

/// Drops what is above a rate: a token bucket.
///
/// A peer that keeps to its limit, of which it is told, never feels it.
#[derive(Debug)]
pub struct Policer {
    /// Bytes a second.
    rate: u64,
    /// Nanoseconds times bytes a second.
    tokens: u128,
    filled: Time,
    dropped: u64,
}

impl Policer {
    /// A policer of `bits` a second.
    pub fn new(bits: u64, now: Time) -> Self {
        let mut policer = Policer { rate: (bits / 8).max(1), tokens: 0, filled: now, dropped: 0 };
        policer.tokens = policer.most();
        policer
    }

    /// Changes the rate, in bits a second.
    pub fn set_rate(&mut self, bits: u64) {
        self.rate = (bits / 8).max(1);
        self.tokens = self.tokens.min(self.most());
    }

    /// Whether a packet of `bytes` may pass.
    pub fn admits(&mut self, bytes: usize, now: Time) -> bool {
        let grown = now.since(self.filled).as_nanos().saturating_mul(u128::from(self.rate));
        self.tokens = self.tokens.saturating_add(grown).min(self.most());
        self.filled = now;
        let cost = bytes as u128 * 1_000_000_000;
        let admits = self.tokens >= cost;
        if admits {
            self.tokens -= cost;
        } else {
            self.dropped += 1;
        }
        admits
    }

    /// Packets that were not admitted.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    fn most(&self) -> u128 {
        let burst = u128::from(self.rate) * BURST.as_nanos();
        burst.max(u128::from(LEAST_BURST) * 1_000_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes admitted of 1000-byte packets sent at a rate (bytes a second) for a time.
    fn admitted(policer: &mut Policer, from_ms: u64, ms: u64, rate: u64) -> u64 {
        let gap = 1_000_000_000_000 / rate;
        let (mut at, end) = (from_ms * 1_000_000, (from_ms + ms) * 1_000_000);
        let mut bytes = 0;
        while at < end {
            bytes += if policer.admits(1_000, Time::from_nanos(at)) { 1_000 } else { 0 };
            at += gap;
        }
        bytes
    }

    #[test]
    fn who_keeps_to_the_rate_loses_nothing_and_who_does_not_gets_no_more() {
        let mut policer = Policer::new(8_000_000, Time::ZERO);
        assert_eq!(admitted(&mut policer, 0, 10_000, 1_000_000), 10_000_000);
        assert_eq!(policer.dropped(), 0);
        let bytes = admitted(&mut policer, 10_000, 10_000, 3_000_000);
        assert!((10_400_000..=10_502_000).contains(&bytes), "the rate, and one burst: {bytes}");
        assert!(policer.dropped() > 10_000);
    }

    #[test]
    fn a_burst_passes_and_the_lowest_rate_too() {
        let mut policer = Policer::new(8_000_000, Time::ZERO);
        let at_once = (0..600).filter(|_| policer.admits(1_000, Time::ZERO)).count();
        assert_eq!(at_once, 500);
        let mut policer = Policer::new(0, Time::ZERO);
        assert_eq!((0..100).filter(|_| policer.admits(1_000, Time::ZERO)).count(), 64);
        policer.set_rate(u64::MAX);
        assert!((1..1_000).all(|ms| policer.admits(1_500, Time::from_millis(ms))));
    }
}
