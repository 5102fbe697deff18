//! Kernel mode: the kernel's bonding driver over the links' own devices.
//!
//! The environment says which driver the kernel has: `BONDING_DRIVER` is `stock` (it takes no TUN devices) or `patched`;
//! `make test-kernel` runs these tests under both, in virtual machines. Without it, a driver that is loaded is
//! used for what every driver can, TAP devices; without a driver the tests are skipped, except that of its absence.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use lab::bond::{Bond, CLIENT_V4, End, SERVER_V4, Setup, links_in_state};
use lab::emulator::{Cut, Direction};
use lab::namespace::Namespace;
use lab::scenario::{LinePlan, Scenario};
use lab::topology::{Plan, Topology};
use lab::traffic::{Echo, Tcp, Udp};
use serde_json::Value;

use crate::{demand, network, reached, setup};

/// Long, because a machine without hardware to be virtual in is slow.
const LIMIT: Duration = Duration::from_secs(30);
/// What a user is promised: a dead link is out of use after this.
const DETECTION: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DriverKind {
    Absent,
    Stock,
    Patched,
    Unknown,
}

fn driver() -> DriverKind {
    match std::env::var("BONDING_DRIVER").as_deref() {
        Ok("stock") => DriverKind::Stock,
        Ok("patched") => DriverKind::Patched,
        _ if Path::new("/sys/module/bonding").exists() => DriverKind::Unknown,
        _ => DriverKind::Absent,
    }
}

fn skip(test: &str, why: &str) {
    // Past the capture of the test harness. Nothing can be done about a closed stderr.
    let _ = writeln!(
        std::io::stderr(),
        "skipped: {test}: {why}; `make test-kernel` runs it in a virtual machine"
    );
}

/// Whether the driver can do what the test wants.
fn has_driver(test: &str, device: &str) -> bool {
    match (driver(), device) {
        (DriverKind::Absent, _) => {
            skip(test, "the kernel's bonding driver is not loaded (modprobe bonding max_bonds=0)");
        }
        (DriverKind::Stock | DriverKind::Unknown, "tun") => {
            skip(
                test,
                "TUN devices need the patched bonding driver (BONDING_DRIVER=patched says that it is)",
            );
        }
        _ => return true,
    }
    false
}

fn kernel(device: &str, mode: &str) -> Setup {
    let mut setup =
        setup().global("mode", "kernel").both_bonds("tunnel_type", device).both_bonds("bond_mode", mode);
    setup.bond.push(("remote_ipaddr".into(), format!("{SERVER_V4} fd77::1")));
    setup
}

/// What a namespace has besides what it had.
fn added(namespace: &Namespace, before: &[String]) -> Vec<String> {
    let after = namespace.snapshot().expect("a snapshot");
    // The kernel's own table of local addresses fills up by and by.
    after.into_iter().filter(|line| !before.contains(line) && !line.contains("table 255")).collect()
}

fn snapshots(network: &Topology) -> [Vec<String>; 2] {
    [&network.router, &network.server].map(|namespace| namespace.snapshot().expect("a snapshot"))
}

fn assert_nothing_is_left(network: &Topology, before: &[Vec<String>; 2]) {
    for (namespace, before) in [&network.router, &network.server].into_iter().zip(before) {
        assert_eq!(added(namespace, before), Vec::<String>::new(), "{}", namespace.name());
    }
}

/// Carriers of the slaves, by their links' numbers.
fn carriers(status: &Value) -> Vec<bool> {
    let slaves = status["kernel"]["slaves"].as_array().into_iter().flatten();
    slaves.map(|slave| slave["carrier"] == Value::Bool(true)).collect()
}

fn start(network: &Topology, setup: &Setup) -> Bond {
    let mut bond = Bond::prepare(network, setup).expect("files and keys");
    bond.launch(End::Server).expect("the server starts");
    bond.launch(End::Client).expect("the client starts");
    bond.wait_until_up(2, LIMIT).expect("the bond comes up");
    for end in [End::Client, End::Server] {
        bond.wait_for(end, LIMIT, |status| carriers(status) == [true, true])
            .expect("both slaves have carrier");
    }
    bond
}

/// Neither end starts, both say why and what to do, and nothing is left of the attempt.
fn refused(test: &str, setup: &Setup, words: &[&str]) {
    let Some(network) = network(test, Plan::new(Scenario::sym2())) else { return };
    let before = snapshots(&network);
    let mut bond = Bond::prepare(&network, setup).expect("files and keys");
    for end in [End::Server, End::Client] {
        bond.launch(end).expect("the daemon starts");
        let process = bond.process(end);
        let status = process.wait(LIMIT).expect("it is our child").expect("it ends by itself");
        let output = process.wait_for_output(words.first().unwrap_or(&""), LIMIT).unwrap_or_default();
        assert!(!status.success(), "{end:?}: {output}");
        for word in words {
            assert!(output.contains(word), "{end:?} does not say '{word}': {output}");
        }
    }
    assert_nothing_is_left(&network, &before);
}

#[test]
fn a_kernel_without_the_driver_is_told_of() {
    if driver() != DriverKind::Absent {
        return skip("no bonding driver", "this kernel has one");
    }
    refused(
        "no bonding driver",
        &kernel("tap", "balance-rr"),
        &["bonding driver", "opkg install kmod-bonding", "'user'"],
    );
}

#[test]
fn a_driver_without_the_patch_is_told_of() {
    if driver() != DriverKind::Stock {
        return skip(
            "unpatched driver",
            "it is not known that this kernel's bonding driver is without the patch",
        );
    }
    let words = ["refuses the TUN device", "os error 95", "tunnel_type 'tap'", "kmod-bonding-tun"];
    refused("unpatched driver", &kernel("tun", "balance-rr"), &words);
}

/// Packets that each line has carried up.
fn carried(network: &Topology) -> [u64; 2] {
    [0, 1].map(|line| network.line(line).counters(Direction::Up).passed)
}

fn pings(from: &Namespace, to: IpAddr, count: u16) -> u32 {
    let echo = Echo::new(from, to).count(count).interval(Duration::from_millis(50));
    echo.timeout(Duration::from_secs(3)).ping().expect("pings").received
}

/// Repeats until it is so; the packets of a link that has just died may be lost.
fn until(what: &str, limit: Duration, mut attempt: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !attempt() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
    }
    start.elapsed()
}

/// The whole life of a bond under `balance-rr`: packets go evenly over both lines; a dead line loses its carrier, and
/// then everything goes over the other; both come back; and nothing is left at the end.
fn packets_take_turns(test: &str, device: &str) {
    if !has_driver(test, device) {
        return;
    }
    let Some(network) = network(test, Plan::new(Scenario::sym2())) else { return };
    let before = snapshots(&network);
    let mut bond = start(&network, &kernel(device, "balance-rr"));
    until("pings to the internet", LIMIT, || pings(&network.lan, Topology::INET_V4, 20) == 20);
    // The server has a route to the LAN, through the other end where that is Ethernet: nothing is translated.
    until("pings to the LAN", LIMIT, || pings(&network.inet, Topology::LAN_V4, 10) == 10);
    until("pings over IPv6", LIMIT, || pings(&network.lan, Topology::INET_V6, 10) == 10);

    let start = carried(&network);
    let stream =
        Udp::new(&network.lan, &network.inet, Topology::INET_V4).upload().rate(150).size(400).seconds(3);
    let report = stream.run().expect("a stream");
    let end = carried(&network);
    let [first, second] = [end[0] - start[0], end[1] - start[1]];
    println!("{test}: {first} and {second} packets, {} of {} lost", report.lost, report.sent);
    assert!(first + second >= report.sent * 9 / 10, "{first} and {second} of {}", report.sent);
    let share = first * 100 / (first + second);
    assert!((44..=56).contains(&share), "{first} and {second} packets are not even");
    assert!(report.lost * 50 <= report.sent, "{} of {} lost", report.lost, report.sent);

    let download = Tcp::new(&network.lan, &network.inet, Topology::INET_V4).bytes(500_000).deadline(LIMIT);
    let download = download.run().expect("a download");
    assert!(download.completed, "{:?}", download.errors());

    // An idle link is looked after less often than one that carries something.
    let stream = Udp::new(&network.lan, &network.inet, Topology::INET_V4).rate(50).seconds(60);
    let streams = [stream.clone(), stream.upload()].map(|stream| stream.start().expect("a stream"));
    network.line(1).cut(Cut::Silent);
    let cut = Instant::now();
    for end in [End::Client, End::Server] {
        bond.wait_for(end, LIMIT, |status| carriers(status).get(1) == Some(&false))
            .expect("the carrier goes");
    }
    let detected = cut.elapsed();
    drop(streams.map(|stream| stream.stop()));
    let took = until("pings over the other line", LIMIT, || pings(&network.lan, Topology::INET_V4, 5) == 5);
    println!("{test}: a silent cut was seen after {detected:?}, pings went on {took:?} later");
    assert!(detected < DETECTION, "{detected:?}");
    let before_cut = carried(&network);
    until("pings over one line", LIMIT, || pings(&network.lan, Topology::INET_V4, 20) == 20);
    assert!(carried(&network)[0] - before_cut[0] >= 20, "the other line carries them");

    network.line(1).restore();
    for end in [End::Client, End::Server] {
        bond.wait_for(end, LIMIT, |status| carriers(status) == [true, true]).expect("the carrier comes back");
    }
    until("pings over both lines again", LIMIT, || pings(&network.lan, Topology::INET_V4, 10) == 10);
    bond.stop().expect("both daemons stop");
    assert_nothing_is_left(&network, &before);
}

#[test]
fn packets_take_turns_over_tun_devices() {
    packets_take_turns("TUN, balance-rr", "tun");
}

#[test]
fn packets_take_turns_over_tap_devices() {
    packets_take_turns("TAP, balance-rr", "tap");
}

fn other_modes(device: &str) {
    let test = &format!("{device}: other modes");
    if !has_driver(test, device) {
        return;
    }
    let Some(network) = network(test, Plan::new(Scenario::sym2())) else { return };
    for mode in ["active-backup", "balance-xor", "broadcast"] {
        let mut bond = start(&network, &kernel(device, mode));
        // Neighbours are looked for first.
        until("the first pings", LIMIT, || pings(&network.lan, Topology::INET_V4, 3) == 3);
        let before = carried(&network);
        let streams = Tcp::new(&network.lan, &network.inet, Topology::INET_V4).upload().streams(16);
        let upload = streams.bytes(30_000).deadline(LIMIT).run().expect("an upload");
        assert!(upload.completed, "{mode}: {:?}", upload.errors());
        let after = carried(&network);
        let mut lines = [after[0] - before[0], after[1] - before[1]];
        lines.sort_unstable();
        let [less, more] = lines;
        println!("{test}: {mode}: {less} and {more} packets");
        match mode {
            "active-backup" => assert!(less * 5 < more, "{mode}: {less} and {more}"),
            // Sixteen streams fall on one line of two in one of 32 768 cases.
            "balance-xor" => assert!(less * 12 > more, "{mode}: {less} and {more}"),
            _ => assert!(less * 10 > more * 8, "{mode}: {less} and {more}"),
        }
        bond.stop().expect("both daemons stop");
    }
}

#[test]
fn other_modes_over_tun_devices() {
    other_modes("tun");
}

#[test]
fn other_modes_over_tap_devices() {
    other_modes("tap");
}

#[test]
fn arp_finds_a_dead_link_over_tap_devices() {
    let test = "TAP, arp_interval";
    if !has_driver(test, "tap") {
        return;
    }
    let Some(network) = network(test, Plan::new(Scenario::sym2())) else { return };
    let mut setup = kernel("tap", "balance-rr").both_bonds("arp_interval", "200");
    setup.bond.push(("arp_ip_target".into(), SERVER_V4.into()));
    setup.server_bond.push(("arp_ip_target".into(), CLIENT_V4.into()));
    let bond = start(&network, &setup);
    until("the first pings", LIMIT, || pings(&network.lan, Topology::INET_V4, 10) == 10);
    network.line(0).cut(Cut::Silent);
    until("pings over the other line", LIMIT, || pings(&network.lan, Topology::INET_V4, 10) == 10);
    drop(bond);
}

/// What a killed daemon leaves behind is replaced by the next one, and a slave that somebody deletes is made anew.
#[test]
fn devices_that_are_left_behind_or_deleted_are_made_anew() {
    let test = "killed daemon in kernel mode";
    let device = if driver() == DriverKind::Patched { "tun" } else { "tap" };
    if !has_driver(test, device) {
        return;
    }
    let Some(network) = network(test, Plan::new(Scenario::sym2())) else { return };
    let before = snapshots(&network);
    let mut bond = start(&network, &kernel(device, "balance-rr"));
    for end in [End::Client, End::Server] {
        bond.process(end).signal(nix::sys::signal::Signal::SIGKILL).expect("the daemon runs");
        bond.process(end).wait(LIMIT).expect("it is our child").expect("the daemon ends");
        bond.launch(end).expect("the daemon starts again");
    }
    let whole = |bond: &Bond| {
        for end in [End::Client, End::Server] {
            bond.wait_for(end, LIMIT, |status| {
                links_in_state(status, "up") == 2 && carriers(status) == [true, true]
            })
            .expect("the bond comes up again");
        }
        until("pings", LIMIT, || pings(&network.lan, Topology::INET_V4, 5) == 5);
    };
    whole(&bond);
    network.router.remove_link("bond0-line2").expect("the device is there");
    bond.process(End::Client).wait_for_output("made anew", LIMIT).expect("the daemon notices");
    whole(&bond);
    bond.stop().expect("both daemons stop");
    assert_nothing_is_left(&network, &before);
}

/// Payload bit/s of a transfer, after its start.
fn goodput(transfer: Tcp) -> u64 {
    transfer.run().expect("a transfer").goodput_after(Duration::from_secs(2))
}

/// The fifth recipe, bondlink: its own sections and names, round-robin over TUN devices of the patched driver.
#[test]
fn the_recipe_of_bondlink_over_tun_devices() {
    let test = "bondlink";
    if !has_driver(test, "tun") {
        return;
    }
    // Its author's.
    let line = LinePlan::new(12, 12, 20);
    let lines = Scenario { name: "bondlink", lines: vec![line.clone(), line] };
    let Some(network) = network(test, Plan::new(lines.clone())) else { return };
    let mut setup = kernel("tun", "balance-rr");
    for (option, value) in [("watchdog", "1"), ("watchdog_ip", SERVER_V4), ("watchdog_period", "5")] {
        setup.bond.push((option.into(), value.into()));
    }
    let mut bond = Bond::prepare(&network, &setup).expect("files and keys");
    let mut sections = std::fs::read_to_string(bond.config(End::Client)).expect("the configuration");
    for (number, port) in [(1, 1194), (2, 1195)] {
        let head = format!("config link 'line{number}'\n");
        let more = format!("{head}\toption tunnel 'tun{number}'\n\toption local_port '{port}'\n");
        sections = sections.replace(&head, &more);
    }
    std::fs::write(bond.config(End::Client), sections).expect("the configuration");
    bond.launch(End::Server).expect("the server starts");
    bond.launch(End::Client).expect("the client starts");
    let status =
        bond.wait_for(End::Client, LIMIT, |status| carriers(status) == [true, true]).expect("it comes up");
    let names = [0, 1].map(|slave| status["kernel"]["slaves"][slave]["device"].as_str().unwrap_or_default());
    assert_eq!(names, ["tun1", "tun2"]);
    bond.wait_for(End::Server, LIMIT, |status| carriers(status) == [true, true]).expect("it comes up");
    let transfer = Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(5);
    reached(|| {
        let before = [0, 1].map(|line| network.line(line).counters(Direction::Down).passed);
        let (down, up) = (goodput(transfer.clone()), goodput(transfer.clone().upload()));
        println!("{test}: {:.2} Mbit/s down, {:.2} up", down as f64 / 1e6, up as f64 / 1e6);
        let [first, second] =
            [0, 1].map(|line| network.line(line).counters(Direction::Down).passed - before[line]);
        let share = first * 100 / (first + second).max(1);
        demand((40..=60).contains(&share), || format!("{first} and {second} packets are not even"))?;
        // 90 % of the sum and more, as its author has measured.
        let enough = down * 10 >= lines.down_rate() * 9 && up * 10 >= lines.up_rate() * 9;
        demand(enough, || format!("{down} bit/s down, {up} up"))
    });
}

/// The third recipe, an EdgeRouter and OpenVPN: round-robin over TAP devices, any kernel, nothing encrypted, an MTU that
/// nobody has to find out, the server routes the LAN.
#[test]
fn the_recipe_of_the_edgerouter() {
    let test = "EdgeRouter";
    if !has_driver(test, "tap") {
        return;
    }
    let lines = Scenario::sym2().with(|line| line.with_mtu(1_480));
    let Some(network) = network(test, Plan::new(lines)) else { return };
    let bond = start(&network, &kernel("tap", "balance-rr").global("cipher", "none"));
    // 1480 bytes on the line, less IPv4 (20), UDP (8), our own header and tag (32), and the header of Ethernet (14).
    let fits = |status: &Value| status["mtu"].as_u64().is_some_and(|mtu| (1_390..=1_406).contains(&mtu));
    for end in [End::Client, End::Server] {
        let status = bond.wait_for(end, LIMIT, fits).expect("the MTU is found");
        println!("{test}: MTU {} at {end:?}", status["mtu"]);
        assert_eq!(status["endpoint"]["peers"][0]["cipher"], "none");
    }
    let captures = [0, 1].map(|line| network.line(line).capture(20_000));
    let download = Tcp::new(&network.lan, &network.inet, Topology::INET_V4).bytes(1_000_000).deadline(LIMIT);
    let download = download.run().expect("a download");
    assert!(download.completed, "{:?}", download.errors());
    // Full packets fill the line's, whole; only what looks for a larger MTU does not fit.
    let lengths = captures.iter().flat_map(|capture| capture.take()).map(|seen| seen.packet.len());
    let full = lengths.filter(|length| (1_440..=1_480).contains(length)).count();
    assert!(full >= 1_000_000 / 1_400, "{full} packets are full");
    let too_long: u64 =
        [0, 1].map(|line| network.line(line).counters(Direction::Down).dropped_mtu).iter().sum();
    assert!(too_long < 40, "{too_long} packets do not fit the line");
    until("pings to the LAN's own addresses", LIMIT, || pings(&network.inet, Topology::LAN_V4, 10) == 10);
}
