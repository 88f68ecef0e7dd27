//! The nodes of the cache, and their tunnels: which of them the next request takes.

use std::sync::Arc;

use super::Attempt;
use crate::identity::{ClusterId, Identity, TunnelId};
use crate::router::Refusal;
use crate::time::Instant;

pub use crate::policy::SUSPECT_AFTER;

/// The part of a node's places, one in so many, that a client with as much in flight does not get.
const RESERVE_PART: u32 = 4;

/// One tunnel as the cache sees it.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) tunnel: TunnelId,
    pub(super) identity: Arc<Identity>,
    pub(super) own: bool,
    pub(super) streams: u32,
    /// How many requests of this worker it takes at once.
    pub(super) limit: u32,
    /// When it had its last turn, or came.
    pub(super) turn: u64,
    /// Requests of this worker that have no answer yet.
    pub(super) unanswered: u32,
    /// The last sign of life while some are, or when the first of them was sent.
    pub(super) owes_since: Instant,
    /// The echo of its last ping is late.
    pub(super) missing: bool,
    /// Somebody has said goodbye on it.
    pub(super) leaving: bool,
}

impl Candidate {
    pub(super) fn serves(&self, cluster: &str) -> bool {
        self.identity.cluster.as_str() == cluster
    }

    pub(super) fn is_suspect(&self, now: Instant) -> bool {
        self.missing || self.unanswered > 0 && now - self.owes_since >= SUSPECT_AFTER
    }

    /// Whether another one, be it of another node of the cluster, is preferred.
    pub(super) fn is_last_resort(&self, now: Instant) -> bool {
        self.leaving || self.is_suspect(now)
    }

    /// The smallest is chosen.
    pub(super) fn rank(&self, now: Instant) -> (bool, bool, bool, u32, u64) {
        (
            self.is_suspect(now),
            self.leaving,
            !self.own,
            self.streams,
            self.turn,
        )
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) tunnels: Vec<Candidate>,
    /// How many turns there were, so that each has a number of its own.
    pub(super) turns: u64,
}

/// Where a node is: a request looks its id up once, and finds it by this from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(usize);

/// Every node of every tenant.
#[derive(Clone, Debug, Default)]
pub(super) struct Nodes {
    all: Vec<Node>,
    /// Those that nobody has.
    free: Vec<Slot>,
}

impl Nodes {
    pub(super) const fn new() -> Self {
        Self {
            all: Vec::new(),
            free: Vec::new(),
        }
    }

    pub(super) fn take(&mut self) -> Slot {
        self.free.pop().unwrap_or_else(|| {
            self.all.push(Node::default());
            Slot(self.all.len() - 1)
        })
    }

    pub(super) fn give_back(&mut self, slot: Slot) {
        self.all[slot.0] = Node::default();
        self.free.push(slot);
    }

    pub(super) fn at(&self, slot: Slot) -> &Node {
        &self.all[slot.0]
    }

    pub(super) fn at_mut(&mut self, slot: Slot) -> &mut Node {
        &mut self.all[slot.0]
    }
}

impl Node {
    pub(super) fn serves(&self, cluster: &ClusterId) -> bool {
        self.tunnels.iter().any(|c| c.serves(cluster.as_str()))
    }

    pub(super) fn insert(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        identity: &Arc<Identity>,
        own: bool,
        limit: u32,
    ) {
        let turn = self.next_turn();
        self.tunnels.push(Candidate {
            tunnel,
            identity: Arc::clone(identity),
            own,
            streams: 0,
            limit,
            turn,
            unanswered: 0,
            owes_since: now,
            missing: false,
            leaving: false,
        });
    }

    pub(super) const fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    pub(super) fn best(&self, now: Instant, eligible: impl Fn(&Candidate) -> bool) -> Option<&Candidate> {
        let open = self.tunnels.iter().filter(|c| c.streams < c.limit && eligible(c));
        open.min_by_key(|c| c.rank(now))
    }

    /// Whether the places that are free are for other clients than one with so many requests in flight.
    fn is_kept_from(&self, client_streams: u32) -> bool {
        let places = self
            .tunnels
            .iter()
            .map(|c| (c.limit, c.limit.saturating_sub(c.streams)));
        let (all, free) = places.fold((0_u32, 0_u32), |(all, free), (limit, left)| {
            (all.saturating_add(limit), free.saturating_add(left))
        });
        let reserve = all / RESERVE_PART;
        free <= reserve && client_streams >= reserve && reserve > 0
    }

    /// [`Refusal::NoTunnel`] if no tunnel is eligible, [`Refusal::Overloaded`] if no place is.
    pub(super) fn pick(
        &mut self,
        now: Instant,
        attempt: Attempt<'_>,
        eligible: impl Fn(&Candidate) -> bool,
    ) -> Result<TunnelId, Refusal> {
        let turn = self.next_turn();
        let kept = self.is_kept_from(attempt.client_streams);
        let mut refused = Refusal::NoTunnel;
        let some = self.tunnels.iter_mut();
        let chosen = some
            .filter(|c| eligible(c) && !attempt.avoid.contains(&c.tunnel))
            .inspect(|_| refused = Refusal::Overloaded)
            .filter(|c| c.streams < c.limit && !kept)
            .min_by_key(|c| c.rank(now));
        let chosen = chosen.ok_or(refused)?;
        if chosen.unanswered == 0 {
            chosen.owes_since = now;
        }
        chosen.turn = turn;
        chosen.streams += 1;
        chosen.unanswered += 1;
        Ok(chosen.tunnel)
    }
}
