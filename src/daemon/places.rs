//! Where links and servers are: questions that take time, asked in the background.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;

use super::runner::{Outcome, Runner, Task};
use crate::bond::Time;
use crate::config::Link;
use crate::net::netifd::{InterfaceResolver, ResolveError, Resolved, Static, Ubus};
use crate::net::{Family, Netlink};

/// How long a name may take to be resolved. The C library gives up after 5 s for each of its servers, twice.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(20);

/// Pauses between attempts to resolve a name.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);

/// A name is resolved again this often while the server does not answer.
const STALE: Duration = Duration::from_secs(30);

/// Addresses that are kept of a name, at most.
const MAX_ADDRESSES: usize = 16;

/// Asks where a link is: netifd, by way of `runner` if there is one, or the kernel.
///
/// # Errors
///
/// Why it is not known.
pub async fn resolve_link(
    link: &Link,
    netlink: Netlink,
    runner: Option<&Runner>,
    protocol: u8,
) -> Result<Resolved, ResolveError> {
    if let Some(interface) = &link.interface {
        let Some(runner) = runner else { return Ubus::default().resolve(interface).await };
        return match runner.run(Task::Interface { name: interface.clone() }).await {
            Outcome::Found(resolved) => Ok(resolved),
            Outcome::NotFound { nowhere, reason } => Err(ResolveError::Told { nowhere, reason }),
            _ => {
                let reason = "the process that asks netifd is gone: restart the daemon".to_owned();
                Err(ResolveError::Told { nowhere: false, reason })
            }
        };
    }
    // One question a family, because each can have an address and a gateway by hand. Who gives an address of one family
    // wants no other.
    let given = |family| match family {
        Family::V4 => (link.ipaddr, link.gateway),
        Family::V6 => (link.ip6addr, link.ip6gateway),
    };
    let by_hand = link.ipaddr.is_some() || link.ip6addr.is_some();
    let mut found: Option<Resolved> = None;
    for family in Family::ALL {
        let (address, gateway) = given(family);
        if by_hand && address.is_none() {
            continue;
        }
        let mut resolver = Static::new(netlink.clone(), protocol, link.device.clone());
        resolver.address = address.map(|net| net.address);
        resolver.gateway = gateway;
        let mut resolved = resolver.resolve(&link.name).await?;
        resolved.paths.retain(|path| Family::of(path.address) == family);
        match &mut found {
            Some(first) => {
                // Two addresses on two devices are two links; the first one counts.
                if first.device == resolved.device {
                    first.paths.extend(resolved.paths);
                }
            }
            None => found = Some(resolved),
        }
    }
    Ok(found.unwrap_or(Resolved { up: false, device: None, paths: Vec::new() }))
}

/// Resolves a name.
///
/// # Errors
///
/// As the system's resolver says.
pub async fn lookup(name: &str) -> io::Result<Vec<IpAddr>> {
    let lookup = tokio::net::lookup_host((name, 0));
    let found = timeout(LOOKUP_DEADLINE, lookup).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found.map(|address| address.ip().to_canonical()) {
        if !addresses.contains(&address) && addresses.len() < MAX_ADDRESSES {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::other("the name has no address"));
    }
    Ok(addresses)
}

/// The names of servers and what is known of them.
#[derive(Debug, Default)]
pub struct Names {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    addresses: Vec<IpAddr>,
    error: Option<String>,
    asked: Option<Time>,
    pending: bool,
    failures: u32,
}

impl Names {
    /// Knows these names from now on and no others.
    pub fn retain(&mut self, names: impl Iterator<Item = String>) {
        let mut before = std::mem::take(&mut self.entries);
        // Most links have the same name.
        for name in names {
            let known = before.remove(&name);
            self.entries.entry(name).or_insert_with(|| known.unwrap_or_default());
        }
    }

    /// The addresses of a name, as far as they are known.
    pub fn addresses(&self, name: &str) -> &[IpAddr] {
        self.entries.get(name).map_or(&[], |entry| &entry.addresses)
    }

    /// Why a name has no addresses; `None` while the answer is on its way.
    pub fn error(&self, name: &str) -> Option<&str> {
        self.entries.get(name).and_then(|entry| entry.error.as_deref())
    }

    /// The names that are to be asked for now; the answer goes to [`Names::answer`]. `answering`: the servers answer, so
    /// that what is known is right.
    pub fn due(&mut self, answering: bool, now: Time) -> Vec<String> {
        let mut due = Vec::new();
        for (name, entry) in &mut self.entries {
            let pause = match entry.addresses.is_empty() {
                _ if entry.failures > 0 => (RETRY * 2u32.pow(entry.failures.min(6) - 1)).min(MAX_RETRY),
                true => Duration::ZERO,
                false if answering => continue,
                false => STALE,
            };
            if entry.pending || entry.asked.is_some_and(|asked| now.since(asked) < pause) {
                continue;
            }
            entry.pending = true;
            entry.asked = Some(now);
            due.push(name.clone());
        }
        due
    }

    /// Takes an answer. A failure keeps what was known before. Returns whether something has changed.
    pub fn answer(&mut self, name: &str, answer: io::Result<Vec<IpAddr>>, now: Time) -> bool {
        let Some(entry) = self.entries.get_mut(name) else { return false };
        entry.pending = false;
        entry.asked = Some(now);
        match answer {
            Ok(addresses) => {
                entry.failures = 0;
                entry.error = None;
                // Name servers like to rotate their answers.
                let same = addresses.len() == entry.addresses.len()
                    && addresses.iter().all(|address| entry.addresses.contains(address));
                if same {
                    return false;
                }
                entry.addresses = addresses;
            }
            Err(error) => {
                entry.failures = entry.failures.saturating_add(1);
                let text = error.to_string();
                if entry.error.as_deref() == Some(&text) {
                    return false;
                }
                log::warn!("the server's name '{name}' cannot be resolved: {text}");
                entry.error = Some(text);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(names: &[&str]) -> Names {
        let mut known = Names::default();
        known.retain(names.iter().map(|name| (*name).to_owned()));
        known
    }

    fn seconds(seconds: u64) -> Time {
        Time::from_millis(seconds * 1_000)
    }

    #[test]
    fn asks_at_once_and_again_when_the_server_is_silent() {
        let mut names = known(&["a.example"]);
        assert_eq!(names.due(true, seconds(1)), ["a.example"]);
        assert!(names.due(true, seconds(2)).is_empty(), "the answer is on its way");
        assert!(names.answer("a.example", Ok(vec!["192.0.2.1".parse().unwrap()]), seconds(3)));
        assert!(names.due(true, seconds(1_000)).is_empty());
        assert!(names.due(false, seconds(32)).is_empty());
        assert_eq!(names.due(false, seconds(33)), ["a.example"]);
    }

    #[test]
    fn failures_wait_longer_and_longer_and_forget_nothing() {
        let mut names = known(&["a.example"]);
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        names.due(true, seconds(0));
        names.answer("a.example", Ok(vec![address]), seconds(0));
        let mut now = 30;
        for pause in [1, 2, 4, 8, 16, 32, 32] {
            assert_eq!(names.due(false, seconds(now)), ["a.example"]);
            names.answer("a.example", Err(io::Error::other("no such host")), seconds(now));
            assert!(names.due(false, seconds(now + pause - 1)).is_empty(), "{pause}");
            now += pause;
        }
        assert_eq!(names.addresses("a.example"), [address]);
        assert_eq!(names.error("a.example"), Some("no such host"));
    }

    #[test]
    fn a_name_that_several_links_share_is_not_forgotten() {
        let mut names = known(&["a.example"]);
        names.answer("a.example", Ok(vec!["192.0.2.1".parse().unwrap()]), seconds(1));
        names.retain(["a.example", "b.example", "a.example"].map(str::to_owned).into_iter());
        assert_eq!(names.addresses("a.example").len(), 1);
        names.retain(std::iter::once("b.example".to_owned()));
        assert!(names.addresses("a.example").is_empty());
    }

    #[test]
    fn another_order_is_no_change() {
        let mut names = known(&["a.example"]);
        let addresses: Vec<IpAddr> = ["192.0.2.1", "192.0.2.2"].map(|a| a.parse().unwrap()).into();
        assert!(names.answer("a.example", Ok(addresses.clone()), seconds(1)));
        assert!(!names.answer("a.example", Ok(addresses.into_iter().rev().collect()), seconds(2)));
        assert!(!names.answer("b.example", Ok(vec![]), seconds(2)), "nobody asked for that");
    }
}
