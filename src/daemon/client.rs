//! The router's side: its links, where they are, and which socket each one sends from.
//!
//! A link goes through three hands: it is *placed* (device, address and gateway are found, [`super::places`]), its routes
//! and rules are *settled* in the kernel ([`super::network`]), and only then is it *connected*: a socket is opened and
//! the core told of the path. So no packet of a link ever leaves by another one's gateway.

mod addressing;
mod fallback;
mod link;

use std::time::Duration;

use super::control::LinkAction;
use super::desired::{self, Tunnel};
use super::mapping;
use super::names::{Names, Query};
use super::outside::Exit;
use super::quota::{self, Quotas};
use super::status::LinkPlace;
use crate::bond::sorted::{SortedMap, SortedSet};
use crate::bond::status::EndpointStatus;
use crate::bond::{Class, Handling, LinkId, LinkState, MAX_LINKS, PeerId, SocketId, Time};
use crate::config::key::{PublicKey, Secret};
use crate::config::value::Host;
use crate::config::{self, Config};
use crate::io::Driver;
use crate::net::dns::Answer;
use crate::net::source::LinkPath;
use crate::net::{Desired, Family};
use link::Link;
pub use link::{Place, Placing};

/// A link that is not up for so long tries the server's next address, where it has several.
const ROTATE: Duration = Duration::from_secs(10);

/// After the start the bond has the default route for so long, before it is up: what the LAN sends in its connections
/// inside the bond must not leave through a WAN meanwhile, where it would be answered with a reset.
const START: Duration = Duration::from_secs(1);

/// What the core is told of the server.
#[derive(PartialEq, Eq)]
struct Identity {
    name: String,
    public_key: Option<PublicKey>,
    preshared_key: Option<Secret>,
    policy: config::Policy,
    handling: Handling,
}

impl Identity {
    fn of(config: &Config) -> Self {
        Identity {
            name: config.server.clone(),
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
            let same = |identity: &Identity| (identity.name.clone(), identity.public_key);
            if same(&identity) == same(&self.identity) {
                endpoint.update_peer(self.peer, server, now);
            } else {
                endpoint.close_peer(self.peer, now);
                driver.flush();
                let endpoint = driver.endpoint_mut();
                endpoint.remove_peer(self.peer, now);
                self.peer = endpoint.add_peer(server, now);
                // What the LAN sends meanwhile is not for the WANs.
                self.starting = self.up.then_some(now);
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

    /// Takes the answer to one of [`Client::queries`]. Returns whether something has changed.
    pub fn take_addresses(&mut self, query: &Query, answer: Result<Answer, String>, now: Time) -> bool {
        self.names.answer(&query.link, &query.name, answer, now)
    }

    /// The links to be asked for now. A link that is asked for already is asked for again when the answer is there: it
    /// may be older than what makes us ask, and two answers could come in the wrong order.
    pub fn questions(&mut self) -> Vec<config::Link> {
        self.links.iter_mut().filter_map(|link| link.placing.ask().then(|| link.config.clone())).collect()
    }

    /// Takes the answer to one of [`Client::questions`], for a link that was configured so then. Returns whether the link
    /// has moved, and the link if it is to be asked for again.
    pub fn take_place(&mut self, asked: &config::Link, placing: Placing) -> (bool, Option<config::Link>) {
        let Some(link) = self.links.iter_mut().find(|link| link.config.name == asked.name) else {
            return (false, None);
        };
        let again = link.placing.answered().then(|| link.config.clone());
        let is_current = link::leads_to(asked) == link::leads_to(&link.config);
        (is_current && self.set_place(&asked.name, placing), again)
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
        self.names.renew(name);
        true
    }

    /// Whether every link has a device and an address.
    pub fn is_placed(&self) -> bool {
        self.links.iter().all(|link| link.connection.is_some())
    }

    /// What the kernel shall have, and the devices whose reverse path filter must be loose.
    pub fn desired(&self, config: &Config, tunnel: Tunnel) -> (Desired, SortedSet<String>) {
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
    pub fn places(&self) -> SortedMap<String, LinkPlace> {
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
        let hosts = config.servers.iter().flat_map(|server| &server.links);
        let hosts = hosts.flat_map(|(link, (hosts, _))| hosts.iter().map(move |host| (link, host)));
        self.names.retain(hosts.filter_map(|(link, host)| match host {
            Host::Name(name) => Some((link.clone(), name.clone())),
            Host::Address(_) => None,
        }));

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
                    link.configure(wanted, table);
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
