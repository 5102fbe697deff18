//! Keeps the server's nftables table, by a task of its own: no packet waits for it, and it comes back when somebody
//! else throws all tables away (`nft flush ruleset`, as a restart of many firewalls does).

use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::config::Config;
use crate::config::value::IpNet;
use crate::net::nftables::{self, Announcements, Firewall, Redirect};
use crate::net::{Error, Prefix};

/// Pauses between attempts to set what the kernel has refused.
const RETRY: Duration = Duration::from_secs(10);

/// Whoever has removed all tables may be about to write his own.
const SETTLE: Duration = Duration::from_millis(200);

/// The end waits so long for the kernel, at most.
const CLEAR_DEADLINE: Duration = Duration::from_secs(5);

/// The table that the configuration asks for.
pub fn wanted(config: &Config) -> Firewall {
    let device = config.bond.ifname.clone();
    let prefix = |net: &IpNet| Prefix::new(net.address, net.prefix);
    let mut firewall = Firewall { table: table(&device), device, ..Firewall::default() };
    if config.globals.nat {
        let nets = config.peers.iter().flat_map(|peer| peer.addresses.iter().chain(&peer.lans));
        firewall.translated = nets.filter(|net| is_private(net)).map(prefix).collect();
        firewall.trusted = config.globals.trusted_networks.iter().map(prefix).collect();
    }
    for redirect in &config.redirects {
        firewall.redirects.extend(redirect.protocols.iter().map(|protocol| Redirect {
            protocol: *protocol,
            ports: redirect.ports.clone(),
            address: redirect.address,
            from: redirect.sources.iter().map(prefix).collect(),
            to: redirect.to,
            to_port: redirect.to_port,
        }));
    }
    firewall
}

/// The name of the table of a device: letters, digits and `_`, so that `nft` needs no quotes.
fn table(device: &str) -> String {
    let plain = device.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' });
    format!("bonding_{}", plain.collect::<String>())
}

/// Whether the internet does not know the way to a network (RFC 1918, RFC 6598, RFC 4193).
fn is_private(net: &IpNet) -> bool {
    const PRIVATE: [(&str, u8); 5] =
        [("10.0.0.0", 8), ("172.16.0.0", 12), ("192.168.0.0", 16), ("100.64.0.0", 10), ("fc00::", 7)];
    PRIVATE.iter().any(|(address, prefix)| {
        address.parse().is_ok_and(|address| {
            let private = IpNet { address, prefix: *prefix };
            private.prefix <= net.prefix && private.contains(net.address)
        })
    })
}

/// What became of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The table's name, while there is to be one.
    pub table: Option<String>,
    /// Why there is none, in the kernel's words.
    pub problem: Option<String>,
}

/// The daemon's end of the task.
pub struct Keeper {
    wanted: watch::Sender<Firewall>,
    state: watch::Receiver<State>,
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Sets the table and then starts the task. When the kernel refuses, packets flow without translation, the task
    /// tries again, and [`Keeper::state`] says why.
    pub async fn start(first: Firewall) -> Keeper {
        let (tell, state) = watch::channel(State::default());
        let (wanted, changes) = watch::channel(first);
        let (end, ended) = oneshot::channel();
        let mut keeper = Task { changes, tell, is_set: false };
        keeper.apply().await;
        let task = super::spawn(async move { keeper.run(ended).await });
        Keeper { wanted, state, end, task }
    }

    /// Says what shall be.
    pub fn set(&self, firewall: Firewall) {
        self.wanted.send_if_modified(|wanted| {
            let changed = *wanted != firewall;
            *wanted = firewall;
            changed
        });
    }

    /// How it is now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until that has changed. Can be cancelled.
    pub async fn changed(&mut self) -> State {
        if self.state.changed().await.is_err() {
            // The task has ended, which happens in `clear` only.
            std::future::pending::<()>().await;
        }
        self.state.borrow_and_update().clone()
    }

    /// Removes the table and ends the task.
    pub async fn clear(self) {
        let _ = self.end.send(());
        if timeout(CLEAR_DEADLINE, self.task).await.is_err() {
            log::error!("the kernel has not removed our nftables table in time; the next start will");
        }
    }
}

struct Task {
    changes: watch::Receiver<Firewall>,
    tell: watch::Sender<State>,
    /// The kernel has a table of ours.
    is_set: bool,
}

impl Task {
    async fn run(&mut self, mut ended: oneshot::Receiver<()>) {
        let mut announcements = self.listen();
        loop {
            let failed = self.tell.borrow().problem.is_some();
            tokio::select! {
                _ = &mut ended => {
                    self.clear().await;
                    return;
                }
                changed = self.changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.apply().await;
                }
                () = sleep(RETRY), if failed => self.apply().await,
                broke = removed(&mut announcements) => {
                    if broke {
                        announcements = None;
                        sleep(RETRY).await;
                        announcements = self.listen().or(announcements);
                    }
                    if self.is_set {
                        sleep(SETTLE).await;
                        self.look_again().await;
                    }
                }
            }
        }
    }

    fn listen(&self) -> Option<Announcements> {
        Announcements::open(&self.changes.borrow().table).ok()
    }

    /// Sets the table again if it has gone.
    async fn look_again(&mut self) {
        let table = self.changes.borrow().table.clone();
        if let Ok(false) = nftables::exists(&table).await {
            log::warn!("somebody has removed the nftables table '{table}'; it is set again");
            self.apply().await;
        }
    }

    async fn apply(&mut self) {
        let firewall = self.changes.borrow_and_update().clone();
        let result = match firewall.is_empty() {
            true => {
                self.clear().await;
                Ok(())
            }
            false => nftables::set(&firewall).await,
        };
        let state = State {
            table: (!firewall.is_empty()).then_some(firewall.table),
            problem: result.as_ref().err().map(Error::to_string),
        };
        self.is_set = !firewall_is_missing(&state);
        self.tell.send_if_modified(|told| {
            let changed = *told != state;
            *told = state;
            changed
        });
    }

    /// Removes ours, that of a daemon that was killed too.
    async fn clear(&mut self) {
        let table = self.changes.borrow().table.clone();
        // A kernel without nf_tables has none to be removed.
        if let Ok(true) = nftables::exists(&table).await
            && let Err(error) = nftables::remove(&table).await
        {
            log::error!("{error}");
        }
        self.is_set = false;
    }
}

fn firewall_is_missing(state: &State) -> bool {
    state.table.is_none() || state.problem.is_some()
}

/// Waits for an announcement; true when listening is over.
async fn removed(announcements: &mut Option<Announcements>) -> bool {
    match announcements {
        Some(announcements) => announcements.removed().await.is_err(),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;

    #[test]
    fn private_networks_are_translated_and_others_are_routed() {
        let text = "config globals\n option role server\n option nat 1\n list trusted_network 10.8.0.0/16\n\
            config interface bond\n option ifname bond-a.1\n option ipaddr 10.77.0.1/24\n\
            config peer home\n option public_key uKz0vFm3rO5nX0hKq3l8n2d4w6y8A0C2E4G6I8K0M2c=\n\
             list ipaddr 10.77.0.2\n list ipaddr fd77::2\n list lan 192.168.1.0/24\n list lan 198.51.100.0/28\n\
             list lan 2001:db8:7::/48\n list lan 100.64.7.0/24\n\
            config redirect\n option src_dport 80\n option dest_ip 192.168.1.2\n option dest_port 8080\n";
        let report = load(text, "test");
        let config = report.config.unwrap_or_else(|| panic!("{:?}", report.problems));
        let firewall = wanted(&config);
        assert_eq!((firewall.table.as_str(), firewall.device.as_str()), ("bonding_bond_a_1", "bond-a.1"));
        let texts = |nets: &[Prefix]| nets.iter().map(Prefix::to_string).collect::<Vec<_>>();
        assert_eq!(
            texts(&firewall.translated),
            ["10.77.0.2/32", "fd77::2/128", "192.168.1.0/24", "100.64.7.0/24"]
        );
        assert_eq!(texts(&firewall.trusted), ["10.8.0.0/16"]);
        let redirects: Vec<_> = firewall.redirects.iter().map(|r| (r.protocol, r.to_port)).collect();
        assert_eq!(redirects, [(6, Some(8080)), (17, Some(8080))]);

        let without = load(&text.replace("nat 1", "nat 0"), "test").config.unwrap();
        let firewall = wanted(&without);
        assert!(firewall.translated.is_empty() && !firewall.is_empty(), "a redirect needs no translation");
    }
}
