//! The core of the bond: everything that decides, without any I/O.
//!
//! ```text
//! out:  Endpoint::enqueue → queue → scheduler → flight → session (seal) → Endpoint::poll_transmit
//! in:   Endpoint::handle_datagrams → session (open) → reception → resequencer → deliver
//! ```
//!
//! An [`Endpoint`] is one end of the bond with all its peers. A peer has a sending half ([`sender`]) and a receiving
//! half ([`receiver`]) that share nothing but small messages. Time and randomness are passed in.

mod ack;
pub mod aead;
pub mod announcement;
pub mod capacity;
pub mod cipher;
pub mod class;
mod competition;
mod cookie;
mod deadlines;
pub mod endpoint;
pub mod ethernet;
pub mod flight;
pub mod handshake;
mod hash;
pub mod header;
pub mod ip;
pub mod keys;
pub mod limit;
pub mod link;
pub mod load;
pub mod logical_clock;
pub mod meter;
pub mod mtu;
mod noise;
pub mod pacer;
pub mod packet;
pub mod peer;
pub mod queue;
mod random_loss;
pub mod receiver;
pub mod reception;
mod renewal;
pub mod replay;
pub mod resequencer;
pub mod routing;
pub mod scheduler;
pub mod sender;
pub mod session;
pub mod sorted;
pub mod status;
pub mod time;
pub mod train;
pub mod window;
pub mod wire;

use std::net::{IpAddr, SocketAddr};

#[cfg(test)]
mod pinned_tests;

pub use class::{Class, Selector, Treatment};
pub use endpoint::{Endpoint, EndpointConfig};
pub use header::MAX_LINKS;
pub use link::LinkState;
pub use packet::{Packet, Pool};
pub use peer::{Event, Handling, LinkConfig, Payload, PeerConfig};
pub use routing::IpPrefix;
pub use scheduler::Policy;
pub use time::Time;

/// Names a link of a session; chosen by the client.
pub type LinkId = u8;
/// The driver's name of a UDP socket.
pub type SocketId = u16;

/// The two ends of a way through the network, as seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Our socket.
    pub socket: SocketId,
    /// Our address, where the socket has several.
    pub local: Option<IpAddr>,
    /// The other end.
    pub remote: SocketAddr,
}

impl Path {
    /// Bytes of the IP and UDP headers on this path.
    pub fn header_bytes(&self) -> usize {
        if self.remote.ip().to_canonical().is_ipv4() { 20 + 8 } else { 40 + 8 }
    }
}

/// Datagrams of equal size, the last perhaps shorter, for one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where from and where to.
    pub path: Path,
    /// Bytes of each datagram.
    pub segment_size: usize,
    /// ECN codepoint of the outer header.
    pub ecn: u8,
}

/// Where an inner packet came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The peer that sent it.
    pub peer: PeerId,
    /// The link over which it came, or the packet that it had waited for; `None` when it has waited in vain.
    pub link: Option<LinkId>,
}

/// Names a peer of an [`Endpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);
