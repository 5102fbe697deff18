//! Constant-rate UDP with sequence numbers, and ping.

use crate::packet::{self, Side};
use crate::world::Outbox;
use crate::{Nanos, SECOND, percentile};

/// What is asked of a constant-rate flow.
#[derive(Clone, Debug)]
pub struct UdpConfig {
    pub sender: Side,
    /// Packets per second.
    pub rate: u64,
    /// Bytes of each IP packet.
    pub size: usize,
    pub start: Nanos,
    pub stop: Option<Nanos>,
}

impl UdpConfig {
    /// The measuring flow of the issues: small packets at this rate, from now on.
    pub fn probe(sender: Side, rate: u64) -> Self {
        UdpConfig { sender, rate, size: 200, start: 0, stop: None }
    }
}

/// A constant-rate flow, and what arrived of it.
#[derive(Debug)]
pub struct UdpFlow {
    flow: usize,
    config: UdpConfig,
    /// By sequence number.
    packets: Vec<Sent>,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    at: Nanos,
    arrived: Option<Nanos>,
}

impl UdpFlow {
    pub fn new(flow: usize, config: UdpConfig) -> Self {
        UdpFlow { flow, config, packets: Vec::new() }
    }

    /// When to call [`UdpFlow::on_timer`].
    pub fn next_timer(&self) -> Option<Nanos> {
        let next = self.config.start + self.packets.len() as u64 * SECOND / self.config.rate;
        self.config.stop.is_none_or(|stop| next < stop).then_some(next)
    }

    /// Sends the next packet.
    pub fn on_timer(&mut self, now: Nanos, out: &mut Outbox) {
        let sequence = self.packets.len() as u64;
        self.packets.push(Sent { at: now, arrived: None });
        let from = self.config.sender;
        out.send(from, packet::udp(self.flow, from, &sequence.to_be_bytes(), self.config.size));
    }

    /// A packet arrived.
    pub fn receive(&mut self, payload: &[u8], now: Nanos) {
        let sequence = payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        if let Some(sent) = sequence.and_then(|sequence| self.packets.get_mut(sequence as usize)) {
            sent.arrived.get_or_insert(now);
        }
    }

    /// Of the packets sent between two times, how many have not arrived.
    pub fn lost(&self, from: Nanos, to: Nanos) -> usize {
        self.between(from, to).filter(|sent| sent.arrived.is_none()).count()
    }

    /// Of the packets sent between two times, how many arrived before one that was sent before them.
    pub fn out_of_order(&self, from: Nanos, to: Nanos) -> usize {
        let (mut latest, mut early) = (0, 0);
        for arrived in self.between(from, to).filter_map(|sent| sent.arrived) {
            early += usize::from(arrived < latest);
            latest = latest.max(arrived);
        }
        early
    }

    /// One-way delays of the packets sent between two times.
    pub fn delays(&self, from: Nanos, to: Nanos) -> Vec<Nanos> {
        self.between(from, to).filter_map(|sent| Some(sent.arrived? - sent.at)).collect()
    }

    fn between(&self, from: Nanos, to: Nanos) -> impl Iterator<Item = &Sent> {
        let start = self.packets.partition_point(|sent| sent.at < from);
        let end = self.packets.partition_point(|sent| sent.at < to);
        self.packets[start..end.max(start)].iter()
    }
}

/// Echo requests from the client's host, answered at once by the server's.
#[derive(Debug)]
pub struct PingFlow {
    flow: usize,
    interval: Nanos,
    start: Nanos,
    packets: Vec<Sent>,
}

impl PingFlow {
    pub fn new(flow: usize, interval: Nanos, start: Nanos) -> Self {
        PingFlow { flow, interval, start, packets: Vec::new() }
    }

    /// When to call [`PingFlow::on_timer`].
    pub fn next_timer(&self) -> Option<Nanos> {
        Some(self.start + self.packets.len() as u64 * self.interval)
    }

    /// Sends the next request.
    pub fn on_timer(&mut self, now: Nanos, out: &mut Outbox) {
        let sequence = self.packets.len() as u64;
        self.packets.push(Sent { at: now, arrived: None });
        // 56 bytes of payload, as ping sends them.
        let mut payload = [0; 56];
        payload[..8].copy_from_slice(&sequence.to_be_bytes());
        out.send(Side::Client, packet::echo(self.flow, Side::Client, false, sequence as u16, &payload));
    }

    /// A request arrived at the server's host, or a reply at the client's.
    pub fn receive(&mut self, reply: bool, sequence: u16, payload: &[u8], now: Nanos, out: &mut Outbox) {
        if !reply {
            out.send(Side::Server, packet::echo(self.flow, Side::Server, true, sequence, payload));
            return;
        }
        let number = payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
        if let Some(sent) = number.and_then(|number| self.packets.get_mut(number as usize)) {
            sent.arrived.get_or_insert(now);
        }
    }

    /// Round trips of the requests sent between two times, and how many were not answered.
    pub fn round_trips(&self, from: Nanos, to: Nanos) -> RoundTrips {
        let chosen = || self.packets.iter().filter(|sent| (from..to).contains(&sent.at));
        let mut times: Vec<Nanos> = chosen().filter_map(|sent| Some(sent.arrived? - sent.at)).collect();
        times.sort_unstable();
        RoundTrips { unanswered: chosen().count() - times.len(), times }
    }
}

/// Sorted round-trip times.
#[derive(Clone, Debug)]
pub struct RoundTrips {
    pub times: Vec<Nanos>,
    pub unanswered: usize,
}

impl RoundTrips {
    /// Milliseconds at a percentile (0 to 100).
    pub fn percentile(&self, percent: f64) -> f64 {
        percentile(&self.times, percent)
    }

    /// Milliseconds.
    pub fn median(&self) -> f64 {
        self.percentile(50.0)
    }
}
