//! How many requests each client has in flight on this worker: a client with many leaves the last places to others.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::rc::Rc;

/// The clients of one worker, by source.
#[derive(Debug, Default)]
pub(super) struct ClientLoads(Rc<RefCell<BTreeMap<IpAddr, Rc<Cell<u32>>>>>);

/// A connection of a client, or a request on it.
#[derive(Clone, Debug)]
pub(super) struct ClientLoad {
    all: Rc<RefCell<BTreeMap<IpAddr, Rc<Cell<u32>>>>>,
    source: IpAddr,
    in_flight: Rc<Cell<u32>>,
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct InFlight(ClientLoad);

/// One client: an IPv4 address, or the 64 bits of an IPv6 address that a site has for itself (RFC 6177).
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let network = v6.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(network))
        }
        v4 => v4,
    }
}

impl ClientLoads {
    /// The load of a client, for one of its connections.
    pub(super) fn of(&self, address: IpAddr) -> ClientLoad {
        let source = source(address);
        let in_flight = Rc::clone(self.0.borrow_mut().entry(source).or_default());
        ClientLoad {
            all: Rc::clone(&self.0),
            source,
            in_flight,
        }
    }
}

impl ClientLoad {
    /// How many of the client's requests are in flight.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// Counts a request until it is dropped.
    pub(super) fn begin(&self) -> InFlight {
        self.in_flight.set(self.in_flight.get() + 1);
        InFlight(self.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let in_flight = &self.0.in_flight;
        in_flight.set(in_flight.get() - 1);
    }
}

impl Drop for ClientLoad {
    fn drop(&mut self) {
        // The map's own and this one: no other connection or request of the client is left.
        if Rc::strong_count(&self.in_flight) == 2 {
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
        assert_eq!((first.in_flight(), second.in_flight()), (1, 1));
        assert_eq!(client("192.0.2.2").in_flight(), 0);
        drop((first, second));
        assert_eq!(loads.0.borrow().len(), 1, "a request is in flight");
        drop(request);
        assert!(loads.0.borrow().is_empty());
        let (near, far) = (client("2001:db8::2"), client("2001:db8:0:1::2"));
        let _request = near.begin();
        assert_eq!((client("2001:db8::3").in_flight(), far.in_flight()), (1, 0));
    }
}
