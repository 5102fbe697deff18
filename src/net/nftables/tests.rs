//! Against the real kernel, in a network namespace of the test.

use std::net::Ipv4Addr;

use super::ruleset::{intervals, removal, replacement};
use super::transaction::commit;
use super::*;
use crate::net::{Family, namespace};

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn redirect(ports: RangeInclusive<u16>, to: &str, to_port: Option<u16>) -> Redirect {
    Redirect { protocol: 6, ports, address: None, from: Vec::new(), to: to.parse().unwrap(), to_port }
}

fn firewall() -> Firewall {
    Firewall {
        table: "bonding_bond0".into(),
        device: "bond0".into(),
        translated: prefixes(&["10.77.0.2/32", "192.168.1.0/24", "fd77::2/128"]),
        trusted: prefixes(&["10.0.0.0/8"]),
        redirects: vec![redirect(80..=80, "192.168.1.2", None)],
    }
}

fn named(family: Family, networks: &[&str]) -> Vec<(String, bool)> {
    let keys = intervals(family, &prefixes(networks));
    keys.into_iter().map(|(address, is_end)| (address.to_string(), is_end)).collect()
}

#[test]
fn networks_become_intervals_that_neither_touch_nor_overlap() {
    let key = |address: &str, is_end| (address.to_owned(), is_end);
    let joined = named(Family::V4, &["192.168.1.0/24", "192.168.0.0/24", "192.168.1.7/32", "fd00::/8"]);
    assert_eq!(joined, [key("192.168.0.0", false), key("192.168.2.0", true)]);
    let apart = named(Family::V4, &["10.0.0.9/32", "10.0.0.1/32"]);
    let expected = [("10.0.0.1", false), ("10.0.0.2", true), ("10.0.0.9", false), ("10.0.0.10", true)];
    assert_eq!(apart, expected.map(|(address, is_end)| key(address, is_end)));
    assert_eq!(named(Family::V4, &["255.255.255.0/24"]), [key("255.255.255.0", false)], "nothing is behind");
    assert_eq!(named(Family::V4, &["0.0.0.0/0"]), [key("0.0.0.0", false)]);
    assert_eq!(named(Family::V6, &["::/0", "fd00::/8"]), [key("::", false)]);
    assert_eq!(named(Family::V6, &["fd00::/8"]), [key("fd00::", false), key("fe00::", true)]);
    assert_eq!(named(Family::V6, &["10.0.0.0/8"]), []);
}

#[test]
fn the_kernel_takes_the_table_and_removes_it() {
    namespace::run(|_| async {
        let mut wanted = firewall();
        wanted.redirects = vec![
            redirect(80..=80, "192.168.1.2", None),
            redirect(8_000..=8_010, "192.168.1.2", None),
            Redirect {
                protocol: 17,
                address: Some(Ipv4Addr::new(198, 51, 100, 1).into()),
                from: prefixes(&["203.0.113.0/24", "192.0.2.9/32"]),
                ..redirect(27_000..=27_009, "192.168.1.3", Some(27_100))
            },
            redirect(443..=443, "fd77::2", Some(8_443)),
        ];
        assert!(!exists(&wanted.table).await.unwrap());
        remove(&wanted.table).await.expect("nothing is there to be removed");
        set(&wanted).await.unwrap();
        assert!(exists(&wanted.table).await.unwrap());
        set(&firewall()).await.expect("another one takes its place");
        assert!(!exists("bonding_bond1").await.unwrap());
        remove(&wanted.table).await.unwrap();
        assert!(!exists(&wanted.table).await.unwrap());
    });
}

#[test]
fn thousands_of_networks_fit() {
    namespace::run(|_| async {
        let mut wanted = firewall();
        let nets =
            (0..4_096_u32).map(|n| Prefix::new(Ipv4Addr::from_bits(0x0a00_0000 + (n << 9)).into(), 24));
        wanted.translated = nets.collect();
        wanted.redirects = (1..=1_000).map(|port| redirect(port..=port, "10.0.0.2", Some(9))).collect();
        set(&wanted).await.unwrap();
        assert!(exists(&wanted.table).await.unwrap());
    });
}

#[test]
fn what_is_refused_changes_nothing_and_the_removal_is_announced() {
    namespace::run(|_| async {
        let mut announcements = Announcements::open("bonding_bond0").unwrap();
        set(&firewall()).await.unwrap();
        // The last message asks for what cannot be: there is no such table to be removed.
        let mut messages = replacement(&Firewall { redirects: Vec::new(), ..firewall() });
        messages.extend(removal("another").pop());
        messages.extend(removal("bonding_bond0"));
        let error = commit(messages, "try").await.unwrap_err();
        assert_eq!(error.errno(), Some(libc::ENOENT), "{error}");
        assert!(exists("bonding_bond0").await.unwrap(), "nor was it removed");
        remove("bonding_bond0").await.unwrap();
        announcements.removed().await.unwrap();
    });
}
