//! The server's end: listening sockets, and a peer for every router.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ::log::info;

use super::setup;
use crate::bond::{PeerConfig, PeerId};
use crate::config::{Config, Peer};
use crate::io::timer::now;
use crate::io::{Driver, SocketOptions};
use crate::net::Desired;

/// The server's peers.
pub struct Server {
    peers: BTreeMap<PeerId, Peer>,
}

impl Server {
    /// Without peers.
    pub fn new() -> Self {
        Server { peers: BTreeMap::new() }
    }

    /// Opens the sockets and adds the peers.
    pub fn start(&mut self, config: &Config, driver: &mut Driver) -> Result<(), super::Error> {
        let configured = &config.globals.listen_addresses;
        let any = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let addresses = if configured.is_empty() { &any[..] } else { &configured[..] };
        for port in &config.globals.listen_ports {
            let mut opened = 0;
            for address in addresses {
                let options = SocketOptions::new(SocketAddr::new(*address, *port));
                match driver.open_socket(options) {
                    Ok(_) => opened += 1,
                    // A machine without IPv6 can serve IPv4 all the same.
                    Err(error) if configured.is_empty() && address.is_ipv6() && opened > 0 => {
                        info!("no IPv6 on port {port}: {error}");
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.reconfigure(config, driver)
    }

    /// Adds, changes and removes peers as the configuration wants them; nobody else is disturbed.
    pub fn reconfigure(&mut self, config: &Config, driver: &mut Driver) -> Result<(), super::Error> {
        let at = now();
        let gone: Vec<_> = self
            .peers
            .iter()
            .filter(|(_, old)| !config.peers.iter().any(|new| new.public_key == old.public_key))
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            driver.endpoint.remove_peer(id, at);
            self.peers.remove(&id);
        }
        for peer in &config.peers {
            let known = self.peers.iter().find(|(_, old)| old.public_key == peer.public_key);
            match known.map(|(id, old)| (*id, old == peer)) {
                Some((_, true)) => {}
                Some((id, false)) => {
                    driver.endpoint.update_peer(id, peer_config(peer), at);
                    self.peers.insert(id, peer.clone());
                }
                None => {
                    let id = driver.endpoint.add_peer(peer_config(peer), at);
                    self.peers.insert(id, peer.clone());
                }
            }
        }
        Ok(())
    }

    /// The configured name of a peer.
    pub fn name(&self, peer: PeerId) -> String {
        self.peers.get(&peer).map_or_else(|| format!("peer {}", peer.0), |p| p.name.clone())
    }

    /// All names.
    pub fn names(&self) -> BTreeMap<u32, String> {
        self.peers.iter().map(|(id, peer)| (id.0, peer.name.clone())).collect()
    }
}

/// Routes to what is behind the peers.
pub fn network(config: &Config, index: u32, desired: &mut Desired) {
    let own =
        |net: &crate::config::value::IpNet| config.bond.addresses.iter().any(|own| own.contains(net.address));
    for peer in &config.peers {
        let lans = peer.lans.iter().chain(peer.addresses.iter().filter(|net| !own(net)));
        for net in lans {
            desired.routes.push(setup::route(setup::destination(net), index, config.bond.metric));
        }
    }
    for net in &config.bond.routes {
        desired.routes.push(setup::route(setup::destination(net), index, config.bond.metric));
    }
}

fn peer_config(peer: &Peer) -> PeerConfig {
    PeerConfig {
        public_key: setup::public_key(&peer.public_key),
        preshared_key: setup::preshared_key(&peer.preshared_key),
        initiator: false,
        allowed: peer.addresses.iter().chain(&peer.lans).map(setup::prefix).collect(),
        policy: None,
        upload: peer.download.map(|rate| rate.0),
    }
}
