//! The named scenarios that tests, demo and benches share.

use std::time::Duration;

use serde::Serialize;

use crate::line::LineConfig;

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

    /// All of them.
    pub fn all() -> Vec<Self> {
        vec![Self::sym2(), Self::asym2(), Self::lte2(), Self::loss2()]
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|scenario| scenario.name == name)
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
