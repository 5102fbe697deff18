//! The threads of a TCP transfer: two for each stream.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use super::super::{GapFinder, TICK, is_timeout};
use super::Amount;
use super::report::{INTERVAL, StreamReport, TcpReport};

/// What is read or written at a time.
const CHUNK: usize = 64 * 1024;

/// A transfer that goes on. It is stopped when this is dropped.
#[derive(Debug)]
pub struct TcpRun {
    control: Arc<Control>,
    streams: Vec<(JoinHandle<Sent>, JoinHandle<StreamReport>)>,
    amount: Amount,
}

/// What the threads share with the test.
#[derive(Debug)]
struct Control {
    started: Instant,
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Progress {
    bytes: u64,
    intervals: Vec<u64>,
    gaps: GapFinder,
    stopped_at: Option<Duration>,
}

/// What became of a sender.
#[derive(Debug)]
struct Sent {
    retransmits: u32,
    error: Option<String>,
}

impl TcpRun {
    /// Starts to send on connected streams, (sender, receiver).
    pub(super) fn start(
        streams: Vec<(TcpStream, TcpStream)>,
        amount: Amount,
        deadline: Duration,
    ) -> io::Result<Self> {
        for (sender, receiver) in &streams {
            sender.set_write_timeout(Some(TICK))?;
            sender.set_read_timeout(Some(TICK))?;
            receiver.set_read_timeout(Some(TICK))?;
        }
        let control = Arc::new(Control {
            started: Instant::now(),
            progress: Mutex::default(),
            changed: Condvar::new(),
        });
        let (until, bytes) = match amount {
            Amount::Time(duration) => (duration, None),
            Amount::Bytes(bytes) => (deadline, Some(bytes)),
        };
        let start = |(sender, receiver)| {
            let (for_sender, for_receiver) = (Arc::clone(&control), Arc::clone(&control));
            let sender = thread::spawn(move || for_sender.send(sender, until, bytes));
            let receiver = thread::spawn(move || for_receiver.receive(receiver, until, bytes));
            (sender, receiver)
        };
        let streams = streams.into_iter().map(start).collect();
        Ok(TcpRun { control, streams, amount })
    }

    /// Payload bytes received so far, of all streams.
    pub fn received(&self) -> u64 {
        self.control.lock().bytes
    }

    /// The time since the start.
    pub fn elapsed(&self) -> Duration {
        self.control.started.elapsed()
    }

    /// Waits until so many bytes have been received in all; `false` when they have not within `timeout`.
    pub fn wait_for_bytes(&self, bytes: u64, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut progress = self.control.lock();
        while progress.bytes < bytes {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.control.changed.wait_timeout(progress, left);
            progress = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Ends the transfer now, instead of when it was to end.
    pub fn stop(self) -> TcpReport {
        self.control.stop();
        self.finish()
    }

    /// Waits for the end of the transfer.
    pub fn finish(mut self) -> TcpReport {
        let mut streams = Vec::new();
        for (sender, receiver) in self.streams.drain(..) {
            let mut report = receiver.join().unwrap_or_else(|_| failed("the receiving thread panicked"));
            match sender.join() {
                Ok(sent) => {
                    report.retransmits = sent.retransmits;
                    // That the receiver hung up is no error of the sender, when the receiver had all it wanted.
                    if report.error.is_some() {
                        report.error = sent.error.or(report.error);
                    }
                }
                Err(_) => report.error = Some("the sending thread panicked".into()),
            }
            streams.push(report);
        }
        let mut progress = std::mem::take(&mut *self.control.lock());
        let duration = match (progress.stopped_at, self.amount) {
            (Some(stopped), _) => stopped,
            (None, Amount::Time(duration)) => duration,
            (None, Amount::Bytes(_)) => progress.gaps.last(),
        };
        progress.gaps.note(duration);
        let nanos = duration.as_nanos().max(1);
        let goodput = u128::from(progress.bytes) * 8 * 1_000_000_000 / nanos;
        let count = duration.as_nanos().div_ceil(INTERVAL.as_nanos());
        progress.intervals.resize(usize::try_from(count).unwrap_or(0).max(progress.intervals.len()), 0);
        TcpReport {
            bytes: progress.bytes,
            duration,
            goodput: u64::try_from(goodput).unwrap_or(u64::MAX),
            intervals: progress.intervals,
            longest_gap: progress.gaps.longest(),
            completed: streams.iter().all(|stream| stream.error.is_none()),
            streams,
            started: self.control.started,
        }
    }
}

impl Drop for TcpRun {
    fn drop(&mut self) {
        if !self.streams.is_empty() {
            self.control.stop();
        }
    }
}

impl Control {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn stop(&self) {
        let now = self.now();
        self.lock().stopped_at.get_or_insert(now);
    }

    fn is_over(&self, until: Duration) -> bool {
        self.now() >= until || self.lock().stopped_at.is_some()
    }

    fn send(&self, mut stream: TcpStream, until: Duration, bytes: Option<u64>) -> Sent {
        let chunk = vec![0x5a; CHUNK];
        let mut left = bytes.unwrap_or(u64::MAX);
        let mut error = None;
        while left > 0 && !self.is_over(until) {
            let next = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            match stream.write(chunk.get(..next).unwrap_or_default()) {
                Ok(written) => left -= written as u64,
                Err(failure) if is_timeout(&failure) => {}
                Err(failure) => {
                    error = Some(failure.to_string());
                    break;
                }
            }
        }
        if left == 0 {
            self.drain(&mut stream, until);
        }
        let retransmits = retransmits(&stream);
        // What is still in the kernel's buffer is nobody's any more: no traffic of ours after our end.
        let _ = setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 });
        Sent { retransmits, error }
    }

    /// Waits until the receiver has everything, and hangs up.
    fn drain(&self, stream: &mut TcpStream, until: Duration) {
        // It has hung up already; the read says so too.
        let _ = stream.shutdown(Shutdown::Write);
        while !self.is_over(until) {
            match stream.read(&mut [0]) {
                Err(failure) if is_timeout(&failure) => {}
                _ => return,
            }
        }
    }

    fn receive(&self, mut stream: TcpStream, until: Duration, bytes: Option<u64>) -> StreamReport {
        let mut buffer = vec![0; CHUNK];
        let mut report = StreamReport::default();
        let mut gaps = GapFinder::default();
        let wanted = bytes.unwrap_or(u64::MAX);
        while report.bytes < wanted {
            let result = stream.read(&mut buffer);
            let now = self.now();
            if self.is_over(until) {
                // To be over is the end of a transfer for a time, and too early for one of a number of bytes.
                if bytes.is_some() {
                    report.error = Some(format!("{} bytes were missing at the end", wanted - report.bytes));
                }
                break;
            }
            match result {
                Ok(0) => {
                    report.error = Some("the sender closed the connection too early".into());
                    break;
                }
                Ok(length) => {
                    report.bytes += length as u64;
                    gaps.note(now);
                    self.count(now, length as u64);
                }
                Err(failure) if is_timeout(&failure) => {}
                Err(failure) => {
                    report.error = Some(failure.to_string());
                    break;
                }
            }
        }
        if report.bytes < wanted {
            gaps.note(self.lock().stopped_at.unwrap_or(until).min(self.now()));
        }
        report.longest_gap = gaps.longest();
        report
    }

    fn count(&self, now: Duration, bytes: u64) {
        let mut progress = self.lock();
        progress.bytes += bytes;
        progress.gaps.note(now);
        let index = usize::try_from(now.as_nanos() / INTERVAL.as_nanos()).unwrap_or(0);
        if progress.intervals.len() <= index {
            progress.intervals.resize(index + 1, 0);
        }
        if let Some(interval) = progress.intervals.get_mut(index) {
            *interval += bytes;
        }
        drop(progress);
        self.changed.notify_all();
    }
}

fn failed(why: &str) -> StreamReport {
    StreamReport { error: Some(why.into()), ..StreamReport::default() }
}

/// What the kernel has counted (TCP_INFO).
fn retransmits(stream: &TcpStream) -> u32 {
    // SAFETY: a tcp_info is plain data, for which all zeroes are valid; the kernel writes at most `length` bytes.
    unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
        let result = libc::getsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            (&raw mut info).cast(),
            &mut length,
        );
        if result == 0 { info.tcpi_total_retrans } else { 0 }
    }
}
