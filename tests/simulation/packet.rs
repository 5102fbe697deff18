//! Real IPv4 packets of the modelled flows: what a tunnel sees must be what a kernel would send.
//!
//! Every packet has valid checksums, DF set, and an IP identification that counts the packets of its flow and
//! direction, so that the far end can tell loss, duplicates and reordering by the tunnel from the sender's own
//! retransmissions.

use std::net::Ipv4Addr;

/// Address of the host behind the client.
pub const CLIENT_HOST: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
/// Address of the host behind the server.
pub const SERVER_HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
/// Port (or ICMP identifier) of flow 0 at the client's host; flow n has this plus n.
pub const FIRST_PORT: u16 = 10_000;
/// Port of all flows at the server's host.
pub const SERVER_PORT: u16 = 443;

/// TCP flags.
pub const SYN: u8 = 0x02;
/// See [`SYN`].
pub const ACK: u8 = 0x10;
/// ECN echo (RFC 3168).
pub const ECE: u8 = 0x40;
/// Congestion window reduced (RFC 3168).
pub const CWR: u8 = 0x80;

/// ECN codepoint ECT(0).
pub const ECT0: u8 = 2;
/// ECN codepoint "congestion experienced".
pub const CE: u8 = 3;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const IP_HEADER: usize = 20;

/// One end of the tunnel and the host behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    Client,
    Server,
}

impl Side {
    /// Both, in the order of their index.
    pub const BOTH: [Side; 2] = [Side::Client, Side::Server];

    /// 0 for the client, 1 for the server.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The far side.
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// The fields of a TCP header that the model uses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TcpHeader {
    pub seq: u32,
    pub ack: u32,
    pub flags: u8,
    /// Unscaled, as on the wire.
    pub window: u16,
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    pub sack_permitted: bool,
    /// TSval and TSecr (RFC 7323).
    pub timestamps: Option<(u32, u32)>,
    /// At most three blocks fit beside the timestamps.
    pub sack: Vec<(u32, u32)>,
}

/// What a packet carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    Tcp { header: TcpHeader, payload: usize },
    Udp { payload: Vec<u8> },
    Echo { reply: bool, sequence: u16, payload: Vec<u8> },
}

/// A packet as the far end reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The flow it belongs to, from its port or identifier.
    pub flow: usize,
    /// The side whose host sent it.
    pub from: Side,
    /// The ECN codepoint.
    pub ecn: u8,
    /// The IP identification, see [`stamp`].
    pub id: u16,
    pub content: Content,
}

/// Bytes of the IP and TCP headers of a data segment with timestamps.
pub const TCP_OVERHEAD: usize = 52;

/// A TCP segment of `flow` from the host at `from`.
pub fn tcp(flow: usize, from: Side, header: &TcpHeader, payload: usize, ecn: u8) -> Vec<u8> {
    let mut options = Vec::with_capacity(40);
    if let Some(mss) = header.mss {
        options.extend([2, 4]);
        options.extend(mss.to_be_bytes());
    }
    if header.sack_permitted {
        options.extend([4, 2, 1, 1]);
    }
    if let Some((value, echo)) = header.timestamps {
        options.extend([1, 1, 8, 10]);
        options.extend(value.to_be_bytes());
        options.extend(echo.to_be_bytes());
    }
    if let Some(scale) = header.window_scale {
        options.extend([1, 3, 3, scale]);
    }
    if !header.sack.is_empty() {
        options.extend([1, 1, 5, 2 + 8 * header.sack.len() as u8]);
        for (start, end) in &header.sack {
            options.extend(start.to_be_bytes());
            options.extend(end.to_be_bytes());
        }
    }
    assert!(options.len() <= 40, "TCP options do not fit");
    let tcp_header = 20 + options.len();
    let mut packet = ip(from, TCP, tcp_header + payload, ecn);
    let (source, target) = ports(flow, from);
    packet.extend(source.to_be_bytes());
    packet.extend(target.to_be_bytes());
    packet.extend(header.seq.to_be_bytes());
    packet.extend(header.ack.to_be_bytes());
    packet.extend([(tcp_header as u8 / 4) << 4, header.flags]);
    packet.extend(header.window.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend(options);
    // A payload that differs from byte to byte costs time and shows nothing more than its first bytes do.
    packet.resize(IP_HEADER + tcp_header + payload, 0);
    if payload >= 4 {
        packet[IP_HEADER + tcp_header..][..4].copy_from_slice(&header.seq.to_be_bytes());
    }
    seal(&mut packet, TCP, 16);
    packet
}

/// A UDP packet of `flow` from the host at `from`; `size` is the whole IP packet.
pub fn udp(flow: usize, from: Side, payload: &[u8], size: usize) -> Vec<u8> {
    let length = (size - IP_HEADER).max(8 + payload.len());
    let mut packet = ip(from, UDP, length, 0);
    let (source, target) = ports(flow, from);
    packet.extend(source.to_be_bytes());
    packet.extend(target.to_be_bytes());
    packet.extend((length as u16).to_be_bytes());
    packet.extend([0; 2]);
    packet.extend(payload);
    packet.resize(IP_HEADER + length, 0);
    seal(&mut packet, UDP, 6);
    packet
}

/// An ICMP echo request, or the reply to one.
pub fn echo(flow: usize, from: Side, reply: bool, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = ip(from, ICMP, 8 + payload.len(), 0);
    packet.extend([if reply { 0 } else { 8 }, 0, 0, 0]);
    packet.extend((FIRST_PORT + flow as u16).to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend(payload);
    let checksum = !fold(sum(&packet[IP_HEADER..]));
    packet[IP_HEADER + 2..][..2].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// Writes the IP identification and the header checksum.
pub fn stamp(packet: &mut [u8], id: u16) {
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[10..12].fill(0);
    let checksum = !fold(sum(&packet[..IP_HEADER]));
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Reads a packet; `None` when it is not exactly what a host of the model may have sent.
pub fn parse(packet: &[u8]) -> Option<Parsed> {
    let header = packet.get(..IP_HEADER)?;
    let length = usize::from(u16_at(header, 2)?);
    if header[0] != 0x45 || length != packet.len() || fold(sum(header)) != 0xffff {
        return None;
    }
    let source = Ipv4Addr::from(<[u8; 4]>::try_from(&header[12..16]).ok()?);
    let target = Ipv4Addr::from(<[u8; 4]>::try_from(&header[16..20]).ok()?);
    let from = match (source, target) {
        (CLIENT_HOST, SERVER_HOST) => Side::Client,
        (SERVER_HOST, CLIENT_HOST) => Side::Server,
        _ => return None,
    };
    let protocol = header[9];
    let body = &packet[IP_HEADER..];
    let (port, content) = match protocol {
        ICMP => {
            if fold(sum(body)) != 0xffff {
                return None;
            }
            let reply = *body.first()? == 0;
            (
                u16_at(body, 4)?,
                Content::Echo { reply, sequence: u16_at(body, 6)?, payload: body.get(8..)?.into() },
            )
        }
        UDP | TCP => {
            if fold(pseudo_header(header, protocol, body.len()) + sum(body)) != 0xffff {
                return None;
            }
            let port = if from == Side::Client { u16_at(body, 0)? } else { u16_at(body, 2)? };
            if protocol == UDP {
                (port, Content::Udp { payload: body.get(8..)?.into() })
            } else {
                let (header, offset) = parse_tcp(body)?;
                (port, Content::Tcp { header, payload: body.len() - offset })
            }
        }
        _ => return None,
    };
    let flow = usize::from(port.checked_sub(FIRST_PORT)?);
    Some(Parsed { flow, from, ecn: header[1] & 3, id: u16_at(header, 4)?, content })
}

fn parse_tcp(body: &[u8]) -> Option<(TcpHeader, usize)> {
    let offset = usize::from(*body.get(12)? >> 4) * 4;
    let mut header = TcpHeader {
        seq: u32_at(body, 4)?,
        ack: u32_at(body, 8)?,
        flags: *body.get(13)?,
        window: u16_at(body, 14)?,
        ..TcpHeader::default()
    };
    let mut options = body.get(20..offset)?;
    while let [kind, rest @ ..] = options {
        match kind {
            0 => break,
            1 => options = rest,
            _ => {
                let length = usize::from(*rest.first()?);
                let value = options.get(2..length)?;
                match kind {
                    2 => header.mss = Some(u16_at(value, 0)?),
                    3 => header.window_scale = value.first().copied(),
                    4 => header.sack_permitted = true,
                    5 => {
                        for block in value.chunks_exact(8) {
                            header.sack.push((u32_at(block, 0)?, u32_at(block, 4)?));
                        }
                    }
                    8 => header.timestamps = Some((u32_at(value, 0)?, u32_at(value, 4)?)),
                    _ => return None,
                }
                options = &options[length..];
            }
        }
    }
    Some((header, offset))
}

fn ip(from: Side, protocol: u8, length: usize, ecn: u8) -> Vec<u8> {
    let total = IP_HEADER + length;
    let mut packet = Vec::with_capacity(total);
    packet.extend([0x45, ecn]);
    packet.extend((total as u16).to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    let (source, target) = match from {
        Side::Client => (CLIENT_HOST, SERVER_HOST),
        Side::Server => (SERVER_HOST, CLIENT_HOST),
    };
    packet.extend(source.octets());
    packet.extend(target.octets());
    packet
}

fn ports(flow: usize, from: Side) -> (u16, u16) {
    let port = FIRST_PORT + flow as u16;
    match from {
        Side::Client => (port, SERVER_PORT),
        Side::Server => (SERVER_PORT, port),
    }
}

/// Writes the checksum of the transport header, which is at `offset` in it.
fn seal(packet: &mut [u8], protocol: u8, offset: usize) {
    let length = packet.len() - IP_HEADER;
    let checksum = !fold(pseudo_header(packet, protocol, length) + sum(&packet[IP_HEADER..]));
    // 0 would say "no checksum" in UDP (RFC 768); in one's complement 0xffff is the same number.
    let checksum = if checksum == 0 { 0xffff } else { checksum };
    packet[IP_HEADER + offset..][..2].copy_from_slice(&checksum.to_be_bytes());
}

fn pseudo_header(header: &[u8], protocol: u8, length: usize) -> u64 {
    sum(&header[12..20]) + u64::from(protocol) + length as u64
}

/// The sum of the 16-bit words (RFC 1071), not folded.
fn sum(bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(4);
    let mut total: u64 =
        words.by_ref().map(|w| u64::from(u32::from_be_bytes([w[0], w[1], w[2], w[3]]))).sum();
    let mut tail = [0; 4];
    tail[..words.remainder().len()].copy_from_slice(words.remainder());
    total += u64::from(u32::from_be_bytes(tail));
    total
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_read_as_it_was_written() {
        let header = TcpHeader {
            seq: 0xffff_fff0,
            ack: 7,
            flags: ACK | ECE,
            window: 99,
            timestamps: Some((1, 2)),
            sack: vec![(5, 9), (20, 30), (40, 41)],
            ..TcpHeader::default()
        };
        let mut packet = tcp(3, Side::Server, &header, 1001, CE);
        stamp(&mut packet, 77);
        let parsed = parse(&packet).expect("valid");
        let content = Content::Tcp { header, payload: 1001 };
        assert_eq!(parsed, Parsed { flow: 3, from: Side::Server, ecn: CE, id: 77, content });
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let header = TcpHeader { flags: ACK, timestamps: Some((1, 2)), ..TcpHeader::default() };
        let mut packet = tcp(0, Side::Client, &header, 50, 0);
        stamp(&mut packet, 1);
        assert!(parse(&packet).is_some());
        for i in 0..packet.len() {
            let mut wrong = packet.clone();
            wrong[i] ^= 0x10;
            assert!(parse(&wrong).is_none(), "byte {i}");
        }
    }

    #[test]
    fn a_syn_carries_what_a_linux_syn_does() {
        let header = TcpHeader {
            flags: SYN,
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some((9, 0)),
            ..TcpHeader::default()
        };
        let mut packet = tcp(0, Side::Client, &header, 0, 0);
        stamp(&mut packet, 0);
        assert_eq!(packet.len(), 64);
        assert_eq!(parse(&packet).expect("valid").content, Content::Tcp { header, payload: 0 });
    }
}
