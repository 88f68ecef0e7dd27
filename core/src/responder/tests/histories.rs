//! The root machines of all workers of a process, joined by mailboxes that deliver late, beside the truth.
//!
//! Between two workers messages keep their order; between different pairs they do not. The contract:
//!
//! - an owner knows the truth about its tunnels at any time;
//! - once nothing is under way, every worker lists exactly the tunnels that may be chosen, also if its copy was wrong before;
//! - no outcome of a request removes a tunnel, and each request is counted until it ends;
//! - no two processes have listed tunnels under one node id, unless they are pooled;
//! - a drain of the process ends, with every worker stopped once.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;
use crate::attempts::Failure;
use crate::digest;
use crate::duplicates::Policy;
use crate::registry::State;
use crate::responder::drain::Step as Goes;
use crate::rng::Rng;

const NODES: [&str; 3] = ["a", "b", "a:b"];

#[derive(Clone, Debug)]
enum Step {
    /// A handshake on a worker, of a node and a process; its socket may not reach its owner.
    Accept(Index, usize, Option<(u64, u32)>, bool),
    /// The first message of a mailbox.
    Deliver(Index),
    /// To any tunnel, wherever it stands: also to those that are gone.
    Opened(Index),
    Upgraded(Index),
    Draining(Index),
    Closed(Index, CloseReason),
    MaxStreams(Index, u32),
    Missing(Index, bool),
    /// An operator sends the tunnels of a node away.
    SendAway(usize),
    /// A worker's copy loses a tunnel: a bug.
    Forget(Index, Index),
    /// A request of a worker begins, or one ends.
    Request(Index, usize),
    Release(Index, Ended),
    Timeout(Index),
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
    let process = prop::option::weighted(0.7, (1..4u64, 0..2u32));
    let at = any::<Index>;
    prop_oneof![
        4 => (at(), 0..NODES.len(), process, prop::bool::weighted(0.1))
            .prop_map(|(at, node, process, lost)| Step::Accept(at, node, process, lost)),
        8 => at().prop_map(Step::Deliver),
        6 => at().prop_map(Step::Opened),
        2 => at().prop_map(Step::Upgraded),
        2 => at().prop_map(Step::Draining),
        3 => (at(), why).prop_map(|(at, why)| Step::Closed(at, why)),
        2 => (at(), 0..9u32).prop_map(|(at, streams)| Step::MaxStreams(at, streams)),
        1 => (at(), any::<bool>()).prop_map(|(at, missing)| Step::Missing(at, missing)),
        1 => (0..NODES.len()).prop_map(Step::SendAway),
        1 => (at(), at()).prop_map(|(at, tunnel)| Step::Forget(at, tunnel)),
        4 => (at(), 0..NODES.len()).prop_map(|(at, node)| Step::Request(at, node)),
        4 => (at(), ended()).prop_map(|(at, how)| Step::Release(at, how)),
        2 => at().prop_map(Step::Timeout),
        1 => (0..3_000u64).prop_map(Step::Sleep),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// In the mailbox of its owner.
    Travelling,
    Settling,
    Open(State),
    Gone,
}

#[derive(Clone, Debug)]
struct Life {
    tunnel: TunnelId,
    introduction: Introduction,
    owner: usize,
    phase: Phase,
    /// Its task was told to end.
    told_to_end: bool,
}

enum Mail {
    Adopt(usize),
    Gossip(Gossip),
}

struct Process {
    now: Instant,
    machines: Vec<Responder>,
    /// What the driver of each worker has ways to.
    links: Vec<BTreeSet<TunnelId>>,
    stops: Vec<u32>,
    /// From whom, to whom.
    mail: BTreeMap<(usize, usize), VecDeque<Mail>>,
    lives: Vec<Life>,
    requests: Vec<(usize, TunnelId, Arc<Identity>)>,
    policy: Policy,
    /// A copy was made wrong.
    has_bug: bool,
}

impl Process {
    fn new(workers: u16, policy: Policy) -> Self {
        let machine = |worker| {
            let settings = Settings {
                duplicates: policy,
                ..settings(worker, workers)
            };
            Responder::new(settings, at(0), Rng::from_seed(worker.into()))
        };
        Self {
            now: at(0),
            machines: (0..workers).map(machine).collect(),
            links: vec![BTreeSet::new(); workers.into()],
            stops: vec![0; workers.into()],
            mail: BTreeMap::new(),
            lives: Vec::new(),
            requests: Vec::new(),
            policy,
            has_bug: false,
        }
    }

    fn worker(&self, at: Index) -> usize {
        at.index(self.machines.len())
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Accept(at, node, process, lost) => {
                let instance = process.map(|(nonce, slot)| eddy(nonce, slot));
                self.accept(self.worker(at), NODES[node], instance, lost);
            }
            Step::Deliver(at) if !self.mail.is_empty() => {
                let pair = *self.mail.keys().nth(at.index(self.mail.len())).unwrap();
                self.deliver(pair);
            }
            Step::Opened(at) => self.tell(at, |machine, now, life| {
                machine.on_opened(now, life.tunnel, &life.introduction);
                if life.phase == Phase::Settling {
                    life.phase = Phase::Open(State::Idle);
                }
            }),
            Step::Upgraded(at) => self.tell(at, |machine, now, life| {
                machine.on_upgraded(now, life.tunnel);
                if life.phase == Phase::Open(State::Idle) {
                    life.phase = Phase::Open(State::Active);
                }
            }),
            Step::Draining(at) => self.tell(at, |machine, now, life| {
                machine.on_draining(now, life.tunnel);
                if let Phase::Open(_) = life.phase {
                    life.phase = Phase::Open(State::Draining);
                }
            }),
            Step::Closed(at, why) => self.tell(at, |machine, now, life| {
                machine.on_closed(now, life.tunnel, why);
                if life.phase != Phase::Travelling {
                    life.phase = Phase::Gone;
                }
            }),
            Step::MaxStreams(at, streams) => {
                self.tell(at, |machine, now, life| {
                    machine.on_max_streams(now, life.tunnel, streams)
                });
            }
            Step::Missing(at, missing) => {
                self.tell(at, |machine, _, life| machine.on_missing(life.tunnel, missing));
            }
            Step::SendAway(node) => {
                let selection = Selection {
                    node: Some(NODES[node].into()),
                    ..Selection::default()
                };
                for worker in 0..self.machines.len() {
                    self.machines[worker].send_away_selected(self.now, &selection);
                    self.perform(worker);
                }
            }
            Step::Forget(at, tunnel) if !self.lives.is_empty() => {
                let (worker, tunnel) = (self.worker(at), tunnel.get(&self.lives).tunnel);
                // Requests on it would be lost to the count as well, which no repair brings back.
                if self.machines[worker].directory.streams(tunnel) == 0 {
                    self.has_bug = true;
                    self.machines[worker].directory.remove(tunnel);
                    self.links[worker].remove(&tunnel);
                }
            }
            Step::Request(at, node) => self.request(self.worker(at), NODES[node]),
            Step::Release(at, how) if !self.requests.is_empty() => {
                let (worker, tunnel, _) = self.requests.swap_remove(at.index(self.requests.len()));
                let machine = &mut self.machines[worker];
                let listed: Vec<_> = machine.directory.tunnels().collect();
                if how == Ended::Answered {
                    machine.on_answered(self.now, tunnel);
                }
                machine.release(tunnel, how);
                assert!(
                    machine.directory.tunnels().eq(listed),
                    "a request has removed a tunnel"
                );
                self.perform(worker);
            }
            Step::Timeout(at) => {
                let worker = self.worker(at);
                self.machines[worker].handle_timeout(self.now);
                self.perform(worker);
            }
            Step::Sleep(millis) => self.now = self.now + Duration::from_millis(millis),
            Step::Deliver(_) | Step::Forget(..) | Step::Release(..) => {}
        }
    }

    fn accept(&mut self, worker: usize, node: &str, instance: Option<Instance>, lost: bool) {
        let introduction = introduced(node, instance, self.now);
        let identity = &introduction.identity;
        if self.machines[worker].conflicts.refuses(identity, instance) {
            return;
        }
        let placement = self.machines[worker].registry.place(identity);
        let (tunnel, owner) = (placement.tunnel, usize::from(placement.worker.0));
        if self.mail.is_empty() {
            let loads = self.loads(worker, identity);
            let fewest = (0..loads.len()).min_by_key(|&w| (loads[w], w != worker, w));
            assert_eq!(Some(owner), fewest, "no mail is under way: {loads:?}");
        }
        assert!(self.lives.iter().all(|life| life.tunnel != tunnel), "an id twice");
        if owner != worker && lost {
            self.machines[worker].on_misplaced(tunnel);
            return;
        }
        let phase = if owner == worker {
            Phase::Settling
        } else {
            self.send(worker, owner, Mail::Adopt(self.lives.len()));
            Phase::Travelling
        };
        self.lives.push(Life {
            tunnel,
            introduction,
            owner,
            phase,
            told_to_end: false,
        });
    }

    /// The tunnels of a node on each worker, as far as this worker can know when no mail is under way.
    fn loads(&self, worker: usize, identity: &Identity) -> Vec<u32> {
        let mut loads = vec![0; self.machines.len()];
        let of_node = |life: &&Life| life.introduction.identity.node == identity.node;
        for life in self.lives.iter().filter(of_node) {
            let named_here = usize::from(life.tunnel.named_by.0) == worker;
            let is_known = match life.phase {
                Phase::Travelling | Phase::Settling => named_here || life.owner == worker,
                Phase::Open(_) => true,
                Phase::Gone => false,
            };
            loads[life.owner] += u32::from(is_known);
        }
        loads
    }

    fn request(&mut self, worker: usize, id: &str) {
        let mut attempts = request(self.now);
        let machine = &mut self.machines[worker];
        match machine.pick(self.now, &node(id), ClientShare::default(), &mut attempts) {
            Pick::Tunnel(tunnel) => {
                assert!(
                    self.links[worker].contains(&tunnel),
                    "the driver has a way to {tunnel}"
                );
                let identity = Arc::clone(machine.directory.identity(tunnel).unwrap());
                self.requests.push((worker, tunnel, identity));
            }
            Pick::Wait(wait) => machine.on_waited(wait),
            Pick::Refuse(_) => {}
        }
        self.perform(worker);
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
                self.machines[pair.1].on_adopted(life.tunnel, &life.introduction.identity);
            }
            Mail::Gossip(gossip) => self.machines[pair.1].on_gossip(self.now, &gossip),
        }
        self.perform(pair.1);
    }

    /// Something happened to a tunnel that has reached its owner, or it is said again.
    fn tell(&mut self, at: Index, tell: impl FnOnce(&mut Responder, Instant, &mut Life)) {
        let arrived = self.lives.iter().enumerate();
        let arrived = arrived.filter(|(_, life)| life.phase != Phase::Travelling);
        let arrived: Vec<_> = arrived.map(|(life, _)| life).collect();
        if !arrived.is_empty() {
            self.tell_of(*at.get(&arrived), tell);
        }
    }

    fn tell_of(&mut self, life: usize, tell: impl FnOnce(&mut Responder, Instant, &mut Life)) {
        let owner = self.lives[life].owner;
        tell(&mut self.machines[owner], self.now, &mut self.lives[life]);
        self.perform(owner);
    }

    /// Does what a driver does.
    fn perform(&mut self, worker: usize) {
        for action in actions(&mut self.machines[worker]) {
            match action {
                Action::Publish(gossip) => {
                    for other in (0..self.machines.len()).filter(|other| *other != worker) {
                        self.send(worker, other, Mail::Gossip(gossip.clone()));
                    }
                }
                Action::Send { to, gossip } => self.send(worker, to.0.into(), Mail::Gossip(gossip)),
                Action::List(tunnel) => _ = self.links[worker].insert(tunnel),
                Action::Unlist(tunnel) => _ = self.links[worker].remove(&tunnel),
                Action::Command(tunnel, command) => {
                    let life = self.lives.iter_mut().find(|life| life.tunnel == tunnel);
                    let life = life.filter(|life| life.owner == worker).expect("its own tunnel");
                    life.phase = match (command, life.phase) {
                        (Command::SayGoodbye | Command::LetGo, Phase::Open(State::Idle | State::Active)) => {
                            Phase::Open(State::Leaving)
                        }
                        (Command::Replaced | Command::GivenUp, Phase::Open(_)) => {
                            Phase::Open(State::Draining)
                        }
                        (_, phase) => phase,
                    };
                    life.told_to_end |= command != Command::SayGoodbye;
                }
                Action::Drain(Goes::Stop) => self.stops[worker] += 1,
                Action::Drain(Goes::CloseTunnelListener) => {
                    self.machines[worker].on_tunnel_listener_closed();
                }
                Action::Drain(_)
                | Action::WakeAll(_)
                | Action::WakeOne(_)
                | Action::WakeNext(_)
                | Action::Recovered(_)
                | Action::Duplicate(..) => {}
                Action::Bug(bug) => assert!(self.has_bug, "{bug:?} without a bug"),
            }
        }
    }

    /// What an owner knows is the truth at any time, and every request is counted.
    fn check(&self) {
        for (worker, machine) in self.machines.iter().enumerate() {
            let mine = self.lives.iter().filter(|life| life.owner == worker);
            let open: BTreeMap<_, _> = mine
                .filter_map(|life| match life.phase {
                    Phase::Open(state) => Some((life.tunnel, state)),
                    Phase::Travelling | Phase::Settling | Phase::Gone => None,
                })
                .collect();
            let known: BTreeMap<_, _> = machine
                .registry
                .tunnels()
                .map(|(id, tunnel)| (id, tunnel.state))
                .collect();
            assert_eq!(known, open, "worker {worker}");
            for id in NODES {
                let mine = self.requests.iter();
                let mine = mine.filter(|(at, _, identity)| *at == worker && **identity == *who(id));
                assert_eq!(machine.requests_of(&who(id)) as usize, mine.count(), "{id}");
            }
        }
    }

    fn deliver_all(&mut self) {
        while let Some(pair) = self.mail.keys().next().copied() {
            self.deliver(pair);
        }
    }

    /// Ends the tunnels whose tasks were told to, until no other task is.
    fn settle(&mut self) {
        loop {
            self.deliver_all();
            let ending = |life: &Life| life.told_to_end && matches!(life.phase, Phase::Open(_));
            let Some(life) = self.lives.iter().position(ending) else {
                return;
            };
            self.close(life);
        }
    }

    fn close(&mut self, life: usize) {
        self.tell_of(life, |machine, now, life| {
            machine.on_closed(now, life.tunnel, CloseReason::Drained);
            life.phase = Phase::Gone;
        });
    }

    /// What everybody knows once nothing is under way.
    fn check_quiet(&mut self) {
        self.settle();
        // Enough digests for every repair.
        for _ in 0..4 {
            self.now = self.now + digest::EVERY;
            for worker in 0..self.machines.len() {
                self.machines[worker].handle_timeout(self.now);
                self.perform(worker);
            }
            self.settle();
        }
        self.check();
        let mut identities = BTreeMap::new();
        let mut listed = BTreeSet::new();
        for life in &self.lives {
            if let Phase::Open(State::Idle | State::Active | State::Leaving) = life.phase {
                *identities
                    .entry(Arc::clone(&life.introduction.identity))
                    .or_insert(0) += 1;
                listed.insert(life.tunnel);
            }
        }
        for (worker, machine) in self.machines.iter().enumerate() {
            assert_eq!(machine.directory.identities(), identities, "worker {worker}");
            assert_eq!(self.links[worker], listed, "worker {worker}");
        }
        if self.policy != Policy::Pool {
            for id in NODES {
                let of_node = self.lives.iter().filter(|life| listed.contains(&life.tunnel));
                let of_node = of_node.filter(|life| life.introduction.identity == who(id));
                let processes: BTreeSet<_> = of_node
                    .filter_map(|life| Some(life.introduction.instance?.nonce))
                    .collect();
                assert!(processes.len() <= 1, "{id}: {processes:?}");
            }
        }
    }

    /// All workers drain; requests end, tunnels that are told to end do, and so do their clients.
    fn drain(&mut self) {
        for worker in 0..self.machines.len() {
            self.machines[worker].drain(self.now);
            self.perform(worker);
        }
        for (worker, tunnel, _) in std::mem::take(&mut self.requests) {
            self.machines[worker].release(tunnel, Ended::Abandoned);
            self.perform(worker);
        }
        let end = self.now + DRAIN_DELAY + DRAIN_TIMEOUT + Duration::from_secs(1);
        while self.now < end {
            self.settle();
            self.now = self.now + Duration::from_millis(200);
            for worker in 0..self.machines.len() {
                self.machines[worker].handle_timeout(self.now);
                self.perform(worker);
            }
        }
        assert!(self.stops.iter().all(|stops| *stops == 1), "{:?}", self.stops);
    }
}

proptest! {
    #[test]
    fn every_worker_learns_the_truth(
        workers in 1..5u16,
        policy in select(vec![Policy::Pool, Policy::Supersede, Policy::Reject]),
        steps in prop::collection::vec(step(), 0..100),
    ) {
        let mut process = Process::new(workers, policy);
        for step in steps {
            process.apply(step);
            process.check();
        }
        process.check_quiet();
        process.drain();
        for life in 0..process.lives.len() {
            process.close(life);
        }
        process.check_quiet();
        for machine in &process.machines {
            prop_assert_eq!(machine.registry.tunnels().count(), 0);
            prop_assert!(machine.unlisted.is_empty() && machine.movers.is_empty());
        }
    }
}
