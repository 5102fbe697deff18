//! Netlink messages: requests written, answers and announcements read, field by field.
//!
//! Only the few kinds of message and attribute that a router's links need, by the numbers of the kernel's own headers
//! (`linux/netlink.h`, `linux/rtnetlink.h`). A full model of every message that the kernel knows is a third of a
//! router's program, and a kernel newer than the model confuses it.
//!
//! Nothing that is read is trusted: every length is checked, and what is cut off is not there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Family;

/// Length of `struct nlmsghdr`, in bytes.
pub(super) const HEADER_LEN: usize = 16;

// linux/netlink.h: flags of a request.
pub(super) const NLM_F_REQUEST: u16 = 0x1;
pub(super) const NLM_F_ACK: u16 = 0x4;
pub(super) const NLM_F_REPLACE: u16 = 0x100;
pub(super) const NLM_F_EXCL: u16 = 0x200;
pub(super) const NLM_F_DUMP: u16 = 0x300;
pub(super) const NLM_F_CREATE: u16 = 0x400;

// linux/netlink.h: flags of an answer.
pub(super) const NLM_F_MULTI: u16 = 0x2;
pub(super) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(super) const NLM_F_CAPPED: u16 = 0x100;
pub(super) const NLM_F_ACK_TLVS: u16 = 0x200;

/// Set in the kind of an attribute that holds further attributes.
const NLA_F_NESTED: u16 = 1 << 15;
/// The bits of an attribute's kind that are none: nested, and in network byte order.
const NLA_FLAGS: u16 = NLA_F_NESTED | 1 << 14;

/// Length of an attribute's header: its length and its kind.
const ATTRIBUTE_HEADER_LEN: usize = 4;

/// A request to the kernel.
#[derive(Clone, Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// A message of `kind` (`RTM_…`) that begins with the kernel's structure for it.
    pub(super) fn new(kind: u16, structure: &[u8]) -> Request {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        let mut request = Request { bytes };
        request.append(structure);
        request
    }

    /// With an attribute.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Request {
        let len = u16::try_from(ATTRIBUTE_HEADER_LEN + value.len()).expect("attributes are short");
        self.append(&[len.to_ne_bytes(), kind.to_ne_bytes()].concat());
        self.append(value);
        self
    }

    /// With an attribute that is a number.
    pub(super) fn with_u32(self, kind: u16, value: u32) -> Request {
        self.with(kind, &value.to_ne_bytes())
    }

    /// With an attribute that is an IP address.
    pub(super) fn with_ip(self, kind: u16, value: IpAddr) -> Request {
        match value {
            IpAddr::V4(address) => self.with(kind, &address.octets()),
            IpAddr::V6(address) => self.with(kind, &address.octets()),
        }
    }

    /// With an attribute that is a text, which the kernel wants to end with a zero.
    pub(super) fn with_text(self, kind: u16, value: &str) -> Request {
        self.with(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// With an attribute that holds those that `fill` adds.
    pub(super) fn with_nested(mut self, kind: u16, fill: impl FnOnce(Request) -> Request) -> Request {
        let start = self.bytes.len();
        self.append(&[0; ATTRIBUTE_HEADER_LEN]);
        let mut filled = fill(self);
        let len = u16::try_from(filled.bytes.len() - start).expect("attributes are short");
        filled.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        filled.bytes[start + 2..start + 4].copy_from_slice(&kind.to_ne_bytes());
        filled
    }

    /// The bytes to send.
    pub(super) fn finish(&mut self, flags: u16, sequence: u32) -> &[u8] {
        let len = u32::try_from(self.bytes.len()).expect("requests are short");
        self.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
        self.bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        &self.bytes
    }

    /// Everything begins at a multiple of four bytes.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A message from the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    /// `RTM_…` or `NLMSG_…`.
    pub(super) kind: u16,
    /// `NLM_F_…`.
    pub(super) flags: u16,
    /// That of the request to which it answers.
    pub(super) sequence: u32,
    /// What follows the header.
    pub(super) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The first message of a datagram, and the rest of it. `None` at the end, or where nothing sensible follows.
    pub(super) fn split(bytes: &'a [u8]) -> Option<(Message<'a>, &'a [u8])> {
        let len = usize::try_from(u32_at(bytes, 0)?).ok()?;
        let message = Message {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            body: bytes.get(HEADER_LEN..len)?,
        };
        let after = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((message, after))
    }

    /// The attributes behind the kernel's structure, which has `structure` bytes.
    pub(super) fn attributes(&self, structure: usize) -> Attributes<'a> {
        Attributes { rest: self.body.get(structure..).unwrap_or_default() }
    }
}

/// Attributes one after the other: kind and value.
#[derive(Clone, Debug)]
pub(super) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Those in an attribute's value.
    pub(super) fn nested(value: &'a [u8]) -> Attributes<'a> {
        Attributes { rest: value }
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16_at(self.rest, 0)?);
        let kind = u16_at(self.rest, 2)? & !NLA_FLAGS;
        let value = self.rest.get(ATTRIBUTE_HEADER_LEN..len)?;
        self.rest = self.rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// The number of a family in the kernel's structures.
pub(super) fn family_number(family: Family) -> u8 {
    // AF_INET (2) and AF_INET6 (10) fit.
    match family {
        Family::V4 => libc::AF_INET as u8,
        Family::V6 => libc::AF_INET6 as u8,
    }
}

/// The family of a message from the kernel; `None` for those that do not concern us (MPLS, bridges, multicast).
pub(super) fn family(number: u8) -> Option<Family> {
    match libc::c_int::from(number) {
        libc::AF_INET => Some(Family::V4),
        libc::AF_INET6 => Some(Family::V6),
        _ => None,
    }
}

/// An address of the family.
pub(super) fn ip(family: Family, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        Family::V4 => <[u8; 4]>::try_from(bytes).ok().map(|octets| Ipv4Addr::from(octets).into()),
        Family::V6 => <[u8; 16]>::try_from(bytes).ok().map(|octets| Ipv6Addr::from(octets).into()),
    }
}

/// A text, which ends with a zero.
pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_ne_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let v6: IpAddr = "2001:db8::1".parse().unwrap();
        let mut request = Request::new(libc::RTM_GETLINK, &[1, 2, 3, 4, 5])
            .with_text(3, "eth0")
            .with_u32(4, 1500)
            .with_ip(5, v6)
            .with(6 | NLA_F_NESTED, &[5, 0, 9, 0, 7]);
        let bytes = request.finish(NLM_F_REQUEST | NLM_F_ACK, 77).to_vec();
        assert_eq!(bytes.len() % 4, 0);
        let (message, rest) = Message::split(&bytes).unwrap();
        assert!(rest.is_empty());
        assert_eq!((message.kind, message.flags, message.sequence), (libc::RTM_GETLINK, 5, 77));
        assert_eq!(message.body[..8], [1, 2, 3, 4, 5, 0, 0, 0]);
        let found: Vec<_> = message.attributes(8).collect();
        assert_eq!(found.len(), 4);
        assert_eq!(text(found[0].1), "eth0");
        assert_eq!(u32_at(found[1].1, 0), Some(1500));
        assert_eq!(ip(Family::V6, found[2].1), Some(v6));
        assert_eq!(ip(Family::V4, found[2].1), None);
        assert_eq!(found[3].0, 6);
        assert_eq!(Attributes::nested(found[3].1).collect::<Vec<_>>(), [(9, [7].as_slice())]);
    }

    #[test]
    fn attributes_within_attributes() {
        let mut request = Request::new(libc::RTM_NEWLINK, &[])
            .with_nested(18, |info| info.with_text(1, "bond").with_nested(2, |data| data.with(1, &[4])))
            .with_u32(4, 1500);
        let bytes = request.finish(0, 1).to_vec();
        let (message, _) = Message::split(&bytes).unwrap();
        let outer: Vec<_> = message.attributes(0).collect();
        assert_eq!(outer.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [18, 4]);
        let inner: Vec<_> = Attributes::nested(outer[0].1).collect();
        assert_eq!(text(inner[0].1), "bond");
        assert_eq!(Attributes::nested(inner[1].1).collect::<Vec<_>>(), [(1, [4].as_slice())]);
    }

    #[test]
    fn attributes_that_lie_end_the_list() {
        // Shorter than their own header, longer than what is there, cut within the header.
        for bytes in [&[0, 0, 1, 0, 9][..], &[3, 0, 1, 0], &[8, 0, 1, 0, 1, 2], &[8, 0, 1]] {
            assert_eq!(Attributes::nested(bytes).count(), 0, "{bytes:?}");
        }
        // The padding of the last one may be missing.
        assert_eq!(Attributes::nested(&[5, 0, 1, 0, 9]).count(), 1);
    }
}
