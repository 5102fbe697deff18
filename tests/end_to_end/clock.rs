//! Routers whose clock is wrong.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lab::bond::{Bond, End};
use lab::scenario::Scenario;
use lab::topology::Plan;
use nix::sys::signal::Signal;

use crate::{network, setup};

const LIMIT: Duration = Duration::from_secs(30);
const YEARS: u64 = 10 * 365 * 86_400 * 1_000;

/// For the server it is the same whether a router's clock has gone back ten years, or was ten years ahead before.
#[test]
fn a_clock_that_went_back_years_shuts_nobody_out() {
    let Some(network) = network("clock", Plan::new(Scenario::sym2())) else { return };
    let mut bond = Bond::prepare(&network, &setup()).expect("files");
    let file = bond.config(End::Client).with_file_name("clock");
    let read = || fs::read_to_string(&file).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).expect("a date").as_millis() as u64;
    fs::write(&file, format!("{}\n", wall + YEARS)).expect("the clock's file");
    bond.launch(End::Server).expect("the server starts");
    bond.launch(End::Client).expect("the router starts");
    bond.wait_until_up(2, LIMIT).expect("the bond comes up");
    let first = read().expect("a reservation");
    assert!(first > wall + YEARS, "the clock goes on from its file");

    // A loss of power, and a start in what is the past by now.
    bond.process(End::Client).signal(Signal::SIGKILL).expect("the daemon runs");
    bond.process(End::Client).wait(LIMIT).expect("it is our child").expect("the daemon ends");
    bond.launch(End::Client).expect("the router starts");
    bond.wait_until_up(2, LIMIT).expect("the server accepts it");
    assert!(read().expect("a reservation") > first);

    // The server forgets the time of the last handshake, and accepts any.
    bond.process(End::Server).signal(Signal::SIGKILL).expect("the daemon runs");
    bond.process(End::Server).wait(LIMIT).expect("it is our child").expect("the daemon ends");
    bond.launch(End::Server).expect("the server starts");
    bond.wait_until_up(2, LIMIT).expect("the bond comes up again");

    // Who is stopped gives back what was reserved and not used.
    let reserved = read().expect("a reservation");
    bond.stop().expect("both daemons stop");
    let stopped = read().expect("the time of the stop");
    assert!(stopped < reserved && stopped > first, "{first} < {stopped} < {reserved}");
}
