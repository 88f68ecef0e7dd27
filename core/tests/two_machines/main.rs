//! Two machines against each other: whole initiators and whole responders, made of the core's machines alone, joined
//! by a network that delays, cuts, loses, refuses and swallows, and by processes that die and return.
//!
//! The contract: whatever happened, once the world is calm every tunnel that is wanted is up within
//! [`CALM_WITHIN`], both sides agree on which, every worker of a responder can choose it, the numbers of both say so,
//! and nobody holds anything else.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod initiator;
mod numbers;
mod responder;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use eddy_core::attempts::Failure;
use eddy_core::cache::Ended;
use eddy_core::duplicates::Policy;
use eddy_core::policy;
use eddy_core::rng::Rng;
use eddy_core::router::{Names, RouteKey};
use eddy_core::time::Instant;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use initiator::Initiator;
use responder::Responder;
use wire::{Conn, Door, Parcel, Toward, Wire};

/// A dead connection is noticed within the wait for the first ping, which is longer than the gaps that can be learned
/// here, and a dial into nothing within its time; then comes the longest wait, once; then each dials, a few at a time.
const CALM_WITHIN: Duration = policy::FIRST_PING
    .saturating_add(policy::DIAL_TIMEOUT)
    .saturating_add(policy::REJECTED_MAX)
    .saturating_add(Duration::from_secs(3));
const DELAY_MAX_MS: u64 = 800;

#[derive(Clone, Debug)]
enum Step {
    Sleep(u64),
    /// How many tunnels an initiator wants to each responder.
    Want(Index, Vec<u32>),
    /// From now on a way takes up to so many milliseconds.
    Delay(u64),
    /// A connection is reset: each end hears of it when it does.
    Cut(Index),
    /// A connection loses what is sent in one direction, or both.
    Hole(Index, [bool; 2]),
    Door(Index, Door),
    /// Handshakes are refused with 429.
    Full(Index, Option<u64>),
    CrashResponder(Index, bool),
    CrashInitiator(Index, bool),
    /// A worker of a responder sends a request to the node of an initiator; it ends like this.
    Request(Index, Index, Index, Ended),
    /// An operator of a responder sends all its tunnels away.
    SendAway(Index),
}

/// Every way in which a request may end, each kind of stream error and of connection error included.
fn ended() -> impl Strategy<Value = Ended> {
    let failed = Failure::ALL.map(Ended::Failed);
    select([&[Ended::Answered, Ended::Abandoned], &failed[..]].concat())
}

fn step() -> impl Strategy<Value = Step> {
    let door = select(vec![Door::Open, Door::Refuses, Door::Vanishes]);
    let at = any::<Index>;
    prop_oneof![
        8 => (0..1_000u64).prop_map(Step::Sleep),
        4 => (0..15_000u64).prop_map(Step::Sleep),
        3 => (at(), prop::collection::vec(0..4u32, 2)).prop_map(|(at, wanted)| Step::Want(at, wanted)),
        1 => (0..DELAY_MAX_MS).prop_map(Step::Delay),
        3 => at().prop_map(Step::Cut),
        4 => (at(), any::<[bool; 2]>()).prop_map(|(at, ways)| Step::Hole(at, ways)),
        3 => (at(), door).prop_map(|(at, door)| Step::Door(at, door)),
        1 => (at(), prop::option::of(0..100u64)).prop_map(|(at, after)| Step::Full(at, after)),
        1 => (at(), any::<bool>()).prop_map(|(at, silently)| Step::CrashResponder(at, silently)),
        1 => (at(), any::<bool>()).prop_map(|(at, silently)| Step::CrashInitiator(at, silently)),
        4 => (at(), at(), at(), ended()).prop_map(|(at, worker, node, how)| Step::Request(at, worker, node, how)),
        1 => at().prop_map(Step::SendAway),
    ]
}

struct World {
    now: Instant,
    wire: Wire,
    initiators: Vec<Initiator>,
    responders: Vec<Responder>,
    rng: Rng,
}

impl World {
    fn new(seed: u64, initiators: usize, responders: usize, workers: u16, policy: Policy) -> Self {
        let mut rng = Rng::from_seed(seed);
        let mut world = Self {
            now: Instant::ZERO,
            wire: Wire::new(responders, rng.fork()),
            initiators: (0..initiators)
                .map(|me| Initiator::new(me, responders, rng.fork()))
                .collect(),
            responders: (0..responders)
                .map(|_| Responder::new(Instant::ZERO, workers, policy, rng.fork()))
                .collect(),
            rng,
        };
        world
            .initiators
            .iter_mut()
            .for_each(|initiator| initiator.want(Instant::ZERO, vec![1; responders]));
        world
    }

    fn apply(&mut self, step: Step) {
        let (now, conns) = (self.now, self.wire.conns());
        match step {
            Step::Sleep(ms) => self.run_until(now + Duration::from_millis(ms)),
            Step::Want(at, mut wanted) => {
                wanted.resize(self.responders.len(), 1);
                let initiator = at.index(self.initiators.len());
                self.initiators[initiator].want(now, wanted);
            }
            Step::Delay(ms) => self.wire.longest = Duration::from_millis(ms),
            Step::Cut(at) if !conns.is_empty() => {
                let conn = *at.get(&conns);
                Toward::BOTH
                    .into_iter()
                    .for_each(|toward| self.wire.send(now, conn, toward, Parcel::End));
            }
            Step::Hole(at, ways) if !conns.is_empty() => {
                let lost = Toward::BOTH.into_iter().zip(ways).filter(|(_, lost)| *lost);
                lost.for_each(|(toward, _)| self.wire.hole(*at.get(&conns), toward));
            }
            Step::Door(at, door) => {
                let responder = at.index(self.responders.len());
                self.wire.doors[responder] = door;
            }
            Step::Full(at, after) => {
                let responder = at.index(self.responders.len());
                self.responders[responder].full = after.map(Duration::from_secs);
            }
            Step::CrashResponder(at, silently) => {
                let responder = at.index(self.responders.len());
                self.responders[responder].crash(now, silently, &mut self.wire);
            }
            Step::CrashInitiator(at, silently) => {
                self.crash_initiator(at.index(self.initiators.len()), silently)
            }
            Step::Request(at, worker, node, how) => {
                let responder = at.index(self.responders.len());
                let node = self.initiators[node.index(self.initiators.len())]
                    .identity
                    .node
                    .clone();
                self.responders[responder].request(now, worker, node.as_str(), how);
            }
            Step::SendAway(at) => {
                let responder = at.index(self.responders.len());
                self.responders[responder].send_away(now, &mut self.wire);
            }
            Step::Cut(_) | Step::Hole(..) => {}
        }
    }

    fn crash_initiator(&mut self, me: usize, silently: bool) {
        for conn in self.wire.conns().into_iter().filter(|conn| conn.initiator == me) {
            if !silently {
                self.wire.send(self.now, conn, Toward::Responder, Parcel::End);
            }
            self.wire.hole(conn, Toward::Initiator);
        }
        let wanted = self.initiators[me].wanted.clone();
        self.initiators[me] = Initiator::new(me, wanted.len(), self.rng.fork());
        self.initiators[me].want(self.now, wanted);
    }

    /// Lets everything happen that is due up to then, each at its time.
    fn run_until(&mut self, end: Instant) {
        let mut turns = 0;
        loop {
            self.turn();
            let next = self.next();
            assert!(
                next.is_none_or(|next| next > self.now),
                "somebody is stuck at {:?}",
                self.now
            );
            let Some(next) = next.filter(|next| *next <= end) else {
                break;
            };
            self.now = next;
            turns += 1;
            assert!(turns < 100_000, "a busy loop");
        }
        self.now = end;
    }

    fn next(&self) -> Option<Instant> {
        let initiators = self.initiators.iter().filter_map(Initiator::next);
        let responders = self.responders.iter().filter_map(Responder::next);
        initiators.chain(responders).chain(self.wire.next()).min()
    }

    /// What arrived is read before timers fire, as a driver does.
    fn turn(&mut self) {
        for _ in 0..1_000 {
            while let Some((conn, toward, parcel)) = self.wire.arrived(self.now) {
                match toward {
                    Toward::Initiator => self.initiators[conn.initiator].receive(self.now, conn, parcel),
                    Toward::Responder => {
                        self.responders[conn.responder].receive(self.now, conn, parcel, &mut self.wire);
                    }
                }
            }
            self.initiators
                .iter_mut()
                .for_each(|initiator| initiator.turn(self.now, &mut self.wire));
            self.responders
                .iter_mut()
                .for_each(|responder| responder.turn(self.now, &mut self.wire));
            if self.next().is_none_or(|next| next > self.now) {
                break;
            }
        }
        for conn in self.wire.conns() {
            let held = self.initiators[conn.initiator].has(conn) || self.responders[conn.responder].has(conn);
            if !held && !self.wire.is_busy(conn) {
                self.wire.forget(conn);
            }
        }
        self.initiators.iter().for_each(Initiator::check);
    }

    /// No more faults. What has a hole already keeps it: that is for the machines to find out.
    fn calm(&mut self) {
        self.wire.doors.fill(Door::Open);
        self.wire.longest = Duration::from_millis(50);
        self.responders
            .iter_mut()
            .for_each(|responder| responder.full = None);
    }

    /// Every tunnel that is wanted is there, on both sides, and nothing else. Says which.
    fn check(&mut self) -> BTreeSet<Conn> {
        let dialed: BTreeSet<_> = self.initiators.iter().flat_map(Initiator::up).collect();
        let accepted: BTreeSet<_> = self.responders.iter().flat_map(Responder::up).collect();
        assert_eq!(dialed, accepted, "both sides agree");
        assert_eq!(
            dialed,
            self.wire.conns().into_iter().collect(),
            "nobody holds anything else"
        );
        for initiator in &self.initiators {
            let tunnels = (0..).zip(&initiator.wanted).flat_map(|(n, count)| {
                let upstreams = 0..*count as usize;
                upstreams.map(move |k| (initiator::address(n), initiator::cluster(n, k)))
            });
            assert_eq!(
                numbers::of_initiator(&initiator.machine),
                numbers::dialed_at_rest(tunnels),
                "only those are known who are wanted"
            );
            assert_eq!(initiator.machine.poll_timeout(), None, "nothing is left to do");
        }
        for (n, responder) in self.responders.iter_mut().enumerate() {
            let mut identities = BTreeMap::new();
            for initiator in self.initiators.iter().filter(|initiator| initiator.wanted[n] > 0) {
                let here = dialed
                    .iter()
                    .filter(|c| c.responder == n && initiator.has(**c))
                    .count();
                assert_eq!(here, initiator.wanted[n] as usize);
                identities.insert(Arc::new(initiator.identity.clone()), initiator.wanted[n]);
            }
            let nodes = self
                .initiators
                .iter()
                .map(|i| (i.identity.node.as_str(), i.wanted[n]));
            assert_eq!(
                numbers::of_responder(responder.registries()),
                numbers::accepted_at_rest(nodes)
            );
            let open: usize = responder
                .registries()
                .map(|registry| registry.tunnels().count())
                .sum();
            assert_eq!(open, identities.values().sum::<u32>() as usize);
            for machine in &responder.machines {
                assert_eq!(machine.directory().identities(), identities);
                for initiator in &self.initiators {
                    let (tenant, id) = (None, initiator.identity.node.as_str());
                    let key = RouteKey {
                        tenant,
                        names: Names::Node,
                        id,
                    };
                    let found = machine.directory().peek(&key);
                    assert_eq!(found.is_ok(), initiator.wanted[n] > 0, "{id} of {n}");
                }
            }
        }
        dialed
    }
}

proptest! {
    #[test]
    fn after_any_history_calm_brings_every_tunnel_up_and_both_sides_agree(
        seed: u64, initiators in 1..3usize, responders in 1..3usize, workers in 1..4u16,
        policy in select(vec![Policy::Pool, Policy::Supersede, Policy::Reject]),
        steps in prop::collection::vec(step(), 0..40),
    ) {
        let mut world = World::new(seed, initiators, responders, workers, policy);
        for step in steps {
            world.apply(step);
        }
        world.calm();
        world.run_until(world.now + CALM_WITHIN);
        let up = world.check();
        // And so it stays: the live are not taken for dead.
        world.run_until(world.now + Duration::from_secs(60));
        prop_assert_eq!(world.check(), up);
        world.initiators.iter_mut().for_each(|initiator| initiator.want(world.now, vec![0; responders]));
        world.run_until(world.now + Duration::from_secs(1));
        prop_assert_eq!(world.check(), BTreeSet::new());
    }
}
