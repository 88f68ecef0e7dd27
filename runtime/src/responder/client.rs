//! A client's connection, as its requests need it.

use std::net::SocketAddr;

use super::client_load::ClientLoad;
use super::readers::ClientReader;
use crate::net::{Meter, Network, Stream};

/// The client of a connection.
pub(super) struct Client<N: Network> {
    pub(super) address: SocketAddr,
    pub(super) load: ClientLoad,
    pub(super) reader: ClientReader,
    meter: <N::Stream as Stream>::Meter,
}

impl<N: Network> Client<N> {
    pub(super) const fn new(
        address: SocketAddr,
        load: ClientLoad,
        reader: ClientReader,
        meter: <N::Stream as Stream>::Meter,
    ) -> Self {
        Self {
            address,
            load,
            reader,
            meter,
        }
    }

    /// Whether it has closed its connection, also if bytes in front of that are still to be read.
    pub(super) fn is_gone(&self) -> bool {
        self.meter.is_peer_closed()
    }
}
