//! The types of values: how each is written, and the words for what is allowed.

use std::time::Duration;

use super::super::key::{PublicKey, Secret};
use super::super::value;

/// One word that an option of [`Kind::Choice`] may have.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// The word.
    pub word: &'static str,
    /// What it does, in one sentence.
    pub help: &'static str,
}

/// The type of an option's value.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A boolean: `1`, `on`, `true`, `yes`, `enabled` or their opposites.
    Bool,
    /// A whole number from `min` to `max`.
    Integer {
        /// The smallest value.
        min: u32,
        /// The largest value.
        max: u32,
        /// What is counted; empty for a bare number.
        unit: &'static str,
    },
    /// A UDP or TCP port.
    Port,
    /// A port or a range of ports.
    PortRange,
    /// A rate in bits per second; 0 is no limit.
    Rate,
    /// A duration.
    Duration {
        /// The shortest.
        min: Duration,
        /// The longest.
        max: Duration,
    },
    /// A number of bytes.
    Size,
    /// An IPv4 or IPv6 address.
    Address,
    /// An address with an optional prefix length.
    Cidr,
    /// A network: like [`Kind::Cidr`], with no host bits.
    Prefix,
    /// An IPv4 netmask.
    Netmask,
    /// An address or a host name.
    Host,
    /// One of some words.
    Choice(&'static [Choice]),
    /// A public key.
    PublicKey,
    /// A private or pre-shared key: never shown.
    Secret,
    /// An absolute path.
    Path,
    /// A program with an absolute path, and its arguments.
    Command,
    /// The name of a network device.
    Device,
    /// The name of a logical interface of netifd, or of a section of this file.
    Name,
    /// The number or name of a routing table.
    Table,
    /// A firewall mark with an optional mask.
    Mark,
    /// A differentiated services code point.
    Dscp,
    /// An IP protocol.
    Protocol,
    /// A user group, by name or number.
    Group,
}

impl Kind {
    /// The type's name for programs: in `bonding options --json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Bool => "bool",
            Kind::Integer { .. } => "integer",
            Kind::Port => "port",
            Kind::PortRange => "portrange",
            Kind::Rate => "rate",
            Kind::Duration { .. } => "duration",
            Kind::Size => "size",
            Kind::Address => "ipaddr",
            Kind::Cidr => "cidr",
            Kind::Prefix => "prefix",
            Kind::Netmask => "netmask",
            Kind::Host => "host",
            Kind::Choice(_) => "enum",
            Kind::PublicKey => "key",
            Kind::Secret => "secret",
            Kind::Path => "path",
            Kind::Command => "command",
            Kind::Device => "device",
            Kind::Name => "name",
            Kind::Table => "table",
            Kind::Mark => "mark",
            Kind::Dscp => "dscp",
            Kind::Protocol => "protocol",
            Kind::Group => "group",
        }
    }

    /// The unit of a plain number; empty where there is none.
    pub const fn unit(self) -> &'static str {
        match self {
            Kind::Integer { unit, .. } => unit,
            Kind::Rate => "kbit/s",
            Kind::Duration { .. } => "s",
            Kind::Size => "bytes",
            _ => "",
        }
    }

    /// What a value must be, to follow "is not": `a port (1-65535)`.
    pub fn expected(self) -> String {
        match self {
            Kind::Bool => "a boolean (1, 0, on, off, true, false, yes, no, enabled, disabled)".into(),
            Kind::Integer { min, max, unit: "" } => format!("a whole number ({min}-{max})"),
            Kind::Integer { min, max, unit } => format!("a whole number of {unit} ({min}-{max})"),
            Kind::Port => "a port (1-65535)".into(),
            Kind::PortRange => "a port or a range of ports (80, 8000-8100)".into(),
            Kind::Rate => "a rate (10mbit, 1.5m, 800k, 64000bit; a plain number is kbit/s)".into(),
            Kind::Duration { min, max } => {
                format!(
                    "a duration from {} to {} (500ms, 5, 1m, 2h; a plain number is seconds)",
                    plain(min),
                    plain(max)
                )
            }
            Kind::Size => "a size (10G, 500M, 1.5GiB; a plain number is bytes)".into(),
            Kind::Address => "an IP address".into(),
            Kind::Cidr => "an IP address or a network in CIDR notation (10.0.0.2/24, fd00::2/64)".into(),
            Kind::Prefix => "a network in CIDR notation (192.168.1.0/24, fd00::/48)".into(),
            Kind::Netmask => "an IPv4 netmask (255.255.255.0)".into(),
            Kind::Host => "an IP address or a host name".into(),
            Kind::Choice(choices) => {
                let words: Vec<&str> = choices.iter().map(|choice| choice.word).collect();
                format!("one of {}", words.join(", "))
            }
            Kind::PublicKey | Kind::Secret => "a key (32 bytes in base64, 44 characters)".into(),
            Kind::Path => "an absolute path".into(),
            Kind::Command => "a command that starts with an absolute path".into(),
            Kind::Device => {
                "the name of a network device (at most 15 characters, no spaces, '/' or ':')".into()
            }
            Kind::Name => "a name (letters, digits, '_', '-', '.')".into(),
            Kind::Table => {
                "a routing table (a number other than 0 and 253-255, or a name from rt_tables)".into()
            }
            Kind::Mark => "a mark (1-0xffffffff, decimal or hexadecimal; 0x100/0xff00 with a mask)".into(),
            Kind::Dscp => "a DSCP (0-63, cs0-cs7, af11-af43, ef, va, le)".into(),
            Kind::Protocol => "a protocol (tcp, udp, icmp, icmpv6, esp, … or 0-255)".into(),
            Kind::Group => "a group's name or number".into(),
        }
    }

    /// Whether `text` is a value of this type.
    pub fn accepts(self, text: &str) -> bool {
        match self {
            Kind::Bool => value::boolean(text).is_some(),
            Kind::Integer { min, max, .. } => {
                value::integer(text).is_some_and(|number| (u64::from(min)..=u64::from(max)).contains(&number))
            }
            Kind::Port => value::port(text).is_some(),
            Kind::PortRange => value::port_range(text).is_some(),
            Kind::Rate => value::rate(text).is_some(),
            Kind::Duration { min, max } => {
                value::duration(text).is_some_and(|time| (min..=max).contains(&time))
            }
            Kind::Size => value::size(text).is_some(),
            Kind::Address => text.parse::<std::net::IpAddr>().is_ok(),
            Kind::Cidr | Kind::Prefix => value::network(text).is_some(),
            Kind::Netmask => value::netmask(text).is_some(),
            Kind::Host => value::host(text).is_some(),
            Kind::Choice(choices) => choices.iter().any(|choice| choice.word == text),
            Kind::PublicKey => PublicKey::from_base64(text).is_some(),
            Kind::Secret => Secret::from_base64(text).is_some(),
            Kind::Path => is_path(text),
            Kind::Command => text.split_whitespace().next().is_some_and(is_path),
            Kind::Device => value::device(text).is_some(),
            Kind::Name | Kind::Group => is_name(text),
            Kind::Table => value::table(text).is_some(),
            Kind::Mark => value::mark(text).is_some(),
            Kind::Dscp => value::dscp(text).is_some(),
            Kind::Protocol => value::protocol(text).is_some(),
        }
    }

    /// Whether the value must not appear in messages, logs or user interfaces.
    pub const fn is_secret(self) -> bool {
        matches!(self, Kind::Secret)
    }
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && !text.contains(char::is_control) && text.len() < 4096
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// A duration in its largest whole unit.
fn plain(time: Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if millis >= unit && millis.is_multiple_of(unit) {
            return format!("{}{name}", millis / unit);
        }
    }
    if millis == 0 { "0".into() } else { format!("{millis}ms") }
}
