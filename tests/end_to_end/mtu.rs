//! Lines that carry no 1500 bytes, and IPv6.

use std::fs;
use std::time::Duration;

use lab::bond::{Bond, End};
use lab::emulator::Direction;
use lab::scenario::Scenario;
use lab::topology::{Family, Plan, Topology};
use lab::traffic::{Tcp, Udp};

use crate::{demand, network, reached, setup};

/// An IP fragment, or a packet that a router may cut into some.
fn is_fragment_or_may_become_one(packet: &[u8]) -> bool {
    match packet[0] >> 4 {
        4 => u16::from_be_bytes([packet[6], packet[7]]) & 0x7fff != 0x4000,
        _ => packet[6] == 44,
    }
}

fn carries(test: &str, family: Family, mtu: Option<usize>) {
    reached(|| transfers(test, family, mtu));
}

fn transfers(test: &str, family: Family, mtu: Option<usize>) -> Result<(), String> {
    let scenario = Scenario::sym2().with(|line| match mtu {
        Some(mtu) => line.with_mtu(mtu),
        None => line,
    });
    let Some(network) = network(test, Plan::new(scenario).family(family)) else { return Ok(()) };
    let captures: Vec<_> = (0..2).map(|line| network.line(line).capture(60_000)).collect();
    let _bond = Bond::start(&network, &setup()).expect("the bond comes up");
    let transfer = Tcp::new(&network.lan, &network.inet, Topology::INET_V4).seconds(6);
    let down = transfer.clone().run().expect("a download");
    let up = transfer.upload().run().expect("an upload");
    let inner6 =
        Tcp::new(&network.lan, &network.inet, Topology::INET_V6).seconds(3).run().expect("over IPv6");
    // Datagrams of the size that a host may send into a link of 1500 bytes.
    let udp = Udp::new(&network.lan, &network.inet, Topology::INET_V4).size(1_200).rate(50).seconds(2);
    let udp = udp.run().expect("a stream");
    let rate = |report: &lab::traffic::TcpReport| {
        report.goodput_after(std::time::Duration::from_secs(2)) as f64 / 1e6
    };
    println!("{test}: {:.1} down, {:.2} up, {:.1} over IPv6", rate(&down), rate(&up), rate(&inner6));
    let quick = rate(&down) > 15.0 && rate(&up) > 3.0 && rate(&inner6) > 8.0;
    demand(quick, || format!("{down:?} {up:?} {inner6:?}"))?;
    demand(udp.lost == 0, || format!("{} of {} lost", udp.lost, udp.sent))?;
    let mut seen = [0, 0];
    for capture in &captures {
        assert_eq!(capture.missed(), 0);
        for captured in capture.take() {
            seen[usize::from(captured.direction == Direction::Down)] += 1;
            let packet = &captured.packet;
            assert!(!is_fragment_or_may_become_one(packet), "{:?} {packet:02x?}", captured.direction);
            assert_eq!(packet[0] >> 4, if family == Family::V6 { 6 } else { 4 });
        }
    }
    assert!(seen.iter().all(|count| *count > 1_000), "{seen:?}");
    Ok(())
}

#[test]
fn ipv6_lines_carry_both_families() {
    carries("IPv6 lines", Family::V6, None);
}

#[test]
fn lines_with_pppoe_carry_no_fragments() {
    carries("MTU 1492", Family::V4, Some(1492));
}

#[test]
fn lines_with_the_smallest_mtu_carry_no_fragments() {
    carries("MTU 1280", Family::V4, Some(1280));
    carries("MTU 1280, IPv6", Family::V6, Some(1280));
}

/// The least of all routers' MTUs counts at a server, as long as they are its routers.
#[test]
fn a_router_that_was_removed_no_longer_narrows_the_tunnel() {
    const LIMIT: Duration = Duration::from_secs(10);
    const STRANGER: &str = "dGhlIHB1YmxpYyBrZXkgb2YgYSBzdHJhbmdlciBBQUE=";
    let Some(network) = network("removed router", Plan::new(Scenario::sym2())) else { return };
    let mut narrow = setup();
    narrow.link.push(("mtu".into(), "1330".into()));
    let bond = Bond::start(&network, &narrow).expect("the bond comes up");
    let mtu = |least, most| {
        bond.wait_for(End::Server, LIMIT, |status| {
            status["mtu"].as_u64().is_some_and(|mtu| (least..=most).contains(&mtu))
        })
        .unwrap_or_else(|error| panic!("{least} to {most}: {error}"))
    };
    let reload = |end, text: &str| {
        fs::write(bond.config(end), text).expect("the file");
        bond.command(end, &["reload"]).expect("it is taken");
    };
    mtu(1_280, 1_300);
    let server = fs::read_to_string(bond.config(End::Server)).expect("the file");
    let key = server.lines().find(|line| line.contains("option public_key")).expect("a router");
    reload(End::Server, &server.replace(key, &format!("\toption public_key '{STRANGER}'")));
    let client = fs::read_to_string(bond.config(End::Client)).expect("the file");
    reload(End::Client, &client.replace("option mtu '1330'", ""));
    reload(End::Server, &server);
    mtu(1_400, 1_500);
}
