//! The sending half of a modelled TCP connection: what is in flight, and what of it is lost.
//!
//! As Linux: SACK scoreboard, loss by time (RACK, RFC 8985) with a tolerance that adapts to reordering, tail loss
//! probe, proportional rate reduction (RFC 6937), undo of needless reductions by timestamps (RFC 3522, 4015) and
//! DSACK (RFC 2883), retransmission timeout (RFC 6298) of the smoothed round trip and at least 200 ms.
//!
//! Everything is counted in segments of one size; the wire's bytes are the business of the flow around.

use std::collections::VecDeque;

use super::control::{Acked, Algorithm, Control};
use crate::{MILLI, Nanos, SECOND};

/// The least addition to the smoothed round trip in a retransmission timeout (Linux: TCP_RTO_MIN).
const RTO_MIN: Nanos = 200 * MILLI;
const RTO_MAX: Nanos = 120 * SECOND;
/// Reordering, in segments, that is tolerated before any was seen, and the most that is learnt.
const REORDERING: u64 = 3;
const REORDERING_MAX: u64 = 300;

/// An acknowledgement, with numbers in segments.
#[derive(Clone, Debug, Default)]
pub struct Acknowledgement {
    /// All segments before this one have arrived.
    pub next: u64,
    /// Ranges beyond it that have arrived (start, end).
    pub sacked: Vec<(u64, u64)>,
    /// A segment arrived twice.
    pub duplicate: bool,
    /// When the segment that caused this was sent, in the sender's clock of milliseconds.
    pub echo: Option<u64>,
    /// The receiver saw a congestion mark.
    pub congestion: bool,
    /// Segments that fit the receiver's window, from `next`.
    pub window: u64,
}

/// A segment to put on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Send {
    pub segment: u64,
    pub retransmission: bool,
    /// The window was reduced because of a mark: say so.
    pub reduced: bool,
}

/// What has happened since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub sent: u64,
    pub retransmitted: u64,
    pub timeouts: u64,
    pub recoveries: u64,
    /// Reductions that turned out to be needless.
    pub undone: u64,
    pub marks: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The window is being reduced because of a mark.
    Reduced,
    Recovery,
    /// After a retransmission timeout.
    Loss,
}

#[derive(Clone, Copy, Debug, Default)]
struct Segment {
    sent: Nanos,
    sacked: bool,
    lost: bool,
    /// Retransmitted, and that copy is not yet known to be lost.
    repeated: bool,
    ever_repeated: bool,
    /// The delivery state when it was sent (rate sampling as draft-cheng-iccrg-delivery-rate-estimation).
    delivered: u64,
    delivered_at: Nanos,
    first_sent: Nanos,
    app_limited: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    Retransmission,
    Reordering,
    TailProbe,
}

/// See the module.
#[derive(Debug)]
pub struct Sender {
    pub control: Control,
    pub counters: Counters,
    /// Segments in all; `None` is without end.
    total: Option<u64>,
    una: u64,
    next: u64,
    flight: VecDeque<Segment>,
    sacked: u64,
    lost: u64,
    /// Segments marked lost whose retransmission is in flight.
    repeated: u64,
    highest_sack: u64,
    window: u64,
    state: State,
    recovery_point: u64,
    /// Where the next search for a lost segment begins.
    lost_hint: u64,
    srtt: Option<Nanos>,
    rttvar: Nanos,
    min_rtt: Nanos,
    backoff: u32,
    timer: Option<(Timer, Nanos)>,
    probe_wanted: bool,
    /// A tail loss probe is under way; what was sent before it ends here.
    probe_end: Option<u64>,
    // RACK
    rack_sent: Nanos,
    rack_segment: u64,
    rack_rtt: Nanos,
    reordering: u64,
    reordering_seen: bool,
    reorder_steps: u64,
    reorder_persist: u32,
    duplicate_seen: bool,
    steps_changed_at: u64,
    // Proportional rate reduction
    prr_delivered: u64,
    prr_out: u64,
    prior_window: f64,
    // Undo
    undo: Option<Undo>,
    reduced: bool,
    // Rate samples and pacing
    delivered: u64,
    delivered_at: Nanos,
    first_sent: Nanos,
    app_limited_until: u64,
    next_send: Nanos,
    last_sent: Nanos,
}

#[derive(Debug)]
struct Undo {
    window: f64,
    threshold: f64,
    /// When the first retransmission of this episode was sent, in milliseconds.
    repeated_at: Option<u64>,
    /// Retransmissions of this episode that no DSACK has shown to be needless.
    repeats: i64,
}

impl Sender {
    pub fn new(algorithm: Algorithm, total: Option<u64>) -> Self {
        Sender {
            control: Control::new(algorithm),
            counters: Counters::default(),
            total,
            una: 0,
            next: 0,
            flight: VecDeque::new(),
            sacked: 0,
            lost: 0,
            repeated: 0,
            highest_sack: 0,
            window: 10,
            state: State::Open,
            recovery_point: 0,
            lost_hint: 0,
            srtt: None,
            rttvar: 0,
            min_rtt: Nanos::MAX,
            backoff: 0,
            timer: None,
            probe_wanted: false,
            probe_end: None,
            rack_sent: 0,
            rack_segment: 0,
            rack_rtt: 0,
            reordering: REORDERING,
            reordering_seen: false,
            reorder_steps: 1,
            reorder_persist: 0,
            duplicate_seen: false,
            steps_changed_at: 0,
            prr_delivered: 0,
            prr_out: 0,
            prior_window: 0.0,
            undo: None,
            reduced: false,
            delivered: 0,
            delivered_at: 0,
            first_sent: 0,
            app_limited_until: 0,
            next_send: 0,
            last_sent: 0,
        }
    }

    /// The handshake measured the first round trip.
    pub fn on_established(&mut self, rtt: Nanos, window: u64) {
        self.window = window;
        self.sample_rtt(rtt);
    }

    /// All that was to be sent has been acknowledged.
    pub fn is_finished(&self) -> bool {
        self.total.is_some_and(|total| self.una >= total)
    }

    /// When to call [`Sender::on_timer`], or to ask for segments again.
    pub fn next_timer(&self) -> Option<Nanos> {
        let pacing = (self.control.is_model_based() && self.wants_to_send()).then_some(self.next_send);
        self.timer.map(|(_, at)| at).into_iter().chain(pacing).min()
    }

    /// The segment at an offset of the wire (modulo 2^32), near the oldest in flight.
    pub fn unwrap(&self, offset: u32, size: u64) -> u64 {
        let una = self.una * size;
        let distance = offset.wrapping_sub(una as u32) as i32;
        una.saturating_add_signed(i64::from(distance)) / size
    }

    /// Sends nothing more, and forgets what is in flight.
    pub fn silence(&mut self) {
        self.total = Some(0);
        self.timer = None;
        self.flight.clear();
        self.una = self.next;
        (self.sacked, self.lost, self.repeated) = (0, 0, 0);
        self.probe_wanted = false;
    }

    /// An acknowledgement arrived.
    pub fn on_ack(&mut self, ack: &Acknowledgement, now: Nanos) {
        if ack.next > self.next || ack.next < self.una {
            return;
        }
        self.window = ack.window;
        let prior_una = self.una;
        let prior_delivered = self.delivered;
        let prior_flight = self.in_flight();
        let prior_highest = self.highest_sack.max(self.una);
        let prior_lost = self.lost;
        let mut sample = Sample::default();
        let mut lowest_late = u64::MAX;
        while self.una < ack.next
            && let Some(segment) = self.flight.pop_front()
        {
            if segment.sacked {
                self.sacked -= 1;
            } else {
                self.deliver(self.una, &segment, now, &mut sample);
                if !segment.ever_repeated {
                    lowest_late = lowest_late.min(self.una);
                }
            }
            self.lost -= u64::from(segment.lost);
            self.repeated -= u64::from(segment.repeated);
            self.una += 1;
        }
        if lowest_late < prior_highest {
            self.learn_reordering(lowest_late);
        }
        lowest_late = u64::MAX;
        for &(start, end) in &ack.sacked {
            for number in start.max(self.una)..end.min(self.next) {
                let index = (number - self.una) as usize;
                let segment = self.flight[index];
                if segment.sacked {
                    continue;
                }
                self.deliver(number, &segment, now, &mut sample);
                if !segment.ever_repeated && number < self.highest_sack {
                    lowest_late = lowest_late.min(number);
                }
                self.lost -= u64::from(segment.lost);
                self.repeated -= u64::from(segment.repeated);
                self.sacked += 1;
                let segment = &mut self.flight[index];
                segment.sacked = true;
                segment.lost = false;
                segment.repeated = false;
            }
            self.highest_sack = self.highest_sack.max(end.min(self.next));
        }
        if lowest_late != u64::MAX && (self.state != State::Loss || self.undo.is_some()) {
            self.learn_reordering(lowest_late);
        }
        if ack.duplicate {
            self.duplicate_seen = true;
            if let Some(undo) = &mut self.undo {
                undo.repeats -= 1;
            }
        }
        if let Some(rtt) = sample.rtt {
            self.sample_rtt(rtt);
        }
        if self.una > prior_una || self.delivered > prior_delivered {
            self.backoff = 0;
        }
        self.adapt_reorder_window(sample.prior_delivered);
        self.end_probe(ack);
        self.try_undo(ack, self.una > prior_una);
        if self.state != State::Open && self.una >= self.recovery_point {
            self.end_recovery();
        }
        if self.sacked > 0 || self.repeated > 0 || self.state == State::Loss {
            self.detect_losses(now);
        }
        let newly_lost = self.lost.saturating_sub(prior_lost);
        if self.lost > 0 && matches!(self.state, State::Open | State::Reduced) {
            self.enter_recovery();
        }
        if ack.congestion && self.state == State::Open {
            self.enter_reduced();
        }
        let newly_delivered = self.delivered - prior_delivered;
        let acked = Acked {
            now,
            delivered: newly_delivered,
            in_order: self.una - prior_una,
            rtt: sample.rtt,
            srtt: self.srtt.unwrap_or(MILLI),
            total_delivered: self.delivered,
            prior_delivered: sample.prior_delivered,
            rate: sample.rate(self.delivered, self.delivered_at, self.min_rtt),
            app_limited: sample.app_limited,
            in_flight: self.in_flight(),
            window_limited: if self.control.window < self.control.threshold {
                self.control.window < 2.0 * prior_flight as f64
            } else {
                prior_flight as f64 + 1.0 >= self.control.window
            },
            // After a timeout the window grows by slow start; in recovery it is reduced.
            recovering: self.state == State::Recovery
                || (self.state == State::Reduced && !self.control.is_model_based()),
            lost: newly_lost,
        };
        if newly_delivered > 0 {
            self.control.on_ack(&acked);
        }
        if acked.recovering && !self.control.is_model_based() {
            self.reduce_window(newly_delivered, self.una > prior_una && newly_lost == 0);
        }
        if self.una > prior_una || newly_delivered > 0 {
            self.arm(now);
        }
    }

    /// The time that [`Sender::next_timer`] gave has come (also called early, which does no harm).
    pub fn on_timer(&mut self, now: Nanos) {
        let Some((timer, at)) = self.timer else { return };
        if at > now {
            return;
        }
        self.timer = None;
        match timer {
            Timer::Reordering => {
                self.detect_losses(now);
                if self.lost > 0 && matches!(self.state, State::Open | State::Reduced) {
                    self.enter_recovery();
                }
                if self.timer.is_none() {
                    self.arm(now);
                }
            }
            Timer::TailProbe => {
                self.probe_wanted = true;
                self.timer = Some((Timer::Retransmission, now + self.rto()));
            }
            Timer::Retransmission => self.on_timeout(now),
        }
    }

    /// The next segment that may be sent now.
    pub fn poll_send(&mut self, now: Nanos) -> Option<Send> {
        if std::mem::take(&mut self.probe_wanted) && !self.flight.is_empty() {
            // A tail loss probe: new data when there is some, else the last segment again; whatever the window says.
            self.probe_end = Some(self.next + 1);
            if self.has_new_data() {
                return Some(self.send_new(now));
            }
            if let Some(last) = self.next.checked_sub(1).filter(|&last| last >= self.una)
                && !self.flight[(last - self.una) as usize].sacked
            {
                self.probe_end = Some(self.next);
                return Some(self.send_again(last, now));
            }
        }
        if !self.wants_to_send() {
            return None;
        }
        let rate = self.control.pacing_rate(self.srtt);
        if rate.is_some() && now < self.next_send {
            return None;
        }
        let send = match self.first_lost() {
            Some(number) => self.send_again(number, now),
            None => self.send_new(now),
        };
        if let Some(rate) = rate {
            // Credit for at most one segment's time, so that idleness is not made good by a burst.
            let interval = (SECOND as f64 / rate) as Nanos;
            self.next_send = self.next_send.max(now.saturating_sub(interval)) + interval;
        }
        Some(send)
    }

    fn wants_to_send(&self) -> bool {
        (self.in_flight() as f64) < self.control.window.floor().max(1.0)
            && (self.lost > self.repeated || self.has_new_data())
    }

    fn has_new_data(&self) -> bool {
        self.total.is_none_or(|total| self.next < total) && self.next - self.una < self.window
    }

    /// RFC 6675's pipe.
    fn in_flight(&self) -> u64 {
        (self.flight.len() as u64 + self.repeated).saturating_sub(self.sacked + self.lost)
    }

    fn first_lost(&mut self) -> Option<u64> {
        if self.lost <= self.repeated {
            return None;
        }
        let from = self.lost_hint.max(self.una);
        let index = (from - self.una) as usize;
        let found = self.flight.iter().skip(index).position(|segment| segment.lost && !segment.repeated)?;
        let number = from + found as u64;
        self.lost_hint = number;
        Some(number)
    }

    fn send_new(&mut self, now: Nanos) -> Send {
        let segment = self.next;
        if self.flight.is_empty() {
            if now > self.last_sent + self.srtt.unwrap_or(SECOND) {
                self.control.on_idle(now - self.last_sent);
            }
            self.first_sent = now;
            self.delivered_at = now;
        }
        self.next += 1;
        self.flight.push_back(self.stamp(now));
        if self.total == Some(self.next) {
            self.app_limited_until = self.delivered + self.in_flight();
        }
        self.count_sent(now);
        Send { segment, retransmission: false, reduced: std::mem::take(&mut self.reduced) }
    }

    fn send_again(&mut self, number: u64, now: Nanos) -> Send {
        let stamp = self.stamp(now);
        let Some(segment) = self.flight.get_mut((number - self.una) as usize) else {
            unreachable!("only segments in flight are sent again");
        };
        // Only what is marked lost counts as repeated: the original of a probe is still in flight.
        let repeated = segment.lost;
        self.repeated += u64::from(repeated && !segment.repeated);
        let lost = segment.lost;
        *segment = Segment { lost, repeated, ever_repeated: true, ..stamp };
        if let Some(undo) = &mut self.undo {
            undo.repeated_at.get_or_insert(now / MILLI);
            undo.repeats += 1;
        }
        self.counters.retransmitted += 1;
        self.count_sent(now);
        Send { segment: number, retransmission: true, reduced: false }
    }

    fn stamp(&self, now: Nanos) -> Segment {
        Segment {
            sent: now,
            delivered: self.delivered,
            delivered_at: self.delivered_at,
            first_sent: self.first_sent,
            app_limited: self.app_limited_until > self.delivered,
            ..Segment::default()
        }
    }

    fn count_sent(&mut self, now: Nanos) {
        self.counters.sent += 1;
        self.last_sent = now;
        if matches!(self.state, State::Recovery | State::Reduced) {
            self.prr_out += 1;
        }
        if self.flight.len() == 1 || matches!(self.timer, None | Some((Timer::TailProbe, _))) {
            self.arm(now);
        }
    }

    /// A segment is known to have arrived.
    fn deliver(&mut self, number: u64, segment: &Segment, now: Nanos, sample: &mut Sample) {
        self.delivered += 1;
        self.delivered_at = now;
        let rtt = now - segment.sent;
        if !segment.ever_repeated {
            sample.rtt = Some(rtt);
        } else if self.min_rtt != Nanos::MAX && rtt < self.min_rtt {
            // Most likely the original arrived, not the copy (RFC 8985, 6.2).
            return;
        }
        if (segment.sent, number) >= (self.rack_sent, self.rack_segment) {
            self.rack_sent = segment.sent;
            self.rack_segment = number;
            self.rack_rtt = rtt;
        }
        if sample.newest.is_none_or(|newest| segment.sent >= newest) {
            sample.newest = Some(segment.sent);
            sample.prior_delivered = segment.delivered;
            sample.prior_delivered_at = segment.delivered_at;
            sample.send_elapsed = segment.sent - segment.first_sent;
            sample.app_limited = segment.app_limited;
            self.first_sent = segment.sent;
        }
    }

    fn sample_rtt(&mut self, rtt: Nanos) {
        self.min_rtt = self.min_rtt.min(rtt);
        match self.srtt {
            None => {
                self.srtt = Some(rtt);
                self.rttvar = rtt / 2;
            }
            Some(srtt) => {
                self.rttvar = (3 * self.rttvar + srtt.abs_diff(rtt)) / 4;
                self.srtt = Some((7 * srtt + rtt) / 8);
            }
        }
    }

    fn rto(&self) -> Nanos {
        let rto = self.srtt.map_or(SECOND, |srtt| srtt + (4 * self.rttvar).max(RTO_MIN));
        (rto << self.backoff.min(10)).min(RTO_MAX)
    }

    fn arm(&mut self, now: Nanos) {
        if let Some((Timer::Reordering, _)) = self.timer
            && self.sacked > 0
        {
            return;
        }
        if self.flight.is_empty() {
            self.timer = None;
            return;
        }
        let rto = now + self.rto();
        if self.state == State::Open
            && self.sacked == 0
            && self.probe_end.is_none()
            && let Some(srtt) = self.srtt
        {
            // RFC 8985, 7.2: two round trips, and room for a delayed acknowledgement of a lone segment.
            let pto = 2 * srtt + if self.flight.len() == 1 { RTO_MIN } else { 2 * MILLI };
            if now + pto < rto {
                self.timer = Some((Timer::TailProbe, now + pto));
                return;
            }
        }
        self.timer = Some((Timer::Retransmission, rto));
    }

    fn end_probe(&mut self, ack: &Acknowledgement) {
        if self.probe_end.is_some_and(|end| self.una >= end || ack.duplicate || !ack.sacked.is_empty()) {
            self.probe_end = None;
        }
    }

    /// RFC 8985, 6.2 step 5; marks what was sent long enough before something that has arrived.
    fn detect_losses(&mut self, now: Nanos) {
        let window = self.reorder_window();
        let mut wait = None;
        for index in 0..self.flight.len() {
            let number = self.una + index as u64;
            let segment = &mut self.flight[index];
            if segment.sacked || (segment.lost && !segment.repeated) {
                continue;
            }
            if (segment.sent, number) >= (self.rack_sent, self.rack_segment) {
                // Originals are in order of time, copies are not.
                if number > self.highest_sack && segment.sent > self.rack_sent {
                    break;
                }
                continue;
            }
            let due = segment.sent + self.rack_rtt + window;
            if due <= now {
                if segment.lost {
                    self.repeated -= 1;
                    segment.repeated = false;
                } else {
                    segment.lost = true;
                    self.lost += 1;
                }
                self.lost_hint = self.lost_hint.min(number);
            } else {
                wait = Some(wait.map_or(due, |wait: Nanos| wait.max(due)));
            }
        }
        if let Some(due) = wait {
            self.timer = Some((Timer::Reordering, due));
        } else if matches!(self.timer, Some((Timer::Reordering, _))) {
            self.timer = None;
            self.arm(now);
        }
    }

    fn reorder_window(&self) -> Nanos {
        if !self.reordering_seen
            && (matches!(self.state, State::Recovery | State::Loss) || self.sacked >= self.reordering)
        {
            return 0;
        }
        let most = self.srtt.unwrap_or(SECOND);
        if self.min_rtt == Nanos::MAX { most } else { (self.min_rtt / 4 * self.reorder_steps).min(most) }
    }

    fn learn_reordering(&mut self, late: u64) {
        let distance = self.highest_sack.max(self.una).saturating_sub(late);
        self.reordering = self.reordering.max(distance.min(REORDERING_MAX));
        self.reordering_seen = true;
    }

    /// The tolerance grows by a quarter of the round trip with each round that showed a needless retransmission, and
    /// falls back after 16 recoveries without one.
    fn adapt_reorder_window(&mut self, prior_delivered: u64) {
        if prior_delivered < self.steps_changed_at {
            self.duplicate_seen = false;
        }
        if self.duplicate_seen {
            self.reorder_steps = (self.reorder_steps + 1).min(255);
            self.duplicate_seen = false;
            self.steps_changed_at = self.delivered;
            self.reorder_persist = 16;
        } else if self.reorder_persist == 0 {
            self.reorder_steps = 1;
        }
    }

    fn remember(&mut self) {
        self.prior_window = self.control.window;
        self.undo = Some(Undo {
            window: self.control.window,
            threshold: self.control.threshold,
            repeated_at: None,
            repeats: 0,
        });
        self.prr_delivered = 0;
        self.prr_out = 0;
        self.recovery_point = self.next;
    }

    fn enter_recovery(&mut self) {
        self.counters.recoveries += 1;
        let reduced_already = self.state == State::Reduced;
        if !reduced_already {
            self.remember();
            self.control.on_congestion();
            self.reduced = true;
        }
        self.recovery_point = self.next;
        self.state = State::Recovery;
    }

    fn enter_reduced(&mut self) {
        self.counters.marks += 1;
        self.remember();
        self.undo = None;
        self.control.on_congestion();
        self.reduced = true;
        self.state = State::Reduced;
    }

    fn end_recovery(&mut self) {
        if matches!(self.state, State::Recovery | State::Reduced) && !self.control.is_model_based() {
            self.control.window = self.control.threshold;
        }
        self.reorder_persist = self.reorder_persist.saturating_sub(1);
        // What undoes the reduction by DSACK may still come.
        self.state = State::Open;
        self.control.on_recovered();
    }

    fn try_undo(&mut self, ack: &Acknowledgement, advanced: bool) {
        let Some(undo) = &self.undo else { return };
        let echoed_original = advanced
            && self.state != State::Open
            && matches!((ack.echo, undo.repeated_at), (Some(echo), Some(at)) if echo < at);
        let all_needless = undo.repeated_at.is_some() && undo.repeats <= 0;
        if !(echoed_original || all_needless) {
            return;
        }
        self.counters.undone += 1;
        self.control.window = self.control.window.max(undo.window);
        self.control.threshold = self.control.threshold.max(undo.threshold);
        self.undo = None;
        for segment in &mut self.flight {
            segment.lost = false;
            segment.repeated = false;
        }
        self.lost = 0;
        self.repeated = 0;
        self.state = State::Open;
        self.control.on_recovered();
    }

    /// RFC 6937 with the slow-start reduction bound, as Linux has it.
    fn reduce_window(&mut self, delivered: u64, progress: bool) {
        if delivered == 0 && !progress {
            return;
        }
        self.prr_delivered += delivered;
        let pipe = self.in_flight();
        let threshold = self.control.threshold.floor() as u64;
        let send = if pipe > threshold {
            let share =
                (threshold as f64 * self.prr_delivered as f64 / self.prior_window.max(1.0)).ceil() as u64;
            share.saturating_sub(self.prr_out)
        } else {
            let send = self.prr_delivered.saturating_sub(self.prr_out).max(delivered) + u64::from(progress);
            send.min(threshold - pipe)
        };
        let send = if self.prr_out == 0 { send.max(1) } else { send };
        self.control.window = (pipe + send) as f64;
    }

    fn on_timeout(&mut self, now: Nanos) {
        self.counters.timeouts += 1;
        self.probe_end = None;
        if self.state != State::Loss || self.una >= self.recovery_point {
            self.remember();
            self.control.on_timeout();
        } else {
            self.control.window = 1.0;
        }
        self.recovery_point = self.next;
        self.state = State::Loss;
        let window = self.reorder_window();
        for (index, segment) in self.flight.iter_mut().enumerate() {
            // What was sent a moment ago is not lost because the first one is (RFC 8985, 6.3).
            let recent = index > 0 && segment.sent + self.rack_rtt + window > now;
            if segment.sacked || recent {
                continue;
            }
            if segment.repeated {
                segment.repeated = false;
                self.repeated -= 1;
            }
            if !segment.lost {
                segment.lost = true;
                self.lost += 1;
            }
        }
        self.lost_hint = self.una;
        self.backoff += 1;
        self.timer = (!self.flight.is_empty()).then(|| (Timer::Retransmission, now + self.rto()));
    }
}

/// What one acknowledgement says about round trip and rate.
#[derive(Debug, Default)]
struct Sample {
    rtt: Option<Nanos>,
    newest: Option<Nanos>,
    prior_delivered: u64,
    prior_delivered_at: Nanos,
    send_elapsed: Nanos,
    app_limited: bool,
}

impl Sample {
    /// Segments per second.
    fn rate(&self, delivered: u64, delivered_at: Nanos, min_rtt: Nanos) -> Option<f64> {
        self.newest?;
        let elapsed = (delivered_at - self.prior_delivered_at).max(self.send_elapsed);
        // Shorter than a round trip cannot be: acknowledgements were compressed.
        (elapsed >= min_rtt && elapsed > 0)
            .then(|| (delivered - self.prior_delivered) as f64 * SECOND as f64 / elapsed as f64)
    }
}
