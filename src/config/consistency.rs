//! Contradictions between options that are each right by themselves.

mod kernel;

use std::net::IpAddr;

use super::key::PublicKey;
use super::log::{At, Log};
use super::read::Sourced;
use super::schema::{SectionSpec, Side};
use super::types::*;
use super::value::IpNet;
use crate::bond::sorted::SortedMap;

mod redirects;
mod rules;
mod servers;

/// Looks for everything that cannot work although each option is right, and for what has no effect.
pub(super) fn check(sourced: &Sourced, log: &mut Log<'_>) {
    check_role(sourced, log);
    check_globals(sourced, log);
    check_interface(sourced, log);
    kernel::check(sourced, log);
    check_links(sourced, log);
    check_link_pairs(sourced, log);
    servers::check(sourced, log);
    check_peers(sourced, log);
    redirects::check(sourced, log);
    rules::check(sourced, log);
}

/// The place of an option of a section that may be absent.
fn at(section: Option<usize>, option: &str) -> At<'_> {
    At { section, option: Some(option), line: None }
}

/// Whether the section at `index` gives `option`.
fn given(log: &Log<'_>, index: Option<usize>, option: &str) -> bool {
    index
        .and_then(|index| log.document.sections.get(index))
        .is_some_and(|section| section.entry(option).is_some())
}

fn check_role(sourced: &Sourced, log: &mut Log<'_>) {
    let globals = &sourced.config.globals;
    let document = log.document;
    let role_given = given(log, sourced.globals_at, "role");
    let has = |kind: &str| document.sections.iter().position(|section| section.kind == kind);
    if let (Some(_), Some(peer), false) = (has("link"), has("peer"), role_given) {
        log.error(
            At::section(peer),
            "the file has links and peers: say which end this is with `option role` in section 'globals'",
        );
        return;
    }
    let (role, other) = match globals.role {
        Role::Client => ("client", Side::Server),
        Role::Server => ("server", Side::Client),
    };
    for (index, section) in document.sections.iter().enumerate() {
        let Some(spec) = SectionSpec::find(&section.kind) else { continue };
        if spec.side == other {
            log.warning(
                At::section(index),
                format_args!("a '{}' section has no effect on a {role}", spec.kind),
            );
            continue;
        }
        for option in spec.options.iter().filter(|option| option.side == other) {
            if section.entry(option.name).is_some() {
                log.warning(At::option(index, option.name), format_args!("has no effect on a {role}"));
            }
        }
    }
    if !globals.enabled || !log.whole {
        return;
    }
    if globals.role == Role::Client && sourced.config.links.is_empty() {
        log.error(
            At::default(),
            "there is no link: add `config link 'NAME'` with an `interface` for each internet link",
        );
    }
    if globals.role == Role::Server && sourced.config.peers.is_empty() && !log.has_errors() {
        log.warning(
            At::default(),
            "there is no peer, so nobody can connect; `bonding server add-peer NAME` adds one",
        );
    }
}

fn check_globals(sourced: &Sourced, log: &mut Log<'_>) {
    let globals = &sourced.config.globals;
    let section = sourced.globals_at;
    if given(log, section, "private_key") && given(log, section, "private_key_file") {
        log.error(at(section, "private_key"), "either this or 'private_key_file', not both");
    }
    if globals.cipher == Cipher::None {
        log.warning(at(section, "cipher"), "'none': everybody on the way can read the traffic");
    }
    for (index, port) in globals.listen_ports.iter().enumerate() {
        if globals.listen_ports.iter().take(index).any(|other| other == port) {
            log.warning(at(section, "listen_port"), format_args!("'{port}' is there twice"));
        }
    }
    for address in &globals.listen_addresses {
        if let Some(net) = sourced.config.bond.addresses.iter().find(|net| net.contains(*address)) {
            log.error(
                at(section, "listen_address"),
                format_args!("'{address}' is inside the bond's own network {}", net.trunc()),
            );
        }
    }
}

fn check_interface(sourced: &Sourced, log: &mut Log<'_>) {
    let bond = &sourced.config.bond;
    let section = sourced.bond_at;
    let bare = !given(log, section, "ipaddr") && !given(log, section, "ip6addr");
    if bare && section.is_some() && log.whole && sourced.config.globals.enabled {
        log.error(at(section, "ipaddr"), "is missing: the bond needs an address, such as '10.0.0.2/24'");
    }
    if given(log, section, "netmask") && !bare_ipv4(log, section) {
        log.warning(at(section, "netmask"), "has no effect: no IPv4 'ipaddr' is without a prefix length");
    }
    for (index, net) in bond.addresses.iter().enumerate() {
        if bond.addresses.iter().take(index).any(|other| other.address == net.address) {
            log.error(
                at(section, address_option(log, section, net)),
                format_args!("'{}' is there twice", net.address),
            );
        }
        if net.address.is_unspecified() || net.address.is_multicast() || net.address.is_loopback() {
            log.error(
                at(section, "ipaddr"),
                format_args!("'{}' cannot be the address of an interface", net.address),
            );
        }
    }
    for remote in &bond.remote_addresses {
        if bond.addresses.iter().any(|net| net.address == *remote) {
            log.error(at(section, "remote_ipaddr"), format_args!("'{remote}' is this end's own address"));
        }
    }
    if let Some(mtu) = bond.mtu {
        if mtu < 576 {
            log.error(
                at(section, "mtu"),
                format_args!("'{mtu}' is below 576, the least that IPv4 hosts expect; 0 finds it out"),
            );
        } else if mtu < 1280 && bond.addresses.iter().any(|net| net.address.is_ipv6()) {
            log.error(at(section, "mtu"), format_args!("'{mtu}' is below 1280, the least that IPv6 allows"));
        }
    }
    for route in bond.routes.iter().filter(|route| route.prefix == 0) {
        log.warning(
            at(section, "route"),
            format_args!("'{route}' is every address: use `option default_route '1'`"),
        );
    }
    if let Some(watchdog) = &bond.watchdog {
        if watchdog.addresses.is_empty() {
            log.error(at(section, "watchdog"), "needs an address to ping: 'watchdog_ip' or 'remote_ipaddr'");
        }
        if watchdog.timeout < watchdog.period {
            log.error(at(section, "watchdog_timeout"), "is shorter than 'watchdog_period'");
        }
    }
}

/// The option that an address of the bond most likely came from.
fn address_option(log: &Log<'_>, section: Option<usize>, net: &IpNet) -> &'static str {
    if net.address.is_ipv6() && given(log, section, "ip6addr") { "ip6addr" } else { "ipaddr" }
}

/// Whether there is an IPv4 `ipaddr` for a netmask to apply to.
fn bare_ipv4(log: &Log<'_>, section: Option<usize>) -> bool {
    let entry = section.and_then(|index| log.document.sections.get(index)?.entry("ipaddr"));
    entry.is_some_and(|entry| {
        entry
            .values
            .iter()
            .flat_map(|value| value.text.split_whitespace())
            .any(|word| !word.contains(['/', ':']))
    })
}

fn check_links(sourced: &Sourced, log: &mut Log<'_>) {
    let config = &sourced.config;
    let bond = &config.bond;
    let mut active: Option<&str> = None;
    for (link, index) in config.links.iter().zip(&sourced.links_at) {
        let index = Some(*index);
        if link.interface.is_some() && link.device.is_some() {
            log.error(at(index, "device"), "either this or 'interface', which knows its device");
        }
        if link.device.as_ref() == Some(&bond.ifname) || link.interface.as_ref() == Some(&bond.name) {
            let option = if link.device.is_some() { "device" } else { "interface" };
            log.error(at(index, option), "is the bond itself");
        }
        check_families(link, index, log);
        check_name_servers(link, index, log);
        check_link_addresses(link, index, bond, log);
        servers::check_link(link, index, sourced, log);
        if link.servers.is_empty() && config.globals.enabled && log.whole && !given(log, index, "server") {
            let message =
                "is missing; it must be an IP address or a host name, here or in section 'interface'";
            log.error(at(index, "server"), message);
        }
        if link.mark.value & !link.mark.mask != 0 || link.mark.value == 0 || below_base(link, config) {
            log.error(
                at(index, "mark"),
                format_args!("no mark is left in 'mark_base' ({}) for this link", config.globals.mark_base),
            );
        }
        if let Some(mtu) = link.mtu.filter(|mtu| *mtu < 576) {
            log.error(at(index, "mtu"), format_args!("'{mtu}' is below 576; 0 finds it out"));
        }
        if link.active {
            if let Some(other) = active {
                log.warning(
                    at(index, "active"),
                    format_args!("link '{other}' is active already; the first one counts"),
                );
            }
            active = active.or(Some(&link.name));
        }
        if given(log, index, "weight") && bond.policy != Policy::Weighted {
            log.warning(at(index, "weight"), "has no effect without `option policy 'weighted'`");
        }
        if given(log, index, "quota_reset_day") && link.quota.is_none() {
            log.warning(at(index, "quota_reset_day"), "has no effect without 'quota'");
        }
        if link.tunnel.as_ref() == Some(&bond.ifname) {
            log.error(at(index, "tunnel"), "is the name of the bond itself");
        }
    }
    let weights = config.links.iter().filter(|link| link.weight.is_some()).count();
    if bond.policy == Policy::Weighted && weights > 0 {
        for (link, index) in config.links.iter().zip(&sourced.links_at) {
            if link.weight.is_none() {
                log.error(At::option(*index, "weight"), "is missing; other links have one");
            }
        }
    }
}

/// Whether a counted mark went round.
fn below_base(link: &Link, config: &Config) -> bool {
    let base = config.globals.mark_base;
    link.mark.mask == base.mask && link.mark.value < base.value && link.position > 0 && {
        let step = base.mask & base.mask.wrapping_neg();
        base.value.wrapping_add(step.wrapping_mul(link.position)) == link.mark.value
    }
}

fn check_families(link: &Link, index: Option<usize>, log: &mut Log<'_>) {
    let options = [
        ("ipaddr", link.ipaddr.map(|net| net.address), true),
        ("gateway", link.gateway, true),
        ("ip6addr", link.ip6addr.map(|net| net.address), false),
        ("ip6gateway", link.ip6gateway, false),
    ];
    for (option, address, ipv4) in options {
        if let Some(address) = address.filter(|address| address.is_ipv4() != ipv4) {
            let family = if ipv4 { "IPv4" } else { "IPv6" };
            log.error(at(index, option), format_args!("'{address}' is not an {family} address"));
        }
    }
}

fn check_link_addresses(link: &Link, index: Option<usize>, bond: &Interface, log: &mut Log<'_>) {
    for (option, address) in [
        ("ipaddr", link.ipaddr.map(|net| net.address)),
        ("gateway", link.gateway),
        ("ip6addr", link.ip6addr.map(|net| net.address)),
        ("ip6gateway", link.ip6gateway),
    ] {
        let inside = |address: &IpAddr| bond.addresses.iter().find(|net| net.contains(*address));
        if let Some((address, net)) = address.and_then(|address| Some((address, inside(&address)?))) {
            log.error(
                at(index, option),
                format_args!("'{address}' is inside the bond's own network {}", net.trunc()),
            );
        }
    }
    for (option, net) in [("ipaddr", link.ipaddr), ("ip6addr", link.ip6addr)] {
        let tunnel = net.and_then(|net| bond.addresses.iter().find(|tunnel| net.contains(tunnel.address)));
        if let Some((net, tunnel)) = net.zip(tunnel).filter(|(net, tunnel)| !tunnel.contains(net.address)) {
            log.error(
                at(index, option),
                format_args!(
                    "the bond's address {} is inside this link's network {}",
                    tunnel.address,
                    net.trunc()
                ),
            );
        }
    }
    for (option, net, gateway) in
        [("gateway", link.ipaddr, link.gateway), ("ip6gateway", link.ip6addr, link.ip6gateway)]
    {
        let Some((net, gateway)) = net.zip(gateway) else { continue };
        let link_local = matches!(gateway, IpAddr::V6(address) if address.is_unicast_link_local());
        if net != IpNet::host(net.address) && !net.contains(gateway) && !link_local {
            log.warning(
                at(index, option),
                format_args!("'{gateway}' is outside the link's network {}", net.trunc()),
            );
        }
        if gateway == net.address {
            log.error(at(index, option), format_args!("'{gateway}' is this link's own address"));
        }
    }
}

fn check_name_servers(link: &Link, index: Option<usize>, log: &mut Log<'_>) {
    for address in &link.name_servers {
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            log.error(
                at(index, "dns"),
                format_args!("'{address}' is not a name server that can be asked through the link"),
            );
        }
    }
}

fn check_link_pairs(sourced: &Sourced, log: &mut Log<'_>) {
    let links = &sourced.config.links;
    for (index, (link, section)) in links.iter().zip(&sourced.links_at).enumerate() {
        let section = Some(*section);
        for other in links.iter().take(index) {
            let name = &other.name;
            if link.mark.overlaps(other.mark) {
                log.error(
                    at(section, "mark"),
                    format_args!("{} is the mark of link '{name}' too", link.mark),
                );
            }
            if link.table == other.table {
                log.error(
                    at(section, "routing_table"),
                    format_args!("{} is the table of link '{name}' too", link.table),
                );
            }
            if link.tunnel.is_some() && link.tunnel == other.tunnel {
                log.error(at(section, "tunnel"), format_args!("is the tunnel of link '{name}' too"));
            }
            if let Some(port) = link.local_port.filter(|port| other.local_port == Some(*port))
                && !differ(&link.device, &other.device)
                && !differ(&link.interface, &other.interface)
                && !differ(&link.ipaddr, &other.ipaddr)
            {
                log.error(
                    at(section, "local_port"),
                    format_args!("'{port}' is the port of link '{name}' on the same address"),
                );
            }
            if way(link) == way(other) {
                log.error(At { section, ..At::default() }, format_args!(
                    "nothing tells this link from link '{name}': give them different 'interface', 'device', 'ipaddr' or \
                     'gateway'"
                ));
            }
        }
    }
}

fn differ<T: PartialEq>(a: &Option<T>, b: &Option<T>) -> bool {
    a.is_some() && b.is_some() && a != b
}

/// What decides which way a link's packets take.
fn way(link: &Link) -> impl PartialEq {
    (
        link.interface.clone(),
        link.device.clone(),
        link.ipaddr.map(|net| net.address),
        link.gateway,
        link.ip6addr.map(|net| net.address),
        link.ip6gateway,
    )
}

fn check_peers(sourced: &Sourced, log: &mut Log<'_>) {
    let config = &sourced.config;
    let mut keys: SortedMap<PublicKey, &str> = SortedMap::new();
    let mut nets: Vec<(IpNet, usize, &str)> = Vec::new();
    for (index, (peer, section)) in config.peers.iter().zip(&sourced.peers_at).enumerate() {
        match peer.public_key {
            Some(key) => match keys.get(&key) {
                Some(other) => log.error(
                    At::option(*section, "public_key"),
                    format_args!("is the key of peer '{other}' too"),
                ),
                None => {
                    keys.insert(key, &peer.name);
                }
            },
            None => check_invitation(peer, *section, log),
        }
        let own = peer
            .addresses
            .iter()
            .map(|net| ("ipaddr", *net))
            .chain(peer.lans.iter().map(|net| ("lan", *net)));
        for (option, net) in own {
            if net.prefix == 0 {
                log.error(
                    At::option(*section, option),
                    format_args!("'{net}' is every address; a peer can have only its own"),
                );
                continue;
            }
            if let Some(server) = config.bond.addresses.iter().find(|server| net.contains(server.address)) {
                log.error(
                    At::option(*section, option),
                    format_args!("'{net}' holds the server's own address {}", server.address),
                );
            }
            nets.push((net, index, option));
        }
    }
    check_overlaps(nets, sourced, log);
}

/// Whoever proves the secret of a peer without a key becomes this peer: it must be one that only the invited know.
fn check_invitation(peer: &Peer, section: usize, log: &mut Log<'_>) {
    let secret = peer.preshared_key.as_ref().filter(|secret| secret.as_bytes().iter().any(|byte| *byte != 0));
    if secret.is_none() {
        log.error(
            At::option(section, "public_key"),
            "is missing, and there is no 'preshared_key' by which the peer could introduce itself; \
             `bonding server add-peer NAME` makes both",
        );
    } else if peer.invitation_expires.is_none() {
        log.error(
            At::option(section, "invitation_expires"),
            "is missing: say until when the peer may introduce itself, in seconds since 1970",
        );
    }
}

/// Finds networks of different peers that share addresses. Networks are nested or apart, so in the order of their first
/// addresses, the larger ones first, only those that hold the current one need be remembered.
fn check_overlaps(mut nets: Vec<(IpNet, usize, &str)>, sourced: &Sourced, log: &mut Log<'_>) {
    nets.sort_by_key(|(net, peer, _)| (net.network(), net.prefix, *peer));
    let mut outer: Vec<(IpNet, usize)> = Vec::new();
    for (net, peer, option) in nets {
        while outer.last().is_some_and(|(other, _)| !other.overlaps(&net)) {
            outer.pop();
        }
        let other = outer.last().filter(|(_, other)| *other != peer);
        if let Some(((other, owner), section)) = other.zip(sourced.peers_at.get(peer)) {
            let name = sourced.config.peers.get(*owner).map_or("", |peer| peer.name.as_str());
            log.error(
                At::option(*section, option),
                format_args!("'{net}' overlaps {other} of peer '{name}'"),
            );
        }
        outer.push((net, peer));
    }
}
