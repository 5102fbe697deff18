//! A whole bond over modelled lines, with modelled traffic, in virtual time.
//!
//! Nothing here waits: an hour of a bond passes in seconds, and passes the same way each time. The lines are those
//! of the laboratory ([`lab::line`]), the packets are real IPv4, and the tunnel is the core as the daemon drives it.

mod baseline;
mod bond_tests;
mod class_tests;
mod endpoint;
mod measure;
mod model_tests;
mod packet;
mod report;
mod scenarios;
mod tcp;
mod udp;
mod udp_tests;
mod world;

/// Virtual time in nanoseconds since the world began.
pub type Nanos = u64;
/// A millisecond.
pub const MILLI: Nanos = 1_000_000;
/// A second.
pub const SECOND: Nanos = 1_000 * MILLI;

/// The value at a percentile (0 to 100, nearest rank) of sorted times, in milliseconds; infinite when there is none.
pub fn percentile(sorted: &[Nanos], percent: f64) -> f64 {
    let rank = (percent / 100.0 * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).map_or(f64::INFINITY, |&time| time as f64 / MILLI as f64)
}
