//! Silent hosts: connects overlap, one dial at a time finds out when the host is back, and large fleets spread.

use super::*;

fn overlapping() -> Script {
    Script::new(DialerPolicy {
        overlap: Duration::from_millis(600),
        ..policy()
    })
}

#[test]
fn another_connect_starts_until_there_is_a_connection() {
    let mut s = overlapping();
    s.targets(&[(1, 1)]).expects(&["dial a h1"]);
    for _ in 0..3 {
        let before = s.now;
        s.wait_for("no connection yet").expects(&["overlap a"]);
        assert!((300..=600).contains(&(s.now - before).as_millis()));
    }
    s.connected('a').deadline("dial", 5_000);
    s.at(4_999).tick().expects(&[]);
    s.at(5_000).tick().expects(&["time out a"]);
}

/// Whenever a link heals, it is tried within 0.7 s.
#[test]
fn a_silent_host_is_never_left_alone_for_long() {
    let mut s = overlapping();
    s.targets(&[(1, 1)]).actions();
    let mut tried = s.now;
    while s.now < ms(120_000) {
        s.now = s.dialer.poll_timeout().unwrap().at;
        s.tick();
        if s.actions()
            .iter()
            .any(|action| action.starts_with("overlap") || action.starts_with("dial"))
        {
            assert!(
                (s.now - tried).as_millis() <= 1_100,
                "{:?} after {tried:?}",
                s.now
            );
            tried = s.now;
        }
    }
}

#[test]
fn a_silent_host_is_dialed_once_at_a_time_until_it_answers() {
    let mut s = overlapping();
    s.targets(&[(1, 3)])
        .expects(&["dial a h1", "dial b h1", "dial c h1"]);
    s.at(5_000).tick();
    let timed_out = s.actions();
    assert!(timed_out.contains(&"time out c".to_owned()), "{timed_out:?}");
    s.actions();
    s.at(5_600).tick();
    let dials: Vec<_> = s
        .actions()
        .into_iter()
        .filter(|action| action.starts_with("dial"))
        .collect();
    assert_eq!(dials, ["dial d h1"], "two more are due, and wait");
    assert_eq!(s.counts(), [[0, 1, 2, 0]]);
    s.at(6_000).established('d').expects(&["dial e h1", "dial f h1"]);
}

#[test]
fn another_host_is_dialed_beside_a_silent_one() {
    let mut s = overlapping();
    s.targets(&[(1, 2)]).actions();
    s.at(5_000).tick().actions();
    s.at(5_600).tick();
    let dials: Vec<_> = s
        .actions()
        .into_iter()
        .filter(|action| action.starts_with("dial"))
        .collect();
    assert_eq!(dials, ["dial c h1"]);
    s.targets(&[(1, 2), (2, 2)]).expects(&["dial d h2", "dial e h2"]);
}

#[test]
fn a_responder_with_a_large_fleet_spreads_its_redials() {
    let longest = |spread: Option<u64>| {
        let mut longest = 0;
        for seed in 0..200 {
            let mut s = Script::dialing(1);
            s.dialer.rng = Rng::from_seed(seed);
            let spread = spread.map(Duration::from_millis);
            s.dialer.on_established(s.now, s.slot('a'), spread);
            s.at(60_000).closed('a').actions();
            for letter in 'b'..'j' {
                s.wait_for("backoff").actions();
                s.failed(letter, &DialFailure::Refused);
            }
            let wait = s.dialer.poll_timeout().unwrap().at - s.now;
            longest = longest.max(wait.as_millis());
        }
        longest
    };
    assert!((190..=200).contains(&longest(None)));
    assert!(
        (190..=200).contains(&longest(Some(50))),
        "never under the configured pause"
    );
    assert!((2_800..=3_000).contains(&longest(Some(3_000))));
    assert!(
        (4_700..=5_000).contains(&longest(Some(u64::MAX))),
        "believed up to 5 s"
    );
}
