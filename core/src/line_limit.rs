//! A rate limit for log lines of one kind, so that a peer that causes the same event thousands of times per second does not
//! fill the log.
//!
//! Up to [`LINES_MAX`] events in a window of one second are written, the others are counted. The count is due at the end of
//! the window, also if no further event follows:
//!
//! ```text
//!         |<------ window ------>|
//! events  1 2 3 4 5 6 7 8 9
//! written 1 2 3 4 5              "4 suppressed"
//! ```

use crate::time::{Deadline, Instant};

pub use crate::policy::{LOG_LINES_MAX as LINES_MAX, LOG_WINDOW as WINDOW};

/// Whether the line of an event is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The line is written.
    Write,
    /// The line is suppressed and counted.
    Suppress,
}

/// Decides which events of one kind are written to the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineLimit {
    /// End of the current window, and the lines written in it.
    window: Option<(Instant, u32)>,
    /// When the count of suppressed lines is due, and the count, which is never 0.
    suppressed: Option<(Instant, u64)>,
}

impl LineLimit {
    /// A limit that has not seen an event.
    pub const fn new() -> Self {
        Self {
            window: None,
            suppressed: None,
        }
    }

    /// Registers an event.
    pub fn on_event(&mut self, now: Instant) -> Decision {
        let (end, written) = match self.window {
            Some((end, written)) if now < end => (end, written),
            Some(_) | None => (now + WINDOW, 0),
        };
        if written < LINES_MAX {
            self.window = Some((end, written + 1));
            return Decision::Write;
        }
        let (due, count) = self.suppressed.unwrap_or((end, 0));
        self.suppressed = Some((due, count.saturating_add(1)));
        Decision::Suppress
    }

    /// The time at which [`Self::handle_timeout`] returns a count.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.suppressed.map(|(at, _)| Deadline {
            at,
            reason: "suppressed log lines",
        })
    }

    /// Returns the number of lines suppressed since the last count, if a count is due.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<u64> {
        let (_, count) = self.suppressed.take_if(|(due, _)| now >= *due)?;
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(ms))
    }

    /// Registers `events` events at one instant and returns how many were written.
    fn written(limit: &mut LineLimit, ms: u64, events: u32) -> usize {
        (0..events)
            .filter(|_| limit.on_event(at(ms)) == Decision::Write)
            .count()
    }

    #[test]
    fn few_events_are_all_written() {
        let mut limit = LineLimit::new();
        for second in 0..10 {
            assert_eq!(written(&mut limit, second * 1_000, LINES_MAX), 5);
            assert_eq!(limit.poll_timeout(), None);
            assert_eq!(limit.handle_timeout(at(second * 1_000 + 999)), None);
        }
    }

    #[test]
    fn events_beyond_the_limit_are_counted_once() {
        let mut limit = LineLimit::new();
        assert_eq!(written(&mut limit, 100, 3), 3);
        assert_eq!(written(&mut limit, 900, 9), 2);
        let deadline = limit.poll_timeout().unwrap();
        assert_eq!(
            (deadline.at, deadline.reason),
            (at(1_100), "suppressed log lines")
        );
        assert_eq!(limit.handle_timeout(at(1_099)), None);
        assert_eq!(limit.handle_timeout(at(1_100)), Some(7));
        assert_eq!(limit.handle_timeout(at(1_100)), None);
        assert_eq!(limit.poll_timeout(), None);
        assert_eq!(written(&mut limit, 1_100, 9), 5, "a new window begins");
    }

    /// Events of the next window do not postpone the count, however late the timer fires.
    #[test]
    fn a_late_timer_returns_everything_suppressed_until_then() {
        let mut limit = LineLimit::new();
        assert_eq!(written(&mut limit, 0, 6), 5);
        assert_eq!(written(&mut limit, 1_000, 7), 5);
        assert_eq!(limit.poll_timeout().unwrap().at, at(1_000));
        assert_eq!(limit.handle_timeout(at(1_500)), Some(3));
        assert_eq!(written(&mut limit, 1_600, 1), 0);
        assert_eq!(limit.poll_timeout().unwrap().at, at(2_000));
    }

    #[test]
    fn time_that_goes_backwards_is_within_the_window() {
        let mut limit = LineLimit::new();
        assert_eq!(written(&mut limit, 5_000, 5), 5);
        assert_eq!(written(&mut limit, 1_000, 5), 0);
    }

    proptest! {
        /// Every event is written or counted, and a driver that keeps the deadlines writes at most one count per window.
        #[test]
        fn no_event_is_forgotten_and_every_window_is_bounded(gaps in prop::collection::vec(0..300u64, 1..200)) {
            let (mut limit, mut now) = (LineLimit::new(), 0);
            let (mut lines, mut counts, mut total) = (vec![], vec![], 0);
            for gap in &gaps {
                now += gap;
                while let Some(deadline) = limit.poll_timeout().filter(|deadline| deadline.at <= at(now)) {
                    total += limit.handle_timeout(deadline.at).unwrap();
                    counts.push(deadline.at);
                }
                if limit.on_event(at(now)) == Decision::Write {
                    lines.push(at(now));
                }
            }
            total += limit.handle_timeout(at(now) + WINDOW).unwrap_or(0);
            prop_assert_eq!(lines.len() as u64 + total, gaps.len() as u64);
            // Windows begin with an event, so any span of one window touches at most two of them.
            for (first, last) in lines.iter().zip(lines.iter().skip(2 * LINES_MAX as usize)) {
                prop_assert!(*last - *first >= WINDOW);
            }
            prop_assert!(counts.windows(2).all(|pair| pair[1] - pair[0] >= WINDOW));
        }
    }
}
