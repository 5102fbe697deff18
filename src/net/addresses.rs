//! IP addresses of interfaces.

use std::fmt;
use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressProtocol, AddressScope,
};
use serde::Serialize;

use super::Family;
use super::netlink::{Error, Netlink, family_of};

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

    fn message(&self, protocol: u8) -> Result<AddressMessage, Error> {
        let peer = self.peer.unwrap_or(self.address);
        if Family::of(peer) != self.family() {
            return Err(Error::MixedFamilies(format!("address {self}")));
        }
        let mut message = AddressMessage::default();
        message.header.family = self.family().into();
        message.header.prefix_len = self.prefix_len;
        message.header.index = self.index;
        message.header.scope = AddressScope::Universe;
        message.attributes.push(AddressAttribute::Local(self.address));
        message.attributes.push(AddressAttribute::Address(peer));
        message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(protocol)));
        if self.family() == Family::V6 {
            // Nobody can hold the same address at the other end of a tunnel, and with duplicate detection the address
            // could not be used for a second.
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        Ok(message)
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
    pub(super) fn parse(message: &AddressMessage) -> Option<AddressInfo> {
        let family = family_of(message.header.family)?;
        let mut local = None;
        let mut address = None;
        let mut protocol = 0;
        let mut flags = u32::from(message.header.flags.bits());
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(value) => local = Some(*value),
                AddressAttribute::Address(value) => address = Some(*value),
                AddressAttribute::Flags(value) => flags = value.bits(),
                AddressAttribute::Protocol(value) => protocol = u8::from(*value),
                _ => {}
            }
        }
        // With a peer, IFA_LOCAL is ours and IFA_ADDRESS the peer's; IPv6 leaves IFA_LOCAL out where there is none.
        let ours = local.or(address)?;
        let peer = address.filter(|peer| *peer != ours);
        if Family::of(ours) != family {
            return None;
        }
        let flags = AddressFlags::from_bits_retain(flags);
        Some(AddressInfo {
            address: Address {
                index: message.header.index,
                address: ours,
                prefix_len: message.header.prefix_len,
                peer,
            },
            usable: !flags.intersects(AddressFlags::Dadfailed)
                && (!flags.intersects(AddressFlags::Tentative) || flags.intersects(AddressFlags::Optimistic)),
            global: u8::from(message.header.scope) < u8::from(AddressScope::Link),
            deprecated: flags.intersects(AddressFlags::Deprecated),
            secondary: family == Family::V4 && flags.intersects(AddressFlags::Secondary),
            protocol,
        })
    }
}

impl Netlink {
    /// All addresses of all interfaces.
    pub async fn addresses(&self) -> Result<Vec<AddressInfo>, Error> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        self.dump(request, "list the addresses", |message| match message {
            RouteNetlinkMessage::NewAddress(address) => AddressInfo::parse(&address),
            _ => None,
        })
        .await
    }

    /// Sets an address, marked as set by `protocol`. IPv6 addresses do not wait for duplicate detection; the kernel
    /// receives for them a moment later.
    pub async fn add_address(&self, address: &Address, protocol: u8) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewAddress(address.message(protocol)?);
        self.acknowledged(message, NLM_F_CREATE | NLM_F_EXCL, || format!("set address {address}")).await
    }

    /// Removes an address.
    pub async fn remove_address(&self, address: &Address) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelAddress(address.message(0)?);
        self.acknowledged(message, 0, || format!("remove address {address}")).await
    }
}
