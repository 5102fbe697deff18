//! Linux packet I/O: TUN devices and UDP sockets.
//!
//! Both ends of a packet's way through the program have the same shape: wait with `readable().await` or
//! `writable().await`, then call `try_…` until it says that it would block. Nothing here decides anything about a
//! packet; that is [`bonding_core`]'s work.

pub mod confine;
pub mod driver;
pub mod fault;
pub mod keeper;
pub mod offload;
pub mod ping;
mod port;
pub mod terminal;
#[cfg(target_env = "musl")]
mod thread_name;
pub mod timer;
pub mod tun;
pub mod udp;

#[allow(unused_imports)] // its name in the program
use bonding_core as bond;

pub use driver::{ActiveOffloads, Driver, IoCounters, TunGone};
pub use keeper::Keeper;
pub use tun::{Offloads, Tun, TunKind, TunOptions};
pub use udp::{Datagram, Ecn, RecvBatch, SendError, Socket, SocketOptions, Transmit};
