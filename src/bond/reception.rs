//! What came over one link: the receiver's log from which reports to the sender are made.

use std::time::Duration;

use super::LinkId;
use super::Time;
use super::wire::{LONG_PACKET, MAX_BITMAP, NO_DELAY, Report, TICKS, tick_distance, ticks};

/// Packets that the log remembers one by one.
const REMEMBERED: u64 = 1024;
const WORDS: usize = (REMEMBERED / 64) as usize;
/// A report is due after so many packets at the latest: together with the batch in which they came they must fit a
/// report's bitmap ([`MAX_BITMAP`]), for what is older and not named counts as lost.
const UNREPORTED: u32 = 128;
/// Otherwise reports are due at least this far apart, and at most this.
const MIN_INTERVAL: Duration = Duration::from_millis(5);
const MAX_INTERVAL: Duration = Duration::from_millis(25);

/// The log of one link in the receiving direction.
pub struct Reception {
    largest: Option<u64>,
    largest_at: Time,
    seen: [u64; WORDS],
    /// Packets up to `largest` that came without a hole.
    run: u64,
    bytes: u32,
    marked: u16,
    short_delay: u32,
    long_delay: u32,
    last_delay: [Option<u32>; 2],
    /// In sixteenths of a tick.
    jitter: u32,
    packets: u64,
    lost: u64,
    /// When the next report is due, if something came that the sender wants to hear of.
    due: Option<Time>,
    /// A packet number was skipped since the last report.
    hole: bool,
    interval: Duration,
    last_report: Time,
    /// Packets since then.
    unreported: u32,
}

/// What is known of a packet when it has been opened.
pub struct Arrived {
    /// Full packet number.
    pub number: u64,
    /// Bytes on the line, with IP and UDP headers.
    pub line_bytes: usize,
    /// Send time, in wire ticks.
    pub sent: u32,
    /// The outer packet had the mark CE.
    pub marked: bool,
    /// The sender waits for a report on this packet.
    pub elicits: bool,
}

impl Reception {
    /// An empty log.
    pub fn new() -> Self {
        Reception {
            largest: None,
            largest_at: Time::ZERO,
            seen: [0; WORDS],
            run: 0,
            bytes: 0,
            marked: 0,
            short_delay: NO_DELAY,
            long_delay: NO_DELAY,
            last_delay: [None; 2],
            jitter: 0,
            packets: 0,
            lost: 0,
            due: None,
            hole: false,
            interval: MIN_INTERVAL,
            last_report: Time::ZERO,
            unreported: 0,
        }
    }

    /// Reports are sent about four times a round trip.
    pub fn set_round_trip(&mut self, rtt: Duration) {
        self.interval = (rtt / 4).clamp(MIN_INTERVAL, MAX_INTERVAL);
    }

    /// Enters a packet, which the replay window has found to be new.
    pub fn record(&mut self, packet: &Arrived, now: Time) {
        self.packets += 1;
        self.bytes = self.bytes.wrapping_add(packet.line_bytes as u32);
        self.marked = self.marked.wrapping_add(u16::from(packet.marked));
        let hole = self.enter(packet.number, now);
        self.hole |= hole;
        self.record_delay(packet, now);
        if packet.elicits {
            self.unreported += 1;
            let due = if hole || self.unreported >= UNREPORTED {
                now
            } else {
                (self.last_report + self.interval).max(now)
            };
            self.due = Some(self.due.map_or(due, |d| d.min(due)));
        }
    }

    /// The sender asks for a report now.
    pub fn request(&mut self, now: Time) {
        self.due = Some(now);
    }

    /// When a report is to be sent.
    pub fn due(&self) -> Option<Time> {
        self.due
    }

    /// The next report tells of packets that have not come although later ones have.
    pub fn tells_of_holes(&self) -> bool {
        self.hole
    }

    /// Makes the report of this moment; `bitmap` lends its memory.
    pub fn report<'a>(
        &mut self,
        link: LinkId,
        now: Time,
        bitmap: &'a mut [u8; MAX_BITMAP],
    ) -> Option<Report<'a>> {
        let largest = self.largest?;
        self.due = None;
        self.hole = false;
        self.last_report = now;
        self.unreported = 0;
        let run = self.run;
        let used = self.write_bitmap(largest, run, bitmap);
        let hold = now.since(self.largest_at).as_nanos() as u64 / super::wire::TICK_NANOS;
        let report = Report {
            link,
            largest: largest as u32,
            received: ticks(self.largest_at),
            hold: u16::try_from(hold).unwrap_or(u16::MAX),
            bytes: self.bytes,
            marked: self.marked,
            short_delay: std::mem::replace(&mut self.short_delay, NO_DELAY),
            long_delay: std::mem::replace(&mut self.long_delay, NO_DELAY),
            jitter: u16::try_from(self.jitter / 16).unwrap_or(u16::MAX),
            run: run as u16,
            bitmap: &bitmap[..used],
        };
        Some(report)
    }

    /// Packets that came, and packet numbers that did not.
    pub fn counts(&self) -> (u64, u64) {
        (self.packets, self.lost)
    }

    /// Marks `number` as seen; true when it opens a hole.
    fn enter(&mut self, number: u64, now: Time) -> bool {
        let Some(largest) = self.largest else {
            self.largest = Some(number);
            self.largest_at = now;
            self.mark(number);
            return false;
        };
        if number > largest {
            let skipped = number - largest - 1;
            for missing in (largest + 1..number).rev().take(REMEMBERED as usize) {
                self.seen[Self::word(missing)] &= !Self::bit(missing);
            }
            self.mark(number);
            self.largest = Some(number);
            self.largest_at = now;
            self.run = if skipped == 0 { (self.run + 1).min(u64::from(u16::MAX)) } else { 0 };
            self.lost += skipped;
            return skipped > 0;
        }
        if largest - number < REMEMBERED {
            self.mark(number);
            self.lost = self.lost.saturating_sub(1);
            while self.run + 1 < REMEMBERED.min(largest + 1) && self.is_seen(largest - self.run - 1) {
                self.run += 1;
            }
        }
        false
    }

    fn record_delay(&mut self, packet: &Arrived, now: Time) {
        let delay = ticks(now).wrapping_sub(packet.sent) & (TICKS - 1);
        let long = packet.line_bytes >= LONG_PACKET;
        let smallest = if long { &mut self.long_delay } else { &mut self.short_delay };
        if delay != NO_DELAY && (*smallest == NO_DELAY || tick_distance(delay, *smallest) < 0) {
            *smallest = delay;
        }
        if let Some(last) = self.last_delay[usize::from(long)].replace(delay) {
            let change = tick_distance(delay, last).unsigned_abs().min(1 << 16);
            self.jitter = self.jitter + change - self.jitter / 16;
        }
    }

    fn write_bitmap(&self, largest: u64, run: u64, bitmap: &mut [u8; MAX_BITMAP]) -> usize {
        let mut used = 0;
        bitmap.fill(0);
        if run + 1 >= REMEMBERED {
            return 0;
        }
        for i in 0..(MAX_BITMAP * 8) as u64 {
            let back = run + 1 + i;
            if back >= REMEMBERED || back > largest {
                break;
            }
            if self.is_seen(largest - back) {
                bitmap[(i / 8) as usize] |= 1 << (i % 8);
                used = (i / 8 + 1) as usize;
            }
        }
        used
    }

    fn word(number: u64) -> usize {
        ((number / 64) % WORDS as u64) as usize
    }

    fn bit(number: u64) -> u64 {
        1 << (number % 64)
    }

    fn mark(&mut self, number: u64) {
        self.seen[Self::word(number)] |= Self::bit(number);
    }

    fn is_seen(&self, number: u64) -> bool {
        self.seen[Self::word(number)] & Self::bit(number) != 0
    }
}

impl Default for Reception {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(log: &mut Reception, number: u64, at: u64) {
        let sent = ticks(Time::from_millis(at - 20));
        let packet = Arrived { number, line_bytes: 1500, sent, marked: false, elicits: true };
        log.record(&packet, Time::from_millis(at));
    }

    #[test]
    fn a_hole_is_reported_at_once_with_what_came_before_it() {
        let mut log = Reception::new();
        for n in 0..10 {
            arrive(&mut log, n, 1000 + n);
        }
        let mut memory = [0; MAX_BITMAP];
        assert_eq!(
            log.report(0, Time::from_millis(1010), &mut memory).map(|r| (r.largest, r.run)),
            Some((9, 9))
        );
        arrive(&mut log, 12, 1011);
        assert_eq!(log.due(), Some(Time::from_millis(1011)));
        assert!(log.tells_of_holes());
        let report = log.report(0, Time::from_millis(1012), &mut memory).unwrap();
        assert_eq!((report.largest, report.run), (12, 0));
        assert_eq!(report.bitmap[0] & 0b111, 0b100, "11 and 10 are missing, 9 came");
        assert_eq!(report.long_delay, 20_000_000 / super::super::wire::TICK_NANOS as u32);
        assert_eq!(log.counts(), (11, 2));
        assert!(!log.tells_of_holes());
    }

    #[test]
    fn a_late_packet_closes_its_hole() {
        let mut log = Reception::new();
        for n in [0, 1, 3, 2, 4] {
            arrive(&mut log, n, 1000 + n);
        }
        let mut memory = [0; MAX_BITMAP];
        let report = log.report(0, Time::from_millis(1010), &mut memory).unwrap();
        assert_eq!((report.largest, report.run, report.bitmap.len()), (4, 4, 0));
        assert_eq!(log.counts(), (5, 0));
    }
}
