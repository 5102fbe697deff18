//! TUN and TAP devices.
//!
//! The crate `tun` creates the device (`/dev/net/tun`, `TUNSETIFF`, MTU); from then on the file descriptor belongs to
//! [`Tun`], which reads and writes whole packets without a copy of its own. What is relied upon in `tun` 0.8:
//!
//! * `IFF_NO_PI` is set unless asked otherwise: a packet begins with its IP (or Ethernet) header.
//! * With `vnet_hdr` the flag `IFF_VNET_HDR` is set, and every packet, read or written, begins with a
//!   `struct virtio_net_hdr` ([`VNET_HDR_LEN`] bytes, the host's byte order).
//! * `IFF_MULTI_QUEUE` is never set: one queue a device.
//! * It never sets offloads (`TUNSETOFFLOAD`); that is done here, as far as the kernel knows them.
//! * The name is read back from the kernel, so a pattern (`bond%d`) or no name at all works.
//! * The device is not persistent: it goes when the last descriptor is closed, also after `kill -9`, unless
//!   [`Tun::keep`] says otherwise.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::task::{Context, Poll};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde::Serialize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tun::AbstractDevice;

pub use super::offload::HEADER_LEN as VNET_HDR_LEN;

/// Longest interface name, in bytes (`IFNAMSIZ` without its terminating zero).
pub const MAX_NAME_LEN: usize = 15;

/// Packets that wait in a device with [`TunOptions::vnet_hdr`] until they are read: the 500 of the kernel's default are
/// less than what comes in the few milliseconds in which other programs may have the processor. They are read at once
/// when it is free, so this adds no delay.
const TX_QUEUE_LEN: libc::c_int = 2_000;

/// What a reader waits for: a device that was deleted has an error and nothing to read (`EPOLLERR` alone).
const READ: Interest = Interest::READABLE.add(Interest::ERROR);

/// Why a device could not be opened or changed.
#[derive(Debug, thiserror::Error)]
pub enum TunError {
    /// The name cannot be the name of a network interface.
    #[error("'{0}' cannot name a device: 1 to 15 characters without '/', ':' and spaces are allowed")]
    Name(String),
    /// `/dev/net/tun` does not exist.
    #[error(
        "/dev/net/tun does not exist: load the module with 'modprobe tun' (OpenWrt: 'opkg install kmod-tun'), in a \
         container pass the device in"
    )]
    NoDriver,
    /// The process lacks CAP_NET_ADMIN.
    #[error("no permission to create device '{0}': run as root or with CAP_NET_ADMIN")]
    Permission(String),
    /// The device exists and somebody else holds it.
    #[error("device '{0}' is in use by another program: stop it or choose another name")]
    Busy(String),
    /// A network device of that name exists and is no TUN or TAP device of that kind.
    #[error("a device '{0}' of another kind exists already: choose another name")]
    OtherKind(String),
    /// Anything else that the kernel said.
    #[error("device '{name}': {action}: {source}")]
    Io {
        /// Name as it was asked for.
        name: String,
        /// What was being done.
        action: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Layer at which a device carries packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TunKind {
    /// IP packets.
    #[default]
    Tun,
    /// Ethernet frames.
    Tap,
}

/// How to open a [`Tun`].
#[derive(Clone, Debug)]
pub struct TunOptions {
    /// Interface name, or a pattern with one `%d` for which the kernel puts the first free number.
    pub name: String,
    /// Layer.
    pub kind: TunKind,
    /// Largest packet, in bytes, without Ethernet header.
    pub mtu: u16,
    /// Put a `struct virtio_net_hdr` before every packet, as checksum and segmentation offload need it.
    pub vnet_hdr: bool,
}

/// What the kernel leaves to us, and takes from us, on a device with [`TunOptions::vnet_hdr`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Offloads {
    /// Checksums that are still to be completed.
    pub checksum: bool,
    /// Super-packets of TCP.
    pub tcp: bool,
    /// Super-packets of UDP (Linux 6.2).
    pub udp: bool,
}

// Flags of `TUNSETOFFLOAD` (linux/if_tun.h).
const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO4: libc::c_ulong = 0x02;
const TUN_F_TSO6: libc::c_ulong = 0x04;
const TUN_F_TSO_ECN: libc::c_ulong = 0x08;
const TUN_F_USO4: libc::c_ulong = 0x20;
const TUN_F_USO6: libc::c_ulong = 0x40;

impl TunOptions {
    /// A TUN device without offloads.
    pub fn new(name: impl Into<String>, mtu: u16) -> Self {
        TunOptions { name: name.into(), kind: TunKind::Tun, mtu, vnet_hdr: false }
    }

    /// A TUN device with whatever offloads the kernel knows.
    pub fn with_offloads(name: impl Into<String>, mtu: u16) -> Self {
        TunOptions { vnet_hdr: true, ..TunOptions::new(name, mtu) }
    }
}

/// An open TUN or TAP device. It disappears from the system when dropped.
#[derive(Debug)]
pub struct Tun {
    file: AsyncFd<File>,
    name: String,
    kind: TunKind,
    vnet_hdr: bool,
    offloads: Offloads,
    /// It would outlive this process if that was killed.
    kept: bool,
}

impl Tun {
    /// Creates the device. It is down and has no address; those are set by netlink.
    ///
    /// Must be called within a tokio runtime.
    pub fn open(options: &TunOptions) -> Result<Tun, TunError> {
        check_name(&options.name)?;
        let wrap = |action, source| TunError::Io { name: options.name.clone(), action, source };

        let mut configuration = tun::Configuration::default();
        configuration.tun_name(&options.name).mtu(options.mtu).layer(match options.kind {
            TunKind::Tun => tun::Layer::L3,
            TunKind::Tap => tun::Layer::L2,
        });
        configuration.platform_config(|platform| {
            platform.vnet_hdr(options.vnet_hdr);
        });
        let device = tun::create(&configuration).map_err(|error| match error {
            tun::Error::Io(source) => explain(&options.name, source),
            other => wrap("create", io::Error::other(other.to_string())),
        })?;
        let name = device.tun_name().map_err(|e| wrap("read its name", io::Error::other(e.to_string())))?;

        // SAFETY: `into_raw_fd` gives up the descriptor, which is open; nobody else holds it.
        let fd = unsafe { OwnedFd::from_raw_fd(device.into_raw_fd()) };
        let flags = fcntl(&fd, FcntlArg::F_GETFL).map_err(|e| wrap("read its flags", e.into()))?;
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK))
            .map_err(|e| wrap("make it non-blocking", e.into()))?;
        let interest = READ | Interest::WRITABLE;
        // SAFETY: a `File` keeps the one descriptor that it owns, and `Tun` never takes it out of the `AsyncFd`.
        let file = unsafe { AsyncFd::register_with_interest(File::from(fd), interest) }
            .map_err(|e| wrap("register it with the event loop", e.into()))?;
        if options.vnet_hdr {
            // Best effort: a shorter queue loses more packets of a burst, and that is all.
            let _ = set_queue_len(&name, TX_QUEUE_LEN);
        }
        let offloads = if options.vnet_hdr { enable_offloads(file.get_ref()) } else { Offloads::default() };
        Ok(Tun { file, name, kind: options.kind, vnet_hdr: options.vnet_hdr, offloads, kept: false })
    }

    /// Lets the device outlive this process if that is killed, with addresses and routes. Dropping it still removes it.
    ///
    /// # Errors
    ///
    /// Those of the kernel.
    pub fn keep(&mut self) -> Result<(), TunError> {
        set_persistent(self.file.get_ref(), true).map_err(|source| TunError::Io {
            name: self.name.clone(),
            action: "make it persistent",
            source,
        })?;
        self.kept = true;
        Ok(())
    }

    /// Whether the kernel keeps it when it is closed: by [`Tun::keep`], here or in an earlier process, or because somebody
    /// else wants it so (`ip tuntap add`).
    pub fn is_persistent(&self) -> bool {
        // `struct ifreq`: 16 bytes of name and a union, whose first 2 bytes are the flags.
        let mut request = [0u8; 40];
        // SAFETY: the descriptor is open, and `request` is as long as the kernel's structure on every platform.
        let asked = unsafe { ioctl::tungetiff(self.file.get_ref().as_raw_fd(), request.as_mut_ptr().cast()) };
        let flags = u16::from_ne_bytes([request[16], request[17]]);
        asked.is_ok() && libc::c_int::from(flags) & libc::IFF_PERSIST != 0
    }

    /// The interface name that the kernel gave.
    ///
    /// Somebody may rename the interface later; its index stays.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Layer of the packets.
    pub fn kind(&self) -> TunKind {
        self.kind
    }

    /// Whether every packet begins with a `struct virtio_net_hdr`.
    pub fn vnet_hdr(&self) -> bool {
        self.vnet_hdr
    }

    /// What was agreed on with the kernel.
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// As [`Tun::readable`], for a loop over several devices and sockets. It does not see that the device was deleted.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.file.poll_read_ready(cx).map_ok(|mut guard| guard.retain_ready())
    }

    /// Waits until [`Tun::try_read`] may have a packet.
    pub async fn readable(&self) -> io::Result<()> {
        self.file.ready(READ).await.map(|mut guard| guard.retain_ready())
    }

    /// Takes one packet that the kernel routed into the device, and returns its length.
    ///
    /// A packet longer than `buf` is cut: give a buffer of at least the MTU (with [`Tun::vnet_hdr`]: 64 KiB and the
    /// header). `WouldBlock`: there is none, wait with [`Tun::readable`]. Any other error means that the device is
    /// gone (somebody deleted it: `EBADFD`) and must be opened again.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut read = |mut file: &File| retry(|| file.read(buf));
        match self.file.try_io(Interest::READABLE, &mut read) {
            // tokio keeps the two apart, and takes one at a time here.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.file.try_io(Interest::ERROR, read)
            }
            other => other,
        }
    }

    /// Waits until [`Tun::try_write`] may work again after `WouldBlock`.
    pub async fn writable(&self) -> io::Result<()> {
        self.file.writable().await.map(|mut guard| guard.retain_ready())
    }

    /// Hands one packet to the kernel, as if it had been received by the device.
    ///
    /// Errors of kind `InvalidInput` (`EINVAL`: the kernel does not take this for an IP packet) and raw error `EIO`
    /// (the device is down) lose the packet and nothing else.
    pub fn try_write(&self, packet: &[u8]) -> io::Result<()> {
        let write = |mut file: &File| retry(|| file.write(packet));
        // The system call first, and tokio only when it must learn that the device is not ready: before its first look it
        // says `WouldBlock` without trying.
        match write(self.file.get_ref()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.file.try_io(Interest::WRITABLE, write).map(drop)
            }
            other => other.map(drop),
        }
    }

    /// Sets the carrier, which other programs see as the cable being plugged in, and which `miimon` of a kernel
    /// bonding device watches (`TUNSETCARRIER`, Linux 5.0).
    pub fn set_carrier(&self, on: bool) -> Result<(), TunError> {
        let on = libc::c_int::from(on);
        // SAFETY: the descriptor is open as long as `self` lives, and the kernel reads one int from `&on`.
        match unsafe { ioctl::tunsetcarrier(self.file.get_ref().as_raw_fd(), &on) } {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(TunError::Io { name: self.name.clone(), action: "set its carrier", source: error.into() })
            }
        }
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.get_ref().as_fd()
    }
}

impl Drop for Tun {
    fn drop(&mut self) {
        if self.kept {
            // Of a device that was deleted there is nothing left to remove.
            let _ = set_persistent(self.file.get_ref(), false);
        }
    }
}

fn set_persistent(device: &impl AsRawFd, on: bool) -> io::Result<()> {
    // SAFETY: the descriptor is open; the argument is a number, no pointer.
    unsafe { ioctl::tunsetpersist(device.as_raw_fd(), libc::c_ulong::from(on)) }?;
    Ok(())
}

/// Removes a device that has outlived its daemon, unless another daemon has taken it over.
pub fn remove_kept(name: &str) {
    let mut configuration = tun::Configuration::default();
    configuration.tun_name(name).layer(tun::Layer::L3);
    // Somebody who holds it makes this fail. A device that is gone already is made and goes again.
    if let Ok(device) = tun::create(&configuration) {
        let _ = set_persistent(&device, false);
    }
}

fn set_queue_len(name: &str, packets: libc::c_int) -> io::Result<()> {
    // `struct ifreq`: 16 bytes of name and a union, which is an int here.
    let mut request = [0u8; 40];
    let (field, value) = request.split_at_mut(libc::IFNAMSIZ);
    field.iter_mut().zip(name.bytes().take(MAX_NAME_LEN)).for_each(|(to, from)| *to = from);
    value.iter_mut().zip(packets.to_ne_bytes()).for_each(|(to, from)| *to = from);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    // SAFETY: the descriptor is open, and `request` is as long as the kernel's structure on every platform.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFTXQLEN as _, request.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Agrees on as much as this kernel knows. What it refuses costs speed only.
fn enable_offloads(file: &File) -> Offloads {
    let tcp = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    let ladder = [
        (tcp | TUN_F_USO4 | TUN_F_USO6, Offloads { checksum: true, tcp: true, udp: true }),
        (tcp, Offloads { checksum: true, tcp: true, udp: false }),
        (TUN_F_CSUM, Offloads { checksum: true, ..Offloads::default() }),
    ];
    for (flags, offloads) in ladder {
        // SAFETY: the descriptor is open, and the argument is a plain number.
        if unsafe { ioctl::tunsetoffload(file.as_raw_fd(), flags) }.is_ok() {
            return offloads;
        }
    }
    Offloads::default()
}

mod ioctl {
    #![allow(missing_docs)]
    nix::ioctl_read!(tungetiff, b'T', 210, libc::c_uint);
    nix::ioctl_write_int!(tunsetpersist, b'T', 203);
    nix::ioctl_write_int!(tunsetoffload, b'T', 208);
    nix::ioctl_write_ptr!(tunsetcarrier, b'T', 226, libc::c_int);
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => return other,
        }
    }
}

/// The kernel's rules (`dev_valid_name`), and none of its patterns but `%d`.
fn check_name(name: &str) -> Result<(), TunError> {
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    let pattern = match name.split_once('%') {
        None => true,
        Some((_, rest)) => rest.starts_with('d') && !rest.contains('%'),
    };
    if name.is_empty()
        || name.len() > MAX_NAME_LEN
        || name == "."
        || name == ".."
        || name.contains(forbidden)
        || !pattern
    {
        return Err(TunError::Name(name.to_owned()));
    }
    Ok(())
}

fn explain(name: &str, source: io::Error) -> TunError {
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TunError::NoDriver,
        Some(libc::EPERM | libc::EACCES) => TunError::Permission(name.to_owned()),
        Some(libc::EBUSY) => TunError::Busy(name.to_owned()),
        Some(libc::EINVAL) => TunError::OtherKind(name.to_owned()),
        _ => TunError::Io { name: name.to_owned(), action: "create", source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["bond0", "tun%d", "a", "x23456789012345"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "x234567890123456", "a b", "a/b", "a:1", ".", "..", "t%s", "t%d%d", "t%", "a\n"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
