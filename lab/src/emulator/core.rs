//! What the emulator does with a frame or a packet. The thread that waits is in [`super::run`].

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::capture::Shared;
use super::nat::Nat;
use super::{Cut, Direction, LineSetup};
use crate::line::{Line, LineConfig, Verdict};
use crate::packet::ethernet::{self, Frame};
use crate::packet::icmp::{self, Problem};
use crate::packet::{Header, decrement_hop_limit, fragment_v4};
use crate::prefix::Prefix;
use crate::tap::{Mac, Tap};

/// Frames that are read from a device before others get their turn.
const BATCH: usize = 64;

/// Everything that the emulator knows, behind one lock.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) start: Instant,
    pub(super) cards: Vec<Card>,
    /// `None` once the emulator has ended.
    pub(super) provider: Option<Provider>,
    pub(super) lines: Vec<LineState>,
    /// Packets from the server that belong to no line.
    pub(super) unroutable: u64,
    pub(super) stop: bool,
}

/// A network card of the router, on whose cable one or more boxes are.
#[derive(Debug)]
pub(super) struct Card {
    pub(super) tap: Arc<Tap>,
    pub(super) alive: bool,
}

/// The provider: what the server's card leads to.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) tap: Arc<Tap>,
    pub(super) alive: bool,
    pub(super) mac: Mac,
    pub(super) gateways: Vec<IpAddr>,
}

/// A box and its line.
#[derive(Debug)]
pub(super) struct LineState {
    pub(super) name: String,
    pub(super) card: usize,
    pub(super) mac: Mac,
    pub(super) gateways: Vec<IpAddr>,
    pub(super) inside: Vec<Prefix>,
    pub(super) nat: Nat,
    pub(super) nat_dropped: u64,
    pub(super) up: Line<Vec<u8>>,
    pub(super) down: Line<Vec<u8>>,
    pub(super) cut: Option<Cut>,
    pub(super) captures: Vec<Arc<Shared>>,
}

impl LineState {
    pub(super) fn new(setup: LineSetup, card: usize, mac: Mac, seed: u64) -> Self {
        LineState {
            name: setup.name,
            card,
            mac,
            gateways: setup.gateways,
            inside: setup.inside,
            nat: Nat::new(setup.nat, seed),
            nat_dropped: 0,
            up: Line::new(setup.up, seed ^ 0x7570),
            down: Line::new(setup.down, seed ^ 0x646f_776e),
            cut: None,
            captures: Vec::new(),
        }
    }

    pub(super) fn direction(&mut self, direction: Direction) -> &mut Line<Vec<u8>> {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }

    /// Puts a packet, as it is on the provider's side, on the line.
    fn offer(&mut self, now: Duration, direction: Direction, packet: Vec<u8>) -> Verdict {
        let length = packet.len();
        // A capture that only we still hold has been dropped by the test.
        self.captures.retain(|capture| Arc::strong_count(capture) > 1);
        if self.captures.is_empty() {
            return self.direction(direction).push(now, packet, length);
        }
        let copy = packet.clone();
        let verdict = self.direction(direction).push(now, packet, length);
        for capture in &self.captures {
            capture.add(now, direction, verdict, &copy);
        }
        verdict
    }

    fn gateway(&self, like: IpAddr) -> Option<IpAddr> {
        source_address(&self.gateways, like)
    }
}

impl Core {
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Fills `taps` with the devices that still exist.
    pub(super) fn alive_taps(&self, taps: &mut Vec<Arc<Tap>>) {
        taps.clear();
        let cards = self.cards.iter().filter(|card| card.alive).map(|card| &card.tap);
        let provider = self.provider.iter().filter(|provider| provider.alive).map(|provider| &provider.tap);
        taps.extend(cards.chain(provider).cloned());
    }

    /// When a packet leaves a line next.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.lines.iter().flat_map(|line| [line.up.next_due(), line.down.next_due()]).flatten().min()
    }

    /// Takes what the kernels have sent; `true` when there may be more.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> bool {
        let mut more = false;
        for card in 0..self.cards.len() {
            for i in 0..=BATCH {
                let Some(state) = self.cards.get_mut(card).filter(|state| state.alive) else { break };
                let Some(length) = receive(&state.tap, &mut state.alive, buffer) else { break };
                more |= i == BATCH;
                if let Some(frame) = buffer.get(..length) {
                    self.take_from_router(card, frame);
                }
            }
        }
        for i in 0..=BATCH {
            let Some(provider) = self.provider.as_mut().filter(|provider| provider.alive) else { break };
            let Some(length) = receive(&provider.tap, &mut provider.alive, buffer) else { break };
            more |= i == BATCH;
            if let Some(frame) = buffer.get(..length) {
                self.take_from_server(frame);
            }
        }
        more
    }

    /// Gives the kernels what has come through the lines.
    pub(super) fn deliver(&mut self) {
        let now = self.now();
        let Some(provider) = &self.provider else { return };
        for line in &mut self.lines {
            while let Some(packet) = line.up.pop_due(now) {
                provider.send(&packet);
            }
            while let Some(mut packet) = line.down.pop_due(now) {
                if !line.nat.inbound(&mut packet, now) {
                    line.nat_dropped += 1;
                } else if let Some(card) = self.cards.get(line.card) {
                    card.send(line.mac, &packet);
                }
            }
        }
    }

    /// A frame that the router has sent on a card.
    fn take_from_router(&mut self, card_index: usize, frame: &[u8]) {
        let now = self.now();
        // The kernel may send for a while before it takes notice of the lost carrier.
        let Some(card) = self.cards.get(card_index).filter(|_| self.has_carrier(card_index)) else { return };
        match Frame::parse(frame) {
            Frame::Question(question) => {
                let owner = self.lines.iter().find(|line| {
                    line.card == card_index
                        && line.cut != Some(Cut::PowerOff)
                        && line.gateways.contains(&question.target)
                });
                if let Some(answer) = owner.and_then(|line| question.answer(line.mac)) {
                    // A card that is down hears nothing.
                    let _ = card.tap.send(&answer, &[]);
                }
            }
            Frame::Ip { to, packet } => {
                let to_box = |line: &&mut LineState| line.card == card_index && line.mac == to;
                let Some(line) = self.lines.iter_mut().find(to_box) else { return };
                if line.cut == Some(Cut::PowerOff) {
                    return;
                }
                if let Some(reply) = forward_up(line, now, packet) {
                    card.send(line.mac, &reply);
                }
            }
            Frame::Other => {}
        }
    }

    /// A frame that the server has sent.
    fn take_from_server(&mut self, frame: &[u8]) {
        let now = self.now();
        let Some(provider) = &self.provider else { return };
        match Frame::parse(frame) {
            Frame::Question(question) => {
                if provider.gateways.contains(&question.target)
                    && let Some(answer) = question.answer(provider.mac)
                {
                    let _ = provider.tap.send(&answer, &[]);
                }
            }
            Frame::Ip { packet, .. } => {
                let Some(header) = Header::parse(packet) else { return };
                let Some(gateway) = source_address(&provider.gateways, header.source) else { return };
                if provider.gateways.contains(&header.destination) {
                    if let Some(reply) = icmp::echo_reply(packet, &header) {
                        provider.send(&reply);
                    }
                    return;
                }
                let Some(line) = self.lines.iter_mut().find(|line| line.owns(header.destination)) else {
                    self.unroutable += 1;
                    return;
                };
                let reply = match admit(packet, &header, line.down.config()) {
                    Ok(packets) => {
                        for packet in packets {
                            line.offer(now, Direction::Down, packet);
                        }
                        None
                    }
                    Err((problem, packet)) => {
                        line.note_refused(now, Direction::Down, packet);
                        problem.and_then(|problem| icmp::error(problem, gateway, packet))
                    }
                };
                if let Some(reply) = reply {
                    provider.send(&reply);
                }
            }
            Frame::Other => {}
        }
    }

    pub(super) fn set_cut(&mut self, index: usize, cut: Option<Cut>) {
        let now = self.now();
        let Some(card) = self.lines.get(index).map(|line| line.card) else { return };
        let had_carrier = self.has_carrier(card);
        if let Some(line) = self.lines.get_mut(index) {
            line.cut = cut;
        }
        let carrier = self.has_carrier(card);
        if let Some(card) = self.cards.get(card) {
            // Only a kernel before 5.0 cannot; that a cut line carries nothing is seen to below.
            let _ = card.tap.set_carrier(carrier);
        }
        for (i, line) in self.lines.iter_mut().enumerate().filter(|(_, line)| line.card == card) {
            if i == index || carrier != had_carrier {
                let dead = !carrier || line.cut.is_some();
                line.up.set_blackhole(now, dead);
                line.down.set_blackhole(now, dead);
            }
        }
    }

    fn has_carrier(&self, card: usize) -> bool {
        !self.lines.iter().any(|line| line.card == card && line.cut == Some(Cut::Carrier))
    }
}

impl LineState {
    /// Whether the provider sends packets for `address` down this line.
    fn owns(&self, address: IpAddr) -> bool {
        match self.nat.config().outside(address) {
            Some(outside) => outside == address,
            None => self.inside.iter().any(|prefix| prefix.contains(address)),
        }
    }

    /// Lets the line count, and the captures see, a packet that it does not take.
    fn note_refused(&mut self, now: Duration, direction: Direction, packet: &[u8]) {
        if self.direction(direction).config().mtu.is_some_and(|mtu| packet.len() > mtu) {
            self.offer(now, direction, packet.to_owned());
        }
    }
}

impl Card {
    fn send(&self, from: Mac, packet: &[u8]) {
        send(&self.tap, from, packet);
    }
}

impl Provider {
    fn send(&self, packet: &[u8]) {
        send(&self.tap, self.mac, packet);
    }
}

/// A packet from the router on its way to the provider; gives what the box answers.
fn forward_up(line: &mut LineState, now: Duration, packet: &[u8]) -> Option<Vec<u8>> {
    let header = Header::parse(packet)?;
    if line.gateways.contains(&header.destination) {
        return icmp::echo_reply(packet, &header);
    }
    let gateway = line.gateway(header.source);
    if line.cut == Some(Cut::Unreachable) {
        return icmp::error(Problem::Unreachable, gateway?, packet);
    }
    match admit(packet, &header, line.up.config()) {
        Ok(packets) => {
            for mut packet in packets {
                if line.nat.outbound(&mut packet, now) {
                    line.offer(now, Direction::Up, packet);
                } else {
                    line.nat_dropped += 1;
                }
            }
            None
        }
        Err((problem, packet)) => {
            line.note_refused(now, Direction::Up, packet);
            problem.and_then(|problem| icmp::error(problem, gateway?, packet))
        }
    }
}

/// What a router does with a packet before it sends it on: TTL, path MTU, fragments. `Err`: the packet is not sent
/// on, and why its sender is to be told, if so.
#[expect(clippy::type_complexity, reason = "used twice, right above")]
fn admit<'a>(
    packet: &'a [u8],
    header: &Header,
    config: &LineConfig,
) -> Result<Vec<Vec<u8>>, (Option<Problem>, &'a [u8])> {
    if header.hop_limit <= 1 {
        return Err((Some(Problem::HopLimit), packet));
    }
    let mtu = config.mtu.unwrap_or(usize::MAX);
    let pieces = if packet.len() <= mtu {
        Some(vec![packet.to_owned()])
    } else if config.pmtu_blackhole {
        return Err((None, packet));
    } else {
        fragment_v4(packet, header, mtu)
    };
    let Some(mut pieces) = pieces else { return Err((Some(Problem::TooBig(mtu)), packet)) };
    for piece in &mut pieces {
        decrement_hop_limit(piece, header);
    }
    Ok(pieces)
}

/// The address of a gateway from which it answers senders of a family: a global one if it has one.
fn source_address(gateways: &[IpAddr], like: IpAddr) -> Option<IpAddr> {
    let usable = |address: &&IpAddr| address.is_ipv4() == like.is_ipv4();
    let global = |address: &&IpAddr| !matches!(address, IpAddr::V6(own) if own.is_unicast_link_local());
    gateways.iter().filter(usable).find(global).or_else(|| gateways.iter().find(usable)).copied()
}

fn receive(tap: &Tap, alive: &mut bool, buffer: &mut [u8]) -> Option<usize> {
    match tap.receive(buffer) {
        Ok(length) => Some(length),
        Err(error) => {
            let passing = [std::io::ErrorKind::WouldBlock, std::io::ErrorKind::Interrupted];
            // The device is gone, with its namespace or by hand.
            *alive &= passing.contains(&error.kind());
            None
        }
    }
}

fn send(tap: &Tap, from: Mac, packet: &[u8]) {
    let Some(header) = Header::parse_start(packet) else { return };
    // A device that is down loses packets, as a cable does.
    let _ = tap.send(&ethernet::header(tap.mac(), from, &header.source), packet);
}
