//! RPING, both ends against each other: a responder's `Pinger` and an initiator's `Echoer`, joined by a wire that
//! delays, cuts and glues what is sent, but keeps its order, as TCP does.
//!
//! The contract, for an interval `I` of at least a second and `misses` half intervals of patience:
//!
//! - While a round trip takes less than `misses × I/2` and less than `1.85 × I`, nobody is declared dead.
//! - When the wire falls silent, the responder knows `1.15 × I + misses × I/2` after the last echo at the latest,
//!   and the initiator after three of the longest gaps between pings.
//! - Once the responder was asked to hand off, the data that it then sends arrives whole, once, in order and with
//!   no ping in it; and every ping was answered.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::time::Duration;

use eddy_core::keepalive::{EchoAction, Echoer, PING, PingAction, PingPolicy, Pinger, SilencePolicy};
use eddy_core::policy::{PING_JITTER_PERCENT_MAX, SILENCE_MIN, SILENT_INTERVALS};
use eddy_core::rng::Rng;
use eddy_core::time::Instant;
use proptest::prelude::*;

/// One direction: what is under way, with when it arrives.
#[derive(Default)]
struct Way {
    under_way: VecDeque<(Instant, u8)>,
    bytes: usize,
}

impl Way {
    /// Each byte takes its own delay, at most `longest`; none overtakes another.
    fn send(&mut self, now: Instant, bytes: &[u8], rng: &mut Rng, longest: Duration) {
        for byte in bytes {
            let at = now + rng.between(Duration::ZERO, longest);
            let at = self.under_way.back().map_or(at, |(before, _)| at.max(*before));
            self.under_way.push_back((at, *byte));
        }
        self.bytes += bytes.len();
    }

    /// What has arrived, as one read.
    fn read(&mut self, now: Instant) -> Vec<u8> {
        let arrived = self.under_way.iter().take_while(|(at, _)| *at <= now).count();
        self.under_way.drain(..arrived).map(|(_, byte)| byte).collect()
    }

    fn next(&self) -> Option<Instant> {
        self.under_way.front().map(|(at, _)| *at)
    }
}

struct World {
    now: Instant,
    rng: Rng,
    longest_delay: Duration,
    pinger: Pinger,
    echoer: Echoer,
    to_initiator: Way,
    to_responder: Way,
    /// Nothing arrives from here on.
    silent_from: Option<Instant>,
    /// When the responder is asked to hand off, and the data that it sends once it has.
    hand_off: Option<(Instant, Vec<u8>)>,
    pings: usize,
    echoes: usize,
    echoed_at: Instant,
    /// Whether the pinger, and the echoer, have said their last word.
    over: (Option<PingAction>, bool),
    delivered: Option<Vec<u8>>,
    silent_at: Option<Instant>,
    dead_at: Option<Instant>,
}

impl World {
    fn new(policy: PingPolicy, seed: u64, longest_delay: Duration) -> Self {
        let mut rng = Rng::from_seed(seed);
        let patience = SilencePolicy {
            first: policy.interval * 5,
            ..SilencePolicy::default()
        };
        Self {
            now: Instant::ZERO,
            longest_delay,
            pinger: Pinger::new(Instant::ZERO, policy, rng.fork()),
            echoer: Echoer::new(Instant::ZERO, patience),
            rng,
            to_initiator: Way::default(),
            to_responder: Way::default(),
            silent_from: None,
            hand_off: None,
            pings: 0,
            echoes: 0,
            echoed_at: Instant::ZERO,
            over: (None, false),
            delivered: None,
            silent_at: None,
            dead_at: None,
        }
    }

    fn run_until(&mut self, end: Instant) {
        while let Some(next) = self.next().filter(|next| *next <= end) {
            assert!(next >= self.now);
            self.now = next;
            self.turn();
        }
        self.now = end;
    }

    fn next(&self) -> Option<Instant> {
        let timers = [self.pinger.poll_timeout(), self.echoer.poll_timeout()];
        let timers = timers.into_iter().flatten().map(|deadline| deadline.at);
        let asked = self.hand_off.as_ref().map(|(at, _)| *at);
        let arrivals = [self.to_initiator.next(), self.to_responder.next(), asked];
        timers.chain(arrivals.into_iter().flatten()).min()
    }

    fn turn(&mut self) {
        let cut = self.silent_from.is_some_and(|from| self.now >= from);
        let pings = self.to_initiator.read(self.now);
        if self.over.1 {
            self.delivered.iter_mut().for_each(|data| data.extend(&pings));
        } else if !cut {
            self.echoer.on_bytes(self.now, &pings);
        }
        let echoes = self.to_responder.read(self.now);
        if !cut {
            assert!(
                self.over.0.is_none() || echoes.is_empty(),
                "an echo behind the hand-off"
            );
            self.pinger.on_bytes(self.now, &echoes);
        }
        if let Some((_, data)) = self.hand_off.take_if(|(at, _)| *at <= self.now) {
            self.pinger.hand_off(self.now);
            self.hand_off = Some((Instant::from_origin(Duration::MAX), data));
        }
        self.pinger.handle_timeout(self.now, || None);
        self.echoer.handle_timeout(self.now, || None);
        self.perform();
    }

    fn perform(&mut self) {
        while let Some(action) = self.pinger.poll_action() {
            match action {
                PingAction::Ping => {
                    self.pings += 1;
                    self.to_initiator
                        .send(self.now, PING, &mut self.rng, self.longest_delay);
                }
                PingAction::Echoed { .. } => self.echoed_at = self.now,
                PingAction::Missed => {}
                PingAction::HandOff | PingAction::Dead | PingAction::Unexpected => {
                    self.dead_at = Some(self.now);
                    self.over.0 = Some(action);
                }
            }
            if action == PingAction::HandOff {
                let (_, data) = self.hand_off.take().expect("somebody asked");
                self.to_initiator
                    .send(self.now, &data, &mut self.rng, self.longest_delay);
            }
        }
        while let Some(action) = self.echoer.poll_action() {
            match action {
                EchoAction::Echo => {
                    self.echoes += 1;
                    self.to_responder
                        .send(self.now, PING, &mut self.rng, self.longest_delay);
                }
                EchoAction::HandOff(data) => {
                    self.delivered = Some(data);
                    self.over.1 = true;
                }
                EchoAction::Silent => {
                    self.silent_at = Some(self.now);
                    self.over.1 = true;
                }
                EchoAction::Unexpected => panic!("the responder sends pings and HTTP"),
            }
        }
    }
}

/// A policy, and a delay of one way with which nobody may be declared dead: the echo arrives before the last miss, and the
/// longest gap between pings, an interval with its jitter and a round trip, is within the initiator's patience after the
/// shortest gap, an interval.
fn bearable() -> impl Strategy<Value = (PingPolicy, Duration)> {
    (1_000..20_000u64, 1..5u32, 0..1_000u32).prop_map(|(interval, misses, share)| {
        let interval = Duration::from_millis(interval);
        let slack = interval * (SILENT_INTERVALS * 100 - (100 + PING_JITTER_PERCENT_MAX)) / 100;
        let round_trip = (interval / 2 * misses).min(slack);
        let delay = (round_trip * share / 1_000 / 2).saturating_sub(Duration::from_micros(2));
        (PingPolicy { interval, misses }, delay)
    })
}

/// The beginning of HTTP, though it may begin like a ping.
fn data() -> impl Strategy<Value = Vec<u8>> {
    let request = "[A-Z][A-Z-]{0,20} [ -~]{0,20}";
    prop_oneof![
        Just(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0RPING".to_vec()),
        Just(b"RPINX and RPING".to_vec()),
        Just(b"RRPING /RPING".to_vec()),
        request
            .prop_filter("a ping, or half a preface", |data| !data.starts_with("RPING")
                && !data.starts_with("PRI "))
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    #[test]
    fn a_live_peer_is_never_declared_dead((policy, delay) in bearable(), seed: u64, intervals in 1..40u32) {
        let mut world = World::new(policy, seed, delay);
        world.run_until(Instant::ZERO + policy.interval * intervals);
        prop_assert_eq!(world.over, (None, false));
        prop_assert!(world.pings - world.echoes <= 1, "one ping is out at a time");
        // An interval with its jitter, a round trip: so often there is a ping at least.
        let period = policy.interval * 115 / 100 + delay * 2;
        let least = (policy.interval * intervals).as_millis() / period.as_millis().max(1);
        prop_assert!(world.pings as u128 >= least);
    }

    #[test]
    fn silence_is_noticed_by_both_ends_in_bounded_time(
        (policy, delay) in bearable(), seed: u64, cut_after in 0..200_000u64,
    ) {
        let mut world = World::new(policy, seed, delay);
        let cut = Instant::from_origin(Duration::from_millis(cut_after));
        world.silent_from = Some(cut);
        world.run_until(cut + policy.interval * 30);
        let patience = policy.interval * 115 / 100 + policy.interval / 2 * policy.misses;
        prop_assert_eq!(world.over.0, Some(PingAction::Dead));
        prop_assert!(world.dead_at.unwrap() <= world.echoed_at + patience);
        let longest_gap = policy.interval * 115 / 100 + delay * 2;
        let patience = (longest_gap * SILENT_INTERVALS).max(policy.interval * 5).max(SILENCE_MIN);
        prop_assert!(world.silent_at.unwrap() <= cut + patience);
    }

    #[test]
    fn a_hand_off_delivers_the_data_whole_and_answers_every_ping(
        (policy, delay) in bearable(), seed: u64, asked in 0..100_000u64, data in data(),
    ) {
        let mut world = World::new(policy, seed, delay);
        let asked = Instant::from_origin(Duration::from_millis(asked));
        world.hand_off = Some((asked, data.clone()));
        world.run_until(asked + policy.interval * 4);
        prop_assert_eq!(world.over, (Some(PingAction::HandOff), true));
        // Behind a round trip at most: an echo was owed.
        prop_assert!(world.dead_at.unwrap() <= asked + delay * 2);
        prop_assert_eq!(world.delivered, Some(data.clone()));
        prop_assert_eq!(world.echoes, world.pings);
        prop_assert_eq!(world.to_initiator.bytes, 5 * world.pings + data.len());
        prop_assert_eq!(world.to_responder.bytes, 5 * world.pings);
    }
}
