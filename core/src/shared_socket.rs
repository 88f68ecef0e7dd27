//! Recognizes a responder that reads a tunnel's socket twice: Envoy 1.36 to 1.39 without `auto_close_connections: true`.
//!
//! Such an Envoy keeps the handshake connection reading after it has handed the socket to the tunnel, so two readers compete
//! for the initiator's bytes. Idle tunnels stay up; under concurrent requests, HTTP/2 breaks shortly after it has begun. The
//! sign is therefore several tunnels of one host that break HTTP/2 within moments of their upgrade.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::close::CloseReason;
use crate::time::Instant;

pub use crate::policy::{
    SHARED_SOCKET_ADVICE_INTERVAL as ADVICE_INTERVAL, SHARED_SOCKET_BREAKS_MIN as BREAKS_MIN,
    SHARED_SOCKET_EARLY as EARLY, SHARED_SOCKET_HOSTS_MAX as HOSTS_MAX, SHARED_SOCKET_PERIOD as PERIOD,
};

/// What is remembered of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Host {
    /// The last early breaks, the oldest first, at most [`BREAKS_MIN`].
    breaks: Vec<Instant>,
    advised: Option<Instant>,
}

/// The early breaks of the tunnels of one initiator.
#[derive(Clone, Debug, Default)]
pub struct SharedSocketWatch {
    hosts: BTreeMap<SocketAddr, Host>,
}

impl SharedSocketWatch {
    /// No tunnel has ended yet.
    pub const fn new() -> Self {
        Self {
            hosts: BTreeMap::new(),
        }
    }

    /// Whether the end of a tunnel that became HTTP/2 at `upgraded` counts.
    pub fn is_early_break(now: Instant, upgraded: Instant, why: CloseReason) -> bool {
        let is_protocol_error = match why {
            CloseReason::HttpError | CloseReason::UnexpectedBytes => true,
            CloseReason::PeerClosed
            | CloseReason::PeerReset
            | CloseReason::PingTimeout
            | CloseReason::Silent
            | CloseReason::HttpPing
            | CloseReason::GoAway
            | CloseReason::Drained
            | CloseReason::HostGone
            | CloseReason::Superseded
            | CloseReason::Shutdown => false,
        };
        is_protocol_error && now - upgraded <= EARLY
    }

    /// Registers an early break. Returns whether to advise on the host's configuration.
    pub fn on_early_break(&mut self, now: Instant, host: SocketAddr) -> bool {
        self.forget(now);
        if self.hosts.len() == HOSTS_MAX && !self.hosts.contains_key(&host) {
            return false;
        }
        let host = self.hosts.entry(host).or_default();
        if host.breaks.len() == BREAKS_MIN {
            host.breaks.remove(0);
        }
        host.breaks.push(now);
        let is_shared = host.breaks.len() == BREAKS_MIN && now - host.breaks[0] <= PERIOD;
        let may_advise = host.advised.is_none_or(|at| now - at >= ADVICE_INTERVAL);
        if is_shared && may_advise {
            host.advised = Some(now);
        }
        is_shared && may_advise
    }

    /// Forgets hosts without recent breaks or advice.
    fn forget(&mut self, now: Instant) {
        self.hosts.retain(|_, host| {
            host.breaks.last().is_some_and(|last| now - *last <= PERIOD)
                || host.advised.is_some_and(|at| now - at < ADVICE_INTERVAL)
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(seconds))
    }

    fn host(port: u16) -> SocketAddr {
        ([192, 0, 2, 1], port).into()
    }

    #[test]
    fn protocol_errors_soon_after_the_upgrade_count() {
        for why in CloseReason::ALL {
            let counts = matches!(why, CloseReason::HttpError | CloseReason::UnexpectedBytes);
            assert_eq!(
                SharedSocketWatch::is_early_break(at(15), at(10), why),
                counts,
                "{why:?}"
            );
            assert!(!SharedSocketWatch::is_early_break(at(16), at(10), why), "{why:?}");
        }
    }

    #[test]
    fn several_breaks_of_one_host_lead_to_advice_once_per_hour() {
        let mut watch = SharedSocketWatch::new();
        assert!(!watch.on_early_break(at(0), host(1)));
        assert!(!watch.on_early_break(at(0), host(1)));
        assert!(!watch.on_early_break(at(1), host(2)), "another host");
        assert!(watch.on_early_break(at(60), host(1)));
        for second in 61..3_660 {
            assert!(!watch.on_early_break(at(second), host(1)), "{second}");
        }
        assert!(watch.on_early_break(at(3_660), host(1)));
    }

    #[test]
    fn rare_breaks_lead_to_nothing() {
        let mut watch = SharedSocketWatch::new();
        for minute in 0..100 {
            assert!(!watch.on_early_break(at(31 * minute), host(1)));
        }
        assert!(!watch.on_early_break(at(10_000), host(2)));
        assert_eq!(watch.hosts.len(), 1, "the first host is forgotten");
    }

    #[test]
    fn the_number_of_hosts_is_bounded() {
        let mut watch = SharedSocketWatch::new();
        for port in 0..2 * HOSTS_MAX {
            assert!(!watch.on_early_break(at(0), host(u16::try_from(port).unwrap())));
        }
        assert_eq!(watch.hosts.len(), HOSTS_MAX);
        assert!(!watch.on_early_break(at(1), host(0)));
        assert!(watch.on_early_break(at(2), host(0)), "known hosts still count");
        assert!(!watch.on_early_break(at(100), host(u16::MAX)));
        assert_eq!(watch.hosts.len(), 2, "with advice, and with a break");
    }
}
