//! From which socket to which of the server's addresses each link sends, and how it asks for them.

use std::net::{IpAddr, SocketAddr};

use super::Client;
use super::link::Link;
use crate::bond::sorted::insert_by_key;
use crate::bond::{LinkState, Path, Time};
use crate::config;
use crate::config::value::Host;
use crate::daemon::names::Query;
use crate::io::SocketOptions;
use crate::net::resolver::Way;
use crate::net::{Family, Prefix};

impl Client {
    /// From which socket to which address a link is to send; otherwise why it cannot.
    pub(super) fn wanted(&self, link: &Link) -> Result<(SocketOptions, SocketAddr), String> {
        let place = link.place.as_ref().map_err(String::clone)?;
        let Some(device) = &place.resolved.device else { return Err("it has no device".into()) };
        if !place.resolved.up {
            return Err(match &link.config.interface {
                Some(interface) => format!("interface '{interface}' is down"),
                None => format!("device '{device}' is down or has no carrier"),
            });
        }
        if place.resolved.paths.is_empty() {
            return Err(format!("device '{device}' has no address"));
        }
        let candidates = self.candidates(link);
        let current = link.connection.as_ref().map(|connection| connection.remote);
        let position = current.and_then(|remote| candidates.iter().position(|(_, c)| *c == remote));
        let chosen = match (position, link.state) {
            // What works is not changed, whatever the name servers say.
            (Some(position), Some(LinkState::Up | LinkState::Suspect)) => candidates.get(position),
            _ => candidates.get(link.turn.checked_rem(candidates.len()).unwrap_or(0)),
        };
        let Some((local, remote)) = chosen else { return Err(self.no_server(link)) };

        let port = link.config.local_port.unwrap_or(0);
        let mut options = SocketOptions::new(SocketAddr::new(*local, port));
        options.device = self.own_device(link).cloned();
        options.mark = Some(link.config.mark.value);
        Ok((options, *remote))
    }

    /// Paths to another server from the sockets that the links have, those of the best link first.
    pub fn paths_to(&self, server: &config::Server) -> Vec<Path> {
        let connected = self.links.iter().filter(|link| !link.taken_out);
        let mut best_first = Vec::new();
        for with_connection in connected.filter_map(|link| Some((link, link.connection.as_ref()?))) {
            insert_by_key(&mut best_first, with_connection, |(link, _)| {
                let metered = (link.last_resort, link.config.quota.is_some());
                (link.state != Some(LinkState::Up), metered, link.config.priority)
            });
        }
        let mut paths = Vec::new();
        for (link, connection) in best_first {
            let (socket, from) = (connection.socket, connection.options.address.ip());
            let candidates = self.candidates_of(link, server).into_iter();
            let candidates = candidates.filter(|(local, _)| *local == from);
            paths.extend(candidates.map(|(_, remote)| Path { socket, local: Some(from), remote }));
        }
        paths
    }

    /// Whether a link has an address from which another server could be reached.
    pub fn can_reach(&self, server: &config::Server) -> bool {
        self.links.iter().any(|link| !link.taken_out && !self.candidates_of(link, server).is_empty())
    }

    /// Whether any link has a place.
    pub fn is_placed_somewhere(&self) -> bool {
        self.links.iter().any(|link| link.place.as_ref().is_ok_and(|place| place.resolved.up))
    }

    /// The device of a link, if no other link has it: to that its sockets are bound.
    fn own_device<'a>(&self, link: &'a Link) -> Option<&'a String> {
        let device = link.device()?;
        let shared = |other: &Link| other.id != link.id && other.device() == Some(device);
        (!self.links.iter().any(shared)).then_some(device)
    }

    /// The servers' names that links have to ask for now. Their routes must be set. `sought` are those of servers on
    /// standby that are called in vain: they may have moved.
    pub fn queries(&mut self, sought: &[&str], now: Time) -> Vec<Query> {
        let can_ask = |link: &Link| {
            !link.taken_out
                && link
                    .place
                    .as_ref()
                    .is_ok_and(|place| place.resolved.up && !place.resolved.paths.is_empty())
        };
        let of = |name: &str| self.links.iter().find(|link| link.config.name == name);
        let is_answered = |link: &str, name: &str| {
            let link = of(link).filter(|link| can_ask(link))?;
            Some(link.is_alive() && (link.calls(name) || !sought.contains(&name)))
        };
        let due = self.names.due(is_answered, now);
        due.into_iter().filter_map(|(link, name)| self.query(of(&link)?, name)).collect()
    }

    fn query(&self, link: &Link, name: String) -> Option<Query> {
        let place = link.place.as_ref().ok()?;
        let configured = &link.config.name_servers;
        let exclusive = !configured.is_empty();
        let servers = if exclusive { configured } else { &place.resolved.name_servers };
        let sources = Family::ALL.into_iter().filter_map(|family| place.resolved.path(family));
        let way = Way {
            device: self.own_device(link).cloned(),
            index: place.index,
            mark: Some(link.config.mark.value),
            sources: sources.map(|path| path.address).collect(),
            servers: servers.clone(),
        };
        let networks = place.resolved.paths.iter().map(|path| Prefix::new(path.address, path.prefix_len));
        Some(Query { link: link.config.name.clone(), name, way, networks: networks.collect(), exclusive })
    }

    /// All pairs of an address of the link and one of the server, in the order of the configuration.
    pub(super) fn candidates(&self, link: &Link) -> Vec<(IpAddr, SocketAddr)> {
        self.pairs(link, &link.config.servers, link.config.remote_port)
    }

    fn candidates_of(&self, link: &Link, server: &config::Server) -> Vec<(IpAddr, SocketAddr)> {
        let known = server.links.get(&link.config.name);
        known.map_or_else(Vec::new, |(hosts, port)| self.pairs(link, hosts, *port))
    }

    fn pairs(&self, link: &Link, hosts: &[Host], port: u16) -> Vec<(IpAddr, SocketAddr)> {
        let Ok(place) = &link.place else { return Vec::new() };
        let mut candidates = Vec::new();
        for host in hosts {
            let addresses = match host {
                Host::Address(address) => std::slice::from_ref(address),
                Host::Name(name) => self.names.addresses(&link.config.name, name),
            };
            for address in addresses {
                if let Some(path) = place.resolved.path(Family::of(*address)) {
                    candidates.push((path.address, SocketAddr::new(*address, port)));
                }
            }
        }
        candidates
    }

    fn no_server(&self, link: &Link) -> String {
        let mut known = false;
        for host in &link.config.servers {
            match host {
                Host::Address(_) => known = true,
                Host::Name(name) => match self.names.error(&link.config.name, name) {
                    _ if !self.names.addresses(&link.config.name, name).is_empty() => known = true,
                    Some(error) => return format!("the server's name '{name}' cannot be resolved: {error}"),
                    None => return format!("resolving the server's name '{name}'"),
                },
            }
        }
        match known {
            true => "it has no address of the server's IP version".into(),
            false => "no server is configured".into(),
        }
    }
}
