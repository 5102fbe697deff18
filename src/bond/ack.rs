//! Acknowledgements that say nothing new any more (RFC 3449, 5.2.1).
//!
//! Where an upload fills the lines, the acknowledgements of a download wait beside it, and each costs a packet of the
//! tunnel. One that waits and is followed by a later one of its connection has no news left, and makes room for it.
//! Anything that could be a signal to the sender stays: duplicates, SACK, a change of ECN's flags, any unknown option.

use super::ip::Ip;

const TCP: u8 = 6;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
/// The flags of an acknowledgement that may go: none but ECN's beside ACK (RFC 3168; RFC 9768 has a third in the byte
/// before).
const PLAIN: u8 = ACK | PSH | 0x40 | 0x80;

/// Whether all that `older` says is in `newer`. Both are IP packets; anything else gives false.
pub fn supersedes(newer: &[u8], older: &[u8]) -> bool {
    let (Some(newer), Some(older)) = (Acknowledgement::parse(newer), Acknowledgement::parse(older)) else {
        return false;
    };
    let stamps = match (newer.stamp, older.stamp) {
        (None, None) => true,
        (Some(newer), Some(older)) => !is_after(older, newer),
        _ => false,
    };
    newer.path == older.path
        && newer.ports == older.ports
        && newer.flags == older.flags
        && is_after(newer.number, older.number)
        && !is_after(older.sequence, newer.sequence)
        && stamps
}

/// A TCP segment that acknowledges and does nothing else.
struct Acknowledgement<'a> {
    /// Addresses, and the octets before them that decide how a packet is treated.
    path: (&'a [u8], &'a [u8]),
    ports: &'a [u8],
    sequence: u32,
    number: u32,
    /// Without PSH, which says nothing where there is no data.
    flags: (u8, u8),
    /// Of the timestamps option (RFC 7323).
    stamp: Option<u32>,
}

impl<'a> Acknowledgement<'a> {
    fn parse(packet: &'a [u8]) -> Option<Self> {
        let ip = Ip::parse(packet)?;
        // Without options of IPv4 and extension headers of IPv6, which would have to be compared as well.
        let (plain, treatment) = match packet.first()? >> 4 {
            4 => (ip.payload == 20, packet.get(..2)?),
            _ => (ip.payload == 40, packet.get(..4)?),
        };
        let segment = packet.get(ip.payload..)?;
        let header = usize::from(*segment.get(12)? >> 4) * 4;
        let flags = *segment.get(13)?;
        if !plain || !ip.whole || ip.protocol != TCP || segment.len() != header {
            return None;
        }
        if flags & ACK == 0 || flags & !PLAIN != 0 {
            return None;
        }
        let word = |at: usize| Some(u32::from_be_bytes(*segment.get(at..)?.first_chunk()?));
        Some(Acknowledgement {
            path: (treatment, ip.addresses),
            ports: segment.get(..4)?,
            sequence: word(4)?,
            number: word(8)?,
            flags: (*segment.get(12)? & 0x0f, flags & !PSH),
            stamp: only_timestamps(segment.get(20..)?)?,
        })
    }
}

/// The timestamp's value; `None` when there is any other option.
fn only_timestamps(mut options: &[u8]) -> Option<Option<u32>> {
    let mut stamp = None;
    loop {
        options = match options {
            [] | [0, ..] => return Some(stamp),
            [1, rest @ ..] => rest,
            [8, 10, a, b, c, d, _, _, _, _, rest @ ..] => {
                stamp = Some(u32::from_be_bytes([*a, *b, *c, *d]));
                rest
            }
            _ => return None,
        };
    }
}

/// Order of numbers that wrap around (RFC 1982).
fn is_after(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Segment {
        v6: bool,
        sequence: u32,
        number: u32,
        flags: u8,
        options: Vec<u8>,
        payload: usize,
    }

    const BASE: Segment =
        Segment { v6: false, sequence: 7, number: 1000, flags: ACK, options: vec![], payload: 0 };

    fn stamps(value: u32) -> Vec<u8> {
        [&[1, 1, 8, 10][..], &value.to_be_bytes(), &[9; 4]].concat()
    }

    impl Segment {
        fn bytes(&self) -> Vec<u8> {
            let mut p = if self.v6 { vec![0; 40] } else { vec![0; 20] };
            if self.v6 {
                (p[0], p[6], p[7]) = (0x60, TCP, 64);
            } else {
                (p[0], p[8], p[9]) = (0x45, 64, TCP);
            }
            let at = p.len();
            p.resize(at + 20, 0);
            p[at..at + 4].copy_from_slice(&[0x12, 0x34, 0, 80]);
            p[at + 4..at + 8].copy_from_slice(&self.sequence.to_be_bytes());
            p[at + 8..at + 12].copy_from_slice(&self.number.to_be_bytes());
            p[at + 12] = ((20 + self.options.len()) as u8 / 4) << 4;
            p[at + 13] = self.flags;
            p.extend(&self.options);
            p.resize(p.len() + self.payload, 1);
            p
        }
    }

    #[test]
    fn a_later_acknowledgement_says_all_that_an_older_one_says() {
        for v6 in [false, true] {
            let older = Segment { v6, ..BASE }.bytes();
            assert!(supersedes(&Segment { v6, number: 1001, ..BASE }.bytes(), &older));
            assert!(supersedes(&Segment { v6, number: 1001, flags: ACK | PSH, ..BASE }.bytes(), &older));
        }
        let wrapped = Segment { number: u32::MAX - 5, ..BASE }.bytes();
        assert!(supersedes(&Segment { number: 3, ..BASE }.bytes(), &wrapped));
        let stamped = |number, value| Segment { number, options: stamps(value), ..BASE }.bytes();
        assert!(supersedes(&stamped(1001, 5), &stamped(1000, 5)));
        assert!(!supersedes(&stamped(1001, 4), &stamped(1000, 5)), "an older timestamp");
        assert!(!supersedes(&Segment { number: 1001, ..BASE }.bytes(), &stamped(1000, 5)));
    }

    #[test]
    fn what_may_be_a_signal_stays() {
        let next = || Segment { number: 1001, ..BASE }.bytes();
        for (what, older) in [
            ("a duplicate", Segment { number: 1001, ..BASE }),
            ("a later one", Segment { number: 1002, ..BASE }),
            ("a later sequence", Segment { sequence: 8, ..BASE }),
            ("SACK", Segment { options: [&[1, 1, 5, 10][..], &[0; 8]].concat(), ..BASE }),
            ("an unknown option", Segment { options: vec![30, 4, 0, 0], ..BASE }),
            ("an option that is cut", Segment { options: vec![8, 10, 0, 0], ..BASE }),
            ("an echo of congestion", Segment { flags: ACK | 0x40, ..BASE }),
            ("FIN", Segment { flags: ACK | 0x01, ..BASE }),
            ("data", Segment { payload: 1, ..BASE }),
            ("another family", Segment { v6: true, ..BASE }),
        ] {
            assert!(!supersedes(&next(), &older.bytes()), "{what}");
        }
        for (at, what) in
            [(1, "its class"), (6, "a fragment"), (12, "its sender"), (23, "its port"), (32, "a flag of ECN")]
        {
            let mut older = BASE.bytes();
            older[at] ^= 0x21;
            assert!(!supersedes(&next(), &older), "{what}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(a in proptest::collection::vec(any::<u8>(), 0..80), cut in 0usize..60) {
            let whole = Segment { number: 1001, options: stamps(1), ..BASE }.bytes();
            let part = &whole[..cut.min(whole.len())];
            prop_assert!(!supersedes(part, &BASE.bytes()) && !supersedes(&whole, part));
            let _ = (supersedes(&a, &whole), supersedes(&whole, &a), supersedes(&a, &a));
        }
    }
}
