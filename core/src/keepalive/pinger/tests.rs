use proptest::prelude::*;

use super::*;
use crate::rng::Rng;

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
        self.0.handle_timeout(deadline.at, || None);
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
        assert!((1000..=1150).contains(&gap), "{gap}");
        last = sent;
    }
}

#[test]
fn an_early_call_does_nothing() {
    let mut script = script();
    script.0.handle_timeout(at(999), || None);
    script.expect(&[]);
}

#[test]
fn a_silent_peer_is_dead_three_half_intervals_after_the_ping_and_is_pinged_once() {
    let (mut script, sent) = Script::pinged();
    assert_eq!(script.fire() - sent, Duration::from_millis(500));
    script.expect(&[PingAction::Missed]);
    script.fire();
    script.expect(&[PingAction::Missed]);
    assert_eq!(script.fire() - sent, Duration::from_millis(1_500));
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
    let after = Duration::from_millis(1_499);
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
        script.expect(&[PingAction::Echoed {
            after: Duration::ZERO,
        }]);
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
    script.0.handle_timeout(at(99_999), || None);
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
    script.expect(&[
        PingAction::Echoed {
            after: Duration::ZERO,
        },
        PingAction::HandOff,
    ]);
}

#[test]
fn a_hand_off_waits_for_the_rest_of_an_echo_that_nobody_asked_for() {
    let mut script = script();
    script.0.on_bytes(at(1), b"RPI");
    script.0.hand_off(at(2));
    script.expect(&[]);
    script.0.on_bytes(at(3), b"NGRP");
    script.expect(&[]);
    script.0.on_bytes(at(4), b"ING");
    script.expect(&[PingAction::HandOff]);
}

#[test]
fn it_does_not_wait_for_the_rest_for_ever() {
    let mut script = script();
    script.0.on_bytes(at(1), b"RPI");
    script.0.hand_off(at(2));
    assert_eq!(script.fire(), at(1_502));
    script.expect(&[PingAction::Dead]);

    let (mut script, sent) = Script::pinged();
    script.0.hand_off(sent);
    script.0.on_bytes(sent, b"RPINGR");
    let after = Duration::ZERO;
    script.expect(&[PingAction::Echoed { after }]);
    assert_eq!(script.fire() - sent, Duration::from_millis(1_500));
    script.expect(&[PingAction::Dead]);
}

#[test]
fn time_going_back_is_ignored() {
    let (mut script, sent) = Script::pinged();
    script.0.on_bytes(at(1), PING);
    let after = Duration::ZERO;
    script.expect(&[PingAction::Echoed { after }]);
    assert!(script.0.poll_timeout().unwrap().at >= sent + PingPolicy::default().interval);
}

#[test]
fn actions_that_wait_are_due_at_once() {
    let (mut script, sent) = Script::pinged();
    script.0.on_bytes(sent, PING);
    let deadline = script.0.poll_timeout().unwrap();
    assert_eq!((deadline.at, deadline.reason), (sent, "actions queued"));
}

#[test]
fn a_hand_off_that_waits_for_a_dead_peer_ends_with_it() {
    let (mut script, sent) = Script::pinged();
    script.0.hand_off(sent);
    for last in [
        &[PingAction::Missed][..],
        &[PingAction::Missed],
        &[PingAction::Missed, PingAction::Dead],
    ] {
        script.fire();
        script.expect(last);
    }
}

#[test]
fn a_late_call_fires_once() {
    let (mut script, sent) = Script::pinged();
    script.0.handle_timeout(sent + Duration::from_secs(60), || None);
    script.expect(&[PingAction::Missed]);
}

#[derive(Clone, Debug)]
enum Step {
    Bytes(Vec<u8>),
    Fire {
        late: u64,
    },
    /// Just before the timer.
    Early,
    HandOff,
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(PING.to_vec()),
        Just(b"RP".to_vec()),
        Just(b"ING".to_vec()),
        prop::collection::vec(any::<u8>(), 0..3)
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => piece().prop_map(Step::Bytes),
        4 => Just(Step::Bytes(PING.to_vec())),
        4 => (0u64..2_000).prop_map(|late| Step::Fire { late }),
        2 => Just(Step::Early),
        1 => Just(Step::HandOff),
    ]
}

proptest! {
    /// Where no hand-off is wanted: one that is may come as soon as a read ends with the echo that was owed.
    #[test]
    fn segmentation_changes_nothing(
        pieces in prop::collection::vec(piece(), 0..8), cuts in prop::collection::vec(1usize..7, 0..30),
    ) {
        let bytes = pieces.concat();
        let (mut whole, sent) = Script::pinged();
        let mut cut = whole.0.clone();
        whole.0.on_bytes(sent, &bytes);
        let mut rest = &bytes[..];
        for length in cuts {
            let (read, more) = rest.split_at(length.min(rest.len()));
            cut.on_bytes(sent, read);
            rest = more;
        }
        cut.on_bytes(sent, rest);
        let cut: Vec<_> = std::iter::from_fn(|| cut.poll_action()).collect();
        whole.expect(&cut);
    }

    /// At most one ping is owed, the verdict comes once and last, and until then there is a way forward.
    #[test]
    fn a_pinger_keeps_its_word(steps in prop::collection::vec(step(), 0..60)) {
        let mut pinger = Pinger::new(at(0), PingPolicy::default(), Rng::from_seed(7));
        let (mut now, mut owed, mut wanted, mut over) = (at(0), false, false, false);
        for step in steps {
            match step {
                Step::Bytes(bytes) => pinger.on_bytes(now, &bytes),
                Step::HandOff => {
                    wanted = true;
                    pinger.hand_off(now);
                }
                Step::Early => {
                    let deadline = pinger.poll_timeout().filter(|deadline| deadline.at > now);
                    if let Some(deadline) = deadline {
                        now = Instant::from_origin(deadline.at.since_origin() - Duration::from_nanos(1));
                        pinger.handle_timeout(now, || None);
                        prop_assert_eq!(pinger.poll_timeout(), Some(deadline), "an early call does nothing");
                    }
                }
                Step::Fire { late } => {
                    if let Some(deadline) = pinger.poll_timeout() {
                        now = now.max(deadline.at) + Duration::from_millis(late);
                        pinger.handle_timeout(now, || None);
                    }
                }
            }
            while let Some(action) = pinger.poll_action() {
                prop_assert!(!over, "{action:?} after the verdict");
                match action {
                    PingAction::Ping => prop_assert!(!std::mem::replace(&mut owed, true) && !wanted),
                    PingAction::Echoed { .. } => prop_assert!(std::mem::take(&mut owed)),
                    PingAction::Missed => prop_assert!(owed),
                    PingAction::HandOff => {
                        prop_assert!(wanted && !owed);
                        over = true;
                    }
                    PingAction::Dead | PingAction::Unexpected => over = true,
                }
            }
            prop_assert_eq!(pinger.poll_timeout().is_none(), over);
        }
    }
}
