//! What is wrong with redirected ports.

use std::ops::RangeInclusive;

use super::at;
use crate::config::log::Log;
use crate::config::read::{Sourced, TCP, UDP};
use crate::config::types::Redirect;
use crate::config::value;

/// Ports that may be given other numbers by one redirect: each of them is a rule of its own in the kernel.
const MAX_MOVED: usize = 256;

/// Redirects, at most.
const MAX_REDIRECTS: usize = 1_024;

/// The port of SSH (IANA).
const SSH: u16 = 22;

pub(super) fn check(sourced: &Sourced, log: &mut Log<'_>) {
    let config = &sourced.config;
    for (number, (redirect, section)) in config.redirects.iter().zip(&sourced.redirects_at).enumerate() {
        let section = Some(*section);
        if number == MAX_REDIRECTS {
            log.error(at(section, "src_dport"), format_args!("more than {MAX_REDIRECTS} redirects"));
            return;
        }
        if let Some(other) = redirect.protocols.iter().find(|protocol| ![TCP, UDP].contains(protocol)) {
            log.error(
                at(section, "proto"),
                format_args!("protocol {other} has no ports: tcp or udp is meant"),
            );
        }
        let nets = config.peers.iter().flat_map(|peer| peer.addresses.iter().chain(&peer.lans));
        if !config.peers.is_empty() && !nets.into_iter().any(|net| net.contains(redirect.to)) {
            log.error(
                at(section, "dest_ip"),
                format_args!("'{}' is neither the address of a peer nor in a 'lan' of one", redirect.to),
            );
        }
        if redirect.address.is_some_and(|address| address.is_ipv4() != redirect.to.is_ipv4()) {
            log.error(at(section, "src_dip"), "is of another IP version than 'dest_ip'");
        }
        if redirect.sources.iter().any(|net| net.address.is_ipv4() != redirect.to.is_ipv4()) {
            log.error(at(section, "src_ip"), "is of another IP version than 'dest_ip'");
        }
        check_ports(redirect, section, log);
        let own = config.globals.listen_ports.iter().find(|port| redirect.ports.contains(port));
        if let Some(port) = own.filter(|_| redirect.protocols.contains(&UDP)) {
            log.error(
                at(section, "src_dport"),
                format_args!("UDP port {port} is 'listen_port': peers could not connect any more"),
            );
        }
        if redirect.protocols.contains(&TCP) && redirect.ports.contains(&SSH) && redirect.sources.is_empty() {
            let message = "TCP port 22 leads to 'dest_ip' then, and no longer to this server's own SSH";
            log.warning(at(section, "src_dport"), message);
        }
        let before = config.redirects.iter().take(number);
        if let Some(other) = before.into_iter().find(|other| hides(other, redirect)) {
            let ports = words(&other.ports);
            log.error(
                at(section, "src_dport"),
                format_args!("port {ports} leads to {} already, by '{}'", other.to, other.name),
            );
        }
    }
}

/// The ports there must be as many as those here.
fn check_ports(redirect: &Redirect, section: Option<usize>, log: &mut Log<'_>) {
    let entry = section.and_then(|index| log.document.sections.get(index)?.entry("dest_port"));
    let there = entry.and_then(|entry| value::port_range(&entry.values.last()?.text));
    let Some(there) = there else { return };
    if there.len() != redirect.ports.len() {
        log.error(
            at(section, "dest_port"),
            format_args!("has {} ports, and 'src_dport' {}", there.len(), redirect.ports.len()),
        );
    } else if there != redirect.ports && there.len() > MAX_MOVED {
        log.error(
            at(section, "dest_port"),
            format_args!("at most {MAX_MOVED} ports can have other numbers there than here"),
        );
    }
}

/// Whether some of the packets for `second` are taken by `first`, whoever sends them.
fn hides(first: &Redirect, second: &Redirect) -> bool {
    let anybody = first.sources.is_empty() || first.sources == second.sources;
    let same_address = match (first.address, second.address) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    anybody
        && same_address
        && first.to.is_ipv4() == second.to.is_ipv4()
        && first.protocols.iter().any(|protocol| second.protocols.contains(protocol))
        && first.ports.start() <= second.ports.end()
        && second.ports.start() <= first.ports.end()
}

fn words(ports: &RangeInclusive<u16>) -> String {
    match (ports.start(), ports.end()) {
        (first, last) if first == last => first.to_string(),
        (first, last) => format!("{first}-{last}"),
    }
}
