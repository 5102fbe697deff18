//! From the sections of a file to the typed [`Config`], by the schema; every problem is noted and reading goes on.

use super::key::PublicKey;
use super::log::{At, Log};
use super::reader::Reader;
use super::schema::{SECTIONS, SectionSpec};
use super::servers::{MAX_SERVERS, Server};
use super::spelling::nearest;
use super::types::*;
use super::uci::Document;
use super::value::{self, Host, IpNet, Mark, Table};

/// The largest number of links of a client.
pub const MAX_LINKS: usize = 32;

/// The largest number of peers of a server.
pub const MAX_PEERS: usize = 2048;

/// IP protocol numbers.
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

/// A configuration and which section each part came from.
pub(super) struct Sourced {
    pub(super) config: Config,
    pub(super) globals_at: Option<usize>,
    pub(super) bond_at: Option<usize>,
    pub(super) links_at: Vec<usize>,
    /// Those of [`Config::servers`] but the first.
    pub(super) servers_at: Vec<usize>,
    pub(super) peers_at: Vec<usize>,
    pub(super) redirects_at: Vec<usize>,
    pub(super) rules_at: Vec<usize>,
    /// The names of the links that are there but not enabled.
    pub(super) disabled_links: Vec<String>,
}

/// Reads all sections. The result is whole, with defaults in the place of what was wrong.
pub(super) fn read(log: &mut Log<'_>) -> Sourced {
    let document = log.document;
    warn_of_unknown_sections(log);
    let globals_at = single(log, &of_kind(document, "globals"));
    let bond_at = single(log, &of_kind(document, "interface"));

    let has_peers = !of_kind(document, "peer").is_empty();
    let globals = read_globals(&mut Reader::new(log, globals_at, "globals", true), has_peers);
    let enabled = globals.enabled && log.whole;
    if bond_at.is_none() && enabled {
        log.error(
            At::default(),
            "there is no section 'interface': add `config interface 'bond'` with an `ipaddr`",
        );
    }
    let (bond, defaults) = read_interface(&mut Reader::new(log, bond_at, "interface", enabled));
    let bond = Interface { name: bond_at.map_or("bond".into(), |index| document.label(index)), ..bond };

    let mut sourced = Sourced {
        config: Config {
            globals,
            bond,
            server: String::new(),
            servers: Vec::new(),
            links: Vec::new(),
            peers: Vec::new(),
            redirects: Vec::new(),
            rules: Vec::new(),
        },
        globals_at,
        bond_at,
        links_at: Vec::new(),
        servers_at: Vec::new(),
        peers_at: Vec::new(),
        redirects_at: Vec::new(),
        rules_at: Vec::new(),
        disabled_links: Vec::new(),
    };
    sourced.read_links(&defaults, enabled, log);
    sourced.read_servers(enabled, log);
    sourced.read_peers(enabled, log);
    sourced.read_redirects(log);
    sourced.read_rules(log);
    let says_default_route = |index: &usize| {
        document.sections.get(*index).is_some_and(|section| section.entry("default_route").is_some())
    };
    if !of_kind(document, "interface").iter().any(says_default_route) {
        sourced.config.bond.default_route = sourced.config.links.iter().any(|link| link.active);
    }
    sourced
}

/// The sections of a kind, in the order of the file.
fn of_kind(document: &Document, kind: &str) -> Vec<usize> {
    document.sections.iter().enumerate().filter(|(_, s)| s.kind == kind).map(|(index, _)| index).collect()
}

impl Sourced {
    fn is_client(&self) -> bool {
        self.config.globals.role == Role::Client
    }

    fn read_links(&mut self, defaults: &LinkDefaults, enabled: bool, log: &mut Log<'_>) {
        for (position, index) in (0..).zip(of_kind(log.document, "link")) {
            if position as usize == MAX_LINKS {
                log.error(At::section(index), format_args!("more than {MAX_LINKS} links"));
                break;
            }
            let name = section_name(log, index, "link");
            let on = self.is_client() && is_enabled(log.document, index);
            let mut reader = Reader::new(log, Some(index), "link", enabled && on);
            let link = read_link(&mut reader, name, position, &self.config.globals, defaults);
            if on {
                self.config.links.push(link);
                self.links_at.push(index);
            } else {
                self.disabled_links.push(link.name);
            }
        }
    }

    /// The interface's own is the first.
    fn read_servers(&mut self, enabled: bool, log: &mut Log<'_>) {
        let is_client = self.is_client();
        let config = &mut self.config;
        if is_client {
            config.server.clone_from(&config.bond.name);
            config.servers.push(Server::own(config));
        }
        for index in of_kind(log.document, "server") {
            let name = section_name(log, index, "server");
            let on = is_client && is_enabled(log.document, index);
            let mut reader = Reader::new(log, Some(index), "server", enabled && on);
            let server = read_server(&mut reader, name, config);
            if on && config.servers.len() == MAX_SERVERS {
                log.error(At::section(index), format_args!("more than {MAX_SERVERS} servers"));
                break;
            }
            if on {
                config.servers.push(server);
                self.servers_at.push(index);
            }
        }
    }

    fn read_peers(&mut self, enabled: bool, log: &mut Log<'_>) {
        for (position, index) in of_kind(log.document, "peer").into_iter().enumerate() {
            if position == MAX_PEERS {
                log.error(At::section(index), format_args!("more than {MAX_PEERS} peers"));
                break;
            }
            let name = section_name(log, index, "peer");
            let on = !self.is_client() && is_enabled(log.document, index);
            let mut reader = Reader::new(log, Some(index), "peer", enabled && on);
            let peer = read_peer(&mut reader, name, self.config.bond.policy);
            if let Some(peer) = peer.filter(|_| on) {
                self.config.peers.push(peer);
                self.peers_at.push(index);
            }
        }
    }

    fn read_redirects(&mut self, log: &mut Log<'_>) {
        for index in of_kind(log.document, "redirect") {
            let on = !self.is_client() && is_enabled(log.document, index);
            let name = log.document.label(index);
            let redirect = read_redirect(&mut Reader::new(log, Some(index), "redirect", on), name);
            if let Some(redirect) = redirect.filter(|_| on) {
                self.config.redirects.push(redirect);
                self.redirects_at.push(index);
            }
        }
    }

    fn read_rules(&mut self, log: &mut Log<'_>) {
        for index in of_kind(log.document, "rule") {
            let on = self.is_client() && is_enabled(log.document, index);
            let name = log.document.label(index);
            let rule = read_rule(&mut Reader::new(log, Some(index), "rule", on), name);
            if let Some(rule) = rule.filter(|_| on) {
                self.config.rules.push(rule);
                self.rules_at.push(index);
            }
        }
    }
}

/// One warning for the `openvpn` sections of the bondlink package, one each for types that nobody knows.
fn warn_of_unknown_sections(log: &mut Log<'_>) {
    let document = log.document;
    let mut openvpn = false;
    for (index, section) in document.sections.iter().enumerate() {
        if SectionSpec::find(&section.kind).is_some() || log.is_full() {
            continue;
        }
        if matches!(section.kind.as_str(), "openvpn" | "openvpn-server") {
            if !openvpn {
                log.warning(
                    At::section(index),
                    "sections 'openvpn' and 'openvpn-server' are not used, the bond encrypts by itself: \
                     'private_key_file' (globals), 'public_key' (interface) and 'cipher' (globals) replace ca, cert, key, \
                     dh, tls_auth and cipher; 'mtu' and 'mss_clamp' (interface) replace fragment and mssfix; 'keepalive' \
                     (link) and 'rekey_interval' (globals) replace keepalive and reneg_sec",
                );
            }
            openvpn = true;
            continue;
        }
        let known = SECTIONS.iter().map(|section| section.kind);
        let message = match nearest(&section.kind, known.clone()) {
            Some(name) => format!("unknown section type '{}'; did you mean '{name}'?", section.kind),
            None => {
                let known: Vec<&str> = known.collect();
                format!("unknown section type '{}'; known are {}", section.kind, known.join(", "))
            }
        };
        log.warning(At::section(index), message);
    }
}

fn single(log: &mut Log<'_>, indices: &[usize]) -> Option<usize> {
    let first = indices.first().copied()?;
    for other in indices.iter().skip(1) {
        let section = &log.document.sections[first];
        log.error(
            At::section(*other),
            format_args!("a second section '{}'; the first is in line {}", section.kind, section.line),
        );
    }
    Some(first)
}

fn section_name(log: &mut Log<'_>, index: usize, kind: &str) -> String {
    let name = log.document.sections.get(index).and_then(|section| section.name.clone());
    name.unwrap_or_else(|| {
        log.error(At::section(index), format_args!("a {kind} needs a name: `config {kind} 'NAME'`"));
        log.document.label(index)
    })
}

fn is_enabled(document: &Document, index: usize) -> bool {
    let value = document.sections.get(index).and_then(|section| section.entry("enabled"));
    value.and_then(|entry| value::boolean(&entry.values.last()?.text)).unwrap_or(true)
}

fn read_globals(reader: &mut Reader<'_, '_>, has_peers: bool) -> Globals {
    let role = reader.one("role", |text| match text {
        "client" => Some(Role::Client),
        "server" => Some(Role::Server),
        _ => None,
    });
    Globals {
        enabled: reader.flag("enabled"),
        role: role.unwrap_or(if has_peers { Role::Server } else { Role::Client }),
        mode: reader.one("mode", |text| (text == "kernel").then_some(Mode::Kernel)).unwrap_or(Mode::User),
        private_key: reader.secret("private_key"),
        private_key_file: reader.path("private_key_file"),
        listen_ports: reader.all("listen_port", value::port),
        listen_addresses: reader.addresses("listen_address"),
        public_addresses: reader.all("public_address", value::host),
        nat: reader.flag("nat"),
        forwarding: reader.flag("forwarding"),
        trusted_networks: reader.networks("trusted_network").iter().map(IpNet::trunc).collect(),
        client_to_client: reader.flag("client_to_client"),
        metrics_port: reader.one("metrics_port", value::port),
        control_socket: reader.path("control_socket"),
        control_group: reader.text("control_group"),
        state_dir: reader.path("state_dir"),
        log_level: reader.one("log_level", |text| text.parse().ok()).unwrap_or(::log::LevelFilter::Info),
        log_target: match reader.text("log_target").as_deref() {
            Some("syslog") => LogTarget::Syslog,
            _ => LogTarget::Stderr,
        },
        cipher: match reader.text("cipher").as_deref() {
            Some("aes-256-gcm") => Cipher::Aes256Gcm,
            Some("aes-128-gcm") => Cipher::Aes128Gcm,
            Some("chacha20-poly1305") => Cipher::ChaCha20Poly1305,
            Some("none") => Cipher::None,
            _ => Cipher::Auto,
        },
        rekey_interval: reader.duration("rekey_interval"),
        table_base: reader.number("table_base").unwrap_or_default(),
        mark_base: reader.one("mark_base", value::mark).unwrap_or(Mark { value: 1, mask: u32::MAX }),
        route_protocol: reader
            .number("route_protocol")
            .and_then(|n| u8::try_from(n).ok())
            .unwrap_or_default(),
        rule_priority: reader.number("rule_priority").unwrap_or_default(),
    }
}

/// What links take from the interface when they do not say it themselves.
struct LinkDefaults {
    servers: Vec<Host>,
    remote_port: u16,
}

fn read_interface(reader: &mut Reader<'_, '_>) -> (Interface, LinkDefaults) {
    let netmask = reader.one("netmask", value::netmask);
    let mut addresses: Vec<IpNet> = reader.all("ipaddr", |text| {
        let (address, prefix) = value::network(text)?;
        let prefix = prefix.or(netmask.filter(|_| address.is_ipv4()));
        Some(prefix.map_or(IpNet::host(address), |prefix| IpNet { address, prefix }))
    });
    addresses.extend(reader.networks("ip6addr"));
    let remote_addresses = reader.addresses("remote_ipaddr");
    let mut watchdog_addresses = reader.addresses("watchdog_ip");
    if watchdog_addresses.is_empty() {
        watchdog_addresses.clone_from(&remote_addresses);
    }
    let action: Vec<String> =
        reader.text("watchdog_action").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    let arp_interval = reader.number("arp_interval").unwrap_or_default();
    let interface = Interface {
        name: String::new(),
        ifname: reader.text("ifname").unwrap_or_default(),
        addresses,
        remote_addresses,
        public_key: reader.one("public_key", PublicKey::from_base64),
        preshared_key: reader.secret("preshared_key"),
        server_timeout: reader.duration("server_timeout"),
        server_return: Some(reader.duration("server_return")).filter(|time| !time.is_zero()),
        policy: reader.policy().unwrap_or(Policy::Adaptive),
        mtu: reader.mtu(),
        mss_clamp: reader.flag("mss_clamp"),
        default_route: reader.flag("default_route"),
        metric: reader.number("metric"),
        routes: reader.networks("route"),
        resequence_tcp: reader.flag("resequence_tcp"),
        resequence_udp: reader.flag("resequence_udp"),
        watchdog: reader.flag("watchdog").then(|| Watchdog {
            addresses: watchdog_addresses,
            period: reader.duration("watchdog_period"),
            timeout: reader.duration("watchdog_timeout"),
            action,
        }),
        hooks: Hooks {
            preup: reader.script("preup"),
            up: reader.script("up"),
            predown: reader.script("predown"),
            down: reader.script("down"),
            link_script: reader.given("link_script").then(|| reader.script("link_script")),
            timeout: reader.duration("hook_timeout"),
        },
        kernel: KernelBond {
            mode: match reader.text("bond_mode").as_deref() {
                Some("balance-xor") => BondMode::BalanceXor,
                Some("active-backup") => BondMode::ActiveBackup,
                Some("broadcast") => BondMode::Broadcast,
                _ => BondMode::BalanceRr,
            },
            xmit_hash_policy: match reader.text("xmit_hash_policy").as_deref() {
                Some("layer2") => HashPolicy::Layer2,
                Some("layer2+3") => HashPolicy::Layer23,
                _ => HashPolicy::Layer34,
            },
            tunnel_type: match reader.text("tunnel_type").as_deref() {
                Some("tap") => TunnelType::Tap,
                _ => TunnelType::Tun,
            },
            miimon: if arp_interval > 0 { 0 } else { reader.number("miimon").unwrap_or_default() },
            arp_interval,
            arp_ip_targets: reader.addresses("arp_ip_target"),
        },
    };
    let defaults = LinkDefaults {
        servers: reader.all("server", value::host),
        remote_port: reader.one("remote_port", value::port).unwrap_or_default(),
    };
    (interface, defaults)
}

fn read_link(
    reader: &mut Reader<'_, '_>,
    name: String,
    position: u32,
    globals: &Globals,
    defaults: &LinkDefaults,
) -> Link {
    let table_fallback = globals.table_base.saturating_add(position);
    let mut servers = reader.all("server", value::host);
    if servers.is_empty() {
        servers.clone_from(&defaults.servers);
    }
    Link {
        name,
        position,
        interface: reader.text("interface"),
        device: reader.text("device"),
        ipaddr: reader.networks("ipaddr").pop(),
        gateway: reader.address("gateway"),
        ip6addr: reader.networks("ip6addr").pop(),
        ip6gateway: reader.address("ip6gateway"),
        servers,
        name_servers: reader.addresses("dns"),
        remote_port: reader.one("remote_port", value::port).unwrap_or(defaults.remote_port),
        local_port: reader.one("local_port", value::port),
        mark: reader.one("mark", value::mark).unwrap_or_else(|| counted_mark(globals.mark_base, position)),
        table: reader.one("routing_table", value::table).unwrap_or(Table::Number(table_fallback)),
        table_fallback,
        tunnel: reader.text("tunnel"),
        active: reader.flag("active"),
        priority: reader.number("priority").and_then(|number| u8::try_from(number).ok()).unwrap_or(1),
        weight: reader.number("weight"),
        upload: reader.rate("upload"),
        download: reader.rate("download"),
        mtu: reader.mtu(),
        quota: reader.one("quota", value::size).filter(|quota| *quota > 0),
        quota_reset_day: reader.number("quota_reset_day").and_then(|day| u8::try_from(day).ok()).unwrap_or(1),
        keepalive: reader.duration("keepalive"),
    }
}

/// What the section does not say is as in the interface, which `config` has.
fn read_server(reader: &mut Reader<'_, '_>, name: String, config: &Config) -> Server {
    let bond = &config.bond;
    let or =
        |given: Vec<IpNet>, otherwise: &Vec<IpNet>| if given.is_empty() { otherwise.clone() } else { given };
    let remote_addresses = match reader.addresses("remote_ipaddr") {
        given if given.is_empty() => bond.remote_addresses.clone(),
        given => given,
    };
    // Whose addresses nobody has chosen are the server's.
    let watchdog_addresses = match &bond.watchdog {
        Some(watchdog) if watchdog.addresses != bond.remote_addresses => watchdog.addresses.clone(),
        _ => remote_addresses.clone(),
    };
    let hosts = reader.all("server", value::host);
    let port = reader.one("remote_port", value::port).unwrap_or_default();
    let links = config.links.iter().map(|link| (link.name.clone(), (hosts.clone(), port)));
    Server {
        name,
        public_key: reader.one("public_key", PublicKey::from_base64),
        preshared_key: reader.secret("preshared_key"),
        addresses: or(reader.networks("ipaddr"), &bond.addresses),
        remote_addresses,
        watchdog_addresses,
        links: links.collect(),
    }
}

/// The mark of the link at `position`: counted in the lowest bit of the mask. A value that leaves the mask is found by
/// the consistency check.
fn counted_mark(base: Mark, position: u32) -> Mark {
    let step = base.mask & base.mask.wrapping_neg();
    Mark { value: base.value.wrapping_add(step.wrapping_mul(position)), mask: base.mask }
}

fn read_peer(reader: &mut Reader<'_, '_>, name: String, policy: Policy) -> Option<Peer> {
    Some(Peer {
        name,
        public_key: reader.one("public_key", PublicKey::from_base64),
        preshared_key: reader.secret("preshared_key"),
        invitation_expires: reader.number("invitation_expires"),
        addresses: reader.networks("ipaddr").iter().map(IpNet::trunc).collect(),
        lans: reader.networks("lan"),
        policy: reader.policy().unwrap_or(policy),
        upload: reader.rate("upload"),
        download: reader.rate("download"),
    })
}

fn read_redirect(reader: &mut Reader<'_, '_>, name: String) -> Option<Redirect> {
    let protocols = reader.all("proto", value::protocol);
    Some(Redirect {
        name,
        protocols: if protocols.is_empty() { vec![TCP, UDP] } else { protocols },
        ports: reader.one("src_dport", value::port_range)?,
        address: reader.address("src_dip"),
        sources: reader.networks("src_ip").iter().map(IpNet::trunc).collect(),
        to: reader.address("dest_ip")?,
        to_port: reader.one("dest_port", value::port_range).map(|ports| *ports.start()),
    })
}

fn read_rule(reader: &mut Reader<'_, '_>, name: String) -> Option<Rule> {
    let links = reader.all("link", |text| Some(text.to_owned()));
    let action = if reader.flag("outside") {
        Action::Outside { links }
    } else {
        Action::Bond { policy: reader.policy(), links, force: reader.flag("force") }
    };
    Some(Rule {
        name,
        protocols: reader.all("proto", value::protocol),
        sources: reader.networks("src_ip").iter().map(IpNet::trunc).collect(),
        destinations: reader.networks("dest_ip").iter().map(IpNet::trunc).collect(),
        source_ports: reader.all("src_port", value::port_range),
        destination_ports: reader.all("dest_port", value::port_range),
        dscp: reader.all("dscp", value::dscp),
        mark: reader.one("mark", value::mark),
        action,
    })
}
