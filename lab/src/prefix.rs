//! An IP address with a prefix length.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IP address with a prefix length: an interface address (`192.168.1.1/24`) or a network (`10.0.0.0/8`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    /// The address; its host bits are kept.
    pub address: IpAddr,
    /// Network bits: 0 to 32, or 0 to 128.
    pub length: u8,
}

impl Prefix {
    /// `0.0.0.0/0`.
    pub const DEFAULT_V4: Prefix = Prefix { address: IpAddr::V4(Ipv4Addr::UNSPECIFIED), length: 0 };
    /// `::/0`.
    pub const DEFAULT_V6: Prefix = Prefix { address: IpAddr::V6(Ipv6Addr::UNSPECIFIED), length: 0 };

    /// Whether `address` lies in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.leading_zeros() >= u32::from(self.length)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing.leading_zeros() >= u32::from(self.length)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// What was not an address with a prefix length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidPrefix(String);

impl fmt::Display for InvalidPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not an address with a prefix length, such as 10.0.1.2/24 or fd00::1/64", self.0)
    }
}

impl std::error::Error for InvalidPrefix {}

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidPrefix(text.to_owned());
        let (address, length) = text.split_once('/').ok_or_else(invalid)?;
        let address: IpAddr = address.parse().map_err(|_| invalid())?;
        let length: u8 = length.parse().map_err(|_| invalid())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        if length > longest {
            return Err(invalid());
        }
        Ok(Prefix { address, length })
    }
}

/// A prefix written in the source.
///
/// # Panics
///
/// When `text` is none.
pub fn prefix(text: &str) -> Prefix {
    text.parse().unwrap_or_else(|error| panic!("{error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_contain_their_addresses() {
        let inside = |network, address: &str| prefix(network).contains(address.parse().unwrap());
        assert!(inside("10.0.1.2/24", "10.0.1.255"));
        assert!(!inside("10.0.1.2/24", "10.0.2.2"));
        assert!(inside("0.0.0.0/0", "1.2.3.4"));
        assert!(inside("10.0.1.2/32", "10.0.1.2"));
        assert!(inside("fd00:1::2/64", "fd00:1::ffff"));
        assert!(!inside("fd00:1::2/64", "fd00:2::2"));
        assert!(!inside("::/0", "1.2.3.4"));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["10.0.0.1", "10.0.0.1/33", "fd00::1/129", "x/24", "10.0.0.1/", ""] {
            assert!(text.parse::<Prefix>().is_err(), "{text}");
        }
        assert_eq!(prefix("fd00::1/64").to_string(), "fd00::1/64");
    }
}
