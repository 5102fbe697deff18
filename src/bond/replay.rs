//! The replay window of one link: which packet numbers have been accepted.
//!
//! A ring of bitmap blocks as in RFC 6479: moving forward clears whole blocks instead of shifting bits, so both the
//! check and the commit cost a few instructions however far the numbers jump.

/// Packet numbers below the highest one that are still told apart, at least.
///
/// Links reorder, and a burst of a fast link can be thousands of packets long.
pub const REPLAY_WINDOW: u64 = (BLOCKS as u64 - 1) * BLOCK_BITS;

const BLOCK_BITS: u64 = usize::BITS as u64;
const BLOCKS: usize = 8192 / usize::BITS as usize;

/// Why a packet number is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The number has been accepted before.
    #[error("the packet number was used before")]
    Seen,
    /// The number lies so far behind the highest that the window does not remember it.
    #[error("the packet number is older than the replay window")]
    TooOld,
}

/// The packet numbers that one link has accepted.
///
/// [`check`](Self::check) before a packet is authenticated, [`commit`](Self::commit) after: what a stranger sends
/// never moves the window.
#[derive(Clone, Debug)]
pub struct ReplayWindow {
    /// One above the highest number accepted; zero when none was.
    next: u64,
    blocks: [usize; BLOCKS],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplayWindow {
    /// A window that has seen nothing.
    pub const fn new() -> Self {
        ReplayWindow { next: 0, blocks: [0; BLOCKS] }
    }

    /// One above the highest number accepted; zero when none was.
    pub const fn next(&self) -> u64 {
        self.next
    }

    /// Whether `number` would be accepted now.
    pub fn check(&self, number: u64) -> Result<(), ReplayError> {
        if number >= self.next {
            return Ok(());
        }
        // The oldest block in the ring is complete only below the newest block's first number.
        let newest = (self.next - 1) / BLOCK_BITS;
        if newest - number / BLOCK_BITS >= BLOCKS as u64 {
            return Err(ReplayError::TooOld);
        }
        if self.blocks[slot(number)] & bit(number) != 0 { Err(ReplayError::Seen) } else { Ok(()) }
    }

    /// Accepts `number`; call it for authenticated packets only.
    ///
    /// # Errors
    ///
    /// As [`check`](Self::check); then nothing has changed.
    pub fn commit(&mut self, number: u64) -> Result<(), ReplayError> {
        self.check(number)?;
        if number >= self.next {
            let block = number / BLOCK_BITS;
            let first_new = match self.next.checked_sub(1) {
                Some(highest) => highest / BLOCK_BITS + 1,
                None => 0,
            };
            if block >= first_new {
                let passed = (block - first_new + 1).min(BLOCKS as u64);
                for i in 0..passed {
                    self.blocks[((block - i) % BLOCKS as u64) as usize] = 0;
                }
            }
            // 2^64 - 1 cannot be followed; senders stop at 2^60.
            self.next = number.saturating_add(1);
        }
        self.blocks[slot(number)] |= bit(number);
        Ok(())
    }
}

const fn slot(number: u64) -> usize {
    (number / BLOCK_BITS % BLOCKS as u64) as usize
}

const fn bit(number: u64) -> usize {
    1 << (number % BLOCK_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn remembers_at_least_4096() {
        const { assert!(REPLAY_WINDOW >= 4096) }
        let mut window = ReplayWindow::new();
        for number in (0..100_000).step_by(2) {
            window.commit(number).unwrap();
            if let Some(old) = number.checked_sub(4096) {
                assert_eq!(window.check(old), Err(ReplayError::Seen));
                window.check(old + 1).unwrap();
            }
        }
    }

    #[test]
    fn a_jump_forgets_everything_before() {
        let mut window = ReplayWindow::new();
        for number in 0..10_000 {
            window.commit(number).unwrap();
        }
        window.commit(1 << 40).unwrap();
        assert_eq!(window.check(9_999), Err(ReplayError::TooOld));
        for number in (1 << 40) - 4096..1 << 40 {
            window.commit(number).unwrap();
        }
    }

    #[test]
    fn the_last_number_of_all() {
        let mut window = ReplayWindow::new();
        window.commit(u64::MAX - 1).unwrap();
        assert_eq!(window.commit(u64::MAX - 1), Err(ReplayError::Seen));
        window.commit(u64::MAX - 2).unwrap();
    }

    #[test]
    fn nothing_is_left_of_numbers_that_the_ring_has_passed() {
        let mut window = ReplayWindow::new();
        for base in (0..50_000).step_by(100) {
            window.commit(base + 99).unwrap();
            for number in base..base + 99 {
                window.commit(number).unwrap();
            }
            for number in (base + 100).saturating_sub(10_000)..base + 100 {
                assert!(window.check(number).is_err(), "{number} twice");
            }
        }
    }

    #[test]
    fn a_check_changes_nothing() {
        let mut window = ReplayWindow::new();
        window.check(77).unwrap();
        window.check(77).unwrap();
        assert_eq!(window.next(), 0);
        window.commit(77).unwrap();
        assert_eq!(window.check(77), Err(ReplayError::Seen));
        assert_eq!(window.next(), 78);
    }

    fn steps() -> impl Strategy<Value = Vec<u64>> {
        let step = prop_oneof![
            8 => -200_i64..200,
            4 => -5_000_i64..5_000,
            2 => -20_000_i64..20_000,
            2 => -8_300_i64..-8_000,
            1 => -1_000_000_i64..1_000_000,
        ];
        (0_u64..1 << 50, prop::collection::vec(step, 1..600)).prop_map(|(start, steps)| {
            let mut at = start;
            steps
                .into_iter()
                .map(|step| {
                    at = at.saturating_add_signed(step);
                    at
                })
                .collect()
        })
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(numbers in steps()) {
            let mut window = ReplayWindow::new();
            let mut seen = HashSet::new();
            let mut highest = None;
            for number in numbers {
                let before = window.check(number);
                let result = window.commit(number);
                prop_assert_eq!(before, result);
                match result {
                    Ok(()) => {
                        prop_assert!(seen.insert(number), "{} accepted twice", number);
                    }
                    Err(ReplayError::Seen) => prop_assert!(seen.contains(&number)),
                    Err(ReplayError::TooOld) => {
                        prop_assert!(highest.is_some_and(|h: u64| h - number >= REPLAY_WINDOW));
                    }
                }
                if result.is_ok() {
                    highest = highest.max(Some(number));
                }
                prop_assert_eq!(window.next(), highest.map_or(0, |h| h + 1));
            }
        }
    }
}
