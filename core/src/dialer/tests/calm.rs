//! What the dialer owes once the world is calm, whatever came before: every tunnel, in bounded time.

use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

use super::histories::{Task, World, policies, step};
use super::*;

/// The time in which all are up, if every dial made from now on is answered with yes after `latency`.
///
/// The dials of the past may never be answered: they have their time. Then each waits once more, at most the
/// longest wait that a `retry-after` can ask for. A host that was silent is tried by one dial alone; then all that are
/// missing take turns at the permits.
fn bound(policy: &DialerPolicy, missing: u32, latency: Duration) -> Duration {
    let backoff = &policy.backoff;
    let longest_wait = backoff.silent_max.max(backoff.rejected_max).max(FLOOR) * 115 / 100;
    policy.dial_timeout + longest_wait + latency * (1 + missing.div_ceil(policy.max_dials))
}

/// Drives the world until all that is wanted is up; says how long that took.
fn heal(world: &mut World, latency: Duration) -> Duration {
    let healed = world.now;
    world.settle();
    let lost = world.pick_all(Task::Dialing);
    let mut answers = BTreeMap::<Slot, Instant>::new();
    for _ in 0..10_000 {
        world.settle();
        let dialing = world.pick_all(Task::Dialing);
        let news = dialing.iter().filter(|slot| !lost.contains(slot));
        for slot in news {
            answers.entry(*slot).or_insert(world.now + latency);
        }
        if world
            .wanted
            .iter()
            .all(|(key, count)| world.count(key, &[Task::Up]) == *count)
        {
            return world.now - healed;
        }
        let due = answers
            .iter()
            .filter(|(_, at)| **at <= world.now)
            .map(|(slot, _)| *slot);
        let due: Vec<_> = due.collect();
        if due.is_empty() {
            let deadline = world.dialer.poll_timeout().unwrap().at;
            world.now = answers.values().copied().fold(deadline, Instant::min);
        }
        for slot in due {
            answers.remove(&slot);
            world.set(slot, Some(Task::Up));
            world.dialer.on_established(world.now, slot, None);
        }
    }
    panic!("not at rest: {:?}", world.dialer);
}

proptest! {
    #[test]
    fn every_tunnel_is_up_in_bounded_time_once_dials_succeed(
        policy in policies(), seed: u64, steps in prop::collection::vec(step(), 0..80), latency in 0..100u32,
    ) {
        let mut world = World::new(policy, seed);
        for step in steps {
            world.apply(step);
        }
        let latency = policy.dial_timeout * latency / 100;
        let missing = world.wanted.values().sum();
        let took = heal(&mut world, latency);
        prop_assert!(took <= bound(&policy, missing, latency), "{took:?}");
        // And nothing moves any more but what drains: what does so by a responder's wish, until that ends it.
        world.now = world.now + policy.drain_timeout;
        world.settle();
        for slot in world.pick_all(Task::Draining) {
            world.set(slot, None);
            world.dialer.on_closed(world.now, slot, CloseReason::GoAway);
        }
        world.settle();
        prop_assert_eq!(world.dialer.poll_timeout(), None);
        prop_assert!(world.dialer.hosts().all(|view| view.draining + view.backing_off == 0));
    }
}
