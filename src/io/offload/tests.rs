use proptest::collection::vec;
use proptest::prelude::*;

use super::checksum::{fold, pseudo_header, sum};
use super::*;

const ACK: u8 = 0x10;
const ECE: u8 = 0x40;

/// A packet to be built; what a test does not care about stays as here.
#[derive(Clone, Debug)]
struct Plan {
    v6: bool,
    udp: bool,
    flow: u8,
    id: u16,
    /// "Don't fragment".
    atomic: bool,
    class: u8,
    sequence: u32,
    flags: u8,
    window: u16,
    /// The value of a time stamp option, if there is one.
    stamp: Option<u32>,
    payload: Vec<u8>,
}

impl Plan {
    fn tcp(sequence: u32, payload: &[u8]) -> Plan {
        Plan {
            v6: false,
            udp: false,
            flow: 1,
            id: 0,
            atomic: true,
            class: 0,
            sequence,
            flags: ACK,
            window: 500,
            stamp: None,
            payload: payload.to_vec(),
        }
    }

    fn build(&self) -> Vec<u8> {
        let mut transport = Vec::new();
        transport.extend_from_slice(&(1000 + u16::from(self.flow)).to_be_bytes());
        transport.extend_from_slice(&443u16.to_be_bytes());
        if self.udp {
            transport.extend_from_slice(&(8 + self.payload.len() as u16).to_be_bytes());
            transport.extend_from_slice(&[0, 0]);
        } else {
            let options: u8 = if self.stamp.is_some() { 3 } else { 0 };
            transport.extend_from_slice(&self.sequence.to_be_bytes());
            transport.extend_from_slice(&77u32.to_be_bytes());
            transport.extend_from_slice(&[(5 + options) << 4, self.flags]);
            transport.extend_from_slice(&self.window.to_be_bytes());
            transport.extend_from_slice(&[0; 4]);
            if let Some(stamp) = self.stamp {
                transport.extend_from_slice(&[1, 1, 8, 10]);
                transport.extend_from_slice(&stamp.to_be_bytes());
                transport.extend_from_slice(&[0, 0, 0, 9]);
            }
        }
        transport.extend_from_slice(&self.payload);
        let (protocol, at) = if self.udp { (UDP, 6) } else { (TCP, 16) };
        let mut packet = if self.v6 {
            let mut header = vec![0x60 | self.class >> 4, self.class << 4, 0, 5];
            header.extend_from_slice(&(transport.len() as u16).to_be_bytes());
            header.extend_from_slice(&[protocol, 64]);
            header.extend_from_slice(&[0xfd; 16]);
            header.extend_from_slice(&[0xfe; 16]);
            header
        } else {
            let mut header = vec![0x45, self.class];
            header.extend_from_slice(&(20 + transport.len() as u16).to_be_bytes());
            header.extend_from_slice(&self.id.to_be_bytes());
            header.extend_from_slice(&[if self.atomic { 0x40 } else { 0 }, 0, 64, protocol, 0, 0]);
            header.extend_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
            let checksum = !fold(sum(&header, 0));
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
            header
        };
        let addresses = if self.v6 { &packet[8..40] } else { &packet[12..20] };
        let checksum = !fold(sum(&transport, pseudo_header(addresses, protocol, transport.len())));
        let checksum = if self.udp && checksum == 0 { 0xffff } else { checksum };
        transport[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        packet.extend_from_slice(&transport);
        packet
    }
}

/// What the kernel is given for these packets.
fn coalesce(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut coalescer = Coalescer::new(true, true);
    let mut written = Vec::new();
    let mut sink = |bytes: &[u8]| written.push(bytes.to_vec());
    for packet in packets {
        coalescer.push(packet, &mut sink);
    }
    coalescer.flush(&mut sink);
    written
}

/// What the kernel would make of it.
fn take_apart(written: &[u8]) -> Vec<Vec<u8>> {
    let header = Header::read(written).expect("a header of ours");
    let mut segments =
        Segments::new(header, &written[HEADER_LEN..], 2048).expect("a super-packet that is in order");
    let mut out = [0; 2048];
    std::iter::from_fn(|| segments.next_into(&mut out).map(|len| out[..len].to_vec())).collect()
}

/// Without what has no meaning: the identification of packets that are never fragmented.
fn canonical(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if packet.first() == Some(&0x45) && packet.len() >= 20 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
        let checksum = !fold(sum(&packet[..20], 0));
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    }
    packet
}

/// The flow of a packet of [`Plan`], for which order counts.
fn flow(packet: &[u8]) -> (bool, bool, u8) {
    let v6 = packet[0] >> 4 == 6;
    let (protocol, transport) = if v6 { (packet[6], 40) } else { (packet[9], 20) };
    (v6, protocol == UDP, packet[transport + 1])
}

fn in_order_of_flows(packets: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut packets: Vec<_> = packets.iter().map(|packet| canonical(packet)).collect();
    packets.sort_by_key(|packet| flow(packet));
    packets
}

fn pieces(count: u32, len: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| Plan::tcp(n * len as u32, &vec![n as u8; len]).build()).collect()
}

#[test]
fn segments_that_follow_each_other_become_one() {
    let packets = pieces(10, 1000);
    let written = coalesce(&packets);
    assert_eq!(written.len(), 1);
    let header = Header::read(&written[0]).unwrap();
    assert_eq!(
        (header.segmentation, header.segment_size, header.checksum, header.header_len),
        (Some(Segmentation::TcpV4), 1000, Some((20, 16)), 40)
    );
    assert_eq!(written[0].len(), HEADER_LEN + 40 + 10_000);
    assert_eq!(in_order_of_flows(&take_apart(&written[0])), in_order_of_flows(&packets));
}

#[test]
fn a_super_packet_is_no_longer_than_an_ip_packet_can_be() {
    let packets = pieces(100, 1400);
    let written = coalesce(&packets);
    assert_eq!(written.len(), 3);
    assert!(written.iter().all(|bytes| bytes.len() <= HEADER_LEN + MAX_SUPER));
    let apart: Vec<_> = written.iter().flat_map(|bytes| take_apart(bytes)).collect();
    assert_eq!(in_order_of_flows(&apart), in_order_of_flows(&packets));
}

/// Whether `second` is joined to `first`.
fn joins(first: &Plan, second: &Plan) -> bool {
    coalesce(&[first.build(), second.build()]).len() == 1
}

#[test]
fn only_what_segmentation_makes_alike_is_joined() {
    let first = Plan::tcp(0, &[1; 100]);
    let next = Plan::tcp(100, &[2; 100]);
    assert!(joins(&first, &next));
    assert!(!joins(&first, &Plan { sequence: 101, ..next.clone() }), "a gap");
    assert!(!joins(&first, &Plan { sequence: 0, ..next.clone() }), "again");
    assert!(!joins(&first, &Plan { flow: 2, ..next.clone() }), "another port");
    assert!(!joins(&first, &Plan { class: 3, ..next.clone() }), "another ECN mark");
    assert!(!joins(&first, &Plan { window: 501, ..next.clone() }), "another window");
    assert!(!joins(&first, &Plan { stamp: Some(1), ..next.clone() }), "other options");
    assert!(!joins(&first, &Plan { flags: ACK | ECE, ..next.clone() }), "another flag");
    assert!(!joins(&first, &Plan { payload: vec![2; 101], ..next.clone() }), "a longer one");
    assert!(joins(&first, &Plan { payload: vec![2; 7], ..next.clone() }), "a shorter one is the last");
    assert!(joins(&first, &Plan { flags: ACK | PSH, ..next.clone() }), "PSH ends it");
    assert!(joins(&first, &Plan { flags: ACK | FIN, ..next.clone() }), "FIN ends it");
    for flag in [SYN, RST, URG, CWR] {
        assert!(!joins(&first, &Plan { flags: ACK | flag, ..next.clone() }), "flag {flag:#x}");
        assert!(!joins(&Plan { flags: ACK | flag, ..first.clone() }, &next), "flag {flag:#x} first");
    }
    assert!(!joins(&Plan { flags: ACK | PSH, ..first.clone() }, &next), "nothing follows PSH");
    let fragile = |id, plan: &Plan| Plan { atomic: false, id, ..plan.clone() };
    assert!(joins(&fragile(7, &first), &fragile(8, &next)));
    assert!(!joins(&fragile(7, &first), &fragile(9, &next)), "an identification that would change");
    let stamped = |stamp, plan: &Plan| Plan { stamp: Some(stamp), ..plan.clone() };
    assert!(joins(&stamped(5, &first), &stamped(5, &next)));
    assert!(!joins(&stamped(5, &first), &stamped(6, &next)), "another time stamp");
    let mut wrong = next.build();
    *wrong.last_mut().unwrap() ^= 1;
    let written = coalesce(&[first.build(), wrong.clone()]);
    assert_eq!(written.len(), 2, "a wrong checksum is not made right");
    assert_eq!(written[1][HEADER_LEN..], wrong);
}

#[test]
fn flows_in_turn_are_collected_side_by_side() {
    let packets: Vec<_> = (0..30)
        .map(|n| Plan { flow: (n % 3) as u8, ..Plan::tcp(n / 3 * 50, &[n as u8; 50]) }.build())
        .collect();
    assert_eq!(coalesce(&packets).len(), 3);
}

#[test]
fn more_flows_than_are_collected_keep_their_order() {
    let plan = |n: u32| Plan { flow: (n % 100) as u8, ..Plan::tcp(n / 100 * 50, &[n as u8; 50]) };
    let packets: Vec<_> = (0..1_000).map(|n| plan(n).build()).collect();
    let apart: Vec<_> = coalesce(&packets).iter().flat_map(|bytes| take_apart(bytes)).collect();
    assert_eq!(in_order_of_flows(&apart), in_order_of_flows(&packets));
}

#[test]
fn nothing_is_collected_that_the_kernel_does_not_take() {
    let mut coalescer = Coalescer::new(false, false);
    let mut written = Vec::new();
    for packet in pieces(5, 100) {
        coalescer.push(&packet, &mut |bytes: &[u8]| written.push(bytes.to_vec()));
        assert_eq!(written.last().unwrap()[..HEADER_LEN], Header::default().to_bytes());
        assert_eq!(written.last().unwrap()[HEADER_LEN..], packet);
    }
    assert_eq!(written.len(), 5);
}

/// As the kernel hands out a packet whose checksum a network card would complete.
fn with_partial_checksum(plan: &Plan) -> (Header, Vec<u8>) {
    let mut packet = plan.build();
    let (transport, at, protocol) = match (plan.v6, plan.udp) {
        (v6, true) => (if v6 { 40 } else { 20 }, 6, UDP),
        (v6, false) => (if v6 { 40 } else { 20 }, 16, TCP),
    };
    segmentation::make_partial(&mut packet, transport, at, protocol).unwrap();
    (Header { checksum: Some((transport as u16, at as u16)), ..Header::default() }, packet)
}

#[test]
fn a_checksum_that_was_left_to_us_is_completed() {
    for (v6, udp) in [(false, false), (false, true), (true, false), (true, true)] {
        let plan = Plan { v6, udp, ..Plan::tcp(9, b"odd") };
        let (header, packet) = with_partial_checksum(&plan);
        let mut segments = Segments::new(header, &packet, 2048).unwrap();
        let mut out = [0; 2048];
        let len = segments.next_into(&mut out).unwrap();
        assert_eq!(out[..len], plan.build());
        assert_eq!(segments.next_into(&mut out), None);
    }
}

#[test]
fn flags_of_a_super_packet_stay_with_the_segment_that_they_belong_to() {
    let plan = Plan { flags: ACK | PSH | FIN | CWR | ECE, ..Plan::tcp(u32::MAX - 99, &[5; 250]) };
    let (header, packet) = with_partial_checksum(&plan);
    let header = Header { segmentation: Some(Segmentation::TcpV4), segment_size: 100, ..header };
    let mut segments = Segments::new(header, &packet, 140).unwrap();
    let mut out = [0; 140];
    let mut next = || segments.next_into(&mut out).map(|len| out[..len].to_vec());
    let expected = [
        Plan { flags: ACK | CWR | ECE, payload: vec![5; 100], ..plan.clone() },
        Plan { id: 1, flags: ACK | ECE, sequence: 0, payload: vec![5; 100], ..plan.clone() },
        Plan { id: 2, flags: ACK | ECE | PSH | FIN, sequence: 100, payload: vec![5; 50], ..plan.clone() },
    ];
    for plan in expected {
        assert_eq!(next(), Some(plan.build()));
    }
    assert_eq!(next(), None);
}

#[test]
fn contradictions_are_refused() {
    let (header, packet) = with_partial_checksum(&Plan::tcp(0, &[1; 300]));
    let whole = Header { segmentation: Some(Segmentation::TcpV4), segment_size: 100, ..header };
    assert!(Segments::new(whole, &packet, 140).is_ok());
    for (why, header, packet, limit) in [
        ("a segment does not fit", whole, packet.as_slice(), 139),
        ("no checksum to complete", Header { checksum: None, ..whole }, &packet, 2048),
        ("another version", Header { segmentation: Some(Segmentation::TcpV6), ..whole }, &packet, 2048),
        ("another protocol", Header { segmentation: Some(Segmentation::Udp), ..whole }, &packet, 2048),
        ("no size", Header { segment_size: 0, ..whole }, &packet, 2048),
        ("inside the IP header", Header { checksum: Some((10, 16)), ..whole }, &packet, 2048),
        ("past the end", Header { checksum: Some((400, 16)), ..whole }, &packet, 2048),
        ("no payload", whole, &packet[..40], 2048),
        ("cut in the header", whole, &packet[..30], 2048),
        ("nothing", Header::default(), &[], 2048),
        ("too long", Header::default(), &packet, 339),
    ] {
        assert!(matches!(Segments::new(header, packet, limit), Err(Malformed)), "{why}");
    }
    let mut short = packet.clone();
    short[32] = 0x40;
    assert!(Segments::new(whole, &short, 2048).is_err(), "a TCP header of 16 bytes");
}

#[test]
fn headers_survive_the_way_to_bytes_and_back() {
    for segmentation in [None, Some(Segmentation::TcpV4), Some(Segmentation::TcpV6), Some(Segmentation::Udp)]
    {
        for checksum in [None, Some((40, 16))] {
            let header = Header { checksum, segmentation, segment_size: 1208, header_len: 60 };
            assert_eq!(Header::read(&header.to_bytes()), Some(header));
        }
    }
    assert_eq!(Header::read(&[0, 3, 0, 0, 0, 0, 0, 0, 0, 0]), None, "UFO, which was not agreed on");
    assert_eq!(Header::read(&[0; 9]), None);
}

/// Streams that are mostly in order, with gaps, copies, marks and changes, of several flows in turn.
fn traffic() -> impl Strategy<Value = Vec<Plan>> {
    let step = (0u8..4, any::<bool>(), any::<bool>(), 0u32..40, 1usize..200, any::<u8>());
    vec(step, 1..120).prop_map(|steps| {
        let mut next = std::collections::HashMap::new();
        let mut plans = Vec::new();
        for (n, (flow, v6, udp, chance, len, fill)) in steps.into_iter().enumerate() {
            let (sequence, id) = next.entry((flow, v6, udp)).or_insert((u32::MAX - 500, 65_530u16));
            let len = if chance > 10 { 100 } else { len };
            let mut plan = Plan {
                v6,
                udp,
                flow,
                id: *id,
                atomic: flow > 0,
                stamp: (flow == 2).then_some(n as u32 / 40),
                ..Plan::tcp(*sequence, &vec![fill; len])
            };
            match chance {
                0 => plan.flags |= FIN,
                1 => plan.flags |= PSH,
                2 => plan.flags |= CWR,
                3 => plan.class = 3,
                4 => plan.sequence = plan.sequence.wrapping_add(7),
                5 => plan.window += 1,
                6 => plan.payload.clear(),
                7 => plan.id = plan.id.wrapping_add(3),
                _ => {}
            }
            *sequence = plan.sequence.wrapping_add(plan.payload.len() as u32);
            *id = plan.id.wrapping_add(1);
            plans.push(plan);
        }
        plans
    })
}

proptest! {
    /// Segmentation undoes coalescing: no byte that has a meaning is changed, and no flow's order.
    #[test]
    fn what_goes_in_comes_out(plans in traffic()) {
        let packets: Vec<_> = plans.iter().map(Plan::build).collect();
        let apart: Vec<_> = coalesce(&packets).iter().flat_map(|bytes| take_apart(bytes)).collect();
        prop_assert_eq!(in_order_of_flows(&apart), in_order_of_flows(&packets));
    }

    /// And coalescing undoes segmentation, where nothing is lost.
    #[test]
    fn a_super_packet_comes_out_as_it_was(
        (v6, udp) in any::<(bool, bool)>(),
        payload in vec(any::<u8>(), 201..5000),
        size in 100u16..200,
        push in any::<bool>(),
        sequence in any::<u32>(),
    ) {
        let flags = if push { ACK | PSH } else { ACK };
        let plan = Plan { v6, udp, flags, payload, id: 1, ..Plan::tcp(sequence, &[]) };
        let (header, packet) = with_partial_checksum(&plan);
        let segmentation = Some(match (udp, v6) {
            (true, _) => Segmentation::Udp,
            (false, false) => Segmentation::TcpV4,
            (false, true) => Segmentation::TcpV6,
        });
        let transport = if udp { 8 } else { 20 };
        let header_len = header.checksum.map_or(0, |(start, _)| start + transport);
        let header = Header { segmentation, segment_size: size, header_len, ..header };
        let mut segments = Segments::new(header, &packet, 2048).unwrap();
        let mut out = [0; 2048];
        let parts: Vec<_> =
            std::iter::from_fn(|| segments.next_into(&mut out).map(|len| out[..len].to_vec())).collect();
        prop_assert_eq!(parts.len(), plan.payload.len().div_ceil(usize::from(size)));
        prop_assert_eq!(coalesce(&parts), [[&header.to_bytes()[..], &packet].concat()]);
    }

    /// Whatever a header says, segments stay within their bounds and come to an end.
    #[test]
    fn hostile_headers_do_no_harm(
        header in vec(any::<u8>(), HEADER_LEN),
        kind in prop::sample::select(vec![GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4]),
        offset in prop::sample::select(vec![6u16, 16, 500]),
        start in 0u16..100,
        plans in vec(any::<(bool, bool, Option<u32>)>(), 1),
        damage in vec((0usize..80, any::<u8>()), 0..4),
        len in 0usize..400,
    ) {
        let (v6, udp, stamp) = plans[0];
        let mut packet = Plan { v6, udp, stamp, ..Plan::tcp(0, &[3; 300]) }.build();
        packet.truncate(len);
        for (at, value) in damage {
            if let Some(byte) = packet.get_mut(at) {
                *byte = value;
            }
        }
        let mut chosen = header.clone();
        chosen[1] = kind;
        chosen[6..8].copy_from_slice(&start.to_ne_bytes());
        chosen[8..10].copy_from_slice(&offset.to_ne_bytes());
        for header in [header, chosen] {
            let Some(header) = Header::read(&header) else { continue };
            let Ok(mut segments) = Segments::new(header, &packet, 256) else { continue };
            let mut out = [0; 256];
            let mut total = 0;
            while let Some(len) = segments.next_into(&mut out) {
                prop_assert!(len <= 256);
                total += 1;
                prop_assert!(total <= packet.len());
            }
        }
    }

    /// Whatever the other end sends into the tunnel, every packet comes out once, and unchanged if it stands alone.
    #[test]
    fn hostile_packets_do_no_harm(
        plans in traffic(),
        damage in vec((any::<prop::sample::Index>(), 0usize..80, any::<u8>()), 0..20),
        noise in vec(vec(any::<u8>(), 0..100), 0..5),
    ) {
        let mut packets: Vec<_> = plans.iter().map(Plan::build).collect();
        for (which, at, value) in damage {
            let which = which.index(packets.len());
            match packets[which].get_mut(at) {
                Some(byte) => *byte = value,
                None => packets[which].truncate(usize::from(value)),
            }
        }
        packets.extend(noise);
        let written = coalesce(&packets);
        let mut apart = Vec::new();
        for bytes in &written {
            let header = Header::read(bytes).unwrap();
            match header.segmentation {
                Some(_) => apart.extend(take_apart(bytes)),
                None => apart.push(bytes[HEADER_LEN..].to_vec()),
            }
        }
        let sorted = |packets: &[Vec<u8>]| {
            let mut packets: Vec<_> = packets.iter().map(|packet| canonical(packet)).collect();
            packets.sort();
            packets
        };
        prop_assert_eq!(sorted(&apart), sorted(&packets));
    }
}
