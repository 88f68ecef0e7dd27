//! A signal that is given once and seen by any number of tasks of one worker.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::Notify;

/// Cheap to clone; all clones are one latch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latch(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    set: Cell<bool>,
    changed: Notify,
}

impl Latch {
    /// Gives the signal.
    pub(crate) fn set(&self) {
        self.0.set.set(true);
        self.0.changed.notify_waiters();
    }

    /// Whether it was given.
    pub(crate) fn is_set(&self) -> bool {
        self.0.set.get()
    }

    /// Waits for it. One thread runs all tasks of a worker, so nothing happens between the look at the flag
    /// and the first poll of the notification.
    pub(crate) async fn wait(&self) {
        let changed = self.0.changed.notified();
        if !self.is_set() {
            changed.await;
        }
    }
}

/// Counts tasks of a worker.
#[derive(Clone, Debug, Default)]
pub(crate) struct Crowd(Rc<Count>);

#[derive(Debug, Default)]
struct Count {
    present: Cell<usize>,
}

/// One of the crowd; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Present(Crowd);

impl Crowd {
    /// Joins.
    pub(crate) fn enter(&self) -> Present {
        self.0.present.set(self.0.present.get() + 1);
        Present(self.clone())
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.0.present.get()
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        let count = &self.0.0;
        count.present.set(count.present.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_latch_is_seen_by_those_who_wait_and_those_who_come_late() {
        let latch = Latch::default();
        let late = latch.clone();
        tokio::join!(biased_pair(latch.wait(), latch.wait()), async { latch.set() });
        late.wait().await;
        assert!(late.is_set());
    }

    async fn biased_pair(a: impl Future<Output = ()>, b: impl Future<Output = ()>) {
        tokio::join!(a, b);
    }

    #[test]
    fn a_crowd_counts_those_who_are_there() {
        let crowd = Crowd::default();
        let (first, _second) = (crowd.enter(), crowd.enter());
        drop(first);
        assert_eq!(crowd.count(), 1);
    }
}
