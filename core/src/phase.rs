//! Where a tunnel is in its life, as operators see it.

use crate::registry::State;

/// Where a tunnel is in its life, as operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It has carried nothing yet.
    Idle,
    /// It carries HTTP/2.
    Active,
    /// No new requests are to come; those in flight finish.
    Draining,
}

impl Phase {
    /// The phase in one word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::Draining => "draining",
        }
    }
}

impl From<State> for Phase {
    fn from(state: State) -> Self {
        match state {
            State::Idle => Self::Idle,
            State::Active => Self::Active,
            State::Leaving | State::Draining => Self::Draining,
        }
    }
}
