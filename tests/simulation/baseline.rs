//! Tunnels without any cleverness, against which models and tests are checked.

use std::collections::VecDeque;

use crate::Nanos;
use crate::world::Tunnel;

/// No tunnel: the packets themselves on the first line.
#[derive(Debug, Default)]
pub struct Direct {
    waiting: VecDeque<Vec<u8>>,
}

impl Tunnel for Direct {
    fn overhead(&self) -> usize {
        0
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn mtu(&self) -> usize {
        1500
    }

    fn wants_packet(&self) -> bool {
        true
    }

    fn enqueue(&mut self, packet: &[u8], _now: Nanos) {
        self.waiting.push_back(packet.to_vec());
    }

    fn handle_datagram(
        &mut self,
        _link: usize,
        _ecn: u8,
        data: &mut [u8],
        _now: Nanos,
        deliver: &mut dyn FnMut(&[u8]),
    ) {
        deliver(data);
    }

    fn transmit(&mut self, _now: Nanos, send: &mut dyn FnMut(usize, u8, &[u8])) {
        for packet in self.waiting.drain(..) {
            send(0, 0, &packet);
        }
    }

    fn poll_timeout(&self) -> Option<Nanos> {
        None
    }

    fn handle_timeout(&mut self, _now: Nanos, _deliver: &mut dyn FnMut(&[u8])) {}
}

/// What people do today: a tunnel per line and the kernel's balance-rr over them. Each packet goes on the next line,
/// whatever that line's rate and queue; nothing puts them in order again.
#[derive(Debug)]
pub struct RoundRobin {
    links: usize,
    next: usize,
    waiting: VecDeque<Vec<u8>>,
}

impl RoundRobin {
    /// Over this many links.
    pub fn new(links: usize) -> Self {
        RoundRobin { links, next: 0, waiting: VecDeque::new() }
    }
}

/// A header and tag as other tunnels have them.
const HEADER: usize = 32;

impl Tunnel for RoundRobin {
    fn overhead(&self) -> usize {
        28
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn mtu(&self) -> usize {
        1500 - 28 - HEADER
    }

    fn wants_packet(&self) -> bool {
        true
    }

    fn enqueue(&mut self, packet: &[u8], _now: Nanos) {
        let mut datagram = vec![0; HEADER];
        datagram.extend(packet);
        self.waiting.push_back(datagram);
    }

    fn handle_datagram(
        &mut self,
        _link: usize,
        _ecn: u8,
        data: &mut [u8],
        _now: Nanos,
        deliver: &mut dyn FnMut(&[u8]),
    ) {
        deliver(&data[HEADER..]);
    }

    fn transmit(&mut self, _now: Nanos, send: &mut dyn FnMut(usize, u8, &[u8])) {
        for datagram in self.waiting.drain(..) {
            send(self.next, 0, &datagram);
            self.next = (self.next + 1) % self.links;
        }
    }

    fn poll_timeout(&self) -> Option<Nanos> {
        None
    }

    fn handle_timeout(&mut self, _now: Nanos, _deliver: &mut dyn FnMut(&[u8])) {}
}
