//! Requests that wait for somebody who was here moments ago. Only those who wait for an id are woken when it comes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use eddy_core::identity::Identity;
use tokio::sync::Notify;

/// The requests of one worker that wait.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    /// By the id that they wait for, be it a node's or a cluster's.
    by_id: RefCell<BTreeMap<String, Rc<Notify>>>,
    count: Cell<u32>,
}

/// One request's seat; given back when dropped.
pub(super) struct Seat<'r> {
    room: &'r WaitingRoom,
    id: &'r str,
    arrived: Rc<Notify>,
}

impl WaitingRoom {
    /// A seat for who waits for `id`, unless `max` are taken.
    pub(super) fn enter<'r>(&'r self, id: &'r str, max: u32) -> Option<Seat<'r>> {
        if self.count.get() >= max {
            return None;
        }
        self.count.set(self.count.get() + 1);
        let mut by_id = self.by_id.borrow_mut();
        let arrived = match by_id.get(id) {
            Some(arrived) => Rc::clone(arrived),
            None => Rc::clone(by_id.entry(id.to_owned()).or_default()),
        };
        Some(Seat {
            room: self,
            id,
            arrived,
        })
    }

    /// A tunnel has come: all that wait for its node or cluster are woken.
    pub(super) fn on_arrived(&self, identity: &Identity) {
        self.wake(identity, Notify::notify_waiters);
    }

    /// A place on a tunnel is free: the first that waits for its node is woken, and the first for its cluster.
    pub(super) fn on_place(&self, identity: &Identity) {
        self.wake(identity, Notify::notify_one);
    }

    fn wake(&self, identity: &Identity, wake: impl Fn(&Notify)) {
        let by_id = self.by_id.borrow();
        if by_id.is_empty() {
            return;
        }
        for id in [identity.node.as_str(), identity.cluster.as_str()] {
            if let Some(arrived) = by_id.get(id) {
                wake(arrived);
            }
        }
    }
}

impl Seat<'_> {
    /// Waits for the next tunnel of the id.
    pub(super) async fn arrival(&self) {
        self.arrived.notified().await;
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.room.count.set(self.room.count.get() - 1);
        // The room's own and this one: nobody else waits for the id.
        if Rc::strong_count(&self.arrived) == 2 {
            self.room.by_id.borrow_mut().remove(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_and_given_back() {
        let room = WaitingRoom::default();
        let first = room.enter("edge", 2);
        let second = room.enter("edge", 2);
        assert!(first.is_some() && second.is_some());
        assert!(room.enter("other", 2).is_none());
        drop(first);
        assert_eq!(room.by_id.borrow().len(), 1, "somebody still waits");
        drop(second);
        assert!(room.by_id.borrow().is_empty());
        assert!(room.enter("other", 1).is_some());
        assert!(room.enter("other", 0).is_none());
    }
}
