//! The running service: one loop that serves packets, signals, people and the network.

mod answers;
mod enslaving;
mod hooks;
mod placing;
pub mod plan;
mod reloading;
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::client::{Client, Placing};
use super::clock::ClockFile;
use super::control::Control;
use super::desired::{self, Tunnel};
use super::events::{Events, unix_ms};
use super::kernel::KernelBond;
use super::network::{Network, Progress, Wanted};
use super::reload::Outcome;
use super::runner::{self, Hook, Runner};
use super::scripts::{Report, Scripts};
use super::server::Server;
use super::speedtest::{Pinning, Responder};
use super::start::{Options, Prepared, StartError};
use super::watchdog::Watchdog;
use super::{firewall, introduction, mapping, metrics, places};
use crate::bond::{Endpoint, Event, LinkState, PeerId, Time};
use crate::config::key::Secret;
use crate::config::{Cipher, Config, Mode, Role};
use crate::io::confine::Confined;
use crate::io::timer::now;
use crate::io::{Driver, Keeper, Tun, TunOptions};
use crate::net::sysctl::{self, Switch};
use crate::net::{Family, Netlink, Reconciler, Watch};

/// The device's MTU until the links' are known: what fits 1500 bytes on the line. Longer packets than a link carries are
/// split by the core.
const FIRST_MTU: u16 = 1_440;

/// A link without a place is looked for this often, beside every change of the network.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// What a client calls its only peer.
const SERVER: &str = "server";

/// Messages from tasks that wait for the loop.
const INBOX: usize = 256;

/// What other tasks tell the loop.
enum Message {
    Placed(String, Placing),
    Named(String, io::Result<Vec<std::net::IpAddr>>),
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

/// The service.
pub struct Daemon {
    config: Config,
    options: Options,
    side: Side,
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
    peer_mtus: BTreeMap<PeerId, u16>,
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
    tick: Interval,
    /// The generation that must be settled before sockets are opened.
    settling: Option<u64>,
    /// Changes of the network that were answered.
    changes: u64,
    looked: Time,
    device_lost: bool,
    stopping: bool,
    /// Last, so that it is told that all is well when the device is gone.
    _keeper: Option<Keeper>,
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
    /// Makes device, addresses, routes, rules and sockets, in this order, after `preup` has ended. The device outlives a
    /// sudden end if there is a keeper.
    pub async fn start(config: Config, options: &Options, prepared: Prepared) -> Result<Daemon, StartError> {
        // From here on nothing ends the process without cleaning up.
        let listen = |kind| signal(kind).map_err(StartError::system("signals"));
        let mut signals = Signals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        };
        let (tell, inbox) = mpsc::channel(INBOX);

        let globals = &config.globals;
        let Prepared { control, runner, keeper, key, clock, privileges } = prepared;
        let control = control
            .serve()
            .map_err(|source| StartError::Control { path: globals.control_socket.clone(), source })?;
        let runner = runner.attach().map_err(StartError::system("socket of the script runner"))?;
        let mut scripts = Scripts::new(runner.clone());
        let mtu = config.bond.mtu.unwrap_or(FIRST_MTU);
        let (first_report, stopping) = preup(&mut scripts, &mut signals, &config, options, mtu).await;

        let started = now();
        let endpoint = new_endpoint(&config, &key, clock.as_ref(), started)?;
        let mut driver = Driver::new(endpoint).map_err(StartError::system("timer"))?;
        let netlink = Netlink::open()?;
        let mut outlived = false;
        let (device, index, mut kernel) = match globals.mode {
            Mode::User => {
                let mut tun = Tun::open(&TunOptions::with_offloads(config.bond.ifname.clone(), mtu))?;
                let (device, index) = (tun.name().to_owned(), index_of(tun.name())?);
                outlived = keep(&mut tun, index, &netlink, keeper.as_ref()).await;
                driver.set_tun(tun);
                (device, index, None)
            }
            Mode::Kernel => {
                let address = enslaving::hardware_address(&key);
                let bond = KernelBond::make(&config, mtu, address, netlink.clone()).await?;
                (config.bond.ifname.clone(), bond.index(), Some(bond))
            }
        };
        let tunnel = Tunnel { index, mtu };

        let ownership = desired::ownership(&config);
        let watch = Watch::open(ownership.protocol).map_err(StartError::system("netlink"))?;
        let side = match globals.role {
            Role::Client => {
                let client = Client::new(&config, &mut driver, started);
                Side::Client(client.ok_or_else(|| StartError::Refused(options.config.clone()))?)
            }
            Role::Server => Side::Server(Server::new(&config, &mut driver, started)?),
        };
        let mut side = side;
        if let Some(kernel) = &mut kernel
            && let Err(error) = enslaving::enslave(kernel, &config, &side, &mut driver).await
        {
            kernel.remove().await;
            return Err(error.into());
        }
        let mut first = Wanted::default();
        match &mut side {
            Side::Client(client) => {
                placing::place_now(client, &netlink, Some(&runner), globals.route_protocol).await;
                (first.desired, first.loose_rp_filter) = client.desired(&config, tunnel);
            }
            Side::Server(_) => first.desired = desired::server(&config, tunnel),
        }
        first.switches = switches(&config, &side);
        let mut firewall = None;
        if globals.role == Role::Server {
            forward(&config);
            firewall = Some(firewall::Keeper::start(firewall::wanted(&config)).await);
        }
        let saved = globals.control_socket.with_extension("sysctl");
        let mut reconciler = Reconciler::new(netlink.clone(), ownership);
        if outlived {
            log::info!("device {}: kept from a run that did not end in order", config.bond.ifname);
            reconciler.adopt(tunnel.index).await?;
        }
        let network = Network::start(reconciler, watch, saved, first).await?;

        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut daemon = Daemon {
            options: options.clone(),
            side,
            driver,
            network,
            firewall,
            responder: None,
            metrics: None,
            netlink,
            device,
            tunnel,
            kernel,
            links_changed: false,
            peer_mtus: BTreeMap::new(),
            control,
            privileges,
            runner,
            scripts,
            told: hooks::Told::default(),
            watchdog: None,
            clock,
            store_at: Some(started),
            last_up: started,
            events: Events::default(),
            reload: None,
            started,
            inbox,
            tell,
            signals,
            tick,
            settling: None,
            changes: 0,
            looked: started,
            device_lost: false,
            stopping,
            config,
            _keeper: keeper,
        };
        daemon.announce();
        daemon.configure_watchdog();
        if let Some(report) = first_report {
            daemon.take_report(&report);
        }
        daemon.respond();
        daemon.show_metrics();
        Ok(daemon)
    }

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
                _ = self.tick.tick() => self.tick(),
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

    fn announce(&self) {
        let globals = &self.config.globals;
        let role = role_name(globals.role);
        let device = &self.device;
        log::info!(
            "{role} {}, device {device}, key {}",
            env!("CARGO_PKG_VERSION"),
            self.driver.endpoint().status(self.started).public_key
        );
        if globals.cipher == Cipher::None {
            log::warn!("cipher 'none': data travels in the clear where the other end allows it too");
        }
        match &self.privileges {
            Some(privileges) => log::info!("{privileges}"),
            None => {
                log::warn!("privileges could not be given up: the daemon keeps all that it was started with")
            }
        }
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

    fn take_core_events(&mut self) {
        while let Some(event) = self.driver.poll_event() {
            self.links_changed = self.kernel.is_some();
            match event {
                Event::PeerUp { peer } => self.peer_changed(peer, true, ""),
                Event::PeerDown { peer, reason } => self.peer_changed(peer, false, &reason),
                Event::LinkState { peer, link, name, state, reason } => {
                    if let Side::Client(client) = &mut self.side {
                        client.remember_round_trips(&self.driver.endpoint().status(now()));
                        client.set_state(link, state, now());
                        // The fallback of the default route and the ways outside the bond go by links that are up.
                        self.set_network();
                    }
                    let peer_name = self.peer_name(peer);
                    self.event(peer_name.as_deref(), Some(&name), state_name(state), &reason);
                    self.hook_link(peer, link, &name, state, &reason);
                }
                Event::TunnelMtu { peer, mtu } => {
                    self.peer_mtus.insert(peer, mtu);
                    self.follow_mtu();
                }
                Event::Introduced { invitation, public_key } => self.introduced(invitation, &public_key),
                Event::HandshakeFailed { peer, reason } => {
                    let peer = peer.and_then(|peer| self.peer_name(peer));
                    self.event(peer.as_deref(), None, "handshake failed", &reason);
                }
            }
        }
    }

    /// A router has proved an invitation's secret: its key is written to the disk, off this thread, and then taken over as
    /// any change of the configuration.
    fn introduced(&mut self, invitation: u32, key: &crate::bond::keys::PublicKey) {
        let Side::Server(server) = &mut self.side else { return };
        let Some(invited) = server.take_invited(invitation) else { return };
        let key = crate::config::key::PublicKey::new(*key.as_bytes());
        self.event(Some(&invited.name), None, "introduced itself", &key.to_string());
        let (path, tell) = (self.options.config.clone(), self.tell.clone());
        tokio::task::spawn_blocking(move || {
            let pinned = introduction::pin(&path, &invited, key);
            let _ = tell.blocking_send(Message::Introduced(invited.name, pinned));
        });
    }

    fn peer_changed(&mut self, peer: PeerId, up: bool, reason: &str) {
        let name = self.peer_name(peer);
        self.event(name.as_deref(), None, if up { "up" } else { "down" }, reason);
        self.hook_peer(peer, up, reason);
        if let Side::Client(client) = &mut self.side
            && client.peer() == peer
        {
            client.set_up(up);
            self.set_network();
        }
    }

    fn follow_mtu(&mut self) {
        let Some(found) = self.peer_mtus.values().min().copied() else { return };
        let mtu = self.config.bond.mtu.unwrap_or(found);
        if mtu != self.tunnel.mtu {
            self.event(None, None, "mtu", &format!("{} is now {mtu}", self.config.bond.ifname.clone()));
            self.tunnel.mtu = mtu;
            self.set_network();
        }
    }

    fn peer_name(&self, peer: PeerId) -> Option<String> {
        match &self.side {
            Side::Client(client) => (client.peer() == peer).then(|| SERVER.to_owned()),
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
            Message::Placed(name, place) => {
                if let Side::Client(client) = &mut self.side
                    && client.set_place(&name, place)
                {
                    self.follow();
                }
            }
            Message::Named(name, answer) => {
                if let Side::Client(client) = &mut self.side
                    && client.names_mut().answer(&name, answer, now())
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
        let now = now();
        self.links_changed |= self.kernel.is_some();
        if now.since(self.looked) >= LOOK_AGAIN && self.is_incomplete() {
            self.look();
        }
        self.sweep_told();
        self.watch(now);
        self.keep_clock(now);
        let client = match &mut self.side {
            Side::Client(client) => client,
            Side::Server(server) => return server.tick(&mut self.driver),
        };
        let answering = client.is_up();
        for name in client.names_mut().due(answering, now) {
            let tell = self.tell.clone();
            tokio::spawn(async move {
                let answer = places::lookup(&name).await;
                let _ = tell.send(Message::Named(name, answer)).await;
            });
        }
        let turned = client.tick(now);
        let used_up = client.meter(&mut self.driver, unix_ms(), now);
        for save in client.quotas_mut().due(now) {
            tokio::task::spawn_blocking(move || complain(save.write()));
        }
        for link in used_up {
            self.event(None, Some(&link), "quota used up", "it is used only while no other link is up");
        }
        if turned {
            self.follow();
        }
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
            let tun =
                Tun::open(&TunOptions::with_offloads(self.config.bond.ifname.clone(), self.tunnel.mtu))?;
            self.tunnel.index = index_of(tun.name())?;
            self.device = tun.name().to_owned();
            self.driver.set_tun(tun);
        }
        self.event(None, None, "device", "it had disappeared and was made anew");
        self.set_network();
        Ok(())
    }
}

/// The alias of our device, by which it is known from one that somebody else has made persistent.
const ALIAS: &str = "bonding";

/// Lets the device outlive a sudden end of the daemon. Returns whether it has outlived one.
async fn keep(tun: &mut Tun, index: u32, netlink: &Netlink, keeper: Option<&Keeper>) -> bool {
    let persistent = tun.is_persistent();
    let alias = netlink.link_alias(index).await.unwrap_or_default();
    let outlived = persistent && alias == ALIAS;
    let Some(keeper) = keeper else { return outlived };
    if persistent && !outlived {
        log::info!("device {}: somebody else's, it will stay", tun.name());
        return false;
    }
    let named = netlink.set_link_alias(index, ALIAS).await;
    if let Err(error) = named {
        log::warn!("{error}");
    } else if let Err(error) = keeper.hold() {
        log::warn!("nobody would remove device {} after a sudden end: {error}", tun.name());
    } else if let Err(error) = tun.keep() {
        log::warn!("{error}");
    }
    outlived
}

/// A core with a generator of its own.
fn new_endpoint(
    config: &Config,
    key: &Secret,
    clock: Option<&ClockFile>,
    now: Time,
) -> Result<Endpoint, StartError> {
    let fill = |bytes: &mut [u8]| getrandom::fill(bytes);
    // Once it has given something, the kernel's generator never fails.
    fill(&mut [0; 1]).map_err(|error| {
        StartError::system("random numbers")(io::Error::other(format!("the kernel gives none: {error}")))
    })?;
    let random = Box::new(move |bytes: &mut [u8]| {
        if let Err(error) = fill(bytes) {
            // Keys from a known place would be worse than no daemon.
            log::error!("the kernel gives no random numbers: {error}");
            std::process::abort();
        }
    });
    let begin = clock.map_or_else(unix_ms, ClockFile::begin);
    let mut endpoint = Endpoint::new(mapping::endpoint(config, key), random, begin, now);
    // Before the first stamp: whatever ends this process, the next one begins later.
    if let (Some(file), Some(reservation)) = (clock, endpoint.clock_reservation(now)) {
        match file.write(reservation) {
            Ok(()) => endpoint.clock_stored(reservation),
            Err(error) => file.complain(&error),
        }
    }
    Ok(endpoint)
}

/// Waits for the script that comes before all, and tells whether the end was asked for meanwhile.
async fn preup(
    scripts: &mut Scripts,
    signals: &mut Signals,
    config: &Config,
    options: &Options,
    mtu: u16,
) -> (Option<Report>, bool) {
    let path = options.config.display().to_string();
    // Nothing waits yet that could be dropped for it.
    let _ = scripts.push(hooks::frame_call(Hook::PreUp, config, &config.bond.ifname, mtu, &path));
    tokio::select! {
        report = scripts.next() => (Some(report), false),
        () = signals.stop() => (None, true),
    }
}

/// What the interfaces that we use must be set to.
fn switches(config: &Config, side: &Side) -> BTreeSet<Switch> {
    let links = match side {
        Side::Client(client) => client.places(),
        Side::Server(_) => BTreeMap::new(),
    };
    let devices = links.values().filter_map(|place| place.device.as_deref());
    devices.chain([config.bond.ifname.as_str()]).flat_map(Switch::no_redirects).collect()
}

/// Has the kernel forward packets, if that is asked for.
fn forward(config: &Config) {
    let inside = config.bond.addresses.iter().map(|net| Family::of(net.address));
    for family in inside.collect::<BTreeSet<_>>().into_iter().filter(|_| config.globals.forwarding) {
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

fn state_name(state: LinkState) -> &'static str {
    match state {
        LinkState::Disabled => "disabled",
        LinkState::Down => "down",
        LinkState::Joining => "joining",
        LinkState::Up => "up",
        LinkState::Suspect => "suspect",
    }
}
