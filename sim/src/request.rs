//! A request of a run, and how it ended.

use std::fmt;
use std::time::Duration;

use crate::fabric::ProcessId;
use crate::scenario::Target;

/// How a request ended for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// There was an answer, whole.
    Answer {
        /// Its status.
        status: u16,
        /// Eddy's own reason, if it was Eddy who answered.
        reason: Option<String>,
        /// The process whose service answered, by its own word.
        by: Option<usize>,
    },
    /// The connection broke before the whole answer was there.
    Broken(String),
    /// The client lost its patience.
    TimedOut,
    /// The client stopped reading or sending, as the scenario says.
    Stopped,
    /// The response was one to another request, of this number.
    Foreign(u64),
}

impl Outcome {
    /// Whether the service answered it well.
    pub const fn is_good(&self) -> bool {
        match self {
            Self::Answer { status, by, .. } => *status == 200 && by.is_some(),
            Self::Stopped => true,
            Self::Broken(_) | Self::TimedOut | Self::Foreign(_) => false,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer {
                status,
                reason: Some(reason),
                ..
            } => write!(f, "{status} {reason}"),
            Self::Answer { status, .. } => write!(f, "{status}"),
            Self::Broken(why) => write!(f, "broken ({why})"),
            Self::TimedOut => f.write_str("no answer in time"),
            Self::Stopped => f.write_str("stopped reading"),
            Self::Foreign(id) => write!(f, "the response to request {id}"),
        }
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    /// The workload, by its place; `None` for the oracle's own.
    pub workload: Option<usize>,
    /// The responder that it went to.
    pub via: ProcessId,
    /// The worker of the responder that it went to, if the client chose one.
    pub worker: Option<u16>,
    /// Who should answer: its node or its cluster.
    pub target: Target,
    /// Whether it may be delivered twice.
    pub idempotent: bool,
    /// When it was sent.
    pub sent: Duration,
    /// The services that got it.
    pub delivered: Vec<ProcessId>,
    /// A service or a peer that got it broke the rules on purpose.
    pub is_mistreated: bool,
    /// How and when it ended.
    pub ended: Option<(Duration, Outcome)>,
}
