//! What interfaces there are, with addresses and gateways: a picture at one moment.

use std::net::IpAddr;

use serde::Serialize;

use super::Family;
use super::addresses::AddressInfo;
use super::links::Link;
use super::netlink::{Error, Netlink};
use super::routes::{MAIN, Target};
use crate::bond::sorted::insert_by_key;

/// A default route of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gateway {
    /// IP version.
    pub family: Family,
    /// Next hop; `None` on a point-to-point interface.
    pub address: Option<IpAddr>,
    /// Routing table that the route is in.
    pub table: u32,
    /// Its metric.
    pub metric: u32,
    /// Source address that it asks for.
    pub source: Option<IpAddr>,
}

/// An interface, its addresses, and the default routes through it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Interface {
    /// The interface.
    #[serde(flatten)]
    pub link: Link,
    /// Its addresses.
    pub addresses: Vec<AddressInfo>,
    /// Default routes through it which somebody else than ourselves set: those of the main table first, then by
    /// metric.
    pub gateways: Vec<Gateway>,
}

impl Interface {
    /// The address to send from: global, usable, not deprecated, not a second one; the first of these.
    pub fn address(&self, family: Family) -> Option<&AddressInfo> {
        let candidates = || {
            self.addresses.iter().filter(|info| info.address.family() == family && info.usable && info.global)
        };
        candidates().find(|info| !info.deprecated && !info.secondary).or_else(|| candidates().next())
    }

    /// The default route that counts.
    pub fn gateway(&self, family: Family) -> Option<&Gateway> {
        self.gateways.iter().find(|gateway| gateway.family == family)
    }
}

/// All interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Interfaces {
    /// In order of their indices.
    pub interfaces: Vec<Interface>,
}

impl Interfaces {
    /// Takes the picture. Default routes set by `own_protocol` are ours and left out.
    pub async fn snapshot(netlink: &Netlink, own_protocol: u8) -> Result<Interfaces, Error> {
        let mut interfaces = Vec::new();
        for link in netlink.links().await? {
            let interface = Interface { link, addresses: Vec::new(), gateways: Vec::new() };
            insert_by_key(&mut interfaces, interface, |interface| interface.link.index);
        }
        let find = |interfaces: &mut Vec<Interface>, index: u32| {
            interfaces.binary_search_by_key(&index, |interface| interface.link.index).ok()
        };
        for info in netlink.addresses().await? {
            let position = find(&mut interfaces, info.address.index);
            if let Some(interface) = position.and_then(|i| interfaces.get_mut(i)) {
                interface.addresses.push(info);
            }
        }
        for family in Family::ALL {
            let wanted = |route: &super::routes::RouteInfo| {
                route.destination.is_default() && route.protocol != own_protocol
            };
            for route in netlink.routes(family, None, wanted).await? {
                for target in &route.targets {
                    let Target::Device { index, gateway, source } = *target else { continue };
                    let position = find(&mut interfaces, index);
                    if let Some(interface) = position.and_then(|i| interfaces.get_mut(i)) {
                        let gateway = Gateway {
                            family,
                            address: gateway,
                            table: route.table,
                            metric: route.metric,
                            source,
                        };
                        insert_by_key(&mut interface.gateways, gateway, |gateway| {
                            (gateway.table != MAIN, gateway.metric)
                        });
                    }
                }
            }
        }
        Ok(Interfaces { interfaces })
    }

    /// The interface called `name`.
    pub fn by_name(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.link.name == name)
    }

    /// The interface that holds `address`.
    pub fn by_address(&self, address: IpAddr) -> Option<&Interface> {
        self.interfaces
            .iter()
            .find(|interface| interface.addresses.iter().any(|info| info.address.address == address))
    }
}
