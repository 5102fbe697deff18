//! A TAP device: the kernel of a namespace sees an Ethernet card, this process is what the cable leads to.

use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::namespace::{Namespace, context};

/// A hardware address.
pub type Mac = [u8; 6];

/// Packets that the kernel may have ready before we read them. The kernel's own 500 is less than a burst of several
/// TCP streams; a limit belongs into the [line](crate::line), not here.
const TRANSMIT_QUEUE: u32 = 8192;

mod ioctl {
    //! From linux/if_tun.h.
    nix::ioctl_write_ptr_bad!(
        set_interface,
        nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
        libc::ifreq
    );
    nix::ioctl_write_ptr!(set_carrier, b'T', 226, libc::c_int);
    nix::ioctl_write_ptr_bad!(set_hardware_address, libc::SIOCSIFHWADDR, libc::ifreq);
}

/// A TAP device, held by this process; it disappears when this is dropped.
#[derive(Debug)]
pub struct Tap {
    file: File,
    name: String,
    mac: Mac,
}

impl Tap {
    /// Makes the device in a namespace, with this hardware address, and brings it up.
    ///
    /// # Errors
    ///
    /// When `/dev/net/tun` cannot be opened, or the name is taken or too long.
    pub fn open(namespace: &Namespace, name: &str, mac: Mac) -> io::Result<Self> {
        // A TAP belongs to the namespace of the thread that opens the file.
        let file = namespace.run(|| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")
        })?;
        let tap = Tap { file, name: name.to_owned(), mac };
        tap.set_up().map_err(|error| context(error, format_args!("TAP device {name}")))?;
        namespace.set_transmit_queue(name, TRANSMIT_QUEUE)?;
        namespace.link_up(name)?;
        namespace.wait_for_link_local(name)?;
        Ok(tap)
    }

    /// The name of the device.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The hardware address that the namespace's kernel uses on the device.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// The next Ethernet frame that the kernel sends; `WouldBlock` when there is none.
    ///
    /// # Errors
    ///
    /// `WouldBlock`, or those of read(2).
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    /// Gives the kernel an Ethernet frame, as if it came over the cable.
    ///
    /// # Errors
    ///
    /// When the device is down, or has no carrier.
    pub fn send(&self, header: &[u8], packet: &[u8]) -> io::Result<()> {
        (&self.file).write_vectored(&[IoSlice::new(header), IoSlice::new(packet)]).map(drop)
    }

    /// Plugs the cable in, or pulls it (the kernel sees the loss of carrier).
    ///
    /// # Errors
    ///
    /// On kernels before 5.0, which cannot.
    pub fn set_carrier(&self, carrier: bool) -> io::Result<()> {
        let carrier = c_int::from(carrier);
        // SAFETY: the descriptor is a TAP's, and the kernel reads one int.
        unsafe { ioctl::set_carrier(self.file.as_raw_fd(), &carrier) }?;
        Ok(())
    }

    fn set_up(&self) -> io::Result<()> {
        // SAFETY: an ifreq is plain data, for which all zeroes are valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        if self.name.len() >= request.ifr_name.len() || self.name.contains('\0') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a device name"));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the kernel reads the ifreq, whose name ends with a zero, because it began as zeroes.
        unsafe { ioctl::set_interface(self.file.as_raw_fd(), &request) }?;
        let mut address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
        for (to, from) in address.sa_data.iter_mut().zip(self.mac) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_hwaddr = address;
        // SAFETY: as above.
        unsafe { ioctl::set_hardware_address(self.file.as_raw_fd(), &request) }?;
        Ok(())
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
