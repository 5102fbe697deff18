//! ICMP and ICMPv6 messages of a gateway: errors (RFC 792, 1191, 4443) and echo replies.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Header, ICMP, ICMPV6, checksum, checksum_with_addresses, write_u16};

/// What a gateway tells the sender of a packet that it does not forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The next link takes packets of at most this many bytes.
    TooBig(usize),
    /// TTL or hop limit has run out.
    HopLimit,
    /// There is no way to the destination.
    Unreachable,
}

/// An ICMP error about `original` from a gateway's address; `None` about packets that deserve no answer (RFC 1122,
/// 3.2.2: ICMP errors, later fragments, multicast).
pub(crate) fn error(problem: Problem, from: IpAddr, original: &[u8]) -> Option<Vec<u8>> {
    let header = Header::parse(original)?;
    let deserves = !is_error(original, &header)
        && !header.is_later_fragment()
        && !header.destination.is_multicast()
        && !header.source.is_multicast()
        && !header.source.is_unspecified();
    if !deserves || from.is_ipv4() != header.source.is_ipv4() {
        return None;
    }
    let (kind, code, word) = match (problem, from.is_ipv4()) {
        (Problem::TooBig(mtu), true) => (3, 4, mtu as u32 & 0xffff),
        (Problem::TooBig(mtu), false) => (2, 0, mtu as u32),
        (Problem::HopLimit, true) => (11, 0, 0),
        (Problem::HopLimit, false) => (3, 0, 0),
        (Problem::Unreachable, true) => (3, 0, 0),
        (Problem::Unreachable, false) => (1, 0, 0),
    };
    // As much as fits into the packet that everybody must take: 576 and 1280 bytes.
    let quoted = if from.is_ipv4() { 576 - 28 } else { 1280 - 48 };
    let quoted = original.get(..header.length.min(quoted))?;
    let mut message = vec![kind, code, 0, 0];
    message.extend(word.to_be_bytes());
    message.extend(quoted);
    build(from, header.source, message)
}

/// The answer to an echo request; `None` when the packet is none.
pub(crate) fn echo_reply(packet: &[u8], header: &Header) -> Option<Vec<u8>> {
    let reply = match (header.protocol, packet.get(header.payload)?) {
        (ICMP, 8) => 0,
        (ICMPV6, 128) => 129,
        _ => return None,
    };
    if header.fragment.is_some() {
        return None;
    }
    let mut message = packet.get(header.payload..header.length)?.to_vec();
    *message.first_mut()? = reply;
    build(header.destination, header.source, message)
}

/// Whether the packet is an ICMP error, which quotes another packet from its ninth byte on.
pub(crate) fn is_error(packet: &[u8], header: &Header) -> bool {
    if header.is_later_fragment() {
        return false;
    }
    match (header.protocol, packet.get(header.payload)) {
        (ICMP, Some(kind)) => matches!(kind, 3 | 4 | 5 | 11 | 12),
        (ICMPV6, Some(kind)) => *kind < 128,
        _ => false,
    }
}

/// Computes the checksum of an ICMP message anew.
pub(crate) fn seal(packet: &mut [u8], header: &Header) {
    write_u16(packet, header.payload + 2, 0);
    let Some(message) = packet.get(header.payload..header.length) else { return };
    let checksum = if header.protocol == ICMPV6 {
        checksum_with_addresses(header.source, header.destination, ICMPV6, message)
    } else {
        checksum(&[message])
    };
    write_u16(packet, header.payload + 2, checksum);
}

/// An IP packet around an ICMP message, whose checksum is computed.
pub(crate) fn build(source: IpAddr, destination: IpAddr, message: Vec<u8>) -> Option<Vec<u8>> {
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4(source, destination, ICMP, message.len())?,
        (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6(source, destination, ICMPV6, message.len())?,
        _ => return None,
    };
    packet.extend(message);
    let header = Header::parse(&packet)?;
    seal(&mut packet, &header);
    Some(packet)
}

/// An IPv4 header; the payload is to be appended.
pub(crate) fn ipv4(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, payload: usize) -> Option<Vec<u8>> {
    let length = u16::try_from(20 + payload).ok()?;
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0];
    header.extend(source.octets());
    header.extend(destination.octets());
    write_u16(&mut header, 2, length);
    let checksum = checksum(&[&header]);
    write_u16(&mut header, 10, checksum);
    Some(header)
}

/// An IPv6 header; the payload is to be appended.
pub(crate) fn ipv6(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, payload: usize) -> Option<Vec<u8>> {
    let length = u16::try_from(payload).ok()?;
    // Neighbour discovery demands a hop limit of 255 (RFC 4861, 7.1); it suits everything else.
    let mut header = vec![0x60, 0, 0, 0, 0, 0, protocol, 255];
    header.extend(source.octets());
    header.extend(destination.octets());
    write_u16(&mut header, 4, length);
    Some(header)
}
