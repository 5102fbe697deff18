//! The named scenarios, and random sets of lines.

use std::time::Duration;

use lab::line::LineConfig;
use lab::random::Random;

use crate::packet::Side;

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

    /// Sum of the lines' rates from a side, in bit/s.
    pub fn capacity(&self, from: Side) -> f64 {
        let line = |pair: &LinePair| if from == Side::Client { pair.up.rate } else { pair.down.rate };
        self.lines.iter().filter_map(line).sum::<u64>() as f64
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

/// The scenario of a name: one of [`named`], or `randomN` for [`random`] with seed N.
pub fn by_name(name: &str) -> Option<Scenario> {
    let random_seed = name.strip_prefix("random").and_then(|seed| seed.parse().ok());
    named().into_iter().find(|scenario| scenario.name == name).or_else(|| random_seed.map(random))
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
