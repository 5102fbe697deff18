//! One end of the bond: all its peers, and the way of every datagram to its peer and session.

mod agenda;
#[cfg(test)]
mod contested_tests;
#[cfg(test)]
mod greedy_tests;
mod handshakes;
#[cfg(test)]
mod hostile_tests;
mod pins;
#[cfg(test)]
mod rekey_tests;

use std::collections::VecDeque;
use std::time::Duration;

use super::cipher::CipherPolicy;
use super::class::Class;
use super::header::{DatagramType, Seal, TransportHeader};
use super::keys::{PresharedKey, PrivateKey};
use super::link::LinkState;
use super::peer::{Event, LinkConfig, Payload, Peer, PeerConfig, Timing, Wish};
use super::queue::Via;
use super::receiver::Opened;
use super::routing::Routing;
use super::session::OpenError;
use super::status::EndpointStatus;
use super::time::earliest;
use super::wire::Frame;
use super::{LinkId, Origin, Packet, Path, PeerId, Pool, Time, Transmit, ip};
use crate::sorted::SortedMap;
use agenda::Agenda;
use handshakes::Handshakes;
use pins::Pin;
pub use pins::TcpPorts;

/// ECN codepoint "congestion experienced" (RFC 3168).
const CE: u8 = 3;
/// Buffers that are kept for packets to come.
const POOL: usize = 256;
/// Events that wait to be polled at the most.
const MAX_EVENTS: usize = 1_024;
/// Datagrams of at least this length may be cut out of one read.
const MIN_STRIDE: usize = 16;

/// Settings of an endpoint.
pub struct EndpointConfig {
    /// Our identity.
    pub private_key: PrivateKey,
    /// Ciphers that may be used.
    pub cipher: CipherPolicy,
    /// This machine has AES instructions.
    pub aes_hardware: bool,
    /// The client renews keys this often.
    pub rekey_interval: Duration,
    /// Idle links are probed this often.
    pub keepalive: Duration,
}

/// The source of randomness that the core is given.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// What a link is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkUse {
    /// Its number.
    pub id: LinkId,
    /// Links with the lowest number are used first.
    pub priority: u8,
    /// Whether it carries the peer's packets now.
    pub carries: bool,
}

/// One end of the bond.
pub struct Endpoint {
    keepalive: Duration,
    entries: Agenda,
    next_peer: u32,
    routing: Routing,
    handshakes: Handshakes,
    /// Whose session a receiver index names.
    indices: SortedMap<u32, PeerId>,
    events: VecDeque<Event>,
    drops: SortedMap<&'static str, u64>,
    pool: Pool,
    random: Random,
    /// Peers that have something to do; kept for its memory.
    due: Vec<PeerId>,
    pins: Vec<Pin>,
}

impl Endpoint {
    /// An endpoint without peers. `logical_clock_ms` stamps handshakes: it must be greater than at the start before.
    pub fn new(config: EndpointConfig, random: Random, logical_clock_ms: u64, now: Time) -> Self {
        let keepalive = config.keepalive;
        let handshakes = Handshakes::new(config, logical_clock_ms, now);
        Endpoint {
            keepalive,
            entries: Agenda::default(),
            next_peer: 0,
            routing: Routing::default(),
            handshakes,
            indices: SortedMap::new(),
            events: VecDeque::new(),
            drops: SortedMap::new(),
            pool: Pool::new(POOL),
            random,
            due: Vec::new(),
            pins: Vec::new(),
        }
    }

    /// A time below which all stamps of handshakes are about to be used, if one is to be stored now. See
    /// [`LogicalClock::reservation`](super::logical_clock::LogicalClock::reservation).
    pub fn clock_reservation(&self, now: Time) -> Option<u64> {
        self.handshakes.clock.reservation(now)
    }

    /// Says that this reservation has been stored.
    pub fn clock_stored(&mut self, reservation: u64) {
        self.handshakes.clock.stored(reservation);
    }

    /// The time of handshakes, in milliseconds.
    pub fn clock(&self, now: Time) -> u64 {
        self.handshakes.clock.time(now)
    }

    /// Sets the clock of handshakes on to `wall` milliseconds, never back.
    pub fn advance_clock(&mut self, wall: u64, now: Time) {
        self.handshakes.clock.advance(wall, now);
    }

    /// Adds a peer. An initiator's peer is called as soon as it has a link with a path.
    pub fn add_peer(&mut self, config: PeerConfig, now: Time) -> PeerId {
        let id = PeerId(self.next_peer);
        self.next_peer = self.next_peer.wrapping_add(1);
        self.routing.set(id, &config.allowed);
        let seed = u64::from_ne_bytes(self.token());
        self.handshakes.add(id, &config);
        let timing = Timing { keepalive: self.keepalive, lifetimes: self.handshakes.lifetimes() };
        let peer = Peer::new(id, config, timing, seed, now);
        self.entries.insert(peer);
        id
    }

    /// Changes a peer's policy, addresses, limits or preshared key; its public key stays.
    pub fn update_peer(&mut self, id: PeerId, config: PeerConfig, now: Time) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        self.routing.set(id, &config.allowed);
        // A client does not care for the policy and the handling of its server.
        let told = |config: &PeerConfig| {
            (config.initiator.then_some((config.policy, config.handling)), config.download)
        };
        let renew = told(&entry.peer.config) != told(&config);
        self.handshakes.update(id, &config);
        let initiator = config.initiator;
        entry.peer.configure(config, now);
        match initiator {
            _ if !renew => {}
            true => self.handshakes.call_soon(id, now),
            false => entry.peer.renewal.ask(now),
        }
    }

    /// Removes a peer at once. To say goodbye first, see [`Endpoint::close_peer`].
    pub fn remove_peer(&mut self, id: PeerId, _now: Time) {
        self.routing.remove(id);
        self.handshakes.remove(id);
        self.indices.retain(|_, peer| *peer != id);
        self.entries.remove(id);
    }

    /// Server: these secrets, numbered by the caller, and no others, let an unknown key introduce itself: each once, told
    /// by [`Event::Introduced`].
    pub fn set_invitations(&mut self, invitations: SortedMap<u32, PresharedKey>) {
        self.handshakes.set_invitations(invitations);
    }

    /// Client: adds a link to a peer, or changes what changed in it.
    pub fn set_link(&mut self, id: PeerId, link: LinkConfig, now: Time) {
        let token = self.token();
        if let Some(entry) = self.entries.get_mut(id) {
            entry.peer.set_link(link, token, now);
            if !entry.peer.sender.has_session() {
                self.handshakes.call_soon(id, now);
            }
        }
        // Without any path there is no timer that would find it out.
        self.watch(id, now);
    }

    /// Client: replaces the classes of traffic that are treated in their own way, in both directions.
    pub fn set_classes(&mut self, id: PeerId, classes: &[Class], now: Time) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.peer.set_classes(classes, now);
        }
    }

    /// Client: removes a link.
    pub fn remove_link(&mut self, id: PeerId, link: LinkId, now: Time) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.peer.remove_link(link, now);
        }
        self.watch(id, now);
    }

    /// Bytes on the line that each link of a peer has sent and received, with IP and UDP headers.
    pub fn link_bytes(&self, id: PeerId) -> Vec<(LinkId, u64, u64)> {
        self.entries.get(id).map(|entry| entry.peer.link_bytes()).unwrap_or_default()
    }

    /// Says goodbye to all peers: transmit what [`Endpoint::poll_transmit`] gives then.
    pub fn close(&mut self, now: Time) {
        for id in self.entries.ids() {
            self.close_peer(id, now);
        }
    }

    /// Says goodbye to one peer, which is to be removed then.
    pub fn close_peer(&mut self, id: PeerId, now: Time) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let links: Vec<_> = entry.peer.sender.links.iter().map(|l| l.id).collect();
        for link in links {
            entry.peer.sender.push_frame(link, &Frame::Close, now);
        }
    }

    /// An empty packet, for [`Endpoint::enqueue`].
    pub fn buffer(&mut self) -> Packet {
        self.pool.take()
    }

    /// Takes back a packet that was not used.
    pub fn recycle(&mut self, packet: Packet) {
        self.pool.put(packet);
    }

    /// Takes an inner packet, which goes to the peer that its destination belongs to.
    pub fn enqueue(&mut self, packet: Packet, now: Time) {
        let peer = ip::destination(&packet).and_then(|destination| self.routing.lookup(destination));
        let pinned = peer.and_then(|peer| self.pinned(peer, &packet, now));
        let entry = peer.and_then(|peer| self.entries.get_mut(peer));
        let Some(entry) = entry else {
            self.count("inner packet for nobody");
            self.pool.put(packet);
            return;
        };
        // The peer gets our buffer and we take one of its own in exchange.
        self.pool.put(entry.peer.sender.buffer());
        let taken = match pinned {
            None => entry.peer.sender.enqueue(packet, now),
            Some(link) => entry.peer.sender.enqueue_on(Via::Only(link), packet, false, now),
        };
        if !taken {
            self.count("inner packet malformed");
        }
    }

    /// Takes an inner packet, or an Ethernet frame (see [`Payload`]), that is to go to `peer` over `link`, and over
    /// another only while that is not in use.
    pub fn enqueue_on(&mut self, peer: PeerId, link: LinkId, packet: Packet, now: Time) {
        let Some(entry) = self.entries.get_mut(peer) else {
            self.count("inner packet for nobody");
            self.pool.put(packet);
            return;
        };
        self.pool.put(entry.peer.sender.buffer());
        let ethernet = entry.peer.config.payload == Payload::PinnedEthernet;
        if !entry.peer.sender.enqueue_on(Via::First(link), packet, ethernet, now) {
            self.count("inner packet malformed");
        }
    }

    /// Takes datagrams that came in one read: each `stride` bytes long, the last perhaps shorter. They are opened in
    /// place.
    pub fn handle_datagrams(
        &mut self,
        path: Path,
        ecn: u8,
        data: &mut [u8],
        stride: usize,
        now: Time,
        deliver: &mut dyn FnMut(Origin, &[u8]),
    ) {
        let mut heard = None;
        for datagram in data.chunks_mut(stride.max(MIN_STRIDE)) {
            match DatagramType::of(datagram) {
                Some(DatagramType::Sealed | DatagramType::Clear) => {
                    let from = self.transport(path, ecn, datagram, now, deliver);
                    if from.is_some() && from != heard {
                        self.look_at(heard, now);
                        heard = from;
                    }
                }
                Some(DatagramType::Initiation) => self.initiation(path, datagram, now),
                Some(DatagramType::Response) => self.response(datagram, now),
                Some(DatagramType::CookieReply) => self.cookie_reply(path, datagram, now),
                None => self.count("unknown type"),
            }
        }
        self.look_at(heard, now);
    }

    /// Does for a peer what is done once for all datagrams of a read.
    fn look_at(&mut self, peer: Option<PeerId>, now: Time) {
        let Some((id, entry)) = peer.and_then(|id| Some((id, self.entries.get_mut(id)?))) else { return };
        // Not only before the next packet is sent: what waits longer for its report than others counts as lost.
        entry.peer.send_reports(now);
        self.watch(id, now);
    }

    /// The next datagrams to send; `out` is cleared and filled. Call until it gives `None`.
    pub fn poll_transmit(&mut self, now: Time, out: &mut Vec<u8>) -> Option<Transmit> {
        if let Some(transmit) = self.handshakes.poll_transmit(out) {
            return Some(transmit);
        }
        self.entries.ask(|peer| {
            peer.send_reports(now);
            peer.sender.poll_transmit(now, out)
        })
    }

    /// When [`Endpoint::handle_timeout`] and [`Endpoint::poll_transmit`] are to be called at the latest.
    pub fn poll_timeout(&self) -> Option<Time> {
        earliest(&[self.entries.poll_timeout(), self.handshakes.poll_timeout()])
    }

    /// Does what time asks for.
    pub fn handle_timeout(&mut self, now: Time, deliver: &mut dyn FnMut(Origin, &[u8])) {
        let mut events = Vec::new();
        let mut due = std::mem::take(&mut self.due);
        self.entries.take_due(now, &mut due);
        for id in &due {
            if let Some(entry) = self.entries.get_mut(*id) {
                entry.peer.tick(now, deliver, &mut events);
            }
        }
        self.expire_sessions(&due, now);
        self.due = due;
        events.into_iter().for_each(|event| self.push_event(event));
        self.call_peers(now);
    }

    /// What happened.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What is known of everything.
    pub fn status(&self, now: Time) -> EndpointStatus {
        let mut drops = self.drops.clone();
        let spoofed: u64 = self.entries.values().map(|e| e.peer.spoofed()).sum();
        let malformed: u64 = self.entries.values().map(|e| e.peer.receiver.malformed).sum();
        let above: u64 = self.entries.values().map(|e| e.peer.above_limit()).sum();
        let counts = [
            ("inner source not allowed", spoofed),
            ("inside malformed", malformed),
            ("above the peer's limit", above),
        ];
        for (reason, count) in counts {
            if count > 0 {
                drops.insert(reason, count);
            }
        }
        EndpointStatus {
            public_key: self.handshakes.public_key().to_string(),
            drops,
            peers: self.entries.values().map(|entry| entry.peer.status(now)).collect(),
        }
    }

    /// The links of a peer.
    pub fn links(&self, peer: PeerId) -> impl Iterator<Item = LinkUse> + '_ {
        let peer = self.entries.get(peer).map(|entry| &entry.peer);
        peer.into_iter().flat_map(|peer| {
            peer.sender.links.iter().map(|link| LinkUse {
                id: link.id,
                priority: link.settings.priority,
                carries: peer.is_up() && link.state() == LinkState::Up,
            })
        })
    }

    fn transport(
        &mut self,
        path: Path,
        ecn: u8,
        datagram: &mut [u8],
        now: Time,
        deliver: &mut dyn FnMut(Origin, &[u8]),
    ) -> Option<PeerId> {
        let line_bytes = datagram.len() + path.header_bytes();
        let index = TransportHeader::read(datagram).map(|header| header.index);
        let peer = index.and_then(|index| self.indices.get(&index)).copied();
        let Some((id, entry)) = peer.and_then(|id| self.entries.get_mut(id).map(|entry| (id, entry))) else {
            self.count("unknown session");
            return None;
        };
        let opened = match entry.peer.receiver.opener.open(datagram, now) {
            Ok(opened) => opened,
            Err(error) => {
                self.count(open_error(error));
                return None;
            }
        };
        if let Some(lineage) = opened.confirmed {
            // The client has the new keys: from here on we send under them.
            entry.peer.sender.sealer.confirm(opened.epoch);
            entry.peer.adopted(lineage, now);
            if let Some(settings) = entry.staged.take(opened.epoch) {
                entry.peer.asked_for(&settings, now);
            }
            entry.peer.renewal.confirmed();
        }
        let random = &mut self.random;
        let mut token = || {
            let mut token = [0; 8];
            random(&mut token);
            token
        };
        let opened = Opened {
            link: opened.link.get(),
            number: opened.packet_number,
            line_bytes,
            marked: ecn == CE,
            clear: opened.seal == Seal::Clear,
            plain: opened.text,
        };
        match entry.peer.receive(&opened, path, &mut token, now, deliver) {
            Some(Wish::Close) => self.close_session(id, now),
            Some(Wish::Renew) => self.renew(id, now),
            None => {}
        }
        Some(id)
    }

    /// Tells what has changed at a peer.
    fn watch(&mut self, id: PeerId, now: Time) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let mut events = Vec::new();
        entry.peer.watch(now, &mut events);
        events.into_iter().for_each(|event| self.push_event(event));
    }

    fn count(&mut self, reason: &'static str) {
        *self.drops.get_or_insert_with(reason, || 0) += 1;
    }

    fn push_event(&mut self, event: Event) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn token(&mut self) -> [u8; 8] {
        let mut token = [0; 8];
        (self.random)(&mut token);
        token
    }
}

fn open_error(error: OpenError) -> &'static str {
    match error {
        OpenError::Malformed => "transport packet malformed",
        OpenError::UnknownSession => "unknown session",
        OpenError::Replay(_) => "replayed",
        OpenError::Forged => "not authentic",
        OpenError::ClearRefused => "clear packet refused",
    }
}
