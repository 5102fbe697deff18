//! Linux network configuration: links, addresses, routes and rules, over netlink.
//!
//! * [`Netlink`] is the connection to the kernel; [`links`], [`addresses`], [`routes`] and [`rules`] are what can be
//!   asked of it and told to it.
//! * [`state`] holds what shall be so ([`state::Desired`]) against what is so, and makes the difference; what it sets
//!   carries our own marks, and nothing else is ever touched.
//! * [`source`] makes the routes and rules by which each link uses its own gateway.
//! * [`bonding`] makes and fills a device of the kernel's bonding driver, for kernel mode.
//! * [`watch`] tells when somebody else changes something, [`snapshot`] what there is.
//! * [`netifd`] finds device, address and gateway of a link, [`sysctl`] sets a few switches of a device.
//! * [`nftables`] keeps the server's table of translations.
//! * [`resolver`] asks for the addresses of a name through one link, in the words of [`dns`]; [`nameservers`] knows whom else.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Serialize, Serializer};

pub mod addresses;
pub mod bonding;
pub mod dns;
pub mod links;
mod message;
pub mod nameservers;
pub mod netifd;
mod netlink;
pub mod nftables;
pub mod resolver;
pub mod routes;
pub mod rules;
pub mod snapshot;
mod socket;
pub mod source;
pub mod state;
pub mod sysctl;
pub mod watch;

#[cfg(test)]
pub(crate) mod namespace;

pub use addresses::Address;
pub use links::Link;
pub use netlink::{Error, Netlink};
pub use routes::{Route, Target};
pub use rules::{Mark, Ports, Rule, Transport};
pub use snapshot::Interfaces;
pub use state::{Desired, Ownership, Reconciler};
pub use watch::{Event, Watch};

/// IP version of an address, a route or a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, in the order in which they are worked on.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }

    /// Length of an address in bits: 32 or 128.
    pub fn bits(self) -> u8 {
        match self {
            Family::V4 => 32,
            Family::V6 => 128,
        }
    }

    /// The unspecified address, `0.0.0.0` or `::`.
    pub fn unspecified(self) -> IpAddr {
        match self {
            Family::V4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Family::V6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        })
    }
}

/// A network: an address whose bits behind the prefix are zero, and the prefix's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

/// A text that is no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a network: ADDRESS/LENGTH is wanted, with LENGTH up to 32 (IPv4) or 128 (IPv6)")]
pub struct PrefixError(String);

impl Prefix {
    /// The network of `address`: bits behind the first `len` are cleared; a `len` above the family's is taken as that.
    pub fn new(address: IpAddr, len: u8) -> Self {
        let len = len.min(Family::of(address).bits());
        let address = match address {
            IpAddr::V4(a) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from(u32::from(a) & mask))
            }
            IpAddr::V6(a) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from(u128::from(a) & mask))
            }
        };
        Prefix { address, len }
    }

    /// One address.
    pub fn host(address: IpAddr) -> Self {
        Prefix { address, len: Family::of(address).bits() }
    }

    /// Everything: `0.0.0.0/0` or `::/0`.
    pub fn default_route(family: Family) -> Self {
        Prefix { address: family.unspecified(), len: 0 }
    }

    /// First address of the network.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Length in bits.
    pub fn length(&self) -> u8 {
        self.len
    }

    /// Whether this is everything (length 0).
    pub fn is_default(&self) -> bool {
        self.len == 0
    }

    /// Whether this is one address.
    pub fn is_host(&self) -> bool {
        self.len == self.family().bits()
    }

    /// IP version.
    pub fn family(&self) -> Family {
        Family::of(self.address)
    }

    /// Whether `address` is in the network.
    pub fn contains(&self, address: IpAddr) -> bool {
        Family::of(address) == self.family() && Prefix::new(address, self.len) == *self
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl Serialize for Prefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    /// `ADDRESS/LENGTH`, or `ADDRESS` alone for one address.
    fn from_str(text: &str) -> Result<Self, PrefixError> {
        let error = || PrefixError(text.to_owned());
        let (address, len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| error())?;
        let bits = Family::of(address).bits();
        let len = match len {
            Some(len) => len.parse().ok().filter(|len| *len <= bits).ok_or_else(error)?,
            None => bits,
        };
        Ok(Prefix::new(address, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let p: Prefix = "192.168.7.9/16".parse().unwrap();
        assert_eq!(p.to_string(), "192.168.0.0/16");
        assert!(p.contains("192.168.255.255".parse().unwrap()));
        assert!(!p.contains("192.169.0.0".parse().unwrap()));
        assert!(!p.contains("::1".parse().unwrap()));
        let all: Prefix = "1.2.3.4/0".parse().unwrap();
        assert_eq!(all, Prefix::default_route(Family::V4));
        let p: Prefix = "2001:db8:0:ff::1/48".parse().unwrap();
        assert_eq!(p.to_string(), "2001:db8::/48");
        assert!("::/0".parse::<Prefix>().unwrap().contains("2001:db8::1".parse().unwrap()));
        assert!("10.0.0.1".parse::<Prefix>().unwrap().is_host());
        for bad in ["", "/", "1.2.3.4/33", "1.2.3/8", "::/129", "1.2.3.4/-1", "1.2.3.4/", "1.2.3.4/8/8"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }
}
