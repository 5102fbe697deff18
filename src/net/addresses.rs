//! IP addresses of interfaces.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use super::Family;
use super::message::{Message, NLM_F_CREATE, NLM_F_EXCL, Request, family, family_number, ip, u32_at};
use super::netlink::{Error, Netlink};

/// Length of `struct ifaddrmsg`: family, prefix length, flags, scope, index (4).
const STRUCTURE: usize = 8;

/// `IFA_PROTO` (linux/if_addr.h): who set it.
const IFA_PROTO: u16 = 11;

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Address {
    /// Index of the interface.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of the network's prefix, in bits.
    pub prefix_len: u8,
    /// Address of the other end of a point-to-point connection; the prefix is then the peer's network.
    pub peer: Option<IpAddr>,
}

impl Address {
    /// IP version.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }

    /// The network that is reached directly.
    pub fn network(&self) -> super::Prefix {
        super::Prefix::new(self.peer.unwrap_or(self.address), self.prefix_len)
    }

    fn request(&self, kind: u16, protocol: u8) -> Result<Request, Error> {
        let peer = self.peer.unwrap_or(self.address);
        if Family::of(peer) != self.family() {
            return Err(Error::MixedFamilies(format!("address {self}")));
        }
        let flags = match self.family() {
            Family::V4 => 0,
            // Nobody can hold the same address at the other end of a tunnel, and with duplicate detection the address
            // could not be used for a second.
            Family::V6 => libc::IFA_F_NODAD,
        };
        let mut structure =
            vec![family_number(self.family()), self.prefix_len, flags as u8, libc::RT_SCOPE_UNIVERSE];
        structure.extend(self.index.to_ne_bytes());
        Ok(Request::new(kind, &structure)
            .with_ip(libc::IFA_LOCAL, self.address)
            .with_ip(libc::IFA_ADDRESS, peer)
            .with(IFA_PROTO, &[protocol])
            .with_u32(libc::IFA_FLAGS, flags))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.peer {
            Some(peer) => write!(f, "{} peer {peer}/{} dev #{}", self.address, self.prefix_len, self.index),
            None => write!(f, "{}/{} dev #{}", self.address, self.prefix_len, self.index),
        }
    }
}

/// An address as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AddressInfo {
    /// The address.
    #[serde(flatten)]
    pub address: Address,
    /// Whether one can bind to it: duplicate detection (IPv6) is over and found none.
    pub usable: bool,
    /// Whether it is valid in the whole network, and not on the link (`fe80::`) or the host only.
    pub global: bool,
    /// Past its preferred lifetime (IPv6): new connections should take another one.
    pub deprecated: bool,
    /// A second address of a network that the interface has an address in already (IPv4).
    pub secondary: bool,
    /// Who set it (`IFA_PROTO`, Linux 5.18); 0 when nobody said.
    pub protocol: u8,
}

impl AddressInfo {
    pub(super) fn parse(message: &Message<'_>) -> Option<AddressInfo> {
        let &[number, prefix_len, flags, scope, ..] = message.body else { return None };
        if message.kind != libc::RTM_NEWADDR {
            return None;
        }
        let family = family(number)?;
        let mut local = None;
        let mut address = None;
        let mut protocol = 0;
        let mut flags = u32::from(flags);
        for (kind, value) in message.attributes(STRUCTURE) {
            match kind {
                libc::IFA_LOCAL => local = ip(family, value),
                libc::IFA_ADDRESS => address = ip(family, value),
                libc::IFA_FLAGS => flags = u32_at(value, 0)?,
                IFA_PROTO => protocol = *value.first()?,
                _ => {}
            }
        }
        // With a peer, IFA_LOCAL is ours and IFA_ADDRESS the peer's; IPv6 leaves IFA_LOCAL out where there is none.
        let ours = local.or(address)?;
        let peer = address.filter(|peer| *peer != ours);
        let has = |flag: u32| flags & flag != 0;
        Some(AddressInfo {
            address: Address { index: u32_at(message.body, 4)?, address: ours, prefix_len, peer },
            usable: !has(libc::IFA_F_DADFAILED)
                && (!has(libc::IFA_F_TENTATIVE) || has(libc::IFA_F_OPTIMISTIC)),
            global: scope < libc::RT_SCOPE_LINK,
            deprecated: has(libc::IFA_F_DEPRECATED),
            secondary: family == Family::V4 && has(libc::IFA_F_SECONDARY),
            protocol,
        })
    }
}

impl Netlink {
    /// All addresses of all interfaces.
    pub async fn addresses(&self) -> Result<Vec<AddressInfo>, Error> {
        let request = Request::new(libc::RTM_GETADDR, &[0; STRUCTURE]);
        self.dump(request, "list the addresses", AddressInfo::parse).await
    }

    /// Sets an address, marked as set by `protocol`. IPv6 addresses do not wait for duplicate detection; the kernel
    /// receives for them a moment later.
    pub async fn add_address(&self, address: &Address, protocol: u8) -> Result<(), Error> {
        let request = address.request(libc::RTM_NEWADDR, protocol)?;
        self.acknowledged(request, NLM_F_CREATE | NLM_F_EXCL, &format!("set address {address}")).await
    }

    /// Removes an address.
    pub async fn remove_address(&self, address: &Address) -> Result<(), Error> {
        let request = address.request(libc::RTM_DELADDR, 0)?;
        self.acknowledged(request, 0, &format!("remove address {address}")).await
    }
}
