//! Routes.

use std::fmt;
use std::net::IpAddr;

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
    RouteType, RouteVia,
};
use serde::Serialize;

use super::netlink::{Error, Netlink, family_of};
use super::{Family, Prefix};

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

    fn message(&self, protocol: u8) -> Result<RouteMessage, Error> {
        let mut message = RouteMessage::default();
        message.header = RouteHeader {
            address_family: self.family().into(),
            destination_prefix_length: self.destination.length(),
            table: u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC),
            protocol: RouteProtocol::from(protocol),
            ..RouteHeader::default()
        };
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Table(self.table));
        if !self.destination.is_default() {
            attributes.push(RouteAttribute::Destination(self.destination.address().into()));
        }
        if self.metric != 0 {
            attributes.push(RouteAttribute::Priority(self.metric));
        }
        match self.target {
            Target::Device { index, gateway, source } => {
                message.header.kind = RouteType::Unicast;
                attributes.push(RouteAttribute::Oif(index));
                if [gateway, source].into_iter().flatten().any(|a| Family::of(a) != self.family()) {
                    return Err(Error::MixedFamilies(format!("route {self}")));
                }
                if let Some(source) = source {
                    attributes.push(RouteAttribute::PrefSource(source.into()));
                }
                match gateway {
                    Some(gateway) => {
                        attributes.push(RouteAttribute::Gateway(gateway.into()));
                        message.header.flags = RouteFlags::Onlink;
                    }
                    None if self.family() == Family::V4 => message.header.scope = RouteScope::Link,
                    None => {}
                }
            }
            Target::Unreachable => message.header.kind = RouteType::Unreachable,
        }
        Ok(message)
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
    pub(super) fn parse(message: &RouteMessage) -> Option<RouteInfo> {
        let header = &message.header;
        let family = family_of(header.address_family)?;
        // Entries that the kernel keeps for itself: what it cloned from a route for one destination.
        if header.flags.contains(RouteFlags::Cloned) {
            return None;
        }
        let mut destination = family.unspecified();
        let mut table = u32::from(header.table);
        let mut metric = 0;
        let mut source = None;
        let mut hops = vec![Hop::default()];
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(address) => destination = ip(address)?,
                RouteAttribute::Table(value) => table = *value,
                RouteAttribute::Priority(value) => metric = *value,
                RouteAttribute::PrefSource(address) => source = ip(address),
                RouteAttribute::MultiPath(paths) => {
                    hops = paths.iter().map(|path| Hop::of(path.interface_index, &path.attributes)).collect();
                }
                _ => {}
            }
        }
        if let [only] = hops.as_mut_slice()
            && only.index == 0
        {
            *only = Hop::of(0, &message.attributes);
        }
        let targets = match header.kind {
            RouteType::Unicast => hops
                .into_iter()
                .filter(|hop| hop.index != 0)
                .map(|hop| Target::Device { index: hop.index, gateway: hop.gateway, source })
                .collect(),
            RouteType::Unreachable => vec![Target::Unreachable],
            _ => Vec::new(),
        };
        Some(RouteInfo {
            destination: Prefix::new(destination, header.destination_prefix_length),
            table,
            metric,
            protocol: u8::from(header.protocol),
            targets,
        })
    }

    /// As a route of the kind that we set. `None` where it is another kind.
    pub fn route(&self) -> Option<Route> {
        let [target] = self.targets.as_slice() else { return None };
        Some(Route { destination: self.destination, table: self.table, metric: self.metric, target: *target })
    }
}

#[derive(Default)]
struct Hop {
    index: u32,
    gateway: Option<IpAddr>,
}

impl Hop {
    fn of(index: u32, attributes: &[RouteAttribute]) -> Hop {
        let mut hop = Hop { index, gateway: None };
        for attribute in attributes {
            match attribute {
                RouteAttribute::Oif(index) => hop.index = *index,
                RouteAttribute::Gateway(address) => hop.gateway = ip(address),
                RouteAttribute::Via(RouteVia::Inet(address)) => hop.gateway = Some((*address).into()),
                RouteAttribute::Via(RouteVia::Inet6(address)) => hop.gateway = Some((*address).into()),
                _ => {}
            }
        }
        hop
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

impl Netlink {
    /// Routes of one family for which `wanted` holds, of all tables; with `protocol`, only those that it set.
    pub async fn routes(
        &self,
        family: Family,
        protocol: Option<u8>,
        wanted: impl Fn(&RouteInfo) -> bool,
    ) -> Result<Vec<RouteInfo>, Error> {
        let mut request = RouteMessage::default();
        request.header.address_family = family.into();
        request.header.protocol = RouteProtocol::from(protocol.unwrap_or(0));
        self.dump(RouteNetlinkMessage::GetRoute(request), "list the routes", |message| match message {
            RouteNetlinkMessage::NewRoute(route) => RouteInfo::parse(&route).filter(|route| {
                // Kernels before 4.20, and those without the family, list more than was asked for.
                route.destination.family() == family
                    && protocol.is_none_or(|protocol| protocol == route.protocol)
                    && wanted(route)
            }),
            _ => None,
        })
        .await
    }

    /// Sets a route, marked as set by `protocol`. [`Error::Conflict`] when there is a route with the same
    /// destination, table and metric already.
    pub async fn add_route(&self, route: &Route, protocol: u8) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewRoute(route.message(protocol)?);
        let action = || format!("set route {route}");
        match self.acknowledged(message, NLM_F_CREATE | NLM_F_EXCL, action).await {
            Err(error) if error.errno() == Some(libc::EEXIST) => Err(Error::Conflict(action())),
            other => other,
        }
    }

    /// Puts a route in the place of that with the same destination, table and metric, in one step.
    ///
    /// The kernel does not ask who set the old one: make sure that it is ours.
    pub async fn replace_route(&self, route: &Route, protocol: u8) -> Result<(), Error> {
        let message = RouteNetlinkMessage::NewRoute(route.message(protocol)?);
        self.acknowledged(message, NLM_F_CREATE | NLM_F_REPLACE, || format!("replace route {route}")).await
    }

    /// Removes a route if `protocol` set it.
    pub async fn remove_route(&self, route: &Route, protocol: u8) -> Result<(), Error> {
        let message = RouteNetlinkMessage::DelRoute(route.message(protocol)?);
        self.acknowledged(message, 0, || format!("remove route {route}")).await
    }
}
