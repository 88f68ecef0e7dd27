//! What the kernel of one end knows of a connection.

use eddy_runtime::net::Meter;

use super::connection::End;
use super::{ConnectionId, Fabric, Side};

/// What the kernel of one end knows of a connection, for as long as anybody holds it.
#[derive(Clone)]
pub struct SimMeter {
    fabric: Fabric,
    id: ConnectionId,
    side: Side,
}

impl SimMeter {
    pub(super) const fn new(fabric: Fabric, id: ConnectionId, side: Side) -> Self {
        Self { fabric, id, side }
    }
}

impl Meter for SimMeter {
    /// `None` once the connection is gone.
    fn unacknowledged(&self) -> Option<u64> {
        self.fabric.unacknowledged(self.id, self.side)
    }

    fn is_peer_closed(&self) -> bool {
        let state = self.fabric.state();
        let connection = state.connections.get(&self.id);
        connection.is_none_or(|connection| matches!(connection.end(self.side.other()), End::Closed(_)))
    }
}
