//! The initiator: dials responders, keeps the tunnels, and serves the requests that come back.
//!
//! Each worker dials its share of the tunnels and owns what it dialed; workers share nothing. Worker 0 also
//! resolves names, and tells everyone the hosts.

mod addresses;
mod dial;
mod names;
mod overview;
mod report;
mod serve;
mod services;
mod tunnel;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eddy_core::address::TunnelAddress;
use eddy_core::backoff::BackoffPolicy;
use eddy_core::closed::ClosedLog;
use eddy_core::dialer::{Action, DialFailure, Dialer, DialerPolicy, Slot, Target, share};
use eddy_core::identity::{ClusterName, Identity, TunnelId, WorkerId};
use eddy_core::instance::{self, Instance};
use eddy_core::rng::Rng;
use eddy_core::router::Prefixes;
use eddy_core::selection::Selection;
use eddy_core::shared_socket::SharedSocketWatch;
use eddy_core::stats::Hop;
use eddy_core::time::{Deadline, Instant};
use eddy_core::timings::{Timing, Timings};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::clock::Clock;
use crate::config::InitiatorConfig;
use crate::http::counters::Counters;
use crate::latch::Latch;
use crate::mailbox::ask_all;
use crate::memory::Memory;
use crate::net::Network;
use crate::overview::{Overview, Wanted};
use crate::record::RecordQueues;
use crate::report::{Ask, Phase, Report};

/// What a worker is told.
pub(crate) enum Message {
    /// The hosts of an upstream cluster are these.
    Hosts(ClusterName, Vec<SocketAddr>),
    /// The admin asks.
    Report(Ask, oneshot::Sender<Report>),
    /// The status page asks.
    Overview(Arc<Wanted>, oneshot::Sender<Overview>),
    /// Finish.
    Drain,
    /// A tunnel to this host broke soon after its upgrade; sent to worker 0.
    BrokeEarly(SocketAddr),
    /// Replace the tunnels that are meant; says how many those are.
    Renew(Selection, oneshot::Sender<usize>),
}

impl Message {
    /// The name in trace lines.
    const fn label(&self) -> &'static str {
        match self {
            Self::Hosts(..) => "hosts",
            Self::Report(..) => "report",
            Self::Overview(..) => "overview",
            Self::Drain => "drain",
            Self::BrokeEarly(_) => "broke_early",
            Self::Renew(..) => "renew",
        }
    }
}

/// All that one worker starts with.
pub struct Seed {
    /// Which one it is.
    pub worker: WorkerId,
    mailbox: mpsc::UnboundedReceiver<Message>,
    workers: Vec<mpsc::UnboundedSender<Message>>,
    /// Worker 0 resolves; everyone asks it to look again after a failed dial.
    stale: mpsc::UnboundedSender<ClusterName>,
    resolver: Option<mpsc::UnboundedReceiver<ClusterName>>,
    config: Arc<InitiatorConfig>,
    clock: Clock,
    rng: Rng,
    nonce: u64,
    /// Where it tells of requests, if it is to.
    pub records: RecordQueues,
}

/// The hand that the rest of the process has on its workers.
pub struct Control {
    /// What they run with.
    pub config: Arc<InitiatorConfig>,
    workers: Vec<mpsc::UnboundedSender<Message>>,
}

impl Control {
    /// Tells every worker to finish.
    pub fn drain(&self) {
        for worker in &self.workers {
            // A worker that is gone has finished.
            let _ = worker.send(Message::Drain);
        }
    }

    /// Replaces the tunnels that are meant; says how many those are.
    pub async fn renew(&self, selection: &Selection) -> usize {
        let renewed = ask_all(&self.workers, |answer| Message::Renew(selection.clone(), answer));
        renewed.await.into_iter().sum()
    }

    /// What the status page shows of every worker.
    pub async fn overviews(&self, wanted: &Arc<Wanted>) -> Vec<Overview> {
        ask_all(&self.workers, |answer| {
            Message::Overview(Arc::clone(wanted), answer)
        })
        .await
    }

    /// Asks every worker for what it tells of itself.
    pub async fn reports(&self, ask: &Ask) -> Vec<Report> {
        ask_all(&self.workers, |answer| Message::Report(ask.clone(), answer)).await
    }
}

/// Makes what each worker starts with.
pub fn prepare(config: Arc<InitiatorConfig>, clock: Clock, seed: u64) -> (Control, Vec<Seed>) {
    let (workers, mailboxes): (Vec<_>, Vec<_>) =
        (0..config.workers).map(|_| mpsc::unbounded_channel()).unzip();
    let (stale, resolver) = mpsc::unbounded_channel();
    let mut resolver = Some(resolver);
    let mut rng = Rng::from_seed(seed);
    let nonce = rng.next_u64();
    let seeds = (0..).map(WorkerId).zip(mailboxes).map(|(worker, mailbox)| Seed {
        worker,
        mailbox,
        workers: workers.clone(),
        stale: stale.clone(),
        resolver: resolver.take(),
        config: Arc::clone(&config),
        clock,
        rng: rng.fork(),
        nonce,
        records: RecordQueues::default(),
    });
    let seeds = seeds.collect();
    (Control { config, workers }, seeds)
}

/// One `rc://` address: who we are to whom, and the machine that keeps its tunnels.
struct Lane {
    address: TunnelAddress,
    per_worker: bool,
    dialer: Dialer,
}

/// A slot of a lane.
type Berth = (usize, Slot);

/// The task of a berth.
struct Task {
    cluster: ClusterName,
    host: SocketAddr,
    abort: AbortHandle,
    /// Another connect is to start beside those in flight.
    overlap: Rc<Notify>,
    drain: Latch,
}

/// A tunnel that is up.
struct Up {
    berth: Berth,
    identity: Arc<Identity>,
    host: SocketAddr,
    phase: Phase,
    since: Instant,
    opened: Instant,
    carrier: Rc<serve::Carrier>,
}

/// One worker while it runs.
struct Worker<N: Network> {
    id: WorkerId,
    net: N,
    clock: Clock,
    config: Arc<InitiatorConfig>,
    lanes: RefCell<Vec<Lane>>,
    /// A task has told a dialer something.
    changed: Notify,
    tasks: RefCell<BTreeMap<Berth, Task>>,
    tunnels: RefCell<BTreeMap<TunnelId, Up>>,
    /// The longest gap between pings that each host's tunnels have seen.
    ping_gaps: RefCell<BTreeMap<SocketAddr, Duration>>,
    closed: RefCell<ClosedLog>,
    opened: Cell<u64>,
    echoed: Cell<u64>,
    succeeded: RefCell<BTreeMap<ClusterName, u64>>,
    failed: RefCell<BTreeMap<(ClusterName, String), u64>>,
    serial: Cell<u64>,
    /// What the process calls itself, so that its tunnels are told from those of another with its node id.
    nonce: u64,
    stale: mpsc::UnboundedSender<ClusterName>,
    /// Worker 0, which gives advice for all workers.
    first: Option<mpsc::UnboundedSender<Message>>,
    shared_sockets: RefCell<SharedSocketWatch>,
    routes: Prefixes<serve::Route<N>>,
    http: Counters,
    memory: Memory,
    timings: RefCell<Timings>,
    draining: Cell<bool>,
}

/// Runs one worker until it has drained.
///
/// # Errors
///
/// None yet: an initiator opens no listener here.
pub async fn run<N: Network>(net: N, seed: Seed) -> io::Result<()> {
    let Seed {
        worker: id,
        mut mailbox,
        workers,
        stale,
        resolver,
        config,
        clock,
        rng,
        nonce,
        records,
    } = seed;
    let first = workers.first().cloned();
    if let Some(stale) = resolver {
        tokio::task::spawn_local(names::run(net.clone(), Arc::clone(&config), workers, stale));
    }
    let mut worker = Worker::new(net, id, config, clock, rng, nonce, stale);
    worker.first = first;
    worker.http.recorder.tell(records);
    let worker = Rc::new(worker);
    let follower = Rc::clone(&worker);
    tokio::task::spawn_local(async move {
        let config = &follower.config.memory;
        follower.memory.follow(&follower.net, config, || {}).await;
    });
    loop {
        while let Some((lane, action)) = worker.next_action() {
            tracing::trace!(worker = %worker.id, lane, ?action, "action");
            worker.perform(lane, action);
        }
        if worker.is_drained() {
            return Ok(());
        }
        let deadline = worker.poll_timeout();
        tokio::select! {
            biased;
            message = mailbox.recv() => match message {
                Some(message) => worker.apply(message),
                None => return Ok(()),
            },
            () = worker.changed.notified() => {}
            () = worker.clock.until(deadline) => worker.handle_timeout(deadline),
        }
    }
}

impl<N: Network> Worker<N> {
    fn new(
        net: N,
        id: WorkerId,
        config: Arc<InitiatorConfig>,
        clock: Clock,
        mut rng: Rng,
        nonce: u64,
        stale: mpsc::UnboundedSender<ClusterName>,
    ) -> Self {
        let dial = &config.dial;
        let policy = DialerPolicy {
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
        };
        let lanes = config.tunnels.iter().map(|tunnel| Lane {
            address: tunnel.address.clone(),
            per_worker: tunnel.per_worker,
            dialer: Dialer::new(policy, rng.fork()),
        });
        let lanes = RefCell::new(lanes.collect());
        let ids = rng.fork();
        Self {
            id,
            routes: serve::routes(&net, &config, clock),
            net,
            clock,
            lanes,
            config,
            changed: Notify::new(),
            tasks: RefCell::default(),
            tunnels: RefCell::default(),
            ping_gaps: RefCell::default(),
            closed: RefCell::default(),
            opened: Cell::default(),
            echoed: Cell::default(),
            succeeded: RefCell::default(),
            failed: RefCell::default(),
            serial: Cell::default(),
            nonce,
            stale,
            first: None,
            shared_sockets: RefCell::default(),
            http: Counters::new(Hop::Service, clock, ids),
            memory: Memory::default(),
            timings: RefCell::new(Timings::of_these([Timing::Dial, Timing::Lifetime])),
            draining: Cell::default(),
        }
    }

    fn apply(&self, message: Message) {
        let now = self.clock.now();
        tracing::trace!(worker = %self.id, message = message.label(), "event");
        match message {
            Message::Hosts(cluster, hosts) => {
                let dialed_by_others = |host: &SocketAddr| {
                    let lanes = self.lanes.borrow();
                    let others = lanes.iter().filter(|lane| lane.address.cluster != cluster);
                    others
                        .flat_map(|lane| lane.dialer.hosts())
                        .any(|view| view.host == *host)
                };
                self.ping_gaps
                    .borrow_mut()
                    .retain(|host, _| hosts.contains(host) || dialed_by_others(host));
                for lane in self
                    .lanes
                    .borrow_mut()
                    .iter_mut()
                    .filter(|l| l.address.cluster == cluster)
                {
                    let workers = self.config.workers;
                    let mine = |host| share(lane.address.count, workers, self.id, host, lane.per_worker);
                    let targets: Vec<_> = hosts
                        .iter()
                        .map(|&host| Target {
                            host,
                            count: mine(host),
                        })
                        .collect();
                    lane.dialer.on_targets(now, &cluster, &targets);
                }
            }
            Message::Report(ask, answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.report(&ask));
            }
            Message::Overview(wanted, answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.overview(&wanted));
            }
            Message::BrokeEarly(host) => {
                if self.shared_sockets.borrow_mut().on_early_break(now, host) {
                    tracing::warn!(%host, "tunnels break HTTP/2 soon after their first request; if the responder is Envoy 1.36 to \
                        1.39, its reverse_tunnel filter needs auto_close_connections: true");
                }
            }
            Message::Renew(selection, answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.renew(&selection));
            }
            Message::Drain => {
                self.draining.set(true);
                self.lanes
                    .borrow_mut()
                    .iter_mut()
                    .for_each(|lane| lane.dialer.drain(now));
            }
        }
    }

    /// What the responder is told of a berth.
    fn instance(&self, berth: Berth) -> Instance {
        let (lane, slot) = berth;
        Instance {
            nonce: self.nonce,
            berth: instance::Berth {
                worker: self.id,
                lane: u32::try_from(lane).unwrap_or(u32::MAX),
                slot: slot.index(),
            },
        }
    }

    /// Replaces those of this worker's tunnels that are meant.
    fn renew(&self, selection: &Selection) -> usize {
        let tunnels = self.tunnels.borrow();
        let meant = tunnels
            .iter()
            .filter(|(id, up)| selection.means(**id, &up.identity));
        let now = self.clock.now();
        let mut renewed = 0;
        for (_, up) in meant {
            if let Some(lane) = self.lanes.borrow_mut().get_mut(up.berth.0) {
                lane.dialer.renew(now, up.berth.1);
                renewed += 1;
            }
        }
        renewed
    }

    fn next_action(&self) -> Option<(usize, Action)> {
        let mut lanes = self.lanes.borrow_mut();
        lanes
            .iter_mut()
            .enumerate()
            .find_map(|(i, lane)| lane.dialer.poll_action().map(|a| (i, a)))
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        let lanes = self.lanes.borrow();
        lanes
            .iter()
            .map(|lane| lane.dialer.poll_timeout())
            .fold(None, Deadline::earlier)
    }

    fn handle_timeout(&self, due: Option<Deadline>) {
        let now = self.clock.now();
        tracing::trace!(worker = %self.id, timer = due.map(|due| due.reason), "event");
        self.lanes
            .borrow_mut()
            .iter_mut()
            .for_each(|lane| lane.dialer.handle_timeout(now));
    }

    fn is_drained(&self) -> bool {
        self.draining.get() && self.lanes.borrow().iter().all(|lane| lane.dialer.is_drained())
    }

    fn perform(self: &Rc<Self>, lane: usize, action: Action) {
        match action {
            Action::Dial { slot, cluster, host } => {
                let berth = (lane, slot);
                let (drain, overlap) = (Latch::default(), Rc::new(Notify::new()));
                let signals = dial::Signals {
                    overlap: Rc::clone(&overlap),
                    drain: drain.clone(),
                };
                let task = dial::run(Rc::clone(self), berth, cluster.clone(), host, signals);
                let abort = tokio::task::spawn_local(task).abort_handle();
                self.tasks.borrow_mut().insert(
                    berth,
                    Task {
                        cluster,
                        host,
                        abort,
                        overlap,
                        drain,
                    },
                );
            }
            Action::Overlap { slot } => {
                if let Some(task) = self.tasks.borrow().get(&(lane, slot)) {
                    task.overlap.notify_one();
                }
            }
            Action::Abort { slot, timed_out } => {
                if let Some(task) = self.cut((lane, slot)).filter(|_| timed_out) {
                    self.tell_failure((lane, slot), task.host, &task.cluster, &DialFailure::TimedOut);
                    self.count_failure(task.cluster, &DialFailure::TimedOut);
                }
            }
            Action::Close { slot } => {
                self.http.cutting.set(self.draining.get());
                self.cut((lane, slot));
            }
            Action::Drain { slot } => {
                if let Some(task) = self.tasks.borrow().get(&(lane, slot)) {
                    task.drain.set();
                }
            }
        }
    }

    /// Ends a task where it stands.
    fn cut(&self, berth: Berth) -> Option<Task> {
        let task = self.tasks.borrow_mut().remove(&berth)?;
        task.abort.abort();
        Some(task)
    }

    /// The line of a dial that came to nothing.
    fn tell_failure(&self, (lane, _): Berth, host: SocketAddr, cluster: &ClusterName, why: &DialFailure) {
        let lanes = self.lanes.borrow();
        let node = lanes.get(lane).map(|lane| lane.address.identity.node.as_str());
        tracing::info!(%host, cluster = cluster.as_str(), node, reason = why.reason(), "dial failed");
    }

    /// Counts a failed dial, and has the names looked up again: the host may have moved.
    fn count_failure(&self, cluster: ClusterName, why: &DialFailure) {
        let key = (cluster.clone(), why.reason().to_owned());
        *self.failed.borrow_mut().entry(key).or_default() += 1;
        // Worker 0 may have ended first.
        let _ = self.stale.send(cluster);
    }

    /// Reports that a tunnel broke soon after its upgrade.
    fn on_early_break(&self, host: SocketAddr) {
        if let Some(first) = &self.first {
            // Worker 0 may have ended first.
            let _ = first.send(Message::BrokeEarly(host));
        }
    }

    /// Lets a dialer know what a task saw, and the worker's loop look at what follows.
    fn tell(&self, (lane, slot): Berth, fact: &'static str, tell: impl FnOnce(&mut Dialer, Instant, Slot)) {
        tracing::trace!(worker = %self.id, lane, ?slot, fact, "event");
        if let Some(lane) = self.lanes.borrow_mut().get_mut(lane) {
            tell(&mut lane.dialer, self.clock.now(), slot);
        }
        self.changed.notify_one();
    }

    /// Counts how long something took that began then.
    fn time(&self, what: Timing, began: Instant) {
        let took = self.clock.now() - began;
        self.timings.borrow_mut().record(what, took);
    }

    fn next_tunnel(&self) -> TunnelId {
        self.serial.set(self.serial.get() + 1);
        TunnelId {
            named_by: self.id,
            serial: self.serial.get(),
        }
    }
}
