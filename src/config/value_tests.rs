//! Values as people write them, right and wrong.

use proptest::prelude::*;

use super::*;

#[test]
fn rates() {
    for (text, bits) in [
        ("0", Some(0)),
        ("800", Some(800_000)),
        ("800k", Some(800_000)),
        ("10mbit", Some(10_000_000)),
        ("10Mbit", Some(10_000_000)),
        ("10 mbit/s", Some(10_000_000)),
        ("1.5m", Some(1_500_000)),
        ("0.1g", Some(100_000_000)),
        ("64000bit", Some(64_000)),
        ("1.2345kbit", Some(1_234)),
        ("18446744073709551615bit", Some(u64::MAX)),
        ("18446744073709551616bit", None),
        ("99999999999g", None),
        ("", None),
        ("m", None),
        (".5m", None),
        ("5.m", None),
        ("1.2.3m", None),
        ("-5m", None),
        ("+5m", None),
        ("10mbps", None),
        ("10MB", None),
        ("1e3", None),
    ] {
        assert_eq!(rate(text), bits.map(Rate), "{text}");
    }
    assert_eq!(Rate(10_000_000).bytes_per_second(), 1_250_000);
}

#[test]
fn durations() {
    for (text, millis) in [
        ("5", Some(5_000)),
        ("5s", Some(5_000)),
        ("500ms", Some(500)),
        ("1.5s", Some(1_500)),
        ("1m", Some(60_000)),
        ("2min", Some(120_000)),
        ("0.5h", Some(1_800_000)),
        ("1d", Some(86_400_000)),
        ("2000us", Some(2)),
        ("", None),
        ("s", None),
        ("-1", None),
        ("1w", None),
        ("99999999999999d", None),
    ] {
        assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
    }
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("1024", Some(1_024)),
        ("10G", Some(10_000_000_000)),
        ("10GB", Some(10_000_000_000)),
        ("10gib", Some(10 << 30)),
        ("1.5GiB", Some(3 << 29)),
        ("1.5K", Some(1_500)),
        ("2T", Some(2_000_000_000_000)),
        ("1Ti", Some(1 << 40)),
        ("1.1B", Some(1)),
        ("10 apples", None),
        ("99999999T", None),
        ("18446744073709551615.999999999T", None),
        ("", None),
    ] {
        assert_eq!(size(text), bytes, "{text}");
    }
}

#[test]
fn ports_and_ranges() {
    assert_eq!(port("1"), Some(1));
    assert_eq!(port("65535"), Some(65_535));
    for text in ["0", "65536", "", "+1", "-1", "0x50", "80 ", "http"] {
        assert_eq!(port(text), None, "{text}");
    }
    assert_eq!(port_range("80"), Some(80..=80));
    assert_eq!(port_range("80-90"), Some(80..=90));
    assert_eq!(port_range("80:90"), Some(80..=90));
    for text in ["90-80", "80-", "-80", "80-90-100", "0-5"] {
        assert_eq!(port_range(text), None, "{text}");
    }
}

#[test]
fn networks() {
    let v4 = |a, b, c, d| IpAddr::from([a, b, c, d]);
    assert_eq!(network("10.0.0.2"), Some((v4(10, 0, 0, 2), None)));
    assert_eq!(network("10.0.0.2/24"), Some((v4(10, 0, 0, 2), Some(24))));
    assert_eq!(network("10.0.0.2/255.255.255.0"), Some((v4(10, 0, 0, 2), Some(24))));
    assert_eq!(network("0.0.0.0/0"), Some((v4(0, 0, 0, 0), Some(0))));
    assert_eq!(network("fd00::1/64").and_then(|(_, prefix)| prefix), Some(64));
    for text in [
        "10.0.0.2/33",
        "10.0.0.2/",
        "10.0.0/24",
        "fd00::1/129",
        "fd00::/255.255.0.0",
        "10.0.0.2/+8",
        "/24",
        "",
    ] {
        assert_eq!(network(text), None, "{text}");
    }
    for (text, prefix) in [
        ("255.255.255.0", Some(24)),
        ("0.0.0.0", Some(0)),
        ("255.255.255.255", Some(32)),
        ("255.0.255.0", None),
        ("0.0.0.255", None),
        ("24", None),
    ] {
        assert_eq!(netmask(text), prefix, "{text}");
    }
}

#[test]
fn containment() {
    let net = |text: &str| {
        let (address, prefix) = network(text).expect(text);
        prefix.map_or(IpNet::host(address), |prefix| IpNet { address, prefix })
    };
    assert_eq!(net("10.1.2.3/8").trunc(), net("10.0.0.0/8"));
    assert_eq!(net("fd00:1::5/32").trunc(), net("fd00:1::/32"));
    assert!(net("0.0.0.0/0").contains(IpAddr::from([255, 1, 1, 1])));
    assert!(!net("0.0.0.0/0").contains("::1".parse().expect("an address")));
    assert!(net("10.0.0.0/8").overlaps(&net("10.9.0.0/16")));
    assert!(net("10.9.0.0/16").overlaps(&net("10.0.0.0/8")));
    assert!(!net("10.8.0.0/16").overlaps(&net("10.9.0.0/16")));
    assert!(!net("::/0").overlaps(&net("0.0.0.0/0")));
}

#[test]
fn hosts() {
    assert_eq!(host("203.0.113.7"), Some(Host::Address(IpAddr::from([203, 0, 113, 7]))));
    assert_eq!(host("[2001:db8::1]"), host("2001:db8::1"));
    for name in [
        "vpn.example.com",
        "vpn",
        "vpn.example.com.",
        "a_b.example",
        "1and1.example",
        "xn--bcher-kva.example",
    ] {
        assert_eq!(host(name), Some(Host::Name(name.into())), "{name}");
    }
    let long = format!("{}.example", "a".repeat(64));
    let very_long = ["a"; 200].join(".");
    for text in [
        "",
        ".",
        "a..b",
        "-a",
        "a-",
        "a b",
        "10.0.0.300",
        "10.0.0",
        "1",
        "a:80",
        "ü.example",
        &long,
        &very_long,
    ] {
        assert_eq!(host(text), None, "{text}");
    }
}

#[test]
fn marks_and_tables() {
    assert_eq!(mark("16"), Some(Mark { value: 16, mask: u32::MAX }));
    assert_eq!(mark("0x100/0xff00"), Some(Mark { value: 0x100, mask: 0xff00 }));
    for text in ["0", "0/0xff", "0x100/0xff", "0x1ffffffff", "x", "0x", "0x+1", "1/2/3"] {
        assert_eq!(mark(text), None, "{text}");
    }
    assert!(Mark { value: 0x100, mask: 0xff00 }.overlaps(Mark { value: 1, mask: 0xff }));
    assert!(!Mark { value: 0x100, mask: 0xff00 }.overlaps(Mark { value: 0x200, mask: 0xff00 }));
    assert_eq!(table("100"), Some(Table::Number(100)));
    assert_eq!(table("0x64"), Some(Table::Number(100)));
    assert_eq!(table("link0"), Some(Table::Name("link0".into())));
    for text in [
        "0",
        "253",
        "254",
        "255",
        "main",
        "local",
        "default",
        "unspec",
        "4294967295",
        "4294967296",
        "",
        "a b",
        "9x",
    ] {
        assert_eq!(table(text), None, "{text}");
    }
}

#[test]
fn traffic_classes() {
    for (text, expected) in [
        ("46", Some(46)),
        ("0x2e", Some(46)),
        ("ef", Some(46)),
        ("EF", Some(46)),
        ("cs1", Some(8)),
        ("CS7", Some(56)),
        ("af11", Some(10)),
        ("af41", Some(34)),
        ("af43", Some(38)),
        ("va", Some(44)),
        ("le", Some(1)),
        ("64", None),
        ("cs8", None),
        ("cs", None),
        ("af14", None),
        ("af51", None),
        ("csü", None),
        ("", None),
    ] {
        assert_eq!(dscp(text), expected, "{text}");
    }
    for (text, expected) in [
        ("tcp", Some(6)),
        ("UDP", Some(17)),
        ("icmpv6", Some(58)),
        ("0", Some(0)),
        ("255", Some(255)),
        ("256", None),
        ("+6", None),
        ("", None),
    ] {
        assert_eq!(protocol(text), expected, "{text}");
    }
}

#[test]
fn devices() {
    for text in ["eth0", "eth0.2", "br-lan", "pppoe-wan", "wwan0@x", "a", "averylongname15"] {
        assert_eq!(device(text), Some(text));
    }
    for text in ["", ".", "..", "eth 0", "eth/0", "eth0:1", "averylongname_16", "é"] {
        assert_eq!(device(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn a_rate_reads_as_it_is_written(bits in any::<u64>()) {
        prop_assert_eq!(rate(&Rate(bits).to_string()), Some(Rate(bits)));
    }

    #[test]
    fn a_network_reads_as_it_is_written(address in any::<IpAddr>(), prefix in 0_u8..=128) {
        let net = IpNet { address, prefix: prefix.min(IpNet::host(address).prefix) };
        prop_assert_eq!(network(&net.to_string()), Some((address, Some(net.prefix))));
        prop_assert!(net.contains(address) && net.contains(net.network()));
        prop_assert_eq!(net.trunc(), net.trunc().trunc());
    }

    #[test]
    fn a_mark_reads_as_it_is_written(value in 1_u32.., mask in any::<u32>()) {
        let one = Mark { value: value & mask, mask };
        prop_assume!(one.value != 0);
        prop_assert_eq!(mark(&one.to_string()), Some(one));
    }

    #[test]
    fn no_text_makes_a_value_panic(text in "\\PC{0,24}|[0-9a-zA-Z.:/+ -]{0,24}") {
        let _ = (boolean(&text), integer(&text), rate(&text), duration(&text), size(&text), port_range(&text));
        let _ = (network(&text), netmask(&text), host(&text), device(&text), table(&text));
        let _ = (mark(&text), dscp(&text), protocol(&text));
    }
}
