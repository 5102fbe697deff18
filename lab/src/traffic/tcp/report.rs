//! What became of a TCP transfer.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::super::Gap;

/// The length of the intervals of [`TcpReport::intervals`].
pub const INTERVAL: Duration = Duration::from_millis(100);

/// What became of a transfer. Times count from when all streams were connected.
#[derive(Clone, Debug, Serialize)]
pub struct TcpReport {
    /// Payload bytes that were received, of all streams.
    pub bytes: u64,
    /// From the start to the end: the time that was asked for, or when the last byte was received.
    pub duration: Duration,
    /// Payload bits per second, received, over the whole duration.
    pub goodput: u64,
    /// Bytes received in each [`INTERVAL`], of all streams.
    pub intervals: Vec<u64>,
    /// The longest time during which no stream received anything, and when it began. The start and the end of the
    /// transfer count too.
    pub longest_gap: Gap,
    /// Each stream for itself.
    pub streams: Vec<StreamReport>,
    /// `true` when every stream lived to its end: all bytes came, or the time was over without an error.
    pub completed: bool,
    /// When it started, to be compared with the time of what the test did meanwhile.
    #[serde(skip)]
    pub started: Instant,
}

/// What became of one stream.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StreamReport {
    /// Payload bytes that were received.
    pub bytes: u64,
    /// The longest time during which it received nothing.
    pub longest_gap: Gap,
    /// Segments that the sender's kernel sent again.
    pub retransmits: u32,
    /// Why it ended early, if it did.
    pub error: Option<String>,
}

impl TcpReport {
    /// Payload bits per second received between two times after the start, to the nearest [`INTERVAL`].
    pub fn goodput_between(&self, from: Duration, to: Duration) -> u64 {
        let index = |time: Duration| {
            let interval = INTERVAL.as_millis();
            usize::try_from((time.as_millis() + interval / 2) / interval).unwrap_or(usize::MAX)
        };
        let (from, to) = (index(from), index(to).min(self.intervals.len()));
        let Some(bytes) = self.intervals.get(from..to).filter(|intervals| !intervals.is_empty()) else {
            return 0;
        };
        let millis = bytes.len() as u64 * INTERVAL.as_millis() as u64;
        bytes.iter().sum::<u64>() * 8 * 1000 / millis
    }

    /// Payload bits per second received after the first part, in which TCP finds its rate.
    pub fn goodput_after(&self, warm_up: Duration) -> u64 {
        self.goodput_between(warm_up, self.duration)
    }

    /// Segments that the senders sent again.
    pub fn retransmits(&self) -> u32 {
        self.streams.iter().map(|stream| stream.retransmits).sum()
    }

    /// Why streams ended early, if they did.
    pub fn errors(&self) -> Vec<&str> {
        self.streams.iter().filter_map(|stream| stream.error.as_deref()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goodput_is_that_of_the_intervals() {
        let report = TcpReport {
            bytes: 600,
            duration: Duration::from_millis(300),
            goodput: 16_000,
            intervals: vec![100, 200, 300],
            longest_gap: Gap::default(),
            streams: Vec::new(),
            completed: true,
            started: Instant::now(),
        };
        assert_eq!(report.goodput_after(Duration::from_millis(100)), 500 * 8 * 5);
        assert_eq!(report.goodput_between(Duration::ZERO, INTERVAL), 8000);
        assert_eq!(report.goodput_between(INTERVAL * 3, INTERVAL * 9), 0);
    }
}
