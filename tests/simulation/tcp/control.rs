//! Congestion control of the modelled TCP sender: Reno (RFC 5681), CUBIC (RFC 9438, HyStart), BBR version 1.

use crate::{MILLI, Nanos, SECOND};

/// The smallest window, in segments.
const MIN_WINDOW: f64 = 2.0;
/// Initial window (RFC 6928).
pub const INITIAL_WINDOW: f64 = 10.0;

/// The algorithms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Reno,
    Cubic,
    /// CUBIC without HyStart (Ha, Rhee 2011), which Linux has on.
    CubicNoHystart,
    Bbr,
}

/// What an acknowledgement tells the algorithm.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    pub now: Nanos,
    /// Segments newly delivered (acknowledged or selectively acknowledged).
    pub delivered: u64,
    /// Segments newly acknowledged in sequence.
    pub in_order: u64,
    /// Round-trip time of the newest segment that was sent once.
    pub rtt: Option<Nanos>,
    /// Smoothed round-trip time.
    pub srtt: Nanos,
    /// Segments delivered over the connection's life, after this one.
    pub total_delivered: u64,
    /// `total_delivered` when the newest delivered segment was sent.
    pub prior_delivered: u64,
    /// Segments per second at which the newest delivered segment's flight was delivered.
    pub rate: Option<f64>,
    /// The sender had nothing to send then.
    pub app_limited: bool,
    /// Segments in flight after this acknowledgement.
    pub in_flight: u64,
    /// The window was what limited the sender.
    pub window_limited: bool,
    /// Recovery from loss, or from an ECN mark, is under way.
    pub recovering: bool,
    /// Segments newly marked lost.
    pub lost: u64,
}

/// State of one algorithm; the window is in segments.
#[derive(Debug)]
pub struct Control {
    pub window: f64,
    pub threshold: f64,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Reno,
    Cubic(Cubic),
    Bbr(Bbr),
}

impl Control {
    pub fn new(algorithm: Algorithm) -> Self {
        let kind = match algorithm {
            Algorithm::Reno => Kind::Reno,
            Algorithm::Cubic => Kind::Cubic(Cubic { hystart: Some(Hystart::default()), ..Cubic::default() }),
            Algorithm::CubicNoHystart => Kind::Cubic(Cubic::default()),
            Algorithm::Bbr => Kind::Bbr(Bbr::new()),
        };
        Control { window: INITIAL_WINDOW, threshold: f64::INFINITY, kind }
    }

    /// The algorithm sets its window by itself, whatever loss recovery says.
    pub fn is_model_based(&self) -> bool {
        matches!(self.kind, Kind::Bbr(_))
    }

    /// Segments per second to pace at; `None`: the acknowledgements are the clock.
    pub fn pacing_rate(&self, srtt: Option<Nanos>) -> Option<f64> {
        let Kind::Bbr(bbr) = &self.kind else { return None };
        Some(match bbr.bandwidth() {
            // Linux starts from the initial window over the first round trip, or over 1 ms without one.
            None => 2.89 * INITIAL_WINDOW * SECOND as f64 / srtt.unwrap_or(MILLI) as f64,
            Some(bandwidth) => bbr.pacing_gain * bandwidth,
        })
    }

    /// An acknowledgement came.
    pub fn on_ack(&mut self, acked: &Acked) {
        if let Kind::Bbr(bbr) = &mut self.kind {
            bbr.on_ack(acked, &mut self.window);
            return;
        }
        if let Kind::Cubic(cubic) = &mut self.kind
            && self.window < self.threshold
            && cubic.slow_start_must_end(acked, self.window)
        {
            self.threshold = self.window;
        }
        if acked.recovering || !acked.window_limited {
            return;
        }
        let mut count = acked.in_order as f64;
        if self.window < self.threshold {
            let step = count.min(self.threshold - self.window);
            self.window += step;
            count -= step;
        }
        if count <= 0.0 {
            return;
        }
        match &mut self.kind {
            Kind::Reno => self.window += count / self.window,
            Kind::Cubic(cubic) => self.window += cubic.growth(acked, self.window, count),
            Kind::Bbr(_) => {}
        }
    }

    /// Loss or an ECN mark: sets the threshold. The sender moves the window there (RFC 6937).
    pub fn on_congestion(&mut self) {
        match &mut self.kind {
            Kind::Reno => self.threshold = (self.window / 2.0).max(MIN_WINDOW),
            Kind::Cubic(cubic) => self.threshold = cubic.on_congestion(self.window),
            Kind::Bbr(bbr) => bbr.save(self.window),
        }
    }

    /// A retransmission timeout: the window starts again from one segment.
    pub fn on_timeout(&mut self) {
        self.on_congestion();
        if let Kind::Cubic(cubic) = &mut self.kind {
            cubic.epoch = None;
            cubic.reduced = false;
        }
        self.window = 1.0;
    }

    /// Recovery is over (or was never needed).
    pub fn on_recovered(&mut self) {
        if let Kind::Bbr(bbr) = &mut self.kind {
            self.window = self.window.max(bbr.saved_window);
        }
    }

    /// The sender was idle for longer than a round trip: the cubic curve must not run on (RFC 9438, 5.8).
    pub fn on_idle(&mut self, idle: Nanos) {
        if let Kind::Cubic(cubic) = &mut self.kind
            && let Some(epoch) = &mut cubic.epoch
        {
            *epoch += idle;
        }
    }
}

/// RFC 9438.
#[derive(Debug, Default)]
struct Cubic {
    /// The window before the last reduction.
    w_max: f64,
    /// The window has been reduced, so that something is known of the way.
    reduced: bool,
    /// When the current congestion avoidance began.
    epoch: Option<Nanos>,
    /// The window then.
    epoch_window: f64,
    /// Seconds until the curve is at `w_max` again.
    k: f64,
    /// The window that Reno would have.
    reno: f64,
    hystart: Option<Hystart>,
}

const CUBIC_C: f64 = 0.4;
const CUBIC_BETA: f64 = 0.7;
/// Linux lets the window grow by 5 % a round trip after HyStart, until congestion is met for the first time.
const INITIAL_GROWTH: f64 = 1.05;

impl Cubic {
    fn growth(&mut self, acked: &Acked, window: f64, count: f64) -> f64 {
        let epoch = match self.epoch {
            Some(epoch) => epoch,
            None => {
                self.epoch_window = window;
                self.reno = window;
                if window < self.w_max {
                    self.k = ((self.w_max - window) / CUBIC_C).cbrt();
                } else {
                    self.k = 0.0;
                    self.w_max = window;
                }
                *self.epoch.insert(acked.now)
            }
        };
        let t = seconds(acked.now.saturating_sub(epoch));
        let curve = |t: f64| CUBIC_C * (t - self.k).powi(3) + self.w_max;
        let least = if self.reduced { window } else { INITIAL_GROWTH * window };
        let target = curve(t + seconds(acked.srtt)).clamp(least, 1.5 * window);
        let alpha = if self.reno < self.w_max { 3.0 * (1.0 - CUBIC_BETA) / (1.0 + CUBIC_BETA) } else { 1.0 };
        self.reno += alpha * count / window;
        let growth = (target - window) / window * count;
        if curve(t) < self.reno { growth.max(self.reno - window) } else { growth }
    }

    fn on_congestion(&mut self, window: f64) -> f64 {
        self.epoch = None;
        self.reduced = true;
        // Fast convergence: a flow that meets congestion earlier than last time gives way to newcomers.
        self.w_max = if window < self.w_max { window * (1.0 + CUBIC_BETA) / 2.0 } else { window };
        (window * CUBIC_BETA).max(MIN_WINDOW)
    }

    fn slow_start_must_end(&mut self, acked: &Acked, window: f64) -> bool {
        self.hystart.as_mut().is_some_and(|hystart| hystart.on_ack(acked, window))
    }
}

/// HyStart as Linux has it: slow start ends when acknowledgements come in a train as long as half the round trip,
/// or when the round trip has grown by an eighth.
#[derive(Debug, Default)]
struct Hystart {
    /// The round ends when what was sent by then is delivered.
    round_end: u64,
    round_start: Nanos,
    last_ack: Nanos,
    round_min: Option<Nanos>,
    samples: u32,
    delay_min: Option<Nanos>,
}

impl Hystart {
    fn on_ack(&mut self, acked: &Acked, window: f64) -> bool {
        const LOW_WINDOW: f64 = 16.0;
        const SAMPLES: u32 = 8;
        if acked.prior_delivered >= self.round_end {
            self.round_end = acked.total_delivered;
            self.round_start = acked.now;
            self.last_ack = acked.now;
            self.round_min = None;
            self.samples = 0;
        }
        let Some(rtt) = acked.rtt else { return false };
        self.delay_min = Some(self.delay_min.map_or(rtt, |min| min.min(rtt)));
        let delay_min = rtt.min(self.delay_min.unwrap_or(rtt));
        let mut end = false;
        if acked.now - self.last_ack <= 2 * MILLI {
            self.last_ack = acked.now;
            end |= acked.now - self.round_start > delay_min / 2;
        }
        if self.samples < SAMPLES {
            self.samples += 1;
            self.round_min = Some(self.round_min.map_or(rtt, |min| min.min(rtt)));
        } else if self
            .round_min
            .is_some_and(|min| min > delay_min + (delay_min / 8).clamp(4 * MILLI, 16 * MILLI))
        {
            end = true;
        }
        end && window >= LOW_WINDOW
    }
}

/// BBR version 1 (Cardwell et al., 2016; the Linux module), without its long-term (policer) model.
#[derive(Debug)]
struct Bbr {
    mode: Mode,
    pacing_gain: f64,
    window_gain: f64,
    /// Maximum delivery rate of each of the last ten rounds, newest first.
    rates: [f64; 10],
    rounds: u64,
    round_end: u64,
    min_rtt: Option<Nanos>,
    min_rtt_at: Nanos,
    full_rate: f64,
    full_rounds: u32,
    full: bool,
    phase: usize,
    phase_start: Nanos,
    probe_done: Option<Nanos>,
    saved_window: f64,
    was_recovering: bool,
    conserve_until: u64,
    aggregation: Aggregation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Startup,
    Drain,
    ProbeBandwidth,
    ProbeRtt,
}

const HIGH_GAIN: f64 = 2.89;
const CYCLE: [f64; 8] = [1.25, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];

impl Bbr {
    fn new() -> Self {
        Bbr {
            mode: Mode::Startup,
            pacing_gain: HIGH_GAIN,
            window_gain: HIGH_GAIN,
            rates: [0.0; 10],
            rounds: 0,
            round_end: 0,
            min_rtt: None,
            min_rtt_at: 0,
            full_rate: 0.0,
            full_rounds: 0,
            full: false,
            phase: 0,
            phase_start: 0,
            probe_done: None,
            saved_window: INITIAL_WINDOW,
            was_recovering: false,
            conserve_until: 0,
            aggregation: Aggregation::default(),
        }
    }

    /// Segments per second.
    fn bandwidth(&self) -> Option<f64> {
        let max = self.rates.iter().copied().fold(0.0, f64::max);
        (max > 0.0).then_some(max)
    }

    fn save(&mut self, window: f64) {
        if !self.was_recovering && self.mode != Mode::ProbeRtt {
            self.saved_window = window;
        } else {
            self.saved_window = self.saved_window.max(window);
        }
    }

    /// Segments in flight at a gain over the bandwidth-delay product.
    fn target(&self, gain: f64) -> f64 {
        match (self.bandwidth(), self.min_rtt) {
            // Three send quanta more, each a millisecond or two segments (Linux: bbr_quantization_budget).
            (Some(bandwidth), Some(rtt)) => {
                gain * bandwidth * seconds(rtt) + 3.0 * (bandwidth / 1000.0).max(2.0)
            }
            _ => INITIAL_WINDOW * gain,
        }
    }

    fn on_ack(&mut self, acked: &Acked, window: &mut f64) {
        let round_start = acked.prior_delivered >= self.round_end;
        if round_start {
            self.round_end = acked.total_delivered;
            self.rounds += 1;
            self.rates.rotate_right(1);
            self.rates[0] = 0.0;
        }
        if let Some(rate) = acked.rate
            && (!acked.app_limited || self.bandwidth().is_none_or(|bandwidth| rate > bandwidth))
        {
            self.rates[0] = self.rates[0].max(rate);
        }
        self.aggregation.on_ack(acked, round_start, self.bandwidth(), *window);
        self.advance_mode(acked, round_start);
        self.update_min_rtt(acked, window);
        self.set_gains();
        self.set_window(acked, window);
    }

    fn advance_mode(&mut self, acked: &Acked, round_start: bool) {
        if !self.full && round_start && !acked.app_limited {
            let bandwidth = self.bandwidth().unwrap_or(0.0);
            if bandwidth >= 1.25 * self.full_rate {
                self.full_rate = bandwidth;
                self.full_rounds = 0;
            } else {
                self.full_rounds += 1;
                self.full = self.full_rounds >= 3;
            }
        }
        if self.mode == Mode::Startup && self.full {
            self.mode = Mode::Drain;
        }
        if self.mode == Mode::Drain && acked.in_flight as f64 <= self.target(1.0) {
            self.enter_probe_bandwidth(acked.now);
        }
        if self.mode == Mode::ProbeBandwidth {
            let rtt = self.min_rtt.unwrap_or(acked.srtt);
            let elapsed = acked.now - self.phase_start > rtt;
            let gain = CYCLE[self.phase];
            let next = if gain > 1.0 {
                elapsed && (acked.lost > 0 || acked.in_flight as f64 >= self.target(gain))
            } else if gain < 1.0 {
                elapsed || acked.in_flight as f64 <= self.target(1.0)
            } else {
                elapsed
            };
            if next {
                self.phase = (self.phase + 1) % CYCLE.len();
                self.phase_start = acked.now;
            }
        }
    }

    fn enter_probe_bandwidth(&mut self, now: Nanos) {
        self.mode = Mode::ProbeBandwidth;
        // Linux starts at a random phase other than the draining one; a fixed one keeps runs repeatable.
        self.phase = 2;
        self.phase_start = now;
    }

    fn update_min_rtt(&mut self, acked: &Acked, window: &mut f64) {
        let expired = acked.now > self.min_rtt_at + 10 * SECOND;
        if let Some(rtt) = acked.rtt
            && (expired || self.min_rtt.is_none_or(|min| rtt <= min))
        {
            self.min_rtt = Some(rtt);
            self.min_rtt_at = acked.now;
        }
        if expired && self.mode != Mode::ProbeRtt {
            self.save(*window);
            self.mode = Mode::ProbeRtt;
            self.probe_done = None;
        }
        if self.mode == Mode::ProbeRtt {
            match self.probe_done {
                None if acked.in_flight <= 4 => self.probe_done = Some(acked.now + 200 * MILLI),
                Some(done) if acked.now >= done => {
                    self.min_rtt_at = acked.now;
                    *window = window.max(self.saved_window);
                    if self.full {
                        self.enter_probe_bandwidth(acked.now);
                    } else {
                        self.mode = Mode::Startup;
                    }
                }
                _ => {}
            }
        }
    }

    fn set_gains(&mut self) {
        (self.pacing_gain, self.window_gain) = match self.mode {
            Mode::Startup => (HIGH_GAIN, HIGH_GAIN),
            Mode::Drain => (1.0 / HIGH_GAIN, HIGH_GAIN),
            Mode::ProbeBandwidth => (CYCLE[self.phase], 2.0),
            Mode::ProbeRtt => (1.0, 1.0),
        };
    }

    fn set_window(&mut self, acked: &Acked, window: &mut f64) {
        if acked.lost > 0 {
            *window = (*window - acked.lost as f64).max(1.0);
        }
        if acked.recovering && !self.was_recovering {
            // Packet conservation in the first round of a recovery.
            self.conserve_until = acked.total_delivered;
            *window = (acked.in_flight + acked.delivered) as f64;
            self.conserve_until += acked.in_flight;
        } else if !acked.recovering && self.was_recovering {
            *window = window.max(self.saved_window);
            self.conserve_until = 0;
        }
        self.was_recovering = acked.recovering;
        if acked.recovering && acked.total_delivered < self.conserve_until {
            *window = window.max((acked.in_flight + acked.delivered) as f64);
        } else {
            let extra =
                self.bandwidth().filter(|_| self.full).map_or(0.0, |rate| self.aggregation.extra(rate));
            let target = self.target(self.window_gain) + extra;
            let grown = *window + acked.delivered as f64;
            if self.full {
                *window = grown.min(target);
            } else if *window < target || acked.total_delivered < INITIAL_WINDOW as u64 {
                *window = grown;
            }
        }
        *window = window.max(4.0);
        if self.mode == Mode::ProbeRtt {
            *window = window.min(4.0);
        }
    }
}

/// How far acknowledgements come in clumps, beyond the estimated rate: that much more must be in flight
/// (Linux: bbr_update_ack_aggregation). A resequencer makes such clumps.
#[derive(Debug, Default)]
struct Aggregation {
    epoch: Nanos,
    acked: f64,
    /// Maxima over the current and the previous five to ten rounds.
    most: [f64; 2],
    rounds: u32,
}

impl Aggregation {
    fn on_ack(&mut self, acked: &Acked, round_start: bool, bandwidth: Option<f64>, window: f64) {
        if round_start {
            self.rounds += 1;
            if self.rounds >= 5 {
                self.rounds = 0;
                self.most = [0.0, self.most[0]];
            }
        }
        let mut expected = bandwidth.unwrap_or(0.0) * seconds(acked.now - self.epoch);
        if self.acked <= expected {
            self.acked = 0.0;
            self.epoch = acked.now;
            expected = 0.0;
        }
        self.acked += acked.delivered as f64;
        self.most[0] = self.most[0].max((self.acked - expected).min(window));
    }

    /// At most what the rate gives in 100 ms.
    fn extra(&self, bandwidth: f64) -> f64 {
        self.most[0].max(self.most[1]).min(bandwidth / 10.0)
    }
}

fn seconds(time: Nanos) -> f64 {
    time as f64 / SECOND as f64
}
