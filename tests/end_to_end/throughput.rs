//! One connection gets the sum of the lines.

use std::time::Duration;

use lab::bond::{Bond, Setup};
use lab::scenario::Scenario;
use lab::topology::{Plan, Topology};
use lab::traffic::Tcp;

use crate::{demand, network, reached, setup};

const WARM_UP: Duration = Duration::from_secs(3);
const TRANSFER: u64 = 8;

/// Payload bit/s through the bond, down and up, over sym2.
fn rates(test: &str, setup: &Setup, streams: usize) -> Option<[u64; 2]> {
    let network = network(test, Plan::new(Scenario::sym2()))?;
    let _bond = Bond::start(&network, setup).expect("the bond comes up");
    let transfer =
        Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(TRANSFER).streams(streams);
    let down = transfer.clone().run().expect("a download").goodput_after(WARM_UP);
    let up = transfer.upload().run().expect("an upload").goodput_after(WARM_UP);
    println!("{test}: {:.1} Mbit/s down, {:.2} up", down as f64 / 1e6, up as f64 / 1e6);
    Some([down, up])
}

/// At least `percent` of both lines together.
fn reaches(test: &str, policy: &str, streams: usize, percent: u64) {
    let scenario = Scenario::sym2();
    reached(|| {
        let Some([down, up]) = rates(test, &setup().policy(policy), streams) else { return Ok(()) };
        demand(down >= scenario.down_rate() * percent / 100, || format!("{test}: {down} bit/s down"))?;
        demand(up >= scenario.up_rate() * percent / 100, || format!("{test}: {up} bit/s up"))
    });
}

#[test]
fn one_stream_gets_the_sum_of_the_lines_both_ways() {
    reaches("adaptive", "adaptive", 1, 85);
}

#[test]
fn one_stream_gets_the_sum_with_weights() {
    reaches("weighted", "weighted", 1, 85);
}

#[test]
fn one_stream_gets_the_sum_in_turns() {
    reaches("round-robin", "round-robin", 1, 85);
}

#[test]
fn eight_streams_get_the_sum_when_each_stays_on_a_link() {
    // The hash is keyed by chance: once in 128 all eight streams fall on one line of the two.
    reaches("flow", "flow", 8, 85);
}

#[test]
fn one_link_at_a_time_and_copies_on_all_get_one_line() {
    // 42 % of two equal lines are 84 % of one.
    reaches("active-backup", "active-backup", 1, 42);
    reaches("redundant", "redundant", 1, 42);
}
