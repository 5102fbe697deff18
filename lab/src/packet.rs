//! IP packets as bytes: reading the header, changing addresses and ports with their checksums.
//!
//! Every function takes any bytes; what is not a packet gives `None` or `false`.

pub(crate) mod ethernet;
pub(crate) mod icmp;
#[cfg(test)]
pub(crate) mod tests;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

const IPV6_HEADER: usize = 40;
/// IPv6 extension headers that are skipped: hop-by-hop options, routing, destination options (RFC 8200).
const SKIPPED_EXTENSIONS: [u8; 3] = [0, 43, 60];
const FRAGMENT_EXTENSION: u8 = 44;

/// What the IP header of a packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// Protocol of the payload (behind IPv6 extension headers).
    pub protocol: u8,
    /// Where the payload begins.
    pub payload: usize,
    /// Length of the whole packet, as the header has it.
    pub length: usize,
    /// TTL or hop limit.
    pub hop_limit: u8,
    /// IPv4: the bit "don't fragment"; IPv6: always, as nobody on the way may.
    pub dont_fragment: bool,
    /// Set when this is a fragment of a packet.
    pub fragment: Option<Fragment>,
}

/// A fragment's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Identification, the same in all fragments of a packet.
    pub id: u32,
    /// Where its payload begins in that of the whole packet, in bytes.
    pub offset: usize,
    /// Whether more follow.
    pub more: bool,
}

/// One end of a packet's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

impl Header {
    /// Reads the header of an IPv4 or IPv6 packet; `None` for anything else and for one that is cut short.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        Self::parse_start(packet).filter(|header| header.length <= packet.len())
    }

    /// As [`Header::parse`], for a packet of which only the start is there (in an ICMP error).
    pub(crate) fn parse_start(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => parse_v4(packet),
            6 => parse_v6(packet),
            _ => None,
        }
    }

    /// Whether the packet is a fragment without the start, in which the ports are.
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset > 0)
    }

    /// Source and destination port of UDP and TCP, the identifier (twice) of an ICMP echo.
    pub fn ports(&self, packet: &[u8]) -> Option<(u16, u16)> {
        let (source, destination) = self.port_places(packet)?;
        Some((read_u16(packet, source)?, read_u16(packet, destination)?))
    }

    fn port_places(&self, packet: &[u8]) -> Option<(usize, usize)> {
        if self.is_later_fragment() {
            return None;
        }
        match self.protocol {
            TCP | UDP => Some((self.payload, self.payload + 2)),
            ICMP if matches!(packet.get(self.payload)?, 0 | 8) => Some((self.payload + 4, self.payload + 4)),
            ICMPV6 if matches!(packet.get(self.payload)?, 128 | 129) => {
                Some((self.payload + 4, self.payload + 4))
            }
            _ => None,
        }
    }

    /// Where the checksum of the payload is, and whether it covers the addresses.
    fn checksum_place(&self) -> Option<(usize, bool)> {
        if self.is_later_fragment() {
            return None;
        }
        match self.protocol {
            TCP => Some((self.payload + 16, true)),
            UDP => Some((self.payload + 6, true)),
            ICMPV6 => Some((self.payload + 2, true)),
            ICMP => Some((self.payload + 2, false)),
            _ => None,
        }
    }
}

fn parse_v4(packet: &[u8]) -> Option<Header> {
    let header = packet.get(..20)?;
    let payload = usize::from(header[0] & 0xf) * 4;
    let length = usize::from(read_u16(header, 2)?);
    if payload < 20 || length < payload {
        return None;
    }
    let flags = read_u16(header, 6)?;
    let (more, offset) = (flags & 0x2000 != 0, usize::from(flags & 0x1fff) * 8);
    let id = u32::from(read_u16(header, 4)?);
    Some(Header {
        source: IpAddr::V4(Ipv4Addr::from(read_array::<4>(header, 12)?)),
        destination: IpAddr::V4(Ipv4Addr::from(read_array::<4>(header, 16)?)),
        protocol: header[9],
        payload,
        length,
        hop_limit: header[8],
        dont_fragment: flags & 0x4000 != 0,
        fragment: (more || offset > 0).then_some(Fragment { id, offset, more }),
    })
}

fn parse_v6(packet: &[u8]) -> Option<Header> {
    let header = packet.get(..IPV6_HEADER)?;
    let length = IPV6_HEADER + usize::from(read_u16(header, 4)?);
    let (mut protocol, mut payload, mut fragment) = (header[6], IPV6_HEADER, None);
    loop {
        if SKIPPED_EXTENSIONS.contains(&protocol) {
            let extension = read_array::<2>(packet, payload)?;
            protocol = extension[0];
            payload += 8 + usize::from(extension[1]) * 8;
        } else if protocol == FRAGMENT_EXTENSION {
            let extension = read_array::<8>(packet, payload)?;
            protocol = extension[0];
            payload += 8;
            let place = u16::from_be_bytes([extension[2], extension[3]]);
            let id = u32::from_be_bytes([extension[4], extension[5], extension[6], extension[7]]);
            let found = Fragment { id, offset: usize::from(place & !7), more: place & 1 != 0 };
            fragment = Some(found);
            if found.offset > 0 {
                break;
            }
        } else {
            break;
        }
    }
    Some(Header {
        source: IpAddr::V6(Ipv6Addr::from(read_array::<16>(header, 8)?)),
        destination: IpAddr::V6(Ipv6Addr::from(read_array::<16>(header, 24)?)),
        protocol,
        payload,
        length,
        hop_limit: header[7],
        dont_fragment: true,
        fragment,
    })
}

/// Takes one from TTL or hop limit. The packet must have parsed; the caller has seen that it is above 1.
pub(crate) fn decrement_hop_limit(packet: &mut [u8], header: &Header) {
    if header.source.is_ipv6() {
        if let Some(limit) = packet.get_mut(7) {
            *limit = limit.saturating_sub(1);
        }
        return;
    }
    let Some(old) = read_u16(packet, 8) else { return };
    let new = old.saturating_sub(0x100);
    write_u16(packet, 8, new);
    let mut change = ChecksumChange::default();
    change.replace(old, new);
    change.apply(packet, 10);
}

/// Changes the address, and the port if one is given, at one end of a packet, with all checksums. Works on the start
/// of a packet too. `false` when the port or the address cannot be there.
pub(crate) fn set_endpoint(
    packet: &mut [u8],
    header: &Header,
    end: End,
    address: IpAddr,
    port: Option<u16>,
) -> bool {
    let mut addresses = ChecksumChange::default();
    let place = match (header.source, address, end) {
        (IpAddr::V4(_), IpAddr::V4(_), End::Source) => 12,
        (IpAddr::V4(_), IpAddr::V4(_), End::Destination) => 16,
        (IpAddr::V6(_), IpAddr::V6(_), End::Source) => 8,
        (IpAddr::V6(_), IpAddr::V6(_), End::Destination) => 24,
        _ => return false,
    };
    let replaced = match address {
        IpAddr::V4(address) => addresses.replace_bytes(packet, place, &address.octets()),
        IpAddr::V6(address) => addresses.replace_bytes(packet, place, &address.octets()),
    };
    if !replaced {
        return false;
    }
    if address.is_ipv4() {
        addresses.apply(packet, 10);
    }
    let mut ports = ChecksumChange::default();
    if let Some(port) = port {
        let Some((source, destination)) = header.port_places(packet) else { return false };
        let place = if end == End::Source { source } else { destination };
        if !ports.replace_bytes(packet, place, &port.to_be_bytes()) {
            return false;
        }
    }
    if let Some((place, covers_addresses)) = header.checksum_place() {
        // A UDP checksum of 0 says that there is none (RFC 768).
        if header.protocol != UDP || read_u16(packet, place).is_some_and(|checksum| checksum != 0) {
            let mut change = ports;
            if covers_addresses {
                change.join(addresses);
            }
            change.apply(packet, place);
            if header.protocol == UDP && read_u16(packet, place) == Some(0) {
                write_u16(packet, place, 0xffff);
            }
        }
    }
    true
}

/// Cuts an IPv4 packet into fragments of at most `mtu` bytes (RFC 791), as a router does with a packet whose DF bit is
/// not set. `None` when it is no such packet or the MTU has no room for payload.
pub(crate) fn fragment_v4(packet: &[u8], header: &Header, mtu: usize) -> Option<Vec<Vec<u8>>> {
    if header.source.is_ipv6() || header.dont_fragment {
        return None;
    }
    let (head, body) = packet.get(..header.length)?.split_at_checked(header.payload)?;
    let piece = mtu.checked_sub(header.payload)? & !7;
    if piece == 0 {
        return None;
    }
    let (first_offset, more_after) = header.fragment.map_or((0, false), |own| (own.offset, own.more));
    let pieces = body.chunks(piece).enumerate().map(|(i, chunk)| {
        let offset = first_offset + i * piece;
        let last = (i + 1) * piece >= body.len();
        let mut fragment = [head, chunk].concat();
        let flags = u16::from(!last || more_after) << 13;
        let length = fragment.len() as u16;
        write_u16(&mut fragment, 2, length);
        write_u16(&mut fragment, 6, flags | (offset / 8) as u16);
        write_u16(&mut fragment, 10, 0);
        let checksum = checksum(&[fragment.get(..header.payload).unwrap_or_default()]);
        write_u16(&mut fragment, 10, checksum);
        fragment
    });
    Some(pieces.collect())
}

/// The internet checksum (RFC 1071) of these bytes in a row; all parts but the last have an even length.
pub(crate) fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum: u64 = 0;
    for part in parts {
        let mut words = part.chunks_exact(2);
        sum += words.by_ref().map(|word| u64::from(u16::from_be_bytes([word[0], word[1]]))).sum::<u64>();
        sum += words.remainder().first().map_or(0, |last| u64::from(*last) << 8);
    }
    !fold(sum)
}

/// The checksum of a payload that covers the addresses too: TCP, UDP, ICMPv6 (RFC 8200, 8.1).
pub(crate) fn checksum_with_addresses(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: &[u8],
) -> u16 {
    let mut pseudo = Vec::with_capacity(40);
    for address in [source, destination] {
        match address {
            IpAddr::V4(address) => pseudo.extend(address.octets()),
            IpAddr::V6(address) => pseudo.extend(address.octets()),
        }
    }
    pseudo.extend((payload.len() as u32).to_be_bytes());
    pseudo.extend([0, 0, 0, protocol]);
    checksum(&[&pseudo, payload])
}

/// A change of words under an internet checksum (RFC 1624, equation 3).
#[derive(Clone, Copy, Debug, Default)]
struct ChecksumChange(u64);

impl ChecksumChange {
    fn replace(&mut self, old: u16, new: u16) {
        self.0 += u64::from(!old) + u64::from(new);
    }

    /// Overwrites bytes (an even number at an even place) and notes the change; `false` when they are not there.
    fn replace_bytes(&mut self, packet: &mut [u8], place: usize, new: &[u8]) -> bool {
        let Some(old) = packet.get_mut(place..place + new.len()) else { return false };
        for (old, new) in old.chunks_exact(2).zip(new.chunks_exact(2)) {
            self.replace(u16::from_be_bytes([old[0], old[1]]), u16::from_be_bytes([new[0], new[1]]));
        }
        old.copy_from_slice(new);
        true
    }

    fn join(&mut self, other: Self) {
        self.0 += other.0;
    }

    fn apply(self, packet: &mut [u8], place: usize) {
        if let Some(checksum) = read_u16(packet, place) {
            write_u16(packet, place, !fold(u64::from(!checksum) + self.0));
        }
    }
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

pub(crate) fn read_array<const N: usize>(bytes: &[u8], place: usize) -> Option<[u8; N]> {
    bytes.get(place..place + N)?.try_into().ok()
}

pub(crate) fn read_u16(bytes: &[u8], place: usize) -> Option<u16> {
    read_array(bytes, place).map(u16::from_be_bytes)
}

/// Writes where there is room.
pub(crate) fn write_u16(bytes: &mut [u8], place: usize, value: u16) {
    if let Some(to) = bytes.get_mut(place..place + 2) {
        to.copy_from_slice(&value.to_be_bytes());
    }
}
