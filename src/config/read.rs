//! From the sections of a file to the typed [`Config`], by the schema; every problem is noted and reading goes on.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::key::{PublicKey, Secret};
use super::problem::{Problem, Severity};
use super::schema::{Kind, OptionSpec, SectionSpec};
use super::spelling::nearest;
use super::types::*;
use super::uci::{Document, Section};
use super::value::{self, Host, IpNet, Mark, Rate, Table};

/// The largest number of links of a client.
pub const MAX_LINKS: usize = 32;

/// The largest number of peers of a server.
pub const MAX_PEERS: usize = 2048;

/// The problems found so far, and what is needed to say where.
pub(super) struct Log<'a> {
    pub(super) file: &'a str,
    pub(super) document: &'a Document,
    pub(super) problems: Vec<Problem>,
}

impl Log<'_> {
    pub(super) fn error(&mut self, at: At<'_>, message: impl Into<String>) {
        self.push(Severity::Error, at, message.into());
    }

    pub(super) fn warning(&mut self, at: At<'_>, message: impl Into<String>) {
        self.push(Severity::Warning, at, message.into());
    }

    pub(super) fn push(&mut self, severity: Severity, at: At<'_>, message: String) {
        let section = at.section.and_then(|index| self.document.sections.get(index));
        let entry = section.zip(at.option).and_then(|(section, name)| section.entry(name));
        let line = at.line.or(entry.map(|entry| entry.line())).or(section.map(|section| section.line));
        self.problems.push(Problem {
            severity,
            file: self.file.to_owned(),
            line: line.unwrap_or(0),
            section: at.section.map(|index| self.document.label(index)),
            option: at.option.map(str::to_owned),
            message,
        });
    }

    pub(super) fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// A place in the file: a section by its index, an option by its name, a line where it is known better.
#[derive(Clone, Copy, Default)]
pub(super) struct At<'a> {
    pub(super) section: Option<usize>,
    pub(super) option: Option<&'a str>,
    pub(super) line: Option<usize>,
}

impl<'a> At<'a> {
    pub(super) fn section(index: usize) -> Self {
        At { section: Some(index), ..At::default() }
    }

    pub(super) fn option(index: usize, name: &'a str) -> Self {
        At { section: Some(index), option: Some(name), line: None }
    }
}

/// A configuration and which section each part came from.
pub(super) struct Sourced {
    pub(super) config: Config,
    pub(super) globals_at: Option<usize>,
    pub(super) bond_at: Option<usize>,
    pub(super) links_at: Vec<usize>,
    pub(super) peers_at: Vec<usize>,
    pub(super) rules_at: Vec<usize>,
    /// The names of the links that are there but not enabled.
    pub(super) disabled_links: Vec<String>,
}

/// Reads all sections. The result is whole, with defaults in the place of what was wrong.
pub(super) fn read(log: &mut Log<'_>) -> Sourced {
    let document = log.document;
    warn_of_unknown_sections(log);
    let of_kind = |kind: &str| -> Vec<usize> {
        document.sections.iter().enumerate().filter(|(_, s)| s.kind == kind).map(|(index, _)| index).collect()
    };
    let globals_at = single(log, &of_kind("globals"));
    let bond_at = single(log, &of_kind("interface"));
    let (links_at, peers_at) = (of_kind("link"), of_kind("peer"));

    let globals = read_globals(&mut Reader::new(log, globals_at, "globals", true), !peers_at.is_empty());
    let enabled = globals.enabled;
    if bond_at.is_none() && enabled {
        log.error(
            At::default(),
            "there is no section 'interface': add `config interface 'bond'` with an `ipaddr`",
        );
    }
    let (bond, defaults) =
        read_interface(&mut Reader::new(log, bond_at, "interface", enabled && bond_at.is_some()));
    let bond = Interface { name: bond_at.map_or("bond".into(), |index| document.label(index)), ..bond };

    let mut sourced = Sourced {
        config: Config { globals, bond, links: Vec::new(), peers: Vec::new(), rules: Vec::new() },
        globals_at,
        bond_at,
        links_at: Vec::new(),
        peers_at: Vec::new(),
        rules_at: Vec::new(),
        disabled_links: Vec::new(),
    };
    let config = &mut sourced.config;

    let is_client = config.globals.role == Role::Client;
    for (position, index) in links_at.into_iter().enumerate() {
        if position == MAX_LINKS {
            log.error(At::section(index), format!("more than {MAX_LINKS} links"));
            break;
        }
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        let name = section_name(log, index, "link");
        let on = is_client && is_enabled(log.document, index);
        let mut reader = Reader::new(log, Some(index), "link", enabled && on);
        let link = read_link(&mut reader, name, position, &config.globals, &defaults);
        if on {
            config.links.push(link);
            sourced.links_at.push(index);
        } else {
            sourced.disabled_links.push(link.name);
        }
    }
    for (position, index) in peers_at.into_iter().enumerate() {
        if position == MAX_PEERS {
            log.error(At::section(index), format!("more than {MAX_PEERS} peers"));
            break;
        }
        let name = section_name(log, index, "peer");
        let on = !is_client && is_enabled(log.document, index);
        let mut reader = Reader::new(log, Some(index), "peer", enabled && on);
        let peer = read_peer(&mut reader, name, config.bond.policy);
        if let Some(peer) = peer.filter(|_| on) {
            config.peers.push(peer);
            sourced.peers_at.push(index);
        }
    }
    for index in of_kind("rule") {
        let on = is_client && is_enabled(log.document, index);
        let name = document.label(index);
        let rule = read_rule(&mut Reader::new(log, Some(index), "rule", on), name);
        if let Some(rule) = rule.filter(|_| on) {
            config.rules.push(rule);
            sourced.rules_at.push(index);
        }
    }
    if document
        .sections
        .iter()
        .all(|section| section.kind != "interface" || section.entry("default_route").is_none())
    {
        config.bond.default_route = config.links.iter().any(|link| link.active);
    }
    sourced
}

/// One warning for the `openvpn` sections of the bondlink package, one each for types that nobody knows.
fn warn_of_unknown_sections(log: &mut Log<'_>) {
    let document = log.document;
    let mut openvpn = false;
    for (index, section) in document.sections.iter().enumerate() {
        if SectionSpec::find(&section.kind).is_some() {
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
        let known = super::schema::SECTIONS.iter().map(|section| section.kind);
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
        let message = format!("a second section '{}'; the first is in line {}", section.kind, section.line);
        log.error(At::section(*other), message);
    }
    Some(first)
}

fn section_name(log: &mut Log<'_>, index: usize, kind: &str) -> String {
    let name = log.document.sections.get(index).and_then(|section| section.name.clone());
    name.unwrap_or_else(|| {
        log.error(At::section(index), format!("a {kind} needs a name: `config {kind} 'NAME'`"));
        log.document.label(index)
    })
}

fn is_enabled(document: &Document, index: usize) -> bool {
    let value = document.sections.get(index).and_then(|section| section.entry("enabled"));
    value.and_then(|entry| value::boolean(&entry.values.last()?.text)).unwrap_or(true)
}

/// The values of one section, checked against the schema.
struct Reader<'a, 'b> {
    log: &'a mut Log<'b>,
    spec: Option<&'static SectionSpec>,
    values: HashMap<&'static str, Vec<String>>,
}

impl<'a, 'b> Reader<'a, 'b> {
    /// Checks every option of the section at `index`; `complete` if required ones must be there.
    fn new(log: &'a mut Log<'b>, index: Option<usize>, kind: &str, complete: bool) -> Self {
        let mut reader = Reader { log, spec: SectionSpec::find(kind), values: HashMap::new() };
        let document = reader.log.document;
        if let Some((index, section)) = index.and_then(|index| Some((index, document.sections.get(index)?))) {
            reader.check(index, section, complete);
        }
        reader
    }

    fn check(&mut self, index: usize, section: &Section, complete: bool) {
        let Some(spec) = self.spec else { return };
        for entry in &section.entries {
            let at = At::option(index, &entry.name);
            let Some(option) = spec.option(&entry.name) else {
                self.log.warning(at, unknown_option(spec, &entry.name));
                continue;
            };
            if !option.list && entry.values.len() > 1 {
                self.log.error(at, format!("has {} values, but can have only one", entry.values.len()));
                continue;
            }
            let mut accepted = Vec::new();
            for value in &entry.values {
                let at = At { line: Some(value.line), ..at };
                let words: Vec<&str> = match option.list && !is_placeholder(&value.text) {
                    true => value.text.split_whitespace().collect(),
                    false => vec![value.text.trim()],
                };
                for word in words {
                    match complaint(option, word) {
                        Some(message) => self.log.error(at, message),
                        None => accepted.push(word.to_owned()),
                    }
                }
            }
            self.values.insert(option.name, accepted);
        }
        for option in spec.options.iter().filter(|option| option.required && complete) {
            if section.entry(option.name).is_none() {
                let message = format!("is missing; it must be {}", option.kind.expected());
                self.log.error(At { line: Some(section.line), ..At::option(index, option.name) }, message);
            }
        }
    }

    fn option(&self, name: &str) -> Option<&'static OptionSpec> {
        let option = self.spec.and_then(|spec| spec.option(name));
        debug_assert!(option.is_some(), "option '{name}' is not in the schema");
        option
    }

    /// Whether the file gives the option.
    fn given(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|values| !values.is_empty())
    }

    /// The values of an option, else its default.
    fn all<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Vec<T> {
        let Some(option) = self.option(name) else { return Vec::new() };
        match self.values.get(name).filter(|values| !values.is_empty()) {
            Some(values) => values.iter().filter_map(|value| parse(value)).collect(),
            None if option.default.is_empty() => Vec::new(),
            None => parse(option.default).into_iter().collect(),
        }
    }

    /// The value of an option, else its default.
    fn one<T>(&self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.all(name, parse).pop()
    }

    fn flag(&self, name: &str) -> bool {
        self.one(name, value::boolean).unwrap_or(false)
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.one(name, |text| u32::try_from(value::integer(text)?).ok())
    }

    fn duration(&self, name: &str) -> Duration {
        self.one(name, value::duration).unwrap_or_default()
    }

    fn text(&self, name: &str) -> Option<String> {
        self.one(name, |text| Some(text.to_owned()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.text(name).unwrap_or_default().into()
    }

    fn address(&self, name: &str) -> Option<IpAddr> {
        self.one(name, |text| text.parse().ok())
    }

    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        self.all(name, |text| text.parse().ok())
    }

    fn networks(&self, name: &str) -> Vec<IpNet> {
        self.all(name, ip_net)
    }

    /// A rate limit: 0 is none.
    fn rate(&self, name: &str) -> Option<Rate> {
        self.one(name, value::rate).filter(|rate| rate.0 > 0)
    }

    fn mtu(&self) -> Option<u16> {
        self.number("mtu").and_then(|mtu| u16::try_from(mtu).ok()).filter(|mtu| *mtu > 0)
    }

    fn secret(&self, name: &str) -> Option<Secret> {
        self.one(name, Secret::from_base64)
    }

    fn script(&self, name: &str) -> Script {
        Script { path: self.path(name), configured: self.given(name) }
    }

    fn policy(&self) -> Option<Policy> {
        self.one("policy", |text| match text {
            "adaptive" => Some(Policy::Adaptive),
            "weighted" => Some(Policy::Weighted),
            "round-robin" => Some(Policy::RoundRobin),
            "flow" => Some(Policy::Flow),
            "active-backup" => Some(Policy::ActiveBackup),
            "redundant" => Some(Policy::Redundant),
            _ => None,
        })
    }
}

fn is_placeholder(text: &str) -> bool {
    let text = text.trim();
    text.len() > 2 && text.starts_with('<') && text.ends_with('>')
}

/// What is wrong with one value, if anything.
fn complaint(option: &OptionSpec, word: &str) -> Option<String> {
    let expected = option.kind.expected();
    if is_placeholder(word) && !option.kind.is_secret() {
        return Some(format!("'{word}' is a placeholder; put {expected} in its place"));
    }
    if !option.kind.accepts(word) {
        if option.kind.is_secret() {
            return Some(format!("the value is not {expected}"));
        }
        let shown: String = word.chars().take(60).collect();
        let dots = if shown.len() < word.len() { "…" } else { "" };
        let hint = match option.kind {
            Kind::Choice(choices) => nearest(word, choices.iter().map(|choice| choice.word)),
            _ => None,
        };
        let hint = hint.map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
        return Some(format!("'{}{dots}' is not {expected}{hint}", shown.escape_debug()));
    }
    let net = matches!(option.kind, Kind::Prefix).then(|| ip_net(word)).flatten()?;
    (net.trunc() != net)
        .then(|| format!("'{word}' is an address in a network; write the network, '{}'", net.trunc()))
}

fn unknown_option(spec: &SectionSpec, name: &str) -> String {
    if let Some(near) = nearest(name, spec.options.iter().map(|option| option.name)) {
        return format!("unknown option; did you mean '{near}'?");
    }
    let elsewhere = super::schema::SECTIONS.iter().find(|section| section.option(name).is_some());
    match elsewhere {
        Some(section) => format!("unknown option here; it belongs in section '{}'", section.kind),
        None => "unknown option".into(),
    }
}

fn ip_net(text: &str) -> Option<IpNet> {
    let (address, prefix) = value::network(text)?;
    Some(prefix.map_or(IpNet::host(address), |prefix| IpNet { address, prefix }))
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
        client_to_client: reader.flag("client_to_client"),
        control_socket: reader.path("control_socket"),
        control_group: reader.text("control_group"),
        log_level: reader.one("log_level", |text| text.parse().ok()).unwrap_or(log::LevelFilter::Info),
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

/// The mark of the link at `position`: counted in the lowest bit of the mask. A value that leaves the mask is found by
/// the consistency check.
fn counted_mark(base: Mark, position: u32) -> Mark {
    let step = base.mask & base.mask.wrapping_neg();
    Mark { value: base.value.wrapping_add(step.wrapping_mul(position)), mask: base.mask }
}

fn read_peer(reader: &mut Reader<'_, '_>, name: String, policy: Policy) -> Option<Peer> {
    Some(Peer {
        name,
        public_key: reader.one("public_key", PublicKey::from_base64)?,
        preshared_key: reader.secret("preshared_key"),
        addresses: reader.networks("ipaddr").iter().map(IpNet::trunc).collect(),
        lans: reader.networks("lan"),
        policy: reader.policy().unwrap_or(policy),
        upload: reader.rate("upload"),
        download: reader.rate("download"),
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
