//! What the events of a dialer do to its places.

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::slot::{Place, Slot, State};
use super::value::{Action, DialFailure};
use super::{Dialer, HostKey, OTHERS_DECIDE_FOR, OUT_OF_DATE_AFTER};
use crate::backoff::{Backoff, FLOOR, Pace};
use crate::close::CloseReason;
use crate::rng::Rng;
use crate::time::Instant;

impl Dialer {
    pub(super) fn see(&mut self, now: Instant) {
        self.seen = self.seen.max(now);
    }

    /// Sets how many tunnels a host is to have, makes those that it lacks, and lets go of the surplus.
    pub(super) fn want(&mut self, key: &HostKey, listed: bool, count: u32) {
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
    pub(super) fn forget(&mut self, key: &HostKey) {
        if self.hosts.get(key).is_some_and(|host| !host.listed)
            && !self.slots.values().any(|place| place.host == *key)
        {
            self.hosts.remove(key);
        }
    }

    pub(super) fn let_go(&mut self, slot: Slot) {
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
    pub(super) fn drop_overlap(&mut self, slot: Slot) {
        self.actions
            .retain(|action| !matches!(action, Action::Overlap { slot: dialed } if *dialed == slot));
    }

    /// Drops a dial; one that nobody has polled yet never happens.
    pub(super) fn abort(&mut self, slot: Slot, timed_out: bool) {
        self.drop_overlap(slot);
        let before = self.actions.len();
        self.actions
            .retain(|action| !matches!(action, Action::Dial { slot: dialed, .. } if *dialed == slot));
        if self.actions.len() == before {
            self.actions.push_back(Action::Abort { slot, timed_out });
        }
    }

    pub(super) fn fire(&mut self, slot: Slot) {
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
    pub(super) fn end(&mut self, slot: Slot, redial: impl FnOnce(&mut Self, Place, Backoff)) {
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
    pub(super) fn settled(&self, since: Instant, mut backoff: Backoff) -> Backoff {
        if self.lasted(since) {
            backoff.reset();
        }
        backoff
    }

    /// Whether a tunnel proves its host good. Where the policy asks for nothing, it must at least outlive the
    /// shortest wait: its replacement is dialed without one.
    pub(super) fn lasted(&self, since: Instant) -> bool {
        self.seen - since >= self.policy.stable_after.max(FLOOR)
    }

    pub(super) fn count_failure(&mut self, host: &HostKey, why: &DialFailure) {
        if let Some(host) = self.hosts.get_mut(host) {
            host.silent = why.pace() == Pace::Silent;
            *host.failures.entry(why.label()).or_default() += 1;
            host.last_failure = Some(why.label());
        }
    }

    /// Puts a place back under a new handle: what the old one may still say means nobody.
    pub(super) fn back_off(&mut self, slot: Slot, place: Place, mut backoff: Backoff, pace: Pace) {
        let often = backoff.attempts() >= OUT_OF_DATE_AFTER;
        let absent = matches!(pace, Pace::Refused | Pace::Silent);
        let pace = if absent && often && self.connected(&place.host.0) > 0 {
            Pace::OutOfDate
        } else {
            pace
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
    pub(super) fn replace(&mut self, slot: Slot) -> Option<u32> {
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
    pub(super) fn let_go_replaced(&mut self, by: u32) {
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
    pub(super) fn wait(&mut self, host: HostKey, backoff: Backoff) -> Slot {
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

    pub(super) const fn new_slot(&mut self) -> Slot {
        let slot = Slot::first(self.next_index);
        self.next_index = self.next_index.wrapping_add(1);
        slot
    }

    /// Dials what is due, as far as the permits go; of a silent host one at a time.
    pub(super) fn dial_due(&mut self) {
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
pub(super) const fn pace_after(why: CloseReason) -> Pace {
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
