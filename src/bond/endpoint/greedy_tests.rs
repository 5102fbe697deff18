//! Attacks on an endpoint by a peer that wants more than it pays for: how much may it have sent for a small packet?

use std::time::Duration;

use crate::link::Link;
use crate::pinned_tests::{World, path, udp};
use crate::wire::{Frame, Hello, NO_DELAY, Report, Shim, ticks};
use crate::{LinkId, Payload, PeerConfig};

const STEP: Duration = Duration::from_millis(1);

/// What a client with forged packets makes of a server.
struct Robber {
    world: World,
    /// Bytes that it has sent, and bytes that it got.
    spent: usize,
    got: usize,
}

impl Robber {
    fn new() -> Robber {
        let mut world = World::new(Payload::Bonded, Payload::Bonded);
        world.run(Duration::from_secs(5));
        Robber { world, spent: 0, got: 0 }
    }

    fn configure(&mut self, change: impl FnOnce(&mut PeerConfig)) {
        let now = self.world.now;
        let server = &mut self.world.ends[1];
        let mut config = server.endpoint.entries.get(server.peer).expect("the peer").peer.config.clone();
        change(&mut config);
        server.endpoint.update_peer(server.peer, config, now);
    }

    fn say(&mut self, link: LinkId, frames: &[Frame<'_>]) {
        let mut inside = Vec::new();
        Shim::control(ticks(self.world.now)).write(&[], &mut inside);
        frames.iter().for_each(|frame| frame.write(&mut inside));
        let mut packet = self.world.forge(0, link, &inside).expect("a session");
        self.spent += packet.len() + 28;
        self.world.take(1, path(1, link), &mut packet);
    }

    /// Says over a link that all came of another up to the newest packet, and before the last `run` of them nothing.
    fn report(&mut self, link: LinkId, over: LinkId, run: u16, bytes: u32) {
        let Some(newest) = self.link(link).flight.next_number().checked_sub(1) else { return };
        let report = Report {
            link,
            largest: newest as u32,
            received: ticks(self.world.now),
            hold: u16::MAX,
            bytes,
            marked: 0,
            short_delay: NO_DELAY,
            long_delay: NO_DELAY,
            jitter: 0,
            run,
            bitmap: &[],
        };
        self.say(over, &[Frame::Report(report)]);
    }

    /// The server's sending end of a link.
    fn link(&mut self, id: LinkId) -> &mut Link {
        let server = &mut self.world.ends[1];
        let entry = server.endpoint.entries.get_mut(server.peer).expect("the peer");
        entry.peer.sender.link(id).expect("the link")
    }

    /// Lets the server send what it wants to send now.
    fn take(&mut self) {
        let mut got = 0;
        let mut out = Vec::new();
        let now = self.world.now;
        let endpoint = &mut self.world.ends[1].endpoint;
        if endpoint.poll_timeout().is_some_and(|at| at <= now) {
            endpoint.handle_timeout(now, &mut |_, _| ());
        }
        while let Some(transmit) = endpoint.poll_transmit(now, &mut out) {
            let datagrams = out.len().div_ceil(transmit.segment_size);
            got += out.len() + 28 * datagrams;
        }
        while endpoint.poll_event().is_some() {}
        self.got += got;
    }

    /// Inner packets for the client.
    fn feed(&mut self, count: u16) {
        let now = self.world.now;
        let endpoint = &mut self.world.ends[1].endpoint;
        for number in 0..count {
            let mut packet = endpoint.buffer();
            let mut bytes = udp(number);
            bytes.resize(1_200, 0);
            bytes[2..4].copy_from_slice(&1_200_u16.to_be_bytes());
            packet.copy_from(&bytes);
            endpoint.enqueue(packet, now);
        }
    }
}

fn hello(mtu: u16) -> Frame<'static> {
    Frame::Hello(Hello {
        enabled: true,
        priority: 1,
        weight: 1,
        last_resort: false,
        keepalive_ms: 0,
        download_kbit: 0,
        mtu,
        name: "wan0".to_owned(),
    })
}

#[test]
fn who_says_that_all_is_lost_gets_no_more_than_its_limit() {
    let mut robber = Robber::new();
    robber.configure(|config| config.upload = Some(8_000_000));
    let begun = robber.world.now;
    let mut bytes = 0_u32;
    while robber.world.now.since(begun) < Duration::from_secs(10) {
        robber.feed(10);
        // The line is quick, and a packet in a hundred comes through.
        bytes = bytes.wrapping_add(1_000_000);
        for link in 0..2 {
            if robber.world.now.since(begun).as_millis().is_multiple_of(20) {
                robber.report(link, link, 0, bytes);
            }
            robber.report(link, 1 - link, 0, bytes);
        }
        robber.take();
        robber.world.now += STEP;
    }
    assert!(robber.got < 11_000_000, "{} bytes in 10 s at 1 MB/s", robber.got);
}

#[test]
fn changes_of_a_links_mtu_are_not_answered_with_a_probe_each() {
    let mut robber = Robber::new();
    for round in 0..5_000 {
        robber.say(0, &[hello(1_400 + round % 2)]);
        if round % 20 == 0 {
            robber.report(0, 0, u16::MAX, 0);
        }
        robber.take();
        robber.world.now += STEP;
    }
    assert!(robber.got < 3 * robber.spent, "{} bytes for {}", robber.got, robber.spent);
}

#[test]
fn trains_are_not_to_be_had_for_a_few_reports() {
    let mut robber = Robber::new();
    let begun = robber.world.now;
    while robber.world.now.since(begun) < Duration::from_secs(20) {
        for link in 0..2 {
            // A silence makes the link suspect, and a report brings it back.
            match robber.world.now.since(begun).as_millis() % 100 {
                0 => robber.say(link, &[Frame::MtuProbe { size: 1_280 }]),
                60 | 70 | 80 | 90 => {
                    robber.report(link, link, u16::MAX, 0);
                    let id = robber.link(link).train();
                    robber.say(link, &[Frame::TrainReply { link, id, bytes: 100_000, ticks: 1 }]);
                }
                _ => {}
            }
        }
        robber.take();
        robber.world.now += STEP;
    }
    assert!(robber.got < 1_000_000, "{} bytes in 20 s for {}", robber.got, robber.spent);
}
