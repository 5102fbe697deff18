//! Taking over another configuration while packets flow.

use super::{Daemon, Side};
use crate::config::{self, Config};
use crate::daemon::firewall;
use crate::daemon::reload::{self, Outcome};
use crate::daemon::runner::Task;
use crate::daemon::start;
use crate::io::timer::now;

impl Daemon {
    pub(super) fn reload(&mut self) -> Outcome {
        let outcome = match self.read_again() {
            Ok(config) => {
                let config = config.at_server(&self.config.server);
                let waiting = self.take_config(config);
                Outcome::taken(waiting)
            }
            Err(messages) => Outcome::refused(messages),
        };
        let what = if outcome.ok { "reloaded" } else { "reload refused" };
        self.event(None, None, what, &outcome.details.join("; "));
        self.reload = Some(outcome.clone());
        outcome
    }

    fn read_again(&self) -> Result<Config, Vec<String>> {
        let path = &self.options.config;
        let file = path.display().to_string();
        let report = config::load_file(path).map_err(|error| vec![format!("{file}: {error}")])?;
        let Some(config) = report.config.as_ref() else {
            return Err(report.errors().map(ToString::to_string).collect());
        };
        for problem in &report.problems {
            log::warn!("{problem}");
        }
        let mut missing: Vec<String> = config.not_ready(&file).iter().map(ToString::to_string).collect();
        if !config.globals.enabled {
            missing.push(format!("{file}: 'enabled' is off: stop the daemon instead of reloading it"));
        }
        if missing.is_empty() { report.config.ok_or_else(Vec::new) } else { Err(missing) }
    }

    /// Returns what of it waits for a restart.
    pub(super) fn take_config(&mut self, config: Config) -> Vec<String> {
        let (config, mut waiting) = reload::merge(&self.config, config);
        let privileges = self.privileges.as_ref();
        waiting.extend(privileges.and_then(|privileges| start::beyond_privileges(&config, privileges)));
        if self.options.log_level.is_none() {
            log::set_max_level(config.globals.log_level);
        }
        let moved = self.config.bond.addresses != config.bond.addresses;
        let metrics = self.config.globals.metrics_port != config.globals.metrics_port;
        let servers = (&self.config.server, &self.config.servers) != (&config.server, &config.servers);
        self.config = config;
        if metrics {
            self.show_metrics();
        }
        if moved {
            self.respond();
        }
        match &mut self.side {
            Side::Client(client) => {
                client.configure(&self.config, &mut self.driver, now());
                if servers {
                    self.servers.configure(&self.config, &mut self.driver, now());
                }
            }
            Side::Server(server) => server.configure(&self.config, &mut self.driver, now()),
        }
        if let Some(firewall) = &self.firewall {
            super::forward(&self.config);
            firewall.set(firewall::wanted(&self.config));
        }
        let side = &self.side;
        self.peer_mtus.retain(|peer, _| side.has(*peer));
        let found = self.peer_mtus.values().min().copied().unwrap_or(self.tunnel.mtu);
        self.tunnel.mtu = self.config.bond.mtu.unwrap_or(found);
        self.links_changed = true;
        self.configure_watchdog();
        // Scripts, their limit and the watchdog's action are read by the process that runs them.
        let runner = self.runner.clone();
        crate::daemon::spawn(async move { drop(runner.run(Task::Configure).await) });
        self.follow();
        self.look();
        waiting.iter().map(|option| format!("'{option}' needs a restart to change")).collect()
    }
}
