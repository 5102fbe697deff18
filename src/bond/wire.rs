//! What is inside the seal: the shim that every transport packet starts with, and control frames.
//!
//! The exact layout is in `docs/protocol.md`. All integers are big-endian. Parsing never trusts a length: a frame
//! that does not fit ends the packet.

use super::LinkId;

/// Bytes of the transport header, which is authenticated but not sealed.
pub const HEADER: usize = super::header::HEADER_LEN;
/// Bytes of the shim, the first thing inside the seal.
pub const SHIM: usize = super::header::SHIM_LEN;
/// Bytes of the authentication tag.
pub const TAG: usize = super::header::TAG_LEN;
/// Bytes that a data packet adds to the inner packet, besides UDP and IP.
pub const OVERHEAD: usize = HEADER + SHIM + TAG;
/// The most control bytes that ride in front of a data packet.
pub const MAX_PIGGYBACK: usize = 96;

/// The clock tick of times on the wire: 8 µs. 24 bits of it wrap after 134 s.
pub const TICK_NANOS: u64 = 8_000;
/// Times on the wire are counted modulo this.
pub const TICKS: u32 = 1 << 24;
/// Stands for "no delay measured" in a report.
pub const NO_DELAY: u32 = TICKS - 1;
/// Flow sequence numbers are counted modulo this.
pub const SEQUENCES: u32 = 1 << 20;
/// Number of flow buckets.
pub const BUCKETS: usize = 1 << 12;

/// Wire time of a point in time.
pub fn ticks(now: super::Time) -> u32 {
    ((now.as_nanos() / TICK_NANOS) % u64::from(TICKS)) as u32
}

/// The signed distance `a − b` of two wire times, in ticks, taking the shorter way round.
pub fn tick_distance(a: u32, b: u32) -> i32 {
    let d = a.wrapping_sub(b) & (TICKS - 1);
    if d >= TICKS / 2 { d as i32 - TICKS as i32 } else { d as i32 }
}

/// What a transport packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Control frames only.
    Control,
    /// A whole inner packet.
    Data,
    /// A part of an inner packet that is too long for the link.
    Fragment {
        /// Which part, from 0.
        index: u8,
        /// Of how many.
        count: u8,
    },
}

/// The first bytes inside the seal of every transport packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shim {
    /// What follows.
    pub kind: Kind,
    /// The receiver restores the order of this flow.
    pub ordered: bool,
    /// When the packet was sent, in [`ticks`] of the sender's clock.
    pub sent: u32,
    /// Flow bucket, below [`BUCKETS`].
    pub bucket: u16,
    /// Sequence number in the bucket, below [`SEQUENCES`].
    pub sequence: u32,
}

const KIND_CONTROL: u8 = 0;
const KIND_DATA: u8 = 1;
const KIND_FRAGMENT: u8 = 2;
const FLAG_ORDERED: u8 = 0x80;
const FLAG_PIGGYBACK: u8 = 0x40;

impl Shim {
    /// A shim of a packet of control frames.
    pub fn control(sent: u32) -> Self {
        Shim { kind: Kind::Control, ordered: false, sent, bucket: 0, sequence: 0 }
    }

    /// Appends the shim, the control frames that ride along (at most [`MAX_PIGGYBACK`] bytes) and the fragment byte.
    pub fn write(&self, piggyback: &[u8], out: &mut Vec<u8>) {
        let mut flags = match self.kind {
            Kind::Control => KIND_CONTROL,
            Kind::Data => KIND_DATA,
            Kind::Fragment { .. } => KIND_FRAGMENT,
        };
        if self.ordered {
            flags |= FLAG_ORDERED;
        }
        let rides = !piggyback.is_empty() && piggyback.len() <= MAX_PIGGYBACK;
        if rides {
            flags |= FLAG_PIGGYBACK;
        }
        out.extend_from_slice(&(u32::from(flags) << 24 | self.sent & (TICKS - 1)).to_be_bytes());
        out.extend_from_slice(
            &(u32::from(self.bucket) << 20 | self.sequence & (SEQUENCES - 1)).to_be_bytes(),
        );
        if rides {
            out.push(piggyback.len() as u8);
            out.extend_from_slice(piggyback);
        }
        if let Kind::Fragment { index, count } = self.kind {
            out.push(index << 4 | count & 0x0f);
        }
    }

    /// Splits opened bytes into shim, control frames and payload; `None` when they are not well-formed.
    pub fn parse(bytes: &[u8]) -> Option<(Shim, &[u8], &[u8])> {
        let (first, rest) = bytes.split_first_chunk::<4>()?;
        let (second, mut rest) = rest.split_first_chunk::<4>()?;
        let (first, second) = (u32::from_be_bytes(*first), u32::from_be_bytes(*second));
        let flags = (first >> 24) as u8;
        let mut frames: &[u8] = &[];
        if flags & FLAG_PIGGYBACK != 0 {
            let (&length, after) = rest.split_first()?;
            (frames, rest) = after.split_at_checked(usize::from(length))?;
        }
        let kind = match flags & !(FLAG_ORDERED | FLAG_PIGGYBACK) {
            KIND_CONTROL if frames.is_empty() => {
                (frames, rest) = (rest, &[]);
                Kind::Control
            }
            KIND_DATA => Kind::Data,
            KIND_FRAGMENT => {
                let (&part, after) = rest.split_first()?;
                rest = after;
                let (index, count) = (part >> 4, part & 0x0f);
                if count < 2 || index >= count {
                    return None;
                }
                Kind::Fragment { index, count }
            }
            _ => return None,
        };
        let shim = Shim {
            kind,
            ordered: flags & FLAG_ORDERED != 0,
            sent: first & (TICKS - 1),
            bucket: (second >> 20) as u16,
            sequence: second & (SEQUENCES - 1),
        };
        Some((shim, frames, rest))
    }
}

/// What a receiver has seen of one link, told to the sender (RFC 9002 has the idea, this the one-way delays).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    /// The link.
    pub link: LinkId,
    /// Highest packet number that came, low 32 bits.
    pub largest: u32,
    /// When it came, in [`ticks`] of the receiver's clock.
    pub received: u32,
    /// Ticks from its arrival to the sending of this report, at most 65535.
    pub hold: u16,
    /// Bytes on the line that came over this link so far, with IP and UDP headers, modulo 2^32.
    pub bytes: u32,
    /// Packets that came with the ECN mark CE, modulo 2^16.
    pub marked: u16,
    /// Smallest one-way delay (receiver's clock − sender's clock) of a short packet since the last report, or [`NO_DELAY`].
    pub short_delay: u32,
    /// The same of long packets ([`LONG_PACKET`] and more).
    pub long_delay: u32,
    /// Mean change of the delay between packets of like size, in ticks (RFC 3550, 6.4.1).
    pub jitter: u16,
    /// How many packets before `largest` came without a hole.
    pub run: u16,
    /// Bit i (least significant first): packet `largest − run − 1 − i` came.
    pub bitmap: &'a [u8],
}

/// Packets of this many bytes on the line count as long.
pub const LONG_PACKET: usize = 1000;
/// The longest bitmap of a [`Report`], in bytes.
pub const MAX_BITMAP: usize = 32;

/// What the client tells the server of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The client has the link in use.
    pub enabled: bool,
    /// Links with the lowest number are used first.
    pub priority: u8,
    /// Share under the policy `weighted`.
    pub weight: u16,
    /// It carries data only while no other link does.
    pub last_resort: bool,
    /// How often the client probes it while it is idle, in milliseconds; 0 when the server is to decide.
    pub keepalive_ms: u16,
    /// The most that the server shall send over the link, in kbit/s on the line; 0 without limit.
    pub download_kbit: u32,
    /// The longest IP packet that the line shall carry; 0 when it is to be found out.
    pub mtu: u16,
    /// Its name, for status pages; at most 15 bytes.
    pub name: String,
}

/// A control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// What came over a link.
    Report(Report<'a>),
    /// Asks for a report at once.
    Ping,
    /// Proves that the receiver of this answers where it was sent to; to be echoed.
    Challenge([u8; 8]),
    /// The echo of a challenge.
    Response([u8; 8]),
    /// Settings of the link that this packet came over.
    Hello(Hello),
    /// The sender uses the named link no more.
    Goodbye {
        /// The link.
        link: LinkId,
    },
    /// The session ends.
    Close,
    /// The packet of this flow bucket and sequence number will not be sent again.
    GiveUp {
        /// Flow bucket.
        bucket: u16,
        /// Sequence number in it.
        sequence: u32,
    },
    /// This packet was padded to `size` bytes on the line; to be acknowledged.
    MtuProbe {
        /// Bytes with IP and UDP headers.
        size: u16,
    },
    /// A probe of this size came through on the link.
    MtuReply {
        /// The link.
        link: LinkId,
        /// Bytes with IP and UDP headers.
        size: u16,
    },
    /// One of a train of packets sent back to back, by whose spacing the receiver sees the rate of the line.
    Train {
        /// Names the train.
        id: u8,
        /// Position in the train, from 0.
        index: u8,
        /// Length of the train.
        count: u8,
    },
    /// How a train arrived.
    TrainReply {
        /// The link.
        link: LinkId,
        /// The train's name.
        id: u8,
        /// Bytes that came after its first packet.
        bytes: u32,
        /// Ticks from its first packet to its last.
        ticks: u32,
    },
    /// A part of the client's list of classes ([`super::announcement`]).
    Classes {
        /// Names the list.
        generation: u8,
        /// Classes in the list.
        total: u16,
        /// Classes before this part.
        first: u16,
        /// The classes of this part, at most [`MAX_CLASS_BYTES`].
        classes: &'a [u8],
    },
    /// How many classes of a list the server holds.
    ClassesReply {
        /// Names the list.
        generation: u8,
        /// Classes.
        held: u16,
    },
    /// Asks for a handshake: the server has other settings to tell in it.
    Renew,
}

/// The longest part of a list of classes, in bytes.
pub const MAX_CLASS_BYTES: usize = 255;

const PADDING: u8 = 0;
const REPORT: u8 = 1;
const PING: u8 = 2;
const CHALLENGE: u8 = 3;
const RESPONSE: u8 = 4;
const HELLO: u8 = 5;
const GOODBYE: u8 = 6;
const CLOSE: u8 = 7;
const GIVE_UP: u8 = 8;
const MTU_PROBE: u8 = 9;
const MTU_REPLY: u8 = 10;
const TRAIN: u8 = 11;
const TRAIN_REPLY: u8 = 12;
const CLASSES: u8 = 13;
const CLASSES_REPLY: u8 = 14;
const RENEW: u8 = 15;

impl Frame<'_> {
    /// Appends the frame.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Report(r) => {
                out.extend_from_slice(&[REPORT, r.link]);
                out.extend_from_slice(&r.largest.to_be_bytes());
                put_u24(out, r.received);
                out.extend_from_slice(&r.hold.to_be_bytes());
                out.extend_from_slice(&r.bytes.to_be_bytes());
                out.extend_from_slice(&r.marked.to_be_bytes());
                put_u24(out, r.short_delay);
                put_u24(out, r.long_delay);
                out.extend_from_slice(&r.jitter.to_be_bytes());
                out.extend_from_slice(&r.run.to_be_bytes());
                let bitmap = &r.bitmap[..r.bitmap.len().min(MAX_BITMAP)];
                out.push(bitmap.len() as u8);
                out.extend_from_slice(bitmap);
            }
            Frame::Ping => out.push(PING),
            Frame::Challenge(token) => {
                out.push(CHALLENGE);
                out.extend_from_slice(token);
            }
            Frame::Response(token) => {
                out.push(RESPONSE);
                out.extend_from_slice(token);
            }
            Frame::Hello(hello) => {
                let flags = u8::from(hello.enabled) | u8::from(hello.last_resort) << 1;
                out.extend_from_slice(&[HELLO, flags, hello.priority]);
                out.extend_from_slice(&hello.weight.to_be_bytes());
                out.extend_from_slice(&hello.download_kbit.to_be_bytes());
                out.extend_from_slice(&hello.mtu.to_be_bytes());
                out.extend_from_slice(&hello.keepalive_ms.to_be_bytes());
                let name = &hello.name.as_bytes()[..hello.name.len().min(15)];
                out.push(name.len() as u8);
                out.extend_from_slice(name);
            }
            Frame::Goodbye { link } => out.extend_from_slice(&[GOODBYE, *link]),
            Frame::Close => out.push(CLOSE),
            Frame::Renew => out.push(RENEW),
            Frame::GiveUp { bucket, sequence } => {
                out.push(GIVE_UP);
                out.extend_from_slice(&(u32::from(*bucket) << 20 | sequence & (SEQUENCES - 1)).to_be_bytes());
            }
            Frame::MtuProbe { size } => {
                out.push(MTU_PROBE);
                out.extend_from_slice(&size.to_be_bytes());
            }
            Frame::MtuReply { link, size } => {
                out.extend_from_slice(&[MTU_REPLY, *link]);
                out.extend_from_slice(&size.to_be_bytes());
            }
            Frame::Train { id, index, count } => out.extend_from_slice(&[TRAIN, *id, *index, *count]),
            Frame::TrainReply { link, id, bytes, ticks } => {
                out.extend_from_slice(&[TRAIN_REPLY, *link, *id]);
                out.extend_from_slice(&bytes.to_be_bytes());
                out.extend_from_slice(&ticks.to_be_bytes());
            }
            Frame::Classes { generation, total, first, classes } => {
                out.extend_from_slice(&[CLASSES, *generation]);
                out.extend_from_slice(&total.to_be_bytes());
                out.extend_from_slice(&first.to_be_bytes());
                let classes = &classes[..classes.len().min(MAX_CLASS_BYTES)];
                out.push(classes.len() as u8);
                out.extend_from_slice(classes);
            }
            Frame::ClassesReply { generation, held } => {
                out.extend_from_slice(&[CLASSES_REPLY, *generation]);
                out.extend_from_slice(&held.to_be_bytes());
            }
        }
    }
}

/// Reads frames one after the other; ends at the first that is not well-formed.
pub struct Frames<'a>(&'a [u8]);

impl<'a> Frames<'a> {
    /// The frames in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Frames(bytes)
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|[b]| b)
    }

    fn link(&mut self) -> Option<LinkId> {
        self.u8().filter(|&link| usize::from(link) < super::MAX_LINKS)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn u24(&mut self) -> Option<u32> {
        self.take::<3>().map(|[a, b, c]| u32::from_be_bytes([0, a, b, c]))
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn frame(&mut self) -> Option<Frame<'a>> {
        let mut kind = self.u8()?;
        while kind == PADDING {
            kind = self.u8()?;
        }
        Some(match kind {
            REPORT => {
                let report = Report {
                    link: self.link()?,
                    largest: self.u32()?,
                    received: self.u24()?,
                    hold: self.u16()?,
                    bytes: self.u32()?,
                    marked: self.u16()?,
                    short_delay: self.u24()?,
                    long_delay: self.u24()?,
                    jitter: self.u16()?,
                    run: self.u16()?,
                    bitmap: &[],
                };
                let length = usize::from(self.u8()?);
                if length > MAX_BITMAP {
                    return None;
                }
                Frame::Report(Report { bitmap: self.slice(length)?, ..report })
            }
            PING => Frame::Ping,
            CHALLENGE => Frame::Challenge(self.take()?),
            RESPONSE => Frame::Response(self.take()?),
            HELLO => {
                let flags = self.u8()?;
                let (enabled, last_resort) = (flags & 1 != 0, flags & 2 != 0);
                let priority = self.u8()?;
                let weight = self.u16()?;
                let download_kbit = self.u32()?;
                let (mtu, keepalive_ms) = (self.u16()?, self.u16()?);
                let length = usize::from(self.u8()?);
                if length > 15 {
                    return None;
                }
                let name = std::str::from_utf8(self.slice(length)?).ok()?;
                if name.chars().any(char::is_control) {
                    return None;
                }
                Frame::Hello(Hello {
                    enabled,
                    priority,
                    weight,
                    last_resort,
                    keepalive_ms,
                    download_kbit,
                    mtu,
                    name: name.to_owned(),
                })
            }
            GOODBYE => Frame::Goodbye { link: self.link()? },
            CLOSE => Frame::Close,
            GIVE_UP => {
                let word = self.u32()?;
                Frame::GiveUp { bucket: (word >> 20) as u16, sequence: word & (SEQUENCES - 1) }
            }
            MTU_PROBE => Frame::MtuProbe { size: self.u16()? },
            MTU_REPLY => Frame::MtuReply { link: self.link()?, size: self.u16()? },
            TRAIN => Frame::Train { id: self.u8()?, index: self.u8()?, count: self.u8()? },
            TRAIN_REPLY => Frame::TrainReply {
                link: self.link()?,
                id: self.u8()?,
                bytes: self.u32()?,
                ticks: self.u32()?,
            },
            CLASSES => {
                let (generation, total, first) = (self.u8()?, self.u16()?, self.u16()?);
                let length = usize::from(self.u8()?);
                Frame::Classes { generation, total, first, classes: self.slice(length)? }
            }
            CLASSES_REPLY => Frame::ClassesReply { generation: self.u8()?, held: self.u16()? },
            RENEW => Frame::Renew,
            _ => return None,
        })
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let frame = self.frame();
        if frame.is_none() {
            self.0 = &[];
        }
        frame
    }
}

fn put_u24(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes()[1..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all_frames() -> Vec<Frame<'static>> {
        vec![
            Frame::Report(Report {
                link: 3,
                largest: 0xfffe_dcba,
                received: 0x12_3456,
                hold: 7,
                bytes: u32::MAX,
                marked: 9,
                short_delay: NO_DELAY,
                long_delay: 5,
                jitter: 11,
                run: 1000,
                bitmap: &[0xaa, 0x55],
            }),
            Frame::Ping,
            Frame::Challenge([7; 8]),
            Frame::Response([8; 8]),
            Frame::Hello(Hello {
                enabled: true,
                priority: 2,
                weight: 300,
                last_resort: true,
                keepalive_ms: 1_500,
                download_kbit: 20_000,
                mtu: 1492,
                name: "adsl1".into(),
            }),
            Frame::Goodbye { link: 31 },
            Frame::Close,
            Frame::GiveUp { bucket: 4095, sequence: SEQUENCES - 1 },
            Frame::MtuProbe { size: 1500 },
            Frame::MtuReply { link: 1, size: 1492 },
            Frame::Train { id: 1, index: 2, count: 10 },
            Frame::TrainReply { link: 0, id: 1, bytes: 15_000, ticks: 99 },
            Frame::Classes { generation: 1, total: 300, first: 256, classes: &[1, 2, 3] },
            Frame::ClassesReply { generation: 1, held: 257 },
            Frame::Renew,
        ]
    }

    #[test]
    fn frames_read_back_as_written() {
        let mut bytes = Vec::new();
        for frame in all_frames() {
            frame.write(&mut bytes);
            bytes.push(PADDING);
        }
        assert_eq!(Frames::new(&bytes).collect::<Vec<_>>(), all_frames());
    }

    #[test]
    fn a_shim_reads_back_with_what_rides_along() {
        let shim = Shim {
            kind: Kind::Fragment { index: 1, count: 2 },
            ordered: true,
            sent: 0xab_cdef,
            bucket: 4095,
            sequence: SEQUENCES - 1,
        };
        let mut bytes = Vec::new();
        shim.write(&[PING], &mut bytes);
        bytes.extend_from_slice(b"payload");
        assert_eq!(Shim::parse(&bytes), Some((shim, &[PING][..], &b"payload"[..])));
    }

    #[test]
    fn wire_time_wraps() {
        assert_eq!(tick_distance(3, TICKS - 2), 5);
        assert_eq!(tick_distance(TICKS - 2, 3), -5);
    }

    proptest! {
        #[test]
        fn frames_of_any_content_read_back_as_written(
            (link, id, index, count) in (0..crate::MAX_LINKS as LinkId, any::<u8>(), any::<u8>(), any::<u8>()),
            words in any::<[u32; 3]>(),
            halves in any::<[u16; 5]>(),
            bitmap in proptest::collection::vec(any::<u8>(), 0..=MAX_BITMAP),
            name in "[^\\p{Cc}]{0,3}",
        ) {
            let [largest, bytes, ticks] = words;
            let [hold, marked, jitter, run, mtu] = halves;
            let times = [largest, bytes, ticks].map(|time| time % TICKS);
            let frames = [
                Frame::Train { id, index, count },
                Frame::TrainReply { link, id, bytes, ticks },
                Frame::Report(Report {
                    link,
                    largest,
                    received: times[0],
                    hold,
                    bytes,
                    marked,
                    short_delay: times[1],
                    long_delay: times[2],
                    jitter,
                    run,
                    bitmap: &bitmap,
                }),
                Frame::Hello(Hello {
                    enabled: id & 1 != 0,
                    priority: index,
                    weight: marked,
                    last_resort: id & 2 != 0,
                    keepalive_ms: hold,
                    download_kbit: bytes,
                    mtu,
                    name,
                }),
                Frame::Renew,
            ];
            let mut written = Vec::new();
            frames.iter().for_each(|frame| frame.write(&mut written));
            prop_assert_eq!(Frames::new(&written).collect::<Vec<_>>(), frames);
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some((_, frames, _)) = Shim::parse(&bytes) {
                let _ = Frames::new(frames).count();
            }
            let _ = Frames::new(&bytes).count();
        }
    }
}
