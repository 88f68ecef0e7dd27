//! The requests of a run: clients and services write to the ledger, and the oracle reads it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use crate::fabric::ProcessId;
use crate::request::{Outcome, Request};

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
