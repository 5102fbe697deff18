//! The clock of handshake timestamps: it only ever grows, also over a restart of a router that has no clock.
//!
//! A server refuses an initiation that is not newer than the last one, so a router that wakes up in 1970 would be shut
//! out. The clock therefore begins above everything it may have said before: the daemon stores a *reservation*, a
//! time below which all stamps may have been used, twice a day and not with every stamp, to spare the flash.

use std::time::Duration;

use super::Time;

/// How far ahead stamps are reserved.
const RESERVE: u64 = 12 * 60 * 60 * 1_000;

/// How long before its end a reservation is renewed.
const RENEW: u64 = 60 * 60 * 1_000;

/// A source of timestamps in milliseconds, roughly since 1970, each greater than all before.
#[derive(Clone, Debug)]
pub struct LogicalClock {
    base: u64,
    origin: Time,
    last: u64,
    /// Stamps up to this one are covered by what was stored.
    stored: u64,
}

impl LogicalClock {
    /// A clock that goes on from `stored`, the reservation that was stored last, or from `wall`, the time since 1970
    /// as this machine believes, whichever is later. `now` is the monotonic time of that.
    pub fn new(stored: Option<u64>, wall: Duration, now: Time) -> Self {
        let wall = u64::try_from(wall.as_millis()).unwrap_or(0);
        let stored = stored.unwrap_or(0);
        LogicalClock { base: wall.max(stored.saturating_add(1)), origin: now, last: 0, stored }
    }

    /// The reservation to store now, if one is due: before the first stamp, then about every 11 hours.
    ///
    /// Call [`stored`](Self::stored) when it is safely on disk. A clock whose reservation cannot be stored works on;
    /// only the next start may have to wait until the wall clock has caught up.
    pub fn reservation(&self, now: Time) -> Option<u64> {
        let time = self.time(now);
        (time.saturating_add(RENEW) > self.stored).then(|| time.saturating_add(RESERVE))
    }

    /// Says that this reservation has been stored.
    pub fn stored(&mut self, reservation: u64) {
        self.stored = self.stored.max(reservation);
    }

    /// Sets the clock on to `wall` milliseconds since 1970, as when a router has learnt the date; never back.
    pub fn advance(&mut self, wall: u64, now: Time) {
        self.base = self.base.saturating_add(wall.saturating_sub(self.time(now)));
    }

    /// A stamp: greater than every one before, and near the time that has passed.
    pub fn stamp(&mut self, now: Time) -> u64 {
        self.last = self.time(now).max(self.last.saturating_add(1));
        self.last
    }

    /// Milliseconds, not below the last stamp.
    pub fn time(&self, now: Time) -> u64 {
        let passed = now.as_nanos().saturating_sub(self.origin.as_nanos()) / 1_000_000;
        self.base.saturating_add(passed).max(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const YEAR_2025: Duration = Duration::from_secs(1_735_689_600);

    #[test]
    fn stamps_grow_even_within_a_millisecond() {
        let now = Time::from_millis(5);
        let mut clock = LogicalClock::new(None, YEAR_2025, now);
        let stamps: Vec<_> = (0..10).map(|_| clock.stamp(now)).collect();
        assert_eq!(stamps, (0..10).map(|i| 1_735_689_600_000 + i).collect::<Vec<_>>());
        assert_eq!(clock.stamp(now + Duration::from_millis(500)), 1_735_689_600_500);
    }

    #[test]
    fn a_router_without_a_clock_never_goes_back() {
        let mut file = None;
        let mut last = 0;
        for boot in 0..20 {
            // Only the first boot knows the date; each boot starts its monotonic time anew.
            let wall = if boot == 0 { YEAR_2025 } else { Duration::from_secs(30) };
            let mut now = Time::ZERO;
            let mut clock = LogicalClock::new(file, wall, now);
            let mut writes = 0;
            for _ in 0..24 * 60 {
                if let Some(reservation) = clock.reservation(now) {
                    file = Some(reservation);
                    clock.stored(reservation);
                    writes += 1;
                }
                let stamp = clock.stamp(now);
                assert!(stamp > last, "boot {boot}");
                assert!(file.is_some_and(|f| stamp <= f), "a stamp beyond the reservation");
                last = stamp;
                now += MINUTE;
            }
            assert_eq!(writes, 3, "a day");
        }
    }

    #[test]
    fn a_date_that_is_learnt_late_is_taken_and_never_given_back() {
        let mut now = Time::from_millis(7_000);
        let mut clock = LogicalClock::new(None, Duration::from_secs(60), now);
        assert_eq!(clock.stamp(now), 60_000);
        now += MINUTE;
        clock.advance(1_735_689_600_000, now);
        assert_eq!(clock.stamp(now), 1_735_689_600_000);
        assert!(clock.reservation(now).is_some());
        now += MINUTE;
        clock.advance(5_000, now);
        assert_eq!(clock.stamp(now), 1_735_689_660_000);
    }

    #[test]
    fn a_right_clock_wins_over_an_old_file() {
        let mut clock = LogicalClock::new(Some(1_000), YEAR_2025, Time::ZERO);
        assert_eq!(clock.stamp(Time::ZERO), 1_735_689_600_000);
    }

    #[test]
    fn a_reserved_stamp_is_not_used_again() {
        assert_eq!(LogicalClock::new(Some(1_000), Duration::ZERO, Time::ZERO).stamp(Time::ZERO), 1_001);
    }

    #[test]
    fn a_full_disk_stops_nothing() {
        let mut clock = LogicalClock::new(None, Duration::ZERO, Time::ZERO);
        let mut now = Time::ZERO;
        let mut last = clock.stamp(now);
        for _ in 0..2_000 {
            now += MINUTE;
            assert!(clock.reservation(now).is_some());
            let stamp = clock.stamp(now);
            assert!(stamp > last);
            last = stamp;
        }
    }
}
