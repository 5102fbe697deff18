use std::time::Instant;

use lab::directory::{Directory, write_program};

use super::super::namespace::run;
use super::super::state::{PROTOCOL, default_through};
use super::super::{Address, Route, Target};
use super::*;

/// As netifd answers for PPPoE: packets go through `pppoe-wan`, there is a peer, IPv6 comes by a sub-interface.
const PPPOE: &str = r#"{
    "up": true, "pending": false, "available": true, "autostart": true, "dynamic": false, "uptime": 86031,
    "l3_device": "pppoe-wan", "proto": "pppoe", "device": "eth1.7",
    "updated": [ "addresses", "routes" ],
    "metric": 0, "dns_metric": 0, "delegation": true,
    "ipv4-address": [ { "address": "203.0.113.77", "mask": 32, "ptpaddress": "198.51.100.254" } ],
    "ipv6-address": [ ], "ipv6-prefix": [ ], "ipv6-prefix-assignment": [ ],
    "route": [ { "target": "0.0.0.0", "mask": 0, "nexthop": "198.51.100.254", "source": "0.0.0.0/0" } ],
    "dns-server": [ "198.51.100.1" ], "dns-search": [ ], "neighbors": [ ],
    "inactive": { "ipv4-address": [ ], "ipv6-address": [ ], "route": [ ], "dns-server": [ ], "dns-search": [ ], "neighbors": [ ] },
    "data": { }
}"#;

/// DHCP with `option defaultroute '0'`: the gateway is known, and its route is not set.
const DHCP: &str = r#"{
    "up": true, "l3_device": "eth2", "proto": "dhcp", "device": "eth2", "metric": 20,
    "ipv4-address": [ { "address": "192.168.1.10", "mask": 24 } ],
    "route": [ { "target": "10.0.0.0", "mask": 8, "nexthop": "192.168.1.3", "source": "192.168.1.10/32" } ],
    "inactive": {
        "ipv4-address": [ ],
        "route": [ { "target": "0.0.0.0", "mask": 0, "nexthop": "192.168.1.1", "source": "192.168.1.10/32" } ],
        "dns-server": [ "192.168.1.1", "fe80::1%eth2", "?" ]
    },
    "data": { "leasetime": 43200 }
}"#;

/// DHCPv6 with a delegated prefix of which the interface has taken an address, and routes by source.
const IPV6: &str = r#"{
    "up": true, "l3_device": "wwan0", "proto": "dhcpv6", "device": "wwan0",
    "ipv4-address": [ ],
    "ipv6-address": [
        { "address": "2001:db8:1::9", "mask": 64, "preferred": 0, "valid": 120, "class": "wan6" },
        { "address": "2001:db8:1::5", "mask": 64, "preferred": 3578, "valid": 7178, "class": "wan6" }
    ],
    "ipv6-prefix": [ { "address": "2001:db8:aa00::", "mask": 56, "preferred": 3578, "valid": 7178, "class": "wan6", "assigned": { } } ],
    "ipv6-prefix-assignment": [
        { "address": "2001:db8:aa01::", "mask": 60, "local-address": { "address": "2001:db8:aa01::1", "mask": 60 } },
        { "address": "2001:db8:aa02::", "mask": 60 }
    ],
    "route": [
        { "target": "::", "mask": 0, "nexthop": "fe80::bad", "metric": 1024, "valid": 1800, "source": "2001:db8:ffff::/48" },
        { "target": "::", "mask": 0, "nexthop": "fe80::2", "metric": 1024, "valid": 1800, "source": "2001:db8:1::5/64" },
        { "target": "::", "mask": 0, "nexthop": "fe80::1", "metric": 512, "valid": 1800, "source": "2001:db8:1::5/64" },
        { "target": "2001:db8:1::", "mask": 64, "nexthop": "::", "metric": 256, "source": "::/0" }
    ]
}"#;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn path(address: &str, prefix_len: u8, gateway: Option<&str>) -> Path {
    Path { address: ip(address), prefix_len, gateway: gateway.map(ip) }
}

#[test]
fn pppoe() {
    let resolved = parse_status(PPPOE.as_bytes()).unwrap();
    let expected = Resolved {
        up: true,
        device: Some("pppoe-wan".to_owned()),
        paths: vec![path("203.0.113.77", 32, None)],
        name_servers: vec![ip("198.51.100.1")],
    };
    assert_eq!(resolved, expected);
}

#[test]
fn dhcp_without_default_route() {
    let resolved = parse_status(DHCP.as_bytes()).unwrap();
    assert_eq!(resolved.device.as_deref(), Some("eth2"));
    assert_eq!(resolved.paths, [path("192.168.1.10", 24, Some("192.168.1.1"))]);
    assert_eq!(resolved.path(Family::V6), None);
    assert_eq!(resolved.name_servers, [ip("192.168.1.1"), ip("fe80::1")], "with `option peerdns '0'`");
}

#[test]
fn ipv6_with_source_routes() {
    let resolved = parse_status(IPV6.as_bytes()).unwrap();
    assert_eq!(
        resolved.paths,
        [
            path("2001:db8:1::5", 64, Some("fe80::1")),
            path("2001:db8:aa01::1", 60, None),
            path("2001:db8:1::9", 64, Some("fe80::1")),
        ]
    );
}

#[test]
fn an_interface_that_is_down() {
    let text = r#"{ "up": false, "pending": true, "available": true, "proto": "dhcp", "device": "eth1", "data": { } }"#;
    let resolved = parse_status(text.as_bytes()).unwrap();
    assert_eq!(resolved, Resolved { device: Some("eth1".to_owned()), ..Resolved::default() });
}

#[test]
fn nonsense_is_refused() {
    for bad in ["", "7", "{", r#"{"ipv4-address":[{"address":"x","mask":32}]}"#, r#"{"up":1}"#, "\u{0}"] {
        assert!(parse_status(bad.as_bytes()).is_err(), "{bad}");
    }
}

/// A program in the place of `ubus`.
struct Script(Directory);

impl Script {
    fn new(body: &str) -> Script {
        let directory = Directory::new("bonding-ubus").unwrap();
        write_program(&directory.path("ubus"), 0o755, &format!("#!/bin/sh\n{body}\n")).unwrap();
        Script(directory)
    }

    async fn ask(&self, interface: &str, deadline: Duration) -> Result<Resolved, ResolveError> {
        let ubus = Ubus { program: self.0.path("ubus").display().to_string(), deadline };
        ubus.resolve(interface).await
    }
}

/// For programs that answer.
const LONG: Duration = Duration::from_secs(60);
/// For those that do not.
const SHORT: Duration = Duration::from_secs(1);

fn block_on(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
}

#[test]
fn ubus_is_asked() {
    let _descriptors = lab::descriptors();
    block_on(async {
        let body = format!(
            "[ \"$*\" = 'call network.interface.wan_a status' ] || exit 4\ncat <<'END'\n{PPPOE}\nEND\n"
        );
        let script = Script::new(&body);
        assert_eq!(script.ask("wan_a", LONG).await.unwrap().device.as_deref(), Some("pppoe-wan"));
        match script.ask("wan_b", LONG).await {
            Err(ResolveError::Unknown(name)) => assert_eq!(name, "wan_b"),
            other => panic!("{other:?}"),
        }
        for bad in ["", "a b", "a;reboot", "../x", "$(x)"] {
            assert!(matches!(script.ask(bad, LONG).await, Err(ResolveError::Name(_))), "{bad}");
        }
    });
}

#[test]
fn a_broken_ubus_does_no_harm() {
    let _descriptors = lab::descriptors();
    block_on(async {
        match Ubus::with_program("/nonexistent/ubus").resolve("wan").await {
            Err(error @ ResolveError::Start { .. }) => assert!(error.to_string().contains("'device'")),
            other => panic!("{other:?}"),
        }
        let cases = [
            ("exit 7", LONG, "ended with 7"),
            ("kill -9 $$", LONG, "killed"),
            ("while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done", LONG, "more than"),
            ("exec sleep 100", SHORT, "no answer within 1 s"),
            ("exec >&-; exec sleep 100", SHORT, "no answer within 1 s"),
            ("echo '{'", LONG, "cannot be understood"),
        ];
        for (body, deadline, expected) in cases {
            let begin = Instant::now();
            let error = Script::new(body).ask("wan", deadline).await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(begin.elapsed() < Duration::from_secs(50));
        }
    });
}

#[test]
fn what_is_left_out_the_kernel_knows() {
    run(|bench| async move {
        let (_wan, index) = bench.card("wan0").await;
        let (_bond, bond) = bench.card("bond0").await;
        bench.address("wan0", "192.0.2.7", 24).await;
        bench.address("wan0", "192.0.2.8", 24).await;
        bench.netlink.add_route(&default_through(bond, Family::V4, 254, 0), PROTOCOL).await.unwrap();
        let default = |gateway: &str, table, metric| Route {
            metric,
            table,
            target: Target::Device { index, gateway: Some(ip(gateway)), source: None },
            ..default_through(index, Family::of(ip(gateway)), 254, 0)
        };
        // The main table counts before others, however low their metric.
        for route in
            [default("192.0.2.3", 100, 1), default("192.0.2.2", 254, 20), default("192.0.2.1", 254, 10)]
        {
            bench.netlink.add_route(&route, 4).await.unwrap();
        }
        let mut by_device = Static::new(bench.netlink.clone(), PROTOCOL, "wan0".to_owned());
        let resolved = by_device.resolve("").await.unwrap();
        assert!(resolved.up);
        assert_eq!(resolved.device.as_deref(), Some("wan0"));
        assert_eq!(resolved.paths, [path("192.0.2.7", 24, Some("192.0.2.1"))]);

        by_device.address = Some(ip("192.0.2.8"));
        by_device.gateway = Some(ip("192.0.2.2"));
        assert_eq!(by_device.resolve("").await.unwrap().paths, [path("192.0.2.8", 24, Some("192.0.2.2"))]);
        by_device.address = Some(ip("192.0.2.9"));
        assert!(by_device.resolve("").await.unwrap().paths.is_empty(), "not (yet) an address of the device");

        let mut by_address = Static::new(bench.netlink.clone(), PROTOCOL, None);
        by_address.address = Some(ip("192.0.2.8"));
        let resolved = by_address.resolve("").await.unwrap();
        assert_eq!(resolved.device.as_deref(), Some("wan0"));
        assert_eq!(resolved.paths, [path("192.0.2.8", 24, Some("192.0.2.1"))]);

        // IPv6: the link's own address is none to send from; a tentative one is none yet; our default route is none.
        bench.netlink.set_link_up(index, true).await.unwrap();
        let address = Address { index, address: ip("2001:db8::7"), prefix_len: 64, peer: None };
        bench.netlink.add_address(&address, 0).await.unwrap();
        bench.netlink.add_route(&default("fe80::1", 254, 30), 9).await.unwrap();
        let by_device = Static::new(bench.netlink.clone(), PROTOCOL, "wan0".to_owned());
        let resolved = by_device.resolve("").await.unwrap();
        assert_eq!(resolved.path(Family::V6), Some(&path("2001:db8::7", 64, Some("fe80::1"))));

        let gone = Static::new(bench.netlink.clone(), PROTOCOL, "nothing0".to_owned());
        assert!(matches!(gone.resolve("").await, Err(ResolveError::NoDevice(_))));
    });
}
