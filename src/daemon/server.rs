//! The server's side: its sockets and the routers that may connect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::events::unix_ms;
use super::introduction::Invited;
use super::mapping;
use crate::bond::keys::PresharedKey;
use crate::bond::sorted::SortedMap;
use crate::bond::{Handling, PeerId, SocketId, Time};
use crate::config::{self, Config};
use crate::io::udp::OpenError;
use crate::io::{Driver, Socket, SocketOptions};

struct Router {
    id: PeerId,
    config: config::Peer,
    handling: Option<Handling>,
}

/// The sockets and peers of a server.
#[derive(Default)]
pub struct Server {
    sockets: SortedMap<SocketAddr, SocketId>,
    routers: Vec<Router>,
    /// Who may introduce itself, by the number that the core knows it by.
    invited: SortedMap<u32, Invited>,
    next_invitation: u32,
}

impl Server {
    /// Opens the sockets and introduces the peers to the core.
    ///
    /// # Errors
    ///
    /// When none of the sockets could be opened: why the first one could not.
    pub fn new(config: &Config, driver: &mut Driver, now: Time) -> Result<Server, OpenError> {
        let mut server = Server::default();
        let mut failed = server.listen(config, driver);
        if server.sockets.is_empty() && !failed.is_empty() {
            return Err(failed.swap_remove(0));
        }
        for error in failed {
            log::warn!("{error}");
        }
        server.take_peers(config, driver, now);
        Ok(server)
    }

    /// Takes another configuration: adds, changes and removes what differs, and leaves the rest alone.
    pub fn configure(&mut self, config: &Config, driver: &mut Driver, now: Time) {
        for error in self.listen(config, driver) {
            log::warn!("{error}");
        }
        self.take_peers(config, driver, now);
    }

    /// Opens what could not be opened before, because an address was not there yet; closes what is no longer wanted.
    /// Returns what went wrong.
    pub fn listen(&mut self, config: &Config, driver: &mut Driver) -> Vec<OpenError> {
        let wanted = addresses(config);
        self.sockets.retain(|address, socket| {
            let keep = wanted.contains(address);
            if !keep {
                driver.remove_socket(*socket);
            }
            keep
        });
        let mut failed = Vec::new();
        for address in wanted {
            if self.sockets.contains_key(&address) {
                continue;
            }
            match Socket::open(SocketOptions::new(address)) {
                Ok(socket) => {
                    log::info!("listening on {address}");
                    self.sockets.insert(address, driver.add_socket(socket));
                }
                // A kernel without IPv6, when all addresses are wanted.
                Err(OpenError::Io { source, .. })
                    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
                        && source.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                Err(error) => failed.push(error),
            }
        }
        failed
    }

    /// A socket can never send again: opens it anew.
    pub fn socket_gone(&mut self, socket: SocketId, config: &Config, driver: &mut Driver) {
        driver.remove_socket(socket);
        self.sockets.retain(|_, id| *id != socket);
        for error in self.listen(config, driver) {
            log::warn!("{error}");
        }
    }

    /// The addresses that it listens on.
    pub fn listening(&self) -> impl Iterator<Item = &SocketAddr> {
        self.sockets.keys()
    }

    /// Whether it listens on every address that it should.
    pub fn is_complete(&self, config: &Config) -> bool {
        self.sockets.len() == addresses(config).len()
    }

    /// The first peer: kernel mode has one only.
    pub fn first(&self) -> Option<PeerId> {
        self.routers.first().map(|router| router.id)
    }

    /// The section's name of a peer.
    pub fn name(&self, peer: PeerId) -> Option<&str> {
        self.routers.iter().find(|router| router.id == peer).map(|router| router.config.name.as_str())
    }

    /// All names, by the peers' numbers.
    pub fn names(&self) -> SortedMap<u32, String> {
        self.routers.iter().map(|router| (router.id.0, router.config.name.clone())).collect()
    }

    fn take_peers(&mut self, config: &Config, driver: &mut Driver, now: Time) {
        driver.keep_apart(!config.globals.client_to_client);
        self.routers.retain(|router| {
            let keep = config.peers.iter().any(|peer| same_key(peer, &router.config));
            if !keep {
                driver.endpoint_mut().remove_peer(router.id, now);
                driver.set_ranges(router.id, &[]);
            }
            keep
        });
        for peer in &config.peers {
            let Some(core) = mapping::router(peer, config) else { continue };
            let allowed = core.allowed.clone();
            let known = self.routers.iter_mut().find(|r| same_key(&r.config, peer));
            let id = match known {
                Some(router) => {
                    if router.config != *peer || router.handling != core.handling {
                        router.handling = core.handling;
                        driver.endpoint_mut().update_peer(router.id, core, now);
                        router.config = peer.clone();
                    }
                    router.id
                }
                None => {
                    let handling = core.handling;
                    let id = driver.endpoint_mut().add_peer(core, now);
                    self.routers.push(Router { id, config: peer.clone(), handling });
                    id
                }
            };
            driver.set_ranges(id, &allowed);
        }
        // A number is used once, so that a late answer to an old invitation is not taken for one to another.
        self.invited = (self.next_invitation..).zip(config.peers.iter().filter_map(Invited::of)).collect();
        self.next_invitation =
            self.next_invitation.wrapping_add(u32::try_from(self.invited.len()).unwrap_or(0));
        self.invite(driver);
    }

    /// Tells the core whose time is not over.
    fn invite(&mut self, driver: &mut Driver) {
        let seconds = unix_ms() / 1_000;
        self.invited.retain(|_, invited| !invited.is_over(seconds));
        let secret = |invited: &Invited| PresharedKey::from_bytes(*invited.secret.as_bytes());
        let secrets = self.invited.iter().map(|(number, invited)| (*number, secret(invited)));
        driver.endpoint_mut().set_invitations(secrets.collect());
    }

    /// Ends the invitations whose time is over.
    pub fn tick(&mut self, driver: &mut Driver) {
        let seconds = unix_ms() / 1_000;
        if self.invited.values().any(|invited| invited.is_over(seconds)) {
            self.invite(driver);
        }
    }

    /// The invitation that a router has answered; it counts no more.
    pub fn take_invited(&mut self, number: u32) -> Option<Invited> {
        self.invited.remove(&number)
    }
}

fn same_key(one: &config::Peer, other: &config::Peer) -> bool {
    one.public_key.is_some() && one.public_key == other.public_key
}

/// The addresses that the configuration asks for.
fn addresses(config: &Config) -> Vec<SocketAddr> {
    let all = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let hosts = match config.globals.listen_addresses.as_slice() {
        [] => all.as_slice(),
        some => some,
    };
    let ports = &config.globals.listen_ports;
    hosts.iter().flat_map(|host| ports.iter().map(|port| SocketAddr::new(*host, *port))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    fn listen(options: &str) -> Vec<String> {
        let text = format!(
            "config globals\n option role server\n{options}\nconfig interface 'bond'\n option ipaddr '10.0.0.1/24'\n"
        );
        let report = load(&text, "test");
        let config = report.config.unwrap_or_else(|| panic!("{:?}", report.problems));
        addresses(&config).iter().map(SocketAddr::to_string).collect()
    }

    #[test]
    fn every_address_with_every_port() {
        assert_eq!(listen(""), ["0.0.0.0:5510", "[::]:5510"]);
        assert_eq!(
            listen(" list listen_port 1194\n list listen_port 1195\n option listen_address 192.0.2.1"),
            ["192.0.2.1:1194", "192.0.2.1:1195"]
        );
    }
}
