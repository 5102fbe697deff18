//! What passes over a line, for tests to look at.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Direction;
use crate::line::Verdict;

/// An IP packet that was offered to a line, as it is on the provider's side: with the outside address, if the box
/// translates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When, on the emulator's clock ([`LineHandle::now`](super::LineHandle::now)).
    pub at: Duration,
    /// Which way.
    pub direction: Direction,
    /// What became of it.
    pub verdict: Verdict,
    /// The packet, from the IP header on.
    pub packet: Vec<u8>,
}

/// A bounded list of what passes over a line, from the call of [`LineHandle::capture`](super::LineHandle::capture)
/// until this is dropped. When it is full the newest packets are left out, and counted.
#[derive(Debug)]
pub struct Capture {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    limit: usize,
}

#[derive(Debug, Default)]
struct State {
    packets: VecDeque<Captured>,
    missed: u64,
}

impl Capture {
    pub(super) fn new(limit: usize) -> (Self, Arc<Shared>) {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: Condvar::new(), limit });
        (Capture { shared: Arc::clone(&shared) }, shared)
    }

    /// Takes what has been captured so far.
    pub fn take(&self) -> Vec<Captured> {
        self.shared.lock().packets.drain(..).collect()
    }

    /// Waits until `count` packets are there (no more than the limit), or the time is over; then takes them all.
    pub fn wait_for(&self, count: usize, timeout: Duration) -> Vec<Captured> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        while state.packets.len() < count.min(self.shared.limit) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.packets.drain(..).collect()
    }

    /// Packets that were left out because the list was full.
    pub fn missed(&self) -> u64 {
        self.shared.lock().missed
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, at: Duration, direction: Direction, verdict: Verdict, packet: &[u8]) {
        let mut state = self.lock();
        if state.packets.len() >= self.limit {
            state.missed += 1;
            return;
        }
        state.packets.push_back(Captured { at, direction, verdict, packet: packet.to_owned() });
        self.changed.notify_all();
    }
}

/// Writes packets as a pcap file (link type "raw IP"), for Wireshark or tcpdump.
///
/// # Errors
///
/// Those of `to`.
pub fn write_pcap<'a>(mut to: impl Write, packets: impl IntoIterator<Item = &'a Captured>) -> io::Result<()> {
    const LINKTYPE_RAW: u32 = 101;
    to.write_all(&0xa1b2_3c4du32.to_le_bytes())?;
    to.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
    to.write_all(&65_535u32.to_le_bytes())?;
    to.write_all(&LINKTYPE_RAW.to_le_bytes())?;
    for captured in packets {
        let length = captured.packet.len() as u32;
        for word in [captured.at.as_secs() as u32, captured.at.subsec_nanos(), length, length] {
            to.write_all(&word.to_le_bytes())?;
        }
        to.write_all(&captured.packet)?;
    }
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_is_bounded() {
        let (capture, shared) = Capture::new(2);
        for i in 0..3 {
            shared.add(Duration::from_secs(i), Direction::Up, Verdict::Queued, &[0x45; 20]);
        }
        assert_eq!((capture.missed(), capture.wait_for(9, Duration::from_secs(60)).len()), (1, 2));
        assert!(capture.take().is_empty());
    }

    #[test]
    fn a_pcap_file_has_a_record_for_each_packet() {
        let (capture, shared) = Capture::new(9);
        shared.add(Duration::new(3, 4), Direction::Down, Verdict::Lost, &[0x45; 20]);
        let mut file = Vec::new();
        write_pcap(&mut file, &capture.take()).unwrap();
        assert_eq!(file.len(), 24 + 16 + 20);
        assert_eq!(file[20..32], [101, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
    }
}
