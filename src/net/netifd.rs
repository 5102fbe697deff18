//! Which device, address and gateway a link has.
//!
//! On OpenWrt a link names a netifd interface (`option interface 'wan'`), and netifd is asked over ubus. Elsewhere the
//! configuration names the device, and what it leaves out is found in the kernel. Both answer the same question, behind
//! one trait.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::netlink::Netlink;
use super::snapshot::Interfaces;
use super::{Error, Family, Prefix, nameservers};

/// How long `ubus` may take. It answers within milliseconds unless ubusd hangs.
const DEADLINE: Duration = Duration::from_secs(3);

/// How much `ubus` may say, in bytes. An interface's status has one to four KiB.
const MAX_OUTPUT: usize = 256 * 1024;

/// Where a link is at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Whether the interface is up.
    pub up: bool,
    /// Device that packets go through (netifd's `l3_device`, for PPPoE that is `pppoe-wan`); `None` while the interface
    /// has none.
    pub device: Option<String>,
    /// Addresses to send from, the preferred one of each family first.
    pub paths: Vec<Path>,
    /// The interface's name servers, as far as netifd knows them.
    #[serde(default)]
    pub name_servers: Vec<IpAddr>,
}

impl Resolved {
    /// The address to use in one family.
    pub fn path(&self, family: Family) -> Option<&Path> {
        self.paths.iter().find(|path| Family::of(path.address) == family)
    }
}

/// An address of a link, and how it leads to the internet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Path {
    /// Address to send from.
    pub address: IpAddr,
    /// Length of its network's prefix, in bits.
    pub prefix_len: u8,
    /// Next hop; `None` on point-to-point connections.
    pub gateway: Option<IpAddr>,
}

/// Why it is not known where a link is.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The name cannot be that of a netifd interface.
    #[error("'{0}' cannot name an interface: letters, digits, '_', '-' and '.' are allowed")]
    Name(String),
    /// `ubus` could not be started.
    #[error("cannot run '{program}': {source}: without OpenWrt's netifd set 'device' instead of 'interface'")]
    Start {
        /// The program.
        program: String,
        /// Why not.
        source: io::Error,
    },
    /// netifd knows no such interface.
    #[error("netifd has no interface '{0}': see 'ubus list network.interface.*' for those that exist")]
    Unknown(String),
    /// `ubus` failed.
    #[error("asking netifd for interface '{name}' failed: {reason}")]
    Failed {
        /// The interface.
        name: String,
        /// What happened.
        reason: String,
    },
    /// No device of that name exists.
    #[error("there is no device '{0}' (yet)")]
    NoDevice(String),
    /// Another process has asked, and says why it does not know.
    #[error("{reason}")]
    Told {
        /// As [`ResolveError::is_final`] was there.
        nowhere: bool,
        /// The error's text there.
        reason: String,
    },
    /// The kernel could not be asked.
    #[error(transparent)]
    Netlink(#[from] Error),
}

impl ResolveError {
    /// Whether it is known that there is no such place, as opposed to somebody who could not tell.
    pub fn is_final(&self) -> bool {
        match self {
            ResolveError::NoDevice(_) | ResolveError::Unknown(_) | ResolveError::Name(_) => true,
            ResolveError::Told { nowhere, .. } => *nowhere,
            ResolveError::Start { .. } | ResolveError::Failed { .. } | ResolveError::Netlink(_) => false,
        }
    }
}

/// A [`Resolved`] that is on its way.
pub type Resolving<'a> = Pin<Box<dyn Future<Output = Result<Resolved, ResolveError>> + Send + 'a>>;

/// Finds out where a link is.
pub trait InterfaceResolver: Send + Sync {
    /// Asks once. Ask again when the network has changed ([`super::watch`]) or netifd's hotplug says so.
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a>;
}

/// Asks netifd: `ubus call network.interface.NAME status`.
#[derive(Clone, Debug)]
pub struct Ubus {
    program: String,
    deadline: Duration,
}

impl Default for Ubus {
    fn default() -> Self {
        Ubus { program: "ubus".to_owned(), deadline: DEADLINE }
    }
}

impl Ubus {
    /// With another program than `ubus`, which is called in the same way.
    pub fn with_program(program: impl Into<String>) -> Self {
        Ubus { program: program.into(), ..Self::default() }
    }

    async fn ask(&self, name: &str) -> Result<Resolved, ResolveError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
            return Err(ResolveError::Name(name.to_owned()));
        }
        let failed = |reason: String| ResolveError::Failed { name: name.to_owned(), reason };
        let child = Command::new(&self.program)
            .args(["call", &format!("network.interface.{name}"), "status"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| ResolveError::Start { program: self.program.clone(), source })?;
        let mut child = Killed(child);
        let output = tokio::time::timeout(self.deadline, child.output())
            .await
            .map_err(|_| failed(format!("no answer within {} s", self.deadline.as_secs())))?
            .map_err(|error| failed(error.to_string()))?;
        // UBUS_STATUS_NOT_FOUND, which is what an unknown interface gives.
        const NOT_FOUND: i32 = 4;
        match output {
            Output { status: Some(0), text } => parse_status(&text)
                .map_err(|error| failed(format!("its answer cannot be understood: {error}"))),
            Output { status: Some(NOT_FOUND), .. } => Err(ResolveError::Unknown(name.to_owned())),
            Output { status: Some(code), .. } => Err(failed(format!("'{}' ended with {code}", self.program))),
            Output { status: None, .. } => Err(failed(format!("'{}' was killed", self.program))),
        }
    }
}

impl InterfaceResolver for Ubus {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        Box::pin(self.ask(name))
    }
}

struct Output {
    status: Option<i32>,
    text: Vec<u8>,
}

/// A child that does not outlive its owner.
struct Killed(Child);

impl Killed {
    async fn output(&mut self) -> io::Result<Output> {
        let Some(stdout) = self.0.stdout.take() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        let pipe = pipe::Receiver::from_owned_fd(stdout.into())?;
        let mut text = Vec::new();
        pipe.take(MAX_OUTPUT as u64 + 1).read_to_end(&mut text).await?;
        if text.len() > MAX_OUTPUT {
            return Err(io::Error::other(format!("it says more than {MAX_OUTPUT} bytes")));
        }
        // Its output is closed: it is about to end, and the caller's deadline holds here too.
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Output { status: status.code(), text });
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// The parts of netifd's answer that are used. Everything may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Status {
    up: bool,
    #[serde(rename = "l3_device")]
    l3_device: Option<String>,
    device: Option<String>,
    ipv4_address: Vec<StatusAddress>,
    ipv6_address: Vec<StatusAddress>,
    ipv6_prefix_assignment: Vec<StatusAssignment>,
    route: Vec<StatusRoute>,
    dns_server: Vec<String>,
    inactive: Inactive,
}

/// What netifd knows and has not set, as the default route of an interface with `option defaultroute '0'`, and the name
/// servers with `option peerdns '0'`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Inactive {
    route: Vec<StatusRoute>,
    dns_server: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct StatusAddress {
    address: IpAddr,
    mask: u8,
    ptpaddress: Option<IpAddr>,
    preferred: Option<i64>,
}

/// A delegated prefix, of which the interface has taken an address.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct StatusAssignment {
    local_address: Option<StatusAddress>,
}

#[derive(Debug, Deserialize)]
struct StatusRoute {
    target: IpAddr,
    mask: u8,
    nexthop: Option<IpAddr>,
    #[serde(default)]
    metric: u32,
    /// `ADDRESS/LENGTH`, of IPv6 routes by source.
    source: Option<String>,
}

impl StatusRoute {
    fn serves(&self, address: IpAddr) -> bool {
        let everything = Prefix::default_route(Family::of(address));
        let source = match self.source.as_deref().map(str::parse::<Prefix>) {
            // netifd writes 0.0.0.0/0 and ::/0 where there is no condition.
            Some(Ok(source)) => source.contains(address),
            Some(Err(_)) | None => true,
        };
        self.mask == 0 && Family::of(self.target) == everything.family() && source
    }
}

fn parse_status(text: &[u8]) -> Result<Resolved, serde_json::Error> {
    let status: Status = serde_json::from_slice(text)?;
    let gateway = |address: IpAddr| {
        let active =
            status.route.iter().filter(|route| route.serves(address)).min_by_key(|route| route.metric);
        let route = active.or_else(|| status.inactive.route.iter().find(|route| route.serves(address)))?;
        route.nexthop.filter(|next| !next.is_unspecified())
    };
    let assigned = status.ipv6_prefix_assignment.iter().filter_map(|a| a.local_address.as_ref());
    let mut addresses: Vec<&StatusAddress> =
        status.ipv4_address.iter().chain(&status.ipv6_address).chain(assigned).collect();
    // netifd counts the preferred lifetime down to 0 and keeps the address until it is no longer valid.
    addresses.sort_by_key(|address| address.preferred == Some(0));
    let paths = addresses
        .into_iter()
        .map(|address| Path {
            address: address.address,
            prefix_len: address.mask.min(Family::of(address.address).bits()),
            gateway: gateway(address.address).filter(|next| Some(*next) != address.ptpaddress),
        })
        .collect();
    let known = |servers: &[String]| servers.iter().filter_map(|text| nameservers::address(text)).collect();
    let mut name_servers: Vec<IpAddr> = known(&status.dns_server);
    // Not for the router's own use, but they answer those who come through the interface.
    if name_servers.is_empty() {
        name_servers = known(&status.inactive.dns_server);
    }
    Ok(Resolved { up: status.up, device: status.l3_device.or(status.device), paths, name_servers })
}

/// Device, address and gateway as the configuration gives them; what it leaves out, the kernel knows.
#[derive(Clone, Debug)]
pub struct Static {
    netlink: Netlink,
    own_protocol: u8,
    /// Device; `None`: that which has `address`.
    pub device: Option<String>,
    /// Address to send from; `None`: the device's own.
    pub address: Option<IpAddr>,
    /// Next hop; `None`: that of the device's default route.
    pub gateway: Option<IpAddr>,
}

impl Static {
    /// A link by its device. Default routes set by `own_protocol` are ours, and say nothing about the device.
    pub fn new(netlink: Netlink, own_protocol: u8, device: impl Into<Option<String>>) -> Self {
        Static { netlink, own_protocol, device: device.into(), address: None, gateway: None }
    }

    async fn look(&self) -> Result<Resolved, ResolveError> {
        let interfaces = Interfaces::snapshot(&self.netlink, self.own_protocol).await?;
        let interface = match (&self.device, self.address) {
            (Some(device), _) => interfaces.by_name(device),
            (None, Some(address)) => interfaces.by_address(address),
            (None, None) => None,
        };
        let Some(interface) = interface else {
            return match &self.device {
                Some(device) => Err(ResolveError::NoDevice(device.clone())),
                None => Ok(Resolved::default()),
            };
        };
        let candidates: Vec<_> = match self.address {
            Some(wanted) => interface
                .addresses
                .iter()
                .filter(|info| info.address.address == wanted && info.usable)
                .collect(),
            None => Family::ALL.iter().filter_map(|family| interface.address(*family)).collect(),
        };
        let paths = candidates
            .into_iter()
            .map(|info| {
                let address = info.address;
                let by_hand = self.gateway.filter(|gateway| Family::of(*gateway) == address.family());
                let known = || interface.gateway(address.family()).and_then(|gateway| gateway.address);
                Path {
                    address: address.address,
                    prefix_len: address.prefix_len,
                    gateway: by_hand.or_else(known).filter(|gateway| Some(*gateway) != address.peer),
                }
            })
            .collect();
        let link = &interface.link;
        let (up, device) = (link.up && link.carrier, Some(link.name.clone()));
        Ok(Resolved { up, device, paths, ..Resolved::default() })
    }
}

impl InterfaceResolver for Static {
    /// The name does not matter.
    fn resolve<'a>(&'a self, _name: &'a str) -> Resolving<'a> {
        Box::pin(self.look())
    }
}

#[cfg(test)]
#[path = "netifd_tests.rs"]
mod tests;
