//! Invariant 1 at every worker: each copy of the directory has a route to a node if and only if a live tunnel exists.

use std::collections::{BTreeMap, BTreeSet};

use super::{Breach, Invariant, Oracle};
use crate::claims::{Claims, Listed};
use crate::scenario::Role;
use crate::slot::Slot;

impl Oracle {
    /// Compares what a responder lists, and each of its workers' copies, with the tunnels of the network. Nothing has
    /// changed for a while.
    pub(super) fn check_directories(&self, slot: &Slot, claims: &Claims) -> Result<(), Breach> {
        if self.processes[slot.id.0].role != Role::Responder || slot.compared.get() == claims.at {
            return Ok(());
        }
        slot.compared.set(claims.at);
        let truth: BTreeSet<_> = self
            .tunnels
            .of(slot.id)
            .filter(|tunnel| tunnel.is_whole())
            .map(|tunnel| tunnel.client.to_string())
            .collect();
        let listed: BTreeMap<_, _> = claims.listed.iter().map(|line| (&*line.id, line)).collect();
        for line in &claims.listed {
            if !truth.contains(&line.peer) {
                return Err(Breach {
                    invariant: Invariant::Truth,
                    expected: format!("{} lists the tunnels that are up", slot.name),
                    seen: format!("it lists {}, which is not", name(line)),
                });
            }
        }
        for (directory, worker) in claims.directories.iter().zip(0..) {
            let has: BTreeSet<_> = directory.iter().map(ToString::to_string).collect();
            let missing = claims
                .listed
                .iter()
                .find(|line| line.is_open && !has.contains(&line.id));
            if let Some(line) = missing {
                return Err(Breach {
                    invariant: Invariant::Route,
                    expected: format!(
                        "worker {worker} of {} has a route to {}, which is up at both ends",
                        slot.name,
                        name(line)
                    ),
                    seen: "its copy of the directory does not have the tunnel".to_owned(),
                });
            }
            if let Some(id) = has.iter().find(|id| !listed.contains_key(id.as_str())) {
                return Err(Breach {
                    invariant: Invariant::Route,
                    expected: format!(
                        "worker {worker} of {} has routes to live tunnels alone",
                        slot.name
                    ),
                    seen: format!("its copy of the directory has tunnel {id}, which does not exist"),
                });
            }
        }
        Ok(())
    }
}

fn name(line: &Listed) -> String {
    format!("tunnel {} of node {}", line.id, line.node)
}
