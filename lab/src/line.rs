//! One direction of a line as a pure model: it takes packets and the time, and says when each comes out.
//!
//! No socket, no clock: the real-time [emulator](crate::emulator) and a simulator in virtual time run the same code.
//! Time is a [`Duration`] since an origin that only the caller knows, and must not run backwards.
//!
//! A packet's way through the model:
//!
//! ```text
//!  push ─ cut? ─ path MTU ─ queue (drop-tail) ─ serialiser (rate) ─ loss ─ delay + jitter ─ pop_due
//! ```
//!
//! * **Rate** counts the bytes of IP packets (header included, link layer not), as providers and speed tests do.
//!   A packet leaves the serialiser when its last bit does.
//! * **Loss** comes after the serialiser: a lost packet has used its share of the rate.
//! * **Jitter** is described at [`LineConfig::jitter`].
//! * A change of figures at run time acts at once: packets that wait are served at the new rate, delay and jitter;
//!   what is already under way keeps its delay.

mod config;
mod delay;
mod loss;
#[cfg(test)]
mod tests;

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use serde::Serialize;

pub use config::{BurstLoss, InvalidLine, LineConfig, QueueLimit, RateStep};

use self::delay::Delay;
use self::loss::Loss;

/// What happened to a packet that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Verdict {
    /// It waits, or is under way; it will come out of [`Line::pop_due`].
    Queued,
    /// Drop-tail: the queue was full.
    QueueFull,
    /// It will use its share of the rate and then be lost (random or burst loss).
    Lost,
    /// Larger than the path MTU.
    TooBig,
    /// The line is cut ([`LineConfig::blackhole`]).
    Cut,
}

/// What a line has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Packets that came out at the far end.
    pub passed: u64,
    /// IP bytes of these.
    pub bytes: u64,
    /// Dropped because the queue was full.
    pub dropped_queue: u64,
    /// Lost at random or in a burst.
    pub dropped_loss: u64,
    /// Dropped because larger than the path MTU.
    pub dropped_mtu: u64,
    /// Dropped by a cut: pushed while cut, or queued or under way when the cut came.
    pub dropped_cut: u64,
}

impl Counters {
    /// Packets that did not come out, for whatever reason.
    pub const fn dropped(&self) -> u64 {
        self.dropped_queue + self.dropped_loss + self.dropped_mtu + self.dropped_cut
    }
}

/// One direction of a line; `T` is whatever the caller calls a packet.
#[derive(Debug)]
pub struct Line<T> {
    config: LineConfig,
    loss: Loss,
    delay: Delay,
    queue: VecDeque<Waiting<T>>,
    queued_bytes: usize,
    flight: BinaryHeap<Reverse<Flying<T>>>,
    /// Orders packets that come out at the same time.
    sequence: u64,
    counters: Counters,
}

impl<T> Line<T> {
    /// A line with these figures; everything random about it follows from `seed`.
    ///
    /// # Panics
    ///
    /// When [`LineConfig::check`] finds a figure that cannot be.
    pub fn new(config: LineConfig, seed: u64) -> Self {
        assert_valid(&config);
        Line {
            loss: Loss::new(seed),
            delay: Delay::new(seed),
            queue: VecDeque::new(),
            queued_bytes: 0,
            flight: BinaryHeap::new(),
            sequence: 0,
            counters: Counters::default(),
            config,
        }
    }

    /// A packet of `ip_bytes` bytes (IP header included) enters the line.
    pub fn push(&mut self, now: Duration, packet: T, ip_bytes: usize) -> Verdict {
        let now = nanos(now);
        self.advance(now);
        if self.config.blackhole {
            self.counters.dropped_cut += 1;
            return Verdict::Cut;
        }
        if self.config.mtu.is_some_and(|mtu| ip_bytes > mtu) {
            self.counters.dropped_mtu += 1;
            return Verdict::TooBig;
        }
        let start = self.queue.back().map_or(now, |last| last.finish.max(now));
        let full = match self.config.queue {
            QueueLimit::Unlimited => false,
            QueueLimit::Time(limit) => start - now > nanos(limit),
            QueueLimit::Packets(limit) => self.queue.len() >= limit.max(1),
            QueueLimit::Bytes(limit) => {
                !self.queue.is_empty() && self.queued_bytes.saturating_add(ip_bytes) > limit
            }
        };
        if full {
            self.counters.dropped_queue += 1;
            return Verdict::QueueFull;
        }
        let lost = self.loss.takes_next(&self.config);
        let work = work(ip_bytes);
        let finish = self.config.finish(start, work);
        let packet = (!lost).then_some(packet);
        self.queue.push_back(Waiting { packet, bytes: ip_bytes, work, start, finish });
        self.queued_bytes += ip_bytes;
        self.advance(now);
        if lost {
            self.counters.dropped_loss += 1;
            return Verdict::Lost;
        }
        Verdict::Queued
    }

    /// When to call [`Line::pop_due`] next; `None` when nothing is under way (or the rate is 0 for good).
    ///
    /// Exact without [`LineConfig::reorder`]. With it the answer may be early (never late): `pop_due` then gives
    /// `None`, and the next answer is later.
    pub fn next_due(&self) -> Option<Duration> {
        let flying = self.flight.peek().map(|Reverse(first)| first.due);
        let waiting = if self.config.reorder {
            self.queue.front().map(|head| head.finish)
        } else if flying.is_some() {
            None
        } else {
            let head = self.queue.iter().find(|waiting| waiting.packet.is_some());
            head.map(|head| self.delay.due_in_order(head.finish, &self.config))
        };
        let due = flying.into_iter().chain(waiting).min()?;
        (due != NEVER).then(|| Duration::from_nanos(due))
    }

    /// The next packet that has arrived at the far end by `now`.
    pub fn pop_due(&mut self, now: Duration) -> Option<T> {
        let now = nanos(now);
        self.advance(now);
        if self.flight.peek()?.0.due > now {
            return None;
        }
        let Reverse(arrived) = self.flight.pop()?;
        self.counters.passed += 1;
        self.counters.bytes += arrived.bytes as u64;
        Some(arrived.packet)
    }

    /// The figures in force.
    pub fn config(&self) -> &LineConfig {
        &self.config
    }

    /// Changes any figure from `now` on. A new [`LineConfig::blackhole`] loses all that is queued or under way.
    ///
    /// # Panics
    ///
    /// When [`LineConfig::check`] finds a figure that cannot be.
    pub fn reconfigure(&mut self, now: Duration, config: LineConfig) {
        assert_valid(&config);
        let now = nanos(now);
        self.advance(now);
        if let Some(head) = self.queue.front_mut() {
            head.work -= self.config.work_done(head.start, now).min(head.work);
        }
        self.config = config;
        let mut start = now;
        for waiting in &mut self.queue {
            waiting.start = start;
            waiting.finish = self.config.finish(start, waiting.work);
            start = waiting.finish;
        }
        if self.config.blackhole {
            self.counters.dropped_cut += self.queue.iter().filter(|w| w.packet.is_some()).count() as u64;
            self.counters.dropped_cut += self.flight.len() as u64;
            self.queue.clear();
            self.queued_bytes = 0;
            self.flight.clear();
        }
    }

    /// Sets the rate in bit/s; `None` is unlimited, `Some(0)` stands still.
    pub fn set_rate(&mut self, now: Duration, rate: Option<u64>) {
        self.change(now, |config| config.rate = rate);
    }

    /// Sets the one-way delay.
    pub fn set_delay(&mut self, now: Duration, delay: Duration) {
        self.change(now, |config| config.delay = delay);
    }

    /// Sets the path MTU in IP bytes.
    pub fn set_mtu(&mut self, now: Duration, mtu: Option<usize>) {
        self.change(now, |config| config.mtu = mtu);
    }

    /// Cuts the line without a word (all that is queued or under way is lost), or restores it.
    pub fn set_blackhole(&mut self, now: Duration, cut: bool) {
        self.change(now, |config| config.blackhole = cut);
    }

    /// What the line has done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// How long a packet pushed at `now` would wait before its first bit is sent; `Duration::MAX` when for ever.
    pub fn queue_delay(&self, now: Duration) -> Duration {
        match self.queue.back().map(|last| last.finish) {
            None => Duration::ZERO,
            Some(NEVER) => Duration::MAX,
            Some(finish) => Duration::from_nanos(finish.saturating_sub(nanos(now))),
        }
    }

    /// Packets that are queued, being sent, or under way.
    pub fn len(&self) -> usize {
        self.queue.iter().filter(|waiting| waiting.packet.is_some()).count() + self.flight.len()
    }

    /// `true` when no packet is queued, being sent, or under way.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn change(&mut self, now: Duration, change: impl FnOnce(&mut LineConfig)) {
        let mut config = self.config.clone();
        change(&mut config);
        self.reconfigure(now, config);
    }

    /// Moves what has left the serialiser by `now` onto the line.
    fn advance(&mut self, now: u64) {
        while self.queue.front().is_some_and(|head| head.finish <= now && head.finish != NEVER) {
            let Some(sent) = self.queue.pop_front() else { return };
            self.queued_bytes -= sent.bytes;
            if let Some(packet) = sent.packet {
                let due = self.delay.take(sent.finish, &self.config);
                self.sequence += 1;
                let flying = Flying { due, sequence: self.sequence, bytes: sent.bytes, packet };
                self.flight.push(Reverse(flying));
            }
        }
    }
}

/// A finish time that is never reached, because the rate is 0 for good.
const NEVER: u64 = u64::MAX;

/// A packet that is queued, or whose bits are being sent.
#[derive(Debug)]
struct Waiting<T> {
    /// `None`: will be lost after it has used its share of the rate.
    packet: Option<T>,
    bytes: usize,
    /// What was left to send at `start`, in bits × 10⁹ (so that bit/s × ns needs no division).
    work: u128,
    start: u64,
    finish: u64,
}

/// A packet between the serialiser and the far end.
#[derive(Debug)]
struct Flying<T> {
    due: u64,
    sequence: u64,
    bytes: usize,
    packet: T,
}

impl<T> Ord for Flying<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}

impl<T> PartialOrd for Flying<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Flying<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Flying<T> {}

fn work(ip_bytes: usize) -> u128 {
    ip_bytes as u128 * 8 * 1_000_000_000
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER - 1)
}

fn assert_valid(config: &LineConfig) {
    if let Err(why) = config.check() {
        panic!("{why}");
    }
}
