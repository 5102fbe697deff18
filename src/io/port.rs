//! TUN devices as the driver has them: packets taken apart on their way to the core, and put together on their way out.

use std::io;
use std::time::Duration;

use super::driver::{IoCounters, TURN_PACKETS, TunGone};
use super::offload::{Coalescer, HEADER_LEN, Header, MAX_SUPER, Segments};
use super::tun::Tun;
use bonding_core::packet::BUFFER_SIZE;
use bonding_core::routing::Routing;
use bonding_core::{Endpoint, IpPrefix, LinkId, Origin, PeerId, Time, ip};

/// Reads from a device in one turn, at most.
const READS: usize = 256;

/// An IPv6 header, which the length of an IPv6 packet does not count.
const IPV6_HEADER: usize = 40;

/// How long a device is left alone after an error. Short enough for one that was set down and up again, long enough to
/// cost nothing when it stays so.
const REST: Duration = Duration::from_millis(50);

/// All devices of a driver.
pub(super) struct Ports {
    ports: Vec<Port>,
    /// What is read: an offload header and perhaps a super-packet.
    read: Vec<u8>,
    /// Whose inner address is whose, where peers are kept apart.
    apart: Option<Routing>,
}

/// A TUN device.
pub(super) struct Port {
    /// The device.
    pub tun: Tun,
    /// The link whose packets it carries; `None` for those of all.
    pub link: Option<(PeerId, LinkId)>,
    /// It is left alone until then.
    pub rests_until: Option<Time>,
    /// `None` for a device without offload headers.
    coalescer: Option<Coalescer>,
}

impl Ports {
    pub(super) fn new() -> Ports {
        Ports { ports: Vec::new(), read: vec![0; HEADER_LEN + IPV6_HEADER + MAX_SUPER], apart: None }
    }

    /// Adds a device in the place of the one with the same link. What was collected for that is lost with it.
    pub(super) fn set(&mut self, tun: Tun, link: Option<(PeerId, LinkId)>) {
        self.remove(link);
        let offloads = tun.offloads();
        let coalescer = tun.vnet_hdr().then(|| Coalescer::new(offloads.tcp, offloads.udp));
        self.ports.push(Port { tun, link, rests_until: None, coalescer });
    }

    pub(super) fn remove(&mut self, link: Option<(PeerId, LinkId)>) {
        self.ports.retain(|port| port.link != link);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Port> {
        self.ports.iter()
    }

    /// Drops packets from one peer to another from now on, or no longer.
    pub(super) fn keep_apart(&mut self, apart: bool) {
        if apart != self.apart.is_some() {
            self.apart = apart.then(Routing::default);
        }
    }

    /// Tells whose inner addresses are whose.
    pub(super) fn set_ranges(&mut self, peer: PeerId, ranges: &[IpPrefix]) {
        if let Some(routing) = &mut self.apart {
            routing.set(peer, ranges);
        }
    }

    /// Takes what the devices have to the core. True when they have no more.
    ///
    /// # Errors
    ///
    /// A device is gone, and was taken out.
    pub(super) fn read_all(
        &mut self,
        endpoint: &mut Endpoint,
        counters: &mut IoCounters,
        now: Time,
    ) -> Result<bool, TunGone> {
        let mut drained = true;
        for index in 0..self.ports.len() {
            let Some(port) = self.ports.get_mut(index) else { break };
            if port.rests_until.is_some_and(|until| until > now) {
                continue;
            }
            port.rests_until = None;
            match port.read(&mut self.read, endpoint, counters, now) {
                Ok(all) => drained &= all,
                Err(source) => {
                    let port = self.ports.swap_remove(index);
                    return Err(TunGone { name: port.tun.name().to_owned(), link: port.link, source });
                }
            }
        }
        Ok(drained)
    }

    /// Takes an inner packet from the core to a device: that of the link over which it came, where it has its own. It
    /// is written at the latest by [`Ports::flush`].
    pub(super) fn deliver(&mut self, counters: &mut IoCounters, from: Origin, packet: &[u8]) {
        if let Some(routing) = &self.apart {
            let to = ip::destination(packet).and_then(|destination| routing.lookup(destination));
            if to.is_some_and(|to| to != from.peer) {
                counters.between_peers += 1;
                return;
            }
        }
        // What has waited in vain came over no link in particular.
        let is_its = |port: &&mut Port| {
            port.link
                .is_none_or(|(peer, link)| peer == from.peer && from.link.is_none_or(|from| from == link))
        };
        match self.ports.iter_mut().find(is_its) {
            Some(port) => port.write(packet, counters),
            None => counters.tun_drops += 1,
        }
    }

    /// Writes what was collected.
    pub(super) fn flush(&mut self, counters: &mut IoCounters) {
        for port in &mut self.ports {
            if let Some(coalescer) = &mut port.coalescer {
                let tun = &port.tun;
                coalescer.flush(&mut |bytes: &[u8]| {
                    counters.tun_drops += u64::from(tun.try_write(bytes).is_err())
                });
            }
        }
    }
}

impl Port {
    fn read(
        &mut self,
        memory: &mut [u8],
        endpoint: &mut Endpoint,
        counters: &mut IoCounters,
        now: Time,
    ) -> io::Result<bool> {
        let mut packets = 0;
        for _ in 0..READS {
            if packets >= TURN_PACKETS {
                break;
            }
            let error = match self.read_once(memory, endpoint, counters, now) {
                Ok(count) => {
                    packets += count;
                    continue;
                }
                Err(error) => error,
            };
            return match error.raw_os_error() {
                _ if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
                Some(libc::EBADFD) => Err(error),
                _ => {
                    // `EIO`: somebody has set the device down. There is no event for "up again" on the descriptor.
                    self.rests_until = Some(now + REST);
                    Ok(true)
                }
            };
        }
        Ok(false)
    }

    /// Reads once, and gives the core the packets of which that consists.
    fn read_once(
        &mut self,
        memory: &mut [u8],
        endpoint: &mut Endpoint,
        counters: &mut IoCounters,
        now: Time,
    ) -> io::Result<usize> {
        let link = self.link;
        let enqueue = |endpoint: &mut Endpoint, packet| match link {
            None => endpoint.enqueue(packet, now),
            Some((peer, link)) => endpoint.enqueue_on(peer, link, packet, now),
        };
        if !self.tun.vnet_hdr() {
            let mut packet = endpoint.buffer();
            let read = self.tun.try_read(packet.spare_mut());
            // What fills the buffer may have been cut.
            if let Ok(len) = read
                && len < BUFFER_SIZE
            {
                packet.set_len(len);
                enqueue(endpoint, packet);
                return Ok(1);
            }
            endpoint.recycle(packet);
            counters.tun_malformed += u64::from(read.is_ok());
            return read.map(|_| 1);
        }
        let len = self.tun.try_read(memory)?;
        let bytes = memory.get(..len).unwrap_or_default();
        let segments = Header::read(bytes).and_then(|header| {
            Segments::new(header, bytes.get(HEADER_LEN..).unwrap_or_default(), BUFFER_SIZE).ok()
        });
        let Some(mut segments) = segments else {
            counters.tun_malformed += 1;
            return Ok(1);
        };
        let mut count = 0;
        loop {
            let mut packet = endpoint.buffer();
            let Some(len) = segments.next_into(packet.spare_mut()) else {
                endpoint.recycle(packet);
                return Ok(count);
            };
            packet.set_len(len);
            enqueue(endpoint, packet);
            count += 1;
        }
    }

    fn write(&mut self, packet: &[u8], counters: &mut IoCounters) {
        let tun = &self.tun;
        let mut write = |bytes: &[u8]| counters.tun_drops += u64::from(tun.try_write(bytes).is_err());
        match &mut self.coalescer {
            Some(coalescer) => coalescer.push(packet, &mut write),
            None => write(packet),
        }
    }
}
