//! `bonding` joins several internet links of a router into one fast, safe pipe to a server.
//!
//! The way of a packet is the way through the folders:
//!
//! ```text
//! out:  io/tun → bond (queue → scheduler → session) → io/udp
//! in:   io/udp → bond (session → resequencer) → io/tun
//! ```
//!
//! * [`bond`]: the core. State machines only: no sockets, no clock, no randomness of its own.
//! * [`io`]: TUN devices and UDP sockets.
//! * [`net`]: addresses, routes and rules of the Linux kernel.
//! * [`config`]: `/etc/config/bonding`, from text to typed options.
//! * [`daemon`]: the service that joins the four.
//! * [`command`]: what a person types.

pub use bonding_core as bond;
pub use bonding_io as io;

pub mod command;
pub mod config;
pub mod daemon;
mod json;
pub mod net;

/// The tests of [`io`] that need the namespaces, devices and addresses of [`net`].
#[cfg(test)]
#[path = "io"]
mod io_tests {
    #[path = "ping_tests.rs"]
    mod ping;
    #[path = "tun_tests.rs"]
    mod tun;
    #[path = "udp_tests.rs"]
    mod udp;
}
