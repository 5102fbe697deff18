//! Traffic between two namespaces, and what became of it: [TCP](tcp) bulk transfers, [UDP](udp) streams,
//! [echoes](echo) over UDP and ICMP. IPv4 and IPv6. Every test ends by itself, whatever the network does.

mod arrival;
pub mod echo;
mod gap;
pub mod tcp;
pub mod udp;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use serde::Serialize;

pub use echo::{Echo, EchoReport};
pub use gap::Gap;
pub use tcp::{Tcp, TcpReport, TcpRun};
pub use udp::{Udp, UdpReport, UdpRun};

use gap::GapFinder;

/// A direction as the client sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Way {
    /// From the server to the client.
    #[default]
    Download,
    /// From the client to the server.
    Upload,
}

/// How long something took, over many packets. All zero when there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// The smallest.
    pub min: Duration,
    /// Half are smaller.
    pub median: Duration,
    /// 95 % are smaller.
    pub p95: Duration,
    /// 99 % are smaller.
    pub p99: Duration,
    /// The largest.
    pub max: Duration,
}

impl Percentiles {
    /// Of these durations, in any order.
    pub fn of(durations: impl IntoIterator<Item = Duration>) -> Self {
        let mut sorted: Vec<Duration> = durations.into_iter().collect();
        sorted.sort_unstable();
        // Nearest rank: the smallest value that is not below the given share of all.
        let rank = |percent: usize| {
            let index = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted.get(index).copied().unwrap_or_default()
        };
        Percentiles { min: rank(0), median: rank(50), p95: rank(95), p99: rank(99), max: rank(100) }
    }
}

/// How often a blocked thread looks whether its test is over.
const TICK: Duration = Duration::from_millis(20);

/// "Any address", of the family of `like`, with any port.
fn any(like: IpAddr) -> SocketAddr {
    let address = match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(address, 0)
}

/// Whether a call on a socket with a timeout has only timed out.
fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let of =
            |range: std::ops::RangeInclusive<u64>| Percentiles::of(range.rev().map(Duration::from_millis));
        let ms = Duration::from_millis;
        let hundred = of(1..=100);
        assert_eq!((hundred.min, hundred.median, hundred.p95), (ms(1), ms(50), ms(95)));
        assert_eq!((hundred.p99, hundred.max), (ms(99), ms(100)));
        let three = of(1..=3);
        assert_eq!((three.min, three.median, three.p95, three.max), (ms(1), ms(2), ms(3), ms(3)));
        assert_eq!(Percentiles::of([]), Percentiles::default());
    }
}
