//! The sending half of a peer: from inner packets to sealed datagrams, each on a link of its own.

use std::collections::VecDeque;
use std::time::Duration;

use super::cipher::Cipher;
use super::class::{Classes, Copies};
use super::flight::{Flight, MAX_ATTEMPTS, Outgoing, TOO_OLD};
use super::header::Seal;
use super::ip::{Classifier, PacketInfo, UDP, clamp_mss};
use super::link::{Link, LinkState};
use super::pacer::Pacer;
use super::packet::{Packet, Pool};
use super::peer::Handling;
use super::queue::{Queue, QueueConfig, Via};
use super::scheduler::{Candidate, Choice, Head, Policy, Scheduler};
use super::session::{Lifetimes, Sealer};
use super::wire::{self, Frame, Kind, Shim, TICK_NANOS, tick_distance, ticks};
use super::{LinkId, MAX_LINKS, Path, Time, Transmit};

/// Payload bytes kept for sending again, over all links.
const MAX_KEPT: usize = 12 << 20;
/// Packets that wait to be sent again at the most.
const MAX_RESENDS: usize = 8_192;
/// A resend goes ahead of the pacer by at most this;
const RESEND_AHEAD: Duration = Duration::from_millis(20);
/// by this when there are many, as after a cut: they leave room for flows that send little.
const MANY_RESENDS: usize = 32;
const MANY_RESENDS_AHEAD: Duration = Duration::from_millis(4);
/// The pacers' deadlines are served no more often than this; their credit makes up for it.
const WAKE_INTERVAL: Duration = Duration::from_micros(300);
/// Datagrams in one transmit at the most, and bytes of them: what `UDP_SEGMENT` takes at once.
const MAX_BATCH: usize = 64;
const MAX_BATCH_BYTES: usize = 65_000;
const POOL: usize = 2_048;

/// The sending half.
pub struct Sender {
    /// The links, by id.
    pub links: Vec<Link>,
    /// The keys.
    pub sealer: Sealer,
    /// Decides which link takes the next packet.
    pub scheduler: Scheduler,
    /// Packets that are treated otherwise.
    pub classes: Classes,
    /// How all packets are treated.
    pub handling: Handling,
    /// Inner packets and bytes accepted.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packets sent again.
    pub resent: u64,
    /// Spaces what leaves the queue, so that all links together send no more.
    limit: Option<Pacer>,
    /// Packets whose only link was down.
    unsent: u64,
    classifier: Classifier,
    queue: Queue,
    pool: Pool,
    flows: Vec<FlowState>,
    resends: VecDeque<Outgoing>,
    /// Scheduled already: copies, fragments, and what did not fit into the last batch.
    planned: VecDeque<(LinkId, Outgoing)>,
    wake: Option<Time>,
    candidates: Vec<Candidate>,
    lost: Vec<Outgoing>,
    frames: Vec<u8>,
}

/// What the sender knows of a flow bucket.
#[derive(Clone, Copy, Default)]
struct FlowState {
    /// The next sequence number.
    next: u32,
    /// Packets that are staged on a link.
    staged: u16,
}

impl Sender {
    /// A sender without links and keys. `seed` keys the hash of flows.
    pub fn new(policy: Policy, lifetimes: Lifetimes, seed: u64) -> Self {
        Sender {
            links: Vec::new(),
            sealer: Sealer::new(lifetimes),
            scheduler: Scheduler::new(policy),
            classes: Classes::default(),
            handling: Handling::default(),
            limit: None,
            packets: 0,
            bytes: 0,
            resent: 0,
            unsent: 0,
            classifier: Classifier::new(seed),
            queue: Queue::new(QueueConfig::default()),
            pool: Pool::new(POOL),
            flows: Vec::new(),
            resends: VecDeque::new(),
            planned: VecDeque::new(),
            wake: None,
            candidates: Vec::new(),
            lost: Vec::new(),
            frames: Vec::new(),
        }
    }

    /// Limits what all links send together, in bytes a second on the lines.
    pub fn set_limit(&mut self, rate: Option<u64>, now: Time) {
        match (rate, &mut self.limit) {
            (None, limit) => *limit = None,
            (Some(rate), Some(limit)) => limit.set_rate(rate),
            (Some(rate), limit) => *limit = Some(Pacer::new(rate, now)),
        }
    }

    /// The link of this id.
    pub fn link(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.iter_mut().find(|l| l.id == id)
    }

    /// Adds a link; refuses more than [`MAX_LINKS`].
    pub fn add_link(&mut self, mut link: Link) {
        // A link that comes back under an old number goes on counting where it stopped.
        if let Some(id) = super::header::LinkId::new(link.id) {
            link.flight = Flight::starting_at(self.sealer.next_packet_number(id));
        }
        if self.links.len() < MAX_LINKS {
            let at = self.links.partition_point(|l| l.id < link.id);
            self.links.insert(at, link);
        }
    }

    /// Removes a link; what it carried is sent again on the others.
    pub fn remove_link(&mut self, id: LinkId) {
        if let Some(at) = self.links.iter().position(|l| l.id == id) {
            let mut link = self.links.remove(at);
            self.lost.extend(link.flight.take_all());
            self.lost.extend(link.staged.take_all());
            self.planned_of(id);
            self.requeue_lost(Time::ZERO);
        }
    }

    /// The lineage is new, so packet numbers and sequences start again. What was in flight is lost.
    pub fn restart(&mut self, now: Time) {
        for link in &mut self.links {
            for outgoing in link.restart(now) {
                self.pool.put(outgoing.packet);
            }
        }
        self.flows.clear();
        for outgoing in self.planned.drain(..).map(|(_, outgoing)| outgoing).chain(self.resends.drain(..)) {
            self.pool.put(outgoing.packet);
        }
    }

    /// There is a session.
    pub fn has_session(&self) -> bool {
        self.sealer.cipher().is_some()
    }

    /// An empty packet.
    pub fn buffer(&mut self) -> Packet {
        self.pool.take()
    }

    /// Packets that wait for a link.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Packets that the queue has dropped, and those whose only link was down.
    pub fn dropped(&self) -> u64 {
        self.queue.drops() + self.unsent
    }

    /// Takes an inner packet. False when it is no IP packet.
    pub fn enqueue(&mut self, packet: Packet, now: Time) -> bool {
        let mut info = self.classifier.parse(&packet);
        if let Some(info) = &mut info {
            info.class = self.classes.classify(&packet, info);
        }
        self.push(packet, info, None, now)
    }

    /// Takes an inner packet, or an Ethernet frame, that goes over a certain link. False when it is neither.
    pub fn enqueue_on(&mut self, via: Via, packet: Packet, ethernet: bool, now: Time) -> bool {
        let info = match ethernet {
            true => self.classifier.parse_frame(&packet),
            false => self.classifier.parse(&packet),
        };
        // What can leave by one link only has flows of its own there, so that a busy one holds up nobody else's.
        let info = info.map(|info| match via {
            Via::Only(link) => PacketInfo { bucket: bucket_of_link(info.bucket, link), ..info },
            Via::First(_) => info,
        });
        self.push(packet, info, Some(via), now)
    }

    fn push(&mut self, mut packet: Packet, info: Option<PacketInfo>, pinned: Option<Via>, now: Time) -> bool {
        let Some(info) = info else {
            self.pool.put(packet);
            return false;
        };
        self.packets += 1;
        self.bytes += packet.len() as u64;
        if let (true, Some(_), Some(at)) = (self.handling.clamp_mss, info.tcp, info.network)
            && let Some(inner) = packet.bytes_mut().get_mut(at..)
        {
            let room = self.room().saturating_sub(at).min(usize::from(u16::MAX)) as u16;
            clamp_mss(inner, room.saturating_sub(40), room.saturating_sub(60));
        }
        self.queue.push(packet, info, pinned, now, &mut self.pool);
        true
    }

    /// The largest inner packet that every link in use carries in one datagram.
    pub fn room(&self) -> usize {
        let joined = self
            .links
            .iter()
            .filter(|l| l.mtu.is_known() && matches!(l.state(), LinkState::Up | LinkState::Suspect));
        joined.map(Link::room).min().unwrap_or(usize::from(super::mtu::MAX_MTU) - 28 - wire::OVERHEAD)
    }

    /// Takes a frame of the other end that came over `link`.
    pub fn handle_frame(&mut self, over: LinkId, path: Path, frame: &Frame<'_>, now: Time) {
        let pool = &mut self.pool;
        match frame {
            Frame::Report(report) => {
                let Some(link) = self.links.iter_mut().find(|l| l.id == report.link) else { return };
                link.report(report, |outgoing| pool.put(outgoing.packet), &mut self.lost, now);
                self.requeue_lost(now);
                self.queue.relax(self.links.iter().any(|link| link.may_carry_more(now)));
            }
            Frame::Challenge(token) => {
                if let Some(link) = self.link(over) {
                    link.challenged(path, *token);
                }
            }
            Frame::Response(token) => {
                if let Some(link) = self.link(over) {
                    link.response(path, *token, now);
                }
            }
            Frame::MtuReply { link, size } => {
                // The reply to our probe, as it came in a packet; our own probes' answers name the probed link.
                if let Some(link) = self.link(*link) {
                    link.mtu.confirmed(*size, now);
                }
            }
            Frame::TrainReply { link, id, bytes, ticks } => {
                if let Some(link) = self.link(*link) {
                    link.train_reply(*id, *bytes, *ticks, now);
                }
            }
            Frame::Goodbye { link } => {
                if let Some(link) = self.links.iter_mut().find(|l| l.id == *link) {
                    self.lost.extend(link.goodbye(now));
                    self.requeue_lost(now);
                }
            }
            _ => {}
        }
    }

    /// Puts a frame on its way over `link`, or over the quickest when that one carries nothing.
    pub fn push_frame(&mut self, link: LinkId, frame: &Frame<'_>, now: Time) {
        let can = |l: &Link| l.path.is_some() && !matches!(l.state(), LinkState::Disabled);
        let quickest = self.quickest(now);
        let at = self.links.iter().position(|l| l.id == link && can(l));
        let at = at.or_else(|| self.links.iter().position(|l| Some(l.id) == quickest));
        if let Some(link) = at.and_then(|at| self.links.get_mut(at)) {
            link.push_frame(frame);
        }
    }

    /// The next datagrams. `out` is cleared and filled.
    pub fn poll_transmit(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Transmit> {
        out.clear();
        self.sealer.cipher()?;
        self.poll_direct(now, out)
            .or_else(|| self.poll_data(now, out))
            .or_else(|| self.poll_frames(now, out))
            .or_else(|| self.poll_padded(now, out))
    }

    /// When something is to be done.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.sealer.cipher()?;
        let links = self.links.iter().flat_map(|l| [l.next_tick(), l.next_padded()]).flatten();
        let staged = self.links.iter().any(|l| !l.staged.is_empty());
        let busy = staged || !self.queue.is_empty() || !self.resends.is_empty() || !self.planned.is_empty();
        let frames = self.links.iter().any(|l| !l.frames().is_empty() && l.path.is_some());
        links.chain(self.wake.filter(|_| busy)).chain(frames.then_some(Time::ZERO)).min()
    }

    /// Does what time asks for.
    pub fn handle_timeout(&mut self, now: Time) {
        for link in &mut self.links {
            link.tick(&mut self.lost, now);
        }
        self.requeue_lost(now);
        self.queue.relax(self.links.iter().any(|link| link.may_carry_more(now)));
    }

    fn poll_direct(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Transmit> {
        for index in 0..self.links.len() {
            if let Some((path, frames)) = self.links[index].take_direct() {
                let size = self.control(index, path, &frames, 0, false, now, out);
                if size > 0 {
                    return Some(Transmit { path, segment_size: size, ecn: 0 });
                }
            }
        }
        None
    }

    fn poll_data(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Transmit> {
        let mut transmit: Option<Transmit> = None;
        let mut count = 0;
        while let Some((id, outgoing)) = self.planned.pop_front().or_else(|| self.plan(now)) {
            let Some(index) = self.links.iter().position(|l| l.id == id && l.path.is_some()) else {
                self.resends.push_back(outgoing);
                continue;
            };
            let Some(path) = self.links[index].path else { continue };
            let size = self.datagram_size(index, &outgoing);
            if let Some(transmit) = &transmit
                && (transmit.path != path
                    || size > transmit.segment_size
                    || count >= MAX_BATCH
                    || out.len() + size > MAX_BATCH_BYTES)
            {
                self.planned.push_front((id, outgoing));
                break;
            }
            if !self.data(index, outgoing, now, out) {
                continue;
            }
            count += 1;
            let first = transmit.get_or_insert(Transmit { path, segment_size: size, ecn: 0 });
            if size < first.segment_size {
                break;
            }
        }
        transmit
    }

    fn poll_frames(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Transmit> {
        for index in 0..self.links.len() {
            let link = &mut self.links[index];
            if link.frames().is_empty() {
                continue;
            }
            let Some(path) = link.path else {
                link.clear_frames();
                continue;
            };
            let frames = link.take_frames();
            let elicits = !wire::Frames::new(&frames).all(|f| matches!(f, Frame::Report(_)));
            let size = self.control(index, path, &frames, 0, elicits, now, out);
            if size > 0 {
                return Some(Transmit { path, segment_size: size, ecn: 0 });
            }
        }
        None
    }

    fn poll_padded(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Transmit> {
        for index in 0..self.links.len() {
            let link = &mut self.links[index];
            let Some((frame, size)) = link.poll_padded(now) else { continue };
            let Some(path) = link.path else { continue };
            let mut frames = std::mem::take(&mut self.frames);
            frames.clear();
            frame.write(&mut frames);
            let size = self.control(index, path, &frames, size, false, now, out);
            self.frames = frames;
            if size > 0 {
                return Some(Transmit { path, segment_size: size, ecn: 0 });
            }
        }
        None
    }

    /// Seals a packet of frames, padded to `line_bytes` on the line, and returns its size.
    #[allow(clippy::too_many_arguments)]
    fn control(
        &mut self,
        index: usize,
        path: Path,
        frames: &[u8],
        line_bytes: usize,
        elicits: bool,
        now: Time,
        out: &mut Vec<u8>,
    ) -> usize {
        let Some(link) = self.links.get_mut(index) else { return 0 };
        let start = out.len();
        out.resize(start + wire::HEADER, 0);
        Shim::control(ticks(now)).write(&[], out);
        out.extend_from_slice(frames);
        let padded = line_bytes.saturating_sub(path.header_bytes() + wire::TAG);
        if out.len() - start < padded {
            out.resize(start + padded, 0);
        }
        if !seal(&mut self.sealer, Seal::Sealed, link.id, out, start, now) {
            return 0;
        }
        let size = out.len() - start;
        // Padded probes are few, and there to fill the line.
        if line_bytes == 0 {
            link.pacer.sent(size + path.header_bytes(), now);
        }
        account(link, size + path.header_bytes(), elicits, None, now);
        if elicits {
            link.asked(now);
        }
        size
    }

    /// Data goes in the clear.
    fn is_clear(&self) -> bool {
        self.sealer.cipher() == Some(Cipher::None)
    }

    fn datagram_size(&self, index: usize, outgoing: &Outgoing) -> usize {
        let fragment = usize::from(matches!(outgoing.kind, Kind::Fragment { .. }));
        let size = wire::OVERHEAD + fragment + outgoing.packet.len();
        size + self.piggyback(index, size)
    }

    /// Bytes that waiting frames add to a datagram of `size`, when they fit.
    fn piggyback(&self, index: usize, size: usize) -> usize {
        let Some(link) = self.links.get(index) else { return 0 };
        let length = link.frames().len();
        let room = usize::from(link.mtu.mtu()).saturating_sub(link.path.map_or(48, |p| p.header_bytes()));
        let rides =
            length > 0 && length <= wire::MAX_PIGGYBACK && !self.is_clear() && size + 1 + length <= room;
        if rides { 1 + length } else { 0 }
    }

    fn data(&mut self, index: usize, mut outgoing: Outgoing, now: Time, out: &mut Vec<u8>) -> bool {
        let fragment = usize::from(matches!(outgoing.kind, Kind::Fragment { .. }));
        let rides = self.piggyback(index, wire::OVERHEAD + fragment + outgoing.packet.len()) > 0;
        let clear = self.is_clear();
        let Some(link) = self.links.get_mut(index) else { return false };
        let start = out.len();
        out.resize(start + wire::HEADER, 0);
        let shim = Shim {
            kind: outgoing.kind,
            ordered: outgoing.ordered,
            sent: ticks(now),
            bucket: outgoing.bucket,
            sequence: outgoing.sequence,
        };
        shim.write(if rides { link.frames() } else { &[] }, out);
        if rides {
            link.clear_frames();
        }
        out.extend_from_slice(&outgoing.packet);
        let mode = if clear { Seal::Clear } else { Seal::Sealed };
        if !seal(&mut self.sealer, mode, link.id, out, start, now) {
            self.pool.put(outgoing.packet);
            return false;
        }
        let line_bytes = out.len() - start + link.path.map_or(48, |p| p.header_bytes());
        outgoing.attempts += 1;
        link.pacer.sent(line_bytes, now);
        let forgotten = account(link, line_bytes, true, Some(outgoing), now);
        link.asked(now);
        if let Some(forgotten) = forgotten {
            self.pool.put(forgotten.packet);
        }
        self.bound_kept();
        true
    }

    /// Chooses the next packet and its link.
    fn plan(&mut self, now: Time) -> Option<(LinkId, Outgoing)> {
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
            // Nothing overtakes what is staged of its own flow.
            let sparse =
                head.sparse && self.flows.get(usize::from(info.bucket)).is_none_or(|f| f.staged == 0);
            let facts = Head { hash: info.hash, waited, sparse };
            self.find_candidates(length, now);
            if let Err(link) = self.keep_to(pinned) {
                self.hold_or_drop(link);
                continue;
            }
            self.classes.restrict(info.class, &mut self.candidates);
            let scheduler = self.classes.scheduler(info.class, &mut self.scheduler);
            let choice = scheduler.choose(&self.candidates, &facts, now)?;
            let id = match choice {
                Choice::Send(id) | Choice::Stage(id) => id,
                Choice::Wait(until) => {
                    self.wake_at(until.max(now + WAKE_INTERVAL));
                    self.queue.skip_flow();
                    continue;
                }
            };
            let (packet, info) = self.queue.pop()?;
            self.account_limit(packet.len(), now);
            let ordered = self.is_ordered(&info) && !matches!(pinned, Some(Via::Only(_)));
            let outgoing = self.outgoing(packet, info.bucket, ordered, now);
            let outgoing = Outgoing { pinned, sparse, class: info.class, ..outgoing };
            match self.links.iter_mut().find(|l| l.id == id) {
                Some(link) if matches!(choice, Choice::Stage(_)) => link.staged.push(outgoing),
                _ => return Some(self.fit(id, outgoing, now)),
            }
            if let Some(flow) = self.flow(info.bucket) {
                flow.staged = flow.staged.saturating_add(1);
            }
        }
    }

    fn unstaged(&mut self, bucket: u16) {
        if let Some(flow) = self.flow(bucket) {
            flow.staged = flow.staged.saturating_sub(1);
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
        self.unstaged(outgoing.bucket);
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
            let ahead = if many { MANY_RESENDS_AHEAD } else { RESEND_AHEAD };
            self.find_candidates(length, now);
            self.classes.restrict(class, &mut self.candidates);
            if self.keep_to(pinned).is_err() {
                let outgoing = self.resends.pop_front()?;
                self.give_up(outgoing, now);
                continue;
            }
            let best = Scheduler::earliest(&self.candidates, now)?;
            if best.free > now + ahead {
                self.wake_at(best.free - ahead);
                return None;
            }
            let outgoing = self.resends.pop_front()?;
            self.resent += u64::from(outgoing.attempts > 0);
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

    /// The queue's head belongs to a link that cannot take it: waits while that is only suspect, otherwise drops it.
    fn hold_or_drop(&mut self, link: LinkId) {
        if self.links.iter().any(|l| l.id == link && l.state() == LinkState::Suspect) {
            self.queue.skip_flow();
        } else if let Some((packet, _)) = self.queue.pop() {
            self.unsent += 1;
            self.pool.put(packet);
        }
    }

    fn flow(&mut self, bucket: u16) -> Option<&mut FlowState> {
        if self.flows.is_empty() {
            self.flows.resize(wire::BUCKETS, FlowState::default());
        }
        self.flows.get_mut(usize::from(bucket))
    }

    /// Whether the other end is to deliver a packet behind those of its flow that were sent before.
    fn is_ordered(&self, info: &PacketInfo) -> bool {
        match info.tcp {
            // An acknowledgment says all that those before it said.
            Some(_) => self.handling.resequence_tcp && !info.pure_ack,
            None => self.handling.resequence_udp && info.protocol == UDP,
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

    /// A packet, or a copy of one, has left the queue for a link.
    fn account_limit(&mut self, length: usize, now: Time) {
        if let Some(limit) = &mut self.limit {
            // With IPv4 outside.
            limit.sent(length + wire::OVERHEAD + 28, now);
        }
    }

    /// Lists the links that carry data, with the delay that each has for a packet of `length`.
    fn find_candidates(&mut self, length: usize, now: Time) {
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
                rate: link.pacer.rate(),
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

    fn quickest(&mut self, now: Time) -> Option<LinkId> {
        self.find_candidates(0, now);
        Scheduler::earliest(&self.candidates, now).map(|c| c.link)
    }

    fn requeue_lost(&mut self, now: Time) {
        let mut lost = std::mem::take(&mut self.lost);
        for outgoing in lost.drain(..) {
            if outgoing.attempts == 0 {
                self.unstaged(outgoing.bucket);
            }
            if self.resends.len() >= MAX_RESENDS {
                self.give_up(outgoing, now);
            } else if outgoing.sparse {
                // A call does not wait for the downloads that the same link carried.
                let at = self.resends.iter().position(|resend| !resend.sparse).unwrap_or(self.resends.len());
                self.resends.insert(at, outgoing);
            } else {
                self.resends.push_back(outgoing);
            }
        }
        self.lost = lost;
    }

    /// Tells the other end that a packet will not come any more.
    fn give_up(&mut self, outgoing: Outgoing, now: Time) {
        if outgoing.ordered {
            let frame = Frame::GiveUp { bucket: outgoing.bucket, sequence: outgoing.sequence };
            if let Some(link) = self.quickest(now) {
                self.push_frame(link, &frame, now);
            }
        }
        self.pool.put(outgoing.packet);
    }

    fn bound_kept(&mut self) {
        if self.links.iter().map(|l| l.flight.payload_bytes()).sum::<usize>() <= MAX_KEPT {
            return;
        }
        let fullest = self.links.iter_mut().max_by_key(|l| l.flight.payload_bytes());
        if let Some(dropped) = fullest.and_then(|l| l.flight.drop_oldest_payload()) {
            self.pool.put(dropped.packet);
        }
    }

    fn wake_at(&mut self, at: Time) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Moves what was planned for a link that is gone to the resends.
    fn planned_of(&mut self, id: LinkId) {
        for (link, outgoing) in std::mem::take(&mut self.planned) {
            if link == id {
                self.lost.push(outgoing);
            } else {
                self.planned.push_back((link, outgoing));
            }
        }
    }
}

/// The bucket of a flow on one link: the low bits are the link's number.
fn bucket_of_link(bucket: u16, link: LinkId) -> u16 {
    let links = MAX_LINKS as u16;
    bucket - bucket % links + u16::from(link) % links
}

/// Seals what stands in `out` from `start`. Removes it when the keys do not allow it.
fn seal(sealer: &mut Sealer, mode: Seal, link: LinkId, out: &mut Vec<u8>, start: usize, now: Time) -> bool {
    out.resize(out.len() + wire::TAG, 0);
    let sealed = match (super::header::LinkId::new(link), out.get_mut(start..)) {
        (Some(link), Some(packet)) => sealer.seal(mode, link, packet, now).is_ok(),
        _ => false,
    };
    if !sealed {
        out.truncate(start);
    }
    sealed
}

fn account(
    link: &mut Link,
    line_bytes: usize,
    elicits: bool,
    payload: Option<Outgoing>,
    now: Time,
) -> Option<Outgoing> {
    link.sent.packets += 1;
    link.sent.bytes += line_bytes as u64;
    link.meter.add(line_bytes, now);
    link.flight.sent(line_bytes, elicits, payload, link.pacer.idle(now), now)
}
