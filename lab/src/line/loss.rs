//! Random loss and burst loss.

use super::LineConfig;
use crate::random::Random;

/// Decides, packet by packet, what is lost.
#[derive(Debug)]
pub(super) struct Loss {
    random: Random,
    in_burst: bool,
}

impl Loss {
    pub(super) fn new(seed: u64) -> Self {
        Loss { random: Random::new(seed ^ 0x6c6f_7373), in_burst: false }
    }

    /// Whether the next packet is lost.
    pub(super) fn takes_next(&mut self, config: &LineConfig) -> bool {
        if let Some(burst) = config.burst_loss {
            // The stationary share of a two-state chain is enter / (enter + leave).
            let leave = 1.0 / burst.mean_length;
            let enter = leave * burst.share / (1.0 - burst.share);
            let switch = if self.in_burst { leave } else { enter };
            if self.random.chance(switch) {
                self.in_burst = !self.in_burst;
            }
        } else {
            self.in_burst = false;
        }
        let alone = self.random.chance(config.loss);
        self.in_burst || alone
    }
}
