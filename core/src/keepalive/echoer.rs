//! The initiator's end: echoes pings, notices silence, and hands over where HTTP begins.

use std::collections::VecDeque;
use std::time::Duration;

use super::PING;
use crate::time::{Deadline, Instant};

/// The least patience, whatever the peer's interval: a second of scheduling and loss is no silence.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// When an idle tunnel is called silent (wire.md section 17, rule 8 of the initiator).
#[derive(Clone, Copy, Debug)]
pub struct SilencePolicy {
    /// How long to wait for the first ping, before the peer's interval is known.
    pub first: Duration,
    /// From then on, how many of the longest gaps between pings.
    pub intervals: u32,
}

impl Default for SilencePolicy {
    /// 10 s and 3: five times the default interval, and the number that the rule names.
    fn default() -> Self {
        Self { first: Duration::from_secs(10), intervals: 3 }
    }
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EchoAction {
    /// Write RPING, alone in its segment.
    Echo,
    /// From here on the connection is HTTP; these bytes come first. Final.
    HandOff(Vec<u8>),
    /// The responder is gone. Final.
    Silent,
}

/// Recognises pings at any split.
#[derive(Clone, Debug)]
pub struct Echoer {
    policy: SilencePolicy,
    /// How much of a ping has come.
    matched: usize,
    pinged: Instant,
    heard: Instant,
    longest_gap: Option<Duration>,
    done: bool,
    actions: VecDeque<EchoAction>,
    seen: Instant,
}

impl Echoer {
    /// An echoer for a tunnel whose handshake ended `now`.
    pub const fn new(now: Instant, policy: SilencePolicy) -> Self {
        Self {
            policy,
            matched: 0,
            pinged: now,
            heard: now,
            longest_gap: None,
            done: false,
            actions: VecDeque::new(),
            seen: now,
        }
    }

    /// Bytes came in one read.
    ///
    /// Pings directly in front of data in the same read are not echoed: the responder has sent its preface,
    /// and an echo would land behind it.
    pub fn on_bytes(&mut self, now: Instant, bytes: &[u8]) {
        self.seen = self.seen.max(now);
        if self.done || bytes.is_empty() {
            return;
        }
        self.heard = now;
        let (mut matched, mut pings) = (self.matched, 0u32);
        // Where the ping that is being matched begins, if it begins in this read.
        let mut begins = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            if byte != PING[matched] {
                // What was taken for the start of a ping is data; in part it came in earlier reads.
                let earlier = if pings == 0 { &PING[..self.matched] } else { &[] };
                let mut data = earlier.to_vec();
                data.extend_from_slice(&bytes[begins..]);
                self.end(EchoAction::HandOff(data));
                return;
            }
            matched += 1;
            if matched == PING.len() {
                matched = 0;
                pings += 1;
                begins = at + 1;
            }
        }
        self.matched = matched;
        for _ in 0..pings {
            self.on_ping(now);
        }
    }

    /// A deadline may have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.seen = self.seen.max(now);
        if !self.done && now >= self.heard + self.patience() {
            self.end(EchoAction::Silent);
        }
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<EchoAction> {
        self.actions.pop_front()
    }

    /// When to call [`Echoer::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if !self.actions.is_empty() {
            return Some(Deadline { at: self.seen, reason: "actions queued" });
        }
        (!self.done).then(|| Deadline { at: self.heard + self.patience(), reason: "silence" })
    }

    fn patience(&self) -> Duration {
        self.longest_gap.map_or(self.policy.first, |gap| (gap * self.policy.intervals).max(PATIENCE_MIN))
    }

    fn on_ping(&mut self, now: Instant) {
        let gap = now - self.pinged;
        self.longest_gap = Some(self.longest_gap.map_or(gap, |longest| longest.max(gap)));
        self.pinged = now;
        self.actions.push_back(EchoAction::Echo);
    }

    fn end(&mut self, verdict: EchoAction) {
        self.done = true;
        self.actions.push_back(verdict);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn at(millis: u64) -> Instant {
        Instant::from_origin(Duration::from_millis(millis))
    }

    fn echoer() -> Echoer {
        Echoer::new(at(0), SilencePolicy::default())
    }

    fn drain(echoer: &mut Echoer) -> Vec<EchoAction> {
        std::iter::from_fn(|| echoer.poll_action()).collect()
    }

    fn after(reads: &[&[u8]]) -> Vec<EchoAction> {
        let mut echoer = echoer();
        reads.iter().for_each(|read| echoer.on_bytes(at(1), read));
        drain(&mut echoer)
    }

    fn hand_off(bytes: &[u8]) -> EchoAction {
        EchoAction::HandOff(bytes.to_vec())
    }

    #[test]
    fn a_ping_is_echoed_however_it_is_cut() {
        assert_eq!(after(&[PING]), [EchoAction::Echo]);
        for cut in 1..5 {
            assert_eq!(after(&[&PING[..cut], &PING[cut..]]), [EchoAction::Echo]);
        }
        assert_eq!(after(&[b"RPINGRPING"]), [EchoAction::Echo, EchoAction::Echo]);
        assert_eq!(after(&[b"RPINGRP", b"ING"]), [EchoAction::Echo, EchoAction::Echo]);
    }

    #[test]
    fn http_begins_with_the_first_byte_that_is_no_ping() {
        assert_eq!(after(&[PREFACE]), [hand_off(PREFACE)]);
        assert_eq!(after(&[b"P"]), [hand_off(b"P")]);
        assert_eq!(after(&[b"rping"]), [hand_off(b"rping")]);
    }

    #[test]
    fn what_begins_like_a_ping_and_is_none_is_delivered_whole() {
        assert_eq!(after(&[b"RPIN", b"X"]), [hand_off(b"RPINX")]);
        assert_eq!(after(&[b"R", b"PIN", b"Xyz"]), [hand_off(b"RPINXyz")]);
        assert_eq!(after(&[b"RPINGRPI", b"QQ"]), [EchoAction::Echo, hand_off(b"RPIQQ")]);
    }

    #[test]
    fn a_ping_in_front_of_data_in_one_read_is_not_echoed() {
        let glued = [&PING[..], PREFACE].concat();
        assert_eq!(after(&[&glued]), [hand_off(PREFACE)]);
        assert_eq!(after(&[b"RP", &[b"ING", PREFACE].concat()]), [hand_off(PREFACE)]);
        assert_eq!(after(&[PING, PREFACE]), [EchoAction::Echo, hand_off(PREFACE)]);
    }

    #[test]
    fn after_the_hand_off_nothing_is_echoed() {
        assert_eq!(after(&[PREFACE, PING]), [hand_off(PREFACE)]);
    }

    #[test]
    fn a_responder_that_never_pings_is_silent_after_the_first_patience() {
        let mut echoer = echoer();
        assert_eq!(echoer.poll_timeout().unwrap().at, at(10_000));
        echoer.handle_timeout(at(9_999));
        assert_eq!(drain(&mut echoer), []);
        echoer.handle_timeout(at(10_000));
        assert_eq!(drain(&mut echoer), [EchoAction::Silent]);
        assert_eq!(echoer.poll_timeout(), None);
    }

    #[test]
    fn patience_is_learned_from_the_longest_gap() {
        let mut echoer = echoer();
        for ping in [2_000, 4_300, 6_400] {
            echoer.on_bytes(at(ping), PING);
            drain(&mut echoer);
        }
        assert_eq!(echoer.poll_timeout().unwrap().at, at(6_400 + 3 * 2_300));
        echoer.handle_timeout(at(6_400 + 3 * 2_300));
        assert_eq!(drain(&mut echoer), [EchoAction::Silent]);
    }

    #[test]
    fn patience_is_never_below_a_second() {
        let mut echoer = echoer();
        echoer.on_bytes(at(10), PING);
        drain(&mut echoer);
        assert_eq!(echoer.poll_timeout().unwrap().at, at(1_010));
    }
}
