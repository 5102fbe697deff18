//! UDP streams at a steady rate: every packet has a sequence number and the time at which it was sent.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::arrival::{self, WallClock};
use super::{Gap, GapFinder, Percentiles, TICK, Way, any, is_timeout};
use crate::namespace::{Namespace, context};
use crate::punctual::be_punctual;

/// Sequence number and send time.
const HEADER: usize = 16;
/// A datagram of the client that opens the way (through address translation) for the server's stream.
const HELLO: &[u8] = b"hello";
/// How long packets that are under way at the end are waited for.
const LINGER: Duration = Duration::from_millis(1500);
/// The largest UDP payload.
const LARGEST: usize = 65_507;

/// A stream to be sent: `Udp::new(&lan, &inet, address).rate(100).seconds(10).run()`.
#[derive(Clone, Debug)]
pub struct Udp {
    client: Namespace,
    server: Namespace,
    address: IpAddr,
    way: Way,
    interval: Duration,
    size: usize,
    duration: Duration,
    source: Option<IpAddr>,
}

/// What became of a stream.
#[derive(Clone, Debug, Serialize)]
pub struct UdpReport {
    /// Packets sent.
    pub sent: u64,
    /// Different packets received.
    pub received: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Packets that came once more.
    pub duplicated: u64,
    /// Packets that came after one with a higher number.
    pub reordered: u64,
    /// One-way delays.
    pub delay: Percentiles,
    /// The longest time between two packets that were received, or between the first or last and the start or end of
    /// sending, and when it began.
    pub longest_gap: Gap,
    /// Each packet's one-way delay; `None` when it never came.
    #[serde(skip)]
    pub packets: Vec<Option<Duration>>,
    /// Payload bits received per second of the stream's duration.
    pub goodput: u64,
    /// When it started, to be compared with the time of what the test did meanwhile.
    #[serde(skip)]
    pub started: Instant,
    /// The time between two packets.
    pub interval: Duration,
}

impl UdpReport {
    /// Packets lost of those sent between two times after the start.
    pub fn lost_between(&self, from: Duration, to: Duration) -> u64 {
        self.between(from, to).filter(|delay| delay.is_none()).count() as u64
    }

    /// One-way delays of the packets sent between two times after the start.
    pub fn delay_between(&self, from: Duration, to: Duration) -> Percentiles {
        Percentiles::of(self.between(from, to).filter_map(|delay| *delay))
    }

    fn between(&self, from: Duration, to: Duration) -> impl Iterator<Item = &Option<Duration>> {
        let sent = (0u32..).map(|number| self.interval * number);
        let in_time = move |time: Duration| time >= from && time < to;
        self.packets.iter().zip(sent).filter(move |(_, time)| in_time(*time)).map(|(delay, _)| delay)
    }
}

impl Udp {
    /// A stream of 100 packets/s of 200 bytes for 10 s, from a server at `address` in one namespace to a client in
    /// another.
    pub fn new(client: &Namespace, server: &Namespace, address: IpAddr) -> Self {
        Udp {
            client: client.clone(),
            server: server.clone(),
            address,
            way: Way::Download,
            interval: Duration::from_millis(10),
            size: 200,
            duration: Duration::from_secs(10),
            source: None,
        }
    }

    /// This way.
    pub fn way(self, way: Way) -> Self {
        Udp { way, ..self }
    }

    /// From the client to the server.
    pub fn upload(self) -> Self {
        self.way(Way::Upload)
    }

    /// So many packets per second.
    pub fn rate(self, packets_per_second: u32) -> Self {
        Udp { interval: Duration::from_secs(1) / packets_per_second.max(1), ..self }
    }

    /// So many payload bits per second, in packets of the [`size`](Self::size) that was set before.
    pub fn bit_rate(self, bits_per_second: u64) -> Self {
        let nanos = self.size as u64 * 8 * 1_000_000_000 / bits_per_second.max(1);
        Udp { interval: Duration::from_nanos(nanos.max(1)), ..self }
    }

    /// Payload bytes of each packet (16 to 65507).
    pub fn size(self, bytes: usize) -> Self {
        Udp { size: bytes.clamp(HEADER, LARGEST), ..self }
    }

    /// For so long.
    pub fn duration(self, duration: Duration) -> Self {
        Udp { duration, ..self }
    }

    /// For so many seconds.
    pub fn seconds(self, seconds: u64) -> Self {
        self.duration(Duration::from_secs(seconds))
    }

    /// The client binds to this address.
    pub fn source(self, source: IpAddr) -> Self {
        Udp { source: Some(source), ..self }
    }

    /// Sends the stream.
    ///
    /// # Errors
    ///
    /// As [`Udp::start`].
    pub fn run(self) -> io::Result<UdpReport> {
        Ok(self.start()?.finish())
    }

    /// Starts the stream; the test goes on meanwhile.
    ///
    /// # Errors
    ///
    /// When a socket cannot be opened, or (download) the client does not reach the server within 5 s.
    pub fn start(self) -> io::Result<UdpRun> {
        let (client, server) = self.sockets()?;
        let (from, to) = match self.way {
            Way::Upload => (client, server),
            Way::Download => (server, client),
        };
        let (started, clock) = (Instant::now(), WallClock::start());
        let count = self.duration.as_nanos().div_ceil(self.interval.as_nanos()) as u64;
        let stop = Arc::new(AtomicBool::new(false));
        let (interval, size, stopped) = (self.interval, self.size, Arc::clone(&stop));
        let sender = thread::spawn(move || send(&from, (started, clock), count, interval, size, &stopped));
        let (wait, stopped) = (self.duration + LINGER, Arc::clone(&stop));
        let receiver = thread::spawn(move || receive(&to, (started, clock), count, wait, &stopped));
        Ok(UdpRun { started, interval, size, stop, threads: Some((sender, receiver)) })
    }

    /// Connected sockets of client and server; the server's reaches the client through address translation.
    fn sockets(&self) -> io::Result<(UdpSocket, UdpSocket)> {
        let listen = SocketAddr::new(self.address, 0);
        let server = self
            .server
            .run(|| UdpSocket::bind(listen))
            .map_err(|error| context(error, format_args!("bind {listen} in {}", self.server.name())))?;
        let to = server.local_addr()?;
        let from = self.source.map_or(any(to.ip()), |source| SocketAddr::new(source, 0));
        let client = self.client.run(|| {
            let client = UdpSocket::bind(from)?;
            client.connect(to)?;
            Ok::<_, io::Error>(client)
        })?;
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(TICK))?;
            grow_buffers(socket);
            arrival::stamp(socket)?;
        }
        if self.way == Way::Download {
            let deadline = Instant::now() + Duration::from_secs(30);
            let mut buffer = [0; HELLO.len()];
            let from = loop {
                // A refusal is that of an earlier hello.
                let _ = client.send(HELLO);
                match server.recv_from(&mut buffer) {
                    Ok((_, from)) => break from,
                    Err(error) if is_timeout(&error) && Instant::now() < deadline => {}
                    Err(error) => {
                        return Err(context(
                            error,
                            format_args!("{} does not reach {to}", self.client.name()),
                        ));
                    }
                }
            };
            server.connect(from)?;
        }
        Ok((client, server))
    }
}

/// A stream that goes on. It is stopped when this is dropped.
#[derive(Debug)]
pub struct UdpRun {
    started: Instant,
    interval: Duration,
    size: usize,
    stop: Arc<AtomicBool>,
    threads: Option<(JoinHandle<Sent>, JoinHandle<Received>)>,
}

#[derive(Debug, Default)]
struct Sent {
    count: u64,
    ended: Duration,
}

#[derive(Debug, Default)]
struct Received {
    packets: Vec<Option<Duration>>,
    /// Arrival times, in order.
    arrivals: Vec<Duration>,
    duplicated: u64,
    reordered: u64,
}

impl UdpRun {
    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends the stream now, instead of when it was to end.
    pub fn stop(self) -> UdpReport {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits for the end of the stream, and for what is still under way then.
    ///
    /// # Panics
    ///
    /// When one of its threads has.
    pub fn finish(mut self) -> UdpReport {
        let Some((sender, receiver)) = self.threads.take() else { unreachable!("taken here only") };
        let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        self.stop.store(true, Ordering::Relaxed);
        let mut received = receiver.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        received.packets.resize(usize::try_from(sent.count).unwrap_or(0), None);
        let mut gaps = GapFinder::default();
        received.arrivals.iter().for_each(|arrival| gaps.note(*arrival));
        gaps.note(sent.ended);
        let count = received.packets.iter().flatten().count() as u64;
        let millis = (sent.ended.as_millis() as u64).max(1);
        UdpReport {
            sent: sent.count,
            received: count,
            lost: sent.count - count,
            duplicated: received.duplicated,
            reordered: received.reordered,
            delay: Percentiles::of(received.packets.iter().flatten().copied()),
            longest_gap: gaps.longest(),
            goodput: count * self.size as u64 * 8 * 1000 / millis,
            packets: received.packets,
            started: self.started,
            interval: self.interval,
        }
    }
}

impl Drop for UdpRun {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn send(
    socket: &UdpSocket,
    (started, clock): (Instant, WallClock),
    count: u64,
    interval: Duration,
    size: usize,
    stop: &AtomicBool,
) -> Sent {
    be_punctual();
    let mut packet = vec![0; size];
    let mut sent = 0;
    while sent < count && !stop.load(Ordering::Relaxed) {
        let due = Duration::from_nanos(interval.as_nanos() as u64 * sent);
        if let Some(early) = due.checked_sub(started.elapsed()).filter(|early| !early.is_zero()) {
            // In slices, so that a stop is noticed.
            thread::sleep(early.min(TICK));
            continue;
        }
        let now = clock.now().as_nanos() as u64;
        for (place, byte) in packet.iter_mut().zip(sent.to_be_bytes().into_iter().chain(now.to_be_bytes())) {
            *place = byte;
        }
        // A packet that the kernel does not take (no route, no buffer, a refusal of an earlier one) is a lost one.
        let _ = socket.send(&packet);
        sent += 1;
    }
    Sent { count: sent, ended: started.elapsed() }
}

/// Receives until everything has come, or nothing more for [`LINGER`] after the sender has stopped, or `wait` is over.
fn receive(
    socket: &UdpSocket,
    (started, clock): (Instant, WallClock),
    count: u64,
    wait: Duration,
    stop: &AtomicBool,
) -> Received {
    let mut received = Received::default();
    let mut buffer = vec![0; LARGEST];
    let mut highest = None;
    let mut last_sign = Duration::ZERO;
    while started.elapsed() < wait {
        let complete = received.arrivals.len() as u64 == count;
        // When all have come their copies may still.
        let patience = if complete { TICK * 5 } else { LINGER };
        if !complete && !stop.load(Ordering::Relaxed) {
            last_sign = started.elapsed();
        } else if started.elapsed() > last_sign + patience {
            break;
        }
        let Ok((length, arrived)) = arrival::receive(socket, &mut buffer, &clock) else { continue };
        let Some((number, sent)) = buffer.get(..length).and_then(read_header) else { continue };
        let Some(place) = usize::try_from(number).ok().filter(|_| number < count) else { continue };
        last_sign = started.elapsed();
        if received.packets.len() <= place {
            received.packets.resize(place + 1, None);
        }
        match received.packets.get_mut(place) {
            Some(Some(_)) => received.duplicated += 1,
            Some(first) => {
                *first = Some(arrived.saturating_sub(sent));
                received.arrivals.push(arrived);
                received.reordered += u64::from(highest.is_some_and(|highest| number < highest));
                highest = highest.max(Some(number));
            }
            None => {}
        }
    }
    received
}

fn read_header(packet: &[u8]) -> Option<(u64, Duration)> {
    let (number, rest) = packet.split_first_chunk()?;
    let (time, _) = rest.split_first_chunk()?;
    Some((u64::from_be_bytes(*number), Duration::from_nanos(u64::from_be_bytes(*time))))
}

fn grow_buffers(socket: &UdpSocket) {
    use nix::sys::socket::{setsockopt, sockopt};
    const ROOM: usize = 4 << 20;
    // Beyond the sysctl limits where allowed: a test must not lose packets at its own sockets.
    if setsockopt(socket, sockopt::RcvBufForce, &ROOM).is_err() {
        let _ = setsockopt(socket, sockopt::RcvBuf, &ROOM);
    }
}
