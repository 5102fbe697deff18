//! When handshake messages count as a flood, and how many of them one source may send during it.

use std::net::IpAddr;
use std::time::Duration;

use super::Time;
use crate::sorted::SortedMap;

/// Handshake messages a second above which a responder is under load.
///
/// A thousand peers rekey eight times a second; one core of a small router manages some hundred.
pub const DEFAULT_LOAD_THRESHOLD: u32 = 50;

const SECOND: Duration = Duration::from_secs(1);

/// Counts handshake messages, to tell whether there is a flood.
#[derive(Clone, Debug)]
pub struct HandshakeLoad {
    threshold: u32,
    since: Time,
    count: u32,
    heavy_until: Option<Time>,
}

impl HandshakeLoad {
    /// A counter that says "under load" from `threshold` messages a second on, and for one second more.
    pub const fn new(threshold: u32) -> Self {
        HandshakeLoad { threshold, since: Time::ZERO, count: 0, heavy_until: None }
    }

    /// Counts one message; returns whether the responder is under load.
    pub fn arrived(&mut self, now: Time) -> bool {
        if now.since(self.since) >= SECOND {
            self.since = now;
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        if self.count > self.threshold {
            self.heavy_until = Some(now + SECOND);
        }
        self.is_heavy(now)
    }

    /// Whether the responder is under load.
    pub fn is_heavy(&self, now: Time) -> bool {
        self.heavy_until.is_some_and(|until| now < until)
    }
}

/// Sources whose rate is remembered at the same time.
const MAX_SOURCES: usize = 1_024;

/// Handshakes a second of one source under load, and how many at once (as WireGuard for Linux).
const PER_SECOND: u64 = 20;
const BURST: u64 = 5;

const COST: u64 = 1_000_000_000 / PER_SECOND;
const CAPACITY: u64 = COST * BURST;

/// Limits the handshakes of each source under load: a token bucket for every IPv4 address and IPv6 /64 network.
#[derive(Clone, Debug, Default)]
pub struct SourceLimiter {
    buckets: SortedMap<Source, Bucket>,
    swept: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Source {
    V4([u8; 4]),
    V6([u8; 8]),
}

impl From<IpAddr> for Source {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Source::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, g, h, ..] = ip.octets();
                Source::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// Tokens are nanoseconds of waiting time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: u64,
    at: Time,
}

impl Bucket {
    fn tokens(&self, now: Time) -> u64 {
        let waited = now.as_nanos().saturating_sub(self.at.as_nanos());
        self.tokens.saturating_add(waited).min(CAPACITY)
    }
}

impl SourceLimiter {
    /// Whether one more handshake of `source` is allowed; counts it if so.
    ///
    /// With 1024 active sources, further ones are refused: they have all shown that they receive at their address,
    /// so this is a large attacker, and those who are in the table keep working.
    pub fn allow(&mut self, source: IpAddr, now: Time) -> bool {
        let source = Source::from(source);
        if self.buckets.len() >= MAX_SOURCES && !self.buckets.contains_key(&source) {
            if now.since(self.swept) >= SECOND {
                self.swept = now;
                self.buckets.retain(|_, bucket| bucket.tokens(now) < CAPACITY);
            }
            if self.buckets.len() >= MAX_SOURCES {
                return false;
            }
        }
        let bucket = self.buckets.get_or_insert_with(source, || Bucket { tokens: CAPACITY, at: now });
        let tokens = bucket.tokens(now);
        let allowed = tokens >= COST;
        *bucket = Bucket { tokens: if allowed { tokens - COST } else { tokens }, at: now };
        allowed
    }

    /// The number of sources remembered.
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// Whether no source is remembered.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn a_flood_is_noticed_and_forgotten() {
        let mut load = HandshakeLoad::new(50);
        let mut now = Time::from_millis(10_000);
        for _ in 0..50 {
            assert!(!load.arrived(now));
        }
        assert!(load.arrived(now));
        now += Duration::from_millis(999);
        assert!(load.is_heavy(now));
        now += Duration::from_millis(1);
        assert!(!load.is_heavy(now));
        assert!(!load.arrived(now));
        for _ in 0..1_000 {
            now += Duration::from_millis(20);
            assert!(!load.arrived(now), "50 a second are allowed");
        }
        assert!(HandshakeLoad::new(0).arrived(now));
    }

    #[test]
    fn a_source_gets_its_rate_and_no_more() {
        let mut limiter = SourceLimiter::default();
        let source = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
        let mut now = Time::from_millis(5);
        let burst = (0..100).filter(|_| limiter.allow(source, now)).count();
        assert_eq!(burst, 5);
        assert!(limiter.allow(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), now), "another source has its own");
        let mut passed = 0;
        for _ in 0..10_000 {
            now += Duration::from_millis(1);
            passed += usize::from(limiter.allow(source, now));
        }
        assert_eq!(passed, 200, "20 a second for 10 s");
        now += Duration::from_secs(3_600);
        assert_eq!((0..100).filter(|_| limiter.allow(source, now)).count(), 5, "patience earns no more");
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_and_a_mapped_address_as_ipv4() {
        let mut limiter = SourceLimiter::default();
        let now = Time::ZERO;
        let in_one_net = (0..100)
            .filter(|&i| limiter.allow(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 9, 9, 9, i).into(), now))
            .count();
        assert_eq!(in_one_net, 5);
        for _ in 0..5 {
            assert!(limiter.allow(Ipv4Addr::new(192, 0, 2, 1).into(), now));
        }
        assert!(!limiter.allow(Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().into(), now));
    }

    #[test]
    fn the_table_is_bounded_and_recovers() {
        let mut limiter = SourceLimiter::default();
        let mut now = Time::from_millis(2_000);
        for i in 0..5_000_u32 {
            limiter.allow(Ipv4Addr::from(i).into(), now);
        }
        assert_eq!(limiter.len(), 1_024);
        assert!(!limiter.allow(Ipv4Addr::from(5_000).into(), now));
        assert!(limiter.allow(Ipv4Addr::from(3).into(), now), "who is in the table goes on");
        now += Duration::from_millis(1_500);
        assert!(limiter.allow(Ipv4Addr::from(5_000).into(), now));
        assert_eq!(limiter.len(), 1);
    }
}
