//! One tunnel to be kept, and where it stands.

use std::cmp::Reverse;
use std::net::SocketAddr;

use crate::backoff::Backoff;
use crate::identity::ClusterName;
use crate::time::{Deadline, Instant};

/// The handle of one dial and of the tunnel that it becomes.
///
/// The index names the tunnel to be kept, the generation counts its dials, so that a late event about an earlier
/// one means nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    index: u32,
    generation: u32,
}

impl Slot {
    pub(super) const fn first(index: u32) -> Self {
        Self { index, generation: 0 }
    }

    /// Which tunnel to be kept; no other one of the dialer has it while this one is there, draining included.
    pub const fn index(self) -> u32 {
        self.index
    }

    pub(super) const fn next_generation(self) -> Self {
        Self {
            index: self.index,
            generation: self.generation.wrapping_add(1),
        }
    }
}

/// Where a tunnel stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The last dial or tunnel ended; the next dial is due later.
    Backoff { until: Instant, backoff: Backoff },
    /// The dial is due and waits for a permit.
    Waiting { since: Instant, backoff: Backoff },
    /// The dial is in flight.
    Connecting {
        deadline: Instant,
        /// When the next connect is to start; none once there is a connection.
        overlap_at: Option<Instant>,
        backoff: Backoff,
    },
    /// The tunnel is up.
    Established { since: Instant, backoff: Backoff },
    /// The tunnel finishes what runs on it and is not replaced by itself.
    Draining {
        deadline: Instant,
        /// The place of its replacement, if the tunnel is to go once that is up.
        until_up: Option<u32>,
    },
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

    /// The order in which surplus tunnels are let go: the furthest from being up first, and of those that are up
    /// the youngest, as the older have proved themselves.
    pub(super) const fn rank(&self) -> (u8, Reverse<Instant>) {
        match self.state {
            State::Backoff { until, .. } => (0, Reverse(until)),
            State::Waiting { since, .. } => (1, Reverse(since)),
            State::Connecting { deadline, .. } => (2, Reverse(deadline)),
            State::Established { since, .. } => (3, Reverse(since)),
            State::Draining { deadline, .. } => (4, Reverse(deadline)),
        }
    }

    pub(super) fn deadline(&self) -> Option<Deadline> {
        match self.state {
            State::Backoff { until, .. } => Some(Deadline {
                at: until,
                reason: "backoff",
            }),
            State::Connecting {
                overlap_at: Some(at),
                deadline,
                ..
            } if at < deadline => Some(Deadline {
                at,
                reason: "no connection yet",
            }),
            State::Connecting { deadline, .. } => Some(Deadline {
                at: deadline,
                reason: "dial",
            }),
            State::Draining { deadline, .. } => Some(Deadline {
                at: deadline,
                reason: "drain",
            }),
            State::Waiting { .. } | State::Established { .. } => None,
        }
    }
}
