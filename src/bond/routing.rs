//! Which peer an inner address belongs to (WireGuard's cryptokey routing).

use std::net::IpAddr;

use super::PeerId;
use crate::sorted::SortedMap;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpPrefix {
    /// An address in it.
    pub addr: IpAddr,
    /// Leading bits that count.
    pub len: u8,
}

impl IpPrefix {
    /// All of IPv4.
    pub const ALL_V4: IpPrefix = IpPrefix { addr: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), len: 0 };
    /// All of IPv6.
    pub const ALL_V6: IpPrefix = IpPrefix { addr: IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), len: 0 };

    /// Whether `addr` lies in it.
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let shift = 32 - u32::from(self.len.min(32));
                (a.to_bits() ^ b.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let shift = 128 - u32::from(self.len.min(128));
                (a.to_bits() ^ b.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    fn is_host(&self) -> bool {
        self.len == if self.addr.is_ipv4() { 32 } else { 128 }
    }
}

/// An address as it is quickly compared: IPv6 or not, and its bits.
type Host = (bool, u128);

fn host(addr: IpAddr) -> Host {
    match addr {
        IpAddr::V4(addr) => (false, addr.to_bits().into()),
        IpAddr::V6(addr) => (true, addr.to_bits()),
    }
}

/// The table of all peers.
#[derive(Debug, Default)]
pub struct Routing {
    hosts: SortedMap<Host, PeerId>,
    /// Longest first.
    prefixes: Vec<(IpPrefix, PeerId)>,
}

impl Routing {
    /// Sets the ranges of a peer; the latest owner of a range has it.
    pub fn set(&mut self, peer: PeerId, ranges: &[IpPrefix]) {
        self.remove(peer);
        for range in ranges {
            if range.is_host() {
                self.hosts.insert(host(range.addr), peer);
            } else {
                self.prefixes.retain(|(held, _)| held != range);
                let place = self.prefixes.partition_point(|(held, _)| held.len >= range.len);
                self.prefixes.insert(place, (*range, peer));
            }
        }
    }

    /// Removes a peer's ranges.
    pub fn remove(&mut self, peer: PeerId) {
        self.hosts.retain(|_, owner| *owner != peer);
        self.prefixes.retain(|(_, owner)| *owner != peer);
    }

    /// Whose address this is.
    pub fn lookup(&self, addr: IpAddr) -> Option<PeerId> {
        if let Some(peer) = self.hosts.get(&host(addr)) {
            return Some(*peer);
        }
        self.prefixes.iter().find(|(range, _)| range.contains(addr)).map(|(_, peer)| *peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str, len: u8) -> IpPrefix {
        IpPrefix { addr: text.parse().unwrap(), len }
    }

    #[test]
    fn the_longest_range_wins() {
        let mut routing = Routing::default();
        routing.set(PeerId(1), &[IpPrefix::ALL_V4, prefix("10.0.0.2", 32)]);
        routing.set(PeerId(2), &[prefix("10.0.0.0", 24), prefix("fd00::", 64)]);
        let look = |addr: &str| routing.lookup(addr.parse().unwrap()).map(|p| p.0);
        assert_eq!(look("10.0.0.2"), Some(1));
        assert_eq!(look("10.0.0.9"), Some(2));
        assert_eq!(look("10.0.1.9"), Some(1));
        assert_eq!(look("fd00::7"), Some(2));
        assert_eq!(look("fd01::7"), None);
    }
}
