//! The responder: accepts tunnels, keeps them, and sends requests into them.
//!
//! A process has N workers that share nothing. Each accepts tunnels and clients on listeners of its own,
//! owns the sockets that were placed on it, and holds a full copy of the directory of tunnels. They tell each
//! other what opened, drains and closed through their mailboxes; a request looks only at its own worker's.

mod accept;
mod client;
mod client_load;
mod egress;
pub mod explain;
mod inbox;
mod overview;
mod pending;
mod proxy;
mod readers;
mod refusals;
mod report;
mod senders;
mod start;
mod tunnel;
mod waiting;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eddy_core::identity::{Identity, TunnelId};
use eddy_core::registry::Introduction;
use eddy_core::responder::Gossip;
use eddy_core::selection::Selection;
use eddy_core::time::Instant;
use tokio::sync::oneshot;

use crate::net::Network;
use crate::overview::{Overview, Wanted};
use crate::report::{Ask, Asked, Report};

use self::egress::Presence;
use self::explain::Choice;
use self::senders::{Claims, Sender};
pub use self::start::{Control, Seed, Start, StartError, prepare};
use self::worker::Worker;

/// How often to look whether a successor has the address for tunnels.
const SUCCESSOR_LOOK: Duration = Duration::from_millis(20);

/// What workers, and the admin, send to a worker.
pub(crate) enum Message<N: Network> {
    /// A tunnel whose handshake another worker read; this worker owns it from here on.
    Adopt { stream: N::Parcel, newcomer: Newcomer },
    /// For the machine, with a way to the sender of each tunnel that it introduces.
    Gossip(Gossip, Vec<(TunnelId, Claims)>),
    /// A tunnel of another worker carries HTTP/2 from now on.
    Serving(TunnelId, Sender),
    /// The admin requests a report.
    Report(Ask, oneshot::Sender<Report>),
    /// The status page requests its part of this worker.
    Overview(Arc<Wanted>, oneshot::Sender<Overview>),
    /// The status page requests how many requests of this worker are on the tunnels of each of these.
    Requests(Arc<[Arc<Identity>]>, oneshot::Sender<Vec<u32>>),
    /// The admin requests what would become of a request.
    Explain(Asked, oneshot::Sender<Choice>),
    /// Drain, and end.
    Drain,
    /// Send these tunnels away; returns how many those are.
    SendAway(Selection, oneshot::Sender<usize>),
}

/// A tunnel between its handshake and its owner.
pub(crate) struct Newcomer {
    tunnel: TunnelId,
    introduction: Introduction,
    peer: SocketAddr,
    /// What the initiator calls it.
    peer_tunnel: Option<String>,
    /// When its connection was accepted.
    accepted: Instant,
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
    let others = seed.workers.into_iter().enumerate();
    let others = others.map(|(id, sender)| (id != usize::from(seed.worker.0)).then_some(sender));
    let mut worker = Worker::new(
        net,
        seed.worker,
        seed.config,
        seed.clock,
        seed.rng,
        others.collect(),
        seed.began,
    );
    worker.telemetry.http.recorder.tell(seed.records);
    let worker = Rc::new(worker);
    tokio::task::spawn_local(accept::run(Rc::clone(&worker), tunnels));
    let attending = Presence::new(&worker);
    tokio::task::spawn_local(egress::run(Rc::clone(&worker), egress, attending));
    tokio::task::spawn_local(egress::watch_readers(Rc::clone(&worker)));
    let mut successor = Box::pin(worker.report_successor());
    loop {
        tokio::select! {
            biased;
            message = mailbox.recv() => match message {
                Some(message) => worker.apply(message),
                None => return Ok(()),
            },
            () = worker.signals.stop.wait() => return Ok(()),
            () = worker.deadline() => worker.with(|machine, now| machine.handle_timeout(now)),
            () = &mut successor => {}
        }
    }
}
