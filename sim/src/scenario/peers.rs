//! Peers: they dial responders as initiators do, but they are not Eddy.

use std::time::Duration;

use super::document::{Fault, Section};

use super::forms;

/// The keys that only peers have.
const KEYS: [&str; 2] = ["streams", "takes"];

/// How a peer behaves that is not Eddy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// How many tunnels it keeps to every address of a responder, a group or a name.
    pub tunnels: Vec<(String, u32)>,
    /// How many streams it allows at once on a tunnel; those beyond it are refused.
    pub streams: Option<u32>,
    /// How long it takes to respond.
    pub takes: Duration,
}

pub(super) fn read(host: &Section<'_>, name: &str) -> Result<Peer, Fault> {
    forms::refuse_keys(
        host,
        &["config", "workers"],
        name,
        "is a peer, which has no configuration of Eddy's and no workers",
    )?;
    let mut tunnels = Vec::new();
    for (upstream, _, count) in host.required("tunnels")?.named()? {
        tunnels.push((upstream.to_owned(), count.number(&(0..=1024))?));
    }
    let streams = match host.find("streams") {
        Some(streams) => Some(streams.number(&(1..=10_000))?),
        None => None,
    };
    Ok(Peer {
        tunnels,
        streams,
        takes: host.duration("takes", Duration::ZERO, Duration::ZERO..=super::LONGEST)?,
    })
}

/// The keys of a peer are refused for other roles.
pub(super) fn refuse(host: &Section<'_>, name: &str) -> Result<(), Fault> {
    let rule = "is not a peer; streams and takes are keys of a peer";
    forms::refuse_keys(host, &KEYS, name, rule)
}
