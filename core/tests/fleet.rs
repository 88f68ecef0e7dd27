//! Ten thousand initiators lose their responder at one instant: how hard do they knock?
//!
//! Each is a `Dialer` with the default policy and a seed of its own that keeps one tunnel. None knows of the
//! others: that they do not come in step is the jitter's work alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;
use std::time::Duration;

use eddy_core::close::CloseReason;
use eddy_core::dialer::{Action, DialFailure, Dialer, DialerPolicy, Target};
use eddy_core::identity::ClusterName;
use eddy_core::rng::Rng;
use eddy_core::time::Instant;

const FLEET: u64 = 10_000;
/// When the tunnels are lost, after a minute of quiet.
const LOST: Duration = Duration::from_secs(60);

/// What a host does with a dial that comes so long after the loss.
type Host = fn(Duration) -> Answer;

enum Answer {
    Yes,
    No(DialFailure),
    /// Nothing, until the dialer gives up.
    Nothing,
}

/// How many dials came in each millisecond after the loss, over half a minute.
fn dials(why: CloseReason, host: Host) -> Vec<u32> {
    let mut per_ms = vec![0; 30_000];
    for seed in 0..FLEET {
        for at in dials_of_one(seed, why, host) {
            if let Some(ms) = per_ms.get_mut(usize::try_from(at.as_millis()).unwrap()) {
                *ms += 1;
            }
        }
    }
    per_ms
}

/// What a responder has asked of the initiator that came when it had so many tunnels: 100 us for each, if that is more than
/// 200 ms.
fn spread(tunnels: u64) -> Option<Duration> {
    let spread = Duration::from_micros(100) * u32::try_from(tunnels).unwrap();
    Some(spread).filter(|spread| spread.as_millis() > 200)
}

fn dials_of_one(seed: u64, why: CloseReason, host: Host) -> Vec<Duration> {
    let mut dialer = Dialer::new(DialerPolicy::default(), Rng::from_seed(seed));
    let cluster = ClusterName::parse("hub").unwrap();
    let address = SocketAddr::from(([10, 0, 0, 1], 9_000));
    dialer.on_targets(
        Instant::ZERO,
        &cluster,
        &[Target {
            host: address,
            count: 1,
        }],
    );
    let Some(Action::Dial { slot, .. }) = dialer.poll_action() else {
        panic!("no dial");
    };
    let lost = Instant::from_origin(LOST);
    dialer.on_established(Instant::ZERO, slot, spread(seed));
    dialer.on_closed(lost, slot, why);
    let mut dials = Vec::new();
    while let Some(deadline) = dialer
        .poll_timeout()
        .filter(|d| d.at - lost < Duration::from_secs(30))
    {
        let now = deadline.at;
        dialer.handle_timeout(now);
        while let Some(action) = dialer.poll_action() {
            if let Action::Overlap { .. } = action {
                dials.push(now - lost);
            } else if let Action::Dial { slot, .. } = action {
                dials.push(now - lost);
                match host(now - lost) {
                    Answer::Yes => dialer.on_established(now, slot, None),
                    Answer::No(failure) => dialer.on_failed(now, slot, &failure),
                    Answer::Nothing => {}
                }
            }
        }
    }
    dials
}

/// The most dials in any window so many milliseconds long that begins at `from` or later.
fn peak(per_ms: &[u32], window: usize, from: usize) -> u32 {
    per_ms[from..]
        .windows(window)
        .map(|w| w.iter().sum())
        .max()
        .unwrap()
}

fn rejects(_: Duration) -> Answer {
    Answer::No(DialFailure::Rejected {
        reason: "http.429".into(),
        retry_after: Some(Duration::from_secs(5)),
    })
}

#[test]
fn a_responder_that_is_back_at_once_sees_each_once_spread_over_the_first_ceiling() {
    let per_ms = dials(CloseReason::PeerClosed, |_| Answer::Yes);
    assert_eq!(per_ms.iter().sum::<u32>(), 10_000);
    assert_eq!(
        peak(&per_ms, 41, 10),
        10_000,
        "from the floor, 10 ms, to the first ceiling, 50 ms"
    );
    assert!(
        peak(&per_ms, 10, 0) <= 2_700,
        "a quarter in a quarter of the time"
    );
    assert!(peak(&per_ms, 1, 0) <= 320, "250 would be even");
}

/// The bound that the docs state: in any 100 ms two dials for each initiator, as the first waits are short; from a second on
/// little more than half a dial, as the responder of ten thousand has asked them to spread over a second.
#[test]
fn while_nobody_listens_the_fleet_knocks_less_and_less() {
    let per_ms = dials(CloseReason::PeerClosed, |_| Answer::No(DialFailure::Refused));
    assert!(peak(&per_ms, 100, 0) <= 20_000);
    assert!(peak(&per_ms, 100, 200) <= 7_700);
    assert!(peak(&per_ms, 100, 1_000) <= 5_500);
    let least = per_ms[1_000..]
        .chunks(1_000)
        .map(|second| second.iter().sum::<u32>())
        .min();
    assert!(
        least >= Some(45_000),
        "and yet each is there within a second: {least:?}"
    );
}

#[test]
fn a_responder_that_is_back_after_a_while_has_all_within_the_spread() {
    const BACK: Duration = Duration::from_secs(5);
    let per_ms = dials(CloseReason::PeerClosed, |at| {
        if at < BACK {
            Answer::No(DialFailure::Refused)
        } else {
            Answer::Yes
        }
    });
    assert_eq!(per_ms[5_000..6_000].iter().sum::<u32>(), 10_000);
    assert!(per_ms[5_000..5_500].iter().sum::<u32>() > 9_000);
    assert!(peak(&per_ms, 100, 5_000) <= 5_500);
}

/// A link that is cut heals at any time, so the fleet goes on to send SYNs: each initiator about two in a second, and not in
/// step.
#[test]
fn into_silence_the_fleet_goes_on_to_knock_and_is_spread() {
    let per_ms = dials(CloseReason::PingTimeout, |_| Answer::Nothing);
    let seconds = per_ms
        .chunks(1_000)
        .skip(1)
        .map(|second| second.iter().sum::<u32>());
    assert!(seconds.clone().all(|second| (20_000..=27_000).contains(&second)));
    assert!(peak(&per_ms, 100, 10_000) <= 5_500);
}

#[test]
fn into_silence_nobody_rests_for_long() {
    for seed in 0..100 {
        let knocks = dials_of_one(seed, CloseReason::PingTimeout, |_| Answer::Nothing);
        let rests = knocks.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(rests.max().unwrap() <= Duration::from_millis(1_100));
    }
}

#[test]
fn told_to_come_back_later_the_fleet_spreads_over_the_jitter() {
    let per_ms = dials(CloseReason::PeerClosed, rejects);
    assert!(
        peak(&per_ms, 100, 200) <= 1_600,
        "750 ms of jitter: 1,333 would be even"
    );
    assert_eq!(per_ms[60..5_000].iter().sum::<u32>(), 0, "nobody comes early");
}
