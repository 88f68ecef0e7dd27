//! The responder: accepts tunnels, keeps them, and sends requests into them.
//!
//! A process has N workers that share nothing. Each accepts tunnels and clients on listeners of its own,
//! owns the sockets that were placed on it, and holds a full copy of the directory of tunnels. They tell each
//! other what opened, drains and closed through their mailboxes; a request looks only at its own worker's.

mod accept;
mod egress;
pub mod explain;
mod leave;
mod proxy;
mod tunnel;
mod waiting;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eddy_core::cache::Cache;
use eddy_core::close::CloseReason;
use eddy_core::departures::Departures;
use eddy_core::handshake::Mode;
use eddy_core::handshake::request::Demands;
use eddy_core::identity::{Identity, TunnelId, WorkerId};
use eddy_core::registry::{Action, Fact, Registry};
use eddy_core::rng::Rng;
use eddy_core::router::{KeyRules, Prefixes};
use eddy_core::stats::{Hop, Name, Ping, Sheet};
use hyper::header::HeaderName;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::clock::Clock;
use crate::config::{EgressRoute, ResponderConfig};
use crate::http::body::Question;
use crate::http::counters::Counters;
use crate::latch::{Crowd, Latch, Present};
use crate::net::{Network, Sharing};
use crate::report::{Calendar, ClosedLine, Report, TunnelLine, round};

use self::explain::{Asked, Choice};
pub use self::leave::Selection;
use self::waiting::WaitingRoom;

/// So long after its start a responder takes everybody for somebody who was here moments ago: whoever lost it dials again
/// within half a second (`dial.refused_max`), and everybody did if it was restarted.
const YOUNG_FOR: Duration = Duration::from_secs(2);

/// Sends requests into a tunnel that carries HTTP/2, from any worker.
type Sender = hyper::client::conn::http2::SendRequest<Question>;
/// Asks the owner of an idle tunnel for its sender: the first request is what upgrades it.
pub(crate) struct Claim {
    answer: oneshot::Sender<Sender>,
    /// The request must not be lost on a tunnel that its initiator is about to leave: it waits until the initiator has
    /// answered the preface.
    careful: bool,
}
type Claims = mpsc::UnboundedSender<Claim>;

/// What workers, and the admin, send to a worker.
pub(crate) enum Message<N: Network> {
    /// A tunnel whose handshake another worker read is this one's from here on.
    Adopt { stream: N::Parcel, newcomer: Newcomer },
    /// Something happened to a tunnel of another worker; with how to claim it, if it opened.
    Fact(Fact, Option<Claims>),
    /// A tunnel of another worker carries HTTP/2 from now on.
    Serving(TunnelId, Sender),
    /// The admin asks.
    Report(oneshot::Sender<Report>),
    /// The admin asks what would become of a request.
    Explain(Asked, oneshot::Sender<Choice>),
    /// Finish.
    Drain,
    /// Tell these initiators to go elsewhere; says how many tunnels that are.
    Leave(Selection, oneshot::Sender<usize>),
    /// The clients of another worker are gone: it needs our tunnels no more.
    ClientsGone,
}

/// A tunnel between its handshake and its owner.
pub(crate) struct Newcomer {
    tunnel: TunnelId,
    identity: Arc<Identity>,
    peer: SocketAddr,
}

/// A listener that could not be opened.
#[derive(Debug)]
pub struct StartError {
    /// The key of the configuration that asks for it.
    pub key: &'static str,
    /// The address.
    pub addr: SocketAddr,
    /// What the operating system says.
    pub source: io::Error,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: cannot listen on {}: {}", self.key, self.addr, self.source)
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// All that one worker starts with.
pub struct Seed<N: Network> {
    /// Which one it is.
    pub worker: WorkerId,
    tunnels: N::Bound,
    egress: N::Bound,
    mailbox: mpsc::UnboundedReceiver<Message<N>>,
    workers: Vec<mpsc::UnboundedSender<Message<N>>>,
    config: Arc<ResponderConfig>,
    clock: Clock,
    rng: Rng,
}

/// The hand that the rest of the process has on its workers.
pub struct Control<N: Network> {
    /// What they run with.
    pub config: Arc<ResponderConfig>,
    /// The address for tunnels, where the port asked for was 0.
    pub tunnels: SocketAddr,
    /// The address for clients.
    pub egress: SocketAddr,
    workers: Vec<mpsc::UnboundedSender<Message<N>>>,
}

impl<N: Network> Control<N> {
    /// Tells every worker to finish.
    pub fn drain(&self) {
        for worker in &self.workers {
            // A worker that is gone has finished.
            let _ = worker.send(Message::Drain);
        }
    }

    /// Tells initiators to go elsewhere, over the tunnels that are meant; says how many those are.
    pub async fn leave(&self, selection: &Selection) -> usize {
        let mut told = 0;
        for worker in &self.workers {
            let (answer, count) = oneshot::channel();
            let _ = worker.send(Message::Leave(selection.clone(), answer));
            told += count.await.unwrap_or(0);
        }
        told
    }

    /// Asks every worker what it would do with a request for somebody.
    pub async fn explain(&self, asked: &Asked) -> Vec<Choice> {
        let mut choices = Vec::new();
        for worker in &self.workers {
            let (answer, choice) = oneshot::channel();
            let _ = worker.send(Message::Explain(asked.clone(), answer));
            choices.extend(choice.await.ok());
        }
        choices
    }

    /// Asks every worker and adds the answers up.
    pub async fn reports(&self) -> Vec<Report> {
        let mut asked = Vec::new();
        for worker in &self.workers {
            let (answer, report) = oneshot::channel();
            let _ = worker.send(Message::Report(answer));
            asked.push(report);
        }
        let mut reports = Vec::new();
        for report in asked {
            reports.extend(report.await.ok());
        }
        reports
    }
}

/// What a process does about one that has its addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It fails.
    Fresh,
    /// It waits until that one drains, which closes the address for tunnels first; then both accept clients, until that
    /// one has ended. Where there is none it starts at once.
    TakeOver,
}

/// How often to look whether a predecessor has closed its address for tunnels: initiators that are refused meanwhile come
/// back after 10 to 50 ms.
const TAKE_OVER_LOOK: Duration = Duration::from_millis(5);

/// Opens the listeners and makes what each worker starts with.
///
/// # Errors
///
/// [`StartError`] names the listener that could not be opened.
pub async fn prepare<N: Network>(
    net: &N,
    config: Arc<ResponderConfig>,
    clock: Clock,
    seed: u64,
    start: Start,
) -> Result<(Control<N>, Vec<Seed<N>>), StartError> {
    let bind = async |key, addr, sharing| {
        net.bind(addr, config.workers, sharing)
            .await
            .map_err(|source| StartError { key, addr, source })
    };
    let (tunnels, tunnel_shares) = loop {
        match bind("tunnels.listen", config.tunnels.listen, Sharing::Alone).await {
            Err(error) if start == Start::TakeOver && error.source.kind() == io::ErrorKind::AddrInUse => {
                tokio::time::sleep(TAKE_OVER_LOOK).await;
            }
            bound => break bound?,
        }
    };
    let sharing = match start {
        Start::Fresh => Sharing::Alone,
        Start::TakeOver => Sharing::WithPredecessor,
    };
    let (egress, egress_shares) = bind("egress.listen", config.egress.listen, sharing).await?;
    let (workers, mailboxes): (Vec<_>, Vec<_>) =
        (0..config.workers).map(|_| mpsc::unbounded_channel()).unzip();
    let mut rng = Rng::from_seed(seed);
    let shares = tunnel_shares.into_iter().zip(egress_shares).zip(mailboxes);
    let seeds = (0..)
        .map(WorkerId)
        .zip(shares)
        .map(|(worker, ((tunnels, egress), mailbox))| Seed {
            worker,
            tunnels,
            egress,
            mailbox,
            workers: workers.clone(),
            config: Arc::clone(&config),
            clock,
            rng: rng.fork(),
        })
        .collect();
    Ok((
        Control {
            config,
            tunnels,
            egress,
            workers,
        },
        seeds,
    ))
}

/// Where requests for a tunnel go.
enum Link {
    /// The tunnel is idle: its owner must be asked.
    Parked(Claims),
    /// It carries HTTP/2.
    Serving(Sender),
}

/// One worker while it runs. Its tasks share it; each borrow lasts for one call.
struct Worker<N: Network> {
    id: WorkerId,
    net: N,
    clock: Clock,
    config: Arc<ResponderConfig>,
    demands: Demands,
    key_rules: KeyRules,
    key_headers: Vec<HeaderName>,
    tenant_header: Option<HeaderName>,
    routes: Prefixes<EgressRoute>,
    rng: RefCell<Rng>,
    registry: RefCell<Registry>,
    cache: RefCell<Cache>,
    departures: RefCell<Departures>,
    waiting: WaitingRoom,
    links: RefCell<BTreeMap<TunnelId, Link>>,
    /// For each tunnel of this worker: set to say goodbye on it.
    leaves: RefCell<BTreeMap<TunnelId, Latch>>,
    /// A tunnel has left the directory.
    left: Notify,
    peers: RefCell<BTreeMap<TunnelId, SocketAddr>>,
    others: Vec<Option<mpsc::UnboundedSender<Message<N>>>>,
    http: Counters,
    handshakes: RefCell<BTreeMap<&'static str, u64>>,
    pending_handshakes: Cell<u32>,
    pings: PingCounters,
    /// The end has begun: no new tunnels.
    drain: Latch,
    /// No new clients.
    closing: Latch,
    /// Connections of clients, which may finish what they run.
    clients: Crowd,
    /// One for each other worker whose clients may still need a tunnel of this one.
    others_with_clients: RefCell<Vec<Present>>,
    /// All of those.
    foreign_clients: Crowd,
    /// What is left is cut.
    stop: Latch,
}

#[derive(Debug, Default)]
struct PingCounters {
    sent: Cell<u64>,
    echoed: Cell<u64>,
    missed: Cell<u64>,
}

/// Runs one worker until it has drained.
///
/// # Errors
///
/// Those of the operating system when it starts to accept.
pub async fn run<N: Network>(net: N, seed: Seed<N>) -> io::Result<()> {
    let tunnels = net.listen(seed.tunnels)?;
    let egress = net.listen(seed.egress)?;
    let mut mailbox = seed.mailbox;
    let others = seed.workers.into_iter().zip(0..);
    let others = others
        .map(|(sender, id)| (WorkerId(id) != seed.worker).then_some(sender))
        .collect();
    let worker = Rc::new(Worker::new(
        net,
        seed.worker,
        seed.config,
        seed.clock,
        seed.rng,
        others,
    ));
    tokio::task::spawn_local(accept::run(Rc::clone(&worker), tunnels));
    tokio::task::spawn_local(egress::run(Rc::clone(&worker), egress));
    let drained = async {
        worker.drain.wait().await;
        worker.hand_over().await;
        worker.closing.set();
        let finished = async {
            worker.clients.gone().await;
            // Requests of other workers may still run on tunnels of this one.
            worker.tell_others(|| Message::ClientsGone);
            worker.foreign_clients.gone().await;
        };
        if tokio::time::timeout(worker.config.drain_timeout, finished)
            .await
            .is_err()
        {
            tracing::warn!(worker = %worker.id, "drain took too long; cutting what is left");
        }
        worker.stop.set();
    };
    let letters = async {
        while let Some(message) = mailbox.recv().await {
            worker.apply(message);
        }
    };
    tokio::select! {
        biased;
        () = letters => {}
        () = drained => {}
    }
    Ok(())
}

impl<N: Network> Worker<N> {
    fn new(
        net: N,
        id: WorkerId,
        config: Arc<ResponderConfig>,
        clock: Clock,
        rng: Rng,
        others: Vec<Option<mpsc::UnboundedSender<Message<N>>>>,
    ) -> Self {
        let isolation = config.tunnels.tenant_isolation;
        let foreign_clients = Crowd::default();
        let others_with_clients = others.iter().flatten().map(|_| foreign_clients.enter()).collect();
        let header = |name: &String| HeaderName::try_from(name.as_str()).ok();
        let host_id = &config.egress.host_id;
        Self {
            id,
            net,
            clock,
            demands: Demands {
                path: config.tunnels.path.clone(),
                mode: if config.tunnels.http_upgrade {
                    Mode::Upgrade
                } else {
                    Mode::Plain
                },
                tenant_isolation: isolation,
                required_cluster: config.tunnels.required_cluster.clone(),
            },
            key_rules: KeyRules::new(host_id.iter().map(|h| h.names).collect(), isolation),
            key_headers: host_id.iter().filter_map(|h| header(&h.name)).collect(),
            tenant_header: config.egress.tenant.as_ref().and_then(header),
            routes: Prefixes::new(config.egress.routes.iter().map(|r| (r.prefix.clone(), r.clone()))),
            rng: RefCell::new(rng),
            registry: RefCell::new(Registry::new(id, config.workers)),
            cache: RefCell::new(Cache::new(id, config.tunnels.http2.max_streams, isolation)),
            departures: RefCell::new(Departures::new(isolation)),
            waiting: WaitingRoom::default(),
            links: RefCell::default(),
            leaves: RefCell::default(),
            left: Notify::new(),
            peers: RefCell::default(),
            others,
            http: Counters::new(Hop::Egress),
            handshakes: RefCell::default(),
            pending_handshakes: Cell::default(),
            pings: PingCounters::default(),
            drain: Latch::default(),
            closing: Latch::default(),
            clients: Crowd::default(),
            others_with_clients: RefCell::new(others_with_clients),
            foreign_clients,
            stop: Latch::default(),
            config,
        }
    }

    fn apply(self: &Rc<Self>, message: Message<N>) {
        match message {
            Message::Adopt { stream, newcomer } => self.adopt(stream, newcomer),
            Message::Fact(fact, claims) => {
                self.registry.borrow_mut().on_fact(&fact);
                self.note(&fact, claims);
            }
            Message::Serving(tunnel, sender) => self.note_serving(tunnel, sender),
            Message::Report(answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.report());
            }
            Message::Explain(asked, answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.explain(&asked));
            }
            Message::Drain => {
                self.drain.set();
                self.say_goodbye(&Selection::default());
            }
            Message::Leave(selection, answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.say_goodbye(&selection));
            }
            Message::ClientsGone => drop(self.others_with_clients.borrow_mut().pop()),
        }
    }

    fn adopt(self: &Rc<Self>, parcel: N::Parcel, newcomer: Newcomer) {
        let tunnel = newcomer.tunnel;
        self.registry.borrow_mut().on_adopted(tunnel, &newcomer.identity);
        match self.net.adopt(parcel) {
            Ok(stream) => {
                tokio::task::spawn_local(tunnel::run(Rc::clone(self), stream, newcomer));
            }
            Err(error) => {
                tracing::warn!(%tunnel, %error, "cannot adopt a tunnel");
                self.count_handshake("registration_failed");
                self.tell_registry(|registry, now| registry.on_closed(now, tunnel, CloseReason::PeerReset));
            }
        }
    }

    /// Brings the directory in line with a fact.
    fn note(&self, fact: &Fact, claims: Option<Claims>) {
        match fact {
            Fact::Opened {
                tunnel,
                identity,
                owner,
            } => {
                if let Some(claims) = claims {
                    self.links.borrow_mut().insert(*tunnel, Link::Parked(claims));
                    self.cache.borrow_mut().insert(*tunnel, identity, *owner);
                    self.waiting.on_arrived(identity);
                }
            }
            Fact::Leaving { tunnel } => self.cache.borrow_mut().on_leaving(*tunnel),
            Fact::Draining { tunnel } | Fact::Closed { tunnel } => {
                self.forget(*tunnel);
            }
        }
    }

    /// Stops choosing a tunnel.
    fn forget(&self, tunnel: TunnelId) {
        let mut cache = self.cache.borrow_mut();
        if let Some(identity) = cache.identity(tunnel) {
            self.departures.borrow_mut().on_gone(self.clock.now(), identity);
        }
        cache.remove(tunnel);
        self.links.borrow_mut().remove(&tunnel);
        self.left.notify_waiters();
    }

    /// Whether the process began so lately that its initiators may not be here yet.
    fn is_young(&self) -> bool {
        self.clock.now().since_origin() < YOUNG_FOR
    }

    fn note_serving(&self, tunnel: TunnelId, sender: Sender) {
        if let Some(link) = self.links.borrow_mut().get_mut(&tunnel) {
            *link = Link::Serving(sender);
        }
    }

    fn tell_others(&self, message: impl Fn() -> Message<N>) {
        for other in self.others.iter().flatten() {
            // A worker that is gone needs no news.
            let _ = other.send(message());
        }
    }

    /// Lets the registry know of something, and everyone else of what follows.
    fn tell_registry(&self, tell: impl FnOnce(&mut Registry, eddy_core::time::Instant)) {
        self.tell_registry_of(tell, None);
    }

    fn tell_registry_of(
        &self,
        tell: impl FnOnce(&mut Registry, eddy_core::time::Instant),
        claims: Option<&Claims>,
    ) {
        tell(&mut self.registry.borrow_mut(), self.clock.now());
        while let Some(Action::Publish(fact)) = self.next_action() {
            self.note(&fact, claims.cloned());
            self.tell_others(|| Message::Fact(fact.clone(), claims.cloned()));
        }
    }

    fn next_action(&self) -> Option<Action> {
        self.registry.borrow_mut().poll_action()
    }

    fn count_handshake(&self, outcome: &'static str) {
        *self.handshakes.borrow_mut().entry(outcome).or_default() += 1;
    }

    fn report(&self) -> Report {
        let calendar = Calendar {
            now: self.clock.now(),
            wall: self.net.wall(),
        };
        let registry = self.registry.borrow();
        let peers = self.peers.borrow();
        let cache = self.cache.borrow();
        let tunnels = registry.tunnels().map(|(id, tunnel)| TunnelLine {
            id: id.to_string(),
            identity: (&*tunnel.identity).into(),
            host: peers.get(&id).map(ToString::to_string).unwrap_or_default(),
            worker: self.id.to_string(),
            state: tunnel.state.label(),
            since_unix_ms: calendar.unix_ms(tunnel.since),
            for_seconds: calendar.ago(tunnel.since),
            streams: 0,
        });
        let closed = registry.closed().iter().map(|closed| ClosedLine {
            id: closed.tunnel.to_string(),
            identity: (&*closed.identity).into(),
            at_unix_ms: calendar.unix_ms(closed.at),
            lived_seconds: round(closed.lived),
            reason: closed.why.label(),
        });
        let streams = self
            .links
            .borrow()
            .keys()
            .map(|id| (id.to_string(), cache.streams(*id)))
            .collect();
        Report {
            stats: self.stats(),
            tunnels: tunnels.collect(),
            closed: closed.collect(),
            streams,
            hosts: Vec::new(),
        }
    }

    fn stats(&self) -> Sheet {
        let mut sheet = Sheet::default();
        let registry = self.registry.borrow();
        if self.config.stats.detailed {
            fill_detailed(&mut sheet, &registry, self.id);
        }
        let distinct = |of: fn(&Identity) -> &str| {
            registry
                .tunnels()
                .map(|(_, t)| of(&t.identity).to_owned())
                .collect::<std::collections::BTreeSet<_>>()
        };
        sheet.add(
            Name::TotalNodes(self.id),
            distinct(|i| i.node.as_str()).len() as u64,
        );
        sheet.add(
            Name::TotalClusters(self.id),
            distinct(|i| i.cluster.as_str()).len() as u64,
        );
        for outcome in accept::OUTCOMES {
            sheet.add(Name::Handshake(outcome), 0);
        }
        for (outcome, count) in &*self.handshakes.borrow() {
            sheet.add(Name::Handshake(outcome), *count);
        }
        for (what, cell) in [
            (Ping::Sent, &self.pings.sent),
            (Ping::Echoed, &self.pings.echoed),
            (Ping::Missed, &self.pings.missed),
        ] {
            sheet.add(Name::Ping(what), cell.get());
        }
        sheet.add(Name::Opened, registry.opened_total());
        sheet.add(Name::Open, registry.tunnels().count() as u64);
        for (why, count) in registry.closed().by_reason() {
            sheet.add(Name::Closed(*why), *count);
        }
        self.http.fill(&mut sheet);
        sheet
    }
}

fn fill_detailed(sheet: &mut Sheet, registry: &Registry, worker: WorkerId) {
    for (_, tunnel) in registry.tunnels() {
        let Identity { node, cluster, .. } = &*tunnel.identity;
        for on in [None, Some(worker)] {
            sheet.add(Name::NodeTunnels(on, node.clone()), 1);
            sheet.add(Name::ClusterTunnels(on, cluster.clone()), 1);
        }
        sheet.add(Name::IdentityTunnels(cluster.clone(), node.clone()), 1);
    }
}
