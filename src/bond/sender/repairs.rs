//! How much of the time streams stand still because something that was lost is sent again.

use std::time::Duration;

use crate::Time;
use crate::time::seconds;

/// Seconds of the past that count.
const SPAN: f64 = 4.0;
/// From this share of the time on a stream is as good as always behind a repair.
const OFTEN: f64 = 0.1;

/// The recent repairs of all links.
#[derive(Debug, Default)]
pub(super) struct Repairs {
    /// Seconds of waiting, each the less the longer ago.
    waited: f64,
    at: Time,
}

impl Repairs {
    /// A report came, which told of a loss or not, while a repair takes `repair`. Returns how much of that a stream's round
    /// trip has to be reckoned longer.
    pub fn enter(&mut self, lost: bool, repair: Duration, now: Time) -> Duration {
        let elapsed = now.since(std::mem::replace(&mut self.at, now)).as_secs_f64();
        self.waited *= (-elapsed / SPAN).exp();
        if lost {
            self.waited += repair.as_secs_f64();
        }
        seconds((self.waited / (OFTEN * SPAN)).min(1.0) * repair.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_often_counts_in_full_and_is_forgotten() {
        let repair = Duration::from_millis(40);
        let mut repairs = Repairs::default();
        let mut after = |losses_a_second: u64, seconds: u64, begin: u64| {
            let mut counted = Duration::ZERO;
            for report in 0..seconds * 100 {
                let now = Time::from_millis(begin * 1_000 + report * 10);
                let lost = losses_a_second > 0 && report % (100 / losses_a_second) == 0;
                counted = repairs.enter(lost, repair, now);
            }
            counted
        };
        assert_eq!(after(5, 10, 1), repair, "a fifth of the time");
        assert!(after(0, 20, 11) < repair / 20);
        let seldom = after(1, 20, 31);
        assert!((repair / 4..repair / 2).contains(&seldom), "a twenty-fifth of the time: {seldom:?}");
    }
}
