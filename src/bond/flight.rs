//! What was sent over one link and not yet reported: who was lost, and what must be sent again.

use std::collections::VecDeque;
use std::time::Duration;

use super::Time;
use super::packet::Packet;
use super::queue::Via;
use super::wire::{Kind, Report};

/// Records that one link keeps at the most; the oldest are forgotten first.
const MAX_RECORDS: usize = 16_384;
/// A hole counts as lost after so many later packets, at first and at the most.
const MIN_REORDERING: u64 = 1;
const MAX_REORDERING: u64 = 64;

/// A data packet on its way: everything that is needed to send it (again).
pub struct Outgoing {
    /// The inner packet, or a part of one.
    pub packet: Packet,
    /// Whole packet or part.
    pub kind: Kind,
    /// Order matters.
    pub ordered: bool,
    /// Flow bucket.
    pub bucket: u16,
    /// Sequence number in the bucket.
    pub sequence: u32,
    /// When it entered the bond.
    pub born: Time,
    /// How often it has been sent.
    pub attempts: u8,
    /// Its flow sends little, so that it does not wait for others.
    pub sparse: bool,
    /// It goes over this link.
    pub pinned: Option<Via>,
    /// Its class, see [`super::class`].
    pub class: u8,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Flying,
    Arrived,
    Lost,
}

struct Record {
    sent: Time,
    /// Time until then in which the link was given nothing.
    idle: Duration,
    line_bytes: u32,
    fate: Fate,
    elicits: bool,
    payload: Option<Outgoing>,
}

/// What a report settled.
#[derive(Debug, Default)]
pub struct Settled {
    /// Packets and bytes on the line that came.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packets found lost.
    pub lost: u64,
    /// When the newest packet of the report was sent, and how long the link had been given nothing by then; if that is
    /// news.
    pub newest_sent: Option<(Time, Duration)>,
}

/// The flight of one link.
pub struct Flight {
    records: VecDeque<Record>,
    /// Packet number of the first record.
    first: u64,
    largest_reported: Option<u64>,
    /// The newest packet that waits for a report.
    newest_eliciting: Option<u64>,
    reordering: u64,
    /// Packets up to here have been judged.
    judged: u64,
    in_flight: usize,
    payload_bytes: usize,
}

impl Flight {
    /// Nothing in flight; packet numbers start at 0.
    pub fn new() -> Self {
        Self::starting_at(0)
    }

    /// Nothing in flight; the next packet has this number.
    pub fn starting_at(first: u64) -> Self {
        Flight {
            records: VecDeque::new(),
            first,
            largest_reported: None,
            newest_eliciting: None,
            reordering: MIN_REORDERING,
            judged: first,
            in_flight: 0,
            payload_bytes: 0,
        }
    }

    /// The number of the next packet.
    pub fn next_number(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// Bytes on the line that are sent and neither reported nor lost.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Bytes of payload kept for sending again.
    pub fn payload_bytes(&self) -> usize {
        self.payload_bytes
    }

    /// Enters the packet with the number [`Flight::next_number`]. `idle` is how long the link has been given nothing so
    /// far. Returns a payload that is no longer kept.
    pub fn sent(
        &mut self,
        line_bytes: usize,
        elicits: bool,
        payload: Option<Outgoing>,
        idle: Duration,
        now: Time,
    ) -> Option<Outgoing> {
        if elicits {
            self.newest_eliciting = Some(self.next_number());
        }
        self.in_flight += line_bytes;
        self.payload_bytes += payload.as_ref().map_or(0, |p| p.packet.len());
        self.records.push_back(Record {
            sent: now,
            idle,
            line_bytes: line_bytes as u32,
            fate: Fate::Flying,
            elicits,
            payload,
        });
        if self.records.len() <= MAX_RECORDS {
            return None;
        }
        self.pop_front()
    }

    /// Settles what `report` names. Lost payloads go to `lost`, those that came to `done`.
    pub fn report(
        &mut self,
        report: &Report<'_>,
        mut done: impl FnMut(Outgoing),
        lost: &mut Vec<Outgoing>,
    ) -> Option<Settled> {
        let next = self.next_number();
        let largest = expand(report.largest, next)?;
        if largest >= next {
            return None;
        }
        let mut settled = Settled::default();
        let news = self.largest_reported.is_none_or(|known| largest > known);
        if news {
            self.largest_reported = Some(largest);
            settled.newest_sent = self.record(largest).map(|r| (r.sent, r.idle));
        }
        let run_start = largest.saturating_sub(u64::from(report.run));
        for number in run_start.max(self.first)..=largest {
            self.acknowledge(number, &mut settled, &mut done);
        }
        for (i, byte) in report.bitmap.iter().enumerate() {
            for bit in (0..8).filter(|bit| byte & (1 << bit) != 0) {
                if let Some(number) = run_start.checked_sub(1 + (i * 8 + bit) as u64) {
                    self.acknowledge(number, &mut settled, &mut done);
                }
            }
        }
        self.judge(largest, &mut settled, lost);
        self.trim();
        Some(settled)
    }

    /// Reads a report that hurried ahead over a quicker link: what it shows to be lost is handed to `lost` for sending
    /// again. Everything else, the loss's own place in the books too, is left to the report that comes over the link.
    pub fn hasten(&mut self, report: &Report<'_>, lost: &mut Vec<Outgoing>) {
        let Some(largest) = expand(report.largest, self.next_number()) else { return };
        let Some(run_start) = largest.checked_sub(u64::from(report.run)) else { return };
        if largest >= self.next_number() {
            return;
        }
        let named = report.bitmap.len() as u64 * 8;
        let end = (largest + 1).saturating_sub(self.reordering).min(run_start);
        for number in self.judged.max(self.first).max(run_start.saturating_sub(named))..end {
            let bit = run_start - 1 - number;
            let came = report.bitmap.get((bit / 8) as usize).is_some_and(|byte| byte & (1 << (bit % 8)) != 0);
            let Some(record) = self.records.get_mut((number - self.first) as usize) else { return };
            if !came && let Some(payload) = record.payload.take() {
                self.payload_bytes -= payload.packet.len();
                lost.push(payload);
            }
        }
    }

    /// Sent time of the oldest packet that waits for a report beyond the newest one reported.
    pub fn oldest_unanswered(&self) -> Option<Time> {
        let from = self.largest_reported.map_or(self.first, |n| n + 1).max(self.first);
        // Who only receives sends reports, many of them, and is asked for this all the time.
        self.newest_eliciting.filter(|newest| *newest >= from)?;
        let skip = (from - self.first) as usize;
        self.records.iter().skip(skip).find(|r| r.elicits && r.fate == Fate::Flying).map(|r| r.sent)
    }

    /// Takes every payload in flight: the link has stopped answering.
    pub fn take_all(&mut self, into: &mut Vec<Outgoing>) {
        self.payload_bytes = 0;
        into.extend(self.records.iter_mut().filter_map(|record| record.payload.take()));
    }

    /// Drops the oldest payload to save memory.
    pub fn drop_oldest_payload(&mut self) -> Option<Outgoing> {
        let payload = self.records.iter_mut().find_map(|r| r.payload.take())?;
        self.payload_bytes -= payload.packet.len();
        Some(payload)
    }

    fn record(&self, number: u64) -> Option<&Record> {
        self.records.get(usize::try_from(number.checked_sub(self.first)?).ok()?)
    }

    fn acknowledge(&mut self, number: u64, settled: &mut Settled, done: &mut impl FnMut(Outgoing)) {
        let Some(index) = number.checked_sub(self.first) else { return };
        let Some(record) = self.records.get_mut(index as usize) else { return };
        if let Some(payload) = record.payload.take() {
            self.payload_bytes -= payload.packet.len();
            done(payload);
        }
        match std::mem::replace(&mut record.fate, Fate::Arrived) {
            Fate::Arrived => return,
            Fate::Flying => self.in_flight -= record.line_bytes as usize,
            // It was taken for lost and only late: the link reorders.
            Fate::Lost => {
                let distance = self.largest_reported.unwrap_or(number).saturating_sub(number) + 1;
                self.reordering = self.reordering.max(distance.min(MAX_REORDERING));
            }
        }
        settled.packets += 1;
        settled.bytes += u64::from(record.line_bytes);
    }

    fn judge(&mut self, largest: u64, settled: &mut Settled, lost: &mut Vec<Outgoing>) {
        let end = (largest + 1).saturating_sub(self.reordering).max(self.judged);
        for number in self.judged.max(self.first)..end {
            let Some(record) = self.records.get_mut((number - self.first) as usize) else { break };
            if record.fate != Fate::Flying {
                continue;
            }
            self.in_flight -= record.line_bytes as usize;
            record.fate = Fate::Lost;
            settled.lost += 1;
            if let Some(payload) = record.payload.take() {
                self.payload_bytes -= payload.packet.len();
                lost.push(payload);
            }
        }
        self.judged = end;
    }

    fn trim(&mut self) {
        // Judged packets stay a while, so that late ones teach the link's reordering.
        while self.first + MAX_REORDERING < self.judged
            && self.records.front().is_some_and(|r| r.fate != Fate::Flying)
        {
            self.pop_front();
        }
    }

    fn pop_front(&mut self) -> Option<Outgoing> {
        let record = self.records.pop_front()?;
        self.first += 1;
        if record.fate == Fate::Flying {
            self.in_flight -= record.line_bytes as usize;
        }
        if let Some(payload) = &record.payload {
            self.payload_bytes -= payload.packet.len();
        }
        record.payload
    }
}

impl Default for Flight {
    fn default() -> Self {
        Self::new()
    }
}

/// A payload that has been on its way for longer than this is too old to matter.
pub const TOO_OLD: Duration = Duration::from_millis(1_500);
/// A packet is sent at most so often.
pub const MAX_ATTEMPTS: u8 = 6;

/// The full number of which `low` is the low half, nearest to `next`.
fn expand(low: u32, next: u64) -> Option<u64> {
    let distance = (next as u32).wrapping_sub(low) as i32;
    next.checked_add_signed(-i64::from(distance))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::NO_DELAY;

    fn outgoing(sequence: u32) -> Outgoing {
        let mut packet = Packet::default();
        packet.copy_from(&[0; 100]);
        Outgoing {
            packet,
            kind: Kind::Data,
            ordered: true,
            bucket: 1,
            sequence,
            born: Time::ZERO,
            attempts: 1,
            pinned: None,
            sparse: false,
            class: 0,
        }
    }

    fn report(largest: u32, run: u16, bitmap: &[u8]) -> Report<'_> {
        Report {
            link: 0,
            largest,
            received: 0,
            hold: 0,
            bytes: 0,
            marked: 0,
            short_delay: NO_DELAY,
            long_delay: NO_DELAY,
            jitter: 0,
            run,
            bitmap,
        }
    }

    fn flight(count: u32) -> Flight {
        let mut flight = Flight::new();
        for n in 0..count {
            flight.sent(160, true, Some(outgoing(n)), Duration::ZERO, Time::from_millis(u64::from(n)));
        }
        flight
    }

    #[test]
    fn a_hole_is_lost_after_one_later_packet_and_only_once() {
        let mut flight = flight(6);
        let mut lost = Vec::new();
        let settled = flight.report(&report(3, 0, &[0b10]), drop, &mut lost).unwrap();
        assert_eq!((settled.packets, settled.lost), (2, 2), "3 and 1 came, 0 and 2 did not");
        assert_eq!(lost.iter().map(|o| o.sequence).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(flight.in_flight(), 2 * 160);
        flight.report(&report(3, 0, &[0b10]), drop, &mut lost).unwrap();
        assert_eq!(lost.len(), 2);
        assert_eq!(flight.oldest_unanswered(), Some(Time::from_millis(4)));
    }

    #[test]
    fn a_report_that_hurries_ahead_hands_out_what_is_lost_and_leaves_the_books_alone() {
        let mut flight = flight(12);
        let mut lost = Vec::new();
        let hurried = report(6, 1, &[0b1_1110]);
        flight.hasten(&hurried, &mut lost);
        flight.hasten(&hurried, &mut lost);
        assert_eq!(lost.iter().map(|o| o.sequence).collect::<Vec<_>>(), [4]);
        assert_eq!((flight.in_flight(), flight.payload_bytes()), (12 * 160, 11 * 100));
        flight.hasten(&report(12, 0, &[0]), &mut lost);
        assert_eq!(lost.len(), 1, "12 was never sent");
        let settled = flight.report(&hurried, drop, &mut lost).unwrap();
        assert_eq!((settled.lost, lost.len()), (1, 1), "lost once, sent again once");
    }

    #[test]
    fn a_link_that_reorders_is_judged_later() {
        let mut flight = flight(10);
        let mut lost = Vec::new();
        flight.report(&report(2, 1, &[]), drop, &mut lost).unwrap();
        assert_eq!(lost.len(), 1);
        flight.report(&report(3, 3, &[]), drop, &mut lost).unwrap();
        flight.report(&report(6, 0, &[0b1110]), drop, &mut lost).unwrap();
        assert_eq!(lost.len(), 1, "5 and 4 may still come");
        flight.report(&report(9, 9, &[]), drop, &mut lost).unwrap();
        assert_eq!((lost.len(), flight.in_flight(), flight.payload_bytes()), (1, 0, 0));
    }

    #[test]
    fn reports_of_packets_never_sent_are_refused() {
        let mut flight = flight(3);
        assert!(flight.report(&report(3, 0, &[]), drop, &mut Vec::new()).is_none());
        assert!(flight.report(&report(u32::MAX, 0, &[]), drop, &mut Vec::new()).is_none());
        assert_eq!(flight.in_flight(), 3 * 160);
    }

    #[test]
    fn expansion_finds_the_nearest_number() {
        assert_eq!(expand(u32::MAX, 1 << 32), Some((1 << 32) - 1));
        assert_eq!(expand(5, (1 << 32) + 7), Some((1 << 32) + 5));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Sent { elicits: bool, carries: bool },
        Reported { back: u32, run: u16, bitmap: Vec<u8>, hurried: bool },
        Dropped,
        TakenAll,
    }

    fn step() -> impl Strategy<Value = Step> {
        let back = prop_oneof![4 => 0..40u32, 1 => any::<u32>(), 1 => Just(u32::MAX)];
        let run = prop_oneof![4 => 0..20u16, 1 => any::<u16>(), 1 => Just(u16::MAX)];
        let bitmap = proptest::collection::vec(any::<u8>(), 0..=32);
        prop_oneof![
            20 => (any::<bool>(), any::<bool>()).prop_map(|(elicits, carries)| Step::Sent { elicits, carries }),
            8 => (back, run, bitmap, any::<bool>())
                .prop_map(|(back, run, bitmap, hurried)| Step::Reported { back, run, bitmap, hurried }),
            1 => Just(Step::Dropped),
            1 => Just(Step::TakenAll),
        ]
    }

    proptest! {
        #[test]
        fn whatever_is_reported_the_books_are_right_and_each_payload_is_handed_out_once(
            steps in proptest::collection::vec(step(), 1..300),
            first in prop_oneof![Just(0u64), Just(u64::from(u32::MAX) - 20), 0..1u64 << 40],
        ) {
            let mut flight = Flight::starting_at(first);
            let mut sent = 0;
            let mut out = Vec::new();
            for (at, step) in (0..).map(Time::from_millis).zip(steps) {
                match step {
                    Step::Sent { elicits, carries } => {
                        let payload = carries.then(|| outgoing(sent));
                        sent += u32::from(carries);
                        out.extend(flight.sent(160, elicits, payload, Duration::ZERO, at).map(|o| o.sequence));
                    }
                    Step::Reported { back, run, bitmap, hurried } => {
                        let largest = (flight.next_number() as u32).wrapping_sub(1).wrapping_sub(back);
                        let (report, mut lost) = (report(largest, run, &bitmap), Vec::new());
                        if hurried {
                            flight.hasten(&report, &mut lost);
                        } else {
                            flight.report(&report, |done| out.push(done.sequence), &mut lost);
                        }
                        out.extend(lost.iter().map(|outgoing| outgoing.sequence));
                    }
                    Step::Dropped => out.extend(flight.drop_oldest_payload().map(|o| o.sequence)),
                    Step::TakenAll => {
                        let mut taken = Vec::new();
                        flight.take_all(&mut taken);
                        out.extend(taken.iter().map(|outgoing| outgoing.sequence));
                    }
                }
                let flying = flight.records.iter().filter(|record| record.fate == Fate::Flying).count();
                prop_assert_eq!(flight.in_flight(), 160 * flying);
                let kept = flight.records.iter().filter(|record| record.payload.is_some()).count();
                prop_assert_eq!(flight.payload_bytes(), 100 * kept);
                prop_assert_eq!(out.len() + kept, sent as usize);
                let _ = flight.oldest_unanswered();
            }
            out.sort_unstable();
            prop_assert!(out.windows(2).all(|pair| pair[0] < pair[1]), "handed out twice: {:?}", out);
        }
    }
}
