//! Three routers on one server, and one of them lies about who it is.

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::becomes;
use lab::bond::{End, links_in_state};
use lab::namespace::{Namespace, Process, Route};
use lab::prefix::Prefix;
use lab::scenario::Scenario;
use lab::topology::{Plan, Topology};
use lab::traffic::{Echo, Tcp};

use crate::firewall::reload;
use crate::server::{Server, drops};
use crate::{demand, network, reached};

const LIMIT: Duration = Duration::from_secs(30);
const SPOOFED: &str = "inner source not allowed";

/// A router with one line to the server, which is not emulated.
struct Router {
    namespace: Namespace,
    _daemon: Process,
    /// Its address in the bond.
    inside: IpAddr,
}

fn prefix(text: String) -> Prefix {
    let (address, length) = text.split_once('/').expect("a prefix");
    Prefix { address: address.parse().expect("an address"), length: length.parse().expect("a length") }
}

impl Router {
    /// `limits`: further options of its `peer` section.
    fn start(network: &Topology, server: &Server, number: u8, limits: &str) -> Router {
        let name = format!("router{number}");
        let namespace = Namespace::new(&name).expect("a namespace");
        namespace.add_veth("wan0", &network.server, &name).expect("a line");
        let gateway = format!("172.16.{number}.1");
        namespace.add_address("wan0", prefix(format!("172.16.{number}.2/24"))).expect("an address");
        network.server.add_address(&name, prefix(format!("{gateway}/24"))).expect("an address");
        let gateway = gateway.parse().expect("an address");
        namespace.add_route(&Route::default_via(gateway).device("wan0").metric(9)).expect("a route");
        let line = server.add_peer(&[&name, "--lan", &format!("192.168.{number}.0/24")]);
        let section = format!("config peer '{name}'\n");
        reload(server, |text| text.replacen(&section, &format!("{section}{limits}"), 1));
        let config = server.router_file(&name);
        let run = |arguments: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_bonding"));
            command.args(arguments);
            command
        };
        let join = run(&["join", &line, "--wan", "wan0", "--config", &config]);
        let joined = namespace.execute(join, LIMIT).expect("it runs");
        assert!(joined.status.success(), "{:?}", joined.output);
        let daemon = namespace.spawn(run(&["run", "--config", &config])).expect("the daemon starts");
        let up = |status: &serde_json::Value| links_in_state(status, "up") == 1 + usize::from(number);
        server.bond.wait_for(End::Server, LIMIT, up).expect("the router is let in");
        let own = namespace.addresses("bond0").expect("it has a device");
        let inside = own.iter().map(|own| own.address).find(IpAddr::is_ipv4).expect("an address in the bond");
        Router { namespace, _daemon: daemon, inside }
    }

    fn reaches(&self, to: IpAddr) -> bool {
        let echo = Echo::new(&self.namespace, to).count(5).timeout(Duration::from_millis(500));
        echo.ping().is_ok_and(|report| report.received > 0)
    }

    fn comes_to_reach(&self, to: IpAddr) -> bool {
        becomes(|| self.reaches(to))
    }
}

#[test]
fn routers_are_kept_apart_and_a_false_source_is_dropped_and_counted() {
    let Some(network) = network("three routers", Plan::new(Scenario::sym2())) else { return };
    let mut server = Server::start(&network);
    let line = server.add_peer(&["home", "--lan", "192.168.1.0/24"]);
    server.join(&line, &server.router_file("client")).expect("the router joins");
    server.bond.launch(End::Client).expect("the router starts");
    server.bond.wait_until_up(2, LIMIT).expect("the router is let in");
    let limits = "\toption upload '2mbit'\n\toption download '4mbit'\n";
    let routers =
        [(2, ""), (3, limits)].map(|(number, limits)| Router::start(&network, &server, number, limits));

    for router in &routers {
        assert!(router.comes_to_reach(Topology::INET_V4), "the world is reached");
    }
    let [honest, liar] = &routers;
    assert!(!honest.reaches(liar.inside) && !liar.reaches(honest.inside), "they do not reach each other");

    // A download of the first router goes on while the third one sends in the name of the second one's LAN.
    let listener = network.inet.run(|| UdpSocket::bind("0.0.0.0:4000")).expect("a socket");
    listener.set_read_timeout(Some(LIMIT)).expect("a time-out");
    liar.namespace.add_address("lo", prefix("192.168.2.77/32".into())).expect("a stolen address");
    reached(|| {
        let download = Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(120);
        let download = download.start().expect("a download");
        assert!(download.wait_for_bytes(500_000, LIMIT), "it runs");
        let before = drops(&server.bond.status(End::Server).expect("a status"), SPOOFED);
        let forged = liar.namespace.run(|| UdpSocket::bind("192.168.2.77:0")).expect("a socket");
        for _ in 0..100 {
            forged.send_to(b"forged", (Topology::INET_V4, 4000)).expect("it is sent");
        }
        server
            .bond
            .wait_for(End::Server, LIMIT, |status| drops(status, SPOOFED) >= before + 100)
            .expect("each is counted");
        // Its own packets pass, and are all that has passed.
        let true_one = liar.namespace.run(|| UdpSocket::bind((liar.inside, 0))).expect("a socket");
        true_one.send_to(b"true", (Topology::INET_V4, 4000)).expect("it is sent");
        let mut buffer = [0; 100];
        let (length, _) = listener.recv_from(&mut buffer).expect("it arrives");
        assert_eq!(&buffer[..length], b"true");

        let more = download.received() + 500_000;
        assert!(download.wait_for_bytes(more, LIMIT), "the first router has not noticed");
        let stopped = download.stop().longest_gap;
        demand(stopped.length < Duration::from_secs(1), || format!("the download stopped for {stopped:?}"))
    });
    assert!(honest.comes_to_reach(Topology::INET_V4), "nor has the second");

    // Who has limits keeps to them, both ways, and nobody else has. What counts is the line, with all headers.
    let on_the_line = |payload: u64| payload * (1_440 + 60) / (1_440 - 52);
    let transfer = |router: &Router| {
        Tcp::new(&router.namespace, &network.inet, Topology::INET_V4).source(router.inside).seconds(30)
    };
    reached(|| {
        let free = transfer(honest).start().expect("a download");
        for (limited, limit) in [(transfer(liar).upload(), 2_000_000), (transfer(liar), 4_000_000)] {
            let limited = limited.start().expect("a transfer");
            assert!(limited.wait_for_bytes(200_000, LIMIT), "it runs");
            let (begin, before) = (Instant::now(), limited.received());
            std::thread::sleep(Duration::from_secs(2));
            let bits = on_the_line(limited.received() - before) * 8 * 1_000;
            let rate = bits / u64::try_from(begin.elapsed().as_millis()).expect("seconds");
            limited.stop();
            println!("{rate} bit/s of {limit}");
            // A busy machine sends less, never more.
            demand(rate > limit * 8 / 10 && rate < limit * 11 / 10, || format!("{rate} of {limit} bit/s"))?;
        }
        let bytes = free.stop().bytes;
        demand(bytes > 10_000_000, || format!("without a limit {bytes} bytes only"))
    });

    reload(&server, |text| {
        text.replacen("config globals", "config globals 'globals'\n\toption client_to_client '1'\n#", 1)
    });
    assert!(
        honest.comes_to_reach(liar.inside) && liar.comes_to_reach(honest.inside),
        "they reach each other, once allowed"
    );
}
