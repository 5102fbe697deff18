//! Lines and daemons that die and come back.

use std::time::{Duration, Instant};

use lab::bond::{Bond, End, links_in_state};
use lab::emulator::{Cut, Direction};
use lab::scenario::Scenario;
use lab::topology::{Plan, Topology};
use lab::traffic::{Tcp, Udp};
use nix::sys::signal::Signal;

use crate::{demand, network, reached, setup};

const LIMIT: Duration = Duration::from_secs(30);

fn a_cut_is_survived(test: &str, cut: Cut) {
    reached(|| cut_and_restore(test, cut));
}

fn cut_and_restore(test: &str, cut: Cut) -> Result<(), String> {
    let Some(network) = network(test, Plan::new(Scenario::sym2())) else { return Ok(()) };
    let bond = Bond::start(&network, &setup()).expect("the bond comes up");
    let download =
        Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(12).start().expect("a download");
    let stream = Udp::new(&network.lan, &network.inet, Topology::INET_V4).rate(100).seconds(12);
    let stream = stream.start().expect("a stream");
    assert!(download.wait_for_bytes(6_000_000, LIMIT), "the download runs");
    network.line(1).cut(cut);
    bond.wait_for(End::Client, LIMIT, |status| links_in_state(status, "up") == 1).expect("the cut is seen");
    assert!(download.wait_for_bytes(download.received() + 1_500_000, LIMIT), "the download goes on");

    let before = network.line(1).counters(Direction::Down).bytes;
    network.line(1).restore();
    let restored = Instant::now();
    while network.line(1).counters(Direction::Down).bytes < before + 100_000 {
        let elapsed = restored.elapsed();
        demand(elapsed < Duration::from_secs(2), || "the restored line carries data within 2 s".into())?;
        std::thread::sleep(Duration::from_millis(5));
    }
    println!("{test}: the restored line has carried 100 kB after {:?}", restored.elapsed());

    let (download, stream) = (download.finish(), stream.finish());
    println!(
        "{test}: TCP stopped for {:?}; UDP: {} of {} lost, {} twice, longest gap {:?}",
        download.longest_gap, stream.lost, stream.sent, stream.duplicated, stream.longest_gap
    );
    assert!(download.completed, "the connection lives: {:?}", download.errors());
    assert_eq!(stream.duplicated, 0);
    let stopped = download.longest_gap;
    demand(stopped.length <= Duration::from_secs(1), || format!("TCP stopped for {stopped:?}"))?;
    demand(stream.lost <= 5, || format!("{} of {} lost", stream.lost, stream.sent))
}

#[test]
fn a_silent_cut_is_survived() {
    a_cut_is_survived("silent cut", Cut::Silent);
}

#[test]
fn a_lost_carrier_is_survived() {
    a_cut_is_survived("lost carrier", Cut::Carrier);
}

/// One end is killed and started again in the middle of a download and an upload, which live. Nothing of them may leave
/// through a WAN meanwhile: it would be answered with a reset.
fn a_restart_is_survived(test: &str, end: End, pause: Duration) {
    reached(|| restart(test, end, pause));
}

fn restart(test: &str, end: End, pause: Duration) -> Result<(), String> {
    let Some(network) = network(test, Plan::new(Scenario::sym2())) else { return Ok(()) };
    let mut bond = Bond::start(&network, &setup()).expect("the bond comes up");
    let transfer = Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(60);
    let download = transfer.clone().start().expect("a download");
    let upload = transfer.upload().start().expect("an upload");
    assert!(download.wait_for_bytes(1_000_000, LIMIT), "the download runs");
    assert!(upload.wait_for_bytes(200_000, LIMIT), "the upload runs");
    bond.process(end).signal(Signal::SIGKILL).expect("the daemon runs");
    assert!(bond.process(end).wait(LIMIT).expect("it is our child").is_some(), "the daemon ends");
    let killed = Instant::now();
    bond.launch(end).expect("the daemon starts again");
    bond.wait_until_up(2, LIMIT).expect("the bond comes up again");
    let up = killed.elapsed();
    let goals = [download.received() + 1_000_000, upload.received() + 200_000];
    let go_on = [download.wait_for_bytes(goals[0], LIMIT), upload.wait_for_bytes(goals[1], LIMIT)];
    let (download, upload) = (download.stop(), upload.stop());
    println!(
        "{test}: up after {up:?}; downward TCP stopped for {:?}, upward for {:?}",
        download.longest_gap, upload.longest_gap
    );
    let live = go_on == [true, true] && download.completed && upload.completed;
    demand(live, || format!("{:?}, {:?}", download.errors(), upload.errors()))?;
    demand(up < pause, || format!("up after {up:?}"))
}

#[test]
fn a_killed_server_is_survived() {
    a_restart_is_survived("killed server", End::Server, Duration::from_secs(2));
}

#[test]
fn a_killed_client_is_survived() {
    a_restart_is_survived("killed client", End::Client, Duration::from_secs(1));
}

#[test]
fn an_address_that_changes_at_the_provider_is_followed() {
    reached(rebinding);
}

fn rebinding() -> Result<(), String> {
    let test = "NAT rebinding";
    let Some(network) = network(test, Plan::new(Scenario::sym2())) else { return Ok(()) };
    let bond = Bond::start(&network, &setup()).expect("the bond comes up");
    let stream = Udp::new(&network.lan, &network.inet, Topology::INET_V4).rate(100).seconds(6);
    let stream = stream.start().expect("a stream");
    let address = |status: &serde_json::Value| {
        status["endpoint"]["peers"][0]["links"][0]["remote"].as_str().unwrap_or_default().to_owned()
    };
    let old = address(&bond.status(End::Server).expect("a status"));
    network.line(0).rebind(Some("192.0.2.77".parse().expect("an address")));
    let status = bond
        .wait_for(End::Server, LIMIT, |status| address(status).starts_with("192.0.2.77:"))
        .expect("the server follows");
    println!("{test}: {old} is now {}", address(&status));
    let report = stream.finish();
    demand(report.lost <= 5, || format!("{} of {} lost", report.lost, report.sent))
}
