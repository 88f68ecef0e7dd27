//! What goes into a dialer and what comes out, and how the tunnels of a process are shared by its workers.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::slot::Slot;
use crate::backoff::{BackoffPolicy, Pace};
use crate::identity::{ClusterName, WorkerId};
use crate::policy;
use crate::time::Instant;

/// A host, and how many tunnels to keep to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its address.
    pub host: SocketAddr,
    /// This worker's share.
    pub count: u32,
}

/// How to dial.
#[derive(Clone, Copy, Debug)]
pub struct DialerPolicy {
    /// How long to wait after a failure.
    pub backoff: BackoffPolicy,
    /// Dials in flight at once.
    pub max_dials: u32,
    /// For the connect and the handshake together.
    pub dial_timeout: Duration,
    /// After so long without a connection, or up to half of it less, another connect starts beside those in flight, again
    /// and again: a link that heals is tried at once, and not when the kernel sends its SYN again (after 1, 3, 7 s).
    pub overlap: Duration,
    /// A tunnel that lived this long, and no less than the shortest wait, proves the host good: the backoff begins
    /// anew.
    pub stable_after: Duration,
    /// For what runs on a tunnel that drains.
    pub drain_timeout: Duration,
}

impl Default for DialerPolicy {
    fn default() -> Self {
        Self {
            backoff: BackoffPolicy::default(),
            max_dials: policy::MAX_DIALS,
            dial_timeout: policy::DIAL_TIMEOUT,
            overlap: policy::DIAL_OVERLAP,
            stable_after: policy::STABLE_AFTER,
            drain_timeout: policy::DRAIN_TIMEOUT,
        }
    }
}

/// Why a dial failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DialFailure {
    /// Nobody listens, or the connection was closed before the answer.
    Refused,
    /// Nothing came in `dial_timeout`. The dialer sees this itself.
    TimedOut,
    /// There is no way to the host.
    Unreachable,
    /// The responder said no.
    Rejected {
        /// What it said, as one word (`http.403`).
        reason: String,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// Another process has the node id, and may leave it any moment.
    Taken,
    /// The answer is none.
    Protocol,
}

impl DialFailure {
    /// The kind in one word.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::TimedOut => "timeout",
            Self::Unreachable => "unreachable",
            Self::Rejected { .. } | Self::Taken => "rejected",
            Self::Protocol => "protocol",
        }
    }

    /// Those that are no answer of a responder.
    pub const WITHOUT_STATUS: [Self; 4] = [Self::Refused, Self::TimedOut, Self::Unreachable, Self::Protocol];

    /// The reason in one word, with the responder's status.
    pub fn reason(&self) -> &str {
        match self {
            Self::Rejected { reason, .. } => reason,
            Self::Taken => "http.409",
            Self::Refused | Self::TimedOut | Self::Unreachable | Self::Protocol => self.label(),
        }
    }

    pub(super) const fn pace(&self) -> Pace {
        match self {
            Self::Refused | Self::Taken => Pace::Refused,
            Self::TimedOut | Self::Unreachable => Pace::Silent,
            Self::Rejected { retry_after, .. } => Pace::Rejected {
                retry_after: *retry_after,
            },
            Self::Protocol => Pace::Rejected { retry_after: None },
        }
    }
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect and shake hands.
    Dial {
        /// For this slot.
        slot: Slot,
        /// To a host of this cluster.
        cluster: ClusterName,
        /// At this address.
        host: SocketAddr,
    },
    /// Start another connect of a dial beside those in flight; the first that gets a connection is the dial's.
    Overlap {
        /// Of this slot.
        slot: Slot,
    },
    /// Drop a dial in flight.
    Abort {
        /// Of this slot.
        slot: Slot,
        /// Whether it took too long; otherwise nobody wants it any more.
        timed_out: bool,
    },
    /// Let what runs on a tunnel finish, then close it.
    Drain {
        /// Of this slot.
        slot: Slot,
    },
    /// Close a tunnel whose drain took too long.
    Close {
        /// Of this slot.
        slot: Slot,
    },
}

/// A host as the admin sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostView<'a> {
    /// Its cluster.
    pub cluster: &'a ClusterName,
    /// Its address.
    pub host: SocketAddr,
    /// Tunnels that are up.
    pub connected: u32,
    /// Dials in flight.
    pub connecting: u32,
    /// Tunnels that wait for their next dial.
    pub backing_off: u32,
    /// Tunnels that drain.
    pub draining: u32,
    /// Failures since the host appeared, by kind.
    pub failures: &'a BTreeMap<&'static str, u64>,
    /// The last failure.
    pub last_failure: Option<&'static str>,
    /// When the next dial is due.
    pub next_attempt: Option<Instant>,
}

/// How many of `count` tunnels to `host` this worker keeps.
///
/// The process's count is spread over its workers, beginning at one that follows from the host's address (FNV-1a),
/// so that hosts with one tunnel do not all land on worker 0. With `per_worker` every worker keeps `count`.
pub fn share(count: u32, workers: u16, worker: WorkerId, host: SocketAddr, per_worker: bool) -> u32 {
    if per_worker || workers <= 1 {
        return count;
    }
    let workers = u32::from(workers);
    let fnv = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    let hash = match host.ip() {
        IpAddr::V4(ip) => ip.octets().iter().fold(0x811c_9dc5, fnv),
        IpAddr::V6(ip) => ip.octets().iter().fold(0x811c_9dc5, fnv),
    };
    let hash = host.port().to_be_bytes().iter().fold(hash, fnv);
    let place = (u32::from(worker.0) + workers - hash % workers) % workers;
    count / workers + u32::from(place < count % workers)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::Ipv4Addr;

    use super::*;

    fn host(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 9_000))
    }

    #[test]
    fn labels_are_distinct_and_a_rejection_names_itself() {
        let rejected = DialFailure::Rejected {
            reason: "http.403".into(),
            retry_after: None,
        };
        assert_eq!((rejected.label(), rejected.reason()), ("rejected", "http.403"));
        let all = [
            DialFailure::Refused,
            DialFailure::TimedOut,
            DialFailure::Unreachable,
            DialFailure::Protocol,
            rejected,
        ];
        let labels: BTreeSet<_> = all.iter().map(DialFailure::label).collect();
        assert_eq!(labels.len(), all.len());
    }

    #[test]
    fn the_shares_of_all_workers_add_up_and_are_even() {
        for workers in 1..=16u16 {
            for count in 0..40 {
                let shares: Vec<_> = (0..workers)
                    .map(|w| share(count, workers, WorkerId(w), host(1), false))
                    .collect();
                assert_eq!(shares.iter().sum::<u32>(), count);
                assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1);
            }
        }
        assert_eq!(share(3, 1, WorkerId(0), host(9), false), 3);
        assert_eq!(share(3, 4, WorkerId(2), host(9), true), 3);
    }

    /// By FNV-1a of the address and the port, in network order.
    #[test]
    fn the_first_worker_follows_from_the_host_s_address() {
        let one = |workers| (0..workers).find(|w| share(1, workers, WorkerId(*w), host(1), false) == 1);
        let hash = [10, 0, 0, 1, 0x23, 0x28]
            .iter()
            .fold(0x811c_9dc5_u32, |hash, byte| {
                (hash ^ byte).wrapping_mul(0x0100_0193)
            });
        for workers in 2..=16 {
            assert_eq!(
                one(workers).map(u32::from),
                Some(hash % u32::from(workers)),
                "{hash:#x}"
            );
        }
    }

    #[test]
    fn hosts_with_one_tunnel_spread_over_the_workers() {
        for (stride, workers) in [(1, 2), (1, 4), (2, 2), (4, 4), (4, 8), (1, 3), (8, 16)] {
            let mut per_worker = vec![0; usize::from(workers)];
            for n in 0..1_024u32 {
                let ip = Ipv4Addr::from(0x0a00_0000 + n * stride);
                let one =
                    |w: &u16| share(1, workers, WorkerId(*w), SocketAddr::from((ip, 9_000)), false) == 1;
                per_worker[usize::from((0..workers).find(one).unwrap())] += 1;
            }
            let even = 1_024 / usize::from(workers);
            let fair = even / 2..=even * 2;
            assert!(
                per_worker.iter().all(|n| fair.contains(n)),
                "every {stride}th host: {per_worker:?}"
            );
        }
    }
}
