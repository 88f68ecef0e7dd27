//! How long the dialer waits after what.

use proptest::prelude::{any, prop, prop_assert, proptest};

use super::histories::policies;
use super::*;

/// When the dial after `failures` more than one `round` is due, at most, over many seeds, in milliseconds.
fn longest(failures: u32, round: impl Fn(&mut Dialer, Instant, Slot)) -> u128 {
    let due = (0..400).map(|seed| {
        let mut dialer = Dialer::new(policy(), Rng::from_seed(seed));
        dialer.on_targets(
            Instant::ZERO,
            &cluster("c"),
            &[Target {
                host: host(1),
                count: 1,
            }],
        );
        let mut now = Instant::ZERO;
        for _ in 0..=failures {
            let Some(Action::Dial { slot, .. }) = dialer.poll_action() else {
                panic!("no dial")
            };
            round(&mut dialer, now, slot);
            let due = dialer.poll_timeout().unwrap();
            assert_eq!(due.reason, "backoff");
            now = due.at;
            dialer.handle_timeout(now);
        }
        now.since_origin().as_millis()
    });
    due.max().unwrap()
}

#[test]
fn failures_in_a_row_wait_longer_up_to_the_cap_of_their_kind() {
    let within = |failures, why: DialFailure, low, high| {
        let longest = longest(failures, |dialer, now, slot| dialer.on_failed(now, slot, &why));
        assert!((low..=high).contains(&longest), "{failures} {why:?}: {longest}");
    };
    let rejected = |after: Option<u64>| DialFailure::Rejected {
        reason: "http.429".into(),
        retry_after: after.map(Duration::from_secs),
    };
    for why in [
        DialFailure::Refused,
        DialFailure::Unreachable,
        DialFailure::Protocol,
        DialFailure::Taken,
        rejected(None),
    ] {
        within(0, why, 45, 50);
    }
    // 50 + 100, then 8 × 200.
    for why in [DialFailure::Refused, DialFailure::Taken] {
        within(9, why, 1_100, 1_750);
    }
    // 50 + 100 + 200 + 400, then 6 × 500.
    within(9, DialFailure::Unreachable, 2_200, 3_750);
    for why in [DialFailure::Protocol, rejected(None)] {
        within(9, why, 15_000, 32_750);
    }
    within(0, rejected(Some(7)), 7_900, 8_050);
    within(0, rejected(Some(3_600)), 11_300, 11_500);
}

#[test]
fn an_address_that_refuses_for_long_is_tried_less_while_another_one_works() {
    let longest_after = |refusals: u32, other_works: bool| {
        let waits = (0..200).map(|seed| {
            let mut dialer = Dialer::new(policy(), Rng::from_seed(seed));
            let both = [1, 2].map(|n| Target {
                host: host(n),
                count: 1,
            });
            dialer.on_targets(Instant::ZERO, &cluster("c"), &both[usize::from(!other_works)..]);
            let mut now = Instant::ZERO;
            let mut refused = 0;
            loop {
                while let Some(action) = dialer.poll_action() {
                    let Action::Dial {
                        slot, host: dialed, ..
                    } = action
                    else {
                        panic!("{action:?}")
                    };
                    if dialed == host(1) {
                        dialer.on_established(now, slot, None);
                    } else {
                        dialer.on_failed(now, slot, &DialFailure::Refused);
                        refused += 1;
                    }
                }
                let due = dialer.poll_timeout().unwrap();
                if refused == refusals {
                    return (due.at - now).as_millis();
                }
                now = due.at;
                dialer.handle_timeout(now);
            }
        });
        waits.max().unwrap()
    };
    assert!(longest_after(120, true) <= 500);
    assert!((8_000..=10_000).contains(&longest_after(121, true)));
    assert!(longest_after(121, false) <= 500, "nobody else is there");
}

#[test]
fn only_a_tunnel_that_lived_pays_for_the_failures_before_it() {
    let accept_and_hang_up = |lived: u64| {
        longest(9, move |dialer, now, slot| {
            dialer.on_established(now, slot, None);
            dialer.on_closed(now + Duration::from_millis(lived), slot, CloseReason::PeerClosed);
        }) - 10 * u128::from(lived)
    };
    assert!(accept_and_hang_up(0) > 2_200);
    assert!(accept_and_hang_up(4_999) > 2_200);
    assert!(
        accept_and_hang_up(5_000) <= 500,
        "each delay within the first 50 ms"
    );
}

#[test]
fn time_that_goes_back_is_ignored() {
    let lived_a_second = |dialer: &mut Dialer, now: Instant, slot| {
        // Taken at its word, the first call would make the tunnel live since the start.
        dialer.handle_timeout(now + Duration::from_secs(1));
        dialer.on_established(Instant::ZERO, slot, None);
        dialer.on_closed(now + Duration::from_secs(2), slot, CloseReason::PeerClosed);
    };
    assert!(longest(9, lived_a_second) - 20_000 > 2_200);
}

/// Dials in a second to a host that treats them so, one after the other and over again: it accepts, and after so
/// many milliseconds hangs up or says goodbye.
fn dials_in_a_second(policy: DialerPolicy, seed: u64, treatment: &[(bool, u64)]) -> usize {
    let mut dialer = Dialer::new(policy, Rng::from_seed(seed));
    let target = Target {
        host: host(1),
        count: 1,
    };
    dialer.on_targets(Instant::ZERO, &cluster("c"), &[target]);
    let (mut now, mut dials) = (Instant::ZERO, 0);
    while now < ms(1_000) {
        if let Some(action) = dialer.poll_action() {
            let Action::Dial { slot, .. } = action else {
                continue;
            };
            let (goaway, lived) = treatment[dials % treatment.len()];
            dials += 1;
            assert!(dials <= 10_000, "hammers at {now:?}");
            dialer.on_established(now, slot, None);
            now = now + Duration::from_millis(lived);
            if goaway {
                dialer.on_goaway(now, slot);
            } else {
                dialer.on_closed(now, slot, CloseReason::PeerClosed);
            }
            continue;
        }
        now = dialer.poll_timeout().unwrap().at;
        dialer.handle_timeout(now);
    }
    dials
}

/// `stable_after: 0s` once let every GOAWAY be answered with a dial at the same instant, without end.
#[test]
fn a_host_that_accepts_and_says_goodbye_at_once_is_not_hammered_even_if_every_tunnel_counts_as_stable() {
    let policy = DialerPolicy {
        stable_after: Duration::ZERO,
        ..policy()
    };
    let dials = dials_in_a_second(policy, 7, &[(true, 0)]);
    assert!(dials <= 12, "{dials} in a second");
}

proptest! {
    /// Two dials per shortest wait: the first GOAWAY of two is forgiven.
    #[test]
    fn no_treatment_makes_the_dialer_hammer(
        policy in policies(), seed: u64, treatment in prop::collection::vec((any::<bool>(), 0..30u64), 1..6),
    ) {
        let dials = dials_in_a_second(policy, seed, &treatment);
        let floors = Duration::from_secs(1).div_duration_f64(FLOOR) as usize;
        prop_assert!(dials <= 2 * (floors + 1), "{dials} in a second");
    }
}
