//! Which addresses inside the bond are free for a new peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::config::value::IpNet;

/// Addresses of a pool that are looked at.
const MAX_TRIES: u32 = 1 << 16;

/// The first free address of the network that the server's address `own` is in: not the server's, not in `taken`, not
/// the network's own nor its broadcast address. It has the network's prefix length.
pub(super) fn free_address(own: IpNet, taken: &[IpNet]) -> Option<IpNet> {
    (1..MAX_TRIES)
        .map_while(|number| numbered(own, number))
        .find(|address| *address != own.address && !taken.iter().any(|net| net.contains(*address)))
        .map(|address| IpNet { address, prefix: own.prefix })
}

/// The host with this number in the network; `None` behind its end.
fn numbered(net: IpNet, number: u32) -> Option<IpAddr> {
    match net.network() {
        IpAddr::V4(first) => {
            let hosts = 1_u64 << (32 - u32::from(net.prefix.min(32)));
            // The last address is the broadcast address; networks of two have none (RFC 3021).
            let end = if hosts > 2 { hosts - 1 } else { hosts };
            (u64::from(number) < end).then(|| Ipv4Addr::from_bits(first.to_bits() | number).into())
        }
        IpAddr::V6(first) => {
            let bits = 128 - u32::from(net.prefix.min(128));
            let inside = bits >= 32 || u64::from(number) < 1 << bits;
            inside.then(|| Ipv6Addr::from_bits(first.to_bits() | u128::from(number)).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        let (address, prefix) = crate::config::value::network(text).unwrap();
        prefix.map_or(IpNet::host(address), |prefix| IpNet { address, prefix })
    }

    fn free(own: &str, taken: &[&str]) -> Option<String> {
        let taken: Vec<IpNet> = taken.iter().map(|text| net(text)).collect();
        free_address(net(own), &taken).map(|net| net.to_string())
    }

    #[test]
    fn the_first_that_nobody_has() {
        assert_eq!(free("10.77.0.1/24", &[]).as_deref(), Some("10.77.0.2/24"));
        assert_eq!(free("10.77.0.1/24", &["10.77.0.2", "10.77.0.4"]).as_deref(), Some("10.77.0.3/24"));
        assert_eq!(free("10.77.0.254/24", &["10.77.0.0/25"]).as_deref(), Some("10.77.0.128/24"));
        assert_eq!(free("fd77::1/64", &["fd77::2", "fd77::3"]).as_deref(), Some("fd77::4/64"));
        assert_eq!(free("fd77::1/127", &[]), None);
    }

    #[test]
    fn a_pool_has_an_end() {
        assert_eq!(free("10.77.0.1/30", &[]).as_deref(), Some("10.77.0.2/30"));
        assert_eq!(free("10.77.0.1/30", &["10.77.0.2"]), None, "3 is the broadcast address");
        assert_eq!(free("10.77.0.0/31", &[]).as_deref(), Some("10.77.0.1/31"));
        assert_eq!(free("10.77.0.1/32", &[]), None);
        assert_eq!(free("10.0.0.1/8", &["10.0.0.0/9"]), None, "not searched for ever");
        assert_eq!(free("fd77::1/128", &[]), None);
    }
}
