//! The socket cache that each worker reads for every request: which live tunnels lead to a node or cluster.
//!
//! Each worker holds the whole of it, own tunnels and others' alike, so that choosing a tunnel is a local
//! lookup. Nodes and clusters are many to many: a node may announce itself under several clusters, each of
//! its tunnels then belongs to the cluster that it announced.
//!
//! Invariants: a node or cluster has an entry if and only if it has a live tunnel that is not draining; a
//! tunnel leaves only by its own id, so a late close never takes a newer tunnel with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::identity::{ClusterId, Identity, NodeId, TenantId, TunnelId, WorkerId};
use crate::router::{Names, Refusal, RouteKey};

/// One tunnel as the cache sees it.
#[derive(Clone, Debug)]
struct Candidate {
    tunnel: TunnelId,
    cluster: ClusterId,
    own: bool,
    streams: u32,
}

#[derive(Clone, Debug, Default)]
struct Node {
    tunnels: Vec<Candidate>,
    /// Where the search for the next tunnel begins, so that equal ones take turns.
    turn: usize,
}

#[derive(Clone, Debug, Default)]
struct Cluster {
    /// Sorted; each has at least one tunnel that announced this cluster.
    nodes: Vec<NodeId>,
    turn: usize,
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
        }
    }

    /// Adds a tunnel that may be chosen from now on. Adding it again has no effect.
    pub fn insert(&mut self, tunnel: TunnelId, identity: &Arc<Identity>, owner: WorkerId) {
        if self.tunnels.contains_key(&tunnel) {
            return;
        }
        self.tunnels.insert(tunnel, Arc::clone(identity));
        let candidate = Candidate {
            tunnel,
            cluster: identity.cluster.clone(),
            own: owner == self.worker,
            streams: 0,
        };
        let index = match &mut self.tenancy {
            Tenancy::Shared(index) => index,
            Tenancy::Isolated(tenants) => tenants.entry(identity.tenant.clone()).or_default(),
        };
        index.insert(candidate, identity);
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
    /// fewest requests in flight, equal ones in turn. A cluster's nodes take turns.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoTunnel`], or [`Refusal::Overloaded`] when all there are carry `max_streams` requests.
    pub fn pick(&mut self, key: &RouteKey<'_>) -> Result<TunnelId, Refusal> {
        let max = self.max_streams;
        let index = match (&mut self.tenancy, key.tenant) {
            (Tenancy::Shared(index), _) => index,
            (Tenancy::Isolated(tenants), Some(tenant)) => tenants.get_mut(tenant).ok_or(Refusal::NoTunnel)?,
            (Tenancy::Isolated(_), None) => return Err(Refusal::NoTenant),
        };
        match key.names {
            Names::Node => index.pick_node(key.id, max),
            Names::Cluster => index.pick_cluster(key.id, max),
            Names::Either if index.nodes.contains_key(key.id) => index.pick_node(key.id, max),
            Names::Either => index.pick_cluster(key.id, max),
        }
    }

    /// A request that was counted by [`Cache::pick`] has ended. No effect if the tunnel is gone.
    pub fn release(&mut self, tunnel: TunnelId) {
        let Some(identity) = self.tunnels.get(&tunnel) else {
            return;
        };
        let index = match &mut self.tenancy {
            Tenancy::Shared(index) => Some(index),
            Tenancy::Isolated(tenants) => tenants.get_mut(&identity.tenant),
        };
        let node = index.and_then(|index| index.nodes.get_mut(&identity.node));
        if let Some(candidate) = node.and_then(|n| n.tunnels.iter_mut().find(|c| c.tunnel == tunnel)) {
            candidate.streams = candidate.streams.saturating_sub(1);
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
    fn insert(&mut self, candidate: Candidate, identity: &Identity) {
        self.nodes
            .entry(identity.node.clone())
            .or_default()
            .tunnels
            .push(candidate);
        let nodes = &mut self.clusters.entry(identity.cluster.clone()).or_default().nodes;
        if let Err(at) = nodes.binary_search(&identity.node) {
            nodes.insert(at, identity.node.clone());
        }
    }

    fn remove(&mut self, tunnel: TunnelId, identity: &Identity) {
        let Some(node) = self.nodes.get_mut(&identity.node) else {
            return;
        };
        node.tunnels.retain(|c| c.tunnel != tunnel);
        let serves_cluster = node.tunnels.iter().any(|c| c.cluster == identity.cluster);
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

    fn pick_node(&mut self, id: &str, max: u32) -> Result<TunnelId, Refusal> {
        let node = self.nodes.get_mut(id).ok_or(Refusal::NoTunnel)?;
        node.pick(max, |_| true).ok_or(Refusal::Overloaded)
    }

    fn pick_cluster(&mut self, id: &str, max: u32) -> Result<TunnelId, Refusal> {
        let cluster = self.clusters.get_mut(id).ok_or(Refusal::NoTunnel)?;
        for _ in 0..cluster.nodes.len() {
            let at = cluster.turn % cluster.nodes.len();
            cluster.turn = at + 1;
            let node = self.nodes.get_mut(&cluster.nodes[at]);
            if let Some(tunnel) = node.and_then(|n| n.pick(max, |c| c.cluster.as_str() == id)) {
                return Ok(tunnel);
            }
        }
        Err(Refusal::Overloaded)
    }
}

impl Node {
    fn pick(&mut self, max: u32, eligible: impl Fn(&Candidate) -> bool) -> Option<TunnelId> {
        let count = self.tunnels.len();
        let order = (0..count).map(|i| (self.turn + i) % count);
        let best = order
            .filter(|&i| eligible(&self.tunnels[i]) && self.tunnels[i].streams < max)
            .min_by_key(|&i| (!self.tunnels[i].own, self.tunnels[i].streams))?;
        self.turn = best + 1;
        let chosen = &mut self.tunnels[best];
        chosen.streams += 1;
        Some(chosen.tunnel)
    }
}

#[cfg(test)]
mod tests;
