//! Connections that are not tunnels: port scanners, slow handshakes, floods.

use std::time::Duration;

use super::document::Problem;
use super::document::{Fault, Section};

use super::{Process, Role, forms, processes_named};

/// Noise starts when the tunnels of a local network are up.
const START: Duration = Duration::from_secs(1);
/// The most connections of one entry.
const CONNECTIONS_MAX: u32 = 20_000;
/// The most source hosts of one entry: each is a simulated machine.
pub(super) const SOURCES_MAX: u32 = 8;

const KEYS: &[&str] = &[
    "to",
    "start",
    "connections",
    "every",
    "sources",
    "sends",
    "drip",
    "stays",
    "again",
];

/// One kind of connection, many times.
#[derive(Clone, Debug)]
pub struct Noise {
    /// The responder.
    pub to: usize,
    /// When the first connection comes.
    pub start: Duration,
    /// How many connections there are.
    pub connections: u32,
    /// The pause between two of them.
    pub every: Duration,
    /// How many hosts they come from, in turn.
    pub sources: u32,
    /// What each sends.
    pub sends: String,
    /// The pause between two bytes of it.
    pub drip: Duration,
    /// How long each then stays.
    pub stays: Duration,
    /// How long after its end a connection is replaced by another one.
    pub again: Option<Duration>,
}

pub(super) fn read(
    root: &Section<'_>,
    processes: &[Process],
    duration: Duration,
) -> Result<Vec<Noise>, Fault> {
    let Some(list) = root.optional("noise") else {
        return Ok(Vec::new());
    };
    let mut noises = Vec::new();
    for item in list.list()? {
        let noise = item.section(KEYS)?;
        let to = noise.required("to")?;
        let Some(to) = processes_named(&to, processes)?
            .into_iter()
            .find(|&i| processes[i].role == Role::Responder)
        else {
            return Err(to.fault(Problem::Form {
                found: to.text(forms::words)?,
                rule: "is no responder",
            }));
        };
        let millis = Duration::from_millis;
        let again = match noise.find("again") {
            Some(again) => Some(again.duration(&(millis(1)..=duration))?),
            None => None,
        };
        noises.push(Noise {
            to,
            start: noise.duration("start", START, Duration::ZERO..=duration)?,
            connections: noise.number("connections", 1, 1..=CONNECTIONS_MAX)?,
            every: noise.duration("every", millis(10), millis(1)..=duration)?,
            sources: noise.number("sources", 1, 1..=SOURCES_MAX)?,
            sends: noise.text("sends", String::new(), |text| Ok(text.to_owned()))?,
            drip: noise.duration("drip", Duration::ZERO, Duration::ZERO..=duration)?,
            stays: noise.duration("stays", duration, Duration::ZERO..=duration)?,
            again,
        });
    }
    Ok(noises)
}
