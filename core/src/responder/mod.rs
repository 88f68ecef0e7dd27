//! The responder's root machine: one per worker, and every decision of a responder.
//!
//! It composes the machines of this crate in the one order in which they must receive an event. A worker's driver passes
//! lifecycle facts of its own tunnels in, exchanges [`Gossip`] with the other workers of the process, and performs
//! [`Action`]s; it decides nothing. The bytes of a tunnel never pass through here: each tunnel's task has byte machines of
//! its own ([`crate::keepalive`], [`crate::frame_watch`]).
//!
//! ```text
//!   handshake ─▶ on_handshake ─▶ Placement ─▶ on_opened ─▶ Publish(Opened) ─▶ every worker: List
//!   request   ─▶ pick ─▶ Tunnel │ Wait │ Refuse            release ◀─ however it ended
//!   tunnel    ─▶ on_closed ─▶ Publish(Closed) ─▶ every worker: Unlist
//! ```

pub mod drain;
mod goodbye;
mod gossip;
mod handshake;
mod pick;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::absences::Absences;
use crate::cache::Cache;
use crate::close::CloseReason;
use crate::departures::Departures;
use crate::digest::{self, Comparison};
use crate::duplicates::{self, Duplicates};
use crate::handshake::request::Demands;
use crate::identity::{Identity, TunnelId, WorkerId};
use crate::registry::{self, Introduction, Registry};
use crate::rng::Rng;
use crate::time::{Deadline, Instant};

use self::drain::Drain;
pub use self::gossip::{Bug, Gossip, Listing};
pub use self::handshake::Decision;
pub use self::pick::{ClientShare, Expected, Pick, Wait};

/// What a responder runs with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The worker that this machine is for.
    pub worker: WorkerId,
    /// How many workers the process has.
    pub workers: u16,
    /// What handshakes must satisfy.
    pub demands: Demands,
    /// What happens to tunnels from several processes under one node id.
    pub duplicates: duplicates::Policy,
    /// The most requests on one tunnel at once, from this worker.
    pub max_streams: u32,
    /// The most requests that wait at once, for a node and for a place each.
    pub max_waiting: u32,
    /// How long a request waits for the return of a node.
    pub reconnect_grace: Duration,
    /// How long a draining worker waits for initiators and clients to move elsewhere.
    pub drain_delay: Duration,
    /// How long the requests in flight may take once a drain has closed the door to clients.
    pub drain_timeout: Duration,
}

/// An effect that the driver must perform, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send to every other worker.
    Publish(Gossip),
    /// Send to one other worker.
    Send {
        /// The receiver.
        to: WorkerId,
        /// The message.
        gossip: Gossip,
    },
    /// The tunnel may be chosen from now on: requests need a way to its sender.
    List(TunnelId),
    /// The tunnel is no longer chosen: drop the way to its sender.
    Unlist(TunnelId),
    /// Send a command to the task of a tunnel that this worker owns.
    Command(TunnelId, Command),
    /// Wake every request that waits for this identity's node or cluster.
    WakeAll(Arc<Identity>),
    /// Wake the first request that waits for a place on a tunnel of this identity.
    WakeOne(Arc<Identity>),
    /// Wake the first request that waits for a place on a tunnel of this node or cluster.
    WakeNext(String),
    /// Record that an identity without tunnels has one again, after so long.
    Recovered(Duration),
    /// Log that another process has a tunnel under the node id of this new one.
    Duplicate(TunnelId, Arc<Identity>),
    /// Log that this worker's copy of the directory was wrong.
    Bug(Bug),
    /// Perform a step of the drain.
    Drain(drain::Step),
}

/// What the task of a tunnel must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Send GOAWAY, and serve on: the initiator dials a replacement first.
    SayGoodbye,
    /// Accept no more requests, and end with the last one.
    LetGo,
    /// As [`Command::LetGo`]: another process has the node id.
    Replaced,
    /// End at once: the initiator has given the tunnel up.
    GivenUp,
}

/// Requests of this worker on a tunnel that is no longer listed.
#[derive(Clone, Debug)]
struct Unlisted {
    identity: Arc<Identity>,
    streams: u32,
    /// One of the tunnel's ends drains it.
    draining: bool,
}

/// Requests that wait.
#[derive(Clone, Copy, Debug, Default)]
struct Waiting {
    for_return: u32,
    for_place: u32,
}

/// The root machine of one worker.
#[derive(Clone, Debug)]
pub struct Responder {
    settings: Settings,
    rng: Rng,
    /// When the process had its addresses.
    began: Instant,
    registry: Registry,
    directory: Cache,
    conflicts: Duplicates,
    departures: Departures,
    absences: Absences,
    comparisons: BTreeMap<WorkerId, Comparison>,
    digest_at: Instant,
    unlisted: BTreeMap<TunnelId, Unlisted>,
    waiting: Waiting,
    /// How many places on tunnels were given back.
    releases: u64,
    /// Listed tunnels whose initiators serve on after a GOAWAY until they have dialed elsewhere.
    movers: BTreeSet<TunnelId>,
    /// When single tunnels that were sent away are let go.
    patience: BTreeMap<TunnelId, Instant>,
    drain: Drain,
    duplicates_total: u64,
    repaired_total: u64,
    actions: VecDeque<Action>,
}

impl Responder {
    /// A machine without tunnels, of a process that has had its addresses since `began`.
    pub fn new(settings: Settings, began: Instant, rng: Rng) -> Self {
        let (worker, workers) = (settings.worker, settings.workers);
        let isolation = settings.demands.tenant_isolation;
        Self {
            rng,
            began,
            registry: Registry::new(worker, workers),
            directory: Cache::new(worker, settings.max_streams, isolation).one_of(workers),
            conflicts: Duplicates::new(settings.duplicates),
            departures: Departures::new(isolation),
            absences: Absences::new(),
            comparisons: BTreeMap::new(),
            digest_at: began + digest::EVERY,
            unlisted: BTreeMap::new(),
            waiting: Waiting::default(),
            releases: 0,
            movers: BTreeSet::new(),
            patience: BTreeMap::new(),
            drain: Drain::new(workers),
            duplicates_total: 0,
            repaired_total: 0,
            actions: VecDeque::new(),
            settings,
        }
    }

    /// A tunnel of this worker has its response through and may be chosen. No effect if it was not placed here, or is
    /// closed.
    pub fn on_opened(&mut self, now: Instant, tunnel: TunnelId, introduction: &Introduction) {
        self.registry.on_opened(now, tunnel, introduction);
        self.publish(now);
        if self.drain.is_draining() {
            // It came in at the last moment.
            self.send_away(now, tunnel);
        }
        self.advance(now);
    }

    /// A tunnel of this worker carries HTTP/2 from now on.
    pub fn on_upgraded(&mut self, now: Instant, tunnel: TunnelId) {
        self.registry.on_upgraded(now, tunnel);
    }

    /// The peer has said how many streams it allows at once on a tunnel of this worker.
    pub fn on_max_streams(&mut self, now: Instant, tunnel: TunnelId, streams: u32) {
        self.registry.on_max_streams(tunnel, streams);
        self.publish(now);
    }

    /// A tunnel of this worker has missed a ping, or has returned one since.
    pub fn on_missing(&mut self, tunnel: TunnelId, missing: bool) {
        self.directory.on_missing(tunnel, missing);
        let gossip = Gossip::Missing { tunnel, missing };
        self.actions.push_back(Action::Publish(gossip));
    }

    /// A tunnel of this worker takes no more requests; those in flight may end.
    pub fn on_draining(&mut self, now: Instant, tunnel: TunnelId) {
        self.registry.on_draining(now, tunnel);
        self.publish(now);
        self.advance(now);
    }

    /// A tunnel that this worker placed or owned is gone.
    pub fn on_closed(&mut self, now: Instant, tunnel: TunnelId, why: CloseReason) {
        self.patience.remove(&tunnel);
        self.registry.on_closed(now, tunnel, why);
        self.publish(now);
        self.advance(now);
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        if now >= self.digest_at {
            self.digest_at = now + digest::EVERY;
            self.send_digest(now);
            self.publish(now);
        }
        self.let_go_when_due(now);
        self.advance(now);
    }

    /// When to call [`Responder::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Deadline> {
        let digest = Deadline {
            at: self.digest_at,
            reason: "directory digest",
        };
        let patience = self.patience.values().min().map(|at| Deadline {
            at: *at,
            reason: "replacement of a tunnel that was sent away",
        });
        let soonest = Deadline::earlier(Some(digest), patience);
        Deadline::earlier(soonest, self.drain.poll_timeout())
    }

    /// The next effect to perform.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// A random stream for a byte machine of one tunnel.
    pub const fn fork_rng(&mut self) -> Rng {
        self.rng.fork()
    }

    /// The tunnels of this worker, and how they ended.
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The tunnels of all workers that may be chosen.
    pub const fn directory(&self) -> &Cache {
        &self.directory
    }

    /// The live tunnels of all workers, by process.
    pub const fn conflicts(&self) -> &Duplicates {
        &self.conflicts
    }

    /// The identities that have tunnels, and those that have lost them.
    pub const fn absences(&self) -> &Absences {
        &self.absences
    }

    /// Whether this worker reports what is counted once for the process: every worker learns of every tunnel.
    pub fn is_leader(&self) -> bool {
        self.settings.worker == WorkerId(0)
    }

    /// How many tunnels opened under a node id that another process has.
    pub const fn duplicates_total(&self) -> u64 {
        self.duplicates_total
    }

    /// By how many tunnels this worker's copy of the directory was wrong when it was repaired.
    pub const fn repaired_total(&self) -> u64 {
        self.repaired_total
    }

    /// How many requests of this worker are on the tunnels of an identity.
    pub fn requests_of(&self, identity: &Identity) -> u32 {
        let unlisted = self.unlisted.values();
        let unlisted = unlisted.filter(|unlisted| *unlisted.identity == *identity);
        let streams: u32 = unlisted.map(|unlisted| unlisted.streams).sum();
        self.directory.requests(identity) + streams
    }

    /// Tunnels that are no longer listed, with the requests of this worker that are still on them.
    pub fn unlisted(&self) -> impl Iterator<Item = (TunnelId, &Arc<Identity>, u32)> {
        self.unlisted
            .iter()
            .map(|(tunnel, unlisted)| (*tunnel, &unlisted.identity, unlisted.streams))
    }

    /// Whether a tunnel on which this worker has requests is drained by one of its ends.
    pub fn is_draining(&self, tunnel: TunnelId) -> bool {
        self.unlisted
            .get(&tunnel)
            .is_some_and(|unlisted| unlisted.draining)
    }

    /// Applies what the registry publishes here, and sends it to the other workers.
    fn publish(&mut self, now: Instant) {
        while let Some(registry::Action::Publish(fact)) = self.registry.poll_action() {
            self.apply(now, &fact);
            self.actions.push_back(Action::Publish(Gossip::Fact(fact)));
        }
    }
}
