//! What of a run is kept beside its scenario: how requests ended, and both sides' stats. No times: those change
//! with every change of the code, and the expectations bound them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use crate::scenario::Scenario;
use crate::world::Played;

/// A group of more processes is summed up.
const APART_MAX: usize = 3;

/// The text of a run.
pub fn text(scenario: &Scenario, played: &Played) -> String {
    let mut text = format!("{}\n\n", scenario.title);
    for verdict in &played.verdicts {
        let mark = if verdict.holds { "holds" } else { "FAILS" };
        let _ = writeln!(text, "{mark}  {}", verdict.text);
    }
    for (index, workload) in scenario.workload.iter().enumerate() {
        let mut outcomes: BTreeMap<String, u32> = BTreeMap::new();
        for request in played.requests.iter().filter(|r| r.workload == Some(index)) {
            let outcome = match &request.ended {
                Some((_, outcome)) => outcome.to_string(),
                None => "open".to_owned(),
            };
            *outcomes.entry(outcome).or_default() += 1;
        }
        let told = outcomes
            .iter()
            .map(|(outcome, count)| format!("{count} x {outcome}"));
        let _ = writeln!(
            text,
            "\nrequests of {}: {}",
            workload.name,
            told.collect::<Vec<_>>().join(", ")
        );
    }
    let mut groups: Vec<&str> = scenario
        .processes
        .iter()
        .map(|process| process.group.as_str())
        .collect();
    groups.dedup();
    for group in groups {
        let members = scenario.processes.iter().zip(&played.stats);
        let members: Vec<_> = members
            .filter(|(process, _)| process.group == group)
            .map(|(_, stats)| stats)
            .collect();
        if members.len() > APART_MAX {
            let mut sum: BTreeMap<&str, u64> = BTreeMap::new();
            for (name, value) in members.iter().flat_map(|(_, stats)| stats) {
                *sum.entry(name).or_default() += value;
            }
            let _ = writeln!(text, "\n{group}, the sum of {}:", members.len());
            lines(&mut text, sum.into_iter());
        } else {
            for (name, stats) in members {
                let _ = writeln!(text, "\n{name}:");
                lines(
                    &mut text,
                    stats.iter().map(|(name, value)| (name.as_str(), *value)),
                );
            }
        }
    }
    text
}

/// `/stats?usedonly`.
fn lines<'a>(text: &mut String, stats: impl Iterator<Item = (&'a str, u64)>) {
    let before = text.len();
    for (name, value) in stats.filter(|(_, value)| *value != 0) {
        let _ = writeln!(text, "{name}: {value}");
    }
    if text.len() == before {
        text.push_str("(does not run)\n");
    }
}

/// Where the snapshot of a scenario is.
pub fn path(scenario: &Scenario) -> PathBuf {
    scenario.path.with_extension("snap")
}

/// How a run compares to what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is the same.
    Same,
    /// It differs.
    Differs,
    /// There is none.
    Missing,
}

/// Compares a text with the snapshot in a file, as insta does: without what stands above the second `---`.
///
/// # Errors
///
/// The file is there and cannot be read.
pub fn compare(path: &Path, text: &str) -> io::Result<Kept> {
    let kept = match std::fs::read_to_string(path) {
        Ok(kept) => kept,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::Missing),
        Err(error) => return Err(error),
    };
    let body = kept.splitn(3, "---\n").nth(2).unwrap_or_default();
    Ok(if body.trim_end() == text.trim_end() {
        Kept::Same
    } else {
        Kept::Differs
    })
}

/// Writes a snapshot as insta does.
///
/// # Errors
///
/// The file cannot be written.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    std::fs::write(
        path,
        format!("---\nsource: sim/tests/scenarios.rs\n---\n{}\n", text.trim_end()),
    )
}
