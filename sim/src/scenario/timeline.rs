//! What happens, and when.

use std::collections::BTreeMap;
use std::time::Duration;

use super::document::Problem;
use super::document::{Fault as Wrong, Item, Section};

use super::misbehave::{self, Misbehaviour};
use super::{Process, Role, forms, links, processes_named};

/// One thing that happens.
#[derive(Clone, Debug)]
pub struct Fault {
    /// When.
    pub at: Duration,
    /// What.
    pub action: Action,
    /// The same in words.
    pub text: String,
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum Action {
    /// A link is cut both ways: what is sent is lost, and what was not lost comes after `heal`.
    Partition(Vec<String>, Vec<String>),
    /// One direction is cut.
    PartitionOneWay(Vec<String>, Vec<String>),
    /// A cut link works again.
    Heal(Vec<String>, Vec<String>),
    /// A link holds back everything.
    Hold(Vec<String>, Vec<String>),
    /// What was held comes, and the link works again.
    Release(Vec<String>, Vec<String>),
    /// Processes end at once, as by SIGKILL.
    Crash(Vec<usize>),
    /// Processes start.
    Start(Vec<usize>),
    /// Processes end at once and start again.
    Restart(Vec<usize>),
    /// Processes are told to finish, as by SIGTERM.
    Drain(Vec<usize>),
    /// Operators ask processes to let all their tunnels go and stay, as by `POST /drain?cluster=…`.
    Renew(Vec<usize>),
    /// Processes stand still, as by SIGSTOP.
    Freeze(Vec<usize>),
    /// Processes go on, as by SIGCONT.
    Thaw(Vec<usize>),
    /// Names mean other hosts.
    Dns(BTreeMap<String, Vec<String>>),
    /// The services of initiators take so long to answer.
    SlowService(Vec<usize>, Duration),
    /// The services of initiators refuse connections.
    StopService(Vec<usize>),
    /// The services of initiators break off every request.
    ResetService(Vec<usize>),
    /// The services of initiators work again.
    StartService(Vec<usize>),
    /// The services of initiators, or peers, break the rules for a share of their requests.
    Misbehave(Vec<usize>, Misbehaviour),
    /// The services of initiators, or peers, keep to the rules again.
    Behave(Vec<usize>),
    /// Each worker of responders is asked for each node that has a tunnel.
    Probe(Vec<usize>),
}

/// The verbs of a timeline, as expectations name them too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verb(pub &'static str);

/// Every verb, as it is written.
const VERBS: &[&str] = &[
    "partition",
    "partition_one_way",
    "heal",
    "hold",
    "release",
    "crash",
    "start",
    "restart",
    "drain",
    "renew",
    "freeze",
    "thaw",
    "dns",
    "slow_service",
    "stop_service",
    "reset_service",
    "start_service",
    "misbehave",
    "behave",
    "probe",
];
const KEYS: &[&str] = &[
    "at",
    "every",
    "times",
    "partition",
    "partition_one_way",
    "heal",
    "hold",
    "release",
    "crash",
    "start",
    "restart",
    "drain",
    "renew",
    "freeze",
    "thaw",
    "dns",
    "slow_service",
    "stop_service",
    "reset_service",
    "start_service",
    "misbehave",
    "behave",
    "probe",
];

impl Verb {
    pub(super) fn parse(text: &str) -> Option<Self> {
        VERBS.iter().find(|verb| **verb == text).map(|verb| Self(verb))
    }

    pub(super) fn all() -> Vec<String> {
        VERBS.iter().map(|&verb| verb.to_owned()).collect()
    }
}

impl Fault {
    /// Its verb.
    pub const fn verb(&self) -> Verb {
        Verb(match &self.action {
            Action::Partition(..) => "partition",
            Action::PartitionOneWay(..) => "partition_one_way",
            Action::Heal(..) => "heal",
            Action::Hold(..) => "hold",
            Action::Release(..) => "release",
            Action::Crash(_) => "crash",
            Action::Start(_) => "start",
            Action::Restart(_) => "restart",
            Action::Drain(_) => "drain",
            Action::Renew(_) => "renew",
            Action::Freeze(_) => "freeze",
            Action::Thaw(_) => "thaw",
            Action::Dns(_) => "dns",
            Action::SlowService(..) => "slow_service",
            Action::StopService(_) => "stop_service",
            Action::ResetService(_) => "reset_service",
            Action::StartService(_) => "start_service",
            Action::Misbehave(..) => "misbehave",
            Action::Behave(_) => "behave",
            Action::Probe(_) => "probe",
        })
    }
}

pub(super) fn read(
    root: &Section<'_>,
    processes: &[Process],
    names: &BTreeMap<String, Vec<String>>,
    duration: Duration,
) -> Result<Vec<Fault>, Wrong> {
    let mut timeline = Vec::new();
    let Some(list) = root.optional("timeline") else {
        return Ok(timeline);
    };
    for item in list.list()? {
        let entry = item.section(KEYS)?;
        let at = entry.required("at")?.duration(&(Duration::ZERO..=duration))?;
        let verbs: Vec<_> = VERBS
            .iter()
            .filter(|verb| entry.find(verb).is_some())
            .copied()
            .collect();
        let [verb] = verbs[..] else {
            return Err(item.fault(Problem::Form {
                found: verbs.join(" and "),
                rule: "is not one verb; each entry has `at` and exactly one of the verbs in docs/simulation.md",
            }));
        };
        let subject = entry.required(verb)?;
        let action = action(verb, &subject, processes, names)?;
        let text = format!("{verb} {}", say(&subject));
        let times = entry.number("times", 1, 1..=1000)?;
        let every = entry.duration(
            "every",
            Duration::from_secs(1),
            Duration::from_millis(1)..=duration,
        )?;
        for time in 0..times {
            let at = at + every * time;
            if at > duration {
                return Err(item.fault(Problem::OutOfRange {
                    found: format!("number {} of {verb}, at {}s,", time + 1, at.as_secs_f64()),
                    allowed: format!("0s to the duration, {}s", duration.as_secs_f64()),
                }));
            }
            timeline.push(Fault {
                at,
                action: action.clone(),
                text: text.clone(),
            });
        }
    }
    timeline.sort_by_key(|fault: &Fault| fault.at);
    Ok(timeline)
}

/// The subject as it is written.
fn say(subject: &Item<'_>) -> String {
    use super::document::Value;
    match &subject.tree.value {
        Value::Text(text) => text.clone(),
        Value::List(items) => {
            let items = items.iter().map(|tree| {
                say(&Item {
                    tree,
                    path: String::new(),
                })
            });
            items.collect::<Vec<_>>().join(", ")
        }
        Value::Mapping(entries) => {
            let entries = entries.iter().map(|entry| {
                let value = say(&Item {
                    tree: &entry.value,
                    path: String::new(),
                });
                format!("{} {value}", entry.key)
            });
            entries.collect::<Vec<_>>().join(", ")
        }
        Value::Integer(number) => number.to_string(),
        Value::Null | Value::Flag(_) | Value::Float(_) => String::new(),
    }
}

fn action(
    verb: &'static str,
    item: &Item<'_>,
    processes: &[Process],
    names: &BTreeMap<String, Vec<String>>,
) -> Result<Action, Wrong> {
    let pair = || links::pair(item, processes);
    let who = || processes_named(item, processes);
    let services = || initiators(item, processes);
    Ok(match verb {
        "partition" => pair().map(|(a, b)| Action::Partition(a, b))?,
        "heal" => pair().map(|(a, b)| Action::Heal(a, b))?,
        "hold" => pair().map(|(a, b)| Action::Hold(a, b))?,
        "release" => pair().map(|(a, b)| Action::Release(a, b))?,
        "partition_one_way" => {
            let way = item.section(&["from", "to"])?;
            let from = links::machines(&way.required("from")?, processes)?;
            Action::PartitionOneWay(from, links::machines(&way.required("to")?, processes)?)
        }
        "crash" => Action::Crash(who()?),
        "start" => Action::Start(who()?),
        "restart" => Action::Restart(who()?),
        "drain" => Action::Drain(who()?),
        "renew" => Action::Renew(who()?),
        "freeze" => Action::Freeze(who()?),
        "thaw" => Action::Thaw(who()?),
        "dns" => {
            let book = links::book(item, processes)?;
            if let Some(name) = book.keys().find(|name| !names.contains_key(*name)) {
                return Err(item.fault(Problem::Unknown {
                    what: "name under `names`",
                    found: name.clone(),
                    known: names.keys().cloned().collect(),
                }));
            }
            Action::Dns(book)
        }
        "slow_service" => {
            let slow = item.section(&["of", "by"])?;
            let of = initiators(&slow.required("of")?, processes)?;
            let by = slow
                .required("by")?
                .duration(&(Duration::ZERO..=super::LONGEST))?;
            Action::SlowService(of, by)
        }
        "stop_service" => Action::StopService(services()?),
        "reset_service" => Action::ResetService(services()?),
        "start_service" => Action::StartService(services()?),
        "misbehave" => {
            let (who, misbehaviour) = misbehave::read(item, processes)?;
            Action::Misbehave(who, misbehaviour)
        }
        "behave" => Action::Behave(misbehave::who(item, processes)?),
        _ => Action::Probe(responders(item, processes)?),
    })
}

fn initiators(item: &Item<'_>, processes: &[Process]) -> Result<Vec<usize>, Wrong> {
    let found = misbehave::who(item, processes)?;
    if found
        .iter()
        .any(|&i| matches!(processes[i].role, Role::Peer { .. }))
    {
        return Err(item.fault(Problem::Form {
            found: item.text(forms::words)?,
            rule: "is a peer, which has no service; `misbehave` and `behave` are for peers, too",
        }));
    }
    Ok(found)
}

fn responders(item: &Item<'_>, processes: &[Process]) -> Result<Vec<usize>, Wrong> {
    let found = processes_named(item, processes)?;
    if found.iter().any(|&i| processes[i].role != Role::Responder) {
        return Err(item.fault(Problem::Form {
            found: item.text(forms::words)?,
            rule: "is not a responder; only responders have routes",
        }));
    }
    Ok(found)
}
