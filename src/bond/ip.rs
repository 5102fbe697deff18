//! What the core has to know of inner packets: to which flow they belong, and the few fields that it changes.
//!
//! No length in a packet is trusted.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::ethernet;
use super::wire::BUCKETS;

const TCP: u8 = 6;
/// Number of UDP among the protocols above IP.
pub const UDP: u8 = 17;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Extension headers of IPv6 that may stand before the one that counts (RFC 8200, 4).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// They are followed at most so far.
const MAX_EXTENSIONS: usize = 6;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;

/// What classification found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketInfo {
    /// Hash of the flow.
    pub hash: u32,
    /// The flow's bucket.
    pub bucket: u16,
    /// Protocol above IP.
    pub protocol: u8,
    /// The flags, if it is a TCP segment in one piece.
    pub tcp: Option<u8>,
    /// TCP that only acknowledges.
    pub pure_ack: bool,
    /// ECN codepoint (RFC 3168).
    pub ecn: u8,
    /// Differentiated services codepoint.
    pub dscp: u8,
    /// Where the IP header begins; `None` when what an Ethernet frame carries is no IP packet.
    pub network: Option<usize>,
    /// The class, once it is known ([`super::class`]); 0 is none.
    pub class: u8,
}

/// Source and destination port of a TCP segment; `None` for anything else.
pub fn tcp_ports(packet: &[u8]) -> Option<(u16, u16)> {
    let ip = Ip::parse(packet)?;
    let port = |at: usize| {
        let bytes = packet.get(ip.payload + at..ip.payload + at + 2)?;
        bytes.try_into().ok().map(u16::from_be_bytes)
    };
    (ip.protocol == TCP && ip.whole).then(|| Some((port(0)?, port(2)?)))?
}

/// Whether a packet is (a part of) a TCP segment.
pub fn is_tcp(packet: &[u8]) -> bool {
    Ip::parse(packet).is_some_and(|ip| ip.protocol == TCP)
}

/// Sorts packets into flows. The hash is keyed, so that nobody can aim at a bucket.
#[derive(Clone, Debug)]
pub struct Classifier {
    seed: u64,
}

impl Classifier {
    /// A classifier with this key.
    pub fn new(seed: u64) -> Self {
        Classifier { seed }
    }

    /// Looks at a packet; `None` when it is no IP packet.
    pub fn parse(&self, packet: &[u8]) -> Option<PacketInfo> {
        let ip = Ip::parse(packet)?;
        let mut hash = Hash(self.seed);
        hash.add(ip.addresses);
        hash.add(&[ip.protocol]);
        let payload = packet.get(ip.payload..).unwrap_or(&[]);
        let (mut tcp, mut pure_ack) = (None, false);
        if ip.whole {
            match ip.protocol {
                TCP | UDP | SCTP | UDP_LITE => hash.add(payload.get(..4).unwrap_or(&[])),
                ICMP | ICMPV6 => hash.add(payload.get(4..6).unwrap_or(&[])),
                _ => {}
            }
            if ip.protocol == TCP
                && let (Some(offset), Some(flags)) = (payload.get(12), payload.get(13))
            {
                tcp = Some(*flags);
                let header = usize::from(offset >> 4) * 4;
                pure_ack = flags & (FIN | SYN | RST) == 0 && payload.len() <= header;
            }
        }
        let hash = hash.finish();
        Some(PacketInfo {
            hash,
            bucket: (hash as usize % BUCKETS) as u16,
            protocol: ip.protocol,
            tcp,
            pure_ack,
            ecn: ip.traffic_class & 3,
            dscp: ip.traffic_class >> 2,
            network: Some(0),
            class: 0,
        })
    }

    /// Looks at an Ethernet frame; `None` when it is too short to be one.
    pub fn parse_frame(&self, frame: &[u8]) -> Option<PacketInfo> {
        let header = ethernet::Header::parse(frame)?;
        let inner = frame.get(header.length..).filter(|_| header.carries_ip());
        if let Some(info) = inner.and_then(|packet| self.parse(packet)) {
            return Some(PacketInfo { network: Some(header.length), ..info });
        }
        let mut hash = Hash(self.seed);
        hash.add(&header.ether_type.to_be_bytes());
        let hash = hash.finish();
        Some(PacketInfo {
            hash,
            bucket: (hash as usize % BUCKETS) as u16,
            protocol: 0,
            tcp: None,
            pure_ack: false,
            ecn: 0,
            dscp: 0,
            network: None,
            class: 0,
        })
    }
}

/// Where an IP packet comes from.
pub fn source(packet: &[u8]) -> Option<IpAddr> {
    address(packet, 12, 8)
}

/// Where an IP packet goes to.
pub fn destination(packet: &[u8]) -> Option<IpAddr> {
    address(packet, 16, 24)
}

fn address(packet: &[u8], v4: usize, v6: usize) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => packet.get(v4..)?.first_chunk::<4>().map(|a| IpAddr::V4(Ipv4Addr::from(*a))),
        6 => packet.get(v6..)?.first_chunk::<16>().map(|a| IpAddr::V6(Ipv6Addr::from(*a))),
        _ => None,
    }
}

/// Source and destination port of TCP, UDP, SCTP and UDP-Lite; `None` in all parts of a fragmented packet.
pub fn ports(packet: &[u8]) -> Option<(u16, u16)> {
    let ip = Ip::parse(packet).filter(|ip| ip.whole && matches!(ip.protocol, TCP | UDP | SCTP | UDP_LITE))?;
    let &[a, b, c, d] = packet.get(ip.payload..)?.first_chunk::<4>()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// Marks "congestion experienced" on a packet whose sender understands it. False when it does not.
pub fn mark_ce(packet: &mut [u8]) -> bool {
    match packet.first().map(|b| b >> 4) {
        Some(4) if packet.len() >= 20 => {
            let (Some(&first), Some(&class)) = (packet.first(), packet.get(1)) else { return false };
            if class & 3 == 0 {
                return false;
            }
            let old = u16::from_be_bytes([first, class]);
            let new = u16::from_be_bytes([first, class | 3]);
            packet[1] = class | 3;
            adjust_checksum(packet, 10, old, new);
            true
        }
        Some(6) if packet.len() >= 40 => {
            if packet[1] & 0x30 == 0 {
                return false;
            }
            packet[1] |= 0x30;
            true
        }
        _ => false,
    }
}

/// Lowers the maximum segment size in the SYN segments of TCP to `v4` or `v6` (RFC 9293, 3.7.1). True when it did.
pub fn clamp_mss(packet: &mut [u8], v4: u16, v6: u16) -> bool {
    let Some(ip) = Ip::parse(packet) else { return false };
    if ip.protocol != TCP || !ip.whole {
        return false;
    }
    let limit = if packet[0] >> 4 == 4 { v4 } else { v6 };
    let at = ip.payload;
    let Some(segment) = packet.get_mut(at..) else { return false };
    let (Some(&offset), Some(&flags)) = (segment.get(12), segment.get(13)) else { return false };
    let header = usize::from(offset >> 4) * 4;
    if flags & SYN == 0 || header < 20 || segment.len() < header {
        return false;
    }
    let mut option = 20;
    while option < header {
        match segment[option] {
            0 => return false,
            1 => option += 1,
            2 if option + 4 <= header && segment[option + 1] == 4 => {
                let old = u16::from_be_bytes([segment[option + 2], segment[option + 3]]);
                if old <= limit {
                    return false;
                }
                segment[option + 2..option + 4].copy_from_slice(&limit.to_be_bytes());
                if option % 2 == 0 {
                    adjust_checksum(segment, 16, old, limit);
                } else {
                    // The value straddles two words of the sum.
                    adjust_checksum(segment, 16, old.swap_bytes(), limit.swap_bytes());
                }
                return true;
            }
            _ => match segment.get(option + 1) {
                Some(&length) if length >= 2 => option += usize::from(length),
                _ => return false,
            },
        }
    }
    false
}

/// Corrects the checksum at `at` for one changed word (RFC 1624).
fn adjust_checksum(bytes: &mut [u8], at: usize, old: u16, new: u16) {
    let Some(field) = bytes.get_mut(at..at + 2) else { return };
    let mut sum = u32::from(!u16::from_be_bytes([field[0], field[1]])) + u32::from(!old) + u32::from(new);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    field.copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

/// The header of an IP packet.
pub(super) struct Ip<'a> {
    /// Source and destination.
    pub(super) addresses: &'a [u8],
    /// Protocol above IP, behind the extension headers of IPv6.
    pub(super) protocol: u8,
    traffic_class: u8,
    /// Where the payload begins.
    pub(super) payload: usize,
    /// It is no fragment. The parts of a fragmented packet must share a flow, so that none is told by its ports.
    pub(super) whole: bool,
}

impl<'a> Ip<'a> {
    /// Reads it; `None` when it is cut, or none.
    pub(super) fn parse(packet: &'a [u8]) -> Option<Ip<'a>> {
        match packet.first()? >> 4 {
            4 => {
                let header = usize::from(packet[0] & 15) * 4;
                if header < 20 || packet.len() < header {
                    return None;
                }
                let fragment = u16::from_be_bytes([packet[6], packet[7]]);
                Some(Ip {
                    addresses: packet.get(12..20)?,
                    protocol: packet[9],
                    traffic_class: packet[1],
                    payload: header,
                    whole: fragment & 0x3fff == 0,
                })
            }
            6 => {
                let addresses = packet.get(8..40)?;
                let traffic_class = packet[0] << 4 | packet[1] >> 4;
                let (mut protocol, mut payload) = (packet[6], 40);
                for _ in 0..MAX_EXTENSIONS {
                    let length = match protocol {
                        HOP_BY_HOP | ROUTING | DESTINATION => usize::from(*packet.get(payload + 1)?) * 8 + 8,
                        FRAGMENT => 8,
                        _ => break,
                    };
                    let fragment = protocol == FRAGMENT;
                    protocol = *packet.get(payload)?;
                    payload += length;
                    if fragment {
                        // In all parts but the first no header follows, whatever the number says (RFC 8200, 4.5).
                        return Some(Ip { addresses, protocol, traffic_class, payload, whole: false });
                    }
                }
                Some(Ip { addresses, protocol, traffic_class, payload, whole: true })
            }
            _ => None,
        }
    }
}

/// A keyed mixer for flow keys: fast on 32-bit routers, and good enough that collisions cannot be aimed at.
struct Hash(u64);

impl Hash {
    fn add(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(4) {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0 ^ u64::from(u32::from_be_bytes(word))).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.0 ^= self.0 >> 29;
        }
    }

    fn finish(self) -> u32 {
        let mixed = self.0.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn checksum(words: impl Iterator<Item = u8>) -> u16 {
        let bytes: Vec<u8> = words.collect();
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    /// An IPv4 SYN with right checksums; `padding` NOPs stand before the MSS option.
    fn syn(mss: u16, padding: usize, ecn: u8) -> Vec<u8> {
        let options = (padding + 4).div_ceil(4) * 4;
        let mut p = vec![0u8; 40 + options];
        p[0] = 0x45;
        p[1] = ecn;
        let length = p.len() as u16;
        p[2..4].copy_from_slice(&length.to_be_bytes());
        p[8] = 64;
        p[9] = TCP;
        p[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        p[20..24].copy_from_slice(&[0x12, 0x34, 0, 80]);
        p[32] = ((20 + options) as u8 / 4) << 4;
        p[33] = SYN;
        p[40..40 + padding].fill(1);
        p[40 + padding..44 + padding].copy_from_slice(&[2, 4, (mss >> 8) as u8, mss as u8]);
        let ip = !checksum(p[..20].iter().copied());
        p[10..12].copy_from_slice(&ip.to_be_bytes());
        let tcp = !tcp_sum(&p);
        p[36..38].copy_from_slice(&tcp.to_be_bytes());
        p
    }

    fn tcp_sum(p: &[u8]) -> u16 {
        let length = (p.len() - 20) as u16;
        let pseudo = [0, TCP].into_iter().chain(length.to_be_bytes());
        checksum(p[12..20].iter().copied().chain(pseudo).chain(p[20..].iter().copied()))
    }

    #[test]
    fn flows_are_told_apart_and_acknowledgements_known() {
        let classifier = Classifier::new(1);
        let a = syn(1460, 0, 0);
        let mut b = a.clone();
        b[21] ^= 1;
        let (a, b) = (classifier.parse(&a).unwrap(), classifier.parse(&b).unwrap());
        assert_ne!(a.hash, b.hash);
        assert!(!a.pure_ack && a.tcp == Some(SYN));
        let mut ack = syn(1460, 0, 0);
        ack[33] = 0x10;
        assert!(classifier.parse(&ack).unwrap().pure_ack);
        ack.push(0);
        assert!(!classifier.parse(&ack).unwrap().pure_ack);
        assert_ne!(Classifier::new(2).parse(&ack).unwrap().hash, classifier.parse(&ack).unwrap().hash);
    }

    #[test]
    fn all_parts_of_a_fragmented_ipv6_packet_share_a_flow() {
        let classifier = Classifier::new(1);
        let part = |offset: u16, payload: &[u8]| {
            let mut p = vec![0; 48];
            p[0] = 0x60;
            p[6] = FRAGMENT;
            p[8..40].fill(7);
            // The fragments carry destination options; only the first part has their header.
            p[40] = DESTINATION;
            p[42..44].copy_from_slice(&(offset << 3 | 1).to_be_bytes());
            p.extend_from_slice(payload);
            classifier.parse(&p)
        };
        let first = part(0, &[UDP, 0, 1, 4, 0, 0, 0, 0, 0x12, 0x34, 0, 80]).unwrap();
        for payload in [&[0xff; 64][..], &[60, 200, 3], &[44], &[]] {
            assert_eq!(part(100, payload).map(|info| info.bucket), Some(first.bucket), "{payload:?}");
        }
    }

    #[test]
    fn congestion_is_marked_only_where_it_is_understood() {
        assert!(!mark_ce(&mut syn(1460, 0, 0)));
        let mut p = syn(1460, 0, 2);
        assert!(mark_ce(&mut p));
        assert_eq!((p[1], checksum(p[..20].iter().copied())), (3, 0xffff));
    }

    proptest! {
        #[test]
        fn a_clamped_segment_has_right_checksums(mss in 500u16..9000, padding in 0usize..7, limit in 500u16..2000) {
            let mut p = syn(mss, padding, 0);
            prop_assert_eq!(clamp_mss(&mut p, limit, 1), mss > limit);
            let at = 42 + padding;
            prop_assert_eq!(u16::from_be_bytes([p[at], p[at + 1]]), mss.min(limit));
            prop_assert_eq!(tcp_sum(&p), 0xffff);
        }

        #[test]
        fn any_bytes_are_read_without_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), version in 0u8..3) {
            if let (Some(first), 1..) = (bytes.first_mut(), version) {
                *first = *first & 15 | if version == 1 { 0x40 } else { 0x60 };
            }
            let _ = Classifier::new(3).parse(&bytes);
            let _ = (source(&bytes), destination(&bytes));
            mark_ce(&mut bytes);
            clamp_mss(&mut bytes, 100, 100);
        }
    }
}
