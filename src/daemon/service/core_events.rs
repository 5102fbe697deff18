//! What the core tells: peers and links that come and go, the MTU that they allow.

use super::{Daemon, Message, Side};
use crate::bond::{Event, LinkState, PeerId};
use crate::daemon::introduction;
use crate::io::timer::now;

impl Daemon {
    pub(super) fn take_core_events(&mut self) {
        while let Some(event) = self.driver.poll_event() {
            self.links_changed = self.kernel.is_some();
            if self.is_elsewhere(&event) {
                continue;
            }
            match event {
                Event::PeerUp { peer } => self.peer_changed(peer, true, ""),
                Event::PeerDown { peer, reason } => self.peer_changed(peer, false, &reason),
                Event::LinkState { peer, link, name, state, reason } => {
                    if let Side::Client(client) = &mut self.side {
                        client.remember_round_trips(&self.driver.endpoint().status(now()));
                        client.set_state(link, state, now());
                        // The fallback of the default route and the ways outside the bond go by links that are up.
                        self.set_network();
                    }
                    let peer_name = self.peer_name(peer);
                    self.event(peer_name.as_deref(), Some(&name), state_name(state), &reason);
                    self.hook_link(peer, link, &name, state, &reason);
                }
                Event::TunnelMtu { peer, mtu } => {
                    self.peer_mtus.insert(peer, mtu);
                    self.follow_mtu();
                }
                Event::Introduced { invitation, public_key } => self.introduced(invitation, &public_key),
                Event::HandshakeFailed { peer, reason } => {
                    let peer = peer.and_then(|peer| self.peer_name(peer));
                    self.event(peer.as_deref(), None, "handshake failed", &reason);
                }
            }
        }
    }

    /// A router has proved an invitation's secret: its key is written to the disk, off this thread, and then taken over as
    /// any change of the configuration.
    fn introduced(&mut self, invitation: u32, key: &crate::bond::keys::PublicKey) {
        let Side::Server(server) = &mut self.side else { return };
        let Some(invited) = server.take_invited(invitation) else { return };
        let key = crate::config::key::PublicKey::new(*key.as_bytes());
        self.event(Some(&invited.name), None, "introduced itself", &key.to_string());
        let (path, tell) = (self.options.config.clone(), self.tell.clone());
        crate::daemon::spawn_blocking(move || {
            let pinned = introduction::pin(&path, &invited, key);
            let _ = tell.blocking_send(Message::Introduced(invited.name, pinned));
        });
    }

    fn peer_changed(&mut self, peer: PeerId, up: bool, reason: &str) {
        let name = self.peer_name(peer);
        self.event(name.as_deref(), None, if up { "up" } else { "down" }, reason);
        self.hook_peer(peer, up, reason);
        if let Side::Client(client) = &mut self.side
            && client.peer() == peer
        {
            client.set_up(up);
            self.set_network();
        }
    }

    fn follow_mtu(&mut self) {
        let Some(found) = self.peer_mtus.values().min().copied() else { return };
        let mtu = self.config.bond.mtu.unwrap_or(found);
        if mtu != self.tunnel.mtu {
            self.event(None, None, "mtu", &format!("{} is now {mtu}", self.config.bond.ifname.clone()));
            self.tunnel.mtu = mtu;
            self.set_network();
        }
    }
}

fn state_name(state: LinkState) -> &'static str {
    match state {
        LinkState::Disabled => "disabled",
        LinkState::Down => "down",
        LinkState::Joining => "joining",
        LinkState::Up => "up",
        LinkState::Suspect => "suspect",
    }
}
