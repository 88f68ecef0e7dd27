//! Who was hit by what the timeline did, and since when it is left alone: where a fault is under way, nothing can
//! be demanded.

use std::collections::BTreeMap;
use std::time::Duration;

use super::tunnels::Tunnel;
use crate::fabric::ProcessId;
use crate::scenario::Process;

/// What keeps a process from its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Impediment {
    /// It stands still.
    Frozen,
    /// It finishes.
    Leaving,
    /// It does not run.
    Down,
}

/// The faults that are under way, and the ends of those that were.
pub(crate) struct Disturbances {
    machines: Vec<String>,
    /// Paths that do not let through, and since when.
    blocked: BTreeMap<(String, String), Duration>,
    /// Processes that cannot work.
    impeded: BTreeMap<ProcessId, Impediment>,
    /// When something last happened to a machine.
    machine_hit: BTreeMap<String, Duration>,
    /// When something last happened to a process.
    process_hit: BTreeMap<ProcessId, Duration>,
    last: Duration,
}

impl Disturbances {
    pub(crate) fn new(processes: &[Process]) -> Self {
        Self {
            machines: processes.iter().map(|process| process.machine.clone()).collect(),
            blocked: BTreeMap::new(),
            impeded: BTreeMap::new(),
            machine_hit: BTreeMap::new(),
            process_hit: BTreeMap::new(),
            last: Duration::ZERO,
        }
    }

    pub(crate) fn path(&mut self, now: Duration, from: &str, to: &str, open: bool) {
        let path = (from.to_owned(), to.to_owned());
        if open {
            self.blocked.remove(&path);
        } else {
            self.blocked.entry(path).or_insert(now);
        }
        for machine in [from, to] {
            self.machine_hit.insert(machine.to_owned(), now);
        }
        self.last = now;
    }

    /// Something happened to a process, and perhaps lasts.
    pub(crate) fn process(&mut self, now: Duration, process: ProcessId, lasts: Option<Impediment>) {
        match lasts {
            Some(impediment) => self.impeded.insert(process, impediment),
            None => self.impeded.remove(&process),
        };
        self.process_hit.insert(process, now);
        self.last = now;
    }

    /// Whether something goes on; what is down is at rest.
    pub(crate) fn any_ongoing(&self) -> bool {
        let moving = self
            .impeded
            .values()
            .any(|impediment| *impediment != Impediment::Down);
        !self.blocked.is_empty() || moving
    }

    pub(crate) const fn last_change(&self) -> Duration {
        self.last
    }

    fn machine(&self, process: ProcessId) -> &str {
        &self.machines[process.0]
    }

    /// Since when a machine's paths are all open.
    pub(crate) fn machine_calm_since(&self, machine: &str) -> Option<Duration> {
        if self
            .blocked
            .keys()
            .any(|(from, to)| from == machine || to == machine)
        {
            return None;
        }
        Some(self.machine_hit.get(machine).copied().unwrap_or_default())
    }

    /// Since when nothing happens to a process; `None` while something does.
    pub(crate) fn calm_since(&self, process: ProcessId) -> Option<Duration> {
        if self.impeded.contains_key(&process) {
            return None;
        }
        let hit = self.process_hit.get(&process).copied().unwrap_or_default();
        Some(self.machine_calm_since(self.machine(process))?.max(hit))
    }

    /// Since when a process moves; `now` while it stands still.
    pub(crate) fn moving_since(&self, process: ProcessId, now: Duration) -> Duration {
        if self.impeded.contains_key(&process) {
            return now;
        }
        self.process_hit.get(&process).copied().unwrap_or_default()
    }

    /// Since when a tunnel is of no use, if it is.
    pub(crate) fn impaired_since(&self, tunnel: &Tunnel, now: Duration) -> Option<Duration> {
        let (here, there) = (self.machine(tunnel.initiator), self.machine(tunnel.responder));
        let path = |from: &str, to: &str| self.blocked.get(&(from.to_owned(), to.to_owned())).copied();
        // An end that stands still makes the tunnel useless to the other one.
        let ends = [
            (tunnel.initiator, tunnel.client_open),
            (tunnel.responder, tunnel.server_open),
        ];
        let still = ends
            .into_iter()
            .filter(|(process, open)| *open && self.impeded.get(process) == Some(&Impediment::Frozen))
            .filter_map(|(process, _)| self.process_hit.get(&process).copied());
        let causes = [
            tunnel.torn_at,
            tunnel.silent_at,
            path(here, there),
            path(there, here),
        ];
        let since = causes.into_iter().flatten().chain(still).min()?;
        (since <= now).then_some(since)
    }
}
