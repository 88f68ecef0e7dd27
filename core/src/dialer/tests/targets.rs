//! Hosts and counts that come and go.

use super::*;

#[test]
fn the_same_targets_again_have_no_effect() {
    let mut s = Script::dialing(2);
    s.targets(&[(1, 2)]).expects(&[]);
    s.established('a')
        .failed('b', &DialFailure::Refused)
        .targets(&[(1, 2)])
        .expects(&[]);
    s.deadline("backoff", 50);
    // A host that two names resolve to is one host, with the larger count.
    s.targets(&[(1, 0), (1, 2), (1, 1)]).expects(&[]);
    assert_eq!(s.counts(), [[1, 0, 1, 0]]);
}

#[test]
fn hosts_and_counts_come_and_go() {
    let mut s = Script::up(3);
    s.targets(&[(1, 1), (2, 1)])
        .expects(&["drain c", "drain b", "dial d h2"]);
    assert_eq!(s.counts(), [[1, 0, 0, 2], [0, 1, 0, 0]]);
    s.closed('b')
        .closed('c')
        .targets(&[(1, 2), (2, 0)])
        .expects(&["abort d", "dial e h1"]);
    assert_eq!(s.counts(), [[1, 1, 0, 0], [0, 0, 0, 0]]);
    s.targets(&[]).expects(&["abort e", "drain a"]);
    s.targets(&[(1, 1)]).expects(&["dial f h1"]);
    assert_eq!(s.counts(), [[0, 1, 0, 1]]);
}

#[test]
fn clusters_are_apart_even_with_a_host_in_common() {
    let mut s = Script::new(policy());
    s.targets_of("c", &[(1, 1)])
        .targets_of("d", &[(1, 1)])
        .expects(&["dial a h1", "dial b h1"]);
    s.established('b');
    assert_eq!(
        [
            s.dialer.connected(&cluster("c")),
            s.dialer.connected(&cluster("d"))
        ],
        [0, 1]
    );
    s.targets_of("c", &[]).expects(&["abort a"]);
    assert_eq!(s.counts(), [[1, 0, 0, 0]]);
}

#[test]
fn a_vanished_host_is_let_go_in_every_state() {
    let mut backing_off = Script::dialing(1);
    backing_off
        .failed('a', &DialFailure::Refused)
        .targets(&[])
        .expects(&[]);
    assert_eq!(
        (backing_off.dialer.poll_timeout(), backing_off.counts()),
        (None, vec![])
    );

    let mut waiting = Script::dialing(4);
    waiting
        .targets(&[(1, 4), (2, 1)])
        .targets(&[(1, 4)])
        .established('a')
        .expects(&[]);
    assert_eq!(waiting.counts(), [[1, 3, 0, 0]]);

    Script::dialing(1)
        .targets(&[])
        .expects(&["abort a"])
        .tick()
        .expects(&[]);

    let mut up = Script::up(1);
    up.targets(&[]).expects(&["drain a"]).deadline("drain", 10_000);
    assert_eq!(
        up.counts(),
        [[0, 0, 0, 1]],
        "a host stays in view while a tunnel to it drains"
    );
    up.targets(&[]).expects(&[]).closed('a').expects(&[]);
    assert_eq!((up.dialer.poll_timeout(), up.counts()), (None, vec![]));

    Script::up(1)
        .goaway('a')
        .expects(&["dial b h1"])
        .targets(&[])
        .expects(&["abort b"]);
}

#[test]
fn a_host_that_vanishes_before_its_dial_was_polled_is_not_dialed() {
    Script::new(policy()).targets(&[(1, 1)]).targets(&[]).expects(&[]);
}
