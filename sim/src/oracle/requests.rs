//! What must hold of every single request.

use std::time::Duration;

use super::{Breach, Invariant, Oracle};
use crate::fabric::ProcessId;
use crate::request::{Outcome, Request};
use crate::scenario::{CLIENTS, Target};

/// A tunnel that is up for so long must be known to every worker.
const SETTLED: Duration = Duration::from_secs(2);
/// A request that nobody can serve is refused before.
const PROMPT: Duration = Duration::from_secs(3);
/// Eddy's word for it.
const NO_TUNNEL: &str = "no_tunnel";

impl Oracle {
    pub(super) fn check_request(&self, id: u64) -> Result<(), Breach> {
        let Some(request) = self.ledger.with(id, Request::clone) else {
            return Ok(());
        };
        self.check_destination(id, &request)?;
        check_once(id, &request)?;
        match &request.ended {
            Some((at, outcome)) => self.check_route(id, &request, *at, outcome),
            None => Ok(()),
        }
    }

    /// Whether an initiator is whom a request asks for.
    fn is_asked_for(&self, process: ProcessId, target: &Target) -> bool {
        let Some(identity) = self.processes[process.0].identity() else {
            return false;
        };
        match target {
            Target::Node(node) => identity.node == *node,
            Target::Cluster(cluster) => identity.cluster == *cluster,
            Target::Nobody => false,
        }
    }

    fn check_destination(&self, id: u64, request: &Request) -> Result<(), Breach> {
        let wrong = request
            .delivered
            .iter()
            .find(|process| !self.is_asked_for(**process, &request.target));
        match wrong {
            None => Ok(()),
            Some(process) => Err(Breach {
                invariant: Invariant::Destination,
                expected: format!("request {id} reaches {:?}, or nobody", request.target),
                seen: format!("it reached {}", self.slots[process.0].name),
            }),
        }
    }

    fn check_route(&self, id: u64, request: &Request, at: Duration, outcome: &Outcome) -> Result<(), Breach> {
        let candidates = (0..self.processes.len())
            .map(ProcessId)
            .filter(|process| self.is_asked_for(*process, &request.target));
        let candidates: Vec<_> = candidates.collect();
        let refused = matches!(outcome, Outcome::Answer { reason: Some(reason), .. } if reason == NO_TUNNEL);
        if refused {
            for process in &candidates {
                if self.had_settled_tunnel(*process, request) {
                    return Err(Breach {
                        invariant: Invariant::Route,
                        expected: format!(
                            "request {id} is sent into the tunnel of {}",
                            self.slots[process.0].name
                        ),
                        seen: match request.worker {
                            None => "it was refused: no tunnel".to_owned(),
                            Some(worker) => format!("worker {worker} refused it: no tunnel"),
                        },
                    });
                }
            }
            return Ok(());
        }
        let took = at.saturating_sub(request.sent);
        let hopeless = request.target != Target::Nobody
            && candidates
                .iter()
                .all(|process| self.had_no_tunnel(*process, request))
            && self.reached_its_responder(request);
        if hopeless
            && (took > PROMPT
                || !matches!(
                    outcome,
                    Outcome::Answer {
                        status: 503 | 404,
                        ..
                    }
                ))
        {
            return Err(Breach {
                invariant: Invariant::Route,
                expected: format!("request {id} is refused, as nobody has a tunnel that could serve it"),
                seen: format!("{outcome} after {took:?}"),
            });
        }
        Ok(())
    }

    /// Whether a tunnel to `process` was up and undisturbed all the while, and well before.
    fn had_settled_tunnel(&self, process: ProcessId, request: &Request) -> bool {
        let calm = [process, request.via].map(|end| self.disturbances.calm_since(end));
        let [Some(here), Some(there)] = calm else {
            return false;
        };
        self.tunnels.between(process, request.via).any(|tunnel| {
            let settled = tunnel.opened_at.max(here).max(there) + SETTLED;
            tunnel.is_whole() && settled <= request.sent
        })
    }

    /// Whether the responder had no end of a tunnel to `process` since well before the request.
    fn had_no_tunnel(&self, process: ProcessId, request: &Request) -> bool {
        let open = self
            .tunnels
            .between(process, request.via)
            .any(|tunnel| tunnel.server_open);
        let closed = self.tunnels.last_closed_at(request.via, process);
        !open && closed.is_none_or(|at| at + SETTLED <= request.sent)
    }

    /// Whether nothing stood between the client and a responder that works.
    fn reached_its_responder(&self, request: &Request) -> bool {
        let via = self.disturbances.calm_since(request.via);
        let clients = self.disturbances.machine_calm_since(CLIENTS);
        matches!((via, clients), (Some(via), Some(clients)) if via.max(clients) + SETTLED <= request.sent)
    }
}

fn check_once(id: u64, request: &Request) -> Result<(), Breach> {
    let breach = |expected: String, seen: String| {
        Err(Breach {
            invariant: Invariant::Once,
            expected,
            seen,
        })
    };
    if !request.idempotent && request.delivered.len() > 1 {
        let times = request.delivered.len();
        return breach(
            format!("request {id} is delivered once: it must not be repeated"),
            format!("{times} services got it"),
        );
    }
    match &request.ended {
        Some((_, Outcome::Foreign(other))) => breach(
            format!("the response to request {id} is its own"),
            format!("it is the response to request {other}"),
        ),
        Some((_, Outcome::Answer { by: Some(by), .. })) if !request.delivered.contains(&ProcessId(*by)) => {
            breach(
                format!("request {id} is answered by a service that got it"),
                format!("process {by} answered"),
            )
        }
        Some((
            _,
            Outcome::Answer {
                reason: Some(reason), ..
            },
        )) if reason == NO_TUNNEL && !request.delivered.is_empty() => breach(
            format!("request {id} reaches nobody, as Eddy says that it has no tunnel"),
            format!("{} services got it", request.delivered.len()),
        ),
        Some(_) | None => Ok(()),
    }
}
