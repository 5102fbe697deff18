//! Which packet goes next, and over which link.

use std::time::Duration;

use super::Sender;
use crate::class::Copies;
use crate::flight::{MAX_ATTEMPTS, Outgoing, TOO_OLD};
use crate::ip::{PacketInfo, UDP};
use crate::link::{Link, LinkState};
use crate::pacer::Pacer;
use crate::packet::Packet;
use crate::queue::Via;
use crate::scheduler::{Candidate, Choice, Head, Policy, Scheduler};
use crate::wire::{self, Kind, TICK_NANOS, tick_distance};
use crate::{LinkId, Time};

/// A resend goes ahead of the pacer by at most this;
const RESEND_AHEAD: Duration = Duration::from_millis(20);
/// by this when there are many, as after a cut: they leave room for flows that send little.
const MANY_RESENDS: usize = 32;
const MANY_RESENDS_AHEAD: Duration = Duration::from_millis(4);
/// A packet that was lost as often as this keeps to the pacer: the queue in front of a line may be too short for those
/// that go ahead.
const OFTEN_LOST: u8 = 2;
/// A flow of which no more bytes than this are staged may still be one that sends little.
const SPARSE_STAGED: u32 = 1_000;
/// What is staged for longer than by this and the difference of the links' delays is late.
const STAGED_LATE: Duration = Duration::from_millis(10);
/// What is said twice comes sooner by more than so many nanoseconds.
const MUCH_QUICKER: i64 = 5_000_000;
/// The next round through many flows follows after this.
const ROUND_PAUSE: Duration = Duration::from_millis(1);
/// The pacers' deadlines are served no more often than this; their credit makes up for it.
const WAKE_INTERVAL: Duration = Duration::from_micros(300);

impl Sender {
    /// Chooses the next packet and its link.
    pub(super) fn plan(&mut self, now: Time) -> Option<(LinkId, Outgoing)> {
        self.wake = None;
        if let Some(planned) = self.plan_resend(now) {
            return Some(planned);
        }
        self.plan_new(now).or_else(|| self.plan_staged(now))
    }

    /// Gives waiting packets to links; returns one that goes at once.
    fn plan_new(&mut self, now: Time) -> Option<(LinkId, Outgoing)> {
        self.queue.reset_skips();
        loop {
            if let Some(next) = self.limit.as_ref().map(Pacer::next).filter(|next| *next > now) {
                if !self.queue.is_empty() {
                    self.wake_at(next.max(now + WAKE_INTERVAL));
                }
                return None;
            }
            let head = self.queue.head(now, &mut self.pool)?;
            let (length, info, waited, pinned) = (head.packet.len(), *head.info, head.waited, head.pinned);
            let head_is_sparse = head.sparse;
            let flow = self.flows.get(usize::from(info.bucket)).copied().unwrap_or_default();
            let staged = flow.staged;
            self.find_candidates(length, now);
            let sparse = head_is_sparse
                && staged <= SPARSE_STAGED
                && !(flow.volume.is_bulk(now) && self.staged_is_late(now));
            let facts = Head { hash: info.hash, waited, sparse };
            if let Err(link) = self.keep_to(pinned) {
                if !self.hold_or_drop(link) {
                    return self.end_round(now);
                }
                continue;
            }
            self.classes.restrict(info.class, &mut self.candidates);
            let scheduler = self.classes.scheduler(info.class, &mut self.scheduler);
            let choice = scheduler.choose(&self.candidates, &facts, now)?;
            let id = match choice {
                Choice::Send(id) | Choice::Stage(id) => id,
                Choice::Wait(until) => {
                    self.wake_at(until.max(now + WAKE_INTERVAL));
                    if !self.queue.skip_flow() {
                        return self.end_round(now);
                    }
                    continue;
                }
            };
            // Nothing overtakes what is staged of its own flow.
            let behind = if sparse && staged > 0 { self.promote(info.bucket) } else { None };
            let (packet, info) = self.queue.pop()?;
            self.account_limit(packet.len(), now);
            let staged_bytes = packet.len() as u32;
            let bulk = self.flow(info.bucket).is_some_and(|flow| flow.volume.add(packet.len(), now));
            let ordered = self.is_ordered(&info, bulk) && !matches!(pinned, Some(Via::Only(_)));
            let outgoing = self.outgoing(packet, info.bucket, ordered, now);
            let outgoing = Outgoing { pinned, sparse, class: info.class, ..outgoing };
            match self.links.iter_mut().find(|l| l.id == behind.unwrap_or(id)) {
                Some(link) if behind.is_some() => link.staged.push_urgent(outgoing),
                Some(link) if matches!(choice, Choice::Stage(_)) => link.staged.push(outgoing),
                _ => return Some(self.fit(id, outgoing, now)),
            }
            if let Some(flow) = self.flow(info.bucket) {
                flow.staged = flow.staged.saturating_add(staged_bytes);
            }
        }
    }

    /// Whether something that is staged waits for longer than it was meant to. The packets of a bulk that its window holds
    /// back find the queue empty, too, so that they could go before it for ever.
    fn staged_is_late(&self, now: Time) -> bool {
        let mut oldest = self.links.iter().filter_map(|link| link.staged.oldest());
        let meant = Scheduler::spread(&self.candidates) + STAGED_LATE;
        oldest.any(|since| now.since(since) > meant)
    }

    /// Lets what is staged of a flow go before the rest; returns the link that has it.
    fn promote(&mut self, bucket: u16) -> Option<LinkId> {
        self.links.iter_mut().filter_map(|link| link.staged.promote(bucket).then_some(link.id)).last()
    }

    pub(super) fn unstaged(&mut self, bucket: u16, bytes: usize) {
        if let Some(flow) = self.flow(bucket) {
            flow.staged = flow.staged.saturating_sub(bytes as u32);
        }
    }

    fn plan_staged(&mut self, now: Time) -> Option<(LinkId, Outgoing)> {
        let waiting = self.links.iter_mut().filter(|l| !l.staged.is_empty());
        let link = waiting.min_by_key(|l| l.pacer.next())?;
        let (id, due) = (link.id, link.pacer.next());
        if due > now {
            self.wake_at(due.max(now + WAKE_INTERVAL));
            return None;
        }
        let outgoing = link.staged.pop()?;
        self.unstaged(outgoing.bucket, outgoing.packet.len());
        Some(self.fit(id, outgoing, now))
    }

    fn plan_resend(&mut self, now: Time) -> Option<(LinkId, Outgoing)> {
        while let Some(outgoing) = self.resends.front() {
            if outgoing.attempts >= MAX_ATTEMPTS || now.since(outgoing.born) > TOO_OLD {
                let outgoing = self.resends.pop_front()?;
                self.give_up(outgoing, now);
                continue;
            }
            let (length, pinned, class) = (outgoing.packet.len(), outgoing.pinned, outgoing.class);
            let many = self.resends.len() > MANY_RESENDS && !outgoing.sparse;
            let ahead = match outgoing.attempts {
                OFTEN_LOST.. => Duration::ZERO,
                _ if many => MANY_RESENDS_AHEAD,
                _ => RESEND_AHEAD,
            };
            self.find_candidates(length, now);
            self.classes.restrict(class, &mut self.candidates);
            if self.keep_to(pinned).is_err() {
                let outgoing = self.resends.pop_front()?;
                self.give_up(outgoing, now);
                continue;
            }
            let best = *Scheduler::earliest(&self.candidates, now)?;
            if best.free > now + ahead {
                self.wake_at(best.free - ahead);
                return None;
            }
            let outgoing = self.resends.pop_front()?;
            if outgoing.attempts > 0 {
                self.resent += 1;
                self.account_limit(length, now);
            }
            return Some(self.fit(best.link, outgoing, now));
        }
        None
    }

    /// Leaves only the link to which a packet is pinned. An error is a link that would be the only one and is not in use.
    /// Where it need not be, whoever chose it (the bonding driver) will hear in a moment that it is dead.
    fn keep_to(&mut self, pinned: Option<Via>) -> Result<(), LinkId> {
        let Some(via) = pinned else { return Ok(()) };
        if self.candidates.iter().any(|candidate| candidate.link == via.link()) {
            self.candidates.retain(|candidate| candidate.link == via.link());
            return Ok(());
        }
        match via {
            Via::Only(link) => Err(link),
            Via::First(_) => Ok(()),
        }
    }

    /// The queue's head belongs to a link that cannot take it: waits while that is only suspect, otherwise drops it. False
    /// when the round is over.
    fn hold_or_drop(&mut self, link: LinkId) -> bool {
        if self.links.iter().any(|l| l.id == link && l.state() == LinkState::Suspect) {
            return self.queue.skip_flow();
        }
        if let Some((packet, _)) = self.queue.pop() {
            self.unsent += 1;
            self.pool.put(packet);
        }
        true
    }

    /// Many flows wait, and those that were not looked at may have a link that is free.
    fn end_round<T>(&mut self, now: Time) -> Option<T> {
        self.wake_at(now + ROUND_PAUSE);
        None
    }

    /// Whether the other end is to deliver a packet behind those of its flow that were sent before. To a bulk of datagrams
    /// (QUIC, another tunnel) order matters more than a short wait, for it takes what is overtaken for lost (RFC 9002,
    /// 6.1.1: after three packets); to a call it does not.
    fn is_ordered(&self, info: &PacketInfo, bulk: bool) -> bool {
        match info.tcp {
            // An acknowledgment says all that those before it said.
            Some(_) => self.handling.resequence_tcp && !info.pure_ack,
            None => bulk || (self.handling.resequence_udp && info.protocol == UDP),
        }
    }

    /// Gives a new packet its place in its flow.
    fn outgoing(&mut self, packet: Packet, bucket: u16, ordered: bool, now: Time) -> Outgoing {
        let mut sequence = 0;
        if let Some(flow) = self.flow(bucket) {
            sequence = flow.next;
            flow.next = (flow.next + 1) & (wire::SEQUENCES - 1);
        }
        Outgoing {
            packet,
            kind: Kind::Data,
            ordered,
            bucket,
            sequence,
            born: now,
            attempts: 0,
            pinned: None,
            sparse: false,
            class: 0,
        }
    }

    /// Makes an outgoing packet fit its link: splits it when it is too long, and plans copies when the policy asks.
    fn fit(&mut self, id: LinkId, outgoing: Outgoing, now: Time) -> (LinkId, Outgoing) {
        let Some(link) = self.links.iter().find(|l| l.id == id) else { return (id, outgoing) };
        let room = link.room();
        let copies = self.classes.copies(outgoing.class, self.scheduler.policy());
        if copies != Copies::No && outgoing.attempts == 0 && outgoing.pinned.is_none() {
            self.plan_copies(id, &outgoing, copies, now);
        }
        if outgoing.packet.len() <= room || outgoing.kind != Kind::Data {
            return (id, outgoing);
        }
        let piece = room.saturating_sub(1).max(256);
        let count = outgoing.packet.len().div_ceil(piece).min(15) as u8;
        let piece = outgoing.packet.len().div_ceil(usize::from(count));
        for (index, part) in outgoing.packet.chunks(piece).enumerate() {
            let mut packet = self.pool.take();
            packet.copy_from(part);
            let kind = Kind::Fragment { index: index as u8, count };
            self.planned.push_back((id, Outgoing { packet, kind, ..outgoing }));
        }
        self.pool.put(outgoing.packet);
        match self.planned.pop_front() {
            Some(first) => first,
            None => (id, Outgoing { packet: self.pool.take(), ..outgoing }),
        }
    }

    /// Plans copies on the other links. Unless they are forced, only where nothing else waits to be sent: a link that is
    /// free now would be idle.
    fn plan_copies(&mut self, id: LinkId, outgoing: &Outgoing, wanted: Copies, now: Time) {
        let waits = || !self.queue.is_empty() || self.links.iter().any(|l| !l.staged.is_empty());
        let latest = match wanted {
            Copies::Forced => now + RESEND_AHEAD,
            _ if !self.resends.is_empty() || waits() => return,
            _ => now,
        };
        self.find_candidates(outgoing.packet.len(), now);
        self.classes.restrict(outgoing.class, &mut self.candidates);
        let mut copies = 0;
        for other in &self.candidates {
            let fits = self.links.iter().any(|l| l.id == other.link && l.room() >= outgoing.packet.len());
            if other.link == id || !fits || other.free > latest {
                continue;
            }
            let mut packet = self.pool.take();
            packet.copy_from(&outgoing.packet);
            self.planned.push_back((other.link, Outgoing { packet, ..*outgoing }));
            copies += 1;
        }
        for _ in 0..copies {
            self.account_limit(outgoing.packet.len(), now);
        }
    }

    /// A packet has left the queue for a link, a copy of it goes, or it goes again. What is sent again does not wait for the
    /// limit, but what is new waits for it.
    fn account_limit(&mut self, length: usize, now: Time) {
        if let Some(limit) = &mut self.limit {
            // With IPv4 outside.
            limit.sent(length + wire::OVERHEAD + 28, now);
        }
    }

    /// Lists the links that carry data, with the delay that each has for a packet of `length`.
    pub(super) fn find_candidates(&mut self, length: usize, now: Time) {
        self.candidates.clear();
        let long = length >= wire::LONG_PACKET;
        let mut reference = None;
        let mut slowest = 0;
        for link in self.links.iter().filter(|l| l.is_usable() && l.path.is_some()) {
            let delay = link.capacity.delay(long, now).map(|delay| {
                let reference = *reference.get_or_insert(delay);
                i64::from(tick_distance(delay, reference)) * TICK_NANOS as i64
            });
            slowest = slowest.max(delay.unwrap_or(0));
            self.candidates.push(Candidate {
                link: link.id,
                free: link.pacer.next(),
                staged: link.pacer.duration(link.staged.bytes()),
                worth: link.capacity.worth(),
                delay: delay.unwrap_or(i64::MAX),
                priority: link.settings.priority,
                weight: link.settings.weight,
            });
        }
        let first = |link: &Link| !link.settings.last_resort;
        if self.links.iter().any(|l| l.settings.last_resort) {
            let regular = |c: &Candidate| self.links.iter().any(|l| l.id == c.link && first(l));
            if self.candidates.iter().any(regular) {
                self.candidates.retain(regular);
            }
        }
        // A link whose delay is not known yet is taken to be the slowest.
        for candidate in self.candidates.iter_mut().filter(|c| c.delay == i64::MAX) {
            candidate.delay = slowest;
        }
    }

    /// The round trip of the quickest link in use, and the time from a packet that takes the slowest to its answer, which
    /// takes the quickest.
    pub(super) fn round_trips(&mut self, now: Time) -> (Duration, Duration) {
        self.find_candidates(wire::LONG_PACKET, now);
        let quickest = self.links.iter().filter(|l| l.is_usable()).filter_map(|l| l.rtt.smallest()).min();
        let quickest = quickest.unwrap_or(Duration::ZERO);
        (quickest, quickest + Scheduler::spread(&self.candidates))
    }

    /// Has the links that get nothing of a backlog show what they carry.
    pub(super) fn check_left_out(&mut self, now: Time) {
        if self.queue.is_empty() || !matches!(self.scheduler.policy(), Policy::Adaptive | Policy::Redundant) {
            return;
        }
        for candidate in &self.candidates {
            let Some(link) = self.links.iter_mut().find(|l| l.id == candidate.link) else { continue };
            link.left_out(Scheduler::leaves_out(&self.candidates, candidate), now);
        }
    }

    pub(super) fn quickest(&mut self, now: Time) -> Option<LinkId> {
        self.find_candidates(0, now);
        Scheduler::earliest(&self.candidates, now).map(|c| c.link)
    }

    /// The quickest link, if it is quicker than `link` by more than it costs to say something twice.
    pub(super) fn quicker_than(&mut self, link: LinkId, now: Time) -> Option<LinkId> {
        let quickest = self.quickest(now)?;
        let delay = |id| self.candidates.iter().find(|c| c.link == id).map_or(i64::MAX, |c| c.delay);
        (delay(link).saturating_sub(delay(quickest)) > MUCH_QUICKER).then_some(quickest)
    }

    fn wake_at(&mut self, at: Time) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}
