//! What the core tells of itself: plain data for status pages.

use serde::Serialize;

use super::class::RuleCount;
use super::link::LinkState;
use crate::sorted::SortedMap;

/// One end of the bond.
#[derive(Clone, Debug, Serialize)]
pub struct EndpointStatus {
    /// Our public key.
    pub public_key: String,
    /// Datagrams that were dropped, by reason.
    pub drops: SortedMap<&'static str, u64>,
    /// The peers.
    pub peers: Vec<PeerStatus>,
}

/// One peer.
#[derive(Clone, Debug, Serialize)]
pub struct PeerStatus {
    /// Its number in this endpoint.
    pub peer: u32,
    /// Its public key.
    pub public_key: String,
    /// At least one link carries traffic.
    pub up: bool,
    /// Milliseconds since that changed.
    pub since_ms: u64,
    /// The cipher in use; empty without a session.
    pub cipher: String,
    /// How packets are spread.
    pub policy: String,
    /// Milliseconds since the last handshake.
    pub last_handshake_ms: Option<u64>,
    /// Handshakes that renewed a session's keys.
    pub rekeys: u64,
    /// Largest inner packet that every link carries in one piece, and at least 1280.
    pub tunnel_mtu: u16,
    /// Inner packets taken for this peer.
    pub tx_packets: u64,
    /// Bytes of them.
    pub tx_bytes: u64,
    /// Inner packets that came from it.
    pub rx_packets: u64,
    /// Bytes of them.
    pub rx_bytes: u64,
    /// Packets that wait for a link.
    pub queue_packets: usize,
    /// Packets that the queue has dropped.
    pub queue_drops: u64,
    /// Packets that were sent again.
    pub resent: u64,
    /// Packets that wait for an earlier one of their flow.
    pub resequencer_held: usize,
    /// Gaps in a flow that were waited for in vain.
    pub gaps_given_up: u64,
    /// Second copies that were dropped.
    pub duplicates: u64,
    /// The rules for classes of traffic, in their order.
    pub rules: Vec<RuleStatus>,
    /// Its links.
    pub links: Vec<LinkStatus>,
}

/// One rule for a class of traffic in the bond.
#[derive(Clone, Debug, Serialize)]
pub struct RuleStatus {
    /// Its number among the client's rules, from 0.
    pub rule: u8,
    /// Inner packets that we sent by it.
    pub tx_packets: u64,
    /// Bytes of them.
    pub tx_bytes: u64,
}

impl RuleStatus {
    pub(super) fn of(count: RuleCount) -> Self {
        RuleStatus { rule: count.rule, tx_packets: count.packets, tx_bytes: count.bytes }
    }
}

/// One link of a peer.
#[derive(Clone, Debug, Serialize)]
pub struct LinkStatus {
    /// Its number.
    pub id: u8,
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: LinkState,
    /// Why it is not up.
    pub reason: String,
    /// Milliseconds since the state changed.
    pub since_ms: u64,
    /// Our address.
    pub local: Option<String>,
    /// The other end's address and port.
    pub remote: Option<String>,
    /// Smoothed round-trip time.
    pub rtt_ms: Option<f64>,
    /// Smallest round-trip time of the last half minute.
    pub rtt_min_ms: Option<f64>,
    /// Mean change of the delay from packet to packet.
    pub jitter_ms: f64,
    /// The queue in front of the link's bottleneck.
    pub queue_ms: f64,
    /// Bits a second on the line, now, out.
    pub tx_rate: u64,
    /// And in.
    pub rx_rate: u64,
    /// Bits a second that the line is thought to carry; `None` until it was filled once.
    pub tx_capacity: Option<u64>,
    /// Bytes on the line, out.
    pub tx_bytes: u64,
    /// And in.
    pub rx_bytes: u64,
    /// Datagrams out.
    pub tx_packets: u64,
    /// And in.
    pub rx_packets: u64,
    /// Share of the recent packets that were lost, out.
    pub tx_loss: f64,
    /// Share of all packets that were lost, in.
    pub rx_loss: f64,
    /// Path MTU.
    pub mtu: u16,
    /// Links with the lowest number are used first.
    pub priority: u8,
    /// Share under the policy `weighted`.
    pub weight: u32,
    /// Its quota is used up: it carries data only while no other link does.
    pub last_resort: bool,
}
