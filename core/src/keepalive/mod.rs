//! RPING, the keepalive of an idle tunnel (wire.md section 3): the responder pings, the initiator echoes.

mod echoer;
mod pinger;

pub use echoer::{EchoAction, Echoer, SilencePolicy};
pub use pinger::{PingAction, PingPolicy, Pinger};

/// The whole ping, and the whole echo. Case matters, and nothing ends it.
pub const PING: &[u8; 5] = b"RPING";
