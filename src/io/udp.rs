//! UDP sockets that carry the bond's datagrams: one a link on a client, one a listen address on a server.
//!
//! `socket2` makes the socket, `quinn-udp` moves the datagrams. What is relied upon in `quinn-udp` 0.6:
//!
//! * `UdpSocketState::new` sets `IP_MTU_DISCOVER` (on every socket) and `IPV6_MTU_DISCOVER` to `PROBE`, and
//!   `IPV6_DONTFRAG`: DF is set, nothing is ever sent in fragments, the kernel's own idea of the path MTU is
//!   ignored, and a datagram that does not fit the device is refused with `EMSGSIZE`. [`Socket::open`] fails where the
//!   kernel refuses that.
//! * It switches on `IP_PKTINFO`/`IPV6_RECVPKTINFO`, `IP_RECVTOS`/`IPV6_RECVTCLASS`, `UDP_GRO` and `SO_TIMESTAMPNS`.
//!   The last one costs a clock read for every packet of the whole system and is not used here: it is switched off
//!   again, as is `UDP_GRO` when not wanted.
//! * `try_send` answers `EIO` and `EINVAL` by giving up segmentation offload (`max_gso_segments` becomes 1) and, over
//!   IPv4, ECN, both for the life of the state. That is right for a network card that cannot do it; but `EINVAL` is
//!   also the answer to a source address that is no longer ours, which happens at every renumbering. [`Socket`]
//!   tells the two apart and starts over with a fresh state in the second case.
//! * Several datagrams are received in one call (`recvmmsg`, 32 at most), one call to send carries one
//!   [`Transmit`] (which may be many datagrams by `UDP_SEGMENT`, 64 at most).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::{PoisonError, RwLock};
use std::task::{Context, Poll};

use nix::sys::socket::{setsockopt, sockopt};
use quinn_udp::{RecvMeta, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

pub use quinn_udp::EcnCodepoint as Ecn;

/// Datagrams taken by one system call, at most.
pub const BATCH_SIZE: usize = quinn_udp::BATCH_SIZE;

/// What a link's socket buffers shall hold, in bytes, where the caller does not say: 100 Mbit/s for 150 ms each way,
/// counted as the kernel counts (about twice the payload).
pub const DEFAULT_BUFFER: usize = 4 << 20;

/// Largest UDP payload, and so the largest that coalesced datagrams together can be, in bytes.
const MAX_PAYLOAD: usize = 65_535;

/// Payload that one system call can send, segmented or not, in bytes: an IPv4 packet of 65,535 without its headers.
const MAX_SEND: usize = 65_507;

/// Why a socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is not (or not yet) one of this machine's.
    #[error("{0} is not an address of this machine (yet): set it on the interface, or correct 'ipaddr'")]
    NotLocal(IpAddr),
    /// The port is taken.
    #[error("{0} is in use by another program: choose another port or stop that program")]
    InUse(SocketAddr),
    /// The device to bind to does not exist.
    #[error("there is no device '{0}'")]
    NoDevice(String),
    /// The kernel cannot keep datagrams from being fragmented.
    #[error("this kernel cannot switch fragmentation off (IP_MTU_DISCOVER)")]
    MayFragment,
    /// A system call failed.
    #[error("UDP socket on {address}: {action}: {source}")]
    Io {
        /// The address of [`SocketOptions::address`].
        address: SocketAddr,
        /// What was being done.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Why a datagram was not sent. Only [`SendError::WouldBlock`] is worth waiting for; after all the others the datagram
/// is lost, as the network may lose any, and the socket stays usable unless [`SendError::needs_reopen`].
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The socket's send buffer is full: wait with [`Socket::writable`].
    #[error("the send buffer is full")]
    WouldBlock,
    /// The datagram is larger than the device's MTU. It was not fragmented.
    #[error("the datagram is larger than the interface's MTU")]
    TooLarge,
    /// There is no route, or the device is down.
    #[error("no way to the destination: {0}")]
    Unreachable(io::Error),
    /// A firewall rule on this machine refused it.
    #[error("refused by a firewall rule on this machine: {0}")]
    Refused(io::Error),
    /// The device or the address that the socket is bound to is gone.
    #[error("the socket's device or address is gone: {0}")]
    Gone(io::Error),
    /// The device's queue is full (`ENOBUFS`) or the kernel is out of memory.
    #[error("the device's queue is full: {0}")]
    NoBuffers(io::Error),
    /// Anything else.
    #[error(transparent)]
    Other(io::Error),
}

impl SendError {
    /// Whether the socket can never send again: [`Socket::close`] it, and open another one when the device is back.
    pub fn needs_reopen(&self) -> bool {
        matches!(self, SendError::Gone(_))
    }
}

impl From<io::Error> for SendError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            _ if error.kind() == io::ErrorKind::WouldBlock => SendError::WouldBlock,
            Some(libc::EMSGSIZE) => SendError::TooLarge,
            Some(
                libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::ENETDOWN
                | libc::ECONNREFUSED
                | libc::EHOSTDOWN,
            ) => SendError::Unreachable(error),
            Some(libc::EPERM | libc::EACCES) => SendError::Refused(error),
            Some(libc::ENODEV | libc::ENXIO | libc::EADDRNOTAVAIL) => SendError::Gone(error),
            Some(libc::ENOBUFS | libc::ENOMEM) => SendError::NoBuffers(error),
            _ => SendError::Other(error),
        }
    }
}

/// How to open a [`Socket`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Address and port to bind to; unspecified address and port 0 leave the choice to the kernel. An IPv6 socket
    /// takes IPv6 only: a server that listens on both families opens two.
    pub address: SocketAddr,
    /// With port 0 in `address`: the port to take if it is free. [`Socket::close`] fills it in, so that a link that
    /// is opened again keeps its port, and the NAT on its way its mapping.
    pub preferred_port: Option<u16>,
    /// Send and receive through this device only (`SO_BINDTODEVICE`). For a link whose device is its own; two links
    /// on one device are told apart by their marks.
    pub device: Option<String>,
    /// Mark of every packet sent (`SO_MARK`), for policy rules. Needs CAP_NET_ADMIN.
    pub mark: Option<u32>,
    /// Receive buffer in bytes. Where CAP_NET_ADMIN allows, also above `net.core.rmem_max`.
    pub recv_buffer: usize,
    /// Send buffer in bytes. Where CAP_NET_ADMIN allows, also above `net.core.wmem_max`.
    pub send_buffer: usize,
    /// Let the kernel coalesce received datagrams (`UDP_GRO`).
    pub gro: bool,
}

impl SocketOptions {
    /// A socket on `address` with default buffers and coalescing on.
    pub fn new(address: SocketAddr) -> Self {
        SocketOptions {
            address,
            preferred_port: None,
            device: None,
            mark: None,
            recv_buffer: DEFAULT_BUFFER,
            send_buffer: DEFAULT_BUFFER,
            gro: true,
        }
    }
}

/// One datagram, or several of one size to one destination.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// Where to.
    pub destination: SocketAddr,
    /// Address to send from: on a server, the one that the peer's packets came to ([`Datagram::local`]). `None` on a
    /// socket that is bound to one address.
    pub source: Option<IpAddr>,
    /// Bits of the outer IP header.
    pub ecn: Option<Ecn>,
    /// Payload, or payloads end to end.
    pub contents: &'a [u8],
    /// With several payloads: the length of each but the last, which may be shorter. There may be any number, but more
    /// than [`Socket::max_segments`] or 64 KiB cost another system call.
    pub segment_size: Option<usize>,
}

impl<'a> Transmit<'a> {
    /// One datagram.
    pub fn new(destination: SocketAddr, contents: &'a [u8]) -> Self {
        Transmit { destination, source: None, ecn: None, contents, segment_size: None }
    }

    /// Payload lengths, as `contents.chunks(…)` wants them.
    fn stride(&self) -> usize {
        self.segment_size.unwrap_or(self.contents.len()).clamp(1, self.contents.len().max(1))
    }

    fn as_quinn<'b>(&self, contents: &'b [u8], segment_size: Option<usize>) -> quinn_udp::Transmit<'b> {
        quinn_udp::Transmit {
            destination: self.destination,
            ecn: self.ecn,
            contents,
            segment_size,
            src_ip: self.source,
        }
    }
}

/// A UDP socket, registered with tokio.
#[derive(Debug)]
pub struct Socket {
    io: UdpSocket,
    options: SocketOptions,
    local: SocketAddr,
    gro: bool,
    // Read-locked to send, which is one uncontended atomic operation before a system call; written only when the
    // state is replaced.
    state: RwLock<UdpSocketState>,
}

impl Socket {
    /// Opens and binds the socket. Must be called within a tokio runtime.
    pub fn open(options: SocketOptions) -> Result<Socket, OpenError> {
        let address = options.address;
        let wrap = |action| move |source| OpenError::Io { address, action, source };

        let socket = socket2::Socket::new(
            Domain::for_address(address),
            Type::DGRAM.nonblocking(),
            Some(Protocol::UDP),
        )
        .map_err(wrap("create"))?;
        if address.is_ipv6() {
            socket.set_only_v6(true).map_err(wrap("set IPV6_V6ONLY"))?;
        }
        if let Some(device) = &options.device {
            socket.bind_device(Some(device.as_bytes())).map_err(|source| match source.raw_os_error() {
                Some(libc::ENODEV) => OpenError::NoDevice(device.clone()),
                _ => OpenError::Io { address, action: "bind it to its device (SO_BINDTODEVICE)", source },
            })?;
        }
        if let Some(mark) = options.mark {
            socket.set_mark(mark).map_err(wrap("set its mark (SO_MARK; needs CAP_NET_ADMIN)"))?;
        }
        enlarge_buffers(&socket, &options);
        bind(&socket, &options)?;

        let local = socket
            .local_addr()
            .and_then(|a| a.as_socket().ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported)))
            .map_err(wrap("read its address"))?;
        let io = UdpSocket::from_std(socket.into()).map_err(wrap("register it with the event loop"))?;
        let state = new_state(&io, options.gro).map_err(wrap("prepare it"))?;
        if state.may_fragment() {
            return Err(OpenError::MayFragment);
        }
        let gro = options.gro && state.gro_segments() > 1;
        Ok(Socket { io, options, local, gro, state: RwLock::new(state) })
    }

    /// Closes the socket and returns how to open it again, with the port that it had.
    pub fn close(self) -> SocketOptions {
        SocketOptions { preferred_port: Some(self.local.port()), ..self.options }
    }

    /// How it was opened.
    pub fn options(&self) -> &SocketOptions {
        &self.options
    }

    /// Address and port that it is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Sizes of the receive and the send buffer that the kernel granted, in bytes of payload (it reports twice that).
    pub fn buffer_sizes(&self) -> io::Result<(usize, usize)> {
        let socket = socket2::SockRef::from(&self.io);
        Ok((socket.recv_buffer_size()? / 2, socket.send_buffer_size()? / 2))
    }

    /// Payloads that one [`Transmit`] may carry: 64 with segmentation offload, 1 without. Falls to 1 when the network
    /// card turns out not to be able to.
    pub fn max_segments(&self) -> usize {
        self.state.read().unwrap_or_else(PoisonError::into_inner).max_gso_segments()
    }

    /// Whether the kernel coalesces what is received.
    pub fn gro(&self) -> bool {
        self.gro
    }

    /// Tries segmentation offload again after it was given up, as when a link's device has changed.
    pub fn reset_offload(&self) -> io::Result<()> {
        let fresh = new_state(&self.io, self.options.gro)?;
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Waits until [`Socket::try_recv`] may have a datagram.
    pub async fn readable(&self) -> io::Result<()> {
        self.io.readable().await
    }

    /// As [`Socket::readable`], for a loop over many sockets.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.poll_recv_ready(cx)
    }

    /// Takes what has come, into `batch`, and returns the number of buffers filled (each one datagram, or several
    /// coalesced ones; [`RecvBatch::datagrams`] knows).
    ///
    /// `WouldBlock`: nothing has come. `InvalidInput`: the buffers are too small for a socket with [`Socket::gro`]. Any
    /// other error concerns this call only: count it and go on.
    pub fn try_recv(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.filled = 0;
        if self.gro && batch.buffer_len < MAX_PAYLOAD {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "coalesced datagrams need 64 KiB a buffer",
            ));
        }
        let filled = self.io.try_io(Interest::READABLE, || {
            // `recvmmsg` fills as many buffers as there are, so the slices are made anew for each call.
            let mut slices: [IoSliceMut<'_>; BATCH_SIZE] = std::array::from_fn(|_| IoSliceMut::new(&mut []));
            let mut used = 0;
            for (slice, buffer) in slices.iter_mut().zip(batch.storage.chunks_exact_mut(batch.buffer_len)) {
                *slice = IoSliceMut::new(buffer);
                used += 1;
            }
            let slices = slices.get_mut(..used).unwrap_or_default();
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.recv(UdpSockRef::from(&self.io), slices, &mut batch.metas)
        })?;
        batch.filled = filled;
        batch.local_port = self.local.port();
        Ok(filled)
    }

    /// Waits until [`Socket::try_send`] may work again after [`SendError::WouldBlock`].
    pub async fn writable(&self) -> io::Result<()> {
        self.io.writable().await
    }

    /// Sends one [`Transmit`]. Returns the number of datagrams that the kernel took, which is all of them unless the
    /// buffer became full half-way.
    pub fn try_send(&self, transmit: &Transmit<'_>) -> Result<usize, SendError> {
        let stride = transmit.stride();
        if stride >= transmit.contents.len() {
            return self.send_one(transmit, transmit.contents).map(|()| 1);
        }
        let per_call = self.max_segments().min(MAX_SEND / stride).max(1);
        let mut sent = 0;
        for group in transmit.contents.chunks(stride * per_call) {
            match self.send_group(transmit, group, stride) {
                Ok(count) => sent += count,
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    /// Whether the device or the address that the socket is bound to is gone, so that it can never send again. The
    /// device may be back under its name: the socket knows it by its index, which is another one then.
    ///
    /// Costs a few system calls. [`Socket::try_send`] asks when there is no way to a destination, because the kernel's
    /// answer is the same (`ENETUNREACH`) whether a route is missing or all of this.
    pub fn is_gone(&self) -> bool {
        let device_gone = self.options.device.is_some() && socket2::SockRef::from(&self.io).device().is_err();
        device_gone || self.address_gone()
    }

    fn address_gone(&self) -> bool {
        if self.local.ip().is_unspecified() {
            return false;
        }
        let mut address = self.local;
        address.set_port(0);
        let socket = socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP));
        let bound = socket.and_then(|socket| socket.bind(&address.into()));
        bound.is_err_and(|error| error.raw_os_error() == Some(libc::EADDRNOTAVAIL))
    }

    fn classify(&self, error: io::Error) -> SendError {
        let unreachable = matches!(
            error.raw_os_error(),
            Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::ENETDOWN | libc::EINVAL)
        );
        match unreachable {
            true if self.is_gone() => SendError::Gone(error),
            // With EINVAL, the source that the caller chose is no longer ours; the socket itself is sound.
            true => SendError::Unreachable(error),
            false => error.into(),
        }
    }

    /// Sends payloads end to end with one system call, or with one each where the network card cannot segment.
    fn send_group(&self, transmit: &Transmit<'_>, group: &[u8], stride: usize) -> Result<usize, SendError> {
        if group.len() > stride && self.max_segments() > 1 {
            match self.send_quinn(transmit.as_quinn(group, Some(stride))) {
                Ok(()) => return Ok(group.len().div_ceil(stride)),
                Err(error) if is_offload_refusal(&error) => {}
                Err(error) => return Err(self.classify(error)),
            }
        }
        let mut sent = 0;
        for payload in group.chunks(stride) {
            match self.send_one(transmit, payload) {
                Ok(()) => sent += 1,
                Err(error) if sent == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    fn send_one(&self, transmit: &Transmit<'_>, payload: &[u8]) -> Result<(), SendError> {
        self.send_quinn(transmit.as_quinn(payload, None)).map_err(|error| self.classify_lone(error))
    }

    /// A lone datagram cannot fail for want of segmentation offload: `quinn-udp` has drawn the wrong conclusion then.
    #[cold]
    fn classify_lone(&self, error: io::Error) -> SendError {
        if is_offload_refusal(&error) {
            let _ = self.reset_offload();
        }
        self.classify(error)
    }

    fn send_quinn(&self, transmit: quinn_udp::Transmit<'_>) -> io::Result<()> {
        let send = || {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.try_send(UdpSockRef::from(&self.io), &transmit)
        };
        // tokio knows of a socket's readiness only after its first look at it, and says `WouldBlock` till then, without
        // trying. So the system call comes first, and tokio only when it must learn that the buffer is full.
        match send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.io.try_io(Interest::WRITABLE, send)
            }
            other => other,
        }
    }
}

/// Buffers for received datagrams, reused from call to call. One serves any number of sockets of a thread.
pub struct RecvBatch {
    storage: Vec<u8>,
    buffer_len: usize,
    metas: [RecvMeta; BATCH_SIZE],
    filled: usize,
    local_port: u16,
}

/// One received datagram.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// Payload, to be opened in place.
    pub payload: &'a mut [u8],
    /// Sender.
    pub remote: SocketAddr,
    /// Address and port of ours that it was sent to: the reply's source. The address is unspecified where the kernel
    /// did not tell.
    pub local: SocketAddr,
    /// Congestion bits of the outer IP header.
    pub ecn: Option<Ecn>,
    /// Index of the interface that it came in by.
    pub interface: Option<u32>,
}

impl RecvBatch {
    /// `buffers` (1 to [`BATCH_SIZE`]) buffers of 64 KiB, large enough for coalesced datagrams. Memory that was never
    /// written to is not resident; 8 are enough for a router.
    pub fn new(buffers: usize) -> Self {
        Self::with_buffer_len(buffers, MAX_PAYLOAD)
    }

    /// `buffers` buffers of `buffer_len` bytes each, for sockets without [`SocketOptions::gro`]. A longer datagram is
    /// cut.
    pub fn with_buffer_len(buffers: usize, buffer_len: usize) -> Self {
        let buffers = buffers.clamp(1, BATCH_SIZE);
        let buffer_len = buffer_len.clamp(1, MAX_PAYLOAD);
        RecvBatch {
            storage: vec![0; buffers * buffer_len],
            buffer_len,
            metas: [RecvMeta::default(); BATCH_SIZE],
            filled: 0,
            local_port: 0,
        }
    }

    /// The datagrams of the last [`Socket::try_recv`], coalesced ones taken apart, in order of arrival.
    pub fn datagrams(&mut self) -> impl Iterator<Item = Datagram<'_>> {
        self.trains().flat_map(|(train, stride)| {
            let Datagram { payload, remote, local, ecn, interface } = train;
            let payloads = payload.chunks_mut(stride);
            payloads.map(move |payload| Datagram { payload, remote, local, ecn, interface })
        })
    }

    /// The datagrams of the last [`Socket::try_recv`], coalesced ones in one piece together with the length of each but
    /// the last, in order of arrival.
    pub fn trains(&mut self) -> impl Iterator<Item = (Datagram<'_>, usize)> {
        let local_port = self.local_port;
        let buffers = self.storage.chunks_exact_mut(self.buffer_len);
        self.metas.iter().take(self.filled).zip(buffers).map(move |(meta, buffer)| {
            let len = meta.len.min(buffer.len());
            let unspecified = match meta.addr {
                SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            let train = Datagram {
                payload: buffer.get_mut(..len).unwrap_or_default(),
                remote: meta.addr,
                local: SocketAddr::new(meta.dst_ip.unwrap_or(unspecified), local_port),
                ecn: meta.ecn,
                interface: meta.interface_index,
            };
            (train, meta.stride.max(1))
        })
    }
}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvBatch")
            .field("buffer_len", &self.buffer_len)
            .field("filled", &self.filled)
            .finish()
    }
}

fn new_state(io: &UdpSocket, gro: bool) -> io::Result<UdpSocketState> {
    let state = UdpSocketState::new(UdpSockRef::from(io))?;
    // Best effort: what fails here costs a little time per packet.
    let _ = setsockopt(io, sockopt::ReceiveTimestampns, &false);
    if !gro {
        let _ = setsockopt(io, sockopt::UdpGroSegment, &false);
    }
    Ok(state)
}

/// The answers that `quinn-udp` takes for a lack of segmentation offload.
fn is_offload_refusal(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}

/// Asks for the buffers, first past the administrator's limit and then within it. A smaller buffer is no reason to
/// refuse to work.
fn enlarge_buffers(socket: &socket2::Socket, options: &SocketOptions) {
    if force_buffer(socket, libc::SO_RCVBUFFORCE, options.recv_buffer).is_err() {
        let _ = socket.set_recv_buffer_size(options.recv_buffer);
    }
    if force_buffer(socket, libc::SO_SNDBUFFORCE, options.send_buffer).is_err() {
        let _ = socket.set_send_buffer_size(options.send_buffer);
    }
}

/// `nix` passes a `usize` here, of which a 64-bit big-endian kernel would read the wrong half.
fn force_buffer(socket: &socket2::Socket, option: libc::c_int, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel reads `len` bytes from `bytes`.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const bytes).cast(), len)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn bind(socket: &socket2::Socket, options: &SocketOptions) -> Result<(), OpenError> {
    let address = options.address;
    if let (0, Some(port)) = (address.port(), options.preferred_port)
        && socket.bind(&SocketAddr::new(address.ip(), port).into()).is_ok()
    {
        return Ok(());
    }
    socket.bind(&address.into()).map_err(|source| match source.raw_os_error() {
        Some(libc::EADDRNOTAVAIL) => OpenError::NotLocal(address.ip()),
        Some(libc::EADDRINUSE) => OpenError::InUse(address),
        _ => OpenError::Io { address, action: "bind", source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_nothing() {
        let mut batch = RecvBatch::new(0);
        assert_eq!(batch.datagrams().count(), 0);
        batch.filled = BATCH_SIZE;
        batch.metas[0].len = usize::MAX;
        batch.metas[0].stride = 0;
        // What does not fit the buffers is not believed.
        assert_eq!(batch.datagrams().count(), MAX_PAYLOAD);
    }
}
