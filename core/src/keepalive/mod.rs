//! RPING, the keepalive of an idle tunnel (wire.md section 3): the responder pings, the initiator echoes.
//!
//! ```text
//!   responder (Pinger)                initiator (Echoer)
//!        │ ───────── RPING ─────────────▶ │   alone in its segment, one at a time
//!        │ ◀──────── RPING ────────────── │   alone in its segment
//!        │            …                   │
//!        │ ───────── PRI * HTTP/2.0 … ──▶ │   hand-off: no RPING in either direction from here on
//! ```

pub mod echoer;
mod http_start;
pub mod liveness;
pub mod pinger;

pub use echoer::{EchoAction, Echoer, SilencePolicy};
pub use liveness::{Liveness, LivenessAction, LivenessPolicy};
pub use pinger::{PingAction, PingPolicy, Pinger};

/// The whole ping, and the whole echo. Case matters, and nothing ends it.
pub const PING: &[u8; 5] = b"RPING";
