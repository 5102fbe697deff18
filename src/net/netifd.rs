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

use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::netlink::Netlink;
use super::snapshot::Interfaces;
use super::{Error, Family, Prefix, nameservers};
use crate::json::{self, FromJson, get, part};

/// How long `ubus` may take. It answers within milliseconds unless ubusd hangs.
const DEADLINE: Duration = Duration::from_secs(3);

/// How much `ubus` may say, in bytes. An interface's status has one to four KiB.
const MAX_OUTPUT: usize = 64 * 1024;

/// Where a link is at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Whether the interface is up.
    pub up: bool,
    /// Device that packets go through (netifd's `l3_device`, for PPPoE that is `pppoe-wan`); `None` while the interface
    /// has none.
    pub device: Option<String>,
    /// Addresses to send from, the preferred one of each family first.
    pub paths: Vec<Path>,
    /// The interface's name servers, as far as netifd knows them.
    pub name_servers: Vec<IpAddr>,
}

impl Resolved {
    /// The address to use in one family.
    pub fn path(&self, family: Family) -> Option<&Path> {
        self.paths.iter().find(|path| Family::of(path.address) == family)
    }

    /// Takes what netifd has answered for an interface.
    ///
    /// # Errors
    ///
    /// When it cannot be understood.
    pub fn from_answer(interface: &str, answer: &[u8]) -> Result<Resolved, ResolveError> {
        parse_status(answer).map_err(|error| ResolveError::Failed {
            name: interface.to_owned(),
            reason: format!("its answer cannot be understood: {error}"),
        })
    }
}

/// An address of a link, and how it leads to the internet.
#[derive(Clone, Debug, PartialEq, Eq)]
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

    /// netifd's own answer, which [`Resolved::from_answer`] understands.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub async fn ask(&self, name: &str) -> Result<Vec<u8>, ResolveError> {
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
            Output { status: Some(0), text } => Ok(text),
            Output { status: Some(NOT_FOUND), .. } => Err(ResolveError::Unknown(name.to_owned())),
            Output { status: Some(code), .. } => Err(failed(format!("'{}' ended with {code}", self.program))),
            Output { status: None, .. } => Err(failed(format!("'{}' was killed", self.program))),
        }
    }
}

impl InterfaceResolver for Ubus {
    fn resolve<'a>(&'a self, name: &'a str) -> Resolving<'a> {
        Box::pin(async { Resolved::from_answer(name, &self.ask(name).await?) })
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

struct StatusAddress {
    address: IpAddr,
    mask: u8,
    ptpaddress: Option<IpAddr>,
    preferred: Option<i64>,
}

impl FromJson for StatusAddress {
    fn from_json(value: &Value) -> Option<Self> {
        Some(StatusAddress {
            address: get(value, "address")?,
            mask: get(value, "mask")?,
            ptpaddress: get(value, "ptpaddress")?,
            preferred: get(value, "preferred")?,
        })
    }
}

/// A delegated prefix, of which the interface may have taken an address.
struct StatusAssignment(Option<StatusAddress>);

impl FromJson for StatusAssignment {
    fn from_json(value: &Value) -> Option<Self> {
        get(value, "local-address").map(StatusAssignment)
    }
}

struct StatusRoute {
    target: IpAddr,
    mask: u8,
    nexthop: Option<IpAddr>,
    metric: u32,
    /// `ADDRESS/LENGTH`, of IPv6 routes by source.
    source: Option<String>,
}

impl FromJson for StatusRoute {
    fn from_json(value: &Value) -> Option<Self> {
        Some(StatusRoute {
            target: get(value, "target")?,
            mask: get(value, "mask")?,
            nexthop: get(value, "nexthop")?,
            metric: get::<Option<u32>>(value, "metric")?.unwrap_or_default(),
            source: get(value, "source")?,
        })
    }
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

/// Takes from netifd's answer what is used. Everything may be missing.
fn parse_status(text: &[u8]) -> Result<Resolved, json::Error> {
    let status: Value = serde_json::from_slice(text)?;
    if !status.is_object() {
        return Err(json::Error::Kind);
    }
    let routes: Vec<StatusRoute> = part(&status, "route")?;
    // What netifd knows and has not set, as the default route of an interface with `option defaultroute '0'`, and the name
    // servers with `option peerdns '0'`.
    let inactive = &status["inactive"];
    let inactive_routes: Vec<StatusRoute> = part(inactive, "route")?;
    let gateway = |address: IpAddr| {
        let active = routes.iter().filter(|route| route.serves(address)).min_by_key(|route| route.metric);
        let route = active.or_else(|| inactive_routes.iter().find(|route| route.serves(address)))?;
        route.nexthop.filter(|next| !next.is_unspecified())
    };
    let mut addresses: Vec<StatusAddress> = part(&status, "ipv4-address")?;
    addresses.extend(part::<Vec<StatusAddress>>(&status, "ipv6-address")?);
    let assignments: Vec<StatusAssignment> = part(&status, "ipv6-prefix-assignment")?;
    addresses.extend(assignments.into_iter().filter_map(|StatusAssignment(address)| address));
    // netifd counts the preferred lifetime down to 0 and keeps the address until it is no longer valid.
    let (outlived, preferred): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.preferred == Some(0));
    let paths = preferred
        .into_iter()
        .chain(outlived)
        .map(|address| Path {
            address: address.address,
            prefix_len: address.mask.min(Family::of(address.address).bits()),
            gateway: gateway(address.address).filter(|next| Some(*next) != address.ptpaddress),
        })
        .collect();
    let known = |status: &Value| -> Result<Vec<IpAddr>, json::Error> {
        let servers: Vec<String> = part(status, "dns-server")?;
        Ok(servers.iter().filter_map(|text| nameservers::address(text)).collect())
    };
    let mut name_servers = known(&status)?;
    // Not for the router's own use, but they answer those who come through the interface.
    if name_servers.is_empty() {
        name_servers = known(inactive)?;
    }
    let device: Option<String> = part(&status, "l3_device")?;
    Ok(Resolved {
        up: part::<Option<bool>>(&status, "up")?.unwrap_or_default(),
        device: if device.is_some() { device } else { part(&status, "device")? },
        paths,
        name_servers,
    })
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
