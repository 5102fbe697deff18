//! Desired against actual state: what we set is ours, all of it, and nothing else is.
//!
//! The caller says what shall be so ([`Desired`]), as often as it likes and always all of it; [`Reconciler`] reads what
//! is so, and makes the difference. There is no memory between two calls that a crash could lose: what was set by a
//! process that was killed is found by its mark, kept where it is still wanted (without a gap), removed where not.
//!
//! # Marks
//!
//! * Routes and rules carry a protocol number of our own (option `route_protocol`, [`PROTOCOL`] where nothing else is
//!   configured: `ip route show table all proto 155`). To see it by name:
//!   `echo '155 bonding' > /etc/iproute2/rt_protos.d/bonding.conf`. The kernel compares it when a route or a rule is
//!   removed, so that a race cannot hit somebody else's.
//! * Rules on kernels that do not keep who set them (before 4.17) are ours if both their priority and their table are in
//!   our ranges.
//! * Addresses carry the same number where the kernel keeps it (`IFA_PROTO`, Linux 5.18). Before that, those are ours
//!   that this process set; they are only ever set on devices that we made, and go with these.
//!
//! Two daemons in one network namespace need different protocol numbers, or each would remove the other's.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::Serialize;

use super::addresses::{Address, AddressInfo};
use super::links::Link;
use super::netlink::{Error, Netlink};
use super::routes::{Route, RouteKey};
use super::rules::{Rule, RuleInfo};
use super::{Family, Prefix};
use crate::bond::sorted::{SortedMap, SortedSet};

/// Our number among the routing protocols. Numbers from 4 (`RTPROT_STATIC`) on mean nothing to the kernel; this one is
/// neither in its `rtnetlink.h` nor in iproute2's `rt_protos`, nor among those that FRR (191-198), Calico (80) and
/// Open/R (99) use.
pub const PROTOCOL: u8 = 155;

/// How we know what is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// Protocol number of everything we set.
    pub protocol: u8,
    /// Routing tables that are ours alone.
    pub tables: RangeInclusive<u32>,
    /// Priorities of our rules.
    pub priorities: RangeInclusive<u32>,
}

#[cfg(test)]
impl Default for Ownership {
    /// That of the tests.
    fn default() -> Self {
        Ownership { protocol: PROTOCOL, tables: 0xB000..=0xB0FF, priorities: 600..=899 }
    }
}

impl Ownership {
    fn owns_rule(&self, info: &RuleInfo) -> bool {
        info.complete
            && match info.protocol {
                Some(protocol) => protocol == self.protocol,
                None => {
                    self.priorities.contains(&info.rule.priority) && self.tables.contains(&info.rule.table)
                }
            }
    }
}

/// What a device of ours shall be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkSettings {
    /// Index of the interface.
    pub index: u32,
    /// Up or down; `None` leaves it.
    pub up: Option<bool>,
    /// MTU in bytes; `None` leaves it.
    pub mtu: Option<u32>,
}

/// What shall be so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Settings of devices; for devices of ours only.
    pub links: Vec<LinkSettings>,
    /// Addresses; on devices of ours only.
    pub addresses: Vec<Address>,
    /// Routes. Of two with the same destination, table and metric the first counts.
    pub routes: Vec<Route>,
    /// Rules.
    pub rules: Vec<Rule>,
}

/// What is so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actual {
    /// All interfaces.
    pub links: Vec<Link>,
    /// All addresses, and whether they are ours.
    pub addresses: Vec<(Address, bool)>,
    /// Our routes.
    pub routes: Vec<Route>,
    /// Our rules.
    pub rules: Vec<Rule>,
}

/// What we have set: for `bonding status --routes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Owned {
    /// Addresses.
    pub addresses: Vec<Address>,
    /// Routes.
    pub routes: Vec<Route>,
    /// Rules.
    pub rules: Vec<Rule>,
}

impl Owned {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.routes.is_empty() && self.rules.is_empty()
    }

    /// One line each, in the words of `ip`, with the names of the interfaces as far as `links` knows them.
    pub fn lines(&self, links: &[Link]) -> Vec<String> {
        let named = |text: String| {
            let words = text.split(' ').map(|word| {
                let index = word.strip_prefix('#').and_then(|number| number.parse::<u32>().ok());
                let link = index.and_then(|index| links.iter().find(|link| link.index == index));
                link.map_or(word, |link| link.name.as_str())
            });
            words.collect::<Vec<_>>().join(" ")
        };
        let addresses = self.addresses.iter().map(|address| format!("address {address}"));
        let routes = self.routes.iter().map(|route| format!("route {route}"));
        let rules = self.rules.iter().map(|rule| format!("rule {rule}"));
        addresses.chain(routes).chain(rules).map(named).collect()
    }
}

/// One step from what is to what shall be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// Set an interface up or down.
    SetUp(u32, bool),
    /// Set an interface's MTU.
    SetMtu(u32, u32),
    /// Set an address.
    AddAddress(Address),
    /// Set a route.
    AddRoute(Route),
    /// Put a route in the place of one of ours, in one step.
    ReplaceRoute(Route),
    /// Set a rule.
    AddRule(Rule),
    /// Remove a rule of ours.
    RemoveRule(Rule),
    /// Remove a route of ours.
    RemoveRoute(Route),
    /// Remove an address of ours.
    RemoveAddress(Address),
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::SetUp(index, up) => {
                write!(f, "set interface #{index} {}", if *up { "up" } else { "down" })
            }
            Change::SetMtu(index, mtu) => write!(f, "set MTU of interface #{index} to {mtu}"),
            Change::AddAddress(address) => write!(f, "add address {address}"),
            Change::AddRoute(route) => write!(f, "add route {route}"),
            Change::ReplaceRoute(route) => write!(f, "replace route {route}"),
            Change::AddRule(rule) => write!(f, "add rule {rule}"),
            Change::RemoveRule(rule) => write!(f, "remove rule {rule}"),
            Change::RemoveRoute(route) => write!(f, "remove route {route}"),
            Change::RemoveAddress(address) => write!(f, "remove address {address}"),
        }
    }
}

/// The steps from `actual` to `desired`, in the order in which nothing is missing on the way: first what is new, then
/// what is stale. The routes of the links' own tables come first, then the rules that lead to them, and last the
/// routes that lead traffic into the bond, so that the bond never carries its own packets; on the way back the other way
/// round.
pub fn diff(actual: &Actual, desired: &Desired, ownership: &Ownership) -> Vec<Change> {
    let mut changes = link_changes(actual, desired);

    let wanted: SortedSet<Address> = desired.addresses.iter().copied().collect();
    let present: SortedSet<Address> = actual.addresses.iter().map(|(address, _)| *address).collect();
    let mut stale_addresses: Vec<Address> =
        actual.addresses.iter().filter(|(a, ours)| *ours && !wanted.contains(a)).map(|(a, _)| *a).collect();
    for address in wanted.difference(&present) {
        // IPv6 keeps an address once only, whatever its prefix: the old one must go first.
        stale_addresses.retain(|old| {
            let blocks =
                old.family() == Family::V6 && (old.index, old.address) == (address.index, address.address);
            if blocks {
                changes.push(Change::RemoveAddress(*old));
            }
            !blocks
        });
        changes.push(Change::AddAddress(*address));
    }

    let (new_routes, stale_routes) = route_changes(actual, desired);
    let is_own_table = |route: &Route| ownership.tables.contains(&route.table);
    let (new_own, new_shared): (Vec<_>, Vec<_>) = new_routes.into_iter().partition(|c| match c {
        Change::AddRoute(route) | Change::ReplaceRoute(route) => is_own_table(route),
        _ => true,
    });
    let (stale_own, stale_shared): (Vec<Route>, Vec<Route>) =
        stale_routes.into_iter().partition(is_own_table);

    let wanted: SortedSet<&Rule> = desired.rules.iter().collect();
    let present: SortedSet<&Rule> = actual.rules.iter().collect();

    changes.extend(new_own);
    changes.extend(wanted.difference(&present).map(|rule| Change::AddRule((*rule).clone())));
    changes.extend(new_shared);
    changes.extend(stale_shared.into_iter().map(Change::RemoveRoute));
    changes.extend(present.difference(&wanted).map(|rule| Change::RemoveRule((*rule).clone())));
    changes.extend(stale_own.into_iter().map(Change::RemoveRoute));
    changes.extend(stale_addresses.into_iter().map(Change::RemoveAddress));
    changes
}

fn link_changes(actual: &Actual, desired: &Desired) -> Vec<Change> {
    let mut changes = Vec::new();
    for settings in &desired.links {
        let Some(link) = actual.links.iter().find(|link| link.index == settings.index) else { continue };
        if let Some(mtu) = settings.mtu.filter(|mtu| *mtu != link.mtu) {
            changes.push(Change::SetMtu(settings.index, mtu));
        }
        if let Some(up) = settings.up.filter(|up| *up != link.up) {
            changes.push(Change::SetUp(settings.index, up));
        }
    }
    changes
}

/// What is to be added or replaced, and what is to be removed.
fn route_changes(actual: &Actual, desired: &Desired) -> (Vec<Change>, Vec<Route>) {
    let mut wanted: SortedMap<RouteKey, Route> = SortedMap::new();
    let mut order = Vec::new();
    for route in desired.routes.iter().map(|route| route.normalized()) {
        if !wanted.contains_key(&route.key()) {
            wanted.insert(route.key(), route);
            order.push(route);
        }
    }
    let mut present: SortedMap<RouteKey, SortedSet<Route>> = SortedMap::new();
    for route in &actual.routes {
        present.get_or_insert_with(route.key(), SortedSet::new).insert(*route);
    }

    let mut new = Vec::new();
    for route in order {
        match present.get(&route.key()) {
            None => new.push(Change::AddRoute(route)),
            Some(there) if there.contains(&route) => {}
            Some(_) => new.push(Change::ReplaceRoute(route)),
        }
    }
    let mut stale = Vec::new();
    for (key, there) in present {
        match wanted.get(&key) {
            None => stale.extend(there),
            Some(route) if there.contains(route) => stale.extend(there.into_iter().filter(|r| r != route)),
            // The first one is replaced; what is left of others shows in the next pass.
            Some(_) => {}
        }
    }
    (new, stale)
}

/// What [`Reconciler::reconcile`] did.
#[derive(Debug, Default)]
pub struct Report {
    /// Steps taken.
    pub done: Vec<Change>,
    /// Steps that the kernel refused. They are tried again the next time.
    pub failed: Vec<(Change, Error)>,
}

impl Report {
    /// Whether everything is as desired now.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty()
    }
}

/// Removing an address takes with it, in the kernel, routes and further addresses, some of which may be wanted: what is
/// then missing is found by looking again.
const PASSES: usize = 3;

/// Makes the kernel's state what is desired, and removes it again.
#[derive(Debug)]
pub struct Reconciler {
    netlink: Netlink,
    ownership: Ownership,
    // Addresses set by this process, for kernels that do not keep who set an address.
    addresses: SortedSet<Address>,
}

impl Reconciler {
    /// With the connection of the network namespace that is to be configured.
    pub fn new(netlink: Netlink, ownership: Ownership) -> Self {
        Reconciler { netlink, ownership, addresses: SortedSet::new() }
    }

    /// The connection to the kernel.
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// How it is known what is ours.
    pub fn ownership(&self) -> &Ownership {
        &self.ownership
    }

    /// Takes over a device of an earlier process. Where the kernel does not keep who set an address, all of the device's
    /// are ours, except those that IPv6 makes by itself.
    ///
    /// # Errors
    ///
    /// When the addresses could not be read.
    pub async fn adopt(&mut self, device: u32) -> Result<(), Error> {
        let mut found = self.netlink.addresses().await?;
        found.retain(|info| info.address.index == device);
        if !found.iter().any(|info| info.protocol == self.ownership.protocol) {
            let by_hand = |address: &Address| match address.address {
                IpAddr::V4(_) => true,
                IpAddr::V6(address) => !address.is_unicast_link_local(),
            };
            self.addresses.extend(found.iter().map(|info| info.address).filter(by_hand));
        }
        Ok(())
    }

    /// Makes what is so what shall be so. Idempotent; call it at the start, after every change of `desired`, and when
    /// [`crate::net::watch`] tells of a change that may concern us.
    ///
    /// An error means that the kernel's state could not be read; steps that it refused are in the report, and do not
    /// keep the others from being taken.
    pub async fn reconcile(&mut self, desired: &Desired) -> Result<Report, Error> {
        let mut report = Report::default();
        for _ in 0..PASSES {
            let actual = self.actual().await?;
            let changes = diff(&actual, desired, &self.ownership);
            let before = report.done.len();
            report.failed.clear();
            for change in changes {
                match self.apply(&change).await {
                    Ok(()) => report.done.push(change),
                    Err(error) => report.failed.push((change, error)),
                }
            }
            if report.done.len() == before {
                break;
            }
        }
        Ok(report)
    }

    /// Removes everything that is ours.
    pub async fn clear(&mut self) -> Result<Report, Error> {
        self.reconcile(&Desired::default()).await
    }

    /// Everything that is ours.
    pub async fn list_owned(&self) -> Result<Owned, Error> {
        let actual = self.actual().await?;
        Ok(Owned {
            addresses: actual.addresses.into_iter().filter(|(_, ours)| *ours).map(|(a, _)| a).collect(),
            routes: actual.routes,
            rules: actual.rules,
        })
    }

    /// Reads what is so.
    pub async fn actual(&self) -> Result<Actual, Error> {
        let protocol = self.ownership.protocol;
        let mut actual = Actual { links: self.netlink.links().await?, ..Actual::default() };
        let is_ours = |info: &AddressInfo| {
            info.protocol == protocol || (info.protocol == 0 && self.addresses.contains(&info.address))
        };
        actual.addresses =
            self.netlink.addresses().await?.iter().map(|info| (info.address, is_ours(info))).collect();
        for family in Family::ALL {
            let routes = self.netlink.routes(family, Some(protocol), |_| true).await?;
            actual.routes.extend(routes.iter().filter_map(|info| info.route()));
            let rules = self.netlink.rules(family).await?;
            actual.rules.extend(
                rules.into_iter().filter(|info| self.ownership.owns_rule(info)).map(|info| info.rule),
            );
        }
        Ok(actual)
    }

    async fn apply(&mut self, change: &Change) -> Result<(), Error> {
        let protocol = self.ownership.protocol;
        match change {
            Change::SetUp(index, up) => self.netlink.set_link_up(*index, *up).await,
            Change::SetMtu(index, mtu) => self.netlink.set_link_mtu(*index, *mtu).await,
            Change::AddAddress(address) => {
                let added = self.netlink.add_address(address, protocol).await;
                if added.is_ok() {
                    self.addresses.insert(*address);
                }
                // The same was set by somebody else since we looked: what is wanted is there.
                added.or_else(|error| tolerate(error, &[libc::EEXIST]))
            }
            Change::AddRoute(route) => self.netlink.add_route(route, protocol).await,
            Change::ReplaceRoute(route) => self.netlink.replace_route(route, protocol).await,
            Change::AddRule(rule) => self.netlink.add_rule(rule, protocol).await,
            Change::RemoveRule(rule) => {
                let removed = self.netlink.remove_rule(rule, protocol).await;
                removed.or_else(|error| tolerate(error, &[libc::ENOENT, libc::ESRCH]))
            }
            Change::RemoveRoute(route) => {
                let removed = self.netlink.remove_route(route, protocol).await;
                removed.or_else(|error| tolerate(error, &[libc::ESRCH, libc::ENOENT, libc::ENODEV]))
            }
            Change::RemoveAddress(address) => {
                self.addresses.remove(address);
                let removed = self.netlink.remove_address(address).await;
                removed.or_else(|error| tolerate(error, &[libc::EADDRNOTAVAIL, libc::ENODEV]))
            }
        }
    }
}

/// What was to be made so is so already.
fn tolerate(error: Error, numbers: &[i32]) -> Result<(), Error> {
    match error.errno() {
        Some(number) if numbers.contains(&number) => Ok(()),
        _ => Err(error),
    }
}

/// The default route of a family through a device without next hop, as for a tunnel.
pub fn default_through(index: u32, family: Family, table: u32, metric: u32) -> Route {
    Route {
        destination: Prefix::default_route(family),
        table,
        metric,
        target: super::Target::Device { index, gateway: None, source: None },
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
