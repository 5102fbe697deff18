//! Source routing: each link sends through its own gateway.
//!
//! A link has a routing table of its own with the network that it is in, its default route, and, behind these, an
//! `unreachable` route, so that packets of a link whose default route is gone are refused and not sent through another
//! link. Rules lead to it:
//!
//! | priority | rule | for |
//! | --- | --- | --- |
//! | `priorities` + n | `fwmark MARK lookup TABLE` | the link's own socket, which marks its packets (`SO_MARK`) |
//! | `priorities` + 100 | `from ADDRESS lookup main suppress_prefixlength 0` | everybody else with the link's address: more specific routes first (the LAN!) |
//! | `priorities` + 200 | `from ADDRESS lookup TABLE` | … and the link's gateway instead of the default route |
//!
//! The marks decide first, because two links may share a card, a network and even an address, with two gateways (two
//! ADSL boxes on one LAN): only the mark tells their packets apart. For an address that two links share there is no
//! `from` rule at all: it could name one of the two only, and would take the router's own connections (DNS, package
//! downloads) from the gateway that its main table chose. Instead the caller must relax the reverse path filter of that
//! device ([`SourceRouting::loose_rp_filter`], [`crate::net::sysctl`]): with the default route in the bond, strict
//! filtering would take the link's incoming packets for forged ones. With a `from` rule it needs no change, because the
//! kernel's check asks the rules with our address as the source.

use std::net::IpAddr;

use super::routes::{MAIN, Route, Target};
use super::rules::{Mark, Rule, Transport};
use super::{Family, Prefix};
use crate::bond::sorted::SortedMap;

/// Metric of the `unreachable` route at the end of a link's table: above any that is set in earnest.
pub const LAST_RESORT_METRIC: u32 = u32::MAX - 1;

/// How a link reaches the internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPath {
    /// Index of its interface.
    pub index: u32,
    /// Address that it sends from.
    pub address: IpAddr,
    /// Length of the prefix of the network that it is in, in bits.
    pub prefix_len: u8,
    /// Next hop; `None` on a point-to-point interface.
    pub gateway: Option<IpAddr>,
    /// Mark of its packets.
    pub mark: Mark,
    /// Its routing table.
    pub table: u32,
    /// Its number, 0 to 99, for the rules' priorities.
    pub number: u32,
}

/// Routes and rules of all links, and what they need besides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRouting {
    /// Routes of the links' tables.
    pub routes: Vec<Route>,
    /// Rules.
    pub rules: Vec<Rule>,
    /// Indices of the IPv4 interfaces whose reverse path filter must not be strict.
    pub loose_rp_filter: Vec<u32>,
}

/// Routes and rules for all links of a client. `priorities` is the first priority of its rules; 300 are used.
pub fn source_routing(paths: &[LinkPath], priorities: u32) -> SourceRouting {
    let mut users: SortedMap<IpAddr, u32> = SortedMap::new();
    for path in paths {
        *users.get_or_insert_with(path.address, || 0) += 1;
    }
    let mut made = SourceRouting::default();
    for path in paths {
        let family = Family::of(path.address);
        made.routes.extend(link_routes(path));
        let rule = Rule {
            family,
            priority: 0,
            source: None,
            destination: None,
            mark: None,
            transport: Transport::default(),
            table: path.table,
            suppress_prefix_len: None,
        };
        let number = path.number.min(99);
        made.rules.push(Rule { priority: priorities + number, mark: Some(path.mark), ..rule.clone() });
        if users.get(&path.address) == Some(&1) {
            let source = Some(Prefix::host(path.address));
            made.rules.push(Rule {
                priority: priorities + 100,
                source,
                table: MAIN,
                suppress_prefix_len: Some(0),
                ..rule.clone()
            });
            made.rules.push(Rule { priority: priorities + 200, source, ..rule });
        } else if family == Family::V4 && !made.loose_rp_filter.contains(&path.index) {
            made.loose_rp_filter.push(path.index);
        }
    }
    made
}

fn link_routes(path: &LinkPath) -> Vec<Route> {
    let family = Family::of(path.address);
    let network = Prefix::new(path.address, path.prefix_len);
    let source = Some(path.address);
    let route = |destination, metric, target| Route { destination, table: path.table, metric, target };
    let through = |gateway| Target::Device { index: path.index, gateway, source };
    let mut routes = Vec::new();
    if !network.is_host() && !network.is_default() {
        routes.push(route(network, 0, through(None)).normalized());
    }
    let everything = Prefix::default_route(family);
    routes.push(route(everything, 0, through(path.gateway)).normalized());
    routes.push(route(everything, LAST_RESORT_METRIC, Target::Unreachable));
    routes
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
