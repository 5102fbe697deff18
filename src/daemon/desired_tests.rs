use super::*;
use crate::config::load;

const TUNNEL: Tunnel = Tunnel { index: 7, mtu: 1_400 };

fn read(interface: &str, rest: &str) -> Config {
    let text = format!(
        "config globals\n option table_base 1000\n option rule_priority 700\nconfig interface 'bond'\n \
         list ipaddr '10.0.0.2/24'\n list ip6addr 'fd00::2/64'\n{interface}\n{rest}"
    );
    let report = load(&text, "test");
    report.config.unwrap_or_else(|| panic!("{:?}", report.problems))
}

fn a_client(interface: &str) -> Config {
    read(
        &format!(" option server 192.0.2.1\n{interface}"),
        "config link 'a'\n option device eth0\nconfig link 'b'\n option device eth1\n",
    )
}

fn path(number: u32, address: &str) -> LinkPath {
    LinkPath {
        index: 10 + number,
        address: address.parse().unwrap(),
        prefix_len: 24,
        gateway: Some("192.0.2.254".parse().unwrap()),
        mark: Mark::exact(0x100 + number),
        table: 1_000 + number,
        number,
    }
}

fn lines<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(T::to_string).collect()
}

#[test]
fn the_device_is_up_with_its_addresses() {
    let (desired, _) = client(&a_client(""), TUNNEL, &[], &[], DefaultRoute::Untouched);
    assert_eq!(desired.links, [LinkSettings { index: 7, up: Some(true), mtu: Some(1_400) }]);
    assert_eq!(lines(&desired.addresses), ["10.0.0.2/24 dev #7", "fd00::2/64 dev #7"]);
    assert!(desired.routes.is_empty() && desired.rules.is_empty());
}

#[test]
fn networks_behind_the_bond_have_routes_unless_the_device_leads_there_anyway() {
    let config = a_client(
        " list route 172.16.0.0/12\n list route 2001:db8::/32\n list remote_ipaddr 10.0.0.1\n \
         list remote_ipaddr 10.1.0.1\n option metric 5\n",
    );
    let (desired, _) = client(&config, TUNNEL, &[], &[], DefaultRoute::Untouched);
    assert_eq!(
        lines(&desired.routes),
        [
            "10.1.0.1/32 dev #7 table main metric 5",
            "172.16.0.0/12 dev #7 table main metric 5",
            "2001:db8::/32 dev #7 table main metric 5",
        ]
    );
}

#[test]
fn the_default_route_lies_behind_the_main_table() {
    let (desired, _) = client(&a_client(""), TUNNEL, &[], &[], DefaultRoute::Bond);
    assert_eq!(
        lines(&desired.routes),
        ["default (IPv4) dev #7 table 1032", "default (IPv6) dev #7 table 1032"]
    );
    assert_eq!(
        lines(&desired.rules),
        [
            "1000: from all (IPv4) lookup main suppress_prefixlength 0",
            "1001: from all (IPv4) lookup 1032",
            "1000: from all (IPv6) lookup main suppress_prefixlength 0",
            "1001: from all (IPv6) lookup 1032",
        ]
    );
}

#[test]
fn a_metric_puts_the_default_route_among_the_others() {
    let config = a_client(" option metric 9\n");
    let (desired, _) = client(&config, TUNNEL, &[], &[], DefaultRoute::Bond);
    let routes = ["default (IPv4) dev #7 table main metric 9", "default (IPv6) dev #7 table main metric 9"];
    assert_eq!(lines(&desired.routes), routes);
    assert!(desired.rules.is_empty());
    let link = DefaultRoute::Link { index: 11, v4: Some(None), v6: None };
    assert!(client(&config, TUNNEL, &[], &[], link).0.routes.is_empty(), "the WANs' own routes are there");
}

#[test]
fn while_the_bond_is_down_a_link_carries_the_default_route_in_the_families_it_has() {
    let gateway = Some("192.0.2.254".parse().unwrap());
    let link = DefaultRoute::Link { index: 11, v4: Some(gateway), v6: None };
    let (desired, _) = client(&a_client(""), TUNNEL, &[], &[], link);
    assert_eq!(lines(&desired.routes), ["default (IPv4) via 192.0.2.254 dev #11 table 1032"]);
    assert_eq!(desired.rules.len(), 2);
}

#[test]
fn all_that_is_set_lies_within_what_is_ours() {
    let config = a_client("");
    let paths = [path(0, "192.0.2.1"), path(1, "192.0.2.1"), path(31, "192.0.2.2")];
    let (desired, loose) = client(&config, TUNNEL, &paths, &[], DefaultRoute::Bond);
    let ours = ownership(&config);
    for route in &desired.routes {
        assert!(ours.tables.contains(&route.table), "{route}");
    }
    for rule in &desired.rules {
        assert!(ours.priorities.contains(&rule.priority), "{rule}");
    }
    let count = |wanted: &dyn Fn(&Rule) -> bool| desired.rules.iter().filter(|rule| wanted(rule)).count();
    assert_eq!(count(&|rule| rule.mark.is_some()), 3);
    assert_eq!(loose, [10, 11], "two links share an address");
}

#[test]
fn a_server_has_routes_to_what_is_behind_its_peers() {
    let config = read(
        "",
        "config peer 'home'\n option public_key 'hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo='\n \
         list ipaddr 10.0.0.3\n list ipaddr 10.7.0.3\n list lan 192.168.1.0/24\n list lan 2001:db8:1::/48\n",
    );
    assert_eq!(
        lines(&server(&config, TUNNEL).routes),
        [
            "10.7.0.3/32 dev #7 table main",
            "192.168.1.0/24 dev #7 table main",
            "2001:db8:1::/48 dev #7 table main",
        ]
    );
}
