//! The dialer as scripts of events and the exact actions that follow.
//!
//! An action reads `dial a h1`: for tunnel `a`, the first that was dialed, to host 1. Every dial is a new letter.

mod calm;
mod histories;
mod overlap;
mod pace;
mod table;
mod targets;

use std::time::Duration;

use super::*;
use crate::backoff::FLOOR;

fn host(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, n], 9_000))
}

fn cluster(name: &str) -> ClusterName {
    ClusterName::parse(name).unwrap()
}

fn ms(ms: u64) -> Instant {
    Instant::from_origin(Duration::from_millis(ms))
}

fn policy() -> DialerPolicy {
    DialerPolicy {
        max_dials: 4,
        drain_timeout: Duration::from_secs(10),
        // A dial is one connect, but where a test is about more.
        overlap: Duration::from_secs(3_600),
        ..DialerPolicy::default()
    }
}

/// A dialer, what time it is, and the handles of its dials in order.
struct Script {
    dialer: Dialer,
    now: Instant,
    dialed: Vec<Slot>,
}

impl Script {
    fn new(policy: DialerPolicy) -> Self {
        Self {
            dialer: Dialer::new(policy, Rng::from_seed(7)),
            now: Instant::ZERO,
            dialed: Vec::new(),
        }
    }

    /// With `count` tunnels dialed to host 1.
    fn dialing(count: u32) -> Self {
        let mut script = Self::new(policy());
        script.targets(&[(1, count)]);
        script.actions();
        script
    }

    /// With `count` tunnels up to host 1, since the start.
    fn up(count: u32) -> Self {
        let mut script = Self::dialing(count);
        for n in 0..count {
            script.established(char::from(b'a' + u8::try_from(n).unwrap()));
        }
        script.expect(&[])
    }

    fn at(&mut self, at: u64) -> &mut Self {
        self.now = ms(at);
        self
    }

    fn slot(&self, letter: char) -> Slot {
        self.dialed[usize::try_from(u32::from(letter) - u32::from('a')).unwrap()]
    }

    fn letter(&self, slot: Slot) -> char {
        let n = self.dialed.iter().position(|dialed| *dialed == slot).unwrap();
        char::from(b'a' + u8::try_from(n).unwrap())
    }

    fn targets_of(&mut self, name: &str, targets: &[(u8, u32)]) -> &mut Self {
        let targets: Vec<_> = targets
            .iter()
            .map(|&(n, count)| Target { host: host(n), count })
            .collect();
        self.dialer.on_targets(self.now, &cluster(name), &targets);
        self
    }

    fn targets(&mut self, targets: &[(u8, u32)]) -> &mut Self {
        self.targets_of("c", targets)
    }

    fn established(&mut self, letter: char) -> &mut Self {
        self.dialer.on_established(self.now, self.slot(letter), None);
        self
    }

    fn connected(&mut self, letter: char) -> &mut Self {
        self.dialer.on_connected(self.now, self.slot(letter));
        self
    }

    fn failed(&mut self, letter: char, why: &DialFailure) -> &mut Self {
        self.dialer.on_failed(self.now, self.slot(letter), why);
        self
    }

    fn renew(&mut self, letter: char) -> &mut Self {
        self.dialer.renew(self.now, self.slot(letter));
        self
    }

    fn goaway(&mut self, letter: char) -> &mut Self {
        self.dialer.on_goaway(self.now, self.slot(letter));
        self
    }

    fn closed(&mut self, letter: char) -> &mut Self {
        self.dialer
            .on_closed(self.now, self.slot(letter), CloseReason::PeerClosed);
        self
    }

    fn drain(&mut self) -> &mut Self {
        self.dialer.drain(self.now);
        self
    }

    /// Goes on to the next deadline, which must be `reason`'s, and fires it.
    fn wait_for(&mut self, reason: &str) -> &mut Self {
        let deadline = self.dialer.poll_timeout().unwrap();
        assert_eq!(deadline.reason, reason);
        assert!(deadline.at >= self.now);
        self.now = deadline.at;
        self.tick()
    }

    fn tick(&mut self) -> &mut Self {
        self.dialer.handle_timeout(self.now);
        self
    }

    fn actions(&mut self) -> Vec<String> {
        let mut actions = Vec::new();
        while let Some(action) = self.dialer.poll_action() {
            let (verb, slot, to) = match action {
                Action::Dial { slot, host, .. } => {
                    assert!(!self.dialed.contains(&slot), "{slot:?} is dialed twice");
                    self.dialed.push(slot);
                    let SocketAddr::V4(host) = host else {
                        unreachable!()
                    };
                    ("dial", slot, format!(" h{}", host.ip().octets()[3]))
                }
                Action::Overlap { slot } => ("overlap", slot, String::new()),
                Action::Abort { slot, timed_out } => {
                    (if timed_out { "time out" } else { "abort" }, slot, String::new())
                }
                Action::Drain { slot } => ("drain", slot, String::new()),
                Action::Close { slot } => ("close", slot, String::new()),
            };
            actions.push(format!("{verb} {}{to}", self.letter(slot)));
        }
        actions
    }

    #[track_caller]
    fn expects(&mut self, expected: &[&str]) -> &mut Self {
        assert_eq!(self.actions(), expected);
        self
    }

    #[track_caller]
    fn expect(mut self, expected: &[&str]) -> Self {
        self.expects(expected);
        self
    }

    /// What the next deadline is, with the most that may be left until it.
    #[track_caller]
    fn deadline(&mut self, reason: &str, within: u64) -> &mut Self {
        let deadline = self.dialer.poll_timeout().unwrap();
        assert_eq!(deadline.reason, reason);
        let left = deadline.at - self.now;
        assert!(
            left <= Duration::from_millis(within),
            "{left:?} is over {within} ms"
        );
        self
    }

    /// connected, connecting, backing off, draining of each host.
    fn counts(&self) -> Vec<[u32; 4]> {
        self.dialer
            .hosts()
            .map(|v| [v.connected, v.connecting, v.backing_off, v.draining])
            .collect()
    }
}

#[test]
fn a_tunnel_is_dialed_established_lost_and_dialed_again() {
    let mut s = Script::new(policy());
    assert_eq!(s.dialer.poll_timeout(), None);
    s.targets(&[(1, 2)])
        .deadline("actions queued", 0)
        .expects(&["dial a h1", "dial b h1"]);
    s.deadline("dial", 5_000);
    s.at(1).established('a').established('b').expects(&[]);
    assert_eq!(
        (s.dialer.poll_timeout(), s.dialer.connected(&cluster("c"))),
        (None, 2)
    );
    s.at(60_000).closed('a').expects(&[]).deadline("backoff", 50);
    assert_eq!(s.counts(), [[1, 0, 1, 0]]);
    s.wait_for("backoff").expects(&["dial c h1"]);
    s.established('c').expects(&[]);
    assert_eq!(s.counts(), [[2, 0, 0, 0]]);
}

#[test]
fn a_drain_that_takes_too_long_is_cut() {
    let mut s = Script::up(1);
    s.targets(&[]).expects(&["drain a"]);
    s.at(9_999).tick().expects(&[]);
    s.at(10_000).tick().expects(&["close a"]);
    assert_eq!((s.dialer.poll_timeout(), s.counts()), (None, vec![]));
}

#[test]
fn a_goaway_brings_a_replacement_at_once() {
    let mut s = Script::up(1);
    s.at(60_000).goaway('a').expects(&["dial b h1"]);
    assert_eq!(s.counts(), [[0, 1, 0, 1]]);
    s.goaway('a')
        .expects(&[])
        .established('b')
        .closed('a')
        .expects(&[]);
    assert_eq!(s.counts(), [[1, 0, 0, 0]]);
    // A tunnel that was stable leaves no debt: the next one is replaced at once too.
    s.at(70_000).goaway('b').expects(&["dial c h1"]);
}

/// As against a GOAWAY, after which the peer says when the tunnel goes.
#[test]
fn a_tunnel_that_is_renewed_goes_once_its_replacement_is_up() {
    let mut s = Script::up(1);
    s.at(60_000).renew('a').expects(&["dial b h1"]);
    s.failed('b', &DialFailure::Refused).expects(&[]);
    s.wait_for("backoff").expects(&["dial c h1"]);
    s.established('c').expects(&["drain a"]);
    s.closed('a').expects(&[]);
    assert_eq!(s.counts(), [[1, 0, 0, 0]]);
}

/// The responder serves on as long as its own `drain_timeout` says, which is not ours.
#[test]
fn after_its_goodbye_a_responder_says_when_the_tunnel_goes() {
    let mut s = Script::up(1);
    s.at(60_000).goaway('a').expects(&["dial b h1"]).established('b');
    s.at(3_659_999).tick().expects(&[]);
    s.at(3_660_000).tick().expects(&["close a"]);
}

#[test]
fn a_renewed_tunnel_whose_replacement_comes_late_has_its_time_to_drain() {
    let mut s = Script::up(1);
    s.at(60_000).renew('a').expects(&["dial b h1"]);
    s.at(64_000).established('b').expects(&["drain a"]);
    s.at(73_999).tick().expects(&[]);
    s.at(74_000).tick().expects(&["close a"]);
}

#[test]
fn a_renewed_tunnel_whose_replacement_never_comes_is_drained_and_not_cut() {
    let mut s = Script::up(1);
    s.at(60_000).renew('a').actions();
    let first = s.slot('a');
    while s.now < ms(3_660_000) {
        s.now = s.dialer.poll_timeout().unwrap().at;
        s.dialer.handle_timeout(s.now);
        while let Some(action) = s.dialer.poll_action() {
            assert!(!matches!(action, Action::Close { .. }));
            if action == (Action::Drain { slot: first }) {
                return assert_eq!(s.now, ms(3_660_000));
            }
        }
    }
    panic!("the tunnel stays");
}

/// What the responder is told of a tunnel's place.
#[test]
fn a_place_keeps_its_number_from_dial_to_dial_and_shares_it_with_none() {
    let mut s = Script::up(2);
    let index = |s: &Script, letter| s.slot(letter).index();
    assert_ne!(index(&s, 'a'), index(&s, 'b'));
    s.at(60_000).closed('a').actions();
    s.wait_for("backoff").expects(&["dial c h1"]);
    assert_eq!(index(&s, 'c'), index(&s, 'a'));
    s.goaway('b').expects(&["dial d h1"]);
    assert!(index(&s, 'd') != index(&s, 'b') && index(&s, 'd') != index(&s, 'c'));
    assert!(index(&s, 'd') > 1, "{:?}", s.slot('d'));
}

#[test]
fn the_end_of_the_process_ends_also_what_drains_already() {
    let mut s = Script::up(1);
    s.at(60_000).goaway('a').expects(&["dial b h1"]);
    s.dialer.drain(s.now);
    s.expects(&["drain a", "abort b"]);
    assert!(!s.dialer.is_drained());
    s.closed('a').expects(&[]);
    assert!(s.dialer.is_drained());
}

#[test]
fn goaways_right_after_the_handshake_are_paced() {
    let mut s = Script::up(1);
    s.at(1).goaway('a').expects(&["dial b h1"]);
    s.established('b')
        .goaway('b')
        .expects(&[])
        .deadline("backoff", 100);
    assert_eq!(s.counts(), [[0, 0, 1, 2]]);
    s.wait_for("backoff").expects(&["dial c h1"]);
}

#[test]
fn a_dial_has_its_time_and_what_it_says_after_that_is_not_heard() {
    let mut s = Script::dialing(1);
    s.at(4_999).tick().expects(&[]);
    s.at(5_000)
        .tick()
        .expects(&["time out a"])
        .deadline("backoff", 50);
    assert_eq!(s.counts(), [[0, 0, 1, 0]]);
    s.established('a').failed('a', &DialFailure::Refused).expects(&[]);
    let failures: Vec<_> = s.dialer.hosts().map(|v| v.failures.clone()).collect();
    assert_eq!(failures, [BTreeMap::from([("timeout", 1)])]);
    s.wait_for("backoff").expects(&["dial b h1"]);
}

#[test]
fn an_event_for_a_tunnel_that_has_moved_on_has_no_effect() {
    for end in [
        (|s| s.closed('a')) as fn(&mut Script) -> &mut Script,
        |s| s.goaway('a').closed('a').targets(&[(1, 0)]).targets(&[(1, 1)]),
        |s| s.targets(&[]).closed('a').targets(&[(1, 1)]),
    ] {
        let mut s = Script::up(1);
        end(s.at(60_000)).actions();
        if s.dialer.poll_timeout().is_some_and(|d| d.reason == "backoff") {
            s.wait_for("backoff").actions();
        }
        let before = s.counts();
        assert_eq!(before, [[0, 1, 0, 0]]);
        s.established('a')
            .failed('a', &DialFailure::Protocol)
            .goaway('a')
            .closed('a')
            .expects(&[]);
        assert_eq!(s.counts(), before);
        assert!(s.dialer.hosts().all(|v| v.failures.is_empty()));
    }
}

#[test]
fn no_more_than_max_dials_are_in_flight_and_the_others_wait_in_order() {
    for (count, waiting) in [(3, 0), (4, 0), (5, 1)] {
        assert_eq!(
            Script::dialing(count).counts(),
            [[0, count - waiting, waiting, 0]]
        );
    }
    let mut s = Script::new(DialerPolicy {
        max_dials: 1,
        ..policy()
    });
    s.targets(&[(1, 1), (2, 1), (3, 2)]).expects(&["dial a h1"]);
    assert_eq!(s.dialer.hosts().nth(1).unwrap().next_attempt, Some(s.now));
    s.at(1).established('a').expects(&["dial b h2"]);
    s.at(2).failed('b', &DialFailure::Refused).expects(&["dial c h3"]);
    // Host 2 is due again, behind the one that waits already.
    s.at(60)
        .tick()
        .expects(&[])
        .established('c')
        .expects(&["dial d h3"]);
    s.established('d').expects(&["dial e h2"]);
    // An aborted dial and one that timed out give their permits back.
    s.targets(&[(1, 1), (2, 1), (3, 2), (4, 1), (5, 1)]).expects(&[]);
    s.targets(&[(1, 1), (3, 2), (4, 1), (5, 1)])
        .expects(&["abort e", "dial f h4"]);
    s.at(5_060).tick().expects(&["time out f", "dial g h5"]);
}

#[test]
fn those_due_earlier_are_dialed_earlier_even_when_the_timer_is_late() {
    let mut s = Script::new(DialerPolicy {
        max_dials: 2,
        ..policy()
    });
    s.targets(&[(1, 1), (2, 1)]).expects(&["dial a h1", "dial b h2"]);
    s.failed('b', &DialFailure::Refused)
        .at(1_000)
        .failed('a', &DialFailure::Refused);
    s.at(90_000)
        .tick()
        .expects(&["dial c h2", "dial d h1"])
        .tick()
        .expects(&[]);
}

#[test]
fn a_process_that_ends_dials_no_more_and_waits_for_what_runs() {
    let mut s = Script::dialing(4);
    s.established('a')
        .established('b')
        .failed('c', &DialFailure::Refused)
        .drain();
    assert!(!s.dialer.is_drained());
    s.expects(&["abort d", "drain b", "drain a"]);
    s.drain().targets(&[(1, 4), (2, 1)]).at(500).tick().expects(&[]);
    s.closed('a').goaway('b').expects(&[]);
    assert!(!s.dialer.is_drained());
    s.at(10_000).tick();
    assert!(!s.dialer.is_drained(), "the last action is not done yet");
    s.expects(&["close b"]);
    assert!(s.dialer.is_drained() && s.dialer.poll_timeout().is_none());
}

#[test]
fn a_drain_with_nothing_to_wait_for_is_done() {
    let mut s = Script::new(policy());
    assert!(!s.dialer.is_drained());
    s.drain();
    assert!(s.dialer.is_drained());
}
