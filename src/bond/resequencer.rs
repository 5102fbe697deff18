//! Restores the order of each flow.
//!
//! Every packet carries a flow bucket and a sequence number in it, so a gap in one flow never holds up another. A gap
//! is closed by the missing packet, by the sender's word that it will not come, or when its time is over; the time
//! runs from the moment the gap was first seen, and no later arrival extends it. It is shorter for datagrams than for
//! streams: their receivers prefer a hole to a long wait.

use std::collections::VecDeque;
use std::time::Duration;

use super::deadlines::Deadlines;
use super::packet::{Packet, Pool};
use super::wire::{BUCKETS, SEQUENCES};
use super::{LinkId, Time};

/// How far a flow may be ahead of its first gap, in packets.
const WINDOW: u32 = 4_096;
/// Sequence numbers before the expected one whose arrival is remembered.
const REMEMBERED: u32 = 1_024;
const WORDS: usize = (REMEMBERED / 64) as usize;
const POOL: usize = 256;
/// Places behind gaps that all flows have together, at the most: 1.6 MB, whatever a peer sends.
const MAX_PLACES: usize = 8 * WINDOW as usize;
/// Places that a flow keeps the memory of when they are empty.
const SPARE_PLACES: usize = 32;
/// Before anything is known of the links.
const DEFAULT_PATIENCE: Patience =
    Patience { stream: Duration::from_millis(200), datagrams: Duration::from_millis(100) };

const STREAM_MARGIN: Duration = Duration::from_millis(700);
const MAX_PATIENCE: Duration = Duration::from_millis(1_500);
const DATAGRAM_MARGIN: Duration = Duration::from_millis(40);
const MAX_DATAGRAM_PATIENCE: Duration = Duration::from_millis(400);

/// How long a gap is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// In a stream (TCP), which stands still until the gap is filled, by us or by its sender.
    pub stream: Duration,
    /// In a flow of datagrams.
    pub datagrams: Duration,
}

impl Patience {
    /// Enough for what comes over the slowest link, and for what is sent again over the quickest; these are their round
    /// trips. A stream is given time for a second attempt, too.
    pub fn between(quickest: Duration, slowest: Duration) -> Self {
        let difference = slowest.saturating_sub(quickest);
        Patience {
            stream: (difference + quickest * 3 + STREAM_MARGIN).min(MAX_PATIENCE),
            datagrams: (difference + quickest * 3 / 2 + DATAGRAM_MARGIN).min(MAX_DATAGRAM_PATIENCE),
        }
    }
}

/// What a packet's flow asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing: only second copies are removed.
    Any,
    /// Order, unless it takes long.
    Datagrams,
    /// Order.
    Stream,
}

/// What is known of an arrived packet.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Flow bucket.
    pub bucket: u16,
    /// Sequence number in it.
    pub seq: u32,
    /// What its flow asks for.
    pub order: Order,
    /// Over which link it came.
    pub link: LinkId,
    /// When it was sent, in ticks of the sender's clock.
    pub sent: u64,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Delivered.
    Delivered,
    /// Waits for an earlier one.
    Held,
    /// A second copy, dropped.
    Duplicate,
    /// Came after its gap had been given up; delivered.
    Late,
}

struct Held {
    sequence: u32,
    /// It waits no longer.
    until: Time,
    /// `None` when it was delivered at once, since its order does not matter.
    packet: Option<Packet>,
}

#[derive(Default)]
struct Flow {
    /// The next sequence number in order.
    next: u32,
    /// Which of the [`REMEMBERED`] numbers before `next` came.
    came: [u64; WORDS],
    /// What came after `next`, in the order of its numbers.
    ahead: VecDeque<Held>,
    /// Length of `ahead` as it is counted in [`Resequencer::places`].
    places: usize,
    /// Packets in `ahead`.
    packets: usize,
    /// Before this nothing in `ahead` has waited long enough.
    deadline: Option<Time>,
}

/// The resequencer of one peer.
pub struct Resequencer {
    flows: Vec<Option<Box<Flow>>>,
    /// Of gaps, by bucket.
    deadlines: Deadlines,
    patience: Patience,
    pool: Pool,
    held: usize,
    max_held: usize,
    places: usize,
    gaps_given_up: u64,
    duplicates: u64,
    late: u64,
}

impl Resequencer {
    /// A resequencer that holds at most `max_held` packets.
    pub fn new(max_held: usize) -> Self {
        Resequencer {
            flows: Vec::new(),
            deadlines: Deadlines::new(),
            patience: DEFAULT_PATIENCE,
            pool: Pool::new(POOL),
            held: 0,
            max_held,
            places: 0,
            gaps_given_up: 0,
            duplicates: 0,
            late: 0,
        }
    }

    /// Takes a packet; delivers it and what it releases. Bytes are copied only when the packet must wait.
    pub fn receive(
        &mut self,
        arrival: Arrival,
        packet: &[u8],
        now: Time,
        deliver: &mut dyn FnMut(&[u8]),
    ) -> Outcome {
        let bucket = arrival.bucket;
        let patience = match arrival.order {
            Order::Any => None,
            Order::Datagrams => Some(self.patience.datagrams),
            Order::Stream => Some(self.patience.stream),
        };
        if usize::from(bucket) >= BUCKETS {
            return Outcome::Duplicate;
        }
        if self.flows.is_empty() {
            self.flows.resize_with(BUCKETS, || None);
        }
        let distance = distance(arrival.seq, self.flow(bucket).next);
        if distance < 0 {
            return self.receive_late(arrival, packet, deliver);
        }
        let mut ahead = distance as u32;
        while ahead >= WINDOW {
            self.close_gap(bucket, arrival.seq, deliver);
            ahead = self::distance(arrival.seq, self.flow(bucket).next).max(0) as u32;
        }
        let Err(place) = self.flow(bucket).find(arrival.seq) else {
            self.duplicates += 1;
            return Outcome::Duplicate;
        };
        if ahead == 0 || patience.is_none() {
            deliver(packet);
        }
        if ahead == 0 {
            self.flow(bucket).pass(true);
            self.release(bucket, deliver);
            self.schedule(bucket);
            return Outcome::Delivered;
        }
        let copy = patience.map(|_| {
            let mut copy = self.pool.take();
            copy.copy_from(packet);
            copy
        });
        let until = now + patience.unwrap_or(self.patience.stream);
        self.hold(bucket, place, Held { sequence: arrival.seq, until, packet: copy }, deliver);
        if patience.is_none() {
            return Outcome::Delivered;
        }
        Outcome::Held
    }

    /// The sender will not send this one again.
    pub fn give_up(&mut self, bucket: u16, seq: u32, now: Time, deliver: &mut dyn FnMut(&[u8])) {
        if self.flows.get(usize::from(bucket)).is_none_or(Option::is_none) {
            return;
        }
        let flow = self.flow(bucket);
        let ahead = distance(seq, flow.next);
        if ahead < 0 || ahead as u32 >= WINDOW {
            return;
        }
        let Err(place) = flow.find(seq) else { return };
        self.gaps_given_up += 1;
        if ahead == 0 {
            self.flow(bucket).pass(false);
            self.release(bucket, deliver);
            self.schedule(bucket);
            return;
        }
        let until = now + self.patience.stream;
        self.hold(bucket, place, Held { sequence: seq, until, packet: None }, deliver);
    }

    /// How long a gap is waited for.
    pub fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// When [`Resequencer::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, _)| at)
    }

    /// Gives up the gaps whose time is over.
    pub fn handle_timeout(&mut self, now: Time, deliver: &mut dyn FnMut(&[u8])) {
        while let Some((at, bucket)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.expire(bucket as u16, now, deliver);
        }
    }

    /// A new lineage: every flow starts at 0 again. What is held is lost.
    pub fn reset(&mut self) {
        let max_held = self.max_held;
        let fresh = Resequencer {
            patience: self.patience,
            gaps_given_up: self.gaps_given_up,
            duplicates: self.duplicates,
            late: self.late,
            ..Resequencer::new(max_held)
        };
        *self = fresh;
    }

    /// Packets that wait.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Gaps that were given up.
    pub fn gaps_given_up(&self) -> u64 {
        self.gaps_given_up
    }

    /// Second copies that were dropped.
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Packets that came after their gap had been given up.
    pub fn late(&self) -> u64 {
        self.late
    }

    fn flow(&mut self, bucket: u16) -> &mut Flow {
        self.flows[usize::from(bucket) % BUCKETS].get_or_insert_with(Box::default)
    }

    fn receive_late(&mut self, arrival: Arrival, packet: &[u8], deliver: &mut dyn FnMut(&[u8])) -> Outcome {
        let flow = self.flow(arrival.bucket);
        let back = distance(flow.next, arrival.seq) as u32;
        if back > REMEMBERED || flow.has_come(arrival.seq) {
            self.duplicates += 1;
            return Outcome::Duplicate;
        }
        flow.mark(arrival.seq, true);
        self.late += 1;
        deliver(packet);
        Outcome::Late
    }

    /// Enters what is ahead of a gap; where too much is, the oldest gaps are given up.
    fn hold(&mut self, bucket: u16, place: usize, held: Held, deliver: &mut dyn FnMut(&[u8])) {
        let waits = held.packet.is_some();
        let flow = self.flow(bucket);
        flow.ahead.insert(place, held);
        flow.packets += usize::from(waits);
        self.held += usize::from(waits);
        self.schedule(bucket);
        while self.held > self.max_held || self.places > MAX_PLACES {
            let Some((_, oldest)) = self.deadlines.first() else { break };
            self.give_up_gap(oldest as u16, deliver);
        }
    }

    /// Gives up the gaps in front of what has waited long enough.
    fn expire(&mut self, bucket: u16, now: Time, deliver: &mut dyn FnMut(&[u8])) {
        let last = self.flow(bucket).ahead.iter().rev().find(|held| held.until <= now);
        if let Some(last) = last.map(|held| held.sequence) {
            while distance(last, self.flow(bucket).next) >= 0 {
                self.give_up_gap(bucket, deliver);
            }
        }
        let earliest = self.flow(bucket).ahead.iter().map(|held| held.until).min();
        self.set_deadline(bucket, earliest);
    }

    /// Gives up the first gap of a flow and lets go what waited for it.
    fn give_up_gap(&mut self, bucket: u16, deliver: &mut dyn FnMut(&[u8])) {
        let flow = self.flow(bucket);
        let waited = flow.packets > 0;
        if let Some(first) = flow.ahead.front() {
            flow.skip_to(first.sequence);
        }
        self.gaps_given_up += u64::from(waited);
        self.release(bucket, deliver);
        self.schedule(bucket);
    }

    /// Makes room for `seq`, which is too far ahead.
    fn close_gap(&mut self, bucket: u16, seq: u32, deliver: &mut dyn FnMut(&[u8])) {
        if self.flow(bucket).ahead.is_empty() {
            self.flow(bucket).skip_to(seq);
            self.gaps_given_up += 1;
            return;
        }
        self.give_up_gap(bucket, deliver);
    }

    /// Delivers what is in order now.
    fn release(&mut self, bucket: u16, deliver: &mut dyn FnMut(&[u8])) {
        loop {
            let flow = self.flow(bucket);
            if flow.ahead.front().is_none_or(|held| held.sequence != flow.next) {
                return;
            }
            let Some(held) = flow.ahead.pop_front() else { return };
            flow.pass(true);
            if let Some(packet) = held.packet {
                flow.packets -= 1;
                self.held -= 1;
                deliver(&packet);
                self.pool.put(packet);
            }
        }
    }

    fn count_places(&mut self, bucket: u16) {
        let flow = self.flow(bucket);
        let places = flow.ahead.len();
        let before = std::mem::replace(&mut flow.places, places);
        self.places = self.places - before + places;
    }

    /// Sees to it that a flow with a gap has a deadline. Also with one in front of packets that were delivered at once: it
    /// takes memory, and a packet that comes after it is delivered all the same. A deadline may be earlier than anything
    /// is due, since it stays when a gap is filled: looking through all that waits at every packet would cost too much.
    fn schedule(&mut self, bucket: u16) {
        self.count_places(bucket);
        let flow = self.flow(bucket);
        if flow.ahead.capacity() > SPARE_PLACES.max(2 * flow.ahead.len()) {
            flow.ahead.shrink_to_fit();
        }
        let earliest = || flow.ahead.iter().map(|held| held.until).min();
        let deadline = flow.deadline.filter(|_| !flow.ahead.is_empty()).or_else(earliest);
        self.set_deadline(bucket, deadline);
    }

    fn set_deadline(&mut self, bucket: u16, deadline: Option<Time>) {
        let old = std::mem::replace(&mut self.flow(bucket).deadline, deadline);
        self.deadlines.change(bucket.into(), old, deadline);
    }
}

impl Flow {
    /// Where in `ahead` this number is, or would be.
    fn find(&self, sequence: u32) -> Result<usize, usize> {
        let from_next = |sequence| distance(sequence, self.next);
        self.ahead.binary_search_by_key(&from_next(sequence), |held| from_next(held.sequence))
    }

    /// None of the numbers before this one will come.
    fn skip_to(&mut self, sequence: u32) {
        if distance(sequence, self.next) as u32 >= REMEMBERED {
            self.came = [0; WORDS];
            self.next = sequence;
        }
        while self.next != sequence {
            self.pass(false);
        }
    }

    /// The next number has been dealt with.
    fn pass(&mut self, came: bool) {
        let number = self.next;
        self.mark(number, came);
        self.next = (number + 1) & (SEQUENCES - 1);
    }

    fn mark(&mut self, number: u32, came: bool) {
        let (word, bit) = Self::place(number);
        if came {
            self.came[word] |= bit;
        } else {
            self.came[word] &= !bit;
        }
    }

    fn has_come(&self, number: u32) -> bool {
        let (word, bit) = Self::place(number);
        self.came[word] & bit != 0
    }

    fn place(number: u32) -> (usize, u64) {
        let slot = number % REMEMBERED;
        ((slot / 64) as usize % WORDS, 1 << (slot % 64))
    }
}

/// `a − b` modulo the sequence space, the shorter way round.
fn distance(a: u32, b: u32) -> i32 {
    let d = a.wrapping_sub(b) & (SEQUENCES - 1);
    if d >= SEQUENCES / 2 { d as i32 - SEQUENCES as i32 } else { d as i32 }
}

#[cfg(test)]
#[path = "resequencer_tests.rs"]
mod tests;
