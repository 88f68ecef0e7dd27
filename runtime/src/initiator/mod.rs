//! The initiator: dials responders, keeps the tunnels, and serves the requests that come back.
//!
//! Each worker dials its share of the tunnels and owns what it dialed; workers share nothing. Worker 0 also
//! resolves names, and tells everyone the hosts.

mod addresses;
mod carrier;
mod dial;
mod names;
mod overview;
mod perform;
mod report;
mod routes;
mod serve;
mod services;
mod start;
mod tunnel;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use eddy_core::identity::ClusterName;
use eddy_core::selection::Selection;
use tokio::sync::oneshot;

pub use self::start::{Control, Seed, prepare};
use self::worker::Worker;
use crate::net::Network;
use crate::overview::{Overview, Wanted};
use crate::report::{Ask, Report};

/// What a worker is told.
pub(crate) enum Message {
    /// The hosts of an upstream cluster are these.
    Hosts(ClusterName, Vec<SocketAddr>),
    /// The admin requests a report.
    Report(Ask, oneshot::Sender<Report>),
    /// The status page requests its part of this worker.
    Overview(Arc<Wanted>, oneshot::Sender<Overview>),
    /// Drain, and end.
    Drain,
    /// A tunnel to this host broke soon after its upgrade; sent to worker 0.
    BrokeEarly(SocketAddr),
    /// Replace these tunnels; returns how many those are.
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

/// Runs one worker until it has drained.
///
/// # Errors
///
/// None yet: an initiator opens no listener here.
pub async fn run<N: Network>(net: N, mut seed: Seed) -> io::Result<()> {
    if let Some(stale) = seed.resolver.take() {
        let (config, workers) = (Arc::clone(&seed.config), seed.workers.clone());
        tokio::task::spawn_local(names::run(net.clone(), config, workers, stale));
    }
    let (worker, mut mailbox) = Worker::new(net, seed);
    let worker = Rc::new(worker);
    let follower = Rc::clone(&worker);
    tokio::task::spawn_local(async move {
        let config = &follower.config.memory;
        follower.memory.follow(&follower.net, config, || {}).await;
    });
    while !worker.perform_all() {
        tokio::select! {
            biased;
            message = mailbox.recv() => match message {
                Some(message) => worker.apply(message),
                None => return Ok(()),
            },
            () = worker.changed.notified() => {}
            () = worker.deadline() => {}
        }
    }
    Ok(())
}
