//! What clients sent, what services got, and what came back: written by both, read by the oracle.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::fabric::ProcessId;

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
    pub target: crate::scenario::Target,
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

/// Every request of a run, by number.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    requests: RefCell<BTreeMap<u64, Request>>,
    /// Requests in which something happened since the oracle looked.
    news: RefCell<Vec<u64>>,
    /// When one was sent or ended.
    last_change: Cell<Duration>,
}

impl Ledger {
    pub(crate) fn send(&self, request: Request) -> u64 {
        self.last_change.set(request.sent);
        let mut requests = self.requests.borrow_mut();
        let id = requests.len() as u64 + 1;
        requests.insert(id, request);
        id
    }

    pub(crate) fn deliver(&self, id: u64, to: ProcessId) {
        if let Some(request) = self.requests.borrow_mut().get_mut(&id) {
            request.delivered.push(to);
            self.news.borrow_mut().push(id);
        }
    }

    /// A service or a peer breaks the rules in its response to a request.
    pub(crate) fn mistreat(&self, id: u64) {
        if let Some(request) = self.requests.borrow_mut().get_mut(&id) {
            request.is_mistreated = true;
        }
    }

    /// Says how long it took.
    pub(crate) fn end(&self, id: u64, at: Duration, outcome: Outcome) -> Duration {
        let mut requests = self.requests.borrow_mut();
        let Some(request) = requests.get_mut(&id) else {
            return Duration::ZERO;
        };
        request.ended = Some((at, outcome));
        self.last_change.set(at);
        self.news.borrow_mut().push(id);
        at.saturating_sub(request.sent)
    }

    pub(crate) fn take_news(&self) -> Vec<u64> {
        std::mem::take(&mut *self.news.borrow_mut())
    }

    pub(crate) fn with<T>(&self, id: u64, look: impl FnOnce(&Request) -> T) -> Option<T> {
        self.requests.borrow().get(&id).map(look)
    }

    pub(crate) fn open(&self) -> usize {
        let requests = self.requests.borrow();
        requests
            .values()
            .filter(|request| request.ended.is_none())
            .count()
    }

    pub(crate) const fn last_change(&self) -> Duration {
        self.last_change.get()
    }

    /// Shows each.
    pub(crate) fn each(&self, look: impl FnMut(&Request)) {
        self.requests.borrow().values().for_each(look);
    }

    /// A copy of all.
    pub(crate) fn all(&self) -> Vec<Request> {
        self.requests.borrow().values().cloned().collect()
    }
}
