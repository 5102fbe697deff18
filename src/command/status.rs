//! `bonding status`: the bond and its links on one screen.

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::daemon::control::{Command, ask};

/// How often `--watch` looks.
const REFRESH: Duration = Duration::from_secs(1);
/// Cells of a bar.
const BAR: usize = 10;

/// Shows the state once, or again and again; gives the exit code.
pub fn run(socket: &Path, json: bool, watch: bool) -> u8 {
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    loop {
        let status = match ask(socket, &Command::Status) {
            Ok(status) => status,
            Err(error) => return super::no_daemon(socket, &error),
        };
        let text = if json { format!("{status:#}\n") } else { render(&status, colour) };
        let clear = if watch && io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
        let mut out = io::stdout().lock();
        // A reader that has gone away ends the watching.
        if out.write_all(format!("{clear}{text}").as_bytes()).and_then(|()| out.flush()).is_err() || !watch {
            return 0;
        }
        drop(out);
        std::thread::sleep(REFRESH);
    }
}

/// Shows what the daemon has set in the kernel; gives the exit code.
pub fn routes(socket: &Path, json: bool, out: &mut dyn io::Write) -> u8 {
    let reply = match ask(socket, &Command::Routes) {
        Ok(reply) => reply,
        Err(error) => return super::no_daemon(socket, &error),
    };
    if let Some(error) = reply["error"].as_str() {
        eprintln!("bonding: {error}");
        return super::FAILED;
    }
    let text = match json {
        true => format!("{reply:#}\n"),
        false => {
            let lines = reply["lines"].as_array().map(Vec::as_slice).unwrap_or_default();
            lines.iter().filter_map(Value::as_str).flat_map(|line| [line, "\n"]).collect()
        }
    };
    // Whoever read our output may have had enough of it.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    0
}

/// The state as text for a person, within 80 columns.
pub fn render(status: &Value, colour: bool) -> String {
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
    if let Some(listen) = status["listen"].as_array().filter(|listen| !listen.is_empty()) {
        let listen: Vec<_> = listen.iter().filter_map(Value::as_str).collect();
        let _ = writeln!(text, "  listening on: {}", listen.join(", "));
    }
    if let Some(reload) = status.get("reload").filter(|r| r["ok"] == false) {
        let _ = writeln!(text, "  {}: {}", paint.red("last reload refused"), string(reload, "message"));
    }
    let peers = endpoint["peers"].as_array().map(Vec::as_slice).unwrap_or_default();
    for peer in peers {
        render_peer(peer, status, &paint, &mut text);
    }
    if let Some(drops) = endpoint["drops"].as_object().filter(|d| !d.is_empty()) {
        let drops: Vec<_> = drops.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let _ = writeln!(text, "\ndropped: {}", drops.join(", "));
    }
    text
}

fn render_peer(peer: &Value, status: &Value, paint: &Paint, text: &mut String) {
    let name = status["peers"][number(peer, "peer").to_string()].as_str().unwrap_or("peer");
    let state = if peer["up"] == true { paint.green("up") } else { paint.red("down") };
    let _ = writeln!(text, "\n{}: {state} for {}", paint.bold(name), duration(number(peer, "since_ms")));
    let _ = writeln!(text, "  public key: {}", string(peer, "public_key"));
    let handshake = match peer["last_handshake_ms"].as_u64() {
        Some(ms) => format!("{} ago", duration(ms)),
        None => "never".to_owned(),
    };
    let cipher = match string(peer, "cipher") {
        "none" => paint.red("none: data is not encrypted"),
        "" => "-".to_owned(),
        cipher => cipher.to_owned(),
    };
    let _ = writeln!(
        text,
        "  latest handshake: {handshake}; cipher: {cipher}; policy: {}",
        string(peer, "policy")
    );
    let _ = writeln!(
        text,
        "  transfer: {} received, {} sent; MTU {}",
        bytes(number(peer, "rx_bytes")),
        bytes(number(peer, "tx_bytes")),
        number(peer, "tunnel_mtu"),
    );
    let _ = writeln!(
        text,
        "  sent again: {}; dropped by the queue: {}; gaps given up: {}",
        number(peer, "resent"),
        number(peer, "queue_drops"),
        number(peer, "gaps_given_up"),
    );
    let links = peer["links"].as_array().map(Vec::as_slice).unwrap_or_default();
    if links.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "\n  {:<12} {:<8} {:>7} {:>5} {:>9} {:>9} {:>9}  {:<10}",
        "link", "state", "rtt ms", "loss", "down", "up", "up max", "up load"
    );
    for link in links {
        render_link(link, status, paint, text);
    }
}

fn render_link(link: &Value, status: &Value, paint: &Paint, text: &mut String) {
    let state = string(link, "state");
    let painted = format!("{state:<8}");
    let painted = match state {
        "up" => paint.green(&painted),
        "joining" | "suspect" => paint.yellow(&painted),
        _ => paint.red(&painted),
    };
    let rtt = link["rtt_ms"].as_f64().map_or("-".to_owned(), |ms| format!("{ms:.1}"));
    let loss = 100.0 * link["tx_loss"].as_f64().unwrap_or(0.0).max(0.0);
    let (sent, most) = (number(link, "tx_rate"), link["tx_capacity"].as_u64());
    let _ = writeln!(
        text,
        "  {:<12} {painted} {rtt:>7} {:>5} {:>9} {:>9} {:>9}  {}",
        cut(string(link, "name"), 12),
        format!("{loss:.1}%"),
        rate(number(link, "rx_rate")),
        rate(sent),
        most.map_or("-".to_owned(), rate),
        bar(sent, most),
    );
    // What the daemon knows of the link's place says more than that the core has no path.
    let note = status["links"][string(link, "name")]["note"].as_str().unwrap_or_default();
    let reason = if note.is_empty() || state == "disabled" { string(link, "reason") } else { note };
    if !reason.is_empty() {
        let interface = status["interfaces"][string(link, "name")].as_str().filter(|i| !i.is_empty());
        let place = interface.map(|i| format!(" ({i})")).unwrap_or_default();
        let _ = writeln!(text, "    {reason}{place}, for {}", duration(number(link, "since_ms")));
    }
}

/// The last state changes as text.
pub fn render_events(events: &Value) -> String {
    let mut text = String::new();
    for event in events.as_array().map(Vec::as_slice).unwrap_or_default() {
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

/// Bits a second, for people.
pub fn rate(bits: u64) -> String {
    match bits {
        0 => "0".to_owned(),
        1..1_000_000 => format!("{:.0} kbit", bits as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} Mbit", bits as f64 / 1e6),
        _ => format!("{:.2} Gbit", bits as f64 / 1e9),
    }
}

fn bytes(count: u64) -> String {
    let (mut value, mut unit) = (count as f64, "B");
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    if unit == "B" { format!("{count} B") } else { format!("{value:.2} {unit}") }
}

fn duration(ms: u64) -> String {
    let s = ms / 1_000;
    match s {
        0 => format!("{ms} ms"),
        1..60 => format!("{s} s"),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

fn bar(now: u64, most: Option<u64>) -> String {
    let Some(most) = most.filter(|most| *most > 0) else { return String::new() };
    let filled = usize::try_from(now.saturating_mul(BAR as u64) / most).unwrap_or(BAR).min(BAR);
    format!("{}{}", "#".repeat(filled), ".".repeat(BAR - filled))
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

fn string<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_default()
}

struct Paint(bool);

impl Paint {
    fn with(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(&self, text: &str) -> String {
        self.with("1", text)
    }

    fn green(&self, text: &str) -> String {
        self.with("32", text)
    }

    fn yellow(&self, text: &str) -> String {
        self.with("33", text)
    }

    fn red(&self, text: &str) -> String {
        self.with("31", text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_is_as_it_should_be() {
        let status = serde_json::json!({
            "version": 1, "role": "client", "ifname": "bond0", "uptime_ms": 3_723_000,
            "reload": { "ok": false, "message": "/etc/config/bonding:3: no" },
            "interfaces": { "adsl1": "wan0", "lte": "wwan", "sat": "wan9" },
            "links": { "adsl1": { "note": "" }, "sat": { "note": "netifd has no interface 'wan9'" } }, "peers": { "0": "server" },
            "endpoint": {
                "public_key": "K=", "drops": { "replayed": 3 },
                "peers": [{
                    "peer": 0, "public_key": "S=", "up": true, "since_ms": 65_000, "cipher": "aes-256-gcm",
                    "policy": "adaptive", "last_handshake_ms": 900, "tunnel_mtu": 1432,
                    "tx_bytes": 1_048_576, "rx_bytes": 12, "resent": 4, "queue_drops": 5, "gaps_given_up": 0,
                    "links": [
                        { "name": "adsl1", "state": "up", "reason": "", "rtt_ms": 25.04, "tx_loss": 0.004,
                          "rx_rate": 11_800_000, "tx_rate": 500_000, "tx_capacity": 1_000_000 },
                        { "name": "lte", "state": "down", "reason": "the other end does not answer",
                          "since_ms": 5_000, "rtt_ms": null, "tx_loss": 0.0, "rx_rate": 0, "tx_rate": 0,
                          "tx_capacity": null },
                        { "name": "sat", "state": "down", "reason": "no address or route", "since_ms": 9_000,
                          "rtt_ms": null, "tx_loss": 0.0, "rx_rate": 0, "tx_rate": 0, "tx_capacity": null }
                    ]
                }]
            }
        });
        let expected = "\
bond: bond0 (client), running for 1 h 2 min
  public key: K=
  last reload refused: /etc/config/bonding:3: no

server: up for 1 min 5 s
  public key: S=
  latest handshake: 900 ms ago; cipher: aes-256-gcm; policy: adaptive
  transfer: 12 B received, 1.00 MiB sent; MTU 1432
  sent again: 4; dropped by the queue: 5; gaps given up: 0

  link         state     rtt ms  loss      down        up    up max  up load   
  adsl1        up          25.0  0.4% 11.8 Mbit  500 kbit  1.0 Mbit  #####.....
  lte          down           -  0.0%         0         0         -  
    the other end does not answer (wwan), for 5 s
  sat          down           -  0.0%         0         0         -  
    netifd has no interface 'wan9' (wan9), for 9 s

dropped: 3 replayed
";
        assert_eq!(render(&status, false), expected);
        assert!(render(&status, false).lines().all(|line| line.len() <= 80));
        assert!(render(&status, true).contains("\x1b[32mup"));
    }
}
