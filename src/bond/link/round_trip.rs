//! How far away the other end of a link is.

use std::time::Duration;

use crate::Time;
use crate::window::Windowed;

/// The longest time the other end takes to report (see [`super::reception`]) and some more for its machine.
const REPORT_MARGIN: Duration = Duration::from_millis(40);

/// No line takes longer; a machine or a process that stood still does.
const LONGEST: Duration = Duration::from_secs(5);

/// Round-trip time of a link (RFC 6298).
#[derive(Clone, Debug)]
pub struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
    smallest: Windowed<Duration>,
}

impl RoundTrip {
    pub(super) fn new() -> Self {
        RoundTrip {
            smoothed: None,
            variation: Duration::ZERO,
            smallest: Windowed::smallest(Duration::from_secs(30)),
        }
    }

    pub(super) fn sample(&mut self, rtt: Duration, now: Time) {
        let rtt = rtt.min(LONGEST);
        self.smallest.push(rtt, now);
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variation = rtt / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
    }

    /// The smoothed value, or `unknown`.
    pub fn smoothed_or(&self, unknown: Duration) -> Duration {
        self.smoothed.unwrap_or(unknown)
    }

    /// The smoothed value.
    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }

    /// The smallest of the last half minute.
    pub fn smallest(&self) -> Option<Duration> {
        self.smallest.get()
    }

    /// When an answer is overdue.
    pub(super) fn overdue(&self) -> Duration {
        let rtt = self.smoothed_or(Duration::from_millis(500));
        rtt + rtt / 5 + self.variation * 4 + REPORT_MARGIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_of_standing_still_is_forgotten_after_twenty_answers() {
        let mut rtt = RoundTrip::new();
        let sample = |rtt: &mut RoundTrip, time| rtt.sample(time, Time::ZERO);
        (0..20).for_each(|_| sample(&mut rtt, Duration::from_millis(40)));
        let before = rtt.overdue();
        sample(&mut rtt, Duration::from_secs(3_600));
        (0..20).for_each(|_| sample(&mut rtt, Duration::from_millis(40)));
        assert!(rtt.overdue() < before + Duration::from_secs(1), "{:?} after {before:?}", rtt.overdue());
    }
}
