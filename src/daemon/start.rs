//! From the command line to the running service, in the order in which nothing is sent before all is set.

use std::io;
use std::path::PathBuf;

use ::log::LevelFilter;
use nix::unistd::geteuid;

use super::clock::ClockFile;
use super::control::{self, Control};
use super::kernel::KernelError;
use super::runner::{self, Runner};
use super::{Daemon, log};
use crate::config::key::{KeyFileError, Secret};
use crate::config::{self, Config, LogTarget, Mode, Role};
use crate::io::Keeper;
use crate::io::confine::{Capability, Confined, Confinement};
use crate::io::tun::TunError;
use crate::io::udp::OpenError;
use crate::net;

/// What the command line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The configuration.
    pub config: PathBuf,
    /// Log to the system's log, whatever the configuration says.
    pub syslog: bool,
    /// How much to log, whatever the configuration says.
    pub log_level: Option<LevelFilter>,
}

/// Why the daemon did not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The configuration.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file has errors, which were logged.
    #[error("{} has errors: nothing was started (`bonding check {}` shows them)", .0.display(), .0.display())]
    Refused(PathBuf),
    /// The user does not want it to run.
    #[error("{}: section 'globals', option 'enabled' is off: nothing was started", .0.display())]
    Disabled(PathBuf),
    /// Kernel mode.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Too few privileges.
    #[error("missing privilege: {0}")]
    Privilege(String),
    /// The private key.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The TUN device.
    #[error(transparent)]
    Tun(#[from] TunError),
    /// The server's sockets.
    #[error(transparent)]
    Socket(#[from] OpenError),
    /// The kernel's network configuration.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// The control socket.
    #[error("control socket {}: {source}", path.display())]
    Control {
        /// The socket.
        path: PathBuf,
        /// Why it cannot be made.
        source: io::Error,
    },
    /// Something that every system gives.
    #[error("{what}: {source}")]
    System {
        /// What was wanted.
        what: &'static str,
        /// Why it was not to be had.
        source: io::Error,
    },
}

impl StartError {
    pub(super) fn system(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| StartError::System { what, source }
    }
}

/// Runs until it is told to stop, in the foreground.
///
/// # Errors
///
/// What the person at the terminal is to be told; with syslog it was logged too.
pub fn run(options: &Options) -> Result<(), StartError> {
    let read = config::load_file(&options.config);
    let loaded = read.as_ref().ok().and_then(|report| report.config.as_ref());
    let target = match loaded {
        _ if options.syslog => LogTarget::Syslog,
        Some(config) => config.globals.log_target,
        None => LogTarget::Stderr,
    };
    let level = loaded.map_or(LevelFilter::Info, |config| config.globals.log_level);
    let syslog = target == LogTarget::Syslog;
    log::init(syslog, options.log_level.unwrap_or(level));

    let result = accept(options, read).and_then(|config| serve(config, options));
    if let (true, Err(error)) = (syslog, &result) {
        ::log::error!("{error}");
    }
    result
}

/// What is made while the process still has all its privileges.
pub struct Prepared {
    /// The control socket.
    pub control: control::Opened,
    /// The process that keeps the privileges, and runs scripts.
    pub runner: runner::Started,
    /// The process that watches over the device; none for a device that the kernel names,
    /// which could not be found again, and for a bonding device, which is nobody's file.
    pub keeper: Option<Keeper>,
    /// The private key.
    pub key: Secret,
    /// The clock of a client's handshakes.
    pub clock: Option<ClockFile>,
    /// What is left of the privileges; `None` if they could not be given up.
    pub privileges: Option<Confined>,
}

fn serve(config: Config, options: &Options) -> Result<(), StartError> {
    check_privileges()?;
    let prepared = prepare(&config, options)?;
    let served = super::block_on(async {
        let daemon = Daemon::start(config, options, prepared).await?;
        daemon.run().await
    });
    served.map_err(StartError::system("event loop"))?
}

/// No thread may have been started yet: it would keep what is given up here.
fn prepare(config: &Config, options: &Options) -> Result<Prepared, StartError> {
    let globals = &config.globals;
    // First of all, because it fails when another daemon runs.
    let control = Control::open(&globals.control_socket, globals.control_group.as_deref())
        .map_err(|source| StartError::Control { path: globals.control_socket.clone(), source })?;
    // Before the key is read: they have no use for it.
    let runner =
        Runner::start(&options.config).map_err(StartError::system("the process that runs scripts"))?;
    let keeper = match config.bond.ifname.contains('%') || globals.mode == Mode::Kernel {
        true => None,
        false => Some(Keeper::start(&config.bond.ifname).map_err(StartError::system("process"))?),
    };
    let key = globals.read_private_key()?;
    let clock = (globals.role == Role::Client).then(|| ClockFile::in_directory(&globals.state_dir));
    let privileges = match Confinement::keep(&needed(config)).enter() {
        Ok(confined) => Some(confined),
        Err(error) => {
            ::log::warn!("giving up privileges: {error}");
            None
        }
    };
    // The owner of a private file may be somebody else, whose files only a privileged process can read.
    if privileges.is_some()
        && let Err(error) = std::fs::File::open(&options.config)
    {
        let path = options.config.display();
        ::log::warn!("{path}: {error}: a reload will not be able to read it; run `chown root {path}`");
    }
    Ok(Prepared { control, runner, keeper, key, clock, privileges })
}

/// The capabilities that the service needs all the time.
fn needed(config: &Config) -> Vec<Capability> {
    let mut needed = vec![Capability::NetAdmin, Capability::NetRaw];
    if reserved_port(config).is_some() {
        needed.push(Capability::NetBindService);
    }
    needed
}

/// The option that asks for a port which only the privileged may use.
fn reserved_port(config: &Config) -> Option<&'static str> {
    // IPPORT_RESERVED of netinet/in.h.
    let reserved = |port: &u16| (1..1_024).contains(port);
    match config.globals.role {
        Role::Server => config.globals.listen_ports.iter().any(reserved).then_some("listen_port"),
        Role::Client => config
            .links
            .iter()
            .filter_map(|link| link.local_port)
            .any(|port| reserved(&port))
            .then_some("local_port"),
    }
}

/// The option of another configuration that cannot take effect, because the privilege for it was given up at the start.
pub(super) fn beyond_privileges(config: &Config, privileges: &Confined) -> Option<&'static str> {
    reserved_port(config).filter(|_| !privileges.capabilities.contains(&Capability::NetBindService.name()))
}

fn accept(options: &Options, read: io::Result<config::Report>) -> Result<Config, StartError> {
    let path = &options.config;
    let report = read.map_err(|source| StartError::Unreadable { path: path.clone(), source })?;
    for problem in &report.problems {
        match problem.severity {
            config::Severity::Error => ::log::error!("{problem}"),
            _ => ::log::warn!("{problem}"),
        }
    }
    let config = report.config.ok_or_else(|| StartError::Refused(path.clone()))?;
    if !config.globals.enabled {
        return Err(StartError::Disabled(path.clone()));
    }
    let missing = config.not_ready(&path.display().to_string());
    for problem in &missing {
        ::log::error!("{problem}");
    }
    if !missing.is_empty() {
        return Err(StartError::Refused(path.clone()));
    }
    Ok(config)
}

/// CAP_NET_ADMIN, bit 12 of the capability sets (linux/capability.h).
const CAP_NET_ADMIN: u32 = 12;

fn check_privileges() -> Result<(), StartError> {
    // Where /proc is not mounted the kernel will have the last word.
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return Ok(()) };
    if has_capability(&status, CAP_NET_ADMIN) != Some(false) {
        return Ok(());
    }
    let who = match geteuid().is_root() {
        true => "root in here lacks CAP_NET_ADMIN (in a container: add it, and pass in /dev/net/tun)",
        false => {
            "CAP_NET_ADMIN is needed for the TUN device and its routes: run as root (`sudo bonding run …`)"
        }
    };
    Err(StartError::Privilege(who.into()))
}

fn has_capability(status: &str, number: u32) -> Option<bool> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let bits = u64::from_str_radix(set.trim(), 16).ok()?;
    Some(bits >> number & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_of_proc_self_status() {
        let status = |set: &str| format!("Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t{set}\n");
        assert_eq!(has_capability(&status("0000000000000000"), CAP_NET_ADMIN), Some(false));
        assert_eq!(has_capability(&status("0000000000001000"), CAP_NET_ADMIN), Some(true));
        assert_eq!(has_capability(&status("000001ffffffefff"), CAP_NET_ADMIN), Some(false));
        assert_eq!(has_capability("Name:\tx\n", CAP_NET_ADMIN), None);
    }

    fn accepted(text: &str) -> Result<Config, StartError> {
        let options = Options { config: "bonding.conf".into(), syslog: false, log_level: None };
        accept(&options, Ok(config::load(text, "bonding.conf")))
    }

    #[test]
    fn a_reserved_port_that_was_not_asked_for_at_the_start_waits_for_the_next() {
        let config = |text: &str| config::load(text, "test").config.unwrap();
        let bond = "config interface 'bond'\n option ipaddr '10.0.0.1/24'\n option server 192.0.2.1\n";
        let server = |port| {
            config(&format!("{bond}config globals\n option role server\n option listen_port {port}\n"))
        };
        let client =
            |port| config(&format!("{bond}config link a\n option device eth0\n option local_port {port}\n"));
        let confined = |names: &[&'static str]| Confined { capabilities: names.to_vec(), seccomp: true };
        let without = confined(&["CAP_NET_ADMIN", "CAP_NET_RAW"]);
        assert_eq!(beyond_privileges(&server(443), &without), Some("listen_port"));
        assert_eq!(beyond_privileges(&client(443), &without), Some("local_port"));
        assert_eq!(beyond_privileges(&server(1_024), &without), None);
        assert_eq!(beyond_privileges(&server(443), &confined(&["CAP_NET_BIND_SERVICE"])), None);
        assert_eq!(needed(&server(443)).len(), 3);
        assert_eq!(needed(&client(5_510)).len(), 2);
    }

    #[test]
    fn what_is_not_started() {
        let server =
            "config interface 'bond'\n option ipaddr '10.0.0.1/24'\nconfig globals\n option role server\n";
        assert!(accepted(server).is_ok());
        let with = |option: &str| accepted(&format!("{server} {option}\n")).unwrap_err().to_string();
        assert!(with("option enabled 0").contains("'enabled' is off"));
        assert!(with("option listen_port 99999").contains("bonding check bonding.conf"));
    }
}
