//! The kernel's bonding driver: devices that spread packets over others, their slaves.
//!
//! Numbers are those of `linux/if_link.h` and `linux/if_bonding.h`. A device that this program has made carries an alias
//! ([`ALIAS`]), so that one that a killed process left behind is known from somebody else's.

use std::net::Ipv4Addr;

use super::links::{STRUCTURE, question, structure};
use super::message::{Attributes, Message, NLM_F_CREATE, NLM_F_EXCL, Request, text, u32_at};
use super::netlink::{Error, Netlink};

/// The alias (`ip link show`) of the bonding devices that we make.
pub const ALIAS: &str = "made by the program bonding";

/// The name of the driver in requests.
const KIND: &str = "bond";

// linux/if_link.h, within IFLA_LINKINFO.
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;

// linux/if_link.h, within IFLA_INFO_DATA of a bonding device.
const IFLA_BOND_MODE: u16 = 1;
const IFLA_BOND_MIIMON: u16 = 3;
const IFLA_BOND_ARP_INTERVAL: u16 = 7;
const IFLA_BOND_ARP_IP_TARGET: u16 = 8;
const IFLA_BOND_PRIMARY: u16 = 11;
const IFLA_BOND_XMIT_HASH_POLICY: u16 = 14;

/// Most addresses that the driver probes by ARP (`BOND_MAX_ARP_TARGETS`).
pub const MAX_ARP_TARGETS: usize = 16;

/// How packets are spread. The values are those of `linux/if_bonding.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// In turn.
    BalanceRr = 0,
    /// One slave at a time.
    ActiveBackup = 1,
    /// By a hash of the packet's addresses.
    BalanceXor = 2,
    /// Everything on every slave.
    Broadcast = 3,
}

/// What [`Mode::BalanceXor`] hashes. The values are those of `linux/if_bonding.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum HashPolicy {
    /// Hardware addresses.
    Layer2 = 0,
    /// IP addresses and ports.
    Layer34 = 1,
    /// Hardware and IP addresses.
    Layer23 = 2,
}

/// How the driver finds out that a slave is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Monitor {
    /// It looks at the slave's carrier, every so many milliseconds; 0 is never.
    Carrier(u32),
    /// It asks for the hardware addresses of these hosts (ARP), every so many milliseconds.
    Arp(u32, Vec<Ipv4Addr>),
}

/// Settings of a bonding device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BondSettings {
    /// How packets are spread.
    pub mode: Mode,
    /// What [`Mode::BalanceXor`] hashes.
    pub hash: HashPolicy,
    /// How dead slaves are found.
    pub monitor: Monitor,
    /// The hardware address; without one the driver takes that of the first slave.
    pub address: Option<[u8; 6]>,
}

/// A device of some name, as far as it matters to who wants to make a bonding device of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namesake {
    /// Index.
    pub index: u32,
    /// Whether it is a bonding device.
    pub is_bond: bool,
    /// Whether it was made by this program, perhaps by a process that was killed.
    pub is_ours: bool,
    /// Whether it is set up.
    pub up: bool,
}

impl Namesake {
    fn parse(message: &Message<'_>) -> Option<Namesake> {
        if message.kind != libc::RTM_NEWLINK {
            return None;
        }
        let mut found = Namesake {
            index: u32_at(message.body, 4)?,
            is_bond: false,
            is_ours: false,
            up: u32_at(message.body, 8)? & libc::IFF_UP as u32 != 0,
        };
        for (kind, value) in message.attributes(STRUCTURE) {
            match kind {
                libc::IFLA_IFALIAS => found.is_ours = text(value) == ALIAS,
                libc::IFLA_LINKINFO => {
                    let mut info = Attributes::nested(value);
                    found.is_bond = info.any(|(kind, value)| kind == IFLA_INFO_KIND && text(value) == KIND);
                }
                _ => {}
            }
        }
        Some(found)
    }
}

fn creation(name: &str, settings: &BondSettings) -> Request {
    let mut request = Request::new(libc::RTM_NEWLINK, &structure(0, 0, 0)).with_text(libc::IFLA_IFNAME, name);
    if let Some(address) = &settings.address {
        request = request.with(libc::IFLA_ADDRESS, address);
    }
    request.with_nested(libc::IFLA_LINKINFO, |info| {
        info.with_text(IFLA_INFO_KIND, KIND).with_nested(IFLA_INFO_DATA, |mut data| {
            // The driver refuses some of the others without knowing the mode.
            data = data.with(IFLA_BOND_MODE, &[settings.mode as u8]);
            if settings.mode == Mode::BalanceXor {
                data = data.with(IFLA_BOND_XMIT_HASH_POLICY, &[settings.hash as u8]);
            }
            match &settings.monitor {
                Monitor::Carrier(interval) => data.with_u32(IFLA_BOND_MIIMON, *interval),
                Monitor::Arp(interval, targets) => data
                    .with_u32(IFLA_BOND_ARP_INTERVAL, *interval)
                    .with_nested(IFLA_BOND_ARP_IP_TARGET, |list| {
                        let numbered = (0..).zip(targets.iter().take(MAX_ARP_TARGETS));
                        numbered.fold(list, |list, (n, target)| list.with(n, &target.octets()))
                    }),
            }
        })
    })
}

impl Netlink {
    /// The device called `name`, if there is one.
    pub async fn namesake(&self, name: &str) -> Result<Option<Namesake>, Error> {
        let request = question(0).with_text(libc::IFLA_IFNAME, name);
        self.get(request, &format!("look up interface '{name}'"), Namesake::parse).await
    }

    /// Indices of the devices that have the device `master` for their master.
    pub async fn slaves(&self, master: u32) -> Result<Vec<u32>, Error> {
        self.dump(question(0), "list the network interfaces", |message| {
            let mut attributes = message.attributes(STRUCTURE);
            let is_slave = message.kind == libc::RTM_NEWLINK
                && attributes
                    .any(|(kind, value)| kind == libc::IFLA_MASTER && u32_at(value, 0) == Some(master));
            is_slave.then(|| u32_at(message.body, 4)).flatten()
        })
        .await
    }

    /// Makes a bonding device, which is down and has no slaves, and gives its index. `EOPNOTSUPP`: the kernel has no
    /// bonding driver. The kernel loads the module where it can, which may make a device `bond0` of its own.
    pub async fn create_bond(&self, name: &str, settings: &BondSettings) -> Result<u32, Error> {
        let action = format!("make the bonding device '{name}'");
        self.acknowledged(creation(name, settings), NLM_F_CREATE | NLM_F_EXCL, &action).await?;
        let index = self.link_by_name(name).await?.index;
        self.set_link_alias(index, ALIAS).await?;
        Ok(index)
    }

    /// Gives `slave`, which must be down, to `master`; the driver sets it up. With `master` 0 takes it away.
    pub async fn set_master(&self, slave: u32, master: u32) -> Result<(), Error> {
        let request = Request::new(libc::RTM_SETLINK, &structure(slave, 0, 0));
        let action = format!("give interface #{slave} to the bonding device #{master}");
        self.acknowledged(request.with_u32(libc::IFLA_MASTER, master), 0, &action).await
    }

    /// Chooses the slave that carries everything while it lives, under [`Mode::ActiveBackup`].
    pub async fn set_primary(&self, bond: u32, slave: u32) -> Result<(), Error> {
        let request = Request::new(libc::RTM_NEWLINK, &structure(bond, 0, 0)).with_nested(
            libc::IFLA_LINKINFO,
            |info| {
                info.with_text(IFLA_INFO_KIND, KIND)
                    .with_nested(IFLA_INFO_DATA, |data| data.with_u32(IFLA_BOND_PRIMARY, slave))
            },
        );
        let action = format!("make interface #{slave} the first of the bonding device #{bond}");
        self.acknowledged(request, 0, &action).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(settings: &BondSettings) -> Vec<(u16, Vec<u8>)> {
        let mut request = creation("bond7", settings);
        let bytes = request.finish(0, 1).to_vec();
        let (message, _) = Message::split(&bytes).unwrap();
        let attributes: Vec<_> = message.attributes(STRUCTURE).collect();
        let value = |wanted| attributes.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
        assert_eq!(value(libc::IFLA_IFNAME), Some(b"bond7\0".as_slice()));
        assert_eq!(value(libc::IFLA_ADDRESS), settings.address.as_ref().map(|a| a.as_slice()));
        let info: Vec<_> = Attributes::nested(value(libc::IFLA_LINKINFO).unwrap()).collect();
        assert_eq!(info[0], (IFLA_INFO_KIND, b"bond\0".as_slice()));
        assert_eq!(info[1].0, IFLA_INFO_DATA);
        Attributes::nested(info[1].1).map(|(kind, value)| (kind, value.to_vec())).collect()
    }

    #[test]
    fn requests_hold_what_the_mode_wants() {
        let mut settings = BondSettings {
            mode: Mode::BalanceXor,
            hash: HashPolicy::Layer34,
            monitor: Monitor::Carrier(100),
            address: None,
        };
        let carrier = (IFLA_BOND_MIIMON, 100_u32.to_ne_bytes().to_vec());
        assert_eq!(
            data(&settings),
            [(IFLA_BOND_MODE, vec![2]), (IFLA_BOND_XMIT_HASH_POLICY, vec![1]), carrier.clone()]
        );
        settings.mode = Mode::BalanceRr;
        settings.address = Some([2, 0, 0, 1, 2, 3]);
        assert_eq!(data(&settings), [(IFLA_BOND_MODE, vec![0]), carrier]);
    }

    #[test]
    fn arp_targets_are_a_numbered_list() {
        let targets = (1..30).map(|n| Ipv4Addr::new(10, 0, 0, n)).collect();
        let settings = BondSettings {
            mode: Mode::ActiveBackup,
            hash: HashPolicy::Layer2,
            monitor: Monitor::Arp(250, targets),
            address: None,
        };
        let data = data(&settings);
        assert_eq!(data[1], (IFLA_BOND_ARP_INTERVAL, 250_u32.to_ne_bytes().to_vec()));
        assert_eq!(data[2].0, IFLA_BOND_ARP_IP_TARGET);
        let list: Vec<_> = Attributes::nested(&data[2].1).collect();
        assert_eq!(list.len(), MAX_ARP_TARGETS);
        assert_eq!(list[1], (1, [10, 0, 0, 2].as_slice()));
    }

    #[test]
    fn others_are_told_from_ours() {
        let parse = |alias: &str, kind: &str| {
            let mut request = Request::new(libc::RTM_NEWLINK, &structure(9, libc::IFF_UP as u32, 0))
                .with_text(libc::IFLA_IFALIAS, alias)
                .with_nested(libc::IFLA_LINKINFO, |info| info.with_text(IFLA_INFO_KIND, kind));
            let bytes = request.finish(0, 1).to_vec();
            Namesake::parse(&Message::split(&bytes).unwrap().0).unwrap()
        };
        let ours = Namesake { index: 9, is_bond: true, is_ours: true, up: true };
        assert_eq!(parse(ALIAS, "bond"), ours);
        assert_eq!(parse("", "bond"), Namesake { is_ours: false, ..ours });
        assert_eq!(parse("x", "bridge"), Namesake { is_ours: false, is_bond: false, ..ours });
    }
}
