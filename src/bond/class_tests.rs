use std::time::Duration;

use super::*;
use crate::Time;
use crate::ip::Classifier;

/// An IPv4 packet with ports.
fn packet(protocol: u8, source: [u8; 4], destination: [u8; 4], ports: (u16, u16), dscp: u8) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[0] = 0x45;
    packet[1] = dscp << 2;
    packet[3] = 40;
    packet[9] = protocol;
    packet[12..16].copy_from_slice(&source);
    packet[16..20].copy_from_slice(&destination);
    packet[20..22].copy_from_slice(&ports.0.to_be_bytes());
    packet[22..24].copy_from_slice(&ports.1.to_be_bytes());
    packet
}

const LAN: [u8; 4] = [192, 168, 1, 7];
const INET: [u8; 4] = [198, 51, 100, 2];

fn range(text: &str, len: u8) -> Option<IpPrefix> {
    Some(IpPrefix { addr: text.parse().unwrap(), len })
}

fn class(rule: u8, selector: Selector, policy: Policy) -> Class {
    Class { rule, selector, treatment: Treatment { policy: Some(policy), ..Treatment::default() } }
}

/// The policy that counts for a packet.
fn policy_of(classes: &mut Classes, packet: &[u8]) -> Policy {
    let info = Classifier::new(7).parse(packet).unwrap();
    let class = classes.classify(packet, &info);
    let mut rest = Scheduler::new(Policy::Weighted);
    classes.scheduler(class, &mut rest).policy()
}

#[test]
fn the_server_compares_the_other_way_round() {
    let selector = Selector {
        protocol: Some(17),
        source: range("192.168.1.0", 24),
        destination: range("198.51.100.0", 24),
        source_ports: Some((5_000, 5_010)),
        destination_ports: Some((3_478, 3_478)),
        dscp: 0,
    };
    let list = [class(0, selector, Policy::Flow)];
    let (mut client, mut server) = (Classes::default(), Classes::default());
    client.set(&list, false);
    server.set(&list, true);
    let up = packet(17, LAN, INET, (5_010, 3_478), 0);
    let down = packet(17, INET, LAN, (3_478, 5_010), 0);
    assert_eq!(policy_of(&mut client, &up), Policy::Flow);
    assert_eq!(policy_of(&mut server, &down), Policy::Flow);
    assert_eq!(policy_of(&mut server, &up), Policy::Weighted);
    for other in [
        packet(6, LAN, INET, (5_010, 3_478), 0),
        packet(17, [192, 168, 2, 7], INET, (5_010, 3_478), 0),
        packet(17, LAN, [198, 51, 101, 2], (5_010, 3_478), 0),
        packet(17, LAN, INET, (5_011, 3_478), 0),
        packet(17, LAN, INET, (5_010, 3_479), 0),
    ] {
        assert_eq!(policy_of(&mut client, &other), Policy::Weighted);
    }
}

#[test]
fn the_first_class_that_matches_counts() {
    let dscp = Selector { dscp: 1 << 46 | 1 << 8, ..Selector::default() };
    let tcp = Selector { protocol: Some(6), ..Selector::default() };
    let mut classes = Classes::default();
    classes.set(&[class(4, dscp, Policy::Redundant), class(5, tcp, Policy::Flow)], false);
    // One flow, whose packets have different codepoints.
    for (dscp, policy) in
        [(46, Policy::Redundant), (0, Policy::Flow), (8, Policy::Redundant), (9, Policy::Flow)]
    {
        assert_eq!(policy_of(&mut classes, &packet(6, LAN, INET, (1, 2), dscp)), policy, "{dscp}");
    }
    assert_eq!(policy_of(&mut classes, &packet(17, LAN, INET, (1, 2), 0)), Policy::Weighted);
    let counts: Vec<_> = classes.counts().collect();
    let count = |rule| RuleCount { rule, packets: 2, bytes: 80 };
    assert_eq!(counts, [count(4), count(5)]);
}

#[test]
fn another_list_counts_at_once() {
    let mut classes = Classes::default();
    let everything = |policy| [class(0, Selector::default(), policy)];
    let packet = packet(17, LAN, INET, (1, 2), 0);
    classes.set(&everything(Policy::Flow), false);
    assert_eq!(policy_of(&mut classes, &packet), Policy::Flow);
    classes.set(&everything(Policy::RoundRobin), false);
    assert_eq!(policy_of(&mut classes, &packet), Policy::RoundRobin);
    assert_eq!(classes.counts().next().map(|count| count.packets), Some(2), "counters go on");
    classes.set(&[], false);
    assert_eq!(policy_of(&mut classes, &packet), Policy::Weighted);
}

#[test]
fn links_of_a_class_carry_it_while_one_of_them_can() {
    let treatment = Treatment { links: bit(1) | bit(3), ..Treatment::default() };
    let mut classes = Classes::default();
    classes.set(&[Class { rule: 0, selector: Selector::default(), treatment }], false);
    let left = |class, links: &[LinkId]| {
        let candidate = |link: &LinkId| Candidate {
            link: *link,
            free: Time::ZERO,
            staged: Duration::ZERO,
            worth: 1,
            delay: 0,
            priority: 1,
            weight: 1,
        };
        let mut candidates = links.iter().map(candidate).collect();
        classes.restrict(class, &mut candidates);
        candidates.iter().map(|candidate| candidate.link).collect::<Vec<_>>()
    };
    assert_eq!(left(1, &[0, 1, 2, 3]), [1, 3]);
    assert_eq!(left(1, &[0, 2, 3]), [3]);
    assert_eq!(left(1, &[0, 2]), [0, 2]);
    assert_eq!(left(0, &[0, 1, 2, 3]), [0, 1, 2, 3]);
}

#[test]
fn copies_are_made_as_the_policy_says() {
    let mut classes = Classes::default();
    let treatment = |policy, forced| Treatment { policy, forced, links: 0 };
    let class = |rule, treatment| Class { rule, selector: Selector::default(), treatment };
    classes.set(
        &[
            class(0, treatment(Some(Policy::Redundant), true)),
            class(1, treatment(Some(Policy::Redundant), false)),
            class(2, treatment(Some(Policy::Flow), false)),
            class(3, treatment(None, false)),
        ],
        false,
    );
    let copies = |rest| [0, 1, 2, 3, 4].map(|class| classes.copies(class, rest));
    use Copies::{Forced, Idle, No};
    assert_eq!(copies(Policy::Adaptive), [No, Forced, Idle, No, No]);
    assert_eq!(copies(Policy::Redundant), [Idle, Forced, Idle, No, Idle]);
}
