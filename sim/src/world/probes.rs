//! Requests of the oracle's own: whether each worker of a responder reaches each node that has a tunnel to it.
//!
//! The workers of a responder hold a copy of the directory each. Clients cannot choose their worker, so that a single wrong
//! copy shows in a share of the requests alone. Probes use the door that the simulated network gives each worker.

use std::collections::{BTreeMap, BTreeSet};

use eddy_runtime::config::Config;

use super::calm::CALM;
use super::clients::Probe;
use super::{Step, World};
use crate::oracle::{Breach, Invariant};

/// How many nodes are asked for in the calm after a scenario, at every worker of their responders.
const NODES: usize = 12;

impl World<'_> {
    /// Asks each worker of some responders for each of their nodes; the oracle judges what comes back as it does for
    /// all requests.
    pub(super) fn probe(&self, via: &[usize]) {
        for probe in self.probes_of(usize::MAX).into_values().flatten() {
            if via.contains(&probe.via) {
                // The clients live as long as the world.
                let _ = self.probes.send(probe);
            }
        }
    }

    /// The probes by worker, for so many nodes at most.
    fn probes_of(&self, nodes: usize) -> BTreeMap<u16, Vec<Probe>> {
        let tunnels = self.oracle.tunnels.iter();
        let whole = tunnels.filter(|(_, tunnel)| tunnel.is_whole());
        let reached: BTreeSet<_> = whole
            .filter_map(|(_, tunnel)| {
                let identity = self.scenario.processes[tunnel.initiator.0].identity()?;
                Some((identity.node.clone(), tunnel.responder.0))
            })
            .collect();
        let mut probes: BTreeMap<u16, Vec<Probe>> = BTreeMap::new();
        for (node, via) in reached.into_iter().take(nodes) {
            let Config::Responder(config) = &self.scenario.processes[via].config else {
                continue;
            };
            for worker in 0..config.workers {
                let node = node.clone();
                probes
                    .entry(worker)
                    .or_default()
                    .push(Probe { node, via, worker });
            }
        }
        probes
    }

    /// After the scenario each node must answer at each worker of its responders. The workers are asked one after the
    /// other, so that no node has more than one request at a time.
    pub(super) fn probe_every_worker(&mut self) -> Step {
        for probes in self.probes_of(NODES).into_values() {
            let before = self.ledger.all().len();
            let count = before + probes.len();
            for probe in probes {
                // The clients live as long as the world.
                let _ = self.probes.send(probe);
            }
            self.expect_by(CALM, Invariant::Once, "every request has ended", |world| {
                world.ledger.all().len() == count && world.ledger.open() == 0
            })?;
            for request in self.ledger.all().iter().skip(before) {
                let Some((_, outcome)) = &request.ended else {
                    continue;
                };
                if !outcome.is_good() {
                    let worker = request.worker.unwrap_or_default();
                    let via = &self.slots[request.via.0].name;
                    return Err(self.broken(&Breach {
                        invariant: Invariant::Route,
                        expected: format!(
                            "worker {worker} of {via} reaches {}, as every tunnel is up",
                            request.target
                        ),
                        seen: outcome.to_string(),
                    }));
                }
            }
        }
        Ok(())
    }
}
