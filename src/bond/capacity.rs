//! Finds out how fast a link is, from what the other end reports.
//!
//! The link's rate is steered so that the queue in front of its bottleneck (the modem) stays a few milliseconds long:
//! the delay above the smallest delay seen says how long the queue is, the rate at which packets arrive says how fast
//! it drains. Short and long packets have base delays of their own, since serialisation at 1 Mbit/s takes 12 ms. The
//! idea is that of delay-based congestion control (TCP Vegas; RFC 6817, LEDBAT; BBR's delivery rate).

mod delay;
mod path;

use std::collections::VecDeque;
use std::time::Duration;

use super::Time;
use super::competition::{Competition, Sight, Verdict};
use super::random_loss::{Advice, Observation, RandomLoss};
use super::time::seconds;
use super::window::Windowed;
use super::wire::{Report, TICK_NANOS, tick_distance};
use delay::Bend;
use path::{Congestion, Moved};

/// The rate of a link of which nothing is known, in bytes a second (1 Mbit/s).
pub const INITIAL_RATE: f64 = 125_000.0;
/// No link is taken to be slower than this, in bytes a second (64 kbit/s).
const MIN_RATE: f64 = 8_000.0;
/// Nor faster (20 Gbit/s).
const MAX_RATE: f64 = 2.5e9;
/// Least length of the aimed-at queue.
const MIN_TARGET: f64 = 0.004;
/// The aimed-at queue in packets of the line.
const TARGET_PACKETS: f64 = 0.7;
const PACKET: f64 = 1500.0;
/// The share of delay jitter that the queue may add to the target.
const TARGET_JITTER: f64 = 0.3;
/// The part of a train's rate to begin with.
const SEED_SHARE: f64 = 0.85;
/// A train that is faster than believed by this factor corrects what is believed.
const DOUBT: f64 = 1.5;
/// After a train the rate is about known, so it grows carefully at first.
const SEEDED_DOUBLING: f64 = 0.3;
/// A queue that has grown by this many seconds before it is noticed does little harm.
const HARMLESS: f64 = 0.025;
const MIN_GAIN: f64 = 0.04;
/// A link whose rate grows with more than this gain is far from full.
const GROWING: f64 = 0.15;
/// A rate below this part of what it was ten seconds ago is likely to rise again.
const FALLEN: f64 = 0.6;
const MAX_GAIN: f64 = 0.5;
const BACKOFF_LIMIT: f64 = 0.4;
/// Time constant with which the rate follows its goal, in seconds.
const FOLLOW: f64 = 0.04;
/// A link that was offered nothing for more than this share of the time is not full.
const FULL_IDLE: f64 = 0.12;
/// A base delay that was not met for so long is looked for by letting the queue drain.
const BASE_STALE: Duration = Duration::from_secs(8);
/// A queue is above the target by this many times the noise of the delay before the line is taken to be busy.
const BUSY_NOISE: f64 = 2.5;
/// Length of the busy time whose rate is measured, in seconds.
const BUSY_SPAN: f64 = 0.1;
/// And so many bytes, which take longer on a slow line.
const BUSY_BYTES: f64 = 6.0 * PACKET;
/// A rate this much above that of the busy line is too high.
const TOO_FAST: f64 = 1.15;
const HISTORY: usize = 256;
/// A queue that was reported longer ago than this is taken to have drained.
const FRESH: Duration = Duration::from_millis(200);
/// The clocks of both ends tell the time between two reports to so many seconds, unless one stood still, or that of the
/// other end has gone round: on the wire it does so after 134 s.
const CLOCKS_AGREE: f64 = 10.0;
/// By so many seconds clocks drift apart while a base delay is remembered, and more.
const CLOCK_MARGIN: f64 = 0.05;
/// A link that was offered something for less than this share of the time says nothing about its rate.
const LEAST_OFFERED: f64 = 0.3;

/// What the sender knows at the time of a report.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Smoothed round-trip time, in seconds.
    pub rtt: f64,
    /// When the newest packet that came was sent, and the time until then in which the pacer was given nothing.
    pub newest: Option<(Time, Duration)>,
    /// Packets of the recent past that were lost, as a share.
    pub loss: f64,
    /// Packets that this report shows to be lost.
    pub lost: u64,
}

struct Sample {
    /// When the newest packet was sent.
    sent: Time,
    /// Seconds of the receiver's clock.
    received: f64,
    bytes: f64,
    idle: f64,
}

/// The estimator of one link and direction.
pub struct Capacity {
    rate: f64,
    limit: Option<f64>,
    startup: bool,
    /// How often the rate doubles in a round trip at the start.
    doubling: f64,
    gain: f64,
    known: bool,
    growing: bool,
    reference: Option<u32>,
    base: [Windowed<f64>; 2],
    last_delay: [Option<f64>; 2],
    bends: [Bend; 2],
    base_met: Time,
    drain_until: Option<Time>,
    /// Queueing delays, newest last.
    queue: VecDeque<(Time, f64)>,
    queue_delay: f64,
    /// Mean change of the one-way delay from report to report, in seconds.
    jitter: f64,
    jitter_samples: u32,
    /// Of them, those from when the link was quiet.
    quiet_samples: u32,
    /// How far the delay of a quiet link is above the smallest, on average, in seconds.
    noise: f64,
    /// Expected delay of short and long packets, in ticks: without and with the queue of the last report.
    expected: [Option<(u32, u32)>; 2],
    quiet_reports: u32,
    /// Reports since the last train.
    since_train: u32,
    samples: VecDeque<Sample>,
    last: Option<(u32, u32)>,
    received: f64,
    bytes: f64,
    delivery: f64,
    peak: Windowed<f64>,
    /// What it delivered while there was a queue.
    full_rate: Windowed<f64>,
    /// The rate of the last train.
    seed: f64,
    /// The most it has delivered in the last minutes.
    largest: Windowed<f64>,
    congested: Option<Congestion>,
    /// When the base was last moved up, and what it was before.
    moved: Option<Moved>,
    competition: Option<Competition>,
    random_loss: RandomLoss,
    /// The base from before the competition: the others may leave no moment without a queue to find it again.
    held: [Option<f64>; 2],
    /// Seconds for which the line has been busy without a break, and bytes delivered in them.
    busy: Option<(f64, f64)>,
    updated: Time,
}

impl Capacity {
    /// An estimator that knows nothing but the user's limit, in bytes a second.
    pub fn new(limit: Option<u64>, now: Time) -> Self {
        let mut capacity = Capacity {
            rate: INITIAL_RATE,
            limit: None,
            startup: true,
            doubling: 1.0,
            gain: MIN_GAIN,
            known: false,
            growing: false,
            reference: None,
            base: [Windowed::smallest(Duration::from_secs(30)), Windowed::smallest(Duration::from_secs(30))],
            last_delay: [None; 2],
            bends: [Bend::default(), Bend::default()],
            base_met: now,
            drain_until: None,
            queue: VecDeque::new(),
            queue_delay: 0.0,
            jitter: 0.0,
            jitter_samples: 0,
            quiet_samples: 0,
            noise: 0.0,
            expected: [None; 2],
            quiet_reports: 0,
            since_train: 0,
            samples: VecDeque::new(),
            last: None,
            received: 0.0,
            bytes: 0.0,
            delivery: 0.0,
            peak: Windowed::largest(Duration::from_secs(10)),
            full_rate: Windowed::largest(Duration::from_secs(10)),
            seed: 0.0,
            largest: Windowed::largest(Duration::from_secs(120)),
            congested: None,
            moved: None,
            competition: None,
            random_loss: RandomLoss::default(),
            held: [None; 2],
            busy: None,
            updated: now,
        };
        capacity.set_limit(limit);
        capacity
    }

    /// Sets the user's limit, in bytes a second.
    pub fn set_limit(&mut self, limit: Option<u64>) {
        self.limit = limit.map(|l| (l as f64).max(MIN_RATE));
        self.bound();
    }

    /// The rate to send at, in bytes a second.
    pub fn rate(&self) -> u64 {
        self.rate as u64
    }

    /// The link has been filled once, so that its rate is known.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Others keep the line's queue filled, so that packets are lost as a matter of course.
    pub fn is_shared(&self) -> bool {
        self.competition.is_some()
    }

    /// The rate is full of data and rises quickly, or has fallen deep not long ago, so that the link is likely to carry
    /// more in a moment.
    pub fn is_growing(&self) -> bool {
        self.growing || self.known && self.peak.get().is_some_and(|peak| self.rate < FALLEN * peak)
    }

    /// What the link can add to others, in bytes a second: what it carried when it was last full, or what a train has
    /// shown. Its rate may be low for a moment because others share the line, and who is given nothing then does not learn
    /// that it is over.
    pub fn worth(&self) -> u64 {
        let shared = self.competition.as_ref().map_or(0.0, Competition::capacity);
        let shown = if self.known { 0.0 } else { self.seed / SEED_SHARE };
        self.full_rate.get().unwrap_or(0.0).max(shared).max(shown).max(self.rate) as u64
    }

    /// The queue at the bottleneck.
    pub fn queue_delay(&self) -> Duration {
        seconds(self.queue_delay)
    }

    /// Mean change of the delay from packet to packet.
    pub fn jitter(&self) -> Duration {
        seconds(self.jitter)
    }

    /// One-way delay that a short or long packet sent now can expect, in wire ticks of an unknown offset that is the
    /// same for all links of a session.
    pub fn delay(&self, long: bool, now: Time) -> Option<u32> {
        let fresh = now.since(self.updated) < FRESH;
        self.expected[usize::from(long)].map(|(quiet, queued)| if fresh { queued } else { quiet })
    }

    /// Prepares the answers of [`Capacity::delay`], which is asked for every packet.
    fn expect(&mut self) {
        let Some(reference) = self.reference else {
            self.expected = [None; 2];
            return;
        };
        let ticks = |seconds: f64| {
            let ticks = (seconds * 1e9 / TICK_NANOS as f64) as i64;
            (i64::from(reference) + ticks).rem_euclid(i64::from(super::wire::TICKS)) as u32
        };
        let base = [self.base[0].get(), self.base[1].get()];
        for (class, expected) in self.expected.iter_mut().enumerate() {
            *expected = base[class].or(base[1 - class]).map(|base| {
                let quiet = base + self.noise;
                (ticks(quiet), ticks(base + self.noise.max(self.queue_delay)))
            });
        }
    }

    /// Learns the delays from a report on packets of a train, which queue on purpose.
    pub fn report_train(&mut self, report: &Report<'_>, now: Time) {
        self.updated = now;
        self.quiet_reports = 0;
        self.enter_delays(report, true, now);
        self.queue.clear();
        self.queue_delay = 0.0;
        self.samples.clear();
        self.last = Some((report.received, report.bytes));
        self.busy = None;
        self.expect();
    }

    /// A train of packets arrived at this rate, in bytes a second: a first guess.
    pub fn seed(&mut self, rate: f64) {
        self.seed = SEED_SHARE * rate;
        if !self.known && self.startup {
            self.rate = SEED_SHARE * rate;
            self.doubling = SEEDED_DOUBLING;
            self.bound();
        }
    }

    /// A train of packets arrived so much faster, in bytes a second, than is believed that the belief is in doubt.
    pub fn is_doubted(&self, rate: f64) -> bool {
        self.competition.is_none() && SEED_SHARE * rate > DOUBT * self.rate
    }

    /// Believes a train on a link that had nothing else to learn from.
    pub fn correct(&mut self, rate: f64) {
        if self.is_doubted(rate) {
            self.rate = SEED_SHARE * rate;
            self.bound();
        }
    }

    /// The path is another one: what was learnt of delays no longer holds.
    pub fn path_changed(&mut self, now: Time) {
        self.forget_delays();
        self.forget_delivery();
        self.competition = None;
        self.base_met = now;
        self.expect();
    }

    /// Nothing that will come can be reckoned from what has come.
    fn forget_delivery(&mut self) {
        self.samples.clear();
        self.last = None;
    }

    /// Learns from a report.
    pub fn report(&mut self, report: &Report<'_>, context: Context, now: Time) {
        let pause = now.since(self.updated).as_secs_f64();
        let elapsed = pause.min(0.2);
        self.updated = now;
        self.count_quiet(&context);
        let above = self.enter_delays(report, false, now);
        if let (Some(above), Some((sent, _))) = (above, context.newest)
            && above > now.since(sent).as_secs_f64() + CLOCK_MARGIN
        {
            // Nothing has waited for longer than since it was sent: a clock stood still, as when a machine is suspended.
            self.path_changed(now);
            return;
        }
        self.expect();
        let delivered = self.enter_delivery(report, context, pause);
        self.watch_busy(above, delivered);
        let span = context.rtt.max(0.08) + (40.0 * self.jitter).min(0.25);
        let Some((delivery, idle)) = self.delivery_over(span) else { return };
        self.delivery = delivery;
        self.steer(delivery, idle, context, span, elapsed, now);
    }

    /// Returns the seconds and bytes since the report before, which came `pause` seconds ago.
    fn enter_delivery(&mut self, report: &Report<'_>, context: Context, pause: f64) -> Option<(f64, f64)> {
        let mut delivered = None;
        if let Some((ticks, bytes)) = self.last {
            let time = f64::from(tick_distance(report.received, ticks)) * TICK_NANOS as f64 / 1e9;
            if (time - pause).abs() > CLOCKS_AGREE {
                self.forget_delivery();
            } else if time <= 0.0 {
                return None;
            } else {
                let step = (time, f64::from(report.bytes.wrapping_sub(bytes)));
                self.received += step.0;
                self.bytes += step.1;
                delivered = Some(step);
            }
        }
        self.last = Some((report.received, report.bytes));
        if let Some((sent, idle)) = context.newest {
            self.samples.push_back(Sample {
                sent,
                received: self.received,
                bytes: self.bytes,
                idle: idle.as_secs_f64(),
            });
        }
        if self.samples.len() > HISTORY {
            self.samples.pop_front();
        }
        delivered
    }

    /// While even the quickest packet of each report has queued, the line was busy all the time, and what it delivered
    /// is its rate, whatever was offered.
    fn watch_busy(&mut self, above: Option<f64>, delivered: Option<(f64, f64)>) {
        let Some(above) = above else { return };
        if above < self.target() + BUSY_NOISE * self.noise {
            self.busy = None;
            return;
        }
        match (&mut self.busy, delivered) {
            (Some((time, bytes)), Some((step, more))) => {
                if *time > BUSY_SPAN && *bytes > 2.0 * BUSY_BYTES {
                    *time /= 2.0;
                    *bytes /= 2.0;
                }
                *time += step;
                *bytes += more;
            }
            (busy, _) => *busy = Some((0.0, 0.0)),
        }
    }

    /// The rate of the line as seen while it was busy.
    fn busy_rate(&self) -> Option<f64> {
        self.busy
            .filter(|(time, bytes)| *time >= 0.015 && *bytes >= BUSY_BYTES)
            .map(|(time, bytes)| bytes / time)
    }

    /// The aimed-at queue, in seconds.
    fn target(&self) -> f64 {
        let fastest = self.peak.get().unwrap_or(self.rate).max(MIN_RATE);
        MIN_TARGET.max(TARGET_PACKETS * PACKET / fastest) + TARGET_JITTER * self.jitter
    }

    /// Delivery rate over the last `span` seconds, and the share of that time in which nothing was offered.
    fn delivery_over(&mut self, span: f64) -> Option<(f64, f64)> {
        let newest = self.samples.back()?;
        let (received, bytes, idle, sent) = (newest.received, newest.bytes, newest.idle, newest.sent);
        while self.samples.len() > 2 && self.samples.get(1).is_some_and(|s| received - s.received >= span) {
            self.samples.pop_front();
        }
        let oldest = self.samples.front()?;
        let time = received - oldest.received;
        if time < 0.25 * span {
            return None;
        }
        let wall = sent.since(oldest.sent).as_secs_f64().max(time);
        Some(((bytes - oldest.bytes) / time, ((idle - oldest.idle) / wall).clamp(0.0, 1.0)))
    }

    fn steer(&mut self, delivery: f64, idle: f64, context: Context, span: f64, elapsed: f64, now: Time) {
        self.peak.push(delivery, now);
        // What would have been delivered if there had always been something to send.
        let offered = delivery / (1.0 - idle.min(1.0 - LEAST_OFFERED));
        // A share of a rate that is only guessed says nothing about the rest.
        self.largest.push(if self.known { offered } else { delivery }, now);
        let target = self.target();
        if self.competition.is_none() {
            self.watch_for_longer_path(self.queue_delay, target, idle, context, elapsed, now);
        }
        let queue = self.queue_delay;
        let full = idle < FULL_IDLE;
        self.growing = self.competition.as_ref().is_some_and(Competition::is_testing);
        let noise = self.own_noise();
        if let Some(competition) = &mut self.competition {
            let sight = Sight {
                delivery: offered,
                full,
                lost: context.lost > 0,
                loss: self.random_loss.excess(context.loss),
                queue,
                target,
                noise,
                rtt: context.rtt,
                elapsed,
            };
            match competition.step(&sight, now) {
                Verdict::Rate(rate) => self.rate = rate,
                Verdict::Over(left) => {
                    self.competition = None;
                    self.held = [None; 2];
                    self.rate = self.rate.min(sight.delivery);
                    let bases = [self.base[0].get(), self.base[1].get()];
                    self.moved = Some(Moved { at: now, bases, rate: self.rate });
                    self.move_base(left, now);
                }
            }
            self.bound();
            return;
        }
        if let Some(busy) = self.busy_rate()
            && self.rate > TOO_FAST * self.random_loss.sent(busy)
        {
            self.rate = self.random_loss.sent(busy);
            if !self.known && idle >= FULL_IDLE {
                // A train that the air had compressed: what followed from its rate does not count.
                self.congested = None;
                self.samples.clear();
            }
            self.startup = false;
            self.known = true;
            self.bound();
        }
        // Delays of a link that is mostly idle are those of other people's packets, or of the air.
        self.growing = full && queue < target && (self.startup || self.gain > GROWING);
        if !full && (queue < 2.0 * target + self.noise || 1.0 - idle < LEAST_OFFERED) {
            self.random_loss.cancel();
            return;
        }
        if self.startup {
            if queue < target && self.random_loss.explains(context.loss) {
                let trips = (elapsed / context.rtt.max(0.01)).min(1.0);
                let grown = self.rate * (trips * self.doubling).exp2();
                let ceiling = 1.1 * self.doubling.exp2() * offered;
                self.rate = self.rate.max(grown.min(ceiling));
                if grown < ceiling {
                    self.doubling = (self.doubling * half_more(trips)).min(1.0);
                }
                self.bound();
                return;
            }
            self.startup = false;
            self.rate = self.rate.min(offered);
        }
        self.known = true;
        let advice = if queue < 0.6 * target {
            let (rate, loss, rtt) = (self.rate, context.loss, context.rtt);
            self.random_loss.observe(&Observation { rate, delivery: offered, loss, rtt, elapsed }, now)
        } else {
            self.random_loss.cancel();
            Advice::Free
        };
        if let Advice::Rate(rate) = advice {
            self.rate = rate;
            self.bound();
            return;
        }
        // What is done now shows after so long.
        let lag = context.rtt + self.queue_span() + 0.01;
        let growth = if self.drain(queue, target, context, now) {
            -0.25
        } else if queue < 0.6 * target {
            let steps = elapsed / (context.rtt + span / 2.0);
            let limit = (HARMLESS / lag).clamp(MIN_GAIN, MAX_GAIN);
            self.gain = (self.gain * half_more(steps)).min(MAX_GAIN);
            let fast = self.full_rate.get().filter(|rate| self.rate < 0.85 * rate);
            if advice == Advice::NoMore {
                0.0
            } else if fast.is_some() {
                self.gain.max(limit)
            } else {
                self.gain
            }
        } else {
            self.gain = MIN_GAIN;
            self.full_rate.push(delivery, now);
            (0.5 * (target - queue) / lag).max(-BACKOFF_LIMIT)
        };
        let mut goal = self.random_loss.sent(offered) * (1.0 + growth);
        if growth > 0.0 {
            // Without a queue nothing says that the rate is too high.
            goal = goal.max(self.rate);
        }
        self.rate += (goal - self.rate) * (1.0 - (-elapsed / FOLLOW).exp());
        self.bound();
    }

    /// Now and then the queue is emptied, so that the base delay is not forgotten under lasting load.
    fn drain(&mut self, queue: f64, target: f64, context: Context, now: Time) -> bool {
        match self.drain_until {
            Some(end) if now < end && queue >= 0.001 => true,
            Some(_) => {
                self.drain_until = None;
                self.base_met = now;
                false
            }
            None if now.since(self.base_met) > BASE_STALE && queue < 2.0 * target => {
                self.drain_until = Some(now + seconds((context.rtt + 4.0 * target).min(0.3)));
                true
            }
            None => false,
        }
    }

    fn bound(&mut self) {
        let limit = self.limit.unwrap_or(MAX_RATE).min(MAX_RATE);
        self.rate = self.rate.clamp(MIN_RATE, limit);
    }
}

/// What has become of 1 when it has grown by half so many `times`, which need not be whole. A power of two takes less than
/// a tenth of the code of other powers.
fn half_more(times: f64) -> f64 {
    // The logarithm of 1.5 to the base 2.
    const ONE_AND_A_HALF: f64 = 0.584_962_500_721_156_2;
    (times * ONE_AND_A_HALF).exp2()
}

#[cfg(test)]
mod tests;
