//! What a worker tells when the admin asks: one consistent turn of its own, to be added to the others'.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use eddy_core::identity::{Identity, TunnelId, WorkerId};
pub use eddy_core::phase::Phase;
use eddy_core::router::Names;
use eddy_core::stats::{Name, Sheet};
use eddy_core::time::Instant;
use eddy_core::timings::Timings;
use serde::Serialize;

/// What is asked of a worker: what it tells in one turn keeps its requests waiting.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Its numbers alone.
    Numbers,
    /// All there is of one node or cluster, and its numbers.
    Of(Asked),
    /// Everything.
    Everything,
}

/// Whom a question is about.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Whether `id` is a node's or a cluster's.
    pub names: Names,
    /// The node or cluster.
    pub id: String,
    /// Its tenant, where tenants are kept apart.
    pub tenant: Option<String>,
}

impl Ask {
    /// Whether the tunnels of an identity are to be told one by one.
    pub(crate) fn is_about(&self, identity: &Identity) -> bool {
        match self {
            Self::Numbers => false,
            Self::Everything => true,
            Self::Of(asked) => {
                let id = match asked.names {
                    Names::Node => identity.node.as_str(),
                    Names::Cluster | Names::Either => identity.cluster.as_str(),
                };
                let tenant = asked.tenant.as_ref();
                id == asked.id && tenant.is_none_or(|tenant| tenant == identity.tenant.as_str())
            }
        }
    }
}

/// One worker's answer.
#[derive(Debug, Default)]
pub struct Report {
    /// Its numbers.
    pub stats: Sheet,
    /// How many tunnels each identity has on it, if such numbers are wanted.
    pub identities: Option<(WorkerId, BTreeMap<Arc<Identity>, u64>)>,
    /// How long things took.
    pub timings: Timings,
    /// Its tunnels.
    pub tunnels: Vec<TunnelLine>,
    /// The tunnels that it lost lately, the oldest first.
    pub closed: Vec<ClosedLine>,
    /// Requests that it has on tunnels, its own and others', by tunnel id.
    pub streams: Vec<(String, u32)>,
    /// The tunnels that it may choose for a request, its own and others', if everything is asked for.
    pub routable: Vec<TunnelId>,
    /// The hosts that it dials.
    pub hosts: Vec<HostLine>,
}

impl Report {
    /// Adds its numbers to those of others.
    pub(crate) fn add_to(&self, sheet: &mut Sheet) {
        sheet.merge(&self.stats);
        let Some((worker, identities)) = &self.identities else {
            return;
        };
        for (identity, count) in identities {
            let Identity { node, cluster, .. } = &**identity;
            for on in [None, Some(*worker)] {
                sheet.add(Name::NodeTunnels(on, node.clone()), *count);
                sheet.add(Name::ClusterTunnels(on, cluster.clone()), *count);
            }
            sheet.add(Name::IdentityTunnels(cluster.clone(), node.clone()), *count);
        }
    }
}

/// A tunnel, as `/tunnels` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct TunnelLine {
    /// Its id in this process.
    pub id: String,
    /// Whose it is.
    #[serde(flatten)]
    pub identity: IdentityLine,
    /// The address at the other end.
    pub host: String,
    /// The worker that owns it.
    pub worker: String,
    /// idle, active or draining.
    pub state: &'static str,
    /// Since when it is in this state, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// How long it has been in this state.
    pub for_seconds: f64,
    /// How long it has been open.
    pub open_seconds: f64,
    /// Requests on it now.
    pub streams: u32,
    /// What the peer calls it, if it says so: an initiator does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_tunnel: Option<String>,
    /// Which process the initiator is, and which tunnel of it, if it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Another process has a tunnel under the same node id.
    #[serde(rename = "duplicate", skip_serializing_if = "std::ops::Not::not")]
    pub is_duplicate: bool,
}

/// A tunnel that is gone.
#[derive(Clone, Debug, Serialize)]
pub struct ClosedLine {
    /// Its id in this process.
    pub id: String,
    /// Whose it was.
    #[serde(flatten)]
    pub identity: IdentityLine,
    /// When it closed, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// How long it had been open.
    pub lived_seconds: f64,
    /// Why it closed.
    pub reason: &'static str,
}

/// A host that an initiator dials.
#[derive(Clone, Debug, Serialize)]
pub struct HostLine {
    /// The upstream cluster.
    pub cluster: String,
    /// Its address.
    pub host: String,
    /// The worker that dials.
    pub worker: String,
    /// Tunnels that are up.
    pub connected: u32,
    /// Dials in flight.
    pub connecting: u32,
    /// Tunnels that wait for their next dial.
    pub backing_off: u32,
    /// Tunnels that finish what runs on them.
    pub draining: u32,
    /// Failed dials since the start, by reason.
    pub failures: BTreeMap<String, u64>,
    /// The last of them.
    pub last_failure: Option<&'static str>,
    /// When the next dial is due, if one is.
    pub next_dial_in_seconds: Option<f64>,
}

/// The three parts of an identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct IdentityLine {
    /// The node.
    pub node: String,
    /// The cluster.
    pub cluster: String,
    /// The tenant.
    pub tenant: String,
}

impl From<&Identity> for IdentityLine {
    fn from(identity: &Identity) -> Self {
        Self {
            node: identity.node.to_string(),
            cluster: identity.cluster.to_string(),
            tenant: identity.tenant.to_string(),
        }
    }
}

/// Translates the process's own time into people's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calendar {
    pub(crate) now: Instant,
    pub(crate) wall: Duration,
}

impl Calendar {
    pub(crate) fn unix_ms(&self, at: Instant) -> u64 {
        let then = self.wall.saturating_sub(self.now - at);
        u64::try_from(then.as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn ago(&self, at: Instant) -> f64 {
        round(self.now - at)
    }
}

/// Seconds, to the millisecond.
pub(crate) fn round(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use eddy_core::registry::State;

    use super::*;

    #[test]
    fn each_state_has_its_word() {
        let all = [State::Idle, State::Active, State::Leaving, State::Draining];
        let words = all.map(|state| Phase::from(state).label());
        assert_eq!(words, ["idle", "active", "draining", "draining"]);
    }
}
