//! Times in which nothing came.

use std::time::Duration;

use serde::Serialize;

/// A time without progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// When it began, after the start.
    pub at: Duration,
    /// How long it was.
    pub length: Duration,
}

/// Finds the longest gap while bytes come in.
#[derive(Debug, Default)]
pub(super) struct GapFinder {
    last: Duration,
    longest: Gap,
}

impl GapFinder {
    /// Something came in, or the test has ended.
    pub(super) fn note(&mut self, now: Duration) {
        let length = now.saturating_sub(self.last);
        if length > self.longest.length {
            self.longest = Gap { at: self.last, length };
        }
        self.last = self.last.max(now);
    }

    /// The last note.
    pub(super) fn last(&self) -> Duration {
        self.last
    }

    pub(super) fn longest(&self) -> Gap {
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_is_found() {
        let ms = Duration::from_millis;
        let mut finder = GapFinder::default();
        for time in [10, 20, 50, 45, 60] {
            finder.note(ms(time));
        }
        assert_eq!(finder.longest(), Gap { at: ms(20), length: ms(30) });
        finder.note(ms(160));
        assert_eq!(finder.longest(), Gap { at: ms(60), length: ms(100) });
    }
}
