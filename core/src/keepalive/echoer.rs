//! The initiator's end: echoes pings, notices silence, and hands over where HTTP begins.

use std::collections::VecDeque;
use std::time::Duration;

use super::PING;
use super::http_start::{self, Start};
use crate::policy::{self, SILENCE_MIN as PATIENCE_MIN};
use crate::time::{Deadline, Instant};

/// When an idle tunnel is called silent (wire.md section 17, rule 8 of the initiator).
#[derive(Clone, Copy, Debug)]
pub struct SilencePolicy {
    /// How long to wait for the first ping, before the peer's interval is known.
    pub first: Duration,
    /// From the second ping on, how many of the longest gaps between pings. After the first one it is the
    /// longer of the two: Envoy up to 1.37 pings all tunnels of a worker at once, so the first ping of a
    /// tunnel may come at any time and says little of the interval.
    pub intervals: u32,
}

impl SilencePolicy {
    /// The policy for another tunnel to a responder whose longest gap between pings is known.
    #[must_use]
    pub fn knowing(self, interval: Duration) -> Self {
        let patience = interval.saturating_mul(self.intervals).max(PATIENCE_MIN);
        Self {
            first: self.first.min(patience),
            ..self
        }
    }
}

impl Default for SilencePolicy {
    fn default() -> Self {
        Self {
            first: policy::FIRST_PING,
            intervals: policy::SILENT_INTERVALS,
        }
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
    /// What came is neither a ping nor the beginning of HTTP. Final.
    Unexpected,
}

/// Recognises pings at any split.
///
/// ```text
///   RPING* in any reads ──▶ Echo, each       the beginning of HTTP    ──▶ HandOff(other bytes), the end
///                                            any other byte           ──▶ Unexpected, the end
///                                            nothing for too long     ──▶ Silent, the end
/// ```
///
/// HTTP begins with the HTTP/2 preface, or with a method and a blank: an Envoy responder whose cluster has
/// `http_protocol_options` sends HTTP/1 requests (wire.md section 4).
///
/// The watchdog wants some byte within the patience that [`SilencePolicy`] describes, at least 2.8 s. The
/// longest gap is counted from the handshake for the first ping.
#[derive(Clone, Debug)]
pub struct Echoer {
    policy: SilencePolicy,
    /// How many bytes of a ping have come.
    matched: usize,
    /// The bytes since the last ping, once they cannot become a ping and may become HTTP.
    http: Vec<u8>,
    /// How often pings have come; those of one read are one.
    pinged: u32,
    last_ping: Instant,
    longest_gap: Duration,
    /// The last sign of life: a byte of the peer, or the acknowledgement of one of ours.
    sign: Instant,
    /// How many bytes of ours the peer's kernel had not acknowledged half-way to the verdict.
    outstanding: Option<u64>,
    done: bool,
    actions: VecDeque<EchoAction>,
    /// The latest time heard of: time going back is ignored.
    now: Instant,
}

impl Echoer {
    /// An echoer for a tunnel whose handshake ended `now`.
    pub const fn new(now: Instant, policy: SilencePolicy) -> Self {
        Self {
            policy,
            matched: 0,
            http: Vec::new(),
            pinged: 0,
            last_ping: now,
            longest_gap: Duration::ZERO,
            sign: now,
            outstanding: None,
            done: false,
            actions: VecDeque::new(),
            now,
        }
    }

    /// Bytes came in one read.
    ///
    /// Pings directly in front of data in the same read are not echoed: the responder has sent its preface,
    /// and an echo would land behind it (wire.md section 17, rule 4 of the initiator).
    pub fn on_bytes(&mut self, now: Instant, bytes: &[u8]) {
        self.now = self.now.max(now);
        if self.done || bytes.is_empty() {
            return;
        }
        self.sign = self.now;
        self.outstanding = None;
        if !self.http.is_empty() {
            self.http.extend_from_slice(bytes);
            self.begin_http();
            return;
        }
        let (mut matched, mut pings) = (self.matched, 0);
        // Where what is no whole ping begins in this read.
        let mut begins = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            if byte != PING[matched] {
                // What was taken for the start of a ping is data; some of it may have come in earlier reads.
                let earlier = if pings == 0 { &PING[..self.matched] } else { &[] };
                self.http = [earlier, &bytes[begins..]].concat();
                self.begin_http();
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
        if pings > 0 {
            self.learn();
        }
        self.actions.extend((0..pings).map(|_| EchoAction::Echo));
    }

    /// A deadline may have passed. `outstanding` returns how many bytes of ours the peer's kernel has not acknowledged, if
    /// that is known. It is called twice: half-way to the verdict, and then. An echo that was on its way at first and has
    /// arrived since is a sign of life, on a link that is busy with other traffic.
    pub fn handle_timeout(&mut self, now: Instant, outstanding: impl FnOnce() -> Option<u64>) {
        self.now = self.now.max(now);
        if self.done || self.now < self.due() {
            return;
        }
        let left = outstanding().unwrap_or(0);
        if self.now < self.silent_at() {
            self.outstanding = Some(left);
        } else if self.outstanding.take().is_some_and(|before| left < before) {
            self.sign = self.now;
        } else {
            self.end(EchoAction::Silent);
        }
    }

    /// The longest gap between two pings so far, once there were two.
    pub fn interval(&self) -> Option<Duration> {
        (self.pinged >= 2).then_some(self.longest_gap)
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<EchoAction> {
        self.actions.pop_front()
    }

    /// When to call [`Echoer::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if !self.actions.is_empty() {
            return Some(Deadline {
                at: self.now,
                reason: "actions queued",
            });
        }
        (!self.done).then(|| Deadline {
            at: self.due(),
            reason: "silence",
        })
    }

    fn due(&self) -> Instant {
        match self.outstanding {
            None => self.sign + self.patience() / 2,
            Some(_) => self.silent_at(),
        }
    }

    fn silent_at(&self) -> Instant {
        self.sign + self.patience()
    }

    fn patience(&self) -> Duration {
        let learned = self
            .longest_gap
            .saturating_mul(self.policy.intervals)
            .max(PATIENCE_MIN);
        match self.pinged {
            0 => self.policy.first,
            1 => self.policy.first.max(learned),
            2.. => learned,
        }
    }

    fn learn(&mut self) {
        self.longest_gap = self.longest_gap.max(self.now - self.last_ping);
        self.last_ping = self.now;
        self.pinged = self.pinged.saturating_add(1);
    }

    /// Hands off if the bytes are HTTP, and ends if they cannot become HTTP.
    fn begin_http(&mut self) {
        match http_start::classify(&self.http) {
            Start::Partial => {}
            Start::Http => {
                let bytes = std::mem::take(&mut self.http);
                self.end(EchoAction::HandOff(bytes));
            }
            Start::Unexpected => self.end(EchoAction::Unexpected),
        }
    }

    fn end(&mut self, verdict: EchoAction) {
        self.done = true;
        self.actions.push_back(verdict);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PREFACE: &[u8] = http_start::PREFACE;
    const GET: &[u8] = b"GET / HTTP/1.1\r\n\r\n";

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
    fn the_preface_is_handed_off_however_it_is_cut() {
        assert_eq!(after(&[PREFACE]), [hand_off(PREFACE)]);
        for cut in 1..PREFACE.len() {
            let (begin, rest) = PREFACE.split_at(cut);
            assert_eq!(after(&[begin]), [], "{cut}");
            assert_eq!(after(&[begin, rest]), [hand_off(PREFACE)], "{cut}");
            assert_eq!(
                after(&[PING, begin, rest]),
                [EchoAction::Echo, hand_off(PREFACE)],
                "{cut}"
            );
            let glued = [&PING[..], begin].concat();
            assert_eq!(after(&[&glued, rest]), [hand_off(PREFACE)], "{cut}");
        }
    }

    #[test]
    fn a_request_of_http_1_is_handed_off_however_it_is_cut() {
        for request in [GET, b"REPORT /a HTTP/1.1\r\n", b"RPINX / HTTP/1.1\r\n"] {
            let method = request.iter().position(|byte| *byte == b' ').unwrap();
            for cut in 0..=method {
                let (begin, rest) = request.split_at(cut);
                assert_eq!(after(&[begin, rest]), [hand_off(request)], "{cut}");
            }
        }
    }

    #[test]
    fn junk_ends_the_tunnel_at_its_first_byte() {
        for junk in [
            &b"\0"[..],
            b"rping",
            b"\x16\x03\x01",
            b"HTTP/1.1 400 Bad Request\r\n",
            b"\0\0\x18\x04",
        ] {
            assert_eq!(after(&[junk]), [EchoAction::Unexpected], "{junk:?}");
            assert_eq!(after(&[PING, junk]), [EchoAction::Echo, EchoAction::Unexpected]);
        }
        assert_eq!(after(&[b"RPIN", b"\0"]), [EchoAction::Unexpected]);
        assert_eq!(
            after(&[b"RPINGRPI", b"\0\0"]),
            [EchoAction::Echo, EchoAction::Unexpected]
        );
        assert_eq!(after(&[b"PRI * HTTP/2.", b"1"]), [EchoAction::Unexpected]);
        assert_eq!(after(&[b"RPINXRPINGRPINGRPINGRPING"]), [EchoAction::Unexpected]);
        assert_eq!(after(&[b"\0", PING]), [EchoAction::Unexpected], "it is over");
    }

    #[test]
    fn a_preface_that_stops_half_way_is_silence() {
        let mut echoer = echoer();
        echoer.on_bytes(at(1_000), b"PRI");
        echoer.handle_timeout(at(10_999), || None);
        assert_eq!(drain(&mut echoer), []);
        echoer.handle_timeout(at(11_000), || None);
        assert_eq!(drain(&mut echoer), [EchoAction::Silent]);
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
        assert_eq!(echoer.silent_at(), at(10_000));
        echoer.handle_timeout(at(9_999), || None);
        assert_eq!(drain(&mut echoer), []);
        echoer.handle_timeout(at(10_000), || None);
        assert_eq!(drain(&mut echoer), [EchoAction::Silent]);
        assert_eq!(echoer.poll_timeout(), None);
    }

    #[test]
    fn an_echo_that_arrives_late_is_a_sign_of_life() {
        let mut echoer = echoer();
        assert_eq!(echoer.poll_timeout().unwrap().at, at(5_000));
        echoer.handle_timeout(at(5_000), || Some(5));
        assert_eq!(echoer.poll_timeout().unwrap().at, at(10_000));
        echoer.handle_timeout(at(10_000), || Some(0));
        assert_eq!(drain(&mut echoer), []);
        assert_eq!(echoer.poll_timeout().unwrap().at, at(15_000));
        echoer.handle_timeout(at(15_000), || Some(0));
        echoer.handle_timeout(at(20_000), || Some(0));
        assert_eq!(drain(&mut echoer), [EchoAction::Silent]);
    }

    #[test]
    fn patience_is_learned_from_the_longest_gap() {
        let mut echoer = echoer();
        for ping in [2_000, 4_300, 6_400] {
            echoer.on_bytes(at(ping), PING);
            drain(&mut echoer);
        }
        assert_eq!(echoer.silent_at(), at(6_400 + 2 * 2_300));
        echoer.handle_timeout(at(6_400 + 2 * 2_300), || None);
        assert_eq!(drain(&mut echoer), [EchoAction::Silent]);
    }

    #[test]
    fn the_first_ping_alone_does_not_shorten_patience() {
        let mut early = echoer();
        early.on_bytes(at(10), PING);
        drain(&mut early);
        assert_eq!(early.silent_at(), at(10 + 10_000));
        early.on_bytes(at(2_010), PING);
        drain(&mut early);
        assert_eq!(early.silent_at(), at(2_010 + 2 * 2_000));

        let mut late = echoer();
        late.on_bytes(at(6_000), PING);
        drain(&mut late);
        assert_eq!(late.silent_at(), at(6_000 + 2 * 6_000), "a slow responder");
    }

    #[test]
    fn pings_of_one_read_say_nothing_of_the_interval() {
        let mut echoer = echoer();
        echoer.on_bytes(at(10), b"RPINGRPING");
        drain(&mut echoer);
        assert_eq!(echoer.silent_at(), at(10 + 10_000));
    }

    #[test]
    fn another_tunnel_to_a_known_responder_begins_with_what_is_known() {
        let policy = SilencePolicy::default();
        assert_eq!(
            policy.knowing(Duration::from_secs(2)).first,
            Duration::from_secs(4)
        );
        assert_eq!(
            policy.knowing(Duration::from_secs(60)).first,
            policy.first,
            "never longer"
        );
        assert_eq!(policy.knowing(Duration::from_millis(1)).first, PATIENCE_MIN);
        let mut echoer = echoer();
        echoer.on_bytes(at(500), PING);
        assert_eq!(echoer.interval(), None, "the first gap says little");
        echoer.on_bytes(at(1_500), PING);
        assert_eq!(echoer.interval(), Some(Duration::from_secs(1)));
    }

    #[test]
    fn patience_is_never_below_two_point_eight_seconds() {
        for (gap, patience) in [(1_400, 2_800), (1_401, 2_802)] {
            let mut echoer = echoer();
            echoer.on_bytes(at(gap), PING);
            echoer.on_bytes(at(2 * gap), PING);
            drain(&mut echoer);
            assert_eq!(echoer.silent_at(), at(2 * gap + patience));
        }
    }

    #[test]
    fn every_byte_is_a_sign_of_life() {
        let mut echoer = echoer();
        echoer.on_bytes(at(9_999), b"R");
        assert_eq!(echoer.silent_at(), at(19_999));
        echoer.on_bytes(at(19_998), b"");
        assert_eq!(echoer.silent_at(), at(19_999), "no bytes are none");
    }

    #[test]
    fn time_going_back_is_ignored_and_a_late_call_fires_once() {
        let mut echoer = echoer();
        echoer.handle_timeout(at(9_000), || None);
        echoer.on_bytes(at(1), b"R");
        assert_eq!(echoer.silent_at(), at(19_000));
        echoer.handle_timeout(at(99_000), || None);
        echoer.handle_timeout(at(99_001), || None);
        assert_eq!(drain(&mut echoer), [EchoAction::Silent]);
        echoer.on_bytes(at(99_002), PING);
        assert_eq!(drain(&mut echoer), []);
    }

    /// How many bytes are needed to see that `data` is HTTP or not, and whether it is; none while that is open.
    fn verdict(data: &[u8]) -> Option<(usize, bool)> {
        let valid = |text: &str| {
            let (method, rest) = text.split_once(' ').unwrap_or((text, "-"));
            let known = method.len() <= 24 && method.starts_with(|c: char| c.is_ascii_uppercase());
            let letters = method.chars().all(|c| c.is_ascii_uppercase() || c == '-');
            let http_1 = known && letters && method != "PRI";
            (http_1 && rest != "-", http_1)
        };
        (1..=data.len()).find_map(|length| {
            let begin = &data[..length];
            let (http_1, may_be) = std::str::from_utf8(begin).map_or((false, false), valid);
            let http = begin == PREFACE || http_1;
            let open = PREFACE.starts_with(begin) || may_be;
            (http || !open).then_some((length, http))
        })
    }

    proptest! {
        /// Against a model that sees the whole stream: where the first byte is that is no ping's, which read
        /// brought it, which pings ended before that read, and which byte tells what the rest is.
        #[test]
        fn segmentation_changes_no_byte_of_the_data(
            pings in 0usize..4,
            data in prop_oneof![
                Just(PREFACE.to_vec()), Just(GET.to_vec()), Just(b"RPINX".to_vec()), Just(b"RRPING ".to_vec()),
                Just(b"PRI * HTTP/2.0\r\n\r\nSM\r\nX".to_vec()),
                prop::collection::vec(any::<u8>(), 0..9), "[A-Z-]{0,30} ?".prop_map(String::into_bytes),
            ],
            cuts in prop::collection::vec(1usize..9, 0..40),
        ) {
            let stream = [&PING.repeat(pings)[..], &data].concat();
            let (mut echoer, mut echoes, mut end) = (echoer(), 0, None);
            let wrong = (0..stream.len()).find(|at| stream[*at] != PING[at % 5]);
            let data_at = wrong.map_or(stream.len(), |at| at / 5 * 5);
            let verdict = verdict(&stream[data_at..]);
            let mut wrong_read = stream.len();
            let (mut from, mut cuts) = (0, cuts.into_iter());
            while from < stream.len() {
                let to = (from + cuts.next().unwrap_or(usize::MAX / 2)).min(stream.len());
                if wrong.is_some_and(|at| (from..to).contains(&at)) {
                    wrong_read = from;
                }
                if end.is_none() {
                    echoer.on_bytes(at(1), &stream[from..to]);
                }
                for action in drain(&mut echoer) {
                    prop_assert!(end.is_none());
                    match action {
                        EchoAction::Echo => echoes += 1,
                        EchoAction::HandOff(bytes) => {
                            prop_assert_eq!(&bytes[..], &stream[data_at..to]);
                            end = Some((to, true));
                        }
                        EchoAction::Unexpected => end = Some((to, false)),
                        EchoAction::Silent => prop_assert!(false, "silent"),
                    }
                }
                // The read that brings the deciding byte is the one that ends the idle phase.
                let decided = verdict.filter(|(length, _)| wrong.is_some() && data_at + length <= to);
                prop_assert_eq!(end.map(|(_, http)| http), decided.map(|(_, http)| http));
                from = to;
            }
            prop_assert_eq!(echoes, wrong_read / 5);
        }
    }
}
