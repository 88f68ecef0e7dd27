//! Seeded randomness for jitter and ties. Nothing here is unguessable: secrets come from the runtime.

use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood, 2014): small, fast, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator whose whole future follows from `seed`.
    pub const fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub const fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = self.0;
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A generator of its own for a component, so that one more draw in it shifts no other.
    #[must_use]
    pub const fn fork(&mut self) -> Self {
        Self(self.next_u64())
    }

    /// A number in `0..bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of a 128-bit product: uniform but for a bias under bound / 2^64.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A duration in `low..=high`, to the microsecond; `low` if `high` is not above it.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_micros();
        let span = u64::try_from(span).unwrap_or(u64::MAX);
        low + Duration::from_micros(self.below(span.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    /// The first numbers of the reference implementation (https://prng.di.unimi.it/splitmix64.c) with seed 1234567.
    #[test]
    fn it_is_splitmix64() {
        let mut rng = Rng::from_seed(1_234_567);
        let numbers = [(); 3].map(|()| rng.next_u64());
        let reference = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
        ];
        assert_eq!(numbers, reference);
    }

    #[test]
    fn a_fork_is_a_generator_of_its_own() {
        let mut rng = Rng::from_seed(1);
        let mut fork = rng.fork();
        let (after, forked) = (rng.next_u64(), fork.next_u64());
        let mut again = Rng::from_seed(1);
        let _ = again.fork();
        assert_eq!(again.next_u64(), after, "what the fork draws shifts nothing");
        assert!(after != forked && forked != Rng::from_seed(1).next_u64());
    }

    #[test]
    fn every_number_below_a_bound_comes_about_as_often() {
        let mut rng = Rng::from_seed(1);
        let mut counts = [0; 7];
        (0..70_000).for_each(|_| counts[usize::try_from(rng.below(7)).unwrap()] += 1);
        assert!(counts.iter().all(|n| (9_500..10_500).contains(n)), "{counts:?}");
        assert_eq!((rng.below(0), rng.below(1)), (0, 0));
    }

    #[test]
    fn both_ends_of_a_span_are_drawn() {
        let us = Duration::from_micros;
        let mut rng = Rng::from_seed(1);
        let mut drawn: Vec<_> = (0..100).map(|_| rng.between(us(7), us(9))).collect();
        drawn.sort();
        drawn.dedup();
        assert_eq!(drawn, [us(7), us(8), us(9)]);
        assert_eq!(rng.between(us(9), us(7)), us(9), "no span");
    }

    proptest! {
        #[test]
        fn bounds_are_kept(seed: u64, bound in 1..u64::MAX, low: u64, span: u64) {
            let mut rng = Rng::from_seed(seed);
            prop_assert!(rng.below(bound) < bound);
            let (low, high) = (Duration::from_micros(low), Duration::from_micros(low) + Duration::from_micros(span));
            let drawn = rng.between(low, high);
            prop_assert!(low <= drawn && drawn <= high);
        }
    }
}
