//! Kernel mode: a tunnel device for each link, and the kernel's bonding driver that spreads packets over them.
//!
//! ```text
//! routes → bond0 (bonding driver) ─┬─ bond0-adsl (TUN or TAP) → core, pinned to link adsl → its socket
//!                                  └─ bond0-lte  (TUN or TAP) → core, pinned to link lte  → its socket
//! ```
//!
//! The driver decides over which link a packet goes; the core seals it and keeps it there. What the driver cannot see, a
//! link that is dead somewhere on its way, it is told by the tunnel device's carrier ([`KernelBond::set_carriers`]): it
//! is on while the core counts the link as up.
//!
//! A bonding device takes its type from its first slave, and one whose slaves are TUN devices goes with the last of
//! them. So the slaves are made before the device has addresses, and new ones come before old ones go. The device has
//! none of the daemon's descriptors open: a daemon that is killed leaves it behind where its slaves were TAP devices, and
//! the next one finds it by its mark.

use std::net::IpAddr;

use nix::net::if_::if_nametoindex;
use serde::Serialize;

use crate::bond::sorted::SortedMap;
use crate::bond::{LinkId, PeerId};
use crate::config::{self, BondMode, Config, HashPolicy, TunnelType};
use crate::io::tun::{MAX_NAME_LEN, TunError};
use crate::io::{Driver, Tun, TunKind, TunOptions};
use crate::net::bonding::{BondSettings, Mode, Monitor};
use crate::net::{self, Netlink, bonding};

/// Why kernel mode cannot be.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel has no bonding driver.
    #[error(
        "mode 'kernel' needs the kernel's bonding driver, which this kernel does not have: install it (OpenWrt: 'opkg \
         install kmod-bonding' or kmod-bonding-tun; others: 'modprobe bonding'), or set 'mode' to 'user' at both ends"
    )]
    NoDriver,
    /// The driver takes no TUN device.
    #[error(
        "the kernel's bonding driver refuses the TUN device '{device}' ({source}): it is not patched for devices without \
         a hardware address. Set `option tunnel_type 'tap'` at both ends, which needs no patch, or install the patched \
         driver (kmod-bonding-tun, docs/kernel-mode.md)"
    )]
    Unpatched {
        /// The slave.
        device: String,
        /// The kernel's answer.
        source: net::Error,
    },
    /// A device of that name exists and is somebody else's.
    #[error(
        "a device '{0}' exists already and is in use by somebody else: remove it or choose another 'ifname'"
    )]
    Foreign(String),
    /// The kernel refused something else.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// A link's tunnel device.
    #[error(transparent)]
    Tun(#[from] TunError),
}

/// The tunnel device that a link shall have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The link.
    pub link: LinkId,
    /// Name of the device.
    pub device: String,
    /// The link's priority: under active-backup the lowest carries everything.
    pub priority: u8,
}

struct Slave {
    device: String,
    index: u32,
    carrier: bool,
}

/// What `bonding status --json` says of kernel mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KernelStatus {
    /// The driver's mode.
    pub bond_mode: &'static str,
    /// `tun` or `tap`.
    pub tunnel_type: &'static str,
    /// The links' tunnel devices.
    pub slaves: Vec<SlaveStatus>,
    /// What keeps a link from having one.
    pub problems: Vec<String>,
}

/// The tunnel device of a link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlaveStatus {
    /// The link's number.
    pub link: LinkId,
    /// Name of the device.
    pub device: String,
    /// Whether the driver may use it.
    pub carrier: bool,
}

/// A bonding device and its slaves.
pub struct KernelBond {
    netlink: Netlink,
    options: config::KernelBond,
    settings: BondSettings,
    name: String,
    index: u32,
    mtu: u16,
    peer: Option<PeerId>,
    slaves: SortedMap<LinkId, Slave>,
    problems: SortedMap<LinkId, String>,
    primary: Option<u32>,
}

impl KernelBond {
    /// Makes the bonding device, in the place of one that a killed daemon has left behind, or that the module made when
    /// it was loaded and nobody uses. `address` is its hardware address, where it has one: the same at every start, so that
    /// the other end need not look for it anew.
    ///
    /// # Errors
    ///
    /// When there is no driver, or the name is taken.
    pub async fn make(
        config: &Config,
        mtu: u16,
        address: [u8; 6],
        netlink: Netlink,
    ) -> Result<KernelBond, KernelError> {
        let options = config.bond.kernel.clone();
        let settings = settings(&options, address);
        let name = config.bond.ifname.clone();
        let index = create(&netlink, &name, &settings).await?;
        Ok(KernelBond {
            netlink,
            options,
            settings,
            name,
            index,
            mtu,
            peer: None,
            slaves: SortedMap::new(),
            problems: SortedMap::new(),
            primary: None,
        })
    }

    /// Makes the device and its slaves anew, after something has disappeared.
    ///
    /// # Errors
    ///
    /// As [`KernelBond::make`] and [`KernelBond::follow`].
    pub async fn remake(
        &mut self,
        mtu: u16,
        peer: Option<PeerId>,
        wanted: &[Wanted],
        driver: &mut Driver,
    ) -> Result<(), KernelError> {
        for (link, _) in std::mem::take(&mut self.slaves) {
            if let Some(peer) = self.peer {
                driver.remove_link_tun(peer, link);
            }
        }
        self.primary = None;
        self.mtu = mtu;
        self.index = create(&self.netlink, &self.name, &self.settings).await?;
        self.follow(peer, wanted, driver).await
    }

    /// Removes the device. The slaves go with the driver.
    pub async fn remove(&self) {
        match self.netlink.delete_link(self.index).await {
            // With the last slave, or by somebody's hand.
            Err(error) if error.errno() == Some(libc::ENODEV) => {}
            Err(error) => log::warn!("the bonding device '{}' could not be removed: {error}", self.name),
            Ok(()) => {}
        }
    }

    /// Index of the bonding device.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The links that have a device.
    pub fn links(&self) -> impl Iterator<Item = LinkId> + '_ {
        self.slaves.keys().copied()
    }

    /// Whether all devices are still those that were made, for `peer`.
    pub fn is_whole(&self, peer: Option<PeerId>) -> bool {
        let stands = |name: &str, index| if_nametoindex(name) == Ok(index);
        (self.slaves.is_empty() || self.peer == peer)
            && stands(&self.name, self.index)
            && self.slaves.values().all(|slave| stands(&slave.device, slave.index))
    }

    /// Gives every wanted link its device, and then closes those that are no longer wanted.
    ///
    /// # Errors
    ///
    /// The first thing that went wrong, if it has not been told before; the other links have their devices. What could
    /// not be done is tried again with the next call.
    pub async fn follow(
        &mut self,
        peer: Option<PeerId>,
        wanted: &[Wanted],
        driver: &mut Driver,
    ) -> Result<(), KernelError> {
        self.peer = peer;
        let Some(peer) = peer else { return Ok(()) };
        let mut result = Ok(());
        for wanted in wanted {
            let there = self.slaves.get(&wanted.link);
            if there.is_some_and(|slave| slave.device == wanted.device) {
                continue;
            }
            match self.enslave(&wanted.device).await {
                Ok((tun, index)) => {
                    let slave = Slave { device: wanted.device.clone(), index, carrier: false };
                    driver.set_link_tun(peer, wanted.link, tun);
                    self.slaves.insert(wanted.link, slave);
                    self.problems.remove(&wanted.link);
                }
                Err(error) => {
                    let text = error.to_string();
                    if self.problems.insert(wanted.link, text.clone()) != Some(text) && result.is_ok() {
                        result = Err(error);
                    }
                }
            }
        }
        let is_wanted = |link: &LinkId| wanted.iter().any(|wanted| wanted.link == *link);
        self.problems.retain(|link, _| is_wanted(link));
        self.slaves.retain(|link, _| {
            let keep = is_wanted(link);
            if !keep {
                driver.remove_link_tun(peer, *link);
            }
            keep
        });
        self.choose_primary(wanted).await;
        result
    }

    /// Sets the carrier of each link's device: on where `is_up` says that the link carries traffic. The driver finds it
    /// off within `miimon` milliseconds and sends nothing more there.
    pub fn set_carriers(&mut self, driver: &Driver, is_up: impl Fn(LinkId) -> bool) {
        let Some(peer) = self.peer else { return };
        for (link, slave) in &mut self.slaves {
            let up = is_up(*link);
            let Some(tun) = driver.link_tun(peer, *link).filter(|_| up != slave.carrier) else { continue };
            match tun.set_carrier(up) {
                Ok(()) => slave.carrier = up,
                Err(error) => log::warn!("{error}"),
            }
        }
    }

    /// What there is.
    pub fn status(&self) -> KernelStatus {
        let slave = |(link, slave): (&LinkId, &Slave)| SlaveStatus {
            link: *link,
            device: slave.device.clone(),
            carrier: slave.carrier,
        };
        KernelStatus {
            bond_mode: mode_name(self.options.mode),
            tunnel_type: match self.options.tunnel_type {
                TunnelType::Tun => "tun",
                TunnelType::Tap => "tap",
            },
            slaves: self.slaves.iter().map(slave).collect(),
            problems: self.problems.values().cloned().collect(),
        }
    }

    /// Opens a link's device, without carrier, and gives it to the bonding device.
    async fn enslave(&self, device: &str) -> Result<(Tun, u32), KernelError> {
        let kind = match self.options.tunnel_type {
            TunnelType::Tun => TunKind::Tun,
            TunnelType::Tap => TunKind::Tap,
        };
        let tun = Tun::open(&TunOptions { kind, ..TunOptions::new(device, self.mtu) })?;
        tun.set_carrier(false)?;
        let index = self.netlink.link_by_name(tun.name()).await?.index;
        self.netlink.set_master(index, self.index).await.map_err(|source| {
            match (self.options.tunnel_type, source.errno()) {
                (TunnelType::Tun, Some(libc::EOPNOTSUPP)) => {
                    KernelError::Unpatched { device: device.to_owned(), source }
                }
                _ => KernelError::Net(source),
            }
        })?;
        Ok((tun, index))
    }

    /// Under active-backup, the link with the lowest priority carries everything, if there is one such.
    async fn choose_primary(&mut self, wanted: &[Wanted]) {
        if self.options.mode != BondMode::ActiveBackup {
            return;
        }
        let Some(first) = first_of(wanted) else { return };
        let Some(index) = self.slaves.get(&first).map(|slave| slave.index) else { return };
        if self.primary == Some(index) {
            return;
        }
        match self.netlink.set_primary(self.index, index).await {
            Ok(()) => self.primary = Some(index),
            Err(error) => log::warn!("{error}"),
        }
    }
}

/// The only link with the lowest priority.
fn first_of(wanted: &[Wanted]) -> Option<LinkId> {
    let lowest = wanted.iter().map(|link| link.priority).min()?;
    let mut first = wanted.iter().filter(|link| link.priority == lowest);
    match (first.next(), first.next()) {
        (Some(only), None) => Some(only.link),
        _ => None,
    }
}

/// The device of a link without a `tunnel` option: the bond's name and `suffix`, or, where that is too long, the link's
/// number, and as much of the bond's name as there is room for.
pub fn device_name(ifname: &str, suffix: &str, link: LinkId) -> String {
    let full = format!("{ifname}-{suffix}");
    if full.len() <= MAX_NAME_LEN {
        return full;
    }
    let number = format!("-{link}");
    let mut name = ifname.to_owned();
    while name.len() + number.len() > MAX_NAME_LEN && name.pop().is_some() {}
    name + &number
}

/// What [`KernelBond::make`] would make of these options, and the kind of its slaves, for a person.
pub fn describe(options: &config::KernelBond) -> (String, &'static str) {
    let monitor = match options.arp_interval {
        0 => format!("miimon {}", options.miimon),
        interval => format!("arp_interval {interval}"),
    };
    let kind = match options.tunnel_type {
        TunnelType::Tun => "TUN",
        TunnelType::Tap => "TAP",
    };
    (format!("{}, {monitor}", mode_name(options.mode)), kind)
}

fn mode_name(mode: BondMode) -> &'static str {
    match mode {
        BondMode::BalanceRr => "balance-rr",
        BondMode::BalanceXor => "balance-xor",
        BondMode::ActiveBackup => "active-backup",
        BondMode::Broadcast => "broadcast",
    }
}

fn settings(options: &config::KernelBond, address: [u8; 6]) -> BondSettings {
    let v4 = |target: &IpAddr| match target {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    };
    BondSettings {
        mode: match options.mode {
            BondMode::BalanceRr => Mode::BalanceRr,
            BondMode::BalanceXor => Mode::BalanceXor,
            BondMode::ActiveBackup => Mode::ActiveBackup,
            BondMode::Broadcast => Mode::Broadcast,
        },
        hash: match options.xmit_hash_policy {
            HashPolicy::Layer2 => bonding::HashPolicy::Layer2,
            HashPolicy::Layer23 => bonding::HashPolicy::Layer23,
            HashPolicy::Layer34 => bonding::HashPolicy::Layer34,
        },
        monitor: match options.arp_interval {
            0 => Monitor::Carrier(options.miimon),
            interval => Monitor::Arp(interval, options.arp_ip_targets.iter().filter_map(v4).collect()),
        },
        address: (options.tunnel_type == TunnelType::Tap).then_some(address),
    }
}

/// How often a name that is taken is looked at: the module may make a device of that name while it is loaded for ours,
/// and a device of a killed daemon may go while it is looked at.
const ATTEMPTS: usize = 3;

async fn create(netlink: &Netlink, name: &str, settings: &BondSettings) -> Result<u32, KernelError> {
    for _ in 0..ATTEMPTS {
        if let Some(found) = netlink.namesake(name).await? {
            let is_idle = found.is_bond && !found.up && netlink.slaves(found.index).await?.is_empty();
            if !(found.is_bond && found.is_ours || is_idle) {
                return Err(KernelError::Foreign(name.to_owned()));
            }
            log::info!("replacing the bonding device '{name}', which nobody uses");
            match netlink.delete_link(found.index).await {
                Err(error) if error.errno() != Some(libc::ENODEV) => return Err(error.into()),
                _ => {}
            }
        }
        match netlink.create_bond(name, settings).await {
            Ok(index) => return Ok(index),
            Err(error) => match error.errno() {
                Some(libc::EOPNOTSUPP) => return Err(KernelError::NoDriver),
                Some(libc::EEXIST) => {}
                _ => return Err(error.into()),
            },
        }
    }
    Err(KernelError::Foreign(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_have_names_that_fit() {
        assert_eq!(device_name("bond0", "adsl", 3), "bond0-adsl");
        assert_eq!(device_name("bond0", "neighbours", 3), "bond0-3");
        assert_eq!(device_name("bond0", "fibre_1st", 3), "bond0-fibre_1st");
        assert_eq!(device_name("fifteen-letters", "a", 12), "fifteen-lett-12");
        assert!(device_name("fifteen-letters", "a", LinkId::MAX).len() <= MAX_NAME_LEN);
    }

    #[test]
    fn the_first_is_the_only_one_with_the_lowest_priority() {
        let wanted = |priorities: &[u8]| -> Vec<Wanted> {
            let wanted =
                |(link, priority): (LinkId, &u8)| Wanted { link, device: "x".into(), priority: *priority };
            (0..).zip(priorities).map(wanted).collect()
        };
        assert_eq!(first_of(&wanted(&[2, 1, 2])), Some(1));
        assert_eq!(first_of(&wanted(&[1, 1, 2])), None);
        assert_eq!(first_of(&[]), None);
    }

    #[test]
    fn settings_follow_the_options() {
        let mut options = config::KernelBond {
            mode: BondMode::BalanceXor,
            xmit_hash_policy: HashPolicy::Layer23,
            tunnel_type: TunnelType::Tun,
            miimon: 70,
            arp_interval: 0,
            arp_ip_targets: Vec::new(),
        };
        assert_eq!(describe(&options), ("balance-xor, miimon 70".to_owned(), "TUN"));
        let found = settings(&options, [2; 6]);
        assert_eq!((found.mode, found.hash), (Mode::BalanceXor, bonding::HashPolicy::Layer23));
        assert_eq!((found.monitor, found.address), (Monitor::Carrier(70), None));
        options.tunnel_type = TunnelType::Tap;
        options.arp_interval = 200;
        options.arp_ip_targets = vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(describe(&options), ("balance-xor, arp_interval 200".to_owned(), "TAP"));
        let found = settings(&options, [2; 6]);
        assert_eq!(found.monitor, Monitor::Arp(200, vec!["10.0.0.1".parse().unwrap()]));
        assert_eq!(found.address, Some([2; 6]));
    }
}
