//! What the sections `rule` say, held against each other and against what the kernel and the core can match.

use super::{at, given};
use crate::config::log::{At, Log};
use crate::config::read::Sourced;
use crate::config::spelling::nearest;
use crate::config::types::{Action, Mode, Policy, Rule};

/// Each rule has a priority of its own among the kernel's rules (`crate::daemon::outside`).
const MAX_RULES: usize = 90;
/// How many rules of the kernel one rule may take.
const MAX_COMBINATIONS: usize = 64;
/// How many combinations all rules inside the bond may have together.
const MAX_CLASSES: usize = crate::bond::class::MAX_CLASSES;

pub(super) fn check(sourced: &Sourced, log: &mut Log<'_>) {
    let mut classes = 0;
    if let Some(section) = sourced.rules_at.get(MAX_RULES) {
        log.error(
            At { section: Some(*section), ..At::default() },
            format_args!("is one too many: at most {MAX_RULES} rules"),
        );
    }
    for (rule, section) in sourced.config.rules.iter().zip(&sourced.rules_at) {
        let section = Some(*section);
        let links = match &rule.action {
            Action::Bond { links, .. } | Action::Outside { links } => links,
        };
        for name in links {
            check_link(name, section, sourced, log);
        }
        match &rule.action {
            Action::Bond { policy, .. } => {
                check_inside(rule, *policy, section, sourced.config.globals.mode, log);
            }
            Action::Outside { .. } => check_outside(rule, section, log),
        }
        check_combinations(rule, section, &mut classes, log);
        check_ports(rule, section, log);
        check_families(rule, section, log);
    }
}

fn check_link(name: &str, section: Option<usize>, sourced: &Sourced, log: &mut Log<'_>) {
    if sourced.config.links.iter().any(|link| link.name == name) {
        return;
    }
    if log.is_full() {
        return log.error(at(section, "link"), "");
    }
    if sourced.disabled_links.iter().any(|link| link == name) {
        log.warning(at(section, "link"), format_args!("link '{name}' is disabled"));
        return;
    }
    let known = sourced.config.links.iter().map(|link| link.name.as_str());
    let hint = nearest(name, known).map(|near| format!("; did you mean '{near}'?")).unwrap_or_default();
    log.error(at(section, "link"), format_args!("there is no link '{name}'{hint}"));
}

/// A rule for packets that stay inside the bond.
fn check_inside(rule: &Rule, policy: Option<Policy>, section: Option<usize>, mode: Mode, log: &mut Log<'_>) {
    if !["policy", "link", "outside"].iter().any(|name| given(log, section, name)) {
        log.error(
            At { section, ..At::default() },
            "says nothing to do: it needs 'policy', 'link' or 'outside'",
        );
        return;
    }
    if mode == Mode::Kernel {
        let option = if policy.is_some() { "policy" } else { "link" };
        log.warning(
            at(section, option),
            "has no effect: the kernel spreads the packets (`option mode 'kernel'`)",
        );
    }
    if given(log, section, "force") && policy != Some(Policy::Redundant) {
        log.warning(at(section, "force"), "has no effect without `option policy 'redundant'`");
    }
    if rule.mark.is_some() {
        log.error(at(section, "mark"), "a mark can be matched only with `option outside '1'`");
    }
}

/// A rule for packets that the kernel routes past the bond.
fn check_outside(rule: &Rule, section: Option<usize>, log: &mut Log<'_>) {
    if given(log, section, "policy") {
        log.error(at(section, "policy"), "either this or 'outside'");
    } else if !rule.dscp.is_empty() {
        log.error(
            at(section, "dscp"),
            "routing cannot look at it: let the firewall mark such packets, and match 'mark'",
        );
    }
    for (option, ranges) in [("src_port", &rule.source_ports), ("dest_port", &rule.destination_ports)] {
        if ranges.iter().any(|range| *range.start() == u16::MAX) {
            log.error(at(section, option), "the kernel's routing rules cannot match port 65535");
        }
    }
}

/// `classes` counts those of all rules inside the bond.
fn check_combinations(rule: &Rule, section: Option<usize>, classes: &mut usize, log: &mut Log<'_>) {
    let combinations = rule.combinations();
    if combinations > MAX_COMBINATIONS {
        log.error(
            At { section, ..At::default() },
            format_args!("has {combinations} combinations of protocols, addresses and ports; at most {MAX_COMBINATIONS}: split it"),
        );
    }
    if matches!(rule.action, Action::Bond { .. }) {
        let before = *classes;
        *classes += combinations.min(MAX_COMBINATIONS);
        if before <= MAX_CLASSES && *classes > MAX_CLASSES {
            log.error(
                At { section, ..At::default() },
                format_args!("the rules up to this one have {classes} combinations together; at most {MAX_CLASSES} count"),
            );
        }
    }
}

fn check_ports(rule: &Rule, section: Option<usize>, log: &mut Log<'_>) {
    let ports = rule.protocols.iter().all(|protocol| matches!(protocol, 6 | 17 | 132 | 136));
    for (option, used) in
        [("src_port", !rule.source_ports.is_empty()), ("dest_port", !rule.destination_ports.is_empty())]
    {
        let known = given(log, section, "proto") != rule.protocols.is_empty();
        if used && known && (rule.protocols.is_empty() || !ports) {
            log.error(
                at(section, option),
                "ports need `option proto` with nothing but tcp, udp, sctp or udplite",
            );
        }
    }
}

fn check_families(rule: &Rule, section: Option<usize>, log: &mut Log<'_>) {
    let families = rule
        .sources
        .iter()
        .any(|a| rule.destinations.iter().any(|b| a.address.is_ipv4() == b.address.is_ipv4()));
    if !rule.sources.is_empty() && !rule.destinations.is_empty() && !families {
        log.error(
            at(section, "dest_ip"),
            "'src_ip' and 'dest_ip' are of different IP versions: nothing can match",
        );
    }
}
