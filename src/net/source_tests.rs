use std::net::SocketAddr;
use std::time::Duration;

use super::super::namespace::{Bench, hardware_address, run};
use super::super::state::default_through;
use super::super::sysctl::Sysctls;
use super::super::{Desired, Netlink, Ownership, Reconciler};
use super::*;
use crate::io::{RecvBatch, SendError, Socket, SocketOptions, Transmit, Tun};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn path(number: u32, index: u32, address: &str, prefix_len: u8, gateway: Option<&str>) -> LinkPath {
    LinkPath {
        index,
        address: ip(address),
        prefix_len,
        gateway: gateway.map(ip),
        mark: Mark { value: 0x0b00_0000 | (number + 1) << 16, mask: 0xffff_0000 },
        table: 0xB000 + number,
        number,
    }
}

const PRIORITIES: u32 = 600;

#[test]
fn a_link_of_its_own() {
    let made = source_routing(&[path(0, 4, "192.0.2.7", 24, Some("192.0.2.1"))], PRIORITIES);
    let routes: Vec<_> = made.routes.iter().map(ToString::to_string).collect();
    assert_eq!(
        routes,
        [
            "192.0.2.0/24 dev #4 src 192.0.2.7 table 45056",
            "default (IPv4) via 192.0.2.1 dev #4 src 192.0.2.7 table 45056",
            "unreachable default (IPv4) table 45056 metric 4294967294",
        ]
    );
    let rules: Vec<_> = made.rules.iter().map(ToString::to_string).collect();
    assert_eq!(
        rules,
        [
            "600: from all (IPv4) fwmark 0xb010000/0xffff0000 lookup 45056",
            "700: from 192.0.2.7/32 lookup main suppress_prefixlength 0",
            "800: from 192.0.2.7/32 lookup 45056",
        ]
    );
    assert!(made.loose_rp_filter.is_empty());
}

#[test]
fn point_to_point_has_neither_network_nor_gateway() {
    let made = source_routing(&[path(1, 5, "198.51.100.9", 32, None)], PRIORITIES);
    let routes: Vec<_> = made.routes.iter().map(ToString::to_string).collect();
    assert_eq!(
        routes,
        [
            "default (IPv4) dev #5 src 198.51.100.9 table 45057",
            "unreachable default (IPv4) table 45057 metric 4294967294",
        ]
    );
}

#[test]
fn a_shared_address_has_no_from_rule() {
    let paths = [
        path(0, 4, "192.168.1.10", 24, Some("192.168.1.1")),
        path(1, 4, "192.168.1.10", 24, Some("192.168.1.2")),
        path(2, 6, "192.168.2.10", 24, Some("192.168.2.1")),
    ];
    let made = source_routing(&paths, PRIORITIES);
    let from: Vec<_> = made.rules.iter().filter_map(|rule| rule.source).collect();
    assert_eq!(from, vec![Prefix::host(ip("192.168.2.10")); 2]);
    assert_eq!(made.rules.iter().filter(|rule| rule.mark.is_some()).count(), 3);
    assert_eq!(made.loose_rp_filter, [4]);
}

fn socket(path: &LinkPath, mark: bool) -> Socket {
    let options = SocketOptions {
        mark: mark.then_some(path.mark.value),
        ..SocketOptions::new((path.address, 0).into())
    };
    Socket::open(options).unwrap()
}

/// Sends a datagram to `to`, and finds it on `card` on its way to `hop`.
async fn expect(socket: &Socket, to: &str, card: &Tun, hop: &str) {
    let to = SocketAddr::new(ip(to), 5000);
    socket.try_send(&Transmit::new(to, b"hello")).unwrap();
    let mut frame = [0; 2048];
    let look = async {
        loop {
            card.readable().await.unwrap();
            let Ok(len) = card.try_read(&mut frame) else { continue };
            if let Some(hop) = hop_towards(&frame[..len], to.ip()) {
                return hop;
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(20), look).await;
    assert_eq!(found.expect("nothing was sent on that card"), hardware_address(ip(hop)), "to {to} via {hop}");
}

/// The hardware address that an Ethernet frame with a UDP datagram to `to` goes to.
fn hop_towards(frame: &[u8], to: IpAddr) -> Option<[u8; 6]> {
    let (protocol, destination) = match frame.get(12..14)? {
        [0x08, 0x00] => (*frame.get(23)?, frame.get(30..34)?),
        [0x86, 0xdd] => (*frame.get(20)?, frame.get(38..54)?),
        _ => return None,
    };
    let matches = match to {
        IpAddr::V4(address) => destination == address.octets(),
        IpAddr::V6(address) => destination == address.octets(),
    };
    (matches && protocol == 17).then(|| frame[..6].try_into().unwrap())
}

async fn apply(netlink: &Netlink, paths: &[LinkPath]) -> SourceRouting {
    let made = source_routing(paths, PRIORITIES);
    let desired = Desired { routes: made.routes.clone(), rules: made.rules.clone(), ..Desired::default() };
    let mut reconciler = Reconciler::new(netlink.clone(), Ownership::default());
    let report = reconciler.reconcile(&desired).await.unwrap();
    assert!(report.is_complete(), "{:?}", report.failed);
    made
}

async fn main_default(bench: &Bench, index: u32, gateway: &str) {
    let gateway = ip(gateway);
    let route = Route {
        destination: Prefix::default_route(Family::of(gateway)),
        table: MAIN,
        metric: 0,
        target: Target::Device { index, gateway: Some(gateway), source: None },
    };
    bench.netlink.add_route(&route, 4).await.unwrap();
}

const FAR: &str = "203.0.113.5";

async fn neighbours(bench: &Bench, index: u32, all: &[&str]) {
    for neighbour in all {
        bench.neighbour(index, neighbour).await;
    }
}

#[test]
fn two_cards() {
    run(|bench| async move {
        let (card0, index0) = bench.card("wan0").await;
        let (card1, index1) = bench.card("wan1").await;
        bench.address("wan0", "192.0.2.7", 24).await;
        bench.address("wan1", "198.51.100.7", 24).await;
        neighbours(&bench, index0, &["192.0.2.1", "192.0.2.33", "192.0.2.99"]).await;
        neighbours(&bench, index1, &["198.51.100.1", "198.51.100.44"]).await;
        main_default(&bench, index0, "192.0.2.99").await;
        let paths = [
            path(0, index0, "192.0.2.7", 24, Some("192.0.2.1")),
            path(1, index1, "198.51.100.7", 24, Some("198.51.100.1")),
        ];
        apply(&bench.netlink, &paths).await;
        expect(&socket(&paths[0], true), FAR, &card0, "192.0.2.1").await;
        expect(&socket(&paths[1], true), FAR, &card1, "198.51.100.1").await;
        // Who is not the bond leaves by the right card too, if it has the address.
        expect(&socket(&paths[1], false), FAR, &card1, "198.51.100.1").await;
        // A neighbour in the link's own network is reached directly.
        expect(&socket(&paths[1], true), "198.51.100.44", &card1, "198.51.100.44").await;
        // From the link's address to another network of this machine (the LAN) the main table knows the way.
        expect(&socket(&paths[1], false), "192.0.2.33", &card0, "192.0.2.33").await;
        // And everybody else goes as before.
        let other = Socket::open(SocketOptions::new("0.0.0.0:0".parse().unwrap())).unwrap();
        expect(&other, FAR, &card0, "192.0.2.99").await;
    });
}

#[test]
fn two_gateways_on_one_card_from_one_address() {
    run(|bench| async move {
        let (card, index) = bench.card("wan0").await;
        bench.address("wan0", "192.168.1.10", 24).await;
        neighbours(&bench, index, &["192.168.1.1", "192.168.1.2", "192.168.1.3"]).await;
        main_default(&bench, index, "192.168.1.3").await;
        let paths = [
            path(0, index, "192.168.1.10", 24, Some("192.168.1.1")),
            path(1, index, "192.168.1.10", 24, Some("192.168.1.2")),
        ];
        apply(&bench.netlink, &paths).await;
        let sockets = [socket(&paths[0], true), socket(&paths[1], true)];
        for _ in 0..2 {
            expect(&sockets[0], FAR, &card, "192.168.1.1").await;
            expect(&sockets[1], FAR, &card, "192.168.1.2").await;
        }
        // The router's own connections keep the gateway of the main table.
        expect(&socket(&paths[0], false), FAR, &card, "192.168.1.3").await;
    });
}

#[test]
fn two_gateways_over_ipv6() {
    run(|bench| async move {
        const FAR: &str = "2001:db8:ffff::5";
        let (card, index) = bench.card("wan0").await;
        bench.address("wan0", "2001:db8:1::10", 64).await;
        bench.address("wan0", "2001:db8:2::10", 64).await;
        neighbours(&bench, index, &["2001:db8:1::1", "fe80::2", "fe80::3"]).await;
        main_default(&bench, index, "fe80::3").await;
        let paths = [
            path(0, index, "2001:db8:1::10", 64, Some("2001:db8:1::1")),
            path(1, index, "2001:db8:2::10", 64, Some("fe80::2")),
        ];
        apply(&bench.netlink, &paths).await;
        for mark in [true, false] {
            expect(&socket(&paths[0], mark), FAR, &card, "2001:db8:1::1").await;
            expect(&socket(&paths[1], mark), FAR, &card, "fe80::2").await;
        }
    });
}

#[test]
fn without_its_gateway_a_link_is_silent() {
    run(|bench| async move {
        let (_card0, index0) = bench.card("wan0").await;
        let (card1, index1) = bench.card("wan1").await;
        bench.address("wan0", "192.0.2.7", 24).await;
        bench.address("wan1", "198.51.100.7", 24).await;
        neighbours(&bench, index1, &["198.51.100.1"]).await;
        main_default(&bench, index0, "192.0.2.99").await;
        let paths = [path(1, index1, "198.51.100.7", 24, Some("198.51.100.1"))];
        apply(&bench.netlink, &paths).await;
        let socket = socket(&paths[0], true);
        expect(&socket, FAR, &card1, "198.51.100.1").await;

        // The device goes down, and its routes with it: the packet must not take the other line.
        bench.netlink.set_link_up(index1, false).await.unwrap();
        match socket.try_send(&Transmit::new(SocketAddr::new(ip(FAR), 5000), b"hello")) {
            Err(SendError::Unreachable(_)) => {}
            other => panic!("{other:?}"),
        }
    });
}

/// A UDP datagram in IPv4 in Ethernet, as a line would deliver it.
fn frame(from: [u8; 4], to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let IpAddr::V4(destination) = to.ip() else { panic!("IPv4 only") };
    let total = 28 + payload.len() as u16;
    let mut ip = vec![0x45, 0, (total >> 8) as u8, total as u8, 0, 0, 0, 0, 64, 17, 0, 0];
    ip.extend(from);
    ip.extend(destination.octets());
    let mut sum: u32 = ip.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    ip[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1, 0x08, 0x00]);
    frame.extend(ip);
    frame.extend(5000u16.to_be_bytes());
    frame.extend(to.port().to_be_bytes());
    frame.extend((8 + payload.len() as u16).to_be_bytes());
    frame.extend([0, 0]); // no checksum
    frame.extend(payload);
    frame
}

async fn received(socket: &Socket) -> Vec<u8> {
    let mut batch = RecvBatch::new(1);
    let look = async {
        loop {
            socket.readable().await.unwrap();
            if socket.try_recv(&mut batch).is_ok() {
                return batch.datagrams().next().unwrap().payload.to_vec();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), look).await.expect("nothing was let in")
}

/// With the default route in the bond a strict reverse path filter takes what a line delivers for forged, unless a
/// `from` rule leads back to the line, or the filter is loose.
#[test]
fn strict_filtering_and_the_default_route_in_the_bond() {
    run(|bench| async move {
        let (_bond, bond) = bench.card("bond0").await;
        let (card, index) = bench.card("wan0").await;
        bench.address("wan0", "192.168.1.10", 24).await;
        bench.netlink.add_route(&default_through(bond, Family::V4, MAIN, 0), 4).await.unwrap();
        std::fs::write("/proc/sys/net/ipv4/conf/wan0/rp_filter", "1").unwrap();
        let paths = [
            path(0, index, "192.168.1.10", 24, Some("192.168.1.1")),
            path(1, index, "192.168.1.10", 24, Some("192.168.1.2")),
        ];
        let far = [203, 0, 113, 5];

        apply(&bench.netlink, &paths[..1]).await;
        let alone = socket(&paths[0], true);
        card.try_write(&frame(far, alone.local_addr(), b"by the rule")).unwrap();
        assert_eq!(received(&alone).await, b"by the rule");

        let made = apply(&bench.netlink, &paths).await;
        assert_eq!(made.loose_rp_filter, [index]);
        card.try_write(&frame(far, alone.local_addr(), b"lost")).unwrap();
        let mut sysctls = Sysctls::new();
        sysctls.relax_rp_filter("wan0").unwrap();
        card.try_write(&frame(far, alone.local_addr(), b"by the loose filter")).unwrap();
        assert_eq!(received(&alone).await, b"by the loose filter");
    });
}
