//! One worker: drives the root machine ([`Responder`]) over sockets, and decides nothing itself.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use eddy_core::cache::Ended;
use eddy_core::handshake::Mode;
use eddy_core::handshake::request::Demands;
use eddy_core::identity::{TunnelId, WorkerId};
use eddy_core::responder::drain::Step;
use eddy_core::responder::{Action, Bug, Gossip, Responder, Settings};
use eddy_core::rng::Rng;
use eddy_core::router::{KeyRules, Prefixes, Refusal, RouteKey};
use eddy_core::stats::Hop;
use eddy_core::time::{Deadline, Instant};
use eddy_core::timings::{Timing, Timings};
use hyper::header::{HeaderMap, HeaderName};
use tokio::sync::{Notify, mpsc};

use super::client_load::ClientLoads;
use super::pending::PendingHandshakes;
use super::readers::ClientReaders;
use super::refusals::Refusals;
use super::senders::{Claims, Tunnels};
use super::waiting::WaitingRoom;
use super::{Message, SUCCESSOR_LOOK};
use crate::clock::Clock;
use crate::config::{EgressRoute, ResponderConfig};
use crate::http::counters::Counters;
use crate::latch::{Crowd, Latch};
use crate::memory::Memory;
use crate::net::Network;

/// One worker while it runs. Its tasks share it; each borrow lasts for one call.
pub(super) struct Worker<N: Network> {
    pub(super) id: WorkerId,
    pub(super) net: N,
    pub(super) clock: Clock,
    pub(super) config: Arc<ResponderConfig>,
    pub(super) rules: RequestRules,
    pub(super) machine: RefCell<Responder>,
    pub(super) tunnels: Tunnels,
    pub(super) clients: Clients,
    others: Vec<Option<mpsc::UnboundedSender<Message<N>>>>,
    pub(super) handshakes: Handshakes,
    pub(super) telemetry: Telemetry,
    pub(super) signals: Signals,
}

/// How a request says which node or cluster it is for, and the routes.
pub(super) struct RequestRules {
    keys: KeyRules,
    pub(super) key_headers: Vec<HeaderName>,
    pub(super) tenant_header: Option<HeaderName>,
    pub(super) routes: Prefixes<EgressRoute>,
}

/// The clients of a worker: how much each has in flight, what they leave unread, and the requests that wait.
#[derive(Default)]
pub(super) struct Clients {
    pub(super) loads: ClientLoads,
    pub(super) readers: ClientReaders,
    pub(super) memory: Memory,
    pub(super) returns: WaitingRoom,
    pub(super) places: WaitingRoom,
}

/// The handshakes of a worker.
pub(super) struct Handshakes {
    pub(super) pending: Rc<PendingHandshakes>,
    /// Refused connections whose peer may still read the refusal.
    pub(super) lingering: Crowd,
    /// The last ones that were refused.
    pub(super) refusals: RefCell<Refusals>,
    /// How many ended in each way.
    pub(super) outcomes: RefCell<BTreeMap<&'static str, u64>>,
}

/// What a worker counts and times.
pub(super) struct Telemetry {
    pub(super) http: Counters,
    pub(super) timings: RefCell<Timings>,
    pub(super) pings: PingCounters,
}

/// The pings of a worker's idle tunnels.
#[derive(Debug, Default)]
pub(super) struct PingCounters {
    pub(super) sent: Cell<u64>,
    pub(super) echoed: Cell<u64>,
    pub(super) missed: Cell<u64>,
}

/// What the machine has told the tasks of a worker.
#[derive(Default)]
pub(super) struct Signals {
    /// Accept no more tunnels.
    pub(super) tunnels_closed: Latch,
    /// Accept no more clients.
    pub(super) egress_closed: Latch,
    /// Idle clients are let go.
    pub(super) clients_released: Latch,
    /// Look for a successor.
    successor_wanted: Latch,
    /// Everything that is left is cut.
    pub(super) stop: Latch,
    /// The machine's next deadline may have changed.
    changed: Notify,
    /// The deadline that the worker's loop waits for.
    waits_for: Cell<Option<Instant>>,
}

impl RequestRules {
    fn new(config: &ResponderConfig) -> Self {
        let header = |name: &String| HeaderName::try_from(name.as_str()).ok();
        let egress = &config.egress;
        let kinds = egress.host_id.iter().map(|h| h.names).collect();
        Self {
            keys: KeyRules::new(kinds, config.tunnels.tenant_isolation),
            key_headers: egress.host_id.iter().filter_map(|h| header(&h.name)).collect(),
            tenant_header: egress.tenant.as_ref().and_then(header),
            routes: Prefixes::new(egress.routes.iter().map(|r| (r.prefix.clone(), r.clone()))),
        }
    }

    /// The node or cluster that a request is for. A header that says so twice is refused: another proxy may have judged the
    /// other value.
    pub(super) fn key<'h>(&self, headers: &'h HeaderMap) -> Result<RouteKey<'h>, Refusal> {
        let is_repeated = Cell::new(false);
        let text = |name: &HeaderName| {
            let mut values = headers.get_all(name).iter();
            let value = values.next()?;
            is_repeated.set(is_repeated.get() || values.next().is_some());
            std::str::from_utf8(value.as_bytes()).ok()
        };
        let tenant = self.tenant_header.as_ref().and_then(text);
        let key = self.keys.key(|rule: usize| text(&self.key_headers[rule]), tenant);
        if is_repeated.get() {
            return Err(Refusal::BadRequest);
        }
        key
    }
}

impl<N: Network> Worker<N> {
    pub(super) fn new(
        net: N,
        id: WorkerId,
        config: Arc<ResponderConfig>,
        clock: Clock,
        mut rng: Rng,
        others: Vec<Option<mpsc::UnboundedSender<Message<N>>>>,
        began: Instant,
    ) -> Self {
        let (tunnels, egress) = (&config.tunnels, &config.egress);
        let settings = Settings {
            worker: id,
            workers: config.workers,
            demands: Demands {
                path: tunnels.path.clone(),
                mode: if tunnels.http_upgrade {
                    Mode::Upgrade
                } else {
                    Mode::Plain
                },
                tenant_isolation: tunnels.tenant_isolation,
                required_cluster: tunnels.required_cluster.clone(),
            },
            duplicates: tunnels.duplicates,
            max_streams: tunnels.http2.max_streams,
            max_waiting: egress.max_waiting,
            reconnect_grace: egress.reconnect_grace,
            drain_delay: egress.drain_delay,
            drain_timeout: config.drain_timeout,
        };
        let timings = [Timing::Handshake, Timing::Lifetime, Timing::Recovery];
        Self {
            id,
            net,
            clock,
            rules: RequestRules::new(&config),
            machine: RefCell::new(Responder::new(settings, began, rng.fork())),
            tunnels: Tunnels::default(),
            clients: Clients::default(),
            others,
            handshakes: Handshakes {
                pending: Rc::new(PendingHandshakes::new(&config.tunnels)),
                lingering: Crowd::default(),
                refusals: RefCell::default(),
                outcomes: RefCell::default(),
            },
            telemetry: Telemetry {
                http: Counters::new(Hop::Egress, clock, rng.fork()),
                timings: RefCell::new(Timings::of_these(timings)),
                pings: PingCounters::default(),
            },
            signals: Signals::default(),
            config,
        }
    }

    /// Passes something to the machine, and performs what it wants.
    pub(super) fn with<R>(&self, tell: impl FnOnce(&mut Responder, Instant) -> R) -> R {
        let told = tell(&mut self.machine.borrow_mut(), self.clock.now());
        self.perform_all(&[]);
        told
    }

    /// A request has left its tunnel.
    pub(super) fn release(&self, tunnel: TunnelId, how: Ended) {
        let action = {
            let mut machine = self.machine.borrow_mut();
            machine.release(tunnel, how);
            machine.poll_action()
        };
        if let Some(action) = action {
            self.perform(action, &[]);
            self.perform_all(&[]);
        }
    }

    pub(super) fn perform_all(&self, introduced: &[(TunnelId, Claims)]) {
        while let Some(action) = self.next_action() {
            tracing::trace!(worker = %self.id, ?action, "action");
            self.perform(action, introduced);
        }
        let next = self.machine.borrow().poll_timeout().map(|deadline| deadline.at);
        if next < self.signals.waits_for.get() {
            self.signals.changed.notify_one();
        }
    }

    fn next_action(&self) -> Option<Action> {
        self.machine.borrow_mut().poll_action()
    }

    fn perform(&self, action: Action, introduced: &[(TunnelId, Claims)]) {
        match action {
            Action::Publish(gossip) => {
                let claims = self.tunnels.introductions(&gossip);
                self.send_others(|| Message::Gossip(gossip.clone(), claims.clone()));
            }
            Action::Send { to, gossip } => {
                let claims = self.tunnels.introductions(&gossip);
                if let Some(to) = self.other(to) {
                    // A worker that has ended needs no messages.
                    let _ = to.send(Message::Gossip(gossip, claims));
                }
            }
            Action::List(tunnel) => self.tunnels.list(tunnel, introduced),
            Action::Unlist(tunnel) => self.tunnels.unlist(tunnel),
            Action::Command(tunnel, command) => self.tunnels.command(tunnel, command),
            Action::WakeAll(identity) => {
                self.clients.returns.wake_all(&identity);
                self.clients.places.wake_all(&identity);
            }
            Action::WakeOne(identity) => self.clients.places.wake_one(&identity),
            Action::WakeNext(id) => self.clients.places.wake_next(&id),
            Action::Recovered(away) => {
                let mut timings = self.telemetry.timings.borrow_mut();
                timings.record(Timing::Recovery, away);
            }
            Action::Duplicate(tunnel, identity) => {
                tracing::warn!(%tunnel, node = identity.node.as_str(), tenant = identity.tenant.as_str(),
                    "another process has a tunnel under this node id");
            }
            Action::Bug(Bug::Surplus(tunnel, owner)) => tracing::error!(%tunnel, %owner, worker = %self.id,
                "bug: this worker's directory has a tunnel that its owner does not have; removed"),
            Action::Bug(Bug::Missing(tunnel, owner)) => tracing::error!(%tunnel, %owner, worker = %self.id,
                "bug: this worker's directory lacks a tunnel, or its state, that its owner has; added"),
            Action::Drain(step) => self.drain(step),
        }
    }

    fn drain(&self, step: Step) {
        match step {
            Step::CloseTunnelListener => self.signals.tunnels_closed.set(),
            Step::LookForSuccessor => self.signals.successor_wanted.set(),
            Step::CloseEgressListener => self.signals.egress_closed.set(),
            Step::ReleaseClients => self.signals.clients_released.set(),
            Step::TookTooLong => {
                tracing::warn!(worker = %self.id, "drain took too long; cutting what is left");
            }
            Step::Stop => {
                self.telemetry.http.cutting.set(true);
                self.signals.stop.set();
            }
        }
    }

    /// Waits until the machine's next deadline.
    pub(super) async fn deadline(&self) {
        loop {
            let deadline: Option<Deadline> = self.machine.borrow().poll_timeout();
            self.signals
                .waits_for
                .set(deadline.as_ref().map(|deadline| deadline.at));
            tokio::select! {
                biased;
                () = self.signals.changed.notified() => {}
                () = self.clock.until(deadline) => return,
            }
        }
    }

    /// Once the machine wants a successor: looks for one, and reports it.
    pub(super) async fn report_successor(&self) {
        self.signals.successor_wanted.wait().await;
        while !self.net.is_taken(self.config.tunnels.listen) {
            tokio::time::sleep(SUCCESSOR_LOOK).await;
        }
        self.with(Responder::on_successor);
        std::future::pending().await
    }

    pub(super) fn other(&self, worker: WorkerId) -> Option<&mpsc::UnboundedSender<Message<N>>> {
        self.others.get(usize::from(worker.0)).and_then(Option::as_ref)
    }

    pub(super) fn send_others(&self, message: impl Fn() -> Message<N>) {
        for other in self.others.iter().flatten() {
            // A worker that has ended needs no messages.
            let _ = other.send(message());
        }
    }

    pub(super) fn hear(&self, gossip: &Gossip, introduced: &[(TunnelId, Claims)]) {
        tracing::trace!(worker = %self.id, ?gossip, "event");
        let now = self.clock.now();
        self.machine.borrow_mut().on_gossip(now, gossip);
        self.perform_all(introduced);
    }

    pub(super) fn count_handshake(&self, outcome: &'static str) {
        *self.handshakes.outcomes.borrow_mut().entry(outcome).or_default() += 1;
    }

    /// Records how long something took that began then.
    pub(super) fn time(&self, what: Timing, began: Instant) {
        let took = self.clock.now() - began;
        self.telemetry.timings.borrow_mut().record(what, took);
    }
}
