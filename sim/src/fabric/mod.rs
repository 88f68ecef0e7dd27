//! The network as an outsider sees it: who is connected to whom, which paths are open, what each name means.
//!
//! turmoil carries the segments. This layer adds what it does not model (cuts, losses, links with limited bandwidth and a
//! queue, silent links, a byte window, acknowledgements, SYNs that are sent again) and remembers every connection, so that
//! an observer need not ask the code under test.

mod bottleneck;
mod conditions;
mod connection;
mod flow;
mod meter;
mod network;
mod path;
mod stream;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::conditions::{Conditions, Silence, Stall};
pub use self::connection::{ConnectionId, ConnectionInfo, Side};
pub use self::meter::SimMeter;
pub use self::network::{Share, SimListener, SimNetwork};
pub use self::path::Passage;
pub use self::stream::SimStream;

use self::connection::Connection;
use self::path::Paths;

/// A process of a scenario, by its place in the list of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub usize);

/// What happened to a connection, in the order in which it happened.
#[derive(Clone, Debug)]
pub enum NetEvent {
    /// Somebody begins to connect.
    Dialing {
        /// Who.
        process: ProcessId,
        /// Whereto.
        to: SocketAddr,
    },
    /// A connection is up at one end.
    Opened(ConnectionId, Side),
    /// A connection swallows everything from now on.
    Silenced(ConnectionId),
    /// One end let go of a connection.
    Closed(ConnectionId, Side),
}

/// The shared knowledge of one simulated network.
#[derive(Clone, Default)]
pub struct Fabric(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    seed: u64,
    paths: Paths,
    names: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Those of which an end is open, or still to come.
    connections: BTreeMap<ConnectionId, Connection>,
    /// How many there have been.
    count: u64,
    /// The newest connection of each pair of client and server address.
    pairs: BTreeMap<(SocketAddr, SocketAddr), ConnectionId>,
    /// The ports at which single workers accept, by host, shared port and worker.
    doors: BTreeMap<(IpAddr, u16, u16), u16>,
    events: Vec<(Duration, NetEvent)>,
    /// How many silenced connections each path has had.
    silenced: BTreeMap<(IpAddr, IpAddr), u32>,
}

/// Simulated time; zero outside of a simulation.
pub(crate) fn now() -> Duration {
    turmoil::sim_elapsed().unwrap_or_default()
}

impl State {
    /// Forgets a connection that nobody holds any more.
    fn forget(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id).filter(|c| c.is_over()) else {
            return;
        };
        let pair = (connection.client, connection.server);
        self.connections.remove(&id);
        // The pair may be another connection's by now.
        if self.pairs.get(&pair) == Some(&id) {
            self.pairs.remove(&pair);
        }
    }
}

impl Fabric {
    /// A network whose chances follow from a seed.
    pub fn new(seed: u64) -> Self {
        let fabric = Self::default();
        fabric.state().seed = seed;
        fabric
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere ends the run anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what a name resolves to; no address: the name is not known.
    pub fn set_name(&self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        self.state()
            .names
            .insert(name.to_owned(), addresses.into_iter().collect());
    }

    pub(crate) fn resolve(&self, name: &str) -> Vec<IpAddr> {
        let state = self.state();
        state
            .names
            .get(name)
            .map(|found| found.iter().copied().collect())
            .unwrap_or_default()
    }

    /// Sets what the path from one address to another does to the bytes on it.
    pub fn set_conditions(&self, from: IpAddr, to: IpAddr, conditions: &Conditions) {
        self.state().paths.set_conditions(from, to, conditions.clone());
    }

    /// What happened since the last call.
    pub fn take_events(&self) -> Vec<(Duration, NetEvent)> {
        std::mem::take(&mut self.state().events)
    }

    /// A connection as it is now.
    pub fn info(&self, id: ConnectionId) -> Option<ConnectionInfo> {
        self.state().connections.get(&id).map(Connection::info)
    }

    /// Connections of which a process holds an end.
    pub fn held_by(&self, process: ProcessId) -> usize {
        let state = self.state();
        state
            .connections
            .values()
            .filter(|connection| connection.is_held_by(process))
            .count()
    }
}
