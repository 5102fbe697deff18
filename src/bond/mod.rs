//! The core of the bond: everything that decides, without any I/O.

pub mod time;

pub use time::Time;
