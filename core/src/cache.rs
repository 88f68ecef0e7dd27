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

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::identity::{ClusterId, Identity, NodeId, TenantId, TunnelId, WorkerId};
use crate::router::{Names, Refusal, RouteKey};
use crate::time::Instant;

/// How long a tunnel may owe an answer before others are preferred: above what most services take, far below the
/// seconds after which a keepalive gives a tunnel up. A slow service costs its tunnel only its turn.
pub const SUSPECT_AFTER: Duration = Duration::from_millis(500);

/// One tunnel as the cache sees it.
#[derive(Clone, Debug)]
struct Candidate {
    tunnel: TunnelId,
    cluster: ClusterId,
    own: bool,
    streams: u32,
    /// When it had its last turn, or came.
    turn: u64,
    /// Requests of this worker that have no answer yet.
    unanswered: u32,
    /// The last sign of life while some are, or when the first of them was sent.
    owes_since: Instant,
    /// The echo of its last ping is late.
    missing: bool,
    /// Somebody has said goodbye on it.
    leaving: bool,
}

impl Candidate {
    fn is_suspect(&self, now: Instant) -> bool {
        self.missing || self.unanswered > 0 && now - self.owes_since >= SUSPECT_AFTER
    }

    /// Whether another one, be it of another node of the cluster, is preferred.
    fn is_last_resort(&self, now: Instant) -> bool {
        self.leaving || self.is_suspect(now)
    }

    /// The smallest is chosen.
    fn rank(&self, now: Instant) -> (bool, bool, bool, u32, u64) {
        (
            self.is_suspect(now),
            self.leaving,
            !self.own,
            self.streams,
            self.turn,
        )
    }
}

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

#[derive(Clone, Debug, Default)]
struct Node {
    tunnels: Vec<Candidate>,
    /// How many turns there were, so that each has a number of its own.
    turns: u64,
}

#[derive(Clone, Debug, Default)]
struct Cluster {
    /// The next in turn first; each has at least one tunnel that announced this cluster.
    nodes: VecDeque<NodeId>,
}

#[derive(Clone, Debug, Default)]
struct Index {
    nodes: BTreeMap<NodeId, Node>,
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
    max_streams: u32,
    tenancy: Tenancy,
    tunnels: BTreeMap<TunnelId, Arc<Identity>>,
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
            max_streams,
            tenancy,
            tunnels: BTreeMap::new(),
            now: Instant::ZERO,
        }
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
        self.tunnels.insert(tunnel, Arc::clone(identity));
        let (now, own) = (self.now, owner == self.worker);
        let index = match &mut self.tenancy {
            Tenancy::Shared(index) => index,
            Tenancy::Isolated(tenants) => tenants.entry(identity.tenant.clone()).or_default(),
        };
        index.insert(now, tunnel, identity, own);
    }

    /// Whose tunnel it is, while it may be chosen.
    pub fn identity(&self, tunnel: TunnelId) -> Option<&Arc<Identity>> {
        self.tunnels.get(&tunnel)
    }

    /// Takes a tunnel out: it is closed, or it drains. Returns whether it was there.
    pub fn remove(&mut self, tunnel: TunnelId) -> bool {
        let Some(identity) = self.tunnels.remove(&tunnel) else {
            return false;
        };
        match &mut self.tenancy {
            Tenancy::Shared(index) => index.remove(tunnel, &identity),
            Tenancy::Isolated(tenants) => {
                if let Some(index) = tenants.get_mut(&identity.tenant) {
                    index.remove(tunnel, &identity);
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
    /// [`Refusal::NoTunnel`], or [`Refusal::Overloaded`] when all there are carry `max_streams` requests.
    pub fn pick(&mut self, key: &RouteKey<'_>) -> Result<TunnelId, Refusal> {
        let (max, now) = (self.max_streams, self.now);
        let index = match (&mut self.tenancy, key.tenant) {
            (Tenancy::Shared(index), _) => index,
            (Tenancy::Isolated(tenants), Some(tenant)) => tenants.get_mut(tenant).ok_or(Refusal::NoTunnel)?,
            (Tenancy::Isolated(_), None) => return Err(Refusal::NoTenant),
        };
        match key.names {
            Names::Node => index.pick_node(now, key.id, max),
            Names::Cluster => index.pick_cluster(now, key.id, max),
            Names::Either if index.nodes.contains_key(key.id) => index.pick_node(now, key.id, max),
            Names::Either => index.pick_cluster(now, key.id, max),
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
        let by_node = match key.names {
            Names::Node => true,
            Names::Cluster => false,
            Names::Either => index.nodes.contains_key(key.id),
        };
        let chosen = index.peek(self.now, key.id, by_node, self.max_streams)?;
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
        self.with(tunnel, |candidate| candidate.leaving = true);
    }

    /// A request that was counted by [`Cache::pick`] has ended. No effect if the tunnel is gone.
    pub fn release(&mut self, tunnel: TunnelId) {
        self.with(tunnel, |candidate| {
            candidate.streams = candidate.streams.saturating_sub(1)
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

    /// A request will have no answer: no sign of anything.
    pub fn on_given_up(&mut self, tunnel: TunnelId) {
        self.with(tunnel, |candidate| {
            candidate.unanswered = candidate.unanswered.saturating_sub(1)
        });
    }

    fn with(&mut self, tunnel: TunnelId, change: impl FnOnce(&mut Candidate)) {
        let Some(identity) = self.tunnels.get(&tunnel) else {
            return;
        };
        let index = match &mut self.tenancy {
            Tenancy::Shared(index) => Some(index),
            Tenancy::Isolated(tenants) => tenants.get_mut(&identity.tenant),
        };
        let node = index.and_then(|index| index.nodes.get_mut(&identity.node));
        if let Some(candidate) = node.and_then(|n| n.tunnels.iter_mut().find(|c| c.tunnel == tunnel)) {
            change(candidate);
        }
    }

    /// The identities that can be reached, with how many tunnels lead to each.
    pub fn identities(&self) -> BTreeMap<Arc<Identity>, u32> {
        let mut counts = BTreeMap::new();
        for identity in self.tunnels.values() {
            *counts.entry(Arc::clone(identity)).or_insert(0) += 1;
        }
        counts
    }

    /// How many requests this worker has on the tunnels of an identity.
    pub fn requests(&self, identity: &Identity) -> u32 {
        let index = match &self.tenancy {
            Tenancy::Shared(index) => Some(index),
            Tenancy::Isolated(tenants) => tenants.get(&identity.tenant),
        };
        let node = index.and_then(|index| index.nodes.get(&identity.node));
        let tunnels = node.map(|node| node.tunnels.iter()).into_iter().flatten();
        let own = tunnels.filter(|c| self.tunnels.get(&c.tunnel).is_some_and(|i| **i == *identity));
        own.map(|c| c.streams).sum()
    }

    /// How many requests this worker has on a tunnel.
    pub fn streams(&self, tunnel: TunnelId) -> u32 {
        let find = |identity: &Arc<Identity>| {
            let index = match &self.tenancy {
                Tenancy::Shared(index) => index,
                Tenancy::Isolated(tenants) => tenants.get(&identity.tenant)?,
            };
            let node = index.nodes.get(&identity.node)?;
            node.tunnels
                .iter()
                .find(|c| c.tunnel == tunnel)
                .map(|c| c.streams)
        };
        self.tunnels.get(&tunnel).and_then(find).unwrap_or(0)
    }
}

impl Index {
    fn insert(&mut self, now: Instant, tunnel: TunnelId, identity: &Identity, own: bool) {
        let cluster = &identity.cluster;
        let node = self.nodes.entry(identity.node.clone()).or_default();
        if !node.serves(cluster) {
            let nodes = &mut self.clusters.entry(cluster.clone()).or_default().nodes;
            nodes.push_back(identity.node.clone());
        }
        let turn = node.next_turn();
        node.tunnels.push(Candidate {
            tunnel,
            cluster: cluster.clone(),
            own,
            streams: 0,
            turn,
            unanswered: 0,
            owes_since: now,
            missing: false,
            leaving: false,
        });
    }

    fn remove(&mut self, tunnel: TunnelId, identity: &Identity) {
        let Some(node) = self.nodes.get_mut(&identity.node) else {
            return;
        };
        node.tunnels.retain(|c| c.tunnel != tunnel);
        let serves_cluster = node.serves(&identity.cluster);
        if node.tunnels.is_empty() {
            self.nodes.remove(&identity.node);
        }
        if serves_cluster {
            return;
        }
        if let Some(cluster) = self.clusters.get_mut(&identity.cluster) {
            cluster.nodes.retain(|n| *n != identity.node);
            if cluster.nodes.is_empty() {
                self.clusters.remove(&identity.cluster);
            }
        }
    }

    fn peek(&self, now: Instant, id: &str, by_node: bool, max: u32) -> Result<&Candidate, Refusal> {
        if by_node {
            let node = self.nodes.get(id).ok_or(Refusal::NoTunnel)?;
            return node.best(now, max, |_| true).ok_or(Refusal::Overloaded);
        }
        let cluster = self.clusters.get(id).ok_or(Refusal::NoTunnel)?;
        let best = |trusting: bool| {
            cluster.nodes.iter().find_map(|node| {
                let serves = |c: &Candidate| c.cluster.as_str() == id && (trusting || !c.is_last_resort(now));
                self.nodes.get(node)?.best(now, max, serves)
            })
        };
        best(false).or_else(|| best(true)).ok_or(Refusal::Overloaded)
    }

    fn pick_node(&mut self, now: Instant, id: &str, max: u32) -> Result<TunnelId, Refusal> {
        let node = self.nodes.get_mut(id).ok_or(Refusal::NoTunnel)?;
        node.pick(now, max, |_| true).ok_or(Refusal::Overloaded)
    }

    fn pick_cluster(&mut self, now: Instant, id: &str, max: u32) -> Result<TunnelId, Refusal> {
        let cluster = self.clusters.get_mut(id).ok_or(Refusal::NoTunnel)?;
        for trusting in [false, true] {
            for _ in 0..cluster.nodes.len() {
                cluster.nodes.rotate_left(1);
                let node = cluster.nodes.back().and_then(|node| self.nodes.get_mut(node));
                let serves = |c: &Candidate| c.cluster.as_str() == id && (trusting || !c.is_last_resort(now));
                if let Some(tunnel) = node.and_then(|n| n.pick(now, max, serves)) {
                    return Ok(tunnel);
                }
            }
        }
        Err(Refusal::Overloaded)
    }
}

impl Node {
    fn serves(&self, cluster: &ClusterId) -> bool {
        self.tunnels.iter().any(|c| c.cluster == *cluster)
    }

    const fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }

    fn best(&self, now: Instant, max: u32, eligible: impl Fn(&Candidate) -> bool) -> Option<&Candidate> {
        let open = self.tunnels.iter().filter(|c| c.streams < max && eligible(c));
        open.min_by_key(|c| c.rank(now))
    }

    fn pick(&mut self, now: Instant, max: u32, eligible: impl Fn(&Candidate) -> bool) -> Option<TunnelId> {
        let turn = self.next_turn();
        let some = self.tunnels.iter_mut();
        let chosen = some
            .filter(|c| c.streams < max && eligible(c))
            .min_by_key(|c| c.rank(now))?;
        if chosen.unanswered == 0 {
            chosen.owes_since = now;
        }
        chosen.turn = turn;
        chosen.streams += 1;
        chosen.unanswered += 1;
        Some(chosen.tunnel)
    }
}

#[cfg(test)]
mod tests;
