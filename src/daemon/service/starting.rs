//! The start: everything that must be there before packets flow.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{Daemon, Side, Signals, enslaving, forward, hooks, index_of, placing, role_name, switches};
use crate::bond::sorted::SortedMap;
use crate::bond::{Endpoint, Time};
use crate::config::key::Secret;
use crate::config::{Cipher, Config, Mode, Role};
use crate::daemon::client::Client;
use crate::daemon::clock::ClockFile;
use crate::daemon::desired::{self, Tunnel};
use crate::daemon::events::{Events, unix_ms};
use crate::daemon::kernel::KernelBond;
use crate::daemon::network::{Network, Wanted};
use crate::daemon::runner::{Hook, Runner};
use crate::daemon::scripts::{Report, Scripts};
use crate::daemon::server::Server;
use crate::daemon::servers::Servers;
use crate::daemon::start::{Options, Prepared, StartError};
use crate::daemon::{firewall, mapping};
use crate::io::timer::{Timer, now};
use crate::io::{Driver, Keeper, Tun, TunOptions};
use crate::net::{Netlink, Reconciler, Watch};

/// The device's MTU until the links' are known: what fits 1500 bytes on the line. Longer packets than a link carries are
/// split by the core.
pub(super) const FIRST_MTU: u16 = 1_440;

/// Messages from tasks that wait for the loop.
const INBOX: usize = 256;

/// The alias of our device, by which it is known from one that somebody else has made persistent.
const ALIAS: &str = "bonding";

impl Daemon {
    /// Makes device, addresses, routes, rules and sockets, in this order, after `preup` has ended. The device outlives a
    /// sudden end if there is a keeper.
    pub async fn start(config: Config, options: &Options, prepared: Prepared) -> Result<Daemon, StartError> {
        // From here on nothing ends the process without cleaning up.
        let mut signals = Signals::listen().map_err(StartError::system("signals"))?;
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
        let timer = Timer::new().map_err(StartError::system("timer"))?;
        let mut driver = Driver::new(new_endpoint(&config, &key, clock.as_ref(), started)?, timer);
        let netlink = Netlink::open()?;
        let device = Device::open(&config, &key, mtu, &netlink, keeper.as_ref(), &mut driver).await?;
        let Device { name: device, index, mut kernel, outlived } = device;
        let tunnel = Tunnel { index, mtu };

        let watch = Watch::open(globals.route_protocol).map_err(StartError::system("netlink"))?;
        let mut side = open_side(&config, options, &mut driver, started)?;
        if let Some(kernel) = &mut kernel
            && let Err(error) = enslaving::enslave(kernel, &config, &side, &mut driver).await
        {
            kernel.remove().await;
            return Err(error.into());
        }
        let first = first_wanted(&mut side, &config, &netlink, &runner, tunnel).await;
        let mut firewall = None;
        if globals.role == Role::Server {
            forward(&config);
            firewall = Some(firewall::Keeper::start(firewall::wanted(&config)).await);
        }
        let mut reconciler = Reconciler::new(netlink.clone(), desired::ownership(&config));
        if outlived {
            log::info!("device {device}: kept from a run that did not end in order");
            reconciler.adopt(tunnel.index).await?;
        }
        let saved = globals.control_socket.with_extension("sysctl");
        let network = Network::start(reconciler, watch, saved, first).await?;

        let mut daemon = Daemon {
            options: options.clone(),
            side,
            servers: Servers::new(&config, started),
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
            peer_mtus: SortedMap::new(),
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
            tick: Box::pin(sleep(Duration::ZERO)),
            settling: None,
            changes: 0,
            looked: started,
            device_lost: false,
            stopping,
            config,
            keeper,
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
}

impl Signals {
    fn listen() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

/// The device that applications see.
struct Device {
    name: String,
    index: u32,
    /// Set in kernel mode.
    kernel: Option<KernelBond>,
    /// It was there before: from a run that did not end in order.
    outlived: bool,
}

impl Device {
    async fn open(
        config: &Config,
        key: &Secret,
        mtu: u16,
        netlink: &Netlink,
        keeper: Option<&Keeper>,
        driver: &mut Driver,
    ) -> Result<Device, StartError> {
        let wanted = config.bond.ifname.clone();
        match config.globals.mode {
            Mode::User => {
                let mut tun = Tun::open(&TunOptions::with_offloads(wanted, mtu))?;
                let (name, index) = (tun.name().to_owned(), index_of(tun.name())?);
                let outlived = keep(&mut tun, index, netlink, keeper).await;
                driver.set_tun(tun);
                Ok(Device { name, index, kernel: None, outlived })
            }
            Mode::Kernel => {
                let address = enslaving::hardware_address(key);
                let bond = KernelBond::make(config, mtu, address, netlink.clone()).await?;
                Ok(Device { name: wanted, index: bond.index(), kernel: Some(bond), outlived: false })
            }
        }
    }
}

fn open_side(config: &Config, options: &Options, driver: &mut Driver, now: Time) -> Result<Side, StartError> {
    match config.globals.role {
        Role::Client => {
            let client = Client::new(config, driver, now);
            client.map(Side::Client).ok_or_else(|| StartError::Refused(options.config.clone()))
        }
        Role::Server => Ok(Side::Server(Server::new(config, driver, now)?)),
    }
}

/// What the kernel is to have from the first moment. The client's links are placed for it.
async fn first_wanted(
    side: &mut Side,
    config: &Config,
    netlink: &Netlink,
    runner: &Runner,
    tunnel: Tunnel,
) -> Wanted {
    let mut first = Wanted::default();
    match side {
        Side::Client(client) => {
            placing::place_now(client, netlink, Some(runner), config.globals.route_protocol).await;
            (first.desired, first.loose_rp_filter) = client.desired(config, tunnel);
        }
        Side::Server(_) => first.desired = desired::server(config, tunnel),
    }
    first.switches = switches(config, side);
    first
}

/// Lets the device outlive a sudden end of the daemon. Returns whether it has outlived one.
pub(super) async fn keep(tun: &mut Tun, index: u32, netlink: &Netlink, keeper: Option<&Keeper>) -> bool {
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
pub(super) fn new_endpoint(
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
