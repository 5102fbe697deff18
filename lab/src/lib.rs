//! The test laboratory of `bonding`: namespaces, emulated WAN lines, traffic.

pub mod line;
pub mod namespace;
pub mod prefix;
pub mod privilege;
pub mod random;
pub mod tap;

pub use privilege::{enter_privileged, privileged};
