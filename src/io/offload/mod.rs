//! Packets larger than the device's MTU, as Linux exchanges them with a TUN device: pure functions, no I/O.
//!
//! With `IFF_VNET_HDR` a `struct virtio_net_hdr` ([`Header`], virtio 1.2, 5.1.6) stands before every packet. The kernel
//! hands out packets whose checksum is still to be completed, and *super-packets*: one header and the payload of many
//! segments ([`Segments`] takes them apart). It takes super-packets as well ([`Coalescer`] makes them from segments that
//! follow each other), so that one system call carries tens of packets in either direction.

pub mod checksum;
mod coalescing;
mod segmentation;

pub use coalescing::Coalescer;
pub use segmentation::{Malformed, Segments};

/// Length of [`Header`], in bytes (`sizeof(struct virtio_net_hdr)`, the kernel's default for `TUNGETVNETHDRSZ`).
pub const HEADER_LEN: usize = 10;

/// Longest super-packet, in bytes: an IPv4 packet's length has 16 bits.
pub const MAX_SUPER: usize = 65_535;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

const TCP: u8 = 6;
const UDP: u8 = 17;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH: u8 = 0x08;
const URG: u8 = 0x20;
const CWR: u8 = 0x80;

/// How the payload of a super-packet is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segmentation {
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over either, each segment a datagram.
    Udp,
}

/// What stands before a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Where the checksum is to be computed from, and where to put it behind that; `None` if it is complete.
    pub checksum: Option<(u16, u16)>,
    /// The packet is a super-packet.
    pub segmentation: Option<Segmentation>,
    /// Payload bytes of each segment but the last.
    pub segment_size: u16,
    /// Bytes before the payload; a hint only.
    pub header_len: u16,
}

impl Header {
    /// Reads a header; `None` if there is none or it names a segmentation that we have not allowed the kernel.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        let [flags, kind, h0, h1, s0, s1, c0, c1, o0, o1] = *bytes.first_chunk::<HEADER_LEN>()?;
        let field = |a, b| u16::from_ne_bytes([a, b]);
        let segmentation = match kind & !GSO_ECN {
            GSO_NONE => None,
            GSO_TCPV4 => Some(Segmentation::TcpV4),
            GSO_TCPV6 => Some(Segmentation::TcpV6),
            GSO_UDP_L4 => Some(Segmentation::Udp),
            _ => return None,
        };
        Some(Header {
            checksum: (flags & NEEDS_CSUM != 0).then(|| (field(c0, c1), field(o0, o1))),
            segmentation,
            segment_size: field(s0, s1),
            header_len: field(h0, h1),
        })
    }

    /// The header's bytes, in the host's order as the kernel expects.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let kind = match self.segmentation {
            None => GSO_NONE,
            Some(Segmentation::TcpV4) => GSO_TCPV4,
            Some(Segmentation::TcpV6) => GSO_TCPV6,
            Some(Segmentation::Udp) => GSO_UDP_L4,
        };
        let (start, offset) = self.checksum.unwrap_or_default();
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = if self.checksum.is_some() { NEEDS_CSUM } else { 0 };
        bytes[1] = kind;
        bytes[2..4].copy_from_slice(&self.header_len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.segment_size.to_ne_bytes());
        bytes[6..8].copy_from_slice(&start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&offset.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests;
