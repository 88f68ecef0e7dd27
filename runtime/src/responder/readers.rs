//! Ends the connections of clients that leave their responses unread: for too long, or while memory is short.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use eddy_core::memory::{Excess, ReaderEnd, Readers, Reading};
use eddy_core::time::Instant;

use crate::latch::Latch;

/// The connections of a worker's clients.
#[derive(Debug, Default)]
pub(super) struct ClientReaders {
    all: Rc<RefCell<BTreeMap<u64, Rc<State>>>>,
    readers: RefCell<Readers>,
    last: Cell<u64>,
}

#[derive(Debug, Default)]
struct State {
    reading: Cell<Reading>,
    end: Cell<Option<ReaderEnd>>,
    ended: Latch,
}

/// One connection of a client.
#[derive(Debug)]
pub(super) struct ClientReader {
    all: Rc<RefCell<BTreeMap<u64, Rc<State>>>>,
    id: u64,
    state: Rc<State>,
}

impl ClientReaders {
    /// A connection, until it is dropped.
    pub(super) fn enter(&self) -> ClientReader {
        self.last.set(self.last.get() + 1);
        let (id, state) = (self.last.get(), Rc::<State>::default());
        self.all.borrow_mut().insert(id, Rc::clone(&state));
        ClientReader {
            all: Rc::clone(&self.all),
            id,
            state,
        }
    }

    /// Tells those connections that are to end; returns how many those are.
    pub(super) fn look(&self, now: Instant, excess: Option<Excess>) -> usize {
        let all = self.all.borrow();
        let clients = all.iter().map(|(id, state)| (*id, state.reading.get()));
        let ends = self.readers.borrow_mut().look(now, excess, clients);
        for (id, why) in &ends {
            if let Some(state) = all.get(id) {
                state.end.set(Some(*why));
                state.ended.set();
            }
        }
        ends.len()
    }
}

impl ClientReader {
    /// Waits until the connection is to be ended.
    pub(super) async fn ended(&self) {
        self.state.ended.wait().await;
    }

    /// A response begins; there is something to read until it says otherwise.
    pub(super) fn response(&self) -> Unread {
        let mut unread = Unread {
            state: Rc::clone(&self.state),
            is_unread: false,
        };
        unread.set(true);
        unread
    }
}

impl Drop for ClientReader {
    fn drop(&mut self) {
        self.all.borrow_mut().remove(&self.id);
    }
}

/// Whether there is more of one response than its client has taken.
#[derive(Debug)]
pub(super) struct Unread {
    state: Rc<State>,
    is_unread: bool,
}

impl Unread {
    /// The client has taken so many bytes, and not asked for more yet.
    pub(super) fn take(&mut self, bytes: usize) {
        let mut reading = self.state.reading.get();
        reading.taken += bytes as u64;
        self.state.reading.set(reading);
        self.set(true);
    }

    /// The client waits for more, or has all of it.
    pub(super) fn clear(&mut self) {
        self.set(false);
    }

    /// Why the connection is ended, if it is.
    pub(super) fn end(&self) -> Option<ReaderEnd> {
        self.state.end.get()
    }

    fn set(&mut self, is_unread: bool) {
        let mut reading = self.state.reading.get();
        match (self.is_unread, is_unread) {
            (false, true) => reading.unread += 1,
            (true, false) => reading.unread -= 1,
            _ => return,
        }
        self.is_unread = is_unread;
        self.state.reading.set(reading);
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.set(false);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_connection_is_told_that_it_ends_while_a_response_is_unread() {
        let at = |seconds| Instant::from_origin(Duration::from_secs(seconds));
        let readers = ClientReaders::default();
        let (stalled, resting) = (readers.enter(), readers.enter());
        let (mut held, mut read) = (stalled.response(), resting.response());
        held.take(5);
        read.take(5);
        read.clear();
        assert_eq!(readers.look(at(0), None), 0);
        assert_eq!(readers.look(at(300), None), 1);
        assert_eq!((held.end(), read.end()), (Some(ReaderEnd::Idle), None));
        drop(held);
        assert_eq!(stalled.state.reading.get(), Reading { unread: 0, taken: 5 });
        drop((stalled, resting));
        assert!(readers.all.borrow().is_empty());
    }
}
