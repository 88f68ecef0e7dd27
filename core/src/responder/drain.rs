//! The drain of one worker: initiators move first, then clients, then the tunnels go.
//!
//! ```text
//!   Serving ──drain──▶ Moving ──no movers──▶ Succession ──successor──▶ Closing ──────┐
//!                        │  (no tunnels left)     │                       │ no clients │
//!                        └──────────────▶─────────┴───────▶───────────────┴────────────┴──▶ Finishing
//!                                    (in any of the three: drain_delay is over)                │ no clients here,
//!                                                                                              │ none elsewhere
//!                                                           Ended ◀──no tunnels── Dismissing ◀─┘ or drain_timeout
//! ```
//!
//! *Moving*: no new tunnels are accepted and Eddys have a GOAWAY; they dial elsewhere while clients are still served over the
//! old tunnels. *Succession*: the initiators that are left do not serve on after a GOAWAY, so their clients move first, as soon
//! as a successor has the address for tunnels. *Closing*: no new clients; they come to the successor and wait there.
//! *Finishing*: idle clients are let go, requests in flight end, also those of other workers on tunnels of this one.
//! *Dismissing*: nobody needs the tunnels any more; each gets its goodbye.

use std::time::Duration;

use super::{Action, Gossip, Responder};
use crate::identity::WorkerId;
use crate::policy::LAST_GOODBYES;
use crate::time::{Deadline, Instant};

/// A phase of the drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Serving,
    Moving { until: Instant },
    Succession { until: Instant },
    Closing { until: Instant },
    Finishing { until: Instant, told: bool },
    Dismissing { until: Instant },
    Ended,
}

/// What the driver does at a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Accept no more tunnels.
    CloseTunnelListener,
    /// Look for another process on the address for tunnels, and call [`Responder::on_successor`] when one is there.
    LookForSuccessor,
    /// Accept no more clients.
    CloseEgressListener,
    /// Let idle clients go; others may finish their requests.
    ReleaseClients,
    /// Log that requests in flight are cut.
    TookTooLong,
    /// Cut everything that is left, and end.
    Stop,
}

/// What a transition depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions {
    /// Listed tunnels whose initiators serve on until they have dialed elsewhere.
    pub(super) movers: usize,
    /// Listed tunnels of all workers.
    pub(super) listed: usize,
    /// Tunnels of this worker, also those that no request may choose.
    pub(super) owned: usize,
}

/// The drain of one worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Drain {
    state: State,
    clients: u32,
    /// Other workers whose clients may still need a tunnel of this one.
    others_with_clients: u16,
    /// Workers that may still accept tunnels, as far as the leader knows.
    accepting: u16,
    successor: bool,
}

/// What [`Drain::advance`] asks of the root machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Demand {
    Step(Step),
    /// Tell the other workers that this one's clients are gone.
    TellClientsGone,
    /// Send Eddys away.
    SendMoversAway,
    /// Send all tunnels away.
    SendAllAway,
}

impl Drain {
    pub(super) const fn new(workers: u16) -> Self {
        Self {
            state: State::Serving,
            clients: 0,
            others_with_clients: workers.saturating_sub(1),
            accepting: workers,
            successor: false,
        }
    }

    pub(super) const fn is_draining(&self) -> bool {
        !matches!(self.state, State::Serving)
    }

    pub(super) const fn on_successor(&mut self) {
        self.successor = true;
    }

    pub(super) const fn on_others_clients_gone(&mut self) {
        self.others_with_clients = self.others_with_clients.saturating_sub(1);
    }

    /// Begins.
    fn begin(&mut self, now: Instant, delay: Duration) -> Vec<Demand> {
        if self.is_draining() {
            return Vec::new();
        }
        self.state = State::Moving { until: now + delay };
        vec![Demand::Step(Step::CloseTunnelListener), Demand::SendMoversAway]
    }

    /// One transition, if one is due.
    fn advance(&mut self, now: Instant, timeout: Duration, world: Conditions) -> Option<Vec<Demand>> {
        let finish = State::Finishing {
            until: now + timeout,
            told: false,
        };
        let close = Demand::Step(Step::CloseEgressListener);
        let release = Demand::Step(Step::ReleaseClients);
        let (state, demands) = match self.state {
            State::Moving { until } | State::Succession { until } if now >= until || world.listed == 0 => {
                (finish, vec![close, release])
            }
            State::Moving { until } if world.movers == 0 => (State::Succession { until }, vec![]),
            State::Succession { until } if self.successor => (State::Closing { until }, vec![close]),
            State::Closing { until } if now >= until || self.clients == 0 => (finish, vec![release]),
            State::Finishing { until, told: false } if self.clients == 0 => (
                State::Finishing { until, told: true },
                vec![Demand::TellClientsGone],
            ),
            State::Finishing { told: true, .. } if self.others_with_clients == 0 => {
                (self.dismissing(now), vec![Demand::SendAllAway])
            }
            State::Finishing { until, .. } if now >= until => (
                self.dismissing(now),
                vec![Demand::Step(Step::TookTooLong), Demand::SendAllAway],
            ),
            State::Dismissing { until } if now >= until || world.owned == 0 => {
                (State::Ended, vec![Demand::Step(Step::Stop)])
            }
            State::Serving
            | State::Moving { .. }
            | State::Succession { .. }
            | State::Closing { .. }
            | State::Finishing { .. }
            | State::Dismissing { .. }
            | State::Ended => return None,
        };
        self.state = state;
        Some(demands)
    }

    fn dismissing(&self, now: Instant) -> State {
        State::Dismissing {
            until: now + LAST_GOODBYES,
        }
    }

    pub(super) const fn poll_timeout(&self) -> Option<Deadline> {
        let (at, reason) = match self.state {
            State::Serving | State::Ended => return None,
            State::Moving { until } | State::Succession { until } | State::Closing { until } => {
                (until, "drain delay")
            }
            State::Finishing { until, .. } => (until, "drain timeout"),
            State::Dismissing { until } => (until, "last goodbyes"),
        };
        Some(Deadline { at, reason })
    }
}

impl Responder {
    /// Begins to drain. Another call has no effect.
    pub fn drain(&mut self, now: Instant) {
        let demands = self.drain.begin(now, self.settings.drain_delay);
        self.demand(now, demands);
        self.advance(now);
    }

    /// A client has connected.
    pub fn on_client(&mut self) {
        self.drain.clients += 1;
    }

    /// A client has gone.
    pub fn on_client_gone(&mut self, now: Instant) {
        self.drain.clients = self.drain.clients.saturating_sub(1);
        self.advance(now);
    }

    /// This worker's listener for tunnels is closed.
    pub fn on_tunnel_listener_closed(&mut self) {
        if self.is_leader() {
            self.on_no_more_tunnels();
        } else {
            let (to, gossip) = (WorkerId(0), Gossip::NoMoreTunnels);
            self.actions.push_back(Action::Send { to, gossip });
        }
    }

    /// One of the workers accepts no more tunnels. When none does, the leader looks for a successor.
    pub(super) fn on_no_more_tunnels(&mut self) {
        self.drain.accepting = self.drain.accepting.saturating_sub(1);
        if self.drain.accepting == 0 {
            self.actions.push_back(Action::Drain(Step::LookForSuccessor));
        }
    }

    /// Another process has the address for tunnels.
    pub fn on_successor(&mut self, now: Instant) {
        self.drain.on_successor();
        self.actions.push_back(Action::Publish(Gossip::Succeeded));
        self.advance(now);
    }

    /// Performs the transitions that are due.
    pub(super) fn advance(&mut self, now: Instant) {
        if !self.drain.is_draining() {
            return;
        }
        let timeout = self.settings.drain_timeout;
        while let Some(demands) = self.drain.advance(now, timeout, self.conditions()) {
            self.demand(now, demands);
        }
    }

    fn conditions(&self) -> Conditions {
        Conditions {
            movers: self.movers.len(),
            listed: self.directory.len(),
            owned: self.registry.placed_here(),
        }
    }

    fn demand(&mut self, now: Instant, demands: Vec<Demand>) {
        for demand in demands {
            match demand {
                Demand::Step(step) => self.actions.push_back(Action::Drain(step)),
                Demand::TellClientsGone => self.actions.push_back(Action::Publish(Gossip::ClientsGone)),
                Demand::SendMoversAway => {
                    let owned = self.registry.tunnels().map(|(tunnel, _)| tunnel);
                    let movers: Vec<_> = owned.filter(|tunnel| self.movers.contains(tunnel)).collect();
                    movers.into_iter().for_each(|tunnel| self.send_away(now, tunnel));
                }
                Demand::SendAllAway => {
                    let owned: Vec<_> = self.registry.tunnels().map(|(tunnel, _)| tunnel).collect();
                    owned.into_iter().for_each(|tunnel| self.send_away(now, tunnel));
                }
            }
        }
    }
}
