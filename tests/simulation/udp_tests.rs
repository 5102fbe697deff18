//! UDP through the bond: QUIC and other bulk finds the order of a single line, calls wait for nothing.

use crate::endpoint::{self, BondConfig};
use crate::packet::Side;
use crate::scenarios::{self, LinePair, Scenario};
use crate::udp::UdpConfig;
use crate::{MILLI, SECOND, percentile};

/// A stream that takes a share of what the lines carry, in packets like QUIC's.
fn bulk(scenario: &Scenario, share: f64) -> UdpConfig {
    let rate = share * scenario.capacity(Side::Server) / (8.0 * 1228.0);
    UdpConfig { size: 1228, ..UdpConfig::probe(Side::Server, rate as u64) }
}

/// The share of packets that were overtaken, and the median delay in ms, of a stream of 8 s.
fn overtaken(scenario: &Scenario, config: UdpConfig) -> (f64, f64) {
    let mut world = endpoint::world(scenario, &BondConfig::default(), 3);
    world.run_until_ready();
    // The noise of the lines is learnt while they are quiet.
    world.run_for(3 * SECOND);
    let flow = world.add_udp(config);
    let begin = world.now() + 2 * SECOND;
    world.run_for(8 * SECOND);
    let end = world.now() - SECOND;
    let stream = world.udp(flow);
    let mut delays = stream.delays(begin, end);
    delays.sort_unstable();
    let share = stream.out_of_order(begin, end) as f64 / delays.len() as f64;
    (share, percentile(&delays, 50.0))
}

#[test]
fn bulk_is_not_overtaken() {
    let others = ["four", "starlink", "satellite"].map(|name| scenarios::by_name(name).expect("it is there"));
    for scenario in scenarios::named().into_iter().chain(others) {
        let (share, median) = overtaken(&scenario, bulk(&scenario, 0.8));
        assert!(share < 0.002, "{}: {:.1} % overtaken", scenario.name, 100.0 * share);
        let way = |pair: &LinePair| (pair.down.delay + pair.down.jitter).as_secs_f64() * 1e3 + 20.0;
        let slowest = scenario.lines.iter().map(way).fold(0.0, f64::max);
        assert!(median < slowest, "{}: {median:.0} ms on the way", scenario.name);
    }
}

#[test]
fn calls_do_not_wait_for_what_was_lost() {
    let lossy = || LinePair::new(10.0, 2.0, 20).loss(0.03);
    let scenario = Scenario::new("lossy", vec![lossy(), lossy()]);
    let mut world = endpoint::world(&scenario, &BondConfig::default(), 3);
    world.run_until_ready();
    let call = world.add_udp(UdpConfig::probe(Side::Server, 100));
    let begin = world.now();
    world.run_for(20 * SECOND);
    let mut delays = world.udp(call).delays(begin, world.now() - SECOND);
    delays.sort_unstable();
    let late = delays.iter().filter(|delay| **delay > 40 * MILLI).count() as f64 / delays.len() as f64;
    // What was lost comes late, and nothing else.
    assert!((0.02..0.05).contains(&late), "{late:.3} of the packets were late");
}
