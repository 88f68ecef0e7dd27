//! The dialer in random histories, beside a naive model of its driver.
//!
//! Steps are total: an event picks a dial or tunnel that the driver has (or had), and does nothing where there is
//! none, so that any part of a history is a history. What must hold whenever the driver sleeps is `World::settle`.

use std::collections::BTreeSet;

use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::Index;

use super::*;
use crate::backoff::BackoffPolicy;

const CLUSTERS: [&str; 2] = ["c", "d"];

#[derive(Clone, Debug)]
pub(super) enum Step {
    Targets(usize, Vec<(u8, u32)>),
    Established(Index),
    Failed(Index, DialFailure),
    Goaway(Index),
    Renew(Index),
    Closed(Index, CloseReason),
    /// Every event for a handle of the past.
    Stale(Index),
    /// Time passes, or goes back.
    Sleep(u64),
    Back(u64),
    Timeout,
    /// One action is performed; the others wait.
    PollOne,
    Poll,
    Drain,
}

/// Every policy that a configuration can have, in small.
pub(super) fn policies() -> impl Strategy<Value = DialerPolicy> {
    let ms = Duration::from_millis;
    let backoff = (1..200u64, 0..1_000u64, 0..2_000u64, 0..12_000u64).prop_map(
        move |(first, refused, silent, rejected)| BackoffPolicy {
            first: ms(first),
            refused_max: ms(first + refused),
            silent_max: ms(first + silent),
            rejected_max: ms(first + rejected),
        },
    );
    (
        backoff,
        1..5u32,
        1..6_000u64,
        100..6_000u64,
        0..6_000u64,
        0..12_000u64,
    )
        .prop_map(
            move |(backoff, max_dials, dial, overlap, stable, drain)| DialerPolicy {
                backoff,
                max_dials,
                dial_timeout: ms(dial),
                overlap: ms(overlap),
                stable_after: ms(stable),
                drain_timeout: ms(drain),
            },
        )
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let targets = prop::collection::vec((0..4u8, 0..4u32), 0..4);
    let failure = prop_oneof![
        Just(DialFailure::Refused),
        Just(DialFailure::Unreachable),
        Just(DialFailure::Protocol),
        Just(DialFailure::Taken),
        prop::option::of(0..100u64).prop_map(|after| DialFailure::Rejected {
            reason: "http.429".into(),
            retry_after: after.map(Duration::from_secs),
        }),
    ];
    let why = prop::sample::select(vec![
        CloseReason::PeerClosed,
        CloseReason::Silent,
        CloseReason::HttpError,
    ]);
    prop_oneof![
        4 => (0..2usize, targets).prop_map(|(cluster, targets)| Step::Targets(cluster, targets)),
        8 => any::<Index>().prop_map(Step::Established),
        4 => (any::<Index>(), failure).prop_map(|(at, why)| Step::Failed(at, why)),
        2 => any::<Index>().prop_map(Step::Goaway),
        2 => any::<Index>().prop_map(Step::Renew),
        4 => (any::<Index>(), why).prop_map(|(at, why)| Step::Closed(at, why)),
        2 => any::<Index>().prop_map(Step::Stale),
        4 => (0..200u64).prop_map(Step::Sleep),
        2 => (0..20_000u64).prop_map(Step::Sleep),
        1 => (0..10_000_000_000u64).prop_map(Step::Sleep),
        1 => (0..20_000u64).prop_map(Step::Back),
        4 => Just(Step::Timeout),
        4 => Just(Step::PollOne),
        8 => Just(Step::Poll),
        1 => Just(Step::Drain),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Task {
    Dialing,
    Up,
    Draining,
}

/// What the driver has, and what it was told to want.
pub(super) struct World {
    pub(super) dialer: Dialer,
    pub(super) policy: DialerPolicy,
    pub(super) now: Instant,
    /// Also the handles of the past, without a task.
    tasks: BTreeMap<Slot, (HostKey, Option<Task>)>,
    /// Before when the next dial of a place would be too early for its host.
    earliest: BTreeMap<Slot, Instant>,
    pub(super) wanted: BTreeMap<HostKey, u32>,
    draining: bool,
}

impl World {
    pub(super) fn new(policy: DialerPolicy, seed: u64) -> Self {
        Self {
            dialer: Dialer::new(policy, Rng::from_seed(seed)),
            policy,
            now: Instant::ZERO,
            tasks: BTreeMap::new(),
            earliest: BTreeMap::new(),
            wanted: BTreeMap::new(),
            draining: false,
        }
    }

    /// One of the tasks in `phases`.
    fn pick(&self, at: Index, phases: &[Option<Task>]) -> Option<Slot> {
        let fit: Vec<_> = self
            .tasks
            .iter()
            .filter(|(_, (_, task))| phases.contains(task))
            .collect();
        (!fit.is_empty()).then(|| *at.get(&fit).0)
    }

    pub(super) fn pick_all(&self, task: Task) -> Vec<Slot> {
        self.tasks
            .iter()
            .filter(|(_, (_, of))| *of == Some(task))
            .map(|(slot, _)| *slot)
            .collect()
    }

    pub(super) fn set(&mut self, slot: Slot, task: Option<Task>) {
        self.tasks.get_mut(&slot).unwrap().1 = task;
    }

    /// A dial or tunnel ended by itself: the next one of its place keeps a distance. The dialer may have given it
    /// up before.
    fn ended(&mut self, slot: Slot) {
        self.set(slot, None);
        if !self.dialer.slots.contains_key(&slot) {
            return;
        }
        self.earliest.insert(slot.next_generation(), self.now + FLOOR);
    }

    pub(super) fn count(&self, key: &HostKey, phases: &[Task]) -> u32 {
        let some = self
            .tasks
            .values()
            .filter(|(of, task)| of == key && task.is_some_and(|t| phases.contains(&t)));
        u32::try_from(some.count()).unwrap()
    }

    pub(super) fn apply(&mut self, step: Step) {
        let (now, running) = (self.now, [Some(Task::Up), Some(Task::Draining)]);
        match step {
            Step::Targets(n, targets) => {
                let name = cluster(CLUSTERS[n]);
                if !self.draining {
                    self.wanted.retain(|(of, _), _| *of != name);
                    for &(n, count) in &targets {
                        let wanted = self.wanted.entry((name.clone(), host(n))).or_default();
                        *wanted = count.max(*wanted);
                    }
                }
                let targets: Vec<_> = targets
                    .iter()
                    .map(|&(n, count)| Target { host: host(n), count })
                    .collect();
                self.dialer.on_targets(now, &name, &targets);
                let once = self.dialer.actions.clone();
                self.dialer.on_targets(now, &name, &targets);
                assert_eq!(once, self.dialer.actions, "the same targets again");
            }
            Step::Established(at) => {
                if let Some(slot) = self.pick(at, &[Some(Task::Dialing)]) {
                    self.set(slot, Some(Task::Up));
                    self.dialer.on_established(now, slot, None);
                }
            }
            Step::Failed(at, why) => {
                if let Some(slot) = self.pick(at, &[Some(Task::Dialing)]) {
                    self.ended(slot);
                    self.dialer.on_failed(now, slot, &why);
                }
            }
            Step::Goaway(at) => {
                if let Some(slot) = self.pick(at, &running) {
                    self.set(slot, Some(Task::Draining));
                    self.dialer.on_goaway(now, slot);
                }
            }
            Step::Renew(at) => {
                if let Some(slot) = self.pick(at, &running) {
                    self.set(slot, Some(Task::Draining));
                    self.dialer.renew(now, slot);
                }
            }
            Step::Closed(at, why) => {
                if let Some(slot) = self.pick(at, &running) {
                    self.ended(slot);
                    self.dialer.on_closed(now, slot, why);
                }
            }
            Step::Stale(at) => {
                if let Some(slot) = self.pick(at, &[None]) {
                    let before = format!("{:?}", self.dialer);
                    self.dialer.on_established(now, slot, None);
                    self.dialer.on_failed(now, slot, &DialFailure::Refused);
                    self.dialer.on_goaway(now, slot);
                    self.dialer.renew(now, slot);
                    self.dialer.on_closed(now, slot, CloseReason::PeerClosed);
                    let seen = |text: &str| text.rsplit_once("seen").map(|(state, _)| state.to_owned());
                    assert_eq!(
                        seen(&before),
                        seen(&format!("{:?}", self.dialer)),
                        "{slot:?} is of the past"
                    );
                }
            }
            Step::Sleep(passed) => self.now = now + Duration::from_millis(passed),
            Step::Back(by) => {
                let past = Instant::from_origin(now.since_origin().saturating_sub(Duration::from_millis(by)));
                self.dialer.handle_timeout(past);
            }
            Step::Timeout => self.dialer.handle_timeout(now),
            Step::PollOne => {
                if let Some(action) = self.dialer.poll_action() {
                    self.perform(action);
                }
            }
            Step::Poll => self.settle(),
            Step::Drain => {
                self.draining = true;
                self.wanted.clear();
                self.dialer.drain(now);
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Dial { slot, cluster, host } => {
                let key = (cluster, host);
                assert!(self.wanted.contains_key(&key), "dials a host that is gone");
                let earliest = self.earliest.get(&slot).copied().unwrap_or(Instant::ZERO);
                assert!(self.now >= earliest, "hammers: {slot:?} at {:?}", self.now);
                let known = self.tasks.insert(slot, (key, Some(Task::Dialing)));
                assert_eq!(known, None, "a handle twice");
            }
            Action::Overlap { slot } => assert_eq!(self.tasks[&slot].1, Some(Task::Dialing), "{slot:?}"),
            Action::Abort { slot, .. } | Action::Close { slot } => self.set(slot, None),
            Action::Drain { slot } => {
                if self.tasks[&slot].1.is_some() {
                    self.set(slot, Some(Task::Draining));
                }
            }
        }
    }

    /// Does what a driver does before it sleeps, then checks everything that must hold while it does.
    pub(super) fn settle(&mut self) {
        self.dialer.handle_timeout(self.now);
        while let Some(action) = self.dialer.poll_action() {
            let deadline = self.dialer.poll_timeout();
            if !self.dialer.actions.is_empty() {
                assert!(
                    deadline.is_some_and(|d| d.at <= self.now),
                    "actions wait: {deadline:?}"
                );
            }
            self.perform(action);
        }
        let dialing = self.pick_all(Task::Dialing).len();
        let permits = self.policy.max_dials as usize;
        assert!(dialing <= permits, "{dialing} dials in flight");
        self.check_hosts(dialing == permits);
        let deadline = self.dialer.poll_timeout();
        assert!(deadline.is_none_or(|d| d.at > self.now), "stuck at {deadline:?}");
        let all_up = self
            .wanted
            .iter()
            .all(|(key, count)| self.count(key, &[Task::Up]) == *count);
        let drains = !self.pick_all(Task::Draining).is_empty();
        assert_eq!(deadline.is_none(), all_up && !drains, "a way forward");
        let over = self.tasks.values().all(|(_, task)| task.is_none());
        assert_eq!(self.dialer.is_drained(), self.draining && over);
    }

    fn check_hosts(&self, permits_used_up: bool) {
        let mut seen = BTreeSet::new();
        for view in self.dialer.hosts() {
            let key = (view.cluster.clone(), view.host);
            assert_eq!(view.connecting, self.count(&key, &[Task::Dialing]), "{view:?}");
            assert_eq!(view.connected, self.count(&key, &[Task::Up]), "{view:?}");
            assert_eq!(view.draining, self.count(&key, &[Task::Draining]), "{view:?}");
            let wanted = self.wanted.get(&key).copied().unwrap_or(0);
            assert_eq!(
                view.connecting + view.connected + view.backing_off,
                wanted,
                "{view:?}"
            );
            assert_eq!(view.next_attempt.is_some(), view.backing_off > 0, "{view:?}");
            let waits = view.next_attempt.is_some_and(|at| at <= self.now);
            let silent = matches!(view.last_failure, Some("timeout" | "unreachable"));
            assert!(
                !waits || permits_used_up || silent && view.connecting > 0,
                "waits although there is a permit: {view:?}"
            );
            let drains = self.count(&key, &[Task::Draining]) > 0;
            let stays = self.wanted.contains_key(&key) || drains || self.draining;
            assert!(stays, "in view without a reason: {view:?}");
            seen.insert(key);
        }
        for (key, (host, task)) in &self.tasks {
            assert!(
                task.is_none() || seen.contains(host),
                "{key:?} runs to a host out of view"
            );
        }
        assert!(self.wanted.keys().all(|key| seen.contains(key)));
        for name in CLUSTERS.map(cluster) {
            let up = self
                .tasks
                .values()
                .filter(|((of, _), task)| *of == name && *task == Some(Task::Up));
            assert_eq!(self.dialer.connected(&name) as usize, up.count());
        }
    }
}

proptest! {
    #[test]
    fn bounds_hold_and_there_is_always_a_way_forward(
        policy in policies(), seed: u64, steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut world = World::new(policy, seed);
        for step in steps {
            world.apply(step);
        }
        world.settle();
    }

    /// Whatever came before, a drain ends in its time and leaves nothing.
    #[test]
    fn a_drain_ends_in_its_time(
        policy in policies(), seed: u64, steps in prop::collection::vec(step(), 0..40),
        after in prop::collection::vec(step(), 0..10),
    ) {
        let mut world = World::new(policy, seed);
        steps.into_iter().for_each(|step| world.apply(step));
        world.apply(Step::Drain);
        let ends = world.now + policy.drain_timeout;
        after.into_iter().for_each(|step| world.apply(step));
        world.now = world.now.max(ends);
        world.settle();
        prop_assert!(world.dialer.is_drained());
        prop_assert_eq!(world.dialer.poll_timeout(), None);
    }
}
