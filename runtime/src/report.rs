//! What a worker tells when the admin asks: one consistent turn of its own, to be added to the others'.

use std::time::Duration;

use eddy_core::identity::Identity;
use eddy_core::stats::Sheet;
use eddy_core::time::Instant;
use eddy_core::timings::Timings;
use serde::Serialize;

/// One worker's answer.
#[derive(Debug, Default)]
pub struct Report {
    /// Its numbers.
    pub stats: Sheet,
    /// How long things took.
    pub timings: Timings,
    /// Its tunnels.
    pub tunnels: Vec<TunnelLine>,
    /// The tunnels that it lost lately, the oldest first.
    pub closed: Vec<ClosedLine>,
    /// Requests that it has on tunnels, its own and others', by tunnel id.
    pub streams: Vec<(String, u32)>,
    /// The hosts that it dials.
    pub hosts: Vec<HostLine>,
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
    pub failures: std::collections::BTreeMap<String, u64>,
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
