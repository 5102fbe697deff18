//! The event loop between TUN, the core and the sockets, in batches.
//!
//! One round reads what the sockets and TUN have, lets the core act, and sends what it gives; then the loop sleeps until
//! something comes or the core's next deadline.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use log::debug;

use super::timer::{Timer, now};
use super::udp::{Ecn, RecvBatch, SendError, Socket, Transmit};
use super::{SocketOptions, Tun};
use crate::bond::{Endpoint, Event, Path, SocketId, Time};

/// Packets read from TUN in one round.
const TUN_BATCH: usize = 64;
/// Reads from one socket in one round.
const SOCKET_BATCHES: usize = 4;
/// A deadline that lies in the past is served so much later, so that the loop can never spin.
const LEAST_SLEEP: Duration = Duration::from_micros(100);

/// What the loop stopped for.
#[derive(Debug)]
pub enum Wake {
    /// The core has something to tell.
    Event(Event),
    /// The device or address of a socket is gone; it is closed.
    SocketGone(SocketId),
    /// Somebody has deleted our TUN device.
    TunGone(std::io::Error),
}

/// Counters of the loop.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct IoCounters {
    /// Datagrams that could not be sent, by reason.
    pub send_errors: BTreeMap<&'static str, u64>,
    /// Packets that TUN did not take.
    pub tun_drops: u64,
}

/// The event loop's state.
pub struct Driver {
    /// The core.
    pub endpoint: Endpoint,
    /// Counters.
    pub counters: IoCounters,
    tun: Tun,
    sockets: Vec<Option<Socket>>,
    timer: Timer,
    batch: RecvBatch,
    out: Vec<u8>,
}

impl Driver {
    /// A loop over these, without sockets yet. Must be called within a tokio runtime.
    pub fn new(endpoint: Endpoint, tun: Tun) -> std::io::Result<Driver> {
        Ok(Driver {
            endpoint,
            counters: IoCounters::default(),
            tun,
            sockets: Vec::new(),
            timer: Timer::new()?,
            batch: RecvBatch::new(super::udp::BATCH_SIZE),
            out: Vec::new(),
        })
    }

    /// The device.
    pub fn tun(&self) -> &Tun {
        &self.tun
    }

    /// Opens a socket and gives it a name.
    pub fn open_socket(&mut self, options: SocketOptions) -> Result<SocketId, super::udp::OpenError> {
        let socket = Socket::open(options)?;
        let free = self.sockets.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.sockets.push(None);
            self.sockets.len() - 1
        });
        if let Some(slot) = self.sockets.get_mut(at) {
            *slot = Some(socket);
        }
        Ok(at as SocketId)
    }

    /// Closes a socket and tells how it was opened.
    pub fn close_socket(&mut self, id: SocketId) -> Option<SocketOptions> {
        self.sockets.get_mut(usize::from(id))?.take().map(Socket::close)
    }

    /// The socket of this name.
    pub fn socket(&self, id: SocketId) -> Option<&Socket> {
        self.sockets.get(usize::from(id))?.as_ref()
    }

    /// Runs until there is something that the daemon must see to.
    pub async fn run(&mut self) -> Wake {
        loop {
            if let Some(wake) = self.turn() {
                return wake;
            }
            poll_fn(|cx| self.poll_ready(cx)).await;
        }
    }

    /// Sends what the core has to send, now: the last packets before the end.
    pub fn flush(&mut self) {
        let gone = self.transmit(now());
        debug_assert!(gone.is_none() || !self.sockets.is_empty());
    }

    /// One round.
    fn turn(&mut self) -> Option<Wake> {
        let mut at = now();
        self.read_sockets(at);
        if let Some(error) = self.read_tun(at) {
            return Some(Wake::TunGone(error));
        }
        if self.endpoint.poll_timeout().is_some_and(|due| due <= at) {
            let (tun, counters) = (&self.tun, &mut self.counters);
            self.endpoint.handle_timeout(at, &mut |_, packet| deliver(tun, counters, packet));
        }
        let gone = self.transmit(at);
        if let Some(event) = self.endpoint.poll_event() {
            return Some(Wake::Event(event));
        }
        if let Some(gone) = gone {
            self.close_socket(gone);
            return Some(Wake::SocketGone(gone));
        }
        at = now();
        let due = self.endpoint.poll_timeout().map(|due| due.max(at + LEAST_SLEEP));
        if let Err(error) = self.timer.set(due) {
            debug!("timer: {error}");
        }
        None
    }

    fn read_sockets(&mut self, at: Time) {
        let (tun, counters, endpoint) = (&self.tun, &mut self.counters, &mut self.endpoint);
        for (id, socket) in self.sockets.iter().enumerate() {
            let Some(socket) = socket else { continue };
            let fixed = !socket.local_addr().ip().is_unspecified();
            for _ in 0..SOCKET_BATCHES {
                match socket.try_recv(&mut self.batch) {
                    Ok(filled) if filled > 0 => {}
                    _ => break,
                }
                for datagram in self.batch.datagrams() {
                    let path = Path {
                        socket: id as SocketId,
                        local: (!fixed).then(|| datagram.local.ip()),
                        remote: datagram.remote,
                    };
                    let ecn = datagram.ecn.map_or(0, |ecn| ecn as u8);
                    let stride = datagram.payload.len();
                    endpoint.handle_datagrams(path, ecn, datagram.payload, stride, at, &mut |_, packet| {
                        deliver(tun, counters, packet);
                    });
                }
            }
        }
    }

    fn read_tun(&mut self, at: Time) -> Option<std::io::Error> {
        for _ in 0..TUN_BATCH {
            if !self.endpoint.wants_tun() {
                break;
            }
            let mut packet = self.endpoint.buffer();
            match self.tun.try_read(packet.spare_mut()) {
                Ok(length) if length > 0 => {
                    packet.set_len(length);
                    self.endpoint.enqueue(packet, at);
                }
                result => {
                    self.endpoint.recycle(packet);
                    return result.err().filter(|error| error.kind() != std::io::ErrorKind::WouldBlock);
                }
            }
        }
        None
    }

    /// Sends all there is. Returns a socket that can send no more.
    fn transmit(&mut self, at: Time) -> Option<SocketId> {
        let mut gone = None;
        while let Some(transmit) = self.endpoint.poll_transmit(at, &mut self.out) {
            let id = transmit.path.socket;
            let Some(Some(socket)) = self.sockets.get(usize::from(id)) else { continue };
            let datagrams = Transmit {
                destination: transmit.path.remote,
                source: transmit.path.local,
                ecn: Ecn::from_bits(transmit.ecn),
                contents: &self.out,
                segment_size: (self.out.len() > transmit.segment_size).then_some(transmit.segment_size),
            };
            if let Err(error) = socket.try_send(&datagrams) {
                if error.needs_reopen() {
                    gone = Some(id);
                }
                *self.counters.send_errors.entry(name(&error)).or_insert(0) += 1;
            }
        }
        gone
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut ready = self.timer.poll_expired(cx).is_ready();
        ready |= self.endpoint.wants_tun() && self.tun.poll_readable(cx).is_ready();
        for socket in self.sockets.iter().flatten() {
            ready |= socket.poll_readable(cx).is_ready();
        }
        if ready { Poll::Ready(()) } else { Poll::Pending }
    }
}

fn deliver(tun: &Tun, counters: &mut IoCounters, packet: &[u8]) {
    if tun.try_write(packet).is_err() {
        counters.tun_drops += 1;
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
