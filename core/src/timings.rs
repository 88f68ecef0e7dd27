//! What is timed, and in which buckets.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::histogram::Histogram;
use crate::stats::Hop;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// With a whole answer, of any status below 500.
    Answered,
    /// With a whole answer of the service, of status 5xx.
    Failed,
    /// With an answer of Eddy's own that says why there is none.
    Refused,
    /// The answer broke off.
    Truncated,
    /// Whoever asked went away.
    ClientGone,
    /// It still ran when the time to drain was over.
    Cut,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Answered,
        Self::Failed,
        Self::Refused,
        Self::Truncated,
        Self::ClientGone,
        Self::Cut,
    ];

    /// The outcome in one word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Truncated => "truncated",
            Self::ClientGone => "client_gone",
            Self::Cut => "cut",
        }
    }
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timing {
    /// A request, from its head to the end of its answer.
    Request(Hop, Outcome),
    /// A handshake at the responder that was accepted, from the accept of the connection to the answer.
    Handshake,
    /// A dial of the initiator, from its start to a tunnel that is up.
    Dial,
    /// A tunnel, from opening to its end.
    Lifetime,
    /// A node that had no tunnel any more, until it had one again (responder).
    Recovery,
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const REQUEST: &[Duration] = &[
    ms(1),
    ms(2),
    ms(5),
    ms(10),
    ms(25),
    ms(50),
    ms(100),
    ms(250),
    ms(500),
    ms(1_000),
    ms(2_500),
    ms(5_000),
    ms(15_000),
];
/// A handshake within one network takes under a millisecond, one over a satellite 600 ms.
const HANDSHAKE: &[Duration] = &[ms(1), ms(5), ms(25), ms(100), ms(250), ms(1_000), ms(5_000)];
/// A second, 10 s, a minute, 10 minutes, an hour, 6 hours, a day, a week.
const LIFETIME: &[Duration] = &[
    ms(1_000),
    ms(10_000),
    ms(60_000),
    ms(600_000),
    ms(3_600_000),
    ms(21_600_000),
    ms(86_400_000),
    ms(604_800_000),
];
const RECOVERY: &[Duration] = &[
    ms(50),
    ms(100),
    ms(250),
    ms(500),
    ms(1_000),
    ms(2_500),
    ms(5_000),
    ms(10_000),
    ms(60_000),
];

impl Timing {
    /// An empty histogram with its buckets.
    pub fn histogram(self) -> Histogram {
        Histogram::new(self.bounds())
    }

    const fn bounds(self) -> &'static [Duration] {
        match self {
            Self::Request(..) => REQUEST,
            Self::Handshake | Self::Dial => HANDSHAKE,
            Self::Lifetime => LIFETIME,
            Self::Recovery => RECOVERY,
        }
    }
}

/// What one worker has timed; those of several add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timings(BTreeMap<Timing, Histogram>);

impl Timings {
    /// With an empty histogram for each of these: a series that begins with its first event hides it from whoever asks for
    /// the increase.
    pub fn of_these(all: impl IntoIterator<Item = Timing>) -> Self {
        all.into_iter().map(|what| (what, what.histogram())).collect()
    }

    /// Counts one.
    pub fn record(&mut self, what: Timing, took: Duration) {
        self.of(what).record(took);
    }

    /// Adds those of another worker.
    pub fn merge(&mut self, other: &Self) {
        for (what, histogram) in &other.0 {
            self.of(*what).merge(histogram);
        }
    }

    /// All that was timed.
    pub fn iter(&self) -> impl Iterator<Item = (Timing, &Histogram)> {
        self.0.iter().map(|(what, histogram)| (*what, histogram))
    }

    fn of(&mut self, what: Timing) -> &mut Histogram {
        self.0
            .entry(what)
            .or_insert_with(|| Histogram::new(what.bounds()))
    }
}

impl FromIterator<(Timing, Histogram)> for Timings {
    fn from_iter<I: IntoIterator<Item = (Timing, Histogram)>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Their places in an array of all are their numbers.
    #[test]
    fn outcomes_are_numbered_in_their_order() {
        let numbers = Outcome::ALL.map(|outcome| outcome as usize);
        assert!(numbers.into_iter().eq(0..Outcome::ALL.len()));
    }

    #[test]
    fn workers_add_up_and_bounds_ascend() {
        let all = [
            Timing::Request(Hop::Egress, Outcome::Answered),
            Timing::Handshake,
            Timing::Dial,
            Timing::Lifetime,
            Timing::Recovery,
        ];
        let (mut one, mut other) = (Timings::default(), Timings::default());
        for what in all {
            assert!(what.bounds().is_sorted());
            one.record(what, ms(3));
            other.record(what, ms(70));
        }
        one.merge(&other);
        let counted: Vec<_> = one.iter().map(|(what, h)| (what, h.count(), h.sum())).collect();
        assert_eq!(counted, all.map(|what| (what, 2, ms(73))));
    }
}
