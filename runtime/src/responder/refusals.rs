//! The last handshakes that were refused, for who wonders why a node is not there.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use eddy_core::handshake::Refusal;
use eddy_core::identity::Identity;
use eddy_core::time::Instant;

use crate::overview::{Event, PAGE, Wanted};
use crate::report::Calendar;

/// One of them.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) at: Instant,
    pub(super) peer: SocketAddr,
    /// Who it said it was, if it came so far.
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) why: Refusal,
}

impl Refused {
    /// One that does not say who it is may be anybody.
    pub(super) fn is_looked_for(&self, wanted: &Wanted) -> bool {
        self.identity
            .as_ref()
            .is_none_or(|identity| wanted.matches(identity))
    }

    pub(super) fn event(&self, calendar: &Calendar) -> Event {
        let at = calendar.unix_ms(self.at);
        let (reason, meaning) = (self.why.label(), self.why.to_string());
        Event::refused(self.identity.as_deref(), self.peer, reason, meaning, at)
    }
}

/// As many as a page has.
#[derive(Debug, Default)]
pub(super) struct Refusals(VecDeque<Refused>);

impl Refusals {
    pub(super) fn push(&mut self, refused: Refused) {
        if self.0.len() == PAGE {
            self.0.pop_front();
        }
        self.0.push_back(refused);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Refused> {
        self.0.iter()
    }
}
