//! The test laboratory of `bonding`: namespaces, emulated WAN lines, traffic.

pub mod line;
pub mod random;
