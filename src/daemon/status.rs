//! The status as JSON, version [`VERSION`]: what the core knows, and what the daemon knows besides.

use serde::Serialize;

use super::events::Aged;
use super::kernel::KernelStatus;
use super::quota::QuotaStatus;
use super::reload::Outcome;
use super::servers::ServerStatus;
use super::watchdog::WatchdogStatus;
use crate::bond::sorted::SortedMap;
use crate::bond::status::EndpointStatus;
use crate::io::confine::Confined;
use crate::io::{ActiveOffloads, IoCounters};

/// Counts changes of the format that would break a reader. New fields are not such changes.
pub const VERSION: u32 = 1;

/// What `bonding status --json` prints.
#[derive(Serialize)]
pub struct Status<'a> {
    /// [`VERSION`].
    pub version: u32,
    /// Version of the program.
    pub program: &'static str,
    /// `client` or `server`.
    pub role: &'static str,
    /// The device.
    pub ifname: &'a str,
    /// The MTU that it has now.
    pub mtu: u16,
    /// The configuration's file.
    pub config: String,
    /// Process id.
    pub pid: u32,
    /// Milliseconds since the start.
    pub uptime_ms: u64,
    /// The last reload; `null` if there was none.
    pub reload: Option<&'a Outcome>,
    /// What is left of the privileges; `null` if they could not be given up.
    pub privileges: Option<&'a Confined>,
    /// The watchdog; `null` without one.
    pub watchdog: Option<WatchdogStatus>,
    /// A server's addresses and ports.
    pub listen: Vec<String>,
    /// A client's servers, the first choice first.
    pub servers: Vec<ServerStatus>,
    /// A server's nftables table; `null` when it wants none.
    pub firewall: Option<Firewall>,
    /// The core's part.
    pub endpoint: EndpointStatus,
    /// The netifd interface or device of each link, by its name.
    pub interfaces: SortedMap<String, String>,
    /// Where each link is, by its name.
    pub links: SortedMap<String, LinkPlace>,
    /// The names of the peers, by their numbers in the core's part.
    pub peers: SortedMap<u32, String>,
    /// What passes between program and kernel in batches.
    pub offloads: ActiveOffloads,
    /// The names of a client's rules, by their numbers in the core's part.
    pub rules: Vec<&'a str>,
    /// What was lost between core and kernel.
    pub io: &'a IoCounters,
    /// Kernel mode's devices; `null` in user mode.
    pub kernel: Option<KernelStatus>,
    /// The last changes of state, the oldest first.
    pub events: Vec<Aged>,
}

/// A server's table of translations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Firewall {
    /// Its name.
    pub table: String,
    /// Why it is not set; empty when it is.
    pub problem: String,
}

/// Where a link is and how its packets are told from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LinkPlace {
    /// The netifd interface.
    pub interface: Option<String>,
    /// The device that packets go through now, or else the one that is configured.
    pub device: Option<String>,
    /// Number of its routing table.
    pub table: u32,
    /// Its packets' mark.
    pub mark: String,
    /// Whether it carries the default route while the bond is down.
    pub active: bool,
    /// Taken out by hand.
    pub taken_out: bool,
    /// The server as configured.
    pub servers: Vec<String>,
    /// What it has used of its quota; `null` without one.
    pub quota: Option<QuotaStatus>,
    /// Why it cannot send; empty when it can.
    pub note: String,
}
