//! Delay and jitter: when a packet that has left the serialiser arrives.

use super::{LineConfig, NEVER, nanos};
use crate::random::{Random, unit_at};

/// The delay of a line. Without reordering it is a function of time, so the same packet times give the same delays.
#[derive(Debug)]
pub(super) struct Delay {
    seed: u64,
    random: Random,
    /// No packet overtakes: the latest arrival so far.
    latest: u64,
}

impl Delay {
    pub(super) fn new(seed: u64) -> Self {
        Delay { seed: seed ^ 0x6465_6c61, random: Random::new(seed ^ 0x7265_6f72), latest: 0 }
    }

    /// When a packet that leaves the serialiser at `finish` arrives; packets must be given in that order.
    pub(super) fn take(&mut self, finish: u64, config: &LineConfig) -> u64 {
        if config.reorder {
            let jitter = nanos(config.jitter) as f64;
            let offset = (self.random.unit() * 2.0 - 1.0) * jitter;
            return shifted(finish, nanos(config.delay), offset);
        }
        let due = self.due_in_order(finish, config);
        self.latest = due;
        due
    }

    /// What [`Delay::take`] would say, without reordering.
    pub(super) fn due_in_order(&self, finish: u64, config: &LineConfig) -> u64 {
        if finish == NEVER {
            return NEVER;
        }
        let offset = self.offset(finish, nanos(config.jitter));
        shifted(finish, nanos(config.delay), offset).max(self.latest)
    }

    /// The offset from the mean delay at `time`, in ns: see [`LineConfig::jitter`].
    fn offset(&self, time: u64, jitter: u64) -> f64 {
        if jitter == 0 {
            return 0.0;
        }
        let slot_length = jitter.saturating_mul(2);
        let slot = time / slot_length;
        let elapsed = (time % slot_length) as f64;
        let jitter = jitter as f64;
        let drawn = |slot: u64| (unit_at(self.seed, slot) * 2.0 - 1.0) * jitter;
        let current = drawn(slot);
        // Every fall is over within its slot, because two offsets differ by at most one slot length. So the slot
        // before the previous one no longer matters, and the mean excess is E[fall²] / 2 / slot = jitter / 12.
        let falling = drawn(slot.wrapping_sub(1)) - elapsed;
        current.max(falling) - jitter / 12.0
    }
}

fn shifted(finish: u64, delay: u64, offset: f64) -> u64 {
    let delay = (delay as f64 + offset).max(0.0) as u64;
    finish.saturating_add(delay).min(NEVER - 1)
}
