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
