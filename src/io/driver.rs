//! The event loop's work: packets between the TUN devices, the core and the sockets, in batches.
//!
//! ```text
//! out:  tun → Endpoint::enqueue …  Endpoint::poll_transmit → socket
//! in:   socket → Endpoint::handle_datagrams → tun
//! ```
//!
//! [`Driver::turn`] waits until something can be done, does a bounded amount of it, and returns. It never blocks
//! (what cannot be sent at once is dropped and counted, as any network may drop it), and never spins: what fails is left
//! alone for a while, and deadlines that have passed are served once before it sleeps again.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::Serialize;

use super::port::Ports;
use super::timer::{self, Timer};
use super::{Ecn, Offloads, RecvBatch, SendError, Socket, Transmit, Tun};
use bonding_core::sorted::SortedMap;
use bonding_core::time::earliest;
use bonding_core::{Endpoint, Event, IpPrefix, LinkId, Path, PeerId, SocketId, Time};

/// No more is read from a device, nor from the sockets, in a turn after so many packets. The same for both, so that
/// when there is more to do than the processor can, neither direction of traffic keeps the other from its turn. (A
/// super-packet, or a call's batch of trains, that has been begun is read to its end.)
pub(super) const TURN_PACKETS: usize = 1_024;

/// Times that a socket is asked for a batch of datagrams in one turn, at most.
const RECV_CALLS: usize = 4;

/// Datagrams (or trains of them) sent in one turn, at most.
const SEND_BATCH: usize = 256;

/// Buffers for one call to receive.
const RECV_BUFFERS: usize = 16;

/// How long a socket is left alone after an error that is none of the usual ones.
const REST: Duration = Duration::from_millis(50);

/// How long a socket without a link receives what is still on its way: the longest round trip of a link in use.
const LINGER: Duration = Duration::from_secs(1);

/// The shortest sleep, so that a deadline which does not move costs little. Below the precision of a timer's interrupt.
const MIN_SLEEP: Duration = Duration::from_micros(20);

/// The same complaint about a socket is logged this often, at most.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// A TUN device has disappeared, and is no longer asked: open another one and pass it to [`Driver::set_tun`] or
/// [`Driver::set_link_tun`].
#[derive(Debug, thiserror::Error)]
#[error("the device '{name}' is gone: {source}")]
pub struct TunGone {
    /// Its name.
    pub name: String,
    /// Its link, if it belonged to one.
    pub link: Option<(PeerId, LinkId)>,
    /// What the kernel said.
    pub source: io::Error,
}

/// What was lost between core and kernel since the start.
#[derive(Clone, Debug, Default, Serialize)]
pub struct IoCounters {
    /// Datagrams that could not be sent, by reason. Path MTU probes that do not fit the device are among them.
    pub send_errors: SortedMap<&'static str, u64>,
    /// Calls to receive that failed.
    pub receive_errors: u64,
    /// Inner packets, or trains of them, that the TUN device did not take.
    pub tun_drops: u64,
    /// Packets of the TUN device that contradicted themselves or were too long.
    pub tun_malformed: u64,
    /// Inner packets from one peer to another, where they are kept apart.
    pub between_peers: u64,
}

/// What the kernel takes and gives in batches now. All of it is found out, and costs speed only where it is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ActiveOffloads {
    /// Of the TUN device.
    pub tun: Offloads,
    /// All sockets send many datagrams in one call (`UDP_SEGMENT`).
    pub udp_send: bool,
    /// All sockets receive many datagrams in one piece (`UDP_GRO`).
    pub udp_receive: bool,
}

struct Slot {
    id: SocketId,
    socket: Socket,
    /// The address that it is bound to; `None` if it takes packets for any.
    bound: Option<IpAddr>,
    rests_until: Option<Time>,
    complained: Option<Time>,
    /// When it is to be closed; until then it only receives.
    retires: Option<Time>,
}

/// TUN devices, core and sockets.
///
/// Usually there is one device for everything. In kernel mode each link has one of its own, and a packet stays on the
/// link whose device it came from.
pub struct Driver {
    endpoint: Endpoint,
    ports: Ports,
    sockets: Vec<Slot>,
    next_socket: SocketId,
    gone: Vec<SocketId>,
    timer: Timer,
    deadline: Option<Time>,
    /// There is more to do than one turn does.
    unfinished: bool,
    /// Somebody has changed the core's mind from outside.
    touched: bool,
    batch: RecvBatch,
    out: Vec<u8>,
    counters: IoCounters,
}

impl Driver {
    /// A driver without devices and sockets.
    pub fn new(endpoint: Endpoint, timer: Timer) -> Driver {
        Driver {
            endpoint,
            ports: Ports::new(),
            sockets: Vec::new(),
            next_socket: 0,
            gone: Vec::new(),
            timer,
            deadline: None,
            unfinished: false,
            touched: true,
            batch: RecvBatch::new(RECV_BUFFERS),
            out: Vec::new(),
            counters: IoCounters::default(),
        }
    }

    /// Waits until there is something to do, and does some of it.
    ///
    /// Can be cancelled while it waits, which is the only time when it gives way to others.
    ///
    /// # Errors
    ///
    /// When the TUN device is gone.
    pub async fn turn(&mut self) -> Result<(), TunGone> {
        if self.unfinished {
            // Signals, control requests and timers have their turn, and the readiness of all descriptors is refreshed.
            tokio::task::yield_now().await;
        } else {
            poll_fn(|cx| self.poll_ready(cx)).await;
        }
        self.work()
    }

    /// The core, to be changed. What it wants to send then is sent in the next turn.
    pub fn endpoint_mut(&mut self) -> &mut Endpoint {
        self.touched = true;
        &mut self.endpoint
    }

    /// The core.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What has happened in the core; call until `None` after each turn.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.endpoint.poll_event()
    }

    /// Sets the device for the packets of all links, in the place of the one before.
    pub fn set_tun(&mut self, tun: Tun) {
        self.set_port(tun, None);
    }

    /// Closes the device that is given with [`Driver::set_tun`].
    pub fn remove_tun(&mut self) {
        self.ports.remove(None);
    }

    /// Sets the device of one link, in the place of the one before.
    pub fn set_link_tun(&mut self, peer: PeerId, link: LinkId, tun: Tun) {
        self.set_port(tun, Some((peer, link)));
    }

    /// Closes the device of one link.
    pub fn remove_link_tun(&mut self, peer: PeerId, link: LinkId) {
        self.ports.remove(Some((peer, link)));
    }

    /// The device of one link.
    pub fn link_tun(&self, peer: PeerId, link: LinkId) -> Option<&Tun> {
        self.ports.iter().find(|port| port.link == Some((peer, link))).map(|port| &port.tun)
    }

    fn set_port(&mut self, tun: Tun, link: Option<(PeerId, LinkId)>) {
        self.ports.set(tun, link);
        self.touched = true;
    }

    /// Adds a socket and gives it the name that the core's paths use. A name comes back only after 65 535 others.
    pub fn add_socket(&mut self, socket: Socket) -> SocketId {
        while self.sockets.iter().any(|slot| slot.id == self.next_socket) {
            self.next_socket = self.next_socket.wrapping_add(1);
        }
        let id = self.next_socket;
        self.next_socket = id.wrapping_add(1);
        let bound = Some(socket.local_addr().ip()).filter(|address| !address.is_unspecified());
        self.sockets.push(Slot { id, socket, bound, rests_until: None, complained: None, retires: None });
        self.touched = true;
        id
    }

    /// Takes a socket out. The core must be told of every path that used it.
    pub fn remove_socket(&mut self, id: SocketId) -> Option<Socket> {
        let position = self.sockets.iter().position(|slot| slot.id == id)?;
        Some(self.sockets.swap_remove(position).socket)
    }

    /// Closes a socket after a while: what is on its way to it still arrives. Nothing is sent from it any more.
    pub fn retire_socket(&mut self, id: SocketId) {
        if let Some(slot) = self.sockets.iter_mut().find(|slot| slot.id == id) {
            slot.retires = Some(timer::now() + LINGER);
            self.touched = true;
        }
    }

    /// Closes the sockets that wait for their end now, so that their ports are free.
    pub fn close_retired(&mut self) {
        self.sockets.retain(|slot| slot.retires.is_none());
    }

    /// A socket.
    pub fn socket(&self, id: SocketId) -> Option<&Socket> {
        self.sockets.iter().find(|slot| slot.id == id).map(|slot| &slot.socket)
    }

    /// A socket whose device or address has disappeared; it can never send again.
    pub fn poll_gone(&mut self) -> Option<SocketId> {
        self.gone.pop()
    }

    /// Drops packets from one peer to another from now on, or no longer.
    pub fn keep_apart(&mut self, apart: bool) {
        self.ports.keep_apart(apart);
    }

    /// Tells whose inner addresses are whose; needed with [`Driver::keep_apart`] only.
    pub fn set_ranges(&mut self, peer: PeerId, ranges: &[IpPrefix]) {
        self.ports.set_ranges(peer, ranges);
    }

    /// What passes in batches.
    pub fn offloads(&self) -> ActiveOffloads {
        let shared = self.ports.iter().find(|port| port.link.is_none());
        let sockets = || self.sockets.iter().filter(|slot| slot.retires.is_none()).map(|slot| &slot.socket);
        ActiveOffloads {
            tun: shared.map(|port| port.tun.offloads()).unwrap_or_default(),
            udp_send: sockets().all(|socket| socket.max_segments() > 1) && sockets().next().is_some(),
            udp_receive: sockets().all(Socket::gro) && sockets().next().is_some(),
        }
    }

    /// What was lost here.
    pub fn counters(&self) -> &IoCounters {
        &self.counters
    }

    /// Sends what the core has to send now, as far as the sockets take it. For the goodbye at the end.
    pub fn flush(&mut self) {
        self.transmit(timer::now(), 16 * SEND_BATCH);
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.touched {
            return Poll::Ready(());
        }
        if let Err(error) = self.timer.set(self.deadline) {
            log::error!("the timer cannot be set: {error}");
        }
        // An error is found again, and dealt with, by whoever then reads.
        if self.timer.poll_expired(cx).is_ready() {
            return Poll::Ready(());
        }
        for port in self.ports.iter() {
            if port.rests_until.is_none() && port.tun.poll_readable(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        for slot in &self.sockets {
            if slot.rests_until.is_none() && slot.socket.poll_readable(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }

    fn work(&mut self) -> Result<(), TunGone> {
        self.touched = false;
        self.unfinished = false;
        self.read_tuns(timer::now())?;
        self.read_sockets(timer::now());
        let now = timer::now();
        if self.endpoint.poll_timeout().is_some_and(|deadline| deadline <= now) {
            let (ports, counters) = (&mut self.ports, &mut self.counters);
            self.endpoint.handle_timeout(now, &mut |from, packet| ports.deliver(counters, from, packet));
        }
        self.ports.flush(&mut self.counters);
        self.transmit(now, SEND_BATCH);
        self.sockets.retain(|slot| slot.retires.is_none_or(|at| at > now));

        let core = self.endpoint.poll_timeout().map(|deadline| deadline.max(now + MIN_SLEEP));
        let ports = self.ports.iter().fold(core, |first, port| earliest(&[first, port.rests_until]));
        self.deadline =
            self.sockets.iter().fold(ports, |first, slot| earliest(&[first, slot.rests_until, slot.retires]));
        Ok(())
    }

    fn read_tuns(&mut self, now: Time) -> Result<(), TunGone> {
        match self.ports.read_all(&mut self.endpoint, &mut self.counters, now) {
            Ok(drained) => {
                self.unfinished |= !drained;
                Ok(())
            }
            Err(gone) => {
                self.touched = true;
                Err(gone)
            }
        }
    }

    fn read_sockets(&mut self, now: Time) {
        let (ports, counters) = (&mut self.ports, &mut self.counters);
        let mut deliver = |from, packet: &[u8]| ports.deliver(counters, from, packet);
        let (mut packets, mut failed) = (0, 0);
        for slot in &mut self.sockets {
            if slot.rests_until.is_some_and(|until| until > now) {
                continue;
            }
            slot.rests_until = None;
            let mut drained = false;
            for call in 0..RECV_CALLS {
                // Each socket has its turn, whatever the others have.
                if call > 0 && packets >= TURN_PACKETS {
                    break;
                }
                match slot.socket.try_recv(&mut self.batch) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        drained = true;
                        break;
                    }
                    Err(_) => {
                        failed += 1;
                        slot.rests_until = Some(now + REST);
                        drained = true;
                        break;
                    }
                }
                for (train, stride) in self.batch.trains() {
                    packets += train.payload.len().div_ceil(stride);
                    let local = slot
                        .bound
                        .or_else(|| Some(train.local.ip()).filter(|address| !address.is_unspecified()));
                    let path = Path { socket: slot.id, local, remote: train.remote };
                    let ecn = train.ecn.map_or(0, |codepoint| codepoint as u8);
                    self.endpoint.handle_datagrams(path, ecn, train.payload, stride, now, &mut deliver);
                }
            }
            self.unfinished |= !drained;
        }
        self.counters.receive_errors += failed;
    }

    fn transmit(&mut self, now: Time, limit: usize) {
        for _ in 0..limit {
            let Some(transmit) = self.endpoint.poll_transmit(now, &mut self.out) else { return };
            let serves = |slot: &&mut Slot| slot.id == transmit.path.socket && slot.retires.is_none();
            let Some(slot) = self.sockets.iter_mut().find(serves) else {
                // Closed since the core was told of it.
                *self.counters.send_errors.get_or_insert_with("socket closed", || 0) += 1;
                continue;
            };
            let datagrams = Transmit {
                destination: transmit.path.remote,
                source: if slot.bound.is_some() { None } else { transmit.path.local },
                ecn: Ecn::from_bits(transmit.ecn),
                contents: &self.out,
                segment_size: (transmit.segment_size < self.out.len()).then_some(transmit.segment_size),
            };
            let Err(error) = slot.socket.try_send(&datagrams) else { continue };
            *self.counters.send_errors.get_or_insert_with(name(&error), || 0) += 1;
            if error.needs_reopen() && !self.gone.contains(&slot.id) {
                self.gone.push(slot.id);
            }
            let usual =
                matches!(error, SendError::WouldBlock | SendError::NoBuffers(_) | SendError::TooLarge);
            if !usual && slot.complained.is_none_or(|last| now.since(last) >= COMPLAINT_INTERVAL) {
                slot.complained = Some(now);
                log::info!("sending to {}: {error}", transmit.path.remote);
            }
        }
        self.unfinished = true;
    }
}

fn name(error: &SendError) -> &'static str {
    match error {
        SendError::WouldBlock => "send buffer full",
        SendError::TooLarge => "larger than the interface's MTU",
        SendError::Unreachable(_) => "no way to the destination",
        SendError::Refused(_) => "refused by a firewall rule",
        SendError::Gone(_) => "device or address gone",
        SendError::NoBuffers(_) => "device queue full",
        SendError::Other(_) => "other",
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
