//! A scenario: one story as data. [`Scenario::load`] reads the files of `scenarios/`.

mod document;
mod expect;
mod forms;
mod hosts;
mod links;
mod misbehave;
mod noise;
mod peers;
mod timeline;
mod workload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::document::Problem;
use self::document::{Fault, Item, Tree, Value};
use eddy_runtime::config::ConfigError;

pub use self::expect::{Compare, Condition, Expectation, Fact, Measure, Start, When};
pub use self::hosts::{Identity, Process, Role};
pub use self::links::Link;
pub use self::misbehave::{Misbehaviour, Misdeed};
pub use self::noise::Noise;
pub use self::peers::Peer;
pub use self::timeline::{Action, Fault as Event, Verb};
pub use self::workload::{Pace, Reading, Target, Workload};

/// The host that every initiator's service runs on.
pub const SERVICES: &str = "services";
/// The host that the workload comes from.
pub const CLIENTS: &str = "clients";
/// The host that noise comes from.
pub const STRANGERS: &str = "strangers";

/// The longest scenario.
const LONGEST: Duration = Duration::from_secs(3600);

const KEYS: &[&str] = &[
    "title", "story", "seed", "duration", "hosts", "names", "links", "workload", "noise", "timeline",
    "expect", "hostile",
];

/// One story.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The file that it was read from.
    pub path: PathBuf,
    /// What it is about, in words.
    pub title: String,
    /// The same at length.
    pub story: Option<String>,
    /// The seed under which it goes exactly as the file says.
    pub seed: u64,
    /// How long it is watched, in simulated time.
    pub duration: Duration,
    /// Every process.
    pub processes: Vec<Process>,
    /// What names mean at the start, beside the hosts' own.
    pub names: BTreeMap<String, Vec<String>>,
    /// The links that differ from a good local network.
    pub links: Vec<Link>,
    /// Who asks for what.
    pub workload: Vec<Workload>,
    /// Connections that are no tunnels.
    pub noise: Vec<Noise>,
    /// Whether other seeds than the scenario's own draw misbehaving services and floods.
    pub hostile: bool,
    /// What happens, in order.
    pub timeline: Vec<Event>,
    /// What must be true.
    pub expect: Vec<Expectation>,
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] names the first problem: file, line, key, and what is allowed.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(path, &text)
    }

    /// Reads a text as the content of a file.
    ///
    /// # Errors
    ///
    /// As [`Scenario::load`].
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        match Tree::parse(text) {
            Ok(Tree {
                value: Value::Null, ..
            }) => Err(ConfigError::Empty { name }),
            Ok(tree) => Self::read(path, &tree).map_err(|fault| fault.in_file(name)),
            Err(error) => Err(ConfigError::Yaml {
                name,
                at: error.at,
                message: error.message,
            }),
        }
    }

    fn read(path: &Path, tree: &Tree) -> Result<Self, Fault> {
        let root = Item {
            tree,
            path: String::new(),
        };
        let root = root.section(KEYS)?;
        let duration = root
            .required("duration")?
            .duration(&(Duration::from_secs(1)..=LONGEST))?;
        let processes = hosts::read(&root)?;
        let names = links::names(&root, &processes)?;
        hosts::check_upstreams(&root, &processes, &names)?;
        let workload = workload::read(&root, &processes, duration)?;
        let timeline = timeline::read(&root, &processes, &names, duration)?;
        Ok(Self {
            path: path.to_owned(),
            title: root.required("title")?.text(forms::words)?,
            story: root
                .optional("story")
                .map(|item| item.text(forms::words))
                .transpose()?,
            seed: root.number("seed", 1, 0..=u32::MAX)?.into(),
            duration,
            links: links::read(&root, &processes)?,
            noise: noise::read(&root, &processes, duration)?,
            hostile: root.flag("hostile", false)?,
            expect: expect::read(&root, &processes, &workload, &timeline, duration)?,
            processes,
            names,
            workload,
            timeline,
        })
    }

    /// The file's name without its ending.
    pub fn name(&self) -> String {
        let stem = self.path.file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    }

    /// The simulated machines that the processes run on, each once, in order.
    pub fn machines(&self) -> Vec<&str> {
        let mut machines: Vec<&str> = Vec::new();
        for process in &self.processes {
            if !machines.contains(&process.machine.as_str()) {
                machines.push(&process.machine);
            }
        }
        machines
    }
}

/// The name of the machine that one of the sources of noise has.
pub(crate) fn stranger(source: u32) -> String {
    match source {
        0 => STRANGERS.to_owned(),
        _ => format!("{STRANGERS}-{}", source + 1),
    }
}

/// Resolves a name to processes: a process's own, or a group's.
fn processes_named(item: &Item<'_>, processes: &[Process]) -> Result<Vec<usize>, Fault> {
    let name = item.text(forms::words)?;
    let found: Vec<_> = (0..processes.len())
        .filter(|&i| processes[i].name == name || processes[i].group == name)
        .collect();
    if found.is_empty() {
        return Err(unknown(item, "host", name, known_names(processes)));
    }
    Ok(found)
}

fn known_names(processes: &[Process]) -> Vec<String> {
    let mut known: Vec<String> = processes.iter().map(|process| process.group.clone()).collect();
    known.dedup();
    known
}

fn unknown(item: &Item<'_>, what: &'static str, found: String, known: Vec<String>) -> Fault {
    item.fault(Problem::Unknown { what, found, known })
}
