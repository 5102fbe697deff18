//! The standard network of the tests.
//!
//! ```text
//!  lan ─────── router ══ lines ══ provider ── server ─────── inet
//!  192.168.1.2  .1 │              (emulator)  203.0.113.1     198.51.100.2
//!                  ├ wan1 10.0.1.2 → 10.0.1.1
//!                  └ wan2 10.0.2.2 → 10.0.2.1
//! ```
//!
//! | namespace | device | IPv4 | IPv6 |
//! | --- | --- | --- | --- |
//! | lan | `eth0` | 192.168.1.2/24, default via .1 | fd00:a::2/64, default via ::1 |
//! | router | `lan0` | 192.168.1.1/24 | fd00:a::1/64 |
//! | router | `wanN` (N from 1) | 10.0.N.2/24, default via 10.0.N.1, metric N | fd00:N::2/64, default via fd00:N::1 |
//! | box N | | 10.0.N.1, outside 192.0.2.N | fd00:N::1, fe80::N |
//! | server | `wan0` | 203.0.113.1/24, default via .254 | 2001:db8:203::1/64, default via ::fe |
//! | server | `inet0` | 198.51.100.1/24 | 2001:db8:198::1/64 |
//! | inet | `eth0` | 198.51.100.2/24, default via .1 | 2001:db8:198::2/64, default via ::1 |
//!
//! Router and server forward. The LAN and the internet side always have both families; [`Plan::family`] is about the
//! lines. IPv4 is translated by the boxes unless [`Plan::nat`] says otherwise; IPv6 is routed, except on a shared card
//! with one address, where it could not come back through the right box. What the server is to know about the LAN
//! (routes, translation) is left to what is tested.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::emulator::{Emulator, EmulatorBuilder, LineHandle, LineSetup, NatConfig};
use crate::namespace::{Namespace, Route};
use crate::prefix::Prefix;
use crate::scenario::Scenario;

/// IP versions of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both.
    #[default]
    Dual,
}

/// How the router is connected to the boxes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cards {
    /// A card for each line: `wan1`, `wan2`, …
    #[default]
    Each,
    /// All boxes on `wan1`, in one subnet, and the router has one address there: 10.0.1.2, gateways 10.0.1.1,
    /// 10.0.1.21, 10.0.1.31, … (IPv6: fd00:1::2, gateways fd00:1::1, fd00:1::21, …).
    OneSubnet,
    /// All boxes on `wan1`, each in a subnet of its own; the router's further addresses are aliases on the card.
    TwoSubnets,
}

/// What network to build.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The lines.
    pub scenario: Scenario,
    /// IP versions of the lines.
    pub family: Family,
    /// Cards of the router.
    pub cards: Cards,
    /// Whether the boxes translate IPv4.
    pub nat: bool,
    /// Everything random in the lines follows from it.
    pub seed: u64,
}

impl Plan {
    /// The scenario with a card for each line, both families, and address translation.
    pub fn new(scenario: Scenario) -> Self {
        Plan { scenario, family: Family::default(), cards: Cards::default(), nat: true, seed: 1 }
    }

    /// With these IP versions on the lines.
    pub fn family(self, family: Family) -> Self {
        Plan { family, ..self }
    }

    /// With the boxes on these cards.
    pub fn cards(self, cards: Cards) -> Self {
        Plan { cards, ..self }
    }

    /// With or without address translation in the boxes.
    pub fn nat(self, nat: bool) -> Self {
        Plan { nat, ..self }
    }

    /// With this seed.
    pub fn seed(self, seed: u64) -> Self {
        Plan { seed, ..self }
    }

    /// Builds the network.
    ///
    /// # Errors
    ///
    /// Without privilege, and when the plan has no line, more than 9, or cannot work (routed IPv4 from one address).
    pub fn build(self) -> io::Result<Topology> {
        Topology::build(self)
    }
}

/// The router's end of a line.
#[derive(Clone, Debug)]
pub struct WanLine {
    /// The line: commands and figures.
    pub line: LineHandle,
    /// The router's card.
    pub device: String,
    /// The router's addresses for this line.
    pub addresses: Vec<Prefix>,
    /// The box's addresses to be used as next hop, one of each family.
    pub gateways: Vec<IpAddr>,
    /// The plan's number, from 1.
    pub number: u8,
}

impl WanLine {
    /// The router's IPv4 address on the line.
    pub fn address_v4(&self) -> Option<IpAddr> {
        self.addresses.iter().map(|own| own.address).find(IpAddr::is_ipv4)
    }

    /// The router's IPv6 address on the line.
    pub fn address_v6(&self) -> Option<IpAddr> {
        self.addresses.iter().map(|own| own.address).find(IpAddr::is_ipv6)
    }

    /// The box's IPv4 address.
    pub fn gateway_v4(&self) -> Option<IpAddr> {
        self.gateways.iter().copied().find(IpAddr::is_ipv4)
    }

    /// The box's IPv6 address.
    pub fn gateway_v6(&self) -> Option<IpAddr> {
        self.gateways.iter().copied().find(IpAddr::is_ipv6)
    }
}

/// The network at work. It is gone when this is dropped.
#[derive(Debug)]
pub struct Topology {
    /// The lines, in the order of the scenario.
    pub lines: Vec<WanLine>,
    /// A host in the LAN behind the router.
    pub lan: Namespace,
    /// The router.
    pub router: Namespace,
    /// The server in the datacentre.
    pub server: Namespace,
    /// A host in the internet behind the server.
    pub inet: Namespace,
    /// What was built.
    pub plan: Plan,
    // Last, so that the devices outlive nothing that uses them.
    emulator: Emulator,
}

impl Topology {
    /// The LAN host's IPv4 address.
    pub const LAN_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 2));
    /// The LAN host's IPv6 address.
    pub const LAN_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 2));
    /// The router's IPv4 address in the LAN.
    pub const ROUTER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1));
    /// The router's IPv6 address in the LAN.
    pub const ROUTER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0xa, 0, 0, 0, 0, 0, 1));
    /// The server's IPv4 address.
    pub const SERVER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
    /// The server's IPv6 address.
    pub const SERVER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x203, 0, 0, 0, 0, 1));
    /// The internet host's IPv4 address.
    pub const INET_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
    /// The internet host's IPv6 address.
    pub const INET_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x198, 0, 0, 0, 0, 2));

    const PROVIDER_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 254));
    const PROVIDER_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x203, 0, 0, 0, 0, 0xfe));
    const SERVER_INSIDE_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
    const SERVER_INSIDE_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x198, 0, 0, 0, 0, 1));

    /// Builds the network of a plan.
    ///
    /// # Errors
    ///
    /// As [`Plan::build`].
    pub fn build(plan: Plan) -> io::Result<Self> {
        plan.check()?;
        let lan = Namespace::new("lan")?;
        let router = Namespace::new("router")?;
        let server = Namespace::new("server")?;
        let inet = Namespace::new("inet")?;
        join(&router, "lan0", [Self::ROUTER_V4, Self::ROUTER_V6], &lan, [Self::LAN_V4, Self::LAN_V6])?;
        let server_inside = [Self::SERVER_INSIDE_V4, Self::SERVER_INSIDE_V6];
        join(&server, "inet0", server_inside, &inet, [Self::INET_V4, Self::INET_V6])?;
        router.enable_forwarding()?;
        server.enable_forwarding()?;

        let provider = vec![Self::PROVIDER_V4, Self::PROVIDER_V6];
        let mut builder = EmulatorBuilder::new(&server, "wan0", provider.clone(), plan.seed)?;
        server.add_address("wan0", subnet(Self::SERVER_V4))?;
        server.add_address("wan0", subnet(Self::SERVER_V6))?;
        for gateway in provider {
            server.add_route(&Route::default_via(gateway).device("wan0"))?;
        }

        let mut ends = Vec::new();
        let mut card = None;
        for (number, line) in (1u8..).zip(&plan.scenario.lines) {
            let end = plan.end(number);
            let on = match card {
                Some(card) if plan.cards != Cards::Each => card,
                _ => builder.card(&router, &end.device)?,
            };
            card = Some(on);
            let setup = LineSetup {
                name: format!("line {number}"),
                gateways: end.gateways.iter().copied().chain(end.link_local()).collect(),
                inside: end.addresses.iter().map(|own| subnet(own.address)).collect(),
                nat: end.nat.clone(),
                up: line.up.clone(),
                down: line.down.clone(),
            };
            builder.line(on, setup).map_err(io::Error::other)?;
            end.configure(&router)?;
            ends.push(end);
        }
        let emulator = builder.start()?;
        let lines = ends.into_iter().zip(emulator.lines()).map(|(end, line)| end.with(line)).collect();
        Ok(Topology { lines, lan, router, server, inet, plan, emulator })
    }

    /// The lines' emulator.
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// The handle of a line, counted from 0.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn line(&self, index: usize) -> &LineHandle {
        let line = self.lines.get(index);
        &line.unwrap_or_else(|| panic!("the network has {} lines, not {}", self.lines.len(), index + 1)).line
    }
}

impl Plan {
    fn check(&self) -> io::Result<()> {
        let invalid = |why| Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        match self.scenario.lines.len() {
            1..=9 => {}
            _ => return invalid("a network has 1 to 9 lines"),
        }
        if self.cards == Cards::OneSubnet && !self.nat && self.scenario.lines.len() > 1 {
            return invalid("several lines for one address need address translation");
        }
        Ok(())
    }

    /// The router's end of line `number`.
    fn end(&self, number: u8) -> End {
        let n = u16::from(number);
        let (subnet_number, host) = match self.cards {
            // Written like a decimal number in both families.
            Cards::OneSubnet if number > 1 => (1, n * 10 + 1),
            Cards::OneSubnet => (1, 1),
            _ => (n, 1),
        };
        let device = if self.cards == Cards::Each { format!("wan{number}") } else { "wan1".into() };
        let in_subnet = |host: u16| {
            let v6_host = u16::from_str_radix(&host.to_string(), 16).unwrap_or(host);
            let v4 = IpAddr::V4(Ipv4Addr::new(10, 0, subnet_number as u8, host as u8));
            let v6 = IpAddr::V6(Ipv6Addr::new(0xfd00, subnet_number, 0, 0, 0, 0, 0, v6_host));
            let wanted = |address: &IpAddr| match self.family {
                Family::V4 => address.is_ipv4(),
                Family::V6 => address.is_ipv6(),
                Family::Dual => true,
            };
            [v4, v6].into_iter().filter(wanted).collect::<Vec<_>>()
        };
        let shared_address = self.cards == Cards::OneSubnet && self.scenario.lines.len() > 1;
        let nat = NatConfig {
            outside_v4: self.nat.then_some(Ipv4Addr::new(192, 0, 2, number)),
            outside_v6: shared_address.then_some(Ipv6Addr::new(0x2001, 0xdb8, n, 0, 0, 0, 0, 2)),
            ..NatConfig::default()
        };
        End {
            number,
            device,
            addresses: in_subnet(2).into_iter().map(subnet).collect(),
            gateways: in_subnet(host),
            nat,
            owns_addresses: self.cards != Cards::OneSubnet || number == 1,
        }
    }
}

/// The router's end of a line that is being made.
struct End {
    number: u8,
    device: String,
    addresses: Vec<Prefix>,
    gateways: Vec<IpAddr>,
    nat: NatConfig,
    /// The addresses are not those of another line too.
    owns_addresses: bool,
}

impl End {
    /// The box's link-local address, which routers announce as the gateway.
    fn link_local(&self) -> Option<IpAddr> {
        let number = u16::from(self.number);
        let has_v6 = self.gateways.iter().any(IpAddr::is_ipv6);
        has_v6.then_some(IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number)))
    }

    fn configure(&self, router: &Namespace) -> io::Result<()> {
        if self.owns_addresses {
            for address in &self.addresses {
                router.add_address(&self.device, *address)?;
            }
        }
        for gateway in &self.gateways {
            let metric = u32::from(self.number);
            router.add_route(&Route::default_via(*gateway).device(&self.device).metric(metric))?;
        }
        Ok(())
    }

    fn with(self, line: LineHandle) -> WanLine {
        let End { number, device, addresses, gateways, .. } = self;
        WanLine { line, device, addresses, gateways, number }
    }
}

/// Joins a host (its only card is `eth0`) to a gateway.
fn join(
    gateway: &Namespace,
    device: &str,
    inner: [IpAddr; 2],
    host: &Namespace,
    addresses: [IpAddr; 2],
) -> io::Result<()> {
    gateway.add_veth(device, host, "eth0")?;
    for (via, own) in inner.into_iter().zip(addresses) {
        gateway.add_address(device, subnet(via))?;
        host.add_address("eth0", subnet(own))?;
        host.add_route(&Route::default_via(via))?;
    }
    Ok(())
}

/// The address in the usual subnet of its family.
fn subnet(address: IpAddr) -> Prefix {
    Prefix { address, length: if address.is_ipv4() { 24 } else { 64 } }
}
