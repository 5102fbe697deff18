//! The user's scripts: which are run when, and with which words.
//!
//! `preup`, `up`, `predown` and `down` frame the life of the device: before it is made, when its addresses and routes are
//! set, before they are removed, after they are gone. `link_script` is told of changes in between, in MLVPN's words:
//! `DEVICE tuntap_up`, `DEVICE rtun_up LINK` and so on. [`Scripts`] runs them, one after the other.

use std::net::IpAddr;

use super::{Daemon, SERVER, Side, role_name};
use crate::bond::sorted::{SortedMap, SortedSet};
use crate::bond::{LinkId, LinkState, PeerId};
use crate::config::value::IpNet;
use crate::config::{Config, Role};
use crate::daemon::runner::Hook;
use crate::daemon::scripts::{Call, Report};
use crate::io::timer::now;

/// The longest name of a link that a script is given, in characters.
const MAX_NAME: usize = 64;

/// What `link_script` was told last.
#[derive(Default)]
pub(super) struct Told {
    links: SortedMap<(PeerId, LinkId), String>,
    peers: SortedSet<PeerId>,
}

impl Daemon {
    /// Lets one of the four scripts run.
    pub(super) fn run_hook(&mut self, hook: Hook) {
        let call = frame_call(hook, &self.config, &self.device, self.tunnel.mtu, &self.config_path());
        self.push_call(call);
    }

    pub(super) fn hook_link(
        &mut self,
        peer: PeerId,
        link: LinkId,
        name: &str,
        state: LinkState,
        reason: &str,
    ) {
        let up = matches!(state, LinkState::Up | LinkState::Suspect);
        let known = self.told.links.contains_key(&(peer, link));
        // While it is being joined nothing has happened yet, and a suspicion may pass.
        match (up, known) {
            (true, false) => {
                self.told.links.insert((peer, link), name.to_owned());
                self.tell_link(peer, "rtun_up", name, reason);
            }
            (false, true) => {
                self.told.links.remove(&(peer, link));
                self.tell_link(peer, "rtun_down", name, reason);
            }
            _ => {}
        }
    }

    pub(super) fn hook_peer(&mut self, peer: PeerId, up: bool, reason: &str) {
        let changed = if up { self.told.peers.insert(peer) } else { self.told.peers.remove(&peer) };
        if !changed {
            return;
        }
        let (peers, words) = match (up, self.told.peers.len()) {
            (true, 1) => ("peer_up", Some("tuntap_up")),
            (true, _) => ("peer_up", None),
            (false, 0) => ("peer_down", Some("tuntap_down")),
            (false, _) => ("peer_down", None),
        };
        if self.config.globals.role == Role::Server {
            let name = self.peer_name(peer).unwrap_or_default();
            self.tell(peers, Some(&name), Some(&name), None, reason);
        }
        if let Some(word) = words {
            self.tell(word, None, None, None, reason);
        }
    }

    /// Links and peers that are gone without a word, by a reload or a router's new session.
    pub(super) fn sweep_told(&mut self) {
        if self.told.links.is_empty() && self.told.peers.is_empty() {
            return;
        }
        let status = self.driver.endpoint().status(now());
        let there = |peer: PeerId, link: LinkId| {
            let peer = status.peers.iter().find(|known| known.peer == peer.0);
            peer.is_some_and(|peer| peer.links.iter().any(|known| known.id == link))
        };
        let links: Vec<_> =
            self.told.links.keys().filter(|(peer, link)| !there(*peer, *link)).copied().collect();
        for key in links {
            if let Some(name) = self.told.links.remove(&key) {
                self.tell_link(key.0, "rtun_down", &name, "removed");
            }
        }
        let known = |peer: &&PeerId| !status.peers.iter().any(|known| known.peer == peer.0);
        let peers: Vec<_> = self.told.peers.iter().filter(known).copied().collect();
        for peer in peers {
            self.hook_peer(peer, false, "removed");
        }
    }

    fn tell_link(&mut self, peer: PeerId, word: &'static str, name: &str, reason: &str) {
        let peer = self.peer_name(peer);
        let name = harmless(name);
        self.tell(word, Some(&name), peer.as_deref(), Some(&name), reason);
    }

    fn tell(
        &mut self,
        word: &'static str,
        third: Option<&str>,
        peer: Option<&str>,
        link: Option<&str>,
        reason: &str,
    ) {
        if self.config.bond.hooks.link_script.is_none() {
            return;
        }
        let mut call =
            frame_call(Hook::Link, &self.config, &self.device, self.tunnel.mtu, &self.config_path());
        call.arguments.extend([Some(word), third].into_iter().flatten().map(str::to_owned));
        let mut set = |name: &str, value: &str| {
            call.environment.insert(name.to_owned(), value.replace(char::is_control, " "));
        };
        set("BONDING_EVENT", word);
        set("BONDING_REASON", reason);
        set("BONDING_PEER", peer.unwrap_or_default());
        if let Some(link) = link {
            set("BONDING_LINK", link);
            if let Side::Client(client) = &self.side
                && let Some(place) = client.places().get(link)
            {
                set("BONDING_LINK_DEVICE", place.device.as_deref().unwrap_or_default());
            }
        }
        self.push_call(call);
    }

    fn push_call(&mut self, call: Call) {
        if let Some(dropped) = self.scripts.push(call) {
            self.event(None, None, "hook skipped", &format!("{}: too many wait", dropped.label()));
        }
    }

    /// A script has ended, or was not run.
    pub(super) fn take_report(&mut self, report: &Report) {
        for line in report.output() {
            log::info!("{}: {line}", report.label);
        }
        if let Some(failure) = report.failure() {
            self.event(None, None, "hook failed", &format!("{}: {failure}", report.label));
        }
    }

    /// Waits for the scripts that run and wait; a second request to stop ends the waiting, not the scripts.
    pub(super) async fn finish_scripts(&mut self) {
        while !self.scripts.is_idle() {
            tokio::select! {
                report = self.scripts.next() => self.take_report(&report),
                () = self.signals.stop() => {
                    log::warn!("not waiting any longer for a script");
                    return;
                }
            }
        }
    }

    /// Says the last words to `link_script`. What waits in front of them is pointless now.
    pub(super) fn last_words(&mut self) {
        self.scripts.forget_links();
        if !std::mem::take(&mut self.told).peers.is_empty() {
            self.tell("tuntap_down", None, None, None, "the daemon stops");
        }
    }

    fn config_path(&self) -> String {
        self.options.config.display().to_string()
    }
}

/// A call of one of the four scripts, which is told the device.
pub(super) fn frame_call(hook: Hook, config: &Config, device: &str, mtu: u16, path: &str) -> Call {
    let bond = &config.bond;
    let first = |v4: bool| {
        let net = bond.addresses.iter().find(|net| net.address.is_ipv4() == v4);
        net.map(IpNet::to_string).unwrap_or_default()
    };
    let gateway = |v4: bool| {
        let address = bond.remote_addresses.iter().find(|address| address.is_ipv4() == v4);
        address.map(IpAddr::to_string).unwrap_or_default()
    };
    let routes = |v4: bool| {
        let nets = bond.routes.iter().filter(|net| net.address.is_ipv4() == v4);
        nets.map(IpNet::to_string).collect::<Vec<_>>().join(" ")
    };
    // All of MLVPN's are always there, so that a script may run under `set -u`.
    let environment = [
        ("DEVICE", device.to_owned()),
        ("MTU", mtu.to_string()),
        ("IP4", first(true)),
        ("IP6", first(false)),
        ("IP4_GATEWAY", gateway(true)),
        ("IP6_GATEWAY", gateway(false)),
        ("IP4_ROUTES", routes(true)),
        ("IP6_ROUTES", routes(false)),
        ("BONDING_EVENT", hook.option().to_owned()),
        ("BONDING_ROLE", role_name(config.globals.role).to_owned()),
        ("BONDING_CONFIG", path.to_owned()),
        ("BONDING_PEER", if config.globals.role == Role::Client { SERVER } else { "" }.to_owned()),
    ];
    Call {
        hook,
        arguments: vec![device.to_owned()],
        environment: environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    }
}

/// A link's name as a script may safely use it: a router chooses those that a server sees.
fn harmless(name: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let name: String = name.chars().take(MAX_NAME).map(|c| if allowed(c) { c } else { '_' }).collect();
    // Not an option of whatever the script passes it to.
    if name.starts_with('-') { format!("_{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    #[test]
    fn a_script_is_told_what_mlvpn_tells() {
        let text = "config globals\n option role server\nconfig interface 'bond'\n list ipaddr '10.0.0.1/24'\n list ip6addr 'fd00::1/64'\n list route '192.168.1.0/24'\n list route '192.168.2.0/24'\n";
        let report = load(text, "test");
        let config = report.config.unwrap_or_else(|| panic!("{:?}", report.problems));
        let call = frame_call(Hook::Up, &config, "bond0", 1_400, "/etc/config/bonding");
        assert_eq!(call.arguments, ["bond0"]);
        let value = |name: &str| call.environment[name].as_str();
        assert_eq!([value("DEVICE"), value("MTU")], ["bond0", "1400"]);
        assert_eq!([value("IP4"), value("IP6")], ["10.0.0.1/24", "fd00::1/64"]);
        assert_eq!([value("IP4_GATEWAY"), value("IP6_GATEWAY")], ["", ""]);
        assert_eq!([value("IP4_ROUTES"), value("IP6_ROUTES")], ["192.168.1.0/24 192.168.2.0/24", ""]);
        assert_eq!([value("BONDING_EVENT"), value("BONDING_ROLE")], ["up", "server"]);
        let known = crate::daemon::runner::process::VARIABLES;
        assert!(call.environment.keys().all(|name| known.contains(&name.as_str())));
    }

    #[test]
    fn a_routers_names_do_no_harm() {
        assert_eq!(harmless("adsl-1.a_b"), "adsl-1.a_b");
        assert_eq!(harmless("$(reboot); x\n"), "__reboot___x_");
        assert_eq!(harmless("-rf"), "_-rf");
        assert_eq!(harmless(&"é".repeat(200)).len(), MAX_NAME);
    }
}
