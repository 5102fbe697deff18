//! Going to another server.

use super::{Daemon, SERVER, Side};
use crate::bond::{Event, Time};
use crate::daemon::servers::Move;

impl Daemon {
    /// Once a second.
    pub(super) fn watch_servers(&mut self, now: Time) {
        let Side::Client(client) = &self.side else { return };
        let wanted = self.servers.tick(&self.config, client, &mut self.driver, now);
        let Some(Move { to, why }) = wanted else { return };
        let (peer, was_up) = (client.peer(), client.is_up());
        self.event(Some(SERVER), None, "left", &format!("for '{to}': {why}"));
        if was_up {
            self.hook_peer(peer, false, &why);
        }
        let config = self.config.at_server(&to);
        self.servers.moved(&config, was_up, &mut self.driver, now);
        self.take_config(config);
    }

    /// Whether something has happened to a server that is not in use, or not any more.
    pub(super) fn is_elsewhere(&self, event: &Event) -> bool {
        let Side::Client(client) = &self.side else { return false };
        match event {
            Event::PeerUp { peer }
            | Event::PeerDown { peer, .. }
            | Event::LinkState { peer, .. }
            | Event::TunnelMtu { peer, .. } => *peer != client.peer(),
            Event::Introduced { .. } | Event::HandshakeFailed { .. } => false,
        }
    }
}
