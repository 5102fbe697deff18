//! One peer: its two halves, its links and what is known of it.

mod config;
mod event;
mod status;

use std::time::Duration;

use super::announcement::{Announcer, Listener};
use super::class::Class;
use super::limit::Policer;
use super::link::{Link, LinkState};
use super::receiver::{Opened, Receiver};
use super::renewal::Renewal;
use super::resequencer::Patience;
use super::sender::Sender;
use super::session::Lineage;
use super::time::earliest;
use super::wire::{Frame, Hello};
use super::{LinkId, Origin, Path, PeerId, Policy, Time, ethernet};

pub use self::config::{Handling, LinkConfig, Payload, PeerConfig, Timing};
pub use self::event::Event;

use self::config::{kilobits, settings_of};

/// The tunnel's MTU is never less: IPv6 needs it (RFC 8200). Longer packets than a link carries are split.
const MIN_TUNNEL_MTU: usize = 1280;
/// Changes of a client's links that a server tells its user within a time; further ones wait for the next. An honest
/// client stays far below; another must not fill the log and run the scripts without end.
const MAX_TOLD: usize = 128;
const TOLD_SPAN: Duration = Duration::from_secs(10);
/// So many sessions of a client that each replace the one before, within this time, are more than a router makes that is
/// started again and again; two that have the same key take turns every second or so.
const CONTESTED: u8 = 10;
const CONTESTED_SPAN: Duration = Duration::from_secs(60);
/// Links that join a new session count as carrying traffic for so long, if those of the old one did.
const REJOIN_GRACE: Duration = Duration::from_secs(1);

/// What a packet asks of the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The session is over.
    Close,
    /// A handshake.
    Renew,
}

/// The session-independent part of a peer.
pub struct Peer {
    /// Its name in the endpoint.
    pub id: PeerId,
    /// Its settings.
    pub config: PeerConfig,
    /// The sending half.
    pub sender: Sender,
    /// The receiving half.
    pub receiver: Receiver,
    /// Handshakes that renewed keys.
    pub rekeys: u64,
    announcer: Announcer,
    listener: Listener,
    /// Server: how the client learns that our settings have changed.
    pub renewal: Renewal,
    keepalive: Duration,
    up: bool,
    since: Time,
    /// Since when no link has carried anything, although there is a session.
    stalled: Option<Time>,
    tunnel_mtu: u16,
    /// Policy that the peer asked for.
    asked: Policy,
    /// And how it wants its packets to be treated.
    asked_handling: Handling,
    /// What the other end carries, if that is not what we do.
    differs: Option<Payload>,
    /// That is yet to be told.
    complains: bool,
    /// Since when changes are counted, and how many were told.
    told: (Time, usize),
    /// Server: since when new sessions are counted, and how many there were.
    sessions: (Time, u8),
    /// The most that the other end wants to take from us, in bits a second.
    allowance: Option<u64>,
    gate: Gate,
}

impl Peer {
    /// A peer without session. `seed` keys the hash of its flows.
    pub fn new(id: PeerId, config: PeerConfig, timing: Timing, seed: u64, now: Time) -> Self {
        let mut sender = Sender::new(config.policy.unwrap_or_default(), timing.lifetimes, seed);
        sender.handling = config.handling.unwrap_or_default();
        let mut peer = Peer {
            id,
            sender,
            receiver: Receiver::new(timing.lifetimes),
            config,
            rekeys: 0,
            announcer: Announcer::default(),
            listener: Listener::default(),
            renewal: Renewal::default(),
            keepalive: timing.keepalive,
            up: false,
            since: now,
            stalled: None,
            tunnel_mtu: 0,
            asked: Policy::default(),
            asked_handling: Handling::default(),
            differs: None,
            complains: false,
            told: (now, 0),
            sessions: (now, 0),
            allowance: None,
            gate: Gate::default(),
        };
        peer.set_limits(now);
        peer
    }

    /// Takes new settings; the key stays.
    pub fn configure(&mut self, config: PeerConfig, now: Time) {
        self.config = config;
        self.set_limits(now);
        self.sender.scheduler.set_policy(self.config.policy.unwrap_or(self.asked));
        self.sender.handling = self.config.handling.unwrap_or(self.asked_handling);
    }

    fn set_limits(&mut self, now: Time) {
        let most = [self.config.upload, self.allowance].into_iter().flatten().min();
        self.sender.set_limit(most.map(|bits| bits / 8), now);
        match (self.config.download, &mut self.gate.policer) {
            (None, policer) => *policer = None,
            (Some(bits), Some(policer)) => policer.set_rate(bits),
            (Some(bits), policer) => *policer = Some(Policer::new(bits, now)),
        }
    }

    /// What the other end asks for in its handshake: the client's policy counts where ours is not set.
    pub fn asked_for(&mut self, settings: &[u8], now: Time) {
        let policy = settings.first().and_then(|code| Policy::from_code(*code));
        if let Some(policy) = policy.filter(|_| !self.config.initiator) {
            self.asked = policy;
            self.sender.scheduler.set_policy(self.config.policy.unwrap_or(policy));
        }
        if !self.config.initiator {
            self.asked_handling =
                settings.get(2).map_or(Handling::default(), |code| Handling::from_code(*code));
            self.sender.handling = self.config.handling.unwrap_or(self.asked_handling);
        }
        let payload = settings.get(1).map_or(Some(Payload::Bonded), |code| Payload::from_code(*code));
        self.differs = payload.filter(|payload| *payload != self.config.payload);
        self.complains = self.differs.is_some();
        let kbit =
            settings.get(3..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b));
        self.allowance = (kbit > 0).then_some(u64::from(kbit) * 1_000);
        self.set_limits(now);
    }

    /// The most that the other end wants to take from us, in bits a second.
    #[cfg(test)]
    pub fn allowance(&self) -> Option<u64> {
        self.allowance
    }

    /// Why no data may pass, although the session stands.
    fn disagreement(&self) -> Option<String> {
        let (ours, theirs) = (self.config.payload.name(), self.differs?.name());
        Some(format!("this end has {ours} and the other end {theirs}: set both alike"))
    }

    /// What we ask for.
    pub fn settings(&self) -> Vec<u8> {
        let sender = &self.sender;
        let codes = [sender.scheduler.policy().code(), self.config.payload.code(), sender.handling.code()];
        codes.into_iter().chain(kilobits(self.config.download).to_be_bytes()).collect()
    }

    /// Client: replaces the classes of traffic, here and at the server.
    pub fn set_classes(&mut self, classes: &[Class], now: Time) {
        self.sender.classes.set(classes, false);
        self.announcer.set(classes, now);
    }

    /// Client: adds a link or changes what changed in it. `token` is fresh randomness.
    pub fn set_link(&mut self, config: LinkConfig, token: [u8; 8], now: Time) {
        let (settings, hello) = (config.settings(self.keepalive), config.hello());
        let has_session = self.sender.has_session();
        if self.sender.link(config.id).is_none() {
            let link = Link::new(config.id, settings.clone(), Some(hello.clone()), now);
            self.sender.add_link(link);
        }
        let Some(link) = self.sender.link(config.id) else { return };
        let was = (link.path, link.settings.enabled);
        let left = was.1 && !config.enabled;
        link.configure(settings, Some(hello), now);
        if was != (config.path, config.enabled) || !has_session {
            if has_session {
                link.join(config.path, token, now);
            } else {
                link.path = config.path;
            }
        }
        if left {
            self.leave(config.id, now);
        }
    }

    /// Client: takes a link out of the session.
    pub fn remove_link(&mut self, id: LinkId, now: Time) {
        self.sender.remove_link(id);
        self.leave(id, now);
    }

    /// New keys are in use.
    pub fn adopted(&mut self, lineage: Lineage, now: Time) {
        if lineage.is_new() {
            self.sender.restart(now);
            self.receiver.restart();
            self.announcer.restart(now);
            if !self.config.initiator {
                if now.since(self.sessions.0) >= CONTESTED_SPAN {
                    self.sessions = (now, 0);
                }
                self.sessions.1 = self.sessions.1.saturating_add(1);
                self.sender.links.clear();
                self.listener = Listener::default();
                self.sender.classes.set(&[], true);
            }
        } else {
            self.rekeys += 1;
            self.sender.links.iter_mut().for_each(|link| link.session_resumed(now));
        }
    }

    /// Takes a packet that was opened and is new. `token` gives fresh randomness.
    pub fn receive(
        &mut self,
        opened: &Opened<'_>,
        path: Path,
        token: &mut dyn FnMut() -> [u8; 8],
        now: Time,
        deliver: &mut dyn FnMut(Origin, &[u8]),
    ) -> Option<Wish> {
        let origin = Origin { peer: self.id, link: Some(opened.link) };
        let (gate, config, agreed) = (&mut self.gate, &self.config, self.differs.is_none());
        let (sender, keepalive) = (&mut self.sender, self.keepalive);
        let (announcer, listener) = (&mut self.announcer, &mut self.listener);
        let mut wish = None;
        let server = !self.config.initiator;
        if let Some(link) = sender.link(opened.link) {
            link.heard_from(path, token, now);
        }
        let mut deliver = |packet: &[u8]| {
            if agreed && gate.admits(packet, config, now) {
                deliver(origin, packet);
            }
        };
        let mut on_frame = |frame: Frame<'_>| match &frame {
            Frame::Close => wish = Some(Wish::Close),
            Frame::Renew if !server => wish = wish.or(Some(Wish::Renew)),
            Frame::Hello(hello) if server => {
                let known = sender.link(opened.link).is_some();
                hello_from_client(sender, opened.link, hello, keepalive, now);
                if let Some(link) = sender.link(opened.link).filter(|_| !known) {
                    link.heard_from(path, &mut *token, now);
                }
            }
            Frame::Classes { generation, total, first, classes } if server => {
                if let Some((held, complete)) = listener.take(*generation, *total, *first, classes) {
                    if let Some(classes) = complete {
                        sender.classes.set(&classes, true);
                    }
                    let reply = Frame::ClassesReply { generation: *generation, held };
                    sender.push_frame(opened.link, &reply, now);
                }
            }
            Frame::ClassesReply { generation, held } if !server => {
                announcer.answered(*generation, *held, now)
            }
            // The links are the client's: it joins them and takes them out.
            Frame::Goodbye { .. } if !server => {}
            frame => sender.handle_frame(opened.link, path, frame, now),
        };
        self.receiver.receive(opened, now, &mut deliver, &mut on_frame);
        for reply in self.receiver.take_replies() {
            self.sender.push_frame(opened.link, &reply, now);
        }
        wish
    }

    /// Does what time asks for; tells what changed.
    pub fn tick(&mut self, now: Time, deliver: &mut dyn FnMut(Origin, &[u8]), events: &mut Vec<Event>) {
        let origin = Origin { peer: self.id, link: None };
        let (gate, config, agreed) = (&mut self.gate, &self.config, self.differs.is_none());
        self.receiver.handle_timeout(now, &mut |packet| {
            if agreed && gate.admits(packet, config, now) {
                deliver(origin, packet);
            }
        });
        for reply in self.receiver.take_replies() {
            // Only trains are answered by time.
            let Frame::TrainReply { link, .. } = reply else { continue };
            self.sender.push_frame(link, &reply, now);
        }
        self.sender.handle_timeout(now);
        self.send_reports(now);
        self.announce(now);
        self.ask_for_handshake(now);
        self.watch(now, events);
    }

    /// The link that carries announcements, while one does.
    fn announces_over(&self) -> Option<LinkId> {
        self.usable_link().filter(|_| self.config.initiator && self.up)
    }

    /// Client: tells the server of classes that it does not have.
    fn announce(&mut self, now: Time) {
        if let Some(link) = self.announces_over()
            && let Some(frame) = self.announcer.poll(now)
        {
            self.sender.push_frame(link, &frame, now);
        }
    }

    /// Server: asks the client for a handshake, if it is to be told something.
    fn ask_for_handshake(&mut self, now: Time) {
        if let Some(link) = self.usable_link()
            && self.renewal.poll(now)
        {
            self.sender.push_frame(link, &Frame::Renew, now);
        }
    }

    fn usable_link(&self) -> Option<LinkId> {
        self.sender.links.iter().find(|link| link.is_usable()).map(|link| link.id)
    }

    /// Hands reports that are due to the sending half.
    pub fn send_reports(&mut self, now: Time) {
        let sender = &mut self.sender;
        self.receiver.poll_reports(now, |report, hole| {
            sender.push_report(report, hole, now);
            if let Some(link) = sender.link(report.link) {
                link.probe_with_report(now);
            }
        });
    }

    /// When [`Peer::tick`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Time> {
        let announcement = self.announcer.poll_timeout().filter(|_| self.announces_over().is_some());
        let renewal = self.renewal.poll_timeout().filter(|_| self.usable_link().is_some());
        earliest(&[self.sender.poll_timeout(), self.receiver.poll_timeout(), announcement, renewal])
    }

    /// At least one link carries traffic.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// Since when no link has carried anything, although there is a session: the other end may have lost it.
    pub fn stalled(&self) -> Option<Time> {
        self.stalled
    }

    /// Looks for changes that the driver is to know, and adapts what depends on all links.
    pub fn watch(&mut self, now: Time, events: &mut Vec<Event>) {
        if now.since(self.told.0) >= TOLD_SPAN {
            self.told = (now, 0);
        }
        let before = events.len();
        let tells = self.config.initiator || self.told.1 < MAX_TOLD;
        let mut rtts: Option<(Duration, Duration)> = None;
        for link in &mut self.sender.links {
            if tells && link.has_changes() {
                let (id, name) = (link.id, link.settings.name.clone());
                for (state, reason) in link.take_changes() {
                    let (peer, reason) = (self.id, reason.to_owned());
                    events.push(Event::LinkState { peer, link: id, name: name.clone(), state, reason });
                }
            }
            if let Some(rtt) = link.rtt.smallest().filter(|_| link.is_usable()) {
                self.receiver.set_round_trip(link.id, rtt);
                rtts = Some(rtts.map_or((rtt, rtt), |(low, high)| (low.min(rtt), high.max(rtt))));
            }
        }
        if let Some((low, high)) = rtts {
            self.receiver.set_patience(Patience::between(low, high));
        }
        if std::mem::take(&mut self.complains)
            && let Some(reason) = self.disagreement()
        {
            events.push(Event::HandshakeFailed { peer: Some(self.id), reason });
        }
        if (CONTESTED..u8::MAX).contains(&self.sessions.1) {
            // Told once in the span.
            self.sessions.1 = u8::MAX;
            let reason = "its session is replaced again and again: have two routers the same key?".into();
            events.push(Event::HandshakeFailed { peer: Some(self.id), reason });
        }
        let session = self.sender.has_session();
        let links = &self.sender.links;
        let hopeful = session && links.iter().any(|l| l.settings.enabled && l.path.is_some());
        let stalled = hopeful && !links.iter().any(Link::is_usable);
        self.stalled = stalled.then_some(self.stalled.unwrap_or(now));
        // Links that join a session which follows a lost one are about to carry what the lost one did.
        let was_up = self.up;
        let alive = |l: &Link| match l.state() {
            LinkState::Up | LinkState::Suspect => true,
            LinkState::Joining => was_up && now.since(l.since()) < REJOIN_GRACE,
            LinkState::Disabled | LinkState::Down => false,
        };
        let up = session && self.differs.is_none() && self.sender.links.iter().any(alive);
        if up != self.up && tells {
            self.up = up;
            self.since = now;
            events.push(if up {
                Event::PeerUp { peer: self.id }
            } else {
                let down = self.sender.links.iter().find(|l| l.state() == LinkState::Down);
                let reason = down.map_or("no link is in use", |l| l.reason()).to_owned();
                let reason = self.disagreement().unwrap_or(reason);
                Event::PeerDown { peer: self.id, reason }
            });
        }
        self.told.1 += events.len() - before;
        let header = match self.config.payload {
            Payload::Bonded | Payload::PinnedIp => 0,
            Payload::PinnedEthernet => ethernet::HEADER,
        };
        let mtu = self.sender.room().saturating_sub(header).clamp(MIN_TUNNEL_MTU, 1_500) as u16;
        if up && mtu != self.tunnel_mtu {
            self.tunnel_mtu = mtu;
            events.push(Event::TunnelMtu { peer: self.id, mtu });
        }
    }

    fn leave(&mut self, link: LinkId, now: Time) {
        if self.sender.has_session() {
            self.sender.push_frame(link, &Frame::Goodbye { link }, now);
        }
    }
}

/// What a packet of the other end has to pass before it leaves the bond.
#[derive(Default)]
struct Gate {
    /// Holds the other end to what it may send.
    policer: Option<Policer>,
    spoofed: u64,
}

impl Gate {
    fn admits(&mut self, packet: &[u8], config: &PeerConfig, now: Time) -> bool {
        if !config.payload.is_allowed(packet, &config.allowed) {
            self.spoofed += 1;
            return false;
        }
        self.policer.as_mut().is_none_or(|policer| policer.admits(packet.len(), now))
    }
}

/// Server: adds a link that the client has, or changes what changed in it.
fn hello_from_client(sender: &mut Sender, id: LinkId, hello: &Hello, keepalive: Duration, now: Time) {
    let settings = settings_of(hello, keepalive);
    match sender.link(id) {
        Some(link) => link.configure(settings, None, now),
        None => sender.add_link(Link::new(id, settings, None, now)),
    }
}
