//! Plays a scenario: builds its hosts, lets time pass, does what the timeline says, and has the oracle look.

mod build;
mod calm;
mod clients;
mod conduct;
mod connections;
mod faults;
mod hostility;
mod machines;
mod peer;
mod probes;
mod process;
mod services;
mod strangers;
mod upload;
mod variation;
mod watch;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use turmoil::Sim;

use self::clients::Probe;
use self::conduct::Conduct;
use self::services::Service;
use self::variation::Variation;
use crate::fabric::{ConnectionId, Fabric, NetEvent, ProcessId, Side};
use crate::journal::{Event, Journal, Listener, What};
use crate::ledger::Ledger;
use crate::oracle::{Breach, Impediment, Oracle};
use crate::panics;
use crate::request::Request;
use crate::scenario::{Role, Scenario};
use crate::slot::{Changes, Life, Slot};
use crate::verdict::{self, Verdict};

/// The header that names the node, with the configuration that hosts have by default.
const NODE_HEADER: &str = "x-node-id";
/// The header that names the cluster.
const CLUSTER_HEADER: &str = "x-cluster-id";
/// The header by which a request is known everywhere.
const REQUEST_ID: &str = "x-sim-request";
/// The header that says how long the answer shall be.
const ANSWER_BYTES: &str = "x-sim-answer-bytes";
/// The header by which a service says whose it is.
const ANSWERED_BY: &str = "x-sim-answered-by";

/// How often the oracle looks at what takes longer to look at.
const SLOWLY: Duration = Duration::from_millis(100);
/// How many events are told when a run is broken off.
const LAST_EVENTS: usize = 25;

/// A run, told.
#[derive(Debug)]
pub struct Played {
    /// The seed.
    pub seed: u64,
    /// Everything that happened.
    pub events: Vec<Event>,
    /// Every request.
    pub requests: Vec<Request>,
    /// What each expectation came to.
    pub verdicts: Vec<Verdict>,
    /// The stats of each process at the end of the scenario.
    pub stats: Vec<(String, Vec<(String, u64)>)>,
    /// Why the run was broken off.
    pub failure: Option<Failure>,
    /// How much time passed in the simulation.
    pub elapsed: Duration,
}

/// Why a run was broken off.
#[derive(Clone, Debug)]
pub struct Failure {
    /// When.
    pub at: Duration,
    /// What is wrong.
    pub text: String,
    /// What happened just before.
    pub last: Vec<Event>,
}

impl Played {
    /// Whether all is as it should be.
    pub fn is_well(&self) -> bool {
        self.failure.is_none() && self.verdicts.iter().all(|verdict| verdict.holds)
    }
}

/// A scenario while it is played.
pub(crate) struct World<'s> {
    scenario: &'s Scenario,
    sim: Sim<'static>,
    fabric: Fabric,
    journal: Journal,
    variation: Variation,
    slots: Vec<Rc<Slot>>,
    changes: Changes,
    services: Vec<Option<Rc<Service>>>,
    conducts: Vec<Rc<Conduct>>,
    probes: mpsc::UnboundedSender<Probe>,
    ledger: Rc<Ledger>,
    oracle: Oracle,
    addresses: BTreeMap<String, IpAddr>,
    next_event: usize,
    next_drawn: usize,
    next_slow: Duration,
    /// When each initiator began each dial.
    dials: Vec<Duration>,
    /// What each process last said of its tunnels.
    said: Vec<usize>,
    verdicts: Vec<Verdict>,
    stats: Vec<(String, Vec<(String, u64)>)>,
}

/// Plays a scenario under a seed.
pub fn play(scenario: &Scenario, seed: u64) -> Played {
    let journal = Journal::default();
    let subscriber = {
        use tracing_subscriber::layer::SubscriberExt;
        tracing_subscriber::registry().with(Listener(journal.clone()))
    };
    let _listening = tracing::subscriber::set_default(subscriber);
    let _panics = panics::Watch::begin();
    let mut world = World::build(scenario, seed, journal);
    let failure = world.run().err();
    world.tell(seed, failure)
}

type Step = Result<(), Failure>;

/// What keeps a process from its work, if something does.
fn impediment(slot: &Slot) -> Option<Impediment> {
    match slot.life.get() {
        Life::Running | Life::Draining if slot.frozen.get() => Some(Impediment::Frozen),
        Life::Running => None,
        Life::Draining => Some(Impediment::Leaving),
        Life::Stopped | Life::Ended | Life::Failed => Some(Impediment::Down),
    }
}

impl World<'_> {
    fn run(&mut self) -> Step {
        let mut watch = watch::Timed::new(self.scenario, &self.variation);
        while self.sim.elapsed() < self.scenario.duration {
            self.do_what_is_due();
            self.do_what_is_drawn();
            self.step()?;
            watch.look(self);
        }
        self.journal.record(self.sim.elapsed(), "timeline", What::End);
        self.take_stats();
        self.verdicts = watch.finish();
        self.calm_down()?;
        let measured = verdict::measured(self.scenario, &self.ledger.all(), &self.dials);
        self.verdicts.extend(measured);
        // In the order of the file.
        self.verdicts.sort_by_key(|verdict| verdict.place);
        Ok(())
    }

    /// One tick of the network, and a look at what it did.
    fn step(&mut self) -> Step {
        let stepped = self.sim.step();
        let now = self.sim.elapsed();
        if let Some(panic) = panics::taken() {
            return Err(self.failed(format!("the code under test panicked: {panic}")));
        }
        if let Err(error) = stepped {
            return Err(self.failed(format!("the simulation ended: {error}")));
        }
        self.learn();
        let mut seen = self.oracle.check();
        if now >= self.next_slow {
            self.next_slow = now + SLOWLY;
            self.listen(now);
            seen = seen.and_then(|()| self.oracle.check_slowly(now));
        }
        seen.map_err(|breach| self.broken(&breach))
    }

    /// Writes down what processes say of themselves, where it has changed.
    fn listen(&mut self, now: Duration) {
        for (slot, said) in self.slots.iter().zip(&mut self.said) {
            let claims = slot.claims.borrow();
            let tunnels = claims.as_ref().map_or(0, |claims| claims.tunnels);
            if tunnels != *said {
                *said = tunnels;
                self.journal.record(now, &slot.name, What::Says { tunnels });
            }
        }
    }

    fn broken(&self, breach: &Breach) -> Failure {
        let text = breach.to_string();
        let told = What::Breach { text: text.clone() };
        self.journal.record(self.sim.elapsed(), "oracle", told);
        self.failed(text)
    }

    fn failed(&self, text: String) -> Failure {
        Failure {
            at: self.sim.elapsed(),
            text,
            last: self.journal.last(LAST_EVENTS),
        }
    }

    /// Tells the oracle and the journal what happened in the network.
    fn learn(&mut self) {
        for (at, event) in self.fabric.take_events() {
            match event {
                NetEvent::Dialing { process, to } => {
                    if self.is_tunnel_address(to)
                        && let Some(slot) = self.slots.get(process.0)
                    {
                        self.dials.push(at);
                        let to = to.to_string();
                        self.journal.record(at, &slot.name, What::Dial { to });
                    }
                }
                NetEvent::Opened(id, _) => self.learn_opened(at, id),
                NetEvent::Silenced(id) => self.oracle.tunnels.silent(at, id),
                NetEvent::Closed(id, side) => {
                    if let Some(ends) = self.oracle.tunnels.closed(at, id, side) {
                        let (host, peer) = self.ends_by_name(side, ends);
                        let connection = id.0;
                        self.journal
                            .record(at, &host, What::TunnelClosed { connection, peer });
                    }
                }
            }
        }
        let changes = std::mem::take(&mut *self.changes.borrow_mut());
        for process in changes {
            let lasts = impediment(&self.slots[process.0]);
            self.oracle
                .disturbances
                .process(self.sim.elapsed(), process, lasts);
        }
    }

    /// A connection is a tunnel once an initiator holds one end and a responder the other.
    fn learn_opened(&mut self, at: Duration, id: ConnectionId) {
        let Some(info) = self.fabric.info(id) else { return };
        let (Some(initiator), Some(responder)) = (info.dialed_by, info.accepted_by) else {
            return;
        };
        let is = |process: ProcessId, responder: bool| {
            let process = self.scenario.processes.get(process.0);
            process.is_some_and(|process| (process.role == Role::Responder) == responder)
        };
        if !is(initiator, false) || !is(responder, true) || !self.is_tunnel_address(info.server) {
            return;
        }
        let ends = (initiator, responder);
        if !self.oracle.tunnels.opened(at, id, ends, info.client) {
            return;
        }
        for side in [Side::Server, Side::Client] {
            let (host, peer) = self.ends_by_name(side, ends);
            let connection = id.0;
            self.journal
                .record(at, &host, What::TunnelOpened { connection, peer });
        }
    }

    fn ends_by_name(&self, side: Side, (initiator, responder): (ProcessId, ProcessId)) -> (String, String) {
        let (here, there) = match side {
            Side::Client => (initiator, responder),
            Side::Server => (responder, initiator),
        };
        let name = |process: ProcessId| self.slots[process.0].name.clone();
        (name(here), name(there))
    }

    fn is_tunnel_address(&self, to: std::net::SocketAddr) -> bool {
        self.scenario.processes.iter().any(|process| {
            process.tunnel_port() == to.port() && self.addresses.get(&process.machine) == Some(&to.ip())
        })
    }

    fn take_stats(&mut self) {
        let stats = self.slots.iter().map(|slot| {
            let claims = slot.claims.borrow();
            let stats = claims.as_ref().map(|claims| claims.stats.clone());
            (slot.name.clone(), stats.unwrap_or_default())
        });
        self.stats = stats.collect();
    }

    fn tell(&mut self, seed: u64, failure: Option<Failure>) -> Played {
        Played {
            seed,
            elapsed: self.sim.elapsed(),
            verdicts: std::mem::take(&mut self.verdicts),
            stats: std::mem::take(&mut self.stats),
            requests: self.ledger.all(),
            events: self.journal.take(),
            failure,
        }
    }
}
