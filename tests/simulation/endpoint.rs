//! The tunnel under test: two [`Endpoint`]s, a client with a link per line, and a server that learns them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bonding::bond::cipher::{CipherList, CipherPolicy};
use bonding::bond::keys::PrivateKey;
use bonding::bond::status::PeerStatus;
use bonding::bond::{
    Class, Endpoint, EndpointConfig, Event, Handling, IpPrefix, LinkConfig, LinkState, Origin, Path,
    PeerConfig, PeerId, Policy, Time,
};
use lab::random::Random;

use crate::Nanos;
use crate::packet::{CLIENT_HOST, Side};
use crate::scenarios::Scenario;
use crate::world::{Tunnel, World};

/// What is set, beyond what the core finds out by itself.
#[derive(Clone, Debug)]
pub struct BondConfig {
    pub policy: Policy,
    pub ciphers: CipherPolicy,
    pub rekey_interval: Duration,
    pub keepalive: Duration,
    /// Outer IPv6.
    pub ipv6: bool,
    /// Tell the core the rates of the lines, as a user may.
    pub rates_configured: bool,
    /// Put UDP back in order.
    pub resequence_udp: bool,
    /// Priority of each link; 0 where the list ends.
    pub priorities: Vec<u8>,
    /// The most that the server sends, and takes, in bits a second.
    pub server_limits: (Option<u64>, Option<u64>),
    /// Links that carry data only while no other does.
    pub last_resort: Vec<usize>,
    /// Classes of traffic, at the client.
    pub classes: Vec<Class>,
}

impl Default for BondConfig {
    fn default() -> Self {
        BondConfig {
            policy: Policy::Adaptive,
            ciphers: CipherPolicy::Auto,
            rekey_interval: Duration::from_secs(120),
            keepalive: Duration::from_millis(1_200),
            ipv6: false,
            rates_configured: false,
            resequence_udp: false,
            priorities: Vec::new(),
            server_limits: (None, None),
            last_resort: Vec::new(),
            classes: Vec::new(),
        }
    }
}

impl BondConfig {
    /// With this policy.
    pub fn with_policy(policy: Policy) -> Self {
        BondConfig { policy, ..BondConfig::default() }
    }

    /// Data in the clear, for speed.
    pub fn in_the_clear(self) -> Self {
        let none = CipherList::new([bonding::bond::cipher::Cipher::None]);
        BondConfig { ciphers: CipherPolicy::Only(none), ..self }
    }
}

/// One end, as the daemon drives it.
pub struct Bond {
    endpoint: Endpoint,
    peer: PeerId,
    side: Side,
    /// The client's public address on each line, as the server sees it.
    public: Vec<SocketAddr>,
    ipv6: bool,
    datagrams: Vec<u8>,
    now: Nanos,
    /// The machine's clock is so much behind the world's.
    behind: Nanos,
    /// The process does nothing.
    stopped: bool,
    /// What has come meanwhile, over which line and with which mark.
    backlog: Vec<(usize, u8, Vec<u8>)>,
    up: bool,
    mtu: usize,
    /// What the endpoint reported; the newest of a long run are not kept.
    pub events: Vec<(Nanos, Event)>,
}

/// Events kept for a test to look at.
const EVENTS: usize = 10_000;
/// Datagrams that the kernel keeps for a process that does not read them.
const BACKLOG: usize = 128;

/// A world with a bond over the lines of a scenario.
pub fn world(scenario: &Scenario, config: &BondConfig, seed: u64) -> World<Bond> {
    World::new(scenario, pair(scenario, config, seed), seed)
}

/// A start of one end. Ends with the same seed know each other's keys.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    pub seed: u64,
    /// What the end draws at random, and nothing else, follows from it.
    pub life: u64,
    /// What the wall clock says, in milliseconds since 1970.
    pub clock_ms: u64,
    /// When, in virtual time.
    pub at: Nanos,
}

impl Start {
    /// The first start.
    pub fn first(seed: u64) -> Self {
        Start { seed, life: 0, clock_ms: 1_700_000_000_000, at: 0 }
    }
}

/// Client and server.
pub fn pair(scenario: &Scenario, config: &BondConfig, seed: u64) -> [Bond; 2] {
    Side::BOTH.map(|side| start(scenario, config, side, Start::first(seed)))
}

/// One end, freshly started.
pub fn start(scenario: &Scenario, config: &BondConfig, side: Side, start: Start) -> Bond {
    let (seed, began) = (start.seed, Time::from_nanos(start.at));
    let mut random = Random::new(seed ^ 0x626f_6e64);
    let mut key = || {
        let mut bytes = [0; 32];
        fill(&mut random, &mut bytes);
        PrivateKey::from_bytes(bytes)
    };
    let keys = [key(), key()];
    let public_keys = [keys[0].public(), keys[1].public()];
    let public: Vec<SocketAddr> = (0..scenario.lines.len())
        .map(|line| SocketAddr::new(address(config.ipv6, 2, line), 40_000 + line as u16))
        .collect();
    let mut random = Random::new((seed.wrapping_mul(2) + side.index() as u64) ^ start.life << 40);
    let endpoint_config = EndpointConfig {
        private_key: keys[side.index()].clone(),
        cipher: config.ciphers,
        aes_hardware: true,
        rekey_interval: config.rekey_interval,
        keepalive: config.keepalive,
    };
    let mut endpoint = Endpoint::new(
        endpoint_config,
        Box::new(move |bytes: &mut [u8]| fill(&mut random, bytes)),
        start.clock_ms,
        began,
    );
    let peer_config = PeerConfig {
        allowed: vec![match side {
            Side::Client => IpPrefix::ALL_V4,
            Side::Server => IpPrefix { addr: CLIENT_HOST.into(), len: 24 },
        }],
        policy: (side == Side::Client).then_some(config.policy),
        upload: config.server_limits.0.filter(|_| side == Side::Server),
        download: config.server_limits.1.filter(|_| side == Side::Server),
        // The client's wish counts for both directions.
        handling: (side == Side::Client)
            .then(|| Handling { resequence_udp: config.resequence_udp, ..Handling::default() }),
        ..PeerConfig::new(public_keys[side.other().index()], side == Side::Client)
    };
    let peer = endpoint.add_peer(peer_config, began);
    let mut bond = Bond {
        endpoint,
        peer,
        side,
        public: public.clone(),
        ipv6: config.ipv6,
        datagrams: Vec::new(),
        now: start.at,
        behind: 0,
        stopped: false,
        backlog: Vec::new(),
        up: false,
        mtu: 1280,
        events: Vec::new(),
    };
    if side == Side::Client {
        bond.endpoint.set_classes(peer, &config.classes, began);
        for (line, pair) in scenario.lines.iter().enumerate() {
            let known = |rate: Option<u64>| rate.filter(|_| config.rates_configured);
            let link = LinkConfig {
                upload: known(pair.up.rate),
                download: known(pair.down.rate),
                priority: config.priorities.get(line).copied().unwrap_or(0),
                last_resort: config.last_resort.contains(&line),
                ..bond.client_link(line)
            };
            bond.endpoint.set_link(peer, link, began);
        }
    }
    bond
}

impl Bond {
    /// What the endpoint says about the other end.
    pub fn status(&self) -> PeerStatus {
        let status = self.endpoint.status(self.time(self.now));
        status.peers.into_iter().next().expect("the peer was added")
    }

    /// The NAT of a line forgets its mapping, and makes another; call it at both ends.
    pub fn rebind(&mut self, line: usize) {
        let address = &mut self.public[line];
        address.set_port(address.port() + 100);
    }

    /// Client: somebody takes a line out, or puts it back.
    pub fn enable(&mut self, line: usize, enabled: bool) {
        let link = LinkConfig { enabled, priority: 0, ..self.client_link(line) };
        self.endpoint.set_link(self.peer, link, self.time(self.now));
    }

    /// The machine was suspended for so long, and its clock stood still.
    pub fn lose_time(&mut self, time: Nanos) {
        self.behind += time;
    }

    /// Stops the process, as `SIGSTOP` does, or lets it go on. What its side sends meanwhile is lost.
    pub fn stop(&mut self, stopped: bool) {
        self.stopped = stopped;
    }

    /// What the machine's clock says.
    fn time(&self, now: Nanos) -> Time {
        Time::from_nanos(now - self.behind)
    }

    fn client_link(&self, line: usize) -> LinkConfig {
        LinkConfig { path: Some(self.client_path(line)), ..LinkConfig::new(line as u8, format!("wan{line}")) }
    }

    fn client_path(&self, line: usize) -> Path {
        Path { socket: line as u16, local: Some(address(self.ipv6, 1, line)), remote: server(self.ipv6) }
    }

    fn drain_events(&mut self) {
        while let Some(event) = self.endpoint.poll_event() {
            match &event {
                Event::PeerUp { .. } => {
                    self.up = true;
                    self.mtu = usize::from(self.status().tunnel_mtu);
                }
                Event::PeerDown { .. } => self.up = false,
                Event::TunnelMtu { mtu, .. } => self.mtu = usize::from(*mtu),
                _ => {}
            }
            if self.events.len() < EVENTS {
                self.events.push((self.now, event));
            }
        }
    }
}

impl Tunnel for Bond {
    fn overhead(&self) -> usize {
        if self.ipv6 { 48 } else { 28 }
    }

    fn is_ready(&self) -> bool {
        self.up && {
            let links = self.status().links;
            links.len() == self.public.len() && links.iter().all(|link| link.state == LinkState::Up)
        }
    }

    fn mtu(&self) -> usize {
        self.mtu
    }

    fn wants_packet(&self) -> bool {
        true
    }

    fn enqueue(&mut self, packet: &[u8], now: Nanos) {
        self.now = now;
        if self.stopped {
            return;
        }
        let mut buffer = self.endpoint.buffer();
        buffer.copy_from(packet);
        self.endpoint.enqueue(buffer, self.time(now));
    }

    fn handle_datagram(
        &mut self,
        link: usize,
        ecn: u8,
        data: &mut [u8],
        now: Nanos,
        deliver: &mut dyn FnMut(&[u8]),
    ) {
        self.now = now;
        if self.stopped {
            if self.backlog.len() < BACKLOG {
                self.backlog.push((link, ecn, data.to_vec()));
            }
            return;
        }
        let path = match self.side {
            Side::Client => self.client_path(link),
            Side::Server => {
                Path { socket: 0, local: Some(server(self.ipv6).ip()), remote: self.public[link] }
            }
        };
        let stride = data.len();
        let deliver = &mut |_: Origin, packet: &[u8]| deliver(packet);
        self.endpoint.handle_datagrams(path, ecn, data, stride, self.time(now), deliver);
        self.drain_events();
    }

    fn transmit(&mut self, now: Nanos, send: &mut dyn FnMut(usize, u8, &[u8])) {
        self.now = now;
        let time = self.time(now);
        while !self.stopped
            && let Some(transmit) = self.endpoint.poll_transmit(time, &mut self.datagrams)
        {
            let link = match self.side {
                Side::Client => {
                    assert_eq!(transmit.path.remote, server(self.ipv6), "the client knows one server");
                    Some(usize::from(transmit.path.socket))
                }
                // A mapping that the NAT has forgotten leads nowhere.
                Side::Server => self.public.iter().position(|public| *public == transmit.path.remote),
            };
            assert!(transmit.segment_size > 0 && !self.datagrams.is_empty(), "a transmit carries something");
            for datagram in self.datagrams.chunks(transmit.segment_size) {
                if let Some(link) = link {
                    send(link, transmit.ecn, datagram);
                }
            }
        }
        self.drain_events();
    }

    fn poll_timeout(&self) -> Option<Nanos> {
        if self.stopped {
            return None;
        }
        let timeout = self.endpoint.poll_timeout().map(|at| at.as_nanos().saturating_add(self.behind));
        if self.backlog.is_empty() { timeout } else { Some(0) }
    }

    fn handle_timeout(&mut self, now: Nanos, deliver: &mut dyn FnMut(&[u8])) {
        self.now = now;
        for (link, ecn, mut datagram) in std::mem::take(&mut self.backlog) {
            self.handle_datagram(link, ecn, &mut datagram, now, deliver);
        }
        let deliver = &mut |_: Origin, packet: &[u8]| deliver(packet);
        self.endpoint.handle_timeout(self.time(now), deliver);
        self.drain_events();
    }
}

fn server(ipv6: bool) -> SocketAddr {
    SocketAddr::new(address(ipv6, 3, 0), 5870)
}

/// Documentation addresses (RFC 5737, 3849): 1 the client behind NAT, 2 its public side, 3 the server.
fn address(ipv6: bool, role: u8, line: usize) -> IpAddr {
    let line = line as u8;
    if ipv6 {
        return Ipv6Addr::new(0x2001, 0xdb8, role.into(), line.into(), 0, 0, 0, 1).into();
    }
    match role {
        1 => Ipv4Addr::new(192, 168, line, 2).into(),
        2 => Ipv4Addr::new(192, 0, 2, 10 + line).into(),
        _ => Ipv4Addr::new(198, 51, 100, 1).into(),
    }
}

fn fill(random: &mut Random, bytes: &mut [u8]) {
    for chunk in bytes.chunks_mut(8) {
        let word = random.next_u64().to_be_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}
