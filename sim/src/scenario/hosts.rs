//! The hosts of a scenario: which processes run where, with which configuration.

use std::collections::BTreeMap;
use std::time::Duration;

use eddy_core::identity::{ClusterId, IdError, NodeId, TenantId};
use eddy_runtime::config::Config;

use super::document::{Entry, Fault, Item, Place, Problem, Section, Tree, Value};

use super::peers::{self, Peer};
use super::{CLIENTS, SERVICES, STRANGERS, forms, unknown};

/// Beyond so many processes a group shares machines: a simulated machine of its own for each would cost the cube
/// of their number (docs/simulation.md, "Speed").
const APART_MAX: u32 = 6;
/// How many machines such a group has.
const PACKS: u32 = 4;
/// So many processes a scenario may have: each has a service with a port of its own.
const PROCESSES_MAX: usize = 10_000;
/// Where the services of initiators listen, the first of them.
const FIRST_SERVICE: u16 = 10_000;

const KEYS: &[&str] = &[
    "name", "role", "count", "workers", "config", "started", "node", "cluster", "tenant", "tunnels",
    "streams", "takes",
];

/// One process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its name: the group's, with a number where there are several.
    pub name: String,
    /// The entry of the file that it is from.
    pub group: String,
    /// The simulated machine that it runs on.
    pub machine: String,
    /// What it is.
    pub role: Role,
    /// What it runs with.
    pub config: Config,
    /// Whether it runs from the start.
    pub started: bool,
}

/// What a process is.
#[derive(Clone, Debug, PartialEq)]
pub enum Role {
    /// It accepts tunnels.
    Responder,
    /// It dials.
    Initiator {
        /// Who it says it is.
        identity: Identity,
        /// The port of its own service on the services' host.
        service: u16,
    },
    /// It dials as an initiator does, but it is not Eddy.
    Peer {
        /// Who it says it is.
        identity: Identity,
        /// How it behaves.
        peer: Peer,
    },
}

/// Who an initiator says it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Its node.
    pub node: String,
    /// Its cluster.
    pub cluster: String,
    /// Its tenant.
    pub tenant: String,
}

impl Process {
    /// Who it says it is, if it dials.
    pub const fn identity(&self) -> Option<&Identity> {
        match &self.role {
            Role::Initiator { identity, .. } | Role::Peer { identity, .. } => Some(identity),
            Role::Responder => None,
        }
    }

    /// How long it takes to drain, at most.
    pub const fn drain_timeout(&self) -> Duration {
        match &self.config {
            Config::Responder(config) => config.drain_timeout,
            Config::Initiator(config) => config.drain_timeout,
        }
    }

    /// The port that it accepts tunnels on; 0: none.
    pub const fn tunnel_port(&self) -> u16 {
        match &self.config {
            Config::Responder(config) => config.tunnels.listen.port(),
            Config::Initiator(_) => 0,
        }
    }

    /// The port that it accepts requests on; 0: none.
    pub const fn egress_port(&self) -> u16 {
        match &self.config {
            Config::Responder(config) => config.egress.listen.port(),
            Config::Initiator(_) => 0,
        }
    }
}

pub(super) fn read(root: &Section<'_>) -> Result<Vec<Process>, Fault> {
    let mut processes: Vec<Process> = Vec::new();
    let mut groups: BTreeMap<String, Place> = BTreeMap::new();
    for item in root.required("hosts")?.filled_list()? {
        let host = item.section(KEYS)?;
        let name_item = host.required("name")?;
        let group = name_item.text(forms::host_name)?;
        if [SERVICES, CLIENTS].contains(&group.as_str()) || group.starts_with(STRANGERS) {
            return Err(name_item.fault(Problem::Form {
                found: group,
                rule: "is the simulation's own; choose another name",
            }));
        }
        if let Some(first) = groups.insert(group.clone(), name_item.tree.at) {
            let what = format!("a host named {group}");
            return Err(name_item.fault(Problem::Duplicate { what, first }));
        }
        let kind = host.required("role")?.text(role)?;
        let count = host.number("count", 1, 1..=10_000)?;
        for number in 1..=count {
            let (name, machine) = match count {
                1 => (group.clone(), group.clone()),
                2..=APART_MAX => (format!("{group}-{number}"), format!("{group}-{number}")),
                _ => (
                    format!("{group}-{number}"),
                    format!("{group}-m{}", (number - 1) % PACKS + 1),
                ),
            };
            let service = FIRST_SERVICE + u16::try_from(processes.len()).unwrap_or(u16::MAX - FIRST_SERVICE);
            let process = match kind {
                Kind::Responder => responder(&item, &host, name, group.clone(), machine)?,
                Kind::Initiator => initiator(&item, &host, name, group.clone(), machine, service)?,
                Kind::Peer => peer(&item, &host, name, group.clone(), machine)?,
            };
            processes.push(process);
        }
        if processes.len() > PROCESSES_MAX {
            return Err(item.fault(Problem::OutOfRange {
                found: format!("{} processes in all", processes.len()),
                allowed: format!("at most {PROCESSES_MAX}"),
            }));
        }
    }
    Ok(processes)
}

/// The roles, as they are written.
#[derive(Clone, Copy)]
enum Kind {
    Responder,
    Initiator,
    Peer,
}

fn role(text: &str) -> Result<Kind, Problem> {
    match text {
        "responder" => Ok(Kind::Responder),
        "initiator" => Ok(Kind::Initiator),
        "peer" => Ok(Kind::Peer),
        _ => Err(Problem::Form {
            found: text.to_owned(),
            rule: "is no role; allowed: responder, initiator, peer",
        }),
    }
}

fn responder(
    item: &Item<'_>,
    host: &Section<'_>,
    name: String,
    group: String,
    machine: String,
) -> Result<Process, Fault> {
    forms::refuse_keys(
        host,
        &["node", "cluster", "tenant", "tunnels"],
        &name,
        "is a responder; node, cluster, tenant and tunnels are an initiator's keys (`config` takes a responder's own)",
    )?;
    peers::refuse(host, &name)?;
    let workers = host.number("workers", 1, 1..=64)?;
    let defaults = format!(
        "node: {{id: {name}, cluster: {group}}}\nworkers: {workers}\nstats: {{detailed: true}}\n\
         tunnels: {{listen: '0.0.0.0:9001'}}\n\
         egress: {{listen: '0.0.0.0:8085', host_id: [{{node: x-node-id}}, {{cluster: x-cluster-id}}], routes: [{{prefix: /}}]}}\n"
    );
    Ok(Process {
        config: config(item, host, &defaults)?,
        started: host.flag("started", true)?,
        role: Role::Responder,
        name,
        group,
        machine,
    })
}

fn initiator(
    item: &Item<'_>,
    host: &Section<'_>,
    name: String,
    group: String,
    machine: String,
    service: u16,
) -> Result<Process, Fault> {
    peers::refuse(host, &name)?;
    dialer(item, host, name, group, machine, service)
}

fn peer(
    item: &Item<'_>,
    host: &Section<'_>,
    name: String,
    group: String,
    machine: String,
) -> Result<Process, Fault> {
    let peer = peers::read(host, &name)?;
    let mut process = dialer(item, host, name, group, machine, FIRST_SERVICE)?;
    if let Role::Initiator { identity, .. } = process.role {
        process.role = Role::Peer { identity, peer };
    }
    Ok(process)
}

/// An initiator, or a peer, which is configured as one as far as the observer needs that.
fn dialer(
    item: &Item<'_>,
    host: &Section<'_>,
    name: String,
    group: String,
    machine: String,
    service: u16,
) -> Result<Process, Fault> {
    let id = |key: &'static str, default: &str, check: fn(&str) -> Result<(), IdError>| {
        let Some(item) = host.find(key) else {
            return Ok(default.to_owned());
        };
        let id = item.text(|text| Ok(text.to_owned()))?;
        check(&id).map_err(|rule| item.fault(Problem::Other(format!("{id:?} {rule}"))))?;
        Ok(id)
    };
    let identity = Identity {
        node: id("node", &name, |text| NodeId::parse(text).map(drop))?,
        cluster: id("cluster", &group, |text| ClusterId::parse(text).map(drop))?,
        tenant: id("tenant", "tenant", |text| TenantId::parse(text).map(drop))?,
    };
    let workers = host.number("workers", 1, 1..=64)?;
    let (mut addresses, mut clusters) = (String::new(), String::new());
    for (upstream, _, count) in host.required("tunnels")?.named()? {
        forms::host_name(upstream).map_err(|problem| count.fault(problem))?;
        let count = count.number(&(0..=1024))?;
        let Identity {
            node,
            cluster,
            tenant,
        } = &identity;
        addresses += &format!(
            "{}, ",
            quoted(&format!("rc://{node}:{cluster}:{tenant}@{upstream}:{count}"))
        );
        clusters += &format!("{upstream}: {{hosts: ['{upstream}:9001']}}, ");
    }
    let Identity { node, cluster, .. } = &identity;
    let defaults = format!(
        "node: {{id: {}, cluster: {}}}\nworkers: {workers}\nstats: {{detailed: true}}\n\
         tunnels: [{addresses}]\n\
         clusters: {{{clusters} service: {{hosts: ['{SERVICES}:{service}']}}}}\n\
         routes: [{{prefix: /, cluster: service}}]\n",
        quoted(node),
        quoted(cluster)
    );
    Ok(Process {
        config: config(item, host, &defaults)?,
        started: host.flag("started", true)?,
        role: Role::Initiator { identity, service },
        name,
        group,
        machine,
    })
}

/// A text as JSON and so YAML quotes it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The defaults with what the file says otherwise, read as the binary reads its file.
fn config(item: &Item<'_>, host: &Section<'_>, defaults: &str) -> Result<Config, Fault> {
    let Ok(mut tree) = Tree::parse(defaults) else {
        unreachable!("the defaults are YAML: {defaults}")
    };
    place(&mut tree, item.tree.at);
    if let Some(said) = host.find("config") {
        merge(&mut tree, said.tree);
    }
    Config::from_tree(tree, format!("{}.config", item.path))
}

fn place(tree: &mut Tree, at: Place) {
    tree.at = at;
    match &mut tree.value {
        Value::Mapping(entries) => {
            for entry in entries {
                entry.at = at;
                place(&mut entry.value, at);
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| place(item, at)),
        Value::Null | Value::Flag(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {}
    }
}

/// What is said replaces what was, but mappings are joined.
fn merge(tree: &mut Tree, said: &Tree) {
    let (Value::Mapping(entries), Value::Mapping(more)) = (&mut tree.value, &said.value) else {
        *tree = said.clone();
        return;
    };
    for entry in more {
        match entries.iter_mut().find(|known| known.key == entry.key) {
            Some(known) => merge(&mut known.value, &entry.value),
            None => entries.push(Entry::clone(entry)),
        }
    }
}

/// Every initiator dials something that there is: a responder, a group of them, or a name of `names`.
pub(super) fn check_upstreams(
    root: &Section<'_>,
    processes: &[Process],
    names: &BTreeMap<String, Vec<String>>,
) -> Result<(), Fault> {
    let is_responder = |name: &str| {
        let of = |p: &&Process| p.role == Role::Responder && (p.name == name || p.group == name);
        processes.iter().any(|p| of(&p))
    };
    for item in root.required("hosts")?.list()? {
        let host = item.section(KEYS)?;
        for (upstream, at, count) in host
            .find("tunnels")
            .map(|t| t.named())
            .transpose()?
            .unwrap_or_default()
        {
            if !is_responder(upstream) && !names.contains_key(upstream) {
                let known: Vec<_> = processes
                    .iter()
                    .filter(|p| p.role == Role::Responder)
                    .map(|p| p.group.clone())
                    .chain(names.keys().cloned())
                    .collect();
                let mut fault = unknown(
                    &count,
                    "responder and no name under `names`",
                    upstream.to_owned(),
                    known,
                );
                fault.at = at;
                return Err(fault);
            }
        }
    }
    Ok(())
}
