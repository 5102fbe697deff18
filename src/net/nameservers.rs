//! What the system's files say of names: `resolv.conf` of name servers, `hosts` of hosts.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

/// Where name servers are listed: usually, and by systemd-resolved, which in the first one names only itself.
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

const HOSTS: &str = "/etc/hosts";

/// Of a file no more is read than this, in bytes.
const MAX_FILE: u64 = 64 * 1_024;

/// The system's name servers that are other machines: one on this machine would ask through any line.
pub fn system() -> Vec<IpAddr> {
    let lists = RESOLV_CONF.iter().map(|path| {
        let mut list = listed(&text(path));
        list.retain(|address| !address.is_loopback());
        list
    });
    lists.into_iter().find(|list| !list.is_empty()).unwrap_or_default()
}

/// The name servers that every program on this machine asks, and the names that `name` stands for there, in the order in
/// which they are tried.
pub fn everybodys(name: &str) -> (Vec<IpAddr>, Vec<String>) {
    let text = text(RESOLV_CONF[0]);
    let mut servers = listed(&text);
    if servers.is_empty() {
        // So says resolv.conf(5).
        servers.push(Ipv4Addr::LOCALHOST.into());
    }
    (servers, searched(&text, name))
}

/// The addresses of a name that the system's list of hosts has.
pub fn in_hosts(name: &str) -> Vec<IpAddr> {
    hosts_of(&text(HOSTS), name)
}

fn text(path: &str) -> String {
    // A list that somebody has grown beyond all measure is none.
    let fits = fs::metadata(Path::new(path)).is_ok_and(|data| data.is_file() && data.len() <= MAX_FILE);
    fits.then(|| fs::read_to_string(path).ok()).flatten().unwrap_or_default()
}

fn listed(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some("nameserver")).then(|| address(words.next()?)).flatten()
    });
    servers.filter(|address| !address.is_unspecified()).collect()
}

/// A name without a dot is looked for in the domains of the last line that names some, and then by itself.
fn searched(text: &str, name: &str) -> Vec<String> {
    let domains = text.lines().rev().find_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next()?, "search" | "domain").then_some(words)
    });
    let domains = domains.into_iter().flatten().filter(|_| !name.contains('.'));
    domains.map(|domain| format!("{name}.{domain}")).chain([name.to_owned()]).collect()
}

fn hosts_of(text: &str, name: &str) -> Vec<IpAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = address(words.next()?)?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
    });
    lines.collect()
}

/// An address, without the device that a link-local one may name.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    text.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn resolv_conf() {
        let text = "# Interface wan\nnameserver 192.0.2.1\n;nameserver 192.0.2.9\nsearch nameserver 192.0.2.8\n\
                    nameserver\t2001:db8::1 # v6\nnameserver fe80::1%eth0\nnameserver 127.0.0.53\nnameserver ::1\n\
                    nameserver\nnameserver host\noptions edns0\n";
        let listed_there = ["192.0.2.1", "2001:db8::1", "fe80::1", "127.0.0.53", "::1"];
        assert_eq!(listed(text), addresses(&listed_there));
        assert!(listed("").is_empty());
    }

    #[test]
    fn domains_to_search() {
        let text =
            "search first.example\nnameserver 192.0.2.1\nsearch lan  home.example\n#search never.example\n";
        assert_eq!(searched(text, "vpn"), ["vpn.lan", "vpn.home.example", "vpn"]);
        assert_eq!(searched(text, "vpn.example"), ["vpn.example"]);
        assert_eq!(searched("domain lan\n", "vpn"), ["vpn.lan", "vpn"]);
        assert_eq!(searched("", "vpn"), ["vpn"]);
    }

    #[test]
    fn hosts() {
        let text = "127.0.0.1 localhost\n192.0.2.1\tVPN.example vpn # vpn2.example\n# 192.0.2.2 vpn.example\n\
                    2001:db8::1 other vpn.example\nx vpn.example\n";
        assert_eq!(hosts_of(text, "vpn.example"), addresses(&["192.0.2.1", "2001:db8::1"]));
        assert!(hosts_of(text, "vpn2.example").is_empty());
    }
}
