//! The guide's two files and one with every option.

use proptest::prelude::*;

use super::super::types::{Action, Cipher, Config, Role};
use super::super::value::{Host, Rate};
use super::super::{Severity, load};
use super::*;

const CLIENT: &str = include_str!("../../../tests/fixtures/mlvpn/client.conf");
const SERVER: &str = include_str!("../../../tests/fixtures/mlvpn/server.conf");
const FULL: &str = include_str!("../../../tests/fixtures/mlvpn/full.conf");

/// The result of an import that `bonding check` accepts.
fn imported(text: &str) -> (Import, Config) {
    let import = import(text).expect("an mlvpn.conf");
    let report = load(&import.uci, "bonding");
    let problems: Vec<String> = report
        .problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error || problem.message.contains("unknown"))
        .map(ToString::to_string)
        .collect();
    assert!(problems.is_empty(), "{problems:#?}\n{}", import.uci);
    let config = report.config.expect("no errors");
    (import, config)
}

#[test]
fn the_guides_client() {
    let (import, config) = imported(CLIENT);
    assert_eq!(config.globals.role, Role::Client);
    assert_eq!(config.bond.ifname, "mlvpn0");
    assert_eq!(config.bond.addresses[0].to_string(), "10.42.43.2/24");
    let script = config.bond.hooks.link_script.as_ref().map(|script| script.path.clone());
    assert_eq!(script, Some("/etc/mlvpn/mlvpn0_updown.sh".into()));
    let links: Vec<String> = config
        .links
        .iter()
        .map(|link| format!("{} {:?} {} {}", link.name, link.ipaddr, link.servers[0], link.remote_port))
        .collect();
    assert_eq!(
        links,
        [
            "adsl1 Some(192.168.1.2/32) 128.128.128.128 5080",
            "adsl2 Some(192.168.2.2/32) 128.128.128.128 5081",
        ]
    );
    assert!(
        !import.uci.contains("changed me") && !import.notes.concat().contains("changed me"),
        "{}",
        import.uci
    );
    assert!(import.notes[0].contains("bonding genkey") && import.notes[0].contains("bonding pubkey"));
    for name in ["timeout '30'", "reorder_buffer_size '64'", "loss_tolerence '50'"] {
        assert!(import.uci.contains(&format!("# {name}")), "{name}\n{}", import.uci);
    }
}

#[test]
fn the_guides_server_fits_its_client() {
    let (import, config) = imported(SERVER);
    assert_eq!(config.globals.role, Role::Server);
    assert_eq!(config.globals.listen_ports, [5080, 5081]);
    let (_, client) = imported(CLIENT);
    assert_eq!(client.bond.remote_addresses, [config.bond.addresses[0].address]);
    assert!(config.peers.is_empty(), "the peer is off until it has a key");
    assert!(
        import.uci.contains(&format!("list ipaddr '{}'", client.bond.addresses[0].address)),
        "{}",
        import.uci
    );
    assert!(!import.uci.contains("pleasechange"));
}

#[test]
fn every_option_is_translated_or_commented() {
    let (import, config) = imported(FULL);
    assert_eq!(config.globals.cipher, Cipher::None);
    assert_eq!(config.bond.addresses.len(), 2);
    assert_eq!(
        config.bond.routes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["192.168.0.0/24", "10.8.0.0/16"]
    );
    assert!(config.bond.default_route);
    let names: Vec<&str> = config.links.iter().map(|link| link.name.as_str()).collect();
    assert_eq!(names, ["dsl_1", "4g", "4_g", "globals_link"]);
    let [dsl, lte, v6, usb] = config.links.as_slice() else { panic!("{names:?}") };
    assert_eq!((dsl.upload, dsl.download), (Some(Rate(491_520)), Some(Rate(10_000_000))));
    assert_eq!((dsl.device.as_deref(), dsl.local_port), (Some("eth1"), Some(5080)));
    assert_eq!(dsl.servers, [Host::Name("vpn.example.com".into())]);
    assert_eq!((lte.priority, dsl.priority, lte.ipaddr), (2, 1, None));
    assert!(v6.ip6addr.is_some());
    assert_eq!(usb.device.as_deref(), Some("usb0"));

    let rules: Vec<(Vec<u8>, bool, &Action)> = config
        .rules
        .iter()
        .map(|rule| (rule.protocols.clone(), rule.destination_ports.is_empty(), &rule.action))
        .collect();
    let through = |link: &str| Action::Bond { policy: None, links: vec![link.into()], force: false };
    assert_eq!(
        rules,
        [
            (vec![17], true, &through("dsl_1")),
            (vec![17], false, &through("dsl_1")),
            (vec![6], false, &through("4g")),
            (vec![1], true, &through("dsl_1")),
        ]
    );
    let notes = import.notes.join("\n");
    for part in [
        "line 26 of mlvpn.conf",
        "tuntap 'tap'",
        "protocol 'tcp'",
        "colour 'red' has no equivalent",
        "quota '5000'",
        "link '4g': say which line",
        "tcp[tcpflags]",
        "there is no tunnel 'cable'",
    ] {
        assert!(notes.contains(part), "{part}\n{notes}");
    }
    for part in ["mtu '1444'", "bindfib '1'", "timeout '25'", "latency_tolerence '300'", "control_unix_path"]
    {
        assert!(import.uci.contains(&format!("# {part}")), "{part}\n{}", import.uci);
    }
    assert!(!import.uci.contains("s3cr3t") && !notes.contains("s3cr3t"));
}

#[test]
fn addresses_are_chosen_away_from_the_lines() {
    let text = CLIENT.replace("192.168.1.2", "10.42.43.7").replace("192.168.2.2", "10.42.44.7");
    let (_, config) = imported(&text);
    assert_eq!(config.bond.addresses[0].to_string(), "10.42.45.2/24");
}

#[test]
fn other_files_are_refused() {
    assert!(matches!(import("config interface 'bond'\n"), Err(ImportError::NotMlvpn)));
    assert!(matches!(import(""), Err(ImportError::NotMlvpn)));
    assert!(matches!(import(&"#".repeat(MAX_BYTES + 1)), Err(ImportError::TooLarge(_))));
}

#[test]
fn filters() {
    let show = |text: &str| {
        filter::translate(text).map(|rules| {
            rules
                .iter()
                .map(|rule| {
                    rule.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
                })
                .collect::<Vec<_>>()
        })
    };
    let some = |rules: &[&str]| Some(rules.iter().map(ToString::to_string).collect::<Vec<_>>());
    for (text, rules) in [
        ("icmp", some(&["proto=icmp"])),
        ("ip proto icmp", some(&["proto=icmp src_ip=0.0.0.0/0"])),
        ("ip6", some(&["src_ip=::/0"])),
        ("udp port 5060", some(&["proto=udp src_port=5060", "proto=udp dest_port=5060"])),
        ("UDP dst port 5060", some(&["proto=udp dest_port=5060"])),
        ("dst portrange 1000-2000", some(&["proto=tcp udp dest_port=1000-2000"])),
        ("src host 192.168.1.7", some(&["src_ip=192.168.1.7"])),
        ("dst net 10.0.0.0/8 and tcp", some(&["proto=tcp dest_ip=10.0.0.0/8"])),
        ("", None),
        ("udp or tcp", None),
        ("not icmp", None),
        ("udp and tcp", None),
        ("port 80 and port 90", None),
        ("port http", None),
        ("port", None),
        ("src", None),
        ("host vpn.example.com", None),
        ("tcp[13] & 2 != 0", None),
    ] {
        assert_eq!(show(text), rules, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic_or_write_bad_uci(
        lines in prop::collection::vec(
            prop::sample::select(vec![
                "[general]", "[filters]", "[a]", "[b'c]", "[", "]", "mode = client", "mode = server", "mode = \"'x\\\"", "=", "a",
                "bindhost = 1.2.3.4", "bindhost = '", "binddev = a'b", "remotehost = \\", "password = x", "a = udp port 5",
                "ip4_routes = a b", "quota = \u{85}\u{2028}", "# '", "bandwidth_upload = 99999999999999999999", ": = :", "; x = y",
            ]),
            0..30,
        )
    ) {
        if let Ok(import) = import(&lines.join("\n")) {
            let (_, errors) = super::super::uci::parse(&import.uci);
            prop_assert!(errors.is_empty(), "{errors:?}\n{}", import.uci);
        }
    }
}
