//! The test laboratory of `bonding`: namespaces, emulated WAN lines, traffic.

pub mod bond;
pub mod emulator;
pub mod line;
pub mod namespace;
pub mod packet;
pub mod prefix;
pub mod privilege;
pub mod random;
pub mod scenario;
pub mod tap;
pub mod topology;
pub mod traffic;

pub use privilege::{enter_privileged, privileged};
