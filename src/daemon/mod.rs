//! The service: from the configuration to a running bond, and back to nothing.
//!
//! [`run`] loads the file, makes the device, opens the sockets, sets routes and rules, and then serves: packets (in
//! [`crate::io::driver`]), the control socket, signals, and changes of the network. Whatever it set is removed at the
//! end.

mod client;
pub mod control;
pub mod events;
pub mod log;
mod server;
mod setup;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ::log::{error, info, warn};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::bond::status::EndpointStatus;
use crate::bond::{Event, LinkState, PeerId};
use crate::config::{self, Config, Role};
use crate::io::timer::now;
use crate::io::{Driver, IoCounters, Tun, TunOptions, Wake};
use crate::net::{self, Netlink, Reconciler, Watch};
use client::Client;
use control::{Command, Control, LinkAction};
use events::Events;
use server::Server;

/// The tunnel device's MTU until the links have been measured.
const FIRST_MTU: u16 = 1_440;
/// Changes of the network are looked at together when they come within this time.
const SETTLE: Duration = Duration::from_millis(50);
/// Links without address or server are looked at again this often.
const RETRY: Duration = Duration::from_secs(5);

/// What [`run`] is told on the command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// Log to syslog, whatever the file says.
    pub syslog: bool,
    /// How much to log, whatever the file says.
    pub log_level: Option<::log::LevelFilter>,
}

/// Why the daemon did not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {0}: {1}")]
    Unreadable(PathBuf, std::io::Error),
    /// The file has errors, one a line.
    #[error("{0}")]
    Config(String),
    /// The bond is switched off in the file.
    #[error(
        "the bond is off: `uci set bonding.globals.enabled=1` (or `option enabled '1'` in {0}) turns it on"
    )]
    Disabled(PathBuf),
    /// The private key cannot be used.
    #[error(transparent)]
    Key(#[from] config::key::KeyFileError),
    /// The device cannot be made.
    #[error(transparent)]
    Tun(#[from] crate::io::tun::TunError),
    /// A listening socket cannot be opened.
    #[error(transparent)]
    Socket(#[from] crate::io::udp::OpenError),
    /// The kernel refuses netlink.
    #[error("network configuration: {0}")]
    Net(#[from] net::Error),
    /// The control socket cannot be opened.
    #[error("control socket {0}: {1}")]
    Control(PathBuf, std::io::Error),
    /// Something of the system is missing.
    #[error("{0}: {1}")]
    System(&'static str, std::io::Error),
    /// Our device was deleted.
    #[error("the device {0} is gone; somebody else has deleted it: {1}")]
    TunGone(String, std::io::Error),
}

/// Runs the daemon until it is told to end.
pub fn run(options: Options) -> Result<(), Error> {
    let config = load(&options)?;
    let globals = &config.globals;
    let syslog = options.syslog || globals.log_target == config::LogTarget::Syslog;
    log::init(syslog, options.log_level.unwrap_or(globals.log_level));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::System("event loop", e))?;
    runtime.block_on(async {
        let mut service = Service::start(options, config).await?;
        let result = service.serve().await;
        service.stop().await;
        result
    })
}

/// Reads the file; an error names every problem.
fn load(options: &Options) -> Result<Config, Error> {
    let path = &options.config;
    let report = config::load_file(path).map_err(|e| Error::Unreadable(path.clone(), e))?;
    let lines = |problems: &[config::Problem]| {
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let Some(config) = report.config else { return Err(Error::Config(lines(&report.problems))) };
    for problem in &report.problems {
        warn!("{problem}");
    }
    if !config.globals.enabled {
        return Err(Error::Disabled(path.clone()));
    }
    let missing = config.not_ready(&path.display().to_string());
    if missing.is_empty() { Ok(config) } else { Err(Error::Config(lines(&missing))) }
}

/// The end of the bond that this is.
enum End {
    Client(Client),
    Server(Server),
}

/// How the last reload went.
#[derive(Clone, Debug, Serialize)]
struct Reload {
    ok: bool,
    message: String,
    unix_ms: u64,
}

/// What `bonding status --json` prints.
#[derive(Serialize)]
struct Status<'a> {
    version: u32,
    role: &'static str,
    ifname: &'a str,
    config: String,
    uptime_ms: u64,
    reload: &'a Option<Reload>,
    endpoint: EndpointStatus,
    /// The interface or device of each link.
    interfaces: BTreeMap<String, String>,
    /// The names of the peers, by number.
    peers: BTreeMap<u32, String>,
    io: &'a IoCounters,
}

struct Service {
    options: Options,
    config: Config,
    driver: Driver,
    end: End,
    reconciler: Reconciler,
    control: Control,
    watch: Watch,
    events: Events,
    started: crate::bond::Time,
    reload: Option<Reload>,
    mtu: u16,
    /// Peers that have a link in use.
    up: std::collections::BTreeSet<PeerId>,
    stopping: bool,
    /// Our device cannot be found any more.
    device_lost: Option<std::io::Error>,
}

impl Service {
    async fn start(options: Options, config: Config) -> Result<Service, Error> {
        let globals = &config.globals;
        let key = globals.read_private_key()?;
        let control = Control::bind(&globals.control_socket, globals.control_group.as_deref())
            .map_err(|e| Error::Control(globals.control_socket.clone(), e))?;
        let netlink = Netlink::open()?;
        let watch = Watch::open(globals.route_protocol).map_err(|e| Error::System("network events", e))?;
        let mtu = config.bond.mtu.unwrap_or(FIRST_MTU);
        let tun = Tun::open(&TunOptions::new(config.bond.ifname.clone(), mtu))?;
        let endpoint = setup::endpoint(&config, &key);
        let driver = Driver::new(endpoint, tun).map_err(|e| Error::System("event loop", e))?;
        let reconciler = Reconciler::new(netlink, setup::ownership(globals));
        let end = match globals.role {
            Role::Client => End::Client(Client::new(&config)),
            Role::Server => End::Server(Server::new()),
        };
        let mut service = Service {
            options,
            driver,
            end,
            reconciler,
            control,
            watch,
            events: Events::default(),
            started: now(),
            reload: None,
            mtu,
            up: Default::default(),
            stopping: false,
            device_lost: None,
            config,
        };
        match &mut service.end {
            End::Client(client) => client.start(&service.config, &mut service.driver),
            End::Server(server) => server.start(&service.config, &mut service.driver)?,
        }
        service.follow_network().await;
        info!("{} is ready on {}", service.role(), service.config.bond.ifname);
        Ok(service)
    }

    async fn serve(&mut self) -> Result<(), Error> {
        let system = |e| Error::System("signals", e);
        let mut term = signal(SignalKind::terminate()).map_err(system)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(system)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(system)?;
        let mut look = Some(tokio::time::Instant::now() + RETRY);
        while !self.stopping {
            if let Some(error) = self.device_lost.take() {
                return Err(Error::TunGone(self.config.bond.ifname.clone(), error));
            }
            let due = look.unwrap_or_else(|| tokio::time::Instant::now() + Duration::from_secs(3_600));
            tokio::select! {
                biased;
                _ = term.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => { self.reload().await; }
                request = self.control.next() => {
                    let reply = self.command(&request.command).await;
                    request.reply(reply);
                }
                event = self.watch.next() => match event {
                    Ok(_) => look = Some(tokio::time::Instant::now() + SETTLE),
                    Err(error) => {
                        warn!("network events: {error}");
                        look = Some(tokio::time::Instant::now() + RETRY);
                    }
                },
                () = tokio::time::sleep_until(due) => {
                    self.follow_network().await;
                    look = self.unfinished().then(|| tokio::time::Instant::now() + RETRY);
                }
                wake = self.driver.run() => match wake {
                    Wake::Event(event) => self.event(event).await,
                    Wake::SocketGone(_) => look = Some(tokio::time::Instant::now()),
                    Wake::TunGone(error) => {
                        return Err(Error::TunGone(self.config.bond.ifname.clone(), error));
                    }
                },
            }
        }
        Ok(())
    }

    /// Removes all that was set.
    async fn stop(&mut self) {
        info!("stopping");
        self.driver.endpoint.close(now());
        self.driver.flush();
        match self.reconciler.clear().await {
            Ok(report) => {
                for (change, error) in report.failed {
                    warn!("cannot undo {change:?}: {error}");
                }
            }
            Err(error) => warn!("cannot remove routes and rules: {error}"),
        }
        if let End::Client(client) = &mut self.end {
            client.restore();
        }
    }

    fn role(&self) -> &'static str {
        match self.end {
            End::Client(_) => "client",
            End::Server(_) => "server",
        }
    }

    /// Some link has no address or server yet.
    fn unfinished(&self) -> bool {
        matches!(&self.end, End::Client(client) if client.is_unfinished())
    }

    /// Brings links, routes and rules in line with the network as it is.
    async fn follow_network(&mut self) {
        if let End::Client(client) = &mut self.end {
            client.follow(&self.config, &mut self.driver, self.reconciler.netlink()).await;
        }
        self.set_network().await;
    }

    async fn set_network(&mut self) {
        let name = self.driver.tun().name().to_owned();
        let index = match self.reconciler.netlink().link_by_name(&name).await {
            Ok(link) => link.index,
            Err(error) => {
                self.device_lost = Some(std::io::Error::other(error));
                return;
            }
        };
        let mut desired = setup::bond_network(&self.config, index, self.mtu);
        match &self.end {
            End::Client(client) => client.network(&self.config, index, !self.up.is_empty(), &mut desired),
            End::Server(_) => server::network(&self.config, index, &mut desired),
        }
        match self.reconciler.reconcile(&desired).await {
            Ok(report) => {
                for (change, error) in report.failed {
                    warn!("the kernel refused {change:?}: {error}");
                }
            }
            Err(error) => warn!("cannot read routes and rules: {error}"),
        }
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::PeerUp { peer } => {
                let name = self.peer_name(peer);
                info!("{name}: the bond is up");
                self.events.push(&name, None, "up", "");
                self.up.insert(peer);
                self.set_network().await;
            }
            Event::PeerDown { peer, reason } => {
                let name = self.peer_name(peer);
                warn!("{name}: the bond is down: {reason}");
                self.events.push(&name, None, "down", &reason);
                self.up.remove(&peer);
                self.set_network().await;
            }
            Event::LinkState { peer, name, state, reason, .. } => {
                let what = setup::state_name(state);
                let peer = self.peer_name(peer);
                match state {
                    LinkState::Up | LinkState::Joining => info!("{peer}: link {name} is {what}"),
                    _ => warn!("{peer}: link {name} is {what}: {reason}"),
                }
                self.events.push(&peer, Some(&name), what, &reason);
            }
            Event::TunnelMtu { mtu, .. } => {
                // One device for all peers: the smallest counts.
                let wanted = match self.end {
                    End::Client(_) => mtu,
                    End::Server(_) => mtu.min(self.mtu),
                };
                if self.config.bond.mtu.is_none() && wanted != self.mtu {
                    info!("the tunnel's MTU is {wanted}");
                    self.mtu = wanted;
                    self.set_network().await;
                }
            }
            Event::HandshakeFailed { peer, reason } => {
                let name = peer.map_or_else(|| "a stranger".to_owned(), |peer| self.peer_name(peer));
                warn!("handshake with {name}: {reason}");
                self.events.push(&name, None, "handshake failed", &reason);
            }
        }
    }

    fn peer_name(&self, peer: PeerId) -> String {
        match &self.end {
            End::Client(_) => "server".to_owned(),
            End::Server(server) => server.name(peer),
        }
    }

    async fn command(&mut self, command: &Command) -> serde_json::Value {
        match command {
            Command::Status => self.status(),
            Command::Events => serde_json::to_value(&self.events).unwrap_or_default(),
            Command::Reload => {
                self.reload().await;
                serde_json::to_value(&self.reload).unwrap_or_default()
            }
            Command::Link { name, action } => self.link(name, *action).await,
            Command::Stop => {
                self.stopping = true;
                serde_json::json!({ "ok": true })
            }
        }
    }

    async fn link(&mut self, name: &str, action: LinkAction) -> serde_json::Value {
        let End::Client(client) = &mut self.end else {
            return failure("links are switched on the router, not on the server");
        };
        if !client.switch(name, action, &mut self.driver) {
            return failure(&format!("there is no link '{name}'"));
        }
        self.follow_network().await;
        serde_json::json!({ "ok": true })
    }

    fn status(&self) -> serde_json::Value {
        let at = now();
        let (interfaces, peers) = match &self.end {
            End::Client(client) => (client.interfaces(), BTreeMap::from([(0, "server".to_owned())])),
            End::Server(server) => (BTreeMap::new(), server.names()),
        };
        let status = Status {
            version: 1,
            role: self.role(),
            ifname: &self.config.bond.ifname,
            config: self.options.config.display().to_string(),
            uptime_ms: u64::try_from(at.since(self.started).as_millis()).unwrap_or(u64::MAX),
            reload: &self.reload,
            endpoint: self.driver.endpoint.status(at),
            interfaces,
            peers,
            io: &self.driver.counters,
        };
        serde_json::to_value(status).unwrap_or_default()
    }

    /// Takes over what changed in the file. A file with errors is refused whole.
    async fn reload(&mut self) {
        let result = load(&self.options).and_then(|config| self.apply(config));
        let ok = result.is_ok();
        let message = match result {
            Ok(()) => "the configuration was taken over".to_owned(),
            Err(error) => error.to_string(),
        };
        if ok {
            info!("reload: {message}")
        } else {
            error!("reload refused: {message}")
        }
        self.reload = Some(Reload { ok, message, unix_ms: setup::unix_ms() });
        if ok {
            self.follow_network().await;
        }
    }

    fn apply(&mut self, config: Config) -> Result<(), Error> {
        let old = &self.config;
        let fixed = old.globals.role != config.globals.role
            || old.bond.ifname != config.bond.ifname
            || old.globals.private_key != config.globals.private_key
            || old.globals.private_key_file != config.globals.private_key_file
            || old.globals.control_socket != config.globals.control_socket;
        if fixed {
            warn!("role, device name, private key and control socket are taken over at the next restart");
        }
        let config = Config {
            globals: config::Globals { role: old.globals.role, ..config.globals },
            bond: config::Interface { ifname: old.bond.ifname.clone(), ..config.bond },
            ..config
        };
        if let Some(mtu) = config.bond.mtu {
            self.mtu = mtu;
        }
        match &mut self.end {
            End::Client(client) => client.reconfigure(&config, &mut self.driver),
            End::Server(server) => server.reconfigure(&config, &mut self.driver)?,
        }
        self.config = config;
        Ok(())
    }
}

fn failure(message: &str) -> serde_json::Value {
    serde_json::json!({ "ok": false, "error": message })
}
