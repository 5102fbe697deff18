//! What the core has to know of Ethernet frames, which it carries in kernel mode with TAP devices: what is inside.

use std::net::IpAddr;

use super::IpPrefix;
use super::ip;

/// Length of an Ethernet header without tag, in bytes (IEEE 802.3).
pub const HEADER: usize = 14;

/// EtherTypes (IEEE 802 numbers of IANA).
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const IPV6: u16 = 0x86dd;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What follows it.
    pub ether_type: u16,
    /// Its length with a VLAN tag (IEEE 802.1Q), if there is one.
    pub length: usize,
}

impl Header {
    /// The header of `frame`; `None` when that is too short.
    pub fn parse(frame: &[u8]) -> Option<Header> {
        let word = |at: usize| frame.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]));
        match word(12)? {
            VLAN => Some(Header { ether_type: word(16)?, length: HEADER + 4 }),
            ether_type => Some(Header { ether_type, length: HEADER }),
        }
    }

    /// Whether an IP packet follows.
    pub fn carries_ip(&self) -> bool {
        matches!(self.ether_type, IPV4 | IPV6)
    }
}

/// Whether a peer may send `frame`: an IP packet from one of its addresses, or what finds neighbours: ARP (RFC 826), and
/// IPv6 from a link-local or no address (RFC 4861, RFC 4862).
pub fn is_allowed(frame: &[u8], allowed: &[IpPrefix]) -> bool {
    let Some(header) = Header::parse(frame) else { return false };
    if header.ether_type == ARP {
        return true;
    }
    let packet = frame.get(header.length..).filter(|_| header.carries_ip());
    match packet.and_then(ip::source) {
        Some(IpAddr::V6(source)) if source.is_unspecified() || source.is_unicast_link_local() => true,
        Some(source) => allowed.iter().any(|range| range.contains(source)),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn frame(ether_type: u16, tagged: bool, packet: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x4e; 12];
        if tagged {
            frame.extend_from_slice(&[0x81, 0x00, 0x00, 0x05]);
        }
        frame.extend_from_slice(&ether_type.to_be_bytes());
        frame.extend_from_slice(packet);
        frame
    }

    fn ipv4(source: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0; 20];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&source);
        packet
    }

    fn ipv6(source: std::net::Ipv6Addr) -> Vec<u8> {
        let mut packet = vec![0; 40];
        packet[0] = 0x60;
        packet[8..24].copy_from_slice(&source.octets());
        packet
    }

    #[test]
    fn headers_with_and_without_tag() {
        let header = Header::parse(&frame(IPV4, false, &[])).unwrap();
        assert_eq!((header.length, header.carries_ip()), (14, true));
        let header = Header::parse(&frame(ARP, true, &[])).unwrap();
        assert_eq!((header.length, header.ether_type), (18, ARP));
        for length in 0..14 {
            assert_eq!(Header::parse(&frame(IPV4, false, &[])[..length]), None);
        }
        assert_eq!(Header::parse(&frame(IPV4, true, &[])[..17]), None);
    }

    #[test]
    fn only_own_addresses_and_neighbour_discovery_pass() {
        let allowed = [IpPrefix { addr: IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)), len: 32 }];
        let passes = |ether_type, packet: &[u8]| is_allowed(&frame(ether_type, false, packet), &allowed);
        assert!(passes(IPV4, &ipv4([10, 0, 0, 2])));
        assert!(!passes(IPV4, &ipv4([10, 0, 0, 3])));
        assert!(is_allowed(&frame(IPV4, true, &ipv4([10, 0, 0, 2])), &allowed));
        assert!(!is_allowed(&frame(IPV4, true, &ipv4([10, 0, 0, 3])), &allowed));
        assert!(passes(ARP, &[]));
        assert!(passes(IPV6, &ipv6("fe80::1".parse().unwrap())));
        assert!(passes(IPV6, &ipv6("::".parse().unwrap())));
        assert!(!passes(IPV6, &ipv6("2001:db8::1".parse().unwrap())));
        // Spanning tree, LLDP and their like have no business in a tunnel; nor has an IP packet that is cut short.
        assert!(!passes(0x88cc, &ipv4([10, 0, 0, 2])));
        assert!(!passes(IPV4, &[0x45]));
        assert!(!passes(IPV4, &[]));
    }
}
