//! Import of `mlvpn.conf`: the equivalent `/etc/config/bonding`, with a comment for what has no equivalent.
//!
//! MLVPN reads its file with a small reader of its own: `"` is dropped wherever it stands, `#` starts a comment outside
//! of quotes, a line that is neither a section nor `name = value` is passed over. That is done here line by line; what
//! remains is plain INI and goes to the crate `rust-ini`.

mod filter;

use std::fmt::Write as _;
use std::net::IpAddr;

use ini::{Ini, ParseOption, Properties};

use super::uci::{MAX_BYTES, quote};
use super::value::{self, IpNet, Rate};
use crate::bond::sorted::{SortedMap, SortedSet};

/// What an import gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The configuration, in UCI, with comments.
    pub uci: String,
    /// What the user still has to do or should know, one sentence each; the same as in the comments.
    pub notes: Vec<String>,
}

/// Why a file could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// More than [`MAX_BYTES`].
    #[error("the file has {0} bytes; the limit is {MAX_BYTES}")]
    TooLarge(usize),
    /// Not INI.
    #[error("line {line}: {message}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// There is no `[general]`.
    #[error("there is no section [general]: this is not an mlvpn.conf")]
    NotMlvpn,
}

/// Translates the text of an `mlvpn.conf`.
///
/// # Errors
///
/// When the text is not an `mlvpn.conf`. Single options that make no sense are kept as comments instead.
pub fn import(text: &str) -> Result<Import, ImportError> {
    if text.len() > MAX_BYTES {
        return Err(ImportError::TooLarge(text.len()));
    }
    let (plain, strange_lines) = plain_ini(text);
    let options = ParseOption { enabled_quote: false, enabled_escape: false, ..ParseOption::default() };
    let ini = Ini::load_from_str_opt(&plain, options)
        .map_err(|error| ImportError::Syntax { line: error.line, message: error.msg.into_owned() })?;
    let general = ini.section(Some("general")).ok_or(ImportError::NotMlvpn)?;
    let mut writer = Writer::default();
    for line in strange_lines {
        writer.note(format!(
            "line {line} of mlvpn.conf is neither a section nor `name = value` and was left out"
        ));
    }
    let tunnels: Vec<(&str, &Properties)> = ini
        .iter()
        .filter_map(|(name, properties)| Some((name?, properties)))
        .filter(|(name, _)| *name != "general" && !name.starts_with("filters"))
        .collect();
    let is_server = match general.get("mode") {
        Some("server") => true,
        Some("client") => false,
        _ => {
            let server = !tunnels.iter().any(|(_, tunnel)| tunnel.contains_key("remotehost"));
            let end = if server { "server" } else { "client" };
            writer.note(format!("'mode' is missing; taken for a {end}"));
            server
        }
    };
    let filters = ini.section_all(Some("filters")).flat_map(Properties::iter);
    if is_server {
        server(&mut writer, general, &tunnels);
        for (tunnel, filter) in filters {
            writer
                .comment(format!("filter '{tunnel} = {filter}': write it as a `config rule` on the router"));
        }
    } else {
        let links = client(&mut writer, general, &tunnels);
        for (tunnel, expression) in filters {
            match links.get(tunnel) {
                Some(link) => rules(&mut writer, link, tunnel, expression),
                None => {
                    writer.note(format!("filter '{tunnel} = {expression}': there is no tunnel '{tunnel}'"))
                }
            }
        }
    }
    Ok(Import { uci: writer.text, notes: writer.notes })
}

/// The file as MLVPN sees it, line for line: without comments and quotes. Also the numbers of lines it cannot read.
fn plain_ini(text: &str) -> (String, Vec<usize>) {
    let mut plain = String::new();
    let mut strange = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut quoted = false;
        let comment = line.find(|character| {
            quoted ^= character == '"';
            character == '#' && !quoted
        });
        let line = line.get(..comment.unwrap_or(line.len())).unwrap_or("").replace(['"', '\r'], "");
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let _ = write!(plain, "[{}]", section.trim());
        } else if line.split_once('=').is_some_and(|(name, _)| !name.trim().is_empty()) {
            plain.push_str(line);
        } else if !line.is_empty() {
            strange.push(index + 1);
        }
        plain.push('\n');
    }
    (plain, strange)
}

/// Builds the UCI text.
#[derive(Default)]
struct Writer {
    text: String,
    notes: Vec<String>,
    names: SortedSet<String>,
    in_section: bool,
}

impl Writer {
    fn section(&mut self, kind: &str, name: &str) {
        self.in_section = true;
        let _ = match name {
            "" => writeln!(self.text, "\nconfig {kind}"),
            _ => writeln!(self.text, "\nconfig {kind} {}", quote(name)),
        };
    }

    fn option(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            let _ = writeln!(self.text, "\toption {name} {}", quote(value));
        }
    }

    fn list(&mut self, name: &str, value: &str) {
        let _ = writeln!(self.text, "\tlist {name} {}", quote(value));
    }

    fn comment(&mut self, text: String) {
        let indent = if self.in_section { "\t" } else { "" };
        let _ = writeln!(self.text, "{indent}# {}", text.replace(['\n', '\r'], " "));
    }

    /// A comment that the user should also see at once.
    fn note(&mut self, text: String) {
        self.comment(text.clone());
        self.notes.push(text);
    }

    /// An MLVPN section's name as the name of a UCI section: letters, digits and `_`, once.
    fn unique_name(&mut self, name: &str) -> String {
        let mut plain: String = name
            .chars()
            .map(|character| if character.is_ascii_alphanumeric() { character } else { '_' })
            .collect();
        if plain.is_empty() || plain == "bond" || plain == "globals" {
            plain.push_str("_link");
        }
        while !self.names.insert(plain.clone()) {
            plain.push('_');
        }
        plain
    }
}

fn head(writer: &mut Writer, general: &Properties, this_end: &str, other_end: &str) {
    let _ = writeln!(writer.text, "#\n# Keys take the place of 'password'. On each end:");
    let _ = writeln!(
        writer.text,
        "#     umask 077; mkdir -p /etc/bonding; bonding genkey > /etc/bonding/private.key"
    );
    let _ = writeln!(writer.text, "#     bonding pubkey < /etc/bonding/private.key");
    let _ = writeln!(
        writer.text,
        "# What the {other_end} prints goes into 'public_key' here, and the other way round."
    );
    writer.notes.push(format!(
        "'password' has no equivalent: run `(umask 077; mkdir -p /etc/bonding; bonding genkey > /etc/bonding/private.key); \
         bonding pubkey < /etc/bonding/private.key` on both ends; what the {other_end} prints goes into 'public_key' of \
         the {this_end}, and the other way round"
    ));
    writer.section("globals", "globals");
    if general.get("cleartext_data").is_some_and(|value| value != "0") {
        writer.option("cipher", "none");
    }
    for name in ["control_unix_path", "control_bind_host", "control_bind_port"] {
        if let Some(value) = general.get(name).filter(|value| !value.is_empty()) {
            writer.comment(format!("{name} '{value}': see `bonding status --json` and 'control_socket'"));
        }
    }
}

/// What both ends have in `interface`. `own` is this end's address when the file gives none.
fn interface(writer: &mut Writer, general: &Properties, own: &str) {
    writer.section("interface", "bond");
    writer
        .option("ifname", general.get("interface_name").filter(|name| !name.is_empty()).unwrap_or("mlvpn0"));
    let mut addressed = false;
    for (theirs, ours) in [("ip4", "ipaddr"), ("ip6", "ip6addr")] {
        if let Some(value) = general.get(theirs).filter(|value| !value.is_empty()) {
            writer.option(ours, value);
            addressed = true;
        }
    }
    if !addressed {
        writer.note(format!(
            "mlvpn.conf gives no address inside the tunnel: {own} was chosen, change it as you like"
        ));
        writer.option("ipaddr", own);
    }
    if let Some(script) = general.get("statuscommand").filter(|script| !script.is_empty()) {
        writer.option("link_script", script);
    }
    match general.get("tuntap") {
        None | Some("tun" | "") => {}
        Some(kind) => {
            writer.note(format!("tuntap '{kind}': the bond carries IP packets; Ethernet needs kernel mode"))
        }
    }
    if let Some(mtu) = general.get("mtu") {
        writer.comment(format!("mtu '{mtu}' fits MLVPN's headers; ours is found by measuring"));
    }
    if let Some(timeout) = general.get("timeout") {
        writer.comment(format!("timeout '{timeout}': a dead link is found within a few round trips"));
    }
    if let Some(size) = general.get("reorder_buffer_size") {
        writer.comment(format!(
            "reorder_buffer_size '{size}': TCP is put in order, as long as is measured to make sense; \
             see resequence_tcp and resequence_udp"
        ));
    }
    for name in ["loss_tolerence", "latency_tolerence"] {
        if let Some(value) = general.get(name) {
            writer.comment(format!(
                "{name} '{value}': has no equivalent; each link gets what it is measured to carry"
            ));
        }
    }
    if let Some(protocol) = general.get("protocol").filter(|protocol| *protocol != "udp") {
        writer.note(format!("protocol '{protocol}': the bond speaks UDP only"));
    }
    let known = [
        "statuscommand",
        "mode",
        "timeout",
        "interface_name",
        "tuntap",
        "password",
        "cleartext_data",
        "control_unix_path",
        "control_bind_host",
        "control_bind_port",
        "reorder_buffer_size",
        "loss_tolerence",
        "latency_tolerence",
        "ip4",
        "ip6",
        "ip4_gateway",
        "ip6_gateway",
        "ip4_routes",
        "ip6_routes",
        "mtu",
        "protocol",
    ];
    unknown(writer, general, &known);
}

fn unknown(writer: &mut Writer, properties: &Properties, known: &[&str]) {
    for (name, value) in properties.iter().filter(|(name, _)| !known.contains(name)) {
        writer.note(format!("{name} '{value}' has no equivalent"));
    }
}

fn words<'a>(general: &'a Properties, names: [&'a str; 2]) -> impl Iterator<Item = &'a str> {
    names.into_iter().filter_map(|name| general.get(name)).flat_map(str::split_whitespace)
}

/// Writes the router's file; gives the name of the link that each tunnel has become.
fn client<'a>(
    writer: &mut Writer,
    general: &Properties,
    tunnels: &[(&'a str, &Properties)],
) -> SortedMap<&'a str, String> {
    head(writer, general, "router", "server");
    let net = free_network(tunnels);
    interface(writer, general, &format!("{net}.2/24"));
    let mut gateways = words(general, ["ip4_gateway", "ip6_gateway"]).peekable();
    if gateways.peek().is_none() && !general.contains_key("ip4") && !general.contains_key("ip6") {
        writer.list("remote_ipaddr", &format!("{net}.1"));
    }
    for gateway in gateways {
        writer.list("remote_ipaddr", gateway);
    }
    for route in words(general, ["ip4_routes", "ip6_routes"]) {
        match value::network(route) {
            Some((_, Some(0))) => writer.option("default_route", "1"),
            _ => writer.list("route", route),
        }
    }
    writer.comment("option public_key '…': the server's; the bond does not start without it".into());
    let mut links = SortedMap::new();
    for (name, tunnel) in tunnels {
        let section = writer.unique_name(name);
        writer.section("link", &section);
        link(writer, &section, tunnel);
        links.insert(*name, section);
    }
    links
}

fn link(writer: &mut Writer, section: &str, tunnel: &Properties) {
    if let Some(device) = tunnel.get("binddev").filter(|device| !device.is_empty()) {
        writer.option("device", device);
    }
    match tunnel.get("bindhost").map(str::parse::<IpAddr>) {
        Some(Ok(address)) if address.is_unspecified() => {}
        Some(Ok(address)) => {
            let option = if address.is_ipv4() { "ipaddr" } else { "ip6addr" };
            writer.option(option, &address.to_string());
            writer.comment(
                "option gateway '…': this line's own router, instead of `ip rule` and `ip route` by hand"
                    .into(),
            );
        }
        Some(Err(_)) => {
            let host = tunnel.get("bindhost").unwrap_or_default();
            writer.note(format!("link '{section}': bindhost '{host}' is not an address"));
        }
        None => {}
    }
    let bound = tunnel.get("bindhost").and_then(|host| host.parse::<IpAddr>().ok());
    if !tunnel.contains_key("binddev") && bound.is_none_or(|address| address.is_unspecified()) {
        writer.note(format!(
            "link '{section}': say which line it is with 'interface' (OpenWrt), 'device' or 'ipaddr'"
        ));
    }
    writer.option("server", tunnel.get("remotehost").unwrap_or_default());
    writer.option("remote_port", tunnel.get("remoteport").unwrap_or_default());
    writer.option("local_port", tunnel.get("bindport").unwrap_or_default());
    for (theirs, ours) in [("bandwidth_upload", "upload"), ("bandwidth_download", "download")] {
        if let Some(value) = tunnel.get(theirs).filter(|value| *value != "0") {
            match byte_rate(value) {
                Some(rate) => writer.option(ours, &rate.to_string()),
                None => writer.note(format!(
                    "link '{section}': {theirs} '{value}' is not a number of bytes per second"
                )),
            }
        }
    }
    if tunnel.get("fallback_only").is_some_and(|value| value != "0") {
        writer.option("priority", "2");
    }
    if let Some(quota) = tunnel.get("quota").filter(|quota| *quota != "0") {
        writer.note(format!(
            "link '{section}': quota '{quota}' is counted differently by MLVPN's variants; write it as in `option quota '10G'`"
        ));
    }
    for (name, why) in [
        ("timeout", "a dead link is found within a few round trips"),
        ("bindfib", "'gateway' and 'routing_table' do what a FIB does"),
        ("loss_tolerence", "has no equivalent; the link gets what it is measured to carry"),
        ("latency_tolerence", "has no equivalent; the link gets what it is measured to carry"),
    ] {
        if let Some(value) = tunnel.get(name) {
            writer.comment(format!("{name} '{value}': {why}"));
        }
    }
    unknown(writer, tunnel, TUNNEL_OPTIONS);
}

/// The options of a tunnel that are dealt with.
const TUNNEL_OPTIONS: &[&str] = &[
    "binddev",
    "bindhost",
    "bindport",
    "bindfib",
    "remotehost",
    "remoteport",
    "bandwidth_upload",
    "bandwidth_download",
    "fallback_only",
    "quota",
    "timeout",
    "loss_tolerence",
    "latency_tolerence",
];

fn server(writer: &mut Writer, general: &Properties, tunnels: &[(&str, &Properties)]) {
    head(writer, general, "server", "router");
    let mut addresses: Vec<&str> = Vec::new();
    for (name, tunnel) in tunnels {
        match tunnel.get("bindport") {
            Some(port) => writer.list("listen_port", port),
            None => writer.note(format!("tunnel '{name}' has no 'bindport'")),
        }
        let host = tunnel.get("bindhost").filter(|host| !matches!(*host, "" | "0.0.0.0" | "::"));
        if let Some(host) = host.filter(|host| !addresses.contains(host)) {
            writer.list("listen_address", host);
            addresses.push(host);
        }
        for (theirs, ours) in [("bandwidth_upload", "download"), ("bandwidth_download", "upload")] {
            if let Some(rate) = tunnel.get(theirs).and_then(byte_rate).filter(|rate| rate.0 > 0) {
                writer.note(format!(
                    "tunnel '{name}': {theirs} belongs to the router: `option {ours} '{rate}'` in its link '{name}'"
                ));
            }
        }
        unknown(writer, tunnel, TUNNEL_OPTIONS);
    }
    let net = free_network(tunnels);
    interface(writer, general, &format!("{net}.1/24"));
    let name = writer.unique_name("router");
    writer.section("peer", &name);
    writer.comment("give it the router's key, then enable it".into());
    writer.option("enabled", "0");
    writer.comment("option public_key '…'".into());
    let mut gateways = words(general, ["ip4_gateway", "ip6_gateway"]).peekable();
    if gateways.peek().is_none() {
        writer.list("ipaddr", &format!("{net}.2"));
    }
    for gateway in gateways {
        writer.list("ipaddr", gateway);
    }
    for route in words(general, ["ip4_routes", "ip6_routes"]) {
        writer.list("lan", route);
    }
}

/// A network (its first three octets) for the inside of the tunnel in which no line's own address lies.
fn free_network(tunnels: &[(&str, &Properties)]) -> String {
    let taken = |net: IpNet| {
        tunnels.iter().flat_map(|(_, tunnel)| ["bindhost", "remotehost"].map(|name| tunnel.get(name))).any(
            |host| {
                host.and_then(|host| host.parse().ok()).is_some_and(|address: IpAddr| net.contains(address))
            },
        )
    };
    (43..=255_u8)
        .find(|third| !taken(IpNet { address: IpAddr::from([10, 42, *third, 0]), prefix: 24 }))
        .map_or_else(|| "10.42.43".into(), |third| format!("10.42.{third}"))
}

/// MLVPN's rates are bytes per second.
fn byte_rate(text: &str) -> Option<Rate> {
    value::integer(text)?.checked_mul(8).map(Rate)
}

/// A filter as rules, or as a comment where it says more than a rule can.
fn rules(writer: &mut Writer, link: &str, tunnel: &str, expression: &str) {
    let Some(matches) = filter::translate(expression) else {
        writer.note(format!("filter '{tunnel} = {expression}' is more than a `config rule` can say"));
        return;
    };
    for one in matches {
        writer.section("rule", "");
        writer.comment(format!("filter '{tunnel} = {expression}'"));
        for (name, value) in one {
            writer.option(name, &value);
        }
        writer.option("link", link);
    }
}

#[cfg(test)]
mod tests;
