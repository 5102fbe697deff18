//! A netlink socket that can be awaited.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, sendto, socket,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The largest datagram that the kernel sends: announcements have a page, dumps up to 32 KiB.
pub(super) const DATAGRAM: usize = 32 * 1024;

/// A socket between us and the kernel, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub(super) struct Socket {
    fd: AsyncFd<OwnedFd>,
}

impl Socket {
    /// A socket of a netlink protocol that also hears the announcements of `groups`, a set of bits. Must be called within
    /// a tokio runtime.
    pub(super) fn open(protocol: SockProtocol, groups: u32) -> io::Result<Socket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        // SAFETY: an `OwnedFd` keeps its descriptor open, and the same, until it is dropped with the `AsyncFd`.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        Ok(Socket { fd })
    }

    /// Switches an option of level `SOL_NETLINK` on.
    pub(super) fn switch_on(&self, option: libc::c_int) -> io::Result<()> {
        self.set(libc::SOL_NETLINK, option, 1)
    }

    /// Asks for a receive buffer of so many bytes. The kernel may grant less.
    pub(super) fn set_receive_buffer(&self, bytes: libc::c_int) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)
    }

    /// Makes room for a message of so many bytes.
    pub(super) fn make_room(&self, bytes: usize) -> io::Result<()> {
        // The kernel's default, and what it keeps for itself of a buffer.
        const ENOUGH: usize = 128 * 1024;
        match libc::c_int::try_from(bytes.saturating_mul(2)) {
            Ok(bytes) if bytes > ENOUGH as libc::c_int => {
                self.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes)
            }
            _ => Ok(()),
        }
    }

    /// Sends to the kernel, which takes a request at once or refuses it.
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        sendto(self.fd.as_raw_fd(), bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    /// Waits for the next datagram of the kernel and puts it in place of what is in `buffer`.
    pub(super) async fn receive(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let mut ready = self.fd.readable().await?;
            match self.receive_now(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                other => return other,
            }
        }
    }

    /// The same without waiting: [`io::ErrorKind::WouldBlock`] when there is none.
    pub(super) fn receive_now(&self, buffer: &mut Vec<u8>) -> io::Result<()> {
        loop {
            buffer.resize(DATAGRAM, 0);
            match recvfrom::<NetlinkAddr>(self.fd.as_raw_fd(), buffer) {
                // Only the kernel (port 0) is believed.
                Ok((len, Some(sender))) if sender.pid() == 0 => {
                    buffer.truncate(len);
                    return Ok(());
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the kernel reads `len` bytes at the pointer, which is that of a local of this length.
        let result =
            unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, option, (&raw const value).cast(), len) };
        Errno::result(result)?;
        Ok(())
    }
}
