//! The responder: accepts tunnels, keeps them, and sends requests into them.
//!
//! A process has N workers that share nothing. Each accepts tunnels and clients on listeners of its own,
//! owns the sockets that were placed on it, and holds a full copy of the directory of tunnels. They tell each
//! other what opened, drains and closed through their mailboxes; a request looks only at its own worker's.

mod accept;
mod client;
mod client_load;
mod directory;
mod egress;
pub mod explain;
mod leave;
mod overview;
mod pending;
mod proxy;
mod refusals;
mod report;
mod start;
mod tunnel;
mod waiting;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eddy_core::absences::Absences;
use eddy_core::cache::Cache;
use eddy_core::close::CloseReason;
use eddy_core::departures::Departures;
use eddy_core::digest::{Comparison, Digest, Standing};
use eddy_core::duplicates::Duplicates;
use eddy_core::handshake::Mode;
use eddy_core::handshake::request::Demands;
use eddy_core::identity::{Identity, TunnelId, WorkerId};
use eddy_core::instance::Instance;
use eddy_core::registry::{Fact, Registry};
use eddy_core::rng::Rng;
use eddy_core::router::{KeyRules, Prefixes};
use eddy_core::stats::Hop;
use eddy_core::time::Instant;
use eddy_core::timings::{Timing, Timings};
use hyper::header::HeaderName;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::clock::Clock;
use crate::config::{EgressRoute, ResponderConfig};
use crate::http::body::Question;
use crate::http::counters::Counters;
use crate::latch::{Crowd, Latch, Present};
use crate::net::Network;
use crate::overview::{Overview, Wanted};
use crate::report::{Ask, Asked, Report};
use crate::selection::Selection;

use self::client_load::ClientLoads;
use self::explain::Choice;
use self::leave::Whom;
use self::pending::PendingHandshakes;
use self::refusals::Refusals;
pub use self::start::{Control, Seed, Start, StartError, prepare};
use self::tunnel::Orders;
use self::waiting::WaitingRoom;

/// So long after it has its addresses a responder takes everybody for somebody who was here moments ago: whoever lost it dials again
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
    /// Something happened to a tunnel of another worker; with what else there is to know of it, if it opened.
    Fact(Fact, Option<Introduction>),
    /// What the sender's tunnels are, in short: is the receiver's copy the same?
    Digest(WorkerId, Digest),
    /// The sender's copy of the receiver's tunnels is wrong.
    Resend(WorkerId),
    /// All tunnels of the sender that may be chosen.
    Snapshot(WorkerId, Vec<Listing>),
    /// A tunnel of another worker carries HTTP/2 from now on.
    Serving(TunnelId, Sender),
    /// A tunnel of another worker has missed a ping, or has given an echo since.
    Missing(TunnelId, bool),
    /// The admin asks.
    Report(Ask, oneshot::Sender<Report>),
    /// The status page asks.
    Overview(Arc<Wanted>, oneshot::Sender<Overview>),
    /// The status page asks how many requests of this worker are on the tunnels of each of these.
    Requests(Arc<[Arc<Identity>]>, oneshot::Sender<Vec<u32>>),
    /// The admin asks what would become of a request.
    Explain(Asked, oneshot::Sender<Choice>),
    /// Finish.
    Drain,
    /// Tell these initiators to go elsewhere; says how many tunnels that are.
    Leave(Selection, oneshot::Sender<usize>),
    /// The clients of another worker are gone: it needs our tunnels no more.
    ClientsGone,
    /// Another worker takes no tunnels any more; told to the first one.
    NoMoreTunnels,
    /// Another process has the address for tunnels; told by the first one.
    Succeeded,
}

/// A tunnel between its handshake and its owner.
pub(crate) struct Newcomer {
    tunnel: TunnelId,
    identity: Arc<Identity>,
    instance: Option<Instance>,
    peer: SocketAddr,
    /// What the initiator calls it.
    peer_tunnel: Option<String>,
    /// When its connection was accepted.
    accepted: Instant,
    /// When its handshake was read.
    heard: Instant,
}

/// What a tunnel's owner tells everyone when it opens, besides whose it is.
#[derive(Clone)]
pub(crate) struct Introduction {
    claims: Claims,
    instance: Option<Instance>,
    /// When its handshake was read: the order in which initiators dialed, whenever they heard the answer.
    heard: Instant,
}

/// A tunnel that may be chosen, as its owner sends it to another worker whose copy of the directory is wrong.
pub(crate) struct Listing {
    tunnel: TunnelId,
    identity: Arc<Identity>,
    standing: Standing,
    introduction: Introduction,
}

/// A tunnel of this worker: where it comes from, and what its task is told.
struct Guest {
    peer: SocketAddr,
    peer_tunnel: Option<String>,
    introduction: Introduction,
    orders: Orders,
}

/// Requests of this worker on a tunnel that has left the directory.
struct Orphans {
    identity: Arc<Identity>,
    streams: u32,
    /// An end of the tunnel drains it.
    draining: bool,
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
    began: Instant,
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
    absences: RefCell<Absences>,
    waiting: WaitingRoom,
    /// Requests that wait for a place on a tunnel.
    places: WaitingRoom,
    client_loads: ClientLoads,
    links: RefCell<BTreeMap<TunnelId, Link>>,
    /// The tunnels of this worker.
    guests: RefCell<BTreeMap<TunnelId, Guest>>,
    duplicates: RefCell<Duplicates>,
    duplicates_seen: Cell<u64>,
    /// Of this worker's copy with the tunnels of each.
    comparisons: RefCell<BTreeMap<WorkerId, Comparison>>,
    directory_repaired: Cell<u64>,
    /// Those tunnels in the directory whose initiators dial elsewhere on a GOAWAY and serve on until they have.
    movers: RefCell<BTreeSet<TunnelId>>,
    /// A tunnel has left the directory.
    left: Notify,
    /// Tunnels of this worker.
    tunnels: Crowd,
    others: Vec<Option<mpsc::UnboundedSender<Message<N>>>>,
    http: Counters,
    timings: RefCell<Timings>,
    /// The last handshakes that were refused.
    refusals: RefCell<Refusals>,
    /// Requests of this worker on tunnels that have left the directory.
    orphans: RefCell<BTreeMap<TunnelId, Orphans>>,
    handshakes: RefCell<BTreeMap<&'static str, u64>>,
    pending: Rc<PendingHandshakes>,
    /// Refused connections whose peer may still read the refusal.
    lingering: Crowd,
    pings: PingCounters,
    /// The end has begun: no new tunnels.
    drain: Latch,
    /// No new clients.
    door: Latch,
    /// Clients that rest are let go.
    closing: Latch,
    /// Connections of clients, which may finish what they run.
    clients: Crowd,
    /// One for each other worker whose clients may still need a tunnel of this one.
    others_with_clients: RefCell<Vec<Present>>,
    /// All of those.
    foreign_clients: Crowd,
    /// One for each worker that may still take tunnels.
    others_with_door: RefCell<Vec<Present>>,
    /// All of those.
    tunnel_doors: Crowd,
    /// Another process has the address for tunnels.
    successor: Latch,
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
    let mut worker = Worker::new(
        net,
        seed.worker,
        seed.config,
        seed.clock,
        seed.rng,
        others,
        seed.began,
    );
    worker.http.recorder.tell(seed.records);
    let worker = Rc::new(worker);
    tokio::task::spawn_local(accept::run(Rc::clone(&worker), tunnels));
    let attending = worker.clients.enter();
    tokio::task::spawn_local(egress::run(Rc::clone(&worker), egress, attending));
    let drained = async {
        worker.drain.wait().await;
        worker.hand_over().await;
        worker.door.set();
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
        worker.dismiss().await;
        worker.http.cutting.set(true);
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
        () = worker.compare_copies() => {}
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
        began: Instant,
    ) -> Self {
        // No fork of `rng` draws the same numbers, and the forks stay as they are.
        let ids = Rng::from_seed(!rng.clone().next_u64());
        let isolation = config.tunnels.tenant_isolation;
        let foreign_clients = Crowd::default();
        let tunnel_doors = Crowd::default();
        let others_with_door = others.iter().flatten().map(|_| tunnel_doors.enter()).collect();
        let others_with_clients = others.iter().flatten().map(|_| foreign_clients.enter()).collect();
        let header = |name: &String| HeaderName::try_from(name.as_str()).ok();
        let host_id = &config.egress.host_id;
        Self {
            id,
            net,
            clock,
            began,
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
            cache: RefCell::new(
                Cache::new(id, config.tunnels.http2.max_streams, isolation).one_of(config.workers),
            ),
            departures: RefCell::new(Departures::new(isolation)),
            absences: RefCell::default(),
            waiting: WaitingRoom::default(),
            places: WaitingRoom::default(),
            client_loads: ClientLoads::default(),
            links: RefCell::default(),
            guests: RefCell::default(),
            duplicates: RefCell::new(Duplicates::new(config.tunnels.duplicates)),
            duplicates_seen: Cell::default(),
            comparisons: RefCell::default(),
            directory_repaired: Cell::default(),
            movers: RefCell::default(),
            left: Notify::new(),
            tunnels: Crowd::default(),
            others,
            http: Counters::new(Hop::Egress, clock, ids),
            timings: RefCell::new(Timings::of_these([
                Timing::Handshake,
                Timing::Lifetime,
                Timing::Recovery,
            ])),
            refusals: RefCell::default(),
            orphans: RefCell::default(),
            handshakes: RefCell::default(),
            pending: Rc::new(PendingHandshakes::new(&config.tunnels)),
            lingering: Crowd::default(),
            pings: PingCounters::default(),
            drain: Latch::default(),
            door: Latch::default(),
            closing: Latch::default(),
            clients: Crowd::default(),
            others_with_clients: RefCell::new(others_with_clients),
            foreign_clients,
            others_with_door: RefCell::new(others_with_door),
            tunnel_doors,
            successor: Latch::default(),
            stop: Latch::default(),
            config,
        }
    }

    fn apply(self: &Rc<Self>, message: Message<N>) {
        match message {
            Message::Adopt { stream, newcomer } => self.adopt(stream, newcomer),
            Message::Fact(fact, introduction) => {
                self.registry.borrow_mut().on_fact(&fact);
                self.note(&fact, introduction);
            }
            Message::Digest(owner, digest) => self.compare_copy(owner, digest),
            Message::Resend(to) => self.send_snapshot(to),
            Message::Snapshot(owner, listings) => self.repair_copy(owner, listings),
            Message::Serving(tunnel, sender) => self.note_serving(tunnel, sender),
            Message::Missing(tunnel, missing) => self.cache.borrow_mut().on_missing(tunnel, missing),
            Message::Report(ask, answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.report(&ask));
            }
            Message::Overview(wanted, answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.overview(&wanted));
            }
            Message::Requests(whose, answer) => {
                // Who asked may have gone.
                let _ = answer.send(whose.iter().map(|identity| self.requests_of(identity)).collect());
            }
            Message::Explain(asked, answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.explain(&asked));
            }
            Message::Drain => {
                self.drain.set();
                self.say_goodbye(&Selection::default(), Whom::Movers);
            }
            Message::Leave(selection, answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.say_goodbye(&selection, Whom::All));
            }
            Message::NoMoreTunnels => drop(self.others_with_door.borrow_mut().pop()),
            Message::Succeeded => self.successor.set(),
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

    fn count_handshake(&self, outcome: &'static str) {
        *self.handshakes.borrow_mut().entry(outcome).or_default() += 1;
    }
}
