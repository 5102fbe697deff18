//! What a new configuration changes in a running daemon, and what it cannot.

use serde::Serialize;

use super::events::unix_ms;
use crate::config::{Config, Mode};

/// How the last reload went, for the status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Whether the new configuration is in use.
    pub ok: bool,
    /// In one line.
    pub message: String,
    /// What is wrong with the new configuration, or what of it waits for a restart, a line each.
    pub details: Vec<String>,
}

impl Outcome {
    /// It was taken, except for `waiting`.
    pub fn taken(waiting: Vec<String>) -> Self {
        Self::new(true, "the configuration was taken over", waiting)
    }

    /// It was refused whole.
    pub fn refused(problems: Vec<String>) -> Self {
        Self::new(false, "the configuration was refused, the old one stays", problems)
    }

    fn new(ok: bool, what: &str, details: Vec<String>) -> Self {
        let message =
            if details.is_empty() { what.to_owned() } else { format!("{what}: {}", details.join("; ")) };
        Outcome { unix_ms: unix_ms(), ok, message, details }
    }
}

/// The configuration to go on with: `new`, except for what cannot change while the daemon runs, and the names of that.
pub fn merge(old: &Config, new: Config) -> (Config, Vec<&'static str>) {
    let mut merged = new;
    let mut waiting = Vec::new();
    macro_rules! keep {
        ($($section:ident . $option:ident),* $(,)?) => {
            $(if merged.$section.$option != old.$section.$option {
                merged.$section.$option = old.$section.$option.clone();
                waiting.push(stringify!($option));
            })*
        };
    }
    keep!(
        globals.role,
        globals.mode,
        globals.private_key,
        globals.private_key_file,
        globals.cipher,
        globals.rekey_interval,
        globals.control_socket,
        globals.control_group,
        globals.state_dir,
        globals.log_target,
        globals.table_base,
        globals.route_protocol,
        globals.rule_priority,
        bond.ifname,
    );
    let (now, then) = (&mut merged.bond.kernel, &old.bond.kernel);
    let kernel = [
        ("bond_mode", now.mode != then.mode),
        ("xmit_hash_policy", now.xmit_hash_policy != then.xmit_hash_policy),
        ("tunnel_type", now.tunnel_type != then.tunnel_type),
        ("miimon", now.miimon != then.miimon),
        ("arp_interval", now.arp_interval != then.arp_interval),
        ("arp_ip_target", now.arp_ip_targets != then.arp_ip_targets),
    ];
    if old.globals.mode == Mode::Kernel {
        waiting.extend(kernel.iter().filter(|(_, differs)| *differs).map(|(option, _)| *option));
        now.clone_from(then);
    }
    (merged, waiting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    const FILE: &str =
        "config globals\n option role server\nconfig interface 'bond'\n option ipaddr '10.0.0.1/24'\n";

    fn read(text: &str) -> Config {
        let report = load(text, "test");
        report.config.unwrap_or_else(|| panic!("{:?}", report.problems))
    }

    #[test]
    fn what_needs_a_restart_is_named_and_kept() {
        let old = read(FILE);
        let text = FILE.replace(
            "role server",
            "role server\n option rule_priority 700\n option state_dir /srv\n option log_level debug",
        ) + " option ifname bond7\n option mtu 1400\n";
        let (merged, waiting) = merge(&old, read(&text));
        assert_eq!(waiting, ["state_dir", "rule_priority", "ifname"]);
        assert_eq!(merged.bond.ifname, old.bond.ifname);
        assert_eq!(merged.bond.mtu, Some(1400));
        assert_eq!(merged.globals.log_level, log::LevelFilter::Debug);
        assert_eq!(merged.globals.rule_priority, old.globals.rule_priority);
    }

    #[test]
    fn a_bonding_device_keeps_its_settings() {
        let text = FILE.replace("role server", "role server\n option mode kernel");
        let old = read(&text);
        let (merged, waiting) =
            merge(&old, read(&(text + " option bond_mode broadcast\n option miimon 50\n")));
        assert_eq!(waiting, ["bond_mode", "miimon"]);
        assert_eq!(merged.bond.kernel, old.bond.kernel);
    }

    #[test]
    fn the_same_file_changes_nothing() {
        let old = read(FILE);
        assert_eq!(merge(&old, read(FILE)), (old, vec![]));
    }

    #[test]
    fn messages() {
        assert_eq!(Outcome::taken(vec![]).message, "the configuration was taken over");
        let refused = Outcome::refused(vec!["f:1: a".into(), "f:2: b".into()]);
        assert_eq!(refused.message, "the configuration was refused, the old one stays: f:1: a; f:2: b");
    }
}
