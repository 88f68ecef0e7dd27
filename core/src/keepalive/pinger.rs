//! The responder's end: one ping at a time, and a verdict when the echo stays away.

use std::collections::VecDeque;
use std::time::Duration;

use super::PING;
use crate::rng::Rng;
use crate::time::{Deadline, Instant};

/// Echoes nobody asked for that are tolerated between two pings. Envoy tolerates some; a peer that sends
/// more is no initiator.
const UNSOLICITED_MAX: u32 = 16;

/// When to ping, and when to give up.
#[derive(Clone, Copy, Debug)]
pub struct PingPolicy {
    /// From an echo to the next ping, plus 0 to 15 % so that tunnels do not ping in step.
    pub interval: Duration,
    /// Half intervals without the echo until the peer is dead: death comes `misses × interval / 2` after
    /// the ping.
    pub misses: u32,
}

impl Default for PingPolicy {
    /// 2 s and 3, as Envoy (wire.md section 13).
    fn default() -> Self {
        Self { interval: Duration::from_secs(2), misses: 3 }
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
///   Resting ──interval──▶ Awaiting ──misses × interval/2──▶ Done (Dead)
///      ▲                     │
///      └────────echo─────────┘        hand_off: from Resting at once, from Awaiting after the echo
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Resting { ping_at: Instant },
    /// One ping is on its way. A second one is never written: TCP repeats the first, and two that arrive
    /// glued together break an Envoy initiator.
    Awaiting { sent: Instant, miss_at: Instant, missed: u32 },
    Done,
}

/// Keeps one idle tunnel alive.
#[derive(Clone, Debug)]
pub struct Pinger {
    policy: PingPolicy,
    rng: Rng,
    state: State,
    /// How much of an echo has come.
    matched: usize,
    unsolicited: u32,
    wanted: bool,
    actions: VecDeque<PingAction>,
    seen: Instant,
}

impl Pinger {
    /// A pinger whose first ping comes one interval after `now`.
    pub fn new(now: Instant, policy: PingPolicy, rng: Rng) -> Self {
        let mut pinger = Self {
            policy,
            rng,
            state: State::Done,
            matched: 0,
            unsolicited: 0,
            wanted: false,
            actions: VecDeque::new(),
            seen: now,
        };
        pinger.rest(now);
        pinger
    }

    /// Bytes came from the initiator, cut anywhere.
    pub fn on_bytes(&mut self, now: Instant, bytes: &[u8]) {
        self.seen = self.seen.max(now);
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
                self.on_echo(now);
            }
        }
        self.hand_off_if_quiet();
    }

    /// A request wants the tunnel: no more pings; an echo that is owed, or half here, is waited for.
    pub fn hand_off(&mut self, now: Instant) {
        self.seen = self.seen.max(now);
        self.wanted = true;
        if self.matched > 0 && matches!(self.state, State::Resting { .. }) {
            // Half an echo that nobody asked for: the rest is waited for like one that is owed.
            self.state = State::Awaiting { sent: now, miss_at: now + self.policy.interval / 2, missed: 0 };
        }
        self.hand_off_if_quiet();
    }

    /// A deadline may have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.seen = self.seen.max(now);
        let half = self.policy.interval / 2;
        match self.state {
            State::Resting { ping_at } if now >= ping_at && !self.wanted => {
                self.state = State::Awaiting { sent: now, miss_at: now + half, missed: 0 };
                self.actions.push_back(PingAction::Ping);
            }
            State::Awaiting { sent, miss_at, missed } if now >= miss_at => {
                self.actions.push_back(PingAction::Missed);
                if missed + 1 >= self.policy.misses {
                    self.end(PingAction::Dead);
                } else {
                    self.state = State::Awaiting { sent, miss_at: now + half, missed: missed + 1 };
                }
            }
            State::Resting { .. } | State::Awaiting { .. } | State::Done => {}
        }
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<PingAction> {
        self.actions.pop_front()
    }

    /// When to call [`Pinger::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if !self.actions.is_empty() {
            return Some(Deadline { at: self.seen, reason: "actions queued" });
        }
        match self.state {
            State::Resting { ping_at } if !self.wanted => Some(Deadline { at: ping_at, reason: "ping" }),
            State::Awaiting { miss_at, .. } => Some(Deadline { at: miss_at, reason: "echo missing" }),
            State::Resting { .. } | State::Done => None,
        }
    }

    fn on_echo(&mut self, now: Instant) {
        match self.state {
            State::Awaiting { sent, .. } => {
                self.actions.push_back(PingAction::Echoed { after: now - sent });
                self.unsolicited = 0;
                self.rest(now);
            }
            State::Resting { .. } => {
                self.unsolicited += 1;
                if self.unsolicited > UNSOLICITED_MAX {
                    self.end(PingAction::Unexpected);
                }
            }
            State::Done => {}
        }
    }

    fn rest(&mut self, now: Instant) {
        let jitter = self.rng.between(Duration::ZERO, self.policy.interval * 15 / 100);
        self.state = State::Resting { ping_at: now + self.policy.interval + jitter };
    }

    fn hand_off_if_quiet(&mut self) {
        let resting = matches!(self.state, State::Resting { .. });
        if self.wanted && resting && self.matched == 0 {
            self.end(PingAction::HandOff);
        }
    }

    fn end(&mut self, verdict: PingAction) {
        self.state = State::Done;
        self.actions.push_back(verdict);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Script(Pinger);

    fn at(millis: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(millis))
    }

    fn script() -> Script {
        Script(Pinger::new(at(0), PingPolicy::default(), Rng::from_seed(1)))
    }

    impl Script {
        fn expect(&mut self, expected: &[PingAction]) {
            let actions: Vec<_> = std::iter::from_fn(|| self.0.poll_action()).collect();
            assert_eq!(actions, expected);
        }

        /// Lets the next timer fire; says when.
        fn fire(&mut self) -> Instant {
            let deadline = self.0.poll_timeout().expect("a timer");
            self.0.handle_timeout(deadline.at);
            deadline.at
        }

        fn pinged() -> (Self, Instant) {
            let mut script = script();
            let sent = script.fire();
            script.expect(&[PingAction::Ping]);
            (script, sent)
        }
    }

    #[test]
    fn pings_come_an_interval_apart_with_jitter() {
        let (mut script, mut last) = Script::pinged();
        for _ in 0..50 {
            let after = Duration::from_millis(3);
            script.0.on_bytes(last + after, PING);
            script.expect(&[PingAction::Echoed { after }]);
            let sent = script.fire();
            script.expect(&[PingAction::Ping]);
            let gap = (sent - (last + after)).as_millis();
            assert!((2000..=2300).contains(&gap), "{gap}");
            last = sent;
        }
    }

    #[test]
    fn an_early_call_does_nothing() {
        let mut script = script();
        script.0.handle_timeout(at(1999));
        script.expect(&[]);
    }

    #[test]
    fn a_silent_peer_is_dead_three_half_intervals_after_the_ping_and_is_pinged_once() {
        let (mut script, sent) = Script::pinged();
        assert_eq!(script.fire() - sent, Duration::from_secs(1));
        script.expect(&[PingAction::Missed]);
        script.fire();
        script.expect(&[PingAction::Missed]);
        assert_eq!(script.fire() - sent, Duration::from_secs(3));
        script.expect(&[PingAction::Missed, PingAction::Dead]);
        assert_eq!(script.0.poll_timeout(), None, "final");
    }

    #[test]
    fn a_late_echo_starts_the_count_again() {
        let (mut script, sent) = Script::pinged();
        script.fire();
        script.expect(&[PingAction::Missed]);
        script.fire();
        script.expect(&[PingAction::Missed]);
        let after = Duration::from_millis(2999);
        script.0.on_bytes(sent + after, PING);
        script.expect(&[PingAction::Echoed { after }]);
        script.fire();
        script.expect(&[PingAction::Ping]);
        script.fire();
        script.expect(&[PingAction::Missed]);
    }

    #[test]
    fn an_echo_may_come_cut_anywhere() {
        for cut in 1..5 {
            let (mut script, sent) = Script::pinged();
            script.0.on_bytes(sent, &PING[..cut]);
            script.expect(&[]);
            script.0.on_bytes(sent, &PING[cut..]);
            script.expect(&[PingAction::Echoed { after: Duration::ZERO }]);
        }
    }

    #[test]
    fn bytes_that_are_no_echo_end_it() {
        for bytes in [&b"XXXXX"[..], b"RPINX", b"RPINGX", b"rping", b"\0\0\x18\x04"] {
            let (mut script, sent) = Script::pinged();
            script.0.on_bytes(sent, bytes);
            let last = std::iter::from_fn(|| script.0.poll_action()).last();
            assert_eq!(last, Some(PingAction::Unexpected), "{bytes:?}");
            script.0.hand_off(sent);
            script.expect(&[]);
        }
    }

    #[test]
    fn a_few_echoes_nobody_asked_for_are_tolerated() {
        let mut script = script();
        for _ in 0..UNSOLICITED_MAX {
            script.0.on_bytes(at(1), PING);
        }
        script.expect(&[]);
        script.0.on_bytes(at(1), PING);
        script.expect(&[PingAction::Unexpected]);
    }

    #[test]
    fn a_resting_tunnel_is_handed_off_at_once() {
        let mut script = script();
        script.0.hand_off(at(10));
        script.expect(&[PingAction::HandOff]);
        script.0.handle_timeout(at(99_999));
        script.expect(&[]);
    }

    #[test]
    fn a_hand_off_waits_for_the_echo_that_is_owed() {
        let (mut script, sent) = Script::pinged();
        script.0.hand_off(sent);
        script.expect(&[]);
        script.0.on_bytes(sent, b"RPI");
        script.expect(&[]);
        script.0.on_bytes(sent, b"NG");
        script.expect(&[PingAction::Echoed { after: Duration::ZERO }, PingAction::HandOff]);
    }

    #[test]
    fn a_hand_off_waits_for_the_rest_of_an_echo_that_nobody_asked_for() {
        let mut script = script();
        script.0.on_bytes(at(1), b"RPI");
        script.0.hand_off(at(2));
        script.expect(&[]);
        assert!(script.0.poll_timeout().is_some(), "not for ever");
        script.0.on_bytes(at(3), b"NG");
        script.expect(&[PingAction::Echoed { after: Duration::from_millis(1) }, PingAction::HandOff]);
    }

    #[test]
    fn a_hand_off_that_waits_for_a_dead_peer_ends_with_it() {
        let (mut script, sent) = Script::pinged();
        script.0.hand_off(sent);
        for last in [&[PingAction::Missed][..], &[PingAction::Missed], &[PingAction::Missed, PingAction::Dead]] {
            script.fire();
            script.expect(last);
        }
    }

    #[test]
    fn a_late_call_fires_once() {
        let (mut script, sent) = Script::pinged();
        script.0.handle_timeout(sent + Duration::from_secs(60));
        script.expect(&[PingAction::Missed]);
    }
}
