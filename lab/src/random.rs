//! A small seeded random number generator, so that a run of the laboratory can be repeated.
//!
//! SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", OOPSLA 2014). Its output is
//! fixed by the seed for ever; that of a general crate may change with its version. Not for secrets.

/// A seeded generator (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator whose whole sequence follows from `seed`.
    pub const fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        to_unit(self.next_u64())
    }

    /// `true` with the given probability (0 to 1).
    pub fn chance(&mut self, probability: f64) -> bool {
        // No draw for "never", so that switching loss on does not shift the jitter of a line that has none.
        probability > 0.0 && self.unit() < probability
    }

    /// Uniform in `0..bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Multiply-shift (Lemire 2019); its bias of bound / 2^64 is far below what a test can see.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

/// A number in `0.0..1.0` that follows from `seed` and `index` alone: a random function of the index.
pub(crate) fn unit_at(seed: u64, index: u64) -> f64 {
    to_unit(mix(mix(seed) ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

fn to_unit(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_numbers_are_those_of_the_reference() {
        // From the reference implementation (Vigna, splitmix64.c) with seed 1234567.
        let mut random = Random::new(1234567);
        assert_eq!(random.next_u64(), 6457827717110365317);
        assert_eq!(random.next_u64(), 3203168211198807973);
    }

    #[test]
    fn unit_is_uniform() {
        let mut random = Random::new(7);
        let mut buckets = [0u32; 10];
        for _ in 0..100_000 {
            buckets[(random.unit() * 10.0) as usize] += 1;
        }
        // 5 sigma of a binomial with n = 100000, p = 0.1 is 474.
        assert!(buckets.iter().all(|&n| n.abs_diff(10_000) < 474), "{buckets:?}");
    }

    #[test]
    fn below_stays_below() {
        let mut random = Random::new(1);
        assert_eq!(random.below(0), 0);
        assert!((0..1000).all(|_| random.below(3) < 3));
    }
}
