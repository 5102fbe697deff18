//! When somebody wants to be called: flows that wait for a packet, peers that wait for their time.

use super::Time;
use crate::sorted::SortedSet;

/// Deadlines of those that have one, by their numbers. Each has at most one, which it knows itself.
#[derive(Default)]
pub struct Deadlines {
    by_time: SortedSet<(Time, u32)>,
}

impl Deadlines {
    /// None.
    pub const fn new() -> Self {
        Deadlines { by_time: SortedSet::new() }
    }

    /// The earliest deadline, and whose it is.
    pub fn first(&self) -> Option<(Time, u32)> {
        self.by_time.first().copied()
    }

    /// The deadline of this number has changed.
    pub fn change(&mut self, number: u32, old: Option<Time>, new: Option<Time>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.by_time.remove(&(old, number));
        }
        if let Some(new) = new {
            self.by_time.insert((new, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_is_first_until_it_changes() {
        let [early, middle, late] = [1, 2, 3].map(Time::from_millis);
        let mut deadlines = Deadlines::new();
        deadlines.change(7, None, Some(middle));
        deadlines.change(3, None, Some(late));
        assert_eq!(deadlines.first(), Some((middle, 7)));
        deadlines.change(3, Some(late), Some(early));
        assert_eq!(deadlines.first(), Some((early, 3)));
        deadlines.change(3, Some(early), Some(early));
        deadlines.change(3, Some(early), None);
        assert_eq!(deadlines.first(), Some((middle, 7)));
        deadlines.change(7, Some(middle), None);
        assert_eq!(deadlines.first(), None);
    }
}
