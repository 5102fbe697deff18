//! Classes of traffic in the bond: packets that take another policy than the rest, or certain links only.
//!
//! The router's configuration has them. It tells the server ([`super::announcement`]), so that both ends treat the two
//! directions of a connection alike: a [`Selector`] is written as the router sends, and the server compares the other
//! way round. What was found for a flow is remembered, so that a packet in the middle of one costs a look into a table.

use std::net::IpAddr;

use super::LinkId;
use super::ip::{self, PacketInfo};
use super::routing::IpPrefix;
use super::scheduler::{Candidate, Policy, Scheduler};

/// Classes of one peer at the most.
pub const MAX_CLASSES: usize = 256;
/// Flows whose class is remembered; a power of two.
const REMEMBERED: usize = 1_024;

/// Which packets; all conditions must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Protocol above IP.
    pub protocol: Option<u8>,
    /// The router's side.
    pub source: Option<IpPrefix>,
    /// The other side.
    pub destination: Option<IpPrefix>,
    /// First and last port at the router's side.
    pub source_ports: Option<(u16, u16)>,
    /// First and last port at the other side.
    pub destination_ports: Option<(u16, u16)>,
    /// Bit n: codepoint n matches; 0: all match.
    pub dscp: u64,
}

/// What is done with packets of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Treatment {
    /// How they are spread; `None`: as the rest.
    pub policy: Option<Policy>,
    /// Bit n: link n may carry them; 0: all may. While none of those is up, all may.
    pub links: u32,
    /// [`Policy::Redundant`]: copies are sent even where that takes capacity from other traffic.
    pub forced: bool,
}

/// A class. Of several that match the first counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// The rule that it comes from, for counters and the scheduler's memory. Classes of one rule have one treatment.
    pub rule: u8,
    /// Which packets.
    pub selector: Selector,
    /// What is done with them.
    pub treatment: Treatment,
}

/// Names a rule in [`PacketInfo::class`]; 0 is none.
pub type ClassId = u8;

/// Which copies of a packet are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// None.
    No,
    /// On links that have nothing else to do.
    Idle,
    /// On every link.
    Forced,
}

/// What went by a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleCount {
    /// [`Class::rule`].
    pub rule: u8,
    /// Packets.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// The classes of a peer, and what is remembered of them.
#[derive(Debug, Default)]
pub struct Classes {
    /// With the number of the rule's entry in `rules`, plus 1.
    list: Vec<(Class, ClassId)>,
    rules: Vec<Rule>,
    /// The server compares the other way round.
    reversed: bool,
    remembered: Vec<Remembered>,
}

#[derive(Debug)]
struct Rule {
    count: RuleCount,
    treatment: Treatment,
    scheduler: Scheduler,
}

#[derive(Clone, Copy, Debug)]
struct Remembered {
    hash: u32,
    dscp: u8,
    class: ClassId,
}

const NOTHING: Remembered = Remembered { hash: 0, dscp: u8::MAX, class: 0 };

impl Classes {
    /// Replaces the classes; `reversed` at the server. Those beyond [`MAX_CLASSES`] do not count.
    pub fn set(&mut self, classes: &[Class], reversed: bool) {
        let counts: Vec<RuleCount> = self.counts().collect();
        self.list.clear();
        self.rules.clear();
        self.reversed = reversed;
        for class in classes.iter().take(MAX_CLASSES) {
            let known = self.rules.iter().position(|rule| rule.count.rule == class.rule);
            let at = known.unwrap_or_else(|| {
                let before = counts.iter().find(|count| count.rule == class.rule);
                let count = before.copied().unwrap_or(RuleCount { rule: class.rule, packets: 0, bytes: 0 });
                let scheduler = Scheduler::new(class.treatment.policy.unwrap_or_default());
                self.rules.push(Rule { count, treatment: class.treatment, scheduler });
                self.rules.len() - 1
            });
            if let Ok(id) = ClassId::try_from(at + 1) {
                self.list.push((class.clone(), id));
            }
        }
        self.remembered.clear();
        if !self.list.is_empty() {
            self.remembered.resize(REMEMBERED, NOTHING);
        }
    }

    /// The class of a packet, which is counted.
    pub fn classify(&mut self, packet: &[u8], info: &PacketInfo) -> ClassId {
        let Some(slot) = self.remembered.get_mut(info.hash as usize % REMEMBERED) else { return 0 };
        if slot.hash != info.hash || slot.dscp != info.dscp {
            let found = Endpoints::of(packet, self.reversed)
                .and_then(|ends| self.list.iter().find(|(class, _)| class.selector.matches(info, &ends)));
            *slot = Remembered { hash: info.hash, dscp: info.dscp, class: found.map_or(0, |(_, id)| *id) };
        }
        let class = slot.class;
        if let Some(rule) = self.rule_mut(class) {
            rule.count.packets += 1;
            rule.count.bytes += packet.len() as u64;
        }
        class
    }

    /// Leaves those links that may carry the class, if one of them can.
    pub fn restrict(&self, class: ClassId, candidates: &mut Vec<Candidate>) {
        let links = self.rule(class).map_or(0, |rule| rule.treatment.links);
        if links == 0 {
            return;
        }
        let may = |candidate: &Candidate| links & bit(candidate.link) != 0;
        if candidates.iter().any(may) {
            candidates.retain(may);
        }
    }

    /// The scheduler of the class; `rest` is that of all other packets.
    pub fn scheduler<'s>(&'s mut self, class: ClassId, rest: &'s mut Scheduler) -> &'s mut Scheduler {
        match self.rule_mut(class) {
            Some(rule) => {
                rule.scheduler.set_policy(rule.treatment.policy.unwrap_or(rest.policy()));
                &mut rule.scheduler
            }
            None => rest,
        }
    }

    /// Which copies a packet of the class is sent in; `rest` is the policy of all other packets.
    pub fn copies(&self, class: ClassId, rest: Policy) -> Copies {
        let treatment = self.rule(class).map(|rule| rule.treatment).unwrap_or_default();
        match (treatment.policy.unwrap_or(rest), treatment.forced) {
            (Policy::Redundant, true) => Copies::Forced,
            (Policy::Redundant, false) => Copies::Idle,
            _ => Copies::No,
        }
    }

    /// What went by each rule, in the order of the rules.
    pub fn counts(&self) -> impl Iterator<Item = RuleCount> + '_ {
        self.rules.iter().map(|rule| rule.count)
    }

    fn rule(&self, class: ClassId) -> Option<&Rule> {
        self.rules.get(usize::from(class).checked_sub(1)?)
    }

    fn rule_mut(&mut self, class: ClassId) -> Option<&mut Rule> {
        self.rules.get_mut(usize::from(class).checked_sub(1)?)
    }
}

/// The bit of a link in [`Treatment::links`].
pub fn bit(link: LinkId) -> u32 {
    1u32.checked_shl(u32::from(link)).unwrap_or(0)
}

/// Both ends of a packet's flow, as the router names them.
struct Endpoints {
    source: IpAddr,
    destination: IpAddr,
    ports: Option<(u16, u16)>,
}

impl Endpoints {
    fn of(packet: &[u8], reversed: bool) -> Option<Endpoints> {
        let (source, destination, ports) = (ip::source(packet)?, ip::destination(packet)?, ip::ports(packet));
        Some(if reversed {
            Endpoints { source: destination, destination: source, ports: ports.map(|(a, b)| (b, a)) }
        } else {
            Endpoints { source, destination, ports }
        })
    }
}

impl Selector {
    fn matches(&self, info: &PacketInfo, ends: &Endpoints) -> bool {
        let holds = |wanted: Option<(u16, u16)>, port: Option<u16>| match (wanted, port) {
            (None, _) => true,
            (Some((first, last)), Some(port)) => (first..=last).contains(&port),
            (Some(_), None) => false,
        };
        self.protocol.is_none_or(|protocol| protocol == info.protocol)
            && (self.dscp == 0 || self.dscp >> (info.dscp & 63) & 1 != 0)
            && self.source.is_none_or(|range| range.contains(ends.source))
            && self.destination.is_none_or(|range| range.contains(ends.destination))
            && holds(self.source_ports, ends.ports.map(|(source, _)| source))
            && holds(self.destination_ports, ends.ports.map(|(_, destination)| destination))
    }
}

#[cfg(test)]
#[path = "class_tests.rs"]
mod tests;
