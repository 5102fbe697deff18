//! Whole files: the bondlink package's own, the sample that ships, and what every option does.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use proptest::prelude::*;

use super::value::{Host, IpNet, Mark, Rate, Table};
use super::*;

const BONDLINK: &str = include_str!("../../tests/fixtures/bondlink.conf");
const KEY: &str = "uKz0vFm3rO5nX0hKq3l8n2d4w6y8A0C2E4G6I8K0M2c=";

fn good(text: &str) -> Config {
    let report = load(text, "test");
    let errors: Vec<String> = report.errors().map(ToString::to_string).collect();
    report.config.unwrap_or_else(|| panic!("{errors:#?}"))
}

fn messages(text: &str) -> Vec<String> {
    load(text, "bonding").problems.iter().map(ToString::to_string).collect()
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn net(text: &str) -> IpNet {
    let (address, prefix) = value::network(text).expect("a network");
    IpNet { address, prefix: prefix.expect("a prefix length") }
}

/// A client with `globals`, `bond` and `link` options added.
fn client(globals: &str, bond: &str, link: &str) -> String {
    format!(
        "config globals\n{globals}\nconfig interface 'bond'\n option ipaddr '10.0.0.2/24'\n option server 'vpn.example.com'\n\
         {bond}\nconfig link 'dsl'\n option interface 'wan'\n{link}\n"
    )
}

#[test]
fn the_file_of_the_bondlink_package_loads_with_one_warning() {
    let text = BONDLINK.replace("<secondary IP address of data centre server>", "203.0.113.7");
    let report = load(&text, "bonding");
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert!(problems[0].starts_with("bonding:30: warning: section '@openvpn[0]': "), "{}", problems[0]);
    for name in
        ["private_key_file", "public_key", "cipher", "mtu", "mss_clamp", "keepalive", "rekey_interval"]
    {
        assert!(problems[0].contains(&format!("'{name}'")), "{name}");
    }

    let config = report.config.expect("no errors");
    assert_eq!(config.globals.role, Role::Client);
    assert_eq!(config.globals.mode, Mode::User);
    assert!(config.globals.enabled);
    assert_eq!(config.bond.ifname, "bond0");
    assert_eq!(config.bond.addresses, [net("10.0.0.2/24")]);
    assert_eq!(config.bond.remote_addresses, [address("10.0.0.1")]);
    assert!(config.bond.default_route, "the bond holds the default route where a link is `active`");
    let watchdog = config.bond.watchdog.as_ref().expect("on");
    assert_eq!(watchdog.addresses, [address("8.8.8.8")]);
    assert_eq!((watchdog.period, watchdog.timeout), (Duration::from_secs(5), Duration::from_secs(30)));
    assert_eq!(watchdog.action, ["/etc/scripts/restartbonding.sh"]);
    let [first, second] = config.links.as_slice() else { panic!("{:?}", config.links) };
    assert_eq!((first.name.as_str(), second.name.as_str()), ("link0", "link1"));
    assert_eq!(first.interface.as_deref(), Some("wan0"));
    assert_eq!(first.servers, [Host::Address(address("203.0.113.7"))]);
    assert_eq!((first.local_port, first.remote_port), (Some(1194), 1194));
    assert_eq!((second.local_port, second.remote_port), (Some(1195), 1195));
    assert_eq!(first.table, Table::Name("link0".into()));
    assert_eq!(first.tunnel.as_deref(), Some("tun0"));
    assert!(first.active && !second.active);
    assert!(!first.mark.overlaps(second.mark));

    let missing = config.not_ready("bonding");
    assert_eq!(missing.len(), 1);
    assert!(missing[0].to_string().starts_with("bonding: not ready: section 'bond', option 'public_key': "));
}

#[test]
fn its_placeholders_are_the_only_errors() {
    let report = load(BONDLINK, "bonding");
    assert!(report.config.is_none());
    let errors: Vec<String> = report.errors().map(ToString::to_string).collect();
    let placeholder = "'<secondary IP address of data centre server>' is a placeholder; \
                       put an IP address or a host name in its place";
    assert_eq!(
        errors,
        [
            format!("bonding:7: section 'link0', option 'server': {placeholder}"),
            format!("bonding:16: section 'link1', option 'server': {placeholder}"),
        ]
    );
}

#[test]
fn the_sample_passes_and_can_be_filled_in_by_uci() {
    let sample = include_str!("../../files/etc/config/bonding");
    assert_eq!(messages(sample), [""; 0]);
    let config = good(sample);
    assert!(!config.globals.enabled);
    assert_eq!(config.links.len(), 2);
    let filled = sample
        .replace("option enabled '0'", "option enabled '1'")
        .replace("# option server 'vpn.example.com'", "option server 'vpn.example.com'")
        .replace(
            "# option public_key 'what `bonding pubkey` prints on the server'",
            &format!("option public_key '{KEY}'"),
        );
    assert_eq!(messages(&filled), [""; 0]);
    let config = good(&filled);
    assert!(config.not_ready("bonding").is_empty());
    // Every commented option is real.
    let uncommented: String = filled
        .lines()
        .map(|line| match line.trim_start().strip_prefix("# ").or(line.strip_prefix("#\t")) {
            Some(rest) if rest.starts_with("option ") || rest.starts_with("config ") => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    assert_eq!(messages(&uncommented), [""; 0], "{uncommented}");
    assert_eq!(good(&uncommented).rules.len(), 1);
}

#[test]
fn a_disabled_file_may_be_unfinished_but_not_wrong() {
    let text = "config globals\n option enabled '0'\nconfig interface 'bond'\nconfig link 'a'\n option interface 'wan'\n";
    assert!(messages(text).is_empty(), "{:?}", messages(text));
    let wrong = format!("{text} option remote_port '0'\n");
    assert_eq!(messages(&wrong).len(), 1);
}

#[test]
fn defaults_are_those_of_the_schema() {
    let config = good(&client("", "", ""));
    let globals = &config.globals;
    assert_eq!(globals.private_key_file, Path::new("/etc/bonding/private.key"));
    assert_eq!(globals.control_socket, Path::new("/var/run/bonding.sock"));
    assert_eq!((globals.cipher, globals.rekey_interval), (Cipher::Auto, Duration::from_secs(120)));
    assert_eq!(config.bond.policy, Policy::Adaptive);
    assert_eq!((config.bond.mtu, config.bond.mss_clamp), (None, true));
    assert!((config.bond.resequence_tcp, config.bond.resequence_udp) == (true, false));
    assert!(!config.bond.default_route && config.bond.watchdog.is_none());
    assert_eq!(config.bond.hooks.up, Script { path: "/etc/bonding/bonding-up.sh".into(), configured: false });
    let link = &config.links[0];
    assert_eq!(link.servers, [Host::Name("vpn.example.com".into())]);
    assert_eq!((link.remote_port, link.local_port), (5510, None));
    assert_eq!((link.priority, link.weight, link.upload, link.quota), (1, None, None, None));
}

#[test]
fn every_option_reaches_the_result() {
    let text = client(
        &format!(
            " option role client\n option mode kernel\n option private_key '{KEY}'\n option control_socket /run/b.sock\n option state_dir /x\n \
             option control_group admin\n option log_level debug\n option log_target syslog\n option cipher aes-128-gcm\n \
             option rekey_interval 2\n option table_base 1000\n option mark_base 0x100/0xff00\n option route_protocol 99\n \
             option rule_priority 5"
        ),
        &format!(
            " option ifname b0\n option ip6addr fd00::2/64\n option remote_ipaddr '10.0.0.1 fd00::1'\n option public_key {KEY}\n \
             option preshared_key {KEY}\n option remote_port 7\n option mtu 1400\n option mss_clamp no\n \
             option default_route on\n option metric 9\n list route 10.9.0.0/16\n list route fd01::/48\n option resequence_tcp 0\n \
             option resequence_udp 1\n option watchdog 1\n option watchdog_period 500s\n option watchdog_timeout 10m\n \
             option watchdog_action '/bin/x  a b'\n option preup /p\n option up /u\n option predown /q\n option down /d\n \
             option link_script /l\n option hook_timeout 3\n option bond_mode balance-xor\n option xmit_hash_policy layer2+3\n \
             option tunnel_type tap\n option arp_interval 300\n option arp_ip_target 10.0.0.1"
        ),
        " option server '192.0.2.1 other.example'\n option dns '192.0.2.53 2001:db8::53'\n option remote_port 8\n option local_port 9\n option ipaddr 192.168.1.2/24\n \
         option gateway 192.168.1.1\n option ip6addr 2001:db8::2/64\n option ip6gateway fe80::1\n option mark 0x42\n \
         option routing_table 77\n option tunnel t0\n option active 1\n option priority 2\n option upload 5mbit\n \
         option download 20m\n option mtu 1492\n option quota 10G\n option quota_reset_day 31\n option keepalive 500ms\n\
         config link late\n option interface wanb\n option enabled 0\nconfig link later\n option interface wanc\n\
         config rule r\n list proto tcp\n option proto 'tcp udp'\n option src_ip 192.168.1.7/24\n option dest_ip 203.0.113.9\n \
         option src_port 1000-2000\n option dest_port '80 443'\n option dscp 'ef cs1'\n option policy redundant\n \
         option link dsl\n option force 1\nconfig rule\n option mark 7\n option outside 1\n option link 'later dsl'",
    );
    let kernel = "section 'r', option 'policy': has no effect: the kernel spreads the packets (`option mode 'kernel'`)";
    let found = messages(&text);
    assert!(found.len() == 1 && found[0].ends_with(kernel), "{found:#?}");
    let config = good(&text);
    let globals = &config.globals;
    assert_eq!(globals.state_dir, Path::new("/x"));
    assert_eq!((globals.role, globals.mode, globals.cipher), (Role::Client, Mode::Kernel, Cipher::Aes128Gcm));
    assert_eq!((globals.log_level, globals.log_target), (::log::LevelFilter::Debug, LogTarget::Syslog));
    assert_eq!((globals.table_base, globals.route_protocol, globals.rule_priority), (1000, 99, 5));
    assert_eq!(globals.control_group.as_deref(), Some("admin"));
    assert_eq!(globals.rekey_interval, Duration::from_secs(2));
    assert_eq!(globals.read_private_key().ok().as_ref(), globals.private_key.as_ref());

    let bond = &config.bond;
    assert_eq!((bond.name.as_str(), bond.ifname.as_str()), ("bond", "b0"));
    assert_eq!(bond.addresses, [net("10.0.0.2/24"), net("fd00::2/64")]);
    assert_eq!(bond.remote_addresses, [address("10.0.0.1"), address("fd00::1")]);
    assert!(bond.public_key.is_some() && bond.preshared_key.is_some());
    assert_eq!(
        (bond.mtu, bond.mss_clamp, bond.default_route, bond.metric),
        (Some(1400), false, true, Some(9))
    );
    assert_eq!(bond.routes, [net("10.9.0.0/16"), net("fd01::/48")]);
    assert!(!bond.resequence_tcp && bond.resequence_udp);
    let watchdog = bond.watchdog.as_ref().expect("on");
    assert_eq!(watchdog.addresses, bond.remote_addresses, "without watchdog_ip the server is pinged");
    assert_eq!(watchdog.action, ["/bin/x", "a", "b"]);
    let hooks = &bond.hooks;
    let paths =
        [&hooks.preup, &hooks.up, &hooks.predown, &hooks.down, hooks.link_script.as_ref().expect("given")];
    assert_eq!(paths.map(|script| script.path.to_str().expect("text")), ["/p", "/u", "/q", "/d", "/l"]);
    assert!(paths.iter().all(|script| script.configured));
    assert_eq!(hooks.timeout, Duration::from_secs(3));
    assert_eq!(
        bond.kernel,
        KernelBond {
            mode: BondMode::BalanceXor,
            xmit_hash_policy: HashPolicy::Layer23,
            tunnel_type: TunnelType::Tap,
            miimon: 0,
            arp_interval: 300,
            arp_ip_targets: vec![address("10.0.0.1")],
        }
    );

    let [link, later] = config.links.as_slice() else { panic!("{:?}", config.links) };
    assert_eq!(link.servers, [Host::Address(address("192.0.2.1")), Host::Name("other.example".into())]);
    assert_eq!((link.remote_port, link.local_port), (8, Some(9)));
    assert_eq!((link.ipaddr, link.gateway), (Some(net("192.168.1.2/24")), Some(address("192.168.1.1"))));
    assert_eq!((link.ip6addr, link.ip6gateway), (Some(net("2001:db8::2/64")), Some(address("fe80::1"))));
    assert_eq!(link.name_servers, [address("192.0.2.53"), address("2001:db8::53")]);
    assert_eq!((link.mark, &link.table), (Mark { value: 0x42, mask: u32::MAX }, &Table::Number(77)));
    assert_eq!((link.tunnel.as_deref(), link.active, link.priority), (Some("t0"), true, 2));
    assert_eq!((link.upload, link.download), (Some(Rate(5_000_000)), Some(Rate(20_000_000))));
    assert_eq!((link.mtu, link.quota, link.quota_reset_day), (Some(1492), Some(10_000_000_000), 31));
    assert_eq!(link.keepalive, Duration::from_millis(500));
    assert_eq!((later.position, later.remote_port), (2, 7));
    assert_eq!(later.mark, Mark { value: 0x300, mask: 0xff00 }, "a disabled link keeps its number");
    assert_eq!(later.table, Table::Number(1002));

    let [named, anonymous] = config.rules.as_slice() else { panic!("{:?}", config.rules) };
    assert_eq!((named.name.as_str(), anonymous.name.as_str()), ("r", "@rule[1]"));
    assert_eq!(named.protocols, [6, 17]);
    assert_eq!(
        (&named.sources[..], &named.destinations[..]),
        (&[net("192.168.1.0/24")][..], &[net("203.0.113.9/32")][..])
    );
    assert_eq!(
        (&named.source_ports[..], &named.destination_ports[..]),
        (&[1000..=2000][..], &[80..=80, 443..=443][..])
    );
    assert_eq!(named.dscp, [46, 8]);
    let links = vec!["dsl".to_owned()];
    assert_eq!(named.action, Action::Bond { policy: Some(Policy::Redundant), links, force: true });
    assert_eq!(anonymous.mark, Some(Mark { value: 7, mask: u32::MAX }));
    assert_eq!(anonymous.action, Action::Outside { links: vec!["later".into(), "dsl".into()] });
}

#[test]
fn a_server_with_peers() {
    let other = KEY.replace("uKz", "vKz");
    let config = good(&format!(
        "config globals\n option listen_port '5510 5511'\n list listen_address 192.0.2.1\n list listen_address 2001:db8::1\n \
         option client_to_client 1\nconfig interface bond\n option ipaddr 10.0.0.1\n option netmask 255.255.255.0\n \
         option policy flow\nconfig peer home\n option public_key {KEY}\n option preshared_key {KEY}\n \
         option ipaddr '10.0.0.2 fd00::2'\n list lan 192.168.1.0/24\n list lan 192.168.2.0/24\n option upload 1m\n \
         option download 8m\nconfig peer off\n option enabled 0\nconfig peer office\n option public_key {other}\n \
         option ipaddr 10.0.0.3\n option policy weighted\n"
    ));
    assert_eq!(config.globals.role, Role::Server);
    assert_eq!(config.globals.listen_ports, [5510, 5511]);
    assert_eq!(config.globals.listen_addresses, [address("192.0.2.1"), address("2001:db8::1")]);
    assert!(config.globals.client_to_client && config.links.is_empty() && !config.bond.default_route);
    assert_eq!(config.bond.addresses, [net("10.0.0.1/24")]);
    let [home, office] = config.peers.as_slice() else { panic!("{:?}", config.peers) };
    assert_eq!((home.name.as_str(), office.name.as_str()), ("home", "office"));
    assert_eq!(home.addresses, [net("10.0.0.2/32"), net("fd00::2/128")]);
    assert_eq!(home.lans, [net("192.168.1.0/24"), net("192.168.2.0/24")]);
    assert_eq!((home.policy, office.policy), (Policy::Flow, Policy::Weighted));
    assert_eq!((home.upload, home.download), (Some(Rate(1_000_000)), Some(Rate(8_000_000))));
    assert_eq!(home.public_key, super::key::PublicKey::from_base64(KEY));
    assert!(config.not_ready("bonding").is_empty(), "a server needs no key of a server");
}

#[test]
fn a_table_name_falls_back_to_a_number() {
    let link = &good(&client("", "", " option routing_table dsl")).links[0];
    assert_eq!(link.table_number(|name| (name == "dsl").then_some(101)), 101);
    assert_eq!(link.table_number(|_| None), 5510);
    let numbered = &good(&client("", "", " option routing_table 9")).links[0];
    assert_eq!(numbered.table_number(|_| Some(1)), 9);
}

#[test]
fn two_links_may_share_a_card_and_an_address() {
    let text = "config interface bond\n option ipaddr 10.0.0.2/24\n option server 192.0.2.1\n\
                config link a\n option device eth0\n option ipaddr 192.168.1.2/24\n option gateway 192.168.1.1\n\
                config link b\n option device eth0\n option ipaddr 192.168.1.2/24\n option gateway 192.168.1.254\n";
    assert_eq!(messages(text), [""; 0]);
    let config = good(text);
    assert_ne!(config.links[0].table, config.links[1].table);
}

#[test]
fn bytes_that_are_not_utf8_are_a_warning() {
    let mut bytes = client("", "", "").into_bytes();
    bytes.extend_from_slice(b"# caf\xe9\n");
    let report = load_bytes(&bytes, "bonding");
    assert!(report.config.is_some());
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert_eq!(problems, ["bonding:10: warning: a character is not UTF-8"]);
    let large = vec![0xff; uci::MAX_BYTES + 1];
    assert!(load_bytes(&large, "bonding").config.is_none());
}

#[test]
fn problems_are_bounded() {
    let text: String = (0..100_000).map(|index| format!("config x{index}\n")).collect();
    assert!(load(&text, "bonding").problems.len() < 1_000);
    let options: String = (0..400).map(|index| format!(" option unknown{index} 1\n")).collect();
    let text: String = (0..100).map(|index| format!("config link l{index}\n{options}")).collect();
    let report = load(&text[..text.len().min(uci::MAX_BYTES)], "bonding");
    assert!(report.problems.len() < 1_000 && report.config.is_none());
    assert!(report.problems.iter().any(|problem| problem.message.contains("not listed")));
}

#[test]
fn many_peers_are_checked_quickly() {
    let started = std::time::Instant::now();
    let mut text = String::from("config interface bond\n option ipaddr 10.0.0.1/8\n");
    for index in 0..1_000_u32 {
        let key = base64(index);
        let [_, a, b, c] = (index + 2).to_be_bytes();
        text += &format!("config peer p{index}\n option public_key {key}\n option ipaddr 10.{a}.{b}.{c}\n");
    }
    assert_eq!(good(&text).peers.len(), 1_000);
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
}

fn base64(number: u32) -> String {
    let mut bytes = [0; key::KEY_BYTES];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    key::PublicKey::new(bytes).to_string()
}

#[test]
fn a_key_file_must_be_private() {
    let path = std::env::temp_dir().join(format!("bonding-key-test-{}", std::process::id()));
    let read = || key::read_private_key(&path).map_err(|error| error.to_string());
    let set = |text: &str, mode: u32| {
        fs::write(&path, text).expect("the temporary directory can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("own file");
    };
    let _ = fs::remove_file(&path);
    assert!(read().is_err_and(|message| message.contains("bonding genkey")));
    set(&format!("{KEY}\n"), 0o600);
    assert_eq!(read().ok(), key::Secret::from_base64(KEY));
    set(KEY, 0o640);
    let message = read().expect_err("others can read it");
    assert!(message.contains("mode 0640") && message.contains("chmod 600"), "{message}");
    set("not a key", 0o600);
    assert!(read().is_err_and(|message| message.contains("does not hold a private key")));
    set(&KEY.repeat(10), 0o600);
    assert!(read().is_err());
    fs::remove_file(&path).expect("own file");
}

#[test]
fn a_file_with_a_secret_that_others_can_read_gets_a_warning() {
    let path = std::env::temp_dir().join(format!("bonding-mode-test-{}", std::process::id()));
    for (globals, mode, warnings) in [
        (format!(" option private_key {KEY}"), 0o644, 1),
        (format!(" option private_key {KEY}"), 0o600, 0),
        (String::new(), 0o644, 0),
    ] {
        fs::write(&path, client(&globals, "", "")).expect("the temporary directory can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("own file");
        assert_eq!(load_file(&path).expect("readable").problems.len(), warnings, "{mode:o}");
    }
    fs::remove_file(&path).expect("own file");
}

/// A value that is right for the option, so that mutations start from valid files.
fn any_line() -> impl Strategy<Value = String> {
    let options: Vec<&'static str> = schema::SECTIONS
        .iter()
        .flat_map(|section| section.options.iter().map(|option| option.name))
        .collect();
    let values = vec![
        "1",
        "0",
        "",
        "wan",
        "10.0.0.2/24",
        "10.0.0.2",
        "fd00::1/64",
        "::/0",
        "0.0.0.0/0",
        "kernel",
        "server",
        "tap",
        "none",
        "5m",
        "500ms",
        "65535",
        "4294967295",
        "0x1/0x1",
        "0xffffffff",
        "main",
        "a b c",
        "'",
        "redundant",
        "/x",
        "<x>",
        KEY,
    ];
    prop_oneof![
        (
            prop::sample::select(vec!["config"]),
            prop::sample::select(vec!["globals", "interface", "link", "peer", "rule", "x"]),
            "[a-d]?"
        )
            .prop_map(|(command, kind, name)| format!("{command} {kind} {name}")),
        (
            prop::sample::select(vec!["option", "list"]),
            prop::sample::select(options),
            prop::sample::select(values)
        )
            .prop_map(|(command, option, value)| format!("{command} {option} {}", uci::quote(value))),
    ]
}

proptest! {
    #[test]
    fn no_file_makes_it_panic(lines in prop::collection::vec(any_line(), 0..60)) {
        let report = load(&lines.join("\n"), "bonding");
        prop_assert_eq!(report.config.is_none(), report.errors().next().is_some());
        for problem in &report.problems {
            prop_assert!(problem.line <= lines.len());
            prop_assert!(!problem.to_string().contains('\n'));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let report = load_bytes(&bytes, "bonding");
        prop_assert_eq!(report.config.is_none(), report.errors().next().is_some());
    }
}
