//! Packets that are given for a link, over two endpoints in virtual time.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::cipher::CipherPolicy;
use super::keys::PrivateKey;
use super::{
    Endpoint, EndpointConfig, Event, Handling, IpPrefix, LinkConfig, LinkId, LinkState, Origin, Path,
    Payload, PeerConfig, PeerId, Policy, Time,
};

const STEP: Duration = Duration::from_millis(1);

pub(super) struct End {
    pub(super) endpoint: Endpoint,
    pub(super) peer: PeerId,
    /// What came, with the link over which it came.
    pub(super) received: Vec<(Option<LinkId>, Vec<u8>)>,
    pub(super) events: Vec<Event>,
}

pub(super) struct World {
    pub(super) now: Time,
    /// Client and server.
    pub(super) ends: [End; 2],
    /// Datagrams on their way over each link: when they arrive, at which end.
    wires: [VecDeque<(Time, usize, Vec<u8>)>; 2],
    delays: [Duration; 2],
    cut: Option<LinkId>,
    /// What was sent, and to which end.
    pub(super) sent: Vec<(usize, Vec<u8>)>,
}

pub(super) fn address(end: usize, link: LinkId) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2 + end as u8, link)), 5510)
}

pub(super) fn path(end: usize, link: LinkId) -> Path {
    Path { socket: u16::from(link), local: Some(address(end, link).ip()), remote: address(1 - end, link) }
}

impl End {
    pub(super) fn new(index: usize, payload: Payload, handling: Option<Handling>, now: Time) -> End {
        let keys = [PrivateKey::from_bytes([1; 32]), PrivateKey::from_bytes([2; 32])];
        let config = EndpointConfig {
            private_key: keys[index].clone(),
            cipher: CipherPolicy::Auto,
            aes_hardware: false,
            rekey_interval: Duration::from_secs(120),
            keepalive: Duration::from_millis(500),
        };
        let mut state = index as u64 + now.as_nanos();
        let random = move |bytes: &mut [u8]| {
            for byte in bytes {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = (state >> 33) as u8;
            }
        };
        let clock = 1_700_000_000_000 + now.as_micros() / 1_000;
        let mut endpoint = Endpoint::new(config, Box::new(random), clock, now);
        let peer = PeerConfig {
            allowed: vec![IpPrefix { addr: Ipv4Addr::new(10, 0, 0, 0).into(), len: 24 }],
            policy: Some(Policy::Adaptive),
            payload,
            handling: handling.filter(|_| index == 0),
            ..PeerConfig::new(keys[1 - index].public(), index == 0)
        };
        let peer = endpoint.add_peer(peer, now);
        End { endpoint, peer, received: Vec::new(), events: Vec::new() }
    }
}

impl World {
    pub(super) fn new(client: Payload, server: Payload) -> World {
        Self::with(client, server, None)
    }

    /// With a wish of the client.
    fn with(client: Payload, server: Payload, handling: Option<Handling>) -> World {
        let now = Time::from_millis(1_000);
        let end = |index, payload| End::new(index, payload, handling, now);
        let ends = [end(0, client), end(1, server)];
        let mut world = World {
            now,
            ends,
            wires: Default::default(),
            delays: [Duration::from_millis(10); 2],
            cut: None,
            sent: Vec::new(),
        };
        world.set_links(true);
        world.run(Duration::from_secs(3));
        world
    }

    /// Gives the client's links their paths, or takes them away.
    fn set_links(&mut self, placed: bool) {
        for link in 0..2 {
            let path = placed.then(|| path(0, link));
            let config = LinkConfig { path, ..LinkConfig::new(link, format!("wan{link}")) };
            let client = &mut self.ends[0];
            client.endpoint.set_link(client.peer, config, self.now);
        }
    }

    /// Nothing of what is on its way to one end arrives.
    pub(super) fn lose(&mut self, end: usize) {
        for wire in &mut self.wires {
            wire.retain(|(_, to, _)| *to != end);
        }
    }

    /// One end starts anew.
    pub(super) fn restart(&mut self, end: usize) {
        self.ends[end] = End::new(end, Payload::Bonded, None, self.now);
        if end == 0 {
            self.set_links(true);
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            self.step();
        }
    }

    pub(super) fn step(&mut self) {
        let now = self.now;
        for (link, wire) in (0..).zip(&mut self.wires) {
            while wire.front().is_some_and(|(at, ..)| *at <= now) {
                let Some((_, to, mut datagrams)) = wire.pop_front() else { break };
                if self.cut == Some(link) {
                    continue;
                }
                let End { endpoint, received, .. } = &mut self.ends[to];
                let length = datagrams.len();
                let mut deliver =
                    |origin: Origin, packet: &[u8]| received.push((origin.link, packet.to_vec()));
                endpoint.handle_datagrams(path(to, link), 0, &mut datagrams, length, now, &mut deliver);
            }
        }
        for (from, end) in self.ends.iter_mut().enumerate() {
            let End { endpoint, received, events, .. } = end;
            if endpoint.poll_timeout().is_some_and(|at| at <= now) {
                endpoint.handle_timeout(now, &mut |origin, packet| {
                    received.push((origin.link, packet.to_vec()));
                });
            }
            let mut out = Vec::new();
            while let Some(transmit) = endpoint.poll_transmit(now, &mut out) {
                let link = transmit.path.socket as LinkId;
                for datagram in out.chunks(transmit.segment_size) {
                    let link = usize::from(link);
                    self.sent.push((1 - from, datagram.to_vec()));
                    self.wires[link].push_back((now + self.delays[link], 1 - from, datagram.to_vec()));
                }
            }
            events.extend(std::iter::from_fn(|| endpoint.poll_event()));
        }
    }

    /// One packet a millisecond for `count` milliseconds, to the server, in turn over both links.
    fn send(&mut self, count: u16, wrap: impl Fn(Vec<u8>) -> Vec<u8>) {
        for number in 0..count {
            let End { endpoint, peer, .. } = &mut self.ends[0];
            let mut packet = endpoint.buffer();
            packet.copy_from(&wrap(udp(number)));
            endpoint.enqueue_on(*peer, (number % 2) as LinkId, packet, self.now);
            self.now += STEP;
            self.step();
        }
    }

    fn is_up(&self, link: LinkId) -> bool {
        let status = self.ends[0].endpoint.status(self.now);
        status.peers[0].links.iter().any(|l| l.id == link && l.state == LinkState::Up)
    }
}

/// A UDP packet of one flow from 10.0.0.2 to 10.0.0.1, with a number inside.
pub(super) fn udp(number: u16) -> Vec<u8> {
    let mut packet = vec![0; 100];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&100u16.to_be_bytes());
    packet[8] = 64;
    packet[9] = 17;
    packet[12..20].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 1]);
    packet[28..30].copy_from_slice(&number.to_be_bytes());
    packet
}

fn in_ethernet(packet: Vec<u8>) -> Vec<u8> {
    // An address whose first byte looks like an IPv4 header's.
    let mut frame = vec![0x46, 1, 2, 3, 4, 5, 0x46, 1, 2, 3, 4, 6, 8, 0];
    frame.extend_from_slice(&packet);
    frame
}

fn numbers(end: &End, offset: usize) -> Vec<(Option<LinkId>, u16)> {
    let number = |packet: &[u8]| u16::from_be_bytes([packet[offset + 28], packet[offset + 29]]);
    end.received.iter().map(|(link, packet)| (*link, number(packet))).collect()
}

#[test]
fn a_packet_comes_over_the_link_for_which_it_was_given() {
    for (payload, offset) in [(Payload::PinnedIp, 0), (Payload::PinnedEthernet, 14)] {
        let mut world = World::new(payload, payload);
        world.send(200, |packet| if offset > 0 { in_ethernet(packet) } else { packet });
        world.run(Duration::from_millis(50));
        let mut came = numbers(&world.ends[1], offset);
        came.sort_by_key(|(_, number)| *number);
        let expected: Vec<_> = (0..200).map(|number| (Some((number % 2) as LinkId), number)).collect();
        assert_eq!(came, expected, "{payload:?}");
        let whole = if offset > 0 { in_ethernet(udp(7)) } else { udp(7) };
        assert!(world.ends[1].received.iter().any(|(_, packet)| *packet == whole), "{payload:?}");
    }
}

#[test]
fn what_is_meant_for_a_dead_link_goes_over_the_other() {
    let mut world = World::new(Payload::PinnedIp, Payload::PinnedIp);
    world.cut = Some(1);
    world.send(400, |packet| packet);
    assert!(world.is_up(0) && !world.is_up(1));
    world.run(Duration::from_secs(2));
    let mut came: Vec<u16> = numbers(&world.ends[1], 0).iter().map(|(_, number)| *number).collect();
    came.sort_unstable();
    assert_eq!(came, (0..400).collect::<Vec<_>>(), "each once");
    assert!(world.ends[1].received.iter().all(|(link, _)| *link == Some(0)));

    world.cut = None;
    world.run(Duration::from_secs(3));
    assert!(world.is_up(1));
    world.ends[1].received.clear();
    world.send(10, |packet| packet);
    world.run(Duration::from_millis(50));
    let links: Vec<_> = world.ends[1].received.iter().map(|(link, _)| *link).collect();
    assert_eq!(links.iter().filter(|link| **link == Some(1)).count(), 5, "{links:?}");
}

#[test]
fn a_stream_that_is_spread_over_unequal_links_comes_in_order() {
    for (payload, offset) in [(Payload::PinnedIp, 0), (Payload::PinnedEthernet, 14)] {
        let mut world = World::new(payload, payload);
        world.delays[1] = Duration::from_millis(35);
        world.run(Duration::from_secs(4));
        world.send(200, |mut packet| {
            // TCP, with a header of 20 bytes and ACK set.
            packet[9] = 6;
            packet[32..34].copy_from_slice(&[0x50, 0x10]);
            if offset > 0 { in_ethernet(packet) } else { packet }
        });
        world.run(Duration::from_millis(200));
        let came: Vec<u16> = numbers(&world.ends[1], offset).iter().map(|(_, number)| *number).collect();
        assert_eq!(came, (0..200).collect::<Vec<_>>(), "{payload:?}");
    }
}

#[test]
fn ends_that_carry_different_things_say_so_and_exchange_nothing() {
    let mut world = World::new(Payload::PinnedIp, Payload::PinnedEthernet);
    world.send(20, |packet| packet);
    world.run(Duration::from_millis(100));
    for (end, ours) in world.ends.iter().zip(["'tun'", "'tap'"]) {
        assert!(end.received.is_empty());
        let told = end.events.iter().any(|event| {
            matches!(event, Event::HandshakeFailed { reason, .. }
                if reason.starts_with(&format!("this end has mode 'kernel' with tunnel_type {ours}")))
        });
        assert!(told, "{:?}", end.events);
        assert!(!end.events.iter().any(|event| matches!(event, Event::PeerUp { .. })));
    }
}

#[test]
fn the_loss_of_all_paths_at_once_is_told_without_any_timer() {
    let mut world = World::new(Payload::Bonded, Payload::Bonded);
    let client = &mut world.ends[0];
    assert!(client.endpoint.status(world.now).peers[0].up);
    client.events.clear();
    world.set_links(false);
    let client = &mut world.ends[0];
    let events: Vec<_> = std::iter::from_fn(|| client.endpoint.poll_event()).collect();
    let down = |event: &&Event| matches!(event, Event::LinkState { state: LinkState::Down, .. });
    assert_eq!(events.iter().filter(down).count(), 2, "{events:?}");
    assert!(matches!(events.last(), Some(Event::PeerDown { .. })), "{events:?}");
    assert!(!client.endpoint.status(world.now).peers[0].up);
}

#[test]
fn a_late_close_of_a_former_run_does_not_end_the_next_ones_session() {
    let mut world = World::new(Payload::Bonded, Payload::Bonded);
    // It arrives between the initiation and the confirmation of the next run, which come over the quick link.
    world.delays[1] = Duration::from_millis(25);
    world.ends[0].endpoint.close(world.now);
    world.step();
    world.wires[0].clear();
    world.restart(0);
    let begun = world.now;
    world.run(Duration::from_millis(100));
    assert!(world.is_up(0), "not up {} ms after the start", world.now.since(begun).as_millis());
    world.run(Duration::from_secs(2));
    assert!(world.is_up(0) && world.is_up(1));
    assert!(!world.ends[0].events.iter().any(|event| matches!(event, Event::PeerDown { .. })));
}

/// An IPv4 SYN from one host to the other with an MSS of 1460 bytes (option 2); the checksums are not looked at.
fn syn(from: u8, to: u8) -> Vec<u8> {
    let mut packet = vec![0; 44];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&44u16.to_be_bytes());
    packet[8] = 64;
    packet[9] = 6;
    packet[12..20].copy_from_slice(&[10, 0, 0, from, 10, 0, 0, to]);
    packet[32] = 0x60;
    packet[33] = 2;
    packet[40..44].copy_from_slice(&[2, 4, 0x05, 0xb4]);
    packet
}

#[test]
fn the_clients_wish_about_segment_sizes_counts_for_both_directions() {
    let unclamped = Handling { clamp_mss: false, ..Handling::default() };
    for (wish, clamps) in [(None, true), (Some(unclamped), false)] {
        let mut world = World::with(Payload::Bonded, Payload::Bonded, wish);
        for (from, packet) in [(0, syn(2, 1)), (1, syn(1, 2))] {
            let now = world.now;
            let endpoint = &mut world.ends[from].endpoint;
            let mut buffer = endpoint.buffer();
            buffer.copy_from(&packet);
            endpoint.enqueue(buffer, now);
            world.run(Duration::from_millis(500));
            let (_, arrived) = world.ends[1 - from].received.pop().expect("the packet arrives");
            let mss = u16::from_be_bytes([arrived[42], arrived[43]]);
            assert_eq!(mss < 1_460, clamps, "{wish:?} from {from}: {mss}");
        }
    }
}
