//! Two routers that have the same key: a copied configuration, or a router that was replaced and is still on.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use crate::pinned_tests::{End, address, path};
use crate::{Event, LinkConfig, Path, Payload, Time};

const STEP: Duration = Duration::from_millis(1);
const DELAY: Duration = Duration::from_millis(10);
const SERVER: usize = 1;

/// Where the server sees each client: behind one NAT.
fn seen(client: usize) -> SocketAddr {
    let mut seen = address(0, 0);
    seen.set_port(5_000 + client as u16);
    seen
}

/// Lets clients talk to one server for `time`; gives the ends.
fn run(clients: usize, time: Duration) -> Vec<End> {
    let mut now = Time::from_millis(1_000);
    let mut ends = Vec::new();
    for end in 0..=clients {
        // Their random numbers differ by the time of their start.
        now += STEP;
        ends.push(End::new(usize::from(end == SERVER), Payload::Bonded, None, now));
        if end != SERVER {
            let config = LinkConfig { path: Some(path(0, 0)), ..LinkConfig::new(0, "wan") };
            let peer = ends[end].peer;
            ends[end].endpoint.set_link(peer, config, now);
        }
    }
    let mut wire: VecDeque<(Time, usize, Path, Vec<u8>)> = VecDeque::new();
    let end = now + time;
    while now < end {
        now += STEP;
        while wire.front().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, to, path, mut datagram)) = wire.pop_front() else { break };
            let length = datagram.len();
            ends[to].endpoint.handle_datagrams(path, 0, &mut datagram, length, now, &mut |_, _| {});
        }
        for (from, End { endpoint, events, .. }) in ends.iter_mut().enumerate() {
            if endpoint.poll_timeout().is_some_and(|at| at <= now) {
                endpoint.handle_timeout(now, &mut |_, _| {});
            }
            let mut out = Vec::new();
            while let Some(transmit) = endpoint.poll_transmit(now, &mut out) {
                let (to, path) = match from {
                    SERVER => (usize::from(transmit.path.remote.port()) - 5_000, path(0, 0)),
                    _ => (SERVER, Path { remote: seen(from), ..path(SERVER, 0) }),
                };
                let datagrams = out.chunks(transmit.segment_size);
                wire.extend(datagrams.map(|datagram| (now + DELAY, to, path, datagram.to_vec())));
            }
            events.extend(std::iter::from_fn(|| endpoint.poll_event()));
        }
    }
    ends
}

/// What the server tells of failures.
fn complaints(end: &End) -> Vec<&str> {
    let complaints = end.events.iter().filter_map(|event| match event {
        Event::HandshakeFailed { reason, .. } => Some(reason.as_str()),
        _ => None,
    });
    complaints.collect()
}

#[test]
fn a_key_that_two_routers_have_is_complained_of() {
    let ends = run(2, Duration::from_secs(130));
    let told = complaints(&ends[SERVER]);
    assert!((1..=3).contains(&told.len()), "once a minute: {told:?}");
    assert!(told[0].contains("two routers"), "{told:?}");
    assert_eq!(complaints(&run(1, Duration::from_secs(130))[SERVER]), [""; 0]);
}
