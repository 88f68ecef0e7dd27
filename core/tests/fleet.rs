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
    dialer.on_established(Instant::ZERO, slot);
    dialer.on_closed(lost, slot, why);
    let mut dials = Vec::new();
    while let Some(deadline) = dialer
        .poll_timeout()
        .filter(|d| d.at - lost < Duration::from_secs(30))
    {
        let now = deadline.at;
        dialer.handle_timeout(now);
        while let Some(action) = dialer.poll_action() {
            if let Action::Dial { slot, .. } = action {
                dials.push(now - lost);
                match host(now - lost) {
                    Answer::Yes => dialer.on_established(now, slot),
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

/// The bound that the docs state: in any 100 ms two dials for each initiator, as the first waits are short; from
/// a second on less than half a dial.
#[test]
fn while_nobody_listens_the_fleet_knocks_less_and_less() {
    let per_ms = dials(CloseReason::PeerClosed, |_| Answer::No(DialFailure::Refused));
    assert!(peak(&per_ms, 100, 0) <= 20_000);
    assert!(peak(&per_ms, 100, 200) <= 6_600);
    assert!(peak(&per_ms, 100, 1_000) <= 4_500);
    let least = per_ms[1_000..]
        .chunks(1_000)
        .map(|second| second.iter().sum::<u32>())
        .min();
    assert!(
        least >= Some(30_000),
        "and yet each is there within half a second: {least:?}"
    );
}

#[test]
fn a_responder_that_is_back_after_a_while_has_all_within_the_longest_wait() {
    const BACK: Duration = Duration::from_secs(5);
    let per_ms = dials(CloseReason::PeerClosed, |at| {
        if at < BACK {
            Answer::No(DialFailure::Refused)
        } else {
            Answer::Yes
        }
    });
    assert_eq!(per_ms[5_000..5_500].iter().sum::<u32>(), 10_000);
    assert!(peak(&per_ms, 100, 5_000) <= 4_500);
}

/// Dials into silence end all after the same time, so the fleet knocks in waves; each is longer than the last.
#[test]
fn into_silence_nobody_dials_twice_within_a_dial_s_time() {
    let per_ms = dials(CloseReason::PingTimeout, |_| Answer::Nothing);
    let waves = [0..5_000, 5_000..10_000, 10_000..15_000, 15_000..20_000].map(|wave| &per_ms[wave]);
    assert!(waves.iter().all(|wave| wave.iter().sum::<u32>() <= 10_000));
    let peaks = waves.map(|wave| peak(wave, 100, 0));
    assert!(peaks.is_sorted_by(|a, b| a > b) && peaks[3] <= 3_000, "{peaks:?}");
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
