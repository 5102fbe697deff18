//! The server's own nftables table: address translation for what peers send, and ports that lead to their networks.
//!
//! ```text
//! table inet bonding_bond0 {
//!     chain prerouting  { type nat hook prerouting priority -100;    # redirected ports: dnat to a host behind a peer
//!     chain postrouting { type nat hook postrouting priority 100;    # private addresses of peers: masquerade
//!     chain forward     { type filter hook forward priority 0;       # nobody else opens connections to those
//! }
//! ```
//!
//! The kernel is spoken to directly (nf_tables over netlink, `linux/netfilter/nf_tables.h`), so that no `nft` need be
//! installed. A table is written in one transaction: others see the old one or the new one. Other tables are not
//! touched, and connections that are under way keep their translation. Families share one table (`inet`), whose `nat`
//! chains need Linux 5.2.

mod expression;
mod ruleset;
mod transaction;

use std::net::IpAddr;
use std::ops::RangeInclusive;

pub use transaction::{Announcements, exists, remove, set};

use super::Prefix;

/// What the table is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Firewall {
    /// The table's name.
    pub table: String,
    /// The bond's device.
    pub device: String,
    /// Networks of peers that the internet does not know: what comes from them leaves with this machine's address, and
    /// from outside nobody opens connections to them.
    pub translated: Vec<Prefix>,
    /// Networks for which `translated` is not so.
    pub trusted: Vec<Prefix>,
    /// Ports that lead to a host behind a peer.
    pub redirects: Vec<Redirect>,
}

/// Ports of this machine that lead to a host behind a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// The IP protocol: TCP (6) or UDP (17).
    pub protocol: u8,
    /// The ports here.
    pub ports: RangeInclusive<u16>,
    /// The address here; any of this machine if `None`.
    pub address: Option<IpAddr>,
    /// Who may use it; everybody if empty.
    pub from: Vec<Prefix>,
    /// The host.
    pub to: IpAddr,
    /// The first port there; the same as here if `None`.
    pub to_port: Option<u16>,
}

impl Firewall {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.translated.is_empty() && self.redirects.is_empty()
    }
}

#[cfg(test)]
mod tests;
