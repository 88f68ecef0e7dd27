//! The attempts of one request: which failure permits another one, and which tunnels that one avoids.
//!
//! A failure is the request's alone. Whether a tunnel's *connection* has failed is for the tunnel's owner to say; nothing
//! here, and nothing in [`crate::cache`], removes a tunnel because a request on it has failed.

use std::time::Duration;

use crate::identity::TunnelId;
use crate::router::Refusal;
use crate::time::Instant;

use crate::policy::REFUSED_STREAM_PAUSE as REFUSED_PAUSE;
pub use crate::policy::RETRIES_MAX;

/// Why an attempt has brought no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing was sent: the connection had ended before.
    Unsent,
    /// The connection ended under the request.
    ConnectionLost,
    /// The peer reset the stream with REFUSED_STREAM: it did not process the request (RFC 9113, section 8.7).
    StreamRefused,
    /// The peer reset the stream with any other code.
    StreamReset,
    /// The peer's response violates HTTP/2.
    Protocol,
    /// The client's own body broke off.
    Body,
}

impl Failure {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Unsent,
        Self::ConnectionLost,
        Self::StreamRefused,
        Self::StreamReset,
        Self::Protocol,
        Self::Body,
    ];

    /// What the client is told; nothing if it has gone itself.
    pub const fn refusal(self) -> Option<Refusal> {
        match self {
            Self::Unsent | Self::ConnectionLost => Some(Refusal::TunnelLost),
            Self::StreamRefused => Some(Refusal::StreamRefused),
            Self::StreamReset => Some(Refusal::StreamReset),
            Self::Protocol => Some(Refusal::TunnelProtocol),
            Self::Body => None,
        }
    }
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Choose a tunnel again. It does not count as a retry if nothing was sent.
    Again,
    /// The request ends with this failure.
    GiveUp,
}

/// How often a request may be sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// After its connection was lost, when the service may have processed it.
    pub lost: u32,
    /// After its stream was refused, when nobody has processed it (RFC 9113, section 8.7).
    pub refused: u32,
}

/// The attempts of one request.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    /// Tunnels that the next attempt avoids: those that were lost, and those that have refused the request.
    avoid: Vec<TunnelId>,
    refused: Vec<TunnelId>,
    refusals: u32,
    lost: bool,
    budget: Budget,
    failed: Option<Refusal>,
    began: Instant,
    /// Until when the request waits for the return of its node, once it has begun to.
    waits_until: Option<Instant>,
    /// The last release of a place after which the request still had no place.
    tried_at: Option<u64>,
}

impl Attempts {
    /// Those of a request that came at `began`.
    pub const fn new(began: Instant, budget: Budget) -> Self {
        Self {
            avoid: Vec::new(),
            refused: Vec::new(),
            refusals: 0,
            lost: false,
            budget,
            failed: None,
            began,
            waits_until: None,
            tried_at: None,
        }
    }

    /// When the request came.
    pub const fn began(&self) -> Instant {
        self.began
    }

    /// Whether the request may be sent again after its connection was lost.
    pub const fn survives_loss(&self) -> bool {
        self.budget.lost > 0
    }

    /// Whether the request may be sent again at all after it has left this process, so that a copy must be kept.
    pub const fn may_repeat(&self) -> bool {
        self.budget.lost > 0 || self.budget.refused > 0
    }

    /// The tunnels that the next attempt avoids.
    pub fn avoid(&self) -> &[TunnelId] {
        &self.avoid
    }

    /// Whether a connection has ended under the request, or just before it.
    pub const fn has_lost_a_tunnel(&self) -> bool {
        self.lost
    }

    /// An attempt on a tunnel has failed.
    pub fn on_failed(&mut self, tunnel: TunnelId, failure: Failure) -> Next {
        let budget = match failure {
            Failure::Unsent => {
                self.avoid.push(tunnel);
                self.lost = true;
                return Next::Again;
            }
            Failure::ConnectionLost => {
                self.lost = true;
                &mut self.budget.lost
            }
            Failure::StreamRefused => {
                self.refused.push(tunnel);
                self.refusals += 1;
                &mut self.budget.refused
            }
            // The request itself has failed: on another tunnel it would again.
            Failure::StreamReset | Failure::Protocol | Failure::Body => return Next::GiveUp,
        };
        if *budget == 0 {
            return Next::GiveUp;
        }
        *budget -= 1;
        self.avoid.push(tunnel);
        self.failed = failure.refusal();
        Next::Again
    }

    /// Every tunnel is to be avoided. Returns how long to wait until those that have refused the request may be tried
    /// again; nothing if none has.
    pub fn on_none_left(&mut self) -> Option<Duration> {
        if self.refused.is_empty() {
            return None;
        }
        let refused = std::mem::take(&mut self.refused);
        self.avoid.retain(|tunnel| !refused.contains(tunnel));
        Some(REFUSED_PAUSE * (1 << self.refusals.min(RETRIES_MAX)))
    }

    /// The request has no place after this many releases of places. Returns whether that is new: another request, which
    /// waits behind this one, may fit.
    pub fn on_no_place(&mut self, releases: u64) -> bool {
        self.tried_at.replace(releases) != Some(releases)
    }

    /// Until when the request waits for the return of its node, and whether it begins to wait now. A request that was on a
    /// tunnel which fell silent has used up `grace` already: it waits for half of it.
    pub fn wait_until(&mut self, now: Instant, grace: Duration) -> (Instant, bool) {
        let is_first = self.waits_until.is_none();
        let until = (self.began + grace).max(now + grace / 2);
        (*self.waits_until.get_or_insert(until), is_first)
    }

    /// What the client is told when no tunnel can be chosen: that there was none would deny that the service may have got
    /// the request.
    pub fn refusal(&self, why: Refusal) -> Refusal {
        self.failed.unwrap_or(why)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::identity::WorkerId;

    fn t(serial: u64) -> TunnelId {
        TunnelId {
            named_by: WorkerId(0),
            serial,
        }
    }

    fn of(retries: u32) -> Attempts {
        let budget = Budget {
            lost: retries,
            refused: retries,
        };
        Attempts::new(Instant::ZERO, budget)
    }

    #[test]
    fn a_refused_stream_rests_before_the_same_tunnel_is_tried_again() {
        let mut attempts = of(RETRIES_MAX);
        assert_eq!(attempts.on_none_left(), None);
        assert_eq!(attempts.on_failed(t(1), Failure::StreamRefused), Next::Again);
        assert_eq!(attempts.avoid(), [t(1)]);
        assert_eq!(attempts.on_none_left(), Some(Duration::from_millis(40)));
        assert_eq!(attempts.avoid(), []);
        assert_eq!(attempts.on_none_left(), None);
    }

    #[test]
    fn a_lost_tunnel_stays_avoided() {
        let mut attempts = of(RETRIES_MAX);
        attempts.on_failed(t(1), Failure::ConnectionLost);
        attempts.on_failed(t(2), Failure::StreamRefused);
        attempts.on_none_left();
        assert_eq!(attempts.avoid(), [t(1)]);
        assert!(attempts.has_lost_a_tunnel());
    }

    #[test]
    fn a_request_that_may_not_be_repeated_is_still_sent_again_when_nobody_processed_it() {
        let budget = Budget { lost: 0, refused: 1 };
        let mut attempts = Attempts::new(Instant::ZERO, budget);
        assert!(attempts.may_repeat() && !attempts.survives_loss());
        assert_eq!(attempts.on_failed(t(1), Failure::StreamRefused), Next::Again);
        assert_eq!(attempts.on_failed(t(1), Failure::ConnectionLost), Next::GiveUp);
    }

    #[test]
    fn a_request_that_may_not_be_repeated_ends_with_the_first_failure_after_it_was_sent() {
        let mut attempts = of(0);
        assert_eq!(attempts.on_failed(t(1), Failure::Unsent), Next::Again);
        assert_eq!(attempts.refusal(Refusal::NoTunnel), Refusal::NoTunnel);
        assert_eq!(attempts.on_failed(t(2), Failure::StreamRefused), Next::GiveUp);
    }

    proptest! {
        /// A violation, a reset and a broken body end the request; nothing is sent more often than it may be; and after
        /// something was sent, the client is never told that there was no tunnel.
        #[test]
        fn attempts_are_bounded_and_honest(
            retries in 0..=RETRIES_MAX, failures in prop::collection::vec((1..4u64, select(Failure::ALL.to_vec())), 0..20),
        ) {
            let mut attempts = of(retries);
            let mut sent = 0;
            for (serial, failure) in failures {
                sent += u32::from(failure != Failure::Unsent);
                let next = attempts.on_failed(t(serial), failure);
                let is_final = matches!(failure, Failure::StreamReset | Failure::Protocol | Failure::Body);
                if is_final {
                    prop_assert_eq!(next, Next::GiveUp);
                }
                if next == Next::GiveUp {
                    prop_assert!(is_final || sent > retries);
                    break;
                }
                prop_assert!(sent <= 2 * retries);
                prop_assert!(attempts.avoid().contains(&t(serial)));
                prop_assert_eq!(attempts.refusal(Refusal::NoTunnel) == Refusal::NoTunnel, sent == 0);
            }
        }
    }
}
