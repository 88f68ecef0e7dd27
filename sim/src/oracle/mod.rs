//! The observer: knows from the services which request reached which node, from the clients what they got, from
//! the network which connections exist, and checks that the invariants of the design hold while a scenario runs.
//!
//! It asks the code under test for one thing only: what it says of itself, to compare it with the truth.

mod directories;
mod disturbance;
mod requests;
mod truth;
mod tunnels;

use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use eddy_runtime::config::Config;

pub(crate) use self::disturbance::{Disturbances, Impediment};
pub(crate) use self::tunnels::Tunnels;

use crate::ledger::Ledger;
use crate::scenario::{Noise, Process, Scenario};
use crate::slot::Slot;

/// What a verdict may take beyond the times of the configuration: latency, a lost segment, a timer's jitter.
const SLACK: Duration = Duration::from_secs(4);

/// The invariants of the design, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invariant {
    /// A route exists if and only if a live tunnel exists.
    Route,
    /// A request reaches whom it asked for, or nobody.
    Destination,
    /// Every request ends once, and is repeated only where that is safe.
    Once,
    /// What a process says of itself is true when all is quiet.
    Truth,
    /// Nothing is left behind.
    Leftover,
    /// A dead tunnel is noticed, and one that should be there is there again.
    Liveness,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Route => "a route exists if and only if a live tunnel exists (1, 2)",
            Self::Destination => "a request reaches whom it asked for, or nobody (3)",
            Self::Once => "every request ends once, and is repeated only where that is safe (4)",
            Self::Truth => "a gauge equals the truth whenever all is quiet (5)",
            Self::Leftover => "nothing is left behind (6)",
            Self::Liveness => "what is dead is noticed, and what should be up comes back",
        })
    }
}

/// An invariant that does not hold.
#[derive(Clone, Debug)]
pub(crate) struct Breach {
    /// Which.
    pub invariant: Invariant,
    /// What should have been.
    pub expected: String,
    /// What was.
    pub seen: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "broken: {}; expected: {}; seen: {}",
            self.invariant, self.expected, self.seen
        )
    }
}

/// The observer of one run.
pub(crate) struct Oracle {
    pub(crate) processes: Vec<Process>,
    pub(crate) slots: Vec<Rc<Slot>>,
    pub(crate) ledger: Rc<Ledger>,
    pub(crate) tunnels: Tunnels,
    pub(crate) disturbances: Disturbances,
    /// Until when somebody makes noise.
    noise_until: Duration,
    verdict: Duration,
}

impl Oracle {
    pub(crate) fn new(
        scenario: &Scenario,
        noises: &[Noise],
        slots: Vec<Rc<Slot>>,
        ledger: Rc<Ledger>,
    ) -> Self {
        // Connections that send nothing are never taken for tunnels.
        let noise = noises.iter().filter(|noise| !noise.sends.is_empty());
        let noise = noise.map(|noise| {
            let last = noise.start + noise.every * noise.connections;
            last + noise.stays
        });
        Self {
            tunnels: Tunnels::default(),
            disturbances: Disturbances::new(&scenario.processes),
            noise_until: noise.max().unwrap_or_default(),
            verdict: verdict(&scenario.processes),
            processes: scenario.processes.clone(),
            slots,
            ledger,
        }
    }

    /// Looks at everything; says the first thing that must not be.
    pub(crate) fn check(&self) -> Result<(), Breach> {
        for id in self.ledger.take_news() {
            self.check_request(id)?;
        }
        Ok(())
    }

    /// Looks at what takes longer to look at; a few times a second.
    pub(crate) fn check_slowly(&self, now: Duration) -> Result<(), Breach> {
        for slot in &self.slots {
            if let Some(why) = &*slot.failure.borrow() {
                return Err(Breach {
                    invariant: Invariant::Leftover,
                    expected: format!("{} runs until it is told to end", slot.name),
                    seen: why.clone(),
                });
            }
        }
        self.check_half_open(now)?;
        self.check_truth(now)
    }

    /// A tunnel that lost an end, or its path, must be given up by the other end in time.
    fn check_half_open(&self, now: Duration) -> Result<(), Breach> {
        for (id, tunnel) in self.tunnels.iter() {
            let holders = [
                tunnel.client_open.then_some(tunnel.initiator),
                tunnel.server_open.then_some(tunnel.responder),
            ];
            for holder in holders.into_iter().flatten() {
                let Some(since) = self.disturbances.impaired_since(tunnel, now) else {
                    continue;
                };
                // Who stands still notices nothing; it may take its time once it moves.
                let since = since.max(self.disturbances.moving_since(holder, now));
                if now > since + self.verdict {
                    let name = &self.slots[holder.0].name;
                    return Err(Breach {
                        invariant: Invariant::Liveness,
                        expected: format!(
                            "{name} gives up tunnel connection {} within {:?}",
                            id.0, self.verdict
                        ),
                        seen: format!("it holds it {:?} after it became useless", now - since),
                    });
                }
            }
        }
        Ok(())
    }
}

/// After how long the slowest process of a scenario must have noticed that a tunnel is dead, by its configuration.
fn verdict(processes: &[Process]) -> Duration {
    let mut longest = Duration::ZERO;
    let interval = processes.iter().filter_map(|process| match &process.config {
        Config::Responder(config) => Some(config.tunnels.ping_interval),
        Config::Initiator(_) => None,
    });
    let interval = interval.max().unwrap_or_default();
    for process in processes {
        let (idle, in_use) = match &process.config {
            Config::Responder(config) => {
                let tunnels = &config.tunnels;
                let idle = tunnels.ping_interval * 2 + tunnels.ping_interval * tunnels.ping_misses / 2;
                let http2 = &tunnels.http2;
                (idle, http2.ping_interval + http2.ping_timeout)
            }
            Config::Initiator(config) => {
                let liveness = &config.liveness;
                (
                    liveness.first_ping.max(interval * 2 * liveness.intervals),
                    liveness.http2.ping_interval + liveness.http2.ping_timeout,
                )
            }
        };
        longest = longest.max(idle).max(in_use);
    }
    longest + SLACK
}
