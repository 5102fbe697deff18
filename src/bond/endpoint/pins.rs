//! Connections that are kept on one link for a while: what a speed test of that link measures.

use std::time::Duration;

use super::Endpoint;
use crate::{LinkId, PeerId, Time, ip};

/// Pins at the same time, at most.
const MAX_PINS: usize = 16;

/// How long a pin lasts when nobody removes it: longer than any speed test.
const LIFETIME: Duration = Duration::from_secs(60);

/// A TCP connection by its two ports, in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpPorts {
    /// That of one end.
    pub one: u16,
    /// That of the other.
    pub other: u16,
}

#[derive(Debug)]
pub(super) struct Pin {
    peer: PeerId,
    ports: TcpPorts,
    link: LinkId,
    until: Time,
}

impl Endpoint {
    /// Keeps a TCP connection with `peer` on `link`, for a minute at most. What the other end sends on it, that end must
    /// keep there. False when too many are kept already.
    pub fn pin(&mut self, peer: PeerId, ports: TcpPorts, link: LinkId, now: Time) -> bool {
        self.pins.retain(|pin| pin.until > now && pin.ports != ports);
        let fits = self.pins.len() < MAX_PINS && self.entries.contains(peer);
        if fits {
            self.pins.push(Pin { peer, ports, link, until: now + LIFETIME });
        }
        fits
    }

    /// Ends that.
    pub fn unpin(&mut self, ports: TcpPorts) {
        self.pins.retain(|pin| pin.ports != ports);
    }

    /// The peer to which a packet with this destination goes.
    pub fn peer_of(&self, address: std::net::IpAddr) -> Option<PeerId> {
        self.routing.lookup(address)
    }

    /// The link that a packet for `peer` is kept on.
    pub(super) fn pinned(&self, peer: PeerId, packet: &[u8], now: Time) -> Option<LinkId> {
        if self.pins.is_empty() {
            return None;
        }
        let (source, destination) = ip::tcp_ports(packet)?;
        let is_it = |ports: TcpPorts| {
            [(ports.one, ports.other), (ports.other, ports.one)].contains(&(source, destination))
        };
        let pin = self.pins.iter().find(|pin| pin.peer == peer && pin.until > now && is_it(pin.ports))?;
        Some(pin.link)
    }
}
