//! Round-trip times: ICMP echo ("ping") to any address, and UDP echo with a server of its own.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, send, socket,
};
use serde::Serialize;

use super::arrival::{self, WallClock};
use super::{Percentiles, TICK, any};
use crate::namespace::{Namespace, context, ready_within};
use crate::packet::checksum;
use crate::punctual::be_punctual;

/// Echoes to be sent: `Echo::new(&lan, address).count(50).ping()`.
#[derive(Clone, Debug)]
pub struct Echo {
    client: Namespace,
    address: IpAddr,
    count: u16,
    interval: Duration,
    size: usize,
    timeout: Duration,
}

/// What became of the echoes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct EchoReport {
    /// Echoes sent.
    pub sent: u32,
    /// Answers received, not counting copies.
    pub received: u32,
    /// Round-trip times.
    pub rtt: Percentiles,
}

impl EchoReport {
    /// Echoes without an answer.
    pub const fn lost(&self) -> u32 {
        self.sent - self.received
    }
}

impl Echo {
    /// 20 echoes, 50 ms apart, of 56 bytes, from a client to an address; an answer may take up to 2 s.
    pub fn new(client: &Namespace, address: IpAddr) -> Self {
        Echo {
            client: client.clone(),
            address,
            count: 20,
            interval: Duration::from_millis(50),
            size: 56,
            timeout: Duration::from_secs(2),
        }
    }

    /// So many.
    pub fn count(self, count: u16) -> Self {
        Echo { count, ..self }
    }

    /// So far apart.
    pub fn interval(self, interval: Duration) -> Self {
        Echo { interval, ..self }
    }

    /// With so many bytes of payload (2 to 65000).
    pub fn size(self, bytes: usize) -> Self {
        Echo { size: bytes.clamp(2, 65_000), ..self }
    }

    /// How long the last answers are waited for.
    pub fn timeout(self, timeout: Duration) -> Self {
        Echo { timeout, ..self }
    }

    /// Sends ICMP or ICMPv6 echo requests.
    ///
    /// # Errors
    ///
    /// When there is no route.
    pub fn ping(self) -> io::Result<EchoReport> {
        /// So that two pings at once do not take each other's answers.
        static IDENTIFIER: AtomicU16 = AtomicU16::new(1);
        let (family, protocol, request, reply, skip) = match self.address {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0, 20),
            // The kernel takes the IPv6 header off.
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129, 0),
        };
        let to = SockaddrStorage::from(SocketAddr::new(self.address, 0));
        let open = || -> io::Result<OwnedFd> {
            let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
            let socket = socket(family, SockType::Raw, flags, protocol)?;
            connect(socket.as_raw_fd(), &to)?;
            arrival::stamp(&socket)?;
            Ok(socket)
        };
        let socket = self.client.run(open).map_err(|error| self.context(error))?;
        let identifier = IDENTIFIER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        let send_one = |number: u16| {
            let mut message = vec![request, 0, 0, 0];
            message.extend(identifier);
            message.extend(number.to_be_bytes());
            message.resize(8 + self.size, 0x5a);
            // For ICMPv6 the kernel overwrites it with the right one.
            let sum = checksum(&[&message]).to_be_bytes();
            message.splice(2..4, sum);
            send(socket.as_raw_fd(), &message, MsgFlags::empty()).map(drop).map_err(io::Error::from)
        };
        let mut buffer = vec![0; 65_535];
        let receive_one = |clock: &WallClock| {
            let (length, arrived) = arrival::receive(&socket, &mut buffer, clock).ok()?;
            let message = buffer.get(skip..length)?;
            let answer = message.first() == Some(&reply) && message.get(4..6) == Some(&identifier);
            let number = message.get(6..8).filter(|_| answer)?;
            Some((u16::from_be_bytes(number.try_into().ok()?), arrived))
        };
        self.exchange(&socket, send_one, receive_one)
    }

    /// Sends UDP datagrams to an echo server that is started at the address in `server`.
    ///
    /// # Errors
    ///
    /// When the address is not that of the server, or there is no route.
    pub fn udp(self, server: &Namespace) -> io::Result<EchoReport> {
        let listen = SocketAddr::new(self.address, 0);
        let echo = server.run(|| UdpSocket::bind(listen)).map_err(|error| self.context(error))?;
        echo.set_read_timeout(Some(TICK))?;
        let to = echo.local_addr()?;
        let open = || {
            let client = UdpSocket::bind(any(self.address))?;
            client.connect(to)?;
            client.set_nonblocking(true)?;
            arrival::stamp(&client)?;
            Ok::<_, io::Error>(client)
        };
        let client = self.client.run(open).map_err(|error| self.context(error))?;
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| serve(&echo, &stop));
            let mut datagram = vec![0x5a; self.size];
            let send_one = |number: u16| {
                datagram.splice(0..2, number.to_be_bytes());
                client.send(&datagram).map(drop)
            };
            let mut buffer = vec![0; 65_535];
            let receive_one = |clock: &WallClock| {
                let (length, arrived) = arrival::receive(&client, &mut buffer, clock).ok()?;
                Some((u16::from_be_bytes(*buffer.get(..length)?.first_chunk()?), arrived))
            };
            let report = self.exchange(&client, send_one, receive_one);
            stop.store(true, Ordering::Relaxed);
            report
        })
    }

    fn context(&self, error: io::Error) -> io::Error {
        context(error, format_args!("echo from {} to {}", self.client.name(), self.address))
    }

    /// Sends at the times due, and takes the answers that come meanwhile, on a thread that wakes up on time.
    fn exchange(
        &self,
        socket: &(impl AsFd + Sync),
        mut send_one: impl FnMut(u16) -> io::Result<()> + Send,
        mut receive_one: impl FnMut(&WallClock) -> Option<(u16, Duration)> + Send,
    ) -> io::Result<EchoReport> {
        thread::scope(|scope| {
            let exchange = scope.spawn(|| {
                be_punctual();
                self.exchange_here(socket, &mut send_one, &mut receive_one)
            });
            exchange.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    fn exchange_here(
        &self,
        socket: &impl AsFd,
        send_one: &mut dyn FnMut(u16) -> io::Result<()>,
        receive_one: &mut dyn FnMut(&WallClock) -> Option<(u16, Duration)>,
    ) -> io::Result<EchoReport> {
        // The wall clock, which may be set meanwhile, is for stamps only.
        let (started, clock) = (Instant::now(), WallClock::start());
        let mut sent_at: Vec<Duration> = Vec::new();
        let mut answers: Vec<Option<Duration>> = vec![None; usize::from(self.count)];
        let end = self.interval * u32::from(self.count) + self.timeout;
        loop {
            let now = started.elapsed();
            let due = self.interval * sent_at.len() as u32;
            let all_sent = sent_at.len() == usize::from(self.count);
            if now >= end || (all_sent && answers.iter().all(Option::is_some)) {
                break;
            }
            if !all_sent && now >= due {
                let stamp = clock.now();
                // What cannot be sent (a refusal, no route any more) is a lost echo.
                let _ = send_one(sent_at.len() as u16);
                sent_at.push(stamp);
                continue;
            }
            let next = if all_sent { end } else { due };
            if ready_within(socket.as_fd(), PollFlags::POLLIN, next.saturating_sub(now))?
                && let Some((number, arrived)) = receive_one(&clock)
                && let Some(sent) = sent_at.get(usize::from(number))
                && let Some(answer) = answers.get_mut(usize::from(number))
            {
                answer.get_or_insert(arrived.saturating_sub(*sent));
            }
        }
        Ok(EchoReport {
            sent: sent_at.len() as u32,
            received: answers.iter().flatten().count() as u32,
            rtt: Percentiles::of(answers.into_iter().flatten()),
        })
    }
}

fn serve(socket: &UdpSocket, stop: &AtomicBool) {
    be_punctual();
    let mut buffer = vec![0; 65_535];
    while !stop.load(Ordering::Relaxed) {
        // Otherwise there was no echo for a while, or a refusal of an earlier answer.
        if let Ok((length, from)) = socket.recv_from(&mut buffer) {
            // An answer that cannot be sent is a lost one.
            let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), from);
        }
    }
}
