//! The dialer in random histories, beside a naive model of its driver.
//!
//! Steps are total: an event picks a dial or tunnel that the driver has (or had), and does nothing where there is
//! none, so that any part of a history is a history.

use std::collections::BTreeSet;

use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_oneof, proptest};
use proptest::sample::Index;

use super::*;

const CLUSTERS: [&str; 2] = ["c", "d"];
const MAX_DIALS: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    Targets(usize, Vec<(u8, u32)>),
    Established(Index),
    Failed(Index, DialFailure),
    Goaway(Index),
    Closed(Index, CloseReason),
    /// Every event for a handle of the past.
    Stale(Index),
    /// Time passes, or goes back.
    Sleep(u64),
    Back(u64),
    Timeout,
    Poll,
    Drain,
}

fn step() -> impl Strategy<Value = Step> {
    let targets = prop::collection::vec((0..4u8, 0..4u32), 0..4);
    let failure = prop_oneof![
        Just(DialFailure::Refused),
        Just(DialFailure::Unreachable),
        Just(DialFailure::Protocol),
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
        4 => (any::<Index>(), why).prop_map(|(at, why)| Step::Closed(at, why)),
        2 => any::<Index>().prop_map(Step::Stale),
        4 => (0..200u64).prop_map(Step::Sleep),
        2 => (0..20_000u64).prop_map(Step::Sleep),
        1 => (0..20_000u64).prop_map(Step::Back),
        4 => Just(Step::Timeout),
        8 => Just(Step::Poll),
        1 => Just(Step::Drain),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Task {
    Dialing,
    Up,
    Draining,
}

/// What the driver has, and what it was told to want.
struct World {
    dialer: Dialer,
    now: Instant,
    /// Also the handles of the past, without a task.
    tasks: BTreeMap<Slot, (HostKey, Option<Task>)>,
    wanted: BTreeMap<HostKey, u32>,
    draining: bool,
}

impl World {
    fn new() -> Self {
        let policy = DialerPolicy {
            max_dials: MAX_DIALS,
            ..policy()
        };
        Self {
            dialer: Dialer::new(policy, Rng::from_seed(1)),
            now: Instant::ZERO,
            tasks: BTreeMap::new(),
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

    fn pick_all(&self, task: Task) -> Vec<Slot> {
        self.tasks
            .iter()
            .filter(|(_, (_, of))| *of == Some(task))
            .map(|(slot, _)| *slot)
            .collect()
    }

    fn set(&mut self, slot: Slot, task: Option<Task>) {
        self.tasks.get_mut(&slot).unwrap().1 = task;
    }

    fn count(&self, key: &HostKey, phases: &[Task]) -> u32 {
        let some = self
            .tasks
            .values()
            .filter(|(of, task)| of == key && task.is_some_and(|t| phases.contains(&t)));
        u32::try_from(some.count()).unwrap()
    }

    fn apply(&mut self, step: Step) {
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
                    self.dialer.on_established(now, slot);
                }
            }
            Step::Failed(at, why) => {
                if let Some(slot) = self.pick(at, &[Some(Task::Dialing)]) {
                    self.set(slot, None);
                    self.dialer.on_failed(now, slot, &why);
                }
            }
            Step::Goaway(at) => {
                if let Some(slot) = self.pick(at, &running) {
                    self.set(slot, Some(Task::Draining));
                    self.dialer.on_goaway(now, slot);
                }
            }
            Step::Closed(at, why) => {
                if let Some(slot) = self.pick(at, &running) {
                    self.set(slot, None);
                    self.dialer.on_closed(now, slot, why);
                }
            }
            Step::Stale(at) => {
                if let Some(slot) = self.pick(at, &[None]) {
                    let before = format!("{:?}", self.dialer);
                    self.dialer.on_established(now, slot);
                    self.dialer.on_failed(now, slot, &DialFailure::Refused);
                    self.dialer.on_goaway(now, slot);
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
            Step::Poll => self.settle(),
            Step::Drain => {
                self.draining = true;
                self.wanted.clear();
                self.dialer.drain(now);
            }
        }
    }

    /// Does what a driver does before it sleeps, then checks everything that must hold while it does.
    fn settle(&mut self) {
        self.dialer.handle_timeout(self.now);
        while let Some(action) = self.dialer.poll_action() {
            match action {
                Action::Dial { slot, cluster, host } => {
                    let key = (cluster, host);
                    assert!(self.wanted.contains_key(&key), "dials a host that is gone");
                    let known = self.tasks.insert(slot, (key, Some(Task::Dialing)));
                    assert_eq!(known, None, "a handle twice");
                }
                Action::Abort { slot, .. } | Action::Close { slot } => self.set(slot, None),
                Action::Drain { slot } => {
                    if self.tasks[&slot].1.is_some() {
                        self.set(slot, Some(Task::Draining));
                    }
                }
            }
        }
        let dialing = self
            .tasks
            .values()
            .filter(|(_, task)| *task == Some(Task::Dialing))
            .count();
        assert!(dialing <= MAX_DIALS as usize, "{dialing} dials in flight");
        self.check_hosts(dialing);
        let deadline = self.dialer.poll_timeout();
        assert!(deadline.is_none_or(|d| d.at > self.now), "stuck at {deadline:?}");
        let all_up = self
            .wanted
            .iter()
            .all(|(key, count)| self.count(key, &[Task::Up]) == *count);
        let drains = self.tasks.values().any(|(_, task)| *task == Some(Task::Draining));
        assert_eq!(deadline.is_none(), all_up && !drains, "a way forward");
        let over = self.tasks.values().all(|(_, task)| task.is_none());
        assert_eq!(self.dialer.is_drained(), self.draining && over);
    }

    fn check_hosts(&self, dialing: usize) {
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
            assert!(
                !waits || dialing == MAX_DIALS as usize,
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

    /// Every dial succeeds from here on: all must be up in bounded time.
    fn heal(&mut self) {
        let healed = self.now;
        for _ in 0..100 {
            self.settle();
            let dialing = self.pick_all(Task::Dialing);
            for slot in &dialing {
                self.set(*slot, Some(Task::Up));
                self.dialer.on_established(self.now, *slot);
            }
            if !dialing.is_empty() {
                continue;
            }
            let Some(deadline) = self.dialer.poll_timeout() else {
                let bound = policy()
                    .drain_timeout
                    .max(policy().backoff.silent_max * 115 / 100);
                assert!(self.now - healed <= bound, "{:?}", self.now - healed);
                return;
            };
            self.now = deadline.at;
        }
        panic!("not at rest: {:?}", self.dialer);
    }
}

proptest! {
    #[test]
    fn bounds_hold_and_there_is_always_a_way_forward(steps in prop::collection::vec(step(), 0..80)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
        }
        world.heal();
        for (key, count) in &world.wanted {
            prop_assert!(world.count(key, &[Task::Up]) == *count);
        }
        world.apply(Step::Drain);
        world.now = world.now + policy().drain_timeout;
        world.settle();
        world.now = world.now + policy().drain_timeout;
        world.settle();
        prop_assert!(world.dialer.is_drained());
    }
}
