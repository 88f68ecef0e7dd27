//! What the kernel of one end knows of a connection, and what it can be told.

use eddy_runtime::net::Meter;

use super::connection::End;
use super::stream::SimStream;
use super::{ConnectionId, Fabric, Side};

/// What the kernel of one end knows of a connection, for as long as anybody holds it.
#[derive(Clone)]
pub struct SimMeter {
    fabric: Fabric,
    id: ConnectionId,
    side: Side,
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

impl SimStream {
    /// Has the send buffer take at most so many bytes that have not been sent, as `TCP_NOTSENT_LOWAT` does. Without a limit
    /// it takes as many as the window of the path.
    pub fn limit_unsent_to(&self, bytes: u32) {
        let mut state = self.fabric.state();
        if let Some(connection) = state.connections.get_mut(&self.id) {
            connection.flow(self.side).unsent_max = Some(bytes.into());
        }
    }

    /// The account of this end's kernel; it stays valid while another owner has the stream.
    pub fn account_of_kernel(&self) -> SimMeter {
        SimMeter {
            fabric: self.fabric.clone(),
            id: self.id,
            side: self.side,
        }
    }
}
