//! The one queue of the bond: a queue for each flow, served in turn, each with CoDel (RFC 8290, RFC 8289).
//!
//! The queue stands in front of all links, so that the inner TCP sees one well-behaved bottleneck. CoDel is patient
//! here: while a link's rate is still being found out, an early drop costs more than it mends.

use std::collections::VecDeque;
use std::time::Duration;

use super::ack;
use super::ip::{self, PacketInfo};
use super::packet::{Packet, Pool};
use super::wire::BUCKETS;
use super::{LinkId, Time};

/// Over which link a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// This one and no other: without it the packet is lost.
    Only(LinkId),
    /// This one while it is in use, otherwise any.
    First(LinkId),
}

impl Via {
    /// The link.
    pub fn link(self) -> LinkId {
        match self {
            Via::Only(link) | Via::First(link) => link,
        }
    }
}

/// Acknowledgements that wait for nothing but each other clock out what their sender has to send, so that they are kept
/// apart unless they wait for so long.
const ACK_PATIENCE: Duration = Duration::from_millis(10);
/// Flows that are skipped in one round at the most.
const MAX_SKIPPED: usize = 64;
/// Ended flows of which the memory is kept.
const MAX_ENDED: usize = 16;

/// Limits and constants of a queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueConfig {
    /// CoDel's acceptable standing delay.
    pub target: Duration,
    /// The same while the queue is [relaxed](Queue::relax).
    pub relaxed_target: Duration,
    /// CoDel's interval.
    pub interval: Duration,
    /// Packets in all flows.
    pub max_packets: usize,
    /// Bytes in all flows.
    pub max_bytes: usize,
    /// Bytes that a flow may send in its turn.
    pub quantum: i32,
}

impl Default for QueueConfig {
    fn default() -> Self {
        QueueConfig {
            target: Duration::from_millis(40),
            relaxed_target: Duration::from_millis(400),
            interval: Duration::from_millis(160),
            max_packets: 4_096,
            max_bytes: 4 << 20,
            quantum: 1_514,
        }
    }
}

/// The packet that is next.
pub struct Head<'a> {
    /// The packet.
    pub packet: &'a Packet,
    /// What it is.
    pub info: &'a PacketInfo,
    /// The only link that may carry it.
    pub pinned: Option<Via>,
    /// How long it has waited.
    pub waited: Duration,
    /// Its flow sends less than its share.
    pub sparse: bool,
}

struct Waiting {
    packet: Packet,
    info: PacketInfo,
    pinned: Option<Via>,
    since: Time,
}

impl Waiting {
    /// Whether a packet of the same flow says all that this one says, and would go the same way.
    fn is_superseded(&self, packet: &Packet, info: &PacketInfo, pinned: Option<Via>) -> bool {
        info.pure_ack
            && self.info.pure_ack
            && (info.network, info.class, pinned) == (self.info.network, self.info.class, self.pinned)
            && info.network.is_some_and(|at| match (packet.get(at..), self.packet.get(at..)) {
                (Some(newer), Some(older)) => ack::supersedes(newer, older),
                _ => false,
            })
    }
}

#[derive(Default)]
struct Flow {
    packets: VecDeque<Waiting>,
    bytes: usize,
    credit: i32,
    fresh: bool,
    codel: Codel,
}

/// The flows of which packets wait, or have just waited, by their buckets.
#[derive(Default)]
struct Flows {
    /// Empty until the first packet comes.
    places: Vec<Option<Box<Flow>>>,
    /// Flows that have ended, so that the next ones need no memory.
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is kept")]
    ended: Vec<Box<Flow>>,
}

impl Flows {
    fn enter(&mut self, bucket: u16) -> &mut Flow {
        if self.places.is_empty() {
            self.places.resize_with(BUCKETS, || None);
        }
        let place = &mut self.places[usize::from(bucket) % BUCKETS];
        place.get_or_insert_with(|| self.ended.pop().unwrap_or_default())
    }

    fn get(&self, bucket: u16) -> Option<&Flow> {
        self.places.get(usize::from(bucket))?.as_deref()
    }

    fn get_mut(&mut self, bucket: u16) -> Option<&mut Flow> {
        self.places.get_mut(usize::from(bucket))?.as_deref_mut()
    }

    fn remove(&mut self, bucket: u16) {
        let Some(mut flow) = self.places.get_mut(usize::from(bucket)).and_then(Option::take) else { return };
        if self.ended.len() < MAX_ENDED {
            flow.packets.clear();
            *flow = Flow { packets: std::mem::take(&mut flow.packets), ..Flow::default() };
            self.ended.push(flow);
        }
    }

    fn fattest(&mut self) -> Option<&mut Flow> {
        self.places.iter_mut().flatten().map(|flow| &mut **flow).max_by_key(|flow| flow.bytes)
    }
}

/// CoDel's memory of one flow.
#[derive(Default)]
struct Codel {
    first_above: Option<Time>,
    dropping: bool,
    next_drop: Time,
    count: u32,
    last_count: u32,
}

/// The queue.
pub struct Queue {
    config: QueueConfig,
    flows: Flows,
    /// Flows that have just begun to send; they go first.
    fresh: VecDeque<u16>,
    old: VecDeque<u16>,
    /// Flows that wait for their link, in this round.
    skipped: Vec<(u16, bool)>,
    packets: usize,
    bytes: usize,
    drops: u64,
    marks: u64,
    relaxed: bool,
    round_trip: Duration,
    repair: Duration,
}

impl Queue {
    /// An empty queue.
    pub fn new(config: QueueConfig) -> Self {
        Queue {
            config,
            flows: Flows::default(),
            fresh: VecDeque::new(),
            old: VecDeque::new(),
            skipped: Vec::new(),
            packets: 0,
            bytes: 0,
            drops: 0,
            marks: 0,
            relaxed: false,
            round_trip: Duration::ZERO,
            repair: Duration::ZERO,
        }
    }

    /// Sets the round trip over all links in use, without a queue, and how much longer it often is because something that
    /// was lost is sent again. CoDel's interval is meant to be the longest round trip (RFC 8289, 4.3), and a queue that is
    /// shorter than a part of it starves a single sender after each reduction. A repair is a pause on top of that: what a
    /// reduction to 70 % (CUBIC) leaves must last for all of it.
    pub fn set_round_trip(&mut self, round_trip: Duration, repair: Duration) {
        self.round_trip = round_trip;
        self.repair = repair;
    }

    fn target(&self) -> Duration {
        self.config.target.max(self.round_trip * 2 / 5 + self.repair * 7 / 5)
    }

    /// By then what a drop has caused is to be seen: the sender hears of it after a round trip and sends less for one.
    fn interval(&self) -> Duration {
        self.config.interval.max((self.round_trip + self.target()) * 2)
    }

    /// Whether a long queue is tolerated, because the links will carry more in a moment: a drop would cost the inner
    /// senders more than the wait.
    pub fn relax(&mut self, relaxed: bool) {
        self.relaxed = relaxed;
    }

    /// Packets that wait.
    pub fn len(&self) -> usize {
        self.packets
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Packets dropped so far.
    pub fn drops(&self) -> u64 {
        self.drops
    }

    /// Packets marked instead of dropped so far.
    pub fn marks(&self) -> u64 {
        self.marks
    }

    /// Enters a packet, which goes over the link `pinned` if there is one. An acknowledgement takes the place of the
    /// one before it that it makes needless. When the queue is full the fattest flow loses its oldest packets.
    pub fn push(
        &mut self,
        packet: Packet,
        info: PacketInfo,
        pinned: Option<Via>,
        now: Time,
        pool: &mut Pool,
    ) {
        let flow = self.flows.enter(info.bucket);
        if flow.packets.is_empty() && !flow.fresh && !self.old.contains(&info.bucket) {
            flow.fresh = true;
            flow.credit = self.config.quantum;
            self.fresh.push_back(info.bucket);
        }
        self.bytes += packet.len();
        flow.bytes += packet.len();
        let alone = flow.packets.len() == self.packets;
        if let Some(last) = flow.packets.back_mut()
            && (!alone || now.since(last.since) >= ACK_PATIENCE)
            && last.is_superseded(&packet, &info, pinned)
        {
            let old = std::mem::replace(&mut last.packet, packet);
            self.bytes -= old.len();
            flow.bytes -= old.len();
            pool.put(old);
            return;
        }
        self.packets += 1;
        flow.packets.push_back(Waiting { packet, info, pinned, since: now });
        while self.packets > self.config.max_packets || self.bytes > self.config.max_bytes {
            if !self.drop_from_fattest(pool) {
                break;
            }
        }
    }

    /// Ends the round in which flows were skipped. Each keeps its turn, unless there were so many that others have not been
    /// looked at: then it is theirs.
    pub fn reset_skips(&mut self) {
        let all_seen = self.skipped.len() < MAX_SKIPPED;
        if !all_seen {
            self.skipped.reverse();
        }
        while let Some((bucket, fresh)) = self.skipped.pop() {
            let list = if fresh { &mut self.fresh } else { &mut self.old };
            if all_seen { list.push_front(bucket) } else { list.push_back(bucket) }
        }
    }

    /// Lets the present head's flow wait until the next round. False when this one is to end: with thousands of flows in
    /// front of a slow line, a look at all of them for every packet that comes would keep a router from everything else.
    pub fn skip_flow(&mut self) -> bool {
        let (list, fresh) =
            if self.fresh.is_empty() { (&mut self.old, false) } else { (&mut self.fresh, true) };
        if let Some(bucket) = list.pop_front() {
            self.skipped.push((bucket, fresh));
        }
        self.skipped.len() < MAX_SKIPPED
    }

    /// The packet that is next, after CoDel has had its say.
    pub fn head(&mut self, now: Time, pool: &mut Pool) -> Option<Head<'_>> {
        let bucket = self.next_flow(now, pool)?;
        let sparse = !self.fresh.is_empty();
        let flow = self.flows.get(bucket)?;
        let waiting = flow.packets.front()?;
        Some(Head {
            packet: &waiting.packet,
            info: &waiting.info,
            pinned: waiting.pinned,
            waited: now.since(waiting.since),
            sparse,
        })
    }

    /// Takes the packet that [`Queue::head`] showed.
    pub fn pop(&mut self) -> Option<(Packet, PacketInfo)> {
        let bucket = *self.fresh.front().or_else(|| self.old.front())?;
        let flow = self.flows.get_mut(bucket)?;
        let waiting = flow.packets.pop_front()?;
        let length = waiting.packet.len();
        flow.bytes -= length;
        flow.credit -= length as i32;
        self.packets -= 1;
        self.bytes -= length;
        Some((waiting.packet, waiting.info))
    }

    /// Brings the flow whose turn it is to the front of its list.
    fn next_flow(&mut self, now: Time, pool: &mut Pool) -> Option<u16> {
        loop {
            let fresh = !self.fresh.is_empty();
            let list = if fresh { &mut self.fresh } else { &mut self.old };
            let bucket = *list.front()?;
            let Some(flow) = self.flows.get_mut(bucket) else {
                list.pop_front();
                continue;
            };
            if flow.credit <= 0 {
                flow.credit += self.config.quantum;
                flow.fresh = false;
                list.pop_front();
                self.old.push_back(bucket);
                continue;
            }
            self.control_delay(bucket, now, pool);
            let Some(flow) = self.flows.get_mut(bucket) else { continue };
            if !flow.packets.is_empty() {
                return Some(bucket);
            }
            // An empty new flow goes through the old list once, so that it cannot always be new (RFC 8290, 4.2).
            let list = if fresh { &mut self.fresh } else { &mut self.old };
            list.pop_front();
            if fresh && !self.old.is_empty() {
                flow.fresh = false;
                self.old.push_back(bucket);
            } else {
                self.flows.remove(bucket);
            }
        }
    }

    /// CoDel's dequeue (RFC 8289, 5.5): drops from the front of a flow what must go.
    fn control_delay(&mut self, bucket: u16, now: Time, pool: &mut Pool) {
        let (target, interval) = (self.target(), self.interval());
        let target = if self.relaxed { target.max(self.config.relaxed_target) } else { target };
        let Some(flow) = self.flows.get_mut(bucket) else { return };
        let mut may_drop = flow.codel.should_drop(flow.packets.front(), flow.bytes, target, interval, now);
        if flow.codel.dropping {
            if !may_drop {
                flow.codel.dropping = false;
                return;
            }
            while flow.codel.dropping && now >= flow.codel.next_drop && may_drop {
                flow.codel.count += 1;
                let dropped = drop_or_mark(flow, pool);
                self.marks += u64::from(!dropped.0);
                self.drops += u64::from(dropped.0);
                self.packets -= usize::from(dropped.0);
                self.bytes -= dropped.1;
                may_drop = flow.codel.should_drop(flow.packets.front(), flow.bytes, target, interval, now);
                flow.codel.next_drop += control_law(interval, flow.codel.count);
                if !dropped.0 {
                    return;
                }
                flow.codel.dropping = may_drop;
            }
        } else if may_drop {
            let dropped = drop_or_mark(flow, pool);
            self.marks += u64::from(!dropped.0);
            self.drops += u64::from(dropped.0);
            self.packets -= usize::from(dropped.0);
            self.bytes -= dropped.1;
            let codel = &mut flow.codel;
            codel.dropping = true;
            let recent = now.since(codel.next_drop) < interval * 16;
            let delta = codel.count.saturating_sub(codel.last_count);
            codel.count = if recent && delta > 1 { delta } else { 1 };
            codel.last_count = codel.count;
            codel.next_drop = now + control_law(interval, codel.count);
        }
    }

    fn drop_from_fattest(&mut self, pool: &mut Pool) -> bool {
        let Some(flow) = self.flows.fattest() else { return false };
        // Several at once, as finding the fattest takes a look at all (RFC 8290, 4.1.3).
        let batch = (flow.packets.len() / 2).clamp(1, 64);
        for _ in 0..batch {
            let Some(waiting) = flow.packets.pop_front() else { return false };
            flow.bytes -= waiting.packet.len();
            self.bytes -= waiting.packet.len();
            self.packets -= 1;
            self.drops += 1;
            pool.put(waiting.packet);
        }
        true
    }
}

impl Codel {
    fn should_drop(
        &mut self,
        front: Option<&Waiting>,
        bytes: usize,
        target: Duration,
        interval: Duration,
        now: Time,
    ) -> bool {
        let Some(front) = front else {
            self.first_above = None;
            return false;
        };
        if now.since(front.since) < target || bytes <= 1_514 {
            self.first_above = None;
            return false;
        }
        match self.first_above {
            None => {
                self.first_above = Some(now + interval);
                false
            }
            Some(at) => now >= at,
        }
    }
}

/// Drops the first packet of a flow, or marks it if its sender understands marks: (dropped, its bytes).
#[cold]
fn drop_or_mark(flow: &mut Flow, pool: &mut Pool) -> (bool, usize) {
    let mark = |waiting: &mut Waiting| {
        let packet = waiting.info.network.and_then(|at| waiting.packet.bytes_mut().get_mut(at..));
        packet.is_some_and(ip::mark_ce)
    };
    if flow.packets.front_mut().is_some_and(mark) {
        return (false, 0);
    }
    let Some(waiting) = flow.packets.pop_front() else { return (false, 0) };
    let length = waiting.packet.len();
    flow.bytes -= length;
    pool.put(waiting.packet);
    (true, length)
}

/// Time to the next drop: interval ÷ √count.
fn control_law(interval: Duration, count: u32) -> Duration {
    let root = (u64::from(count) << 16).isqrt().max(1);
    Duration::from_nanos(((interval.as_nanos() as u64) << 8) / root)
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
