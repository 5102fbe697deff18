//! How the client tells the server its [classes](super::class), so that downloads are treated like uploads.
//!
//! The list travels in parts, one at a time: the server answers each with how many classes it holds, and the client
//! goes on from there. What is lost is sent again. A list that is not complete has no effect.

use std::net::IpAddr;
use std::time::Duration;

use super::Time;
use super::class::{Class, MAX_CLASSES, Selector, Treatment};
use super::routing::IpPrefix;
use super::scheduler::Policy;
use super::wire::Frame;

/// Bytes of classes in one part: with the frames that may wait beside it, a control packet fits 1280 bytes.
const PART: usize = 176;
/// A part is sent again after this, at first and at the most.
const FIRST_RETRY: Duration = Duration::from_millis(300);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// In place of a policy's number: as the rest of the traffic.
const NO_POLICY: u8 = u8::MAX;

const PROTOCOL: u8 = 1;
const SOURCE: u8 = 2;
const SOURCE_IS_IPV6: u8 = 4;
const DESTINATION: u8 = 8;
const DESTINATION_IS_IPV6: u8 = 16;
const SOURCE_PORTS: u8 = 32;
const DESTINATION_PORTS: u8 = 64;
const DSCP: u8 = 128;
const FORCED: u8 = 1;

/// The client's side.
#[derive(Debug, Default)]
pub struct Announcer {
    classes: Vec<Class>,
    /// Names the list, so that an answer to an old one is told from one to this.
    generation: u8,
    /// Classes that the server holds.
    held: usize,
    /// When the next part is due; `None` when the server has all.
    due: Option<Time>,
    retry: Duration,
    part: Vec<u8>,
}

impl Announcer {
    /// Announces another list.
    pub fn set(&mut self, classes: &[Class], now: Time) {
        self.classes = classes.iter().take(MAX_CLASSES).cloned().collect();
        self.generation = self.generation.wrapping_add(1);
        self.begin(now);
    }

    /// The server knows nothing any more.
    pub fn restart(&mut self, now: Time) {
        self.begin(now);
        if self.classes.is_empty() {
            self.due = None;
        }
    }

    /// The server holds so many classes of a list.
    pub fn answered(&mut self, generation: u8, held: u16, now: Time) {
        let held = usize::from(held);
        if self.due.is_none() || generation != self.generation || held > self.classes.len() {
            return;
        }
        if held == self.classes.len() {
            self.due = None;
        } else if held != self.held {
            self.due = Some(now);
            self.retry = FIRST_RETRY;
        }
        self.held = held;
    }

    /// When [`Announcer::poll`] has something.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.due
    }

    /// The part that is due.
    pub fn poll(&mut self, now: Time) -> Option<Frame<'_>> {
        if self.due? > now {
            return None;
        }
        self.due = Some(now + self.retry);
        self.retry = (self.retry * 2).min(LAST_RETRY);
        self.part.clear();
        for class in self.classes.get(self.held..)? {
            let before = self.part.len();
            write(class, &mut self.part);
            if self.part.len() > PART {
                self.part.truncate(before);
                break;
            }
        }
        Some(Frame::Classes {
            generation: self.generation,
            total: u16::try_from(self.classes.len()).ok()?,
            first: u16::try_from(self.held).ok()?,
            classes: &self.part,
        })
    }

    fn begin(&mut self, now: Time) {
        self.held = 0;
        self.retry = FIRST_RETRY;
        self.due = Some(now);
    }
}

/// The server's side.
#[derive(Debug, Default)]
pub struct Listener {
    /// Generation and length of the list that comes, or has come.
    list: Option<(u8, u16)>,
    held: u16,
    classes: Vec<Class>,
}

impl Listener {
    /// Takes a part. Returns how many classes are held now, and all of them when this was the last part. `None` when
    /// it is not well-formed, which gets no answer.
    pub fn take(
        &mut self,
        generation: u8,
        total: u16,
        first: u16,
        part: &[u8],
    ) -> Option<(u16, Option<Vec<Class>>)> {
        if usize::from(total) > MAX_CLASSES {
            return None;
        }
        let is_new = self.list != Some((generation, total));
        if is_new && first != 0 {
            return Some((0, None));
        }
        if is_new {
            *self = Listener { list: Some((generation, total)), ..Listener::default() };
        } else if first != self.held || self.held == total {
            return Some((self.held, None));
        }
        let mut rest = part;
        let mut classes = Vec::new();
        while !rest.is_empty() && classes.len() <= usize::from(total) {
            classes.push(read(&mut rest)?);
        }
        let held = self.classes.len() + classes.len();
        if held > usize::from(total) {
            return None;
        }
        self.held = u16::try_from(held).ok()?;
        self.classes.append(&mut classes);
        let complete = (self.held == total).then(|| std::mem::take(&mut self.classes));
        Some((self.held, complete))
    }
}

fn write(class: &Class, out: &mut Vec<u8>) {
    let Selector { protocol, source, destination, source_ports, destination_ports, dscp } = &class.selector;
    let is_ipv6 = |range: &Option<IpPrefix>| range.is_some_and(|range| range.addr.is_ipv6());
    let mut conditions = 0;
    for (bit, given) in [
        (PROTOCOL, protocol.is_some()),
        (SOURCE, source.is_some()),
        (SOURCE_IS_IPV6, is_ipv6(source)),
        (DESTINATION, destination.is_some()),
        (DESTINATION_IS_IPV6, is_ipv6(destination)),
        (SOURCE_PORTS, source_ports.is_some()),
        (DESTINATION_PORTS, destination_ports.is_some()),
        (DSCP, *dscp != 0),
    ] {
        conditions |= if given { bit } else { 0 };
    }
    let treatment = class.treatment;
    let policy = treatment.policy.map_or(NO_POLICY, Policy::code);
    out.extend_from_slice(&[class.rule, conditions, policy, if treatment.forced { FORCED } else { 0 }]);
    out.extend_from_slice(&treatment.links.to_be_bytes());
    out.extend(protocol);
    for range in [source, destination].into_iter().flatten() {
        match range.addr {
            IpAddr::V4(addr) => out.extend_from_slice(&addr.octets()),
            IpAddr::V6(addr) => out.extend_from_slice(&addr.octets()),
        }
        out.push(range.len);
    }
    for (first, last) in [source_ports, destination_ports].into_iter().flatten() {
        out.extend_from_slice(&first.to_be_bytes());
        out.extend_from_slice(&last.to_be_bytes());
    }
    if *dscp != 0 {
        out.extend_from_slice(&dscp.to_be_bytes());
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*head)
}

fn read(rest: &mut &[u8]) -> Option<Class> {
    let [rule, conditions, policy, flags] = take(rest)?;
    let links = u32::from_be_bytes(take(rest)?);
    let has = |bit: u8| conditions & bit != 0;
    let mut selector = Selector::default();
    if has(PROTOCOL) {
        selector.protocol = Some(take::<1>(rest)?[0]);
    }
    if has(SOURCE) {
        selector.source = Some(read_range(has(SOURCE_IS_IPV6), rest)?);
    }
    if has(DESTINATION) {
        selector.destination = Some(read_range(has(DESTINATION_IS_IPV6), rest)?);
    }
    if has(SOURCE_PORTS) {
        selector.source_ports = Some(read_ports(rest)?);
    }
    if has(DESTINATION_PORTS) {
        selector.destination_ports = Some(read_ports(rest)?);
    }
    if has(DSCP) {
        selector.dscp = u64::from_be_bytes(take(rest)?);
    }
    let treatment = Treatment { policy: Policy::from_code(policy), links, forced: flags & FORCED != 0 };
    Some(Class { rule, selector, treatment })
}

fn read_range(is_ipv6: bool, rest: &mut &[u8]) -> Option<IpPrefix> {
    let (addr, longest) = match is_ipv6 {
        true => (IpAddr::from(take::<16>(rest)?), 128),
        false => (IpAddr::from(take::<4>(rest)?), 32),
    };
    let [len] = take(rest)?;
    (len <= longest).then_some(IpPrefix { addr, len })
}

fn read_ports(rest: &mut &[u8]) -> Option<(u16, u16)> {
    let (first, last) = (u16::from_be_bytes(take(rest)?), u16::from_be_bytes(take(rest)?));
    (first <= last).then_some((first, last))
}

#[cfg(test)]
#[path = "announcement_tests.rs"]
mod tests;
