//! The named scenarios that tests, demo and benches share.

use std::time::Duration;

use serde::Serialize;

use crate::line::{LineConfig, QueueLimit};

/// Both directions of a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LinePlan {
    /// To the router.
    pub down: LineConfig,
    /// From the router.
    pub up: LineConfig,
}

impl LinePlan {
    /// A line of `down` / `up` Mbit/s with a one-way delay in ms, and queues of 100 ms.
    pub fn new(down: u64, up: u64, delay: u64) -> Self {
        let direction = |rate| LineConfig::new(rate * 1_000_000, Duration::from_millis(delay));
        LinePlan { down: direction(down), up: direction(up) }
    }

    /// With both directions changed.
    pub fn with(mut self, change: impl Fn(LineConfig) -> LineConfig) -> Self {
        self.down = change(self.down);
        self.up = change(self.up);
        self
    }
}

/// A named set of lines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scenario {
    /// The name it is known by.
    pub name: &'static str,
    /// Its lines.
    pub lines: Vec<LinePlan>,
}

impl Scenario {
    /// Two equal lines: 10/2 Mbit/s (down/up), 20 ms one way.
    pub fn sym2() -> Self {
        Scenario { name: "sym2", lines: vec![LinePlan::new(10, 2, 20), LinePlan::new(10, 2, 20)] }
    }

    /// Two different lines: 20/4 Mbit/s, 15 ms, and 8/1 Mbit/s, 50 ms.
    pub fn asym2() -> Self {
        Scenario { name: "asym2", lines: vec![LinePlan::new(20, 4, 15), LinePlan::new(8, 1, 50)] }
    }

    /// A cellular line, 50/10 Mbit/s, 30 ms with 10 ms of jitter, and a line of 12/2 Mbit/s, 20 ms.
    pub fn lte2() -> Self {
        let cellular = LinePlan::new(50, 10, 30).with(|line| line.with_jitter(Duration::from_millis(10)));
        Scenario { name: "lte2", lines: vec![cellular, LinePlan::new(12, 2, 20)] }
    }

    /// [`sym2`](Self::sym2) with 0.5 % random loss, both ways, on the first line.
    pub fn loss2() -> Self {
        let lossy = LinePlan::new(10, 2, 20).with(|line| line.with_loss(0.005));
        Scenario { name: "loss2", lines: vec![lossy, LinePlan::new(10, 2, 20)] }
    }

    /// Four different lines: 20/5, 30/8, 12/2 and 6/1 Mbit/s, of 10, 25, 40 and 15 ms.
    pub fn four() -> Self {
        let lines = [(20, 5, 10), (30, 8, 25), (12, 2, 40), (6, 1, 15)];
        Scenario { name: "four", lines: lines.map(|(down, up, delay)| LinePlan::new(down, up, delay)).into() }
    }

    /// Eight lines of 6/1 Mbit/s, of 10 to 45 ms.
    pub fn eight() -> Self {
        Scenario { name: "eight", lines: (0..8).map(|i| LinePlan::new(6, 1, 10 + 5 * i)).collect() }
    }

    /// A geostationary satellite, 20/3 Mbit/s and 300 ms, and a line of 10/2 Mbit/s, 20 ms.
    pub fn satellite() -> Self {
        Scenario { name: "satellite", lines: vec![LinePlan::new(20, 3, 300), LinePlan::new(10, 2, 20)] }
    }

    /// A low satellite, 80/12 Mbit/s, 25 ms with 8 ms of jitter and 0.2 % loss, and a line of 16/3 Mbit/s, 12 ms.
    pub fn leo() -> Self {
        let low = LinePlan::new(80, 12, 25)
            .with(|line| line.with_jitter(Duration::from_millis(8)).with_loss(0.002));
        Scenario { name: "leo", lines: vec![low, LinePlan::new(16, 3, 12)] }
    }

    /// [`sym2`](Self::sym2) with bursts of loss, both ways, on the first line: 1 % of the packets, 8 at a time.
    pub fn burst2() -> Self {
        let lossy = LinePlan::new(10, 2, 20).with(|line| line.with_burst_loss(0.01, 8.0));
        Scenario { name: "burst2", lines: vec![lossy, LinePlan::new(10, 2, 20)] }
    }

    /// [`asym2`](Self::asym2) with 2 % random loss, both ways, on both lines.
    pub fn lossy2() -> Self {
        Scenario { name: "lossy2", ..Self::asym2().with(|line| line.with_loss(0.02)) }
    }

    /// [`asym2`](Self::asym2) where the quick line's jitter of 4 ms lets packets overtake each other.
    pub fn reorder2() -> Self {
        let mut lines = Self::asym2().lines;
        if let Some(quick) = lines.first_mut() {
            *quick = quick
                .clone()
                .with(|line| LineConfig { reorder: true, ..line }.with_jitter(Duration::from_millis(4)));
        }
        Scenario { name: "reorder2", lines }
    }

    /// [`asym2`](Self::asym2) with queues of 15 ms.
    pub fn shallow2() -> Self {
        let queue = QueueLimit::Time(Duration::from_millis(15));
        Scenario { name: "shallow2", ..Self::asym2().with(|line| line.with_queue(queue)) }
    }

    /// [`sym2`](Self::sym2) with 10 % random loss, both ways, on the first line.
    pub fn heavy2() -> Self {
        let lossy = LinePlan::new(10, 2, 20).with(|line| line.with_loss(0.1));
        Scenario { name: "heavy2", lines: vec![lossy, LinePlan::new(10, 2, 20)] }
    }

    /// [`asym2`](Self::asym2) with queues of 5 ms, which a few packets fill.
    pub fn tight2() -> Self {
        let queue = QueueLimit::Time(Duration::from_millis(5));
        Scenario { name: "tight2", ..Self::asym2().with(|line| line.with_queue(queue)) }
    }

    /// [`asym2`](Self::asym2) with queues of a second.
    pub fn bloat2() -> Self {
        let queue = QueueLimit::Time(Duration::from_secs(1));
        Scenario { name: "bloat2", ..Self::asym2().with(|line| line.with_queue(queue)) }
    }

    /// A fibre of 100/40 Mbit/s, 5 ms, and a line of 2/0.5 Mbit/s, 60 ms.
    pub fn tiny2() -> Self {
        let half = |line: LinePlan| LinePlan { up: LineConfig { rate: Some(500_000), ..line.up }, ..line };
        Scenario { name: "tiny2", lines: vec![LinePlan::new(100, 40, 5), half(LinePlan::new(2, 1, 60))] }
    }

    /// The four for which there are figures to be reached.
    pub fn all() -> Vec<Self> {
        vec![Self::sym2(), Self::asym2(), Self::lte2(), Self::loss2()]
    }

    /// Others, that nothing was tuned to.
    pub fn others() -> Vec<Self> {
        vec![
            Self::four(),
            Self::eight(),
            Self::satellite(),
            Self::leo(),
            Self::burst2(),
            Self::lossy2(),
            Self::heavy2(),
            Self::reorder2(),
            Self::shallow2(),
            Self::tight2(),
            Self::bloat2(),
            Self::tiny2(),
        ]
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().chain(Self::others()).find(|scenario| scenario.name == name)
    }

    /// The sum of the lines' rates to the router, in bit/s.
    pub fn down_rate(&self) -> u64 {
        self.lines.iter().filter_map(|line| line.down.rate).sum()
    }

    /// The sum of the lines' rates from the router, in bit/s.
    pub fn up_rate(&self) -> u64 {
        self.lines.iter().filter_map(|line| line.up.rate).sum()
    }

    /// With every line changed, both ways.
    pub fn with(mut self, change: impl Fn(LineConfig) -> LineConfig) -> Self {
        self.lines = self.lines.into_iter().map(|line| line.with(&change)).collect();
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_have_their_figures() {
        let rates = |name| Scenario::named(name).map(|found| (found.down_rate(), found.up_rate()));
        assert_eq!(rates("sym2"), Some((20_000_000, 4_000_000)));
        assert_eq!(rates("asym2"), Some((28_000_000, 5_000_000)));
        assert_eq!(rates("lte2"), Some((62_000_000, 12_000_000)));
        assert_eq!(rates("loss2"), rates("sym2"));
        assert_eq!(rates("no such"), None);
        let lossy = |line: &LinePlan| (line.down.loss > 0.0, line.up.loss > 0.0);
        assert_eq!(
            Scenario::loss2().lines.iter().map(lossy).collect::<Vec<_>>(),
            [(true, true), (false, false)]
        );
        assert_eq!(Scenario::lte2().lines.first().map(|line| line.up.jitter.as_millis()), Some(10));
    }
}
