//! The last ends of tunnels, for people who ask why: [`PER_IDENTITY`] of each identity, so that one that comes and goes
//! does not hide the others, and [`IN_ALL`] at most.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::close::CloseReason;
use crate::identity::{Identity, TunnelId};
use crate::time::Instant;

pub use crate::policy::{CLOSED_MAX as IN_ALL, CLOSED_PER_IDENTITY_MAX as PER_IDENTITY};

/// The end of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Which.
    pub tunnel: TunnelId,
    /// Whose it was.
    pub identity: Arc<Identity>,
    /// When it ended.
    pub at: Instant,
    /// How long it had been open.
    pub lived: Duration,
    /// Why.
    pub why: CloseReason,
}

/// The ends of the tunnels of one worker.
#[derive(Clone, Debug, Default)]
pub struct ClosedLog {
    /// The oldest first.
    lines: VecDeque<Closed>,
    of_identity: BTreeMap<Arc<Identity>, usize>,
    by_reason: BTreeMap<CloseReason, u64>,
}

impl ClosedLog {
    /// Nothing has ended yet.
    pub const fn new() -> Self {
        Self {
            lines: VecDeque::new(),
            of_identity: BTreeMap::new(),
            by_reason: BTreeMap::new(),
        }
    }

    /// A tunnel has ended.
    pub fn push(&mut self, closed: Closed) {
        *self.by_reason.entry(closed.why).or_default() += 1;
        let count = self.of_identity.entry(Arc::clone(&closed.identity)).or_default();
        *count += 1;
        if *count > PER_IDENTITY {
            let oldest = self
                .lines
                .iter()
                .position(|line| line.identity == closed.identity);
            self.remove(oldest);
        } else if self.lines.len() == IN_ALL {
            self.remove(Some(0));
        }
        self.lines.push_back(closed);
    }

    /// The ends that are remembered, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Closed> {
        self.lines.iter()
    }

    /// How many tunnels ever ended, by reason.
    pub const fn by_reason(&self) -> &BTreeMap<CloseReason, u64> {
        &self.by_reason
    }

    fn remove(&mut self, at: Option<usize>) {
        let Some(gone) = at.and_then(|at| self.lines.remove(at)) else {
            return;
        };
        if let Some(count) = self.of_identity.get_mut(&gone.identity) {
            *count -= 1;
            if *count == 0 {
                self.of_identity.remove(&gone.identity);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::{ClusterId, NodeId, TenantId, WorkerId};

    fn closed(node: u64, serial: u64) -> Closed {
        let identity = Identity {
            node: NodeId::parse(&format!("n{node}")).unwrap(),
            cluster: ClusterId::parse("c").unwrap(),
            tenant: TenantId::parse("t").unwrap(),
        };
        Closed {
            tunnel: TunnelId {
                named_by: WorkerId(0),
                serial,
            },
            identity: Arc::new(identity),
            at: Instant::ZERO,
            lived: Duration::ZERO,
            why: CloseReason::PeerClosed,
        }
    }

    fn serials(log: &ClosedLog) -> Vec<u64> {
        log.iter().map(|line| line.tunnel.serial).collect()
    }

    #[test]
    fn who_comes_and_goes_does_not_hide_the_others() {
        let mut log = ClosedLog::new();
        log.push(closed(1, 0));
        (1..100).for_each(|serial| log.push(closed(2, serial)));
        assert_eq!(serials(&log)[..3], [0, 80, 81]);
        assert_eq!(log.iter().count(), 1 + PER_IDENTITY);
        assert_eq!(log.by_reason()[&CloseReason::PeerClosed], 100, "all are counted");
    }

    #[test]
    fn of_too_many_the_oldest_go() {
        let mut log = ClosedLog::new();
        let many = IN_ALL as u64 + 7;
        (0..many).for_each(|n| log.push(closed(n, n)));
        assert_eq!(serials(&log), (7..many).collect::<Vec<_>>());
        assert_eq!(log.of_identity.len(), IN_ALL);
    }

    proptest! {
        /// The model keeps everything and picks what must be left.
        #[test]
        fn what_is_left_is_the_last_of_each(nodes in prop::collection::vec(0..4u64, 0..200)) {
            let mut log = ClosedLog::new();
            for (serial, &node) in (0..).zip(&nodes) {
                log.push(closed(node, serial));
            }
            let expected: Vec<_> = (0..nodes.len())
                .filter(|&at| nodes[at + 1..].iter().filter(|node| **node == nodes[at]).count() < PER_IDENTITY)
                .map(|at| at as u64)
                .collect();
            prop_assert_eq!(serials(&log), expected);
        }
    }
}
