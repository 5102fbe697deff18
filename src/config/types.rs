//! The configuration as the daemon uses it: every option resolved, with its default, in its unit.
//!
//! All types compare with `==`, so that a reload can tell what has changed. Lines of the file are not part of them.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::key::{KeyFileError, PublicKey, Secret, read_private_key};
use super::servers::Server;
use super::value::{Host, IpNet, Mark, Rate, Table};

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `config globals`.
    pub globals: Globals,
    /// `config interface`.
    pub bond: Interface,
    /// The name of the server that the rest is for; see [`Config::at_server`].
    pub server: String,
    /// The interface's own server and the enabled `config server` sections, in the order of preference; empty on a server.
    pub servers: Vec<Server>,
    /// The enabled `config link` sections, in the order of the file; empty on a server.
    pub links: Vec<Link>,
    /// The enabled `config peer` sections, in the order of the file; empty on a client.
    pub peers: Vec<Peer>,
    /// The enabled `config redirect` sections, in the order of the file; empty on a client.
    pub redirects: Vec<Redirect>,
    /// The enabled `config rule` sections, in the order of the file: the first one that matches counts.
    pub rules: Vec<Rule>,
}

/// Which end of the bond this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The router: it has the links and starts the session.
    Client,
    /// The server in the datacentre.
    Server,
}

/// Who spreads the packets over the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// This program.
    User,
    /// The kernel's bonding driver.
    Kernel,
}

/// How data is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// What the slower end has in hardware.
    Auto,
    /// AES-256-GCM.
    Aes256Gcm,
    /// AES-128-GCM.
    Aes128Gcm,
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
    /// Data in the clear.
    None,
}

/// How traffic is spread over the links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Every link by what it is measured to carry.
    Adaptive,
    /// By weight or configured rate.
    Weighted,
    /// Packet by packet in turn.
    RoundRobin,
    /// A flow stays on one link.
    Flow,
    /// The best link alone.
    ActiveBackup,
    /// Copies on several links.
    Redundant,
}

/// Where the log goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LogTarget {
    /// Standard error.
    Stderr,
    /// The system's log.
    Syslog,
}

/// `config globals`: the daemon as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globals {
    /// Whether the daemon is to run.
    pub enabled: bool,
    /// Which end this is: as configured, else the server where there are peers.
    pub role: Role,
    /// User or kernel mode.
    pub mode: Mode,
    /// The private key, if the file holds it. Use [`Globals::read_private_key`].
    pub private_key: Option<Secret>,
    /// The file that holds it otherwise.
    pub private_key_file: PathBuf,
    /// The server's UDP ports.
    pub listen_ports: Vec<u16>,
    /// The server's addresses; empty for all of the machine.
    pub listen_addresses: Vec<IpAddr>,
    /// Where routers reach this server.
    pub public_addresses: Vec<Host>,
    /// Whether private addresses of peers are translated.
    pub nat: bool,
    /// Whether the kernel is told to forward.
    pub forwarding: bool,
    /// Networks that are spared translation, without host bits.
    pub trusted_networks: Vec<IpNet>,
    /// Whether peers may reach each other.
    pub client_to_client: bool,
    /// The path of the control socket.
    pub control_socket: PathBuf,
    /// The port on loopback where figures for Prometheus are given.
    pub metrics_port: Option<u16>,
    /// The group (name or number) that may use it beside root.
    pub control_group: Option<String>,
    /// The directory for what must survive a reboot.
    pub state_dir: PathBuf,
    /// How much is logged.
    pub log_level: ::log::LevelFilter,
    /// Where it is logged.
    pub log_target: LogTarget,
    /// The data cipher.
    pub cipher: Cipher,
    /// How long session keys are used.
    pub rekey_interval: Duration,
    /// The routing table of the first link; see [`Link::table_number`].
    pub table_base: u32,
    /// The mark of the first link; see [`Link::mark`].
    pub mark_base: Mark,
    /// The kernel's protocol number of our routes.
    pub route_protocol: u8,
    /// The priority of our first routing rule.
    pub rule_priority: u32,
}

impl Globals {
    /// The private key: from the option, else from the file.
    ///
    /// # Errors
    ///
    /// When the file is missing, exposed to others, or not a key. The message says what to do.
    pub fn read_private_key(&self) -> Result<Secret, KeyFileError> {
        match &self.private_key {
            Some(key) => Ok(key.clone()),
            None => read_private_key(&self.private_key_file),
        }
    }
}

/// `config interface`: the bonded interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The section's name, `bond` by custom.
    pub name: String,
    /// The network device.
    pub ifname: String,
    /// This end's addresses, `ipaddr` then `ip6addr`, with their prefix lengths.
    pub addresses: Vec<IpNet>,
    /// The server's addresses inside the bond (client).
    pub remote_addresses: Vec<IpAddr>,
    /// The server's key (client); [`Config::not_ready`] complains where it is missing.
    pub public_key: Option<PublicKey>,
    /// The pre-shared key (client).
    pub preshared_key: Option<Secret>,
    /// How long the server may be silent before another one is used.
    pub server_timeout: Duration,
    /// How long a server of earlier choice must have answered before the bond goes back to it; `None`: never.
    pub server_return: Option<Duration>,
    /// How traffic is spread.
    pub policy: Policy,
    /// The MTU of the bonded device in bytes; `None` finds it out.
    pub mtu: Option<u16>,
    /// Whether TCP's MSS is clamped.
    pub mss_clamp: bool,
    /// Whether the default route leads through the bond while it is up.
    pub default_route: bool,
    /// The metric of our routes.
    pub metric: Option<u32>,
    /// More networks behind the bond.
    pub routes: Vec<IpNet>,
    /// Whether TCP is put back in order.
    pub resequence_tcp: bool,
    /// Whether UDP is put back in order.
    pub resequence_udp: bool,
    /// The watchdog, if it is on (client).
    pub watchdog: Option<Watchdog>,
    /// The scripts.
    pub hooks: Hooks,
    /// Kernel mode's options.
    pub kernel: KernelBond,
}

/// The watchdog of the bond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watchdog {
    /// The addresses to ping; one answer is enough. Never empty.
    pub addresses: Vec<IpAddr>,
    /// How often to ping.
    pub period: Duration,
    /// How long without an answer before the action.
    pub timeout: Duration,
    /// The program (an absolute path) and its arguments. Never empty.
    pub action: Vec<String>,
}

/// A script to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its absolute path.
    pub path: PathBuf,
    /// Whether the file names it: a script at the customary path may be absent without a word.
    pub configured: bool,
}

/// The scripts that are run when the state of the bond changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// Before the bond is set up.
    pub preup: Script,
    /// When the bond is up.
    pub up: Script,
    /// Before the bond is taken down.
    pub predown: Script,
    /// When the bond is down.
    pub down: Script,
    /// When a link or the bond goes up or down, with MLVPN's arguments.
    pub link_script: Option<Script>,
    /// How long a script may run.
    pub timeout: Duration,
}

/// The mode of the kernel's bonding driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BondMode {
    /// Packet by packet in turn.
    BalanceRr,
    /// By a hash of the addresses.
    BalanceXor,
    /// One link at a time.
    ActiveBackup,
    /// Everything on every link.
    Broadcast,
}

/// What balance-xor hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HashPolicy {
    /// Hardware addresses.
    Layer2,
    /// Hardware and IP addresses.
    Layer23,
    /// IP addresses and ports.
    Layer34,
}

/// What a link's tunnel device carries in kernel mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelType {
    /// IP packets.
    Tun,
    /// Ethernet frames.
    Tap,
}

/// The options of kernel mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelBond {
    /// The driver's mode.
    pub mode: BondMode,
    /// What balance-xor hashes.
    pub xmit_hash_policy: HashPolicy,
    /// What the links' tunnels carry.
    pub tunnel_type: TunnelType,
    /// How often the driver looks at the carrier, in milliseconds; 0 when ARP monitoring is on.
    pub miimon: u32,
    /// How often the driver probes by ARP, in milliseconds; 0 is off.
    pub arp_interval: u32,
    /// Whom it probes: IPv4 addresses.
    pub arp_ip_targets: Vec<IpAddr>,
}

/// `config link`: one internet link of the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The section's name.
    pub name: String,
    /// Its place among all link sections of the file, disabled ones included, from 0: what `mark` and `table` are
    /// counted from, so that disabling one link does not renumber the others.
    pub position: u32,
    /// The netifd interface that gives device, addresses and gateways.
    pub interface: Option<String>,
    /// The network device, where there is no `interface`.
    pub device: Option<String>,
    /// The IPv4 source address; the prefix length is 32 where the file gives none.
    pub ipaddr: Option<IpNet>,
    /// The IPv4 gateway.
    pub gateway: Option<IpAddr>,
    /// The IPv6 source address; the prefix length is 128 where the file gives none.
    pub ip6addr: Option<IpNet>,
    /// The IPv6 gateway.
    pub ip6gateway: Option<IpAddr>,
    /// The server, its own or the bond's. Empty only while the daemon is not `enabled`.
    pub servers: Vec<Host>,
    /// The name servers that are asked for the server's name; those of the interface where there are none.
    pub name_servers: Vec<IpAddr>,
    /// The server's UDP port, its own or the bond's.
    pub remote_port: u16,
    /// The local UDP port; any free one if `None`.
    pub local_port: Option<u16>,
    /// The firewall mark, its own or counted from [`Globals::mark_base`].
    pub mark: Mark,
    /// The routing table, its own or counted from [`Globals::table_base`].
    pub table: Table,
    /// The number of its table when its own is a name that the system does not know.
    pub table_fallback: u32,
    /// The name of its tunnel device in kernel mode.
    pub tunnel: Option<String>,
    /// Whether it carries the default route while the bond is down.
    pub active: bool,
    /// 1 is used first.
    pub priority: u8,
    /// Its share with policy weighted.
    pub weight: Option<u32>,
    /// The most that is sent.
    pub upload: Option<Rate>,
    /// The most that is received.
    pub download: Option<Rate>,
    /// The largest IP packet on this link, in bytes; `None` finds it out.
    pub mtu: Option<u16>,
    /// Bytes a month, both ways.
    pub quota: Option<u64>,
    /// The day of the month on which the quota starts anew, 1-31.
    pub quota_reset_day: u8,
    /// How often the idle link is probed.
    pub keepalive: Duration,
}

impl Link {
    /// The number of the link's routing table. `lookup` gives the number of a name in the system's `rt_tables`.
    pub fn table_number(&self, lookup: impl FnOnce(&str) -> Option<u32>) -> u32 {
        match &self.table {
            Table::Number(number) => *number,
            Table::Name(name) => lookup(name).unwrap_or(self.table_fallback),
        }
    }
}

/// `config peer`: a router that may connect to this server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The section's name.
    pub name: String,
    /// Its key; `None` while it is invited and has not introduced itself.
    pub public_key: Option<PublicKey>,
    /// The pre-shared key; there is one while there is no public key.
    pub preshared_key: Option<Secret>,
    /// Until when it may introduce itself, in seconds since 1970.
    pub invitation_expires: Option<u32>,
    /// Its addresses inside the bond, without host bits. Never empty while the daemon is `enabled`.
    pub addresses: Vec<IpNet>,
    /// The networks behind it.
    pub lans: Vec<IpNet>,
    /// How traffic to it is spread, its own or the interface's.
    pub policy: Policy,
    /// The most that is taken from it.
    pub upload: Option<Rate>,
    /// The most that is sent to it.
    pub download: Option<Rate>,
}

/// `config redirect`: ports of the server that lead to a host behind a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The section's name or `@redirect[N]`.
    pub name: String,
    /// TCP (6), UDP (17) or both; never empty.
    pub protocols: Vec<u8>,
    /// The ports here.
    pub ports: RangeInclusive<u16>,
    /// The address here; all of this machine if `None`.
    pub address: Option<IpAddr>,
    /// Who may use it; everybody if empty. Without host bits.
    pub sources: Vec<IpNet>,
    /// The host.
    pub to: IpAddr,
    /// The first port there; the same as here if `None`.
    pub to_port: Option<u16>,
}

/// `config rule`: what to do with one class of traffic. An empty list matches everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The section's name or `@rule[N]`.
    pub name: String,
    /// IP protocol numbers.
    pub protocols: Vec<u8>,
    /// Source networks, without host bits.
    pub sources: Vec<IpNet>,
    /// Destination networks, without host bits.
    pub destinations: Vec<IpNet>,
    /// Source ports.
    pub source_ports: Vec<RangeInclusive<u16>>,
    /// Destination ports.
    pub destination_ports: Vec<RangeInclusive<u16>>,
    /// Differentiated services code points, 0-63.
    pub dscp: Vec<u8>,
    /// The firewall mark; only with [`Action::Outside`].
    pub mark: Option<Mark>,
    /// What to do.
    pub action: Action,
}

impl Rule {
    /// How many conditions with one value each it stands for.
    pub fn combinations(&self) -> usize {
        let lists = [
            self.protocols.len(),
            self.sources.len(),
            self.destinations.len(),
            self.source_ports.len(),
            self.destination_ports.len(),
        ];
        lists.iter().fold(1, |product, length| product.saturating_mul((*length).max(1)))
    }
}

/// What a [`Rule`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send through the bond.
    Bond {
        /// By this policy; as the interface if `None`.
        policy: Option<Policy>,
        /// Over these links only (names); all if empty.
        links: Vec<String>,
        /// With policy redundant: also where it takes capacity from other traffic.
        force: bool,
    },
    /// Leave outside the bond: by the first of these links that is up, or by the main routing table if empty.
    Outside {
        /// Names of links.
        links: Vec<String>,
    },
}
