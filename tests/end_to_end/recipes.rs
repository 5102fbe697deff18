//! The recipes of the manual, each in the network of its author, with his addresses.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use lab::directory::write_program;
use lab::emulator::{Direction, Emulator, EmulatorBuilder, LineHandle, LineSetup, NatConfig};
use lab::namespace::{Namespace, Route};
use lab::prefix::Prefix;
use lab::scenario::{LinePlan, Scenario};
use lab::topology::Plan;
use lab::traffic::{Echo, Tcp};

use crate::manual::Bench;
use crate::{demand, reached};

const LIMIT: Duration = Duration::from_secs(30);

/// A host of the internet, and the server's address on that side.
const INET: &str = "198.51.100.2";
const INET_GATEWAY: &str = "198.51.100.1";

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').expect("a prefix");
    Prefix { address: ip(address), length: length.parse().expect("a length") }
}

/// An internet line of the router.
struct Line {
    /// The router's card.
    device: &'static str,
    /// The router's address, if it has not been given for the line before.
    address: Option<&'static str>,
    /// The box.
    gateway: &'static str,
    plan: LinePlan,
}

/// The network around a router and a server.
struct Place {
    lan: Namespace,
    router: Namespace,
    server: Namespace,
    inet: Namespace,
    lines: Vec<LineHandle>,
    _emulator: Emulator,
}

impl Place {
    /// `server` is its address, on a card `wan0`; the internet is behind its card `inet0`. The LAN's host is at `lan`,
    /// and the router at `router` of the same network.
    fn build(server: &str, [router, lan]: [&str; 2], lines: Vec<Line>) -> io::Result<Place> {
        let names = ["lan", "router", "server", "inet"].map(Namespace::new);
        let [lan_host, router_host, server_host, inet] = names;
        let (lan_host, router_host, server_host, inet) = (lan_host?, router_host?, server_host?, inet?);
        router_host.enable_forwarding()?;

        router_host.add_veth("lan0", &lan_host, "eth0")?;
        router_host.add_address("lan0", net(router))?;
        lan_host.add_address("eth0", net(lan))?;
        let gateway = net(router).address;
        lan_host.add_route(&Route::to(Prefix { address: gateway, length: 32 }).device("eth0"))?;
        lan_host.add_route(&Route::default_via(gateway).device("eth0"))?;

        server_host.add_veth("inet0", &inet, "eth0")?;
        server_host.add_address("inet0", net(&format!("{INET_GATEWAY}/24")))?;
        inet.add_address("eth0", net(&format!("{INET}/24")))?;
        inet.add_route(&Route::default_via(ip(INET_GATEWAY)))?;

        // The provider is the server's neighbour.
        let IpAddr::V4(own) = ip(server) else { unreachable!("IPv4 only") };
        let provider = IpAddr::V4(Ipv4Addr::from_bits(own.to_bits() ^ 1));
        let mut builder = EmulatorBuilder::new(&server_host, "wan0", vec![provider], 1)?;
        server_host.add_address("wan0", Prefix { address: own.into(), length: 24 })?;
        server_host.add_route(&Route::default_via(provider).device("wan0"))?;

        let mut card = None;
        for (number, line) in (1_u8..).zip(lines) {
            let on = match card {
                Some((device, card)) if device == line.device => card,
                _ => builder.card(&router_host, line.device)?,
            };
            card = Some((line.device, on));
            let setup = LineSetup {
                name: format!("line {number}"),
                gateways: vec![ip(line.gateway)],
                inside: line.address.iter().map(|address| net(address)).collect(),
                nat: NatConfig::v4(Ipv4Addr::new(192, 0, 2, number)),
                up: line.plan.up.clone(),
                down: line.plan.down.clone(),
            };
            builder.line(on, setup).map_err(io::Error::other)?;
            if let Some(address) = line.address {
                router_host.add_address(line.device, net(address))?;
            }
            let metric = u32::from(number);
            router_host
                .add_route(&Route::default_via(ip(line.gateway)).device(line.device).metric(metric))?;
        }
        let emulator = builder.start()?;
        let lines = emulator.lines();
        Ok(Place {
            lan: lan_host,
            router: router_host,
            server: server_host,
            inet,
            lines,
            _emulator: emulator,
        })
    }

    fn carried(&self, direction: Direction) -> Vec<u64> {
        self.lines.iter().map(|line| line.counters(direction).bytes).collect()
    }
}

/// Builds the network, or says why the test is skipped.
fn place(test: &str, build: impl FnOnce() -> io::Result<Place>) -> Option<Place> {
    if let Err(why) = lab::privileged() {
        lab::privilege::skip(test, &why);
        return None;
    }
    Some(build().expect("the network"))
}

/// One download gets at least this share of the lines' sum.
fn demand_share(place: &Place, sum: u64, least: f64) {
    reached(|| {
        let report = Tcp::new(&place.lan, &place.inet, ip(INET)).seconds(4).run().expect("a download");
        let rate = report.goodput as f64;
        println!("a download: {:.2} Mbit/s of {:.2}", rate / 1e6, sum as f64 / 1e6);
        demand(rate / sum as f64 > least, || format!("{rate} of {sum} bit/s"))
    });
}

/// One download fills at least this share of the lines, as a line counts: with all headers.
fn demand_full_lines(place: &Place, sum: u64, least: f64) {
    reached(|| {
        let download = Tcp::new(&place.lan, &place.inet, ip(INET)).seconds(30).start().expect("a download");
        let window = |length: Duration| {
            let (begin, before) = (Instant::now(), place.carried(Direction::Down));
            std::thread::sleep(length);
            let bytes: u64 =
                place.carried(Direction::Down).iter().zip(&before).map(|(now, then)| now - then).sum();
            bytes as f64 * 8.0 / begin.elapsed().as_secs_f64() / sum as f64
        };
        window(Duration::from_secs(2));
        let share = window(Duration::from_secs(3));
        download.stop();
        println!("a download fills {share:.3} of the lines");
        demand(share > least, || format!("{share:.3} of the lines"))
    });
}

/// Whom a host of the internet sees when the LAN's host sends to it.
fn seen_as(place: &Place, port: u16) -> IpAddr {
    let there = place.inet.run(|| UdpSocket::bind((INET, port))).expect("a socket");
    there.set_read_timeout(Some(LIMIT)).expect("a limit");
    let here = place.lan.run(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    here.send_to(b"hello", (INET, port)).expect("it is sent");
    there.recv_from(&mut [0; 16]).expect("it arrives").1.ip()
}

#[test]
fn recipe_1_mlvpn() {
    let line = |address, gateway| Line {
        device: "eth0",
        address: Some(address),
        gateway,
        plan: LinePlan::new(10, 2, 20),
    };
    let build = || {
        Place::build(
            "128.128.128.128",
            ["192.168.0.1/24", "192.168.0.10/24"],
            vec![line("192.168.1.2/24", "192.168.1.1"), line("192.168.2.2/24", "192.168.2.1")],
        )
    };
    let Some(place) = place("recipe 1", build) else { return };
    let mut bench = Bench::new(&place.server, &place.router);
    bench.follow("docs/recipes/1-mlvpn.md");
    bench.router.wait_until_up(2);
    assert_eq!(seen_as(&place, 9_000), ip(INET_GATEWAY), "the LAN leaves with the server's address");
    demand_share(&place, 20_000_000, 0.7);
    for carried in place.carried(Direction::Down) {
        assert!(carried > 1_000_000, "each box carries its part: {carried}");
    }
    bench.router.stop().expect("it stops");
    let log = fs::read_to_string(bench.router.path("/var/log/mlvpn_commands.log")).expect("the script's log");
    for line in ["mlvpn0 setup", "rtun [adsl1] is up", "rtun [adsl2] is up", "mlvpn0 shutdown"] {
        assert!(log.lines().any(|logged| logged == line), "'{line}' is not in:\n{log}");
    }
}

/// An upload uses both lines, and leaves their modems' buffers empty.
fn upload_over_both(place: &Place) -> Result<(), String> {
    let before = place.carried(Direction::Up);
    let upload = Tcp::new(&place.lan, &place.inet, ip(INET)).upload().seconds(4).start().expect("an upload");
    std::thread::sleep(Duration::from_millis(1_500));
    let ping = Echo::new(&place.lan, ip(INET)).count(20).interval(Duration::from_millis(100));
    let ping = ping.ping().expect("pings");
    let report = upload.finish();
    let rate = report.goodput as f64;
    println!("an upload: {:.2} Mbit/s of 2; ping meanwhile: {:?}", rate / 1e6, ping.rtt);
    demand(rate > 1.4e6, || format!("{rate} bit/s"))?;
    demand(ping.rtt.median < Duration::from_millis(90), || {
        format!("40 ms, and no full buffers: {:?}", ping.rtt)
    })?;
    for (line, (after, before)) in place.carried(Direction::Up).iter().zip(before).enumerate() {
        demand(after - before > 150_000, || format!("line {line} has carried {}", after - before))?;
    }
    Ok(())
}

#[test]
fn recipe_2_openvpn_tap() {
    let line = |address, gateway| Line { device: "eth0", address, gateway, plan: LinePlan::new(10, 1, 20) };
    let build = || {
        let place = Place::build(
            "203.0.113.1",
            ["192.168.1.252/32", "192.168.1.10/24"],
            vec![line(Some("192.168.1.252/24"), "192.168.1.240"), line(None, "192.168.1.254")],
        )?;
        // Boxes, hosts and the router share a switch: here the router passes on between its two cards.
        place.router.add_route(&Route::to(net("192.168.1.10/32")).device("lan0"))?;
        place.router.set_sysctl("net/ipv4/conf/eth0/proxy_arp", "1")?;
        Ok(place)
    };
    let Some(place) = place("recipe 2", build) else { return };
    let mut bench = Bench::new(&place.server, &place.router);
    bench.follow("docs/recipes/2-openvpn-tap.md");
    bench.router.wait_until_up(2);
    assert_eq!(seen_as(&place, 9_000), ip(INET_GATEWAY), "the default route leads through the bond");
    assert_eq!(seen_as(&place, 27_015).to_string(), "192.0.2.2", "the game leaves by box 2 itself");

    let web = place.lan.run(|| TcpListener::bind("192.168.1.10:80")).expect("a listener");
    let there = (ip(INET_GATEWAY), 80).into();
    let _caller =
        place.inet.run(|| TcpStream::connect_timeout(&there, LIMIT)).expect("the web server answers");
    assert_eq!(web.accept().expect("a caller").1.ip(), ip(INET));

    reached(|| upload_over_both(&place));
    for (device, switch) in [("eth0", "send_redirects"), ("bond0", "accept_redirects")] {
        let value = place.router.sysctl(&format!("net/ipv4/conf/{device}/{switch}")).expect("a switch");
        assert_eq!(value, "0", "no ICMP redirects: {device}");
    }
}

#[test]
fn recipe_3_edgerouter() {
    let plan = || LinePlan::new(4, 1, 25).with(|line| line.with_mtu(1_492));
    let line = |device, address, gateway| Line { device, address: Some(address), gateway, plan: plan() };
    let build = || {
        Place::build(
            "12.34.56.78",
            ["192.168.0.1/24", "192.168.0.10/24"],
            vec![line("eth1", "10.20.30.40/24", "10.20.30.1"), line("eth2", "10.20.40.40/24", "10.20.40.1")],
        )
    };
    let Some(place) = place("recipe 3", build) else { return };
    let mut bench = Bench::new(&place.server, &place.router);
    bench.follow("docs/recipes/3-edgerouter.md");
    let status = bench.router.wait_until_up(2);
    assert_eq!(status["endpoint"]["peers"][0]["cipher"], "none", "as on both ends");
    let fits = |status: &serde_json::Value| {
        let links = status["endpoint"]["peers"][0]["links"].as_array().cloned().unwrap_or_default();
        links.len() == 2 && links.iter().all(|link| link["mtu"] == 1_492)
    };
    bench.router.wait_for(fits).expect("the MTU is found");
    // The router does not translate: the server sees the LAN's own address, and translates once.
    let there = place.server.run(|| UdpSocket::bind("10.75.0.1:9100")).expect("a socket");
    there.set_read_timeout(Some(LIMIT)).expect("a limit");
    let here = place.lan.run(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket");
    here.send_to(b"hello", "10.75.0.1:9100").expect("it is sent");
    assert_eq!(there.recv_from(&mut [0; 16]).expect("it arrives").1.ip(), ip("192.168.0.10"));
    assert_eq!(seen_as(&place, 9_000), ip(INET_GATEWAY));
    demand_share(&place, 8_000_000, 0.7);
}

#[test]
fn recipe_4_openbsd() {
    let line = |address, gateway| Line {
        device: "bge0",
        address: Some(address),
        gateway,
        plan: LinePlan::new(4, 1, 20),
    };
    let build = || {
        let place = Place::build(
            "88.191.22.243",
            ["192.168.252.254/24", "192.168.252.1/24"],
            vec![line("172.16.253.100/24", "172.16.253.200"), line("172.16.253.101/24", "172.16.253.201")],
        )?;
        // The server has a LAN of its own: its host is the one that is the internet elsewhere.
        place.server.add_address("inet0", net("10.254.254.254/24"))?;
        place.inet.add_address("eth0", net("10.254.254.1/24"))?;
        place.inet.add_route(&Route::to(net("192.168.0.0/16")).via(ip("10.254.254.254")))?;
        Ok(place)
    };
    let Some(place) = place("recipe 4", build) else { return };
    let mut bench = Bench::new(&place.server, &place.router);
    bench.follow("docs/recipes/4-openbsd.md");
    bench.router.wait_until_up(2);

    let far = ip("10.254.254.1");
    let here = place.lan.run(|| TcpListener::bind("192.168.252.1:80")).expect("a listener");
    let there = place.inet.run(|| TcpListener::bind("10.254.254.1:80")).expect("a listener");
    let _one = place.lan.run(|| TcpStream::connect_timeout(&(far, 80).into(), LIMIT)).expect("an answer");
    assert_eq!(there.accept().expect("a caller").1.ip(), ip("192.168.252.1"), "not translated");
    let near = (ip("192.168.252.1"), 80).into();
    let _other = place.inet.run(|| TcpStream::connect_timeout(&near, LIMIT)).expect("an answer");
    assert_eq!(here.accept().expect("a caller").1.ip(), far, "nor the other way round");

    let before = place.carried(Direction::Down);
    let one = Tcp::new(&place.lan, &place.inet, far).seconds(2).run().expect("a download");
    let carried: Vec<u64> =
        place.carried(Direction::Down).iter().zip(&before).map(|(after, before)| after - before).collect();
    println!("one stream of {} bytes: {carried:?}", one.bytes);
    let (most, least) = (carried.iter().max().unwrap_or(&0), carried.iter().min().unwrap_or(&0));
    assert!(least * 20 < *most, "a stream stays on its line");
    let before = place.carried(Direction::Down);
    Tcp::new(&place.lan, &place.inet, far).streams(12).seconds(3).run().expect("downloads");
    for (after, before) in place.carried(Direction::Down).iter().zip(&before) {
        assert!(after - before > 300_000, "twelve streams use both lines");
    }
}

#[test]
fn ten_minutes() {
    let Some(network) = crate::network("ten minutes", Plan::new(Scenario::sym2())) else { return };
    let mut bench = Bench::new(&network.server, &network.router);
    bench.follow("docs/README.md");
    bench.router.wait_until_up(2);
    let web = network.lan.run(|| TcpListener::bind("192.168.1.2:80")).expect("a listener");
    let there = (ip(INET_GATEWAY), 80).into();
    let caller = || network.inet.run(|| TcpStream::connect_timeout(&there, LIMIT));
    // The table is written after the reload's answer.
    let deadline = Instant::now() + LIMIT;
    while caller().is_err() {
        assert!(Instant::now() < deadline, "the port leads inside");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(web.accept().expect("a caller").1.ip(), ip(INET));

    let mut stream = network.server.run(|| TcpStream::connect("127.0.0.1:9550")).expect("it listens");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is asked");
    let mut figures = String::new();
    stream.read_to_string(&mut figures).expect("it answers");
    assert!(figures.contains("\nbonding_peer_up{peer=\"home\"} 1\n"), "{figures}");
}

/// What netifd says of an interface.
const UBUS: &str = r#"#!/bin/sh
case "$2" in
    network.interface.wan0) echo '{"up":true,"l3_device":"eth1","device":"eth1","ipv4-address":[{"address":"10.1.0.2","mask":24}],"route":[{"target":"0.0.0.0","mask":0,"nexthop":"10.1.0.1"}]}' ;;
    network.interface.wan1) echo '{"up":true,"l3_device":"eth2","device":"eth2","ipv4-address":[{"address":"10.2.0.2","mask":24}],"route":[{"target":"0.0.0.0","mask":0,"nexthop":"10.2.0.1"}]}' ;;
    *) exit 4 ;;
esac
"#;

#[test]
fn recipe_5_bondlink() {
    let line = |device, address, gateway| Line {
        device,
        address: Some(address),
        gateway,
        // Annex M lines of 12 Mbit/s, 5 ms from the server.
        plan: LinePlan::new(12, 2, 3),
    };
    let build = || {
        Place::build(
            "203.0.113.20",
            ["192.168.1.1/24", "192.168.1.10/24"],
            vec![line("eth1", "10.1.0.2/24", "10.1.0.1"), line("eth2", "10.2.0.2/24", "10.2.0.1")],
        )
    };
    let Some(place) = place("recipe 5", build) else { return };
    let mut bench = Bench::new(&place.server, &place.router);
    let ubus = bench.router.path("/bin/ubus");
    write_program(&ubus, 0o755, UBUS).expect("the file");
    bench.follow("docs/recipes/5-bondlink.md");
    bench.router.wait_until_up(2);
    // The seed's 22 of 24 Mbit/s were with headers.
    demand_full_lines(&place, 24_000_000, 0.9);
    let log = bench.router.path("/var/log/bonding-up");
    assert!(log.exists(), "the seed's up script was run");
}
