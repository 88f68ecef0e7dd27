//! Builds the simulated machines of a scenario, and what runs on them.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use eddy_core::rng::Rng;
use tokio::sync::mpsc;

use super::clients::Clients;
use super::conduct::Conduct;
use super::connections::Connections;
use super::variation::Variation;
use super::{World, machines, process};
use crate::fabric::{Conditions, Fabric, ProcessId, SimNetwork};
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::oracle::{Impediment, Oracle};
use crate::scenario::{CLIENTS, SERVICES, Scenario};
use crate::slot::{Changes, Signal, Slot};

/// 14 November 2023, so that no run depends on when it is made.
const EPOCH: Duration = Duration::from_secs(1_700_000_000);
/// More than a scenario and its calm can take.
const FOREVER: Duration = Duration::from_secs(24 * 3600);
/// How finely segments are delivered in varied runs: half as often as by default, at half the cost. Timers stay exact.
const COARSE: Duration = Duration::from_millis(2);
/// Segments and connection attempts that a simulated socket holds; turmoil panics where more attempts wait.
const CAPACITY: usize = 8192;

impl<'s> World<'s> {
    pub(super) fn build(scenario: &'s Scenario, seed: u64, journal: Journal) -> Self {
        let variation = Variation::of(scenario, seed);
        let mut rng = Rng::from_seed(seed);
        let fabric = Fabric::new(rng.next_u64());
        let default = Conditions::default();
        let mut builder = turmoil::Builder::new();
        builder
            .rng_seed(rng.next_u64())
            .epoch(UNIX_EPOCH + EPOCH)
            .simulation_duration(FOREVER)
            .min_message_latency(*default.latency.start())
            .max_message_latency(*default.latency.end())
            .tcp_capacity(CAPACITY);
        if variation.shake {
            builder.enable_random_order().tick_duration(COARSE);
        }
        let mut sim = builder.build();
        let ledger = Rc::new(Ledger::default());
        let changes = Changes::default();
        let conducts: Vec<_> = (0..scenario.processes.len())
            .map(|process| Rc::new(Conduct::new(seed, process)))
            .collect();
        let look = process::look_every(scenario.processes.len());
        let processes: Vec<_> = (0..)
            .map(ProcessId)
            .zip(&scenario.processes)
            .map(|(id, process)| {
                let (journal, changes) = (journal.clone(), Rc::clone(&changes));
                let program = machines::program(process, &conducts[id.0], &ledger, &journal);
                let slot = Slot::new(id, process, journal, rng.next_u64(), look, changes);
                (slot, program)
            })
            .collect();
        let services = machines::services(scenario, &conducts, &ledger, &journal);
        machines::add_processes(&mut sim, scenario, &fabric, &processes);
        let slots: Vec<_> = processes.into_iter().map(|(slot, _)| slot).collect();
        machines::add_services(&mut sim, &fabric, scenario, &services);
        let mut addresses: BTreeMap<String, IpAddr> = BTreeMap::new();
        for machine in scenario.machines().into_iter().chain([SERVICES]) {
            addresses.insert(machine.to_owned(), sim.lookup(machine));
        }
        let egress = scenario.processes.iter().map(|process| {
            let at = SocketAddr::new(addresses[&process.machine], process.egress_port());
            (at, process.name.clone())
        });
        let clients = Clients {
            connections: Connections::new(SimNetwork::new(
                fabric.clone(),
                machines::clients_id(scenario),
                addresses[SERVICES],
            )),
            ledger: Rc::clone(&ledger),
            journal: journal.clone(),
            egress: egress.collect(),
            rng: RefCell::new(rng.fork()),
        };
        let (probes, asked) = mpsc::unbounded_channel();
        machines::add_clients(&mut sim, scenario, clients, asked, variation.shake);
        addresses.insert(CLIENTS.to_owned(), sim.lookup(CLIENTS));
        let noises: Vec<_> = scenario.noise.iter().chain(&variation.noise).cloned().collect();
        machines::add_strangers(&mut sim, scenario, &fabric, &noises, &mut addresses);
        let mut oracle = Oracle::new(scenario, &noises, slots.clone(), Rc::clone(&ledger));
        for (slot, process) in slots.iter().zip(&scenario.processes) {
            if process.started {
                slot.signal(Signal::Start);
            } else {
                oracle
                    .disturbances
                    .process(Duration::ZERO, slot.id, Some(Impediment::Down));
            }
        }
        let world = Self {
            scenario,
            sim,
            fabric,
            journal,
            variation,
            slots,
            changes,
            conducts,
            services,
            probes,
            ledger,
            oracle,
            addresses,
            next_event: 0,
            next_drawn: 0,
            next_slow: Duration::ZERO,
            dials: Vec::new(),
            said: vec![0; scenario.processes.len()],
            verdicts: Vec::new(),
            stats: Vec::new(),
        };
        world.set_links(true);
        world.set_names();
        world
    }

    /// Gives every link its conditions; connections fall silent only if that is still wanted.
    pub(super) fn set_links(&self, silences: bool) {
        let machines: Vec<_> = self.addresses.keys().cloned().collect();
        for (at, here) in machines.iter().enumerate() {
            for there in &machines[at + 1..] {
                self.set_link(here, there, &Conditions::default());
            }
        }
        for link in &self.scenario.links {
            for here in &link.here {
                for there in link.there.iter().filter(|there| *there != here) {
                    let quiet = Conditions {
                        silence: link.conditions.silence.filter(|_| silences),
                        ..link.conditions.clone()
                    };
                    self.set_link(here, there, &quiet);
                }
            }
        }
    }

    fn set_link(&self, here: &str, there: &str, conditions: &Conditions) {
        let (Some(a), Some(b)) = (self.addresses.get(here), self.addresses.get(there)) else {
            // Nobody makes noise, so that there is no machine for it.
            return;
        };
        let conditions = self.variation.vary(conditions);
        self.sim
            .set_link_latency(here, there, *conditions.latency.start());
        self.sim
            .set_link_max_message_latency(here, there, *conditions.latency.end());
        self.fabric.set_conditions(*a, *b, &conditions);
        let back = Conditions {
            silence: None,
            ..conditions
        };
        self.fabric.set_conditions(*b, *a, &back);
    }

    /// Every host and every group has its name, and the scenario's own names mean what they say.
    fn set_names(&self) {
        let mut names: BTreeMap<&str, Vec<IpAddr>> = BTreeMap::new();
        for process in &self.scenario.processes {
            let address = self.addresses[&process.machine];
            for name in [&process.name, &process.group] {
                names.entry(name).or_default().push(address);
            }
        }
        names.insert(SERVICES, vec![self.addresses[SERVICES]]);
        for (name, addresses) in names {
            self.fabric.set_name(name, addresses);
        }
        self.set_book(&self.scenario.names);
    }

    pub(super) fn set_book(&self, book: &BTreeMap<String, Vec<String>>) {
        for (name, machines) in book {
            let addresses = machines
                .iter()
                .filter_map(|machine| self.addresses.get(machine).copied());
            self.fabric.set_name(name, addresses);
        }
    }
}
