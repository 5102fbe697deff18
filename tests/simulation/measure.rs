//! One measurement: ping on the idle tunnel, then transfers beside it.

use crate::packet::Side;
use crate::scenarios::Scenario;
use crate::tcp::TcpConfig;
use crate::tcp::control::Algorithm;
use crate::world::{Tunnel, World};
use crate::{MILLI, Nanos, SECOND};

/// What is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    pub sender: Side,
    pub flows: usize,
    pub algorithm: Algorithm,
    pub ecn: bool,
    /// Ping alone before the transfers.
    pub idle: Nanos,
    /// Not counted.
    pub warm_up: Nanos,
    pub duration: Nanos,
}

impl Plan {
    /// One CUBIC stream, 3 s of warm-up, 15 s.
    pub fn new(sender: Side) -> Self {
        Plan {
            sender,
            flows: 1,
            algorithm: Algorithm::Cubic,
            ecn: false,
            idle: 3 * SECOND,
            warm_up: 3 * SECOND,
            duration: 15 * SECOND,
        }
    }
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Goodput of each flow in bit/s.
    pub goodput: Vec<f64>,
    /// Their sum over the sum of the lines' rates.
    pub efficiency: f64,
    /// The same over the first second of the transfers.
    pub first_second: f64,
    /// Milliseconds.
    pub ping_idle: f64,
    /// Median and 95th percentile under load minus idle median, in milliseconds.
    pub ping_added: (f64, f64),
    pub ping_unanswered: usize,
    pub retransmitted: u64,
    pub timeouts: u64,
    /// Segments that a receiver dropped because a later one overtook them (old timestamps).
    pub stale: u64,
    /// The longest time without progress of any flow, after the warm-up, in milliseconds.
    pub longest_gap: f64,
    /// Packets of the TCP flows that the tunnel delivered out of order, or twice (both directions).
    pub reordered: u64,
    pub duplicates: u64,
    pub corrupt: u64,
}

/// Carries out a plan in a world whose tunnel is new.
pub fn measure<T: Tunnel>(world: &mut World<T>, scenario: &Scenario, plan: &Plan) -> Outcome {
    world.run_until_ready();
    let ping = world.add_ping(10 * MILLI);
    let begin = world.now();
    world.run_for(plan.idle);
    let start = world.now();
    let config = TcpConfig { algorithm: plan.algorithm, ecn: plan.ecn, ..TcpConfig::bulk(plan.sender) };
    // Not in the same instant: real downloads are not either.
    let flow = |(index, world): (usize, &mut World<T>)| {
        world.add_tcp(TcpConfig { start: index as u64 * 10 * MILLI, ..config.clone() })
    };
    let flows: Vec<usize> = (0..plan.flows).map(|index| flow((index, world))).collect();
    let (from, to) = (start + plan.warm_up, start + plan.warm_up + plan.duration);
    world.run_until(to);
    let capacity = scenario.mean_capacity(plan.sender, from, to);
    let early_capacity = scenario.mean_capacity(plan.sender, start, start + SECOND);
    let goodput: Vec<f64> = flows.iter().map(|&flow| world.tcp(flow).receiver.goodput(from, to)).collect();
    let early =
        flows.iter().map(|&flow| world.tcp(flow).receiver.goodput(start, start + SECOND)).sum::<f64>();
    let idle = world.ping(ping).round_trips(begin, start);
    let loaded = world.ping(ping).round_trips(from, to - SECOND);
    let both = |count: fn(&crate::world::Ledger) -> u64| {
        flows.iter().flat_map(|&flow| Side::BOTH.map(|side| count(world.ledger(flow, side)))).sum()
    };
    let gaps = flows.iter().map(|&flow| world.tcp(flow).receiver.longest_gap(from, to));
    Outcome {
        efficiency: goodput.iter().sum::<f64>() / capacity,
        goodput,
        first_second: early / early_capacity,
        ping_idle: idle.median(),
        ping_added: (loaded.median() - idle.median(), loaded.percentile(95.0) - idle.median()),
        ping_unanswered: loaded.unanswered,
        retransmitted: flows.iter().map(|&flow| world.tcp(flow).counters().retransmitted).sum(),
        timeouts: flows.iter().map(|&flow| world.tcp(flow).counters().timeouts).sum(),
        stale: flows.iter().map(|&flow| world.tcp(flow).stale).sum(),
        longest_gap: gaps.max().unwrap_or(0) as f64 / MILLI as f64,
        reordered: both(|ledger| ledger.reordered),
        duplicates: both(|ledger| ledger.duplicates),
        corrupt: world.corrupt,
    }
}
