//! The address translation of a box: NAPT for UDP, TCP and ICMP echo, IPv4 and IPv6 (RFC 4787, 5382, 5508).

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::packet::{End, Header, TCP, UDP, icmp, set_endpoint};
use crate::random::Random;

/// Mappings of a box at one time; a flow beyond that is dropped, as by a full table at home.
const MOST_MAPPINGS: usize = 16_384;
/// Remote ends that a mapping remembers for its filter; the oldest is forgotten.
const MOST_REMOTES: usize = 64;
/// Fragmented packets whose later fragments are awaited; the oldest is forgotten.
const MOST_FRAGMENTED: usize = 64;
/// Outside ports lie above the well-known ones.
const FIRST_PORT: u16 = 1024;

/// How a box translates addresses. The default does not: it routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatConfig {
    /// The box's outside IPv4 address; `None`: IPv4 is routed.
    pub outside_v4: Option<Ipv4Addr>,
    /// The box's outside IPv6 address; `None`: IPv6 is routed.
    pub outside_v6: Option<Ipv6Addr>,
    /// A mapping that carried nothing for so long is forgotten.
    pub timeout: Duration,
    /// Lets anybody send to a mapped port ("full cone"), instead of only those (address and port) to whom something
    /// was sent from it.
    pub full_cone: bool,
}

impl Default for NatConfig {
    fn default() -> Self {
        // Linux keeps two-way UDP flows for 120 s (nf_conntrack_udp_timeout_stream).
        let timeout = Duration::from_secs(120);
        NatConfig { outside_v4: None, outside_v6: None, timeout, full_cone: false }
    }
}

impl NatConfig {
    /// Translates IPv4 to this outside address, and routes IPv6.
    pub fn v4(outside: Ipv4Addr) -> Self {
        NatConfig { outside_v4: Some(outside), ..NatConfig::default() }
    }

    /// The outside address for packets of the family of `like`, if they are translated.
    pub(super) fn outside(&self, like: IpAddr) -> Option<IpAddr> {
        match like {
            IpAddr::V4(_) => self.outside_v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.outside_v6.map(IpAddr::V6),
        }
    }
}

/// Protocol, address, port (or echo identifier).
type Endpoint = (u8, IpAddr, u16);

/// A box's table.
#[derive(Debug)]
pub(super) struct Nat {
    config: NatConfig,
    mappings: HashMap<Endpoint, Mapping>,
    /// Protocol, whether IPv6, outside port → inside.
    by_port: HashMap<(u8, bool, u16), Endpoint>,
    /// Sender, id → inside, for later fragments, which have no ports.
    fragmented: VecDeque<((IpAddr, u32), IpAddr)>,
    random: Random,
}

#[derive(Debug)]
struct Mapping {
    port: u16,
    remotes: VecDeque<(IpAddr, u16)>,
    last_used: Duration,
}

impl Nat {
    pub(super) fn new(config: NatConfig, seed: u64) -> Self {
        Nat {
            config,
            mappings: HashMap::new(),
            by_port: HashMap::new(),
            fragmented: VecDeque::new(),
            random: Random::new(seed ^ 0x6e_6174),
        }
    }

    pub(super) fn config(&self) -> &NatConfig {
        &self.config
    }

    /// Forgets everything and starts with these settings.
    pub(super) fn reconfigure(&mut self, config: NatConfig) {
        *self = Nat { random: self.random.clone(), ..Nat::new(config, 0) };
    }

    /// Gives every flow a new outside port. Who sent to the old one is no longer heard, and the filters are empty.
    pub(super) fn change_ports(&mut self) {
        let flows: Vec<Endpoint> = self.mappings.keys().copied().collect();
        let old = std::mem::take(&mut self.by_port);
        for inside in flows {
            let Some(port) = self.free_port(inside, &old) else { continue };
            let Some(mapping) = self.mappings.get_mut(&inside) else { continue };
            mapping.port = port;
            self.by_port.insert((inside.0, inside.1.is_ipv6(), port), inside);
        }
        self.forget_remotes();
    }

    /// Sets the outside address of the family of `address`. The ports stay, the filters are empty.
    pub(super) fn change_address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(address) => self.config.outside_v4 = Some(address),
            IpAddr::V6(address) => self.config.outside_v6 = Some(address),
        }
        self.forget_remotes();
    }

    fn forget_remotes(&mut self) {
        self.mappings.values_mut().for_each(|mapping| mapping.remotes.clear());
        self.fragmented.clear();
    }

    /// Translates a packet from inside; `false`: it must be dropped.
    pub(super) fn outbound(&mut self, packet: &mut [u8], now: Duration) -> bool {
        let Some(header) = Header::parse(packet) else { return false };
        let Some(outside) = self.config.outside(header.source) else { return true };
        if header.is_later_fragment() {
            return set_endpoint(packet, &header, End::Source, outside, None);
        }
        if icmp::is_error(packet, &header) {
            return self.outbound_error(packet, &header, outside, now);
        }
        let Some((source, destination)) = header.ports(packet) else { return false };
        let inside = (header.protocol, header.source, source);
        let Some(port) = self.map(inside, now) else { return false };
        if let Some(mapping) = self.mappings.get_mut(&inside) {
            mapping.last_used = now;
            let remote = (header.destination, remote_port(&header, destination));
            if !mapping.remotes.contains(&remote) {
                push_bounded(&mut mapping.remotes, remote, MOST_REMOTES);
            }
        }
        set_endpoint(packet, &header, End::Source, outside, Some(port))
    }

    /// Translates a packet from outside; `false`: it must be dropped.
    pub(super) fn inbound(&mut self, packet: &mut [u8], now: Duration) -> bool {
        let Some(header) = Header::parse(packet) else { return false };
        let Some(outside) = self.config.outside(header.destination) else { return true };
        if header.destination != outside {
            return false;
        }
        let whole = header.fragment.map(|fragment| (header.source, fragment.id));
        if header.is_later_fragment() {
            let known = self.fragmented.iter().find(|(key, _)| Some(*key) == whole);
            return known
                .is_some_and(|(_, inside)| set_endpoint(packet, &header, End::Destination, *inside, None));
        }
        if icmp::is_error(packet, &header) {
            return self.inbound_error(packet, &header, outside, now);
        }
        let Some((source, destination)) = header.ports(packet) else { return false };
        let Some(inside) = self.inside(header.protocol, outside, destination, now) else { return false };
        let remote = (header.source, remote_port(&header, source));
        let Some(mapping) = self.mappings.get_mut(&inside) else { return false };
        if !self.config.full_cone && !mapping.remotes.contains(&remote) {
            return false;
        }
        mapping.last_used = now;
        if let Some(whole) = whole {
            push_bounded(&mut self.fragmented, (whole, inside.1), MOST_FRAGMENTED);
        }
        set_endpoint(packet, &header, End::Destination, inside.1, Some(inside.2))
    }

    /// An ICMP error from inside quotes a packet that came in: to an inside end.
    fn outbound_error(&mut self, packet: &mut [u8], header: &Header, outside: IpAddr, now: Duration) -> bool {
        let Some((quoted, (_, port))) = quoted(packet, header) else { return false };
        let inside = (quoted.protocol, quoted.destination, port);
        let Some(mapping) = self.mappings.get(&inside) else { return false };
        if mapping.last_used + self.config.timeout < now {
            return false;
        }
        let changed = rewrite_quoted(packet, header, &quoted, End::Destination, (outside, mapping.port));
        changed && rewrite_error(packet, header, End::Source, outside)
    }

    /// An ICMP error from outside quotes a packet that went out: from the outside address.
    fn inbound_error(&mut self, packet: &mut [u8], header: &Header, outside: IpAddr, now: Duration) -> bool {
        let Some((quoted, (port, _))) = quoted(packet, header) else { return false };
        if quoted.source != outside {
            return false;
        }
        let Some(inside) = self.inside(quoted.protocol, outside, port, now) else { return false };
        rewrite_quoted(packet, header, &quoted, End::Source, (inside.1, inside.2))
            && rewrite_error(packet, header, End::Destination, inside.1)
    }

    /// The outside port of an inside end, old or new.
    fn map(&mut self, inside: Endpoint, now: Duration) -> Option<u16> {
        if let Some(mapping) = self.mappings.get(&inside) {
            if mapping.last_used + self.config.timeout >= now {
                return Some(mapping.port);
            }
            self.by_port.remove(&(inside.0, inside.1.is_ipv6(), mapping.port));
            self.mappings.remove(&inside);
        }
        if self.mappings.len() >= MOST_MAPPINGS {
            let timeout = self.config.timeout;
            self.mappings.retain(|_, mapping| mapping.last_used + timeout >= now);
            let live = &self.mappings;
            self.by_port.retain(|_, inside| live.contains_key(inside));
        }
        if self.mappings.len() >= MOST_MAPPINGS {
            return None;
        }
        let port = self.free_port(inside, &HashMap::new())?;
        self.mappings.insert(inside, Mapping { port, remotes: VecDeque::new(), last_used: now });
        self.by_port.insert((inside.0, inside.1.is_ipv6(), port), inside);
        Some(port)
    }

    /// The inside end behind an outside port.
    fn inside(&self, protocol: u8, outside: IpAddr, port: u16, now: Duration) -> Option<Endpoint> {
        let inside = *self.by_port.get(&(protocol, outside.is_ipv6(), port))?;
        let mapping = self.mappings.get(&inside)?;
        (mapping.last_used + self.config.timeout >= now).then_some(inside)
    }

    /// A port that is in use neither now nor in `avoid`.
    fn free_port(&mut self, inside: Endpoint, avoid: &HashMap<(u8, bool, u16), Endpoint>) -> Option<u16> {
        let range = u64::from(u16::MAX - FIRST_PORT) + 1;
        let start = self.random.below(range) as u16;
        (0..range as u16)
            .map(|i| FIRST_PORT + ((u32::from(start) + u32::from(i)) % range as u32) as u16)
            .find(|port| {
                let key = (inside.0, inside.1.is_ipv6(), *port);
                !self.by_port.contains_key(&key) && !avoid.contains_key(&key)
            })
    }
}

/// The packet that an ICMP error quotes: header, ports.
fn quoted(packet: &[u8], header: &Header) -> Option<(Header, (u16, u16))> {
    let start = packet.get(header.payload + 8..header.length)?;
    let quoted = Header::parse_start(start)?;
    Some((quoted, quoted.ports(start)?))
}

fn rewrite_quoted(packet: &mut [u8], header: &Header, quoted: &Header, end: End, to: (IpAddr, u16)) -> bool {
    let start = packet.get_mut(header.payload + 8..header.length);
    start.is_some_and(|start| set_endpoint(start, quoted, end, to.0, Some(to.1)))
}

fn rewrite_error(packet: &mut [u8], header: &Header, end: End, address: IpAddr) -> bool {
    if !set_endpoint(packet, header, end, address, None) {
        return false;
    }
    let Some(header) = Header::parse(packet) else { return false };
    icmp::seal(packet, &header);
    true
}

/// The remote port that a filter looks at: an echo has none, as its identifier is the sender's at both ends.
fn remote_port(header: &Header, port: u16) -> u16 {
    if matches!(header.protocol, TCP | UDP) { port } else { 0 }
}

fn push_bounded<T>(list: &mut VecDeque<T>, item: T, most: usize) {
    if list.len() >= most {
        list.pop_front();
    }
    list.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::icmp::Problem;
    use crate::packet::tests::{echo, is_sound, udp};

    const NOW: Duration = Duration::from_secs(1);
    const INSIDE: (&str, u16) = ("10.0.1.2", 5000);
    const SERVER: (&str, u16) = ("203.0.113.1", 700);

    fn nat() -> Nat {
        Nat::new(NatConfig::v4("192.0.2.1".parse().unwrap()), 1)
    }

    /// Sends from inside to the server; gives the outside port.
    fn send(nat: &mut Nat, inside: (&str, u16), server: (&str, u16), now: Duration) -> u16 {
        let mut packet = udp(inside, server, b"hello");
        assert!(nat.outbound(&mut packet, now) && is_sound(&packet));
        let header = Header::parse(&packet).unwrap();
        assert_eq!(Some(header.source), nat.config.outside(header.source));
        header.ports(&packet).unwrap().0
    }

    /// Sends to an outside port; gives the inside end that it reaches.
    fn answer(nat: &mut Nat, server: (&str, u16), port: u16, now: Duration) -> Option<(String, u16)> {
        let outside = nat.config.outside(server.0.parse().unwrap()).unwrap().to_string();
        let mut packet = udp(server, (&outside, port), b"hello");
        nat.inbound(&mut packet, now).then(|| {
            assert!(is_sound(&packet));
            let header = Header::parse(&packet).unwrap();
            (header.destination.to_string(), header.ports(&packet).unwrap().1)
        })
    }

    #[test]
    fn answers_find_the_way_back_and_strangers_do_not() {
        let mut nat = nat();
        let port = send(&mut nat, INSIDE, SERVER, NOW);
        assert_eq!(send(&mut nat, INSIDE, ("203.0.113.9", 1), NOW), port, "one port for all destinations");
        assert_ne!(send(&mut nat, ("10.0.1.3", 5000), SERVER, NOW), port);
        assert_eq!(answer(&mut nat, SERVER, port, NOW), Some(("10.0.1.2".into(), 5000)));
        assert_eq!(answer(&mut nat, ("203.0.113.1", 701), port, NOW), None);
        assert_eq!(answer(&mut nat, ("203.0.113.2", 700), port, NOW), None);
        nat.config.full_cone = true;
        assert!(answer(&mut nat, ("203.0.113.2", 700), port, NOW).is_some());
        assert_eq!(answer(&mut nat, SERVER, port ^ 1, NOW), None);
    }

    #[test]
    fn echoes_pass() {
        let mut nat = nat();
        for id in [1, 2] {
            let mut request = echo(INSIDE.0, SERVER.0, id);
            assert!(nat.outbound(&mut request, NOW) && is_sound(&request));
            let header = Header::parse(&request).unwrap();
            let mut reply = icmp::echo_reply(&request, &header).unwrap();
            assert!(nat.inbound(&mut reply, NOW) && is_sound(&reply));
            let header = Header::parse(&reply).unwrap();
            assert_eq!(
                (header.destination.to_string().as_str(), header.ports(&reply)),
                (INSIDE.0, Some((id, id)))
            );
            let mut unasked = echo(SERVER.0, "192.0.2.1", id);
            assert!(!nat.inbound(&mut unasked, NOW));
        }
    }

    #[test]
    fn mappings_end_when_idle() {
        let mut nat = nat();
        let port = send(&mut nat, INSIDE, SERVER, NOW);
        let timeout = nat.config.timeout;
        assert!(answer(&mut nat, SERVER, port, NOW + timeout).is_some(), "which refreshes it");
        assert!(answer(&mut nat, SERVER, port, NOW + timeout * 2).is_some());
        assert!(answer(&mut nat, SERVER, port, NOW + timeout * 4).is_none());
    }

    #[test]
    fn rebinding_moves_flows() {
        let mut nat = nat();
        let port = send(&mut nat, INSIDE, SERVER, NOW);
        nat.change_ports();
        assert_eq!(answer(&mut nat, SERVER, port, NOW), None);
        let moved = send(&mut nat, INSIDE, SERVER, NOW);
        assert_ne!(moved, port);
        assert!(answer(&mut nat, SERVER, moved, NOW).is_some());
        nat.change_address("192.0.2.99".parse().unwrap());
        assert_eq!(answer(&mut nat, SERVER, moved, NOW), None, "inside has not sent yet");
        assert_eq!(send(&mut nat, INSIDE, SERVER, NOW), moved);
        assert!(answer(&mut nat, SERVER, moved, NOW).is_some());
        let mut stale = udp(SERVER, ("192.0.2.1", moved), b"");
        assert!(!nat.inbound(&mut stale, NOW), "to the old address");
    }

    #[test]
    fn ipv6_is_routed_unless_asked() {
        let mut nat = nat();
        let mut packet = udp(("fd00:1::2", 1), ("2001:db8::1", 2), b"");
        let before = packet.clone();
        assert!(nat.outbound(&mut packet, NOW) && packet == before);
        nat.change_address("2001:db8:ffff::1".parse().unwrap());
        let port = send(&mut nat, ("fd00:1::2", 1), ("2001:db8::1", 2), NOW);
        assert_eq!(answer(&mut nat, ("2001:db8::1", 2), port, NOW), Some(("fd00:1::2".into(), 1)));
    }

    #[test]
    fn errors_are_translated_with_what_they_quote() {
        let mut nat = nat();
        let mut sent = udp(INSIDE, SERVER, b"hello");
        assert!(nat.outbound(&mut sent, NOW));
        let mut error = icmp::error(Problem::TooBig(1300), "203.0.113.254".parse().unwrap(), &sent).unwrap();
        assert!(nat.inbound(&mut error, NOW) && is_sound(&error));
        let (header, (quoted, ports)) = {
            let header = Header::parse(&error).unwrap();
            (header, quoted(&error, &header).unwrap())
        };
        assert_eq!((header.destination, quoted.source), ("10.0.1.2".parse().unwrap(), header.destination));
        assert_eq!(ports, (5000, 700));
        assert!(is_sound(&error[28..]), "the quoted packet is whole again");

        let port = Header::parse(&sent).unwrap().ports(&sent).unwrap().0;
        let mut received = udp(SERVER, ("192.0.2.1", port), b"hello");
        assert!(nat.inbound(&mut received, NOW));
        let mut error = icmp::error(Problem::Unreachable, INSIDE.0.parse().unwrap(), &received).unwrap();
        assert!(nat.outbound(&mut error, NOW) && is_sound(&error));
        let header = Header::parse(&error).unwrap();
        assert_eq!(header.source.to_string(), "192.0.2.1");
        assert_eq!(super::quoted(&error, &header).unwrap().1, (700, port));
    }

    #[test]
    fn later_fragments_follow_the_first() {
        let mut nat = nat();
        let port = send(&mut nat, INSIDE, SERVER, NOW);
        let whole = udp(SERVER, ("192.0.2.1", port), &[3; 2000]);
        let header = Header::parse(&whole).unwrap();
        let mut pieces = crate::packet::fragment_v4(&whole, &header, 1000).unwrap();
        assert!(!nat.inbound(&mut pieces[1].clone(), NOW), "not before the first");
        assert!(pieces.iter_mut().all(|piece| nat.inbound(piece, NOW)));
        assert!(
            pieces.iter().all(|piece| Header::parse(piece).unwrap().destination.to_string() == "10.0.1.2")
        );
    }

    #[test]
    fn the_table_is_bounded() {
        let mut nat = nat();
        for i in 0..MOST_MAPPINGS {
            let inside = (UDP, IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + i as u32)), 1);
            assert!(nat.map(inside, NOW).is_some());
        }
        let late = NOW + nat.config.timeout * 2;
        let another = (UDP, "10.99.0.1".parse().unwrap(), 1);
        assert_eq!(nat.map(another, NOW), None);
        assert!(nat.map(another, late).is_some(), "idle ones make room");
        assert_eq!((nat.mappings.len(), nat.by_port.len()), (1, 1));
    }
}
