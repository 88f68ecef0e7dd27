//! Keepalive, both ends, given the same reads at the same times.
//!
//! The input is steps. A byte below 0x80 is a read of that many of the bytes that follow; 0x80 to 0xBF lets time
//! pass, 50 ms for each above 0x80; from 0xC0 on a request wants the tunnel.

use std::time::Duration;

use eddy_core::frame_watch::{FrameWatch, Seen, Sender};
use eddy_core::keepalive::{EchoAction, Echoer, PING, PingAction, PingPolicy, Pinger, SilencePolicy};
use eddy_core::rng::Rng;
use eddy_core::time::{Deadline, Instant};

const TICK: Duration = Duration::from_millis(50);

pub(crate) fn check(mut data: &[u8]) {
    let mut now = Instant::ZERO;
    let mut responder = Responder::new();
    let mut initiator = Initiator::new();
    while let Some((&step, rest)) = data.split_first() {
        data = rest;
        match step {
            0..0x80 => {
                let (read, rest) = data.split_at(data.len().min(step.into()));
                data = rest;
                responder.pinger.on_bytes(now, read);
                initiator.read(now, read);
            }
            0x80..0xC0 => {
                let until = now + TICK * u32::from(step - 0x80);
                while let Some(at) = responder.due(until) {
                    responder.pinger.handle_timeout(at, || None);
                    responder.perform(at);
                }
                while let Some(at) = initiator.due(until) {
                    initiator.echoer.handle_timeout(at, || None);
                    initiator.perform(at);
                }
                now = until;
            }
            0xC0.. => responder.pinger.hand_off(now),
        }
        responder.perform(now);
        initiator.perform(now);
    }
    initiator.compare();
}

/// A timer that is due by `until`.
fn due(timer: Option<Deadline>, until: Instant) -> Option<Instant> {
    timer.map(|timer| timer.at).filter(|at| *at <= until)
}

struct Responder {
    pinger: Pinger,
    outstanding: bool,
    over: bool,
}

impl Responder {
    fn new() -> Self {
        Self {
            pinger: Pinger::new(Instant::ZERO, PingPolicy::default(), Rng::from_seed(1)),
            outstanding: false,
            over: false,
        }
    }

    fn due(&self, until: Instant) -> Option<Instant> {
        due(self.pinger.poll_timeout(), until)
    }

    fn perform(&mut self, now: Instant) {
        while let Some(action) = self.pinger.poll_action() {
            assert!(!self.over, "{action:?} behind the last word");
            match action {
                PingAction::Ping => {
                    assert!(!self.outstanding, "a second ping");
                    self.outstanding = true;
                }
                PingAction::Echoed { .. } => self.outstanding = false,
                PingAction::Missed => assert!(self.outstanding),
                PingAction::HandOff => {
                    assert!(!self.outstanding, "an echo is still owed");
                    self.over = true;
                }
                PingAction::Dead | PingAction::Unexpected => self.over = true,
            }
        }
        match self.pinger.poll_timeout() {
            None => assert!(self.over, "nobody wakes it"),
            Some(timer) => assert!(!self.over && timer.at > now, "{timer:?} at {now:?}"),
        }
    }
}

fn sees_goaway(watch: &mut FrameWatch, bytes: &[u8]) -> bool {
    let mut seen = false;
    watch.on_bytes(&mut bytes.to_vec(), |what| {
        seen |= matches!(what, Seen::GoAway(_))
    });
    seen
}

struct Initiator {
    echoer: Echoer,
    heard: Vec<u8>,
    echoes: usize,
    delivered: Option<Vec<u8>>,
    silent: bool,
    unexpected: bool,
    /// True as soon as a GOAWAY was seen in what was delivered, read by read.
    goaway: bool,
    watch: FrameWatch,
    last_read: usize,
}

impl Initiator {
    fn new() -> Self {
        Self {
            echoer: Echoer::new(Instant::ZERO, SilencePolicy::default()),
            heard: Vec::new(),
            echoes: 0,
            delivered: None,
            silent: false,
            unexpected: false,
            goaway: false,
            watch: FrameWatch::new(Sender::Client),
            last_read: 0,
        }
    }

    fn due(&self, until: Instant) -> Option<Instant> {
        due(self.echoer.poll_timeout(), until)
    }

    fn read(&mut self, now: Instant, read: &[u8]) {
        if self.silent || self.unexpected {
            return;
        }
        self.heard.extend(read);
        if let Some(data) = &mut self.delivered {
            // From here on the bytes are HTTP's, and do not pass the echoer.
            data.extend(read);
            self.goaway |= sees_goaway(&mut self.watch, read);
            return;
        }
        self.last_read = read.len();
        self.echoer.on_bytes(now, read);
    }

    fn perform(&mut self, now: Instant) {
        while let Some(action) = self.echoer.poll_action() {
            assert!(!self.is_over(), "{action:?} behind the last word");
            match action {
                EchoAction::Echo => self.echoes += 1,
                EchoAction::HandOff(bytes) => {
                    self.goaway |= sees_goaway(&mut self.watch, &bytes);
                    self.delivered = Some(bytes);
                }
                EchoAction::Silent => self.silent = true,
                EchoAction::Unexpected => self.unexpected = true,
            }
        }
        match self.echoer.poll_timeout() {
            None => assert!(self.is_over(), "nobody wakes it"),
            Some(timer) => assert!(timer.at > now, "{timer:?} at {now:?}"),
        }
    }

    fn is_over(&self) -> bool {
        self.silent || self.unexpected || self.delivered.is_some()
    }

    /// The naive reading of the whole stream.
    fn compare(&self) {
        let mut data = self.heard.as_slice();
        let mut pings = 0_usize;
        while let Some(rest) = data.strip_prefix(PING) {
            data = rest;
            pings += 1;
        }
        let is_data = !PING.starts_with(data);
        let http = is_data && is_http(data);
        let delivered = self.delivered.as_deref();
        assert_eq!(delivered, http.then_some(data), "of {:?}", self.heard);
        assert_eq!(
            self.unexpected,
            is_data && !http && !may_become_http(data),
            "{:?}",
            self.heard
        );
        if is_data {
            // Those in front of data in one read are not echoed.
            let in_one_read = self.last_read / PING.len() + 1;
            assert!((pings.saturating_sub(in_one_read)..=pings).contains(&self.echoes));
        }
        if http {
            assert_eq!(
                self.goaway,
                sees_goaway(&mut FrameWatch::new(Sender::Client), data)
            );
        }
        if !is_data {
            assert_eq!(self.echoes, pings);
        }
    }
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How many bytes of a method there are, if it may be one.
fn method(data: &[u8]) -> Option<usize> {
    let other = |byte: &u8| !byte.is_ascii_uppercase() && *byte != b'-';
    let length = data.iter().position(other).unwrap_or(data.len());
    (data.first().is_some_and(u8::is_ascii_uppercase) && length <= 24).then_some(length)
}

/// Whether HTTP has begun: with the preface, or with a method other than `PRI` and a blank.
fn is_http(data: &[u8]) -> bool {
    let request = method(data).is_some_and(|length| data.get(length) == Some(&b' '));
    data.starts_with(PREFACE) || request && !data.starts_with(b"PRI ")
}

/// Whether more bytes could make it HTTP.
fn may_become_http(data: &[u8]) -> bool {
    PREFACE.starts_with(data) || method(data) == Some(data.len())
}
