use std::net::SocketAddr;

use super::link::LOOKING;
use super::*;
use crate::config::load;
use crate::daemon::desired::DefaultRoute;
use crate::io::SocketOptions;
use crate::net::netifd::{self, Resolved};

const KEY: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

fn read(interface: &str, links: &str) -> Config {
    let text = format!(
        "config interface 'bond'\n option ipaddr '10.0.0.2/24'\n option public_key '{KEY}'\n \
         option default_route 1\n{interface}\n{links}"
    );
    let report = load(&text, "test");
    report.config.unwrap_or_else(|| panic!("{:?}", report.problems))
}

/// A client whose core nobody asks: links are placed and sockets planned, none is opened.
fn client(config: &Config) -> Client {
    let mut client = Client {
        peer: PeerId(0),
        identity: Identity::of(config),
        links: Vec::new(),
        next_id: 0,
        names: Names::default(),
        up: false,
        starting: None,
        classes: Vec::new(),
        quotas: Quotas::default(),
    };
    for (id, link) in (0..).zip(&config.links) {
        client.links.push(Link::new(id, link.clone(), 5_000 + u32::from(id), Time::ZERO));
    }
    let names = config.links.iter().map(|link| (link.name.clone(), "vpn.example".to_owned()));
    client.names.retain(names);
    client
}

fn at(device: &str, addresses: &[&str]) -> Placing {
    let path = |address: &&str| netifd::Path {
        address: address.parse().unwrap(),
        prefix_len: 24,
        gateway: Some(if address.contains(':') { "fe80::1" } else { "192.168.0.1" }.parse().unwrap()),
    };
    let resolved = Resolved {
        up: true,
        device: Some(device.to_owned()),
        paths: addresses.iter().map(path).collect(),
        ..Resolved::default()
    };
    Placing::At(Place { resolved, index: u32::from(device.as_bytes().last().copied().unwrap_or(0)) })
}

fn wanted(client: &Client, name: &str) -> Result<(SocketOptions, SocketAddr), String> {
    client.wanted(client.links.iter().find(|link| link.config.name == name).unwrap())
}

const TWO: &str = "config link 'a'\n option interface wan\nconfig link 'b'\n option interface wanb\n";

#[test]
fn a_link_sends_from_its_own_address_device_and_mark() {
    let config = read(" option server 203.0.113.1\n option remote_port 4000", TWO);
    let mut client = client(&config);
    assert!(client.set_place("a", at("eth0", &["192.168.0.2"])));
    assert!(client.set_place("b", at("eth1", &["192.168.7.2"])));
    let (options, remote) = wanted(&client, "a").unwrap();
    assert_eq!(options.address.to_string(), "192.168.0.2:0");
    assert_eq!(options.device.as_deref(), Some("eth0"));
    assert_eq!(options.mark, Some(config.links[0].mark.value));
    assert_eq!(remote.to_string(), "203.0.113.1:4000");
    assert_ne!(wanted(&client, "b").unwrap().0.mark, options.mark);
}

#[test]
fn a_link_is_asked_for_once_at_a_time_and_an_answer_to_an_older_question_is_not_the_last() {
    let config = read(" option server 203.0.113.1", TWO);
    let mut client = client(&config);
    let names = |links: &[config::Link]| links.iter().map(|link| link.name.clone()).collect::<Vec<_>>();
    let asked = client.questions();
    assert_eq!(names(&asked), ["a", "b"]);
    // Changes come in crowds: none of them is another question at once, and none is forgotten.
    for _ in 0..3 {
        assert!(client.questions().is_empty());
    }
    let (moved, again) = client.take_place(&asked[0], at("eth0", &["192.168.0.2"]));
    assert!(moved && again.is_some());
    let (moved, again) = client.take_place(&again.unwrap(), at("eth0", &["192.168.0.9"]));
    assert!(moved && again.is_none());
    assert_eq!(names(&client.questions()), ["a"], "the other one is still asked for");

    // The question was for the interface that the link had before a reload.
    let elsewhere = read(" option server 203.0.113.1", &TWO.replace("wanb", "wanc"));
    client.links[1].configure(&elsewhere.links[1], 5_001);
    let (moved, again) = client.take_place(&asked[1], at("eth1", &["192.168.7.2"]));
    assert!(!moved && client.links[1].place.is_err());
    assert_eq!(again.map(|link| link.interface), Some(Some("wanc".to_owned())));
}

#[test]
fn traffic_outside_the_bond_stays_on_a_link_that_is_only_suspected() {
    let config = read(" option server 203.0.113.1", TWO);
    let mut client = client(&config);
    client.set_place("a", at("eth0", &["192.168.0.2"]));
    for (state, up) in [
        (LinkState::Joining, false),
        (LinkState::Up, true),
        (LinkState::Suspect, true),
        (LinkState::Down, false),
        (LinkState::Disabled, false),
    ] {
        client.set_state(0, state, Time::ZERO);
        assert_eq!(client.links[0].exit().unwrap().up, up, "{state:?}");
    }
}

#[test]
fn links_that_share_a_device_are_told_apart_by_their_marks_alone() {
    let config = read(" option server 203.0.113.1", TWO);
    let mut client = client(&config);
    client.set_place("a", at("eth0", &["192.168.0.2"]));
    client.set_place("b", at("eth0", &["192.168.0.2"]));
    for name in ["a", "b"] {
        assert_eq!(wanted(&client, name).unwrap().0.device, None);
    }
}

#[test]
fn the_bond_has_the_default_route_while_it_is_about_to_come_up() {
    let tunnel = Tunnel { index: 7, mtu: 1400 };
    let through_bond = |client: &Client, config: &Config| {
        let (desired, _) = client.desired(config, tunnel);
        let mut defaults = desired.routes.iter().filter(|route| {
            route.destination == crate::net::Prefix::default_route(Family::V4)
                && route.table == desired::default_table(config)
        });
        let is_bond =
            |route: &crate::net::Route| matches!(route.target, crate::net::Target::Device { index: 7, .. });
        defaults.next().is_some_and(is_bond)
    };
    for (server, early) in [("203.0.113.1", true), ("vpn.example", false)] {
        let config = read(&format!(" option server {server}"), TWO);
        let mut client = client(&config);
        client.starting = Some(Time::ZERO);
        client.set_place("a", at("eth0", &["192.168.0.2"]));
        assert_eq!(through_bond(&client, &config), early, "{server}");
        assert!(!client.tick(Time::ZERO + START / 2));
        assert_eq!(through_bond(&client, &config), early, "{server}");
        assert!(client.tick(Time::ZERO + START), "it has not come up: the routes change");
        assert!(!through_bond(&client, &config));
        client.set_up(true);
        assert!(through_bond(&client, &config));
        client.set_up(false);
        assert!(!through_bond(&client, &config), "down is down");
    }
}

#[test]
fn a_link_that_cannot_send_says_why() {
    let config = read(" option server vpn.example", TWO);
    let mut client = client(&config);
    let why = |client: &Client| wanted(client, "a").unwrap_err();
    assert_eq!(why(&client), LOOKING);
    client.set_place("a", Placing::Nowhere("netifd has no interface 'wan'".into()));
    assert_eq!(why(&client), "netifd has no interface 'wan'");
    client.set_place("a", at("eth0", &[]));
    assert_eq!(why(&client), "device 'eth0' has no address");
    client.set_place("a", at("eth0", &["192.168.0.2"]));
    assert_eq!(why(&client), "resolving the server's name 'vpn.example'");
    let query = client.queries(&[], Time::ZERO).into_iter().find(|query| query.link == "a").unwrap();
    assert_eq!(query.way.device.as_deref(), Some("eth0"));
    assert_eq!(query.way.mark, Some(config.links[0].mark.value));
    assert_eq!((query.way.sources.len(), query.exclusive), (1, false));
    assert!(client.queries(&[], Time::ZERO).is_empty(), "the answers are on their way");
    client.take_addresses(&query, Err("no such host".into()), Time::ZERO);
    assert_eq!(why(&client), "the server's name 'vpn.example' cannot be resolved: no such host");
    let answer = Answer { addresses: vec!["2001:db8::1".parse().unwrap()], ttl: Duration::ZERO };
    client.take_addresses(&query, Ok(answer), Time::ZERO);
    assert_eq!(why(&client), "it has no address of the server's IP version");
    client.set_place("a", at("eth0", &["192.168.0.2", "2001:db8:7::2"]));
    assert_eq!(wanted(&client, "a").unwrap().1.to_string(), "[2001:db8::1]:5510");
}

#[test]
fn who_cannot_tell_where_a_link_is_takes_nothing_away() {
    let config = read(" option server 203.0.113.1", TWO);
    let mut client = client(&config);
    client.set_place("a", at("eth0", &["192.168.0.2"]));
    assert!(!client.set_place("a", Placing::NotAnswered("ubus hangs".into())));
    assert!(wanted(&client, "a").is_ok());
    assert!(client.set_place("b", Placing::NotAnswered("ubus hangs".into())));
    assert_eq!(wanted(&client, "b").unwrap_err(), "ubus hangs");
}

#[test]
fn a_silent_link_tries_the_servers_next_address() {
    let config = read(" list server 203.0.113.1\n list server 203.0.113.2", TWO);
    let mut client = client(&config);
    client.set_place("a", at("eth0", &["192.168.0.2"]));
    let remote = |client: &Client| wanted(client, "a").unwrap().1.ip().to_string();
    let seconds = |s: u64| Time::from_millis(s * 1_000);
    assert!(!client.tick(seconds(9)));
    assert_eq!(remote(&client), "203.0.113.1");
    assert!(client.tick(seconds(10)));
    assert_eq!(remote(&client), "203.0.113.2");
    client.set_state(0, LinkState::Up, seconds(100));
    assert!(!client.tick(seconds(100)), "what works is left alone");
    client.set_state(0, LinkState::Down, seconds(100));
    assert!(!client.tick(seconds(105)));
    assert!(client.tick(seconds(110)));
    assert_eq!(remote(&client), "203.0.113.1");
}

#[test]
fn the_default_route_goes_to_the_bond_or_else_to_the_active_link() {
    let config = read(
        " option server 203.0.113.1",
        &TWO.replace("interface wanb", "interface wanb\n option active 1"),
    );
    let mut client = client(&config);
    assert_eq!(client.default_route(&config), DefaultRoute::Untouched, "no link has a place yet");
    client.set_place("a", at("eth0", &["192.168.0.2"]));
    let index = |client: &Client| match client.default_route(&config) {
        DefaultRoute::Link { index, v4: Some(Some(_)), v6: None } => index,
        other => panic!("{other:?}"),
    };
    assert_eq!(index(&client), u32::from(b'0'));
    client.set_place("b", at("eth1", &["192.168.7.2"]));
    assert_eq!(index(&client), u32::from(b'1'));
    client.set_up(true);
    assert_eq!(client.default_route(&config), DefaultRoute::Bond);
    let without = read(" option server 203.0.113.1\n option default_route 0", TWO);
    assert_eq!(client.default_route(&without), DefaultRoute::Untouched);
}

#[test]
fn names_of_routing_tables() {
    let text = "# reserved\n255\tlocal\n0x64 link0 # the first\n101  link1\nnonsense\n";
    assert_eq!(table_in(text, "link0"), Some(100));
    assert_eq!(table_in(text, "link1"), Some(101));
    assert_eq!(table_in(text, "link2"), None);
}

#[test]
fn the_name_of_a_server_that_is_called_in_vain_is_asked_for_although_the_link_is_up() {
    let config = read(" option server vpn.example", TWO);
    let mut client = client(&config);
    let hosts = ["vpn.example", "second.example"].map(|host| ("a".to_owned(), host.to_owned()));
    client.names.retain(hosts.into_iter());
    client.set_place("a", at("eth0", &["192.168.0.2"]));
    let seconds = |s: u64| Time::from_millis(s * 1_000);
    let asked = |client: &mut Client, sought: &[&str], at: Time| {
        let asked = client.queries(sought, at);
        for query in &asked {
            let answer =
                Answer { addresses: vec!["203.0.113.2".parse().unwrap()], ttl: Duration::from_secs(60) };
            client.take_addresses(query, Ok(answer), at);
        }
        asked.into_iter().map(|query| query.name).collect::<Vec<_>>()
    };
    assert_eq!(asked(&mut client, &[], seconds(0)), ["second.example", "vpn.example"]);
    client.set_state(0, LinkState::Up, seconds(1));
    assert!(asked(&mut client, &[], seconds(1_000)).is_empty(), "nobody needs them");
    let sought = ["second.example", "vpn.example"];
    assert_eq!(asked(&mut client, &sought, seconds(1_001)), ["second.example"], "the other one works");
    assert!(asked(&mut client, &sought, seconds(1_060)).is_empty());
    assert_eq!(asked(&mut client, &sought, seconds(1_061)), ["second.example"]);
}

#[test]
fn the_quickest_of_those_that_fell_silent_last_carries_the_default_route() {
    let config =
        read(" option server 203.0.113.1", &format!("{TWO}config link 'c'\n option interface wanc\n"));
    let mut client = client(&config);
    let seconds = |s: u64| Time::from_millis(s * 1_000);
    for (id, name, device, address, ms) in [
        (0, "a", "eth0", "192.168.0.2", 30),
        (1, "b", "eth1", "192.168.7.2", 20),
        (2, "c", "eth2", "192.168.8.2", 10),
    ] {
        client.set_place(name, at(device, &[address]));
        client.set_state(id, LinkState::Up, seconds(1));
        client.links[usize::from(id)].round_trip = Some(Duration::from_millis(ms));
    }
    let name = |client: &Client| match client.default_route(&config) {
        DefaultRoute::Link { index, .. } => char::from_u32(index - u32::from(b'0') + u32::from('a')).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(name(&client), 'c');
    // It is dead on its own, an hour before the server is.
    client.set_state(2, LinkState::Down, seconds(100));
    client.set_state(0, LinkState::Suspect, seconds(3_700));
    client.set_state(0, LinkState::Down, seconds(3_701));
    client.set_state(1, LinkState::Down, seconds(3_704));
    assert_eq!(name(&client), 'b');
    // Its cable is pulled.
    let Placing::At(mut place) = at("eth1", &["192.168.7.2"]) else { panic!() };
    place.resolved.up = false;
    client.set_place("b", Placing::At(place));
    assert_eq!(name(&client), 'a');
    client.links[0].taken_out = true;
    assert_eq!(name(&client), 'c');
}
