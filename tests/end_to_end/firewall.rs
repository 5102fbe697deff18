//! The server's table of translations: what leaves, what comes in by a redirect, and what does not.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use bonding::net::nftables;
use lab::bond::End;
use lab::namespace::Namespace;
use lab::scenario::Scenario;
use lab::topology::{Plan, Topology};

use crate::network;
use crate::server::Server;

const LIMIT: Duration = Duration::from_secs(30);
/// How long a packet that must not arrive is waited for. One that does takes 25 ms.
const NOTHING: Duration = Duration::from_millis(400);
/// The server's address on the side of the internet.
const OUTSIDE_V4: &str = "198.51.100.1";
const OUTSIDE_V6: &str = "2001:db8:198::1";

fn udp(namespace: &Namespace, local: &str) -> UdpSocket {
    namespace.run(|| UdpSocket::bind(local)).expect("a socket")
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// Whom a datagram comes from, if it arrives.
fn arrival(socket: &UdpSocket, limit: Duration) -> Option<SocketAddr> {
    socket.set_read_timeout(Some(limit)).expect("a limit");
    match socket.recv_from(&mut [0; 64]) {
        Ok((_, from)) => Some(from),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
        Err(error) => panic!("{error}"),
    }
}

/// Sends a datagram and gives whom it came from in the eyes of the receiver.
fn send(from: &UdpSocket, to: SocketAddr, receiver: &UdpSocket, limit: Duration) -> Option<SocketAddr> {
    from.send_to(b"hello", to).expect("it is sent");
    arrival(receiver, limit)
}

/// Connects to an address and gives the caller in the eyes of the listener.
fn call(from: &Namespace, to: SocketAddr, listener: &TcpListener) -> IpAddr {
    let _stream = from.run(|| TcpStream::connect_timeout(&to, LIMIT)).expect("it is answered");
    listener.accept().expect("a caller").1.ip()
}

/// The same with a change of the server's configuration.
pub fn reload(server: &Server, change: impl Fn(String) -> String) {
    let config = server.bond.config(End::Server);
    fs::write(config, change(fs::read_to_string(config).expect("the file"))).expect("the file");
    server.bond.command(End::Server, &["reload"]).expect("it is taken over");
}

fn table_exists(network: &Topology) -> bool {
    network.server.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(nftables::exists("bonding_bond0")).expect("an answer")
    })
}

fn wait_for_table(network: &Topology, there: bool) {
    let deadline = Instant::now() + LIMIT;
    while table_exists(network) != there {
        assert!(Instant::now() < deadline, "the table must {}be there", if there { "" } else { "not " });
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn addresses_are_translated_ports_lead_inside_and_nothing_else_comes_in() {
    let Some(network) = network("firewall", Plan::new(Scenario::sym2())) else { return };
    for family in ["ipv4", "ipv6"] {
        let switch = format!("net/{family}/conf/all/forwarding");
        network.server.set_sysctl(&switch, "0").expect("the server does not forward yet");
    }
    let mut server = Server::start(&network);
    let line = server.add_peer(&["home", "--lan", "192.168.1.0/24", "--lan", "fd00:a::/64"]);
    let config = server.router_file("client");
    server.join(&line, &config).expect("the router joins");
    server.bond.launch(End::Client).expect("the router starts");
    server.bond.wait_until_up(2, LIMIT).expect("the bond comes up");
    assert_eq!(network.server.sysctl("net/ipv4/conf/all/forwarding").expect("a switch"), "1");
    for name in ["send_redirects", "accept_redirects"] {
        let switch = format!("net/ipv4/conf/bond0/{name}");
        assert_eq!(network.server.sysctl(&switch).expect("a switch"), "0", "{name}");
    }

    // Private addresses leave with the server's.
    let [lan4, inet4] = [&network.lan, &network.inet].map(|host| udp(host, "0.0.0.0:9000"));
    let lan6 = udp(&network.lan, "[fd00:a::2]:9000");
    let inet6 = udp(&network.inet, "[2001:db8:198::2]:9000");
    let to_inet4 = SocketAddr::new(Topology::INET_V4, 9000);
    let seen = send(&lan4, to_inet4, &inet4, LIMIT).expect("it arrives");
    assert_eq!(seen.ip().to_string(), OUTSIDE_V4);
    assert_eq!(send(&inet4, seen, &lan4, LIMIT), Some(to_inet4), "and the answer finds its way");
    let to_inet6 = SocketAddr::new(Topology::INET_V6, 9000);
    let seen = send(&lan6, to_inet6, &inet6, LIMIT).expect("it arrives");
    assert_eq!(seen.ip().to_string(), OUTSIDE_V6);

    // From outside nobody gets in uninvited.
    let stranger = udp(&network.inet, "0.0.0.0:9001");
    let to_lan4 = SocketAddr::new(Topology::LAN_V4, 9000);
    assert_eq!(send(&stranger, to_lan4, &lan4, NOTHING), None);

    // Redirects come and go with the configuration.
    reload(&server, |text| {
        text + "\nconfig redirect 'web'\n\toption proto 'tcp'\n\toption src_dport '8080'\n\
            \toption dest_ip '192.168.1.2'\n\toption dest_port '80'\n\
            \nconfig redirect 'game'\n\toption proto 'udp'\n\toption src_dport '27000-27003'\n\
            \toption dest_ip '192.168.1.2'\n\toption dest_port '28000-28003'\n\
            \nconfig redirect 'six'\n\toption proto 'udp'\n\toption src_dport '27000'\n\toption dest_ip 'fd00:a::2'\n\
            \nconfig redirect 'friends'\n\toption src_dport '8081'\n\toption src_ip '203.0.113.0/24'\n\
            \toption dest_ip '192.168.1.2'\n\toption dest_port '80'\n"
    });
    let web = network.lan.run(|| TcpListener::bind("0.0.0.0:80")).expect("a listener");
    wait_for_redirect(&network);
    web.accept().expect("the one that was waited with");
    assert_eq!(call(&network.inet, address("198.51.100.1:8080"), &web), Topology::INET_V4);
    let hairpin = call(&network.lan, address("198.51.100.1:8080"), &web);
    assert_eq!(hairpin.to_string(), "10.77.0.1", "the answer must come back by the server");
    let refused =
        network.inet.run(|| TcpStream::connect_timeout(&address("198.51.100.1:8081"), LIMIT).map(drop));
    assert_eq!(refused.expect_err("for others only").kind(), io::ErrorKind::ConnectionRefused);
    let game = udp(&network.lan, "0.0.0.0:28002");
    assert_eq!(
        send(&stranger, address("198.51.100.1:27002"), &game, LIMIT),
        Some(address("198.51.100.2:9001"))
    );
    let six = udp(&network.lan, "[fd00:a::2]:27000");
    let seen = send(&inet6, address("[2001:db8:198::1]:27000"), &six, LIMIT).expect("it arrives");
    assert_eq!(seen.ip(), Topology::INET_V6);

    // Whoever throws all tables away does not harm us for long.
    network.server.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(nftables::remove("bonding_bond0")).expect("it is removed");
    });
    wait_for_table(&network, true);

    // Who is trusted is neither translated nor kept out.
    reload(&server, |text| text.replace("nat '1'", "nat '1'\n\tlist trusted_network '198.51.100.0/24'"));
    let deadline = Instant::now() + LIMIT;
    let friend = udp(&network.inet, "0.0.0.0:9002");
    let arrived = || send(&friend, to_lan4, &lan4, NOTHING).is_some();
    while !arrived() {
        assert!(Instant::now() < deadline, "the trusted network gets in");
    }
    let fresh = udp(&network.lan, "0.0.0.0:9003");
    let seen = send(&fresh, to_inet4, &inet4, LIMIT).expect("it arrives");
    assert_eq!(seen.ip(), Topology::LAN_V4);

    assert!(table_exists(&network));
    server.bond.stop().expect("both stop");
    assert!(!table_exists(&network), "nothing is left behind");
}

/// The table is written after the reload's answer.
fn wait_for_redirect(network: &Topology) {
    let deadline = Instant::now() + LIMIT;
    let to = address("198.51.100.1:8080");
    while network.inet.run(|| TcpStream::connect_timeout(&to, LIMIT).is_err()) {
        assert!(Instant::now() < deadline, "the redirect does not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A peer that is removed takes its translation with it, and a server that is killed finds its table again.
#[test]
fn a_killed_server_leaves_no_table_that_nobody_wants() {
    let Some(network) = network("firewall after kill -9", Plan::new(Scenario::sym2())) else { return };
    let mut server = Server::start(&network);
    server.add_peer(&["home", "--lan", "192.168.1.0/24"]);
    wait_for_table(&network, true);
    server.bond.process(End::Server).signal(nix::sys::signal::Signal::SIGKILL).expect("it runs");
    server.bond.process(End::Server).wait(LIMIT).expect("our child").expect("it ends");
    assert!(table_exists(&network), "nobody was there to remove it");
    let config = server.bond.config(End::Server);
    let text = fs::read_to_string(config).expect("the file").replace("nat '1'", "nat '0'");
    fs::write(config, text).expect("the file");
    server.bond.launch(End::Server).expect("the server starts");
    wait_for_table(&network, false);
}
