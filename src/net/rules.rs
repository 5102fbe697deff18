//! Policy rules: which routing table serves which packets.

use std::fmt;

use serde::Serialize;

use super::message::{Message, NLM_F_CREATE, NLM_F_EXCL, Request, family, family_number, ip, u32_at};
use super::netlink::{Error, Netlink};
use super::{Family, Prefix};

/// Length of `struct fib_rule_hdr`: family, destination and source length, TOS, table, two reserved, action, flags (4).
const STRUCTURE: usize = 12;

/// `FR_ACT_TO_TBL`: ask a routing table.
const TO_TABLE: u8 = 1;

// linux/fib_rules.h: attributes of a rule.
const FRA_DST: u16 = 1;
const FRA_SRC: u16 = 2;
const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_SUPPRESS_IFGROUP: u16 = 13;
const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
pub(super) const FRA_PROTOCOL: u16 = 21;
const FRA_IP_PROTO: u16 = 22;
const FRA_SPORT_RANGE: u16 = 23;
const FRA_DPORT_RANGE: u16 = 24;
// Conditions and actions that we do not use: FRA_IIFNAME, FRA_GOTO, FRA_FLOW, FRA_TUN_ID, FRA_OIFNAME, FRA_L3MDEV,
// FRA_UID_RANGE, FRA_DSCP, FRA_FLOWLABEL, FRA_FLOWLABEL_MASK.
const OTHERS: [u16; 10] = [3, 4, 11, 12, 17, 19, 20, 25, 26, 27];

/// A mark on a packet, and the bits of it that are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Mark {
    /// Value.
    pub value: u32,
    /// Bits compared. Other programs (mwan3, firewalls) keep marks of their own in other bits of the same packet.
    pub mask: u32,
}

impl Mark {
    /// All 32 bits are compared.
    pub fn exact(value: u32) -> Self {
        Mark { value, mask: u32::MAX }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mask {
            u32::MAX => write!(f, "{:#x}", self.value),
            mask => write!(f, "{:#x}/{mask:#x}", self.value),
        }
    }
}

/// A range of ports, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Ports {
    /// The lowest.
    pub first: u16,
    /// The highest; the kernel refuses [`u16::MAX`].
    pub last: u16,
}

impl Ports {
    /// The highest port that a rule can match.
    pub const HIGHEST: u16 = u16::MAX - 1;
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// Conditions above IP (Linux 4.17); all of them must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Transport {
    /// IP protocol number.
    pub protocol: Option<u8>,
    /// Source ports.
    pub source: Option<Ports>,
    /// Destination ports.
    pub destination: Option<Ports>,
}

/// A policy rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Rule {
    /// IP version.
    pub family: Family,
    /// Rules are asked in ascending order of priority.
    pub priority: u32,
    /// Only packets from here.
    pub source: Option<Prefix>,
    /// Only packets to there.
    pub destination: Option<Prefix>,
    /// Only packets with this mark.
    pub mark: Option<Mark>,
    /// Only packets of this protocol and these ports.
    pub transport: Transport,
    /// The table that is asked. If it has no answer, the next rule's turn comes.
    pub table: u32,
    /// Answers with a prefix of this length or shorter do not count: with `Some(0)`, the table's default route.
    pub suppress_prefix_len: Option<u32>,
}

impl Rule {
    fn request(&self, kind: u16, protocol: u8) -> Result<Request, Error> {
        if [self.source, self.destination].into_iter().flatten().any(|p| p.family() != self.family) {
            return Err(Error::MixedFamilies(format!("rule {self}")));
        }
        let len = |prefix: Option<Prefix>| prefix.map_or(0, |prefix| prefix.length());
        let table = u8::try_from(self.table).unwrap_or(libc::RT_TABLE_UNSPEC);
        let mut structure = [0; STRUCTURE];
        structure[..8].copy_from_slice(&[
            family_number(self.family),
            len(self.destination),
            len(self.source),
            0,
            table,
            0,
            0,
            TO_TABLE,
        ]);
        let mut request = Request::new(kind, &structure)
            .with_u32(FRA_TABLE, self.table)
            .with_u32(FRA_PRIORITY, self.priority)
            .with(FRA_PROTOCOL, &[protocol]);
        if let Some(source) = self.source.filter(|p| !p.is_default()) {
            request = request.with_ip(FRA_SRC, source.address());
        }
        if let Some(destination) = self.destination.filter(|p| !p.is_default()) {
            request = request.with_ip(FRA_DST, destination.address());
        }
        if let Some(mark) = self.mark {
            request = request.with_u32(FRA_FWMARK, mark.value).with_u32(FRA_FWMASK, mark.mask);
        }
        if let Some(protocol) = self.transport.protocol {
            request = request.with(FRA_IP_PROTO, &[protocol]);
        }
        // struct fib_rule_port_range: both ends, in the byte order of the machine.
        let range = |ports: Ports| [ports.first.to_ne_bytes(), ports.last.to_ne_bytes()].concat();
        if let Some(ports) = self.transport.source {
            request = request.with(FRA_SPORT_RANGE, &range(ports));
        }
        if let Some(ports) = self.transport.destination {
            request = request.with(FRA_DPORT_RANGE, &range(ports));
        }
        if let Some(len) = self.suppress_prefix_len {
            request = request.with_u32(FRA_SUPPRESS_PREFIXLEN, len);
        }
        Ok(request)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.priority)?;
        match (self.source, self.family) {
            (Some(source), _) => write!(f, " from {source}")?,
            (None, Family::V4) => f.write_str(" from all (IPv4)")?,
            (None, Family::V6) => f.write_str(" from all (IPv6)")?,
        }
        if let Some(destination) = self.destination {
            write!(f, " to {destination}")?;
        }
        if let Some(mark) = self.mark {
            write!(f, " fwmark {mark}")?;
        }
        if let Some(protocol) = self.transport.protocol {
            match protocol {
                1 => f.write_str(" ipproto icmp")?,
                6 => f.write_str(" ipproto tcp")?,
                17 => f.write_str(" ipproto udp")?,
                58 => f.write_str(" ipproto ipv6-icmp")?,
                other => write!(f, " ipproto {other}")?,
            }
        }
        if let Some(ports) = self.transport.source {
            write!(f, " sport {ports}")?;
        }
        if let Some(ports) = self.transport.destination {
            write!(f, " dport {ports}")?;
        }
        match self.table {
            super::routes::MAIN => f.write_str(" lookup main")?,
            table => write!(f, " lookup {table}")?,
        }
        if let Some(len) = self.suppress_prefix_len {
            write!(f, " suppress_prefixlength {len}")?;
        }
        Ok(())
    }
}

/// A rule as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// The rule, as far as we know its kind.
    pub rule: Rule,
    /// Who set it (`FRA_PROTOCOL`, Linux 4.17); `None` where the kernel does not tell.
    pub protocol: Option<u8>,
    /// Whether `rule` is all of it: no action, condition or flag that we do not use.
    pub complete: bool,
}

impl RuleInfo {
    pub(super) fn parse(message: &Message<'_>) -> Option<RuleInfo> {
        let &[number, destination_len, source_len, tos, table, _, _, action, ..] = message.body else {
            return None;
        };
        if message.kind != libc::RTM_NEWRULE {
            return None;
        }
        let flags = u32_at(message.body, 8)?;
        let family = family(number)?;
        let mut rule = Rule {
            family,
            priority: 0,
            source: None,
            destination: None,
            mark: None,
            transport: Transport::default(),
            table: u32::from(table),
            suppress_prefix_len: None,
        };
        let mut protocol = None;
        let mut mark = None;
        let mut mask = u32::MAX;
        let mut complete = action == TO_TABLE && tos == 0 && flags == 0;
        let prefix = |value, len| ip(family, value).map(|address| Prefix::new(address, len));
        for (kind, value) in message.attributes(STRUCTURE) {
            match kind {
                FRA_PRIORITY => rule.priority = u32_at(value, 0)?,
                FRA_TABLE => rule.table = u32_at(value, 0)?,
                FRA_SRC => rule.source = prefix(value, source_len),
                FRA_DST => rule.destination = prefix(value, destination_len),
                FRA_FWMARK => mark = Some(u32_at(value, 0)?),
                FRA_FWMASK => mask = u32_at(value, 0)?,
                FRA_PROTOCOL => protocol = Some(*value.first()?),
                // The kernel tells "nothing is suppressed" as all ones.
                FRA_SUPPRESS_PREFIXLEN => {
                    rule.suppress_prefix_len = Some(u32_at(value, 0)?).filter(|len| *len != u32::MAX);
                }
                FRA_IP_PROTO => rule.transport.protocol = Some(*value.first()?).filter(|number| *number != 0),
                FRA_SPORT_RANGE => rule.transport.source = Some(ports(value)?),
                FRA_DPORT_RANGE => rule.transport.destination = Some(ports(value)?),
                FRA_SUPPRESS_IFGROUP => complete &= u32_at(value, 0)? == u32::MAX,
                other => complete &= !OTHERS.contains(&other),
            }
        }
        rule.mark = mark.map(|value| Mark { value, mask });
        Some(RuleInfo { rule, protocol, complete })
    }
}

fn ports(value: &[u8]) -> Option<Ports> {
    let &[a, b, c, d] = value.first_chunk::<4>()?;
    Some(Ports { first: u16::from_ne_bytes([a, b]), last: u16::from_ne_bytes([c, d]) })
}

impl Netlink {
    /// All rules of one family.
    pub async fn rules(&self, family: Family) -> Result<Vec<RuleInfo>, Error> {
        let mut structure = [0; STRUCTURE];
        structure[0] = family_number(family);
        let request = Request::new(libc::RTM_GETRULE, &structure);
        self.dump(request, "list the rules", |message| {
            RuleInfo::parse(message).filter(|info| info.rule.family == family)
        })
        .await
    }

    /// Sets a rule, marked as set by `protocol`. [`Error::Conflict`] when there is the same already.
    pub async fn add_rule(&self, rule: &Rule, protocol: u8) -> Result<(), Error> {
        let request = rule.request(libc::RTM_NEWRULE, protocol)?;
        let action = format!("set rule {rule}");
        match self.acknowledged(request, NLM_F_CREATE | NLM_F_EXCL, &action).await {
            Err(error) if error.errno() == Some(libc::EEXIST) => Err(Error::Conflict(action)),
            other => other,
        }
    }

    /// Removes a rule if `protocol` set it.
    pub async fn remove_rule(&self, rule: &Rule, protocol: u8) -> Result<(), Error> {
        let request = rule.request(libc::RTM_DELRULE, protocol)?;
        self.acknowledged(request, 0, &format!("remove rule {rule}")).await
    }
}
