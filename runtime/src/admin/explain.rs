//! `GET /explain`: why a node or cluster can be reached, or not, in one answer.

use std::fmt::Write;

use eddy_core::router::Names;
use serde::Serialize;

use crate::http::query::Parameters;
use crate::net::Network;
use crate::report::{Ask, Asked, ClosedLine, HostLine, IdentityLine, TunnelLine};
use crate::responder::explain::Choice;

use super::{Admin, Role};

/// How many ends of tunnels are told.
const CLOSED_SHOWN: usize = 20;

/// What is known of one node, cluster or host cluster.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    asked: String,
    /// In a sentence.
    verdict: String,
    /// What each worker of a responder would do with a request now.
    choices: Vec<Choice>,
    tunnels: Vec<TunnelLine>,
    /// The hosts that an initiator dials.
    hosts: Vec<HostLine>,
    /// The last ends, the newest first.
    closed: Vec<ClosedLine>,
}

/// Reads `node`, `cluster` and `tenant`.
pub(super) fn asked(query: &Parameters<'_>) -> Result<Asked, String> {
    const FORM: &str = "ask for one of ?node=ID and ?cluster=ID, with &tenant=ID where tenants are kept apart, and \
        &format=text for text";
    if let Some(unknown) = query
        .keys()
        .find(|key| !["node", "cluster", "tenant", "format"].contains(&&***key))
    {
        return Err(format!("{unknown}: no such parameter; {FORM}"));
    }
    let (names, id) = match (query.get("node"), query.get("cluster")) {
        (Some(node), None) => (Names::Node, node),
        (None, Some(cluster)) => (Names::Cluster, cluster),
        (Some(_), Some(_)) | (None, None) => return Err(FORM.to_owned()),
    };
    match query.get("format").map(|format| &**format) {
        None | Some("json" | "text") => {}
        Some(other) => return Err(format!("format: {other:?} is unknown; allowed: json, text")),
    }
    Ok(Asked {
        names,
        id: id.to_string(),
        tenant: query.get("tenant").map(ToString::to_string),
    })
}

/// Puts together what all workers know.
pub(super) async fn explain<N: Network>(admin: &Admin<N>, asked: &Asked) -> Explanation {
    let choices = match &admin.role {
        Role::Responder(control) => control.explain(asked).await,
        Role::Initiator(_) => Vec::new(),
    };
    let (mut tunnels, mut hosts, mut closed) = (Vec::new(), Vec::new(), Vec::new());
    for report in admin.reports(&Ask::Of(asked.clone())).await {
        tunnels.extend(report.tunnels);
        closed.extend(report.closed);
        let dialed = |line: &HostLine| asked.names == Names::Cluster && line.cluster == asked.id;
        hosts.extend(report.hosts.into_iter().filter(dialed));
    }
    closed.sort_by_key(|line: &ClosedLine| std::cmp::Reverse(line.at_unix_ms));
    closed.truncate(CLOSED_SHOWN);
    let what = match asked.names {
        Names::Node => "node",
        Names::Cluster | Names::Either => "cluster",
    };
    let mut explanation = Explanation {
        asked: format!("{what} {}", asked.id),
        verdict: String::new(),
        choices,
        tunnels,
        hosts,
        closed,
    };
    explanation.verdict = verdict(&explanation);
    explanation
}

/// The whole in a sentence.
fn verdict(explanation: &Explanation) -> String {
    let own = explanation.tunnels.iter().filter(|line| line.state != "draining");
    // Of an initiator's upstream cluster it is the hosts that say it.
    let dialed: u32 = explanation.hosts.iter().map(|host| host.connected).sum();
    let usable = own.count() + usize::try_from(dialed).unwrap_or(usize::MAX);
    if usable > 0 {
        let s = if usable == 1 { "" } else { "s" };
        return format!("reachable, through {usable} tunnel{s}");
    }
    if explanation.choices.iter().any(|choice| choice.tunnel.is_some()) {
        return "reachable, through a tunnel that is about to go".to_owned();
    }
    let mut text = "not reachable: no tunnel is up".to_owned();
    if let Some(last) = explanation.closed.first() {
        let _ = write!(text, "; the last one ended with {}", last.reason);
    } else if explanation.hosts.is_empty() {
        text += ", and none was lately: is it dialing this process, under this name?";
    }
    let next = explanation
        .hosts
        .iter()
        .filter_map(|host| host.next_dial_in_seconds);
    if let Some(next) = next.min_by(f64::total_cmp) {
        let _ = write!(text, "; the next dial is due in {next} s");
    }
    text
}

/// For people.
pub(super) fn as_text(explanation: &Explanation) -> String {
    let mut text = format!("{}: {}\n", explanation.asked, explanation.verdict);
    for Choice { worker, tunnel, why } in &explanation.choices {
        let _ = match tunnel {
            Some(tunnel) => writeln!(text, "{worker} takes tunnel {tunnel}: {why}"),
            None => writeln!(text, "{worker} takes no tunnel: {why}"),
        };
    }
    for line in &explanation.tunnels {
        let IdentityLine {
            node,
            cluster,
            tenant,
        } = &line.identity;
        let _ = writeln!(
            text,
            "tunnel {} of {node} ({cluster}, {tenant}) at {}: {} for {} s, on {}",
            line.id, line.host, line.state, line.for_seconds, line.worker
        );
    }
    for line in &explanation.hosts {
        let next = line
            .next_dial_in_seconds
            .map_or_else(|| "none due".to_owned(), |next| format!("due in {next} s"));
        let _ = writeln!(
            text,
            "host {} on {}: {} up, {} connecting, {} waiting; next dial {next}; failures: {:?}",
            line.host, line.worker, line.connected, line.connecting, line.backing_off, line.failures
        );
    }
    for line in &explanation.closed {
        let _ = writeln!(
            text,
            "tunnel {} of {} ended: {}, after {} s",
            line.id, line.identity.node, line.reason, line.lived_seconds
        );
    }
    text
}
