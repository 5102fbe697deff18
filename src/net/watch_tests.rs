use std::time::Duration;

use super::super::namespace::run;
use super::super::state::PROTOCOL;
use super::super::{Prefix, Route, Target};
use super::*;

/// The next event for which `wanted` holds, others skipped.
async fn until(watch: &mut Watch, wanted: impl Fn(&Event) -> bool) -> Event {
    let look = async {
        loop {
            let event = watch.next().await.unwrap();
            if wanted(&event) {
                return event;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), look).await.expect("no such event came")
}

#[test]
fn the_life_of_a_link() {
    run(|bench| async move {
        let mut watch = Watch::open(PROTOCOL).unwrap();
        let (card, index) = bench.card("wan0").await;
        let up = until(&mut watch, |e| matches!(e, Event::LinkChanged { up: true, carrier: true, .. })).await;
        let expected = Event::LinkChanged { index, name: "wan0".into(), up: true, carrier: true, mtu: 1500 };
        assert_eq!(up, expected);

        card.set_carrier(false).unwrap();
        until(&mut watch, |e| matches!(e, Event::LinkChanged { carrier: false, .. })).await;
        card.set_carrier(true).unwrap();
        until(&mut watch, |e| matches!(e, Event::LinkChanged { carrier: true, .. })).await;
        bench.netlink.set_link_mtu(index, 1400).await.unwrap();
        until(&mut watch, |e| matches!(e, Event::LinkChanged { mtu: 1400, .. })).await;

        let address = bench.address("wan0", "192.0.2.7", 24).await;
        let added =
            until(&mut watch, |e| matches!(e, Event::AddressAdded { address, .. } if address.is_ipv4()))
                .await;
        let ip = address.address;
        assert_eq!(added, Event::AddressAdded { index, address: ip, prefix_len: 24, usable: true });
        bench.netlink.remove_address(&address).await.unwrap();
        let gone = until(&mut watch, |e| matches!(e, Event::AddressRemoved { .. })).await;
        assert_eq!(gone, Event::AddressRemoved { index, address: ip, prefix_len: 24 });

        drop(card);
        let gone = until(&mut watch, |e| matches!(e, Event::LinkGone { .. })).await;
        assert_eq!(gone, Event::LinkGone { index, name: "wan0".into() });
    });
}

#[test]
fn routes_of_others_and_ours() {
    run(|bench| async move {
        let (_card, index) = bench.card("wan0").await;
        let mut watch = Watch::open(PROTOCOL).unwrap();
        let route = |destination: &str, table| Route {
            destination: destination.parse::<Prefix>().unwrap(),
            table,
            metric: 9,
            target: Target::Device { index, gateway: None, source: None },
        };
        let netlink = &bench.netlink;
        // Ours, and one that is no default route: no event of their being set.
        netlink.add_route(&route("0.0.0.0/0", 300), PROTOCOL).await.unwrap();
        netlink.add_route(&route("198.51.100.0/24", 254), 4).await.unwrap();
        netlink.add_route(&route("0.0.0.0/0", 301), 4).await.unwrap();
        netlink.add_route(&route("::/0", 301), 4).await.unwrap();
        let is_route = |e: &Event| matches!(e, Event::DefaultRouteChanged { .. } | Event::OwnedRemoved);
        for family in [Family::V4, Family::V6] {
            let expected = Event::DefaultRouteChanged { family, index: Some(index), table: 301 };
            assert_eq!(until(&mut watch, is_route).await, expected);
        }
        netlink.remove_route(&route("0.0.0.0/0", 300), PROTOCOL).await.unwrap();
        assert_eq!(until(&mut watch, is_route).await, Event::OwnedRemoved);
        netlink.remove_route(&route("0.0.0.0/0", 301), 4).await.unwrap();
        let expected = Event::DefaultRouteChanged { family: Family::V4, index: Some(index), table: 301 };
        assert_eq!(until(&mut watch, is_route).await, expected);
    });
}

#[test]
fn a_flood_ends_in_a_resync() {
    run(|bench| async move {
        let (_card, index) = bench.card("wan0").await;
        let mut watch = Watch::open(PROTOCOL).unwrap();
        watch.socket.set_receive_buffer(1).unwrap(); // the kernel's minimum
        for metric in 1..200 {
            let route = Route {
                destination: Prefix::default_route(Family::V4),
                table: 300,
                metric,
                target: Target::Device { index, gateway: None, source: None },
            };
            bench.netlink.add_route(&route, 4).await.unwrap();
        }
        until(&mut watch, |e| *e == Event::Resync).await;
        // And afterwards it goes on.
        bench.netlink.set_link_mtu(index, 1300).await.unwrap();
        until(&mut watch, |e| matches!(e, Event::LinkChanged { mtu: 1300, .. })).await;
    });
}

#[test]
fn nonsense_is_no_event() {
    // Every kind of message, cut at every length, with attributes of every length.
    let mut bytes = Vec::new();
    for kind in [16u16, 17, 20, 21, 24, 25, 32, 33] {
        for fill in [0u8, 2, 4, 10, 255] {
            for body in 0..64usize {
                bytes.clear();
                bytes.extend((16 + body as u32).to_ne_bytes());
                bytes.extend(kind.to_ne_bytes());
                bytes.extend([0; 10]);
                bytes.extend(std::iter::repeat_n(fill, body));
                let mut rest = bytes.as_slice();
                while let Some((message, after)) = Message::split(rest) {
                    let _ = event(&message, PROTOCOL);
                    rest = after;
                }
            }
        }
    }
    // A length that lies.
    for len in [0u32, 1, 15, 17, u32::MAX] {
        let mut bytes = len.to_ne_bytes().to_vec();
        bytes.extend([0; 12]);
        assert!(Message::split(&bytes).is_none(), "{len}");
    }
}
