//! The core of the bond: everything that decides, without any I/O.

pub mod packet;
pub mod time;

pub use packet::{Packet, Pool};
pub use time::Time;
