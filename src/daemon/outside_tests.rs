use super::*;
use crate::config::load;

const HEAD: &str = "config globals\n option rule_priority 700\n option table_base 1000\nconfig interface 'bond'\n \
                    list ipaddr 10.0.0.2/24\n option server 192.0.2.1\n option default_route 1\n\
                    config link 'a'\n option device eth0\nconfig link 'b'\n option device eth1\n";

fn read(rules: &str) -> Config {
    let report = load(&format!("{HEAD}{rules}"), "test");
    report.config.unwrap_or_else(|| panic!("{:?}", report.problems))
}

fn exit(link: &str, table: u32, up: bool) -> Exit {
    Exit { link: link.into(), table, families: vec![Family::V4], up }
}

/// The IPv4 rules behind the one that lets routes of the main table come first.
fn v4(config: &Config, exits: &[Exit]) -> Vec<String> {
    let all = rules(config, exits, bond_table(config)).into_iter().filter(|rule| rule.family == Family::V4);
    let mut lines: Vec<String> = all.map(|rule| rule.to_string()).collect();
    assert_eq!(lines.remove(0), "901: from all (IPv4) lookup main suppress_prefixlength 0");
    lines
}

const GAME: &str = "config rule\n option proto udp\n list dest_port 27015-27030\n list dest_port 3478\n \
                    list link b\n list link a\n option outside 1\n";

#[test]
fn traffic_leaves_by_the_first_link_that_works() {
    let config = read(GAME);
    let lines = |table| {
        [
            format!("902: from all (IPv4) ipproto udp dport 27015-27030 lookup {table}"),
            format!("902: from all (IPv4) ipproto udp dport 3478 lookup {table}"),
        ]
    };
    assert_eq!(v4(&config, &[exit("a", 1000, true), exit("b", 1001, true)]), lines(1001));
    assert_eq!(v4(&config, &[exit("a", 1000, true), exit("b", 1001, false)]), lines(1000));
    assert_eq!(v4(&config, &[exit("a", 1000, false), exit("b", 1001, false)]), lines(1001));
    assert!(v4(&config, &[]).is_empty(), "without a link the bond has it");
}

#[test]
fn without_a_link_the_main_table_decides() {
    let config = read("config rule\n option src_ip 192.168.1.7\n option mark 0x10/0xff\n option outside 1\n");
    assert_eq!(v4(&config, &[]), ["902: from 192.168.1.7/32 fwmark 0x10/0xff lookup main"]);
}

#[test]
fn the_first_rule_that_matches_counts() {
    let inside = "config rule\n option proto udp\n option dest_port 3478\n option policy redundant\n";
    assert!(rules(&read(inside), &[], 7).is_empty(), "nothing goes outside");
    let config = read(&format!("{inside}{GAME}{inside}"));
    let lines = v4(&config, &[exit("b", 1001, true)]);
    assert_eq!(lines.len(), 3, "what comes after the last rule with 'outside' needs none: {lines:?}");
    assert_eq!(lines[0], "902: from all (IPv4) ipproto udp dport 3478 lookup 1032");
}

#[test]
fn addresses_of_one_ip_version_match_nothing_of_the_other() {
    let config = read("config rule\n option dest_ip 2001:db8::/32\n option outside 1\n");
    assert!(v4(&config, &[]).is_empty());
    let v6: Vec<_> = rules(&config, &[], 7).into_iter().filter(|rule| rule.family == Family::V6).collect();
    assert_eq!(v6.len(), 2);
}

#[test]
fn a_range_ends_at_the_highest_port_that_the_kernel_takes() {
    let config = read("config rule\n option proto tcp\n option src_port 1024-65535\n option outside 1\n");
    assert_eq!(v4(&config, &[]), ["902: from all (IPv4) ipproto tcp sport 1024-65534 lookup main"]);
}
