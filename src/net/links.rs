//! Network interfaces: looking them up, setting them up and down, MTU.

use serde::Serialize;

use super::message::{Message, Request, text, u32_at};
use super::netlink::{Error, Netlink};

/// Length of `struct ifinfomsg`: family, padding, hardware type (2), index (4), flags (4), which of them to change (4).
pub(super) const STRUCTURE: usize = 16;

/// `IFF_LOWER_UP`, which `libc` lacks for some targets.
pub(super) const IFF_LOWER_UP: u32 = 1 << 16;

/// `RTEXT_FILTER_SKIP_STATS`: the kernel need not count every interface's packets to tell its name.
const SKIP_STATISTICS: u32 = 1 << 3;

/// A network interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    /// Index. A device that goes and comes back has another one.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Whether it was set up (`IFF_UP`).
    pub up: bool,
    /// Whether it has a carrier (`IFF_LOWER_UP`): the cable is in, the modem answers.
    pub carrier: bool,
    /// Whether there is one peer only and no neighbour discovery (`IFF_POINTOPOINT`): PPP, TUN, LTE modems.
    pub point_to_point: bool,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// MTU in bytes.
    pub mtu: u32,
}

impl Link {
    pub(super) fn parse(message: &Message<'_>) -> Option<Link> {
        if message.kind != libc::RTM_NEWLINK {
            return None;
        }
        let flags = u32_at(message.body, 8)?;
        let mut name = None;
        let mut mtu = 0;
        for (kind, value) in message.attributes(STRUCTURE) {
            match kind {
                libc::IFLA_IFNAME => name = Some(text(value)),
                libc::IFLA_MTU => mtu = u32_at(value, 0)?,
                _ => {}
            }
        }
        Some(Link {
            index: u32_at(message.body, 4)?,
            name: name?,
            up: flags & libc::IFF_UP as u32 != 0,
            carrier: flags & IFF_LOWER_UP != 0,
            point_to_point: flags & libc::IFF_POINTOPOINT as u32 != 0,
            loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
            mtu,
        })
    }
}

/// `struct ifinfomsg`.
pub(super) fn structure(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [0, index, flags, change].iter().flat_map(|field: &u32| field.to_ne_bytes()).collect()
}

pub(super) fn question(index: u32) -> Request {
    Request::new(libc::RTM_GETLINK, &structure(index, 0, 0)).with_u32(libc::IFLA_EXT_MASK, SKIP_STATISTICS)
}

impl Netlink {
    /// All interfaces.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        self.dump(question(0), "list the network interfaces", Link::parse).await
    }

    /// The interface called `name`; [`Error::NoLink`] when there is none.
    pub async fn link_by_name(&self, name: &str) -> Result<Link, Error> {
        self.find_link(question(0).with_text(libc::IFLA_IFNAME, name), name).await
    }

    /// Sets an interface up or down.
    pub async fn set_link_up(&self, index: u32, up: bool) -> Result<(), Error> {
        let bit = libc::IFF_UP as u32;
        let request = Request::new(libc::RTM_SETLINK, &structure(index, if up { bit } else { 0 }, bit));
        let word = if up { "up" } else { "down" };
        let action = format!("set interface #{index} {word}");
        self.acknowledged(request, 0, &action).await
    }

    /// Sets an interface's MTU, in bytes.
    pub async fn set_link_mtu(&self, index: u32, mtu: u32) -> Result<(), Error> {
        let request = Request::new(libc::RTM_SETLINK, &structure(index, 0, 0)).with_u32(libc::IFLA_MTU, mtu);
        let action = format!("set the MTU of interface #{index} to {mtu}");
        self.acknowledged(request, 0, &action).await
    }

    /// The alias of an interface (`ip link set DEVICE alias TEXT`), empty when it has none.
    pub async fn link_alias(&self, index: u32) -> Result<String, Error> {
        let action = format!("look up interface #{index}");
        let alias = |message: &Message<'_>| {
            (message.kind == libc::RTM_NEWLINK).then_some(())?;
            message
                .attributes(STRUCTURE)
                .find_map(|(kind, value)| (kind == libc::IFLA_IFALIAS).then(|| text(value)))
        };
        Ok(self.get(question(index), &action, alias).await?.unwrap_or_default())
    }

    /// Sets the alias of an interface.
    pub async fn set_link_alias(&self, index: u32, alias: &str) -> Result<(), Error> {
        let request =
            Request::new(libc::RTM_SETLINK, &structure(index, 0, 0)).with_text(libc::IFLA_IFALIAS, alias);
        self.acknowledged(request, 0, &format!("set the alias of interface #{index}")).await
    }

    /// Removes an interface of a kind that a request can make and remove.
    pub async fn delete_link(&self, index: u32) -> Result<(), Error> {
        let request = Request::new(libc::RTM_DELLINK, &structure(index, 0, 0));
        self.acknowledged(request, 0, &format!("remove interface #{index}")).await
    }

    async fn find_link(&self, request: Request, name: &str) -> Result<Link, Error> {
        let action = format!("look up interface '{name}'");
        self.get(request, &action, Link::parse).await?.ok_or_else(|| Error::NoLink(name.to_owned()))
    }
}
