//! Makes super-packets of segments that follow each other, as the kernel's generic receive offload does.
//!
//! What goes in comes out unchanged once the kernel takes it apart again. So segments are joined only when every
//! header field is the same but those that segmentation counts on by itself; order within a flow is kept; nothing is
//! joined across a gap; and a wrong checksum stays visible to whom the packet belongs. The identification of an IPv4
//! packet that may not be fragmented has no meaning and may change (RFC 6864, section 4.1).

use super::checksum::{fold, pseudo_header, sum};
use super::segmentation::make_partial;
use super::{CWR, FIN, HEADER_LEN, Header, MAX_SUPER, PSH, RST, SYN, Segmentation, TCP, UDP, URG};

/// Flows of which packets are collected at the same time: a server has those of many peers in one turn.
const SLOTS: usize = 64;
/// Datagrams in one super-packet at the most (`UDP_MAX_SEGMENTS` of Linux before 6.10).
const MAX_DATAGRAMS: u16 = 64;

/// Where to put finished packets: an offload header and a packet behind it, in one piece.
pub trait Sink {
    /// Takes one.
    fn write(&mut self, header_and_packet: &[u8]);
}

impl<F: FnMut(&[u8])> Sink for F {
    fn write(&mut self, header_and_packet: &[u8]) {
        self(header_and_packet);
    }
}

/// Collects segments of several flows.
#[derive(Debug)]
pub struct Coalescer {
    tcp: bool,
    udp: bool,
    /// Filled ones first.
    slots: Vec<Slot>,
    /// A hash of the flow of each filled slot.
    flows: Vec<u32>,
    /// The slot that is to give way when all are filled, in turn.
    turn: usize,
    plain: Vec<u8>,
}

/// The beginning of a super-packet.
#[derive(Debug, Default)]
struct Slot {
    /// [`HEADER_LEN`] bytes of room and the packet so far.
    data: Vec<u8>,
    shape: Shape,
    /// Payload bytes of the first segment.
    size: u16,
    count: u16,
    next_sequence: u32,
    next_id: u16,
    closed: bool,
}

/// What is to be known of a packet in order to join it.
#[derive(Clone, Copy, Debug, Default)]
struct Shape {
    is_tcp: bool,
    is_v4: bool,
    transport: usize,
    payload: usize,
    sequence: u32,
    flags: u8,
    id: u16,
    atomic: bool,
}

/// How a packet is dealt with.
enum Kind {
    /// It may begin or continue a super-packet.
    Joinable(Shape),
    /// It must not overtake the packets of its flow, and joins none.
    Single(Shape),
    /// Nothing is known of its flow.
    Unknown,
}

impl Coalescer {
    /// A collector of TCP segments, UDP datagrams or both; what it does not collect it passes on.
    pub fn new(tcp: bool, udp: bool) -> Coalescer {
        Coalescer { tcp, udp, slots: Vec::new(), flows: Vec::new(), turn: 0, plain: Vec::new() }
    }

    /// Takes the next packet. What is finished by that goes to `sink`; call [`Coalescer::flush`] when no more packets
    /// are to be had without waiting.
    pub fn push(&mut self, packet: &[u8], sink: &mut impl Sink) {
        match self.classify(packet) {
            Kind::Joinable(shape) => self.join(packet, shape, sink),
            Kind::Single(shape) => {
                if let Some(at) = self.find(packet, &shape, shape.flow(packet)) {
                    self.finish(at, sink);
                }
                self.pass(packet, sink);
            }
            Kind::Unknown => {
                self.flush(sink);
                self.pass(packet, sink);
            }
        }
    }

    /// Gives out everything that was collected.
    pub fn flush(&mut self, sink: &mut impl Sink) {
        for slot in self.slots.iter_mut().take(self.flows.len()) {
            slot.write(sink);
        }
        self.flows.clear();
    }

    fn join(&mut self, packet: &[u8], shape: Shape, sink: &mut impl Sink) {
        let flow = shape.flow(packet);
        if let Some(at) = self.find(packet, &shape, flow) {
            if let Some(slot) = self.slots.get_mut(at)
                && slot.append(packet, &shape)
            {
                return;
            }
            self.finish(at, sink);
        }
        if shape.ends() {
            // Nothing may follow it, so it need not be collected.
            return self.pass(packet, sink);
        }
        if self.flows.len() == SLOTS {
            self.finish(self.turn, sink);
            self.turn = (self.turn + 1) % SLOTS;
        }
        if self.slots.len() == self.flows.len() {
            self.slots.push(Slot::default());
        }
        if let Some(slot) = self.slots.get_mut(self.flows.len()) {
            slot.begin(packet, shape);
            self.flows.push(flow);
        }
    }

    /// Gives out what slot `at` holds.
    fn finish(&mut self, at: usize, sink: &mut impl Sink) {
        if at < self.flows.len()
            && let Some(slot) = self.slots.get_mut(at)
        {
            slot.write(sink);
            self.flows.swap_remove(at);
            self.slots.swap(at, self.flows.len());
        }
    }

    fn pass(&mut self, packet: &[u8], sink: &mut impl Sink) {
        self.plain.clear();
        self.plain.extend_from_slice(&[0; HEADER_LEN]);
        self.plain.extend_from_slice(packet);
        sink.write(&self.plain);
    }

    fn find(&self, packet: &[u8], shape: &Shape, flow: u32) -> Option<usize> {
        let is_its = |at: usize| self.slots.get(at).is_some_and(|slot| slot.is_flow_of(packet, shape));
        // Most often it is the flow of the packet before.
        let mut filled = self.flows.iter().enumerate().rev();
        filled.find(|(at, known)| **known == flow && is_its(*at)).map(|(at, _)| at)
    }

    fn classify(&self, packet: &[u8]) -> Kind {
        let Some((mut shape, protocol)) = Shape::of_network(packet) else { return Kind::Unknown };
        let transport = packet.get(shape.transport..).unwrap_or_default();
        shape.is_tcp = protocol == TCP;
        let joins = match protocol {
            TCP => {
                let (Some(&offset), Some(&flags)) = (transport.get(12), transport.get(13)) else {
                    return Kind::Unknown;
                };
                let header = usize::from(offset >> 4) * 4;
                shape.payload = shape.transport + header;
                shape.flags = flags;
                shape.sequence =
                    transport.get(4..8).and_then(|b| b.first_chunk()).map_or(0, |b| u32::from_be_bytes(*b));
                // A window update or an acknowledgement alone carries nothing that could be joined.
                header >= 20
                    && shape.payload < packet.len()
                    && flags & (SYN | RST | URG | CWR) == 0
                    && self.tcp
            }
            UDP => {
                shape.payload = shape.transport + 8;
                let length =
                    transport.get(4..6).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_be_bytes(*b));
                let checksum = transport.get(6..8).unwrap_or(&[0, 0]);
                usize::from(length) == transport.len() && length > 8 && checksum != [0, 0] && self.udp
            }
            _ => return Kind::Unknown,
        };
        if joins && shape.is_intact(packet, protocol) { Kind::Joinable(shape) } else { Kind::Single(shape) }
    }
}

impl Shape {
    /// Reads the IP header; `None` when the packet has options, is a fragment or is not as long as it says.
    fn of_network(packet: &[u8]) -> Option<(Shape, u8)> {
        let mut shape = Shape::default();
        match packet.first()? {
            0x45 => {
                let header = packet.first_chunk::<20>()?;
                let fragment = u16::from_be_bytes([header[6], header[7]]);
                let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
                // The reserved bit, "more fragments" and the offset are 0.
                if fragment & 0xbfff != 0 || length != packet.len() || fold(sum(header, 0)) != 0xffff {
                    return None;
                }
                shape.is_v4 = true;
                shape.atomic = fragment & 0x4000 != 0;
                shape.id = u16::from_be_bytes([header[4], header[5]]);
                shape.transport = 20;
                Some((shape, header[9]))
            }
            first if first >> 4 == 6 => {
                let header = packet.first_chunk::<40>()?;
                let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
                shape.transport = 40;
                (length + 40 == packet.len()).then_some((shape, header[6]))
            }
            _ => None,
        }
    }

    /// A hash of addresses and ports: others may have the same.
    fn flow(&self, packet: &[u8]) -> u32 {
        let addresses = if self.is_v4 { 12..20 } else { 8..40 };
        let ports = packet.get(self.transport..self.transport + 4);
        let words = packet.get(addresses).into_iter().chain(ports).flat_map(|bytes| bytes.as_chunks().0);
        words.fold(u32::from(self.is_tcp), |hash, word| {
            (hash.rotate_left(7) ^ u32::from_ne_bytes(*word)).wrapping_mul(0x9e37_79b1)
        })
    }

    /// The transport checksum is right.
    fn is_intact(&self, packet: &[u8], protocol: u8) -> bool {
        let Some(transport) = packet.get(self.transport..) else { return false };
        let addresses = if self.is_v4 { packet.get(12..20) } else { packet.get(8..40) };
        let pseudo = pseudo_header(addresses.unwrap_or_default(), protocol, transport.len());
        fold(sum(transport, pseudo)) == 0xffff
    }

    /// Nothing can follow in the same super-packet.
    fn ends(&self) -> bool {
        self.is_tcp && self.flags & (FIN | PSH) != 0
    }
}

impl Slot {
    fn packet(&self) -> &[u8] {
        self.data.get(HEADER_LEN..).unwrap_or_default()
    }

    fn begin(&mut self, packet: &[u8], shape: Shape) {
        self.data.clear();
        if self.data.capacity() == 0 {
            // Memory that is not written to is not resident.
            self.data.reserve_exact(HEADER_LEN + MAX_SUPER);
        }
        self.data.extend_from_slice(&[0; HEADER_LEN]);
        self.data.extend_from_slice(packet);
        self.shape = shape;
        self.size = (packet.len() - shape.payload) as u16;
        self.count = 1;
        self.next_sequence = shape.sequence.wrapping_add(u32::from(self.size));
        self.next_id = shape.id.wrapping_add(1);
        self.closed = false;
    }

    fn is_flow_of(&self, packet: &[u8], shape: &Shape) -> bool {
        if (self.shape.is_v4, self.shape.is_tcp) != (shape.is_v4, shape.is_tcp) {
            return false;
        }
        let own = self.packet();
        let addresses = if shape.is_v4 { 12..20 } else { 8..40 };
        let ports = shape.transport..shape.transport + 4;
        own.get(ports.clone()) == packet.get(ports) && own.get(addresses.clone()) == packet.get(addresses)
    }

    /// Adds a packet of the same flow if it continues exactly where the last one ended.
    fn append(&mut self, packet: &[u8], shape: &Shape) -> bool {
        let Some(payload) = packet.get(shape.payload..) else { return false };
        let fits = self.packet().len() + payload.len() <= MAX_SUPER
            && payload.len() <= usize::from(self.size)
            && (shape.is_tcp || self.count < MAX_DATAGRAMS);
        if self.closed || !fits || shape.payload != self.shape.payload || !self.same_headers(packet, shape) {
            return false;
        }
        if shape.is_tcp && shape.sequence != self.next_sequence {
            return false;
        }
        self.data.extend_from_slice(payload);
        self.count += 1;
        self.next_sequence = self.next_sequence.wrapping_add(payload.len() as u32);
        self.next_id = self.next_id.wrapping_add(1);
        self.closed = payload.len() < usize::from(self.size) || shape.ends();
        if shape.ends()
            && let Some(flags) = self.data.get_mut(HEADER_LEN + shape.transport + 13)
        {
            *flags |= shape.flags & (FIN | PSH);
        }
        true
    }

    /// Every header field is the same, or differs as segmentation will make it differ.
    fn same_headers(&self, packet: &[u8], shape: &Shape) -> bool {
        let own = self.packet();
        let same = |range: std::ops::Range<usize>| own.get(range.clone()) == packet.get(range);
        let network = if shape.is_v4 {
            // Class; flags; time to live. The addresses were compared.
            let id = shape.id == self.next_id || shape.atomic;
            same(1..2) && same(6..7) && same(8..9) && id
        } else {
            // Version, class and flow label; hop limit.
            same(0..4) && same(7..8)
        };
        if !shape.is_tcp {
            return network;
        }
        let at = shape.transport;
        // Acknowledged, length, window, urgent pointer, options.
        network
            && same(at + 8..at + 13)
            && self.shape.flags & !(FIN | PSH) == shape.flags & !(FIN | PSH)
            && same(at + 14..at + 16)
            && same(at + 18..shape.payload)
    }

    /// Completes the headers and gives the packet out.
    fn write(&mut self, sink: &mut impl Sink) {
        if self.count > 1 {
            self.complete();
        }
        sink.write(&self.data);
        self.count = 0;
    }

    fn complete(&mut self) -> Option<()> {
        let (head, packet) = self.data.split_at_mut_checked(HEADER_LEN)?;
        let Shape { is_tcp, is_v4, transport, payload, .. } = self.shape;
        let len = packet.len();
        if is_v4 {
            packet.get_mut(2..4)?.copy_from_slice(&(len as u16).to_be_bytes());
            packet.get_mut(10..12)?.fill(0);
            let checksum = !fold(sum(packet.get(..20)?, 0));
            packet.get_mut(10..12)?.copy_from_slice(&checksum.to_be_bytes());
        } else {
            packet.get_mut(4..6)?.copy_from_slice(&((len - 40) as u16).to_be_bytes());
        }
        let (segmentation, offset, protocol) = match (is_tcp, is_v4) {
            (true, true) => (Segmentation::TcpV4, 16, TCP),
            (true, false) => (Segmentation::TcpV6, 16, TCP),
            (false, _) => {
                packet
                    .get_mut(transport + 4..transport + 6)?
                    .copy_from_slice(&((len - transport) as u16).to_be_bytes());
                (Segmentation::Udp, 6, UDP)
            }
        };
        make_partial(packet, transport, offset, protocol)?;
        let header = Header {
            checksum: Some((transport as u16, offset as u16)),
            segmentation: Some(segmentation),
            segment_size: self.size,
            header_len: payload as u16,
        };
        head.copy_from_slice(&header.to_bytes());
        Some(())
    }
}
