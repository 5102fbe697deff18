use std::net::IpAddr;

use super::super::namespace::{Bench, run};
use super::super::routes::MAIN;
use super::super::rules::{Mark, Ports, Transport};
use super::super::{Prefix, Target};
use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn route(destination: &str, table: u32, metric: u32, index: u32, gateway: Option<&str>) -> Route {
    let target = Target::Device { index, gateway: gateway.map(ip), source: None };
    Route { destination: net(destination), table, metric, target }
}

fn mark_rule(family: Family, priority: u32, mark: u32, table: u32) -> Rule {
    Rule {
        family,
        priority,
        source: None,
        destination: None,
        mark: Some(Mark::exact(mark)),
        transport: Transport::default(),
        table,
        suppress_prefix_len: None,
    }
}

fn address(index: u32, text: &str, prefix_len: u8) -> Address {
    Address { index, address: ip(text), prefix_len, peer: None }
}

const TABLE: u32 = 0xB001;

#[test]
fn nothing_to_do() {
    let ownership = Ownership::default();
    assert_eq!(diff(&Actual::default(), &Desired::default(), &ownership), []);
    let desired = Desired {
        addresses: vec![address(3, "10.0.0.1", 24)],
        routes: vec![route("::/0", TABLE, 0, 3, Some("fe80::1"))],
        rules: vec![mark_rule(Family::V6, 600, 1, TABLE)],
        ..Desired::default()
    };
    // The kernel shows another metric for IPv6 than the one that was asked for.
    let actual = Actual {
        addresses: vec![(address(3, "10.0.0.1", 24), true)],
        routes: vec![route("::/0", TABLE, 1024, 3, Some("fe80::1"))],
        rules: desired.rules.clone(),
        ..Actual::default()
    };
    assert_eq!(diff(&actual, &desired, &ownership), []);
}

#[test]
fn order_leaves_no_gap() {
    let old_rule = mark_rule(Family::V4, 600, 1, TABLE);
    let new_rule = mark_rule(Family::V4, 601, 1, TABLE + 1);
    let into_bond_old = route("0.0.0.0/0", MAIN, 5, 3, None);
    let into_bond_new = route("0.0.0.0/0", MAIN, 6, 3, None);
    let own_old = route("0.0.0.0/0", TABLE, 0, 4, Some("10.0.0.1"));
    let own_new = route("0.0.0.0/0", TABLE + 1, 0, 4, Some("10.0.0.1"));
    let actual = Actual {
        addresses: vec![(address(3, "10.9.0.1", 32), true)],
        routes: vec![into_bond_old, own_old],
        rules: vec![old_rule.clone()],
        ..Actual::default()
    };
    let desired = Desired {
        addresses: vec![address(3, "10.9.0.2", 32)],
        routes: vec![into_bond_new, own_new],
        rules: vec![new_rule.clone()],
        ..Desired::default()
    };
    assert_eq!(
        diff(&actual, &desired, &Ownership::default()),
        [
            Change::AddAddress(address(3, "10.9.0.2", 32)),
            Change::AddRoute(own_new),
            Change::AddRule(new_rule),
            Change::AddRoute(into_bond_new),
            Change::RemoveRoute(into_bond_old),
            Change::RemoveRule(old_rule),
            Change::RemoveRoute(own_old),
            Change::RemoveAddress(address(3, "10.9.0.1", 32)),
        ]
    );
}

#[test]
fn a_new_gateway_is_a_replacement() {
    let old = route("0.0.0.0/0", TABLE, 0, 4, Some("10.0.0.1"));
    let new = route("0.0.0.0/0", TABLE, 0, 4, Some("10.0.0.2"));
    let actual = Actual { routes: vec![old], ..Actual::default() };
    let desired = Desired { routes: vec![new, old], ..Desired::default() };
    assert_eq!(diff(&actual, &desired, &Ownership::default()), [Change::ReplaceRoute(new)]);
    // Both are there: only the one too many goes.
    let actual = Actual { routes: vec![old, new], ..Actual::default() };
    assert_eq!(diff(&actual, &desired, &Ownership::default()), [Change::RemoveRoute(old)]);
}

#[test]
fn foreign_addresses_stay() {
    let actual = Actual { addresses: vec![(address(3, "10.0.0.1", 24), false)], ..Actual::default() };
    assert_eq!(diff(&actual, &Desired::default(), &Ownership::default()), []);
    let desired = Desired { addresses: vec![address(3, "10.0.0.1", 24)], ..Desired::default() };
    assert_eq!(diff(&actual, &desired, &Ownership::default()), []);
}

#[test]
fn an_ipv6_address_with_another_prefix_makes_room_first() {
    let (old, new) = (address(3, "fd00::1", 64), address(3, "fd00::1", 128));
    let actual = Actual { addresses: vec![(old, true)], ..Actual::default() };
    let desired = Desired { addresses: vec![new], ..Desired::default() };
    let expected = [Change::RemoveAddress(old), Change::AddAddress(new)];
    assert_eq!(diff(&actual, &desired, &Ownership::default()), expected);
}

#[test]
fn whose_rule() {
    let ownership = Ownership::default();
    let rule = mark_rule(Family::V4, 600, 1, TABLE);
    let info = |rule: &Rule, protocol, complete| RuleInfo { rule: rule.clone(), protocol, complete };
    assert!(ownership.owns_rule(&info(&rule, Some(PROTOCOL), true)));
    assert!(!ownership.owns_rule(&info(&rule, Some(3), true)));
    assert!(!ownership.owns_rule(&info(&rule, Some(PROTOCOL), false)));
    assert!(ownership.owns_rule(&info(&rule, None, true)));
    assert!(!ownership.owns_rule(&info(&Rule { priority: 1000, ..rule.clone() }, None, true)));
    assert!(!ownership.owns_rule(&info(&Rule { table: 100, ..rule }, None, true)));
}

/// Two cards: the tunnel and the line.
fn desired(bond: u32, wan: u32) -> Desired {
    let unreachable = |family| Route {
        destination: Prefix::default_route(family),
        table: TABLE,
        metric: u32::MAX - 1,
        target: Target::Unreachable,
    };
    let from = |source: &str, priority, table, suppress_prefix_len| Rule {
        family: net(source).family(),
        priority,
        source: Some(net(source)),
        destination: None,
        mark: None,
        transport: Transport::default(),
        table,
        suppress_prefix_len,
    };
    let class = |family, priority, protocol, source: Option<Ports>, destination| Rule {
        mark: None,
        transport: Transport { protocol: Some(protocol), source, destination },
        ..mark_rule(family, priority, 0, TABLE)
    };
    let ports = |first, last| Some(Ports { first, last });
    Desired {
        links: vec![LinkSettings { index: bond, up: Some(true), mtu: Some(1400) }],
        addresses: vec![
            address(bond, "10.9.0.2", 24),
            address(bond, "10.9.0.3", 24),
            address(bond, "fd09::2", 64),
            Address { peer: Some(ip("10.8.0.1")), ..address(bond, "10.8.0.2", 32) },
        ],
        routes: vec![
            route("192.0.2.0/24", TABLE, 0, wan, None),
            route("0.0.0.0/0", TABLE, 0, wan, Some("192.0.2.1")),
            unreachable(Family::V4),
            route("::/0", TABLE, 0, wan, Some("fe80::1")),
            unreachable(Family::V6),
            route("0.0.0.0/0", MAIN, 5, bond, None),
            route("::/0", MAIN, 5, bond, None),
            Route {
                target: Target::Device { index: bond, gateway: None, source: Some(ip("10.9.0.3")) },
                ..route("172.16.0.0/12", MAIN, 0, bond, None)
            },
        ],
        rules: vec![
            mark_rule(Family::V4, 600, 0x0b01_0000, TABLE),
            Rule {
                mark: Some(Mark { value: 0x0b01_0000, mask: 0xffff_0000 }),
                ..mark_rule(Family::V6, 600, 0, TABLE)
            },
            from("192.0.2.7", 700, MAIN, Some(0)),
            from("192.0.2.7", 800, TABLE, None),
            class(Family::V4, 801, 17, None, ports(27_015, 27_030)),
            class(Family::V4, 801, 17, None, ports(3_478, 3_478)),
            class(Family::V4, 801, 1, None, None),
            class(Family::V6, 801, 6, ports(1_024, 65_534), ports(443, 443)),
            Rule {
                source: Some(net("192.168.1.0/24")),
                destination: Some(net("198.51.100.0/24")),
                mark: Some(Mark { value: 0x10, mask: 0xff }),
                ..class(Family::V4, 802, 132, ports(5_000, 5_001), None)
            },
        ],
    }
}

async fn reconciler(bench: &Bench) -> Reconciler {
    Reconciler::new(bench.netlink.clone(), Ownership::default())
}

async fn everything(bench: &Bench) -> (Vec<String>, Vec<String>, Vec<String>) {
    let mut addresses: Vec<_> =
        bench.netlink.addresses().await.unwrap().iter().map(|i| i.address.to_string()).collect();
    let (mut routes, mut rules) = (Vec::new(), Vec::new());
    for family in Family::ALL {
        let found = bench.netlink.routes(family, None, |_| true).await.unwrap();
        routes.extend(found.iter().map(|route| format!("{route:?}")));
        let found = bench.netlink.rules(family).await.unwrap();
        rules.extend(found.iter().map(|rule| format!("{rule:?}")));
    }
    addresses.sort();
    routes.sort();
    rules.sort();
    (addresses, routes, rules)
}

#[test]
fn set_and_removed_without_a_trace() {
    run(|bench| async move {
        let (_wan, wan) = bench.card("wan0").await;
        bench.address("wan0", "192.0.2.7", 24).await;
        let (_bond, bond) = bench.card("bond0").await;
        let before = everything(&bench).await;

        let mut reconciler = reconciler(&bench).await;
        let desired = desired(bond, wan);
        let report = reconciler.reconcile(&desired).await.unwrap();
        assert!(report.is_complete(), "{:?}", report.failed);
        assert_eq!(bench.link("bond0").await.mtu, 1400);

        // All of it is there, and nothing is left to do.
        let owned = reconciler.list_owned().await.unwrap();
        assert_eq!(owned.addresses.len(), desired.addresses.len());
        assert_eq!(owned.routes.len(), desired.routes.len());
        assert_eq!(owned.rules.len(), desired.rules.len());
        let actual = reconciler.actual().await.unwrap();
        assert_eq!(diff(&actual, &desired, reconciler.ownership()), []);
        assert!(reconciler.reconcile(&desired).await.unwrap().done.is_empty());

        let report = reconciler.clear().await.unwrap();
        assert!(report.is_complete(), "{:?}", report.failed);
        assert!(reconciler.list_owned().await.unwrap().is_empty());
        assert_eq!(everything(&bench).await, before);
    });
}

#[test]
fn after_a_crash_the_stale_goes_and_the_wanted_stays() {
    run(|bench| async move {
        let (_wan, wan) = bench.card("wan0").await;
        bench.address("wan0", "192.0.2.7", 24).await;
        let (_bond, bond) = bench.card("bond0").await;
        let wanted = desired(bond, wan);
        let mut first = reconciler(&bench).await;
        assert!(first.reconcile(&wanted).await.unwrap().is_complete());
        drop(first); // as by kill -9: nothing of it remains but what it set

        let mut fewer = wanted.clone();
        let gone_route = fewer.routes.remove(5);
        let gone_rule = fewer.rules.remove(0);
        fewer.routes[1] = route("0.0.0.0/0", TABLE, 0, wan, Some("192.0.2.254"));
        let mut second = reconciler(&bench).await;
        let report = second.reconcile(&fewer).await.unwrap();
        assert!(report.is_complete(), "{:?}", report.failed);
        // What is still wanted was not touched: neither removed nor set again.
        assert_eq!(
            report.done,
            [
                Change::ReplaceRoute(fewer.routes[1]),
                Change::RemoveRoute(gone_route),
                Change::RemoveRule(gone_rule)
            ]
        );
        let actual = second.actual().await.unwrap();
        assert_eq!(diff(&actual, &fewer, second.ownership()), []);

        let mut third = reconciler(&bench).await;
        assert!(third.clear().await.unwrap().is_complete());
        assert!(third.list_owned().await.unwrap().is_empty());
    });
}

#[test]
fn others_are_left_alone() {
    run(|bench| async move {
        let (_wan, wan) = bench.card("wan0").await;
        bench.address("wan0", "192.0.2.7", 24).await;
        let (_bond, bond) = bench.card("bond0").await;
        let wanted = desired(bond, wan);

        // Somebody else: a route of ours to the letter, one beside it, a rule of ours to the letter, one in our range, a
        // route in our table, an address on our device.
        const STATIC: u8 = 4;
        let same_route = route("0.0.0.0/0", MAIN, 5, wan, Some("192.0.2.9"));
        let others =
            [same_route, route("203.0.113.0/24", TABLE, 0, wan, None), route("::/0", MAIN, 7, wan, None)];
        for other in &others {
            bench.netlink.add_route(other, STATIC).await.unwrap();
        }
        for rule in [wanted.rules[0].clone(), mark_rule(Family::V4, 650, 77, TABLE)] {
            bench.netlink.add_rule(&rule, STATIC).await.unwrap();
        }
        bench.address("bond0", "10.7.0.1", 24).await;
        bench.netlink.set_link_mtu(bond, 1400).await.unwrap();
        let before = everything(&bench).await;

        let mut reconciler = reconciler(&bench).await;
        let report = reconciler.reconcile(&wanted).await.unwrap();
        let failed: Vec<_> = report.failed.iter().map(|(change, _)| change.clone()).collect();
        // The same rule twice, by two hands, is no conflict for the kernel; the same route is.
        assert_eq!(failed, [Change::AddRoute(wanted.routes[5])]);
        assert!(report.failed.iter().all(|(_, error)| matches!(error, Error::Conflict(_))), "{report:?}");

        // With one of our own in its place, a replacement must not hit the other's beside it.
        let mut changed = wanted.clone();
        changed.routes[6] = route("::/0", MAIN, 7, bond, None);
        let report = reconciler.reconcile(&changed).await.unwrap();
        assert!(matches!(report.failed.last(), Some((_, Error::Conflict(_)))), "{report:?}");

        reconciler.clear().await.unwrap();
        assert_eq!(everything(&bench).await, before);
    });
}

#[test]
fn one_refusal_does_not_stop_the_rest() {
    run(|bench| async move {
        let (_wan, wan) = bench.card("wan0").await;
        bench.address("wan0", "192.0.2.7", 24).await;
        let (_bond, bond) = bench.card("bond0").await;
        let mut wanted = desired(bond, wan);
        let impossible = route("198.51.100.0/24", TABLE, 0, 9999, None);
        wanted.routes.insert(0, impossible);
        let mut reconciler = reconciler(&bench).await;
        let report = reconciler.reconcile(&wanted).await.unwrap();
        assert_eq!(report.failed.len(), 1);
        assert_eq!(report.failed[0].0, Change::AddRoute(impossible));
        let owned = reconciler.list_owned().await.unwrap();
        assert_eq!(owned.routes.len(), wanted.routes.len() - 1);

        // Once it is possible, it is done.
        let (_late, late) = bench.card("late0").await;
        wanted.routes[0] = route("198.51.100.0/24", TABLE, 0, late, None);
        assert!(reconciler.reconcile(&wanted).await.unwrap().is_complete());
    });
}

/// Removing a primary IPv4 address takes the others of its network along.
#[test]
fn what_the_kernel_removes_by_the_way_comes_back() {
    run(|bench| async move {
        let (_bond, bond) = bench.card("bond0").await;
        let mut reconciler = reconciler(&bench).await;
        let mut wanted = Desired {
            addresses: vec![address(bond, "10.9.0.2", 24), address(bond, "10.9.0.3", 24)],
            routes: vec![Route {
                target: Target::Device { index: bond, gateway: None, source: Some(ip("10.9.0.3")) },
                ..route("172.16.0.0/12", MAIN, 0, bond, None)
            }],
            ..Desired::default()
        };
        assert!(reconciler.reconcile(&wanted).await.unwrap().is_complete());
        wanted.addresses.remove(0);
        assert!(reconciler.reconcile(&wanted).await.unwrap().is_complete());
        let actual = reconciler.actual().await.unwrap();
        assert_eq!(diff(&actual, &wanted, reconciler.ownership()), []);
        assert!(actual.addresses.contains(&(address(bond, "10.9.0.3", 24), true)));
    });
}

#[test]
fn a_device_that_comes_back_is_served_again() {
    let _descriptors = lab::descriptors();
    run(|bench| async move {
        let (wan, index) = bench.card("wan0").await;
        let mut reconciler = reconciler(&bench).await;
        let wanted = |index| Desired {
            routes: vec![
                route("0.0.0.0/0", TABLE, 0, index, Some("192.0.2.1")),
                route("::/0", TABLE, 0, index, None),
            ],
            ..Desired::default()
        };
        assert!(reconciler.reconcile(&wanted(index)).await.unwrap().is_complete());
        drop(wan);
        let report = reconciler.reconcile(&wanted(index)).await.unwrap();
        assert_eq!(report.failed.len(), 2, "{report:?}");
        let (_wan, again) = bench.card("wan0").await;
        assert_ne!(index, again);
        assert!(reconciler.reconcile(&wanted(again)).await.unwrap().is_complete());
        assert_eq!(reconciler.list_owned().await.unwrap().routes.len(), 2);
    });
}

#[test]
fn errors_say_what_the_kernel_said() {
    run(|bench| async move {
        let (_wan, wan) = bench.card("wan0").await;
        bench.address("wan0", "192.0.2.7", 24).await;
        let to_itself = route("0.0.0.0/0", TABLE, 0, wan, Some("192.0.2.7"));
        let error = bench.netlink.add_route(&to_itself, PROTOCOL).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("default (IPv4) via 192.0.2.7"), "{text}");
        assert!(text.contains('('), "the kernel's explanation is missing: {text}");
        let mixed = route("0.0.0.0/0", TABLE, 0, wan, Some("fe80::1"));
        let error = bench.netlink.add_route(&mixed, PROTOCOL).await.unwrap_err();
        assert!(matches!(error, Error::MixedFamilies(_)), "{error}");
        let error = bench.netlink.link_by_name("nothing0").await.unwrap_err();
        assert!(matches!(error, Error::NoLink(_)), "{error}");
    });
}

#[test]
fn kinds_of_routes_replace_each_other() {
    run(|bench| async move {
        let (_wan, wan) = bench.card("wan0").await;
        let mut reconciler = reconciler(&bench).await;
        for destination in ["0.0.0.0/0", "::/0", "10.0.0.0/8", "fd00::/8"] {
            let through = route(destination, TABLE, 7, wan, None);
            let unreachable = Route { target: Target::Unreachable, ..through };
            for (n, wanted) in [through, unreachable, through].into_iter().enumerate() {
                let desired = Desired { routes: vec![wanted], ..Desired::default() };
                let report = reconciler.reconcile(&desired).await.unwrap();
                assert!(report.is_complete(), "{report:?}");
                if n > 0 {
                    assert_eq!(report.done, [Change::ReplaceRoute(wanted)]);
                }
                assert_eq!(reconciler.list_owned().await.unwrap().routes, [wanted]);
            }
            reconciler.clear().await.unwrap();
        }
    });
}

#[test]
fn a_broken_connection_is_made_anew() {
    run(|bench| async move {
        bench.netlink.break_connection().await;
        assert_eq!(bench.link("lo").await.index, 1);
    });
}

#[test]
fn owned_by_name() {
    let link = |index, name: &str| Link {
        index,
        name: name.to_owned(),
        up: true,
        carrier: true,
        point_to_point: false,
        loopback: false,
        mtu: 1500,
    };
    let owned = Owned {
        addresses: vec![address(3, "10.9.0.1", 24)],
        routes: vec![route("0.0.0.0/0", TABLE, 0, 4, Some("192.0.2.1")), route("::/0", MAIN, 5, 77, None)],
        rules: vec![mark_rule(Family::V4, 600, 1, TABLE)],
    };
    assert_eq!(
        owned.lines(&[link(3, "bond0"), link(4, "wan0")]),
        [
            "address 10.9.0.1/24 dev bond0",
            "route default (IPv4) via 192.0.2.1 dev wan0 table 45057",
            "route default (IPv6) dev #77 table main metric 5",
            "rule 600: from all (IPv4) fwmark 0x1 lookup 45057",
        ]
    );
}

#[test]
fn our_number_is_the_one_that_the_configuration_has_by_default() {
    let text = "config globals\n option role server\nconfig interface 'bond'\n option ipaddr '10.0.0.1/24'\n";
    let report = crate::config::load(text, "test");
    assert_eq!(report.config.unwrap().globals.route_protocol, PROTOCOL);
}
