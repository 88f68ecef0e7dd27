//! The handshake of a tunnel (wire.md section 2): one HTTP/1.1 request and its answer, both roles.
//!
//! Parsers are given everything that came so far, each time more came, and answer "more", a value with how
//! many bytes it took, or a verdict. How the bytes were cut never changes the outcome, and whatever they are, twice
//! [`HEAD_BYTES_MAX`] and one byte are enough for one.

mod head;
mod refusal;
pub mod request;
pub mod response;

pub use refusal::{IdKind, Refusal};

pub use crate::policy::{HANDSHAKE_PATH as DEFAULT_PATH, HEAD_BYTES_MAX, HEADERS_MAX};

/// In the response to an Eddy: over how many milliseconds to spread redials once the responder refuses connections. A
/// responder with a large fleet asks for more than the initiator's own `dial.refused_max`.
pub const REDIAL_SPREAD: &str = "x-eddy-redial-spread";

/// How the handshake looks to what is between the two ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A request answered with 200.
    #[default]
    Plain,
    /// An upgrade answered with 101, for proxies that pass upgrades only.
    Upgrade,
}

/// A value, and how many bytes it took. What follows is someone else's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    /// What was read.
    pub value: T,
    /// How many bytes that took.
    pub consumed: usize,
}
