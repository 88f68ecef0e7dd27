//! The responder's machine of one worker: names tunnels, places each on a worker, keeps the life of its own,
//! and tells the other workers.
//!
//! ```text
//!   place ──▶ (settling: the answer is on its way) ──opened──▶ Idle ──upgraded──▶ Active
//!                         │                                      └──────┬───────────┘
//!                         │                                             ├── leaving ──▶ Leaving ──┐
//!                         │                                             ├────────── draining ─────┴─▶ Draining
//!                         └───────────────── closed ────────────────────┴─── closed ── (from any of them)
//! ```
//!
//! *Leaving* is this end's goodbye: the initiator dials a replacement, and until that is there the tunnel is better than
//! none. *Draining* is the peer's, or the end of patience: no new requests.
//!
//! `closed` is final: a tunnel that is gone is forgotten, and events about it have no effect.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::close::CloseReason;
use crate::closed::{Closed, ClosedLog};
use crate::digest::{Digest, Standing};
use crate::identity::{Identity, NodeId, TenantId, TunnelId, WorkerId};
use crate::instance::Instance;
use crate::time::Instant;

/// Where a tunnel of this worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A bare socket, kept alive by RPING.
    Idle,
    /// HTTP/2 since its first request.
    Active,
    /// This end has said goodbye: chosen only where nothing else is.
    Leaving,
    /// No new requests; the running ones finish.
    Draining,
}

/// What a tunnel's handshake says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// The initiator.
    pub identity: Arc<Identity>,
    /// Its process, and the place of the tunnel in it, if it is an Eddy.
    pub instance: Option<Instance>,
    /// When the handshake was read: the order in which initiators dialed, whenever they received the response.
    pub heard: Instant,
}

/// A tunnel that this worker owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Whose it is.
    pub identity: Arc<Identity>,
    /// The initiator's process, if it is an Eddy.
    pub instance: Option<Instance>,
    /// When its handshake was read.
    pub heard: Instant,
    /// Where it is in its life.
    pub state: State,
    /// Since when it is there.
    pub since: Instant,
    /// When it opened.
    pub opened: Instant,
    /// How many streams the peer allows at once, once it has said so.
    pub max_streams: Option<u32>,
}

impl Tunnel {
    /// What its handshake said.
    pub fn introduction(&self) -> Introduction {
        Introduction {
            identity: Arc::clone(&self.identity),
            instance: self.instance,
            heard: self.heard,
        }
    }

    /// What other workers know of it; none if it may not be chosen.
    pub fn standing(&self) -> Option<Standing> {
        let leaving = match self.state {
            State::Idle | State::Active => false,
            State::Leaving => true,
            State::Draining => return None,
        };
        Some(Standing {
            leaving,
            max_streams: self.max_streams,
        })
    }
}

/// What workers tell each other about tunnels. Only the owner tells, so that for one tunnel the order holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// The tunnel may be chosen.
    Opened {
        /// Which.
        tunnel: TunnelId,
        /// What its handshake says.
        introduction: Introduction,
        /// The worker that has its socket.
        owner: WorkerId,
    },
    /// The tunnel is chosen only where nothing else is.
    Leaving {
        /// Which.
        tunnel: TunnelId,
    },
    /// The peer allows so many streams at once on the tunnel.
    MaxStreams {
        /// Which.
        tunnel: TunnelId,
        /// How many.
        streams: u32,
    },
    /// The tunnel may no longer be chosen; what runs on it goes on.
    Draining {
        /// Which.
        tunnel: TunnelId,
    },
    /// The tunnel is gone, or never opened.
    Closed {
        /// Which.
        tunnel: TunnelId,
    },
}

/// What the runtime must do for the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Tell the cache of this worker and every other worker.
    Publish(Fact),
}

/// Where a new tunnel goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Its id from now on.
    pub tunnel: TunnelId,
    /// The worker that is to own its socket.
    pub worker: WorkerId,
}

/// What placement counts: the tunnels of a node on each worker.
type NodeKey = (TenantId, NodeId);

#[derive(Clone, Debug)]
struct Seat {
    node: NodeKey,
    worker: WorkerId,
}

/// The registry of one worker.
#[derive(Clone, Debug)]
pub struct Registry {
    worker: WorkerId,
    workers: u16,
    serial: u64,
    owned: BTreeMap<TunnelId, Tunnel>,
    seats: BTreeMap<TunnelId, Seat>,
    loads: BTreeMap<NodeKey, Vec<u32>>,
    closed: ClosedLog,
    opened_total: u64,
    actions: VecDeque<Action>,
}

impl Registry {
    /// The registry of `worker`, one of `workers`.
    pub const fn new(worker: WorkerId, workers: u16) -> Self {
        Self {
            worker,
            workers,
            serial: 0,
            owned: BTreeMap::new(),
            seats: BTreeMap::new(),
            loads: BTreeMap::new(),
            closed: ClosedLog::new(),
            opened_total: 0,
            actions: VecDeque::new(),
        }
    }

    /// Names a tunnel whose handshake was accepted and says where it goes: to the worker with the fewest
    /// tunnels of that node, of equal ones this worker, then the lowest.
    ///
    /// Two workers may place at the same instant on counts that do not know of each other: the error is one
    /// tunnel, and the next placement evens it out.
    pub fn place(&mut self, identity: &Identity) -> Placement {
        self.serial += 1;
        let tunnel = TunnelId {
            named_by: self.worker,
            serial: self.serial,
        };
        let node = (identity.tenant.clone(), identity.node.clone());
        let worker = match self.loads.get(&node) {
            None => self.worker,
            Some(loads) => {
                let fewest = (0..self.workers)
                    .min_by_key(|&w| (loads[usize::from(w)], w != self.worker.0, w))
                    .unwrap_or(self.worker.0);
                WorkerId(fewest)
            }
        };
        self.sit(tunnel, Seat { node, worker });
        Placement { tunnel, worker }
    }

    /// A tunnel that another worker placed here has arrived.
    pub fn on_adopted(&mut self, tunnel: TunnelId, identity: &Identity) {
        let node = (identity.tenant.clone(), identity.node.clone());
        self.sit(
            tunnel,
            Seat {
                node,
                worker: self.worker,
            },
        );
    }

    /// A tunnel that was placed never left for its worker. No effect if it is open here.
    pub fn on_misplaced(&mut self, tunnel: TunnelId) {
        if !self.owned.contains_key(&tunnel) {
            self.stand(tunnel);
        }
    }

    /// A tunnel of this worker has its answer through and may be chosen. No effect if it was not placed here, or is
    /// closed.
    pub fn on_opened(&mut self, now: Instant, tunnel: TunnelId, introduction: &Introduction) {
        let placed_here = self
            .seats
            .get(&tunnel)
            .is_some_and(|seat| seat.worker == self.worker);
        if !placed_here || self.owned.contains_key(&tunnel) {
            return;
        }
        self.opened_total += 1;
        let Introduction {
            identity,
            instance,
            heard,
        } = introduction.clone();
        self.owned.insert(
            tunnel,
            Tunnel {
                identity,
                instance,
                heard,
                state: State::Idle,
                since: now,
                opened: now,
                max_streams: None,
            },
        );
        self.actions.push_back(Action::Publish(Fact::Opened {
            tunnel,
            introduction: introduction.clone(),
            owner: self.worker,
        }));
    }

    /// A tunnel of this worker carries HTTP/2 from now on.
    pub fn on_upgraded(&mut self, now: Instant, tunnel: TunnelId) {
        if let Some(entry) = self.owned.get_mut(&tunnel)
            && entry.state == State::Idle
        {
            entry.state = State::Active;
            entry.since = now;
        }
    }

    /// The peer has said how many streams it allows at once on a tunnel of this worker.
    pub fn on_max_streams(&mut self, tunnel: TunnelId, streams: u32) {
        if let Some(entry) = self.owned.get_mut(&tunnel)
            && entry.max_streams != Some(streams)
        {
            entry.max_streams = Some(streams);
            let fact = Fact::MaxStreams { tunnel, streams };
            self.actions.push_back(Action::Publish(fact));
        }
    }

    /// This end says goodbye on a tunnel of this worker. Returns whether it is the first goodbye on it.
    pub fn on_leaving(&mut self, now: Instant, tunnel: TunnelId) -> bool {
        let Some(entry) = self.owned.get_mut(&tunnel) else {
            return false;
        };
        if !matches!(entry.state, State::Idle | State::Active) {
            return false;
        }
        entry.state = State::Leaving;
        entry.since = now;
        self.actions.push_back(Action::Publish(Fact::Leaving { tunnel }));
        true
    }

    /// A tunnel of this worker takes no new requests.
    pub fn on_draining(&mut self, now: Instant, tunnel: TunnelId) {
        if let Some(entry) = self.owned.get_mut(&tunnel)
            && entry.state != State::Draining
        {
            entry.state = State::Draining;
            entry.since = now;
            self.actions.push_back(Action::Publish(Fact::Draining { tunnel }));
        }
    }

    /// A tunnel that this worker placed or owned is gone.
    pub fn on_closed(&mut self, now: Instant, tunnel: TunnelId, why: CloseReason) {
        let seat = self.seats.get(&tunnel).map(|seat| seat.worker);
        let entry = self.owned.remove(&tunnel);
        // A tunnel that was sent to another worker is that worker's to close.
        if entry.is_none() && seat != Some(self.worker) {
            return;
        }
        self.stand(tunnel);
        self.actions.push_back(Action::Publish(Fact::Closed { tunnel }));
        let Some(entry) = entry else {
            return;
        };
        let lived = now - entry.opened;
        self.closed.push(Closed {
            tunnel,
            identity: entry.identity,
            at: now,
            lived,
            why,
        });
    }

    /// What another worker told about a tunnel of its own. No effect on those of this worker.
    pub fn on_fact(&mut self, fact: &Fact) {
        match fact {
            Fact::Opened { tunnel, .. } | Fact::Closed { tunnel } if self.owned.contains_key(tunnel) => {}
            Fact::Opened {
                tunnel,
                introduction,
                owner,
            } => {
                let identity = &introduction.identity;
                let node = (identity.tenant.clone(), identity.node.clone());
                self.sit(*tunnel, Seat { node, worker: *owner });
            }
            Fact::Leaving { .. } | Fact::MaxStreams { .. } | Fact::Draining { .. } => {}
            Fact::Closed { tunnel } => self.stand(*tunnel),
        }
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The tunnels that this worker owns.
    pub fn tunnels(&self) -> impl Iterator<Item = (TunnelId, &Tunnel)> {
        self.owned.iter().map(|(id, tunnel)| (*id, tunnel))
    }

    /// A tunnel that this worker owns.
    pub fn get(&self, tunnel: TunnelId) -> Option<&Tunnel> {
        self.owned.get(&tunnel)
    }

    /// How many tunnels have a place on this worker, those included whose response is on its way.
    pub fn placed_here(&self) -> usize {
        let seats = self.seats.values();
        seats.filter(|seat| seat.worker == self.worker).count()
    }

    /// What the copies of this worker's tunnels must be.
    pub fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        for (id, tunnel) in self.tunnels() {
            if let Some(standing) = tunnel.standing() {
                digest.add(id, standing);
            }
        }
        digest
    }

    /// The ends of tunnels of this worker.
    pub const fn closed(&self) -> &ClosedLog {
        &self.closed
    }

    /// How many tunnels ever opened on this worker.
    pub const fn opened_total(&self) -> u64 {
        self.opened_total
    }

    fn sit(&mut self, tunnel: TunnelId, seat: Seat) {
        self.stand(tunnel);
        let loads = self
            .loads
            .entry(seat.node.clone())
            .or_insert_with(|| vec![0; usize::from(self.workers)]);
        if let Some(load) = loads.get_mut(usize::from(seat.worker.0)) {
            *load += 1;
        }
        self.seats.insert(tunnel, seat);
    }

    fn stand(&mut self, tunnel: TunnelId) {
        let Some(seat) = self.seats.remove(&tunnel) else {
            return;
        };
        let Some(loads) = self.loads.get_mut(&seat.node) else {
            return;
        };
        if let Some(load) = loads.get_mut(usize::from(seat.worker.0)) {
            *load = load.saturating_sub(1);
        }
        if loads.iter().all(|load| *load == 0) {
            self.loads.remove(&seat.node);
        }
    }
}

#[cfg(test)]
mod tests;
