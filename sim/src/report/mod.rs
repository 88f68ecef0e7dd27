//! One self-contained page that shows a run: it needs no server and no network.

use serde::Serialize;

use crate::scenario::{Role, Scenario};
use crate::verdict::Verdict;
use crate::world::Played;

/// The page, with one place for the data.
const PAGE: &str = include_str!("page.html");
/// That place.
const DATA: &str = "/*DATA*/null";

#[derive(Serialize)]
struct Data<'a> {
    title: &'a str,
    story: Option<&'a str>,
    file: String,
    seed: u64,
    duration_us: u64,
    elapsed_us: u64,
    hosts: Vec<Lane<'a>>,
    verdicts: Vec<Judged<'a>>,
    failure: Option<&'a str>,
    events: &'a [crate::journal::Event],
}

#[derive(Serialize)]
struct Lane<'a> {
    name: &'a str,
    group: &'a str,
    role: &'static str,
}

#[derive(Serialize)]
struct Judged<'a> {
    text: &'a str,
    holds: bool,
    seen: &'a str,
}

/// The page of a run.
pub fn page(scenario: &Scenario, played: &Played) -> String {
    let judged = |verdict: &'_ Verdict| (verdict.text.clone(), verdict.holds, verdict.seen.clone());
    let judged: Vec<_> = played.verdicts.iter().map(judged).collect();
    let data = Data {
        title: &scenario.title,
        story: scenario.story.as_deref(),
        file: scenario.path.display().to_string(),
        seed: played.seed,
        duration_us: u64::try_from(scenario.duration.as_micros()).unwrap_or(u64::MAX),
        elapsed_us: u64::try_from(played.elapsed.as_micros()).unwrap_or(u64::MAX),
        hosts: scenario
            .processes
            .iter()
            .map(|process| Lane {
                name: &process.name,
                group: &process.group,
                role: match process.role {
                    Role::Responder => "responder",
                    Role::Initiator { .. } => "initiator",
                    Role::Peer { .. } => "peer",
                },
            })
            .collect(),
        verdicts: judged
            .iter()
            .map(|(text, holds, seen)| Judged {
                text,
                holds: *holds,
                seen,
            })
            .collect(),
        failure: played.failure.as_ref().map(|failure| failure.text.as_str()),
        events: &played.events,
    };
    // `</` would end the script that the data stand in.
    let data = serde_json::to_string(&data)
        .unwrap_or_default()
        .replace("</", "<\\/");
    PAGE.replacen(DATA, &data, 1)
}
