//! What one worker counts of its requests. Plain cells: a worker is one thread, and nobody else writes.

use std::cell::{Cell, RefCell};

use eddy_core::histogram::Histogram;
use eddy_core::rng::Rng;
use eddy_core::router::Refusal;
use eddy_core::stats::{Hop, Http, Name, Sheet};
use eddy_core::time::Instant;
use eddy_core::timings::{Outcome, Timing, Timings};
use hyper::StatusCode;

use crate::clock::Clock;
use crate::overview::Requests;
use crate::record::{Record, Recorder};

/// The numbers of one hop.
#[derive(Debug)]
pub(crate) struct Counters {
    hop: Hop,
    clock: Clock,
    /// What is told of single requests.
    pub(crate) recorder: Recorder,
    /// How long requests took, by outcome.
    durations: RefCell<[Histogram; Outcome::ALL.len()]>,
    /// What still runs is being cut.
    pub(crate) cutting: Cell<bool>,
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
    /// `rng` is of these numbers' own.
    pub(crate) fn new(hop: Hop, clock: Clock, rng: Rng) -> Self {
        Self {
            hop,
            clock,
            recorder: Recorder::new(hop.label(), rng),
            durations: RefCell::new(Outcome::ALL.map(|outcome| Timing::Request(hop, outcome).histogram())),
            cutting: Cell::default(),
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

    fn refuse(&self, why: Refusal) {
        increase(&self.refused[why as usize]);
    }

    fn respond(&self, status: StatusCode) {
        if let Some(class) = self.responses.get(usize::from(status.as_u16() / 100)) {
            increase(class);
        }
    }

    /// What the status page shows of requests.
    pub(crate) fn overview(&self) -> Requests {
        let refused = Refusal::ALL.into_iter().filter(|why| why.status() >= 500);
        let refused: u64 = refused.map(|why| self.refused[why as usize].get()).sum();
        Requests {
            total: self.requests.get(),
            in_flight: self.in_flight.get(),
            errors: self.responses[5].get() + self.truncated.get() + refused,
            durations: {
                let mut all = Timing::Request(self.hop, Outcome::Answered).histogram();
                self.durations.borrow().iter().for_each(|one| all.merge(one));
                all
            },
        }
    }

    /// How long requests took.
    pub(crate) fn durations(&self) -> Timings {
        let durations = self.durations.borrow();
        let named = Outcome::ALL.into_iter().zip(&*durations);
        named
            .map(|(outcome, one)| (Timing::Request(self.hop, outcome), one.clone()))
            .collect()
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

/// How far a request has come.
#[derive(Clone, Copy, Debug)]
enum Progress {
    /// It has no answer yet.
    Waiting,
    /// Its answer of the service is on its way.
    Answering(StatusCode),
    /// It has ended so.
    Ended(Outcome),
}

/// A request that has come and not ended; says how it ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Running<C: AsRef<Counters>> {
    counters: C,
    began: Instant,
    progress: Progress,
    record: Option<Box<Record>>,
}

impl<C: AsRef<Counters>> Running<C> {
    /// `record` is what is to be told of it, if anything is.
    pub(crate) fn new(counters: C, record: Option<Box<Record>>) -> Self {
        let numbers = counters.as_ref();
        increase(&numbers.requests);
        increase(&numbers.in_flight);
        let began = numbers.clock.now();
        Self {
            counters,
            began,
            progress: Progress::Waiting,
            record,
        }
    }

    /// When it came.
    pub(crate) const fn began(&self) -> Instant {
        self.began
    }

    /// What is told of it, if anything is.
    pub(crate) fn record(&mut self) -> Option<&mut Record> {
        self.record.as_deref_mut()
    }

    /// The service has answered.
    pub(crate) fn respond(&mut self, status: StatusCode) {
        self.counters.as_ref().respond(status);
        self.progress = Progress::Answering(status);
        if let Some(record) = self.record() {
            record.status = Some(status.as_u16());
        }
    }

    /// Eddy answers itself.
    pub(crate) fn refuse(&mut self, why: Refusal) {
        self.counters.as_ref().refuse(why);
        self.progress = Progress::Ended(Outcome::Refused);
        if let Some(record) = self.record() {
            record.status = Some(why.status());
            record.reason = Some(why.label());
        }
    }

    /// So much more of the answer's body was passed on.
    pub(crate) fn pass(&mut self, bytes: usize) {
        if let Some(record) = self.record() {
            record.response_bytes += bytes as u64;
        }
    }

    /// The request has its whole answer.
    pub(crate) fn end(&mut self) {
        if let Progress::Answering(status) = self.progress {
            let failed = status.is_server_error();
            self.progress = Progress::Ended(if failed {
                Outcome::Failed
            } else {
                Outcome::Answered
            });
        }
    }

    /// The answer broke off in its body, for this reason.
    pub(crate) fn truncate(&mut self, why: &'static str) {
        if !matches!(self.progress, Progress::Ended(_)) {
            if let Some(record) = self.record() {
                record.reason = Some(why);
            }
            self.progress = Progress::Ended(Outcome::Truncated);
            increase(&self.counters.as_ref().truncated);
        }
    }
}

impl<C: AsRef<Counters>> Drop for Running<C> {
    fn drop(&mut self) {
        let numbers = self.counters.as_ref();
        numbers.in_flight.set(numbers.in_flight.get().saturating_sub(1));
        let outcome = match self.progress {
            Progress::Ended(outcome) => outcome,
            Progress::Waiting | Progress::Answering(_) if numbers.cutting.get() => Outcome::Cut,
            Progress::Waiting | Progress::Answering(_) => {
                increase(&numbers.client_gone);
                Outcome::ClientGone
            }
        };
        let took = numbers.clock.now() - self.began;
        numbers.durations.borrow_mut()[outcome as usize].record(took);
        if let Some(mut record) = self.record.take() {
            record.took = took;
            record.outcome = outcome;
            numbers.recorder.end(*record);
        }
    }
}
