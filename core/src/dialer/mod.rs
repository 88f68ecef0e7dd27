//! The initiator's machine, one per worker and `rc://` address: keeps its share of tunnels open to every host of
//! the upstream cluster, while hosts come and go.
//!
//! ```text
//!              ┌───────────────────────── failed, timed out, closed ─────────────────┐
//!              ▼                                                                      │
//!   new ──▶ Backoff ──due──▶ Waiting ──permit──▶ Connecting ──established──▶ Established
//!                                                                                     │ goaway, host gone, drain
//!                                                                                     ▼
//!                                                                                 Draining ──closed──▶ gone
//! ```
//!
//! Redial is driven by events: there is no maintenance tick. A draining tunnel no longer counts; its replacement is
//! dialed at once.

mod slot;

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::backoff::{Backoff, BackoffPolicy, Pace};
use crate::close::CloseReason;
use crate::identity::{ClusterName, WorkerId};
use crate::rng::Rng;
use crate::time::{Deadline, Instant};

pub use slot::Slot;
use slot::{Place, State};

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
    /// A tunnel that lived this long proves the host good: the backoff begins anew.
    pub stable_after: Duration,
    /// For what runs on a tunnel that drains.
    pub drain_timeout: Duration,
}

impl Default for DialerPolicy {
    fn default() -> Self {
        Self {
            backoff: BackoffPolicy::default(),
            max_dials: 16,
            dial_timeout: Duration::from_secs(5),
            stable_after: Duration::from_secs(5),
            drain_timeout: Duration::from_secs(10),
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
            Self::Rejected { .. } => "rejected",
            Self::Protocol => "protocol",
        }
    }

    /// The reason in one word, with the responder's status.
    pub fn reason(&self) -> &str {
        if let Self::Rejected { reason, .. } = self {
            reason
        } else {
            self.label()
        }
    }

    const fn pace(&self) -> Pace {
        match self {
            Self::Refused => Pace::Refused,
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
    /// Drop a dial in flight.
    Abort {
        /// Of this slot.
        slot: Slot,
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
    /// When the next dial is due.
    pub next_attempt: Option<Instant>,
}

type HostKey = (ClusterName, SocketAddr);

#[derive(Clone, Debug, Default)]
struct Host {
    wanted: u32,
    failures: BTreeMap<&'static str, u64>,
}

/// Keeps tunnels.
#[derive(Clone, Debug)]
pub struct Dialer {
    policy: DialerPolicy,
    rng: Rng,
    hosts: BTreeMap<HostKey, Host>,
    slots: BTreeMap<Slot, Place>,
    /// Slots whose dial is due, in the order in which it became so.
    queue: VecDeque<Slot>,
    actions: VecDeque<Action>,
    next_slot: u64,
    draining: bool,
    seen: Instant,
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

impl Dialer {
    /// A dialer that knows no host yet.
    pub const fn new(policy: DialerPolicy, rng: Rng) -> Self {
        Self {
            policy,
            rng,
            hosts: BTreeMap::new(),
            slots: BTreeMap::new(),
            queue: VecDeque::new(),
            actions: VecDeque::new(),
            next_slot: 0,
            draining: false,
            seen: Instant::ZERO,
        }
    }

    /// The hosts of a cluster are these, with this worker's share of each. Of those that vanished, dials are
    /// aborted and tunnels drained; those that appeared are dialed.
    pub fn on_targets(&mut self, now: Instant, cluster: &ClusterName, targets: &[Target]) {
        self.see(now);
        if self.draining {
            return;
        }
        let listed = |host: &SocketAddr| targets.iter().any(|t| t.host == *host);
        let gone: Vec<_> = self
            .hosts
            .keys()
            .filter(|(c, host)| c == cluster && !listed(host))
            .cloned()
            .collect();
        for key in gone {
            self.want(now, &key, 0);
            self.hosts.remove(&key);
        }
        for target in targets {
            let key = (cluster.clone(), target.host);
            self.hosts.entry(key.clone()).or_default();
            self.want(now, &key, target.count);
        }
        self.dial_due();
    }

    /// The handshake was accepted.
    pub fn on_established(&mut self, now: Instant, slot: Slot) {
        self.see(now);
        if let Some(place) = self.slots.get_mut(&slot)
            && let State::Connecting { backoff, .. } = place.state
        {
            place.state = State::Established { since: now, backoff };
            self.dial_due();
        }
    }

    /// The dial came to nothing.
    pub fn on_failed(&mut self, now: Instant, slot: Slot, why: &DialFailure) {
        self.see(now);
        let Some(place) = self.slots.get(&slot) else {
            return;
        };
        if let State::Connecting { backoff, .. } = place.state {
            let host = place.host.clone();
            self.fail(now, slot, &host, backoff, why);
            self.dial_due();
        }
    }

    /// The peer drains a tunnel: its replacement is dialed at once.
    pub fn on_goaway(&mut self, now: Instant, slot: Slot) {
        self.see(now);
        if let Some(place) = self.slots.get_mut(&slot)
            && matches!(place.state, State::Established { .. })
        {
            place.state = State::Draining {
                deadline: now + self.policy.drain_timeout,
            };
            let host = place.host.clone();
            self.fill(now, &host);
            self.dial_due();
        }
    }

    /// A tunnel is gone.
    pub fn on_closed(&mut self, now: Instant, slot: Slot, _why: CloseReason) {
        self.see(now);
        let Some(place) = self.slots.get_mut(&slot) else {
            return;
        };
        match place.state {
            State::Established { since, mut backoff } => {
                if now - since >= self.policy.stable_after {
                    backoff.reset();
                }
                let delay = backoff.delay(&self.policy.backoff, Pace::Refused, &mut self.rng);
                place.state = State::Backoff {
                    until: now + delay,
                    backoff,
                };
            }
            State::Draining { .. } => {
                self.slots.remove(&slot);
            }
            State::Backoff { .. } | State::Waiting { .. } | State::Connecting { .. } => {}
        }
    }

    /// The process ends: dial no more, and let what runs finish.
    pub fn drain(&mut self, now: Instant) {
        self.see(now);
        self.draining = true;
        let hosts: Vec<_> = self.hosts.keys().cloned().collect();
        for key in hosts {
            self.want(now, &key, 0);
        }
    }

    /// Whether a drain has come to its end.
    pub fn is_drained(&self) -> bool {
        self.draining && self.slots.is_empty() && self.actions.is_empty()
    }

    /// A deadline may have passed. Early calls have no effect, late ones fire each timer once.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.see(now);
        let due: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, p)| p.deadline().is_some_and(|d| d.at <= now))
            .map(|(s, _)| *s)
            .collect();
        for slot in due {
            self.fire(now, slot);
        }
        self.dial_due();
    }

    /// The next thing to do, in order.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to call [`Dialer::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Deadline> {
        if !self.actions.is_empty() {
            return Some(Deadline {
                at: self.seen,
                reason: "actions queued",
            });
        }
        self.slots
            .values()
            .map(Place::deadline)
            .fold(None, Deadline::earlier)
    }

    /// Each host.
    pub fn hosts(&self) -> impl Iterator<Item = HostView<'_>> {
        self.hosts.iter().map(|(key, host)| {
            let mut view = HostView {
                cluster: &key.0,
                host: key.1,
                connected: 0,
                connecting: 0,
                backing_off: 0,
                draining: 0,
                failures: &host.failures,
                next_attempt: None,
            };
            for place in self.slots.values().filter(|place| place.host == *key) {
                match place.state {
                    State::Backoff { until, .. } => {
                        view.backing_off += 1;
                        view.next_attempt = Some(view.next_attempt.map_or(until, |at| at.min(until)));
                    }
                    State::Waiting { .. } => {
                        view.backing_off += 1;
                        view.next_attempt = Some(self.seen);
                    }
                    State::Connecting { .. } => view.connecting += 1,
                    State::Established { .. } => view.connected += 1,
                    State::Draining { .. } => view.draining += 1,
                }
            }
            view
        })
    }

    /// How many tunnels to a cluster are up.
    pub fn connected(&self, cluster: &ClusterName) -> u32 {
        let up = self
            .slots
            .values()
            .filter(|p| matches!(p.state, State::Established { .. }));
        u32::try_from(up.filter(|p| p.host.0 == *cluster).count()).unwrap_or(u32::MAX)
    }

    fn see(&mut self, now: Instant) {
        self.seen = self.seen.max(now);
    }

    /// Sets how many tunnels a host is to have.
    fn want(&mut self, now: Instant, key: &HostKey, count: u32) {
        if let Some(host) = self.hosts.get_mut(key) {
            host.wanted = count;
        }
        self.fill(now, key);
        self.trim(now, key);
    }

    /// Makes slots for the tunnels that a host lacks.
    fn fill(&mut self, now: Instant, key: &HostKey) {
        let wanted = if self.draining {
            0
        } else {
            self.hosts.get(key).map_or(0, |host| host.wanted)
        };
        let have = self
            .slots
            .values()
            .filter(|p| p.host == *key && p.counts())
            .count();
        for _ in have..usize::try_from(wanted).unwrap_or(usize::MAX) {
            let slot = Slot(self.next_slot);
            self.next_slot += 1;
            let state = State::Waiting {
                since: now,
                backoff: Backoff::new(),
            };
            self.slots.insert(
                slot,
                Place {
                    host: key.clone(),
                    state,
                },
            );
            self.queue.push_back(slot);
        }
    }

    /// Lets go of the tunnels that a host has too many, those furthest from being up first.
    fn trim(&mut self, now: Instant, key: &HostKey) {
        let wanted = self.hosts.get(key).map_or(0, |host| host.wanted);
        let mut counted: Vec<_> = self
            .slots
            .iter()
            .filter(|(_, p)| p.host == *key && p.counts())
            .map(|(s, p)| (p.rank(), *s))
            .collect();
        counted.sort();
        let surplus = counted
            .len()
            .saturating_sub(usize::try_from(wanted).unwrap_or(usize::MAX));
        for (_, slot) in counted.into_iter().take(surplus) {
            self.let_go(now, slot);
        }
    }

    fn let_go(&mut self, now: Instant, slot: Slot) {
        let Some(place) = self.slots.get_mut(&slot) else {
            return;
        };
        match place.state {
            State::Backoff { .. } | State::Waiting { .. } => {
                self.slots.remove(&slot);
                self.queue.retain(|queued| *queued != slot);
            }
            State::Connecting { .. } => {
                self.slots.remove(&slot);
                self.actions.push_back(Action::Abort { slot });
            }
            State::Established { .. } => {
                place.state = State::Draining {
                    deadline: now + self.policy.drain_timeout,
                };
                self.actions.push_back(Action::Drain { slot });
            }
            State::Draining { .. } => {}
        }
    }

    fn fire(&mut self, now: Instant, slot: Slot) {
        let Some(place) = self.slots.get_mut(&slot) else {
            return;
        };
        match place.state {
            State::Backoff { backoff, .. } => {
                place.state = State::Waiting { since: now, backoff };
                self.queue.push_back(slot);
            }
            State::Connecting { backoff, .. } => {
                let host = place.host.clone();
                self.actions.push_back(Action::Abort { slot });
                // The aborted dial may still report: under a new handle it means nobody.
                let renewed = Slot(self.next_slot);
                self.next_slot += 1;
                if let Some(place) = self.slots.remove(&slot) {
                    self.slots.insert(renewed, place);
                }
                self.fail(now, renewed, &host, backoff, &DialFailure::TimedOut);
            }
            State::Draining { .. } => {
                self.slots.remove(&slot);
                self.actions.push_back(Action::Close { slot });
            }
            State::Waiting { .. } | State::Established { .. } => {}
        }
    }

    fn fail(&mut self, now: Instant, slot: Slot, host: &HostKey, mut backoff: Backoff, why: &DialFailure) {
        if let Some(host) = self.hosts.get_mut(host) {
            *host.failures.entry(why.label()).or_default() += 1;
        }
        let delay = backoff.delay(&self.policy.backoff, why.pace(), &mut self.rng);
        if let Some(place) = self.slots.get_mut(&slot) {
            place.state = State::Backoff {
                until: now + delay,
                backoff,
            };
        }
    }

    /// Dials what is due, as far as the permits go.
    fn dial_due(&mut self) {
        let connecting = self
            .slots
            .values()
            .filter(|p| matches!(p.state, State::Connecting { .. }))
            .count();
        let permits = usize::try_from(self.policy.max_dials)
            .unwrap_or(usize::MAX)
            .saturating_sub(connecting);
        for _ in 0..permits {
            let Some(slot) = self.queue.pop_front() else {
                return;
            };
            let Some(place) = self.slots.get_mut(&slot) else {
                continue;
            };
            if let State::Waiting { backoff, .. } = place.state {
                place.state = State::Connecting {
                    deadline: self.seen + self.policy.dial_timeout,
                    backoff,
                };
                let (cluster, host) = place.host.clone();
                self.actions.push_back(Action::Dial { slot, cluster, host });
            }
        }
    }
}

#[cfg(test)]
mod tests;
