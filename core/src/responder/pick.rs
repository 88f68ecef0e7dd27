//! The one decision of the request path: a tunnel, a wait, or a refusal.

use super::{Action, Responder};
use crate::attempts::Attempts;
use crate::cache::{Attempt, Ended, Standing};
use crate::identity::TunnelId;
use crate::policy::{CLIENT_SEATS_PART, PLACE_WAIT_MAX, STARTUP_GRACE};
use crate::router::{Refusal, RouteKey};
use crate::time::Instant;

/// What a client has on this worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientShare {
    /// Its requests in flight.
    pub in_flight: u32,
    /// Its requests that wait for a place.
    pub waiting: u32,
}

/// What a request does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// It is sent into this tunnel; the caller owes a [`Responder::release`].
    Tunnel(TunnelId),
    /// It waits, and asks again; the caller owes a [`Responder::on_waited`].
    Wait(Wait),
    /// It ends.
    Refuse(Refusal),
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The return of a node that was here moments ago.
    Return {
        /// Until when.
        until: Instant,
        /// The request has not waited before.
        is_first: bool,
    },
    /// A place on one of the tunnels, which are all full.
    Place {
        /// Until when.
        until: Instant,
    },
    /// The tunnels that have refused it.
    Pause {
        /// Until when.
        until: Instant,
    },
}

/// Why the return of a node is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It had a tunnel moments ago.
    WasHere,
    /// This process has just started.
    Startup,
}

impl Responder {
    /// Decides about a request of a client.
    pub fn pick(
        &mut self,
        now: Instant,
        key: &RouteKey<'_>,
        client: ClientShare,
        request: &mut Attempts,
    ) -> Pick {
        self.directory.see(now);
        let attempt = Attempt {
            client_streams: client.in_flight,
            avoid: request.avoid(),
        };
        let why = match self.directory.pick_for(key, attempt) {
            Ok(tunnel) => return Pick::Tunnel(tunnel),
            Err(why) => why,
        };
        let wait = if why == Refusal::NoTunnel {
            match request.on_none_left() {
                Some(pause) => Some(Wait::Pause { until: now + pause }),
                None => self.wait_for_return(now, key, request),
            }
        } else if why == Refusal::Overloaded {
            self.wait_for_place(now, key, client, request)
        } else {
            None
        };
        wait.map_or_else(|| Pick::Refuse(request.refusal(why)), Pick::Wait)
    }

    /// A wait is over, however it ended.
    pub fn on_waited(&mut self, wait: Wait) {
        let waiting = match wait {
            Wait::Return { .. } => &mut self.waiting.for_return,
            Wait::Place { .. } => &mut self.waiting.for_place,
            Wait::Pause { .. } => return,
        };
        *waiting = waiting.saturating_sub(1);
    }

    /// The response to a request on a tunnel begins.
    pub fn on_answered(&mut self, now: Instant, tunnel: TunnelId) {
        self.directory.see(now);
        self.directory.on_answered(tunnel);
    }

    /// A request has left its tunnel, which may be listed no longer. However it ended, a listed tunnel stays listed.
    pub fn release(&mut self, tunnel: TunnelId, how: Ended) {
        self.directory.release(tunnel, how);
        self.releases += 1;
        if self.waiting.for_place > 0
            && let Some(identity) = self.directory.identity(tunnel)
        {
            self.actions.push_back(Action::WakeOne(identity.clone()));
        }
        if let Some(unlisted) = self.unlisted.get_mut(&tunnel) {
            unlisted.streams -= 1;
            if unlisted.streams == 0 {
                self.unlisted.remove(&tunnel);
            }
        }
    }

    /// The tunnel that a request would get now, and what speaks for it; nothing changes.
    ///
    /// # Errors
    ///
    /// The refusal, and what a request would wait for before it.
    pub fn explain(
        &mut self,
        now: Instant,
        key: &RouteKey<'_>,
    ) -> Result<(TunnelId, Standing), (Refusal, Option<Expected>)> {
        self.directory.see(now);
        self.directory.peek(key).map_err(|why| {
            let no_tunnel = why == Refusal::NoTunnel;
            (
                why,
                self.expects(now, key, &Attempts::default()).filter(|_| no_tunnel),
            )
        })
    }

    /// Why a request waits for the return of the node or cluster, if it does.
    fn expects(&self, now: Instant, key: &RouteKey<'_>, request: &Attempts) -> Option<Expected> {
        // A node that returns while this process drains goes elsewhere.
        if self.drain.is_draining() {
            return None;
        }
        if request.has_lost_a_tunnel() || self.departures.expects(now, key) {
            return Some(Expected::WasHere);
        }
        (now - self.began < STARTUP_GRACE).then_some(Expected::Startup)
    }

    fn wait_for_place(
        &mut self,
        now: Instant,
        key: &RouteKey<'_>,
        client: ClientShare,
        request: &mut Attempts,
    ) -> Option<Wait> {
        // The place that woke this request may fit the next one: another client's, or another tenant's.
        if self.waiting.for_place > 0 && request.on_no_place(self.releases) {
            self.actions.push_back(Action::WakeNext(key.id.to_owned()));
        }
        let (seats, taken) = (self.settings.max_waiting, self.waiting.for_place);
        let is_greedy = taken >= seats / 2 && client.waiting >= (seats / CLIENT_SEATS_PART).max(1);
        let until = request.began() + PLACE_WAIT_MAX;
        if taken >= seats || is_greedy || now >= until {
            return None;
        }
        self.waiting.for_place += 1;
        Some(Wait::Place { until })
    }

    fn wait_for_return(&mut self, now: Instant, key: &RouteKey<'_>, request: &mut Attempts) -> Option<Wait> {
        self.expects(now, key, request)?;
        let (until, is_first) = request.wait_until(now, self.settings.reconnect_grace);
        if now >= until || self.waiting.for_return >= self.settings.max_waiting {
            return None;
        }
        self.waiting.for_return += 1;
        Some(Wait::Return { until, is_first })
    }
}
