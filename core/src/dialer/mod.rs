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
//! Draining begins with a GOAWAY, whose sender says when the tunnel goes; with the end of the host or the process; or with
//! somebody's wish for another one, and then the tunnel goes once that is up.
//!
//! Redial is driven by events: there is no maintenance tick. A draining tunnel no longer counts; its replacement is
//! dialed at once, unless the tunnels before it were short-lived too: a responder that accepts and hangs up, or
//! accepts and says GOAWAY, is not hammered. Dials beyond `max_dials` wait for a permit in the order in which they
//! became due.

mod slot;
mod transitions;
mod value;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::backoff::Pace;
use crate::close::CloseReason;
use crate::identity::ClusterName;
use crate::rng::Rng;
use crate::time::{Deadline, Instant};

pub use slot::Slot;
use slot::{Place, State};
use transitions::pace_after;
pub use value::{Action, DialFailure, DialerPolicy, HostView, Target, share};

/// How long a tunnel may drain whose end is another's to say: the responder's after its goodbye, or the replacement's that is to
/// come first. A bound against what is forgotten; whether the tunnel is dead, its keepalive says.
const OTHERS_DECIDE_FOR: Duration = Duration::from_secs(3600);

/// So many failures in a row, while another host of the cluster has a tunnel, are the mark of an address that is out of
/// date: it is then tried rarely. At the default pace they take half a minute of refusals, or ten minutes of silence.
const OUT_OF_DATE_AFTER: u32 = 120;
/// The longest spread that a responder is believed.
const SPREAD_MAX: Duration = Duration::from_secs(5);

type HostKey = (ClusterName, SocketAddr);

#[derive(Clone, Debug, Default)]
struct Host {
    /// Whether its cluster names it. If not, it stays until its last tunnel has drained.
    listed: bool,
    wanted: u32,
    failures: BTreeMap<&'static str, u64>,
    last_failure: Option<&'static str>,
    /// The last dial got no response at all: one dial at a time finds out when that changes.
    silent: bool,
    /// Over how long its responder has asked to spread redials.
    spread: Duration,
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
    next_index: u32,
    draining: bool,
    /// The latest time that a caller told: time that goes back is ignored.
    seen: Instant,
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
            next_index: 0,
            draining: false,
            seen: Instant::ZERO,
        }
    }

    /// The hosts of a cluster are these, with this worker's share of each. Of those that vanished, dials are
    /// aborted and tunnels drained; those that appeared are dialed. A host that is named twice has the larger
    /// share.
    pub fn on_targets(&mut self, now: Instant, cluster: &ClusterName, targets: &[Target]) {
        self.see(now);
        if self.draining {
            return;
        }
        let mut wanted = BTreeMap::<SocketAddr, u32>::new();
        for target in targets {
            let count = wanted.entry(target.host).or_default();
            *count = target.count.max(*count);
        }
        let gone = self
            .hosts
            .keys()
            .filter(|(c, host)| c == cluster && !wanted.contains_key(host));
        for key in gone.cloned().collect::<Vec<_>>() {
            self.want(&key, false, 0);
        }
        for (host, count) in wanted {
            self.want(&(cluster.clone(), host), true, count);
        }
        self.dial_due();
    }

    /// A dial has its connection; the handshake is under way.
    pub fn on_connected(&mut self, now: Instant, slot: Slot) {
        self.see(now);
        if let Some(place) = self.slots.get_mut(&slot)
            && let State::Connecting { overlap_at, .. } = &mut place.state
        {
            *overlap_at = None;
            self.drop_overlap(slot);
        }
    }

    /// The handshake was accepted; the responder may have asked to spread redials over some time.
    pub fn on_established(&mut self, now: Instant, slot: Slot, spread: Option<Duration>) {
        self.see(now);
        if let Some(place) = self.slots.get_mut(&slot)
            && let State::Connecting { backoff, .. } = place.state
        {
            place.state = State::Established {
                since: self.seen,
                backoff,
            };
            if let Some(host) = self.hosts.get_mut(&place.host) {
                host.silent = false;
                host.spread = spread.unwrap_or_default().min(SPREAD_MAX);
            }
            self.drop_overlap(slot);
            self.let_go_replaced(slot.index());
            self.dial_due();
        }
    }

    /// The dial came to nothing.
    pub fn on_failed(&mut self, now: Instant, slot: Slot, why: &DialFailure) {
        self.see(now);
        self.end(slot, |dialer, place, backoff| {
            dialer.count_failure(&place.host, why);
            dialer.back_off(slot, place, backoff, why.pace());
        });
    }

    /// The peer drains a tunnel: its replacement is dialed at once, unless the tunnel and what came before it
    /// did not last. When the tunnel goes is for the peer to say.
    pub fn on_goaway(&mut self, now: Instant, slot: Slot) {
        self.see(now);
        self.replace(slot);
    }

    /// Somebody wants a tunnel replaced: it goes once its replacement is up.
    pub fn renew(&mut self, now: Instant, slot: Slot) {
        self.see(now);
        let replacement = self.replace(slot);
        if let Some(place) = self.slots.get_mut(&slot)
            && let State::Draining { until_up, .. } = &mut place.state
        {
            *until_up = replacement.or(*until_up);
        }
    }

    /// A tunnel is gone.
    pub fn on_closed(&mut self, now: Instant, slot: Slot, why: CloseReason) {
        self.see(now);
        self.end(slot, |dialer, place, backoff| {
            // Who accepts and hangs up is there, but not well: it is not asked as often as who refuses.
            let mut pace = pace_after(why);
            if pace == Pace::Refused && backoff.attempts() > 0 {
                pace = Pace::Silent;
            }
            dialer.back_off(slot, place, backoff, pace);
        });
    }

    /// The process ends: dial no more, and let what runs finish.
    pub fn drain(&mut self, now: Instant) {
        self.see(now);
        if std::mem::replace(&mut self.draining, true) {
            return;
        }
        let ends = self.seen + self.policy.drain_timeout;
        for (slot, place) in &mut self.slots {
            if let State::Draining { deadline, until_up } = &mut place.state {
                *deadline = ends.min(*deadline);
                *until_up = None;
                self.actions.push_back(Action::Drain { slot: *slot });
            }
        }
        for (key, listed) in self
            .hosts
            .iter()
            .map(|(k, h)| (k.clone(), h.listed))
            .collect::<Vec<_>>()
        {
            self.want(&key, listed, 0);
        }
    }

    /// Whether a drain has come to its end.
    pub fn is_drained(&self) -> bool {
        self.draining && self.slots.is_empty() && self.actions.is_empty()
    }

    /// A deadline may have passed. Early calls have no effect, late ones fire each timer once.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.see(now);
        let timers = self
            .slots
            .iter()
            .filter_map(|(slot, place)| Some((place.deadline()?.at, *slot)));
        let mut due: Vec<_> = timers.filter(|(at, _)| *at <= self.seen).collect();
        due.sort();
        for (_, slot) in due {
            self.fire(slot);
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
                last_failure: host.last_failure,
                next_attempt: None,
            };
            for place in self.slots.values().filter(|place| place.host == *key) {
                match place.state {
                    State::Backoff { until, .. } => {
                        view.backing_off += 1;
                        view.next_attempt = Some(view.next_attempt.map_or(until, |at| at.min(until)));
                    }
                    State::Waiting { since, .. } => {
                        view.backing_off += 1;
                        view.next_attempt = Some(view.next_attempt.map_or(since, |at| at.min(since)));
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
}

#[cfg(test)]
mod tests;
