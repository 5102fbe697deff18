//! Attacks on an endpoint: by strangers with whatever datagrams, and by a peer that is who it says and means harm.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::header::{LinkId as HeaderLink, Seal};
use crate::pinned_tests::{World, path, udp};
use crate::receiver::{Opened, Receiver};
use crate::session::Lifetimes;
use crate::wire::{self, Frame, Hello, Kind, Report, Shim, ticks};
use crate::{Event, LinkId, LinkState, Path, Payload, Time};

/// Numbers of an attacker that throws dice, the same in every run (xorshift64*).
struct Dice(u64);

impl Dice {
    fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        ((self.word() >> 32) as usize) % bound
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.word() as u8).collect()
    }

    /// A number that somebody who looks for mistakes would take.
    fn number(&mut self) -> u32 {
        match self.below(6) {
            0 => 0,
            1 => u32::MAX,
            2 => 1 << self.below(32),
            3 => (1u32 << self.below(32)).wrapping_sub(1),
            4 => self.below(300) as u32,
            _ => self.word() as u32,
        }
    }

    fn link(&mut self) -> LinkId {
        if self.one_in(4) { self.below(32) as LinkId } else { self.below(2) as LinkId }
    }

    /// Any frame but the one that ends the session. `next` is the number of the next packet of the other end's link 0.
    fn frame(&mut self, next: u64, out: &mut Vec<u8>) {
        let bitmap = self.bytes(32);
        let name = ["", "wan0", "../../etc", "$(reboot)", "<b>", "a b\"c"][self.below(6)];
        let used = self.below(33);
        let classes = self.bytes(64);
        let frame = match self.below(14) {
            0 => Frame::Ping,
            1 => Frame::Challenge([self.word() as u8; 8]),
            2 => Frame::Response([self.word() as u8; 8]),
            3 => Frame::Hello(Hello {
                enabled: !self.one_in(8),
                priority: self.number() as u8,
                weight: self.number() as u16,
                last_resort: self.one_in(4),
                keepalive_ms: self.number() as u16,
                download_kbit: self.number(),
                mtu: self.number() as u16,
                name: name.to_owned(),
            }),
            4 => Frame::Goodbye { link: self.link() },
            5 => Frame::GiveUp { bucket: self.number() as u16 & 4_095, sequence: self.number() },
            6 => Frame::MtuProbe { size: self.number() as u16 },
            7 => Frame::MtuReply { link: self.link(), size: self.number() as u16 },
            8 => Frame::Train {
                id: self.below(3) as u8,
                index: self.number() as u8,
                count: self.number() as u8,
            },
            9 => Frame::TrainReply {
                link: self.link(),
                id: self.below(3) as u8,
                bytes: self.number(),
                ticks: self.number(),
            },
            10 => Frame::Classes {
                generation: self.below(3) as u8,
                total: self.number() as u16,
                first: self.below(3) as u16,
                classes: &classes,
            },
            11 => Frame::ClassesReply { generation: self.below(3) as u8, held: self.number() as u16 },
            12 if self.one_in(8) => Frame::Renew,
            _ => Frame::Report(Report {
                link: self.link(),
                largest: if self.one_in(4) {
                    self.number()
                } else {
                    (next as u32).wrapping_sub(self.below(8) as u32)
                },
                received: self.number(),
                hold: self.number() as u16,
                bytes: self.number(),
                marked: self.number() as u16,
                short_delay: self.number(),
                long_delay: self.number(),
                jitter: self.number() as u16,
                run: self.number() as u16,
                bitmap: &bitmap[..used],
            }),
        };
        frame.write(out);
    }

    /// The inside of a transport packet.
    fn inside(&mut self, next: u64, now: Time) -> Vec<u8> {
        if self.one_in(20) {
            let length = self.below(100);
            return self.bytes(length);
        }
        let kind = match self.below(4) {
            0 => Kind::Data,
            1 => Kind::Fragment { index: self.below(14) as u8, count: 2 + self.below(13) as u8 },
            _ => Kind::Control,
        };
        let buckets = if self.one_in(2) { wire::BUCKETS } else { 4 };
        let mut frames = Vec::new();
        for _ in 0..self.below(12) {
            self.frame(next, &mut frames);
        }
        let shim = Shim {
            kind,
            ordered: self.one_in(2),
            sent: if self.one_in(2) { ticks(now) } else { self.number() },
            bucket: self.below(buckets) as u16,
            sequence: self.number(),
        };
        let mut out = Vec::new();
        shim.write(if kind == Kind::Control { &[] } else { &frames }, &mut out);
        if kind == Kind::Control {
            out.extend_from_slice(&frames);
        } else {
            let length = self.below(1_400);
            let mut packet = if self.one_in(3) { self.bytes(length) } else { udp(7) };
            if self.one_in(3) {
                let at = self.below(packet.len().max(1));
                packet.truncate(at);
            }
            out.extend_from_slice(&packet);
        }
        out
    }

    fn stranger(&mut self) -> SocketAddr {
        let host = Ipv4Addr::new(198, 51, 100, self.below(20) as u8);
        SocketAddr::new(host.into(), 1_024 + self.below(4) as u16)
    }
}

/// Bytes that came from an address, and that went there.
#[derive(Default)]
struct Ledger(HashMap<SocketAddr, (usize, usize)>);

impl Ledger {
    fn came(&mut self, from: SocketAddr, bytes: usize) {
        self.0.entry(from).or_default().0 += bytes;
    }

    fn goes(&mut self, to: SocketAddr, bytes: usize) {
        self.0.entry(to).or_default().1 += bytes;
    }

    /// Nobody at an address that has not answered gets more than `times` what came from there.
    fn check(&self, times: usize) {
        for (address, (came, went)) in &self.0 {
            assert!(*went <= times * came, "{address}: {came} bytes came, {went} went there");
        }
    }
}

impl World {
    /// A packet of `end` that is authentic, whatever is in it.
    pub(super) fn forge(&mut self, end: usize, link: LinkId, inside: &[u8]) -> Option<Vec<u8>> {
        let now = self.now;
        let end = &mut self.ends[end];
        let sender = &mut end.endpoint.entries.get_mut(end.peer)?.peer.sender;
        let mut packet = vec![0; wire::HEADER];
        packet.extend_from_slice(inside);
        packet.resize(packet.len() + wire::TAG, 0);
        sender.sealer.seal(Seal::Sealed, HeaderLink::new(link)?, &mut packet, now).ok()?;
        Some(packet)
    }

    pub(super) fn take(&mut self, end: usize, from: Path, datagram: &mut [u8]) {
        let (now, length) = (self.now, datagram.len());
        self.ends[end].endpoint.handle_datagrams(from, 3, datagram, length, now, &mut |_, _| ());
    }

    /// Lets an end do what it wants to do now, and tells whom it sends how much.
    fn settle(&mut self, end: usize, mut sent: impl FnMut(SocketAddr, usize)) {
        let now = self.now;
        let endpoint = &mut self.ends[end].endpoint;
        let mut out = Vec::new();
        let mut rounds = 0;
        loop {
            if endpoint.poll_timeout().is_some_and(|at| at <= now) {
                endpoint.handle_timeout(now, &mut |_, _| ());
            }
            while let Some(transmit) = endpoint.poll_transmit(now, &mut out) {
                sent(transmit.path.remote, out.len());
            }
            while endpoint.poll_event().is_some() {}
            if endpoint.poll_timeout().is_none_or(|at| at > now) {
                return;
            }
            rounds += 1;
            assert!(rounds < 10, "it wants to be called at once, for ever");
        }
    }

    fn links_up(&self, end: usize) -> usize {
        let status = self.ends[end].endpoint.status(self.now);
        status.peers[0].links.iter().filter(|link| link.state == LinkState::Up).count()
    }

    /// Whether a packet of one end comes to the other.
    fn carries(&mut self, from: usize) -> bool {
        self.ends[1 - from].received.clear();
        let now = self.now;
        let endpoint = &mut self.ends[from].endpoint;
        let mut packet = endpoint.buffer();
        packet.copy_from(&udp(77));
        endpoint.enqueue(packet, now);
        self.run(Duration::from_secs(2));
        self.ends[1 - from].received.iter().any(|(_, packet)| *packet == udp(77))
    }
}

#[test]
fn whatever_a_peer_says_the_other_end_stays_sound() {
    for (attacker, seed) in [(0, 1), (1, 2), (0, 3), (1, 4)] {
        let victim = 1 - attacker;
        let mut world = World::new(Payload::Bonded, Payload::Bonded);
        let mut dice = Dice(seed);
        let mut ledger = Ledger::default();
        for round in 0..4_000u32 {
            let own = world.ends[victim].peer;
            let endpoint = &mut world.ends[victim].endpoint;
            let links = &endpoint.entries.get(own).expect("the peer").peer.sender.links;
            let next = links.first().map_or(0, |link| link.flight.next_number());
            if dice.one_in(3) {
                let mut packet = endpoint.buffer();
                packet.copy_from(&udp(round as u16));
                endpoint.enqueue(packet, world.now);
            }
            let inside = dice.inside(next, world.now);
            let link = dice.link();
            let Some(mut packet) = world.forge(attacker, link, &inside) else { panic!("no session") };
            let known = path(victim, link % 2);
            let from = if dice.one_in(5) { Path { remote: dice.stranger(), ..known } } else { known };
            if from != known {
                ledger.came(from.remote, packet.len());
            }
            world.take(victim, from, &mut packet);
            world.settle(victim, |to, bytes| {
                if matches!(to, SocketAddr::V4(to) if to.ip().octets()[0] == 198) {
                    ledger.goes(to, bytes);
                }
            });
            let receiver = &world.ends[victim].endpoint.entries.get(own).expect("the peer").peer.receiver;
            assert!(receiver.resequencer().held() <= 4_096);
            if dice.one_in(10) {
                world.now += Duration::from_millis(dice.below(40) as u64);
            }
        }
        ledger.check(3);
        let status = world.ends[victim].endpoint.status(world.now);
        assert!(status.peers[0].links.len() <= 32);
        for link in &status.peers[0].links {
            assert!(link.queue_ms.is_finite() && link.jitter_ms.is_finite() && link.tx_loss.is_finite());
            assert!(link.tx_capacity.is_none_or(|rate| (64_000..=20_000_000_000).contains(&rate)));
            assert!((500..=1_500).contains(&link.mtu), "{}", link.mtu);
        }
        serde_json::to_string(&status).expect("the status can be shown");

        // Whoever comes after it, with the same key, finds all in order.
        world.restart(attacker);
        let begun = world.now;
        while world.links_up(0) + world.links_up(1) < 4 && world.now.since(begun) < Duration::from_secs(30) {
            world.run(Duration::from_millis(100));
        }
        assert_eq!((world.links_up(0), world.links_up(1)), (2, 2), "attacker {attacker}");
        assert!(world.carries(0) && world.carries(1), "attacker {attacker}");
    }
}

#[test]
fn a_client_that_flaps_its_links_does_not_flood_the_servers_log() {
    let mut world = World::new(Payload::Bonded, Payload::Bonded);
    world.run(Duration::from_secs(20));
    let mut told = Vec::new();
    for round in 0..5_000u32 {
        let hello = Hello {
            enabled: round % 2 == 0,
            priority: 1,
            weight: 1,
            last_resort: false,
            keepalive_ms: 0,
            download_kbit: 0,
            mtu: 0,
            name: "wan0".to_owned(),
        };
        let mut inside = Vec::new();
        Shim::control(ticks(world.now)).write(&[], &mut inside);
        Frame::Hello(hello).write(&mut inside);
        let mut packet = world.forge(0, 0, &inside).expect("a session");
        world.take(1, path(1, 0), &mut packet);
        told.extend(std::iter::from_fn(|| world.ends[1].endpoint.poll_event()));
        world.now += Duration::from_millis(1);
    }
    assert!((100..200).contains(&told.len()), "{} events", told.len());

    // What became of it is told in the end.
    world.run(Duration::from_secs(15));
    told.append(&mut world.ends[1].events);
    let last = told.iter().rev().find_map(|event| match event {
        Event::LinkState { link: 0, state, .. } => Some(*state),
        _ => None,
    });
    let status = world.ends[1].endpoint.status(world.now);
    assert_eq!(last, Some(status.peers[0].links[0].state));
}

#[test]
fn strangers_get_no_more_than_they_send_and_change_nothing() {
    for victim in 0..2 {
        let mut world = World::new(Payload::Bonded, Payload::Bonded);
        world.run(Duration::from_millis(500));
        let seen: Vec<Vec<u8>> =
            world.sent.iter().filter(|(to, _)| *to == victim).map(|(_, datagram)| datagram.clone()).collect();
        assert!(seen.len() > 10);
        world.settle(victim, |_, _| ());
        let before = world.ends[victim].endpoint.status(world.now);
        let mut dice = Dice(99 + victim as u64);
        let mut ledger = Ledger::default();
        for _ in 0..20_000 {
            let mut datagram = seen[dice.below(seen.len())].clone();
            match dice.below(6) {
                0 => {}
                1 => {
                    let at = dice.below(datagram.len());
                    datagram[at] ^= 1 << dice.below(8);
                }
                2 => datagram.truncate(dice.below(datagram.len())),
                3 => {
                    let more = dice.below(200);
                    datagram.extend(dice.bytes(more));
                }
                4 => {
                    let other = &seen[dice.below(seen.len())];
                    let at = dice.below(datagram.len().min(other.len()));
                    datagram.splice(at.., other[at..].iter().copied());
                }
                _ => {
                    let length = dice.below(200);
                    datagram = dice.bytes(length);
                }
            }
            let mut from = path(victim, dice.below(2) as LinkId);
            if dice.one_in(2) {
                from.remote = dice.stranger();
            }
            ledger.came(from.remote, datagram.len());
            world.take(victim, from, &mut datagram);
            world.settle(victim, |to, bytes| ledger.goes(to, bytes));
        }
        ledger.check(1);
        let after = world.ends[victim].endpoint.status(world.now);
        let (was, is) = (&before.peers[0], &after.peers[0]);
        assert_eq!((was.up, was.rekeys, was.rx_packets), (is.up, is.rekeys, is.rx_packets));
        for (was, is) in was.links.iter().zip(&is.links) {
            assert_eq!((&was.remote, was.state, was.rx_packets), (&is.remote, is.state, is.rx_packets));
        }
        world.run(Duration::from_secs(2));
        assert!(world.carries(0) && world.carries(1));
    }
}

#[test]
fn a_fragment_whose_others_were_lost_is_in_no_later_packet() {
    let mut receiver = Receiver::new(Lifetimes::default());
    let mut whole = Vec::new();
    let mut number = 0;
    let mut fragment = |index, filling, now| {
        let shim = Shim {
            kind: Kind::Fragment { index, count: 2 },
            ordered: false,
            sent: ticks(now),
            bucket: 7,
            sequence: 9,
        };
        let mut plain = Vec::new();
        shim.write(&[], &mut plain);
        plain.extend_from_slice(&[filling; 100]);
        number += 1;
        let opened = Opened { link: 0, number, line_bytes: 160, marked: false, clear: false, plain: &plain };
        receiver.receive(&opened, now, &mut |packet| whole.push(packet.to_vec()), &mut |_| ());
    };
    fragment(0, 1, Time::from_millis(1_000));
    // The numbers of the flow have come round.
    let later = Time::from_millis(60_000);
    fragment(1, 2, later);
    fragment(0, 2, later);
    assert_eq!(whole, [[2; 200]]);
}
