//! How values are written: booleans, rates, durations, sizes, addresses … as people type them.
//!
//! Each function takes the text of one value and gives `None` when it is not one; what is allowed is said by the
//! option's [`Kind`](super::schema::Kind). Numbers are read without floating point.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::time::Duration;

/// A rate, in bits per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub u64);

impl Rate {
    /// Bytes per second, rounded down.
    pub const fn bytes_per_second(self) -> u64 {
        self.0 / 8
    }
}

impl fmt::Display for Rate {
    /// As it is written in the configuration: `10mbit`, `1500kbit`, `100bit`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (factor, unit) in [(1_000_000_000, "gbit"), (1_000_000, "mbit"), (1_000, "kbit")] {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{}{unit}", self.0 / factor);
            }
        }
        write!(f, "{}bit", self.0)
    }
}

/// An IP address and the length of its network's prefix, as in `10.0.0.2/24`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpNet {
    /// The address, host bits included.
    pub address: IpAddr,
    /// The length of the network prefix: 0-32 (IPv4) or 0-128 (IPv6).
    pub prefix: u8,
}

impl IpNet {
    /// `address` alone: /32 or /128.
    pub const fn host(address: IpAddr) -> Self {
        IpNet { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// The network's address: host bits cleared.
    pub fn network(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128))).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
            }
        }
    }

    /// The network, without the host bits.
    pub fn trunc(&self) -> IpNet {
        IpNet { address: self.network(), prefix: self.prefix }
    }

    /// Whether `address` is in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && IpNet { address, ..*self }.network() == self.network()
    }

    /// Whether the two networks share an address.
    pub fn overlaps(&self, other: &IpNet) -> bool {
        if self.prefix <= other.prefix { self.contains(other.address) } else { other.contains(self.address) }
    }
}

impl fmt::Display for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for IpNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A server: an address, or a name to be resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A host name.
    Name(String),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Address(address) => write!(f, "{address}"),
            Host::Name(name) => f.write_str(name),
        }
    }
}

/// A routing table: its number, or its name in `/etc/iproute2/rt_tables`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// The table's number.
    Number(u32),
    /// The table's name.
    Name(String),
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Table::Number(number) => write!(f, "{number}"),
            Table::Name(name) => f.write_str(name),
        }
    }
}

/// A firewall mark, and which of its bits count, as in `0x100/0xff00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// The mark.
    pub value: u32,
    /// The bits that are compared and set.
    pub mask: u32,
}

impl Mark {
    /// Whether one packet's mark could match both.
    pub const fn overlaps(self, other: Mark) -> bool {
        let common = self.mask & other.mask;
        self.value & common == other.value & common
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.value)?;
        if self.mask != u32::MAX {
            write!(f, "/{:#x}", self.mask)?;
        }
        Ok(())
    }
}

/// A boolean as UCI knows it.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "on" | "true" | "yes" | "enabled" => Some(true),
        "0" | "off" | "false" | "no" | "disabled" => Some(false),
        _ => None,
    }
}

/// A whole number: decimal, or hexadecimal after `0x`.
pub fn integer(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => digits(text)?.parse().ok(),
    }
}

/// A rate in bits per second. A plain number is in kbit/s, as in OpenWrt's SQM; `bit`, `kbit` or `k`, `mbit` or `m`,
/// `gbit` or `g` say otherwise (decimal multiples, any case, `/s` may follow).
pub fn rate(text: &str) -> Option<Rate> {
    let text = text.to_ascii_lowercase();
    let text = text.strip_suffix("/s").unwrap_or(&text);
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "" | "k" | "kbit" => 1_000,
        "bit" => 1,
        "m" | "mbit" => 1_000_000,
        "g" | "gbit" => 1_000_000_000,
        _ => return None,
    };
    decimal(number, factor).map(Rate)
}

/// A duration. A plain number is in seconds; `us`, `ms`, `s`, `m`, `h`, `d` say otherwise.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text);
    let factor = match unit {
        "us" => 1,
        "ms" => 1_000,
        "" | "s" => 1_000_000,
        "m" | "min" => 60 * 1_000_000,
        "h" => 3_600 * 1_000_000,
        "d" => 86_400 * 1_000_000,
        _ => return None,
    };
    decimal(number, factor).map(Duration::from_micros)
}

/// A number of bytes. `K`, `M`, `G`, `T` are powers of 1000, as providers count; `Ki`, `Mi`, `Gi`, `Ti` of 1024; a `B`
/// may follow; any case.
pub fn size(text: &str) -> Option<u64> {
    let text = text.to_ascii_lowercase();
    let (number, unit) = split_unit(&text);
    let factor = match unit.strip_suffix('b').unwrap_or(unit) {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "t" => 1_000_000_000_000,
        "ki" => 1 << 10,
        "mi" => 1 << 20,
        "gi" => 1 << 30,
        "ti" => 1 << 40,
        _ => return None,
    };
    decimal(number, factor)
}

/// A port: 1 to 65535.
pub fn port(text: &str) -> Option<u16> {
    digits(text)?.parse().ok().filter(|port| *port != 0)
}

/// A port or a range of ports: `80`, `8000-8100` or `8000:8100`.
pub fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once(['-', ':']).unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

/// An address with a prefix length or netmask after `/`, or alone (then `None` is given for the prefix).
pub fn network(text: &str) -> Option<(IpAddr, Option<u8>)> {
    let Some((address, prefix)) = text.split_once('/') else {
        return Some((text.parse().ok()?, None));
    };
    let address: IpAddr = address.parse().ok()?;
    let prefix = match (address, digits(prefix)) {
        (IpAddr::V4(_), None) => netmask(prefix)?,
        (_, digits) => digits?.parse().ok()?,
    };
    (prefix <= IpNet::host(address).prefix).then_some((address, Some(prefix)))
}

/// The prefix length of an IPv4 netmask such as `255.255.255.0`.
pub fn netmask(text: &str) -> Option<u8> {
    let bits = text.parse::<Ipv4Addr>().ok()?.to_bits();
    (bits.leading_ones() + bits.trailing_zeros() == 32 || bits == 0)
        .then(|| u8::try_from(bits.leading_ones()).unwrap_or(32))
}

/// An address or a host name (RFC 1123, 2.1; an underscore is let pass).
pub fn host(text: &str) -> Option<Host> {
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse() {
        return Some(Host::Address(address));
    }
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // A name of digits and dots alone is a mistyped address.
    let address_like = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    (name.len() <= 253 && !address_like && name.split('.').all(label)).then(|| Host::Name(text.to_owned()))
}

/// The name of a network device: 1 to 15 bytes (Linux `IFNAMSIZ`), no `/`, no `:`, no white space, not `.` or `..`.
pub fn device(text: &str) -> Option<&str> {
    let fits = (1..=15).contains(&text.len()) && text != "." && text != "..";
    (fits && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':')).then_some(text)
}

/// A routing table: a number from 1 to 4294967294 or a name. The kernel's own tables (0, 253-255 and their names) are
/// not for us.
pub fn table(text: &str) -> Option<Table> {
    if text.starts_with(|character: char| character.is_ascii_digit()) {
        let number = u32::try_from(integer(text)?).ok()?;
        return (!matches!(number, 0 | 253..=255 | u32::MAX)).then_some(Table::Number(number));
    }
    let word = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    let reserved = matches!(text, "main" | "default" | "local" | "unspec");
    (word && !reserved && (1..=64).contains(&text.len())).then(|| Table::Name(text.to_owned()))
}

/// A mark other than 0, decimal or hexadecimal, with an optional mask after `/`.
pub fn mark(text: &str) -> Option<Mark> {
    let (value, mask) = match text.split_once('/') {
        Some((value, mask)) => (integer(value)?, integer(mask)?),
        None => (integer(text)?, u64::from(u32::MAX)),
    };
    let (value, mask) = (u32::try_from(value).ok()?, u32::try_from(mask).ok()?);
    (value != 0 && value & !mask == 0).then_some(Mark { value, mask })
}

/// A DSCP: 0 to 63, or a name of RFC 2474, 2597, 3246, 5865 or 8622 (`cs5`, `af41`, `ef`, `va`, `le`).
pub fn dscp(text: &str) -> Option<u8> {
    if let Some(number) = integer(text) {
        return u8::try_from(number).ok().filter(|number| *number < 64);
    }
    let text = text.to_ascii_lowercase();
    let digit = |index: usize, range: RangeInclusive<u8>| {
        text.as_bytes().get(index).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| range.contains(digit))
    };
    match text.as_str() {
        "ef" => Some(46),
        "va" => Some(44),
        "le" => Some(1),
        "be" | "df" => Some(0),
        _ if text.len() == 3 && text.starts_with("cs") => Some(digit(2, 0..=7)? * 8),
        _ if text.len() == 4 && text.starts_with("af") => Some(digit(2, 1..=4)? * 8 + digit(3, 1..=3)? * 2),
        _ => None,
    }
}

/// An IP protocol: its number, or one of the names that people use in firewall rules.
pub fn protocol(text: &str) -> Option<u8> {
    match text.to_ascii_lowercase().as_str() {
        "icmp" => Some(1),
        "igmp" => Some(2),
        "tcp" => Some(6),
        "udp" => Some(17),
        "gre" => Some(47),
        "esp" => Some(50),
        "ah" => Some(51),
        "icmpv6" | "ipv6-icmp" => Some(58),
        "ospf" => Some(89),
        "sctp" => Some(132),
        "udplite" => Some(136),
        _ => u8::try_from(digits(text)?.parse::<u16>().ok()?).ok(),
    }
}

/// `text` if it is digits only: unlike `parse`, this does not let a `+` pass.
fn digits(text: &str) -> Option<&str> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(text)
}

fn split_unit(text: &str) -> (&str, &str) {
    let end =
        text.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

/// A decimal number with an optional fraction, times `factor`, rounded down. `None` on overflow.
fn decimal(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = match number.split_once('.') {
        Some((whole, fraction)) => (digits(whole)?, digits(fraction)?),
        None => (digits(number)?, ""),
    };
    let fraction = fraction.get(..fraction.len().min(9))?;
    let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    let fraction = fraction.parse::<u64>().unwrap_or(0);
    // In two steps, of which none can overflow.
    let part = fraction * (factor / scale) + fraction * (factor % scale) / scale;
    whole.parse::<u64>().ok()?.checked_mul(factor)?.checked_add(part)
}

#[cfg(test)]
#[path = "value_tests.rs"]
mod tests;
