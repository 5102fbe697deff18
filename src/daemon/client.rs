//! The router's side: its links, where they are, and which socket each one sends from.
//!
//! A link goes through three hands: it is *placed* (device, address and gateway are found, [`super::places`]), its routes
//! and rules are *settled* in the kernel ([`super::network`]), and only then is it *connected*: a socket is opened and
//! the core told of the path. So no packet of a link ever leaves by another one's gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::control::LinkAction;
use super::desired::{self, DefaultRoute, Tunnel};
use super::mapping;
use super::outside::Exit;
use super::places::Names;
use super::quota::{self, Quotas};
use super::status::LinkPlace;
use crate::bond::status::EndpointStatus;
use crate::bond::{Class, Handling, LinkConfig, LinkId, LinkState, MAX_LINKS, Path, PeerId, SocketId, Time};
use crate::config::key::{PublicKey, Secret};
use crate::config::value::Host;
use crate::config::{self, Config};
use crate::io::{Driver, Socket, SocketOptions};
use crate::net::netifd::Resolved;
use crate::net::source::LinkPath;
use crate::net::{Desired, Family};

/// A link that is not up for so long tries the server's next address, where it has several.
const ROTATE: Duration = Duration::from_secs(10);

/// After the start the bond has the default route for so long, before it is up: what the LAN sends in its connections
/// inside the bond must not leave through a WAN meanwhile, where it would be answered with a reset.
const START: Duration = Duration::from_secs(1);

/// Links that fall silent within this time did so for one reason, most likely the server's.
const TOGETHER: Duration = Duration::from_secs(15);

/// Where a link is, with the index of its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Device, addresses and gateways.
    pub resolved: Resolved,
    /// Index of the device.
    pub index: u32,
}

/// The answer to where a link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placing {
    /// There.
    At(Place),
    /// Nowhere: why.
    Nowhere(String),
    /// Who was asked could not tell: why. What was known before is kept.
    NotAnswered(String),
}

struct Connection {
    socket: SocketId,
    options: SocketOptions,
    remote: SocketAddr,
}

struct Link {
    id: LinkId,
    config: config::Link,
    table: u32,
    /// Taken out by hand.
    taken_out: bool,
    /// Its quota is used up.
    last_resort: bool,
    place: Result<Place, String>,
    connection: Option<Connection>,
    /// Port of the last socket, kept so that a NAT on the way keeps its mapping.
    last_port: Option<u16>,
    /// Counts the server's addresses that were tried.
    turn: usize,
    turned: Time,
    /// What the core was told.
    told: Option<LinkConfig>,
    state: Option<LinkState>,
    /// When it last ceased to carry traffic.
    heard: Option<Time>,
    /// Its smallest round trip lately, when the server answered.
    round_trip: Option<Duration>,
    /// Why there is no path; empty when there is one.
    note: String,
}

/// What the core is told of the server.
#[derive(PartialEq, Eq)]
struct Identity {
    public_key: Option<PublicKey>,
    preshared_key: Option<Secret>,
    policy: config::Policy,
    handling: Handling,
}

impl Identity {
    fn of(config: &Config) -> Self {
        Identity {
            public_key: config.bond.public_key,
            preshared_key: config.bond.preshared_key.clone(),
            policy: config.bond.policy,
            handling: mapping::handling(config),
        }
    }
}

/// The links of the bond and the server at their other end.
pub struct Client {
    peer: PeerId,
    identity: Identity,
    links: Vec<Link>,
    /// Where the search for a free number begins.
    next_id: LinkId,
    names: Names,
    up: bool,
    /// When it was started, as long as that counts: until the bond is up for the first time, or has not come up in
    /// [`START`].
    starting: Option<Time>,
    /// The classes of traffic that the core was told.
    classes: Vec<Class>,
    quotas: Quotas,
}

impl Client {
    /// Introduces the server to the core. The links have no paths yet. `None` without a key of the server.
    pub fn new(config: &Config, driver: &mut Driver, now: Time) -> Option<Client> {
        let peer = driver.endpoint_mut().add_peer(mapping::server(config)?, now);
        let identity = Identity::of(config);
        let mut client = Client {
            peer,
            identity,
            links: Vec::new(),
            next_id: 0,
            names: Names::default(),
            up: false,
            starting: Some(now),
            classes: Vec::new(),
            quotas: Quotas::load(
                config.globals.control_socket.with_extension("usage"),
                config.globals.state_dir.join(quota::NAME),
                now,
            ),
        };
        client.take_links(config, driver, now);
        client.take_classes(config, driver, now);
        Some(client)
    }

    /// Takes another configuration: adds, changes and removes what differs, and leaves the rest alone. Follow with
    /// [`Client::desired`].
    pub fn configure(&mut self, config: &Config, driver: &mut Driver, now: Time) {
        let identity = Identity::of(config);
        if identity != self.identity
            && let Some(server) = mapping::server(config)
        {
            let endpoint = driver.endpoint_mut();
            if identity.public_key == self.identity.public_key {
                endpoint.update_peer(self.peer, server, now);
            } else {
                endpoint.remove_peer(self.peer, now);
                self.peer = endpoint.add_peer(server, now);
                self.up = false;
                self.classes.clear();
                for link in &mut self.links {
                    link.told = None;
                    link.state = None;
                }
            }
            self.identity = identity;
        }
        self.take_links(config, driver, now);
        self.take_classes(config, driver, now);
    }

    /// The server, in the core.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Whether traffic can pass.
    pub fn is_up(&self) -> bool {
        self.up
    }

    /// The core has told of the server: up or down.
    pub fn set_up(&mut self, up: bool) {
        self.up = up;
        self.starting = None;
    }

    /// The core has told of a link.
    pub fn set_state(&mut self, id: LinkId, state: LinkState, now: Time) {
        if let Some(link) = self.links.iter_mut().find(|link| link.id == id) {
            if link.is_alive() {
                link.heard = Some(now);
            }
            link.state = Some(state);
        }
    }

    /// Remembers how quick the links are, for the time when none answers.
    pub fn remember_round_trips(&mut self, status: &EndpointStatus) {
        let peer = status.peers.iter().find(|peer| peer.peer == self.peer.0);
        for known in peer.into_iter().flat_map(|peer| &peer.links) {
            if let (Some(link), Some(ms)) =
                (self.links.iter_mut().find(|link| link.id == known.id), known.rtt_min_ms)
            {
                link.round_trip = Some(Duration::from_secs_f64(ms.max(0.0) / 1_000.0));
            }
        }
    }

    /// The links' configurations, for [`super::places::resolve_link`].
    pub fn links(&self) -> impl Iterator<Item = &config::Link> {
        self.links.iter().map(|link| &link.config)
    }

    /// The links' configurations by their numbers in the core.
    pub fn numbered_links(&self) -> impl Iterator<Item = (LinkId, &config::Link)> {
        self.links.iter().map(|link| (link.id, &link.config))
    }

    /// The names of servers.
    pub fn names_mut(&mut self) -> &mut Names {
        &mut self.names
    }

    /// Takes the answer to where a link is. Returns whether it has moved.
    pub fn set_place(&mut self, name: &str, placing: Placing) -> bool {
        let Some(link) = self.links.iter_mut().find(|link| link.config.name == name) else { return false };
        let place = match placing {
            Placing::At(place) => Ok(place),
            Placing::Nowhere(why) => Err(why),
            Placing::NotAnswered(why) if link.place.is_ok() => {
                log::debug!("link {name}: {why}");
                return false;
            }
            Placing::NotAnswered(why) => Err(why),
        };
        if link.place == place {
            return false;
        }
        link.place = place;
        true
    }

    /// Whether every link has a device and an address.
    pub fn is_placed(&self) -> bool {
        self.links.iter().all(|link| link.connection.is_some())
    }

    /// What the kernel shall have, and the devices whose reverse path filter must be loose.
    pub fn desired(&self, config: &Config, tunnel: Tunnel) -> (Desired, BTreeSet<String>) {
        let mut paths = Vec::new();
        for link in &self.links {
            let Ok(place) = &link.place else { continue };
            for family in Family::ALL {
                let Some(path) = place.resolved.path(family) else { continue };
                paths.push(LinkPath {
                    index: place.index,
                    address: path.address,
                    prefix_len: path.prefix_len,
                    gateway: path.gateway,
                    mark: desired::mark(&link.config),
                    table: link.table,
                    number: link.config.position,
                });
            }
        }
        let exits: Vec<Exit> = self.links.iter().filter_map(Link::exit).collect();
        let default = self.default_route(config);
        let (desired, loose) = desired::client(config, tunnel, &paths, &exits, default);
        let device = |index: &u32| {
            let place = self.links.iter().filter_map(|link| link.place.as_ref().ok());
            place.into_iter().find(|place| place.index == *index)?.resolved.device.clone()
        };
        (desired, loose.iter().filter_map(device).collect())
    }

    /// Opens, changes and closes sockets, so that they fit what is known. To be called when the routes are settled.
    pub fn connect(&mut self, driver: &mut Driver, now: Time) {
        for i in 0..self.links.len() {
            let wanted = self.links.get(i).map(|link| self.wanted(link));
            if let (Some(link), Some(wanted)) = (self.links.get_mut(i), wanted) {
                link.connect(wanted, driver);
                link.tell(self.peer, driver, now);
            }
        }
    }

    /// Once a second: gives links that stay silent the server's next address. Returns whether [`Client::desired`] and
    /// [`Client::connect`] have something to do.
    pub fn tick(&mut self, now: Time) -> bool {
        let mut turned = self.starting.take_if(|start| now.since(*start) >= START).is_some();
        for i in 0..self.links.len() {
            let several = self.links.get(i).is_some_and(|link| self.candidates(link).len() > 1);
            let Some(link) = self.links.get_mut(i) else { continue };
            if link.state == Some(LinkState::Up) || link.state == Some(LinkState::Suspect) {
                link.turned = now;
            } else if several && now.since(link.turned) >= ROTATE {
                link.turn = link.turn.wrapping_add(1);
                link.turned = now;
                turned = true;
            }
        }
        turned
    }

    /// Once a second: counts what metered links have carried. Returns the names of those whose quota is used up now.
    pub fn meter(&mut self, driver: &mut Driver, unix_ms: u64, now: Time) -> Vec<String> {
        if self.links.iter().all(|link| link.config.quota.is_none()) {
            return Vec::new();
        }
        let bytes = driver.endpoint().link_bytes(self.peer);
        let mut used_up = Vec::new();
        for link in &mut self.links {
            let (_, sent, received) =
                bytes.iter().find(|(id, ..)| *id == link.id).copied().unwrap_or_default();
            if self.quotas.count(&link.config, sent, received, quota::day(unix_ms)) {
                used_up.push(link.config.name.clone());
            }
            link.last_resort = self.quotas.is_used_up(&link.config);
            if link.told.as_ref().is_some_and(|told| told.last_resort != link.last_resort) {
                link.tell(self.peer, driver, now);
            }
        }
        used_up
    }

    /// What links have used of their quotas, to be kept.
    pub fn quotas_mut(&mut self) -> &mut Quotas {
        &mut self.quotas
    }

    /// A socket can never send again. Returns the link to be placed anew.
    pub fn socket_gone(&mut self, socket: SocketId, driver: &mut Driver, now: Time) -> Option<String> {
        let owner = |link: &&mut Link| link.connection.as_ref().is_some_and(|c| c.socket == socket);
        let link = self.links.iter_mut().find(owner)?;
        link.disconnect(driver);
        link.place = Err("its device or address is gone".into());
        link.note = "its device or address is gone".into();
        link.tell(self.peer, driver, now);
        Some(link.config.name.clone())
    }

    /// Does what a person asks for. Follow with [`Client::connect`].
    ///
    /// # Errors
    ///
    /// When there is no such link: a sentence.
    pub fn act(
        &mut self,
        name: &str,
        action: LinkAction,
        driver: &mut Driver,
        now: Time,
    ) -> Result<(), String> {
        let names = || self.links.iter().map(|link| link.config.name.as_str()).collect::<Vec<_>>().join(", ");
        let known = names();
        let Some(link) = self.links.iter_mut().find(|link| link.config.name == name) else {
            return Err(format!("there is no link '{name}'; links: {known}"));
        };
        match action {
            LinkAction::Up => link.taken_out = false,
            LinkAction::Down => link.taken_out = true,
            LinkAction::Reconnect => {
                link.disconnect(driver);
                link.last_port = None;
                // The core is told of the new socket, not of a time without one.
                return Ok(());
            }
        }
        link.tell(self.peer, driver, now);
        Ok(())
    }

    /// Where a link is, or why it is nowhere; `None` if there is no such link.
    pub fn place(&self, name: &str) -> Option<Result<&Place, &str>> {
        let link = self.links.iter().find(|link| link.config.name == name)?;
        Some(link.place.as_ref().map_err(String::as_str))
    }

    /// Where the links are, by their names.
    pub fn places(&self) -> BTreeMap<String, LinkPlace> {
        let place = |link: &Link| LinkPlace {
            interface: link.config.interface.clone(),
            device: link.device().or(link.config.device.as_ref()).cloned(),
            table: link.table,
            mark: link.config.mark.to_string(),
            active: link.config.active,
            taken_out: link.taken_out,
            servers: link.config.servers.iter().map(Host::to_string).collect(),
            quota: self.quotas.status(&link.config),
            note: link.note.clone(),
        };
        self.links.iter().map(|link| (link.config.name.clone(), place(link))).collect()
    }

    /// Who is to carry what has no other route.
    fn default_route(&self, config: &Config) -> DefaultRoute {
        if !config.bond.default_route {
            return DefaultRoute::Untouched;
        }
        // Without an address of the server its name is to be resolved, which a bond that is down does not help.
        let about_to_be_up =
            self.starting.is_some() && self.links.iter().any(|link| !self.candidates(link).is_empty());
        if self.up || about_to_be_up {
            return DefaultRoute::Bond;
        }
        let placed = self.links.iter().filter(|link| !link.taken_out);
        let placed = placed.filter_map(|link| Some((link, link.place.as_ref().ok()?)));
        let latest = self.links.iter().filter_map(|link| link.heard).max();
        // One that was silent long before the bond went down has troubles of its own.
        let stale = |link: &Link| match (link.heard, latest) {
            _ if link.is_alive() => false,
            (Some(heard), Some(latest)) => latest.since(heard) > TOGETHER,
            (heard, latest) => heard.is_none() && latest.is_some(),
        };
        let best = placed.min_by_key(|(link, place)| {
            (
                !place.resolved.up || place.resolved.paths.is_empty(),
                stale(link),
                !link.config.active,
                link.round_trip.unwrap_or(Duration::MAX),
                link.config.priority,
            )
        });
        let Some((_, place)) = best.filter(|(_, place)| place.resolved.up) else {
            return DefaultRoute::Untouched;
        };
        let gateway = |family| place.resolved.path(family).map(|path| path.gateway);
        DefaultRoute::Link { index: place.index, v4: gateway(Family::V4), v6: gateway(Family::V6) }
    }

    /// Tells the core the rules for classes of traffic. To be called when the links have their numbers.
    fn take_classes(&mut self, config: &Config, driver: &mut Driver, now: Time) {
        let number = |name: &str| self.links.iter().find(|link| link.config.name == name).map(|link| link.id);
        let classes = mapping::classes(config, number);
        if classes != self.classes {
            driver.endpoint_mut().set_classes(self.peer, &classes, now);
            self.classes = classes;
        }
    }

    fn take_links(&mut self, config: &Config, driver: &mut Driver, now: Time) {
        let names = config.links.iter().flat_map(|link| &link.servers).filter_map(|host| match host {
            Host::Name(name) => Some(name.clone()),
            Host::Address(_) => None,
        });
        self.names.retain(names);

        let mut before = std::mem::take(&mut self.links);
        let kept = |link: &Link| config.links.iter().any(|wanted| wanted.name == link.config.name);
        for link in before.extract_if(.., |link| !kept(link)) {
            driver.endpoint_mut().remove_link(self.peer, link.id, now);
            if let Some(connection) = link.connection {
                driver.retire_socket(connection.socket);
            }
        }
        for wanted in &config.links {
            let table = wanted.table_number(table_by_name);
            let known = before.iter().position(|link| link.config.name == wanted.name);
            let link = match known {
                Some(position) => {
                    let mut link = before.swap_remove(position);
                    if !same_place(&link.config, wanted) {
                        link.place = Err(LOOKING.into());
                    }
                    link.config = wanted.clone();
                    link.table = table;
                    link
                }
                None => {
                    // A number that was given back is used again as late as possible: the other end may still have
                    // something of its last bearer on the way.
                    let taken = |id: &LinkId| self.links.iter().chain(&before).any(|link| link.id == *id);
                    let most = LinkId::try_from(MAX_LINKS).unwrap_or(LinkId::MAX);
                    let mut numbers = (self.next_id..most).chain(0..self.next_id);
                    // The schema allows no more links than there are numbers.
                    let Some(id) = numbers.find(|id| !taken(id)) else { continue };
                    self.next_id = (id + 1) % most;
                    Link::new(id, wanted.clone(), table, now)
                }
            };
            self.links.push(link);
        }
    }

    /// From which socket to which address a link is to send; otherwise why it cannot.
    fn wanted(&self, link: &Link) -> Result<(SocketOptions, SocketAddr), String> {
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

        let shared = |other: &Link| other.id != link.id && other.device() == Some(device);
        let own_device = !self.links.iter().any(shared);
        let port = link.config.local_port.unwrap_or(0);
        let mut options = SocketOptions::new(SocketAddr::new(*local, port));
        options.device = own_device.then(|| device.clone());
        options.mark = Some(link.config.mark.value);
        Ok((options, *remote))
    }

    /// All pairs of an address of the link and one of the server, in the order of the configuration.
    fn candidates(&self, link: &Link) -> Vec<(IpAddr, SocketAddr)> {
        let Ok(place) = &link.place else { return Vec::new() };
        let mut candidates = Vec::new();
        for host in &link.config.servers {
            let addresses = match host {
                Host::Address(address) => std::slice::from_ref(address),
                Host::Name(name) => self.names.addresses(name),
            };
            for address in addresses {
                if let Some(path) = place.resolved.path(Family::of(*address)) {
                    candidates.push((path.address, SocketAddr::new(*address, link.config.remote_port)));
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
                Host::Name(name) => match self.names.error(name) {
                    _ if !self.names.addresses(name).is_empty() => known = true,
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

/// The note of a link that is yet to be placed.
const LOOKING: &str = "looking for its device and address";

impl Link {
    /// How traffic outside the bond can use it; `None` while it has no place or is taken out.
    fn exit(&self) -> Option<Exit> {
        let place = self.place.as_ref().ok().filter(|_| !self.taken_out)?;
        let families = Family::ALL.into_iter().filter(|family| place.resolved.path(*family).is_some());
        Some(Exit {
            link: self.config.name.clone(),
            table: self.table,
            families: families.collect(),
            up: self.state == Some(LinkState::Up),
        })
    }

    fn new(id: LinkId, config: config::Link, table: u32, now: Time) -> Self {
        Link {
            id,
            config,
            table,
            taken_out: false,
            last_resort: false,
            place: Err(LOOKING.into()),
            connection: None,
            last_port: None,
            turn: 0,
            turned: now,
            told: None,
            state: None,
            heard: None,
            round_trip: None,
            note: LOOKING.into(),
        }
    }

    fn connect(&mut self, wanted: Result<(SocketOptions, SocketAddr), String>, driver: &mut Driver) {
        let (options, remote) = match wanted {
            Ok(wanted) => wanted,
            Err(note) => {
                self.disconnect(driver);
                if self.note != note {
                    log::info!("link {}: {note}", self.config.name);
                }
                self.note = note;
                return;
            }
        };
        self.note.clear();
        if let Some(connection) = &mut self.connection {
            if connection.options == options {
                connection.remote = remote;
                return;
            }
            self.disconnect(driver);
        }
        if options.address.port() != 0 {
            // A link that was removed a moment ago may have had the same one.
            driver.close_retired();
        }
        let opening = SocketOptions { preferred_port: self.last_port, ..options.clone() };
        match Socket::open(opening) {
            Ok(socket) => {
                log::debug!("link {}: sending from {} to {remote}", self.config.name, socket.local_addr());
                self.last_port = Some(socket.local_addr().port());
                let socket = driver.add_socket(socket);
                self.connection = Some(Connection { socket, options, remote });
            }
            Err(error) => {
                self.note = error.to_string();
                log::warn!("link {}: {error}", self.config.name);
            }
        }
    }

    fn is_alive(&self) -> bool {
        matches!(self.state, Some(LinkState::Up | LinkState::Suspect))
    }

    fn device(&self) -> Option<&String> {
        self.place.as_ref().ok()?.resolved.device.as_ref()
    }

    fn disconnect(&mut self, driver: &mut Driver) {
        if let Some(connection) = self.connection.take() {
            driver.remove_socket(connection.socket);
        }
    }

    /// Tells the core what has changed.
    fn tell(&mut self, peer: PeerId, driver: &mut Driver, now: Time) {
        let path = self.connection.as_ref().map(|connection| Path {
            socket: connection.socket,
            local: Some(connection.options.address.ip()),
            remote: connection.remote,
        });
        let wanted = mapping::link(&self.config, self.id, path, !self.taken_out, self.last_resort);
        if self.told.as_ref() != Some(&wanted) {
            driver.endpoint_mut().set_link(peer, wanted.clone(), now);
            self.told = Some(wanted);
        }
    }
}

/// Whether two configurations of a link lead to the same device and addresses.
fn same_place(a: &config::Link, b: &config::Link) -> bool {
    (&a.interface, &a.device, a.ipaddr, a.gateway, a.ip6addr, a.ip6gateway)
        == (&b.interface, &b.device, b.ipaddr, b.gateway, b.ip6addr, b.ip6gateway)
}

/// The number of a routing table in iproute2's list of names.
fn table_by_name(name: &str) -> Option<u32> {
    ["/etc/iproute2/rt_tables", "/usr/share/iproute2/rt_tables"]
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .find_map(|text| table_in(&text, name))
}

fn table_in(text: &str, name: &str) -> Option<u32> {
    text.lines().find_map(|line| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let number = crate::config::value::integer(words.next()?)?;
        (words.next()? == name).then(|| u32::try_from(number).ok()).flatten()
    })
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
