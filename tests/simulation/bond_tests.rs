//! The bond must show: throughput, latency, cuts, changes, order, bounds.
//!
//! Tests that are not ignored hold what the first complete bond must reach. Those that are ignored under "target"
//! hold the figures of the measured bond (no rate configured, ping under load near idle).

mod interruptions;
mod slow_uplink;
mod target;

use std::time::Duration;

use bonding::bond::{LinkState, Policy};

use crate::endpoint::{self, Bond, BondConfig, Start};
use crate::measure::{Outcome, Plan, measure};
use crate::packet::Side;
use crate::scenarios::{self, LinePair, Scenario};
use crate::tcp::TcpConfig;
use crate::tcp::control::Algorithm;
use crate::udp::UdpConfig;
use crate::world::{Tunnel, Via, World};
use crate::{MILLI, Nanos, SECOND};

fn transfer(scenario: &Scenario, config: &BondConfig, plan: &Plan, seed: u64) -> Outcome {
    let mut world = endpoint::world(scenario, config, seed);
    let outcome = measure(&mut world, scenario, plan);
    assert_eq!(outcome.corrupt, 0, "{}: the bond delivers what was sent", scenario.name);
    assert_eq!(outcome.duplicates, 0, "{}: nothing is delivered twice", scenario.name);
    outcome
}

/// One transfer reaches a share of the sum of the lines.
fn reaches(scenario: &Scenario, config: &BondConfig, plan: &Plan, least: f64) {
    let outcome = transfer(scenario, config, plan, 1);
    assert!(outcome.efficiency >= least, "{} {config:?} {plan:?}: {outcome:?}", scenario.name);
}

#[test]
fn one_stream_gets_the_sum_of_two_equal_lines() {
    for policy in [Policy::Adaptive, Policy::Weighted, Policy::RoundRobin, Policy::Redundant] {
        for sender in Side::BOTH {
            reaches(&scenarios::sym2(), &BondConfig::with_policy(policy), &Plan::new(sender), 0.85);
        }
    }
}

#[test]
fn eight_streams_get_the_sum_when_each_stays_on_a_link() {
    for sender in Side::BOTH {
        let plan = Plan { flows: 8, ..Plan::new(sender) };
        reaches(&scenarios::sym2(), &BondConfig::with_policy(Policy::Flow), &plan, 0.85);
    }
}

#[test]
fn one_link_at_a_time_gets_one_line() {
    let config = BondConfig::with_policy(Policy::ActiveBackup);
    let outcome = transfer(&scenarios::sym2(), &config, &Plan::new(Side::Server), 1);
    assert!((0.4..0.48).contains(&outcome.efficiency), "{outcome:?}");
}

#[test]
fn a_peer_gets_no_more_than_its_limits_and_its_queue_stays_short() {
    // Half of what the two lines carry together, each way, with overhead.
    for (sender, limits) in
        [(Side::Server, (Some(10_000_000), None)), (Side::Client, (None, Some(2_000_000)))]
    {
        let config = BondConfig { server_limits: limits, ..BondConfig::default() };
        let outcome = transfer(&scenarios::sym2(), &config, &Plan::new(sender), 1);
        assert!((0.4..0.5).contains(&outcome.efficiency), "{sender:?}: {outcome:?}");
        assert!(outcome.ping_added.0 < 12.0, "{sender:?}: {outcome:?}");
    }
}

#[test]
fn limits_of_the_links_are_kept_each_way() {
    for sender in Side::BOTH {
        let mut scenario = scenarios::sym2();
        let whole = scenario.clone();
        for line in &mut scenario.lines {
            for config in [&mut line.up, &mut line.down] {
                config.rate = config.rate.map(|rate| rate / 2);
            }
        }
        // The bond is told half of what the lines carry.
        let config = BondConfig { rates_configured: true, ..BondConfig::default() };
        let mut world = World::new(&whole, endpoint::pair(&scenario, &config, 1), 1);
        world.run_until_ready();
        let flow = world.add_tcp(TcpConfig::bulk(sender));
        let start = world.now();
        world.run_for(10 * SECOND);
        let goodput = world.tcp(flow).receiver.goodput(start + 2 * SECOND, world.now());
        let limit = scenario.mean_capacity(sender, start, world.now());
        assert!((0.85..=1.0).contains(&(goodput / limit)), "{sender:?}: {goodput} of {limit}");
    }
}

#[test]
fn a_last_resort_carries_nothing_until_it_is_the_only_one() {
    let scenario = scenarios::sym2();
    for sender in Side::BOTH {
        let config = BondConfig { last_resort: vec![0], ..BondConfig::default() };
        let mut world = endpoint::world(&scenario, &config, 1);
        world.run_until_ready();
        let idle = world.line_counters(0, sender).bytes;
        let flow = world.add_tcp(TcpConfig::bulk(sender));
        let start = world.now();
        world.run_for(10 * SECOND);
        let carried = world.line_counters(0, sender).bytes - idle;
        assert!(carried < 100_000, "{sender:?}: {carried} bytes: acknowledgements and probes, no data");
        world.cut(1, true);
        world.run_for(5 * SECOND);
        let goodput = |from, to| world.tcp(flow).receiver.goodput(from, to);
        let half = scenario.mean_capacity(sender, start, start + SECOND) / 2.0;
        let (before, after) = (
            goodput(start + 3 * SECOND, start + 10 * SECOND),
            goodput(world.now() - 2 * SECOND, world.now()),
        );
        assert!(before > 0.8 * half && after > 0.8 * half, "{sender:?}: {before} and {after} of {half}");
    }
}

#[test]
fn unequal_lines_are_worth_more_than_the_better_one() {
    // 80 % of asym2 is more than its better line alone can give (71 %).
    for sender in Side::BOTH {
        for scenario in [scenarios::asym2(), scenarios::lte2(), scenarios::loss2()] {
            reaches(&scenario, &BondConfig::default(), &Plan::new(sender), 0.8);
        }
    }
}

#[test]
fn ipv6_lines_carry_the_bond() {
    let config = BondConfig { ipv6: true, ..BondConfig::default() };
    reaches(&scenarios::sym2(), &config, &Plan::new(Side::Server), 0.84);
}

#[test]
fn order_is_kept_on_lossless_lines_of_any_delay() {
    for scenario in [scenarios::sym2(), scenarios::asym2(), scenarios::lte2()] {
        for sender in Side::BOTH {
            let mut world = endpoint::world(&scenario, &BondConfig::default(), 2);
            world.run_until_ready();
            let flow = world.add_tcp(TcpConfig::bulk(sender));
            world.run_for(15 * SECOND);
            let ledger = world.ledger(flow, sender);
            assert!(ledger.delivered > 1000);
            let share = ledger.reordered as f64 / ledger.delivered as f64;
            assert!(share < 0.001, "{} {sender:?}: {ledger:?}", scenario.name);
        }
    }
}

#[test]
fn an_idle_bond_is_as_quick_as_its_quickest_link() {
    let mut world = endpoint::world(&scenarios::asym2(), &BondConfig::default(), 3);
    world.run_until_ready();
    let ping = world.add_ping(100 * MILLI);
    world.run_for(30 * SECOND);
    let trips = world.ping(ping).round_trips(2 * SECOND, world.now() - SECOND);
    assert_eq!(trips.unanswered, 0);
    // 2 × 15 ms and the serialisation of about 150 bytes at 4 and 20 Mbit/s.
    assert!(
        trips.median() < 32.0 && trips.percentile(95.0) < 34.0,
        "{} {}",
        trips.median(),
        trips.percentile(95.0)
    );
}

/// A line is cut silently in the middle of a transfer, and restored.
struct Cut {
    /// Longest stop of the TCP stream after the cut.
    gap: Nanos,
    /// Of 100 packets a second beside it.
    udp_lost: usize,
    /// Longest one-way delay of those.
    udp_delay: Nanos,
    /// Share of the cut line's rate that is used from 2 to 4 s after its return.
    used_again: f64,
    finished: bool,
}

fn cut(scenario: &Scenario, line: usize, sender: Side, seed: u64) -> Cut {
    let mut world = endpoint::world(scenario, &BondConfig::default(), seed);
    world.run_until_ready();
    let flow = world.add_tcp(TcpConfig::bulk(sender));
    let probe = world.add_udp(UdpConfig::probe(sender, 100));
    world.run_for(6 * SECOND);
    let at = world.now();
    world.cut(line, true);
    world.run_for(5 * SECOND);
    let restored = world.now();
    world.cut(line, false);
    world.run_for(2 * SECOND);
    let before = world.line_counters(line, sender).bytes;
    world.run_for(2 * SECOND);
    let carried = world.line_counters(line, sender).bytes - before;
    world.run_for(2 * SECOND);
    let pair = &scenario.lines[line];
    let rate = if sender == Side::Server { pair.down.rate } else { pair.up.rate };
    let receiver = &world.tcp(flow).receiver;
    Cut {
        gap: receiver.longest_gap(at, restored),
        udp_lost: world.udp(probe).lost(at - SECOND, restored),
        udp_delay: world.udp(probe).delays(at - SECOND, restored).into_iter().max().unwrap_or(0),
        used_again: carried as f64 * 4.0 / rate.expect("limited") as f64,
        finished: receiver.goodput(world.now() - SECOND, world.now()) > 0.0,
    }
}

#[test]
fn a_cut_line_stops_nobody_for_long() {
    for scenario in [scenarios::sym2(), scenarios::asym2()] {
        for line in 0..2 {
            for sender in Side::BOTH {
                let Cut { gap, udp_lost, used_again, finished, .. } = cut(&scenario, line, sender, 4);
                let what = format!("{} line {line} {sender:?}", scenario.name);
                // Up, the line that stays may be one of 1 Mbit/s, and a full window lasts for long there.
                let limit = if sender == Side::Server { SECOND } else { 2 * SECOND };
                assert!(gap <= limit, "{what}: TCP stands for {} ms", gap / MILLI);
                assert!(udp_lost <= 5, "{what}: {udp_lost} UDP packets lost");
                assert!(used_again > 0.5, "{what}: {used_again:.2} of the line is used after its return");
                assert!(finished, "{what}: TCP goes on");
            }
        }
    }
}

#[test]
fn all_lines_cut_is_survived() {
    let mut world = endpoint::world(&scenarios::sym2(), &BondConfig::default(), 5);
    world.run_until_ready();
    let flow = world.add_tcp(TcpConfig::bulk(Side::Server));
    world.run_for(4 * SECOND);
    for line in 0..2 {
        world.cut(line, true);
    }
    world.run_for(30 * SECOND);
    for line in 0..2 {
        world.cut(line, false);
    }
    // TCP itself may wait for its backed-off timer, at most about as long as the cut was.
    world.run_for(45 * SECOND);
    assert!(world.tunnels.iter().all(Tunnel::is_ready), "both links are up again");
    let rate = world.tcp(flow).receiver.goodput(world.now() - 5 * SECOND, world.now());
    assert!(rate > 0.8 * 20e6, "{rate}");
}

/// How long until all links are up again after one end was started anew, with a stream in both directions going on.
fn restart(side: Side, clock_ms: u64) -> Nanos {
    let (scenario, config) = (scenarios::sym2(), BondConfig::default());
    let mut world = endpoint::world(&scenario, &config, 18);
    world.run_until_ready();
    let flows = Side::BOTH.map(|sender| world.add_tcp(TcpConfig::bulk(sender)));
    world.run_for(4 * SECOND);
    let at = world.now();
    let start = Start { life: 1, clock_ms, at, ..Start::first(18) };
    world.tunnels[side.index()] = endpoint::start(&scenario, &config, side, start);
    let ready = |world: &World<Bond>| world.tunnels.iter().all(Tunnel::is_ready);
    // The other end has not noticed yet.
    world.run_for(50 * MILLI);
    while !ready(&world) && world.now() < at + 10 * SECOND {
        world.run_for(10 * MILLI);
    }
    let took = world.now() - at;
    world.run_for(6 * SECOND);
    for (flow, sender) in flows.into_iter().zip(Side::BOTH) {
        let rate = world.tcp(flow).receiver.goodput(world.now() - 2 * SECOND, world.now());
        assert!(rate > 1e6, "{side:?} restarted: {sender:?} sends {rate:.0} bit/s");
    }
    took
}

#[test]
fn a_restart_of_either_end_is_over_within_a_second() {
    for side in Side::BOTH {
        let took = restart(side, 1_700_000_100_000);
        assert!(took < SECOND, "{side:?}: all links are up after {} ms", took / MILLI);
    }
}

/// Goodput over a span, as a share of a rate, while lines change.
fn share(world: &World<Bond>, flow: usize, from: Nanos, to: Nanos, rate: f64) -> f64 {
    world.tcp(flow).receiver.goodput(from, to) / rate
}

#[test]
fn a_rate_that_falls_and_rises_is_followed() {
    let mut world = endpoint::world(&scenarios::asym2(), &BondConfig::default(), 6);
    world.run_until_ready();
    let ping = world.add_ping(10 * MILLI);
    let flow = world.add_tcp(TcpConfig::bulk(Side::Server));
    world.run_for(8 * SECOND);
    let fallen = world.now();
    world.change(0, Side::Server, |config| config.rate = Some(5_000_000));
    world.run_for(8 * SECOND);
    let low = share(&world, flow, fallen + 3 * SECOND, fallen + 8 * SECOND, 13e6);
    let trips = world.ping(ping).round_trips(fallen + 2 * SECOND, fallen + 7 * SECOND);
    let raised = world.now();
    world.change(0, Side::Server, |config| config.rate = Some(20_000_000));
    world.run_for(10 * SECOND);
    let high = share(&world, flow, raised + 5 * SECOND, raised + 10 * SECOND, 28e6);
    assert!(low > 0.75, "{low:.2} of the sum at the lower rate");
    assert!(high > 0.75, "{high:.2} of the sum at the restored rate");
    assert!(trips.median() < 31.0 + 40.0, "ping at the lower rate: {}", trips.median());
}

#[test]
fn a_fall_to_a_quarter_is_followed_within_half_a_second() {
    // (Mbit/s, line): asym2's quick line, one of sym2, a line alone.
    let one = Scenario::new("one", vec![LinePair::new(20.0, 4.0, 15)]);
    for (scenario, from) in [(scenarios::asym2(), 20.0), (scenarios::sym2(), 10.0), (one, 20.0)] {
        let mut queues: Vec<Nanos> = Vec::new();
        let mut shares = Vec::new();
        // What a bond that was idle knows of its lines is not what one knows that had a download from the start.
        for (run, idle) in (0..).zip([0, 0, 0, 700, 2_000, 5_000, 5_000, 5_000]) {
            let mut world = endpoint::world(&scenario, &BondConfig::default(), run);
            world.run_until_ready();
            world.run_for(idle * MILLI);
            let flow = world.add_tcp(TcpConfig::bulk(Side::Server));
            world.run_for(5 * SECOND + run * 210 * MILLI);
            let at = world.now();
            world.change(0, Side::Server, |config| config.rate = Some((from * 0.25e6) as u64));
            let mut last = 0;
            while world.now() < at + 5 * SECOND {
                world.run_for(10 * MILLI);
                if world.line_queue(0, Side::Server) > 50 * MILLI {
                    last = world.now() - at;
                }
            }
            queues.push(last / MILLI);
            let rate = scenario.capacity(Side::Server) - from * 0.75e6;
            shares.push(share(&world, flow, at + SECOND / 2, at + 2 * SECOND, rate));
        }
        let name = &scenario.name;
        assert!(
            queues.iter().all(|last| *last <= 500),
            "{name}: a queue of 50 ms and more until {queues:?} ms"
        );
        shares.sort_by(f64::total_cmp);
        assert!(shares[0] > 0.7 && shares[4] > 0.8, "{name}: goodput is {shares:.2?} of the rate");
    }
}

#[test]
fn a_delay_that_grows_is_followed() {
    let mut world = endpoint::world(&scenarios::sym2(), &BondConfig::default(), 7);
    world.run_until_ready();
    let flow = world.add_tcp(TcpConfig::bulk(Side::Server));
    world.run_for(6 * SECOND);
    let at = world.now();
    world.change_both(0, |config| config.delay = Duration::from_millis(45));
    world.run_for(10 * SECOND);
    let after = share(&world, flow, at + 3 * SECOND, at + 10 * SECOND, 20e6);
    assert!(after > 0.8, "{after:.2} of the sum with the longer delay");
}

#[test]
fn two_streams_share_the_bond() {
    for sender in Side::BOTH {
        let plan = Plan { flows: 2, duration: 30 * SECOND, ..Plan::new(sender) };
        let outcome = transfer(&scenarios::sym2(), &BondConfig::default(), &plan, 8);
        let (a, b) = (outcome.goodput[0], outcome.goodput[1]);
        assert!(a.min(b) / a.max(b) > 0.6, "{outcome:?}");
        assert!(outcome.efficiency > 0.85, "{outcome:?}");
    }
}

#[test]
fn both_directions_at_once() {
    let scenario = scenarios::sym2();
    let mut world = endpoint::world(&scenario, &BondConfig::default(), 9);
    world.run_until_ready();
    let flows = Side::BOTH.map(|sender| (sender, world.add_tcp(TcpConfig::bulk(sender))));
    world.run_for(18 * SECOND);
    for (sender, flow) in flows {
        let share = share(&world, flow, 3 * SECOND, 18 * SECOND, scenario.capacity(sender));
        // Acknowledgements of 20 Mbit/s down take a sixth of 4 Mbit/s up.
        assert!(share > 0.6, "{sender:?}: {share:.2}");
    }
}

#[test]
fn short_flows_finish_beside_a_long_one() {
    let mut world = endpoint::world(&scenarios::sym2(), &BondConfig::default(), 10);
    world.run_until_ready();
    world.add_tcp(TcpConfig::bulk(Side::Server));
    let short = |index: u64| TcpConfig {
        start: 3 * SECOND + index * 250 * MILLI,
        bytes: Some(50_000),
        ..TcpConfig::bulk(Side::Server)
    };
    let flows: Vec<usize> = (0..40).map(|index| world.add_tcp(short(index))).collect();
    let begin = world.now();
    world.run_for(20 * SECOND);
    for (index, &flow) in flows.iter().enumerate() {
        let start = begin + 3 * SECOND + index as u64 * 250 * MILLI;
        let took = world.tcp(flow).finished_at().map(|at| at - start);
        assert!(took.is_some_and(|took| took < SECOND), "50 kB took {took:?} ns");
    }
}

#[test]
fn a_line_with_jitter_is_not_starved_though_it_was_never_idle() {
    for name in ["starlink", "lte2"] {
        let scenario = scenarios::by_name(name).expect("named");
        let mut world = endpoint::world(&scenario, &BondConfig::default(), 3);
        world.run_until_ready();
        // Packets of 1228 bytes, four fifths of what the lines carry, from the first moment on.
        let rate = 0.8 * scenario.capacity(Side::Server) / (1228.0 * 8.0);
        let flow = world.add_udp(UdpConfig { size: 1228, ..UdpConfig::probe(Side::Server, rate as u64) });
        let begin = world.now();
        world.run_for(12 * SECOND);
        let (from, to) = (begin + 4 * SECOND, begin + 11 * SECOND);
        let lost = world.udp(flow).lost(from, to) as f64 / (rate * 7.0);
        // A line whose jitter is taken for a queue yields four fifths.
        assert!(lost < 0.25, "{name}: {lost:.2} of the packets are lost");
    }
}

#[test]
fn a_call_does_not_wait_for_what_is_staged() {
    // The quick line's packets wait for those of the satellite, a call's must not.
    let scenario = scenarios::by_name("satellite").expect("named");
    let outcome = transfer(&scenario, &BondConfig::default(), &Plan::new(Side::Client), 1);
    assert!(outcome.ping_added.0 < 30.0, "{outcome:?}");
}

#[test]
fn a_rekey_every_two_seconds_is_not_felt() {
    let run = |rekey: u64| {
        let config = BondConfig { rekey_interval: Duration::from_secs(rekey), ..BondConfig::default() };
        let mut world = endpoint::world(&scenarios::sym2(), &config, 11);
        world.run_until_ready();
        let flow = world.add_tcp(TcpConfig::bulk(Side::Server));
        let probes = Side::BOTH.map(|side| world.add_udp(UdpConfig::probe(side, 100)));
        world.run_for(20 * SECOND);
        let end = world.now() - SECOND;
        for probe in probes {
            assert_eq!(world.udp(probe).lost(0, end), 0, "rekey every {rekey} s");
        }
        for (probe, side) in probes.into_iter().zip(Side::BOTH) {
            assert_eq!(world.ledger(probe, side).duplicates, 0);
        }
        assert_eq!(world.ledger(flow, Side::Server).duplicates, 0);
        let mut delays = world.udp(probes[1]).delays(3 * SECOND, end);
        delays.sort_unstable();
        let goodput = world.tcp(flow).receiver.goodput(3 * SECOND, end);
        (world.tunnels[0].status().rekeys, goodput, crate::percentile(&delays, 99.0))
    };
    let (rekeys, goodput, delay) = run(2);
    let (none, undisturbed, calm) = run(120);
    assert!(rekeys >= 8 && none == 0, "{rekeys} and {none} rekeys");
    assert!(goodput > 0.97 * undisturbed, "{goodput:.0} against {undisturbed:.0}");
    assert!(delay < calm + 10.0, "99th percentile {delay:.1} against {calm:.1} ms");
}

#[test]
fn a_nat_that_forgets_is_followed() {
    let mut world = endpoint::world(&scenarios::sym2(), &BondConfig::default(), 12);
    world.run_until_ready();
    let flow = world.add_tcp(TcpConfig::bulk(Side::Server));
    world.run_for(5 * SECOND);
    for tunnel in &mut world.tunnels {
        tunnel.rebind(0);
    }
    let at = world.now();
    world.run_for(8 * SECOND);
    assert!(world.tcp(flow).receiver.longest_gap(at, at + 5 * SECOND) < SECOND);
    let after = share(&world, flow, at + 4 * SECOND, at + 8 * SECOND, 20e6);
    assert!(after > 0.8, "{after:.2}");
}

#[test]
fn lines_that_are_all_taken_out_come_back_at_both_ends() {
    let mut world = endpoint::world(&scenarios::sym2(), &BondConfig::default(), 14);
    world.run_until_ready();
    for enabled in [false, true] {
        for line in 0..2 {
            world.tunnels[Side::Client.index()].enable(line, enabled);
            world.run_for(SECOND);
        }
        world.run_for(5 * SECOND);
        for tunnel in &world.tunnels {
            assert_eq!(tunnel.is_ready(), enabled, "{:?}", tunnel.status().links);
        }
    }
}

#[test]
fn small_path_mtus_are_found_and_hosts_are_clamped() {
    for mtus in [[1492, 1500], [1280, 1492]] {
        let mut scenario = scenarios::sym2();
        for (pair, mtu) in scenario.lines.iter_mut().zip(mtus) {
            pair.up.mtu = Some(mtu);
            pair.down.mtu = Some(mtu);
        }
        let mut world = endpoint::world(&scenario, &BondConfig::default(), 13);
        world.run_until_ready();
        world.run_for(5 * SECOND);
        let dropped = |world: &World<Bond>| -> u64 {
            let lines = (0..2).flat_map(|line| Side::BOTH.map(|side| world.line_counters(line, side)));
            lines.map(|counters| counters.dropped_mtu).sum()
        };
        let probes = dropped(&world);
        // The hosts know nothing of the tunnel: only its clamping makes their segments fit.
        let flow = world.add_tcp(TcpConfig { mtu: Some(1500), ..TcpConfig::bulk(Side::Server) });
        world.run_for(15 * SECOND);
        let size = world.tcp(flow).segment_size();
        assert!(size + 52 + 28 < mtus[0], "{mtus:?}: segments of {size} bytes");
        let tcp = share(&world, flow, 8 * SECOND, 20 * SECOND, 20e6);
        assert!(tcp > 0.8, "{mtus:?}: {tcp:.2}");
        // Probing goes on now and then; data that does not fit would be thousands.
        assert!(dropped(&world) - probes < 30, "{mtus:?}: data was too big for a line");
    }
}

#[test]
fn udp_is_put_back_in_order_for_those_who_ask() {
    for resequence_udp in [false, true] {
        let config = BondConfig { resequence_udp, ..BondConfig::with_policy(Policy::RoundRobin) };
        let mut world = endpoint::world(&scenarios::asym2(), &config, 5);
        world.run_until_ready();
        let flows = Side::BOTH.map(|side| world.add_udp(UdpConfig::probe(side, 200)));
        let begin = world.now();
        world.run_for(10 * SECOND);
        for flow in flows {
            let end = world.now() - SECOND;
            let early = world.udp(flow).out_of_order(begin, end);
            assert_eq!(world.udp(flow).lost(begin, end), 0);
            match resequence_udp {
                true => assert_eq!(early, 0, "in order"),
                false => assert!(early > 500, "in turns over unequal lines: {early} early"),
            }
        }
    }
}

#[test]
fn overload_is_bounded() {
    let mut world = endpoint::world(&scenarios::asym2(), &BondConfig::default(), 14);
    world.run_until_ready();
    for side in Side::BOTH {
        world.add_udp(UdpConfig { size: 1300, ..UdpConfig::probe(side, 5000) });
        world.add_tcp(TcpConfig::bulk(side));
    }
    for _ in 0..100 {
        world.run_for(100 * MILLI);
        for tunnel in &world.tunnels {
            let status = tunnel.status();
            assert!(status.queue_packets <= 4096, "{} packets queue", status.queue_packets);
            assert!(status.resequencer_held <= 4096, "{} packets held", status.resequencer_held);
        }
    }
    for line in 0..2 {
        for side in Side::BOTH {
            assert!(world.line_counters(line, side).passed > 100, "line {line} carries traffic");
        }
    }
}

#[test]
fn flapping_lines_for_a_day() {
    let hours = if cfg!(debug_assertions) { 1 } else { 24 };
    let mut world = endpoint::world(&scenarios::asym2(), &BondConfig::default(), 15);
    world.run_until_ready();
    let ping = world.add_ping(500 * MILLI);
    let mut random = lab::random::Random::new(15);
    let begin = world.now();
    let mut flaps = 0;
    while world.now() < begin + hours * 3600 * SECOND {
        let line = flaps % 2;
        world.cut(line, true);
        world.run_for((1 + random.below(20)) * SECOND);
        world.cut(line, false);
        world.run_for((3 + random.below(60)) * SECOND);
        flaps += 1;
        for tunnel in &world.tunnels {
            let status = tunnel.status();
            assert!(status.up, "after {flaps} flaps");
            assert!(status.queue_packets < 100 && status.resequencer_held < 100, "{status:?}");
            assert!(status.links.len() == 2, "{status:?}");
        }
    }
    world.run_for(30 * SECOND);
    for tunnel in &world.tunnels {
        assert!(
            tunnel.status().links.iter().all(|link| link.state == LinkState::Up),
            "{:?}",
            tunnel.status()
        );
    }
    let trips = world.ping(ping).round_trips(begin, world.now() - 5 * SECOND);
    let share = trips.unanswered as f64 / (trips.times.len() + trips.unanswered) as f64;
    // A cut may cost the packets of a few round trips: two pings of a flap, which is one minute.
    assert!(share < 0.02, "{share:.4} of the pings are unanswered");
    assert!(trips.median() < 60.0, "{}", trips.median());
}

#[test]
fn late_timers_cost_little() {
    let scenario = scenarios::asym2();
    let mut world = endpoint::world(&scenario, &BondConfig::default(), 16);
    world.timer_slack = MILLI;
    let outcome = measure(&mut world, &scenario, &Plan::new(Side::Server));
    assert!(outcome.efficiency > 0.75, "{outcome:?}");
}

#[test]
fn loss_and_short_queues_cost_little() {
    // Loss whatever is sent; bursts that take all of what a window had on its way; queues shorter than a train, or than
    // the queue aimed at.
    for (name, least) in [
        ("10/2/20/l10+10/2/20", 0.70),
        ("10/2/20/l5+10/2/20/l5", 0.77),
        ("20/4/15/b2x20+8/1/50", 0.80),
        ("20/4/15/b2x8+8/1/50/b2x8", 0.77),
        ("20/4/15/q5+8/1/50/q5", 0.78),
        ("20/4/15/q10+8/1/50/q10", 0.82),
        ("50/10/15/p10+30/5/30/p20", 0.80),
    ] {
        let scenario = scenarios::by_name(name).expect("well written");
        let runs =
            (1..=3).map(|seed| transfer(&scenario, &BondConfig::default(), &Plan::new(Side::Server), seed));
        let runs: Vec<_> = runs.collect();
        let efficiency = runs.iter().map(|run| run.efficiency).sum::<f64>() / 3.0;
        assert!(efficiency > least, "{name}: {efficiency:.3}");
        assert!(runs.iter().all(|run| run.timeouts == 0), "{name}: {runs:?}");
    }
}

#[test]
fn lines_that_fade_all_the_time_do_not_stop_a_stream_for_long() {
    let (mut efficiency, mut stale, mut gaps) = (0.0, 0, Vec::new());
    for seed in 1..=12 {
        let scenario = scenarios::fading(seed);
        let outcome = transfer(&scenario, &BondConfig::default(), &Plan::new(Side::Server), 1);
        assert!(outcome.longest_gap < 2_000.0, "{}: {outcome:?}", scenario.name);
        assert!(outcome.timeouts <= 1, "{}: {outcome:?}", scenario.name);
        gaps.push(outcome.longest_gap);
        efficiency += outcome.efficiency / 12.0;
        stale += outcome.stale;
    }
    assert!(efficiency > 0.78, "{efficiency:.3}");
    assert!(gaps.iter().filter(|gap| **gap > 1_200.0).count() <= 1, "{gaps:?}");
    // A repair that overtakes what was sent before it makes the receiver drop all of that.
    assert!(stale < 200, "{stale} segments were overtaken");
}

/// A radio that hands over what it has held back all at once makes a train look ten times as quick as the line.
#[test]
fn a_train_that_the_air_has_compressed_is_not_believed_for_long() {
    for seed in 1..=24 {
        let scenario = scenarios::lte2();
        let outcome = transfer(&scenario, &BondConfig::default(), &Plan::new(Side::Server), seed);
        assert!(outcome.efficiency > 0.84, "seed {seed}: {outcome:?}");
    }
}

#[test]
fn random_line_sets_are_worth_most_of_the_optimum() {
    let mut missed = Vec::new();
    for seed in 0..24 {
        let scenario = scenarios::random(seed);
        let outcome = transfer(&scenario, &BondConfig::default(), &Plan::new(Side::Server), seed);
        assert!(outcome.efficiency > 0.5, "{scenario:?}: {outcome:?}");
        assert_eq!(outcome.timeouts, 0, "{scenario:?}: {outcome:?}");
        if outcome.efficiency < OPTIMUM_SHARE {
            missed.push(format!("random{seed}: {:.2}", outcome.efficiency));
        }
    }
    // One CUBIC stream may take longer than this transfer to fill very unequal lines. All of them are among the targets.
    assert!(missed.len() <= 1, "{missed:#?}");
}

/// 0.85 of the optimum: 58 to 62 bytes of tunnel and 52 of TCP/IP in 1500.
const OPTIMUM_SHARE: f64 = 0.85 * 0.925;
