//! What one worker counts of its requests. Plain cells: a worker is one thread, and nobody else writes.

use std::cell::Cell;

use eddy_core::router::Refusal;
use eddy_core::stats::{Hop, Http, Name, Sheet};

/// The numbers of one hop.
#[derive(Debug)]
pub(crate) struct Counters {
    hop: Hop,
    pub(crate) requests: Cell<u64>,
    pub(crate) in_flight: Cell<u64>,
    pub(crate) truncated: Cell<u64>,
    pub(crate) client_gone: Cell<u64>,
    pub(crate) waited: Cell<u64>,
    pub(crate) retried: Cell<u64>,
    responses: [Cell<u64>; 6],
    refused: [Cell<u64>; Refusal::ALL.len()],
}

pub(crate) fn increase(cell: &Cell<u64>) {
    cell.set(cell.get() + 1);
}

impl Counters {
    pub(crate) fn new(hop: Hop) -> Self {
        Self {
            hop,
            requests: Cell::default(),
            in_flight: Cell::default(),
            truncated: Cell::default(),
            client_gone: Cell::default(),
            waited: Cell::default(),
            retried: Cell::default(),
            responses: Default::default(),
            refused: Default::default(),
        }
    }

    pub(crate) fn refuse(&self, why: Refusal) {
        increase(&self.refused[why as usize]);
    }

    pub(crate) fn respond(&self, status: hyper::StatusCode) {
        if let Some(class) = self.responses.get(usize::from(status.as_u16() / 100)) {
            increase(class);
        }
    }

    pub(crate) fn fill(&self, sheet: &mut Sheet) {
        let mut put = |what, cell: &Cell<u64>| sheet.add(Name::Http(self.hop, what), cell.get());
        put(Http::Requests, &self.requests);
        put(Http::InFlight, &self.in_flight);
        put(Http::Truncated, &self.truncated);
        put(Http::ClientGone, &self.client_gone);
        if self.hop == Hop::Egress {
            put(Http::Waited, &self.waited);
            put(Http::Retried, &self.retried);
        }
        for (class, cell) in (0..).zip(&self.responses).skip(1) {
            put(Http::Responses(class), cell);
        }
        for why in Refusal::ALL {
            put(Http::Refused(why), &self.refused[why as usize]);
        }
    }
}

/// A request that has come and not ended; says how it ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Running<C: AsRef<Counters>> {
    counters: C,
    ended: bool,
}

impl<C: AsRef<Counters>> Running<C> {
    pub(crate) fn new(counters: C) -> Self {
        let numbers = counters.as_ref();
        increase(&numbers.requests);
        increase(&numbers.in_flight);
        Self {
            counters,
            ended: false,
        }
    }

    /// The request has its whole answer.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// The answer broke off in its body.
    pub(crate) fn truncate(&mut self) {
        if !self.ended {
            self.ended = true;
            increase(&self.counters.as_ref().truncated);
        }
    }
}

impl<C: AsRef<Counters>> Drop for Running<C> {
    fn drop(&mut self) {
        let numbers = self.counters.as_ref();
        numbers.in_flight.set(numbers.in_flight.get().saturating_sub(1));
        if !self.ended {
            increase(&numbers.client_gone);
        }
    }
}
