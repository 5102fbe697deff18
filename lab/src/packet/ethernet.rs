//! Ethernet frames, and the answers of a gateway to "who has this address?": ARP (RFC 826) and IPv6 neighbour
//! discovery (RFC 4861).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Header, ICMPV6, icmp, read_array, read_u16};
use crate::tap::Mac;

pub(crate) const HEADER: usize = 14;
const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const IPV6: u16 = 0x86dd;
/// Ethernet and IPv4: what every ARP message here begins with.
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;

/// What a frame is to a gateway.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame<'a> {
    /// An IP packet for one station.
    Ip { to: Mac, packet: &'a [u8] },
    /// Somebody asks for the station that has an address.
    Question(Question),
    /// Nothing for a gateway: multicast, other protocols, noise.
    Other,
}

/// A question for the hardware address of an IP address.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub(crate) target: IpAddr,
    from: Mac,
    sender: IpAddr,
}

impl<'a> Frame<'a> {
    pub(crate) fn parse(frame: &'a [u8]) -> Self {
        Self::try_parse(frame).unwrap_or(Frame::Other)
    }

    fn try_parse(frame: &'a [u8]) -> Option<Self> {
        let to: Mac = read_array(frame, 0)?;
        let from: Mac = read_array(frame, 6)?;
        let payload = frame.get(HEADER..)?;
        match read_u16(frame, 12)? {
            ARP => {
                let asks = payload.starts_with(&ARP_ETHERNET_IPV4) && read_u16(payload, 6)? == 1;
                let sender = Ipv4Addr::from(read_array::<4>(payload, 14)?).into();
                let target = Ipv4Addr::from(read_array::<4>(payload, 24)?).into();
                asks.then_some(Frame::Question(Question { target, from, sender }))
            }
            IPV4 | IPV6 => {
                let header = Header::parse(payload)?;
                let packet = payload.get(..header.length)?;
                if header.protocol == ICMPV6 && packet.get(header.payload) == Some(&NEIGHBOUR_SOLICITATION) {
                    let target = Ipv6Addr::from(read_array::<16>(packet, header.payload + 8)?).into();
                    return Some(Frame::Question(Question { target, from, sender: header.source }));
                }
                let multicast = to[0] & 1 != 0;
                (!multicast).then_some(Frame::Ip { to, packet })
            }
            _ => None,
        }
    }
}

impl Question {
    /// The frame that says that the station `owner` has the address.
    pub(crate) fn answer(&self, owner: Mac) -> Option<Vec<u8>> {
        let mut frame = Vec::with_capacity(86);
        match (self.target, self.sender) {
            (IpAddr::V4(target), IpAddr::V4(sender)) => {
                frame.extend(self.from);
                frame.extend(owner);
                frame.extend(ARP.to_be_bytes());
                frame.extend(ARP_ETHERNET_IPV4);
                frame.extend(2u16.to_be_bytes());
                frame.extend(owner);
                frame.extend(target.octets());
                frame.extend(self.from);
                frame.extend(sender.octets());
            }
            (IpAddr::V6(target), IpAddr::V6(sender)) => {
                // A router, asked for (unless by one that has no address yet), overriding what was known.
                let asked_anonymously = sender.is_unspecified();
                let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
                let flags = if asked_anonymously { 0xa0 } else { 0xe0 };
                let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
                message.extend(target.octets());
                message.extend([2, 1]);
                message.extend(owner);
                let to = if asked_anonymously { all_nodes } else { sender };
                frame.extend(header(self.from, owner, &self.target));
                frame.extend(icmp::build(self.target, to.into(), message)?);
            }
            _ => return None,
        }
        Some(frame)
    }
}

/// The Ethernet header before an IP packet of the family of `address`.
pub(crate) fn header(to: Mac, from: Mac, address: &IpAddr) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let kind = if address.is_ipv4() { IPV4 } else { IPV6 };
    let bytes = to.into_iter().chain(from).chain(kind.to_be_bytes());
    for (place, byte) in header.iter_mut().zip(bytes) {
        *place = byte;
    }
    header
}
