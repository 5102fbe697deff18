//! Classes of traffic: each by its own policy and links, in both directions, although only the client has the rules.

use bonding::bond::class::bit;
use bonding::bond::{Class, Policy, Selector, Treatment};

use crate::endpoint::{self, Bond, BondConfig};
use crate::measure::{Plan, measure};
use crate::packet::Side;
use crate::scenarios;
use crate::tcp::TcpConfig;
use crate::udp::UdpConfig;
use crate::world::World;
use crate::{MILLI, SECOND};

const TCP: u8 = 6;
const UDP: u8 = 17;

fn class(protocol: u8, treatment: Treatment) -> Class {
    Class { rule: 0, selector: Selector { protocol: Some(protocol), ..Selector::default() }, treatment }
}

fn with(class: Class) -> BondConfig {
    BondConfig { classes: vec![class], ..BondConfig::default() }
}

/// A world over sym2 or asym2 whose server has been told the classes.
fn ready(scenario: &scenarios::Scenario, class: Class) -> World<Bond> {
    let mut world = endpoint::world(scenario, &with(class), 1);
    world.run_until_ready();
    world.run_for(SECOND);
    for side in Side::BOTH {
        let rules = world.tunnels[side.index()].status().rules;
        assert_eq!(rules.len(), 1, "{side:?} has the class");
    }
    world
}

#[test]
fn a_class_stays_on_its_link_both_ways_and_moves_when_that_fails() {
    // Line 0 of asym2 is the slower one: nothing but the class brings packets there.
    let treatment = Treatment { links: bit(0), ..Treatment::default() };
    let mut world = ready(&scenarios::asym2(), class(UDP, treatment));
    let before = [0, 1].map(|line| Side::BOTH.map(|side| world.line_counters(line, side).bytes));
    let streams = Side::BOTH.map(|side| (side, world.add_udp(UdpConfig::probe(side, 100))));
    let start = world.now();
    world.run_for(5 * SECOND);
    let after = [0, 1].map(|line| Side::BOTH.map(|side| world.line_counters(line, side).bytes));
    for side in [0, 1] {
        let carried = [0, 1].map(|line| after[line][side] - before[line][side]);
        assert!(carried[0] > 100_000 && carried[1] < 20_000, "{side}: {carried:?}");
    }
    world.cut(0, true);
    let cut = world.now();
    world.run_for(3 * SECOND);
    for (side, stream) in streams {
        let stream = world.udp(stream);
        assert_eq!(stream.lost(start, cut), 0, "{side:?}");
        assert!(stream.lost(cut, world.now() - SECOND) <= 2, "{side:?}: what is left carries it");
    }
}

#[test]
fn copies_of_a_bulk_transfer_are_sent_only_if_they_are_forced() {
    let scenario = scenarios::sym2();
    for (forced, expected) in [(false, 0.85..1.0), (true, 0.35..0.48)] {
        let treatment = Treatment { policy: Some(Policy::Redundant), forced, ..Treatment::default() };
        for sender in Side::BOTH {
            let mut world = endpoint::world(&scenario, &with(class(TCP, treatment)), 1);
            let outcome = measure(&mut world, &scenario, &Plan::new(sender));
            assert!(expected.contains(&outcome.efficiency), "forced {forced}, {sender:?}: {outcome:?}");
            assert_eq!((outcome.duplicates, outcome.corrupt), (0, 0), "one copy counts");
        }
    }
}

#[test]
fn copies_on_an_idle_bond_hide_the_death_of_a_line() {
    let treatment = Treatment { policy: Some(Policy::Redundant), ..Treatment::default() };
    let mut world = ready(&scenarios::sym2(), class(UDP, treatment));
    let streams = Side::BOTH.map(|side| world.add_udp(UdpConfig::probe(side, 100)));
    world.run_for(3 * SECOND);
    let before = world.now();
    world.cut(1, true);
    world.run_for(2 * SECOND);
    for stream in streams {
        let (from, to) = (before - SECOND, world.now() - 200 * MILLI);
        assert_eq!(world.udp(stream).lost(from, to), 0);
        let slowest = world.udp(stream).delays(from, to).into_iter().max().unwrap_or(u64::MAX);
        assert!(slowest < 80 * MILLI, "the copy is as quick as ever: {} ms", slowest / MILLI);
    }
}

#[test]
fn copies_leave_a_download_beside_them_its_rate() {
    let treatment = Treatment { policy: Some(Policy::Redundant), ..Treatment::default() };
    let scenario = scenarios::sym2();
    let mut world = ready(&scenario, class(UDP, treatment));
    let call = world.add_udp(UdpConfig::probe(Side::Server, 50));
    let download = world.add_tcp(TcpConfig::bulk(Side::Server));
    let start = world.now();
    world.run_for(10 * SECOND);
    let goodput = world.tcp(download).receiver.goodput(start + 3 * SECOND, world.now());
    let capacity = scenario.mean_capacity(Side::Server, start, world.now());
    assert!(goodput > 0.83 * capacity, "{goodput} of {capacity}");
    assert_eq!(world.udp(call).lost(start, world.now() - SECOND), 0);
}
