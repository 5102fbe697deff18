//! What a peer and its links are set to.

use std::time::Duration;

use crate::keys::{PresharedKey, PublicKey};
use crate::link::Settings;
use crate::routing::IpPrefix;
use crate::session::Lifetimes;
use crate::wire::Hello;
use crate::{LinkId, Path, Policy, ethernet, ip};

/// A client may have its links probed no more often than this, which is also the least that its configuration allows.
const LEAST_KEEPALIVE: Duration = Duration::from_millis(100);

/// Times that all peers of an endpoint share.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Idle links are probed this often.
    pub keepalive: Duration,
    /// How long keys live.
    pub lifetimes: Lifetimes,
}

/// Settings of a peer.
#[derive(Clone)]
pub struct PeerConfig {
    /// Its identity.
    pub public_key: PublicKey,
    /// A secret that both ends hold besides their keys.
    pub preshared_key: Option<PresharedKey>,
    /// We call it (the client's view of the server).
    pub initiator: bool,
    /// Inner addresses that it may send from, and that are sent to it.
    pub allowed: Vec<IpPrefix>,
    /// How packets to it are spread; `None`: as the peer asks.
    pub policy: Option<Policy>,
    /// The most that is sent to it, over all links, in bits a second on the lines.
    pub upload: Option<u64>,
    /// The most that is taken from it, in bits a second. It is told; what comes above is dropped.
    pub download: Option<u64>,
    /// What is carried, and by whom it is spread.
    pub payload: Payload,
    /// How inner packets are treated; `None`: as the peer asks.
    pub handling: Option<Handling>,
}

impl PeerConfig {
    /// A peer without limits or wishes, which may send from no address yet.
    pub fn new(public_key: PublicKey, initiator: bool) -> PeerConfig {
        PeerConfig {
            public_key,
            preshared_key: None,
            initiator,
            allowed: Vec::new(),
            policy: None,
            upload: None,
            download: None,
            payload: Payload::default(),
            handling: None,
        }
    }
}

/// How the inner packets that are sent to a peer are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handling {
    /// The receiver puts TCP back in order.
    pub resequence_tcp: bool,
    /// And all UDP; otherwise it does so for bulk only.
    pub resequence_udp: bool,
    /// The maximum segment size of TCP connections is lowered to what every link carries.
    pub clamp_mss: bool,
}

impl Default for Handling {
    fn default() -> Self {
        Handling { resequence_tcp: true, resequence_udp: false, clamp_mss: true }
    }
}

impl Handling {
    const TCP: u8 = 1;
    const UDP: u8 = 2;
    const MSS: u8 = 4;

    pub(super) fn code(self) -> u8 {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        bit(self.resequence_tcp, Self::TCP)
            | bit(self.resequence_udp, Self::UDP)
            | bit(self.clamp_mss, Self::MSS)
    }

    pub(super) fn from_code(code: u8) -> Handling {
        Handling {
            resequence_tcp: code & Self::TCP != 0,
            resequence_udp: code & Self::UDP != 0,
            clamp_mss: code & Self::MSS != 0,
        }
    }
}

/// What the inner packets are, and who spreads them over the links. Both ends of a bond must have the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Payload {
    /// IP packets, which the policy spreads.
    #[default]
    Bonded,
    /// IP packets that each go over the link for which they are given, see
    /// [`Endpoint::enqueue_on`](super::Endpoint::enqueue_on).
    PinnedIp,
    /// Ethernet frames, likewise.
    PinnedEthernet,
}

impl Payload {
    const ALL: [Payload; 3] = [Payload::Bonded, Payload::PinnedIp, Payload::PinnedEthernet];

    pub(super) fn code(self) -> u8 {
        self as u8
    }

    pub(super) fn from_code(code: u8) -> Option<Payload> {
        Payload::ALL.get(usize::from(code)).copied()
    }

    /// In the words of the configuration.
    pub(super) fn name(self) -> &'static str {
        match self {
            Payload::Bonded => "mode 'user'",
            Payload::PinnedIp => "mode 'kernel' with tunnel_type 'tun'",
            Payload::PinnedEthernet => "mode 'kernel' with tunnel_type 'tap'",
        }
    }

    pub(super) fn is_allowed(self, packet: &[u8], allowed: &[IpPrefix]) -> bool {
        match self {
            Payload::Bonded | Payload::PinnedIp => {
                ip::source(packet).is_some_and(|source| allowed.iter().any(|range| range.contains(source)))
            }
            Payload::PinnedEthernet => ethernet::is_allowed(packet, allowed),
        }
    }
}

/// Settings of a link, at the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkConfig {
    /// Its number, the same at both ends.
    pub id: LinkId,
    /// Its name; at most 15 bytes are told to the server.
    pub name: String,
    /// Where it starts and ends; `None` while it has no address or route.
    pub path: Option<Path>,
    /// In use.
    pub enabled: bool,
    /// Upper limit in bits a second on the line, out.
    pub upload: Option<u64>,
    /// And in.
    pub download: Option<u64>,
    /// Links with the lowest number are used first.
    pub priority: u8,
    /// Share under the policy `weighted`.
    pub weight: u32,
    /// Carries data only while no other link does.
    pub last_resort: bool,
    /// How often the link is probed while it is idle; `None`: as the endpoint says.
    pub keepalive: Option<Duration>,
    /// Bound on the outer IP packet; `None`: found out, at most 1500.
    pub mtu: Option<u16>,
}

impl LinkConfig {
    /// A link in use, without a path or limits, of the same rank and weight as every other.
    pub fn new(id: LinkId, name: impl Into<String>) -> LinkConfig {
        LinkConfig {
            id,
            name: name.into(),
            path: None,
            enabled: true,
            upload: None,
            download: None,
            priority: 1,
            weight: 1,
            last_resort: false,
            keepalive: None,
            mtu: None,
        }
    }

    /// For our end of the link. `keepalive` is the endpoint's.
    pub(super) fn settings(&self, keepalive: Duration) -> Settings {
        Settings {
            name: self.name.clone(),
            enabled: self.enabled,
            limit: self.upload.map(|bits| bits / 8),
            priority: self.priority,
            weight: self.weight.max(1),
            last_resort: self.last_resort,
            keepalive: self.keepalive.unwrap_or(keepalive),
            mtu: self.mtu,
        }
    }

    /// For the other end.
    pub(super) fn hello(&self) -> Hello {
        let mut name = self.name.clone();
        while name.len() > 15 {
            name.pop();
        }
        Hello {
            enabled: self.enabled,
            priority: self.priority,
            weight: u16::try_from(self.weight.max(1)).unwrap_or(u16::MAX),
            download_kbit: kilobits(self.download),
            last_resort: self.last_resort,
            keepalive_ms: self
                .keepalive
                .map_or(0, |time| u16::try_from(time.as_millis()).unwrap_or(u16::MAX)),
            mtu: self.mtu.unwrap_or(0),
            name,
        }
    }
}

/// The server's settings of a link that the client has told of. `keepalive` is the endpoint's.
pub(super) fn settings_of(hello: &Hello, keepalive: Duration) -> Settings {
    Settings {
        name: hello.name.clone(),
        enabled: hello.enabled,
        limit: (hello.download_kbit > 0).then(|| u64::from(hello.download_kbit) * 125),
        priority: hello.priority,
        weight: u32::from(hello.weight).max(1),
        last_resort: hello.last_resort,
        // The client's pings come first, so that ours are needed only when they do not come.
        keepalive: match hello.keepalive_ms {
            0 => keepalive,
            ms => Duration::from_millis(u64::from(ms)).max(LEAST_KEEPALIVE) * 3 / 2,
        },
        mtu: (hello.mtu > 0).then_some(hello.mtu),
    }
}

/// A limit on the wire: 0 is none.
pub(super) fn kilobits(limit: Option<u64>) -> u32 {
    limit.map_or(0, |bits| u32::try_from(bits / 1_000).unwrap_or(u32::MAX).max(1))
}
