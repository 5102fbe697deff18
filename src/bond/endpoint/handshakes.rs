//! When peers are called, and what becomes of handshake messages.

use std::collections::VecDeque;
use std::time::Duration;

use crate::cipher::{CipherOffer, CipherPolicy};
use crate::handshake::{Established, HandshakeError, Initiation, Initiator, PeerRecord, Received, Responder};
use crate::header::LinkId;
use crate::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::load::{DEFAULT_LOAD_THRESHOLD, HandshakeLoad};
use crate::logical_clock::LogicalClock;
use crate::peer::{Event, Peer, PeerConfig};
use crate::session::Lifetimes;
use crate::sorted::SortedMap;
use crate::wire::Frame;
use crate::{LinkState, Path, PeerId, Time, Transmit};

use super::{Endpoint, EndpointConfig};

/// The pause after the first unanswered call; each further one is half as long again.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// A session without a working link for so long may be lost at the other end, which then needs a new one; if it is not,
/// its keys are renewed and nothing else happens.
const LOST_AFTER: Duration = Duration::from_millis(250);
/// However often a server asks for handshakes, there is so much time between them.
const RENEW_PAUSE: Duration = Duration::from_secs(1);
/// Handshake messages waiting to be sent at the most.
const MAX_OUT: usize = 128;
/// Keys live at least so long without being renewed.
const LEAST_REJECT: Duration = Duration::from_secs(180);
/// Settings of epochs that are not confirmed yet, per peer.
const MAX_STAGED: usize = 4;

/// The handshakes of all peers.
pub(super) struct Handshakes {
    private_key: PrivateKey,
    offer: CipherOffer,
    responder: Responder,
    lifetimes: Lifetimes,
    pub(super) clock: LogicalClock,
    known: SortedMap<[u8; 32], PeerId>,
    records: SortedMap<PeerId, PeerRecord>,
    /// Who may introduce itself, by the numbers that the daemon has given.
    invitations: SortedMap<u32, PresharedKey>,
    calls: SortedMap<PeerId, Call>,
    out: VecDeque<(Path, Vec<u8>)>,
}

struct Call {
    initiator: Initiator,
    next: Option<Time>,
    retry: Duration,
    /// Calls since the last answer.
    tries: usize,
}

/// The settings that came with epochs which are not confirmed yet.
#[derive(Default)]
pub(super) struct StagedSettings(VecDeque<(u32, Vec<u8>)>);

impl StagedSettings {
    fn push(&mut self, epoch: u32, settings: Vec<u8>) {
        if self.0.len() >= MAX_STAGED {
            self.0.pop_front();
        }
        self.0.push_back((epoch, settings));
    }

    /// The settings of the epoch that has been confirmed; the others are forgotten.
    pub(super) fn take(&mut self, epoch: u32) -> Option<Vec<u8>> {
        let at = self.0.iter().position(|(name, _)| *name == epoch)?;
        let settings = self.0.swap_remove_back(at).map(|(_, settings)| settings);
        self.0.clear();
        settings
    }
}

impl Handshakes {
    pub(super) fn new(config: EndpointConfig, logical_clock_ms: u64, now: Time) -> Self {
        let load = HandshakeLoad::new(DEFAULT_LOAD_THRESHOLD);
        let interval = config.rekey_interval;
        Handshakes {
            responder: Responder::new(config.private_key.clone(), config.aes_hardware, load),
            offer: CipherOffer { policy: config.cipher, aes_instructions: config.aes_hardware },
            private_key: config.private_key,
            lifetimes: Lifetimes {
                rekey_after: interval,
                reject_after: LEAST_REJECT.max(interval + interval / 2),
                ..Lifetimes::default()
            },
            clock: LogicalClock::new(None, Duration::from_millis(logical_clock_ms), now),
            known: SortedMap::new(),
            records: SortedMap::new(),
            invitations: SortedMap::new(),
            calls: SortedMap::new(),
            out: VecDeque::new(),
        }
    }

    pub(super) fn public_key(&self) -> &PublicKey {
        self.responder.public_key()
    }

    pub(super) fn lifetimes(&self) -> Lifetimes {
        self.lifetimes
    }

    pub(super) fn add(&mut self, id: PeerId, config: &PeerConfig) {
        let psk = psk(config);
        if config.initiator {
            let key = self.private_key.clone();
            let initiator = Initiator::new(key, config.public_key, psk, self.offer);
            self.calls.insert(id, Call { initiator, next: None, retry: FIRST_RETRY, tries: 0 });
        } else {
            self.known.insert(*config.public_key.as_bytes(), id);
            self.records.insert(id, PeerRecord::new(psk, self.offer.policy));
        }
    }

    pub(super) fn update(&mut self, id: PeerId, config: &PeerConfig) {
        let policy: CipherPolicy = self.offer.policy;
        if let Some(record) = self.records.get_mut(&id) {
            record.configure(psk(config), policy);
        }
        if let Some(call) = self.calls.get_mut(&id) {
            let key = self.private_key.clone();
            call.initiator = Initiator::new(key, config.public_key, psk(config), self.offer);
        }
    }

    pub(super) fn remove(&mut self, id: PeerId) {
        self.known.retain(|_, peer| *peer != id);
        self.records.remove(&id);
        self.calls.remove(&id);
    }

    pub(super) fn set_invitations(&mut self, invitations: SortedMap<u32, PresharedKey>) {
        self.invitations = invitations;
    }

    /// Calls a peer at the next opportunity.
    pub(super) fn call_soon(&mut self, id: PeerId, now: Time) {
        if let Some(call) = self.calls.get_mut(&id) {
            call.next = Some(call.next.map_or(now, |next| next.min(now)));
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Time> {
        if !self.out.is_empty() {
            return Some(Time::ZERO);
        }
        self.calls.values().filter_map(|call| call.next).min()
    }

    pub(super) fn poll_transmit(&mut self, out: &mut Vec<u8>) -> Option<Transmit> {
        let (path, datagram) = self.out.pop_front()?;
        out.clear();
        out.extend_from_slice(&datagram);
        Some(Transmit { path, segment_size: datagram.len(), ecn: 0 })
    }

    fn send(&mut self, path: Path, datagram: Vec<u8>) {
        if self.out.len() < MAX_OUT {
            self.out.push_back((path, datagram));
        }
    }
}

impl Endpoint {
    /// Server: somebody calls.
    pub(super) fn initiation(&mut self, path: Path, datagram: &[u8], now: Time) {
        let received = self.handshakes.responder.receive(datagram, path.remote, now, &mut *self.random);
        let initiation = match received {
            Ok(Received::Initiation(initiation)) => initiation,
            Ok(Received::Cookie(reply)) => {
                self.count("handshake without cookie under load");
                self.handshakes.send(path, reply.to_vec());
                return;
            }
            Err(error) => return self.handshake_dropped(error),
        };
        let Some(&id) = self.handshakes.known.get(initiation.peer().as_bytes()) else {
            return self.introduction(&initiation);
        };
        let local_index = self.free_index();
        let (Some(record), Some(entry)) = (self.handshakes.records.get_mut(&id), self.entries.get_mut(id))
        else {
            return;
        };
        let resumable = entry.peer.sender.sealer.lineage();
        let settings = entry.peer.settings();
        match initiation.accept(record, local_index, resumable, &settings) {
            Ok(answer) => {
                entry.peer.renewal.answered();
                self.handshakes.send(path, answer.response);
                match answer.result {
                    Ok(established) => self.stage(id, established, now),
                    Err(refusal) => {
                        self.count("handshake refused");
                        self.push_event(Event::HandshakeFailed {
                            peer: Some(id),
                            reason: refusal.to_string(),
                        });
                    }
                }
            }
            Err(error) => self.handshake_dropped(error),
        }
    }

    /// Server: somebody calls whose key is not known. Who proves an invitation's secret has its key told to the daemon,
    /// once; nobody is answered. When the daemon has made the key a peer's, the next call is answered.
    fn introduction(&mut self, initiation: &Initiation) {
        let mut invited = self.handshakes.invitations.iter();
        let Some(invitation) =
            invited.find(|(_, secret)| initiation.proves(secret)).map(|(number, _)| *number)
        else {
            return self.count("handshake from an unknown key");
        };
        self.handshakes.invitations.remove(&invitation);
        self.push_event(Event::Introduced { invitation, public_key: *initiation.peer() });
    }

    /// Client: the server answers.
    pub(super) fn response(&mut self, datagram: &[u8], now: Time) {
        let mut result = Err(HandshakeError::NotAwaited);
        let mut caller = None;
        for (id, call) in &mut self.handshakes.calls {
            result = call.initiator.handle_response(datagram);
            caller = Some(*id);
            if !matches!(result, Err(HandshakeError::NotAwaited)) {
                break;
            }
        }
        match (result, caller) {
            (Ok(established), Some(id)) => self.install(id, established, now),
            (Err(HandshakeError::Refused(refusal)), peer) => {
                self.count("handshake refused");
                self.push_event(Event::HandshakeFailed { peer, reason: refusal.to_string() });
                if let Some(call) = peer.and_then(|id| self.handshakes.calls.get_mut(&id)) {
                    call.retry = LAST_RETRY;
                    call.next = Some(now + LAST_RETRY);
                }
            }
            (Err(error), _) => self.handshake_dropped(error),
            (Ok(_), None) => {}
        }
    }

    /// Client: the server is busy and wants to see our cookie.
    pub(super) fn cookie_reply(&mut self, path: Path, datagram: &[u8], now: Time) {
        for (id, call) in &mut self.handshakes.calls {
            let Some(entry) = self.entries.get(*id) else { continue };
            let link = entry.peer.sender.links.iter().find(|l| l.path == Some(path));
            let Some(link) = link.and_then(|link| LinkId::new(link.id)) else { continue };
            if call.initiator.handle_cookie(link, datagram, now).is_ok() {
                let again = call.initiator.datagram(link, now);
                if let Some(datagram) = again {
                    self.handshakes.send(path, datagram);
                }
                return;
            }
        }
        self.count("cookie reply not awaited");
    }

    /// Calls the peers whose time it is.
    pub(super) fn call_peers(&mut self, now: Time) {
        let due: Vec<PeerId> = self
            .handshakes
            .calls
            .iter()
            .filter(|(_, call)| call.next.is_some_and(|next| next <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.call(id, now);
        }
    }

    /// Ends sessions whose keys have expired, and calls peers that seem to have lost theirs.
    pub(super) fn expire_sessions(&mut self, due: &[PeerId], now: Time) {
        for id in due {
            let Some(entry) = self.entries.get_mut(*id) else { continue };
            let peer = &mut entry.peer;
            if peer.receiver.opener.next_expiry().is_some_and(|at| at <= now) {
                peer.receiver.opener.expire(now);
                forget_ended(&mut self.indices, peer);
            }
            if peer.sender.has_session() {
                peer.sender.sealer.expire(now);
                if !peer.sender.has_session() {
                    peer.sender.links.iter_mut().for_each(|link| link.session_lost(now));
                }
            }
            let Some(call) = self.handshakes.calls.get_mut(id) else { continue };
            let established = peer.sender.sealer.established();
            let quiet = established.is_none_or(|at| now.since(at) >= LOST_AFTER);
            let hopeless = peer.stalled().is_some_and(|since| now.since(since) >= LOST_AFTER);
            if hopeless && quiet && !call.initiator.is_pending() {
                call.next = Some(call.next.map_or(now, |next| next.min(now + call.retry)));
            }
            // Before a key that has protected very many packets grows old, it is used up.
            let worn = peer.sender.sealer.wants_rekey(now) || peer.receiver.opener.wants_rekey();
            if worn && call.next.is_some() && call.next == peer.sender.sealer.rekey_time() {
                call.next = Some(now);
            }
        }
    }

    /// The other end has ended the session. It may have been an earlier run of it: what it ends is the session under
    /// whose keys it said so, not the handshake of the next run.
    pub(super) fn close_session(&mut self, id: PeerId, now: Time) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.peer.sender.sealer.close();
        entry.peer.receiver.opener.close();
        for link in &mut entry.peer.sender.links {
            link.session_lost(now);
        }
        forget_ended(&mut self.indices, &entry.peer);
        if let Some(call) = self.handshakes.calls.get_mut(&id) {
            call.initiator.cancel();
            call.retry = FIRST_RETRY;
            call.next = Some(now + FIRST_RETRY);
        }
    }

    /// Client: the server has something to tell in a handshake.
    pub(super) fn renew(&mut self, id: PeerId, now: Time) {
        let (Some(entry), Some(call)) = (self.entries.get(id), self.handshakes.calls.get(&id)) else {
            return;
        };
        if let Some(established) = entry.peer.sender.sealer.established()
            && !call.initiator.is_pending()
        {
            self.handshakes.call_soon(id, now.max(established + RENEW_PAUSE));
        }
    }

    fn call(&mut self, id: PeerId, now: Time) {
        let local_index = self.free_index();
        let timestamp = self.handshakes.clock.stamp(now);
        let (Some(call), Some(entry)) = (self.handshakes.calls.get_mut(&id), self.entries.get(id)) else {
            return;
        };
        let mut jitter = [0; 2];
        (self.random)(&mut jitter);
        let jitter = Duration::from_micros(u64::from(u16::from_ne_bytes(jitter)));
        call.next = Some(now + call.retry + jitter);
        call.retry = (call.retry * 3 / 2).min(LAST_RETRY);
        let lineage = entry.peer.sender.sealer.lineage();
        let settings = entry.peer.settings();
        let begun = call.initiator.initiate(local_index, timestamp, lineage, &settings, &mut *self.random);
        if let Err(error) = begun {
            return self.handshake_dropped(error);
        }
        let mut datagrams = Vec::new();
        for link in &entry.peer.sender.links {
            let (Some(path), Some(number)) = (link.path, LinkId::new(link.id)) else { continue };
            if link.settings.enabled {
                datagrams.extend(call.initiator.datagram(number, now).map(|datagram| (path, datagram)));
            }
        }
        // Only the first copy is answered, over its own link: a quick link that works in one direction only must not
        // keep the others from being answered for ever.
        if call.tries % 2 == 1 && datagrams.len() > 1 {
            let alone = datagrams.swap_remove(call.tries / 2 % datagrams.len());
            datagrams = vec![alone];
        }
        call.tries += 1;
        if datagrams.is_empty() {
            // Without a link there is nothing to call over; a new link calls by itself.
            call.initiator.cancel();
            call.retry = FIRST_RETRY;
            call.next = None;
        }
        for (path, datagram) in datagrams {
            self.handshakes.send(path, datagram);
        }
    }

    fn stage(&mut self, id: PeerId, established: Established, now: Time) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let index = established.local_index;
        if let Some(evicted) = entry.peer.receiver.opener.stage(established.opening, now) {
            self.indices.remove(&evicted);
        }
        entry.peer.sender.sealer.stage(established.sealing, now);
        entry.staged.push(index, established.settings);
        self.indices.insert(index, id);
    }

    fn install(&mut self, id: PeerId, established: Established, now: Time) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        let peer = &mut entry.peer;
        let lineage = established.lineage;
        peer.receiver.opener.install(established.opening, now);
        peer.sender.sealer.install(established.sealing, now);
        peer.adopted(lineage, now);
        peer.asked_for(&established.settings, now);
        forget_ended(&mut self.indices, peer);
        self.indices.insert(established.local_index, id);
        if let Some(call) = self.handshakes.calls.get_mut(&id) {
            call.retry = FIRST_RETRY;
            call.tries = 0;
            call.next = peer.sender.sealer.rekey_time();
        }
        let random = &mut self.random;
        let mut token = || {
            let mut token = [0; 8];
            random(&mut token);
            token
        };
        for link in &mut peer.sender.links {
            if lineage.is_new() || !matches!(link.state(), LinkState::Up | LinkState::Suspect) {
                let path = link.path;
                link.join(path, token(), now);
            } else {
                // The first packet under the new keys tells the server that we have them.
                link.push_frame(&Frame::Ping);
            }
        }
    }

    /// A session index that names nothing yet.
    fn free_index(&mut self) -> u32 {
        loop {
            let mut bytes = [0; 4];
            (self.random)(&mut bytes);
            let index = u32::from_ne_bytes(bytes);
            let mut pending =
                self.handshakes.calls.values().flat_map(|call| call.initiator.pending_indexes());
            if !self.indices.contains_key(&index) && !pending.any(|taken| taken == index) {
                return index;
            }
        }
    }

    fn handshake_dropped(&mut self, error: HandshakeError) {
        self.count(match error {
            HandshakeError::Malformed => "handshake malformed",
            HandshakeError::WrongMac1 => "handshake for another key",
            HandshakeError::RateLimited => "handshake rate limited",
            HandshakeError::Undecryptable => "handshake undecryptable",
            HandshakeError::WrongPresharedKey => "handshake with another preshared key",
            HandshakeError::Duplicate => "handshake copy",
            HandshakeError::Replayed => "handshake replayed",
            HandshakeError::NotAwaited => "handshake not awaited",
            _ => "handshake refused",
        });
    }
}

/// Forgets the indices of a peer's sessions that have ended.
fn forget_ended(indices: &mut SortedMap<u32, PeerId>, peer: &Peer) {
    indices.retain(|index, owner| {
        *owner != peer.id || peer.receiver.opener.indexes().any(|live| live == *index)
    });
}

fn psk(config: &PeerConfig) -> PresharedKey {
    config.preshared_key.clone().unwrap_or(PresharedKey::NONE)
}
