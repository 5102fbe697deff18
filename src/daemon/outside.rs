//! Traffic that `config rule` sends past the bond, as routing rules of the kernel.
//!
//! Such packets never reach the daemon: the kernel sends them by a link's own table, or by the main one. The rules stand
//! between those of the links and that of the bond's default route ([`super::desired`]):
//!
//! | priority | rule |
//! | --- | --- |
//! | `rule_priority` + 201 | `lookup main suppress_prefixlength 0`: what has a route of its own (the LAN!) keeps it |
//! | `rule_priority` + 202 … 299 | `config rule` by `config rule`: `CONDITIONS lookup TABLE` |
//!
//! The first `config rule` that matches counts. So one that keeps traffic in the bond gets rules too where another
//! comes after it that sends some outside.

use crate::config::value::IpNet;
use crate::config::{Action, Config, Rule as Class};
use crate::net::routes::MAIN;
use crate::net::{Family, Mark, Ports, Prefix, Rule, Transport};

/// Where the rules begin, counted from `rule_priority`.
const FIRST: u32 = 201;

/// A link by which traffic can leave outside the bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The link's name.
    pub link: String,
    /// Its routing table.
    pub table: u32,
    /// The IP versions that it has addresses of.
    pub families: Vec<Family>,
    /// It is known to work.
    pub up: bool,
}

/// The kernel's rules for the configured ones. `bond` is the table that leads into the bond.
pub fn rules(config: &Config, exits: &[Exit], bond: u32) -> Vec<Rule> {
    let is_outside = |class: &Class| matches!(class.action, Action::Outside { .. });
    let Some(last) = config.rules.iter().rposition(is_outside) else { return Vec::new() };
    let mut made = Vec::new();
    for family in Family::ALL {
        let first = config.globals.rule_priority.saturating_add(FIRST);
        made.push(Rule { suppress_prefix_len: Some(0), ..rule(family, first, MAIN) });
        for (class, priority) in config.rules.iter().take(last + 1).zip(first + 1..) {
            let table = match &class.action {
                Action::Bond { .. } => Some(bond),
                Action::Outside { links } if links.is_empty() => Some(MAIN),
                Action::Outside { links } => exit(links, exits, family).map(|exit| exit.table),
            };
            if let Some(table) = table {
                conditions(class, rule(family, priority, table), &mut made);
            }
        }
    }
    made
}

/// The first of the links that works, else the first that has an address: it may work again before we know. With
/// neither the traffic goes where it would go without the rule.
fn exit<'e>(links: &[String], exits: &'e [Exit], family: Family) -> Option<&'e Exit> {
    let usable = || {
        let named = links.iter().filter_map(|name| exits.iter().find(|exit| exit.link == *name));
        named.filter(|exit| exit.families.contains(&family))
    };
    usable().find(|exit| exit.up).or_else(|| usable().next())
}

fn rule(family: Family, priority: u32, table: u32) -> Rule {
    Rule {
        family,
        priority,
        source: None,
        destination: None,
        mark: None,
        transport: Transport::default(),
        table,
        suppress_prefix_len: None,
    }
}

/// A rule of the kernel has one value a condition; a configured one may list several of each.
fn conditions(class: &Class, base: Rule, made: &mut Vec<Rule>) {
    // The kernel's rules cannot look at DSCP before Linux 6.13.
    if !class.dscp.is_empty() {
        return;
    }
    let base = Rule { mark: class.mark.map(|mark| Mark { value: mark.value, mask: mark.mask }), ..base };
    let nets = |nets: &[IpNet]| -> Option<Vec<Option<Prefix>>> {
        let of_family = nets.iter().filter(|net| Family::of(net.address) == base.family);
        let prefixes: Vec<_> = of_family.map(|net| Some(Prefix::new(net.address, net.prefix))).collect();
        match (nets.is_empty(), prefixes.is_empty()) {
            (true, _) => Some(vec![None]),
            (false, true) => None,
            (false, false) => Some(prefixes),
        }
    };
    let (Some(sources), Some(destinations)) = (nets(&class.sources), nets(&class.destinations)) else {
        return;
    };
    let ports = |ranges: &[std::ops::RangeInclusive<u16>]| -> Vec<Option<Ports>> {
        let matchable = ranges.iter().filter(|range| *range.start() <= Ports::HIGHEST);
        let some = matchable
            .map(|range| Some(Ports { first: *range.start(), last: *range.end().min(&Ports::HIGHEST) }));
        if ranges.is_empty() { vec![None] } else { some.collect() }
    };
    let protocols: Vec<Option<u8>> = match class.protocols.as_slice() {
        [] => vec![None],
        some => some.iter().copied().map(Some).collect(),
    };
    for source in &sources {
        for destination in &destinations {
            for protocol in &protocols {
                for from in ports(&class.source_ports) {
                    for to in ports(&class.destination_ports) {
                        let transport = Transport { protocol: *protocol, source: from, destination: to };
                        let conditions =
                            Rule { source: *source, destination: *destination, transport, ..base.clone() };
                        made.push(conditions);
                    }
                }
            }
        }
    }
}

/// The table that leads into the bond, when its default route does.
pub fn bond_table(config: &Config) -> u32 {
    match config.bond.metric {
        None if config.bond.default_route => super::desired::default_table(config),
        _ => MAIN,
    }
}

#[cfg(test)]
#[path = "outside_tests.rs"]
mod tests;
