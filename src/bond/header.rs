//! The clear part of every datagram: the type byte, the transport header, and packet numbers cut to 24 bits.
//!
//! See `docs/protocol.md`, "Transport header and nonces".

use std::fmt;

/// The number of links that one bond can have; link ids are `0..MAX_LINKS`.
pub const MAX_LINKS: usize = 32;

/// The length of the transport header, in bytes.
pub const HEADER_LEN: usize = 8;

/// The length of the authentication tag at the end of every transport packet, in bytes.
pub const TAG_LEN: usize = bonding_ciphers::TAG_LEN;

/// The bytes behind the header that a [`Seal::Clear`] packet authenticates but does not encrypt.
pub const SHIM_LEN: usize = 8;

/// The type of a datagram: the three high bits of its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatagramType {
    /// A handshake initiation.
    Initiation = 1,
    /// A handshake response.
    Response = 2,
    /// A cookie reply.
    CookieReply = 3,
    /// A transport packet, encrypted and authenticated.
    Sealed = 4,
    /// A transport packet whose header and shim are authenticated and whose payload is in the clear.
    Clear = 5,
}

impl DatagramType {
    /// The type of `datagram`; `None` when it is empty or of a type that does not exist.
    pub fn of(datagram: &[u8]) -> Option<Self> {
        match datagram.first()? >> 5 {
            1 => Some(Self::Initiation),
            2 => Some(Self::Response),
            3 => Some(Self::CookieReply),
            4 => Some(Self::Sealed),
            5 => Some(Self::Clear),
            _ => None,
        }
    }

    /// The first four bytes of a handshake message: the type, and reserved bits that must be zero.
    pub(crate) const fn handshake_prefix(self) -> [u8; 4] {
        [(self as u8) << 5, 0, 0, 0]
    }
}

/// The number of a link within its bond: `0..32`, chosen by the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(u8);

impl LinkId {
    /// The link with this number; `None` for 32 and above.
    pub const fn new(number: u8) -> Option<Self> {
        if (number as usize) < MAX_LINKS { Some(LinkId(number)) } else { None }
    }

    /// The link's number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The link's number as an index into an array of [`MAX_LINKS`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// All link ids, in order.
    pub fn all() -> impl Iterator<Item = LinkId> {
        (0..MAX_LINKS as u8).map(LinkId)
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How much of a transport packet is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seal {
    /// Everything behind the header is encrypted and authenticated.
    Sealed,
    /// Nothing is encrypted, header and shim are authenticated, the payload is not: cipher `none`.
    Clear,
}

/// The header of a transport packet, eight bytes on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportHeader {
    /// How much of the packet is encrypted.
    pub seal: Seal,
    /// The link that the packet was sent over.
    pub link: LinkId,
    /// The low 24 bits of the packet number.
    pub packet_number: u32,
    /// The session index that the receiver chose.
    pub index: u32,
}

impl TransportHeader {
    /// Reads the header; `None` when `datagram` is too short or not a transport packet.
    pub fn read(datagram: &[u8]) -> Option<Self> {
        let &[first, p0, p1, p2, ref index @ ..] = datagram.first_chunk::<HEADER_LEN>()?;
        let seal = match first >> 5 {
            4 => Seal::Sealed,
            5 => Seal::Clear,
            _ => return None,
        };
        Some(TransportHeader {
            seal,
            link: LinkId(first & 0x1f),
            packet_number: u32::from_be_bytes([0, p0, p1, p2]),
            index: u32::from_be_bytes(*index),
        })
    }

    /// The header's bytes.
    pub fn to_bytes(self) -> [u8; HEADER_LEN] {
        let kind = match self.seal {
            Seal::Sealed => DatagramType::Sealed,
            Seal::Clear => DatagramType::Clear,
        };
        let [_, p0, p1, p2] = self.packet_number.to_be_bytes();
        let [i0, i1, i2, i3] = self.index.to_be_bytes();
        [(kind as u8) << 5 | self.link.0, p0, p1, p2, i0, i1, i2, i3]
    }
}

/// The full packet number of which `low` are the low 24 bits: the one nearest to `expected`, which is one above the
/// highest packet number received (RFC 9000, appendix A.3).
pub(crate) fn expand_packet_number(low: u32, expected: u64) -> u64 {
    const SPAN: u64 = 1 << 24;
    let candidate = (expected & !(SPAN - 1)) | u64::from(low & 0x00ff_ffff);
    if candidate.checked_add(SPAN / 2).is_some_and(|c| c <= expected) {
        candidate.checked_add(SPAN).unwrap_or(candidate)
    } else if candidate > expected.saturating_add(SPAN / 2) && candidate >= SPAN {
        candidate - SPAN
    } else {
        candidate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn header_bytes() {
        let header = TransportHeader {
            seal: Seal::Sealed,
            link: LinkId::new(3).unwrap(),
            packet_number: 0x01_0203,
            index: 0xa0b0_c0d0,
        };
        assert_eq!(header.to_bytes(), [0x83, 1, 2, 3, 0xa0, 0xb0, 0xc0, 0xd0]);
        let clear = TransportHeader { seal: Seal::Clear, link: LinkId::new(31).unwrap(), ..header };
        assert_eq!(clear.to_bytes()[0], 0xbf);
        assert_eq!(TransportHeader::read(&clear.to_bytes()), Some(clear));
        assert_eq!(TransportHeader::read(&clear.to_bytes()[..7]), None);
        assert_eq!(TransportHeader::read(&[0x20; 8]), None);
        assert_eq!(LinkId::new(32), None);
    }

    #[test]
    fn packet_numbers_of_rfc_9000() {
        // RFC 9000, appendix A.3, gives 16 bits: 0xa82f30ea expected, 0x9b32 received. The same with 24 bits.
        assert_eq!(expand_packet_number(0x829b32, 0xa82f_30eb), 0xa882_9b32);
        assert_eq!(expand_packet_number(0, 0), 0);
        assert_eq!(expand_packet_number(0xff_ffff, 0), 0xff_ffff, "there is nothing below zero");
        assert_eq!(expand_packet_number(0xff_ffff, 0x100_0000), 0xff_ffff);
        assert_eq!(expand_packet_number(0, 0xff_ffff), 0x100_0000);
    }

    proptest! {
        #[test]
        fn numbers_near_the_expected_one_come_back(expected in any::<u64>(), off in -0x80_0000_i64..0x80_0000) {
            let number = expected.saturating_add_signed(off);
            prop_assume!(number.abs_diff(expected) < 0x80_0000);
            prop_assert_eq!(expand_packet_number(number as u32 & 0xff_ffff, expected), number);
        }

        #[test]
        fn headers_round_trip(bytes in any::<[u8; 8]>()) {
            if let Some(header) = TransportHeader::read(&bytes) {
                prop_assert_eq!(header.to_bytes(), bytes);
            } else {
                prop_assert!(!matches!(bytes[0] >> 5, 4 | 5));
            }
        }
    }
}
