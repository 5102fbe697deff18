//! The server's part of a speed test: it sends and counts bytes on TCP connections inside the bond.
//!
//! ```text
//! router: "bonding-speedtest 1 download 5 -\n"      five seconds, over the whole bond
//! server: bytes …, then the end
//!
//! router: "bonding-speedtest 1 upload 5 2\n" bytes …, then the end; all over link 2
//! server: "81920 250000\n" …                         bytes so far and the microseconds since the first
//! ```
//!
//! It listens on the bond's device only, so that nobody but peers reaches it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::bond::LinkId;
use crate::config::MAX_LINKS;

/// The TCP port inside the bond.
pub const PORT: u16 = 5510;

/// What every request begins with: its name and its version.
pub const MAGIC: &str = "bonding-speedtest 1";

/// Seconds of one direction, at most.
pub const MAX_SECONDS: u64 = 30;

/// Tests at the same time.
const MAX_CLIENTS: usize = 4;

/// Bytes of a request.
const MAX_REQUEST: usize = 128;

/// Bytes that wait in the kernel beside those that are under way: a slow line would carry megabytes of them long after
/// the end.
pub const UNSENT: u32 = 128 * 1024;

/// How long a request may take to come.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// How long over its time a test may go on until all is there.
const GRACE: Duration = Duration::from_secs(10);

/// Between two reports.
const REPORT: Duration = Duration::from_millis(200);

/// Which way the bytes go, in the eyes of the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the server.
    Download,
    /// To the server.
    Upload,
}

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which way.
    pub direction: Direction,
    /// How long.
    pub seconds: u64,
    /// Over this link alone.
    pub link: Option<LinkId>,
}

impl Order {
    /// The line that asks for it.
    pub fn to_line(self) -> String {
        let direction = match self.direction {
            Direction::Download => "download",
            Direction::Upload => "upload",
        };
        let link = self.link.map_or("-".to_owned(), |link| link.to_string());
        format!("{MAGIC} {direction} {} {link}\n", self.seconds)
    }

    /// Reads it; `None` when it is none.
    pub fn parse(line: &str) -> Option<Order> {
        let mut words = line.strip_prefix(MAGIC)?.split_ascii_whitespace();
        let direction = match words.next()? {
            "download" => Direction::Download,
            "upload" => Direction::Upload,
            _ => return None,
        };
        let seconds = words.next()?.parse().ok().filter(|seconds| (1..=MAX_SECONDS).contains(seconds))?;
        let link = match words.next()? {
            "-" => None,
            number => Some(number.parse().ok().filter(|number| usize::from(*number) < MAX_LINKS)?),
        };
        words.next().is_none().then_some(Order { direction, seconds, link })
    }
}

/// What the daemon's loop is to do for a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinning {
    /// The router's end of the connection.
    pub router: SocketAddr,
    /// The link to keep it on; `None` ends that.
    pub link: Option<LinkId>,
}

/// Listens until it is dropped.
pub struct Responder {
    tasks: Vec<JoinHandle<()>>,
}

impl Responder {
    /// Listens on the server's addresses inside the bond. What is to be pinned goes to `tell` as `message` makes it.
    ///
    /// # Errors
    ///
    /// When a socket cannot be opened.
    pub fn start<M: Send + 'static>(
        device: &str,
        addresses: &[IpAddr],
        tell: &mpsc::Sender<M>,
        message: fn(Pinning) -> M,
    ) -> io::Result<Responder> {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        let mut tasks = Vec::new();
        for address in addresses {
            let listener = listen(device, SocketAddr::new(*address, PORT))?;
            tasks.push(super::spawn(accept(listener, places.clone(), tell.clone(), message)));
        }
        Ok(Responder { tasks })
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn listen(device: &str, address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // The address may still be checked for a second owner (RFC 4862).
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    socket.bind_device(Some(device.as_bytes()))?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(MAX_CLIENTS).unwrap_or(1))?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

async fn accept<M: Send + 'static>(
    listener: TcpListener,
    places: Arc<Semaphore>,
    tell: mpsc::Sender<M>,
    message: fn(Pinning) -> M,
) {
    loop {
        let Ok((stream, router)) = listener.accept().await else {
            // Out of descriptors: others may close theirs.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let tell = tell.clone();
        let _ = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        super::spawn(async move {
            let pin = |link| tell.send(message(Pinning { router, link }));
            if let Some((stream, order)) = request(stream).await {
                if order.link.is_some() {
                    let _ = pin(order.link).await;
                }
                let limit = Duration::from_secs(order.seconds) + GRACE;
                let _ = timeout(limit, serve(stream, order)).await;
                if order.link.is_some() {
                    let _ = pin(None).await;
                }
            }
            drop(place);
        });
    }
}

async fn request(mut stream: TcpStream) -> Option<(TcpStream, Order)> {
    let read = async {
        let mut line = Vec::with_capacity(MAX_REQUEST);
        while line.last() != Some(&b'\n') && line.len() < MAX_REQUEST {
            line.push(stream.read_u8().await.ok()?);
        }
        Order::parse(std::str::from_utf8(&line).ok()?.trim_end())
    };
    let order = timeout(REQUEST_LIMIT, read).await.ok()??;
    Some((stream, order))
}

async fn serve(mut stream: TcpStream, order: Order) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let started = Instant::now();
    let end = started + Duration::from_secs(order.seconds);
    match order.direction {
        Direction::Download => {
            while let Ok(written) = tokio::time::timeout_at(end, stream.write_all(&buffer)).await {
                written?;
            }
            stream.shutdown().await?;
            // The connection keeps its link until the router has everything.
            while stream.read(&mut buffer).await? > 0 {}
            Ok(())
        }
        Direction::Upload => {
            let (mut bytes, mut first, mut told) = (0_u64, None, started);
            loop {
                let read = stream.read(&mut buffer).await?;
                bytes += read as u64;
                let now = Instant::now();
                let since = now - *first.get_or_insert(now);
                if read == 0 || now - told >= REPORT {
                    told = now;
                    let micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
                    let line = format!("{bytes} {micros}\n");
                    stream.write_all(line.as_bytes()).await?;
                }
                if read == 0 {
                    return stream.shutdown().await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_they_are_written_and_nothing_else_is() {
        for order in [
            Order { direction: Direction::Download, seconds: 5, link: None },
            Order { direction: Direction::Upload, seconds: MAX_SECONDS, link: Some(7) },
        ] {
            assert_eq!(Order::parse(order.to_line().trim_end()), Some(order));
        }
        for line in [
            "",
            "GET / HTTP/1.0",
            "bonding-speedtest 2 download 5 -",
            "bonding-speedtest 1 download 0 -",
            "bonding-speedtest 1 download 31 -",
            "bonding-speedtest 1 sideload 5 -",
            "bonding-speedtest 1 upload 5 32",
            "bonding-speedtest 1 upload 5 - more",
        ] {
            assert_eq!(Order::parse(line), None, "{line}");
        }
    }
}
