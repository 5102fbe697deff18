//! Two ends of a bond in virtual time, joined by links without delay to speak of.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bonding::bond::cipher::CipherPolicy;
use bonding::bond::keys::PrivateKey;
use bonding::bond::{
    Endpoint, EndpointConfig, IpPrefix, LinkConfig, Origin, Path, PeerConfig, PeerId, Policy, Time, Transmit,
};

/// Packets of a burst, as one super-packet of the kernel has them.
pub const BURST: usize = 45;
/// From the sending of a burst to the next.
const STEP: Duration = Duration::from_micros(200);
/// Length of the inner packets, in bytes.
pub const PACKET: usize = 1400;

/// Both ends.
pub struct Pair {
    now: Time,
    client: Endpoint,
    server: Endpoint,
    /// What the client has sent in this step.
    wire: Vec<(Transmit, Vec<u8>)>,
    /// Buffers for that.
    spare: Vec<Vec<u8>>,
    packet: Vec<u8>,
    sequence: u32,
    /// Inner packets that the server has delivered.
    pub delivered: u64,
}

fn address(end: u8, link: u8) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2 + end, link)), 5510)
}

fn path(end: u8, link: u16) -> Path {
    let link_number = link as u8;
    Path { socket: link, local: Some(address(end, link_number).ip()), remote: address(1 - end, link_number) }
}

/// Numbers that are the same in each run.
fn random(mut state: u64) -> bonding::bond::endpoint::Random {
    Box::new(move |bytes: &mut [u8]| {
        for byte in bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 33) as u8;
        }
    })
}

fn end(index: usize, now: Time) -> (Endpoint, PeerId) {
    let keys = [PrivateKey::from_bytes([1; 32]), PrivateKey::from_bytes([2; 32])];
    let config = EndpointConfig {
        private_key: keys[index].clone(),
        cipher: CipherPolicy::Auto,
        aes_hardware: true,
        rekey_interval: Duration::from_secs(3_600),
        keepalive: Duration::from_secs(5),
    };
    let mut endpoint = Endpoint::new(config, random(index as u64 + 1), 1_700_000_000_000, now);
    let peer = PeerConfig {
        allowed: vec![IpPrefix { addr: Ipv4Addr::new(10, 0, 0, 0).into(), len: 24 }],
        policy: Some(Policy::Adaptive),
        ..PeerConfig::new(keys[1 - index].public(), index == 0)
    };
    let peer = endpoint.add_peer(peer, now);
    (endpoint, peer)
}

impl Pair {
    /// Two ends over `links` links, in session, the rates of the links found out.
    pub fn new(links: u8) -> Pair {
        let now = Time::from_millis(1_000);
        let ((mut client, peer), (server, _)) = (end(0, now), end(1, now));
        for link in 0..links {
            let path = Some(path(0, u16::from(link)));
            let config = LinkConfig { path, ..LinkConfig::new(link, format!("wan{link}")) };
            client.set_link(peer, config, now);
        }
        let mut pair = Pair {
            now,
            client,
            server,
            wire: Vec::new(),
            spare: Vec::new(),
            packet: inner_packet(),
            sequence: 0,
            delivered: 0,
        };
        for _ in 0..5_000 {
            pair.step();
        }
        for _ in 0..1_500 {
            pair.send(BURST);
            pair.receive();
            pair.step();
        }
        pair
    }

    /// A time step with nothing to send but what the core has to say by itself.
    pub fn step(&mut self) {
        self.now += STEP;
        let now = self.now;
        if self.client.poll_timeout().is_some_and(|at| at <= now) {
            self.client.handle_timeout(now, &mut |_, _| {});
        }
        if self.server.poll_timeout().is_some_and(|at| at <= now) {
            self.server.handle_timeout(now, &mut |_, _| {});
        }
        self.transmit();
        self.receive();
        self.answer();
        while self.client.poll_event().or_else(|| self.server.poll_event()).is_some() {}
    }

    /// Takes inner packets of one TCP connection into the client, and lets it send.
    #[inline(never)]
    pub fn send(&mut self, packets: usize) {
        for _ in 0..packets {
            let mut packet = self.client.buffer();
            packet.copy_from(&self.packet);
            self.sequence = self.sequence.wrapping_add(PACKET as u32 - 40);
            packet.bytes_mut()[24..28].copy_from_slice(&self.sequence.to_be_bytes());
            self.client.enqueue(packet, self.now);
        }
        self.transmit();
    }

    fn transmit(&mut self) {
        loop {
            let mut out = self.spare.pop().unwrap_or_default();
            let Some(transmit) = self.client.poll_transmit(self.now, &mut out) else {
                self.spare.push(out);
                return;
            };
            self.wire.push((transmit, out));
        }
    }

    /// Takes what is on the wire into the server.
    #[inline(never)]
    pub fn receive(&mut self) {
        let delivered = &mut self.delivered;
        let mut deliver = |_: Origin, _: &[u8]| *delivered += 1;
        for (transmit, mut out) in self.wire.drain(..) {
            let from = path(1, transmit.path.socket);
            let stride = transmit.segment_size;
            self.server.handle_datagrams(from, transmit.ecn, &mut out, stride, self.now, &mut deliver);
            self.spare.push(out);
        }
    }

    /// Takes what the server has to send into the client.
    fn answer(&mut self) {
        let mut out = self.spare.pop().unwrap_or_default();
        while let Some(transmit) = self.server.poll_transmit(self.now, &mut out) {
            let to = path(0, transmit.path.socket);
            let stride = transmit.segment_size;
            self.client.handle_datagrams(to, transmit.ecn, &mut out, stride, self.now, &mut |_, _| {});
        }
        self.spare.push(out);
    }
}

/// A TCP segment of [`PACKET`] bytes.
pub fn inner_packet() -> Vec<u8> {
    let mut packet = vec![0; PACKET];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&(PACKET as u16).to_be_bytes());
    packet[6] = 0x40;
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
    packet[16..20].copy_from_slice(&[10, 0, 0, 2]);
    packet[20..24].copy_from_slice(&[0x10, 0x00, 0x01, 0xbb]);
    packet[32] = 0x50;
    packet[33] = 0x10;
    packet
}
