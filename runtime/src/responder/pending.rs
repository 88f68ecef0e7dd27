//! The connections of one worker whose handshake is pending: drives the table of [`Admission`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use eddy_core::admission::{Admission, Eviction, Limits, Ticket};
use eddy_core::time::{Deadline, Instant};
use tokio::sync::oneshot;

use crate::config::ListenConfig;

/// All pending handshakes of a worker.
pub(super) struct PendingHandshakes {
    table: RefCell<Admission>,
    /// Ends the task of a connection that is evicted.
    evict: RefCell<BTreeMap<Ticket, oneshot::Sender<Eviction>>>,
}

/// The place of one connection in the table; given back when dropped.
pub(super) struct Place {
    pending: Rc<PendingHandshakes>,
    ticket: Ticket,
    evicted: oneshot::Receiver<Eviction>,
    has_evicted: bool,
}

impl PendingHandshakes {
    pub(super) fn new(config: &ListenConfig) -> Self {
        let count = |number| usize::try_from(number).unwrap_or(usize::MAX);
        let limits = Limits {
            pending_max: count(config.max_pending_handshakes),
            per_source_max: match config.max_pending_per_source {
                0 => usize::MAX,
                share => count(share),
            },
            first_byte: config.first_byte_timeout,
            handshake: config.handshake_timeout,
        };
        Self {
            table: RefCell::new(Admission::new(limits)),
            evict: RefCell::default(),
        }
    }

    /// Admits a connection that was accepted, and evicts another one where that is necessary.
    pub(super) fn enter(self: &Rc<Self>, now: Instant, peer: SocketAddr) -> Place {
        let admitted = self.table.borrow_mut().on_accept(now, peer.ip().into());
        let (sender, receiver) = oneshot::channel();
        let mut evict = self.evict.borrow_mut();
        evict.insert(admitted.ticket, sender);
        if let Some(evicted) = admitted.evicted
            && let Some(task) = evict.remove(&evicted.ticket)
        {
            // A task that has ended since needs no signal.
            let _ = task.send(evicted.why);
        }
        Place {
            pending: Rc::clone(self),
            ticket: admitted.ticket,
            evicted: receiver,
            has_evicted: admitted.evicted.is_some(),
        }
    }
}

impl Place {
    /// Whether another connection had to make room for this one.
    pub(super) const fn has_evicted(&self) -> bool {
        self.has_evicted
    }

    /// Bytes have arrived.
    pub(super) fn on_bytes(&self) {
        self.pending.table.borrow_mut().on_bytes(self.ticket);
    }

    /// When the connection has had its time.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.pending.table.borrow().deadline(self.ticket)
    }

    /// Waits until the connection is evicted. Must not be called again after that.
    pub(super) async fn evicted(&mut self) -> Eviction {
        match (&mut self.evicted).await {
            Ok(why) => why,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pending.table.borrow_mut().on_end(self.ticket);
        self.pending.evict.borrow_mut().remove(&self.ticket);
    }
}
