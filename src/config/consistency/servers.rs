//! Servers that cannot be reached, or that cannot be told from the router.

use super::{at, given};
use crate::config::log::{At, Log};
use crate::config::read::Sourced;
use crate::config::servers::Server;
use crate::config::types::*;
use crate::config::value::{Host, IpNet};

/// The server of a link, its own or the interface's.
pub(super) fn check_link(link: &Link, index: Option<usize>, sourced: &Sourced, log: &mut Log<'_>) {
    let place = at(if given(log, index, "server") { index } else { sourced.bond_at }, "server");
    check_hosts(&link.servers, &sourced.config.bond.addresses, place, log);
}

/// The `server` sections.
pub(super) fn check(sourced: &Sourced, log: &mut Log<'_>) {
    for (server, section) in sourced.config.servers.iter().skip(1).zip(&sourced.servers_at) {
        let section = Some(*section);
        // They are the same for all links.
        let hosts = server.links.values().next().map_or(&[][..], |(hosts, _)| hosts);
        check_hosts(hosts, &server.addresses, at(section, "server"), log);
        check_addresses(server, section, log);
    }
}

fn check_addresses(server: &Server, section: Option<usize>, log: &mut Log<'_>) {
    for net in &server.addresses {
        let address = net.address;
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            log.error(
                at(section, "ipaddr"),
                format_args!("'{address}' cannot be the address of an interface"),
            );
        }
        if server.remote_addresses.contains(&address) {
            let option = if given(log, section, "remote_ipaddr") { "remote_ipaddr" } else { "ipaddr" };
            log.error(
                at(section, option),
                format_args!("'{address}' is this router's own address and that server's"),
            );
        }
    }
}

fn check_hosts(hosts: &[Host], inside: &[IpNet], place: At<'_>, log: &mut Log<'_>) {
    for host in hosts {
        let Host::Address(address) = host else { continue };
        if let Some(net) = inside.iter().find(|net| net.contains(*address)) {
            log.error(place, format_args!(
                "'{address}' is inside the bond's own network {}: it can be reached only through the bond",
                net.trunc()
            ));
        } else if address.is_unspecified() || address.is_multicast() {
            log.error(place, format_args!("'{address}' cannot be a server's address"));
        }
    }
}
