//! Lines that come and go, or were away for long, and machines that stood still: what was learnt before is not held against what comes.

use super::share;
use crate::endpoint::{self, Bond, BondConfig};
use crate::packet::Side;
use crate::scenarios::{self, Scenario};
use crate::tcp::TcpConfig;
use crate::udp::UdpConfig;
use crate::world::{Tunnel, World};
use crate::{MILLI, Nanos, SECOND};

/// A bond over asym2 that has carried something in both directions.
fn used(seed: u64) -> World<Bond> {
    let mut world = endpoint::world(&scenarios::asym2(), &BondConfig::default(), seed);
    world.run_until_ready();
    for sender in Side::BOTH {
        world.add_tcp(TcpConfig { stop: Some(5 * SECOND), ..TcpConfig::bulk(sender) });
    }
    world.run_for(6 * SECOND);
    world
}

/// The machine of one end is suspended, so that its clock stands still.
fn suspend(world: &mut World<Bond>, side: Side, time: Nanos) {
    (0..2).for_each(|line| world.cut(line, true));
    world.tunnels[side.index()].stop(true);
    world.run_for(time);
    world.tunnels[side.index()].lose_time(time);
    world.tunnels[side.index()].stop(false);
    (0..2).for_each(|line| world.cut(line, false));
}

#[test]
fn a_suspended_machine_is_back_within_seconds() {
    for side in Side::BOTH {
        for time in [1, 20, 90, 200, 600, 10_000] {
            let mut world = used(22);
            suspend(&mut world, side, time * SECOND);
            let at = world.now();
            // Whoever begins now knows nothing of the pause.
            let flows = Side::BOTH.map(|sender| world.add_tcp(TcpConfig::bulk(sender)));
            world.run_for(10 * SECOND);
            let what = format!("{side:?} suspended for {time} s");
            assert!(world.tunnels.iter().all(Tunnel::is_ready), "{what}: both links are up at both ends");
            let rate = |flow, whole| share(&world, flow, at + 5 * SECOND, at + 10 * SECOND, whole);
            let [up, down] = [rate(flows[0], 5e6), rate(flows[1], 28e6)];
            assert!(down > 0.75 && up > 0.5, "{what}: {down:.2} of the rate down, {up:.2} up");
        }
    }
}

/// Times on the wire go round after 134 s, and half of that is the longest difference that can be told.
#[test]
fn a_line_that_was_away_for_minutes_is_measured_as_before() {
    for away in [30, 75, 100, 130, 200] {
        let mut world = endpoint::world(&scenarios::asym2(), &BondConfig::default(), 21);
        world.run_until_ready();
        let flow = world.add_tcp(TcpConfig::bulk(Side::Server));
        world.run_for(5 * SECOND);
        world.cut(0, true);
        world.run_for(away * SECOND);
        world.cut(0, false);
        world.run_for(10 * SECOND);
        let at = world.now();
        world.change(0, Side::Server, |config| config.rate = Some(5_000_000));
        let mut last = 0;
        while world.now() < at + 5 * SECOND {
            world.run_for(10 * MILLI);
            if world.line_queue(0, Side::Server) > 50 * MILLI {
                last = (world.now() - at) / MILLI;
            }
        }
        let share = share(&world, flow, at + SECOND, at + 5 * SECOND, 13e6);
        assert!(
            last <= 500 && share > 0.75,
            "away for {away} s: a queue until {last} ms, {share:.2} of the rate"
        );
    }
}

#[test]
fn a_line_that_flaps_costs_no_packet_and_is_worth_more_than_none() {
    for (scenario, line) in [(scenarios::sym2(), 0), (scenarios::asym2(), 0), (scenarios::asym2(), 1)] {
        for sender in Side::BOTH {
            let mut world = endpoint::world(&scenario, &BondConfig::default(), 31);
            world.run_until_ready();
            let flow = world.add_tcp(TcpConfig::bulk(sender));
            let call = world.add_udp(UdpConfig::probe(sender, 100));
            world.run_for(5 * SECOND);
            let at = world.now();
            for half in 0..20 {
                world.cut(line, half % 2 == 0);
                world.run_for(2 * SECOND);
            }
            let end = world.now();
            world.run_for(SECOND);
            let what = format!("{} line {line} {sender:?}", scenario.name);
            let lost = world.udp(call).lost(at, end);
            let ledger = world.ledger(flow, sender);
            assert_eq!((lost, ledger.duplicates, ledger.reordered), (0, 0, 0), "{what}");
            let other = Scenario::new("other", vec![scenario.lines[1 - line].clone()]);
            let share = share(&world, flow, at, end, other.capacity(sender));
            // A line alone carries 0.92 of its rate.
            assert!(share > 0.9, "{what}: {share:.2} of the other line's rate");
        }
    }
}
