//! The handle of a process: its life, the signals that wait for it, and what it reports of itself.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use eddy_runtime::admin::Admin;
use tokio::sync::Notify;

use crate::claims::Claims;
use crate::fabric::{ProcessId, SimNetwork, now};
use crate::journal::{Journal, What};
use crate::scenario::Process;

/// What a process is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Start,
    Kill,
    Terminate,
    /// Not a signal: what `POST /drain` asks for.
    Renew,
    Stop,
    Continue,
}

/// What is true of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    Stopped,
    Running,
    Draining,
    /// It ended by itself.
    Ended,
    /// It ended by itself with an error.
    Failed,
}

/// The hand on a process.
pub(crate) struct Slot {
    pub(crate) id: ProcessId,
    pub(crate) name: String,
    pub(crate) signals: RefCell<Vec<Signal>>,
    pub(crate) waker: RefCell<Option<Waker>>,
    pub(crate) renewal: Notify,
    pub(crate) life: Cell<Life>,
    pub(crate) frozen: Cell<bool>,
    pub(crate) incarnation: Cell<u32>,
    /// When it was last started.
    pub(crate) began: Cell<Duration>,
    pub(crate) claims: RefCell<Option<Claims>>,
    pub(crate) admin: RefCell<Option<Rc<Admin<SimNetwork>>>>,
    pub(crate) failure: RefCell<Option<String>>,
    /// The claims that the oracle has compared last, by their time.
    pub(crate) compared: Cell<Duration>,
    pub(crate) journal: Journal,
    pub(crate) seed: u64,
    pub(crate) look_every: Duration,
    /// Processes whose life has changed.
    changes: Changes,
}

/// Processes whose life has changed since somebody looked.
pub(crate) type Changes = Rc<RefCell<Vec<ProcessId>>>;

impl Slot {
    pub(crate) fn new(
        id: ProcessId,
        process: &Process,
        journal: Journal,
        seed: u64,
        look_every: Duration,
        changes: Changes,
    ) -> Rc<Self> {
        Rc::new(Self {
            id,
            name: process.name.clone(),
            signals: RefCell::default(),
            waker: RefCell::default(),
            renewal: Notify::new(),
            life: Cell::new(Life::Stopped),
            frozen: Cell::default(),
            incarnation: Cell::default(),
            began: Cell::default(),
            claims: RefCell::default(),
            admin: RefCell::default(),
            failure: RefCell::default(),
            compared: Cell::default(),
            journal,
            seed,
            look_every,
            changes,
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.signals.borrow_mut().push(signal);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.life.get(), Life::Running | Life::Draining)
    }

    /// Records a change of `life`.
    pub(crate) fn note(&self, state: &'static str) {
        self.changes.borrow_mut().push(self.id);
        let incarnation = self.incarnation.get();
        self.journal
            .record(now(), &self.name, What::Life { state, incarnation });
    }
}
