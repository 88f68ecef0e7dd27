//! How services and peers break the rules, for a share of their requests.

use std::time::Duration;

use super::document::Problem;
use super::document::{Fault, Item, Value};

use super::{Process, Role, forms, processes_named};

/// One way to break the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Misdeed {
    /// A response head of 70 KB.
    OversizedHead,
    /// `101 Switching Protocols` although nobody asked for an upgrade.
    Unsolicited101,
    /// A chunk size that is not a number, in one segment with the head.
    BrokenChunk,
    /// The same after the first half of the body.
    BrokenChunkLate,
    /// A `content-length` that is larger than the body.
    LongLength,
    /// A `content-length` that is smaller than what follows.
    ShortLength,
    /// A response before the request's body was read.
    EarlyResponse,
    /// The first half of the body, and then nothing.
    Stall,
    /// Bytes that are not HTTP.
    Garbage,
    /// Trailers that must not be trailers.
    ForbiddenTrailer,
    /// `RST_STREAM` with `REFUSED_STREAM`.
    RefuseStream,
    /// `RST_STREAM` with `INTERNAL_ERROR`.
    ResetStream,
    /// A response without `:status`.
    NoStatus,
    /// A response with `connection: close`.
    ConnectionHeader,
}

impl Misdeed {
    /// What the service behind an initiator can do.
    pub const OF_SERVICES: [Self; 10] = [
        Self::OversizedHead,
        Self::Unsolicited101,
        Self::BrokenChunk,
        Self::BrokenChunkLate,
        Self::LongLength,
        Self::ShortLength,
        Self::EarlyResponse,
        Self::Stall,
        Self::Garbage,
        Self::ForbiddenTrailer,
    ];
    /// What a peer can do, which speaks HTTP/2.
    pub const OF_PEERS: [Self; 10] = [
        Self::RefuseStream,
        Self::ResetStream,
        Self::NoStatus,
        Self::ConnectionHeader,
        Self::LongLength,
        Self::ShortLength,
        Self::EarlyResponse,
        Self::Stall,
        Self::OversizedHead,
        Self::Unsolicited101,
    ];

    /// The name that scenarios use.
    pub const fn label(self) -> &'static str {
        match self {
            Self::OversizedHead => "oversized_head",
            Self::Unsolicited101 => "unsolicited_101",
            Self::BrokenChunk => "broken_chunk",
            Self::BrokenChunkLate => "broken_chunk_late",
            Self::LongLength => "long_length",
            Self::ShortLength => "short_length",
            Self::EarlyResponse => "early_response",
            Self::Stall => "stall",
            Self::Garbage => "garbage",
            Self::ForbiddenTrailer => "forbidden_trailer",
            Self::RefuseStream => "refuse_stream",
            Self::ResetStream => "reset_stream",
            Self::NoStatus => "no_status",
            Self::ConnectionHeader => "connection_header",
        }
    }
}

/// How a service or a peer treats its requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Misbehaviour {
    /// Each mistreated request gets one of these.
    pub how: Vec<Misdeed>,
    /// The share of requests that are mistreated.
    pub share: f64,
    /// How long a stall lasts; `None`: until the service behaves again.
    pub lasts: Option<Duration>,
}

/// `{of: edge, how: oversized_head, share: 20%, lasts: 5s}`.
pub(super) fn read(item: &Item<'_>, processes: &[Process]) -> Result<(Vec<usize>, Misbehaviour), Fault> {
    let section = item.section(&["of", "how", "share", "lasts"])?;
    let of = section.required("of")?;
    let who = who(&of, processes)?;
    let lasts = match section.find("lasts") {
        Some(item) => Some(item.duration(&(Duration::from_millis(1)..=super::LONGEST))?),
        None => None,
    };
    let is_peer = |&process: &usize| matches!(processes[process].role, Role::Peer { .. });
    let allowed = if who.iter().all(is_peer) {
        Misdeed::OF_PEERS
    } else if who.iter().any(is_peer) {
        return Err(of.fault(Problem::Form {
            found: of.text(forms::words)?,
            rule: "names peers and initiators; write one entry for each",
        }));
    } else {
        Misdeed::OF_SERVICES
    };
    let misbehaviour = Misbehaviour {
        how: misdeeds(&section.required("how")?, &allowed)?,
        share: section.text("share", 1.0, forms::share)?,
        lasts,
    };
    Ok((who, misbehaviour))
}

/// The initiators, whose services are meant, or the peers that a name stands for.
pub(super) fn who(item: &Item<'_>, processes: &[Process]) -> Result<Vec<usize>, Fault> {
    let found = processes_named(item, processes)?;
    if found.iter().any(|&i| processes[i].role == Role::Responder) {
        return Err(item.fault(Problem::Form {
            found: item.text(forms::words)?,
            rule: "is a responder; services belong to initiators",
        }));
    }
    Ok(found)
}

/// One name, a list of names, or `any`.
fn misdeeds(item: &Item<'_>, allowed: &[Misdeed]) -> Result<Vec<Misdeed>, Fault> {
    let one = |item: &Item<'_>| {
        let name = item.text(forms::words)?;
        let found = allowed.iter().find(|misdeed| misdeed.label() == name);
        found.copied().ok_or_else(|| {
            item.fault(Problem::Unknown {
                what: "way to misbehave",
                found: name,
                known: allowed.iter().map(|misdeed| misdeed.label().to_owned()).collect(),
            })
        })
    };
    match &item.tree.value {
        Value::List(_) => item.filled_list()?.iter().map(one).collect(),
        Value::Text(text) if text == "any" => Ok(allowed.to_vec()),
        Value::Text(_)
        | Value::Null
        | Value::Flag(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Mapping(_) => Ok(vec![one(item)?]),
    }
}
