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
mod value;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::backoff::{Backoff, FLOOR, Pace};
use crate::close::CloseReason;
use crate::identity::ClusterName;
use crate::rng::Rng;
use crate::time::{Deadline, Instant};

pub use slot::Slot;
use slot::{Place, State};
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
            let pace = match pace_after(why) {
                Pace::Refused if backoff.attempts() > 0 => Pace::Silent,
                pace => pace,
            };
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

    fn see(&mut self, now: Instant) {
        self.seen = self.seen.max(now);
    }

    /// Sets how many tunnels a host is to have, makes those that it lacks, and lets go of the surplus.
    fn want(&mut self, key: &HostKey, listed: bool, count: u32) {
        let host = self.hosts.entry(key.clone()).or_default();
        (host.listed, host.wanted) = (listed, count);
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let counted = self.slots.iter().filter(|(_, p)| p.host == *key && p.counts());
        let mut counted: Vec<_> = counted
            .map(|(slot, place)| (place.rank(), Reverse(*slot)))
            .collect();
        for _ in counted.len()..wanted {
            self.wait(key.clone(), Backoff::new());
        }
        counted.sort();
        let surplus = counted.len().saturating_sub(wanted);
        for (_, Reverse(slot)) in counted.into_iter().take(surplus) {
            self.let_go(slot);
        }
        self.forget(key);
    }

    /// Forgets a host that is no longer named and has nothing left.
    fn forget(&mut self, key: &HostKey) {
        if self.hosts.get(key).is_some_and(|host| !host.listed)
            && !self.slots.values().any(|place| place.host == *key)
        {
            self.hosts.remove(key);
        }
    }

    fn let_go(&mut self, slot: Slot) {
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
                self.abort(slot, false);
            }
            State::Established { .. } => {
                place.state = State::Draining {
                    deadline: self.seen + self.policy.drain_timeout,
                    until_up: None,
                };
                self.actions.push_back(Action::Drain { slot });
            }
            State::Draining { .. } => {}
        }
    }

    /// Drops an overlapping connect that nobody has polled yet.
    fn drop_overlap(&mut self, slot: Slot) {
        self.actions
            .retain(|action| !matches!(action, Action::Overlap { slot: dialed } if *dialed == slot));
    }

    /// Drops a dial; one that nobody has polled yet never happens.
    fn abort(&mut self, slot: Slot, timed_out: bool) {
        self.drop_overlap(slot);
        let before = self.actions.len();
        self.actions
            .retain(|action| !matches!(action, Action::Dial { slot: dialed, .. } if *dialed == slot));
        if self.actions.len() == before {
            self.actions.push_back(Action::Abort { slot, timed_out });
        }
    }

    fn fire(&mut self, slot: Slot) {
        let Some(place) = self.slots.remove(&slot) else {
            return;
        };
        match place.state {
            State::Backoff { backoff, .. } => {
                let state = State::Waiting {
                    since: self.seen,
                    backoff,
                };
                self.slots.insert(slot, Place { state, ..place });
                self.queue.push_back(slot);
            }
            State::Connecting {
                deadline,
                overlap_at: Some(at),
                backoff,
            } if self.seen < deadline => {
                let state = State::Connecting {
                    deadline,
                    overlap_at: Some(at.max(self.seen) + jittered(self.policy.overlap, &mut self.rng)),
                    backoff,
                };
                self.slots.insert(slot, Place { state, ..place });
                self.actions.push_back(Action::Overlap { slot });
            }
            State::Connecting { backoff, .. } => {
                self.abort(slot, true);
                self.count_failure(&place.host, &DialFailure::TimedOut);
                self.back_off(slot, place, backoff, DialFailure::TimedOut.pace());
            }
            State::Draining {
                until_up: Some(_), ..
            } => {
                // Its replacement has not come: it goes all the same, but not its requests.
                let state = State::Draining {
                    deadline: self.seen + self.policy.drain_timeout,
                    until_up: None,
                };
                self.slots.insert(slot, Place { state, ..place });
                self.actions.push_back(Action::Drain { slot });
            }
            State::Draining { .. } => {
                self.actions.push_back(Action::Close { slot });
                self.forget(&place.host);
            }
            State::Waiting { .. } | State::Established { .. } => {
                self.slots.insert(slot, place);
            }
        }
    }

    /// What a dial or a tunnel leaves when it ends, whichever way the driver calls it: nothing if it drained, else
    /// what `redial` makes of its place.
    fn end(&mut self, slot: Slot, redial: impl FnOnce(&mut Self, Place, Backoff)) {
        let Some(place) = self.slots.remove(&slot) else {
            return;
        };
        match place.state {
            State::Connecting { backoff, .. } => {
                self.drop_overlap(slot);
                redial(self, place, backoff);
            }
            State::Established { since, backoff } => {
                let backoff = self.settled(since, backoff);
                redial(self, place, backoff);
            }
            State::Draining { .. } => self.forget(&place.host),
            State::Backoff { .. } | State::Waiting { .. } => {
                self.slots.insert(slot, place);
            }
        }
        self.dial_due();
    }

    /// The failures before a tunnel, which count no longer if it lasted.
    fn settled(&self, since: Instant, mut backoff: Backoff) -> Backoff {
        if self.lasted(since) {
            backoff.reset();
        }
        backoff
    }

    /// Whether a tunnel proves its host good. Where the policy asks for nothing, it must at least outlive the
    /// shortest wait: its replacement is dialed without one.
    fn lasted(&self, since: Instant) -> bool {
        self.seen - since >= self.policy.stable_after.max(FLOOR)
    }

    fn count_failure(&mut self, host: &HostKey, why: &DialFailure) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.silent = why.pace() == Pace::Silent;
            *host.failures.entry(why.label()).or_default() += 1;
            host.last_failure = Some(why.label());
        }
    }

    /// Puts a place back under a new handle: what the old one may still say means nobody.
    fn back_off(&mut self, slot: Slot, place: Place, mut backoff: Backoff, pace: Pace) {
        let often = backoff.attempts() >= OUT_OF_DATE_AFTER;
        let pace = match pace {
            Pace::Refused | Pace::Silent if often && self.connected(&place.host.0) > 0 => Pace::OutOfDate,
            pace => pace,
        };
        let mut policy = self.policy.backoff;
        if let Some(host) = self.hosts.get(&place.host) {
            policy.refused_max = policy.refused_max.max(host.spread);
        }
        let delay = backoff.delay(&policy, pace, &mut self.rng);
        let state = State::Backoff {
            until: self.seen + delay,
            backoff,
        };
        self.slots
            .insert(slot.next_generation(), Place { state, ..place });
    }

    /// Makes a tunnel that is up one that drains, and a place for another; says the index of that. Only the second of
    /// two that did not last waits.
    fn replace(&mut self, slot: Slot) -> Option<u32> {
        let deadline = self.seen + OTHERS_DECIDE_FOR.max(self.policy.drain_timeout);
        let place = self.slots.get_mut(&slot)?;
        let State::Established { since, backoff } = place.state else {
            return None;
        };
        place.state = State::Draining {
            deadline,
            until_up: None,
        };
        let host = place.host.clone();
        let mut backoff = self.settled(since, backoff);
        let proven = self.lasted(since);
        let first = backoff.attempts() == 0;
        let delay = (!proven).then(|| backoff.delay(&self.policy.backoff, Pace::Silent, &mut self.rng));
        let replacement = match delay.filter(|_| !first) {
            None => self.wait(host, backoff),
            Some(delay) => {
                let slot = self.new_slot();
                let until = self.seen + delay;
                let state = State::Backoff { until, backoff };
                self.slots.insert(slot, Place { host, state });
                slot
            }
        };
        self.dial_due();
        Some(replacement.index())
    }

    /// Lets the tunnels go whose replacement is up.
    fn let_go_replaced(&mut self, by: u32) {
        for (slot, place) in &mut self.slots {
            if let State::Draining { deadline, until_up } = &mut place.state
                && *until_up == Some(by)
            {
                *deadline = self.seen + self.policy.drain_timeout;
                *until_up = None;
                self.actions.push_back(Action::Drain { slot: *slot });
            }
        }
    }

    /// Makes a place whose dial is due.
    fn wait(&mut self, host: HostKey, backoff: Backoff) -> Slot {
        let slot = self.new_slot();
        self.slots.insert(
            slot,
            Place {
                host,
                state: State::Waiting {
                    since: self.seen,
                    backoff,
                },
            },
        );
        self.queue.push_back(slot);
        slot
    }

    const fn new_slot(&mut self) -> Slot {
        let slot = Slot::first(self.next_index);
        self.next_index = self.next_index.wrapping_add(1);
        slot
    }

    /// Dials what is due, as far as the permits go; of a silent host one at a time.
    fn dial_due(&mut self) {
        let mut connecting: BTreeSet<HostKey> = BTreeSet::new();
        let mut in_flight = 0;
        for place in self.slots.values() {
            if let State::Connecting { .. } = place.state {
                connecting.insert(place.host.clone());
                in_flight += 1;
            }
        }
        let permits = usize::try_from(self.policy.max_dials).unwrap_or(usize::MAX);
        let mut held = VecDeque::new();
        while in_flight < permits {
            let Some(slot) = self.queue.pop_front() else { break };
            let Some(place) = self.slots.get_mut(&slot) else {
                continue;
            };
            let State::Waiting { backoff, .. } = place.state else {
                continue;
            };
            let overlap_at = self.seen + jittered(self.policy.overlap, &mut self.rng);
            let silent = self.hosts.get(&place.host).is_some_and(|host| host.silent);
            if silent && connecting.contains(&place.host) {
                held.push_back(slot);
                continue;
            }
            place.state = State::Connecting {
                deadline: self.seen + self.policy.dial_timeout,
                overlap_at: Some(overlap_at),
                backoff,
            };
            in_flight += 1;
            connecting.insert(place.host.clone());
            let (cluster, host) = place.host.clone();
            self.actions.push_back(Action::Dial { slot, cluster, host });
        }
        held.append(&mut self.queue);
        self.queue = held;
    }
}

/// Half of it to all of it, so that a fleet that lost its link at one instant does not come back in step.
fn jittered(longest: Duration, rng: &mut Rng) -> Duration {
    rng.between(longest / 2, longest)
}

/// What the end of a tunnel says about its host: one that fell silent may be gone.
const fn pace_after(why: CloseReason) -> Pace {
    match why {
        CloseReason::PeerClosed
        | CloseReason::PeerReset
        | CloseReason::GoAway
        | CloseReason::Drained
        | CloseReason::HostGone
        | CloseReason::Superseded
        | CloseReason::Shutdown => Pace::Refused,
        CloseReason::PingTimeout | CloseReason::Silent | CloseReason::HttpPing => Pace::Silent,
        CloseReason::UnexpectedBytes | CloseReason::HttpError => Pace::Rejected { retry_after: None },
    }
}

#[cfg(test)]
mod tests;
