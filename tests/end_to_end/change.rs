//! WANs that change under the bond, a bond that goes away and comes back, and what it costs when nothing happens.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lab::bond::{Bond, End, links_in_state};
use lab::emulator::Direction;
use lab::namespace::Route;
use lab::prefix::Prefix;
use lab::scenario::{LinePlan, Scenario};
use lab::topology::{Plan, Topology};
use lab::traffic::{Echo, Tcp, Udp};
use lab::usage::Usage;

use crate::routing::state;
use crate::{demand, network, reached, setup};

const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks at what changes.
const LOOK: Duration = Duration::from_millis(10);

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').expect("a prefix");
    Prefix { address: address.parse().expect("an address"), length: length.parse().expect("a length") }
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Plugs a modem into the router: a third way to the server, quick and not emulated.
fn plug(network: &Topology) -> io::Result<u32> {
    network.router.add_veth("usb0", &network.server, "modem")?;
    network.router.add_address("usb0", prefix("172.16.0.2/24"))?;
    network.server.add_address("modem", prefix("172.16.0.1/24"))?;
    network.router.add_route(&Route::default_via(address("172.16.0.1")).device("usb0").metric(9))?;
    network.router.link_index("usb0")
}

/// Removes the options `ipaddr` and `gateway` of all links, so that they follow what their devices have.
fn follow_devices(bond: &Bond, further: &str) {
    let path = bond.config(End::Client);
    let text = fs::read_to_string(path).expect("the file");
    let mut link = false;
    let kept = text.lines().filter(|line| {
        link |= line.starts_with("config link");
        !link || !(line.contains("option ipaddr") || line.contains("option gateway"))
    });
    let text: String = kept.chain(further.lines()).map(|line| format!("{line}\n")).collect();
    fs::write(path, text).expect("the file");
}

fn renumbering_and_replugging() -> Result<(), String> {
    let Some(network) = network("changing WANs", Plan::new(Scenario::sym2())) else { return Ok(()) };
    let first = plug(&network).expect("a third device");
    let mut bond = Bond::prepare(&network, &setup()).expect("the files");
    follow_devices(
        &bond,
        "\nconfig link 'modem'\n\toption device 'usb0'\n\toption upload '1mbit'\n\toption download '5mbit'\n",
    );
    bond.launch(End::Server).expect("the server starts");
    bond.launch(End::Client).expect("the client starts");
    bond.wait_until_up(3, LIMIT).expect("three links");
    let download =
        Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(180).start().expect("a download");
    let stream = Udp::new(&network.lan, &network.inet, Topology::INET_V4).upload().rate(100).seconds(180);
    let stream = stream.start().expect("a stream");
    let goes_on = |what: &str| {
        let more = download.wait_for_bytes(download.received() + 1_000_000, LIMIT);
        demand(more, || format!("{what}: the download stands still"))
    };
    goes_on("three links")?;

    network.router.remove_link("usb0").expect("the device goes");
    bond.wait_for(End::Client, LIMIT, |status| links_in_state(status, "up") == 2).expect("it is noticed");
    goes_on("a device less")?;
    let second = plug(&network).expect("the device comes back");
    assert_ne!(first, second, "under another number");
    bond.wait_until_up(3, LIMIT).expect("it is used again");
    goes_on("it is back")?;

    network.router.remove_address("wan1", prefix("10.0.1.2/24")).expect("the lease ends");
    goes_on("no address")?;
    network.router.add_address("wan1", prefix("10.0.1.77/24")).expect("another lease");
    let route = Route::default_via(address("10.0.1.1")).device("wan1").metric(1);
    network.router.add_route(&route).expect("its gateway");
    bond.wait_until_up(3, LIMIT).expect("the new address is used");
    let status = bond.status(End::Client).expect("a status");
    let links = status["endpoint"]["peers"][0]["links"].as_array().expect("links");
    assert!(links.iter().any(|link| link["local"] == "10.0.1.77"), "{links:#?}");
    goes_on("another address")?;

    let (download, stream) = (download.stop(), stream.stop());
    println!(
        "changing WANs: TCP stopped for {:?}; UDP: {} of {} lost, stopped for {:?}",
        download.longest_gap, stream.lost, stream.sent, stream.longest_gap
    );
    bond.stop().expect("both daemons stop");
    assert!(download.completed, "{:?}", download.errors());
    let stopped = download.longest_gap;
    demand(stopped.length <= Duration::from_secs(1), || format!("TCP stopped for {stopped:?}"))?;
    demand(stream.lost <= 10, || format!("{} of {} lost", stream.lost, stream.sent))
}

#[test]
fn a_device_that_goes_and_comes_back_and_another_address_are_followed() {
    reached(renumbering_and_replugging);
}

/// How long until the router's default route leads there.
fn wait_for_default(network: &Topology, to: &str) -> Duration {
    let began = Instant::now();
    let leads =
        |line: &String| line.starts_with("route Inet Unicast table 5542 default") && line.contains(to);
    while !state(&network.router).iter().any(leads) {
        assert!(began.elapsed() < LIMIT, "{:#?}", state(&network.router));
        std::thread::sleep(LOOK);
    }
    began.elapsed()
}

#[test]
fn without_the_bond_a_wan_has_the_default_route() {
    reached(|| {
        let Some(network) = network("default route", Plan::new(Scenario::sym2())) else { return Ok(()) };
        let mut bond = Bond::prepare(&network, &setup()).expect("the files");
        let path = bond.config(End::Client).to_owned();
        let text = fs::read_to_string(&path).expect("the file");
        // The second link is the one for bad times.
        fs::write(&path, text + "\toption active '1'\n").expect("the file");
        bond.launch(End::Server).expect("the server starts");
        bond.launch(End::Client).expect("the client starts");
        bond.wait_until_up(2, LIMIT).expect("the bond comes up");
        let carried = || [0, 1].map(|line| network.line(line).counters(Direction::Up).passed);
        let ping = || {
            let echo =
                Echo::new(&network.lan, Topology::INET_V4).count(1).timeout(Duration::from_millis(300));
            echo.ping().is_ok_and(|report| report.received == 1)
        };
        assert!(ping(), "through the bond");
        wait_for_default(&network, "device bond0");

        bond.halt(End::Server).expect("the server stops");
        let away = wait_for_default(&network, "device wan2");
        assert!(ping(), "through the WAN");
        let quiet = carried();
        assert!(ping() && carried()[1] > quiet[1], "through the second one");

        bond.launch(End::Server).expect("the server starts again");
        bond.wait_until_up(2, LIMIT).expect("the bond comes up again");
        let back = wait_for_default(&network, "device bond0");
        assert!(ping(), "through the bond again");
        println!("default route: away after {away:?}, back {back:?} after the bond was up");
        bond.stop().expect("the client stops");

        // A server that dies says no farewell.
        let mut bond = Bond::start(&network, &setup()).expect("the bond comes up");
        wait_for_default(&network, "device bond0");
        bond.process(End::Server).signal(nix::sys::signal::Signal::SIGKILL).expect("the server runs");
        let dead = wait_for_default(&network, "device wan");
        println!("default route: away {dead:?} after the server's death");
        let limit = Duration::from_secs(2);
        demand(away < limit && back < limit && dead < limit, || format!("{away:?}, {back:?}, {dead:?}"))
    });
}

fn usage(process: u32) -> Usage {
    Usage::of(process).expect("the process runs")
}

#[test]
fn an_idle_bond_costs_next_to_nothing() {
    reached(|| {
        let Some(network) = network("idle", Plan::new(Scenario::sym2())) else { return Ok(()) };
        let mut bond = Bond::start(&network, &setup()).expect("the bond comes up");
        let processes = [End::Client, End::Server].map(|end| bond.process(end).id());
        let packets = || {
            [0, 1].map(|line| {
                Direction::BOTH.map(|way| network.line(line).counters(way).passed).iter().sum::<u64>()
            })
        };
        // After the search for the MTU and the rate, nothing is left to do.
        std::thread::sleep(Duration::from_secs(3));
        let (cpu, before) = (processes.map(|process| usage(process).cpu), packets());
        let span = Duration::from_secs(10);
        std::thread::sleep(span);
        let after = packets();
        let spent = [0, 1].map(|end| usage(processes[end]).cpu - cpu[end]);
        let resident = processes.map(|process| usage(process).resident);
        let rates = [0, 1].map(|line| (after[line] - before[line]) as f64 / span.as_secs_f64());
        println!(
            "idle: {rates:?} packets a second on the links, {spent:?} of {span:?} spent, {resident:?} bytes resident"
        );
        bond.stop().expect("both daemons stop");
        demand(rates.iter().all(|rate| *rate < 3.0), || format!("{rates:?} packets a second"))?;
        demand(resident.iter().all(|bytes| *bytes < 8 << 20), || format!("{resident:?} bytes resident"))?;
        demand(spent.iter().all(|spent| *spent * 200 <= span), || format!("{spent:?}"))
    });
}

/// Resident memory of both daemons after five seconds of load, and its growth until `seconds` have passed, in bytes.
fn memory_under_load(seconds: u64) -> Option<[(u64, i64); 2]> {
    let network = network("memory", Plan::new(Scenario::asym2()))?;
    let mut bond = Bond::start(&network, &setup()).expect("the bond comes up");
    let transfer = Tcp::new(&network.lan, &network.inet, Topology::INET_V4).streams(4).seconds(seconds + 2);
    let download = transfer.clone().start().expect("downloads");
    let upload = transfer.upload().start().expect("uploads");
    let processes = [End::Client, End::Server].map(|end| bond.process(end).id());
    std::thread::sleep(Duration::from_secs(5));
    let early = processes.map(|process| usage(process).resident);
    std::thread::sleep(Duration::from_secs(seconds.saturating_sub(5)));
    let late = processes.map(|process| usage(process).resident);
    let (download, upload) = (download.finish(), upload.finish());
    assert!(download.completed && upload.completed, "{:?} {:?}", download.errors(), upload.errors());
    println!("memory: {early:?} bytes after 5 s of load, {late:?} after {seconds} s");
    bond.stop().expect("both daemons stop");
    Some([0, 1].map(|end| (late[end], late[end].cast_signed() - early[end].cast_signed())))
}

#[test]
fn memory_stays_what_it_is() {
    reached(|| {
        let Some(ends) = memory_under_load(12) else { return Ok(()) };
        demand(ends.iter().all(|(_, growth)| *growth < 1 << 20), || format!("{ends:?}"))
    });
}

/// Two lines of 50 Mbit/s each way with 50 ms one way, full in both directions.
#[test]
fn memory_under_full_load_is_what_a_router_has() {
    let lines = vec![LinePlan::new(50, 50, 50), LinePlan::new(50, 50, 50)];
    let plan = Plan::new(Scenario { name: "memory", lines });
    let Some(network) = network("memory under full load", plan) else { return };
    let mut bond = Bond::start(&network, &setup()).expect("the bond comes up");
    let transfer = Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(6);
    let download = transfer.clone().streams(4).start().expect("downloads");
    let upload = transfer.upload().start().expect("an upload");
    let processes = [End::Client, End::Server].map(|end| bond.process(end).id());
    let (download, upload) = (download.finish(), upload.finish());
    let peaks = processes.map(|process| usage(process).peak);
    println!("most resident: {peaks:?} bytes; {} and {} bytes carried", download.bytes, upload.bytes);
    bond.stop().expect("both daemons stop");
    assert!(download.bytes > 20_000_000 && upload.bytes > 10_000_000, "the lines are full");
    assert!(peaks.iter().all(|peak| *peak < 32 << 20), "{peaks:?} bytes");
}

/// `make soak`.
#[test]
#[ignore = "takes ten minutes"]
fn memory_stays_what_it_is_for_ten_minutes() {
    let Some(ends) = memory_under_load(600) else { return };
    assert!(ends.iter().all(|(_, growth)| *growth < 1 << 20), "{ends:?}");
}
