//! `bonding status`: the bond and its links on one screen.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;

use serde_json::Value;

use super::text::{Paint, bar, bytes, clean_value, cut, duration, milliseconds, percent, rate, wrap};
use crate::daemon::control::{Command, ask};
use crate::daemon::metrics;
use crate::json::{items, texts};

/// Cells of a bar.
const BAR: usize = 9;

/// Shows the state once, or again and again; gives the exit code.
pub fn run(socket: &Path, json: bool, watch: bool) -> u8 {
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    if watch {
        return super::watch::run(socket, json, colour);
    }
    let status = match ask(socket, &Command::Status) {
        Ok(status) => status,
        Err(error) => return super::no_daemon(socket, &error),
    };
    let text = if json { format!("{status:#}\n") } else { render(status, colour) };
    let mut out = io::stdout().lock();
    // Whoever read our output may have had enough of it.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    0
}

/// Prints the state as figures for Prometheus; gives the exit code.
pub fn metrics(socket: &Path, out: &mut dyn io::Write) -> u8 {
    match ask(socket, &Command::Status) {
        Ok(mut status) => {
            clean_value(&mut status);
            let text = metrics::render(&status);
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
            0
        }
        Err(error) => super::no_daemon(socket, &error),
    }
}

/// Shows what the daemon has set in the kernel; gives the exit code.
pub fn routes(socket: &Path, json: bool, out: &mut dyn io::Write) -> u8 {
    let reply = match ask(socket, &Command::Routes) {
        Ok(reply) => reply,
        Err(error) => return super::no_daemon(socket, &error),
    };
    if let Some(error) = reply["error"].as_str() {
        return super::failure(error);
    }
    let text = match json {
        true => format!("{reply:#}\n"),
        false => {
            let lines = texts(&reply["lines"]);
            lines.into_iter().flat_map(|line| [line, "\n"]).collect()
        }
    };
    // Whoever read our output may have had enough of it.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    0
}

/// The state as text for a person, within 80 columns.
pub fn render(mut status: Value, colour: bool) -> String {
    clean_value(&mut status);
    let status = &status;
    let paint = Paint(colour);
    let mut text = String::new();
    let uptime = duration(number(status, "uptime_ms"));
    let _ = writeln!(
        text,
        "{}: {} ({}), running for {uptime}",
        paint.bold("bond"),
        string(status, "ifname"),
        string(status, "role"),
    );
    let endpoint = &status["endpoint"];
    let _ = writeln!(text, "  public key: {}", string(endpoint, "public_key"));
    let listen = texts(&status["listen"]);
    if !listen.is_empty() {
        text.push_str(&wrap(&format!("listening on: {}", listen.join(", ")), 2));
    }
    render_servers(&status["servers"], paint, &mut text);
    if let Some(offloads) = status.get("offloads") {
        text.push_str(&wrap(&format!("offloads: {}", list_offloads(offloads)), 2));
    }
    if let Some(reload) = status.get("reload").filter(|reload| reload["ok"] == false) {
        let _ = writeln!(text, "  {}", paint.red("last reload refused:"));
        let mut lines = texts(&reload["details"]);
        if lines.is_empty() {
            lines.push(string(reload, "message"));
        }
        lines.iter().for_each(|line| text.push_str(&wrap(line, 4)));
    }
    match (string(&status["firewall"], "table"), string(&status["firewall"], "problem")) {
        ("", _) => {}
        (table, "") => {
            let _ = writeln!(text, "  address translation: nftables table {table}");
        }
        (_, problem) => {
            let _ = writeln!(text, "  {}", paint.red("no address translation:"));
            text.push_str(&wrap(problem, 4));
        }
    }
    render_kernel_mode(&status["kernel"], paint, &mut text);
    render_privileges(status, paint, &mut text);
    render_watchdog(&status["watchdog"], paint, &mut text);
    let peers = items(&endpoint["peers"]);
    for peer in peers {
        render_peer(peer, status, paint, &mut text);
    }
    if peers.is_empty() {
        let _ = writeln!(text, "\nno peer is configured");
    }
    if let Some(drops) = endpoint["drops"].as_object().filter(|drops| !drops.is_empty()) {
        let drops: Vec<_> = drops.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let _ = write!(text, "\n{}", wrap(&format!("dropped: {}", drops.join(", ")), 0));
    }
    text
}

/// The bonding driver's mode and its slaves, where that driver spreads the packets.
fn render_kernel_mode(kernel: &Value, paint: Paint, text: &mut String) {
    let Some(slaves) = kernel["slaves"].as_array() else { return };
    let devices = string(kernel, "tunnel_type").to_uppercase();
    let _ = writeln!(text, "  kernel mode: {} over {devices} devices", string(kernel, "bond_mode"));
    for slave in slaves {
        let carrier = match slave["carrier"] == true {
            true => paint.green("carrier"),
            false => paint.red("no carrier"),
        };
        let _ = writeln!(text, "    {}: {carrier}", string(slave, "device"));
    }
    texts(&kernel["problems"]).into_iter().for_each(|problem| text.push_str(&wrap(problem, 4)));
}

/// One peer of a status that was cleaned, as [`render`] shows it.
pub(super) fn render_one(peer: &Value, status: &Value) -> String {
    let mut text = String::new();
    render_peer(peer, status, Paint(false), &mut text);
    text
}

/// What passes between program and kernel in batches.
fn list_offloads(offloads: &Value) -> String {
    let tun = &offloads["tun"];
    let names = [
        (&tun["checksum"], "checksums"),
        (&tun["tcp"], "TCP segmentation"),
        (&tun["udp"], "UDP segmentation"),
        (&offloads["udp_send"], "batched sending"),
        (&offloads["udp_receive"], "batched receiving"),
    ];
    let (on, off): (Vec<_>, Vec<_>) = names.into_iter().partition(|(value, _)| **value == true);
    let list = |part: &[(&Value, &str)]| part.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", ");
    match (on.as_slice(), off.as_slice()) {
        ([], _) => "none".to_owned(),
        (on, []) => list(on),
        (on, off) => format!("{} (not here: {})", list(on), list(off)),
    }
}

fn render_privileges(status: &Value, paint: Paint, text: &mut String) {
    let Some(privileges) = status.get("privileges") else { return };
    let kept = texts(&privileges["capabilities"]).join(", ");
    let line = match (privileges.is_null(), privileges["seccomp"] == true) {
        (true, _) => paint.red("privileges: all, they could not be given up"),
        (false, true) => format!("privileges: {}; system calls are filtered", kept),
        (false, false) => format!("privileges: {}; no system call filter in this kernel", kept),
    };
    if privileges.is_null() {
        let _ = writeln!(text, "  {line}");
    } else {
        text.push_str(&wrap(&line, 2));
    }
}

fn render_watchdog(watchdog: &Value, paint: Paint, text: &mut String) {
    if !watchdog.is_object() {
        return;
    }
    let addresses = texts(&watchdog["addresses"]);
    let next = watchdog["next_action_ms"].as_u64().map(|ms| format!(", action in {}", duration(ms)));
    let silent = match watchdog["last_answer_ms"].as_u64() {
        Some(ms) => format!("no answer for {}", duration(ms)),
        None => "no answer yet".to_owned(),
    };
    let error = match string(watchdog, "error") {
        "" | "no answer" => String::new(),
        error => format!(" ({error})"),
    };
    let state = match (string(watchdog, "state"), watchdog["rtt_ms"].as_f64()) {
        ("ok", Some(rtt)) => format!("answers in {} ms", milliseconds(rtt)),
        ("ok", None) => "asked, no answer yet".to_owned(),
        ("waiting", _) => "waits for a link to come up".to_owned(),
        ("acting", _) => "its action runs".to_owned(),
        _ => format!("{silent}{error}{}", next.unwrap_or_default()),
    };
    let actions = match number(watchdog, "actions") {
        0 => String::new(),
        1 => "; 1 action since it worked".to_owned(),
        many => format!("; {many} actions since it worked"),
    };
    let line = wrap(&format!("watchdog: {}: {state}{actions}", addresses.join(", ")), 2);
    let is_well = matches!(string(watchdog, "state"), "ok" | "waiting");
    if is_well {
        text.push_str(&line)
    } else {
        text.push_str(&paint.yellow(line.trim_end_matches('\n')));
        text.push('\n')
    }
}

fn render_peer(peer: &Value, status: &Value, paint: Paint, text: &mut String) {
    let name = status["peers"][number(peer, "peer").to_string()].as_str().unwrap_or("peer");
    let up = peer["up"] == true;
    let state = if up { paint.green("up") } else { paint.red("down") };
    let links = items(&peer["links"]);
    // Each link says below why it is not up.
    let why = match (up, links.is_empty(), status["role"] == "server") {
        (true, _, _) => "",
        (false, true, true) => ": it has not called yet",
        (false, true, false) => ": it has no links",
        (false, false, _) => ": none of its links is up",
    };
    let _ = writeln!(text, "\n{}: {state} for {}{why}", paint.bold(name), duration(number(peer, "since_ms")));
    let _ = writeln!(text, "  public key: {}", string(peer, "public_key"));
    let handshake = match peer["last_handshake_ms"].as_u64() {
        Some(ms) => format!("{} ago", duration(ms)),
        None => "never".to_owned(),
    };
    let _ = writeln!(text, "  latest handshake: {handshake}");
    let cipher = match string(peer, "cipher") {
        "none" => paint.red("none, data is not encrypted"),
        "" => "-".to_owned(),
        cipher => cipher.to_owned(),
    };
    let _ = writeln!(
        text,
        "  cipher: {cipher}; policy: {}; MTU: {}",
        string(peer, "policy"),
        number(peer, "tunnel_mtu"),
    );
    let _ = writeln!(
        text,
        "  transfer: {} received, {} sent",
        bytes(number(peer, "rx_bytes")),
        bytes(number(peer, "tx_bytes")),
    );
    let counts = format!(
        "sent again: {}; dropped by the queue: {}; gaps given up: {}; duplicates: {}",
        number(peer, "resent"),
        number(peer, "queue_drops"),
        number(peer, "gaps_given_up"),
        number(peer, "duplicates"),
    );
    text.push_str(&wrap(&counts, 2));
    for rule in items(&peer["rules"]) {
        let at = number(rule, "rule");
        let name = usize::try_from(at).ok().and_then(|at| status["rules"][at].as_str());
        let name = name.map_or_else(|| format!("number {}", at + 1), str::to_owned);
        let (packets, sent) = (number(rule, "tx_packets"), bytes(number(rule, "tx_bytes")));
        text.push_str(&wrap(&format!("rule {name}: {sent} sent in {packets} packets"), 2));
    }
    if !links.is_empty() {
        let _ = write!(text, "\n{}", links_table(links, status, paint));
    }
}

/// A table of links, one line each and the reason below those that are not up, within 80 columns.
fn links_table(links: &[Value], status: &Value, paint: Paint) -> String {
    let mut text = format!(
        "  {:<15} {:<8} {:>6} {:>5} {:>9} {:>9} {:>9} up load\n",
        "link", "state", "rtt ms", "loss", "down", "up", "up max"
    );
    for link in links {
        render_link(link, status, paint, &mut text);
    }
    text
}

fn render_link(link: &Value, status: &Value, paint: Paint, text: &mut String) {
    let (name, state) = (string(link, "name"), string(link, "state"));
    let painted = format!("{state:<8}");
    let painted = match state {
        "up" => paint.green(&painted),
        "joining" | "suspect" => paint.yellow(&painted),
        _ => paint.red(&painted),
    };
    let rtt = link["rtt_ms"].as_f64().map_or("-".to_owned(), milliseconds);
    let (sent, most) = (number(link, "tx_rate"), link["tx_capacity"].as_u64());
    let line = format!(
        "  {:<15} {painted} {rtt:>6} {:>5} {:>9} {:>9} {:>9} {}",
        cut(name, 15),
        percent(link["tx_loss"].as_f64().unwrap_or(0.0)),
        rate(number(link, "rx_rate")),
        rate(sent),
        most.map_or("-".to_owned(), rate),
        bar(sent, most, BAR),
    );
    let _ = writeln!(text, "{}", line.trim_end());
    let quota = &status["links"][name]["quota"];
    if quota.is_object() {
        let (used, most) = (bytes(number(quota, "used")), bytes(number(quota, "quota")));
        let note = format!("quota: {used} of {most} used since {}", string(quota, "since"));
        let so = "; only used while no other link is up";
        text.push_str(&wrap(&format!("{note}{}", if quota["used_up"] == true { so } else { "" }), 4));
    }
    // What the daemon knows of the link's place says more than that the core has no path.
    let note = status["links"][name]["note"].as_str().unwrap_or_default();
    let reason = if note.is_empty() || state == "disabled" { string(link, "reason") } else { note };
    let reason = match (reason, state) {
        ("", "up") => return,
        ("", "disabled") => "taken out of the bond",
        ("", "joining") => "waiting for the other end's answer",
        ("", "suspect") => "an answer is overdue",
        ("", _) => "nothing comes through",
        (reason, _) => reason,
    };
    let interface = status["interfaces"][name].as_str().filter(|interface| !interface.is_empty());
    let place = interface.map(|interface| format!("{interface}: ")).unwrap_or_default();
    let since = duration(number(link, "since_ms"));
    text.push_str(&wrap(&format!("{place}{reason}, for {since}"), 4));
}

/// Where a bond with several servers is.
fn render_servers(servers: &Value, paint: Paint, text: &mut String) {
    let servers = items(servers);
    if servers.len() < 2 {
        return;
    }
    for server in servers {
        let heard = || match server["heard_ms"].as_u64() {
            Some(heard) => format!("; it answered {} ago", duration(heard)),
            None => "; it has never answered".to_owned(),
        };
        let state = match (server["in_use"] == true, server["answers"].as_bool()) {
            (true, Some(false)) => {
                let since = duration(number(server, "since_ms"));
                paint.red(&format!("in use for {since}, silent{}", heard()))
            }
            (true, _) => format!("in use for {}", duration(number(server, "since_ms"))),
            (false, Some(true)) => "on standby, answers".to_owned(),
            (false, Some(false)) => paint.red(&format!("on standby, silent{}", heard())),
            (false, None) => format!("on standby{}", heard()),
        };
        let _ = writeln!(text, "  server {}: {state}", string(server, "name"));
    }
}

/// The last state changes as text.
pub fn render_events(events: &Value) -> String {
    let mut text = String::new();
    for event in items(events) {
        let ago = duration(number(event, "age_ms"));
        let subject = match (event["peer"].as_str(), event["link"].as_str()) {
            (Some(peer), Some(link)) => format!("{peer} link {link} "),
            (None, Some(link)) => format!("link {link} "),
            (Some(peer), None) => format!("{peer} "),
            (None, None) => String::new(),
        };
        let why = string(event, "why");
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        let _ = writeln!(text, "{ago:>10} ago  {subject}{}{why}", string(event, "what"));
    }
    text
}

fn string<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_default()
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
