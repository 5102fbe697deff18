//! TCP bulk transfers.

mod report;
mod transfer;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use super::{Way, any, is_timeout};
use crate::namespace::{Namespace, context, ready_within};

pub use report::{INTERVAL, StreamReport, TcpReport};
pub use transfer::TcpRun;

/// A bulk transfer to be made: `Tcp::new(&lan, &inet, address).upload().seconds(10).run()`.
#[derive(Clone, Debug)]
pub struct Tcp {
    client: Namespace,
    server: Namespace,
    address: IpAddr,
    way: Way,
    streams: usize,
    congestion: String,
    amount: Amount,
    deadline: Duration,
    source: Option<IpAddr>,
    device: Option<String>,
    mark: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
enum Amount {
    Time(Duration),
    Bytes(u64),
}

impl Tcp {
    /// A download of 10 s over one CUBIC stream, from a server at `address` in one namespace to a client in another.
    pub fn new(client: &Namespace, server: &Namespace, address: IpAddr) -> Self {
        Tcp {
            client: client.clone(),
            server: server.clone(),
            address,
            way: Way::Download,
            streams: 1,
            congestion: "cubic".into(),
            amount: Amount::Time(Duration::from_secs(10)),
            deadline: Duration::from_secs(60),
            source: None,
            device: None,
            mark: None,
        }
    }

    /// This way.
    pub fn way(self, way: Way) -> Self {
        Tcp { way, ..self }
    }

    /// From the client to the server.
    pub fn upload(self) -> Self {
        self.way(Way::Upload)
    }

    /// From the server to the client.
    pub fn download(self) -> Self {
        self.way(Way::Download)
    }

    /// Over so many streams at once.
    pub fn streams(self, streams: usize) -> Self {
        Tcp { streams: streams.max(1), ..self }
    }

    /// With this congestion control at the sender (`cubic`, `bbr`, `reno`).
    pub fn congestion(self, name: &str) -> Self {
        Tcp { congestion: name.to_owned(), ..self }
    }

    /// For so long.
    pub fn duration(self, duration: Duration) -> Self {
        Tcp { amount: Amount::Time(duration), ..self }
    }

    /// For so many seconds.
    pub fn seconds(self, seconds: u64) -> Self {
        self.duration(Duration::from_secs(seconds))
    }

    /// So many bytes, in each stream, within [`deadline`](Self::deadline).
    pub fn bytes(self, bytes: u64) -> Self {
        Tcp { amount: Amount::Bytes(bytes), ..self }
    }

    /// The longest time for connecting, and for a transfer of a number of bytes (60 s unless said).
    pub fn deadline(self, deadline: Duration) -> Self {
        Tcp { deadline, ..self }
    }

    /// The client binds to this address.
    pub fn source(self, source: IpAddr) -> Self {
        Tcp { source: Some(source), ..self }
    }

    /// The client binds to this device (SO_BINDTODEVICE).
    pub fn device(self, device: &str) -> Self {
        Tcp { device: Some(device.to_owned()), ..self }
    }

    /// The client sets this mark (SO_MARK).
    pub fn mark(self, mark: u32) -> Self {
        Tcp { mark: Some(mark), ..self }
    }

    /// Makes the transfer.
    ///
    /// # Errors
    ///
    /// As [`Tcp::start`].
    pub fn run(self) -> io::Result<TcpReport> {
        Ok(self.start()?.finish())
    }

    /// Connects, and starts the transfer; the test goes on meanwhile.
    ///
    /// # Errors
    ///
    /// When a connection cannot be made within the deadline, or the congestion control does not exist.
    pub fn start(self) -> io::Result<TcpRun> {
        let connect_deadline = Instant::now() + self.deadline;
        let listen = SocketAddr::new(self.address, 0);
        let listener = self
            .server
            .run(|| TcpListener::bind(listen))
            .map_err(|error| context(error, format_args!("listen on {listen} in {}", self.server.name())))?;
        listener.set_nonblocking(true)?;
        let pairs: Vec<(TcpStream, TcpStream)> = (0..self.streams)
            .map(|_| self.connect(&listener, connect_deadline))
            .collect::<io::Result<_>>()?;

        let mut streams = Vec::new();
        for (client, server) in pairs {
            let (sender, receiver) = match self.way {
                Way::Download => (server, client),
                Way::Upload => (client, server),
            };
            setsockopt(&sender, sockopt::TcpCongestion, &self.congestion.clone().into()).map_err(
                |errno| context(errno.into(), format_args!("TCP congestion control {:?}", self.congestion)),
            )?;
            streams.push((sender, receiver));
        }
        TcpRun::start(streams, self.amount, self.deadline)
    }

    fn connect(&self, listener: &TcpListener, deadline: Instant) -> io::Result<(TcpStream, TcpStream)> {
        let to = listener.local_addr()?;
        let failed = |error| context(error, format_args!("connect from {} to {to}", self.client.name()));
        let client = self.client.run(|| self.connect_socket(to, deadline)).map_err(failed)?;
        loop {
            match listener.accept() {
                Ok((server, _)) => {
                    server.set_nonblocking(false)?;
                    return Ok((client, server));
                }
                Err(error) if is_timeout(&error) && Instant::now() < deadline => {
                    // The last packet of the handshake is still on its way.
                    ready_within(listener.as_fd(), PollFlags::POLLIN, left(deadline))?;
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Runs in the client's namespace.
    fn connect_socket(&self, to: SocketAddr, deadline: Instant) -> io::Result<TcpStream> {
        let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Stream, flags, None)?;
        if let Some(device) = &self.device {
            setsockopt(&socket, sockopt::BindToDevice, &device.into())?;
        }
        if let Some(mark) = self.mark {
            setsockopt(&socket, sockopt::Mark, &mark)?;
        }
        let from = self.source.map_or(any(to.ip()), |source| SocketAddr::new(source, 0));
        bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
        match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
            Ok(()) | Err(Errno::EINPROGRESS) => {}
            Err(errno) => return Err(errno.into()),
        }
        let stream = TcpStream::from(socket);
        if !ready_within(stream.as_fd(), PollFlags::POLLOUT, left(deadline))? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within the deadline"));
        }
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        stream.set_nonblocking(false)?;
        Ok(stream)
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
