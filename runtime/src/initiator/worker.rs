//! One worker: drives the root machine ([`Initiator`]) over sockets, and decides nothing itself.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use eddy_core::backoff::BackoffPolicy;
use eddy_core::dialer::DialerPolicy;
use eddy_core::identity::{ClusterName, WorkerId};
use eddy_core::initiator::{Initiator, Settings, SlotAddress, UpstreamSettings};
use eddy_core::router::Prefixes;
use eddy_core::stats::Hop;
use eddy_core::time::{Deadline, Instant};
use eddy_core::timings::{Timing, Timings};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use super::Message;
use super::carrier::Carrier;
use super::routes::{self, Route};
use super::start::Seed;
use crate::clock::Clock;
use crate::config::InitiatorConfig;
use crate::http::counters::Counters;
use crate::latch::Latch;
use crate::memory::Memory;
use crate::net::Network;

/// One worker while it runs. Its tasks share it; each borrow lasts for one call.
pub(super) struct Worker<N: Network> {
    pub(super) id: WorkerId,
    pub(super) net: N,
    pub(super) clock: Clock,
    pub(super) config: Arc<InitiatorConfig>,
    pub(super) machine: RefCell<Initiator>,
    pub(super) tasks: RefCell<BTreeMap<SlotAddress, Task>>,
    pub(super) routes: Prefixes<Route<N>>,
    pub(super) memory: Memory,
    pub(super) telemetry: Telemetry,
    /// A task has passed something to the machine.
    pub(super) changed: Notify,
    /// Who resolves names: worker 0's task.
    pub(super) stale: mpsc::UnboundedSender<ClusterName>,
    /// Worker 0, which gives advice for all workers.
    pub(super) first: Option<mpsc::UnboundedSender<Message>>,
}

/// What a worker counts and times.
pub(super) struct Telemetry {
    pub(super) http: Counters,
    pub(super) timings: RefCell<Timings>,
    /// Pings that were returned.
    pub(super) echoed: Cell<u64>,
}

/// The task of a dial, and of the tunnel that it becomes.
pub(super) struct Task {
    pub(super) abort: AbortHandle,
    pub(super) signals: Signals,
    /// The tunnel, once it is up.
    pub(super) carrier: Option<Rc<Carrier>>,
}

/// What the machine asks of a dial, and of the tunnel that it becomes.
#[derive(Clone, Default)]
pub(super) struct Signals {
    /// Another connect beside those in flight.
    pub(super) overlap: Rc<Notify>,
    /// No new requests; then the end.
    pub(super) drain: Latch,
}

impl<N: Network> Worker<N> {
    /// A worker, and the messages to it.
    pub(super) fn new(net: N, seed: Seed) -> (Self, mpsc::UnboundedReceiver<Message>) {
        let Seed {
            worker: id,
            mailbox,
            workers,
            stale,
            config,
            clock,
            mut rng,
            nonce,
            records,
            ..
        } = seed;
        let upstreams = config.tunnels.iter().map(|tunnel| UpstreamSettings {
            address: tunnel.address.clone(),
            per_worker: tunnel.per_worker,
        });
        let settings = Settings {
            worker: id,
            workers: config.workers,
            nonce,
            dial: dial_policy(&config),
            upstreams: upstreams.collect(),
        };
        let machine = Initiator::new(settings, &mut rng);
        let mut http = Counters::new(Hop::Service, clock, rng.fork());
        http.recorder.tell(records);
        let worker = Self {
            id,
            routes: routes::of(&net, &config, clock),
            net,
            clock,
            config,
            machine: RefCell::new(machine),
            tasks: RefCell::default(),
            memory: Memory::default(),
            telemetry: Telemetry {
                http,
                timings: RefCell::new(Timings::of_these([Timing::Dial, Timing::Lifetime])),
                echoed: Cell::default(),
            },
            changed: Notify::new(),
            stale,
            first: workers.into_iter().next(),
        };
        (worker, mailbox)
    }

    pub(super) fn apply(self: &Rc<Self>, message: Message) {
        let now = self.clock.now();
        tracing::trace!(worker = %self.id, message = message.label(), "event");
        match message {
            Message::Hosts(cluster, hosts) => self.machine.borrow_mut().on_hosts(now, &cluster, &hosts),
            Message::Report(ask, answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.report(&ask));
            }
            Message::Overview(wanted, answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.overview(&wanted));
            }
            Message::BrokeEarly(host) => self.machine.borrow_mut().on_early_break(now, host),
            Message::Renew(selection, answer) => {
                let renewed = self.machine.borrow_mut().renew(now, &selection);
                // Who asked may have gone.
                let _ = answer.send(renewed);
            }
            Message::Drain => self.machine.borrow_mut().drain(now),
        }
    }

    /// Waits until the machine's next deadline, and passes it on.
    pub(super) async fn deadline(&self) {
        let deadline: Option<Deadline> = self.machine.borrow().poll_timeout();
        self.clock.until(deadline).await;
        tracing::trace!(worker = %self.id, timer = deadline.map(|due| due.reason), "event");
        self.machine.borrow_mut().handle_timeout(self.clock.now());
    }

    /// Passes a fact to the machine, and lets the worker's loop perform what follows.
    pub(super) fn tell<R>(
        &self,
        fact: &'static str,
        at: SlotAddress,
        tell: impl FnOnce(&mut Initiator, Instant) -> R,
    ) -> R {
        tracing::trace!(worker = %self.id, ?at, fact, "event");
        let told = tell(&mut self.machine.borrow_mut(), self.clock.now());
        self.changed.notify_one();
        told
    }

    /// Records how long something took that began then.
    pub(super) fn time(&self, what: Timing, began: Instant) {
        let took = self.clock.now() - began;
        self.telemetry.timings.borrow_mut().record(what, took);
    }
}

fn dial_policy(config: &InitiatorConfig) -> DialerPolicy {
    let dial = &config.dial;
    DialerPolicy {
        backoff: BackoffPolicy {
            first: dial.first_retry,
            refused_max: dial.refused_max,
            silent_max: dial.silent_max,
            rejected_max: dial.rejected_max,
        },
        max_dials: dial.max_in_flight,
        dial_timeout: dial.timeout,
        overlap: dial.overlap,
        stable_after: dial.stable_after,
        drain_timeout: config.drain_timeout,
    }
}
