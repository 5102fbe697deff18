//! From the configuration, and where the links are now, to the addresses, routes and rules that shall be.
//!
//! The default route through the bond is neither put beside the routes of others in the main table, where the lower
//! metric would win, nor does it replace one. It lies in a table of its own that is asked after all routes of the main
//! table except its default route:
//!
//! | priority | rule |
//! | --- | --- |
//! | `rule_priority` + 0 … 299 | the links' own ([`crate::net::source`]) |
//! | `rule_priority` + 201 … 299 | traffic that goes past the bond ([`super::outside`]) |
//! | `rule_priority` + 300 | `lookup main suppress_prefixlength 0` |
//! | `rule_priority` + 301 | `lookup TABLE` |
//!
//! So whatever the device's end takes with it, what is left is what was before. While the bond is down, the same table
//! holds the default route of the link that is to carry it instead.

use std::net::IpAddr;

use super::mapping;
use super::outside::{self, Exit};
use crate::bond::Payload;
use crate::config::value::IpNet;
use crate::config::{self, Config, MAX_LINKS};
use crate::net::routes::MAIN;
use crate::net::source::{LinkPath, source_routing};
use crate::net::state::{LinkSettings, default_through};
use crate::net::{Address, Desired, Family, Mark, Ownership, Prefix, Route, Rule, Target, Transport};

/// Priorities that the links' rules take, see [`source_routing`].
const LINK_PRIORITIES: u32 = 300;

/// Our TUN device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Index of the interface.
    pub index: u32,
    /// Its MTU, in bytes.
    pub mtu: u16,
}

/// Who carries what the main table would send by its default route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DefaultRoute {
    /// The main table decides.
    #[default]
    Untouched,
    /// The bond.
    Bond,
    /// One link, because the bond is down.
    Link {
        /// Its interface.
        index: u32,
        /// Its IPv4 gateway, if it has an IPv4 address: `None` inside on a point-to-point interface.
        v4: Option<Option<IpAddr>>,
        /// The same for IPv6.
        v6: Option<Option<IpAddr>>,
    },
}

/// How we know what is ours.
pub fn ownership(config: &Config) -> Ownership {
    let globals = &config.globals;
    Ownership {
        protocol: globals.route_protocol,
        tables: globals.table_base..=default_table(config),
        priorities: globals.rule_priority..=globals.rule_priority.saturating_add(LINK_PRIORITIES + 1),
    }
}

/// The table of the default route: the next one after those of the links.
pub fn default_table(config: &Config) -> u32 {
    let links = u32::try_from(MAX_LINKS).unwrap_or(u32::MAX);
    config.globals.table_base.saturating_add(links)
}

/// What a server wants.
pub fn server(config: &Config, tunnel: Tunnel) -> Desired {
    let mut desired = device(config, tunnel);
    let addresses = config.peers.iter().flat_map(|peer| &peer.addresses);
    let lans = config.peers.iter().flat_map(|peer| &peer.lans).chain(&config.bond.routes);
    add_routes(config, tunnel, addresses.copied(), &mut desired);
    add_routes(config, tunnel, lans.copied(), &mut desired);
    desired
}

/// What a client wants, and the interfaces (indices) whose reverse path filter must not be strict.
pub fn client(
    config: &Config,
    tunnel: Tunnel,
    paths: &[LinkPath],
    exits: &[Exit],
    default: DefaultRoute,
) -> (Desired, Vec<u32>) {
    let mut desired = device(config, tunnel);
    let remote = config.bond.remote_addresses.iter().map(|address| IpNet::host(*address));
    add_routes(config, tunnel, remote, &mut desired);
    add_routes(config, tunnel, config.bond.routes.iter().copied(), &mut desired);

    let sources = source_routing(paths, config.globals.rule_priority);
    desired.routes.extend(sources.routes);
    desired.rules.extend(sources.rules);
    desired.rules.extend(outside::rules(config, exits, outside::bond_table(config)));
    add_default_route(config, tunnel, default, &mut desired);
    (desired, sources.loose_rp_filter)
}

/// The mark of a link's packets.
pub fn mark(link: &config::Link) -> Mark {
    Mark { value: link.mark.value, mask: link.mark.mask }
}

fn device(config: &Config, tunnel: Tunnel) -> Desired {
    let addresses = config.bond.addresses.iter().map(|net| Address {
        index: tunnel.index,
        address: net.address,
        prefix_len: net.prefix,
        peer: None,
    });
    Desired {
        links: vec![LinkSettings { index: tunnel.index, up: Some(true), mtu: Some(tunnel.mtu.into()) }],
        addresses: addresses.collect(),
        ..Desired::default()
    }
}

/// Routes into the bond, except where the device's own network leads there already.
fn add_routes(config: &Config, tunnel: Tunnel, nets: impl Iterator<Item = IpNet>, desired: &mut Desired) {
    for net in nets {
        let covered = |own: &IpNet| own.prefix <= net.prefix && own.contains(net.address);
        if config.bond.addresses.iter().any(covered) {
            continue;
        }
        let route = Route {
            destination: Prefix::new(net.address, net.prefix),
            table: MAIN,
            metric: config.bond.metric.unwrap_or(0),
            target: through(config, tunnel, net.address, Family::of(net.address)),
        };
        if !desired.routes.contains(&route) {
            desired.routes.push(route);
        }
    }
}

/// Into the bond. Where that carries Ethernet frames, to the other end, which is not asked for the hardware addresses of
/// hosts behind it.
fn through(config: &Config, tunnel: Tunnel, destination: IpAddr, family: Family) -> Target {
    let gateway = ethernet_gateway(config, family).filter(|gateway| *gateway != destination);
    Target::Device { index: tunnel.index, gateway, source: None }
}

/// The other end's address inside the bond, where that carries Ethernet frames.
fn ethernet_gateway(config: &Config, family: Family) -> Option<IpAddr> {
    config.other_ends().find(|address| carries_ethernet(config) && Family::of(*address) == family)
}

fn carries_ethernet(config: &Config) -> bool {
    mapping::payload(config) == Payload::PinnedEthernet
}

fn add_default_route(config: &Config, tunnel: Tunnel, default: DefaultRoute, desired: &mut Desired) {
    for family in Family::ALL {
        let inside = config.bond.addresses.iter().any(|net| Family::of(net.address) == family);
        let target = match default {
            // Without a gateway every host of the world would be looked for by its hardware address.
            DefaultRoute::Bond if carries_ethernet(config) && ethernet_gateway(config, family).is_none() => {
                continue;
            }
            DefaultRoute::Bond if inside => through(config, tunnel, family.unspecified(), family),
            DefaultRoute::Link { index, v4, v6 } if inside => {
                let Some(gateway) = (match family {
                    Family::V4 => v4,
                    Family::V6 => v6,
                }) else {
                    continue;
                };
                Target::Device { index, gateway, source: None }
            }
            _ => continue,
        };
        // A metric asks for a route among the others'.
        if let Some(metric) = config.bond.metric {
            if default == DefaultRoute::Bond {
                let route = default_through(tunnel.index, family, MAIN, metric);
                desired.routes.push(Route { target, ..route });
            }
            continue;
        }
        let table = default_table(config);
        desired.routes.push(Route { destination: Prefix::default_route(family), table, metric: 0, target });
        let first = config.globals.rule_priority.saturating_add(LINK_PRIORITIES);
        let rule = Rule {
            family,
            priority: first,
            source: None,
            destination: None,
            mark: None,
            transport: Transport::default(),
            table: MAIN,
            suppress_prefix_len: Some(0),
        };
        desired.rules.push(rule.clone());
        desired.rules.push(Rule { priority: first + 1, table, suppress_prefix_len: None, ..rule });
    }
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
