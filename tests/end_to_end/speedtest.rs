//! `bonding speedtest` measures the bond and keeps to the link that it is told to.

use std::time::{Duration, Instant};

use lab::bond::{Bond, End};
use lab::emulator::Direction;
use lab::scenario::Scenario;
use lab::topology::{Plan, Topology};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{demand, network, reached, setup};

const LIMIT: Duration = Duration::from_secs(30);

fn results(bond: &Bond, arguments: &[&str]) -> Result<Vec<Value>, String> {
    let output = bond.command(End::Client, &[&["speedtest", "--json"], arguments].concat());
    let output = output.expect("the speed test succeeds");
    let lines: Vec<Value> =
        output.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect();
    let phases: Vec<&str> = lines.iter().filter_map(|line| line["phase"].as_str()).collect();
    assert_eq!((phases.first(), phases.last()), (Some(&"latency"), Some(&"done")), "{phases:?}");
    assert!(phases.contains(&"download") && phases.contains(&"upload"), "{phases:?}");
    let progress: Vec<f64> = lines.iter().filter_map(|line| line["progress"].as_f64()).collect();
    assert!(progress.len() > 4 && progress.is_sorted() && progress.last() == Some(&1.0), "{progress:?}");
    let last = lines.last().expect("a line");
    let idle = last["idle_ms"].as_f64().expect("a round trip");
    println!("round trips: {idle} ms, {} under load", last["loaded_ms"]);
    demand((40.0..80.0).contains(&idle), || format!("{idle} ms over lines of 20 ms"))?;
    Ok(last["results"].as_array().expect("results").clone())
}

/// Down and up.
fn rates(results: &[Value]) -> [u64; 2] {
    ["download", "upload"].map(|direction| {
        let result = results.iter().find(|result| result["direction"] == direction).expect("a result");
        result["bits_per_second"].as_u64().expect("a rate")
    })
}

fn carried(network: &Topology, line: usize) -> u64 {
    [Direction::Up, Direction::Down].map(|way| network.line(line).counters(way).bytes).iter().sum()
}

#[test]
fn a_speed_test_measures_the_bond_and_one_link_alone() {
    reached(measure);
}

fn measure() -> Result<(), String> {
    let Some(network) = network("speedtest", Plan::new(Scenario::sym2())) else { return Ok(()) };
    let bond = Bond::start(&network, &setup()).expect("the bond comes up");
    let whole = results(&bond, &["--bond-only", "--seconds", "2"])?;
    let [down, up] = rates(&whole);
    println!("bond: {down} bit/s down, {up} bit/s up");
    demand((12_000_000..20_000_000).contains(&down), || format!("two lines of 10 Mbit/s: {down}"))?;
    demand((2_400_000..4_000_000).contains(&up), || format!("two lines of 2 Mbit/s: {up}"))?;

    let before = [0, 1].map(|line| carried(&network, line));
    let one = results(&bond, &["--link", "line2", "--seconds", "2"])?;
    let [down, up] = rates(&one);
    println!("line2: {down} bit/s down, {up} bit/s up");
    assert!(one.iter().all(|result| result["link"] == "line2"));
    demand((4_000_000..10_000_000).contains(&down), || format!("{down} bit/s down"))?;
    demand((800_000..2_000_000).contains(&up), || format!("{up} bit/s up"))?;
    let [other, used] = [0, 1].map(|line| carried(&network, line) - before[line]);
    demand(used > 20 * other, || format!("the other line has carried {other} bytes, this one {used}"))?;

    let unknown = bond.command(End::Client, &["speedtest", "--link", "line9"]).expect_err("there is none");
    assert!(unknown.to_string().contains("'line9'"), "{unknown}");
    let server = bond.command(End::Server, &["speedtest"]).expect_err("it has no links");
    assert!(server.to_string().contains("at the router"), "{server}");
    Ok(())
}

/// What a daemon has of a device goes to the one that it makes in its place: who listens on it, and its survival of a
/// sudden end.
#[test]
fn a_device_that_somebody_deletes_is_made_anew_as_it_was() {
    let Some(network) = network("deleted device", Plan::new(Scenario::sym2())) else { return };
    let mut bond = Bond::start(&network, &setup()).expect("the bond comes up");
    for (end, namespace) in [(End::Server, &network.server), (End::Client, &network.router)] {
        let first = namespace.link_index("bond0").expect("the device");
        namespace.remove_link("bond0").expect("the device goes");
        bond.process(end).wait_for_output("made anew", LIMIT).expect("the daemon notices");
        assert_ne!(namespace.link_index("bond0").expect("another device"), first);
    }
    let mut tested = Err(std::io::Error::other("never"));
    let deadline = Instant::now() + LIMIT;
    while tested.is_err() && Instant::now() < deadline {
        // The routes may still be on their way.
        tested = bond.command(End::Client, &["speedtest", "--bond-only", "--seconds", "1"]);
    }
    tested.expect("the server's end listens on the new device");
    for (end, namespace) in [(End::Server, &network.server), (End::Client, &network.router)] {
        let device = namespace.link_index("bond0").expect("the device");
        bond.process(end).signal(Signal::SIGKILL).expect("the daemon runs");
        bond.process(end).wait(LIMIT).expect("it is our child").expect("the daemon ends");
        assert_eq!(namespace.link_index("bond0").expect("it outlives the daemon"), device);
    }
}
