//! Policy rules: which routing table serves which packets.

use std::fmt;
use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{RouteHeader, RouteProtocol};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleHeader, RuleMessage};
use serde::Serialize;

use super::netlink::{Error, Netlink, family_of};
use super::{Family, Prefix};

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
    /// The table that is asked. If it has no answer, the next rule's turn comes.
    pub table: u32,
    /// Answers with a prefix of this length or shorter do not count: with `Some(0)`, the table's default route.
    pub suppress_prefix_len: Option<u32>,
}

impl Rule {
    fn message(&self, protocol: u8) -> Result<RuleMessage, Error> {
        if [self.source, self.destination].into_iter().flatten().any(|p| p.family() != self.family) {
            return Err(Error::MixedFamilies(format!("rule {self}")));
        }
        let mut message = RuleMessage::default();
        message.header = RuleHeader {
            family: self.family.into(),
            src_len: self.source.map_or(0, |p| p.length()),
            dst_len: self.destination.map_or(0, |p| p.length()),
            table: u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
            action: RuleAction::ToTable,
            ..RuleHeader::default()
        };
        let attributes = &mut message.attributes;
        attributes.push(RuleAttribute::Table(self.table));
        attributes.push(RuleAttribute::Priority(self.priority));
        attributes.push(RuleAttribute::Protocol(RouteProtocol::from(protocol)));
        if let Some(source) = self.source.filter(|p| !p.is_default()) {
            attributes.push(RuleAttribute::Source(source.address()));
        }
        if let Some(destination) = self.destination.filter(|p| !p.is_default()) {
            attributes.push(RuleAttribute::Destination(destination.address()));
        }
        if let Some(mark) = self.mark {
            attributes.push(RuleAttribute::FwMark(mark.value));
            attributes.push(RuleAttribute::FwMask(mark.mask));
        }
        if let Some(len) = self.suppress_prefix_len {
            attributes.push(RuleAttribute::SuppressPrefixLen(len));
        }
        Ok(message)
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
    pub(super) fn parse(message: &RuleMessage) -> Option<RuleInfo> {
        let header = &message.header;
        let family = family_of(header.family)?;
        let mut rule = Rule {
            family,
            priority: 0,
            source: None,
            destination: None,
            mark: None,
            table: u32::from(header.table),
            suppress_prefix_len: None,
        };
        let mut protocol = None;
        let mut mark = None;
        let mut mask = u32::MAX;
        let mut complete = header.action == RuleAction::ToTable && header.tos == 0 && header.flags.is_empty();
        let prefix =
            |address: IpAddr, len| (Family::of(address) == family).then(|| Prefix::new(address, len));
        for attribute in &message.attributes {
            match attribute {
                RuleAttribute::Priority(value) => rule.priority = *value,
                RuleAttribute::Table(value) => rule.table = *value,
                RuleAttribute::Source(address) => rule.source = prefix(*address, header.src_len),
                RuleAttribute::Destination(address) => rule.destination = prefix(*address, header.dst_len),
                RuleAttribute::FwMark(value) => mark = Some(*value),
                RuleAttribute::FwMask(value) => mask = *value,
                RuleAttribute::Protocol(value) => protocol = Some(u8::from(*value)),
                // The kernel tells "nothing is suppressed" as all ones.
                RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::SuppressIfGroup(u32::MAX) => {}
                RuleAttribute::SuppressPrefixLen(value) => rule.suppress_prefix_len = Some(*value),
                RuleAttribute::Other(_) => {}
                _ => complete = false,
            }
        }
        rule.mark = mark.map(|value| Mark { value, mask });
        Some(RuleInfo { rule, protocol, complete })
    }
}

impl Netlink {
    /// All rules of one family.
    pub async fn rules(&self, family: Family) -> Result<Vec<RuleInfo>, Error> {
        let mut request = RuleMessage::default();
        request.header.family = family.into();
        self.dump(RouteNetlinkMessage::GetRule(request), "list the rules", |message| match message {
            RouteNetlinkMessage::NewRule(rule) => {
                RuleInfo::parse(&rule).filter(|info| info.rule.family == family)
            }
            _ => None,
        })
        .await
    }

    /// Sets a rule, marked as set by `protocol`. [`Error::Conflict`] when there is the same already.
    pub async fn add_rule(&self, rule: &Rule, protocol: u8) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewRule(rule.message(protocol)?);
        let action = || format!("set rule {rule}");
        match self.acknowledged(message, NLM_F_CREATE | NLM_F_EXCL, action).await {
            Err(error) if error.errno() == Some(libc::EEXIST) => Err(Error::Conflict(action())),
            other => other,
        }
    }

    /// Removes a rule if `protocol` set it.
    pub async fn remove_rule(&self, rule: &Rule, protocol: u8) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelRule(rule.message(protocol)?);
        self.acknowledged(message, 0, || format!("remove rule {rule}")).await
    }
}
