//! The responder's end: one ping at a time, and a verdict when the echo stays away.

use std::collections::VecDeque;
use std::time::Duration;

use super::PING;
use crate::policy::{
    self, PING_JITTER_PERCENT_MAX as JITTER_PERCENT_MAX, PING_UNSOLICITED_MAX as UNSOLICITED_MAX,
};
use crate::rng::Rng;
use crate::time::{Deadline, Instant};

/// When to ping, and when to give up.
#[derive(Clone, Copy, Debug)]
pub struct PingPolicy {
    /// From an echo to the next ping, plus 0 to 15 % so that tunnels do not ping in step.
    pub interval: Duration,
    /// Half intervals without the echo until the peer is dead: death comes `misses × interval / 2` after
    /// the ping, or after its kernel has acknowledged the ping, if that took longer than half an interval.
    pub misses: u32,
}

impl Default for PingPolicy {
    fn default() -> Self {
        Self {
            interval: policy::PING_INTERVAL,
            misses: policy::PING_MISSES,
        }
    }
}

/// What the driver must do, or may count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PingAction {
    /// Write the five bytes as a segment of their own.
    Ping,
    /// Nothing is owed on the socket: HTTP may have it. Final.
    HandOff,
    /// No echo in time. Final.
    Dead,
    /// Bytes that are no echo: the stream is out of step. Final.
    Unexpected,
    /// A half interval passed without the echo.
    Missed,
    /// The echo came.
    Echoed {
        /// How long it took.
        after: Duration,
    },
}

/// ```text
///             ┌──────── echo ────────┐
///             ▼                      │
///   ──▶ Resting ───── ping_at ───▶ Awaiting ── misses × interval/2 ──▶ Done (Dead)
///          │                         │  hand_off wanted: echo
///          │ hand_off                ▼
///          ├─ half an echo here ─▶ Settling ── misses × interval/2 ──▶ Done (Dead)
///          └─ nothing here ──┐       │ the rest of it came
///                            ▼       ▼
///                          Done (HandOff)
/// ```
///
/// Bytes that are no echo lead from everywhere to Done (Unexpected).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is owed.
    Resting { ping_at: Instant },
    /// One ping is on its way.
    Awaiting {
        sent: Instant,
        miss_at: Instant,
        missed: u32,
        /// How many bytes the peer's kernel had not acknowledged at the last miss; none before the first one.
        outstanding: Option<u64>,
        wanted: bool,
    },
    /// The tunnel is wanted, and the end of this read decides whether it is quiet; if half an echo is here,
    /// the rest is waited for.
    Settling { until: Instant },
    /// The verdict is out.
    Done,
}

/// Keeps one idle tunnel alive.
///
/// One ping is outstanding at a time: while an echo is owed no second one is written. TCP repeats the first by
/// itself, and two pings that arrive glued together break an Envoy initiator for good (wire.md section 3).
/// Thus a peer that went silent is dead at most `interval × 1.15 + misses × interval / 2` after its last echo.
#[derive(Clone, Debug)]
pub struct Pinger {
    policy: PingPolicy,
    rng: Rng,
    state: State,
    /// How many bytes of an echo have come.
    matched: usize,
    /// Whole echoes that nobody asked for, since the last one that somebody did.
    unsolicited: u32,
    actions: VecDeque<PingAction>,
    /// The latest time heard of: time going back is ignored.
    now: Instant,
}

impl Pinger {
    /// A pinger whose first ping comes an interval, with jitter, after `now`.
    pub fn new(now: Instant, policy: PingPolicy, mut rng: Rng) -> Self {
        let state = resting(now, policy, &mut rng);
        Self {
            policy,
            rng,
            state,
            matched: 0,
            unsolicited: 0,
            actions: VecDeque::new(),
            now,
        }
    }

    /// Bytes came from the initiator, cut anywhere.
    pub fn on_bytes(&mut self, now: Instant, bytes: &[u8]) {
        self.advance(now);
        for &byte in bytes {
            if self.state == State::Done {
                return;
            }
            if byte != PING[self.matched] {
                self.end(PingAction::Unexpected);
                return;
            }
            self.matched += 1;
            if self.matched == PING.len() {
                self.matched = 0;
                self.on_echo();
            }
        }
        self.end_if_settled();
    }

    /// A request wants the tunnel: no more pings; an echo that is owed, or half here, is waited for.
    pub fn hand_off(&mut self, now: Instant) {
        self.advance(now);
        match &mut self.state {
            State::Resting { .. } => {
                self.state = self.settling();
                self.end_if_settled();
            }
            State::Awaiting { wanted, .. } => *wanted = true,
            State::Settling { .. } | State::Done => {}
        }
    }

    /// A deadline may have passed. `outstanding` returns how many bytes of ours the peer's kernel has not acknowledged, if
    /// that is known; it is called only when an echo is late. On a link that is busy with other traffic the ping itself
    /// may take seconds: its acknowledgement is a sign of life, from which the misses count again.
    pub fn handle_timeout(&mut self, now: Instant, outstanding: impl FnOnce() -> Option<u64>) {
        self.advance(now);
        let miss_at = self.now + self.policy.interval / 2;
        match self.state {
            State::Resting { ping_at } if self.now >= ping_at => {
                self.state = State::Awaiting {
                    sent: self.now,
                    miss_at,
                    missed: 0,
                    outstanding: None,
                    wanted: false,
                };
                self.actions.push_back(PingAction::Ping);
            }
            State::Awaiting {
                sent,
                miss_at: at,
                missed,
                outstanding: before,
                wanted,
            } if self.now >= at => {
                self.actions.push_back(PingAction::Missed);
                let left = outstanding();
                let progress = before.zip(left).is_some_and(|(before, left)| left < before);
                let missed = if progress { 0 } else { missed.saturating_add(1) };
                if missed >= self.policy.misses {
                    self.end(PingAction::Dead);
                } else {
                    self.state = State::Awaiting {
                        sent,
                        miss_at,
                        missed,
                        outstanding: left.or(before),
                        wanted,
                    };
                }
            }
            State::Settling { until } if self.now >= until => self.end(PingAction::Dead),
            State::Resting { .. } | State::Awaiting { .. } | State::Settling { .. } | State::Done => {}
        }
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<PingAction> {
        self.actions.pop_front()
    }

    /// When to call [`Pinger::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if !self.actions.is_empty() {
            return Some(Deadline {
                at: self.now,
                reason: "actions queued",
            });
        }
        match self.state {
            State::Resting { ping_at } => Some(Deadline {
                at: ping_at,
                reason: "ping",
            }),
            State::Awaiting { miss_at, .. } => Some(Deadline {
                at: miss_at,
                reason: "echo missing",
            }),
            State::Settling { until } => Some(Deadline {
                at: until,
                reason: "half an echo",
            }),
            State::Done => None,
        }
    }

    fn advance(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    fn on_echo(&mut self) {
        match self.state {
            State::Awaiting { sent, wanted, .. } => {
                self.actions.push_back(PingAction::Echoed {
                    after: self.now - sent,
                });
                self.unsolicited = 0;
                self.state = if wanted {
                    self.settling()
                } else {
                    resting(self.now, self.policy, &mut self.rng)
                };
            }
            State::Resting { .. } | State::Settling { .. } => {
                self.unsolicited += 1;
                if self.unsolicited > UNSOLICITED_MAX {
                    self.end(PingAction::Unexpected);
                }
            }
            State::Done => {}
        }
    }

    fn settling(&self) -> State {
        State::Settling {
            until: self.now + (self.policy.interval / 2).saturating_mul(self.policy.misses),
        }
    }

    fn end_if_settled(&mut self) {
        if matches!(self.state, State::Settling { .. }) && self.matched == 0 {
            self.end(PingAction::HandOff);
        }
    }

    fn end(&mut self, verdict: PingAction) {
        self.state = State::Done;
        self.actions.push_back(verdict);
    }
}

fn resting(now: Instant, policy: PingPolicy, rng: &mut Rng) -> State {
    let jitter = rng.between(
        Duration::ZERO,
        policy.interval.saturating_mul(JITTER_PERCENT_MAX) / 100,
    );
    State::Resting {
        ping_at: now + policy.interval + jitter,
    }
}

#[cfg(test)]
mod tests;
