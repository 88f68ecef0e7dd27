//! What processes report of themselves, for comparison with what the network knows.

use std::collections::BTreeSet;
use std::time::Duration;

use eddy_core::identity::TunnelId;
use eddy_runtime::report::{Phase, Report};

use crate::fabric::now;

/// What a process reports of itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims {
    /// When the process reported it.
    pub(crate) at: Duration,
    pub(crate) tunnels: usize,
    pub(crate) stats: Vec<(String, u64)>,
    /// The tunnels of a responder, one by one.
    pub(crate) listed: Vec<Listed>,
    /// The tunnels that each worker of a responder has in its directory.
    pub(crate) directories: Vec<BTreeSet<TunnelId>>,
}

/// A tunnel, as a responder lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) id: String,
    pub(crate) node: String,
    /// The address of its initiator.
    pub(crate) peer: String,
    /// Requests may be sent into it.
    pub(crate) is_open: bool,
}

impl Claims {
    pub(crate) fn of(reports: &[Report], stats: Vec<(String, u64)>) -> Self {
        let lines = reports.iter().flat_map(|report| &report.tunnels);
        let listed = lines.map(|line| Listed {
            id: line.id.clone(),
            node: line.identity.node.clone(),
            peer: line.host.clone(),
            is_open: line.state != Phase::Draining.label(),
        });
        let directories = reports
            .iter()
            .map(|report| report.routable.iter().copied().collect());
        Self {
            at: now(),
            tunnels: reports.iter().map(|report| report.tunnels.len()).sum(),
            stats,
            listed: listed.collect(),
            directories: directories.collect(),
        }
    }
}
