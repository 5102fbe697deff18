//! The core itself as the tunnel: two endpoints, client and server, one link for each line.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bonding::bond::cipher::CipherPolicy;
use bonding::bond::endpoint::{Endpoint, EndpointConfig};
use bonding::bond::keys::PrivateKey;
use bonding::bond::status::PeerStatus;
use bonding::bond::{IpPrefix, LinkConfig, LinkState, Path, PeerConfig, PeerId, Policy, Time};
use lab::random::Random;

use crate::Nanos;
use crate::scenarios::Scenario;
use crate::world::Tunnel;

/// What a bond is set to.
#[derive(Clone, Debug)]
pub struct BondSettings {
    pub policy: Policy,
    pub rekey_interval: Duration,
    pub seed: u64,
}

impl Default for BondSettings {
    fn default() -> Self {
        BondSettings { policy: Policy::Adaptive, rekey_interval: Duration::from_secs(120), seed: 1 }
    }
}

/// One end.
pub struct Bond {
    pub endpoint: Endpoint,
    remote: Vec<SocketAddr>,
    out: Vec<u8>,
    ready: bool,
}

fn address(side: u8, link: usize) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, side, link as u8, 1)), 5080)
}

/// A client and its server over the lines of a scenario.
pub fn pair(scenario: &Scenario, settings: &BondSettings) -> [Bond; 2] {
    let now = Time::from_nanos(0);
    let key = |n: u8| PrivateKey::from_bytes([n; 32]);
    let end = |n: u8, peer: PrivateKey| {
        let mut source = Random::new(settings.seed * 2 + u64::from(n));
        let random = Box::new(move |bytes: &mut [u8]| bytes.fill_with(|| source.below(256) as u8));
        let config = EndpointConfig {
            private_key: key(n),
            cipher: CipherPolicy::Auto,
            aes_hardware: true,
            rekey_interval: settings.rekey_interval,
            keepalive: Duration::from_millis(1_500),
        };
        let mut endpoint = Endpoint::new(config, random, 1_000_000, now);
        let peer = PeerConfig {
            public_key: peer.public(),
            preshared_key: None,
            initiator: n == 1,
            allowed: vec![IpPrefix::ALL_V4],
            policy: (n == 1).then_some(settings.policy),
            upload: None,
        };
        let id = endpoint.add_peer(peer, now);
        let remote: Vec<_> = (0..scenario.lines.len()).map(|link| address(3 - n, link)).collect();
        if n == 1 {
            for (link, remote) in remote.iter().enumerate() {
                let path = Some(Path { socket: link as u16, local: None, remote: *remote });
                endpoint.set_link(id, link_config(link, path), now);
            }
        }
        Bond { endpoint, remote, out: Vec::new(), ready: false }
    };
    [end(1, key(2)), end(2, key(1))]
}

fn link_config(link: usize, path: Option<Path>) -> LinkConfig {
    LinkConfig {
        id: link as u8,
        name: format!("line{link}"),
        path,
        enabled: true,
        upload: None,
        download: None,
        priority: 0,
        weight: 1,
        mtu: None,
    }
}

impl Bond {
    /// What the end says of its only peer.
    pub fn status(&self, now: Nanos) -> PeerStatus {
        self.endpoint.status(Time::from_nanos(now)).peers.remove(0)
    }

    fn look(&mut self, now: Nanos) {
        while self.endpoint.poll_event().is_some() {}
        if !self.ready {
            let status = self.status(now);
            self.ready = status.links.len() == self.remote.len()
                && status.links.iter().all(|link| link.state == LinkState::Up && link.rtt_ms.is_some());
        }
    }
}

impl Tunnel for Bond {
    fn overhead(&self) -> usize {
        28
    }

    fn is_ready(&self) -> bool {
        self.ready
    }

    fn mtu(&self) -> usize {
        1_440
    }

    fn wants_packet(&self) -> bool {
        self.endpoint.wants_tun()
    }

    fn enqueue(&mut self, packet: &[u8], now: Nanos) {
        let mut buffer = self.endpoint.buffer();
        buffer.copy_from(packet);
        self.endpoint.enqueue(buffer, Time::from_nanos(now));
    }

    fn handle_datagram(
        &mut self,
        link: usize,
        ecn: u8,
        data: &mut [u8],
        now: Nanos,
        deliver: &mut dyn FnMut(&[u8]),
    ) {
        let path = Path { socket: link as u16, local: None, remote: self.remote[link] };
        let stride = data.len();
        let mut deliver = |_: PeerId, packet: &[u8]| deliver(packet);
        self.endpoint.handle_datagrams(path, ecn, data, stride, Time::from_nanos(now), &mut deliver);
        self.look(now);
    }

    fn transmit(&mut self, now: Nanos, send: &mut dyn FnMut(usize, u8, &[u8])) {
        let mut out = std::mem::take(&mut self.out);
        while let Some(transmit) = self.endpoint.poll_transmit(Time::from_nanos(now), &mut out) {
            for datagram in out.chunks(transmit.segment_size) {
                send(usize::from(transmit.path.socket), transmit.ecn, datagram);
            }
        }
        self.out = out;
    }

    fn poll_timeout(&self) -> Option<Nanos> {
        self.endpoint.poll_timeout().map(Time::as_nanos)
    }

    fn handle_timeout(&mut self, now: Nanos, deliver: &mut dyn FnMut(&[u8])) {
        let mut deliver = |_: PeerId, packet: &[u8]| deliver(packet);
        self.endpoint.handle_timeout(Time::from_nanos(now), &mut deliver);
        self.look(now);
    }
}
