//! How long to wait before the next dial: full jitter under an exponential ceiling.
//!
//! After the n-th failure in a row the wait is uniform between [`FLOOR`] and `min(cap, first × 2^(n-1))`. A fleet
//! that loses its responder at one instant thus comes back spread over the ceiling, not in step. Of 10,000 initiators,
//! the busiest 100 ms see 20,000 dials at first and 5,500 from the second second on while the responder's host refuses
//! them, and about 2,200 SYNs in 100 ms while nothing answers (`tests/fleet.rs`).

use std::time::Duration;

use crate::policy;
use crate::rng::Rng;

pub use crate::policy::REDIAL_MIN as FLOOR;

/// The ceilings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// The first retry comes within this.
    pub first: Duration,
    /// The cap while the host answers with refusals: it is there, and may listen any moment.
    pub refused_max: Duration,
    /// The cap for silence: a link that is cut heals without notice.
    pub silent_max: Duration,
    /// The cap for rejections, and for addresses that seem to be out of date.
    pub rejected_max: Duration,
}

impl Default for BackoffPolicy {
    fn default() -> Self {
        Self {
            first: policy::FIRST_RETRY,
            refused_max: policy::REFUSED_MAX,
            silent_max: policy::SILENT_MAX,
            rejected_max: policy::REJECTED_MAX,
        }
    }
}

/// What the last failure says about when to try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// The host is there and nobody listens.
    Refused,
    /// Nothing answers.
    Silent,
    /// The address seems to be out of date.
    OutOfDate,
    /// The responder does not want this initiator.
    Rejected {
        /// When it said to come back.
        retry_after: Option<Duration>,
    },
}

/// Counts failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// No failure yet.
    pub const fn new() -> Self {
        Self { attempts: 0 }
    }

    /// How many failures in a row.
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Something worked.
    pub const fn reset(&mut self) {
        self.attempts = 0;
    }

    /// Counts a failure and draws the wait.
    ///
    /// A `retry_after` replaces the drawn wait, with 0 to 15 % on top so that those who were told the same do not
    /// come at the same instant; it is bounded by `rejected_max`, so that a mistake of the responder is not for ever.
    /// The bound is on what the responder says: with the jitter on top no wait exceeds 115 % of `rejected_max`. (Cut
    /// after the jitter, all whom the bound cuts would come at one instant.)
    pub fn delay(&mut self, policy: &BackoffPolicy, pace: Pace, rng: &mut Rng) -> Duration {
        self.attempts = self.attempts.saturating_add(1);
        let cap = match pace {
            Pace::Refused => policy.refused_max,
            Pace::Silent => policy.silent_max,
            Pace::OutOfDate | Pace::Rejected { retry_after: None } => policy.rejected_max,
            Pace::Rejected {
                retry_after: Some(after),
            } => {
                let after = after.min(policy.rejected_max).max(FLOOR);
                return after.saturating_add(rng.between(Duration::ZERO, after.saturating_mul(15) / 100));
            }
        };
        let doublings = (self.attempts - 1).min(31);
        let ceiling = policy.first.saturating_mul(1 << doublings).min(cap);
        rng.between(FLOOR, ceiling)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    fn delays(pace: Pace, n: usize) -> Vec<Duration> {
        let (mut backoff, mut rng) = (Backoff::new(), Rng::from_seed(3));
        (0..n)
            .map(|_| backoff.delay(&BackoffPolicy::default(), pace, &mut rng))
            .collect()
    }

    fn longest(pace: Pace, attempt: u32) -> u128 {
        let mut longest = Duration::ZERO;
        for seed in 0..2_000 {
            let (mut backoff, mut rng) = (
                Backoff {
                    attempts: attempt - 1,
                },
                Rng::from_seed(seed),
            );
            let delay = backoff.delay(&BackoffPolicy::default(), pace, &mut rng);
            assert!(delay >= FLOOR);
            longest = longest.max(delay);
        }
        longest.as_millis()
    }

    #[test]
    fn the_ceiling_doubles_up_to_the_cap_of_the_pace() {
        for (attempt, ceiling) in [(1, 50), (2, 100), (3, 200), (4, 200), (60, 200)] {
            let longest = longest(Pace::Refused, attempt);
            assert!(
                (ceiling * 99 / 100..=ceiling).contains(&longest),
                "{attempt}: {longest}"
            );
        }
        for (attempt, ceiling) in [(4, 400), (5, 500), (u32::MAX, 500)] {
            assert!((ceiling * 99 / 100..=ceiling).contains(&longest(Pace::Silent, attempt)));
        }
        for (attempt, ceiling) in [(5, 800), (8, 6_400), (9, 10_000), (u32::MAX, 10_000)] {
            let longest = longest(Pace::OutOfDate, attempt);
            assert!(
                (ceiling * 99 / 100..=ceiling).contains(&longest),
                "{attempt}: {longest}"
            );
        }
    }

    #[test]
    fn the_host_may_say_when_within_reason() {
        let told = |seconds| {
            delays(
                Pace::Rejected {
                    retry_after: Some(Duration::from_secs(seconds)),
                },
                1,
            )[0]
        };
        assert!((7_000..=8_050).contains(&told(7).as_millis()));
        assert!((10_000..=11_500).contains(&told(100).as_millis()));
        assert!((10_000..=11_500).contains(&told(u64::MAX).as_millis()));
        assert!(
            (10..=11).contains(&told(0).as_millis()),
            "no wait is under the floor"
        );
    }

    #[test]
    fn success_starts_again() {
        let mut backoff = Backoff { attempts: 9 };
        backoff.reset();
        assert_eq!(backoff.attempts(), 0);
        let delay = backoff.delay(&BackoffPolicy::default(), Pace::Silent, &mut Rng::from_seed(1));
        assert!(delay <= Duration::from_millis(50));
    }

    #[test]
    fn the_same_seed_waits_the_same() {
        assert_eq!(delays(Pace::Silent, 9), delays(Pace::Silent, 9));
    }

    #[test]
    fn another_pace_keeps_the_attempts_and_applies_its_cap() {
        let (policy, mut rng) = (BackoffPolicy::default(), Rng::from_seed(3));
        let mut backoff = Backoff { attempts: 20 };
        assert!(backoff.delay(&policy, Pace::Refused, &mut rng) <= policy.refused_max);
        assert_eq!(backoff.attempts(), 21);
        let silent = (0..50).map(|_| backoff.delay(&policy, Pace::Silent, &mut rng));
        assert!(
            silent
                .max()
                .is_some_and(|longest| longest > policy.silent_max / 2)
        );
        assert_eq!(backoff.attempts(), 71);
    }

    #[test]
    fn a_fleet_that_lost_its_tunnels_at_one_instant_comes_back_spread() {
        let mut per_ms = [0u32; 51];
        for member in 0..4_000 {
            let (mut backoff, mut rng) = (Backoff::new(), Rng::from_seed(member));
            let delay = backoff.delay(&BackoffPolicy::default(), Pace::Refused, &mut rng);
            per_ms[usize::try_from(delay.as_millis()).unwrap()] += 1;
        }
        assert!(
            per_ms.iter().all(|&n| n <= 150),
            "100 per millisecond would be even: {per_ms:?}"
        );
    }

    proptest! {
        #[test]
        fn every_wait_keeps_its_bounds(
            first in 0..100_000u64, refused in 0..100_000u64, silent in 0..100_000u64,
            rejecting in 0..100_000u64, attempts in any::<u32>(), seed in any::<u64>(), told in proptest::option::of(any::<u64>()),
        ) {
            let ms = Duration::from_millis;
            let policy = BackoffPolicy {
                first: ms(first), refused_max: ms(refused), silent_max: ms(silent), rejected_max: ms(rejecting),
            };
            let rejected = Pace::Rejected { retry_after: told.map(Duration::from_secs) };
            let bounds = [
                (Pace::Refused, policy.refused_max),
                (Pace::Silent, policy.silent_max),
                (Pace::OutOfDate, policy.rejected_max),
                (rejected, policy.rejected_max * 115 / 100),
            ];
            for (pace, max) in bounds {
                let wait = Backoff { attempts }.delay(&policy, pace, &mut Rng::from_seed(seed));
                prop_assert!(FLOOR <= wait && wait <= max.max(FLOOR * 115 / 100), "{pace:?}: {wait:?}");
            }
        }
    }
}
