//! Kernel mode: what the bonding driver can do, and over which devices.

use super::{at, given};
use crate::bond::sorted::SortedSet;
use crate::config::log::{At, Log};
use crate::config::read::Sourced;
use crate::config::types::*;
use crate::config::value::IpNet;
use crate::net::bonding::MAX_ARP_TARGETS;

/// Looks at what kernel mode cannot do, and at what has no effect without it.
pub(super) fn check(sourced: &Sourced, log: &mut Log<'_>) {
    let bond = &sourced.config.bond;
    let section = sourced.bond_at;
    if sourced.config.globals.mode == Mode::User {
        for option in
            ["bond_mode", "xmit_hash_policy", "tunnel_type", "miimon", "arp_interval", "arp_ip_target"]
        {
            if given(log, section, option) {
                log.warning(
                    at(section, option),
                    "has no effect without `option mode 'kernel'` in section 'globals'",
                );
            }
        }
        return;
    }
    if given(log, section, "policy") {
        log.warning(at(section, "policy"), "has no effect in kernel mode; 'bond_mode' takes its place");
    }
    if bond.ifname.contains('%') {
        log.error(at(section, "ifname"), "must be a name, not a pattern, in kernel mode");
    }
    let kernel = &bond.kernel;
    if kernel.arp_interval > 0 {
        if kernel.tunnel_type == TunnelType::Tun {
            log.error(
                at(section, "arp_interval"),
                "ARP probes need `option tunnel_type 'tap'`: a TUN device carries no ARP, every link would count as down",
            );
        }
        if kernel.arp_ip_targets.is_empty() {
            log.error(at(section, "arp_interval"), "needs an 'arp_ip_target' to probe");
        }
        if given(log, section, "miimon") {
            log.error(
                at(section, "arp_interval"),
                "either this or 'miimon': the bonding driver cannot do both",
            );
        }
    }
    if kernel.arp_interval == 0 && kernel.miimon == 0 {
        log.warning(
            at(section, "miimon"),
            "'0' without 'arp_interval': the bonding driver goes on using a link that is dead",
        );
    }
    if kernel.arp_ip_targets.len() > MAX_ARP_TARGETS {
        log.error(
            at(section, "arp_ip_target"),
            format_args!("the bonding driver probes {MAX_ARP_TARGETS} addresses at the most"),
        );
    }
    for target in kernel.arp_ip_targets.iter().filter(|target| target.is_ipv6()) {
        log.error(at(section, "arp_ip_target"), format_args!("'{target}' is not an IPv4 address"));
    }
    if given(log, section, "xmit_hash_policy") && kernel.mode != BondMode::BalanceXor {
        log.warning(
            at(section, "xmit_hash_policy"),
            "has no effect without `option bond_mode 'balance-xor'`",
        );
    }
    if kernel.mode == BondMode::BalanceXor
        && kernel.tunnel_type == TunnelType::Tun
        && kernel.xmit_hash_policy != HashPolicy::Layer34
    {
        log.warning(
            at(section, "xmit_hash_policy"),
            "a TUN device has no hardware addresses to hash: use 'layer3+4', or `option tunnel_type 'tap'`",
        );
    }
    if let Some(second) = sourced.peers_at.get(1) {
        log.error(
            At::section(*second),
            "kernel mode joins the links of one peer: run a daemon with a file of its own for every other one",
        );
    }
    if kernel.tunnel_type == TunnelType::Tap {
        check_gateways(sourced, log);
    }
}

/// Over Ethernet, what lies behind the other end is reached by its address.
fn check_gateways(sourced: &Sourced, log: &mut Log<'_>) {
    let config = &sourced.config;
    let bond = &config.bond;
    let has_gateway = |net: &IpNet| config.other_ends().any(|end| end.is_ipv4() == net.address.is_ipv4());
    let version = |net: &IpNet| if net.address.is_ipv4() { "IPv4" } else { "IPv6" };
    if let (Some(peer), Some(section)) = (config.peers.first(), sourced.peers_at.first()) {
        for lan in peer.lans.iter().filter(|lan| !has_gateway(lan)) {
            log.error(
                At::option(*section, "lan"),
                format_args!(
                    "'{lan}' is reached through an {} address of the peer, of which 'ipaddr' has none",
                    version(lan)
                ),
            );
        }
    }
    for route in bond.routes.iter().filter(|route| !has_gateway(route)) {
        log.error(
            at(sourced.bond_at, "route"),
            format_args!(
                "'{route}' is reached through the other end's {} address: give it as 'remote_ipaddr'",
                version(route)
            ),
        );
    }
    if bond.default_route {
        let missing = bond.addresses.iter().filter(|net| !has_gateway(net));
        for version in missing.map(version).collect::<SortedSet<_>>() {
            log.warning(
                at(sourced.bond_at, "default_route"),
                format_args!("{version} keeps its old default route: no 'remote_ipaddr' is {version}"),
            );
        }
    }
}
