//! Routes.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use super::message::{
    Attributes, Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Request, family, family_number, ip, u16_at,
    u32_at,
};
use super::netlink::{Error, Netlink};
use super::{Family, Prefix};

/// Length of `struct rtmsg`: family, destination and source length, TOS, table, protocol, scope, type, flags (4).
const STRUCTURE: usize = 12;

/// Length of `struct rtnexthop`, one hop of a multipath route: length (2), flags, weight, index (4); attributes follow.
const HOP: usize = 8;

/// `RTNH_F_ONLINK`: the gateway is on the link, whatever other routes say.
const ON_LINK: u32 = 4;

/// `RTA_VIA`: a gateway of any family.
const RTA_VIA: u16 = 18;

/// `RTM_F_CLONED`: what the kernel keeps of a route for one destination.
pub(super) const CLONED: u32 = 0x200;

/// The main routing table (`RT_TABLE_MAIN`).
pub const MAIN: u32 = 254;

/// The metric that an IPv6 route gets which asks for none (`IP6_RT_PRIO_USER`).
pub const IPV6_DEFAULT_METRIC: u32 = 1024;

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Route {
    /// Which packets.
    pub destination: Prefix,
    /// Routing table.
    pub table: u32,
    /// Of two routes to one destination the one with the lower metric is used. For IPv6, 0 means
    /// [`IPV6_DEFAULT_METRIC`].
    pub metric: u32,
    /// Where they go.
    pub target: Target,
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// Out of a device.
    Device {
        /// Index of the interface.
        index: u32,
        /// Next hop. It is taken to be on the link, whatever other routes say, so that a route does not depend on
        /// another one. `None`: the destination itself is on the link.
        gateway: Option<IpAddr>,
        /// Source address of packets whose sender chose none.
        source: Option<IpAddr>,
    },
    /// Nowhere: the sender is told that the destination cannot be reached.
    Unreachable,
}

/// What two routes cannot have in common within one kernel.
pub(super) type RouteKey = (Prefix, u32, u32);

impl Route {
    /// IP version.
    pub fn family(&self) -> Family {
        self.destination.family()
    }

    pub(super) fn key(&self) -> RouteKey {
        (self.destination, self.table, self.metric)
    }

    /// With the metric that the kernel will show.
    pub(super) fn normalized(mut self) -> Self {
        if self.family() == Family::V6 && self.metric == 0 {
            self.metric = IPV6_DEFAULT_METRIC;
        }
        self
    }

    fn request(&self, kind: u16, protocol: u8) -> Result<Request, Error> {
        let (mut scope, mut flags) = (libc::RT_SCOPE_UNIVERSE, 0);
        let route_type = match self.target {
            Target::Unreachable => libc::RTN_UNREACHABLE,
            Target::Device { gateway, source, .. } => {
                if [gateway, source].into_iter().flatten().any(|a| Family::of(a) != self.family()) {
                    return Err(Error::MixedFamilies(format!("route {self}")));
                }
                match gateway {
                    Some(_) => flags = ON_LINK,
                    None if self.family() == Family::V4 => scope = libc::RT_SCOPE_LINK,
                    None => {}
                }
                libc::RTN_UNICAST
            }
        };
        let table = u8::try_from(self.table).unwrap_or(libc::RT_TABLE_UNSPEC);
        let length = self.destination.length();
        let mut structure =
            vec![family_number(self.family()), length, 0, 0, table, protocol, scope, route_type];
        structure.extend(flags.to_ne_bytes());

        let mut request = Request::new(kind, &structure).with_u32(libc::RTA_TABLE, self.table);
        if !self.destination.is_default() {
            request = request.with_ip(libc::RTA_DST, self.destination.address());
        }
        if self.metric != 0 {
            request = request.with_u32(libc::RTA_PRIORITY, self.metric);
        }
        if let Target::Device { index, gateway, source } = self.target {
            request = request.with_u32(libc::RTA_OIF, index);
            if let Some(source) = source {
                request = request.with_ip(libc::RTA_PREFSRC, source);
            }
            if let Some(gateway) = gateway {
                request = request.with_ip(libc::RTA_GATEWAY, gateway);
            }
        }
        Ok(request)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if matches!(self.target, Target::Unreachable) {
            f.write_str("unreachable ")?;
        }
        match self.destination.is_default() {
            true => write!(f, "default ({})", self.family())?,
            false => write!(f, "{}", self.destination)?,
        }
        if let Target::Device { index, gateway, source } = self.target {
            if let Some(gateway) = gateway {
                write!(f, " via {gateway}")?;
            }
            write!(f, " dev #{index}")?;
            if let Some(source) = source {
                write!(f, " src {source}")?;
            }
        }
        match self.table {
            MAIN => f.write_str(" table main")?,
            table => write!(f, " table {table}")?,
        }
        if self.metric != 0 {
            write!(f, " metric {}", self.metric)?;
        }
        Ok(())
    }
}

/// A route as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteInfo {
    /// Destination.
    pub destination: Prefix,
    /// Routing table.
    pub table: u32,
    /// Metric.
    pub metric: u32,
    /// Who set it (`RTPROT_…`).
    pub protocol: u8,
    /// Where it leads: one, or several of a multipath route; none for a kind of route that we do not use.
    pub targets: Vec<Target>,
}

impl RouteInfo {
    pub(super) fn parse(message: &Message<'_>) -> Option<RouteInfo> {
        let &[number, length, _, _, table, protocol, _, route_type, ..] = message.body else { return None };
        if message.kind != libc::RTM_NEWROUTE || u32_at(message.body, 8)? & CLONED != 0 {
            return None;
        }
        let family = family(number)?;
        let mut destination = family.unspecified();
        let mut table = u32::from(table);
        let mut metric = 0;
        let mut source = None;
        let mut hops = vec![Hop::of(family, 0, message.attributes(STRUCTURE))];
        for (kind, value) in message.attributes(STRUCTURE) {
            match kind {
                libc::RTA_DST => destination = ip(family, value)?,
                libc::RTA_TABLE => table = u32_at(value, 0)?,
                libc::RTA_PRIORITY => metric = u32_at(value, 0)?,
                libc::RTA_PREFSRC => source = ip(family, value),
                libc::RTA_MULTIPATH => hops.extend(Hops { family, rest: value }),
                _ => {}
            }
        }
        let targets = match route_type {
            libc::RTN_UNICAST => hops
                .into_iter()
                .filter(|hop| hop.index != 0)
                .map(|hop| Target::Device { index: hop.index, gateway: hop.gateway, source })
                .collect(),
            libc::RTN_UNREACHABLE => vec![Target::Unreachable],
            _ => Vec::new(),
        };
        Some(RouteInfo { destination: Prefix::new(destination, length), table, metric, protocol, targets })
    }

    /// As a route of the kind that we set. `None` where it is another kind.
    pub fn route(&self) -> Option<Route> {
        let [target] = self.targets.as_slice() else { return None };
        Some(Route { destination: self.destination, table: self.table, metric: self.metric, target: *target })
    }
}

struct Hop {
    index: u32,
    gateway: Option<IpAddr>,
}

impl Hop {
    fn of(family: Family, index: u32, attributes: Attributes<'_>) -> Hop {
        let mut hop = Hop { index, gateway: None };
        for (kind, value) in attributes {
            match kind {
                libc::RTA_OIF => hop.index = u32_at(value, 0).unwrap_or(0),
                libc::RTA_GATEWAY => hop.gateway = ip(family, value),
                // struct rtvia: the family (2) and the address.
                RTA_VIA => hop.gateway = via(value),
                _ => {}
            }
        }
        hop
    }
}

fn via(value: &[u8]) -> Option<IpAddr> {
    ip(family(u8::try_from(u16_at(value, 0)?).ok()?)?, value.get(2..)?)
}

/// The hops of a multipath route.
struct Hops<'a> {
    family: Family,
    rest: &'a [u8],
}

impl Iterator for Hops<'_> {
    type Item = Hop;

    fn next(&mut self) -> Option<Hop> {
        let len = usize::from(u16_at(self.rest, 0)?);
        let index = u32_at(self.rest, 4)?;
        let attributes = Attributes::nested(self.rest.get(HOP..len)?);
        self.rest = self.rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Hop::of(self.family, index, attributes))
    }
}

impl Netlink {
    /// Routes of one family for which `wanted` holds, of all tables; with `protocol`, only those that it set.
    pub async fn routes(
        &self,
        family: Family,
        protocol: Option<u8>,
        wanted: impl Fn(&RouteInfo) -> bool + Sync,
    ) -> Result<Vec<RouteInfo>, Error> {
        let mut structure = [0; STRUCTURE];
        structure[0] = family_number(family);
        structure[5] = protocol.unwrap_or(0);
        let request = Request::new(libc::RTM_GETROUTE, &structure);
        self.dump(request, "list the routes", |message| {
            RouteInfo::parse(message).filter(|route| {
                // Kernels before 4.20, and those without the family, list more than was asked for.
                route.destination.family() == family
                    && protocol.is_none_or(|protocol| protocol == route.protocol)
                    && wanted(route)
            })
        })
        .await
    }

    /// Sets a route, marked as set by `protocol`. [`Error::Conflict`] when there is a route with the same
    /// destination, table and metric already.
    pub async fn add_route(&self, route: &Route, protocol: u8) -> Result<(), Error> {
        let request = route.request(libc::RTM_NEWROUTE, protocol)?;
        let action = format!("set route {route}");
        match self.acknowledged(request, NLM_F_CREATE | NLM_F_EXCL, &action).await {
            Err(error) if error.errno() == Some(libc::EEXIST) => Err(Error::Conflict(action)),
            other => other,
        }
    }

    /// Puts a route in the place of that with the same destination, table and metric, in one step.
    ///
    /// The kernel does not ask who set the old one: make sure that it is ours.
    pub async fn replace_route(&self, route: &Route, protocol: u8) -> Result<(), Error> {
        let request = route.request(libc::RTM_NEWROUTE, protocol)?;
        self.acknowledged(request, NLM_F_CREATE | NLM_F_REPLACE, &format!("replace route {route}")).await
    }

    /// Removes a route if `protocol` set it.
    pub async fn remove_route(&self, route: &Route, protocol: u8) -> Result<(), Error> {
        let request = route.request(libc::RTM_DELROUTE, protocol)?;
        self.acknowledged(request, 0, &format!("remove route {route}")).await
    }
}
