//! What carries the default route while the bond does not.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use lab::bond::{Bond, End};
use lab::emulator::Cut;
use lab::scenario::Scenario;
use lab::topology::{Cards, Plan, Topology};
use nix::sys::signal::Signal;

use crate::{demand, network, reached, setup};

const LIMIT: Duration = Duration::from_secs(30);
/// What the issue asks for, and what a slow machine may add.
const AT_ONCE: Duration = Duration::from_secs(2);

/// The address from which the router would send to the internet now, which tells by which way.
fn source(network: &Topology) -> Option<IpAddr> {
    network.router.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.connect((Topology::INET_V4, 9)).ok()?;
        Some(socket.local_addr().expect("its address").ip())
    })
}

/// How long it takes until the way is another one.
fn time_until(network: &Topology, way: &str) -> Duration {
    let way: IpAddr = way.parse().expect("an address");
    let started = Instant::now();
    while source(network) != Some(way) {
        assert!(started.elapsed() < LIMIT, "{:?} instead of {way}", source(network));
        std::thread::sleep(Duration::from_millis(5));
    }
    started.elapsed()
}

fn at_once(took: Duration) -> Result<(), String> {
    demand(took < AT_ONCE, || format!("{took:?}"))
}

#[test]
fn the_default_route_goes_to_a_link_when_the_bond_is_down_and_back() {
    reached(fallback);
}

fn fallback() -> Result<(), String> {
    let test = "fallback";
    let Some(network) = network(test, Plan::new(Scenario::sym2())) else { return Ok(()) };
    let mut bond = Bond::prepare(&network, &setup()).expect("files");
    // The last section of the file is the second link.
    let mut file = fs::OpenOptions::new().append(true).open(bond.config(End::Client)).expect("the file");
    file.write_all(b"\toption active '1'\n").expect("the file");
    bond.launch(End::Server).expect("the server starts");
    bond.launch(End::Client).expect("the client starts");
    bond.wait_until_up(2, LIMIT).expect("the bond comes up");
    assert_eq!(source(&network), Some("10.77.0.2".parse().expect("an address")), "through the bond");

    // The server's machine loses its power.
    bond.process(End::Server).signal(Signal::SIGKILL).expect("the daemon runs");
    let took = time_until(&network, "10.0.2.2");
    println!("{test}: by the active link {took:?} after the server has died");
    at_once(took)?;

    // That link's card loses its carrier, too.
    network.line(1).cut(Cut::Carrier);
    let took = time_until(&network, "10.0.1.2");
    println!("{test}: by the other link {took:?} after the first has gone");
    at_once(took)?;
    network.line(1).restore();
    let took = time_until(&network, "10.0.2.2");
    println!("{test}: by the active link {took:?} after it came back");

    bond.process(End::Server).wait(LIMIT).expect("it is our child").expect("the daemon ends");
    bond.launch(End::Server).expect("the server starts again");
    bond.wait_for(End::Client, LIMIT, |status| status["endpoint"]["peers"][0]["up"] == true)
        .expect("the bond comes up");
    let took = time_until(&network, "10.77.0.2");
    println!("{test}: through the bond {took:?} after it is up");
    at_once(took)?;
    bond.stop().expect("both daemons stop");
    Ok(())
}

#[test]
fn a_switch_that_was_changed_before_a_sudden_end_is_given_back_after_the_next() {
    let Some(network) = network("rp_filter", Plan::new(Scenario::sym2()).cards(Cards::OneSubnet)) else {
        return;
    };
    let switch = "net.ipv4.conf.wan1.rp_filter";
    network.router.set_sysctl(switch, "1").expect("a strict filter");
    let mut bond = Bond::start(&network, &setup()).expect("the bond comes up");
    let value = || network.router.sysctl(switch).expect("the filter");
    assert_eq!(value(), "2", "two lines with one address need a loose filter");
    bond.process(End::Client).signal(Signal::SIGKILL).expect("the daemon runs");
    bond.process(End::Client).wait(LIMIT).expect("it is our child").expect("the daemon ends");
    assert_eq!(value(), "2");
    bond.launch(End::Client).expect("the client starts again");
    bond.wait_until_up(2, LIMIT).expect("the bond comes up");
    bond.stop().expect("both daemons stop");
    assert_eq!(value(), "1", "as it was found");
}
