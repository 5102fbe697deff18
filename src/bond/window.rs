//! The smallest or largest value of the recent past, in constant memory.

use std::time::Duration;

use super::Time;

const SLOTS: usize = 3;

/// The best value of the last two to three spans.
#[derive(Clone, Debug)]
pub struct Windowed<T> {
    span: Duration,
    slots: [Option<T>; SLOTS],
    turned: Time,
    better: fn(&T, &T) -> bool,
}

impl<T: Copy + PartialOrd> Windowed<T> {
    /// Remembers the smallest value for at least `window`.
    pub fn smallest(window: Duration) -> Self {
        Windowed { span: window / 2, slots: [None; SLOTS], turned: Time::ZERO, better: |a, b| a < b }
    }

    /// Remembers the largest value for at least `window`.
    pub fn largest(window: Duration) -> Self {
        Windowed { span: window / 2, slots: [None; SLOTS], turned: Time::ZERO, better: |a, b| a > b }
    }

    /// Enters a value.
    pub fn push(&mut self, value: T, now: Time) {
        let mut turns = 0;
        while now.since(self.turned) >= self.span && turns < SLOTS {
            self.slots.rotate_right(1);
            self.slots[0] = None;
            self.turned += self.span;
            turns += 1;
        }
        if turns == SLOTS {
            self.turned = now;
        }
        if self.slots[0].is_none_or(|held| (self.better)(&value, &held)) {
            self.slots[0] = Some(value);
        }
    }

    /// The best value of the window.
    pub fn get(&self) -> Option<T> {
        let mut best: Option<T> = None;
        for value in self.slots.iter().flatten() {
            if best.is_none_or(|held| (self.better)(value, &held)) {
                best = Some(*value);
            }
        }
        best
    }

    /// Forgets the past; `value` is all that is known.
    pub fn restart(&mut self, value: T, now: Time) {
        self.slots = [Some(value), None, None];
        self.turned = now;
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.slots = [None; SLOTS];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_values_are_forgotten_after_the_window_and_not_before() {
        let mut window = Windowed::smallest(Duration::from_secs(10));
        window.push(5, Time::from_millis(0));
        window.push(9, Time::from_millis(9_999));
        assert_eq!(window.get(), Some(5));
        window.push(9, Time::from_millis(16_000));
        assert_eq!(window.get(), Some(9));
        window.push(20, Time::from_millis(1_000_000));
        assert_eq!(window.get(), Some(20));
    }
}
