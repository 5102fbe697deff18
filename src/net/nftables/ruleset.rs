//! From a [`Firewall`] to the messages of a transaction.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use super::expression::{Attributes, Of, Rule, data, octets};
use super::{Firewall, Redirect};
use crate::bond::sorted::SortedSet;
use crate::net::message::{NLM_F_CREATE, Request};
use crate::net::{Family, Prefix};

/// `NLM_F_APPEND`: behind the rules that are there.
const NLM_F_APPEND: u16 = 0x800;

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFPROTO_INET`: a table for both IP versions.
const NFPROTO_INET: u8 = 1;

// linux/netfilter/nf_tables.h: messages.
pub(super) const NFT_MSG_NEWTABLE: u16 = 0;
pub(super) const NFT_MSG_GETTABLE: u16 = 1;
pub(super) const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_NEWSETELEM: u16 = 12;

/// `NFTA_TABLE_NAME`.
pub(super) const NFTA_TABLE_NAME: u16 = 1;

// linux/netfilter.h
const NF_INET_PRE_ROUTING: u32 = 0;
const NF_INET_FORWARD: u32 = 2;
const NF_INET_POST_ROUTING: u32 = 4;
const NF_ACCEPT: u32 = 1;

/// Elements of a set in one message: an attribute holds 64 KiB.
const CHUNK: usize = 512;

/// A message and its flags.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) request: Request,
    pub(super) flags: u16,
}

impl Message {
    fn new(kind: u16, flags: u16, attributes: &Attributes) -> Message {
        let mut request = Request::new(message_kind(kind), &header(NFPROTO_INET, 0));
        request.append(attributes.bytes());
        Message { request, flags }
    }
}

/// The number of a message of nf_tables among all of netfilter.
pub(super) fn message_kind(kind: u16) -> u16 {
    SUBSYSTEM << 8 | kind
}

/// `struct nfgenmsg`: family, version 0, and a number.
pub(super) fn header(family: u8, number: u16) -> [u8; 4] {
    let [high, low] = number.to_be_bytes();
    [family, 0, high, low]
}

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END` (linux/netfilter/nfnetlink.h).
pub(super) fn batch_mark(kind: u16) -> Request {
    Request::new(kind, &header(0, SUBSYSTEM))
}

/// Asks for the table.
pub(super) fn question(table: &str) -> Request {
    Message::new(NFT_MSG_GETTABLE, 0, &Attributes::default().text(NFTA_TABLE_NAME, table)).request
}

/// Removes the table, whether there is one or not.
pub(super) fn removal(table: &str) -> Vec<Message> {
    let name = Attributes::default().text(NFTA_TABLE_NAME, table);
    vec![Message::new(NFT_MSG_NEWTABLE, NLM_F_CREATE, &name), Message::new(NFT_MSG_DELTABLE, 0, &name)]
}

/// Puts the table in the place of the one that is there.
pub(super) fn replacement(firewall: &Firewall) -> Vec<Message> {
    let mut table = Table { name: &firewall.table, messages: removal(&firewall.table) };
    let name = Attributes::default().text(NFTA_TABLE_NAME, &firewall.table);
    table.messages.push(Message::new(NFT_MSG_NEWTABLE, NLM_F_CREATE, &name));
    for family in Family::ALL {
        table.set(&set_name("translated", family), family, &firewall.translated);
        table.set(&set_name("trusted", family), family, &firewall.trusted);
    }
    for (number, redirect) in firewall.redirects.iter().enumerate() {
        if !redirect.from.is_empty() {
            let family = Family::of(redirect.to);
            table.set(&source_set(number), family, &redirect.from);
        }
    }
    table.chain("prerouting", "nat", NF_INET_PRE_ROUTING, -100);
    table.chain("postrouting", "nat", NF_INET_POST_ROUTING, 100);
    table.chain("forward", "filter", NF_INET_FORWARD, 0);
    for (number, redirect) in firewall.redirects.iter().enumerate() {
        for rule in redirecting(redirect, number) {
            table.rule("prerouting", rule);
        }
    }
    for family in Family::ALL {
        let [translated, trusted] = ["translated", "trusted"].map(|name| set_name(name, family));
        let device = &firewall.device;
        let leaving = Rule::default()
            .output(device, false)
            .family(family)
            .in_set(Of::Source, family, &translated, true)
            .in_set(Of::Destination, family, &trusted, false)
            .count()
            .masquerade();
        table.rule("postrouting", leaving);
        // A host behind a peer that asks this machine for a host behind a peer: the answer must come back by here.
        let back_again = Rule::default()
            .output(device, true)
            .family(family)
            .in_set(Of::Source, family, &translated, true)
            .redirected(true)
            .count()
            .masquerade();
        table.rule("postrouting", back_again);
        let uninvited = Rule::default()
            .input(device, false)
            .output(device, true)
            .family(family)
            .in_set(Of::Destination, family, &translated, true)
            .in_set(Of::Source, family, &trusted, false)
            .opens_connection()
            .redirected(false)
            .count()
            .drop();
        table.rule("forward", uninvited);
    }
    table.messages
}

/// The rules of a redirect: one, or one for each port where the ports change.
fn redirecting(redirect: &Redirect, number: usize) -> Vec<Rule> {
    let family = Family::of(redirect.to);
    let rule = |ports: RangeInclusive<u16>, to_port| {
        let mut rule = Rule::default().family(family).protocol(redirect.protocol);
        rule = match redirect.address {
            Some(address) => rule.address(Of::Destination, address),
            None => rule.for_this_machine(),
        };
        if !redirect.from.is_empty() {
            rule = rule.in_set(Of::Source, family, &source_set(number), true);
        }
        rule.destination_ports(&ports).count().redirect(redirect.to, to_port)
    };
    match redirect.to_port {
        None => vec![rule(redirect.ports.clone(), None)],
        Some(first) if first == *redirect.ports.start() => vec![rule(redirect.ports.clone(), None)],
        Some(first) => {
            let there = (first..=u16::MAX).map(Some);
            redirect.ports.clone().zip(there).map(|(here, there)| rule(here..=here, there)).collect()
        }
    }
}

fn set_name(what: &str, family: Family) -> String {
    match family {
        Family::V4 => format!("{what}4"),
        Family::V6 => format!("{what}6"),
    }
}

fn source_set(redirect: usize) -> String {
    format!("redirect{redirect}_from")
}

struct Table<'a> {
    name: &'a str,
    messages: Vec<Message>,
}

impl Table<'_> {
    fn chain(&mut self, name: &str, kind: &str, hook: u32, priority: i32) {
        const NFTA_CHAIN_TABLE: u16 = 1;
        const NFTA_CHAIN_NAME: u16 = 3;
        const NFTA_CHAIN_HOOK: u16 = 4;
        const NFTA_CHAIN_POLICY: u16 = 5;
        const NFTA_CHAIN_TYPE: u16 = 7;
        const NFTA_HOOK_HOOKNUM: u16 = 1;
        const NFTA_HOOK_PRIORITY: u16 = 2;
        let hook = Attributes::default()
            .number(NFTA_HOOK_HOOKNUM, hook)
            .put(NFTA_HOOK_PRIORITY, &priority.to_be_bytes());
        let chain = Attributes::default()
            .text(NFTA_CHAIN_TABLE, self.name)
            .text(NFTA_CHAIN_NAME, name)
            .nested(NFTA_CHAIN_HOOK, hook)
            .number(NFTA_CHAIN_POLICY, NF_ACCEPT)
            .text(NFTA_CHAIN_TYPE, kind);
        self.messages.push(Message::new(NFT_MSG_NEWCHAIN, NLM_F_CREATE, &chain));
    }

    fn rule(&mut self, chain: &str, rule: Rule) {
        const NFTA_RULE_TABLE: u16 = 1;
        const NFTA_RULE_CHAIN: u16 = 2;
        const NFTA_RULE_EXPRESSIONS: u16 = 4;
        let rule = Attributes::default()
            .text(NFTA_RULE_TABLE, self.name)
            .text(NFTA_RULE_CHAIN, chain)
            .nested(NFTA_RULE_EXPRESSIONS, rule.expressions());
        self.messages.push(Message::new(NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, &rule));
    }

    /// The networks of one family as a set of intervals.
    fn set(&mut self, name: &str, family: Family, networks: &[Prefix]) {
        const NFTA_SET_TABLE: u16 = 1;
        const NFTA_SET_NAME: u16 = 2;
        const NFTA_SET_FLAGS: u16 = 3;
        const NFTA_SET_KEY_TYPE: u16 = 4;
        const NFTA_SET_KEY_LEN: u16 = 5;
        const NFTA_SET_ID: u16 = 10;
        const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
        const NFTA_SET_ELEM_LIST_SET: u16 = 2;
        const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
        const NFTA_SET_ELEM_KEY: u16 = 1;
        const NFTA_SET_ELEM_FLAGS: u16 = 3;
        const NFTA_LIST_ELEM: u16 = 1;
        const NFT_SET_INTERVAL: u32 = 4;
        const NFT_SET_ELEM_INTERVAL_END: u32 = 1;
        // What `nft` calls ipv4_addr and ipv6_addr; the kernel only keeps it.
        let (key_type, key_len) = match family {
            Family::V4 => (7, 4),
            Family::V6 => (8, 16),
        };
        let number = u32::try_from(self.messages.len()).unwrap_or(u32::MAX);
        let set = Attributes::default()
            .text(NFTA_SET_TABLE, self.name)
            .text(NFTA_SET_NAME, name)
            .number(NFTA_SET_FLAGS, NFT_SET_INTERVAL)
            .number(NFTA_SET_KEY_TYPE, key_type)
            .number(NFTA_SET_KEY_LEN, key_len)
            .number(NFTA_SET_ID, number);
        self.messages.push(Message::new(NFT_MSG_NEWSET, NLM_F_CREATE, &set));
        let elements: Vec<Attributes> = intervals(family, networks)
            .into_iter()
            .map(|(key, is_end)| {
                let element = Attributes::default().nested(NFTA_SET_ELEM_KEY, data(&octets(key)));
                if is_end { element.number(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END) } else { element }
            })
            .collect();
        for chunk in elements.chunks(CHUNK) {
            let list = chunk
                .iter()
                .cloned()
                .fold(Attributes::default(), |list, element| list.nested(NFTA_LIST_ELEM, element));
            let message = Attributes::default()
                .text(NFTA_SET_ELEM_LIST_TABLE, self.name)
                .text(NFTA_SET_ELEM_LIST_SET, name)
                .nested(NFTA_SET_ELEM_LIST_ELEMENTS, list);
            self.messages.push(Message::new(NFT_MSG_NEWSETELEM, NLM_F_CREATE, &message));
        }
    }
}

/// The first address of each interval, and the first one behind it, which ends it. Networks that touch or overlap are
/// joined, as the kernel asks for.
pub(super) fn intervals(family: Family, networks: &[Prefix]) -> Vec<(IpAddr, bool)> {
    let bits = u32::from(family.bits());
    let last_of_all = u128::MAX >> (128 - bits);
    let spans: SortedSet<(u128, u128)> = networks
        .iter()
        .filter(|net| net.family() == family)
        .map(|net| {
            let first = number(net.address());
            let size = bits - u32::from(net.length());
            (first, first | (1_u128.checked_shl(size).map_or(u128::MAX, |size| size - 1)))
        })
        .collect();
    let mut joined: Vec<(u128, u128)> = Vec::with_capacity(spans.len());
    for (first, last) in spans {
        match joined.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => joined.push((first, last)),
        }
    }
    let mut keys = Vec::with_capacity(joined.len() * 2);
    for (first, last) in joined {
        keys.push((address(family, first), false));
        if last < last_of_all {
            keys.push((address(family, last + 1), true));
        }
    }
    keys
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from_bits(number as u32).into(),
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    }
}
