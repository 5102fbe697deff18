//! Another configuration in the middle of traffic.

use std::fs;
use std::time::{Duration, Instant};

use lab::bond::{Bond, End, link_section, links_in_state};
use lab::scenario::{LinePlan, Scenario};
use lab::topology::{Plan, Topology};
use lab::traffic::{Tcp, Udp, UdpReport};
use serde_json::Value;

use crate::{demand, network, reached, setup};

const LIMIT: Duration = Duration::from_secs(30);

/// A stranger's public key: nobody has the private one.
const STRANGERS: [&str; 2] =
    ["dGhlIHB1YmxpYyBrZXkgb2YgYSBzdHJhbmdlciBBQUE=", "dGhlIHB1YmxpYyBrZXkgb2YgYSBzdHJhbmdlciBCQkI="];

/// Writes the file of one end anew and reloads it.
fn reload(bond: &Bond, end: End, text: &str) -> Result<String, String> {
    fs::write(bond.config(end), text).expect("the test's own file can be written");
    bond.command(end, &["reload"]).map_err(|error| error.to_string())
}

fn read(bond: &Bond, end: End) -> String {
    fs::read_to_string(bond.config(end)).expect("the file is there")
}

/// A change of one end's file, and what its daemon's status says when it has happened.
struct Change {
    name: &'static str,
    end: End,
    text: String,
    done: Box<dyn Fn(&Value) -> bool>,
}

/// Ten changes; after the last the files are what they were.
fn changes(network: &Topology, client: &str, server: &str) -> Vec<Change> {
    let change = |name, end, text: &str, done: Box<dyn Fn(&Value) -> bool>| Change {
        name,
        end,
        text: text.to_owned(),
        done,
    };
    let up = |count: usize| -> Box<dyn Fn(&Value) -> bool> {
        Box::new(move |status| links_in_state(status, "up") == count)
    };
    let peers = |count: usize| -> Box<dyn Fn(&Value) -> bool> {
        Box::new(move |status| {
            status["endpoint"]["peers"].as_array().is_some_and(|peers| peers.len() == count)
        })
    };
    let policy = |name: &'static str| -> Box<dyn Fn(&Value) -> bool> {
        Box::new(move |status| status["endpoint"]["peers"][0]["policy"] == name)
    };
    let third = client.to_owned() + &link_section(&network.lines[2], network.plan.family);
    let rated = third.replacen("option device 'wan2'", "option device 'wan2'\n\toption upload '1500kbit'", 1);
    let weighted = rated.replace("option policy 'adaptive'", "option policy 'weighted'");
    let watched = client
        .replace("option policy", "option watchdog '1'\n\toption watchdog_period '30s'\n\toption policy");
    let guest = |key: &str| {
        server.to_owned()
            + &format!("\nconfig peer 'guest'\n\toption public_key '{key}'\n\tlist ipaddr '10.77.0.9/32'\n")
    };
    vec![
        change("a third link", End::Client, &third, up(3)),
        change("another rate", End::Client, &rated, up(3)),
        change("another policy", End::Client, &weighted, policy("weighted")),
        change("the policy again", End::Client, &rated, policy("adaptive")),
        change("without the third link", End::Client, client, up(2)),
        change("a watchdog", End::Client, &watched, up(2)),
        change("no watchdog", End::Client, client, up(2)),
        change("another peer", End::Server, &guest(STRANGERS[0]), peers(2)),
        change("its key", End::Server, &guest(STRANGERS[1]), peers(2)),
        change("without it", End::Server, server, peers(1)),
    ]
}

#[test]
fn thirty_reloads_lose_nothing() {
    reached(thirty_reloads);
}

fn thirty_reloads() -> Result<(), String> {
    let mut scenario = Scenario::sym2();
    scenario.lines.push(LinePlan::new(10, 2, 30));
    let Some(mut network) = network("30 reloads", Plan::new(scenario)) else { return Ok(()) };
    // The third line is not in the file yet.
    let third = network.lines.pop().expect("three lines");
    let mut bond = Bond::start(&network, &setup()).expect("the bond comes up");
    network.lines.push(third);
    let (client, server) = (read(&bond, End::Client), read(&bond, End::Server));

    let download =
        Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(180).start().expect("a download");
    let stream = Udp::new(&network.lan, &network.inet, Topology::INET_V4).rate(100).seconds(180);
    let down = stream.clone().start().expect("a stream");
    let up = stream.upload().start().expect("a stream");
    assert!(download.wait_for_bytes(1_000_000, LIMIT), "the download runs");

    let mut reloads = Vec::new();
    for round in 0..3 {
        for change in changes(&network, &client, &server) {
            reloads.push((change.name, Instant::now()));
            let said = reload(&bond, change.end, &change.text);
            assert!(said.is_ok(), "{}: {said:?}", change.name);
            if let Err(error) = bond.wait_for(change.end, LIMIT, &change.done) {
                panic!("round {round}, {}: {error}", change.name);
            }
            if !download.wait_for_bytes(download.received() + 100_000, LIMIT) {
                let ends =
                    [End::Client, End::Server].map(|end| bond.command(end, &["status"]).unwrap_or_default());
                panic!("round {round}, {}: {}\n{}", change.name, ends[0], ends[1]);
            }
        }
    }

    // What does not pass the check is refused whole, and said.
    let refused =
        reload(&bond, End::Client, &client.replace("option policy 'adaptive'", "option policy 'fastest'"));
    let message = refused.expect_err("there is no such policy");
    assert!(message.contains("option 'policy'") && message.contains("'fastest'"), "{message}");
    let status = bond.status(End::Client).expect("it runs on");
    assert_eq!(status["endpoint"]["peers"][0]["policy"], "adaptive");
    assert!(status["reload"]["ok"] == false, "{}", status["reload"]);

    let (download, down, up) = (download.stop(), down.stop(), up.stop());
    for (at, (name, began)) in reloads.iter().enumerate() {
        let end = reloads.get(at + 1).map_or_else(Instant::now, |(_, next)| *next);
        let lost = |stream: &UdpReport| {
            stream.lost_between(began.duration_since(stream.started), end.duration_since(stream.started))
        };
        let lost = [lost(&down), lost(&up)];
        if lost != [0, 0] {
            println!("{name}: {lost:?} packets lost, down and up");
        }
    }
    println!(
        "{} reloads: lost {} of {} and {} of {}; TCP stopped for {:?}, streams for {:?} and {:?}",
        reloads.len(),
        down.lost,
        down.sent,
        up.lost,
        up.sent,
        download.longest_gap,
        down.longest_gap,
        up.longest_gap
    );
    bond.stop().expect("both daemons stop");
    assert!(download.completed, "{:?}", download.errors());
    assert_eq!([down.duplicated, up.duplicated], [0; 2]);
    demand([down.lost, up.lost] == [0; 2], || format!("{} and {} packets lost", down.lost, up.lost))?;
    let stopped = download.longest_gap;
    demand(stopped.length < Duration::from_secs(1), || format!("TCP stopped for {stopped:?}"))
}
