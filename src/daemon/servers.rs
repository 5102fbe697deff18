//! Which of several servers the bond is at.
//!
//! Those that are not in use are on *standby*. One is called over a single link, with nothing but probes in it, as long
//! as its answer may matter: the ones of earlier choice always, so that the bond goes back to them when they have
//! answered steadily; the others when the one in use has fallen silent, and once in a while, so that the status knows.

use std::time::Duration;

use serde::Serialize;

use super::client::Client;
use super::mapping;
use crate::bond::{Path, PeerId, Time};
use crate::config::value::Host;
use crate::config::{self, Config, Interface};
use crate::io::Driver;

/// A server that does not answer over one path is called over the next after so long. The calls of a handshake come
/// more often than that.
const PATIENCE: Duration = Duration::from_secs(6);

/// One that answers, but not for a moment, still answers: a lost probe is no reason to count from the start.
const LAPSE: Duration = Duration::from_secs(3);

/// How often a server that is not needed is asked whether it is there.
const CHECK: Duration = Duration::from_secs(3_600);

/// The client's number of its link to a server on standby. Each is a session of its own.
const LINK: u8 = 0;

/// The servers of a client. Without others than the interface's own it does nothing.
pub struct Servers {
    /// All but the one in use, in the order of the configuration.
    standbys: Vec<Standby>,
    /// How many of them come before the one in use.
    better: usize,
    /// When the one in use was taken.
    since: Time,
    /// Since when it has been silent.
    silent: Option<Time>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Standby {
    name: String,
    call: Option<Call>,
    /// Since when it has answered without a lapse.
    steady: Option<Time>,
    /// When it answered last.
    heard: Option<Time>,
    /// It could be reached, but not from the addresses that the links send from now.
    apart: bool,
}

/// A server on standby is being called.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    peer: PeerId,
    path: Option<Path>,
    turn: usize,
    turned: Time,
}

/// The bond is to go to another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Its name.
    pub to: String,
    /// For the log.
    pub why: String,
}

/// A server as the status shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerStatus {
    /// Its name.
    pub name: String,
    /// The bond is at it, or tries to be.
    pub in_use: bool,
    /// Since when that is so, in milliseconds; `null` for those on standby.
    pub since_ms: Option<u64>,
    /// Whether it answers; `null` where nobody asks it now.
    pub answers: Option<bool>,
    /// How long ago it answered last, in milliseconds; `null` if never.
    pub heard_ms: Option<u64>,
}

impl Servers {
    /// Those of `config`. Nobody is called yet.
    pub fn new(config: &Config, now: Time) -> Servers {
        let mut servers = Servers { standbys: Vec::new(), better: 0, since: now, silent: None };
        servers.take(config, now);
        servers
    }

    /// Takes another configuration, or another server of the same one: nobody is called any more, and then those that
    /// must be.
    pub fn configure(&mut self, config: &Config, driver: &mut Driver, now: Time) {
        for standby in &mut self.standbys {
            standby.hang_up(driver, now);
        }
        self.take(config, now);
    }

    fn take(&mut self, config: &Config, now: Time) {
        let before = std::mem::take(&mut self.standbys);
        let heard = |name: &str| before.iter().find(|standby| standby.name == name)?.heard;
        let others = config.servers.iter().filter(|server| server.name != config.server);
        let others = others.map(|server| Standby {
            name: server.name.clone(),
            heard: heard(&server.name),
            ..Standby::default()
        });
        self.standbys = others.collect();
        self.better = config.servers.iter().position(|server| server.name == config.server).unwrap_or(0);
        self.silent = Some(now);
    }

    /// The bond has gone to another server, which `config` has.
    pub fn moved(&mut self, config: &Config, was_up: bool, driver: &mut Driver, now: Time) {
        let known: Vec<String> = self.standbys.iter().map(|standby| standby.name.clone()).collect();
        let heard = if was_up { Some(now) } else { self.silent.filter(|at| *at > self.since) };
        self.configure(config, driver, now);
        self.since = now;
        for left in self.standbys.iter_mut().filter(|standby| !known.contains(&standby.name)) {
            left.heard = heard;
        }
    }

    /// The names, in the name service, of those that are called and do not answer.
    pub fn sought<'c>(&self, config: &'c Config) -> Vec<&'c str> {
        let sought = |server: &&config::Server| {
            let standby = self.standbys.iter().find(|standby| standby.name == server.name);
            standby.is_some_and(|standby| standby.call.is_some() && standby.steady.is_none())
        };
        let links = config.servers.iter().filter(sought).flat_map(|server| server.links.values());
        let hosts = links.flat_map(|(hosts, _)| hosts);
        let name = |host: &'c Host| match host {
            Host::Name(name) => Some(name.as_str()),
            Host::Address(_) => None,
        };
        hosts.filter_map(name).collect()
    }

    /// The name of a server on standby, by its number in the core.
    pub fn name(&self, peer: PeerId) -> Option<&str> {
        let mut standbys = self.standbys.iter();
        let called = |standby: &&Standby| standby.call.as_ref().is_some_and(|call| call.peer == peer);
        standbys.find(called).map(|standby| standby.name.as_str())
    }

    /// Once a second: calls those that must be called, and says when it is time to go to another one.
    pub fn tick(&mut self, config: &Config, client: &Client, driver: &mut Driver, now: Time) -> Option<Move> {
        if self.standbys.is_empty() {
            return None;
        }
        self.watch(client.is_up(), client.is_placed_somewhere(), now);
        for (position, standby) in self.standbys.iter_mut().enumerate() {
            let wanted = standby.is_wanted(position < self.better, self.silent, &config.bond, now);
            let server = config.servers.iter().find(|server| server.name == standby.name);
            match server.filter(|_| wanted) {
                Some(server) => standby.call(server, config, client, driver, now),
                None => standby.hang_up(driver, now),
            }
        }
        self.choose(&config.server, &config.bond, now)
    }

    /// Notes since when the server in use has been silent. While no link can send that is not its fault.
    fn watch(&mut self, up: bool, can_send: bool, now: Time) {
        self.silent = match self.silent {
            _ if up => None,
            Some(since) if can_send => Some(since),
            _ => Some(now),
        };
    }

    fn choose(&self, current: &str, bond: &Interface, now: Time) -> Option<Move> {
        let seconds = |time: Duration| time.as_secs();
        let to = |standby: &Standby, why: String| Some(Move { to: standby.name.clone(), why });
        if let Some(limit) = bond.server_return {
            let steady = |standby: &&Standby| standby.steady.is_some_and(|since| now.since(since) >= limit);
            if let Some(standby) = self.standbys.iter().take(self.better).find(steady) {
                let why = format!("it has answered for {} s and comes before '{current}'", seconds(limit));
                return to(standby, why);
            }
        }
        let silence = now.since(self.silent?);
        if silence < bond.server_timeout {
            return None;
        }
        let why = format!("'{current}' has been silent for {} s", seconds(silence));
        if let Some(standby) = self.standbys.iter().find(|standby| standby.steady.is_some()) {
            return to(standby, why);
        }
        // Nobody answers. Who cannot be asked from here gets its turn, one after the other.
        let (before, after) = self.standbys.split_at_checked(self.better)?;
        let standby = after.iter().chain(before).find(|standby| standby.apart)?;
        to(standby, why)
    }

    /// All servers, for the status. `up`: the one in use answers.
    pub fn status(&self, config: &Config, up: bool, now: Time) -> Vec<ServerStatus> {
        let millis = |since: Time| u64::try_from(now.since(since).as_millis()).unwrap_or(u64::MAX);
        let status = |server: &config::Server| match self
            .standbys
            .iter()
            .find(|standby| standby.name == server.name)
        {
            None => ServerStatus {
                name: server.name.clone(),
                in_use: true,
                since_ms: Some(millis(self.since)),
                answers: Some(up),
                heard_ms: if up { Some(0) } else { self.silent.filter(|at| *at > self.since).map(millis) },
            },
            Some(standby) => ServerStatus {
                name: server.name.clone(),
                in_use: false,
                since_ms: None,
                answers: standby.call.as_ref().map(|_| standby.steady.is_some()),
                heard_ms: standby.heard.map(millis),
            },
        };
        config.servers.iter().map(status).collect()
    }
}

impl Standby {
    /// Whether its answer may matter soon.
    fn is_wanted(&self, is_better: bool, silent: Option<Time>, bond: &Interface, now: Time) -> bool {
        let needed = silent.is_some_and(|since| now.since(since) >= bond.server_timeout / 2);
        let due = self.heard.is_none_or(|heard| now.since(heard) >= CHECK);
        is_better && bond.server_return.is_some() || needed || due
    }

    fn call(
        &mut self,
        server: &config::Server,
        config: &Config,
        client: &Client,
        driver: &mut Driver,
        now: Time,
    ) {
        let paths = client.paths_to(server);
        self.apart = paths.is_empty() && client.can_reach(server);
        if self.call.is_none() {
            let Some(peer) = mapping::standby(&config.at_server(&self.name)) else { return };
            let peer = driver.endpoint_mut().add_peer(peer, now);
            self.call = Some(Call { peer, path: None, turn: 0, turned: now });
        }
        let Some(call) = &mut self.call else { return };
        let answers = driver.endpoint().links(call.peer).any(|link| link.carries);
        if let Some(path) = call.next_path(&paths, answers, now) {
            let link = mapping::standby_link(LINK, path);
            driver.endpoint_mut().set_link(call.peer, link, now);
        }
        self.note(answers, now);
    }

    fn note(&mut self, answers: bool, now: Time) {
        if answers {
            self.heard = Some(now);
            self.steady = self.steady.or(Some(now));
        } else if self.heard.is_none_or(|heard| now.since(heard) >= LAPSE) {
            self.steady = None;
        }
    }

    fn hang_up(&mut self, driver: &mut Driver, now: Time) {
        self.steady = None;
        self.apart = false;
        if let Some(call) = self.call.take() {
            driver.endpoint_mut().close_peer(call.peer, now);
            driver.flush();
            driver.endpoint_mut().remove_peer(call.peer, now);
        }
    }
}

impl Call {
    /// The path over which the server is to be called from now on, if that changes.
    fn next_path(&mut self, paths: &[Path], answers: bool, now: Time) -> Option<Option<Path>> {
        if answers {
            self.turned = now;
        }
        let stays = self.path.is_some_and(|path| paths.contains(&path));
        let tired = now.since(self.turned) >= PATIENCE && paths.len() > 1;
        if stays && !tired {
            return None;
        }
        if stays {
            self.turn = self.turn.wrapping_add(1);
        }
        let next = paths.get(self.turn.checked_rem(paths.len()).unwrap_or(0)).copied();
        self.turned = now;
        let changed = next != self.path;
        self.path = next;
        changed.then_some(next)
    }
}

#[cfg(test)]
#[path = "servers_tests.rs"]
mod tests;
