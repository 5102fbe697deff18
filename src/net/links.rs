//! Network interfaces: looking them up, setting them up and down, MTU.

use rtnetlink::LinkUnspec;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkExtentMask, LinkFlags, LinkMessage};
use serde::Serialize;

use super::netlink::{Error, Netlink};

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
    pub(super) fn parse(message: &LinkMessage) -> Option<Link> {
        let mut name = None;
        let mut mtu = 0;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(text) => name = Some(text.clone()),
                LinkAttribute::Mtu(value) => mtu = *value,
                _ => {}
            }
        }
        let flags = message.header.flags;
        Some(Link {
            index: message.header.index,
            name: name?,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            point_to_point: flags.contains(LinkFlags::Pointopoint),
            loopback: flags.contains(LinkFlags::Loopback),
            mtu,
        })
    }
}

/// The kernel need not count every interface's packets to tell its name.
fn without_statistics() -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message
}

impl Netlink {
    /// All interfaces.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let request = RouteNetlinkMessage::GetLink(without_statistics());
        self.dump(request, "list the network interfaces", |message| match message {
            RouteNetlinkMessage::NewLink(link) => Link::parse(&link),
            _ => None,
        })
        .await
    }

    /// The interface called `name`; [`Error::NoLink`] when there is none.
    pub async fn link_by_name(&self, name: &str) -> Result<Link, Error> {
        let mut request = without_statistics();
        request.attributes.push(LinkAttribute::IfName(name.to_owned()));
        self.find_link(request, name).await
    }

    /// The interface with `index`; [`Error::NoLink`] when there is none.
    pub async fn link_by_index(&self, index: u32) -> Result<Link, Error> {
        let mut request = without_statistics();
        request.header.index = index;
        self.find_link(request, &format!("#{index}")).await
    }

    /// Sets an interface up or down.
    pub async fn set_link_up(&self, index: u32, up: bool) -> Result<(), Error> {
        let builder = LinkUnspec::new_with_index(index);
        let message = if up { builder.up() } else { builder.down() }.build();
        let word = if up { "up" } else { "down" };
        let action = || format!("set interface #{index} {word}");
        self.acknowledged(RouteNetlinkMessage::SetLink(message), 0, action).await
    }

    /// Sets an interface's MTU, in bytes.
    pub async fn set_link_mtu(&self, index: u32, mtu: u32) -> Result<(), Error> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        let action = || format!("set the MTU of interface #{index} to {mtu}");
        self.acknowledged(RouteNetlinkMessage::SetLink(message), 0, action).await
    }

    async fn find_link(&self, request: LinkMessage, name: &str) -> Result<Link, Error> {
        let action = || format!("look up interface '{name}'");
        match self.get(RouteNetlinkMessage::GetLink(request), action).await? {
            Some(RouteNetlinkMessage::NewLink(link)) => Link::parse(&link),
            _ => None,
        }
        .ok_or_else(|| Error::NoLink(name.to_owned()))
    }
}
