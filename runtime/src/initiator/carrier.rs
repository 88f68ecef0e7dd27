//! A tunnel as its requests see it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use eddy_core::identity::{Identity, TunnelId};

/// A tunnel as its requests see it.
#[derive(Debug)]
pub(super) struct Carrier {
    pub(super) tunnel: TunnelId,
    pub(super) identity: Arc<Identity>,
    pub(super) host: SocketAddr,
    /// Requests on it now.
    pub(super) streams: Cell<u32>,
}

/// A request that its tunnel carries.
pub(super) struct OnTunnel(pub(super) Rc<Carrier>);

impl OnTunnel {
    pub(super) fn new(carrier: Rc<Carrier>) -> Self {
        let streams = &carrier.streams;
        streams.set(streams.get() + 1);
        Self(carrier)
    }
}

impl Drop for OnTunnel {
    fn drop(&mut self) {
        let streams = &self.0.streams;
        streams.set(streams.get() - 1);
    }
}
