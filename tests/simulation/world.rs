//! Two hosts, the tunnel between them, and its lines, in virtual time.
//!
//! ```text
//!  client's host ─ TUN queue ─ tunnel ═ lines up/down ═ tunnel ─ TUN queue ─ server's host
//! ```
//!
//! The world jumps from event to event: an arrival on a line, a timer of a tunnel, a timer of a flow. Everything
//! follows from the seed. Hosts and their LANs are infinitely fast; only lines and tunnels take time.

use std::collections::VecDeque;
use std::time::Duration;

use lab::line::{Line, LineConfig};
use lab::random::Random;

use crate::packet::{self, Content, Side};
use crate::scenarios::Scenario;
use crate::tcp::receiver::BIN;
use crate::tcp::{TcpConfig, TcpFlow};
use crate::udp::{PingFlow, UdpConfig, UdpFlow};
use crate::{MILLI, Nanos};

/// Packets that wait for the tunnel before the kernel drops (txqueuelen of the TUN device, as the program sets it).
const TUN_QUEUE: usize = 2_000;

/// One end of a tunnel, driven as a daemon drives it.
pub trait Tunnel {
    /// Bytes of outer IP and UDP headers that each datagram has on a line.
    fn overhead(&self) -> usize;
    /// Packets can pass.
    fn is_ready(&self) -> bool;
    /// The MTU of the TUN device.
    fn mtu(&self) -> usize;
    /// The next packet may be read from the TUN device.
    fn wants_packet(&self) -> bool;
    /// A packet was read from the TUN device.
    fn enqueue(&mut self, packet: &[u8], now: Nanos);
    /// A datagram arrived over a link.
    fn handle_datagram(
        &mut self,
        link: usize,
        ecn: u8,
        data: &mut [u8],
        now: Nanos,
        deliver: &mut dyn FnMut(&[u8]),
    );
    /// Sends all that may be sent now: link, ECN codepoint, datagram.
    fn transmit(&mut self, now: Nanos, send: &mut dyn FnMut(usize, u8, &[u8]));
    /// When [`Tunnel::handle_timeout`] must be called at the latest.
    fn poll_timeout(&self) -> Option<Nanos>;
    /// That time has come.
    fn handle_timeout(&mut self, now: Nanos, deliver: &mut dyn FnMut(&[u8]));
}

/// What a flow wants to send.
#[derive(Debug, Default)]
pub struct Outbox {
    /// MTU of the way that the flow takes.
    pub mtu: usize,
    packets: Vec<(Side, Vec<u8>)>,
}

impl Outbox {
    /// The host at `from` sends a packet.
    pub fn send(&mut self, from: Side, packet: Vec<u8>) {
        self.packets.push((from, packet));
    }
}

/// The way of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Tunnel,
    /// Outside the tunnel, alone on one line.
    Line(usize),
}

/// What happened to one direction of a flow between the two hosts, seen from outside.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Packets that the host sent.
    pub sent: u64,
    /// Packets that arrived, copies not counted.
    pub delivered: u64,
    /// Packets that arrived again.
    pub duplicates: u64,
    /// Packets that arrived after one that was sent later.
    pub reordered: u64,
    next: u64,
    seen: Vec<bool>,
}

impl Ledger {
    const SPAN: u64 = 1 << 15;

    fn new() -> Self {
        let seen = vec![false; Self::SPAN as usize];
        Ledger { sent: 0, delivered: 0, duplicates: 0, reordered: 0, next: 0, seen }
    }

    /// Packets sent and not delivered: lost or under way.
    pub fn missing(&self) -> u64 {
        self.sent - self.delivered
    }

    fn on_sent(&mut self) -> u16 {
        let id = self.sent as u16;
        self.sent += 1;
        id
    }

    fn on_delivered(&mut self, id: u16) {
        let ahead = id.wrapping_sub(self.next as u16) as i16;
        let Some(number) = self.next.checked_add_signed(i64::from(ahead)) else { return };
        if number >= self.next {
            for number in self.next..number {
                self.seen[(number % Self::SPAN) as usize] = false;
            }
            self.next = number + 1;
        } else if self.seen[(number % Self::SPAN) as usize] {
            self.duplicates += 1;
            return;
        } else {
            self.reordered += 1;
        }
        self.seen[(number % Self::SPAN) as usize] = true;
        self.delivered += 1;
    }
}

#[derive(Debug)]
enum Kind {
    Tcp(Box<TcpFlow>),
    Udp(UdpFlow),
    Ping(PingFlow),
}

#[derive(Debug)]
struct Flow {
    kind: Kind,
    via: Via,
    /// By the sending side.
    ledgers: [Ledger; 2],
}

impl Flow {
    fn next_timer(&self) -> Option<Nanos> {
        match &self.kind {
            Kind::Tcp(flow) => flow.next_timer(),
            Kind::Udp(flow) => flow.next_timer(),
            Kind::Ping(flow) => flow.next_timer(),
        }
    }

    fn on_timer(&mut self, now: Nanos, out: &mut Outbox) {
        match &mut self.kind {
            Kind::Tcp(flow) => flow.on_timer(now, out),
            Kind::Udp(flow) => flow.on_timer(now, out),
            Kind::Ping(flow) => flow.on_timer(now, out),
        }
    }
}

#[derive(Debug)]
struct Datagram {
    ecn: u8,
    outside: bool,
    data: Vec<u8>,
}

/// One line, both directions.
#[derive(Debug)]
struct Pair {
    /// By the sending side.
    lines: [Line<Datagram>; 2],
}

/// What passed on one line and direction.
pub use lab::line::Counters as LineCounters;

/// See the module.
pub struct World<T> {
    now: Nanos,
    /// By side.
    pub tunnels: [T; 2],
    tun: [VecDeque<Vec<u8>>; 2],
    /// Packets that the TUN queue dropped, by side.
    pub tun_drops: [u64; 2],
    links: Vec<Pair>,
    flows: Vec<Flow>,
    outbox: Outbox,
    /// Packets that a tunnel delivered and no host can have sent.
    pub corrupt: u64,
    /// Timers of the tunnels fire up to this much late, as on a busy machine.
    pub timer_slack: Nanos,
    random: Random,
    wake: [(Option<Nanos>, Option<Nanos>); 2],
    stuck: u32,
    /// Events so far.
    pub events: u64,
}

impl<T: Tunnel> World<T> {
    /// A world at time 0; `tunnels` are client and server.
    pub fn new(scenario: &Scenario, tunnels: [T; 2], seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut pair = |up: &LineConfig, down: &LineConfig| Pair {
            lines: [Line::new(up.clone(), random.next_u64()), Line::new(down.clone(), random.next_u64())],
        };
        let links = scenario.lines.iter().map(|line| pair(&line.up, &line.down)).collect();
        World {
            now: 0,
            tunnels,
            tun: Default::default(),
            tun_drops: [0; 2],
            links,
            flows: Vec::new(),
            outbox: Outbox::default(),
            corrupt: 0,
            timer_slack: 0,
            random,
            wake: [(None, None); 2],
            stuck: 0,
            events: 0,
        }
    }

    /// Virtual time.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Adds a TCP connection; its times count from now.
    pub fn add_tcp(&mut self, config: TcpConfig) -> usize {
        self.add_tcp_via(config, Via::Tunnel)
    }

    /// Adds a TCP connection that may run outside the tunnel; its times count from now.
    pub fn add_tcp_via(&mut self, mut config: TcpConfig, via: Via) -> usize {
        config.start += self.now;
        config.stop = config.stop.map(|stop| stop + self.now);
        let flow = TcpFlow::new(self.flows.len(), config);
        self.add(Kind::Tcp(Box::new(flow)), via)
    }

    /// Adds a constant-rate flow; its times count from now.
    pub fn add_udp(&mut self, mut config: UdpConfig) -> usize {
        config.start += self.now;
        config.stop = config.stop.map(|stop| stop + self.now);
        let flow = UdpFlow::new(self.flows.len(), config);
        self.add(Kind::Udp(flow), Via::Tunnel)
    }

    /// Adds a ping that begins now.
    pub fn add_ping(&mut self, interval: Nanos) -> usize {
        let flow = PingFlow::new(self.flows.len(), interval, self.now);
        self.add(Kind::Ping(flow), Via::Tunnel)
    }

    fn add(&mut self, kind: Kind, via: Via) -> usize {
        self.flows.push(Flow { kind, via, ledgers: [Ledger::new(), Ledger::new()] });
        self.flows.len() - 1
    }

    /// The TCP connection that [`World::add_tcp`] named so.
    pub fn tcp(&self, flow: usize) -> &TcpFlow {
        match &self.flows[flow].kind {
            Kind::Tcp(flow) => flow,
            other => panic!("flow {flow} is not TCP but {other:?}"),
        }
    }

    /// The constant-rate flow that [`World::add_udp`] named so.
    pub fn udp(&self, flow: usize) -> &UdpFlow {
        match &self.flows[flow].kind {
            Kind::Udp(flow) => flow,
            other => panic!("flow {flow} is not UDP but {other:?}"),
        }
    }

    /// The ping that [`World::add_ping`] named so.
    pub fn ping(&self, flow: usize) -> &PingFlow {
        match &self.flows[flow].kind {
            Kind::Ping(flow) => flow,
            other => panic!("flow {flow} is not a ping but {other:?}"),
        }
    }

    /// What became of the packets of a flow that the host at `from` sent.
    pub fn ledger(&self, flow: usize, from: Side) -> &Ledger {
        &self.flows[flow].ledgers[from.index()]
    }

    /// What a line has carried from a side.
    pub fn line_counters(&self, link: usize, from: Side) -> LineCounters {
        self.links[link].lines[from.index()].counters()
    }

    /// How long a packet would wait in the queue of a line now.
    pub fn line_queue(&self, link: usize, from: Side) -> Nanos {
        let wait = self.links[link].lines[from.index()].queue_delay(duration(self.now));
        u64::try_from(wait.as_nanos()).unwrap_or(Nanos::MAX)
    }

    /// Changes the figures of one direction of a line.
    pub fn change(&mut self, link: usize, from: Side, change: impl FnOnce(&mut LineConfig)) {
        let line = &mut self.links[link].lines[from.index()];
        let mut config = line.config().clone();
        change(&mut config);
        line.reconfigure(duration(self.now), config);
    }

    /// Changes the figures of both directions of a line.
    pub fn change_both(&mut self, link: usize, change: impl Fn(&mut LineConfig)) {
        for side in Side::BOTH {
            self.change(link, side, &change);
        }
    }

    /// Cuts a line in both directions without a word, or restores it.
    pub fn cut(&mut self, link: usize, cut: bool) {
        self.change_both(link, |config| config.blackhole = cut);
    }

    /// Runs until both tunnels are ready, and on to the next bin of the goodput record.
    ///
    /// # Panics
    ///
    /// When they are not after ten seconds.
    pub fn run_until_ready(&mut self) {
        let limit = self.now + 10_000 * MILLI;
        while !self.tunnels.iter().all(Tunnel::is_ready) {
            assert!(self.now < limit, "the tunnel is not up after 10 s");
            self.run_for(MILLI);
        }
        self.run_until(self.now.next_multiple_of(BIN));
    }

    /// Runs for a time.
    pub fn run_for(&mut self, time: Nanos) {
        self.run_until(self.now + time);
    }

    /// Runs until a point in time.
    pub fn run_until(&mut self, end: Nanos) {
        // Something may have been asked of the tunnels since the last event.
        self.step();
        while let Some(next) = self.next_event()
            && next <= end
        {
            if next > self.now {
                self.now = next;
                self.stuck = 0;
            } else {
                self.stuck += 1;
                assert!(
                    self.stuck < 100_000,
                    "time stands still at {} ns: a timer is never satisfied",
                    self.now
                );
            }
            self.step();
        }
        self.now = self.now.max(end);
    }

    fn next_event(&mut self) -> Option<Nanos> {
        for (tunnel, wake) in self.tunnels.iter().zip(&mut self.wake) {
            let timeout = tunnel.poll_timeout();
            if timeout != wake.0 {
                let late = self.random.below(self.timer_slack);
                *wake = (timeout, timeout.map(|at| at.max(self.now) + late));
            }
        }
        let lines = self.links.iter().flat_map(|link| &link.lines).filter_map(Line::next_due);
        let lines = lines.map(|due| u64::try_from(due.as_nanos()).unwrap_or(Nanos::MAX));
        let flows = self.flows.iter().filter_map(Flow::next_timer);
        let next = lines.chain(flows).chain(self.wake.iter().filter_map(|wake| wake.1)).min()?;
        Some(next.max(self.now))
    }

    fn step(&mut self) {
        self.events += 1;
        let now = self.now;
        let mut delivered: Vec<(Side, Vec<u8>)> = Vec::new();
        for link in 0..self.links.len() {
            for from in Side::BOTH {
                let to = from.other();
                while let Some(mut datagram) = self.links[link].lines[from.index()].pop_due(duration(now)) {
                    if datagram.outside {
                        delivered.push((to, datagram.data));
                        continue;
                    }
                    let deliver = &mut |packet: &[u8]| delivered.push((to, packet.to_vec()));
                    let tunnel = &mut self.tunnels[to.index()];
                    tunnel.handle_datagram(link, datagram.ecn, &mut datagram.data, now, deliver);
                }
            }
        }
        for side in Side::BOTH {
            if self.wake[side.index()].1.is_some_and(|at| at <= now) {
                self.wake[side.index()] = (None, None);
                let deliver = &mut |packet: &[u8]| delivered.push((side, packet.to_vec()));
                self.tunnels[side.index()].handle_timeout(now, deliver);
            }
        }
        for (to, packet) in delivered {
            self.arrive(to, &packet);
        }
        for flow in 0..self.flows.len() {
            if self.flows[flow].next_timer().is_some_and(|at| at <= now) {
                self.outbox.mtu = self.mtu(self.flows[flow].via);
                self.flows[flow].on_timer(now, &mut self.outbox);
                self.flush(flow);
            }
        }
        self.pump();
    }

    fn mtu(&self, via: Via) -> usize {
        match via {
            Via::Tunnel => self.tunnels.iter().map(Tunnel::mtu).min().unwrap_or(1500),
            Via::Line(_) => 1500,
        }
    }

    /// A packet arrives at the host of a side.
    fn arrive(&mut self, to: Side, packet: &[u8]) {
        let Some(parsed) = packet::parse(packet).filter(|parsed| parsed.from != to) else {
            self.corrupt += 1;
            return;
        };
        let now = self.now;
        let Some(flow) = self.flows.get_mut(parsed.flow) else {
            self.corrupt += 1;
            return;
        };
        flow.ledgers[parsed.from.index()].on_delivered(parsed.id);
        let out = &mut self.outbox;
        match (&mut flow.kind, parsed.content) {
            (Kind::Tcp(flow), Content::Tcp { header, payload }) => {
                flow.receive(to, &header, payload, parsed.ecn, now, out);
            }
            (Kind::Udp(flow), Content::Udp { payload }) => flow.receive(&payload, now),
            (Kind::Ping(flow), Content::Echo { reply, sequence, payload }) => {
                flow.receive(reply, sequence, &payload, now, out);
            }
            _ => self.corrupt += 1,
        }
        self.flush(parsed.flow);
    }

    /// Takes what a flow has sent on its way.
    fn flush(&mut self, flow: usize) {
        let mut packets = std::mem::take(&mut self.outbox.packets);
        for (from, mut packet) in packets.drain(..) {
            let side = from.index();
            let id = self.flows[flow].ledgers[side].on_sent();
            packet::stamp(&mut packet, id);
            match self.flows[flow].via {
                Via::Tunnel if self.tun[side].len() < TUN_QUEUE => self.tun[side].push_back(packet),
                Via::Tunnel => self.tun_drops[side] += 1,
                Via::Line(link) => {
                    let size = packet.len();
                    let datagram = Datagram { ecn: 0, outside: true, data: packet };
                    self.links[link].lines[side].push(duration(self.now), datagram, size);
                }
            }
        }
        self.outbox.packets = packets;
    }

    /// The tunnels read what waits for them, and send what they may.
    fn pump(&mut self) {
        let now = self.now;
        for side in 0..2 {
            let tunnel = &mut self.tunnels[side];
            let overhead = tunnel.overhead();
            let links = &mut self.links;
            let waiting = &mut self.tun[side];
            loop {
                while tunnel.wants_packet()
                    && let Some(packet) = waiting.pop_front()
                {
                    tunnel.enqueue(&packet, now);
                }
                let mut sent = 0;
                tunnel.transmit(now, &mut |link, ecn, data| {
                    sent += 1;
                    let datagram = Datagram { ecn, outside: false, data: data.to_vec() };
                    if let Some(pair) = links.get_mut(link) {
                        pair.lines[side].push(duration(now), datagram, data.len() + overhead);
                    }
                });
                if sent == 0 || waiting.is_empty() {
                    break;
                }
            }
        }
    }
}

fn duration(time: Nanos) -> Duration {
    Duration::from_nanos(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_tells_loss_copies_and_order_apart_across_the_wrap() {
        let mut ledger = Ledger::new();
        for _ in 0..70_000u32 {
            let id = ledger.on_sent();
            ledger.on_delivered(id);
        }
        let ids: Vec<u16> = (0..5).map(|_| ledger.on_sent()).collect();
        for index in [0, 2, 1, 1, 4] {
            ledger.on_delivered(ids[index]);
        }
        assert_eq!((ledger.delivered, ledger.missing()), (70_004, 1));
        assert_eq!((ledger.duplicates, ledger.reordered), (1, 1));
    }
}
