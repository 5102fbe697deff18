//! What the control socket is answered.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::{Daemon, SERVER, Side, role_name};
use crate::bond::endpoint::TcpPorts;
use crate::bond::sorted::SortedMap;
use crate::daemon::control::{Command, LinkAction, Request};
use crate::daemon::kernel::KernelBond;
use crate::daemon::speedtest::{self, Pinning};
use crate::daemon::status::{self, LinkPlace, Status};
use crate::io::timer::now;

/// A client of the control socket waits so long for the list of our routes.
const LIST_DEADLINE: Duration = Duration::from_secs(4);

impl Daemon {
    pub(super) fn answer(&mut self, request: Request) {
        let reply = match &request.command {
            Command::Status => self.status(),
            Command::Events => json!(self.events.aged(now())),
            Command::Reload => json!(self.reload()),
            Command::Link { name, action } => self.act(name, *action),
            Command::Stop => {
                self.stopping = true;
                json!({ "ok": true })
            }
            Command::SpeedTest => self.speed_test(),
            Command::Pin { port, link } => self.pin(*port, link.as_deref()),
            Command::Routes => {
                let listed = self.network.list();
                crate::daemon::spawn(async move {
                    request.reply(match timeout(LIST_DEADLINE, listed).await {
                        Ok(Ok(Ok(owned))) => json!(owned),
                        Ok(Ok(Err(error))) => failure(&error.to_string()),
                        _ => failure("the kernel did not answer in time"),
                    });
                });
                return;
            }
        };
        request.reply(reply);
    }

    fn act(&mut self, name: &str, action: LinkAction) -> serde_json::Value {
        let Side::Client(client) = &mut self.side else {
            return failure("links are taken up and down at the router, not at the server");
        };
        if let Err(error) = client.act(name, action, &mut self.driver, now()) {
            return failure(&error);
        }
        let word = match action {
            LinkAction::Up => "put back",
            LinkAction::Down => "taken out",
            LinkAction::Reconnect => "reconnect",
        };
        self.event(None, Some(name), word, "asked for by hand");
        self.look();
        self.follow();
        json!({ "ok": true })
    }

    fn speed_test(&self) -> serde_json::Value {
        let Side::Client(client) = &self.side else {
            return failure("a speed test is started at the router, not at the server");
        };
        let bond = &self.config.bond;
        if bond.remote_addresses.is_empty() {
            return failure(
                "set 'remote_ipaddr' in section 'interface': the server's address inside the bond",
            );
        }
        let status = self.driver.endpoint().status(now());
        let peer = status.peers.iter().find(|peer| peer.peer == client.peer().0);
        json!({
            "ok": true,
            "ifname": self.device,
            "servers": bond.remote_addresses,
            "port": speedtest::PORT,
            "links": peer.map(|peer| {
                let links = peer.links.iter();
                links.map(|l| json!({ "id": l.id, "name": l.name, "state": l.state })).collect::<Vec<_>>()
            }),
        })
    }

    fn pin(&mut self, port: u16, link: Option<&str>) -> serde_json::Value {
        let Side::Client(client) = &self.side else {
            return failure("a speed test is started at the router, not at the server");
        };
        let ports = TcpPorts { one: port, other: speedtest::PORT };
        let endpoint = self.driver.endpoint();
        let status = endpoint.status(now());
        let links = status.peers.iter().flat_map(|peer| peer.links.iter());
        let found = links.into_iter().find(|known| Some(known.name.as_str()) == link).map(|known| known.id);
        let peer = client.peer();
        match (link, found) {
            (None, _) => self.driver.endpoint_mut().unpin(ports),
            (Some(name), None) => return failure(&format!("there is no link '{name}'")),
            (Some(_), Some(id)) => {
                if !self.driver.endpoint_mut().pin(peer, ports, id, now()) {
                    return failure("too many speed tests at once");
                }
            }
        }
        json!({ "ok": true })
    }

    /// The same for the server's end of one.
    pub(super) fn pin_for(&mut self, pinning: Pinning) {
        let ports = TcpPorts { one: pinning.router.port(), other: speedtest::PORT };
        let endpoint = self.driver.endpoint_mut();
        match (pinning.link, endpoint.peer_of(pinning.router.ip())) {
            (Some(link), Some(peer)) => {
                endpoint.pin(peer, ports, link, now());
            }
            _ => endpoint.unpin(ports),
        }
    }

    pub(super) fn status(&self) -> serde_json::Value {
        let now = now();
        let (mut listen, mut links, mut servers) = (Vec::new(), SortedMap::new(), Vec::new());
        let mut endpoint = self.driver.endpoint().status(now);
        let peers = match &self.side {
            Side::Client(client) => {
                links = client.places();
                servers = self.servers.status(&self.config, client.is_up(), now);
                endpoint.peers.retain(|peer| peer.peer == client.peer().0);
                SortedMap::from([(client.peer().0, SERVER.to_owned())])
            }
            Side::Server(server) => {
                listen = server.listening().map(ToString::to_string).collect();
                server.names()
            }
        };
        let interface = |place: &LinkPlace| place.interface.clone().or_else(|| place.device.clone());
        let interfaces =
            links.iter().filter_map(|(name, place)| Some((name.clone(), interface(place)?))).collect();
        let status = Status {
            version: status::VERSION,
            program: env!("CARGO_PKG_VERSION"),
            role: role_name(self.config.globals.role),
            ifname: &self.device,
            mtu: self.tunnel.mtu,
            config: self.options.config.display().to_string(),
            pid: std::process::id(),
            uptime_ms: u64::try_from(now.since(self.started).as_millis()).unwrap_or(u64::MAX),
            reload: self.reload.as_ref(),
            privileges: self.privileges.as_ref(),
            watchdog: self.watchdog.as_ref().map(|watchdog| watchdog.status(now)),
            listen,
            firewall: self.firewall.as_ref().and_then(|firewall| {
                let state = firewall.state();
                let problem = state.problem.unwrap_or_default();
                Some(status::Firewall { table: state.table?, problem })
            }),
            servers,
            endpoint,
            interfaces,
            links,
            peers,
            offloads: self.driver.offloads(),
            rules: self.config.rules.iter().map(|rule| rule.name.as_str()).collect(),
            io: self.driver.counters(),
            kernel: self.kernel.as_ref().map(KernelBond::status),
            events: self.events.aged(now),
        };
        serde_json::to_value(status).unwrap_or_default()
    }
}

fn failure(message: &str) -> serde_json::Value {
    json!({ "ok": false, "error": message })
}
