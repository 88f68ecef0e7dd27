//! What each client has on this worker: requests in flight, and requests that wait for a place. A client with many leaves
//! the last places, and the last seats, to others.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use eddy_core::admission::Source;
use eddy_core::responder::ClientShare;

type Share = Rc<Cell<ClientShare>>;

/// The clients of one worker, by source.
#[derive(Debug, Default)]
pub(super) struct ClientLoads(Rc<RefCell<BTreeMap<Source, Share>>>);

/// A connection of a client, or a request on it.
#[derive(Clone, Debug)]
pub(super) struct ClientLoad {
    all: Rc<RefCell<BTreeMap<Source, Share>>>,
    source: Source,
    share: Share,
}

/// A request in flight, or one that waits.
#[derive(Debug)]
pub(super) struct Counted {
    load: ClientLoad,
    part: fn(&mut ClientShare) -> &mut u32,
}

impl ClientLoads {
    /// The load of a client, for one of its connections.
    pub(super) fn of(&self, address: IpAddr) -> ClientLoad {
        let source = Source::from(address);
        let share = Rc::clone(self.0.borrow_mut().entry(source).or_default());
        ClientLoad {
            all: Rc::clone(&self.0),
            source,
            share,
        }
    }
}

impl ClientLoad {
    /// What the client has.
    pub(super) fn share(&self) -> ClientShare {
        self.share.get()
    }

    /// Counts a request in flight until it is dropped.
    pub(super) fn begin(&self) -> Counted {
        self.count(|share| &mut share.in_flight)
    }

    /// Counts a request that waits for a place until it is dropped.
    pub(super) fn wait(&self) -> Counted {
        self.count(|share| &mut share.waiting)
    }

    fn count(&self, part: fn(&mut ClientShare) -> &mut u32) -> Counted {
        let mut share = self.share.get();
        *part(&mut share) += 1;
        self.share.set(share);
        Counted {
            load: self.clone(),
            part,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut share = self.load.share.get();
        *(self.part)(&mut share) -= 1;
        self.load.share.set(share);
    }
}

impl Drop for ClientLoad {
    fn drop(&mut self) {
        // The map's own and this one: no other connection or request of the client is left.
        if Rc::strong_count(&self.share) == 2 {
            self.all.borrow_mut().remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connections_of_a_client_share_a_count_that_ends_with_them() {
        let loads = ClientLoads::default();
        let client = |text: &str| loads.of(text.parse().unwrap());
        let (first, second) = (client("192.0.2.1"), client("::ffff:192.0.2.1"));
        let request = first.begin();
        drop(first.wait());
        assert_eq!(first.share().waiting, 0);
        assert_eq!((first.share().in_flight, second.share().in_flight), (1, 1));
        assert_eq!(client("192.0.2.2").share().in_flight, 0);
        drop((first, second));
        assert_eq!(loads.0.borrow().len(), 1, "a request is in flight");
        drop(request);
        assert!(loads.0.borrow().is_empty());
        let (near, far) = (client("2001:db8::2"), client("2001:db8:0:1::2"));
        let _request = near.begin();
        assert_eq!(
            (client("2001:db8::3").share().in_flight, far.share().in_flight),
            (1, 0)
        );
    }
}
