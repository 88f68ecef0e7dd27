//! Who asks for what.

use std::fmt;
use std::time::Duration;

use super::document::Problem;
use super::document::{Fault, Item, Section};

use super::{Process, Role, forms, processes_named, unknown};

/// Clients start when the tunnels of a local network are up.
const START: Duration = Duration::from_secs(1);
/// Clients stop so long before the end, so that every answer is seen.
const TAIL: Duration = Duration::from_secs(2);

const KEYS: &[&str] = &[
    "name", "via", "to", "method", "path", "rate", "users", "think", "start", "end", "body", "answer",
    "timeout", "reading", "sending", "http",
];

/// One kind of request, again and again.
#[derive(Clone, Debug)]
pub struct Workload {
    /// What the report calls it.
    pub name: String,
    /// The responders that take turns.
    pub via: Vec<usize>,
    /// Who shall answer.
    pub target: Target,
    /// The method.
    pub method: &'static str,
    /// The path.
    pub path: String,
    /// When the next one is sent.
    pub pace: Pace,
    /// When the first is sent.
    pub start: Duration,
    /// When no more are sent.
    pub end: Duration,
    /// Bytes of the request's body.
    pub body: u64,
    /// Bytes of the answer's body.
    pub answer: u64,
    /// How long a client waits for the whole answer.
    pub timeout: Duration,
    /// How it reads the answer.
    pub reading: Reading,
    /// After how many bytes of the body the client stops sending.
    pub sends_until: Option<u64>,
    /// Whether the requests share one connection, with HTTP/2.
    pub http2: bool,
}

/// Who a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A node.
    Node(String),
    /// A cluster.
    Cluster(String),
    /// Nobody.
    Nobody,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(id) => write!(f, "node {id}"),
            Self::Cluster(id) => write!(f, "cluster {id}"),
            Self::Nobody => f.write_str("nobody"),
        }
    }
}

/// When the next request is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// After a pause, whether the one before has been answered or not.
    Every(Duration),
    /// Each of so many users sends one, waits for the answer, and thinks.
    Users(u32, Duration),
}

/// How a client reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// As fast as it comes.
    Fast,
    /// So many bytes, and then nothing until its time is over.
    StopsAfter(u64),
}

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn read(
    root: &Section<'_>,
    processes: &[Process],
    duration: Duration,
) -> Result<Vec<Workload>, Fault> {
    let mut workloads: Vec<Workload> = Vec::new();
    let Some(list) = root.optional("workload") else {
        return Ok(workloads);
    };
    for item in list.list()? {
        let workload = one(&item, processes, duration)?;
        if workloads.iter().any(|other| other.name == workload.name) {
            return Err(item.fault(Problem::Form {
                found: workload.name,
                rule: "is the name of another workload; give each its own `name`",
            }));
        }
        workloads.push(workload);
    }
    Ok(workloads)
}

fn one(item: &Item<'_>, processes: &[Process], duration: Duration) -> Result<Workload, Fault> {
    let load = item.section(KEYS)?;
    let target = target(&load, processes)?;
    let name = match &target {
        Target::Node(id) | Target::Cluster(id) => id.clone(),
        Target::Nobody => "nobody".to_owned(),
    };
    let name = load.text("name", name, forms::words)?;
    let users = load
        .find("users")
        .map(|users| users.number(&(1..=1000)))
        .transpose()?;
    let pace = match (load.find("rate"), users) {
        (Some(rate), None) => Pace::Every(rate.text(forms::rate)?),
        (None, Some(users)) => Pace::Users(
            users,
            load.duration("think", millis(100), Duration::ZERO..=super::LONGEST)?,
        ),
        (None, None) | (Some(_), Some(_)) => {
            return Err(item.fault(Problem::Form {
                found: name,
                rule: "needs either `rate` (open loop) or `users` and `think` (closed loop)",
            }));
        }
    };
    let latest = duration.saturating_sub(TAIL).max(START);
    let reading = match load.find("reading") {
        None => Reading::Fast,
        Some(reading) => {
            let stops = reading.section(&["stops_after"])?.required("stops_after")?;
            Reading::StopsAfter(stops.text(forms::bytes)?)
        }
    };
    let sends_until = match load.find("sending") {
        None => None,
        Some(sending) => {
            let stops = sending.section(&["stops_after"])?.required("stops_after")?;
            Some(stops.text(forms::bytes)?)
        }
    };
    let via = via(&load, processes)?;
    Ok(Workload {
        name,
        via,
        target,
        method: load.text("method", "GET", forms::method)?,
        path: load.text("path", "/".to_owned(), forms::words)?,
        pace,
        start: load.duration("start", START, Duration::ZERO..=duration)?,
        end: load.duration("end", latest, Duration::ZERO..=duration)?,
        body: load.text("body", 0, forms::body)?,
        answer: load.text("answer", 100, forms::body)?,
        timeout: load.duration("timeout", Duration::from_secs(10), millis(1)..=super::LONGEST)?,
        reading,
        sends_until,
        http2: load.number("http", 1, 1..=2)? == 2,
    })
}

fn via(load: &Section<'_>, processes: &[Process]) -> Result<Vec<usize>, Fault> {
    let item = load.required("via")?;
    let found = processes_named(&item, processes)?;
    if found.iter().any(|&i| processes[i].role != Role::Responder) {
        return Err(item.fault(Problem::Form {
            found: item.text(forms::words)?,
            rule: "is no responder; requests go in at one",
        }));
    }
    Ok(found)
}

fn target(load: &Section<'_>, processes: &[Process]) -> Result<Target, Fault> {
    let Some(item) = load.optional("to") else {
        return Ok(Target::Nobody);
    };
    let to = item.section(&["node", "cluster", "unknown_node"])?;
    let identities = || processes.iter().filter_map(Process::identity);
    if let Some(item) = to.find("node") {
        let node = item.text(forms::words)?;
        if !identities().any(|identity| identity.node == node) {
            let known = identities()
                .map(|identity| identity.node.clone())
                .take(20)
                .collect();
            return Err(unknown(
                &item,
                "node (`unknown_node` asks for one on purpose)",
                node,
                known,
            ));
        }
        return Ok(Target::Node(node));
    }
    if let Some(item) = to.find("cluster") {
        let cluster = item.text(forms::words)?;
        if !identities().any(|identity| identity.cluster == cluster) {
            let mut known: Vec<_> = identities().map(|identity| identity.cluster.clone()).collect();
            known.dedup();
            return Err(unknown(&item, "cluster", cluster, known));
        }
        return Ok(Target::Cluster(cluster));
    }
    Ok(Target::Node(to.required("unknown_node")?.text(forms::words)?))
}
