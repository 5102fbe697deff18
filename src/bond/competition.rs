//! Shares a line with senders outside the bond that keep its queue filled.
//!
//! Who yields to every queue gets nothing beside a sender that yields to loss only, such as a TCP with CUBIC. While
//! there is one, the rate grows by packets a round trip and falls at a loss, as its does (RFC 9438, 4.3); but a bond
//! stands for several flows, and does not go below a share of what the line is known to carry. From time to time the
//! rate is lowered for a moment: if the queue then empties, the others have gone, and the delay counts again. Others
//! with a window keep what they had in the queue, so that a queue which only becomes shorter is theirs.

use std::time::Duration;

use super::Time;
use super::time::seconds;

const PACKET: f64 = 1500.0;
/// What is left of the rate after a loss.
const DECREASE: f64 = 0.8;
/// Packets by which the rate grows in a round trip: a bond stands for several flows.
const INCREASE: f64 = 2.0;
/// The share of the line that is not given up, as long as that costs little loss.
pub const LEAST_SHARE: f64 = 0.4;
/// Above this loss, the line is no longer what it was.
const HIGH_LOSS: f64 = 0.05;
/// The rate is at most so many times what comes through.
const AHEAD: f64 = 1.25;
/// The others are looked for first after so long, and then so often.
const FIRST_TEST: Duration = Duration::from_millis(1_500);
const TEST_INTERVAL: Duration = Duration::from_secs(8);
/// Not so soon after a loss.
const CALM: Duration = Duration::from_millis(800);
/// Share of the rate during a test.
const TEST_SHARE: f64 = 0.4;
/// The queue changes by less than this (in seconds) in the last part of a test when nobody else fills it.
const LEVEL: f64 = 0.001;
/// It falls to less than this part of what it was when all of it was ours;
const LEAST_LEFT: f64 = 0.15;
/// if it falls less, so many tests after the first must leave the same delay.
const SAME_LEFT: u8 = 3;
/// Who gets less than this part of what the line has carried is not alone; to be sure that is tested, too, but later.
const ALONE: f64 = 0.75;
const TEST_PATIENCE: Duration = Duration::from_secs(16);
/// Others that have left the queue empty for so long have gone.
const EMPTY: Duration = Duration::from_secs(1);

/// What is seen of the link.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    /// Bytes a second delivered, if there had always been something to send.
    pub delivery: f64,
    /// There was always something to send.
    pub full: bool,
    /// Packets were lost since the last report.
    pub lost: bool,
    /// Share of the recent packets that were lost.
    pub loss: f64,
    /// The delay above the base, in seconds, and how much of it is wanted.
    pub queue: f64,
    /// The aimed-at queue, in seconds.
    pub target: f64,
    /// How far the delay strays by itself, in seconds.
    pub noise: f64,
    /// Round-trip time, in seconds.
    pub rtt: f64,
    /// Seconds since the last report.
    pub elapsed: f64,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    /// Send at this rate, in bytes a second.
    Rate(f64),
    /// The others have gone; this much delay, in seconds, is left, which is not a queue.
    Over(f64),
}

struct Test {
    /// The queue when it began.
    before: f64,
    end: Time,
    /// Smallest and largest delay of the last part.
    range: Option<(f64, f64)>,
    lost: bool,
    /// There was always something to send.
    full: bool,
    last_part: Time,
}

/// The state of one link that is shared.
pub struct Competition {
    rate: f64,
    floor: f64,
    next_test: Time,
    test: Option<Test>,
    last_cut: Time,
    met_queue: Time,
    /// What the line has carried.
    capacity: f64,
    /// The delay that the last test left, and how many tests before it left the same.
    left: Option<(f64, u8)>,
    /// A test has shown that there are others.
    proven: bool,
}

impl Competition {
    /// Begins on a line that delivers `delivery` of ours and once carried `capacity`, both in bytes a second: with what it
    /// delivers, and at least with the share of `capacity` that is kept.
    pub fn new(delivery: f64, capacity: f64, now: Time) -> Self {
        let floor = LEAST_SHARE * capacity;
        Competition {
            rate: delivery.max(floor),
            floor,
            next_test: now + FIRST_TEST,
            test: None,
            last_cut: now,
            met_queue: now,
            capacity,
            left: None,
            proven: false,
        }
    }

    /// The rate is low for a moment only.
    pub fn is_testing(&self) -> bool {
        self.test.is_some()
    }

    /// What the line has carried, in bytes a second.
    pub fn capacity(&self) -> f64 {
        self.capacity
    }

    /// Takes a step at a report.
    pub fn step(&mut self, sight: &Sight, now: Time) -> Verdict {
        if sight.queue >= sight.target {
            self.met_queue = now;
        }
        if now.since(self.met_queue) >= EMPTY {
            return Verdict::Over(0.0);
        }
        if let Some(test) = &mut self.test {
            test.lost |= sight.lost;
            test.full &= sight.full;
            if now >= test.last_part {
                let (low, high) = test.range.unwrap_or((sight.queue, sight.queue));
                test.range = Some((low.min(sight.queue), high.max(sight.queue)));
            }
            if now < test.end {
                return Verdict::Rate(self.rate * TEST_SHARE);
            }
            let before = test.before;
            // After a loss the others yield for a while.
            let level = test.range.filter(|(low, high)| high - low < LEVEL + 2.0 * sight.noise && !test.lost);
            let (test_lost, test_full) = (test.lost, test.full);
            self.test = None;
            self.last_cut = now;
            self.next_test = now + TEST_INTERVAL;
            if !test_full {
                // What is left of the queue, nobody has seen.
                return Verdict::Rate(self.rate);
            }
            let Some((low, _)) = level else {
                self.proven |= !test_lost;
                self.left = None;
                return Verdict::Rate(self.rate);
            };
            if low < (LEAST_LEFT * before).max(sight.target + 2.0 * sight.noise) {
                return Verdict::Over(low);
            }
            self.proven = true;
            // Others keep a queue level for a moment, but not at the same length again and again: that is the path.
            let same = self.left.filter(|(left, _)| (low - left).abs() < LEVEL + sight.noise);
            let times = same.map_or(0, |(_, times)| times + 1);
            self.left = Some((low, times));
            if times >= SAME_LEFT {
                return Verdict::Over(low);
            }
            return Verdict::Rate(self.rate);
        }
        // Alone we would get all that the line carries.
        let alone =
            !self.proven || sight.delivery > ALONE * self.capacity || now >= self.next_test + TEST_PATIENCE;
        if now >= self.next_test && alone && sight.full && now.since(self.last_cut) >= CALM {
            let length = 2.0 * sight.queue + sight.rtt;
            let end = now + seconds(1.75 * length);
            self.test = Some(Test {
                before: sight.queue,
                end,
                range: None,
                lost: false,
                full: true,
                last_part: now + seconds(length),
            });
            return Verdict::Rate(self.rate * TEST_SHARE);
        }
        let rtt = sight.rtt.max(0.005);
        if sight.lost {
            if now.since(self.last_cut).as_secs_f64() > rtt {
                let mut rate = self.rate * DECREASE;
                if sight.loss > HIGH_LOSS {
                    // A line that fades looks at first like one that others fill.
                    self.floor *= (1.0 - sight.loss).min(DECREASE);
                    rate = rate.min(AHEAD * sight.delivery);
                }
                self.rate = rate.max(self.floor.min(self.rate));
                self.last_cut = now;
            }
        } else if sight.full {
            let step = INCREASE * PACKET / rtt;
            let ceiling = (AHEAD * sight.delivery + step).max(self.rate);
            self.rate = (self.rate + step * sight.elapsed / rtt).min(ceiling);
        }
        Verdict::Rate(self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(queue: f64, lost: bool) -> Sight {
        Sight {
            delivery: 500_000.0,
            full: true,
            lost,
            loss: 0.01,
            queue,
            target: 0.005,
            noise: 0.0,
            rtt: 0.1,
            elapsed: 0.02,
        }
    }

    #[test]
    fn the_rate_grows_by_two_packets_a_round_trip_and_falls_once_at_a_loss() {
        let mut competition = Competition::new(500_000.0, 0.0, Time::ZERO);
        let mut rate = 0.0;
        for step in 1..=50 {
            match competition.step(&sight(0.08, false), Time::from_millis(step * 20)) {
                Verdict::Rate(r) => rate = r,
                over => panic!("{over:?}"),
            }
        }
        assert!((640_000.0..810_000.0).contains(&rate), "{rate}");
        for step in 51..=53 {
            competition.step(&sight(0.1, true), Time::from_millis(step * 20));
        }
        assert!(
            (competition.rate / rate - DECREASE).abs() < 0.01,
            "three reports of one round trip are one loss"
        );
    }

    #[test]
    fn a_queue_that_empties_while_nothing_is_sent_proves_nothing() {
        let mut competition = Competition::new(500_000.0, 500_000.0, Time::ZERO);
        let (mut testing, mut tests) = (false, 0);
        for step in 1..1_000 {
            let queue = if testing { 0.0 } else { 0.1 };
            let idle = Sight { full: !testing, delivery: 1_000.0, ..sight(queue, false) };
            let verdict = competition.step(&idle, Time::from_millis(step * 20));
            assert!(matches!(verdict, Verdict::Rate(_)), "{verdict:?}");
            tests += u32::from(testing && !competition.is_testing());
            testing = competition.is_testing();
        }
        assert!(tests > 0);
    }

    /// The queue of a line on which each test leaves `left(number of the test)`; what the verdict is in the end.
    fn tested(left: impl Fn(u32) -> f64) -> Option<f64> {
        let mut competition = Competition::new(500_000.0, 500_000.0, Time::ZERO);
        let (mut queue, mut tests, mut testing) = (0.1f64, 0, false);
        for step in 1..5_000 {
            match competition.step(&sight(queue, false), Time::from_millis(step * 20)) {
                Verdict::Rate(_) => {}
                Verdict::Over(left) => return Some(left),
            }
            tests += u32::from(competition.is_testing() && !testing);
            testing = competition.is_testing();
            queue = if testing { (queue - 0.01).max(left(tests)) } else { 0.1 };
        }
        None
    }

    #[test]
    fn who_is_alone_empties_the_queue() {
        assert_eq!(tested(|_| 0.0), Some(0.0));
        let left = tested(|_| 0.025);
        assert_eq!(left, Some(0.025), "the same delay again and again is a longer path");
    }

    #[test]
    fn others_keep_a_queue() {
        assert_eq!(tested(|test| 0.025 + 0.004 * f64::from(test % 3)), None);
    }
}
