//! Whether the peer of a tunnel that carries HTTP/2 is alive.
//!
//! A PING and its acknowledgement wait behind the bodies in front of them, on a slow link for seconds. So the missing
//! acknowledgement alone says nothing. A peer is dead when, for a whole timeout after the PING, nothing was received from
//! it and its kernel acknowledged none of the bytes up to and including the PING. Bytes behind the PING do not count: the
//! kernel of a frozen process goes on to acknowledge until its window is full.

use std::time::Duration;

use crate::time::{Deadline, Instant};

/// In how many steps a timeout is watched for acknowledged bytes: each costs a question to the kernel, and a step is how
/// much later than its budget a verdict may come.
const LOOKS: u32 = 4;

/// When to send a PING, and when to give up.
#[derive(Clone, Copy, Debug)]
pub struct LivenessPolicy {
    /// From the last byte received to the PING.
    pub interval: Duration,
    /// From the last sign of life after the PING to the verdict.
    pub timeout: Duration,
}

/// What the driver must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LivenessAction {
    /// Send a PING.
    Ping,
    /// The peer is dead. Final.
    Dead,
}

/// ```text
///             ┌──────────────── received ────────────────┐
///             ▼                                          │
///   ──▶ Listening ── interval after the last byte ──▶ Asked ── timeout after the last sign ──▶ Dead
///                                                      │  ▲
///                                                      └──┘ acknowledged, up to the PING: a sign
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Listening,
    Asked {
        /// From when the timeout counts.
        sign: Instant,
        /// The time of the next look at the acknowledged bytes.
        look_at: Instant,
        /// The bytes up to the PING that were not acknowledged at the last look; none before the first one.
        outstanding: Option<u64>,
    },
    Dead,
}

/// Watches one connection.
#[derive(Clone, Debug)]
pub struct Liveness {
    policy: LivenessPolicy,
    state: State,
    received: Instant,
}

impl Liveness {
    /// Watches a connection from `now` on.
    pub const fn new(now: Instant, policy: LivenessPolicy) -> Self {
        Self {
            policy,
            state: State::Listening,
            received: now,
        }
    }

    /// The last byte so far was received `at`; telling it again has no effect.
    pub fn on_received(&mut self, at: Instant) {
        if at <= self.received {
            return;
        }
        self.received = at;
        if let State::Asked { .. } = self.state {
            self.state = State::Listening;
        }
    }

    /// A deadline may have passed. `outstanding` returns how many of the bytes up to and including the PING the peer's
    /// kernel has not acknowledged, if that is known; it is called only while a PING is unanswered.
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        outstanding: impl FnOnce() -> Option<u64>,
    ) -> Option<LivenessAction> {
        match self.state {
            State::Listening if now >= self.received + self.policy.interval => {
                self.state = State::Asked {
                    sign: now,
                    look_at: now + self.step(),
                    outstanding: None,
                };
                Some(LivenessAction::Ping)
            }
            State::Asked {
                mut sign,
                look_at,
                outstanding: before,
            } if now >= look_at => {
                let left = outstanding();
                // The first look finds what the PING had in front of it. If the PING itself is through by then, the
                // timeout counts from the PING.
                if let (Some(before), Some(left)) = (before, left)
                    && left < before
                {
                    sign = now;
                }
                // A look that comes late says that this process stood still: what the peer sent meanwhile may not have
                // been read yet, so the verdict waits for one timely look.
                let is_late = now >= look_at + self.step();
                if now >= sign + self.policy.timeout && !is_late {
                    self.state = State::Dead;
                    return Some(LivenessAction::Dead);
                }
                let verdict_at = sign + self.policy.timeout;
                let next = now + self.step();
                self.state = State::Asked {
                    sign,
                    look_at: if verdict_at > now {
                        next.min(verdict_at)
                    } else {
                        next
                    },
                    outstanding: left.or(before),
                };
                None
            }
            State::Listening | State::Asked { .. } | State::Dead => None,
        }
    }

    /// When to call [`Liveness::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Deadline> {
        match self.state {
            State::Listening => Some(Deadline {
                at: self.received + self.policy.interval,
                reason: "http2 ping",
            }),
            State::Asked { look_at, .. } => Some(Deadline {
                at: look_at,
                reason: "http2 ping unanswered",
            }),
            State::Dead => None,
        }
    }

    /// Whether a PING is unanswered.
    pub const fn is_asking(&self) -> bool {
        matches!(self.state, State::Asked { .. })
    }

    fn step(&self) -> Duration {
        self.policy.timeout / LOOKS
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(millis))
    }

    fn watched() -> Liveness {
        let second = Duration::from_secs(1);
        let policy = LivenessPolicy {
            interval: second,
            timeout: second,
        };
        Liveness::new(at(0), policy)
    }

    /// Plays until the verdict, with what is outstanding at each time; returns when each PING was due, and the verdict.
    fn play(
        liveness: &mut Liveness,
        until: u64,
        outstanding: impl Fn(u64) -> Option<u64>,
    ) -> (Vec<u64>, Option<u64>) {
        let mut pings = Vec::new();
        while let Some(Deadline { at: due, .. }) = liveness.poll_timeout() {
            let now = u64::try_from(due.since_origin().as_millis()).unwrap();
            if now > until {
                return (pings, None);
            }
            match liveness.handle_timeout(due, || outstanding(now)) {
                Some(LivenessAction::Ping) => pings.push(now),
                Some(LivenessAction::Dead) => return (pings, Some(now)),
                None => {}
            }
        }
        panic!("nothing wakes it");
    }

    #[test]
    fn a_silent_peer_is_dead_after_interval_and_timeout() {
        assert_eq!(
            play(&mut watched(), 9_000, |_| Some(17)),
            (vec![1_000], Some(2_000))
        );
        assert_eq!(play(&mut watched(), 9_000, |_| None), (vec![1_000], Some(2_000)));
    }

    #[test]
    fn a_frozen_process_is_dead_although_its_kernel_acknowledges() {
        let through = |now| Some(if now < 1_100 { 17 } else { 0 });
        assert_eq!(play(&mut watched(), 9_000, through), (vec![1_000], Some(2_000)));
    }

    #[test]
    fn a_slow_link_lives_as_long_as_bytes_in_front_of_the_ping_are_acknowledged() {
        let drains = |now| Some(1_000_000_u64.saturating_sub(250 * (now - 1_000)) + 17);
        assert_eq!(play(&mut watched(), 4_900, drains), (vec![1_000], None));
        // The last byte in front of the PING is acknowledged at 5 s, and nothing comes back.
        assert_eq!(play(&mut watched(), 9_000, drains), (vec![1_000], Some(6_000)));
    }

    #[test]
    fn a_link_that_stops_is_dead_a_timeout_after_its_last_progress() {
        let stops = |now: u64| Some(100_000 - 10 * now.min(3_000));
        let (pings, dead) = play(&mut watched(), 9_000, stops);
        assert_eq!(pings, [1_000]);
        assert!((4_000..=4_250).contains(&dead.unwrap()), "{dead:?}");
    }

    #[test]
    fn any_byte_received_is_a_sign_of_life() {
        let mut liveness = watched();
        assert_eq!(play(&mut liveness, 1_900, |_| Some(17)), (vec![1_000], None));
        liveness.on_received(at(1_900));
        assert!(!liveness.is_asking());
        liveness.on_received(at(1_000));
        assert_eq!(
            play(&mut liveness, 9_000, |_| Some(17)),
            (vec![2_900], Some(3_900))
        );
    }

    #[test]
    fn a_process_that_stood_still_reads_before_it_judges() {
        let mut liveness = watched();
        let ping = liveness.handle_timeout(at(1_000), || None);
        assert_eq!(ping, Some(LivenessAction::Ping));
        // Nothing ran for five seconds.
        assert_eq!(liveness.handle_timeout(at(6_000), || Some(17)), None);
        let (pings, dead) = play(&mut liveness, 9_000, |_| Some(17));
        assert_eq!((pings, dead), (vec![], Some(6_250)));
    }

    proptest! {
        /// A peer that gave a sign within the timeout is never called dead, and one that gave none is, in time.
        #[test]
        fn the_verdict_is_neither_early_nor_late(
            received in prop::collection::btree_set(1..20_000u64, 0..12),
            acknowledged in prop::collection::btree_set(1..20_000u64, 0..30),
        ) {
            let mut liveness = watched();
            let outstanding = |now: u64| Some(1 + acknowledged.range(now + 1..).count() as u64);
            let mut last_received = 0;
            let mut verdict = None;
            for &at_millis in received.iter().chain([&100_000]) {
                let (_, dead) = play(&mut liveness, at_millis - 1, outstanding);
                verdict = dead;
                if verdict.is_some() {
                    break;
                }
                liveness.on_received(at(at_millis));
                last_received = at_millis;
            }
            let dead = verdict.expect("at last nothing comes");
            // What is acknowledged before the first look after the PING is not seen.
            let seen = acknowledged.range(last_received + 1_251..=dead);
            let last_acknowledged = seen.clone().next_back().copied().unwrap_or(0);
            prop_assert!(dead >= last_received + 2_000);
            prop_assert!(seen.filter(|t| **t + 250 <= dead).all(|t| dead >= t + 1_000));
            prop_assert!(dead <= (last_received + 2_000).max(last_acknowledged + 1_250));
        }
    }
}
