//! The router's end: one socket for each link, and the routing that keeps the links apart.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ::log::{debug, info, warn};

use super::control::LinkAction;
use super::setup;
use crate::bond::{IpPrefix, LinkConfig, Path, PeerConfig, PeerId, SocketId};
use crate::config::value::Host;
use crate::config::{self, Config};
use crate::io::timer::now;
use crate::io::{Driver, SocketOptions};
use crate::net::netifd::{InterfaceResolver, Resolved, Static, Ubus};
use crate::net::source::{LinkPath, source_routing};
use crate::net::sysctl::Sysctls;
use crate::net::{Desired, Family, Mark, Netlink, Prefix};

/// How long the name of a server may take to be resolved.
const LOOKUP_LIMIT: Duration = Duration::from_secs(4);

/// The links of the router.
pub struct Client {
    peer: PeerId,
    links: Vec<Link>,
    sysctls: Sysctls,
}

struct Link {
    config: config::Link,
    /// Taken out by hand, until it is put back.
    switched_off: bool,
    state: Option<Attached>,
}

/// A link with address and server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attached {
    socket: SocketId,
    device: String,
    index: u32,
    address: IpAddr,
    prefix_len: u8,
    gateway: Option<IpAddr>,
    remote: SocketAddr,
}

impl Client {
    /// The links as configured, not attached to anything yet.
    pub fn new(config: &Config) -> Self {
        let link = |config: &config::Link| Link { config: config.clone(), switched_off: false, state: None };
        Client { peer: PeerId(0), links: config.links.iter().map(link).collect(), sysctls: Sysctls::new() }
    }

    /// Tells the core of the server and the links.
    pub fn start(&mut self, config: &Config, driver: &mut Driver) {
        if let Some(peer) = server_config(config) {
            self.peer = driver.endpoint.add_peer(peer, now());
        }
        for at in 0..self.links.len() {
            self.tell(at, driver);
        }
    }

    /// Takes over what changed in the configuration.
    pub fn reconfigure(&mut self, config: &Config, driver: &mut Driver) {
        if let Some(peer) = server_config(config) {
            driver.endpoint.update_peer(self.peer, peer, now());
        }
        for old in std::mem::take(&mut self.links) {
            match config.links.iter().find(|new| new.name == old.config.name) {
                Some(new) if new.position == old.config.position => {
                    self.links.push(Link { config: new.clone(), ..old });
                }
                _ => {
                    driver.endpoint.remove_link(self.peer, old.id(), now());
                    driver.flush();
                    if let Some(attached) = &old.state {
                        driver.close_socket(attached.socket);
                    }
                }
            }
        }
        for new in &config.links {
            if !self.links.iter().any(|link| link.config.name == new.name) {
                self.links.push(Link { config: new.clone(), switched_off: false, state: None });
            }
        }
        for at in 0..self.links.len() {
            self.tell(at, driver);
        }
    }

    /// Takes a link out, puts it back, or opens it anew. False when there is no such link.
    pub fn switch(&mut self, name: &str, action: LinkAction, driver: &mut Driver) -> bool {
        let Some(at) = self.links.iter().position(|link| link.config.name == name) else { return false };
        if let Some(link) = self.links.get_mut(at) {
            link.switched_off = action == LinkAction::Down;
            if action == LinkAction::Reconnect {
                if let Some(attached) = link.state.take() {
                    driver.close_socket(attached.socket);
                }
            }
        }
        self.tell(at, driver);
        true
    }

    /// Finds out where each link is now and follows it.
    pub async fn follow(&mut self, config: &Config, driver: &mut Driver, netlink: &Netlink) {
        for at in 0..self.links.len() {
            let Some(link) = self.links.get(at) else { continue };
            let found = locate(&link.config, config, netlink).await;
            self.attach(at, found, driver);
        }
    }

    /// A link lacks an address or a server.
    pub fn is_unfinished(&self) -> bool {
        self.links.iter().any(|link| link.state.is_none())
    }

    /// Routes and rules of the links and, while the bond is `up`, the default route into it.
    pub fn network(&self, config: &Config, index: u32, up: bool, desired: &mut Desired) {
        let mut paths = Vec::new();
        for link in &self.links {
            let Some(attached) = &link.state else { continue };
            let mark = link.config.mark;
            paths.push(LinkPath {
                index: attached.index,
                address: attached.address,
                prefix_len: attached.prefix_len,
                gateway: attached.gateway,
                mark: Mark { value: mark.value, mask: mark.mask },
                table: link.config.table_number(named_table),
                number: link.config.position,
            });
        }
        let made = source_routing(&paths, config.globals.rule_priority);
        desired.routes.extend(made.routes);
        desired.rules.extend(made.rules);
        let bond = |net: Prefix| setup::route(net, index, config.bond.metric);
        desired.routes.extend(config.bond.routes.iter().map(|net| bond(setup::destination(net))));
        if !up || !config.bond.default_route {
            return;
        }
        // Two halves are more specific than any default route, whatever its metric, and vanish with the device.
        let families = [
            (Family::V4, [Ipv4Addr::new(0, 0, 0, 0).into(), Ipv4Addr::new(128, 0, 0, 0).into()]),
            (
                Family::V6,
                [IpAddr::from(Ipv6Addr::UNSPECIFIED), Ipv6Addr::new(0x8000, 0, 0, 0, 0, 0, 0, 0).into()],
            ),
        ];
        for (family, halves) in families {
            if config.bond.addresses.iter().any(|net| Family::of(net.address) == family) {
                desired.routes.extend(halves.into_iter().map(|half| bond(Prefix::new(half, 1))));
            }
        }
    }

    /// The interface or device of each link.
    pub fn interfaces(&self) -> BTreeMap<String, String> {
        let name = |link: &Link| {
            let configured = link.config.interface.clone().or_else(|| link.config.device.clone());
            configured.or_else(|| link.state.as_ref().map(|s| s.device.clone())).unwrap_or_default()
        };
        self.links.iter().map(|link| (link.config.name.clone(), name(link))).collect()
    }

    /// Puts back the switches of the kernel that were changed.
    pub fn restore(&mut self) {
        if let Err(error) = self.sysctls.restore() {
            warn!("{error}");
        }
    }

    /// Takes over where a link is.
    fn attach(&mut self, at: usize, found: Option<Place>, driver: &mut Driver) {
        let Some(link) = self.links.get_mut(at) else { return };
        let (old, new) = (link.state.take(), found);
        let name = &link.config.name;
        let same = |old: &Attached, new: &Place| {
            (old.index, old.address, &old.device) == (new.index, new.address, &new.device)
                && driver.socket(old.socket).is_some()
        };
        link.state = match (old, new) {
            (Some(old), Some(new)) if same(&old, &new) => {
                Some(Attached { gateway: new.gateway, prefix_len: new.prefix_len, remote: new.remote, ..old })
            }
            (old, new) => {
                let was = old.as_ref().map(|old| old.address);
                let port = old.and_then(|old| driver.close_socket(old.socket)?.preferred_port);
                match new {
                    None => {
                        if was.is_some() {
                            warn!("link {name} has lost its address or its route");
                        }
                        None
                    }
                    Some(place) => {
                        let socket = open(&link.config, &place, port, driver);
                        socket.map(|socket| place.attached(socket))
                    }
                }
            }
        };
        if let Some(attached) = &link.state {
            debug!("link {name}: {attached:?}");
            if let Err(error) = self.sysctls.relax_rp_filter(&attached.device) {
                debug!("{error}");
            }
        }
        self.tell(at, driver);
    }

    /// Tells the core what a link is like.
    fn tell(&mut self, at: usize, driver: &mut Driver) {
        let Some(link) = self.links.get(at) else { return };
        let path = link.state.as_ref().map(|attached| Path {
            socket: attached.socket,
            local: None,
            remote: attached.remote,
        });
        let config = &link.config;
        let told = LinkConfig {
            id: link.id(),
            name: config.name.clone(),
            path,
            enabled: !link.switched_off,
            upload: config.upload.map(|rate| rate.0),
            download: config.download.map(|rate| rate.0),
            priority: config.priority,
            weight: config.weight.unwrap_or_else(|| weight_of(config)),
            mtu: config.mtu,
        };
        driver.endpoint.set_link(self.peer, told, now());
    }
}

impl Link {
    fn id(&self) -> u8 {
        (self.config.position % crate::bond::MAX_LINKS as u32) as u8
    }
}

/// Where a link is.
struct Place {
    device: String,
    index: u32,
    address: IpAddr,
    prefix_len: u8,
    gateway: Option<IpAddr>,
    remote: SocketAddr,
}

impl Place {
    fn attached(self, socket: SocketId) -> Attached {
        Attached {
            socket,
            device: self.device,
            index: self.index,
            address: self.address,
            prefix_len: self.prefix_len,
            gateway: self.gateway,
            remote: self.remote,
        }
    }
}

/// Without a weight, the configured rate counts, in Mbit/s.
fn weight_of(link: &config::Link) -> u32 {
    link.upload.map_or(1, |rate| u32::try_from(rate.0 / 100_000).unwrap_or(u32::MAX).clamp(1, 10_000))
}

async fn locate(link: &config::Link, config: &Config, netlink: &Netlink) -> Option<Place> {
    let protocol = config.globals.route_protocol;
    let resolved = match &link.interface {
        Some(interface) => Ubus::default().resolve(interface).await,
        None => resolve_static(link, protocol, netlink).await,
    };
    let resolved = match resolved {
        Ok(resolved) => resolved,
        Err(error) => {
            debug!("link {}: {error}", link.name);
            return None;
        }
    };
    let device = resolved.device.clone().filter(|_| resolved.up)?;
    let index = netlink.link_by_name(&device).await.ok()?.index;
    for server in &link.servers {
        for server in lookup(server, link.remote_port).await {
            if let Some(path) = resolved.path(Family::of(server.ip())) {
                return Some(Place {
                    device,
                    index,
                    address: path.address,
                    prefix_len: path.prefix_len,
                    gateway: path.gateway,
                    remote: server,
                });
            }
        }
    }
    None
}

/// Device, addresses and gateways by hand: each family by itself.
async fn resolve_static(
    link: &config::Link,
    protocol: u8,
    netlink: &Netlink,
) -> Result<Resolved, crate::net::netifd::ResolveError> {
    let families = [(link.ipaddr, link.gateway), (link.ip6addr, link.ip6gateway)];
    let mut merged: Option<Resolved> = None;
    for (address, gateway) in families {
        let mut resolver = Static::new(netlink.clone(), protocol, link.device.clone());
        resolver.address = address.map(|net| net.address);
        resolver.gateway = gateway;
        if address.is_none() && (gateway.is_none() && merged.is_some()) {
            continue;
        }
        let found = resolver.resolve(&link.name).await?;
        match &mut merged {
            None => merged = Some(found),
            Some(merged) => merged.paths.extend(found.paths),
        }
    }
    Ok(merged.unwrap_or(Resolved { up: false, device: None, paths: Vec::new() }))
}

async fn lookup(server: &Host, port: u16) -> Vec<SocketAddr> {
    match server {
        Host::Address(address) => vec![SocketAddr::new(*address, port)],
        Host::Name(name) => {
            let lookup = tokio::net::lookup_host((name.as_str(), port));
            match tokio::time::timeout(LOOKUP_LIMIT, lookup).await {
                Ok(Ok(addresses)) => addresses.collect(),
                Ok(Err(error)) => {
                    info!("cannot resolve {name}: {error}");
                    Vec::new()
                }
                Err(_) => {
                    info!("cannot resolve {name} within {} s", LOOKUP_LIMIT.as_secs());
                    Vec::new()
                }
            }
        }
    }
}

fn open(link: &config::Link, place: &Place, port: Option<u16>, driver: &mut Driver) -> Option<SocketId> {
    let mut options = SocketOptions::new(SocketAddr::new(place.address, link.local_port.unwrap_or(0)));
    options.preferred_port = port;
    options.device = Some(place.device.clone());
    options.mark = Some(link.mark.value);
    match driver.open_socket(options) {
        Ok(socket) => Some(socket),
        Err(error) => {
            warn!("link {}: {error}", link.name);
            None
        }
    }
}

fn server_config(config: &Config) -> Option<PeerConfig> {
    Some(PeerConfig {
        public_key: setup::public_key(config.bond.public_key.as_ref()?),
        preshared_key: setup::preshared_key(&config.bond.preshared_key),
        initiator: true,
        allowed: vec![IpPrefix::ALL_V4, IpPrefix::ALL_V6],
        policy: Some(setup::policy(config.bond.policy)),
        upload: None,
    })
}

/// The number of a table in the system's list of names.
fn named_table(name: &str) -> Option<u32> {
    let text = std::fs::read_to_string("/etc/iproute2/rt_tables").ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let number = words.next()?.parse().ok()?;
        (words.next()? == name).then_some(number)
    })
}
