//! The plain part of the filter language of tcpdump (pcap-filter(7)), as MLVPN's `[filters]` use it.

use super::super::value;

/// What one `config rule` matches: names of options and their values.
pub(super) type Match = Vec<(&'static str, String)>;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    Either,
    Source,
    Destination,
}

/// The rules that together match what `expression` does: primitives joined by `and`, out of `ip`, `ip6`, `tcp`, `udp`,
/// `icmp`, `icmp6`, `proto P`, `[src|dst] port N`, `[src|dst] portrange A-B`, `[src|dst] host A`, `[src|dst] net N`.
/// `None` for everything else.
pub(super) fn translate(expression: &str) -> Option<Vec<Match>> {
    let lower = expression.to_ascii_lowercase();
    let mut words = lower.split_whitespace().peekable();
    let mut protocols: Option<String> = None;
    let mut family: Option<&str> = None;
    let mut ports: Option<(Direction, String)> = None;
    let mut addresses: Option<(Direction, String)> = None;
    let mut direction = Direction::Either;
    words.peek()?;
    while let Some(word) = words.next() {
        match word {
            "and" | "&&" => direction = Direction::Either,
            "src" => direction = Direction::Source,
            "dst" => direction = Direction::Destination,
            "ip" => set(&mut family, "0.0.0.0/0")?,
            "ip6" => set(&mut family, "::/0")?,
            "tcp" | "udp" | "icmp" => set(&mut protocols, word.to_owned())?,
            "icmp6" => set(&mut protocols, "icmpv6".to_owned())?,
            "proto" => {
                let name = words.next()?.trim_start_matches('\\');
                let name = if name == "icmp6" { "icmpv6" } else { name };
                value::protocol(name)?;
                set(&mut protocols, name.to_owned())?;
            }
            "port" | "portrange" => {
                let range = words.next()?;
                value::port_range(range)?;
                set(&mut ports, (direction, range.to_owned()))?;
            }
            "host" | "net" => {
                let address = words.next()?;
                value::network(address)?;
                set(&mut addresses, (direction, address.to_owned()))?;
            }
            _ => return None,
        }
    }
    if direction != Direction::Either && ports.is_none() && addresses.is_none() {
        return None;
    }
    if ports.is_some() {
        protocols = Some(protocols.unwrap_or_else(|| "tcp udp".into()));
    }
    let mut rule: Match = Vec::new();
    rule.extend(protocols.map(|protocols| ("proto", protocols)));
    if let (None, Some(family)) = (&addresses, family) {
        rule.push(("src_ip", family.to_owned()));
    }
    let rules = branch(vec![rule], addresses, "src_ip", "dest_ip");
    Some(branch(rules, ports, "src_port", "dest_port"))
}

/// Sets what may be said once.
fn set<T>(slot: &mut Option<T>, value: T) -> Option<()> {
    slot.is_none().then(|| *slot = Some(value))
}

/// Adds a condition; one without a direction takes two rules, one for each.
fn branch(
    rules: Vec<Match>,
    condition: Option<(Direction, String)>,
    source: &'static str,
    destination: &'static str,
) -> Vec<Match> {
    let Some((direction, value)) = condition else { return rules };
    let names: &[&'static str] = match direction {
        Direction::Source => &[source],
        Direction::Destination => &[destination],
        Direction::Either => &[source, destination],
    };
    let with = |rule: &Match, name: &'static str| [rule.clone(), vec![(name, value.clone())]].concat();
    rules.iter().flat_map(|rule| names.iter().map(|name| with(rule, name))).collect()
}
