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

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use serde::Serialize;

use super::timer::{self, Timer};
use super::{Ecn, RecvBatch, SendError, Socket, Transmit, Tun};
use crate::bond::routing::Routing;
use crate::bond::{Endpoint, Event, IpPrefix, LinkId, Origin, Path, PeerId, SocketId, Time, ip};

/// Packets read from TUN in one turn, at most.
const TUN_BATCH: usize = 64;

/// Times that a socket is asked for a batch of datagrams in one turn, at most.
const RECV_CALLS: usize = 4;

/// Datagrams (or trains of them) sent in one turn, at most.
const SEND_BATCH: usize = 256;

/// Buffers for one call to receive.
const RECV_BUFFERS: usize = 16;

/// How long a descriptor is left alone after an error that is none of the usual ones. Short enough for a device that was
/// set down and up again, long enough to cost nothing when it stays so.
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
    pub send_errors: BTreeMap<&'static str, u64>,
    /// Calls to receive that failed.
    pub receive_errors: u64,
    /// Inner packets that the TUN device did not take.
    pub tun_drops: u64,
    /// Inner packets from one peer to another, where they are kept apart.
    pub between_peers: u64,
}

/// A TUN device.
struct Port {
    tun: Tun,
    /// The link whose packets it carries; `None` for those of all.
    link: Option<(PeerId, LinkId)>,
    rests_until: Option<Time>,
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
    ports: Vec<Port>,
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
    /// Whose inner address is whose, where peers are kept apart.
    apart: Option<Routing>,
    counters: IoCounters,
}

impl Driver {
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the kernel gives no timer.
    pub fn new(endpoint: Endpoint) -> io::Result<Driver> {
        Ok(Driver {
            endpoint,
            ports: Vec::new(),
            sockets: Vec::new(),
            next_socket: 0,
            gone: Vec::new(),
            timer: Timer::new()?,
            deadline: None,
            unfinished: false,
            touched: true,
            batch: RecvBatch::new(RECV_BUFFERS),
            out: Vec::new(),
            apart: None,
            counters: IoCounters::default(),
        })
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

    /// Sets the device of one link, in the place of the one before.
    pub fn set_link_tun(&mut self, peer: PeerId, link: LinkId, tun: Tun) {
        self.set_port(tun, Some((peer, link)));
    }

    /// Closes the device of one link.
    pub fn remove_link_tun(&mut self, peer: PeerId, link: LinkId) {
        self.ports.retain(|port| port.link != Some((peer, link)));
    }

    /// The device of one link.
    pub fn link_tun(&self, peer: PeerId, link: LinkId) -> Option<&Tun> {
        self.ports.iter().find(|port| port.link == Some((peer, link))).map(|port| &port.tun)
    }

    fn set_port(&mut self, tun: Tun, link: Option<(PeerId, LinkId)>) {
        self.ports.retain(|port| port.link != link);
        self.ports.push(Port { tun, link, rests_until: None });
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
        if apart != self.apart.is_some() {
            self.apart = apart.then(Routing::default);
        }
    }

    /// Tells whose inner addresses are whose; needed with [`Driver::keep_apart`] only.
    pub fn set_ranges(&mut self, peer: PeerId, ranges: &[IpPrefix]) {
        if let Some(routing) = &mut self.apart {
            routing.set(peer, ranges);
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
        if self.endpoint.wants_tun() {
            for port in &self.ports {
                if port.rests_until.is_none() && port.tun.poll_readable(cx).is_ready() {
                    return Poll::Ready(());
                }
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
            let mut deliver = deliver(&self.ports, self.apart.as_ref(), &mut self.counters);
            self.endpoint.handle_timeout(now, &mut deliver);
        }
        self.transmit(now, SEND_BATCH);
        self.sockets.retain(|slot| slot.retires.is_none_or(|at| at > now));

        let sockets = self.sockets.iter().flat_map(|slot| [slot.rests_until, slot.retires]);
        let core = self.endpoint.poll_timeout().map(|deadline| deadline.max(now + MIN_SLEEP));
        let ports = self.ports.iter().filter_map(|port| port.rests_until);
        self.deadline = sockets.flatten().chain(ports).chain(core).min();
        Ok(())
    }

    fn read_tuns(&mut self, now: Time) -> Result<(), TunGone> {
        let mut gone = None;
        for (index, port) in self.ports.iter_mut().enumerate() {
            if port.rests_until.is_some_and(|until| until > now) {
                continue;
            }
            port.rests_until = None;
            match read_tun(port, &mut self.endpoint, now) {
                Ok(drained) => self.unfinished |= !drained,
                Err(error) => {
                    gone = Some((index, error));
                    break;
                }
            }
        }
        let Some((index, source)) = gone else { return Ok(()) };
        let port = self.ports.swap_remove(index);
        self.touched = true;
        Err(TunGone { name: port.tun.name().to_owned(), link: port.link, source })
    }

    fn read_sockets(&mut self, now: Time) {
        let mut deliver = deliver(&self.ports, self.apart.as_ref(), &mut self.counters);
        let mut failed = 0;
        for slot in &mut self.sockets {
            if slot.rests_until.is_some_and(|until| until > now) {
                continue;
            }
            slot.rests_until = None;
            let mut drained = false;
            for _ in 0..RECV_CALLS {
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
                for datagram in self.batch.datagrams() {
                    let local = slot
                        .bound
                        .or_else(|| Some(datagram.local.ip()).filter(|address| !address.is_unspecified()));
                    let path = Path { socket: slot.id, local, remote: datagram.remote };
                    let ecn = datagram.ecn.map_or(0, |codepoint| codepoint as u8);
                    let len = datagram.payload.len();
                    self.endpoint.handle_datagrams(path, ecn, datagram.payload, len, now, &mut deliver);
                }
            }
            self.unfinished |= !drained;
        }
        drop(deliver);
        self.counters.receive_errors += failed;
    }

    fn transmit(&mut self, now: Time, limit: usize) {
        for _ in 0..limit {
            let Some(transmit) = self.endpoint.poll_transmit(now, &mut self.out) else { return };
            let serves = |slot: &&mut Slot| slot.id == transmit.path.socket && slot.retires.is_none();
            let Some(slot) = self.sockets.iter_mut().find(serves) else {
                // Closed since the core was told of it.
                *self.counters.send_errors.entry("socket closed").or_insert(0) += 1;
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
            *self.counters.send_errors.entry(name(&error)).or_insert(0) += 1;
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

/// Takes a batch of packets from a device to the core. True when the device has no more.
///
/// An error means that the device is gone.
fn read_tun(port: &mut Port, endpoint: &mut Endpoint, now: Time) -> io::Result<bool> {
    for _ in 0..TUN_BATCH {
        if !endpoint.wants_tun() {
            return Ok(true);
        }
        let mut packet = endpoint.buffer();
        let error = match port.tun.try_read(packet.spare_mut()) {
            Ok(len) => {
                packet.set_len(len);
                match port.link {
                    None => endpoint.enqueue(packet, now),
                    Some((peer, link)) => endpoint.enqueue_on(peer, link, packet, now),
                }
                continue;
            }
            Err(error) => error,
        };
        endpoint.recycle(packet);
        return match error.raw_os_error() {
            _ if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Some(libc::EBADFD) => Err(error),
            _ => {
                // `EIO`: somebody has set the device down. There is no event for "up again" on the descriptor.
                port.rests_until = Some(now + REST);
                Ok(true)
            }
        };
    }
    Ok(false)
}

/// Takes inner packets from the core to the TUN device: that of the link over which they came, where it has its own.
fn deliver<'a>(
    ports: &'a [Port],
    apart: Option<&'a Routing>,
    counters: &'a mut IoCounters,
) -> impl FnMut(Origin, &[u8]) + use<'a> {
    move |from, packet| {
        if let Some(routing) = apart {
            let to = ip::destination(packet).and_then(|destination| routing.lookup(destination));
            if to.is_some_and(|to| to != from.peer) {
                counters.between_peers += 1;
                return;
            }
        }
        let is_its =
            |port: &&Port| port.link.is_none_or(|(peer, link)| peer == from.peer && Some(link) == from.link);
        let port = ports.iter().find(is_its);
        if port.is_none_or(|port| port.tun.try_write(packet).is_err()) {
            counters.tun_drops += 1;
        }
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
