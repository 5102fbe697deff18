//! One link as its sender sees it: is it up, how far away, and what is there to tell the other end.
//!
//! A link joins a session by an authenticated path challenge, and a new address of the other end is followed only
//! after one. It is *suspect* as soon as something that was sent should have been reported and was not, and *down*
//! when it stays silent.

mod round_trip;
mod staged;
mod trains;
mod validation;

use std::time::Duration;

use serde::Serialize;

use super::capacity::{Capacity, Context};
use super::flight::{Flight, Outgoing};
use super::meter::Meter;
use super::mtu::MtuSearch;
use super::pacer::Pacer;
use super::time::earliest;
use super::wire::{Frame, Hello, Report};
use super::{LinkId, Path, Time};
pub use round_trip::RoundTrip;
pub use staged::Staged;
use trains::Trains;

/// What a link is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LinkState {
    /// The user took it out.
    Disabled,
    /// Nothing comes through.
    Down,
    /// The other end has not answered yet.
    Joining,
    /// It carries traffic.
    Up,
    /// Something that was sent is overdue.
    Suspect,
}

/// A suspect link is down after this, or after four round trips.
const SUSPECT_LIMIT: Duration = Duration::from_millis(1_000);
/// For so long a link that was cut is expected back.
const CUT_HOPE: Duration = Duration::from_secs(6);
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// A suspect link is asked oftener at first: it may only have lost all of what it carried last, and how long a burst of
/// loss lasts may depend on how much is sent into it.
const SUSPECT_RETRY: Duration = Duration::from_millis(5);
const SUSPECT_RETRIES: Duration = Duration::from_millis(300);
const LAST_RETRY: Duration = Duration::from_millis(1_000);
/// A second address of the other end is challenged no more often than this.
const CHALLENGE_INTERVAL: Duration = Duration::from_millis(100);
/// Changes of state that wait to be told, at the most.
const MAX_CHANGES: usize = 16;
/// Frames waiting to be sent take at most so many bytes.
const MAX_FRAMES: usize = 1_024;

/// Settings of a link at the sending end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Name for people.
    pub name: String,
    /// The user has it in use.
    pub enabled: bool,
    /// Upper limit of the rate, in bytes a second on the line.
    pub limit: Option<u64>,
    /// Links with the lowest number are used first.
    pub priority: u8,
    /// Share under the policy `weighted`.
    pub weight: u32,
    /// Carries data only while no other link does.
    pub last_resort: bool,
    /// How often it is probed while it is idle.
    pub keepalive: Duration,
    /// Bound on the outer IP packet.
    pub mtu: Option<u16>,
}

/// What went over a link, with IP and UDP headers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Packets.
    pub packets: u64,
    /// Bytes on the line.
    pub bytes: u64,
    /// Packets found lost.
    pub lost: u64,
}

struct Validation {
    path: Path,
    token: [u8; 8],
    sent: Time,
}

/// One link in the sending direction.
pub struct Link {
    /// Its number.
    pub id: LinkId,
    /// Its settings.
    pub settings: Settings,
    /// What the other end is to know of it (client), `None` at the server.
    pub hello: Option<Hello>,
    /// Where to send to, once challenged with success.
    pub path: Option<Path>,
    /// Packets on their way.
    pub flight: Flight,
    /// What it can carry.
    pub capacity: Capacity,
    /// When it may send.
    pub pacer: Pacer,
    /// How far away the other end is.
    pub rtt: RoundTrip,
    /// What size of packet it carries.
    pub mtu: MtuSearch,
    /// Data that goes out as soon as the pacer lets it.
    pub staged: Staged,
    /// Counters since the link exists.
    pub sent: Counters,
    /// Rate of what was sent.
    pub meter: Meter,
    /// Share of the recent packets that were lost.
    pub loss: f64,
    state: LinkState,
    reason: &'static str,
    since: Time,
    /// When it was up last.
    silent_since: Time,
    validation: Option<Validation>,
    frames: Vec<u8>,
    direct: Vec<(Path, Vec<u8>)>,
    next_probe: Option<Time>,
    retry: Duration,
    heard: Time,
    trains: Trains,
    changes: Vec<(LinkState, &'static str)>,
    /// What was in flight when the link lost its path; the other links are to carry it.
    orphans: Vec<Outgoing>,
}

impl Link {
    /// A link that has not joined yet.
    pub fn new(id: LinkId, settings: Settings, hello: Option<Hello>, now: Time) -> Self {
        let capacity = Capacity::new(settings.limit, now);
        Link {
            id,
            pacer: Pacer::new(capacity.rate(), now),
            mtu: MtuSearch::new(settings.mtu, now),
            settings,
            hello,
            path: None,
            staged: Staged::default(),
            flight: Flight::new(),
            capacity,
            rtt: RoundTrip::new(),
            sent: Counters::default(),
            meter: Meter::default(),
            loss: 0.0,
            state: LinkState::Down,
            reason: "no session yet",
            since: now,
            silent_since: now,
            validation: None,
            frames: Vec::new(),
            direct: Vec::new(),
            next_probe: None,
            retry: FIRST_RETRY,
            heard: now,
            trains: Trains::new(now),
            changes: Vec::new(),
            orphans: Vec::new(),
        }
    }

    /// Its state.
    pub fn state(&self) -> LinkState {
        self.state
    }

    /// Why it is in that state; empty when it is up.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// Since when.
    pub fn since(&self) -> Time {
        self.since
    }

    /// Data may be sent on it.
    pub fn is_usable(&self) -> bool {
        self.state == LinkState::Up
    }

    /// It will carry more than now in a moment: its rate is still being found out, or it was cut a short time ago, and
    /// most cuts are short.
    pub fn may_carry_more(&self, now: Time) -> bool {
        match self.state {
            LinkState::Up => self.capacity.is_growing(),
            LinkState::Suspect | LinkState::Down => {
                self.capacity.is_known() && now.since(self.silent_since) < CUT_HOPE
            }
            LinkState::Disabled | LinkState::Joining => false,
        }
    }

    /// The state has changed since the last [`Link::take_changes`].
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The state changes since the last call.
    pub fn take_changes(&mut self) -> impl Iterator<Item = (LinkState, &'static str)> + '_ {
        self.changes.drain(..)
    }

    /// Changes what changed in the settings.
    pub fn configure(&mut self, settings: Settings, hello: Option<Hello>, now: Time) {
        if settings.limit != self.settings.limit {
            self.capacity.set_limit(settings.limit);
            self.pacer.set_rate(self.capacity.rate());
        }
        if settings.mtu != self.settings.mtu {
            self.mtu.set_limit(settings.mtu, now);
        }
        if hello != self.hello && hello.is_some() {
            self.hello = hello;
            self.say_hello();
            self.next_probe = Some(now);
        }
        let was_enabled = self.settings.enabled;
        self.settings = settings;
        if !self.settings.enabled && was_enabled {
            self.orphan_flight();
            self.enter(LinkState::Disabled, "taken out by the user", now);
            self.next_probe = None;
        } else if self.settings.enabled && self.hello.is_none() && self.state == LinkState::Disabled {
            // Server: the client puts it back. Its goodbye may never have come; its address is checked like a new one's.
            self.path = None;
            self.validation = None;
            self.enter(LinkState::Joining, "checking the client's address", now);
        }
    }

    /// Client: begins to join the session over `path`, or leaves it when there is none.
    pub fn join(&mut self, path: Option<Path>, token: [u8; 8], now: Time) {
        self.path = path;
        self.validation = None;
        self.orphan_flight();
        if !self.settings.enabled {
            self.enter(LinkState::Disabled, "taken out by the user", now);
            return;
        }
        let Some(path) = path else {
            self.enter(LinkState::Down, "no address or route", now);
            self.next_probe = None;
            return;
        };
        self.validation = Some(Validation { path, token, sent: now });
        self.retry = FIRST_RETRY;
        self.next_probe = Some(now);
        self.capacity.path_changed(now);
        self.mtu.restart(now);
        self.enter(LinkState::Joining, "waiting for the server", now);
    }

    /// A new session lineage: packet numbers start again. What the link carried goes to `lost`.
    pub fn restart(&mut self, lost: &mut Vec<Outgoing>, now: Time) {
        self.take_payloads(lost);
        self.flight = Flight::new();
        self.frames.clear();
        self.direct.clear();
        self.pacer = Pacer::new(self.capacity.rate(), now);
    }

    /// Learns from a report of the other end; what was lost goes to `lost`.
    pub fn report(
        &mut self,
        report: &Report<'_>,
        done: impl FnMut(Outgoing),
        lost: &mut Vec<Outgoing>,
        now: Time,
    ) {
        let Some(settled) = self.flight.report(report, done, lost) else { return };
        if let Some((sent, _)) = settled.newest_sent {
            let hold = Duration::from_nanos(u64::from(report.hold) * super::wire::TICK_NANOS);
            self.rtt.sample(now.since(sent).saturating_sub(hold), now);
        }
        self.sent.lost += settled.lost;
        let judged = settled.packets + settled.lost;
        if judged > 0 {
            let weight = (judged as f64 / 100.0).min(1.0);
            self.loss += (settled.lost as f64 / judged as f64 - self.loss) * weight;
        }
        let context = Context {
            rtt: self.rtt.smoothed_or(Duration::from_millis(100)).as_secs_f64(),
            newest: settled.newest_sent,
            loss: self.loss,
            lost: settled.lost,
        };
        if self.trains.are_on_their_way(now) {
            self.capacity.report_train(report, now);
        } else {
            self.capacity.report(report, context, now);
            self.pacer.set_rate(self.capacity.rate());
        }
        if settled.packets > 0
            && matches!(self.state, LinkState::Suspect | LinkState::Down)
            && self.path.is_some()
        {
            self.come_up(now);
        }
    }

    /// When [`Link::tick`] wants to be called.
    pub fn next_tick(&self) -> Option<Time> {
        if !self.orphans.is_empty() {
            return Some(Time::ZERO);
        }
        let (overdue, train) = match self.state {
            LinkState::Up => (self.overdue(), self.trains.next_timeout()),
            LinkState::Suspect => (Some(self.since + self.suspect_limit()), None),
            _ => (None, None),
        };
        earliest(&[overdue, train, self.next_probe])
    }

    /// Does what time asks for. The payloads that a link which has become suspect carried go to `lost`.
    pub fn tick(&mut self, lost: &mut Vec<Outgoing>, now: Time) {
        lost.append(&mut self.orphans);
        match self.state {
            LinkState::Disabled => return,
            LinkState::Up => {
                if self.overdue().is_some_and(|due| due <= now) {
                    self.enter(LinkState::Suspect, "no answer within the expected time", now);
                    self.take_payloads(lost);
                    self.retry = SUSPECT_RETRY;
                    self.next_probe = Some(now);
                } else {
                    self.watch_train(now);
                }
            }
            LinkState::Suspect if now.since(self.since) >= self.suspect_limit() => {
                self.flight.take_all(lost);
                self.enter(LinkState::Down, "the other end does not answer", now);
            }
            _ => {}
        }
        if self.next_probe.is_some_and(|due| due <= now) && self.path.is_some() {
            self.probe(now);
        }
    }

    /// Puts a frame into the next packet of this link.
    pub fn push_frame(&mut self, frame: &Frame<'_>) {
        if self.frames.len() < MAX_FRAMES {
            frame.write(&mut self.frames);
        }
    }

    /// Frames that wait.
    pub fn frames(&self) -> &[u8] {
        &self.frames
    }

    /// Takes the frames that wait.
    pub fn take_frames(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.frames)
    }

    /// The frames have been sent; keeps their memory.
    pub fn clear_frames(&mut self) {
        self.frames.clear();
    }

    /// Takes a packet of frames that must go to a certain address.
    pub fn take_direct(&mut self) -> Option<(Path, Vec<u8>)> {
        (!self.direct.is_empty()).then(|| self.direct.remove(0))
    }

    /// The frame and the size on the line of a padded probe that is due: path MTU first, then the train.
    pub fn poll_padded(&mut self, now: Time) -> Option<(Frame<'static>, usize)> {
        if !matches!(self.state, LinkState::Up | LinkState::Joining) || self.path.is_none() {
            return None;
        }
        let timeout = (self.rtt.smoothed_or(Duration::from_millis(200)) * 3).max(Duration::from_millis(300));
        if let Some(size) = self.mtu.poll(timeout, now) {
            return Some((Frame::MtuProbe { size }, usize::from(size)));
        }
        (self.state == LinkState::Up).then(|| self.trains.poll()).flatten()
    }

    /// When [`Link::poll_padded`] has something.
    pub fn next_padded(&self) -> Option<Time> {
        match self.state {
            LinkState::Up | LinkState::Joining if self.path.is_some() => Some(self.mtu.due()),
            _ => None,
        }
    }

    /// A report is about to be sent: a probe that is due soon goes with it, so that an idle link needs three packets for
    /// both ends to know that it lives, and not four.
    pub fn probe_with_report(&mut self, now: Time) {
        let soon = now + self.settings.keepalive / 2;
        if self.state == LinkState::Up && self.next_probe.is_some_and(|due| due <= soon) {
            self.push_frame(&Frame::Ping);
            self.next_probe = Some(now + self.settings.keepalive);
        }
    }

    /// A packet that asks for a report was sent.
    pub fn asked(&mut self, now: Time) {
        if matches!(self.state, LinkState::Up) {
            self.next_probe = Some(now + self.settings.keepalive);
        }
    }

    /// The other end takes the link out of the session. What it carried goes to `lost`.
    pub fn goodbye(&mut self, lost: &mut Vec<Outgoing>, now: Time) {
        self.path = None;
        self.validation = None;
        self.next_probe = None;
        self.enter(LinkState::Down, "the other end uses it no more", now);
        self.take_payloads(lost);
    }

    /// Takes all that the link carries, or is to carry next.
    pub fn take_payloads(&mut self, into: &mut Vec<Outgoing>) {
        self.flight.take_all(into);
        self.staged.take_all(into);
    }

    /// The session is gone; the link waits for the next.
    pub fn session_lost(&mut self, now: Time) {
        if self.state != LinkState::Disabled {
            self.enter(LinkState::Down, "no session with the other end", now);
            self.next_probe = None;
        }
    }

    /// The session goes on: the other end may not have noticed that it was lost here, and waits for nothing.
    pub fn session_resumed(&mut self, now: Time) {
        if self.state == LinkState::Down && self.path.is_some() {
            self.retry = FIRST_RETRY;
            self.next_probe = Some(now);
        }
    }

    /// Largest inner packet that fits into one datagram.
    pub fn room(&self) -> usize {
        let headers = self.path.map_or(48, |p| p.header_bytes());
        usize::from(self.mtu.mtu()).saturating_sub(headers + super::wire::OVERHEAD)
    }

    fn probe(&mut self, now: Time) {
        self.push_frame(&Frame::Ping);
        match self.state {
            LinkState::Up => self.next_probe = Some(now + self.settings.keepalive),
            _ => {
                if self.hello.is_some() {
                    self.say_hello();
                    if let Some(validation) = &self.validation {
                        let token = validation.token;
                        self.push_frame(&Frame::Challenge(token));
                    }
                }
                self.next_probe = Some(now + self.retry);
                if self.state != LinkState::Suspect || now.since(self.since) >= SUSPECT_RETRIES {
                    self.retry = (self.retry * 3 / 2).min(LAST_RETRY);
                }
            }
        }
        if self.state == LinkState::Joining && now.since(self.since) > Duration::from_secs(3) {
            self.enter(LinkState::Down, "the server does not answer on this link", now);
        }
    }

    fn say_hello(&mut self) {
        if let Some(hello) = self.hello.clone() {
            self.push_frame(&Frame::Hello(hello));
        }
    }

    fn come_up(&mut self, now: Time) {
        self.enter(LinkState::Up, "", now);
        self.next_probe = Some(now);
        self.retry = FIRST_RETRY;
        self.show_rate(now);
    }

    /// When the link counts as silent. A train fills the queue of a slow line, so that what comes after it is late, too.
    fn overdue(&self) -> Option<Time> {
        let overdue = self.flight.oldest_unanswered()? + self.rtt.overdue();
        Some(self.trains.next_timeout().map_or(overdue, |timeout| timeout.max(overdue)))
    }

    fn orphan_flight(&mut self) {
        let mut orphans = std::mem::take(&mut self.orphans);
        self.take_payloads(&mut orphans);
        self.orphans = orphans;
    }

    fn suspect_limit(&self) -> Duration {
        (self.rtt.smoothed_or(SUSPECT_LIMIT) * 4).max(SUSPECT_LIMIT)
    }

    fn send_direct(&mut self, path: Path, frames: Vec<u8>) {
        if self.direct.len() < 4 {
            self.direct.push((path, frames));
        }
    }

    fn enter(&mut self, state: LinkState, reason: &'static str, now: Time) {
        if self.state == state && self.reason == reason {
            return;
        }
        if self.state == LinkState::Up {
            self.silent_since = now;
        }
        if !matches!(state, LinkState::Up | LinkState::Suspect) {
            self.trains.forget();
        }
        self.state = state;
        self.reason = reason;
        self.since = now;
        if self.changes.len() >= MAX_CHANGES {
            // Of more than anybody wants to know, the last one counts.
            self.changes.pop();
        }
        self.changes.push((state, reason));
    }
}
