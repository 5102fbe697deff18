//! The receiving half of a modelled TCP connection: order, selective and delayed acknowledgements, figures.

use std::collections::VecDeque;

use crate::{MILLI, Nanos, SECOND};

/// An acknowledgement waits for a second segment at most this long (Linux: TCP_DELACK_MIN).
const DELAYED_ACK: Nanos = 40 * MILLI;
/// Segments acknowledged at once at the start (Linux: TCP_MAX_QUICKACKS).
const QUICK_ACKS: u32 = 16;
/// The width of a bin of the goodput record.
pub const BIN: Nanos = 100 * MILLI;

/// See the module. Numbers are segments, as in the sender.
#[derive(Debug, Default)]
pub struct Receiver {
    /// The next segment in sequence.
    pub next: u64,
    /// The same when an acknowledgement was sent last.
    pub announced: u64,
    /// What arrived beyond it (start, end), the latest to change first.
    ahead: VecDeque<(u64, u64)>,
    /// A segment that arrived twice since the last acknowledgement.
    duplicate: Option<(u64, u64)>,
    unacknowledged: u32,
    quick: u32,
    delayed: Option<Nanos>,
    ack_now: bool,
    bins: Vec<u64>,
    last_progress: Option<Nanos>,
    gaps: Vec<(Nanos, Nanos)>,
    /// Segments that arrived more than once.
    pub duplicates: u64,
}

impl Receiver {
    /// A segment arrived.
    pub fn on_segment(&mut self, number: u64, bytes: u64, now: Nanos) {
        if number < self.next || self.ahead.iter().any(|&(start, end)| (start..end).contains(&number)) {
            self.duplicates += 1;
            self.duplicate = Some((number, number + 1));
            self.ack_now = true;
            return;
        }
        if number > self.next {
            self.insert(number);
            self.ack_now = true;
            return;
        }
        let had_hole = !self.ahead.is_empty();
        self.next += 1;
        if let Some(index) = self.ahead.iter().position(|&(start, _)| start == self.next)
            && let Some((_, end)) = self.ahead.remove(index)
        {
            self.next = end;
        }
        self.record((self.next - number) * bytes, now);
        self.unacknowledged += 1;
        if self.quick < QUICK_ACKS {
            self.quick += 1;
            self.ack_now = true;
        }
        if had_hole || self.unacknowledged >= 2 {
            self.ack_now = true;
        } else {
            self.delayed.get_or_insert(now + DELAYED_ACK);
        }
    }

    /// Acknowledge at once, for whatever reason.
    pub fn hurry(&mut self) {
        self.ack_now = true;
    }

    /// Whether an acknowledgement is due now. Then read it, and call [`Receiver::acknowledged`].
    pub fn must_acknowledge(&self, now: Nanos) -> bool {
        self.ack_now || self.delayed.is_some_and(|at| at <= now)
    }

    /// When a delayed acknowledgement is due.
    pub fn next_timer(&self) -> Option<Nanos> {
        self.delayed
    }

    /// The ranges to report: a duplicate first (RFC 2883), then the latest, three in all.
    pub fn sack(&self) -> Vec<(u64, u64)> {
        self.duplicate.iter().chain(&self.ahead).take(3).copied().collect()
    }

    /// An acknowledgement was sent.
    pub fn acknowledged(&mut self) {
        self.announced = self.next;
        self.ack_now = false;
        self.delayed = None;
        self.unacknowledged = 0;
        self.duplicate = None;
    }

    /// Segments that wait for an earlier one.
    pub fn waiting(&self) -> u64 {
        self.ahead.iter().map(|&(start, end)| end - start).sum()
    }

    /// Bytes that arrived in sequence between two times (rounded to bins).
    pub fn bytes(&self, from: Nanos, to: Nanos) -> u64 {
        let range = (from / BIN) as usize..(to / BIN) as usize;
        self.bins.iter().enumerate().filter(|(bin, _)| range.contains(bin)).map(|(_, bytes)| bytes).sum()
    }

    /// Goodput in bit/s between two times.
    pub fn goodput(&self, from: Nanos, to: Nanos) -> f64 {
        let (from, to) = (from / BIN * BIN, to / BIN * BIN);
        self.bytes(from, to) as f64 * 8.0 * SECOND as f64 / (to - from).max(1) as f64
    }

    /// The longest time without progress that touches the span; one that still lasts at its end counts.
    pub fn longest_gap(&self, from: Nanos, to: Nanos) -> Nanos {
        let open = self.last_progress.map(|last| (last, to));
        let touching = self.gaps.iter().copied().chain(open).filter(|&(start, end)| end > from && start < to);
        touching.map(|(start, end)| end.min(to) - start).max().unwrap_or(0)
    }

    fn record(&mut self, bytes: u64, now: Nanos) {
        let bin = (now / BIN) as usize;
        if self.bins.len() <= bin {
            self.bins.resize(bin + 1, 0);
        }
        self.bins[bin] += bytes;
        if let Some(last) = self.last_progress.replace(now)
            && now - last > 20 * MILLI
        {
            self.gaps.push((last, now));
        }
    }

    fn insert(&mut self, number: u64) {
        let (mut start, mut end) = (number, number + 1);
        self.ahead.retain(|&(s, e)| {
            let joins = e == start || s == end;
            if joins {
                start = start.min(s);
                end = end.max(e);
            }
            !joins
        });
        self.ahead.push_front((start, end));
    }
}
