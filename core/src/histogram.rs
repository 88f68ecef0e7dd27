//! Durations, counted in a few buckets.

use std::time::Duration;

/// What a histogram knows of a quantile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantile {
    /// At most so long.
    Within(Duration),
    /// Longer than the last bound.
    Above(Duration),
}

/// How long things took. Histograms of the same bounds add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    bounds: &'static [Duration],
    /// One for each bound, and one for what is longer than all.
    counts: Vec<u64>,
    sum: Duration,
}

impl Histogram {
    /// An empty one, whose buckets end at these durations; they ascend.
    pub fn new(bounds: &'static [Duration]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len() + 1],
            sum: Duration::ZERO,
        }
    }

    /// Counts one; a duration that equals a bound is within it.
    pub fn record(&mut self, took: Duration) {
        let bucket = self.bounds.partition_point(|bound| *bound < took);
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(took);
    }

    /// Adds those of another worker, which has the same bounds.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum = self.sum.saturating_add(other.sum);
    }

    /// What came since `earlier`, which is a former state of this one.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let counts = self.counts.iter().zip(&earlier.counts);
        Self {
            bounds: self.bounds,
            counts: counts.map(|(now, then)| now.saturating_sub(*then)).collect(),
            sum: self.sum.saturating_sub(earlier.sum),
        }
    }

    /// The bound that so many of a thousand were within; `None` if there were none at all.
    pub fn quantile(&self, per_mille: u64) -> Option<Quantile> {
        let all = self.count();
        let enough = (all * per_mille).div_ceil(1000).max(1);
        let bound = self.cumulative().find(|(_, within)| *within >= enough);
        match bound {
            _ if all == 0 => None,
            Some((bound, _)) => Some(Quantile::Within(bound)),
            None => self.bounds.last().copied().map(Quantile::Above),
        }
    }

    /// For each bound, how many were within it.
    pub fn cumulative(&self) -> impl Iterator<Item = (Duration, u64)> {
        let mut within = 0;
        self.bounds.iter().zip(&self.counts).map(move |(bound, count)| {
            within += count;
            (*bound, within)
        })
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long all of them took together.
    pub const fn sum(&self) -> Duration {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;
    const BOUNDS: &[Duration] = &[Duration::from_millis(1), Duration::from_millis(10)];

    fn of(all: &[u64]) -> Histogram {
        let mut histogram = Histogram::new(BOUNDS);
        all.iter().for_each(|ms| histogram.record(MS(*ms)));
        histogram
    }

    #[test]
    fn a_bound_is_within_its_bucket() {
        let histogram = of(&[0, 1, 2, 10, 11, 1_000]);
        let within: Vec<_> = histogram.cumulative().collect();
        assert_eq!(within, [(MS(1), 2), (MS(10), 4)]);
        assert_eq!((histogram.count(), histogram.sum()), (6, MS(1_024)));
    }

    #[test]
    fn a_quantile_is_told_by_its_bucket() {
        use Quantile::{Above, Within};
        let histogram = of(&[1, 1, 1, 5]);
        assert_eq!(histogram.quantile(750), Some(Within(MS(1))));
        assert_eq!(histogram.quantile(751), Some(Within(MS(10))));
        let later = of(&[1, 1, 1, 5, 11]);
        assert_eq!(later.quantile(990), Some(Above(MS(10))));
        assert_eq!(later.since(&histogram), of(&[11]));
        assert_eq!(of(&[]).quantile(500), None);
    }

    proptest! {
        #[test]
        fn workers_add_up(one in prop::collection::vec(0..20u64, 0..20), other in prop::collection::vec(0..20u64, 0..20)) {
            let mut sum = of(&one);
            sum.merge(&of(&other));
            prop_assert_eq!(sum, of(&[one, other].concat()));
        }
    }
}
