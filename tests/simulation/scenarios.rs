//! The named scenarios, and random sets of lines.

use std::time::Duration;

use lab::line::{LineConfig, QueueLimit, RateStep};
use lab::random::Random;

use crate::packet::Side;
use crate::{MILLI, Nanos};

/// One line; `up` is from the client to the server.
#[derive(Clone, Debug)]
pub struct LinePair {
    pub up: LineConfig,
    pub down: LineConfig,
}

impl LinePair {
    /// Rates in Mbit/s, one-way delay in ms, queues of 100 ms.
    pub fn new(down: f64, up: f64, delay_ms: u64) -> Self {
        let line = |rate: f64| LineConfig::new((rate * 1e6) as u64, Duration::from_millis(delay_ms));
        LinePair { up: line(up), down: line(down) }
    }

    /// With jitter in both directions.
    pub fn jitter(self, ms: u64) -> Self {
        let jitter = Duration::from_millis(ms);
        LinePair { up: self.up.with_jitter(jitter), down: self.down.with_jitter(jitter) }
    }

    /// With random loss in both directions (0 to 1).
    pub fn loss(self, loss: f64) -> Self {
        LinePair { up: self.up.with_loss(loss), down: self.down.with_loss(loss) }
    }
}

/// A set of lines.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: String,
    pub lines: Vec<LinePair>,
}

impl Scenario {
    pub fn new(name: &str, lines: Vec<LinePair>) -> Self {
        Scenario { name: name.into(), lines }
    }

    /// Sum of the lines' rates from a side, in bit/s, without regard to rate traces.
    pub fn capacity(&self, from: Side) -> f64 {
        let line = |pair: &LinePair| if from == Side::Client { pair.up.rate } else { pair.down.rate };
        self.lines.iter().filter_map(line).sum::<u64>() as f64
    }

    /// The mean of that sum over a span of the world's time, for rates that follow a trace.
    pub fn mean_capacity(&self, from: Side, start: Nanos, end: Nanos) -> f64 {
        let config = |pair: &LinePair| if from == Side::Client { pair.up.clone() } else { pair.down.clone() };
        let samples = (start / MILLI..end / MILLI).step_by(10);
        let count = samples.clone().count().max(1) as f64;
        let rate = |config: &LineConfig| -> f64 {
            samples.clone().filter_map(|ms| config.rate_at(Duration::from_millis(ms))).sum::<u64>() as f64
                / count
        };
        self.lines.iter().map(config).map(|config| rate(&config)).sum()
    }
}

/// 2 × (10/2, 20 ms).
pub fn sym2() -> Scenario {
    Scenario::new("sym2", vec![LinePair::new(10.0, 2.0, 20), LinePair::new(10.0, 2.0, 20)])
}

/// (20/4, 15 ms) + (8/1, 50 ms).
pub fn asym2() -> Scenario {
    Scenario::new("asym2", vec![LinePair::new(20.0, 4.0, 15), LinePair::new(8.0, 1.0, 50)])
}

/// (50/10, 30 ms, jitter 10 ms) + (12/2, 20 ms).
pub fn lte2() -> Scenario {
    Scenario::new("lte2", vec![LinePair::new(50.0, 10.0, 30).jitter(10), LinePair::new(12.0, 2.0, 20)])
}

/// sym2 with 0.5 % loss on one line.
pub fn loss2() -> Scenario {
    let lossy = LinePair::new(10.0, 2.0, 20).loss(0.005);
    Scenario::new("loss2", vec![lossy, LinePair::new(10.0, 2.0, 20)])
}

/// The four of the laboratory.
pub fn named() -> Vec<Scenario> {
    vec![sym2(), asym2(), lte2(), loss2()]
}

/// Lines that the four do not have: nothing must be tuned to those alone.
pub fn others() -> Vec<Scenario> {
    let adsl = || LinePair::new(10.0, 1.0, 20);
    let burst = |pair: LinePair| LinePair {
        up: pair.up.with_burst_loss(0.005, 8.0),
        down: pair.down.with_burst_loss(0.005, 8.0),
    };
    let short_queue = |pair: LinePair| {
        let limit = QueueLimit::Time(Duration::from_millis(15));
        LinePair { up: pair.up.with_queue(limit), down: pair.down.with_queue(limit) }
    };
    let overtaking = |mut pair: LinePair| {
        pair.up.reorder = true;
        pair.down.reorder = true;
        pair
    };
    vec![
        Scenario::new("one", vec![LinePair::new(20.0, 4.0, 15)]),
        Scenario::new(
            "four",
            vec![
                LinePair::new(12.0, 1.0, 25),
                LinePair::new(8.0, 1.0, 50),
                LinePair::new(50.0, 20.0, 30).jitter(8),
                LinePair::new(16.0, 2.0, 12),
            ],
        ),
        Scenario::new("satellite", vec![adsl(), LinePair::new(30.0, 3.0, 280)]),
        Scenario::new("starlink", vec![adsl(), LinePair::new(100.0, 12.0, 25).jitter(12).loss(0.003)]),
        Scenario::new("fibre", vec![LinePair::new(100.0, 50.0, 5), LinePair::new(30.0, 5.0, 15)]),
        Scenario::new("cellular", vec![cellular(40.0, 10.0, 1), cellular(25.0, 6.0, 2)]),
        Scenario::new("burst", vec![burst(adsl()), adsl()]),
        Scenario::new("policed", vec![short_queue(adsl()), short_queue(LinePair::new(20.0, 4.0, 15))]),
        Scenario::new("overtaking", vec![overtaking(LinePair::new(20.0, 5.0, 20).jitter(3)), adsl()]),
        Scenario::new("slow", vec![LinePair::new(1.0, 0.3, 40), LinePair::new(2.0, 0.5, 30)]),
    ]
}

/// A cellular line whose rate wanders between a quarter and all of the given one, twice a second, for ten minutes.
fn cellular(down: f64, up: f64, seed: u64) -> LinePair {
    let mut random = Random::new(seed);
    let mut shares = vec![1.0];
    for _ in 1..1200 {
        let last: f64 = shares[shares.len() - 1];
        shares.push((last + 0.5 * (random.unit() - 0.5)).clamp(0.25, 1.0));
    }
    let trace = |rate: f64| {
        let step = |(index, share): (usize, &f64)| RateStep {
            at: Duration::from_millis(500 * index as u64),
            rate: Some((rate * 1e6 * share) as u64),
        };
        shares.iter().enumerate().map(step).collect::<Vec<_>>()
    };
    let pair = LinePair::new(down, up, 30).jitter(8);
    LinePair { up: pair.up.with_rate_trace(trace(up)), down: pair.down.with_rate_trace(trace(down)) }
}

/// Two cellular lines on the move: each direction's rate wanders between 4 and 40 Mbit/s (a quarter of that up) ten
/// times a second, and now and then changes by up to a factor of three at once.
pub fn fading(seed: u64) -> Scenario {
    let mut random = Random::new(seed);
    let mut trace = |highest: f64| -> Vec<RateStep> {
        let mut share: f64 = 0.5;
        let mut step = |index: u64| {
            let spread = if random.chance(0.03) { 1.2 } else { 0.2 };
            share = (share * (spread * (2.0 * random.unit() - 1.0)).exp()).clamp(0.1, 1.0);
            RateStep { at: Duration::from_millis(100 * index), rate: Some((highest * share) as u64) }
        };
        (0..6_000).map(&mut step).collect()
    };
    let mut line = |delay| {
        let pair = LinePair::new(40.0, 10.0, delay).jitter(4);
        LinePair { up: pair.up.with_rate_trace(trace(10e6)), down: pair.down.with_rate_trace(trace(40e6)) }
    };
    Scenario { name: format!("fading{seed}"), lines: vec![line(25), line(35)] }
}

/// Lines as `down/up/delay` (Mbit/s and ms), joined by `+`. What ails a line may follow, with `/`: `j4` ms of jitter, `r`
/// (which overtakes), `l2` % of loss, `b1x8` % of loss in bursts of 8 packets, a queue of `q15` ms or `p30` packets.
fn written(text: &str) -> Option<Scenario> {
    let line = |line: &str| {
        let mut parts = line.split('/');
        let mut number = || parts.next()?.parse::<f64>().ok();
        let line = LinePair::new(number()?, number()?, number()? as u64);
        parts.try_fold(line, ailing)
    };
    Some(Scenario::new(text, text.split('+').map(line).collect::<Option<_>>()?))
}

/// The line with what a word of [`written`] says, in both directions.
fn ailing(pair: LinePair, word: &str) -> Option<LinePair> {
    let (kind, value) = word.split_at_checked(1)?;
    let number = || value.parse::<f64>().ok();
    let change: Box<dyn Fn(LineConfig) -> LineConfig> = match kind {
        "j" => {
            let jitter = Duration::from_secs_f64(number()? / 1e3);
            Box::new(move |line| line.with_jitter(jitter))
        }
        "r" => Box::new(|line| LineConfig { reorder: true, ..line }),
        "l" => {
            let share = number()? / 1e2;
            Box::new(move |line| line.with_loss(share))
        }
        "b" => {
            let (share, length) = value.split_once('x')?;
            let (share, length) = (share.parse::<f64>().ok()? / 1e2, length.parse().ok()?);
            Box::new(move |line| line.with_burst_loss(share, length))
        }
        "q" => {
            let limit = QueueLimit::Time(Duration::from_secs_f64(number()? / 1e3));
            Box::new(move |line| line.with_queue(limit))
        }
        "p" => {
            let limit = QueueLimit::Packets(number()? as usize);
            Box::new(move |line| line.with_queue(limit))
        }
        _ => return None,
    };
    Some(LinePair { up: change(pair.up), down: change(pair.down) })
}

/// The scenario of a name: one of [`named`] or [`others`], `randomN` for [`random`] and `fadingN` for
/// [`fading`] with seed N, or lines such as `10/2/20+8/1/50`.
pub fn by_name(name: &str) -> Option<Scenario> {
    let seed_after = |prefix: &str| name.strip_prefix(prefix).and_then(|seed| seed.parse().ok());
    let listed = named().into_iter().chain(others()).find(|scenario| scenario.name == name);
    let drawn = || seed_after("random").map(random).or_else(|| seed_after("fading").map(fading));
    listed.or_else(drawn).or_else(|| of_the_laboratory(name)).or_else(|| written(name))
}

/// Those of `make bench-bond SCENARIOS=more`.
fn of_the_laboratory(name: &str) -> Option<Scenario> {
    let found = lab::scenario::Scenario::named(name)?;
    let lines = found.lines.into_iter().map(|line| LinePair { up: line.up, down: line.down });
    Some(Scenario::new(name, lines.collect()))
}

/// 2 to 4 lines of 1 to 100 Mbit/s down (a tenth to all of that up, at least 0.5), 5 to 80 ms, some with jitter or
/// loss. Rates are spread evenly over their logarithm, as real lines are.
pub fn random(seed: u64) -> Scenario {
    let mut random = Random::new(seed);
    let count = 2 + random.below(3);
    let mut line = || {
        let down = 100f64.powf(random.unit());
        let up = (down * 0.1f64.powf(random.unit())).max(0.5);
        let delay = 5 + random.below(76);
        let jitter = if random.chance(0.3) { 1 + random.below(10.min(delay)) } else { 0 };
        let loss = if random.chance(0.3) { random.unit() * 0.005 } else { 0.0 };
        LinePair::new(down, up, delay).jitter(jitter).loss(loss)
    };
    let lines = (0..count).map(|_| line()).collect();
    Scenario { name: format!("random{seed}"), lines }
}
