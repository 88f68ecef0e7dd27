//! Log lines that peers can cause at any rate: written up to a limit, and counted beyond it.

use std::cell::RefCell;
use std::rc::Rc;

use eddy_core::line_limit::{Decision, LineLimit};

use crate::clock::Clock;

/// One kind of log line on one worker. Clones share the limit.
#[derive(Clone)]
pub(crate) struct LimitedLog(Rc<Inner>);

struct Inner {
    clock: Clock,
    limit: RefCell<LineLimit>,
    report: fn(u64),
}

impl LimitedLog {
    /// `report` writes how many lines were suppressed, at most once per second.
    pub(crate) fn new(clock: Clock, report: fn(u64)) -> Self {
        Self(Rc::new(Inner {
            clock,
            limit: RefCell::default(),
            report,
        }))
    }

    /// Calls `write` unless the limit is reached.
    pub(crate) fn line(&self, write: impl FnOnce()) {
        let now = self.0.clock.now();
        let is_reported = self.0.limit.borrow().poll_timeout().is_some();
        let decision = self.0.limit.borrow_mut().on_event(now);
        match decision {
            Decision::Write => write(),
            Decision::Suppress if is_reported => {}
            Decision::Suppress => {
                tokio::task::spawn_local(report(Rc::clone(&self.0)));
            }
        }
    }
}

/// Waits until the count of suppressed lines is due, and reports it.
async fn report(log: Rc<Inner>) {
    loop {
        let due = log.limit.borrow().poll_timeout();
        log.clock.until(due).await;
        let suppressed = log.limit.borrow_mut().handle_timeout(log.clock.now());
        if let Some(suppressed) = suppressed {
            return (log.report)(suppressed);
        }
    }
}
