//! Injected time: the core reads no clock, its callers say what time it is.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time, as an offset from an origin that the caller chose once per process.
///
/// Unlike the standard library's type it has a zero, a stable `Debug`, and can be generated in tests.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(Duration);

impl Instant {
    /// The caller's origin.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The point `offset` after the origin.
    pub const fn from_origin(offset: Duration) -> Self {
        Self(offset)
    }

    /// How long after the origin this is.
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to `self`, zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0.as_secs(), self.0.subsec_millis())
    }
}

/// When a machine wants to be called again, and which of its timers asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// The instant from which `handle_timeout` has work to do.
    pub at: Instant,
    /// The timer, for logs and for the failure message of a simulation.
    pub reason: &'static str,
}

impl Deadline {
    /// The earlier of two deadlines; of equal ones the first.
    pub fn earlier(a: Option<Self>, b: Option<Self>) -> Option<Self> {
        match (a, b) {
            (Some(a), Some(b)) => Some(if b.at < a.at { b } else { a }),
            (a, b) => a.or(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(ms))
    }

    #[test]
    fn it_reads_as_seconds() {
        assert_eq!(format!("{:?} {:?}", at(61_007), Instant::ZERO), "61.007s 0.000s");
    }

    #[test]
    fn the_end_of_time_is_never_passed() {
        let end = Instant::from_origin(Duration::MAX);
        assert_eq!(end + Duration::from_secs(1), end);
    }

    #[test]
    fn the_earlier_deadline_is_kept_and_of_equal_ones_the_first() {
        let deadline = |ms, reason| Some(Deadline { at: at(ms), reason });
        let (one, same, later) = (deadline(1, "one"), deadline(1, "same"), deadline(2, "later"));
        for (a, b, earlier) in [
            (one, later, one),
            (later, one, one),
            (one, same, one),
            (one, None, one),
            (None, one, one),
            (None, None, None),
        ] {
            assert_eq!(Deadline::earlier(a, b), earlier);
        }
    }

    proptest! {
        #[test]
        fn what_is_added_is_between(start in 0..1_000_000u64, more in 0..1_000_000u64) {
            let (from, by) = (at(start), Duration::from_millis(more));
            prop_assert_eq!((from + by - from, from - (from + by)), (by, Duration::ZERO));
            prop_assert_eq!((from + by).since(from), by);
            prop_assert_eq!((from + by).since_origin(), Duration::from_millis(start + more));
        }
    }
}
