//! The socket cache that each worker reads for every request: which live tunnels lead to a node or cluster.
//!
//! Each worker holds the whole of it, own tunnels and others' alike, so that choosing a tunnel is a local
//! lookup. Nodes and clusters are many to many: a node may announce itself under several clusters, each of
//! its tunnels then belongs to the cluster that it announced.
//!
//! Turns: equal tunnels of a node take turns, and so do the nodes of a cluster. Whoever had its turn, or is new,
//! goes behind all others. So nobody starves while others come and go: it waits for at most as many turns of
//! others as there were others when it had its last one, or came.
//!
//! Invariants: a node or cluster has an entry if and only if it has a live tunnel that is not draining; a
//! tunnel leaves only by its own id, so a late close never takes a newer tunnel with it.
//!
//! A tunnel that owes an answer for [`SUSPECT_AFTER`] and has given none since, or has missed a ping, is *suspect*: others are
//! chosen before it until it answers something. Whether it is dead is for its keepalive to say, which takes longer. A tunnel that is
//! *leaving* still works, but its end is near: others are chosen before it, too.
//!
//! Places: a tunnel takes as many requests at once as the configuration allows, and no more than this worker's share of
//! what its peer allows. When less than a quarter of a node's places is free, a client that has as much in flight as that
//! quarter must wait: the last quarter is for the others.

mod nodes;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::attempts::Failure;
use crate::digest::{self, Digest};
use crate::identity::{ClusterId, Identity, NodeId, TenantId, TunnelId, WorkerId};
use crate::router::{Names, Refusal, RouteKey};
use crate::time::Instant;

pub use self::nodes::SUSPECT_AFTER;
use self::nodes::{Candidate, Nodes, Slot};

/// What speaks for a tunnel, or against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// It is this worker's own.
    pub own: bool,
    /// Requests of this worker on it.
    pub streams: u32,
    /// It owes an answer for long, or an echo.
    pub suspect: bool,
    /// Somebody has said goodbye on it.
    pub leaving: bool,
}

/// What a request brings to the choice of its tunnel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attempt<'r> {
    /// How many requests its client has in flight on this worker already.
    pub client_streams: u32,
    /// Tunnels that it has tried in vain.
    pub avoid: &'r [TunnelId],
}

/// How a request has left its tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With an answer, which [`Cache::on_answered`] was told of.
    Answered,
    /// Its client has gone, or its time was over.
    Abandoned,
    /// The attempt has failed.
    Failed(Failure),
}

/// A tunnel that may be chosen.
#[derive(Clone, Debug)]
struct Listed {
    identity: Arc<Identity>,
    node: Slot,
    owner: WorkerId,
    standing: digest::Standing,
}

#[derive(Clone, Debug, Default)]
struct Cluster {
    /// The next in turn first; each has at least one tunnel that announced this cluster.
    nodes: VecDeque<Slot>,
}

#[derive(Clone, Debug, Default)]
struct Index {
    nodes: BTreeMap<NodeId, Slot>,
    clusters: BTreeMap<ClusterId, Cluster>,
}

/// Whether tenants share one space of ids.
#[derive(Clone, Debug)]
enum Tenancy {
    Shared(Index),
    Isolated(BTreeMap<TenantId, Index>),
}

/// The cache of one worker.
#[derive(Clone, Debug)]
pub struct Cache {
    worker: WorkerId,
    workers: u16,
    max_streams: u32,
    tenancy: Tenancy,
    nodes: Nodes,
    tunnels: BTreeMap<TunnelId, Listed>,
    /// Of the tunnels of each owner.
    digests: BTreeMap<WorkerId, Digest>,
    now: Instant,
}

impl Cache {
    /// An empty cache of `worker`, which puts at most `max_streams` requests on a tunnel at once.
    pub const fn new(worker: WorkerId, max_streams: u32, tenant_isolation: bool) -> Self {
        let tenancy = if tenant_isolation {
            Tenancy::Isolated(BTreeMap::new())
        } else {
            Tenancy::Shared(Index {
                nodes: BTreeMap::new(),
                clusters: BTreeMap::new(),
            })
        };
        Self {
            worker,
            workers: 1,
            max_streams,
            tenancy,
            nodes: Nodes::new(),
            tunnels: BTreeMap::new(),
            digests: BTreeMap::new(),
            now: Instant::ZERO,
        }
    }

    /// One of so many workers, which share what the peers of tunnels allow.
    #[must_use]
    pub const fn one_of(mut self, workers: u16) -> Self {
        self.workers = workers;
        self
    }

    /// Says what time it is; picks and answers that follow happen then.
    pub fn see(&mut self, now: Instant) {
        self.now = self.now.max(now);
    }

    /// Adds a tunnel that may be chosen from now on. Adding it again has no effect.
    pub fn insert(&mut self, tunnel: TunnelId, identity: &Arc<Identity>, owner: WorkerId) {
        if self.tunnels.contains_key(&tunnel) {
            return;
        }
        let (now, own) = (self.now, owner == self.worker);
        let index = match &mut self.tenancy {
            Tenancy::Shared(index) => index,
            Tenancy::Isolated(tenants) => tenants.entry(identity.tenant.clone()).or_default(),
        };
        let node = index.insert(&mut self.nodes, identity);
        let limit = self.max_streams;
        self.nodes.at_mut(node).insert(now, tunnel, identity, own, limit);
        let standing = digest::Standing::default();
        self.digests.entry(owner).or_default().add(tunnel, standing);
        let identity = Arc::clone(identity);
        let listed = Listed {
            identity,
            node,
            owner,
            standing,
        };
        self.tunnels.insert(tunnel, listed);
    }

    /// Whose tunnel it is, while it may be chosen.
    pub fn identity(&self, tunnel: TunnelId) -> Option<&Arc<Identity>> {
        self.tunnels.get(&tunnel).map(|listed| &listed.identity)
    }

    /// Takes a tunnel out: it is closed, or it drains. Returns whether it was there.
    pub fn remove(&mut self, tunnel: TunnelId) -> bool {
        let Some(listed) = self.tunnels.remove(&tunnel) else {
            return false;
        };
        let Listed {
            identity,
            node,
            owner,
            standing,
        } = listed;
        if let Some(digest) = self.digests.get_mut(&owner) {
            digest.remove(tunnel, standing);
        }
        let nodes = &mut self.nodes;
        nodes.at_mut(node).tunnels.retain(|c| c.tunnel != tunnel);
        match &mut self.tenancy {
            Tenancy::Shared(index) => index.remove(nodes, node, &identity),
            Tenancy::Isolated(tenants) => {
                if let Some(index) = tenants.get_mut(&identity.tenant) {
                    index.remove(nodes, node, &identity);
                    if index.nodes.is_empty() {
                        tenants.remove(&identity.tenant);
                    }
                }
            }
        }
        true
    }

    /// Picks the tunnel for one request and counts the request on it: this worker's own first, then the
    /// fewest requests in flight, equal ones in turn. A cluster's nodes take turns. Tunnels that are leaving come after
    /// those, suspect ones last.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoTunnel`], or [`Refusal::Overloaded`] when all there are carry as many requests as they may.
    pub fn pick(&mut self, key: &RouteKey<'_>) -> Result<TunnelId, Refusal> {
        self.pick_for(key, Attempt::default())
    }

    /// As [`Cache::pick`], for a request of which more is known.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoTunnel`] also if all there are must be avoided; [`Refusal::Overloaded`] also if the free places are
    /// for other clients.
    pub fn pick_for(&mut self, key: &RouteKey<'_>, attempt: Attempt<'_>) -> Result<TunnelId, Refusal> {
        let now = self.now;
        let index = match (&mut self.tenancy, key.tenant) {
            (Tenancy::Shared(index), _) => index,
            (Tenancy::Isolated(tenants), Some(tenant)) => tenants.get_mut(tenant).ok_or(Refusal::NoTunnel)?,
            (Tenancy::Isolated(_), None) => return Err(Refusal::NoTenant),
        };
        let node = match key.names {
            Names::Node => Some(*index.nodes.get(key.id).ok_or(Refusal::NoTunnel)?),
            Names::Cluster => None,
            Names::Either => index.nodes.get(key.id).copied(),
        };
        match node {
            Some(node) => {
                let node = self.nodes.at_mut(node);
                node.pick(now, attempt, |_| true)
            }
            None => index.pick_cluster(&mut self.nodes, now, key.id, attempt),
        }
    }

    /// The tunnel that [`Cache::pick`] would choose now, and what speaks for it; nothing changes.
    ///
    /// # Errors
    ///
    /// Those of [`Cache::pick`].
    pub fn peek(&self, key: &RouteKey<'_>) -> Result<(TunnelId, Standing), Refusal> {
        let index = match (&self.tenancy, key.tenant) {
            (Tenancy::Shared(index), _) => index,
            (Tenancy::Isolated(tenants), Some(tenant)) => tenants.get(tenant).ok_or(Refusal::NoTunnel)?,
            (Tenancy::Isolated(_), None) => return Err(Refusal::NoTenant),
        };
        let now = self.now;
        let node = match key.names {
            Names::Node => Some(*index.nodes.get(key.id).ok_or(Refusal::NoTunnel)?),
            Names::Cluster => None,
            Names::Either => index.nodes.get(key.id).copied(),
        };
        let best = match node {
            Some(node) => self.nodes.at(node).best(now, |_| true),
            None => index.best_of_cluster(&self.nodes, now, key.id)?,
        };
        let chosen = best.ok_or(Refusal::Overloaded)?;
        let standing = Standing {
            own: chosen.own,
            streams: chosen.streams,
            suspect: chosen.is_suspect(self.now),
            leaving: chosen.leaving,
        };
        Ok((chosen.tunnel, standing))
    }

    /// A tunnel has missed a ping, or has given an echo since.
    pub fn on_missing(&mut self, tunnel: TunnelId, missing: bool) {
        self.with(tunnel, |candidate| candidate.missing = missing);
    }

    /// Somebody has said goodbye on a tunnel: it is chosen only where nothing else is.
    pub fn on_leaving(&mut self, tunnel: TunnelId) {
        self.restate(tunnel, |standing| standing.leaving = true);
        self.with(tunnel, |candidate| candidate.leaving = true);
    }

    /// The peer of a tunnel allows so many streams at once, all workers together. A tunnel that allows none now may allow
    /// some again.
    pub fn on_max_streams(&mut self, tunnel: TunnelId, streams: u32) {
        self.restate(tunnel, |standing| standing.max_streams = Some(streams));
        // Rounded up: the HTTP/2 connection, which all workers share, holds back what is too much.
        let share = streams.div_ceil(u32::from(self.workers).max(1));
        let limit = share.min(self.max_streams);
        self.with(tunnel, |candidate| candidate.limit = limit);
    }

    /// What this copy holds of the tunnels of a worker.
    pub fn digest(&self, owner: WorkerId) -> Digest {
        self.digests.get(&owner).copied().unwrap_or_default()
    }

    /// The tunnels of a worker that may be chosen, as far as this copy knows them.
    pub fn owned_by(&self, owner: WorkerId) -> impl Iterator<Item = (TunnelId, digest::Standing)> {
        let listed = self
            .tunnels
            .iter()
            .filter(move |(_, listed)| listed.owner == owner);
        listed.map(|(tunnel, listed)| (*tunnel, listed.standing))
    }

    fn restate(&mut self, tunnel: TunnelId, change: impl FnOnce(&mut digest::Standing)) {
        if let Some(listed) = self.tunnels.get_mut(&tunnel) {
            let digest = self.digests.entry(listed.owner).or_default();
            digest.remove(tunnel, listed.standing);
            change(&mut listed.standing);
            digest.add(tunnel, listed.standing);
        }
    }

    /// A request that was counted by [`Cache::pick`] has ended. No effect if the tunnel is gone.
    ///
    /// However it ended, the tunnel stays: that its connection has failed is for its owner to say, which publishes it.
    pub fn release(&mut self, tunnel: TunnelId, how: Ended) {
        self.with(tunnel, |candidate| {
            candidate.streams = candidate.streams.saturating_sub(1);
            match how {
                Ended::Answered => {}
                // No sign of anything.
                Ended::Abandoned | Ended::Failed(_) => {
                    candidate.unanswered = candidate.unanswered.saturating_sub(1);
                }
            }
        });
    }

    /// An answer has begun: a sign of life.
    pub fn on_answered(&mut self, tunnel: TunnelId) {
        let now = self.now;
        self.with(tunnel, |candidate| {
            candidate.unanswered = candidate.unanswered.saturating_sub(1);
            candidate.owes_since = now;
        });
    }

    fn with(&mut self, tunnel: TunnelId, change: impl FnOnce(&mut Candidate)) {
        let Some(listed) = self.tunnels.get(&tunnel) else {
            return;
        };
        let tunnels = &mut self.nodes.at_mut(listed.node).tunnels;
        if let Some(candidate) = tunnels.iter_mut().find(|c| c.tunnel == tunnel) {
            change(candidate);
        }
    }

    /// How many tunnels may be chosen.
    pub fn len(&self) -> usize {
        self.tunnels.len()
    }

    /// Whether no tunnel may be chosen.
    pub fn is_empty(&self) -> bool {
        self.tunnels.is_empty()
    }

    /// Every tunnel that may be chosen.
    pub fn tunnels(&self) -> impl Iterator<Item = TunnelId> {
        self.tunnels.keys().copied()
    }

    /// The identities that can be reached, with how many tunnels lead to each.
    pub fn identities(&self) -> BTreeMap<Arc<Identity>, u32> {
        let mut counts = BTreeMap::new();
        for listed in self.tunnels.values() {
            *counts.entry(Arc::clone(&listed.identity)).or_insert(0) += 1;
        }
        counts
    }

    /// How many nodes and how many clusters can be reached.
    pub fn counts(&self) -> (usize, usize) {
        let count = |index: &Index| (index.nodes.len(), index.clusters.len());
        match &self.tenancy {
            Tenancy::Shared(index) => count(index),
            Tenancy::Isolated(tenants) => tenants
                .values()
                .map(count)
                .fold((0, 0), |(nodes, clusters), (n, c)| (nodes + n, clusters + c)),
        }
    }

    /// How many requests this worker has on the tunnels of an identity.
    pub fn requests(&self, identity: &Identity) -> u32 {
        let index = match &self.tenancy {
            Tenancy::Shared(index) => Some(index),
            Tenancy::Isolated(tenants) => tenants.get(&identity.tenant),
        };
        let Some(node) = index.and_then(|index| index.nodes.get(&identity.node)) else {
            return 0;
        };
        let tunnels = self.nodes.at(*node).tunnels.iter();
        let own = tunnels.filter(|c| *c.identity == *identity);
        own.map(|c| c.streams).sum()
    }

    /// How many requests this worker has on a tunnel.
    pub fn streams(&self, tunnel: TunnelId) -> u32 {
        let find = |listed: &Listed| {
            let tunnels = &self.nodes.at(listed.node).tunnels;
            tunnels.iter().find(|c| c.tunnel == tunnel).map(|c| c.streams)
        };
        self.tunnels.get(&tunnel).and_then(find).unwrap_or(0)
    }
}

impl Index {
    /// The node of a tunnel that is about to come.
    fn insert(&mut self, nodes: &mut Nodes, identity: &Identity) -> Slot {
        let cluster = &identity.cluster;
        let slot = *self
            .nodes
            .entry(identity.node.clone())
            .or_insert_with(|| nodes.take());
        if !nodes.at(slot).serves(cluster) {
            let nodes = &mut self.clusters.entry(cluster.clone()).or_default().nodes;
            nodes.push_back(slot);
        }
        slot
    }

    /// A tunnel of a node has gone.
    fn remove(&mut self, nodes: &mut Nodes, slot: Slot, identity: &Identity) {
        let node = nodes.at(slot);
        if node.serves(&identity.cluster) {
            return;
        }
        if let Some(cluster) = self.clusters.get_mut(&identity.cluster) {
            cluster.nodes.retain(|other| *other != slot);
            if cluster.nodes.is_empty() {
                self.clusters.remove(&identity.cluster);
            }
        }
        if node.tunnels.is_empty() {
            self.nodes.remove(&identity.node);
            nodes.give_back(slot);
        }
    }

    fn best_of_cluster<'n>(
        &self,
        nodes: &'n Nodes,
        now: Instant,
        id: &str,
    ) -> Result<Option<&'n Candidate>, Refusal> {
        let cluster = self.clusters.get(id).ok_or(Refusal::NoTunnel)?;
        let best = |trusting: bool| {
            cluster.nodes.iter().find_map(|node| {
                let serves = |c: &Candidate| c.serves(id) && (trusting || !c.is_last_resort(now));
                nodes.at(*node).best(now, serves)
            })
        };
        Ok(best(false).or_else(|| best(true)))
    }

    fn pick_cluster(
        &mut self,
        nodes: &mut Nodes,
        now: Instant,
        id: &str,
        attempt: Attempt<'_>,
    ) -> Result<TunnelId, Refusal> {
        let cluster = self.clusters.get_mut(id).ok_or(Refusal::NoTunnel)?;
        let mut refused = Refusal::NoTunnel;
        for trusting in [false, true] {
            for _ in 0..cluster.nodes.len() {
                cluster.nodes.rotate_left(1);
                let Some(node) = cluster.nodes.back() else {
                    continue;
                };
                let serves = |c: &Candidate| c.serves(id) && (trusting || !c.is_last_resort(now));
                match nodes.at_mut(*node).pick(now, attempt, serves) {
                    Ok(tunnel) => return Ok(tunnel),
                    Err(why) if why == Refusal::Overloaded => refused = why,
                    Err(_) => {}
                }
            }
        }
        Err(refused)
    }
}

#[cfg(test)]
mod tests;
