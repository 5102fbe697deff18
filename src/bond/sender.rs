//! The sending half of a peer: from inner packets to sealed datagrams, each on a link of its own.

mod datagram;
mod plan;
mod repairs;

use std::collections::VecDeque;

use super::class::Classes;
use super::flight::{Flight, Outgoing};
use super::ip::{Classifier, PacketInfo, clamp_mss};
use super::link::{Link, LinkState};
use super::meter::Volume;
use super::pacer::Pacer;
use super::packet::{Packet, Pool};
use super::peer::Handling;
use super::queue::{Queue, QueueConfig, Via};
use super::scheduler::{Candidate, Policy, Scheduler};
use super::session::{Lifetimes, Sealer};
use super::time::earliest;
use super::wire::{self, Frame, Report};
use super::{LinkId, MAX_LINKS, Path, Time, Transmit};
use repairs::Repairs;

/// Packets that wait to be sent again at the most.
const MAX_RESENDS: usize = 8_192;
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
    repairs: Repairs,
    candidates: Vec<Candidate>,
    lost: Vec<Outgoing>,
    frames: Vec<u8>,
}

/// What the sender knows of a flow bucket.
#[derive(Clone, Copy, Default)]
struct FlowState {
    /// The next sequence number.
    next: u32,
    /// Bytes that are staged on links.
    staged: u32,
    volume: Volume,
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
            repairs: Repairs::default(),
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
            (Some(rate), limit) => *limit = Some(Pacer::of_limit(rate, now)),
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
            link.take_payloads(&mut self.lost);
            self.planned_of(id);
            self.requeue_lost(Time::ZERO);
        }
    }

    /// The lineage is new, so packet numbers and sequences start again. What was in flight is lost.
    pub fn restart(&mut self, now: Time) {
        for link in &mut self.links {
            link.restart(&mut self.lost, now);
        }
        self.flows.clear();
        self.lost.extend(std::mem::take(&mut self.planned).into_iter().map(|(_, outgoing)| outgoing));
        self.lost.extend(std::mem::take(&mut self.resends));
        for outgoing in self.lost.drain(..) {
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
                if over != report.link {
                    link.flight.hasten(report, &mut self.lost);
                    self.requeue_lost(now);
                    return;
                }
                let lost = link.sent.lost;
                link.report(report, |outgoing| pool.put(outgoing.packet), &mut self.lost, now);
                // On a line that others fill, our pauses are their room.
                let lost = link.sent.lost > lost && !link.capacity.is_shared();
                self.requeue_lost(now);
                self.queue.relax(self.links.iter().any(|link| link.may_carry_more(now)));
                let (quickest, all) = self.round_trips(now);
                self.queue.set_round_trip(all, self.repairs.enter(lost, quickest, now));
                self.check_left_out(now);
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
                    link.goodbye(&mut self.lost, now);
                    self.requeue_lost(now);
                }
            }
            _ => {}
        }
    }

    /// Puts a report on its way over its link; one that tells of a loss also over a link on which it is there sooner, for
    /// somebody waits for the repair.
    pub fn push_report(&mut self, report: Report<'_>, hole: bool, now: Time) {
        let frame = Frame::Report(report);
        self.push_frame(report.link, &frame, now);
        if hole && let Some(quicker) = self.quicker_than(report.link, now) {
            self.push_frame(quicker, &frame, now);
        }
    }

    /// Puts a frame on its way over `link`, or over the quickest when that one carries nothing.
    pub fn push_frame(&mut self, link: LinkId, frame: &Frame<'_>, now: Time) {
        let can = |l: &Link| l.path.is_some() && !matches!(l.state(), LinkState::Disabled);
        let carries = self.links.iter().any(|l| l.id == link && can(l));
        let link = if carries { Some(link) } else { self.quickest(now) };
        if let Some(link) = link.and_then(|link| self.link(link)) {
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
        let staged = self.links.iter().any(|l| !l.staged.is_empty());
        let busy = staged || !self.queue.is_empty() || !self.resends.is_empty() || !self.planned.is_empty();
        let frames = self.links.iter().any(|l| !l.frames().is_empty() && l.path.is_some());
        let first = earliest(&[self.wake.filter(|_| busy), frames.then_some(Time::ZERO)]);
        self.links.iter().fold(first, |first, link| earliest(&[first, link.next_tick(), link.next_padded()]))
    }

    /// Does what time asks for.
    pub fn handle_timeout(&mut self, now: Time) {
        for link in &mut self.links {
            link.tick(&mut self.lost, now);
        }
        self.requeue_lost(now);
        self.queue.relax(self.links.iter().any(|link| link.may_carry_more(now)));
    }

    fn flow(&mut self, bucket: u16) -> Option<&mut FlowState> {
        if self.flows.is_empty() {
            self.flows.resize(wire::BUCKETS, FlowState::default());
        }
        self.flows.get_mut(usize::from(bucket))
    }

    fn requeue_lost(&mut self, now: Time) {
        let mut lost = std::mem::take(&mut self.lost);
        for outgoing in lost.drain(..) {
            if outgoing.attempts == 0 {
                self.unstaged(outgoing.bucket, outgoing.packet.len());
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
