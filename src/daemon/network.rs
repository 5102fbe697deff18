//! The kernel's network configuration, kept as it shall be by a task of its own, so that no packet waits for it.
//!
//! The daemon says what shall be ([`Network::set`]); the task sets it, says when it is done ([`Progress::settled`]), sets
//! it again when somebody else has removed something, and tells when something has changed that links depend on
//! ([`Progress::changes`]).

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::bond::sorted::SortedSet;
use crate::net::state::{Owned, Report};
use crate::net::sysctl::{Switch, Sysctls};
use crate::net::{Desired, Error, Event, Reconciler, Watch};

/// Changes come in crowds: a DHCP renewal is half a dozen. They are answered together.
const SETTLE: Duration = Duration::from_millis(50);

/// Pauses between attempts to set what the kernel has refused.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// The end waits so long for the kernel, at most.
const CLEAR_DEADLINE: Duration = Duration::from_secs(5);

/// What shall be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Counts the versions, see [`Progress::settled`].
    pub generation: u64,
    /// Addresses, routes and rules.
    pub desired: Desired,
    /// Devices whose reverse path filter must not be strict.
    pub loose_rp_filter: SortedSet<String>,
    /// Further switches.
    pub switches: SortedSet<Switch>,
}

/// What the daemon is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The generation that is set, as far as the kernel would.
    pub settled: u64,
    /// Counts changes of interfaces, addresses and default routes by others.
    pub changes: u64,
}

/// Everything of ours that the kernel has.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// For programs.
    #[serde(flatten)]
    pub owned: Owned,
    /// For people: a line each, in the words of `ip`.
    pub lines: Vec<String>,
}

enum Order {
    List(oneshot::Sender<Result<Listed, Error>>),
    Clear(oneshot::Sender<()>),
}

/// The daemon's end of the task.
pub struct Network {
    wanted: watch::Sender<Wanted>,
    progress: watch::Receiver<Progress>,
    orders: mpsc::Sender<Order>,
    task: tokio::task::JoinHandle<()>,
}

impl Network {
    /// Sets `first` and then starts the task. `saved` remembers switches of interfaces that were changed.
    ///
    /// # Errors
    ///
    /// When the kernel cannot be asked.
    pub async fn start(
        mut reconciler: Reconciler,
        watch: Watch,
        saved: PathBuf,
        first: Wanted,
    ) -> Result<Network, Error> {
        let sysctls = Sysctls::with_file(saved).unwrap_or_else(|error| {
            log::warn!("{error}");
            Sysctls::default()
        });
        report(&reconciler.reconcile(&first.desired).await?, true);
        let (wanted, changes) = watch::channel(first);
        let (tell, progress) = watch::channel(Progress::default());
        let (orders, inbox) = mpsc::channel(4);
        let mut keeper = Keeper { reconciler, sysctls, watch, changes, inbox, tell, retry: RETRY };
        keeper.set_switches();
        let task = super::spawn(async move { keeper.run().await });
        Ok(Network { wanted, progress, orders, task })
    }

    /// Waits until there is something new to tell. Can be cancelled.
    pub async fn progress(&mut self) -> Progress {
        if self.progress.changed().await.is_err() {
            // The task has ended, which happens in `clear` only.
            std::future::pending::<()>().await;
        }
        *self.progress.borrow_and_update()
    }

    /// Says what shall be, and gives the generation that [`Progress::settled`] will reach. What is so already costs nothing:
    /// then `None`.
    pub fn set(
        &self,
        desired: Desired,
        loose_rp_filter: SortedSet<String>,
        switches: SortedSet<Switch>,
    ) -> Option<u64> {
        let mut generation = None;
        self.wanted.send_if_modified(|wanted| {
            let new = Wanted { generation: wanted.generation, desired, loose_rp_filter, switches };
            if *wanted == new {
                return false;
            }
            *wanted = Wanted { generation: wanted.generation + 1, ..new };
            generation = Some(wanted.generation);
            true
        });
        generation
    }

    /// Everything of ours that the kernel has. The answer comes through the channel.
    pub fn list(&self) -> oneshot::Receiver<Result<Listed, Error>> {
        let (answer, receiver) = oneshot::channel();
        // When the task is too busy the channel closes, which the caller sees.
        let _ = self.orders.try_send(Order::List(answer));
        receiver
    }

    /// Removes everything of ours and ends the task. Takes five seconds at most.
    pub async fn clear(&mut self) {
        let (answer, done) = oneshot::channel();
        let work = async {
            if self.orders.send(Order::Clear(answer)).await.is_ok() {
                let _ = done.await;
            }
        };
        if timeout(CLEAR_DEADLINE, work).await.is_err() {
            log::error!("the kernel has not removed our routes in time; the next start will");
        }
        self.task.abort();
    }
}

struct Keeper {
    reconciler: Reconciler,
    sysctls: Sysctls,
    watch: Watch,
    changes: watch::Receiver<Wanted>,
    inbox: mpsc::Receiver<Order>,
    tell: watch::Sender<Progress>,
    retry: Duration,
}

impl Keeper {
    async fn run(&mut self) {
        // When to look at the kernel again, and when to tell the daemon.
        let mut again: Option<Instant> = None;
        let mut tell: Option<Instant> = None;
        loop {
            tokio::select! {
                changed = self.changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    again = self.reconcile().await;
                }
                event = self.watch.next() => {
                    let soon = Instant::now() + SETTLE;
                    match event {
                        Ok(Event::OwnedRemoved) => {}
                        Ok(_) => tell = tell.or(Some(soon)),
                        Err(error) => {
                            log::warn!("watching the network: {error}");
                            self.reopen_watch().await;
                            tell = tell.or(Some(soon));
                        }
                    }
                    // After the daemon has had its say.
                    again = Some(again.map_or(soon + SETTLE, |at| at.min(soon + SETTLE)));
                }
                Some(order) = self.inbox.recv() => match order {
                    Order::List(answer) => { let _ = answer.send(self.list().await); }
                    Order::Clear(answer) => {
                        self.clear().await;
                        let _ = answer.send(());
                        return;
                    }
                },
                () = at(tell) => {
                    tell = None;
                    self.tell.send_modify(|progress| progress.changes += 1);
                }
                () = at(again) => again = self.reconcile().await,
            }
        }
    }

    /// Returns when to try again.
    async fn reconcile(&mut self) -> Option<Instant> {
        let wanted = self.changes.borrow_and_update().clone();
        let is_new = self.tell.borrow().settled != wanted.generation;
        if is_new {
            self.retry = RETRY;
        }
        let complete = match self.reconciler.reconcile(&wanted.desired).await {
            Ok(done) => {
                // What the kernel refuses again and again is said once.
                report(&done, self.retry == RETRY);
                done.is_complete()
            }
            Err(error) => {
                log::warn!("{error}");
                false
            }
        };
        self.set_switches();
        if is_new {
            self.tell.send_modify(|progress| progress.settled = wanted.generation);
        }
        if complete {
            self.retry = RETRY;
            return None;
        }
        let pause = self.retry;
        self.retry = (pause * 2).min(MAX_RETRY);
        Some(Instant::now() + pause)
    }

    fn set_switches(&mut self) {
        let wanted = self.changes.borrow();
        for device in &wanted.loose_rp_filter {
            if let Err(error) = self.sysctls.relax_rp_filter(device) {
                log::warn!("the reverse path filter of {device} cannot be made loose: {error}");
            }
        }
        for switch in &wanted.switches {
            if let Err(error) = self.sysctls.apply(switch) {
                log::warn!("{error}");
            }
        }
    }

    async fn list(&self) -> Result<Listed, Error> {
        let owned = self.reconciler.list_owned().await?;
        let links = self.reconciler.netlink().links().await?;
        Ok(Listed { lines: owned.lines(&links), owned })
    }

    async fn reopen_watch(&mut self) {
        loop {
            match Watch::open(self.reconciler.ownership().protocol) {
                Ok(watch) => {
                    self.watch = watch;
                    return;
                }
                Err(error) => {
                    log::error!("the network cannot be watched: {error}");
                    tokio::time::sleep(MAX_RETRY).await;
                }
            }
        }
    }

    async fn clear(&mut self) {
        match self.reconciler.clear().await {
            Ok(done) => report(&done, true),
            Err(error) => log::error!("our routes and rules could not be removed: {error}"),
        }
        if let Err(error) = self.sysctls.restore() {
            log::warn!("{error}");
        }
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn report(done: &Report, complain: bool) {
    for change in &done.done {
        log::debug!("{change}");
    }
    if complain {
        for (change, error) in &done.failed {
            log::warn!("could not {change}: {error}");
        }
    }
}
