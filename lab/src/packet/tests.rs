//! Packets with known bytes, and checksums computed the slow way.

use super::ethernet::Frame;
use super::icmp::Problem;
use super::*;
use crate::random::Random;

/// A UDP packet with correct checksums.
pub(crate) fn udp(source: (&str, u16), destination: (&str, u16), payload: &[u8]) -> Vec<u8> {
    transport(UDP, source, destination, payload)
}

fn transport(protocol: u8, source: (&str, u16), destination: (&str, u16), payload: &[u8]) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (source.0.parse().unwrap(), destination.0.parse().unwrap());
    let mut segment = Vec::new();
    segment.extend(source.1.to_be_bytes());
    segment.extend(destination.1.to_be_bytes());
    let place = if protocol == UDP {
        segment.extend((8 + payload.len() as u16).to_be_bytes());
        segment.extend([0, 0]);
        6
    } else {
        segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
        16
    };
    segment.extend(payload);
    let sum = checksum_with_addresses(from, to, protocol, &segment);
    write_u16(&mut segment, place, sum);
    let mut packet = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => icmp::ipv4(from, to, protocol, segment.len()).unwrap(),
        (IpAddr::V6(from), IpAddr::V6(to)) => icmp::ipv6(from, to, protocol, segment.len()).unwrap(),
        _ => panic!("mixed families"),
    };
    packet.extend(segment);
    packet
}

/// An echo request.
pub(crate) fn echo(source: &str, destination: &str, id: u16) -> Vec<u8> {
    let (from, to): (IpAddr, IpAddr) = (source.parse().unwrap(), destination.parse().unwrap());
    let mut message = vec![if from.is_ipv4() { 8 } else { 128 }, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend([0, 1, 1, 2, 3]);
    icmp::build(from, to, message).unwrap()
}

/// Whether all checksums are right, computed anew.
pub(crate) fn is_sound(packet: &[u8]) -> bool {
    let Some(header) = Header::parse(packet) else { return false };
    let ip_ok = header.source.is_ipv6() || checksum(&[&packet[..header.payload]]) == 0;
    let payload = &packet[header.payload..header.length];
    let payload_ok = match header.protocol {
        ICMP => checksum(&[payload]) == 0,
        protocol => checksum_with_addresses(header.source, header.destination, protocol, payload) == 0,
    };
    ip_ok && payload_ok
}

#[test]
fn headers_are_read() {
    let packet = udp(("10.0.0.1", 1000), ("10.0.0.2", 2000), b"hello");
    let header = Header::parse(&packet).unwrap();
    assert_eq!((header.protocol, header.payload, header.length), (UDP, 20, 33));
    assert_eq!(header.ports(&packet), Some((1000, 2000)));
    assert_eq!((header.dont_fragment, header.fragment, header.hop_limit), (false, None, 64));
    let packet = udp(("fd00::1", 1000), ("fd00::2", 2000), b"hello");
    let header = Header::parse(&packet).unwrap();
    assert_eq!((header.protocol, header.payload, header.length), (UDP, 40, 53));
    assert_eq!(header.destination, "fd00::2".parse::<IpAddr>().unwrap());
    assert!(header.dont_fragment);
    assert_eq!(Header::parse(&packet[..52]), None, "cut short");
    assert!(Header::parse_start(&packet[..52]).is_some());
}

#[test]
fn ipv6_extensions_are_walked() {
    let plain = udp(("fd00::1", 1000), ("fd00::2", 2000), b"hello");
    let mut packet = plain[..40].to_vec();
    packet[6] = 60;
    packet.extend([44, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend([UDP, 0, 0, 1, 0, 0, 0, 7]);
    packet.extend(&plain[40..]);
    write_u16(&mut packet, 4, 13 + 16);
    let header = Header::parse(&packet).unwrap();
    assert_eq!((header.protocol, header.payload), (UDP, 56));
    assert_eq!(header.fragment, Some(Fragment { id: 7, offset: 0, more: true }));
    assert_eq!(header.ports(&packet), Some((1000, 2000)));
    packet[50] = 1;
    let header = Header::parse(&packet).unwrap();
    assert!(header.is_later_fragment());
    assert_eq!(header.ports(&packet), None);
}

#[test]
fn endpoints_change_with_their_checksums() {
    let packets = [
        udp(("10.0.0.1", 1000), ("10.0.0.2", 2000), b"hello"),
        transport(TCP, ("10.0.0.1", 1000), ("10.0.0.2", 2000), b"hello!"),
        echo("10.0.0.1", "10.0.0.2", 1000),
    ];
    for mut packet in packets {
        assert!(is_sound(&packet));
        let header = Header::parse(&packet).unwrap();
        let address: IpAddr = "192.0.2.77".parse().unwrap();
        assert!(set_endpoint(&mut packet, &header, End::Source, address, Some(4321)));
        decrement_hop_limit(&mut packet, &header);
        assert!(is_sound(&packet), "protocol {}", header.protocol);
        let changed = Header::parse(&packet).unwrap();
        assert_eq!((changed.source, changed.destination), (address, header.destination));
        assert_eq!((changed.ports(&packet).unwrap().0, changed.hop_limit), (4321, 63));
        assert!(set_endpoint(&mut packet, &changed, End::Destination, address, None) && is_sound(&packet));
    }
    for mut packet in [udp(("fd00::1", 1), ("fd00::2", 2), b"odd"), echo("fd00::1", "fd00::2", 1)] {
        let header = Header::parse(&packet).unwrap();
        let address: IpAddr = "2001:db8::5".parse().unwrap();
        assert!(set_endpoint(&mut packet, &header, End::Destination, address, Some(9)));
        assert!(is_sound(&packet));
        assert_eq!(Header::parse(&packet).unwrap().ports(&packet).unwrap().1, 9);
        assert!(!set_endpoint(&mut packet, &header, End::Source, "1.2.3.4".parse().unwrap(), None));
    }
}

#[test]
fn a_udp_checksum_never_becomes_none() {
    // All ports, so that one of them gives a sum of zero.
    for port in 0..=u16::MAX {
        let mut packet = udp(("10.0.0.1", 1000), ("10.0.0.2", 2000), b"hello");
        let header = Header::parse(&packet).unwrap();
        set_endpoint(&mut packet, &header, End::Source, header.source, Some(port));
        assert_ne!(read_u16(&packet, 26), Some(0));
    }
    let mut packet = udp(("10.0.0.1", 1000), ("10.0.0.2", 2000), b"hello");
    write_u16(&mut packet, 26, 0);
    let header = Header::parse(&packet).unwrap();
    set_endpoint(&mut packet, &header, End::Source, header.source, Some(7));
    assert_eq!(read_u16(&packet, 26), Some(0), "none stays none");
}

#[test]
fn fragments_make_up_the_packet() {
    let packet = udp(("10.0.0.1", 1000), ("10.0.0.2", 2000), &[7; 1472]);
    let header = Header::parse(&packet).unwrap();
    let fragments = fragment_v4(&packet, &header, 1000).unwrap();
    let mut body = Vec::new();
    for (i, fragment) in fragments.iter().enumerate() {
        let header = Header::parse(fragment).unwrap();
        assert!(fragment.len() <= 1000 && checksum(&[&fragment[..20]]) == 0);
        let own = header.fragment.unwrap();
        assert_eq!((own.offset, own.more), (body.len(), i + 1 < fragments.len()));
        body.extend(&fragment[20..]);
    }
    assert_eq!((fragments.len(), &body[..]), (2, &packet[20..]));
    let first = Header::parse(&fragments[0]).unwrap();
    let again = fragment_v4(&fragments[0], &first, 576).unwrap();
    assert!(Header::parse(again.last().unwrap()).unwrap().fragment.unwrap().more, "more of the outer ones");
    assert_eq!(fragment_v4(&packet, &Header { dont_fragment: true, ..header }, 1000), None);
}

#[test]
fn errors_quote_the_packet_and_never_answer_errors() {
    for (from, to, gateway) in [("10.0.0.1", "10.0.0.2", "10.0.0.9"), ("fd00::1", "fd00::2", "fd00::9")] {
        let packet = udp((from, 1000), (to, 2000), &[1; 1400]);
        let gateway: IpAddr = gateway.parse().unwrap();
        let error = icmp::error(Problem::TooBig(1280), gateway, &packet).unwrap();
        let header = Header::parse(&error).unwrap();
        assert!(is_sound(&error) && icmp::is_error(&error, &header));
        assert_eq!((header.source, header.destination), (gateway, from.parse().unwrap()));
        assert_eq!(read_u16(&error, header.payload + 6), Some(1280));
        let quoted = Header::parse_start(&error[header.payload + 8..]).unwrap();
        assert_eq!(quoted.ports(&error[header.payload + 8..]), Some((1000, 2000)));
        assert_eq!(icmp::error(Problem::Unreachable, gateway, &error), None);
        let reply = icmp::echo_reply(&echo(from, to, 5), &Header::parse(&echo(from, to, 5)).unwrap());
        assert!(is_sound(&reply.unwrap()));
    }
}

#[test]
fn questions_for_addresses_are_answered() {
    let owner = [2, 0, 0, 0, 0, 9];
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.extend([2, 0, 0, 0, 0, 1, 10, 0, 0, 2, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    let Frame::Question(question) = Frame::parse(&arp) else { panic!("{:?}", Frame::parse(&arp)) };
    assert_eq!(question.target, "10.0.0.1".parse::<IpAddr>().unwrap());
    let answer = question.answer(owner).unwrap();
    assert_eq!(answer[..12], [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9]);
    assert_eq!(answer[20..32], [0, 2, 2, 0, 0, 0, 0, 9, 10, 0, 0, 1]);

    for sender in ["fe80::1", "::"] {
        let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
        message.extend("fd00::1".parse::<Ipv6Addr>().unwrap().octets());
        let packet =
            icmp::build(sender.parse().unwrap(), "ff02::1:ff00:1".parse().unwrap(), message).unwrap();
        let header =
            ethernet::header([0x33, 0x33, 0xff, 0, 0, 1], [2, 0, 0, 0, 0, 1], &"::".parse().unwrap());
        let frame = [&header[..], &packet].concat();
        let Frame::Question(question) = Frame::parse(&frame) else { panic!("{:?}", Frame::parse(&frame)) };
        let answer = question.answer(owner).unwrap();
        assert!(is_sound(&answer[14..]));
        assert_eq!(answer[14 + 40], 136);
        assert_eq!(answer.last(), Some(&9), "the hardware address is in an option");
    }
}

#[test]
fn noise_is_nothing() {
    let mut random = Random::new(3);
    let good = [udp(("10.0.0.1", 1), ("10.0.0.2", 2), b"x"), echo("fd00::1", "fd00::2", 1)];
    for round in 0..200_000 {
        let mut bytes = good[round % 2].clone();
        bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
        for _ in 0..random.below(4) {
            let place = random.below(bytes.len() as u64) as usize;
            if let Some(byte) = bytes.get_mut(place) {
                *byte = random.next_u64() as u8;
            }
        }
        // None of these may panic, whatever they say.
        let _ = Frame::parse(&bytes);
        if let Some(header) = Header::parse_start(&bytes) {
            let _ =
                (header.ports(&bytes), icmp::is_error(&bytes, &header), icmp::echo_reply(&bytes, &header));
            let _ = icmp::error(Problem::HopLimit, "10.0.0.1".parse().unwrap(), &bytes);
            let _ = fragment_v4(&bytes, &header, 60);
            set_endpoint(&mut bytes, &header, End::Source, header.destination, Some(1));
            decrement_hop_limit(&mut bytes, &header);
            icmp::seal(&mut bytes, &header);
        }
    }
}
