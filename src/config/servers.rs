//! Several servers of one router: the interface's own, which is the first choice, and the `server` sections, in the
//! order of the file.
//!
//! The whole bond is at one server at a time, because a session is with one key. [`Config::at_server`] is the
//! configuration as it is while another one is in use; whoever reads it need not know that there are several.

use std::net::IpAddr;

use super::key::{PublicKey, Secret};
use super::types::Config;
use super::value::{Host, IpNet};
use crate::bond::sorted::SortedMap;

/// The largest number of servers, the interface's own included.
pub const MAX_SERVERS: usize = 8;

/// One of the servers between which a client chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// The section's name; the interface's for its own.
    pub name: String,
    /// Its key; only the interface's own may be missing.
    pub public_key: Option<PublicKey>,
    /// The pre-shared key.
    pub preshared_key: Option<Secret>,
    /// This end's addresses inside the bond while it is in use.
    pub addresses: Vec<IpNet>,
    /// Its own addresses inside the bond.
    pub remote_addresses: Vec<IpAddr>,
    /// Whom the watchdog pings.
    pub watchdog_addresses: Vec<IpAddr>,
    /// Its addresses or names and its UDP port for each link, by the links' names.
    pub links: SortedMap<String, (Vec<Host>, u16)>,
}

impl Server {
    /// The server that the interface names.
    pub(super) fn own(config: &Config) -> Server {
        let bond = &config.bond;
        let links = config.links.iter();
        Server {
            name: bond.name.clone(),
            public_key: bond.public_key,
            preshared_key: bond.preshared_key.clone(),
            addresses: bond.addresses.clone(),
            remote_addresses: bond.remote_addresses.clone(),
            watchdog_addresses: bond
                .watchdog
                .iter()
                .flat_map(|watchdog| &watchdog.addresses)
                .copied()
                .collect(),
            links: links.map(|link| (link.name.clone(), (link.servers.clone(), link.remote_port))).collect(),
        }
    }
}

impl Config {
    /// This configuration while the server called `name` is in use; as the file has it if there is none of that name.
    #[must_use]
    pub fn at_server(&self, name: &str) -> Config {
        let mut config = self.clone();
        let server = self.servers.iter().find(|server| server.name == name).or(self.servers.first());
        let Some(server) = server.cloned() else { return config };
        let bond = &mut config.bond;
        bond.public_key = server.public_key;
        bond.preshared_key = server.preshared_key;
        bond.addresses = server.addresses;
        bond.remote_addresses = server.remote_addresses;
        if let Some(watchdog) = &mut bond.watchdog {
            watchdog.addresses = server.watchdog_addresses;
        }
        for link in &mut config.links {
            if let Some((hosts, port)) = server.links.get(&link.name) {
                link.servers.clone_from(hosts);
                link.remote_port = *port;
            }
        }
        config.server = server.name;
        config
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Report, load};

    const KEYS: [&str; 2] =
        ["hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="];

    fn report(servers: &str) -> Report {
        let text = format!(
            "config interface 'bond'\n option ipaddr '10.0.0.2/24'\n option remote_ipaddr 10.0.0.1\n option watchdog 1\n \
             option public_key '{}'\n option server 203.0.113.1\nconfig link a\n option interface wan\nconfig link b\n \
             option interface wanb\n option server 203.0.113.2\n option remote_port 99\n{servers}",
            KEYS[0]
        );
        load(&text, "test")
    }

    fn read(servers: &str) -> Config {
        let report = report(servers);
        report.config.unwrap_or_else(|| panic!("{:?}", report.problems))
    }

    fn second() -> String {
        format!("config server 'paris'\n option public_key '{}'\n list server vpn.example\n", KEYS[1])
    }

    #[test]
    fn another_server_is_a_configuration_like_any_other_and_back_again() {
        let file = read(&(second() + " option ipaddr 10.9.0.7/24\n option remote_ipaddr 10.9.0.1\n"));
        assert_eq!(file.server, "bond");
        assert_eq!(file.servers.len(), 2);
        let away = file.at_server("paris");
        assert_eq!(away.server, "paris");
        assert_eq!(away.bond.public_key.unwrap().to_string(), KEYS[1]);
        assert_eq!(away.bond.addresses[0].to_string(), "10.9.0.7/24");
        assert_eq!(away.bond.remote_addresses[0].to_string(), "10.9.0.1");
        let pinged = &away.bond.watchdog.as_ref().unwrap().addresses;
        assert_eq!(pinged, &away.bond.remote_addresses, "as without it");
        for link in &away.links {
            assert_eq!((link.servers[0].to_string().as_str(), link.remote_port), ("vpn.example", 5510));
        }
        assert_eq!(away.at_server("bond"), file);
        assert_eq!(away.at_server("nobody"), file);
    }

    #[test]
    fn what_a_server_does_not_say_is_as_in_the_interface() {
        let away = read(&second()).at_server("paris");
        assert_eq!(away.bond.addresses[0].to_string(), "10.0.0.2/24");
        assert_eq!(away.bond.remote_addresses[0].to_string(), "10.0.0.1");
        assert_eq!(away.bond.preshared_key, None);
    }

    #[test]
    fn a_server_that_is_not_whole_is_refused() {
        for (text, complaint) in [
            ("config server 'paris'\n list server vpn.example\n".to_owned(), "public_key"),
            (format!("config server 'paris'\n option public_key '{}'\n", KEYS[1]), "server"),
            (second().replace("'paris'", ""), "needs a name"),
            (second().replace("'paris'", "'bond'"), "section"),
            (second().replace("vpn.example", "10.0.0.1"), "inside"),
            (second() + "option ipaddr 10.0.0.1/24\n", "own address"),
        ] {
            let report = report(&text);
            assert!(report.config.is_none(), "{text}");
            assert!(
                report.errors().any(|error| error.to_string().contains(complaint)),
                "{:?}",
                report.problems
            );
        }
        let many: String =
            (1..super::MAX_SERVERS + 1).map(|n| second().replace("paris", &format!("s{n}"))).collect();
        assert!(report(&many).errors().any(|error| error.message.contains("more than 8 servers")));
        let off = read(&(second() + " option enabled 0\n"));
        assert_eq!(off.servers.len(), 1);
    }
}
