//! The figures of a line, and the arithmetic of its rate.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::{NEVER, nanos};

/// The figures of one direction of a line. The default is a perfect wire: no limit, no delay, no loss.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LineConfig {
    /// Bits of IP packets per second; `None`: unlimited; `Some(0)`: stands still.
    pub rate: Option<u64>,
    /// Rates that take over at given times (ascending); before the first step [`rate`](Self::rate) holds. Setting
    /// the rate of a line whose trace has begun changes nothing: clear the trace.
    pub rate_trace: Vec<RateStep>,
    /// One-way delay (propagation), without queueing and serialisation.
    pub delay: Duration,
    /// How far the delay strays from its mean to either side, in the manner of a cellular line.
    ///
    /// Time is cut into slots of twice the jitter; each slot draws an offset, uniform in ±jitter. When the new offset
    /// is larger the delay jumps up (a retransmission or a missing grant holds the radio's queue); when it is smaller
    /// the delay falls at 1 s/s, i.e. what was held back arrives at once, in order. So packets come in clumps, are
    /// never reordered, and the mean stays [`delay`](Self::delay): the bias of the slow fall, jitter/12, is taken
    /// off. The offset thus lies within −13/12 and +11/12 of the jitter. A delay below 0 counts as 0.
    ///
    /// With [`reorder`](Self::reorder) each packet draws its own offset, uniform in ±jitter, and overtakes freely.
    pub jitter: Duration,
    /// Lets jitter reorder packets.
    pub reorder: bool,
    /// Probability that a packet is lost, each by itself (0 to 1).
    pub loss: f64,
    /// Loss in bursts, besides [`loss`](Self::loss).
    pub burst_loss: Option<BurstLoss>,
    /// Drop-tail limit of the queue before the serialiser.
    pub queue: QueueLimit,
    /// Largest IP packet that passes; `None`: any.
    pub mtu: Option<usize>,
    /// The emulator drops packets above the MTU silently, instead of answering ICMP "fragmentation needed" or
    /// ICMPv6 "packet too big".
    pub pmtu_blackhole: bool,
    /// Cut: everything is lost without a word.
    pub blackhole: bool,
}

/// Gilbert-Elliott loss: the line alternates between a good state, in which nothing is lost, and a bad one, in which
/// everything is. Counted in packets. (E. N. Gilbert: "Capacity of a burst-noise channel", 1960.)
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BurstLoss {
    /// Share of all packets that is lost (0 to below 1).
    pub share: f64,
    /// Mean length of a burst in packets (1 or more).
    pub mean_length: f64,
}

/// The limit of a drop-tail queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum QueueLimit {
    /// No limit.
    #[default]
    Unlimited,
    /// A packet is dropped when it would wait longer than this for its first bit to be sent, at the rates that are
    /// known at that moment. So the longest stay in the queue is this, plus the packet's own serialisation. When the
    /// rate falls, what is in the queue stays, and the next packets are dropped until it has drained to the limit.
    Time(Duration),
    /// Packets, counting the one that is being sent (at least 1).
    Packets(usize),
    /// IP bytes, counting the packet that is being sent; one packet always fits.
    Bytes(usize),
}

/// A step of a rate trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RateStep {
    /// When it begins, on the line's clock.
    pub at: Duration,
    /// The rate from then on, as [`LineConfig::rate`].
    pub rate: Option<u64>,
}

/// A figure of a line that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidLine(String);

impl fmt::Display for InvalidLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for InvalidLine {}

impl LineConfig {
    /// A line of `rate` bit/s with a one-way delay, and a queue of 100 ms, the default of the scenarios.
    pub fn new(rate: u64, delay: Duration) -> Self {
        LineConfig {
            rate: Some(rate),
            delay,
            queue: QueueLimit::Time(Duration::from_millis(100)),
            ..LineConfig::default()
        }
    }

    /// With this jitter.
    pub fn with_jitter(self, jitter: Duration) -> Self {
        LineConfig { jitter, ..self }
    }

    /// With this random loss (0 to 1).
    pub fn with_loss(self, loss: f64) -> Self {
        LineConfig { loss, ..self }
    }

    /// With this burst loss: the share of packets lost, and the mean length of a burst in packets.
    pub fn with_burst_loss(self, share: f64, mean_length: f64) -> Self {
        LineConfig { burst_loss: Some(BurstLoss { share, mean_length }), ..self }
    }

    /// With this queue limit.
    pub fn with_queue(self, queue: QueueLimit) -> Self {
        LineConfig { queue, ..self }
    }

    /// With this path MTU in IP bytes.
    pub fn with_mtu(self, mtu: usize) -> Self {
        LineConfig { mtu: Some(mtu), ..self }
    }

    /// With this rate trace.
    pub fn with_rate_trace(self, rate_trace: Vec<RateStep>) -> Self {
        LineConfig { rate_trace, ..self }
    }

    /// Whether the figures can be.
    ///
    /// # Errors
    ///
    /// Names the first figure that cannot, and what is allowed.
    pub fn check(&self) -> Result<(), InvalidLine> {
        let invalid = |why: String| Err(InvalidLine(why));
        if !(0.0..=1.0).contains(&self.loss) {
            return invalid(format!("loss is {}, must be between 0 and 1", self.loss));
        }
        if let Some(burst) = self.burst_loss {
            if !(0.0..1.0).contains(&burst.share) {
                return invalid(format!("burst loss share is {}, must be from 0 to below 1", burst.share));
            }
            if burst.mean_length.is_nan() || burst.mean_length < 1.0 {
                return invalid(format!("mean burst length is {}, must be at least 1", burst.mean_length));
            }
            // From the good state at most every packet can begin a burst.
            if burst.share > burst.mean_length * (1.0 - burst.share) {
                return invalid(format!(
                    "a burst loss share of {} needs a mean burst length of at least {:.1}",
                    burst.share,
                    burst.share / (1.0 - burst.share)
                ));
            }
        }
        if !self.rate_trace.is_sorted_by(|a, b| a.at < b.at) {
            return invalid("the steps of a rate trace must be in ascending order of time".into());
        }
        Ok(())
    }

    /// The rate at a time on the line's clock.
    pub fn rate_at(&self, now: Duration) -> Option<u64> {
        self.segment(nanos(now)).0
    }

    /// When `work` (bits × 10⁹) that begins at `start` is done.
    pub(super) fn finish(&self, start: u64, mut work: u128) -> u64 {
        let mut time = start;
        loop {
            if time == NEVER {
                return NEVER;
            }
            let (rate, end) = self.segment(time);
            let Some(rate) = rate.map(u128::from) else { return time };
            let possible = u128::from(end - time) * rate;
            if rate > 0 && work <= possible {
                return u64::try_from(u128::from(time) + work.div_ceil(rate)).unwrap_or(NEVER);
            }
            work -= possible.min(work);
            time = end;
        }
    }

    /// The work (bits × 10⁹) that the rate does between two times; `u128::MAX` when unlimited.
    pub(super) fn work_done(&self, start: u64, until: u64) -> u128 {
        let mut time = start;
        let mut done: u128 = 0;
        while time < until {
            let (rate, end) = self.segment(time);
            let Some(rate) = rate else { return u128::MAX };
            let end = end.min(until);
            done = done.saturating_add(u128::from(end - time) * u128::from(rate));
            time = end;
        }
        done
    }

    /// The rate at `time`, and when it ends.
    fn segment(&self, time: u64) -> (Option<u64>, u64) {
        let next = self.rate_trace.partition_point(|step| nanos(step.at) <= time);
        let end = self.rate_trace.get(next).map_or(NEVER, |step| nanos(step.at));
        let rate =
            next.checked_sub(1).and_then(|i| self.rate_trace.get(i)).map_or(self.rate, |step| step.rate);
        (rate, end)
    }
}
