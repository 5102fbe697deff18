//! The names of servers: who is asked for their addresses, when, and what is known.
//!
//! Every link asks for itself, through its own line: what is right for one provider need not be for the other, and a
//! line whose name servers do not answer holds up nobody. A link that has found nothing uses what another one has found.
//! What is known is never forgotten for a failure, and what works is not asked for again.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::time::timeout;

use crate::bond::Time;
use crate::bond::sorted::{SortedMap, SortedSet};
use crate::net::dns::Answer;
use crate::net::resolver::{self, LookupError, Way};
use crate::net::{Prefix, nameservers};

/// How long the system's name servers may take; less where the link's own were asked before.
const SYSTEM_DEADLINE: Duration = Duration::from_secs(20);
const SHORT_DEADLINE: Duration = Duration::from_secs(5);

/// Pauses between attempts to resolve a name.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);

/// What is known is asked for again after its time to live while the server does not answer, within these limits: some
/// names live for seconds, and a server that has moved shall not be looked for at its old place for hours.
const MIN_LIFE: Duration = Duration::from_secs(30);
const MAX_LIFE: Duration = Duration::from_secs(300);

/// Addresses that are kept of a name, at most.
const MAX_ADDRESSES: usize = 16;

/// A link's question for a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The link.
    pub link: String,
    /// The name.
    pub name: String,
    /// Through where, and the link's own name servers.
    pub way: Way,
    /// The networks that the link is in.
    pub networks: Vec<Prefix>,
    /// Nobody but those of `way` is to be asked.
    pub exclusive: bool,
}

/// Resolves a name: by the system's list of hosts; by the link's name servers, or else those of the system, through the
/// link; at last as everybody else on this machine does.
///
/// # Errors
///
/// A sentence for people.
pub async fn lookup(query: &Query) -> Result<Answer, String> {
    let listed = nameservers::in_hosts(&query.name);
    if !listed.is_empty() {
        return Ok(Answer { addresses: listed, ttl: MAX_LIFE });
    }
    let mut way = query.way.clone();
    if way.servers.is_empty() {
        way.servers = nameservers::system();
        way.servers.retain(|server| is_reachable(*server, &query.networks));
    }
    let asked_first = !way.servers.is_empty();
    let why = match resolver::lookup(&way, &query.name).await {
        Ok(answer) => return Ok(answer),
        Err(why) if query.exclusive => return Err(why.to_string()),
        Err(why) => why.to_string(),
    };
    let limit = if asked_first { SHORT_DEADLINE } else { SYSTEM_DEADLINE };
    let others = match timeout(limit, lookup_anyhow(&query.name)).await {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "the system's resolver does not answer".to_owned(),
    };
    Err(if asked_first { why } else { others })
}

/// Asks the name servers that every program on this machine asks, one on this machine too, by whatever line.
async fn lookup_anyhow(name: &str) -> Result<Answer, LookupError> {
    let (servers, names) = nameservers::everybodys(name);
    let sources = vec![Ipv6Addr::UNSPECIFIED.into(), Ipv4Addr::UNSPECIFIED.into()];
    let way = Way { servers, sources, ..Way::default() };
    let mut last = LookupError::NoServer;
    for name in names {
        match resolver::lookup(&way, &name).await {
            Ok(answer) => return Ok(answer),
            Err(why) => last = why,
        }
    }
    Err(last)
}

/// Whether a name server of the system may be asked through a link: one with an address of somebody's own network
/// answers in that network only.
fn is_reachable(server: IpAddr, networks: &[Prefix]) -> bool {
    let is_local = match server {
        IpAddr::V4(address) => address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local(),
    };
    !is_local || networks.iter().any(|network| network.contains(server))
}

/// What is known of the servers' names.
#[derive(Debug, Default)]
pub struct Names {
    /// By link and name.
    entries: SortedMap<(String, String), Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    addresses: Vec<IpAddr>,
    life: Duration,
    error: Option<String>,
    asked: Option<Time>,
    pending: bool,
    failures: u32,
}

impl Names {
    /// Knows these names of these links from now on and no others.
    pub fn retain(&mut self, wanted: impl Iterator<Item = (String, String)>) {
        let mut before = std::mem::take(&mut self.entries);
        for key in wanted {
            let known = before.remove(&key);
            self.entries.get_or_insert_with(key, || known.unwrap_or_default());
        }
    }

    /// The addresses of a name, as far as a link, or else another one, knows them.
    pub fn addresses(&self, link: &str, name: &str) -> &[IpAddr] {
        let own = self.entry(link, name);
        let others = self.entries.iter().filter(|((_, other), _)| other == name).map(|(_, entry)| entry);
        own.into_iter()
            .chain(others)
            .map(|entry| entry.addresses.as_slice())
            .find(|addresses| !addresses.is_empty())
            .unwrap_or_default()
    }

    /// Why a link does not know the addresses of a name; `None` while the answer is on its way.
    pub fn error(&self, link: &str, name: &str) -> Option<&str> {
        self.entry(link, name).and_then(|entry| entry.error.as_deref())
    }

    /// A link is somewhere else now: its failures say nothing any more.
    pub fn renew(&mut self, link: &str) {
        for (_, entry) in self.entries.iter_mut().filter(|((of, _), _)| of == link) {
            entry.failures = 0;
            entry.asked = None;
        }
    }

    /// The links' names that are to be asked for now; the answer goes to [`Names::answer`]. `is_answered` says of a link
    /// and a name whether what is known is good enough, because a server answers, and `None` if the link cannot ask.
    pub fn due(
        &mut self,
        is_answered: impl Fn(&str, &str) -> Option<bool>,
        now: Time,
    ) -> Vec<(String, String)> {
        let entries = self.entries.iter().filter(|(_, entry)| !entry.addresses.is_empty());
        let known: SortedSet<String> = entries.map(|((_, name), _)| name.clone()).collect();
        let mut due = Vec::new();
        for ((link, name), entry) in &mut self.entries {
            let pause = match is_answered(link, name) {
                None => continue,
                Some(true) if known.contains(name) => continue,
                _ if entry.failures > 0 => (RETRY * 2u32.pow(entry.failures.min(6) - 1)).min(MAX_RETRY),
                _ if entry.addresses.is_empty() => Duration::ZERO,
                _ => entry.life.clamp(MIN_LIFE, MAX_LIFE),
            };
            if entry.pending || entry.asked.is_some_and(|asked| now.since(asked) < pause) {
                continue;
            }
            entry.pending = true;
            entry.asked = Some(now);
            due.push((link.clone(), name.clone()));
        }
        due
    }

    /// Takes an answer. A failure keeps what was known before. Returns whether something has changed.
    pub fn answer(&mut self, link: &str, name: &str, answer: Result<Answer, String>, now: Time) -> bool {
        let Some(entry) = self.entries.get_mut(&(link.to_owned(), name.to_owned())) else { return false };
        entry.pending = false;
        entry.asked = Some(now);
        match answer {
            Ok(answer) => {
                entry.failures = 0;
                entry.error = None;
                entry.life = answer.ttl;
                let mut addresses: Vec<IpAddr> = Vec::new();
                for address in answer.addresses {
                    if !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
                        addresses.push(address);
                    }
                }
                // Name servers like to rotate their answers.
                let same = addresses.len() == entry.addresses.len()
                    && addresses.iter().all(|address| entry.addresses.contains(address));
                if same {
                    return false;
                }
                log::debug!("link {link}: the server's name '{name}' stands for {addresses:?}");
                entry.addresses = addresses;
            }
            Err(why) => {
                entry.failures = entry.failures.saturating_add(1);
                if entry.error.as_deref() == Some(&why) {
                    return false;
                }
                log::warn!("link {link}: the server's name '{name}' cannot be resolved: {why}");
                entry.error = Some(why);
            }
        }
        true
    }

    fn entry(&self, link: &str, name: &str) -> Option<&Entry> {
        self.entries.get(&(link.to_owned(), name.to_owned()))
    }
}

#[cfg(test)]
#[path = "names_tests.rs"]
mod tests;
