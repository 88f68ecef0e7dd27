//! Requests that wait. Only those that wait for an id are woken when it comes. How many may wait, the machine decides.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use eddy_core::identity::Identity;
use tokio::sync::Notify;

/// The requests of one worker that wait for the same kind of thing.
#[derive(Debug, Default)]
pub(super) struct WaitingRoom {
    /// By the id of the node or cluster that they wait for.
    by_id: RefCell<BTreeMap<String, Rc<Notify>>>,
}

/// One request's seat; given back when dropped.
pub(super) struct Seat<'r> {
    room: &'r WaitingRoom,
    id: &'r str,
    woken: Rc<Notify>,
}

impl WaitingRoom {
    /// A seat for a request that waits for `id`.
    pub(super) fn enter<'r>(&'r self, id: &'r str) -> Seat<'r> {
        let mut by_id = self.by_id.borrow_mut();
        let woken = match by_id.get(id) {
            Some(woken) => Rc::clone(woken),
            None => Rc::clone(by_id.entry(id.to_owned()).or_default()),
        };
        Seat {
            room: self,
            id,
            woken,
        }
    }

    /// Wakes all that wait for the node or cluster of an identity.
    pub(super) fn wake_all(&self, identity: &Identity) {
        self.wake(identity, Notify::notify_waiters);
    }

    /// Wakes the first that waits for the node of an identity, and the first that waits for its cluster.
    pub(super) fn wake_one(&self, identity: &Identity) {
        self.wake(identity, Notify::notify_one);
    }

    /// Wakes the first that waits for an id.
    pub(super) fn wake_next(&self, id: &str) {
        if let Some(woken) = self.by_id.borrow().get(id) {
            woken.notify_one();
        }
    }

    fn wake(&self, identity: &Identity, wake: impl Fn(&Notify)) {
        let by_id = self.by_id.borrow();
        if by_id.is_empty() {
            return;
        }
        for id in [identity.node.as_str(), identity.cluster.as_str()] {
            if let Some(woken) = by_id.get(id) {
                wake(woken);
            }
        }
    }
}

impl Seat<'_> {
    /// Waits until the request is woken.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        // The room's own and this one: no other request waits for the id.
        if Rc::strong_count(&self.woken) == 2 {
            self.room.by_id.borrow_mut().remove(self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_forgotten_with_its_last_request() {
        let room = WaitingRoom::default();
        let (first, second) = (room.enter("edge"), room.enter("edge"));
        drop(first);
        assert_eq!(room.by_id.borrow().len(), 1, "the second request still waits");
        drop(second);
        assert!(room.by_id.borrow().is_empty());
    }
}
