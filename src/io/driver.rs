//! The event loop's work: packets between the TUN device, the core and the sockets, in batches.
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
use crate::bond::{Endpoint, Event, IpPrefix, Path, PeerId, SocketId, Time, ip};

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

/// The TUN device has disappeared: open another one and pass it to [`Driver::replace_tun`].
#[derive(Debug, thiserror::Error)]
#[error("the device '{name}' is gone: {source}")]
pub struct TunGone {
    /// Its name.
    pub name: String,
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

/// TUN device, core and sockets.
pub struct Driver {
    endpoint: Endpoint,
    tun: Tun,
    tun_rests_until: Option<Time>,
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
    pub fn new(endpoint: Endpoint, tun: Tun) -> io::Result<Driver> {
        Ok(Driver {
            endpoint,
            tun,
            tun_rests_until: None,
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

    /// The TUN device.
    pub fn tun(&self) -> &Tun {
        &self.tun
    }

    /// Goes on with another device.
    pub fn replace_tun(&mut self, tun: Tun) {
        self.tun = tun;
        self.tun_rests_until = None;
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
        if self.tun_rests_until.is_none()
            && self.endpoint.wants_tun()
            && self.tun.poll_readable(cx).is_ready()
        {
            return Poll::Ready(());
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
        self.read_tun(timer::now())?;
        self.read_sockets(timer::now());
        let now = timer::now();
        if self.endpoint.poll_timeout().is_some_and(|deadline| deadline <= now) {
            let mut deliver = deliver(&self.tun, self.apart.as_ref(), &mut self.counters);
            self.endpoint.handle_timeout(now, &mut deliver);
        }
        self.transmit(now, SEND_BATCH);
        self.sockets.retain(|slot| slot.retires.is_none_or(|at| at > now));

        let sockets = self.sockets.iter().flat_map(|slot| [slot.rests_until, slot.retires]);
        let core = self.endpoint.poll_timeout().map(|deadline| deadline.max(now + MIN_SLEEP));
        self.deadline = sockets.flatten().chain(self.tun_rests_until).chain(core).min();
        Ok(())
    }

    fn read_tun(&mut self, now: Time) -> Result<(), TunGone> {
        if self.tun_rests_until.is_some_and(|until| until > now) {
            return Ok(());
        }
        self.tun_rests_until = None;
        for _ in 0..TUN_BATCH {
            if !self.endpoint.wants_tun() {
                return Ok(());
            }
            let mut packet = self.endpoint.buffer();
            let error = match self.tun.try_read(packet.spare_mut()) {
                Ok(len) => {
                    packet.set_len(len);
                    self.endpoint.enqueue(packet, now);
                    continue;
                }
                Err(error) => error,
            };
            self.endpoint.recycle(packet);
            return match error.raw_os_error() {
                _ if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
                Some(libc::EBADFD) => Err(TunGone { name: self.tun.name().to_owned(), source: error }),
                _ => {
                    // `EIO`: somebody has set the device down. There is no event for "up again" on the descriptor.
                    self.tun_rests_until = Some(now + REST);
                    Ok(())
                }
            };
        }
        self.unfinished = true;
        Ok(())
    }

    fn read_sockets(&mut self, now: Time) {
        let mut deliver = deliver(&self.tun, self.apart.as_ref(), &mut self.counters);
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

/// Takes inner packets from the core to the TUN device.
fn deliver<'a>(
    tun: &'a Tun,
    apart: Option<&'a Routing>,
    counters: &'a mut IoCounters,
) -> impl FnMut(PeerId, &[u8]) + use<'a> {
    move |from, packet| {
        if let Some(routing) = apart {
            let to = ip::destination(packet).and_then(|destination| routing.lookup(destination));
            if to.is_some_and(|to| to != from) {
                counters.between_peers += 1;
                return;
            }
        }
        if tun.try_write(packet).is_err() {
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
