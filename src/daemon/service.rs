//! The running service: one loop that serves packets, signals, people and the network.

mod answers;
mod core_events;
mod enslaving;
mod hooks;
mod moving;
mod placing;
pub mod plan;
mod reloading;
mod starting;
mod watching;

use std::io;
use std::pin::Pin;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};

use super::client::{Client, Placing};
use super::clock::ClockFile;
use super::control::Control;
use super::desired::{self, Tunnel};
use super::events::{Events, unix_ms};
use super::kernel::KernelBond;
use super::names::{self, Query};
use super::network::{Network, Progress};
use super::reload::Outcome;
use super::runner::{self, Hook, Runner};
use super::scripts::Scripts;
use super::server::Server;
use super::servers::Servers;
use super::speedtest::{Pinning, Responder};
use super::start::{Options, StartError};
use super::watchdog::Watchdog;
use super::{firewall, metrics};
use crate::bond::sorted::{SortedMap, SortedSet};
use crate::bond::{PeerId, Time};
use crate::config::{self, Config, Role};
use crate::io::confine::Confined;
use crate::io::timer::now;
use crate::io::{Driver, Keeper, Tun, TunOptions};
use crate::net::dns::Answer;
use crate::net::sysctl::{self, Switch};
use crate::net::{Family, Netlink};

/// A link without a place is looked for this often, beside every change of the network.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Between two looks at what no event tells of.
const TICK: Duration = Duration::from_secs(1);

/// What a client calls its only peer.
const SERVER: &str = "server";

/// What other tasks tell the loop.
enum Message {
    /// Where a link of this configuration is.
    Placed(Box<config::Link>, Placing),
    Named(Query, Result<Answer, String>),
    /// Somebody wants the figures.
    Metrics(oneshot::Sender<String>),
    /// A speed test's connection is to stay on a link.
    Pin(Pinning),
    /// A router's key was written into the configuration, or could not be.
    Introduced(String, Result<(), String>),
    Pinged(io::Result<Duration>),
    Acted(runner::Outcome),
    Stored(u64, io::Result<()>),
}

// The client is large, and there is one of the two only.
#[allow(clippy::large_enum_variant)]
enum Side {
    Client(Client),
    Server(Server),
}

impl Side {
    /// Whether a peer is one of the configuration in use.
    fn has(&self, peer: PeerId) -> bool {
        match self {
            Side::Client(client) => client.peer() == peer,
            Side::Server(server) => server.name(peer).is_some(),
        }
    }
}

/// The service.
pub struct Daemon {
    config: Config,
    options: Options,
    side: Side,
    /// A client's.
    servers: Servers,
    driver: Driver,
    network: Network,
    /// A server's.
    firewall: Option<firewall::Keeper>,
    /// A server's.
    responder: Option<Responder>,
    metrics: Option<metrics::Listener>,
    netlink: Netlink,
    /// Name of the device that traffic is routed into.
    device: String,
    tunnel: Tunnel,
    /// In kernel mode, the bonding device, which is `device` then.
    kernel: Option<KernelBond>,
    /// The links' devices and their carriers may no longer be as they shall.
    links_changed: bool,
    /// What each peer's links carry.
    peer_mtus: SortedMap<PeerId, u16>,
    control: Control,
    privileges: Option<Confined>,
    runner: Runner,
    scripts: Scripts,
    told: hooks::Told,
    watchdog: Option<Watchdog>,
    /// Keeps the clock of a client's handshakes.
    clock: Option<ClockFile>,
    /// When a reservation of the clock may be stored; `None` while one is on its way.
    store_at: Option<Time>,
    /// When the bond was up last, or the start.
    last_up: Time,
    events: Events,
    reload: Option<Outcome>,
    started: Time,
    inbox: mpsc::Receiver<Message>,
    tell: mpsc::Sender<Message>,
    signals: Signals,
    tick: Pin<Box<Sleep>>,
    /// The generation that must be settled before sockets are opened.
    settling: Option<u64>,
    /// Changes of the network that were answered.
    changes: u64,
    looked: Time,
    device_lost: bool,
    stopping: bool,
    /// Last, so that it is told that all is well when the device is gone.
    keeper: Option<Keeper>,
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
enum Wish {
    Reload,
    Stop,
}

impl Signals {
    /// Waits for the next one. Can be cancelled.
    async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    /// Waits for a request to end; others are forgotten.
    async fn stop(&mut self) {
        while !matches!(self.next().await, Wish::Stop) {}
    }
}

impl Daemon {
    /// Serves until told to stop, and removes all that was made.
    pub async fn run(mut self) -> Result<(), StartError> {
        self.event(None, None, "started", "");
        self.connect();
        self.run_hook(Hook::Up);
        let result = loop {
            if self.stopping {
                break Ok(());
            }
            // Without order: whoever is ready most often cannot keep the others from their turn.
            tokio::select! {
                turned = self.driver.turn() => {
                    if let Err(gone) = turned {
                        log::error!("{gone}");
                        self.device_lost = true;
                    }
                    self.take_core_events();
                    self.take_gone_sockets();
                }
                progress = self.network.progress() => self.take_progress(progress),
                state = firewall_changed(&mut self.firewall) => self.take_firewall(state),
                request = self.control.next() => self.answer(request),
                Some(message) = self.inbox.recv() => self.take_message(message),
                report = self.scripts.next() => self.take_report(&report),
                () = self.tick.as_mut() => self.tick(),
                wish = self.signals.next() => match wish {
                    Wish::Reload => { self.reload(); }
                    Wish::Stop => self.stopping = true,
                },
            }
            if std::mem::take(&mut self.links_changed) {
                self.follow_links().await;
            }
            if std::mem::take(&mut self.device_lost)
                && let Err(error) = self.reopen_device().await
            {
                break Err(error);
            }
        };
        self.stop().await;
        result
    }

    async fn stop(mut self) {
        log::info!("stopping");
        self.scripts.forget_links();
        self.run_hook(Hook::PreDown);
        self.finish_scripts().await;
        if let Side::Client(client) = &mut self.side {
            client.meter(&mut self.driver, unix_ms(), now());
            client.quotas_mut().last(now()).iter().for_each(|save| complain(save.write()));
        }
        self.driver.endpoint_mut().close(now());
        self.driver.flush();
        if let Some(firewall) = self.firewall.take() {
            firewall.clear().await;
        }
        self.network.clear().await;
        if let Some(kernel) = &self.kernel {
            kernel.remove().await;
        }
        self.driver.remove_tun();
        self.last_words();
        self.run_hook(Hook::Down);
        self.finish_scripts().await;
        // So that the next start does not count from the end of the reservation.
        if let Some(file) = &self.clock
            && let Err(error) = file.write(self.driver.endpoint().clock(now()))
        {
            log::debug!("{error}");
        }
        // The sockets and the control socket go with `self`.
        drop(self.control);
    }

    fn event(&mut self, peer: Option<&str>, link: Option<&str>, what: &str, why: &str) {
        let mut text = String::new();
        for (kind, name) in [("peer", peer), ("link", link)] {
            if let Some(name) = name {
                text += &format!("{kind} {name}: ");
            }
        }
        text += what;
        if !why.is_empty() {
            text += &format!(": {why}");
        }
        log::info!("{text}");
        self.events.push(now(), peer, link, what, why);
    }

    fn peer_name(&self, peer: PeerId) -> Option<String> {
        match &self.side {
            Side::Client(client) if client.peer() == peer => Some(SERVER.to_owned()),
            Side::Client(_) => self.servers.name(peer).map(str::to_owned),
            Side::Server(server) => server.name(peer).map(str::to_owned),
        }
    }

    /// Tells the network's task what shall be.
    fn set_network(&mut self) {
        let (desired, loose) = match &self.side {
            Side::Client(client) => client.desired(&self.config, self.tunnel),
            Side::Server(_) => (desired::server(&self.config, self.tunnel), Default::default()),
        };
        let switches = switches(&self.config, &self.side);
        if let Some(generation) = self.network.set(desired, loose, switches) {
            self.settling = Some(generation);
        }
    }

    /// Waits for speed tests of routers.
    fn respond(&mut self) {
        self.responder = None;
        if self.config.globals.role == Role::Client {
            return;
        }
        let addresses: Vec<_> = self.config.bond.addresses.iter().map(|net| net.address).collect();
        match Responder::start(&self.device, &addresses, &self.tell, Message::Pin) {
            Ok(responder) => self.responder = Some(responder),
            Err(error) => log::warn!("routers cannot test their speed: {error}"),
        }
    }

    /// Listens for those who collect figures.
    fn show_metrics(&mut self) {
        self.metrics = None;
        let Some(port) = self.config.globals.metrics_port else { return };
        match metrics::Listener::start(port, &self.tell, Message::Metrics) {
            Ok(listener) => self.metrics = Some(listener),
            Err(error) => log::warn!("nobody listens on 'metrics_port' {port}: {error}"),
        }
    }

    fn take_firewall(&mut self, state: firewall::State) {
        match (state.problem, state.table) {
            (Some(problem), _) => self.event(None, None, "no address translation", &problem),
            (None, Some(table)) => log::info!("the nftables table '{table}' is set"),
            (None, None) => {}
        }
    }

    /// After links, names or the configuration have changed: routes first, then sockets.
    fn follow(&mut self) {
        self.set_network();
        if self.settling.is_none() {
            self.connect();
        }
    }

    fn connect(&mut self) {
        if let Side::Client(client) = &mut self.side {
            client.connect(&mut self.driver, now());
        }
        self.ask_for_names();
    }

    /// Asks for the servers' names where that is due, once the links' routes are set.
    fn ask_for_names(&mut self) {
        let Side::Client(client) = &mut self.side else { return };
        if self.settling.is_some() {
            return;
        }
        for query in client.queries(&self.servers.sought(&self.config), now()) {
            let tell = self.tell.clone();
            super::spawn(async move {
                let answer = names::lookup(&query).await;
                let _ = tell.send(Message::Named(query, answer)).await;
            });
        }
    }

    fn take_progress(&mut self, progress: Progress) {
        if self.settling.is_some_and(|waited| progress.settled >= waited) {
            self.settling = None;
            self.connect();
        }
        if self.changes != progress.changes {
            self.changes = progress.changes;
            // A deleted device does not wake those who wait to read from it.
            if if_nametoindex(self.device.as_str()) != Ok(self.tunnel.index) || !self.has_link_devices() {
                self.device_lost = true;
            }
            self.look();
        }
    }

    fn take_message(&mut self, message: Message) {
        match message {
            Message::Metrics(answer) => {
                let _ = answer.send(metrics::render(&self.status()));
            }
            Message::Pin(pinning) => self.pin_for(pinning),
            Message::Introduced(_, Ok(())) => {
                self.reload();
            }
            Message::Introduced(name, Err(why)) => {
                let why = format!("{why}; correct this and reload, then the router is let in");
                self.event(Some(&name), None, "not let in", &why);
            }
            Message::Placed(asked, placing) => self.take_place(&asked, placing),
            Message::Named(query, answer) => {
                if let Side::Client(client) = &mut self.side
                    && client.take_addresses(&query, answer, now())
                {
                    self.follow();
                }
            }
            Message::Pinged(answer) => self.take_ping(answer),
            Message::Acted(outcome) => self.take_action(outcome),
            Message::Stored(reservation, result) => self.take_stored(reservation, result),
        }
    }

    fn tick(&mut self) {
        self.tick.as_mut().reset(Instant::now() + TICK);
        let now = now();
        self.links_changed |= self.kernel.is_some();
        if now.since(self.looked) >= LOOK_AGAIN && self.is_incomplete() {
            self.look();
        }
        self.sweep_told();
        self.watch(now);
        self.keep_clock(now);
        self.ask_for_names();
        let client = match &mut self.side {
            Side::Client(client) => client,
            Side::Server(server) => return server.tick(&mut self.driver),
        };
        let turned = client.tick(now);
        let used_up = client.meter(&mut self.driver, unix_ms(), now);
        for save in client.quotas_mut().due(now) {
            super::spawn_blocking(move || complain(save.write()));
        }
        for link in used_up {
            self.event(None, Some(&link), "quota used up", "it is used only while no other link is up");
        }
        if turned {
            self.follow();
        }
        self.watch_servers(now);
    }

    /// Whether something that was not there may have appeared without notice.
    fn is_incomplete(&self) -> bool {
        match &self.side {
            Side::Client(client) => !client.is_placed(),
            Side::Server(server) => !server.is_complete(&self.config),
        }
    }

    fn take_gone_sockets(&mut self) {
        let mut lost = false;
        while let Some(socket) = self.driver.poll_gone() {
            lost = true;
            match &mut self.side {
                Side::Client(client) => {
                    if let Some(name) = client.socket_gone(socket, &mut self.driver, now()) {
                        log::info!("link {name}: its device or address is gone");
                    }
                }
                Side::Server(server) => server.socket_gone(socket, &self.config, &mut self.driver),
            }
        }
        if lost {
            self.look();
        }
    }

    async fn reopen_device(&mut self) -> Result<(), StartError> {
        if self.kernel.is_some() {
            self.remake_bond().await?;
        } else {
            let mut tun =
                Tun::open(&TunOptions::with_offloads(self.config.bond.ifname.clone(), self.tunnel.mtu))?;
            self.tunnel.index = index_of(tun.name())?;
            starting::keep(&mut tun, self.tunnel.index, &self.netlink, self.keeper.as_ref()).await;
            self.device = tun.name().to_owned();
            self.driver.set_tun(tun);
        }
        // What listens on the device listens by its index.
        self.respond();
        self.event(None, None, "device", "it had disappeared and was made anew");
        self.set_network();
        Ok(())
    }
}

/// What the interfaces that we use must be set to.
fn switches(config: &Config, side: &Side) -> SortedSet<Switch> {
    let links = match side {
        Side::Client(client) => client.places(),
        Side::Server(_) => SortedMap::new(),
    };
    let devices = links.values().filter_map(|place| place.device.as_deref());
    devices.chain([config.bond.ifname.as_str()]).flat_map(Switch::no_redirects).collect()
}

/// Has the kernel forward packets, if that is asked for.
fn forward(config: &Config) {
    let inside = config.bond.addresses.iter().map(|net| Family::of(net.address));
    for family in inside.collect::<SortedSet<_>>().into_iter().filter(|_| config.globals.forwarding) {
        match sysctl::forward(family) {
            Ok(true) => log::info!("{family}: the kernel forwards packets from now on"),
            Ok(false) => {}
            Err(error) => log::warn!("the kernel was not told to forward packets: {error}"),
        }
    }
}

async fn firewall_changed(firewall: &mut Option<firewall::Keeper>) -> firewall::State {
    match firewall {
        Some(keeper) => keeper.changed().await,
        None => std::future::pending().await,
    }
}

fn index_of(device: &str) -> Result<u32, StartError> {
    if_nametoindex(device).map_err(|error| StartError::system("index of the TUN device")(error.into()))
}

fn complain(result: Result<(), String>) {
    if let Err(why) = result {
        log::warn!("{why}");
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Server => "server",
    }
}
