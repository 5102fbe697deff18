//! Devices, addresses, routes and rules of a namespace, by netlink, blocking.

use std::fmt::Write;
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Error, Handle, IpVersion, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::{Namespace, context};
use crate::prefix::Prefix;

/// A route to add or remove. Built up: `Route::to(prefix("0.0.0.0/0")).via(gateway).device("wan1").metric(10)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    destination: Prefix,
    via: Option<IpAddr>,
    device: Option<String>,
    source: Option<IpAddr>,
    metric: Option<u32>,
    table: u32,
}

impl Route {
    /// A route to this network, in the main table.
    pub fn to(destination: Prefix) -> Self {
        let table = u32::from(RouteHeader::RT_TABLE_MAIN);
        Route { destination, via: None, device: None, source: None, metric: None, table }
    }

    /// A default route through this gateway.
    pub fn default_via(gateway: IpAddr) -> Self {
        let all = if gateway.is_ipv4() { Prefix::DEFAULT_V4 } else { Prefix::DEFAULT_V6 };
        Route::to(all).via(gateway)
    }

    /// Through this gateway.
    pub fn via(self, gateway: IpAddr) -> Self {
        Route { via: Some(gateway), ..self }
    }

    /// Out of this device.
    pub fn device(self, device: &str) -> Self {
        Route { device: Some(device.to_owned()), ..self }
    }

    /// With this preferred source address.
    pub fn source(self, source: IpAddr) -> Self {
        Route { source: Some(source), ..self }
    }

    /// With this metric; the smaller one wins.
    pub fn metric(self, metric: u32) -> Self {
        Route { metric: Some(metric), ..self }
    }

    /// In this table instead of main.
    pub fn table(self, table: u32) -> Self {
        Route { table, ..self }
    }

    fn message(&self, index: Option<u32>) -> io::Result<RouteMessage> {
        let mixed = || io::Error::new(io::ErrorKind::InvalidInput, "a route mixes IPv4 and IPv6");
        let mut message = match self.destination.address {
            IpAddr::V4(address) => {
                let builder = RouteMessageBuilder::<std::net::Ipv4Addr>::new();
                builder.destination_prefix(address, self.destination.length).build()
            }
            IpAddr::V6(address) => {
                let builder = RouteMessageBuilder::<std::net::Ipv6Addr>::new();
                builder.destination_prefix(address, self.destination.length).build()
            }
        };
        let same_family = |address: &IpAddr| address.is_ipv4() == self.destination.address.is_ipv4();
        if !self.via.iter().chain(&self.source).all(same_family) {
            return Err(mixed());
        }
        message.header.table = u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
        let attributes = &mut message.attributes;
        attributes.push(RouteAttribute::Table(self.table));
        attributes.extend(self.via.map(|via| RouteAttribute::Gateway(route_address(via))));
        attributes.extend(self.source.map(|source| RouteAttribute::PrefSource(route_address(source))));
        attributes.extend(self.metric.map(RouteAttribute::Priority));
        attributes.extend(index.map(RouteAttribute::Oif));
        Ok(message)
    }
}

/// A policy routing rule to add or remove: `Rule::lookup(100).from(prefix("10.0.1.2/32")).priority(1000)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    table: u32,
    from: Option<Prefix>,
    mark: Option<u32>,
    priority: Option<u32>,
    version: IpVersion,
}

impl Rule {
    /// Looks up this table; for IPv4 unless [`from`](Self::from) or [`v6`](Self::v6) says otherwise.
    pub fn lookup(table: u32) -> Self {
        Rule { table, from: None, mark: None, priority: None, version: IpVersion::V4 }
    }

    /// For packets from this network.
    pub fn from(self, from: Prefix) -> Self {
        let version = if from.address.is_ipv4() { IpVersion::V4 } else { IpVersion::V6 };
        Rule { from: Some(from), version, ..self }
    }

    /// For packets with this firewall mark.
    pub fn mark(self, mark: u32) -> Self {
        Rule { mark: Some(mark), ..self }
    }

    /// With this place in the order of rules; the smaller one comes first.
    pub fn priority(self, priority: u32) -> Self {
        Rule { priority: Some(priority), ..self }
    }

    /// For IPv6.
    pub fn v6(self) -> Self {
        Rule { version: IpVersion::V6, ..self }
    }

    fn message(&self) -> RuleMessage {
        let mut message = RuleMessage::default();
        message.header.family = match self.version {
            IpVersion::V4 => AddressFamily::Inet,
            IpVersion::V6 => AddressFamily::Inet6,
        };
        message.header.table = u8::try_from(self.table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
        message.header.action = RuleAction::ToTable;
        message.attributes.push(RuleAttribute::Table(self.table));
        if let Some(from) = self.from {
            message.header.src_len = from.length;
            message.attributes.push(RuleAttribute::Source(from.address));
        }
        message.attributes.extend(self.mark.map(RuleAttribute::FwMark));
        message.attributes.extend(self.priority.map(RuleAttribute::Priority));
        message
    }
}

impl Namespace {
    /// A pair of virtual Ethernet devices: `name` here, `peer_name` in `peer`; both are up.
    ///
    /// # Errors
    ///
    /// When a name is taken.
    pub fn add_veth(&self, name: &str, peer: &Namespace, peer_name: &str) -> io::Result<()> {
        let far = LinkUnspec::new_with_name(peer_name)
            .append_extra_attribute(LinkAttribute::NetNsFd(peer.inner.file.as_raw_fd()))
            .build();
        let pair = LinkVeth::new(name, peer_name).set_info_data(InfoData::Veth(InfoVeth::Peer(far))).build();
        self.netlink(async |handle| handle.link().add(pair).execute().await)
            .map_err(|error| context(error, format_args!("veth {name} – {peer_name}")))?;
        self.link_up(name)?;
        peer.link_up(peer_name)?;
        self.wait_for_link_local(name)?;
        peer.wait_for_link_local(peer_name)
    }

    /// Waits until a device that is up has its IPv6 link-local address and the local route to it, which the kernel gives
    /// it one after the other a moment later; so that what is done next meets a network at rest. Returns at once where
    /// it gets none.
    ///
    /// # Errors
    ///
    /// When there is no such device, or it has none of these after half a minute.
    pub fn wait_for_link_local(&self, device: &str) -> io::Result<()> {
        let setting = |name: &str| self.sysctl(&format!("net/ipv6/conf/{device}/{name}"));
        let expected = setting("disable_ipv6").is_ok_and(|value| value == "0")
            && setting("addr_gen_mode").is_ok_and(|value| value != "1");
        let deadline = Instant::now() + Duration::from_secs(30);
        let link_local = |own: &Prefix| matches!(own.address, IpAddr::V6(own) if own.is_unicast_link_local());
        let is_at_rest = || -> io::Result<bool> {
            let Some(own) = self.addresses(device)?.into_iter().find(link_local) else { return Ok(false) };
            let route = format!("route Inet6 Local table 255 {}/128 device {device}", own.address);
            Ok(self.snapshot()?.contains(&route))
        };
        while expected && !is_at_rest()? {
            if Instant::now() > deadline {
                let what = format!("device {device} in {} has no IPv6 link-local address", self.name());
                return Err(io::Error::new(io::ErrorKind::TimedOut, what));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The index of a device.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn link_index(&self, device: &str) -> io::Result<u32> {
        self.device_netlink(device, async |_, index| Ok(index))
    }

    /// Brings a device up.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn link_up(&self, device: &str) -> io::Result<()> {
        self.device_netlink(device, async |handle, index| {
            handle.link().set(LinkUnspec::new_with_index(index).up().build()).execute().await
        })
    }

    /// Whether a device has a carrier (a cable that leads somewhere).
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn has_carrier(&self, device: &str) -> io::Result<bool> {
        self.device_netlink(device, async |handle, index| {
            let link = handle.link().get().match_index(index).execute().try_next().await?;
            Ok(link.is_some_and(|link| link.header.flags.contains(LinkFlags::LowerUp)))
        })
    }

    /// Sets the MTU of a device.
    ///
    /// # Errors
    ///
    /// When there is none of that name, or it refuses the MTU.
    pub fn set_mtu(&self, device: &str, mtu: u32) -> io::Result<()> {
        self.device_netlink(device, async |handle, index| {
            handle.link().set(LinkUnspec::new_with_index(index).mtu(mtu).build()).execute().await
        })
    }

    /// Sets the length of a device's transmit queue in packets; for a TAP also of the queue its holder reads.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn set_transmit_queue(&self, device: &str, packets: u32) -> io::Result<()> {
        self.device_netlink(device, async |handle, index| {
            let link = LinkUnspec::new_with_index(index)
                .append_extra_attribute(LinkAttribute::TxQueueLen(packets))
                .build();
            handle.link().set(link).execute().await
        })
    }

    /// Removes a device.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn remove_link(&self, device: &str) -> io::Result<()> {
        self.device_netlink(device, async |handle, index| handle.link().del(index).execute().await)
    }

    /// Gives a device an address; IPv6 without duplicate address detection.
    ///
    /// # Errors
    ///
    /// When there is no such device, or it has the address.
    pub fn add_address(&self, device: &str, address: Prefix) -> io::Result<()> {
        let added = self.device_netlink(device, async |handle, index| {
            let mut request = handle.address().add(index, address.address, address.length);
            if address.address.is_ipv6() {
                let message = request.message_mut();
                message.header.flags |= AddressHeaderFlags::Nodad;
                message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
            }
            request.execute().await
        });
        added.map_err(|error| context(error, format_args!("address {address}")))
    }

    /// Takes an address from a device.
    ///
    /// # Errors
    ///
    /// When there is no such device, or it has no such address.
    pub fn remove_address(&self, device: &str, address: Prefix) -> io::Result<()> {
        let removed = self.device_netlink(device, async |handle, index| {
            let addresses = handle.address().get().set_link_index_filter(index);
            let addresses = addresses.set_address_filter(address.address);
            let found = addresses.set_prefix_length_filter(address.length).execute().try_next().await?;
            let Some(found) = found else { return Err(not_found(libc::EADDRNOTAVAIL)) };
            handle.address().del(found).execute().await
        });
        removed.map_err(|error| context(error, format_args!("remove address {address}")))
    }

    /// Adds a route.
    ///
    /// # Errors
    ///
    /// When it exists, or its gateway cannot be reached.
    pub fn add_route(&self, route: &Route) -> io::Result<()> {
        let index = route.device.as_deref().map(|device| self.link_index(device)).transpose()?;
        let message = route.message(index)?;
        self.netlink(async |handle| handle.route().add(message).execute().await)
            .map_err(|error| context(error, format_args!("{route:?}")))
    }

    /// Removes a route.
    ///
    /// # Errors
    ///
    /// When there is none like it.
    pub fn remove_route(&self, route: &Route) -> io::Result<()> {
        let index = route.device.as_deref().map(|device| self.link_index(device)).transpose()?;
        let message = route.message(index)?;
        self.netlink(async |handle| handle.route().del(message).execute().await)
            .map_err(|error| context(error, format_args!("remove {route:?}")))
    }

    /// Adds a policy routing rule.
    ///
    /// # Errors
    ///
    /// When it exists.
    pub fn add_rule(&self, rule: &Rule) -> io::Result<()> {
        self.netlink(async |handle| {
            let mut request = handle.rule().add();
            *request.message_mut() = rule.message();
            request.execute().await
        })
        .map_err(|error| context(error, format_args!("{rule:?}")))
    }

    /// Removes a policy routing rule.
    ///
    /// # Errors
    ///
    /// When there is none like it.
    pub fn remove_rule(&self, rule: &Rule) -> io::Result<()> {
        self.netlink(async |handle| handle.rule().del(rule.message()).execute().await)
            .map_err(|error| context(error, format_args!("remove {rule:?}")))
    }

    /// The addresses of a device.
    ///
    /// # Errors
    ///
    /// When there is none of that name.
    pub fn addresses(&self, device: &str) -> io::Result<Vec<Prefix>> {
        self.device_netlink(device, async |handle, index| {
            let mut found = Vec::new();
            let mut addresses = handle.address().get().set_link_index_filter(index).execute();
            while let Some(message) = addresses.try_next().await? {
                let length = message.header.prefix_len;
                found.extend(message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Address(address) => Some(Prefix { address: *address, length }),
                    _ => None,
                }));
            }
            Ok(found)
        })
    }

    /// All devices (state and MTU), addresses, routes of all tables, and rules, one line each, sorted: to be compared
    /// before and after, by a test that nothing is left behind.
    ///
    /// # Errors
    ///
    /// When the kernel does not answer.
    pub fn snapshot(&self) -> io::Result<Vec<String>> {
        let mut lines = self.netlink(async |handle| {
            let (names, mut lines) = dump_links(&handle).await?;
            dump_addresses(&handle, &names, &mut lines).await?;
            for version in [IpVersion::V4, IpVersion::V6] {
                dump_routes(&handle, version.clone(), &names, &mut lines).await?;
                dump_rules(&handle, version, &mut lines).await?;
            }
            Ok(lines)
        })?;
        lines.sort();
        Ok(lines)
    }

    /// [`Namespace::netlink`], with the index of a device looked up first.
    fn device_netlink<R: Send, F: Future<Output = Result<R, Error>>>(
        &self,
        device: &str,
        work: impl FnOnce(Handle, u32) -> F + Send,
    ) -> io::Result<R> {
        self.netlink(async |handle| {
            let mut links = handle.link().get().match_name(device.to_owned()).execute();
            let Some(link) = links.try_next().await? else { return Err(not_found(libc::ENODEV)) };
            drop(links);
            work(handle, link.header.index).await
        })
        .map_err(|error| context(error, format_args!("device {device} in {}", self.name())))
    }

    /// Runs `work` with a netlink socket of the namespace.
    fn netlink<R: Send, F: Future<Output = Result<R, Error>>>(
        &self,
        work: impl FnOnce(Handle) -> F + Send,
    ) -> io::Result<R> {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection()?;
                tokio::spawn(connection);
                work(handle).await.map_err(to_io)
            })
        })
    }
}

type Names = std::collections::HashMap<u32, String>;

async fn dump_links(handle: &Handle) -> Result<(Names, Vec<String>), Error> {
    let (mut names, mut lines) = (Names::new(), Vec::new());
    let mut links = handle.link().get().execute();
    while let Some(link) = links.try_next().await? {
        let (mut name, mut mtu) = (String::new(), 0);
        for attribute in link.attributes {
            match attribute {
                LinkAttribute::IfName(value) => name = value,
                LinkAttribute::Mtu(value) => mtu = value,
                _ => {}
            }
        }
        let state = if link.header.flags.contains(LinkFlags::Up) { "up" } else { "down" };
        lines.push(format!("link {name} {state} mtu {mtu}"));
        names.insert(link.header.index, name);
    }
    Ok((names, lines))
}

async fn dump_addresses(handle: &Handle, names: &Names, lines: &mut Vec<String>) -> Result<(), Error> {
    let mut addresses = handle.address().get().execute();
    while let Some(message) = addresses.try_next().await? {
        for attribute in &message.attributes {
            if let AddressAttribute::Address(address) = attribute {
                let device = device_name(names, message.header.index);
                lines.push(format!("address {address}/{} device {device}", message.header.prefix_len));
            }
        }
    }
    Ok(())
}

async fn dump_routes(
    handle: &Handle,
    version: IpVersion,
    names: &Names,
    lines: &mut Vec<String>,
) -> Result<(), Error> {
    let filter = match version {
        IpVersion::V4 => RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
        IpVersion::V6 => RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
    };
    let mut routes = handle.route().get(filter).execute();
    while let Some(route) = routes.try_next().await? {
        let mut table = u32::from(route.header.table);
        let mut destination = "default".to_owned();
        // In the order of `ip route`, whatever the kernel's.
        let (mut via, mut device) = (String::new(), String::new());
        let (mut source, mut metric) = (String::new(), String::new());
        for attribute in &route.attributes {
            match attribute {
                RouteAttribute::Table(value) => table = *value,
                RouteAttribute::Destination(to) => {
                    destination = format!("{}/{}", show(to), route.header.destination_prefix_length);
                }
                RouteAttribute::Gateway(gateway) => via = format!(" via {}", show(gateway)),
                RouteAttribute::Oif(index) => device = format!(" device {}", device_name(names, *index)),
                RouteAttribute::PrefSource(address) => source = format!(" source {}", show(address)),
                RouteAttribute::Priority(value) if *value > 0 => metric = format!(" metric {value}"),
                _ => {}
            }
        }
        let (family, kind) = (route.header.address_family, route.header.kind);
        lines.push(format!(
            "route {family:?} {kind:?} table {table} {destination}{via}{device}{source}{metric}"
        ));
    }
    Ok(())
}

async fn dump_rules(handle: &Handle, version: IpVersion, lines: &mut Vec<String>) -> Result<(), Error> {
    let mut rules = handle.rule().get(version).execute();
    while let Some(rule) = rules.try_next().await? {
        let mut line = format!("rule {:?}", rule.header.family);
        let mut table = u32::from(rule.header.table);
        let mut priority = 0;
        for attribute in &rule.attributes {
            let _ = match attribute {
                RuleAttribute::Table(value) => {
                    table = *value;
                    Ok(())
                }
                RuleAttribute::Priority(value) => {
                    priority = *value;
                    Ok(())
                }
                RuleAttribute::Source(from) => write!(line, " from {from}/{}", rule.header.src_len),
                RuleAttribute::Destination(to) => write!(line, " to {to}/{}", rule.header.dst_len),
                RuleAttribute::FwMark(mark) => write!(line, " fwmark {mark:#x}"),
                RuleAttribute::FwMask(mask) => write!(line, "/{mask:#x}"),
                RuleAttribute::Iifname(name) => write!(line, " iif {name}"),
                RuleAttribute::Oifname(name) => write!(line, " oif {name}"),
                _ => Ok(()),
            };
        }
        let _ = write!(line, " priority {priority} lookup {table}");
        lines.push(line);
    }
    Ok(())
}

fn device_name(names: &Names, index: u32) -> String {
    names.get(&index).cloned().unwrap_or_else(|| format!("#{index}"))
}

fn show(address: &RouteAddress) -> String {
    match address {
        RouteAddress::Inet(address) => address.to_string(),
        RouteAddress::Inet6(address) => address.to_string(),
        other => format!("{other:?}"),
    }
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(address) => RouteAddress::Inet(address),
        IpAddr::V6(address) => RouteAddress::Inet6(address),
    }
}

/// The error of a thing that a dump did not contain.
fn not_found(errno: i32) -> Error {
    let mut message = rtnetlink::packet_core::ErrorMessage::default();
    message.code = std::num::NonZero::new(-errno);
    Error::NetlinkError(message)
}

fn to_io(error: Error) -> io::Error {
    match error {
        Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
