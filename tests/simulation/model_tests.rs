//! The models are checked on a plain line, and against what today's round robin is known to reach.

use std::time::Duration;

use lab::line::{LineConfig, QueueLimit};

use crate::baseline::{Direct, RoundRobin};
use crate::measure::{Outcome, Plan, measure};
use crate::packet::Side;
use crate::scenarios::{self, LinePair, Scenario};
use crate::tcp::TcpConfig;
use crate::tcp::control::Algorithm;
use crate::udp::UdpConfig;
use crate::world::{Via, World};
use crate::{MILLI, SECOND};

fn line(rate: f64, delay_ms: u64) -> Scenario {
    Scenario::new("line", vec![LinePair::new(rate, rate, delay_ms)])
}

fn direct(scenario: &Scenario, plan: &Plan, seed: u64) -> Outcome {
    let mut world = World::new(scenario, [Direct::default(), Direct::default()], seed);
    measure(&mut world, scenario, plan)
}

#[test]
fn one_stream_fills_a_plain_line() {
    // 52 of 1500 bytes are headers: the ceiling is 96.5 %.
    for algorithm in [Algorithm::Cubic, Algorithm::CubicNoHystart, Algorithm::Reno, Algorithm::Bbr] {
        for sender in Side::BOTH {
            let plan = Plan { algorithm, ..Plan::new(sender) };
            let outcome = direct(&line(10.0, 20), &plan, 1);
            assert!(outcome.efficiency > 0.92 && outcome.efficiency < 0.966, "{algorithm:?}: {outcome:?}");
            assert_eq!((outcome.reordered, outcome.duplicates, outcome.corrupt), (0, 0, 0));
        }
    }
}

#[test]
fn ping_feels_the_queue_that_cubic_fills_and_bbr_does_not() {
    let cubic = direct(&line(10.0, 20), &Plan::new(Side::Server), 1);
    assert!((cubic.ping_idle - 40.2).abs() < 1.0, "{cubic:?}");
    assert!(cubic.ping_added.0 > 50.0 && cubic.ping_added.1 < 105.0, "{cubic:?}");
    let bbr = direct(&line(10.0, 20), &Plan { algorithm: Algorithm::Bbr, ..Plan::new(Side::Server) }, 1);
    assert!(bbr.ping_added.0 < 30.0, "{bbr:?}");
}

#[test]
fn loss_slows_reno_by_the_square_root_law() {
    // Mathis et al. 1997: segment × √(3/2b) / (RTT × √p), b = 2 segments per acknowledgement.
    let mut wire = line(200.0, 25);
    let plan = Plan { algorithm: Algorithm::Reno, duration: 120 * SECOND, ..Plan::new(Side::Server) };
    for loss in [0.0005, 0.002, 0.008] {
        wire.lines[0].down.loss = loss;
        let outcome = direct(&wire, &plan, 3);
        let law = 1448.0 * 8.0 * 0.75f64.sqrt() / (0.05 * loss.sqrt());
        let ratio = outcome.goodput[0] / law;
        // Acknowledgements of every second segment count both, so growth is that of b = 1: √2 more.
        assert!((0.7..2.0).contains(&ratio), "loss {loss}: {ratio:.2} of the law, {outcome:?}");
    }
}

#[test]
fn cubic_recovers_faster_than_reno_on_a_long_line() {
    let mut wire = line(100.0, 50);
    wire.lines[0].down.loss = 0.0001;
    let goodput = |algorithm| {
        let plan = Plan { algorithm, duration: 60 * SECOND, ..Plan::new(Side::Server) };
        direct(&wire, &plan, 4).goodput[0]
    };
    let (cubic, reno) = (goodput(Algorithm::Cubic), goodput(Algorithm::Reno));
    assert!(cubic > 1.2 * reno, "CUBIC {cubic:.0}, Reno {reno:.0}");
}

#[test]
fn two_streams_share_a_line() {
    let plan = Plan { flows: 2, duration: 60 * SECOND, ..Plan::new(Side::Server) };
    let outcome = direct(&line(20.0, 20), &plan, 5);
    let (a, b) = (outcome.goodput[0], outcome.goodput[1]);
    assert!(outcome.efficiency > 0.92, "{outcome:?}");
    assert!(a.min(b) / a.max(b) > 0.5, "{outcome:?}");
}

#[test]
fn losses_are_repaired_without_timeouts() {
    let mut wire = line(10.0, 20);
    wire.lines[0].down.loss = 0.005;
    let outcome = direct(&wire, &Plan { duration: 60 * SECOND, ..Plan::new(Side::Server) }, 6);
    assert!(outcome.retransmitted > 50, "{outcome:?}");
    assert!(outcome.timeouts <= 2, "{outcome:?}");
    let mut world = World::new(&wire, [Direct::default(), Direct::default()], 6);
    let flow = world.add_tcp(TcpConfig { bytes: Some(3_000_000), ..TcpConfig::bulk(Side::Server) });
    world.run_for(60 * SECOND);
    assert!(world.tcp(flow).finished_at().is_some(), "a finite transfer ends");
    // Every loss is retransmitted, and little else is: the scoreboard neither forgets nor invents losses.
    let lost = world.line_counters(0, Side::Server).dropped();
    let again = world.tcp(flow).counters().retransmitted;
    assert!(again >= lost && again <= lost + lost / 5 + 3, "{lost} lost, {again} sent again");
}

#[test]
fn reordering_is_tolerated_once_it_was_seen() {
    let mut wire = line(10.0, 20);
    wire.lines[0].down.jitter = Duration::from_millis(4);
    wire.lines[0].down.reorder = true;
    wire.lines[0].down.queue = QueueLimit::Unlimited;
    let mut world = World::new(&wire, [Direct::default(), Direct::default()], 7);
    let flow = world.add_tcp(TcpConfig { bytes: Some(10_000_000), ..TcpConfig::bulk(Side::Server) });
    world.run_for(60 * SECOND);
    assert!(world.ledger(flow, Side::Server).reordered > 1000, "the line reorders");
    let counters = world.tcp(flow).counters();
    assert!(counters.retransmitted < counters.sent / 50, "{counters:?}");
    assert!(world.tcp(flow).finished_at().is_some_and(|at| at < 12 * SECOND), "{counters:?}");
}

#[test]
fn a_cut_line_is_waited_for_with_growing_timeouts() {
    let wire = line(10.0, 20);
    let mut world = World::new(&wire, [Direct::default(), Direct::default()], 8);
    let flow = world.add_tcp(TcpConfig::bulk(Side::Server));
    let probe = world.add_udp(UdpConfig::probe(Side::Server, 100));
    world.run_until(5 * SECOND);
    world.cut(0, true);
    world.run_for(3 * SECOND);
    world.cut(0, false);
    world.run_for(10 * SECOND);
    let gap = world.tcp(flow).receiver.longest_gap(4 * SECOND, 18 * SECOND);
    assert!((3 * SECOND..7 * SECOND).contains(&gap), "{gap}");
    let counters = world.tcp(flow).counters();
    assert!((2..8).contains(&counters.timeouts), "{counters:?}");
    let lost = world.udp(probe).lost(0, world.now() - SECOND);
    assert!((295..320).contains(&lost), "{lost}");
    let rate = world.tcp(flow).receiver.goodput(13 * SECOND, 18 * SECOND);
    assert!(rate > 9.0e6, "{rate}");
}

#[test]
fn a_world_runs_the_same_way_twice() {
    let run = |seed| {
        let scenario = scenarios::lte2();
        let tunnel = || RoundRobin::new(scenario.lines.len());
        let mut world = World::new(&scenario, [tunnel(), tunnel()], seed);
        let outcome = measure(&mut world, &scenario, &Plan::new(Side::Server));
        (world.events, outcome.goodput, outcome.retransmitted)
    };
    assert_eq!(run(9), run(9));
    assert_ne!(run(9).0, run(10).0);
}

#[test]
fn a_flow_outside_the_tunnel_shares_the_line() {
    let wire = line(10.0, 20);
    let mut world = World::new(&wire, [Direct::default(), Direct::default()], 11);
    let inside = world.add_tcp(TcpConfig::bulk(Side::Server));
    let outside = world.add_tcp_via(TcpConfig::bulk(Side::Server), Via::Line(0));
    world.run_for(60 * SECOND);
    let rate = |flow: usize| world.tcp(flow).receiver.goodput(10 * SECOND, 60 * SECOND);
    let (a, b) = (rate(inside), rate(outside));
    assert!(a + b > 9.2e6 && a.min(b) / a.max(b) > 0.4, "{a} {b}");
}

/// Round robin without reordering over unequal lines is what the table measured with OpenVPN and real
/// kernels: 92, 44, 35 and 24 %. A model that does much better or worse says nothing about a bond.
#[test]
fn round_robin_reaches_what_it_reaches_with_real_kernels() {
    let known = [("sym2", 0.85, 0.935), ("asym2", 0.3, 0.62), ("lte2", 0.2, 0.55), ("loss2", 0.1, 0.45)];
    for (name, least, most) in known {
        let scenario = scenarios::by_name(name).expect("named");
        let tunnel = || RoundRobin::new(scenario.lines.len());
        let mut world = World::new(&scenario, [tunnel(), tunnel()], 12);
        let plan = Plan { duration: 30 * SECOND, ..Plan::new(Side::Server) };
        let outcome = measure(&mut world, &scenario, &plan);
        println!("{name}: {outcome:?}");
        assert!((least..most).contains(&outcome.efficiency), "{name}: {outcome:?}");
    }
}

#[test]
fn random_line_sets_are_valid_and_differ() {
    for scenario in scenarios::named().into_iter().chain(scenarios::others()) {
        for pair in &scenario.lines {
            pair.up.check().expect("valid");
            pair.down.check().expect("valid");
        }
    }
    for seed in 0..200 {
        let scenario = scenarios::random(seed);
        assert!((2..=4).contains(&scenario.lines.len()));
        for pair in &scenario.lines {
            for config in [&pair.up, &pair.down] {
                config.check().expect("valid");
                let LineConfig { rate, delay, jitter, .. } = config;
                assert!((500_000..=100_000_000).contains(&rate.expect("limited")));
                assert!(jitter <= delay && delay.as_millis() <= 80);
            }
        }
    }
    assert_ne!(scenarios::random(1).capacity(Side::Server), scenarios::random(2).capacity(Side::Server));
}

#[test]
fn percentiles_are_of_the_nearest_rank() {
    assert!(crate::percentile(&[], 50.0).is_infinite());
    let sorted: Vec<u64> = (1..=100).map(|ms| ms * MILLI).collect();
    assert_eq!((crate::percentile(&sorted, 50.0), crate::percentile(&sorted, 95.0)), (50.0, 95.0));
}
