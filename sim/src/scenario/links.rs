//! Links between hosts, and what names mean.

use std::collections::BTreeMap;
use std::time::Duration;

use super::document::Problem;
use super::document::{Fault, Item, Section, Value};

use super::{CLIENTS, Process, SERVICES, STRANGERS, forms, known_names, noise, stranger, unknown};
use crate::fabric::{Conditions, Silence, Stall};

const KEYS: &[&str] = &[
    "between",
    "profile",
    "latency",
    "loss",
    "bandwidth",
    "queue",
    "window",
    "cut",
    "glue",
    "stall",
    "silence",
];

/// Networks that people know, by name. The figures are round ones of their kind, not of a provider.
const PROFILES: [&str; 5] = ["lan", "wan", "lte", "satellite", "hotel-wifi"];

/// A link, both directions of it.
#[derive(Clone, Debug)]
pub struct Link {
    /// The machines at one end.
    pub here: Vec<String>,
    /// The machines at the other.
    pub there: Vec<String>,
    /// What it does.
    pub conditions: Conditions,
}

pub(super) fn profile(name: &str) -> Result<Conditions, Problem> {
    let ms = Duration::from_millis;
    let plain = Conditions::default();
    Ok(match name {
        "lan" => Conditions {
            latency: ms(1)..=ms(2),
            ..plain
        },
        "wan" => Conditions {
            latency: ms(10)..=ms(40),
            loss: 0.001,
            ..plain
        },
        "lte" => Conditions {
            latency: ms(30)..=ms(80),
            loss: 0.005,
            bandwidth: Some(1_500_000),
            ..plain
        },
        "satellite" => Conditions {
            latency: ms(280)..=ms(320),
            loss: 0.01,
            bandwidth: Some(1_000_000),
            ..plain
        },
        "hotel-wifi" => Conditions {
            latency: ms(10)..=ms(250),
            loss: 0.03,
            bandwidth: Some(250_000),
            stall: Some(Stall {
                chance: 0.01,
                pause: ms(800),
            }),
            ..plain
        },
        _ => {
            return Err(Problem::Unknown {
                what: "profile",
                found: name.to_owned(),
                known: PROFILES.map(str::to_owned).to_vec(),
            });
        }
    })
}

/// The machines of a host, of a group, or of the simulation itself.
pub(super) fn machines(item: &Item<'_>, processes: &[Process]) -> Result<Vec<String>, Fault> {
    let name = item.text(forms::words)?;
    if name == STRANGERS {
        return Ok((0..noise::SOURCES_MAX).map(stranger).collect());
    }
    if [SERVICES, CLIENTS].contains(&name.as_str()) {
        return Ok(vec![name]);
    }
    let mut found: Vec<String> = Vec::new();
    for process in processes.iter().filter(|p| p.group == name || p.machine == name) {
        if !found.contains(&process.machine) {
            found.push(process.machine.clone());
        }
    }
    if found.is_empty() && processes.iter().any(|p| p.name == name) {
        return Err(item.fault(Problem::Form {
            found: name,
            rule: "shares its machine with others of its group; name the group, or give the host an entry of its own",
        }));
    }
    if found.is_empty() {
        let mut known = known_names(processes);
        known.extend([SERVICES, CLIENTS, STRANGERS].map(str::to_owned));
        return Err(unknown(item, "host", name, known));
    }
    Ok(found)
}

/// A list of exactly two hosts.
pub(super) fn pair(item: &Item<'_>, processes: &[Process]) -> Result<(Vec<String>, Vec<String>), Fault> {
    let ends = item.list()?;
    let [here, there] = &ends[..] else {
        return Err(item.fault(Problem::Form {
            found: format!("{} entries", ends.len()),
            rule: "is not two hosts; write [here, there]",
        }));
    };
    Ok((machines(here, processes)?, machines(there, processes)?))
}

pub(super) fn read(root: &Section<'_>, processes: &[Process]) -> Result<Vec<Link>, Fault> {
    let Some(links) = root.optional("links") else {
        return Ok(Vec::new());
    };
    links.list()?.iter().map(|item| link(item, processes)).collect()
}

fn link(item: &Item<'_>, processes: &[Process]) -> Result<Link, Fault> {
    let link = item.section(KEYS)?;
    let (here, there) = pair(&link.required("between")?, processes)?;
    let base = link.text("profile", Conditions::default(), profile)?;
    let cut = match link.find("cut") {
        Some(cut) => Some(cut.number(&(1..=1460))? as usize),
        None => base.cut,
    };
    let bandwidth = link.text("bandwidth", base.bandwidth, |text| {
        forms::bandwidth(text).map(Some)
    })?;
    let conditions = Conditions {
        latency: link.text("latency", base.latency, forms::latency)?,
        loss: link.text("loss", base.loss, forms::share)?,
        bandwidth,
        queue: queue(&link, bandwidth, base.queue)?,
        window: link.text("window", base.window, |text| {
            forms::bytes(text).map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX).max(1))
        })?,
        cut,
        glue: link.flag("glue", base.glue)?,
        stall: stall(&link, base.stall)?,
        silence: silence(&link)?,
    };
    Ok(Link {
        here,
        there,
        conditions,
    })
}

/// The queue in front of the link: bytes, or a time at the rate of the link.
fn queue(link: &Section<'_>, bandwidth: Option<u64>, base: u64) -> Result<u64, Fault> {
    let Some(item) = link.find("queue") else {
        return Ok(base);
    };
    let text = item.text(forms::words)?;
    let Some(bandwidth) = bandwidth else {
        return Err(item.fault(Problem::Form {
            found: text,
            rule: "needs a `bandwidth`: a link without a limit has no queue",
        }));
    };
    forms::queue(&text, bandwidth).map_err(|problem| item.fault(problem))
}

fn stall(link: &Section<'_>, base: Option<Stall>) -> Result<Option<Stall>, Fault> {
    let Some(item) = link.find("stall") else {
        return Ok(base);
    };
    let stall = item.section(&["chance", "pause"])?;
    Ok(Some(Stall {
        chance: stall.required("chance")?.text(forms::share)?,
        pause: stall
            .required("pause")?
            .duration(&(Duration::from_millis(1)..=Duration::from_secs(60)))?,
    }))
}

fn silence(link: &Section<'_>) -> Result<Option<Silence>, Fault> {
    let Some(item) = link.find("silence") else {
        return Ok(None);
    };
    let silence = item.section(&["after", "connections"])?;
    Ok(Some(Silence {
        after: silence.required("after")?.text(forms::bytes)?,
        connections: silence.number("connections", 1, 1..=1000)?,
    }))
}

/// What names mean at the start.
pub(super) fn names(
    root: &Section<'_>,
    processes: &[Process],
) -> Result<BTreeMap<String, Vec<String>>, Fault> {
    match root.optional("names") {
        Some(item) => book(&item, processes),
        None => Ok(BTreeMap::new()),
    }
}

/// Names and the machines behind each; a list of none: the name is not known.
pub(super) fn book(item: &Item<'_>, processes: &[Process]) -> Result<BTreeMap<String, Vec<String>>, Fault> {
    let mut book = BTreeMap::new();
    for (name, _, hosts) in item.named()? {
        forms::host_name(name).map_err(|problem| hosts.fault(problem))?;
        let mut found = Vec::new();
        for host in hosts.list()? {
            if !matches!(host.tree.value, Value::Text(_)) {
                host.text(forms::words)?;
            }
            found.extend(machines(&host, processes)?);
        }
        book.insert(name.to_owned(), found);
    }
    Ok(book)
}
