//! A peer's figures, for those who look at it.

use std::time::Duration;

use super::Peer;
use crate::limit::Policer;
use crate::link::Link;
use crate::status::{LinkStatus, PeerStatus, RuleStatus};
use crate::{LinkId, Time};

impl Peer {
    /// What is known of the peer.
    pub fn status(&self, now: Time) -> PeerStatus {
        let resequencer = self.receiver.resequencer();
        PeerStatus {
            peer: self.id.0,
            public_key: self.config.public_key.to_string(),
            up: self.up,
            since_ms: millis(now.since(self.since)),
            cipher: self.sender.sealer.cipher().map(|c| c.name().to_owned()).unwrap_or_default(),
            policy: self.sender.scheduler.policy().name().to_owned(),
            last_handshake_ms: self.sender.sealer.established().map(|at| millis(now.since(at))),
            rekeys: self.rekeys,
            tunnel_mtu: self.tunnel_mtu,
            tx_packets: self.sender.packets,
            tx_bytes: self.sender.bytes,
            rx_packets: self.receiver.packets,
            rx_bytes: self.receiver.bytes,
            queue_packets: self.sender.waiting(),
            queue_drops: self.sender.dropped(),
            resent: self.sender.resent,
            resequencer_held: resequencer.held(),
            gaps_given_up: resequencer.gaps_given_up(),
            duplicates: resequencer.duplicates(),
            rules: self.sender.classes.counts().map(RuleStatus::of).collect(),
            links: self.sender.links.iter().map(|link| self.link_status(link, now)).collect(),
        }
    }

    /// Inner packets from addresses that are not the peer's.
    pub fn spoofed(&self) -> u64 {
        self.gate.spoofed
    }

    /// Packets that came above the most that is taken from the peer.
    pub fn above_limit(&self) -> u64 {
        self.gate.policer.as_ref().map_or(0, Policer::dropped)
    }

    /// Bytes on the line that each link has sent and received.
    pub fn link_bytes(&self) -> Vec<(LinkId, u64, u64)> {
        let received = |id| self.receiver.incoming(id).map_or(0, |incoming| incoming.bytes);
        self.sender.links.iter().map(|link| (link.id, link.sent.bytes, received(link.id))).collect()
    }

    fn link_status(&self, link: &Link, now: Time) -> LinkStatus {
        let incoming = self.receiver.incoming(link.id);
        let path = link.path;
        LinkStatus {
            id: link.id,
            name: link.settings.name.clone(),
            state: link.state(),
            reason: link.reason().to_owned(),
            since_ms: millis(now.since(link.since())),
            local: path.and_then(|p| p.local).map(|ip| ip.to_string()),
            remote: path.map(|p| p.remote.to_string()),
            rtt_ms: link.rtt.smoothed().map(ms),
            rtt_min_ms: link.rtt.smallest().map(ms),
            jitter_ms: ms(link.capacity.jitter()),
            queue_ms: ms(link.capacity.queue_delay()),
            tx_rate: link.meter.rate(now),
            rx_rate: incoming.map_or(0, |i| i.rate(now)),
            tx_capacity: link.capacity.is_known().then(|| link.capacity.rate() * 8),
            tx_bytes: link.sent.bytes,
            rx_bytes: incoming.map_or(0, |i| i.bytes),
            tx_packets: link.sent.packets,
            rx_packets: incoming.map_or(0, |i| i.packets),
            tx_loss: link.loss,
            rx_loss: incoming.map_or(0.0, |i| i.loss()),
            mtu: link.mtu.mtu(),
            priority: link.settings.priority,
            weight: link.settings.weight,
            last_resort: link.settings.last_resort,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100_000.0).round() / 100.0
}
