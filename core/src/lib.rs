//! The decisions of a reverse tunnel, as values: no sockets, no clock, no entropy, no tokio, no hyper.
//!
//! Everything here is a deterministic state machine or a parser. Time and randomness come in as arguments,
//! effects go out as values, and the same inputs always give the same outputs, so that a test can shrink a
//! failing history and a simulation can replay one.
//!
//! The bytes of one socket: [`handshake`], [`keepalive`]. The initiator: [`address`], [`backoff`], [`dialer`],
//! [`shared_socket`].
//! The responder: [`admission`], [`registry`], [`cache`], [`departures`], [`absences`], [`router`]. Both: [`stats`], [`timings`],
//! [`traceparent`], [`line_limit`]. The values of all timings and limits: [`policy`].

pub mod absences;
pub mod address;
pub mod admission;
pub mod attempts;
pub mod backoff;
pub mod cache;
pub mod close;
pub mod closed;
pub mod departures;
pub mod dialer;
pub mod digest;
pub mod duplicates;
pub mod frame_watch;
pub mod handshake;
pub mod histogram;
pub mod identity;
pub mod initiator;
pub mod instance;
pub mod keepalive;
pub mod line_limit;
pub mod memory;
pub mod phase;
pub mod policy;
pub mod registry;
pub mod responder;
pub mod rng;
pub mod router;
pub mod selection;
pub mod shared_socket;
pub mod stats;
pub mod time;
pub mod timings;
pub mod traceparent;
