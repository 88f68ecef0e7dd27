//! One tunnel to be kept, and where it stands.

use std::net::SocketAddr;

use crate::backoff::Backoff;
use crate::identity::ClusterName;
use crate::time::{Deadline, Instant};

/// The handle of one tunnel to be kept. Never used again after its dial was given up, so that a late event about it
/// means nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub(super) u64);

/// Where a tunnel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The last dial or tunnel ended; the next dial is due later.
    Backoff { until: Instant, backoff: Backoff },
    /// The dial is due and waits for a permit.
    Waiting { since: Instant, backoff: Backoff },
    /// The dial is in flight.
    Connecting { deadline: Instant, backoff: Backoff },
    /// The tunnel is up.
    Established { since: Instant, backoff: Backoff },
    /// The tunnel finishes what runs on it and is not replaced by itself.
    Draining { deadline: Instant },
}

#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) host: (ClusterName, SocketAddr),
    pub(super) state: State,
}

impl Place {
    /// Whether it is one of the tunnels that its host is to have.
    pub(super) const fn counts(&self) -> bool {
        !matches!(self.state, State::Draining { .. })
    }

    /// The order in which surplus tunnels are let go.
    pub(super) const fn rank(&self) -> u8 {
        match self.state {
            State::Backoff { .. } => 0,
            State::Waiting { .. } => 1,
            State::Connecting { .. } => 2,
            State::Established { .. } => 3,
            State::Draining { .. } => 4,
        }
    }

    pub(super) const fn deadline(&self) -> Option<Deadline> {
        match self.state {
            State::Backoff { until, .. } => Some(Deadline {
                at: until,
                reason: "backoff",
            }),
            State::Connecting { deadline, .. } => Some(Deadline {
                at: deadline,
                reason: "dial",
            }),
            State::Draining { deadline } => Some(Deadline {
                at: deadline,
                reason: "drain",
            }),
            State::Waiting { .. } | State::Established { .. } => None,
        }
    }
}
