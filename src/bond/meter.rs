//! Rates of what flows: for people to look at, and to tell bulk from calls.

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

/// How much a flow has sent of late, in a few bytes: there are thousands of flows.
#[derive(Clone, Copy, Debug, Default)]
pub struct Volume {
    /// Number of the present [`SLOT`], the low bits of it.
    slot: u16,
    /// Sent in the slot before and in the present one, in units of [`UNIT`] bytes.
    amounts: [u16; 2],
}

const SLOT: Duration = Duration::from_millis(64);
const UNIT: usize = 16;
/// A flow that sends so many bytes in two slots, that is 1 to 2 Mbit/s, is no call.
const BULK: usize = 16_384;

impl Volume {
    /// Counts, and says whether the flow is bulk.
    pub fn add(&mut self, bytes: usize, now: Time) -> bool {
        let slot = (now.as_micros() / SLOT.as_micros() as u64) as u16;
        let [previous, present] = match slot.wrapping_sub(self.slot) {
            0 => self.amounts,
            1 => [self.amounts[1], 0],
            _ => [0, 0],
        };
        let present = present.saturating_add(u16::try_from(bytes / UNIT).unwrap_or(u16::MAX));
        *self = Volume { slot, amounts: [previous, present] };
        UNIT * (usize::from(previous) + usize::from(present)) >= BULK
    }

    /// Whether the flow is bulk, by what it has sent so far.
    pub fn is_bulk(mut self, now: Time) -> bool {
        self.add(0, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bulk_is_told_from_a_call() {
        let sends = |bytes, every: usize| {
            let mut volume = Volume::default();
            let mut verdicts = (0..2_000).step_by(every).map(|ms| volume.add(bytes, Time::from_millis(ms)));
            let settled = verdicts.by_ref().nth(200 / every).unwrap_or_default();
            verdicts.all(|verdict| verdict == settled).then_some(settled)
        };
        assert_eq!(sends(200, 5), Some(false), "a call");
        assert_eq!(sends(1_200, 20), Some(false), "0.5 Mbit/s");
        assert_eq!(sends(1_200, 3), Some(true), "3 Mbit/s");
        let mut volume = Volume::default();
        assert!((0..20).any(|_| volume.add(1_500, Time::ZERO)));
        assert!(volume.is_bulk(Time::ZERO) && !volume.is_bulk(Time::from_millis(200)));
        assert!(!volume.add(1_500, Time::from_millis(200)), "it has paused");
    }

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
