//! The registries and caches of all workers of a process, joined by mailboxes that deliver late, beside the truth.
//!
//! Between two workers messages keep their order; between different pairs they do not.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::attempts::Failure;
use crate::cache::{Cache, Ended};
use crate::digest::Comparison;
use crate::router::{Names, RouteKey};

const NODES: [&str; 3] = ["a", "b", "a:b"];

#[derive(Clone, Debug)]
enum Step {
    /// A handshake on a worker, of a node; its socket may not get away.
    Accept(Index, usize, bool),
    /// Of a mailbox that has some, the first message.
    Deliver(Index),
    /// To any tunnel, wherever it stands: also to those that are gone.
    Opened(Index),
    Upgraded(Index),
    Leaving(Index),
    Draining(Index),
    Closed(Index, CloseReason),
    MaxStreams(Index, u32),
    /// A worker's copy loses a tunnel: a bug.
    Forget(Index, Index),
    /// A request of a worker is sent into a tunnel and ends.
    Request(Index, usize, Ended),
    Sleep(u64),
}

/// Every way in which a request may end, each kind of stream error and connection error included.
fn ended() -> impl Strategy<Value = Ended> {
    let failed = Failure::ALL.map(Ended::Failed);
    select([&[Ended::Answered, Ended::Abandoned], &failed[..]].concat())
}

fn step() -> impl Strategy<Value = Step> {
    let why = select(vec![
        CloseReason::PeerClosed,
        CloseReason::PingTimeout,
        CloseReason::Shutdown,
    ]);
    prop_oneof![
        4 => (any::<Index>(), 0..NODES.len(), prop::bool::weighted(0.1))
            .prop_map(|(at, node, lost)| Step::Accept(at, node, lost)),
        8 => any::<Index>().prop_map(Step::Deliver),
        6 => any::<Index>().prop_map(Step::Opened),
        2 => any::<Index>().prop_map(Step::Upgraded),
        2 => any::<Index>().prop_map(Step::Leaving),
        2 => any::<Index>().prop_map(Step::Draining),
        3 => (any::<Index>(), why).prop_map(|(at, why)| Step::Closed(at, why)),
        2 => (any::<Index>(), 0..9u32).prop_map(|(at, streams)| Step::MaxStreams(at, streams)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(at, tunnel)| Step::Forget(at, tunnel)),
        4 => (any::<Index>(), 0..NODES.len(), ended()).prop_map(|(at, node, how)| Step::Request(at, node, how)),
        1 => (0..9u64).prop_map(Step::Sleep),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// In the mailbox of its owner.
    Travelling,
    Settling,
    Open(State, Instant),
    Gone(Option<CloseReason>),
}

#[derive(Clone, Debug)]
struct Life {
    tunnel: TunnelId,
    identity: Arc<Identity>,
    owner: usize,
    opened: Option<Instant>,
    max_streams: Option<u32>,
    phase: Phase,
}

enum Mail {
    Adopt(usize),
    Fact(Fact),
}

struct Process {
    now: Instant,
    registries: Vec<Registry>,
    caches: Vec<Cache>,
    /// From whom, to whom.
    mail: BTreeMap<(usize, usize), VecDeque<Mail>>,
    lives: Vec<Life>,
}

impl Process {
    fn new(workers: u16) -> Self {
        Self {
            now: Instant::ZERO,
            registries: (0..workers)
                .map(|w| Registry::new(WorkerId(w), workers))
                .collect(),
            caches: (0..workers)
                .map(|w| Cache::new(WorkerId(w), 100, false))
                .collect(),
            mail: BTreeMap::new(),
            lives: Vec::new(),
        }
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Accept(at, node, lost) => self.accept(at.index(self.registries.len()), NODES[node], lost),
            Step::Deliver(at) if !self.mail.is_empty() => {
                let pair = *self.mail.keys().nth(at.index(self.mail.len())).unwrap();
                self.deliver(pair);
            }
            Step::Opened(at) => self.tell(at, |registry, now, life| {
                registry.on_opened(now, life.tunnel, &life.identity);
                if life.phase == Phase::Settling {
                    life.opened = Some(now);
                    life.phase = Phase::Open(State::Idle, now);
                }
            }),
            Step::Upgraded(at) => self.tell(at, |registry, now, life| {
                registry.on_upgraded(now, life.tunnel);
                if let Phase::Open(State::Idle, _) = life.phase {
                    life.phase = Phase::Open(State::Active, now);
                }
            }),
            Step::Leaving(at) => self.tell(at, |registry, now, life| {
                registry.on_leaving(now, life.tunnel);
                if let Phase::Open(State::Idle | State::Active, _) = life.phase {
                    life.phase = Phase::Open(State::Leaving, now);
                }
            }),
            Step::Draining(at) => self.tell(at, |registry, now, life| {
                registry.on_draining(now, life.tunnel);
                if let Phase::Open(State::Idle | State::Active | State::Leaving, _) = life.phase {
                    life.phase = Phase::Open(State::Draining, now);
                }
            }),
            Step::Closed(at, why) => self.tell(at, |registry, now, life| {
                registry.on_closed(now, life.tunnel, why);
                life.phase = match life.phase {
                    Phase::Open(..) => Phase::Gone(Some(why)),
                    Phase::Settling => Phase::Gone(None),
                    Phase::Travelling | Phase::Gone(_) => life.phase,
                };
            }),
            Step::MaxStreams(at, streams) => self.tell(at, |registry, _, life| {
                registry.on_max_streams(life.tunnel, streams);
                if let Phase::Open(..) = life.phase {
                    life.max_streams = Some(streams);
                }
            }),
            Step::Forget(at, tunnel) => {
                let cache = &mut self.caches[at.index(self.registries.len())];
                if !self.lives.is_empty() {
                    cache.remove(tunnel.get(&self.lives).tunnel);
                }
            }
            Step::Request(at, node, how) => self.request(at.index(self.registries.len()), NODES[node], how),
            Step::Sleep(seconds) => self.now = self.now + Duration::from_secs(seconds),
            Step::Deliver(_) => {}
        }
    }

    /// A request is counted while it runs, and whatever becomes of it, its tunnel can be chosen again.
    fn request(&mut self, worker: usize, node: &str, how: Ended) {
        let cache = &mut self.caches[worker];
        let key = RouteKey {
            tenant: None,
            names: Names::Node,
            id: node,
        };
        let Ok(tunnel) = cache.pick(&key) else { return };
        if how == Ended::Answered {
            cache.on_answered(tunnel);
        }
        let (before, identity) = (cache.streams(tunnel), cache.identity(tunnel).cloned());
        cache.release(tunnel, how);
        assert_eq!(
            cache.identity(tunnel),
            identity.as_ref(),
            "a request has removed a tunnel"
        );
        assert_eq!(cache.streams(tunnel), before - 1);
    }

    fn accept(&mut self, worker: usize, node: &str, lost: bool) {
        let identity = who(node);
        let placement = self.registries[worker].place(&identity);
        let owner = usize::from(placement.worker.0);
        if self.mail.is_empty() {
            let counts = self.loads(worker, &identity);
            let fewest = (0..counts.len()).min_by_key(|&w| (counts[w], w != worker, w));
            assert_eq!(
                Some(owner),
                fewest,
                "everybody knows everything, so placement is fair: {counts:?}"
            );
        }
        let tunnel = placement.tunnel;
        assert!(self.lives.iter().all(|life| life.tunnel != tunnel), "an id twice");
        let phase = if owner == worker {
            Phase::Settling
        } else {
            Phase::Travelling
        };
        self.lives.push(Life {
            tunnel,
            identity,
            owner,
            opened: None,
            max_streams: None,
            phase,
        });
        if phase == Phase::Travelling && lost {
            self.registries[worker].on_misplaced(tunnel);
            self.lives.pop();
        } else if phase == Phase::Travelling {
            self.send(worker, owner, Mail::Adopt(self.lives.len() - 1));
        }
    }

    fn send(&mut self, from: usize, to: usize, mail: Mail) {
        self.mail.entry((from, to)).or_default().push_back(mail);
    }

    fn deliver(&mut self, pair: (usize, usize)) {
        let queue = self.mail.get_mut(&pair).unwrap();
        let mail = queue.pop_front().unwrap();
        if queue.is_empty() {
            self.mail.remove(&pair);
        }
        match mail {
            Mail::Adopt(life) => {
                let life = &mut self.lives[life];
                life.phase = Phase::Settling;
                self.registries[pair.1].on_adopted(life.tunnel, &life.identity);
            }
            Mail::Fact(fact) => {
                self.registries[pair.1].on_fact(&fact);
                self.note(pair.1, &fact);
            }
        }
    }

    fn close_all(&mut self) {
        for life in 0..self.lives.len() {
            self.tell_of(life, |registry, now, life| {
                registry.on_closed(now, life.tunnel, CloseReason::Shutdown);
                life.phase = Phase::Gone(None);
            });
        }
    }

    /// Something happened to a tunnel that has reached its owner, or it is said again.
    fn tell(&mut self, at: Index, tell: impl FnOnce(&mut Registry, Instant, &mut Life)) {
        let arrived = self
            .lives
            .iter()
            .enumerate()
            .filter(|(_, life)| life.phase != Phase::Travelling);
        let arrived: Vec<_> = arrived.map(|(i, _)| i).collect();
        if !arrived.is_empty() {
            self.tell_of(*at.get(&arrived), tell);
        }
    }

    fn tell_of(&mut self, life: usize, tell: impl FnOnce(&mut Registry, Instant, &mut Life)) {
        let life = &mut self.lives[life];
        let owner = life.owner;
        tell(&mut self.registries[owner], self.now, life);
        for fact in published(&mut self.registries[owner]) {
            self.note(owner, &fact);
            for other in (0..self.registries.len()).filter(|other| *other != owner) {
                self.send(owner, other, Mail::Fact(fact.clone()));
            }
        }
    }

    fn note(&mut self, worker: usize, fact: &Fact) {
        match fact {
            Fact::Opened {
                tunnel,
                identity,
                owner,
            } => self.caches[worker].insert(*tunnel, identity, *owner),
            Fact::Leaving { tunnel } => self.caches[worker].on_leaving(*tunnel),
            Fact::MaxStreams { tunnel, streams } => self.caches[worker].on_max_streams(*tunnel, *streams),
            Fact::Draining { tunnel } | Fact::Closed { tunnel } => {
                self.caches[worker].remove(*tunnel);
            }
        }
    }

    /// The tunnels of a node on each worker, as far as this worker can know when no mail is under way.
    fn loads(&self, worker: usize, identity: &Identity) -> Vec<u32> {
        let mut loads = vec![0; self.registries.len()];
        for life in self
            .lives
            .iter()
            .filter(|life| life.identity.node == identity.node)
        {
            let named_here = usize::from(life.tunnel.named_by.0) == worker;
            let known = match life.phase {
                Phase::Travelling | Phase::Settling => named_here || life.owner == worker,
                Phase::Open(..) => true,
                Phase::Gone(_) => false,
            };
            loads[life.owner] += u32::from(known);
        }
        loads
    }

    /// What an owner knows is the truth at any time.
    fn check_owners(&self) {
        for (worker, registry) in self.registries.iter().enumerate() {
            let mine = self.lives.iter().filter(|life| life.owner == worker);
            let open = mine.clone().filter_map(|life| match life.phase {
                Phase::Open(state, since) => {
                    let identity = Arc::clone(&life.identity);
                    Some((
                        life.tunnel,
                        Tunnel {
                            identity,
                            state,
                            since,
                            opened: life.opened?,
                            max_streams: life.max_streams,
                        },
                    ))
                }
                Phase::Travelling | Phase::Settling | Phase::Gone(_) => None,
            });
            let open: BTreeMap<_, _> = open.collect();
            assert_eq!(registry.owned, open);
            let mut closed = BTreeMap::new();
            let ends = mine.clone().filter_map(|life| match life.phase {
                Phase::Gone(why) => why,
                Phase::Travelling | Phase::Settling | Phase::Open(..) => None,
            });
            ends.for_each(|why| *closed.entry(why).or_insert(0) += 1);
            assert_eq!(registry.closed().by_reason(), &closed);
            assert_eq!(
                registry.closed().iter().count() as u64,
                closed.values().sum::<u64>()
            );
            assert_eq!(
                registry.opened_total(),
                mine.filter(|life| life.opened.is_some()).count() as u64
            );
        }
    }

    /// Every owner sends its digest, twice, and each copy that differs is replaced, as the runtime does it.
    fn repair(&mut self) {
        for (owner, registry) in (0..).map(WorkerId).zip(&self.registries) {
            for cache in &mut self.caches {
                let mut comparison = Comparison::default();
                if comparison.on_digest(registry.digest(), cache.digest(owner)) {
                    panic!("one difference may be news under way");
                }
                if !comparison.on_digest(registry.digest(), cache.digest(owner)) {
                    let truth = registry
                        .tunnels()
                        .filter_map(|(id, tunnel)| Some((id, tunnel.standing()?)));
                    assert!(
                        cache.owned_by(owner).eq(truth),
                        "equal digests of different tunnels"
                    );
                    continue;
                }
                let copied: Vec<_> = cache.owned_by(owner).map(|(tunnel, _)| tunnel).collect();
                copied.into_iter().for_each(|tunnel| _ = cache.remove(tunnel));
                for (id, tunnel) in registry.tunnels() {
                    let Some(standing) = tunnel.standing() else {
                        continue;
                    };
                    cache.insert(id, &tunnel.identity, owner);
                    if standing.leaving {
                        cache.on_leaving(id);
                    }
                    if let Some(streams) = standing.max_streams {
                        cache.on_max_streams(id, streams);
                    }
                }
                assert_eq!(registry.digest(), cache.digest(owner));
            }
        }
    }

    /// What everybody knows once nothing is under way.
    fn check_quiet(&mut self) {
        while let Some(pair) = self.mail.keys().next().copied() {
            self.deliver(pair);
        }
        self.repair();
        let mut identities = BTreeMap::new();
        for life in &self.lives {
            if let Phase::Open(State::Idle | State::Active | State::Leaving, _) = life.phase {
                *identities.entry(Arc::clone(&life.identity)).or_insert(0) += 1;
            }
        }
        for (worker, registry) in self.registries.iter().enumerate() {
            assert_eq!(self.caches[worker].identities(), identities);
            for node in NODES {
                let identity = who(node);
                let key = (identity.tenant.clone(), identity.node.clone());
                let loads = self.loads(worker, &identity);
                let some = loads.iter().any(|load| *load > 0).then_some(&loads);
                assert_eq!(registry.loads.get(&key), some, "{worker} of {node}");
            }
        }
    }
}

proptest! {
    #[test]
    fn every_worker_learns_the_truth(workers in 1..5u16, steps in prop::collection::vec(step(), 0..100)) {
        let mut process = Process::new(workers);
        for step in steps {
            process.apply(step);
            process.check_owners();
        }
        process.check_quiet();
        process.close_all();
        process.check_quiet();
        for registry in &process.registries {
            prop_assert!(registry.owned.is_empty() && registry.seats.is_empty() && registry.loads.is_empty());
        }
    }
}
