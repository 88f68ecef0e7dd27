//! The simulated machines: those of the processes, the services, the clients, and strangers.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use tokio::sync::mpsc;
use turmoil::Sim;

use super::clients::{self, Clients, Probe};
use super::conduct::Conduct;
use super::process::{Program, Supervised};
use super::services::Service;
use super::{peer, strangers};
use crate::fabric::{Fabric, ProcessId, SimNetwork};
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::scenario::{CLIENTS, Noise, Process, Role, SERVICES, Scenario, stranger};
use crate::slot::Slot;

/// The code that a process runs.
pub(super) fn program(
    process: &Process,
    conduct: &Rc<Conduct>,
    ledger: &Rc<Ledger>,
    journal: &Journal,
) -> Program {
    match &process.role {
        Role::Responder | Role::Initiator { .. } => Program::Eddy(Rc::new(process.config.clone())),
        Role::Peer { identity, peer } => Program::Peer(Rc::new(peer::Program {
            identity: identity.clone(),
            peer: peer.clone(),
            conduct: Rc::clone(conduct),
            ledger: Rc::clone(ledger),
            journal: journal.clone(),
        })),
    }
}

pub(super) fn services(
    scenario: &Scenario,
    conducts: &[Rc<Conduct>],
    ledger: &Rc<Ledger>,
    journal: &Journal,
) -> Vec<Option<Rc<Service>>> {
    let processes = (0..).map(ProcessId).zip(&scenario.processes);
    let service = |(of, process): (ProcessId, &Process)| match process.role {
        Role::Responder | Role::Peer { .. } => None,
        Role::Initiator { service, .. } => {
            let (ledger, journal) = (Rc::clone(ledger), journal.clone());
            let conduct = Rc::clone(&conducts[of.0]);
            let name = format!("{}'s service", process.name);
            Some(Service::new(of, &name, service, conduct, ledger, journal))
        }
    };
    processes.map(service).collect()
}

pub(super) fn add_processes(
    sim: &mut Sim<'static>,
    scenario: &Scenario,
    fabric: &Fabric,
    processes: &[(Rc<Slot>, Program)],
) {
    for machine in scenario.machines() {
        let here = processes
            .iter()
            .filter(|(slot, _)| scenario.processes[slot.id.0].machine == machine);
        let processes: Vec<_> = here.cloned().collect();
        let (fabric, name) = (fabric.clone(), machine.to_owned());
        sim.host(machine, move || {
            let (fabric, name, processes) = (fabric.clone(), name.clone(), processes.clone());
            async move {
                let address = turmoil::lookup(name.as_str());
                for (slot, program) in processes {
                    let net = SimNetwork::new(fabric.clone(), slot.id, address);
                    tokio::task::spawn_local(Supervised::new(slot, program, net));
                }
                pending().await
            }
        });
    }
}

pub(super) fn add_services(
    sim: &mut Sim<'static>,
    fabric: &Fabric,
    scenario: &Scenario,
    services: &[Option<Rc<Service>>],
) {
    let services: Vec<_> = services.iter().flatten().cloned().collect();
    let (fabric, id) = (fabric.clone(), ProcessId(scenario.processes.len()));
    sim.host(SERVICES, move || {
        let (fabric, services) = (fabric.clone(), services.clone());
        async move {
            let net = SimNetwork::new(fabric, id, turmoil::lookup(SERVICES));
            for service in services {
                tokio::task::spawn_local(service.run(net.clone()));
            }
            pending().await
        }
    });
}

pub(super) const fn clients_id(scenario: &Scenario) -> ProcessId {
    ProcessId(scenario.processes.len() + 1)
}

pub(super) fn add_clients(
    sim: &mut Sim<'static>,
    scenario: &Scenario,
    clients: Clients,
    asked: mpsc::UnboundedReceiver<Probe>,
    shake: bool,
) {
    let workload: Vec<_> = scenario.workload.iter().cloned().map(Rc::new).collect();
    let start = RefCell::new(Some((clients, asked)));
    sim.host(CLIENTS, move || {
        let (start, workload) = (start.borrow_mut().take(), workload.clone());
        async move {
            let Some((mut clients, mut asked)) = start else {
                return Ok(());
            };
            let net = &mut clients.connections.net;
            *net = net.at(turmoil::lookup(CLIENTS));
            let clients = Rc::new(clients);
            for (index, workload) in workload.into_iter().enumerate() {
                tokio::task::spawn_local(clients::run(Rc::clone(&clients), index, workload, shake));
            }
            while let Some(probe) = asked.recv().await {
                tokio::task::spawn_local(clients::probe(Rc::clone(&clients), probe));
            }
            Ok(())
        }
    });
}

/// Adds a machine for each source of noise.
pub(super) fn add_strangers(
    sim: &mut Sim<'static>,
    scenario: &Scenario,
    fabric: &Fabric,
    noises: &[Noise],
    addresses: &mut BTreeMap<String, IpAddr>,
) {
    let aimed = noises.iter().map(|noise| {
        let process = &scenario.processes[noise.to];
        let to = SocketAddr::new(addresses[&process.machine], process.tunnel_port());
        (Rc::new(noise.clone()), to)
    });
    let aimed: Vec<_> = aimed.collect();
    let sources = noises.iter().map(|noise| noise.sources).max().unwrap_or(0);
    let (id, end) = (ProcessId(scenario.processes.len() + 2), scenario.duration);
    for source in 0..sources {
        let name = stranger(source);
        let (fabric, aimed, machine) = (fabric.clone(), aimed.clone(), name.clone());
        sim.host(name.as_str(), move || {
            let (fabric, aimed, machine) = (fabric.clone(), aimed.clone(), machine.clone());
            async move {
                let net = SimNetwork::new(fabric, id, turmoil::lookup(machine));
                for (noise, to) in aimed {
                    tokio::task::spawn_local(strangers::run(net.clone(), noise, source, to, end));
                }
                pending().await
            }
        });
        addresses.insert(name.clone(), sim.lookup(name.as_str()));
    }
}
