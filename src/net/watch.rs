//! Changes of the network's configuration, as the kernel announces them.
//!
//! A socket of our own, read without a queue between it and the reader: if the reader is slow the kernel's buffer fills,
//! the kernel says so (`ENOBUFS`), and the reader gets [`Event::Resync`]. So memory is bounded, and nothing is missed
//! without notice, even on a router that learns the internet's routes by BGP.
//!
//! Only the few fields that are needed are read, so that a kernel newer than this program cannot confuse it.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;

use nix::sys::socket::SockProtocol;

use super::Family;
use super::links::IFF_LOWER_UP;
use super::message::{Message, family, ip, text, u32_at};
use super::routes::CLONED;
use super::rules::FRA_PROTOCOL;
use super::socket::Socket;
use crate::bond::sorted::SortedMap;

/// Receive buffer of the socket, in bytes: some thousand changes.
const RECEIVE_BUFFER: i32 = 256 * 1024;

/// Datagrams thrown away after an overflow, at most. The buffer holds fewer.
const DRAIN: usize = 16_384;

/// Something has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An interface is new, or its name, state, carrier or MTU has changed.
    LinkChanged {
        /// Index.
        index: u32,
        /// Name.
        name: String,
        /// Set up (`IFF_UP`).
        up: bool,
        /// Has a carrier (`IFF_LOWER_UP`).
        carrier: bool,
        /// MTU in bytes.
        mtu: u32,
    },
    /// An interface has disappeared, or gone to another network namespace.
    LinkGone {
        /// Index that it had.
        index: u32,
        /// Name that it had.
        name: String,
    },
    /// An interface has a new address, or one has changed.
    AddressAdded {
        /// Index of the interface.
        index: u32,
        /// Address.
        address: IpAddr,
        /// Length of its network's prefix, in bits.
        prefix_len: u8,
        /// Whether one can bind to it: duplicate detection (IPv6) is over. When it is, another event comes.
        usable: bool,
    },
    /// An interface has lost an address.
    AddressRemoved {
        /// Index of the interface.
        index: u32,
        /// Address.
        address: IpAddr,
        /// Length of its network's prefix, in bits.
        prefix_len: u8,
    },
    /// A default route that is not ours was set, changed or removed. Removed default routes are not always announced:
    /// IPv4 routes that go with their device are not.
    DefaultRouteChanged {
        /// IP version.
        family: Family,
        /// Index of the interface; `None` for a route through several or none.
        index: Option<u32>,
        /// Routing table.
        table: u32,
    },
    /// A route or rule with our mark was removed, by us or by somebody else.
    OwnedRemoved,
    /// Changes were missed: look at everything anew ([`super::Interfaces::snapshot`], [`super::Reconciler::reconcile`]).
    Resync,
}

/// A stream of [`Event`]s.
pub struct Watch {
    socket: Socket,
    protocol: u8,
    buffer: Vec<u8>,
    pending: VecDeque<Event>,
    // The last word on each interface, because the kernel repeats itself.
    links: SortedMap<u32, Event>,
}

impl Watch {
    /// Begins to watch the calling thread's network namespace. Routes and rules with `protocol` are ours.
    ///
    /// Open it before the first snapshot, so that nothing falls between the two. Must be called within a tokio runtime.
    pub fn open(protocol: u8) -> io::Result<Watch> {
        // linux/rtnetlink.h: RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV4_RULE,
        // RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV6_RULE.
        const GROUPS: [u32; 7] = [1, 5, 7, 8, 9, 11, 19];
        let socket = Socket::open(
            SockProtocol::NetlinkRoute,
            GROUPS.iter().fold(0, |bits, group| bits | 1 << (group - 1)),
        )?;
        let _ = socket.set_receive_buffer(RECEIVE_BUFFER);
        Ok(Watch { socket, protocol, buffer: Vec::new(), pending: VecDeque::new(), links: SortedMap::new() })
    }

    /// Waits for the next event. Can be cancelled without losing one.
    ///
    /// An error means that the socket broke: open another [`Watch`] and look at everything anew.
    pub async fn next(&mut self) -> io::Result<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(event);
            }
            match self.socket.receive(&mut self.buffer).await {
                Ok(()) => {
                    let datagram = std::mem::take(&mut self.buffer);
                    self.read(&datagram);
                    self.buffer = datagram;
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.drain();
                    return Ok(Event::Resync);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Throws away what is in the kernel's buffer. Until that is empty the kernel drops every further announcement, and
    /// does so silently: only after this is a look at everything sure to miss nothing.
    fn drain(&mut self) {
        self.links.clear();
        for _ in 0..DRAIN {
            match self.socket.receive_now(&mut self.buffer) {
                Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => break,
                _ => {}
            }
        }
    }

    fn read(&mut self, datagram: &[u8]) {
        let mut rest = datagram;
        while let Some((message, after)) = Message::split(rest) {
            if let Some(event) = self.event(&message) {
                self.pending.push_back(event);
            }
            rest = after;
        }
    }

    fn event(&mut self, message: &Message<'_>) -> Option<Event> {
        let event = event(message, self.protocol)?;
        match &event {
            Event::LinkChanged { index, .. } => {
                if self.links.get(index) == Some(&event) {
                    return None;
                }
                self.links.insert(*index, event.clone());
            }
            Event::LinkGone { index, .. } => {
                self.links.remove(index);
            }
            _ => {}
        }
        Some(event)
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("pending", &self.pending).finish_non_exhaustive()
    }
}

fn event(message: &Message<'_>, own_protocol: u8) -> Option<Event> {
    match message.kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => link_event(message),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => address_event(message),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => route_event(message, own_protocol),
        libc::RTM_DELRULE => rule_event(message, own_protocol),
        _ => None,
    }
}

fn link_event(message: &Message<'_>) -> Option<Event> {
    // struct ifinfomsg: family, padding, type (2), index (4), flags (4), change (4).
    const HEADER: usize = 16;
    let body = message.body;
    if *body.first()? != libc::AF_UNSPEC as u8 {
        return None; // a bridge's ports, IPv6 settings
    }
    let index = u32_at(body, 4)?;
    let flags = u32_at(body, 8)?;
    let mut name = String::new();
    let mut mtu = 0;
    for (kind, value) in message.attributes(HEADER) {
        match kind {
            libc::IFLA_IFNAME => name = text(value),
            libc::IFLA_MTU => mtu = u32_at(value, 0)?,
            _ => {}
        }
    }
    let up = flags & libc::IFF_UP as u32 != 0;
    let carrier = flags & IFF_LOWER_UP != 0;
    Some(match message.kind {
        libc::RTM_NEWLINK => Event::LinkChanged { index, name, up, carrier, mtu },
        _ => Event::LinkGone { index, name },
    })
}

fn address_event(message: &Message<'_>) -> Option<Event> {
    // struct ifaddrmsg: family, prefix length, flags, scope, index (4).
    const HEADER: usize = 8;
    let body = message.body;
    let family = family(*body.first()?)?;
    let prefix_len = *body.get(1)?;
    let mut flags = u32::from(*body.get(2)?);
    let index = u32_at(body, 4)?;
    let mut local = None;
    let mut address = None;
    for (kind, value) in message.attributes(HEADER) {
        match kind {
            libc::IFA_LOCAL => local = ip(family, value),
            libc::IFA_ADDRESS => address = ip(family, value),
            libc::IFA_FLAGS => flags = u32_at(value, 0)?,
            _ => {}
        }
    }
    let address = local.or(address)?;
    let usable = flags & libc::IFA_F_DADFAILED == 0
        && (flags & libc::IFA_F_TENTATIVE == 0 || flags & libc::IFA_F_OPTIMISTIC != 0);
    Some(match message.kind {
        libc::RTM_NEWADDR => Event::AddressAdded { index, address, prefix_len, usable },
        _ => Event::AddressRemoved { index, address, prefix_len },
    })
}

fn route_event(message: &Message<'_>, own_protocol: u8) -> Option<Event> {
    // struct rtmsg: family, destination and source length, TOS, table, protocol, scope, type, flags (4).
    const HEADER: usize = 12;
    let body = message.body;
    let family = family(*body.first()?)?;
    let (destination_len, protocol) = (*body.get(1)?, *body.get(5)?);
    if u32_at(body, 8)? & CLONED != 0 {
        return None;
    }
    if protocol == own_protocol {
        return (message.kind == libc::RTM_DELROUTE).then_some(Event::OwnedRemoved);
    }
    if destination_len != 0 {
        return None;
    }
    let mut table = u32::from(*body.get(4)?);
    let mut index = None;
    for (kind, value) in message.attributes(HEADER) {
        match kind {
            libc::RTA_TABLE => table = u32_at(value, 0)?,
            libc::RTA_OIF => index = u32_at(value, 0),
            _ => {}
        }
    }
    Some(Event::DefaultRouteChanged { family, index, table })
}

fn rule_event(message: &Message<'_>, own_protocol: u8) -> Option<Event> {
    // struct fib_rule_hdr has the length of struct rtmsg.
    const HEADER: usize = 12;
    let ours = message
        .attributes(HEADER)
        .any(|(kind, value)| kind == FRA_PROTOCOL && value.first() == Some(&own_protocol));
    ours.then_some(Event::OwnedRemoved)
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
