//! What the workers of a process tell each other, and how a copy of the directory is kept right.
//!
//! Between two workers messages keep their order. Only the owner of a tunnel publishes facts about it, so the facts about
//! one tunnel keep their order at every worker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Action, Command, Responder, Unlisted};
use crate::digest::{Digest, Standing};
use crate::duplicates::Superseded;
use crate::identity::{TunnelId, WorkerId};
use crate::registry::{Fact, Introduction};
use crate::time::Instant;

/// A message from one worker to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gossip {
    /// Something happened to a tunnel of the sender.
    Fact(Fact),
    /// A tunnel of the sender has missed a ping, or has returned one since.
    Missing {
        /// The tunnel.
        tunnel: TunnelId,
        /// Whether the last ping is missing.
        missing: bool,
    },
    /// What copies of the sender's tunnels must be.
    Digest(WorkerId, Digest),
    /// The sender's copy of the receiver's tunnels is wrong.
    Resend(WorkerId),
    /// All tunnels of the sender that may be chosen.
    Snapshot(WorkerId, Vec<Listing>),
    /// The sender accepts no more tunnels. For the leader.
    NoMoreTunnels,
    /// Another process has the address for tunnels. From the leader.
    Succeeded,
    /// The clients of the sender are gone: it needs the receiver's tunnels no more.
    ClientsGone,
}

/// A tunnel that may be chosen, as its owner sends it to a worker whose copy of the directory is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The tunnel.
    pub tunnel: TunnelId,
    /// Its introduction.
    pub introduction: Introduction,
    /// Its standing.
    pub standing: Standing,
}

/// A wrong entry in this worker's copy of the directory, now repaired.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bug {
    /// The copy had a tunnel that its owner does not have.
    Surplus(TunnelId, WorkerId),
    /// The copy lacked a tunnel of an owner, or had it in another state.
    Missing(TunnelId, WorkerId),
}

impl Responder {
    /// A message of another worker has arrived.
    pub fn on_gossip(&mut self, now: Instant, gossip: &Gossip) {
        match gossip {
            Gossip::Fact(fact) => self.learn(now, fact),
            Gossip::Missing { tunnel, missing } => self.directory.on_missing(*tunnel, *missing),
            Gossip::Digest(owner, digest) => self.compare(now, *owner, *digest),
            Gossip::Resend(to) => {
                let gossip = Gossip::Snapshot(self.settings.worker, self.listings());
                self.actions.push_back(Action::Send { to: *to, gossip });
            }
            Gossip::Snapshot(owner, listings) => self.repair(now, *owner, listings),
            Gossip::NoMoreTunnels => self.on_no_more_tunnels(),
            Gossip::Succeeded => self.drain.on_successor(),
            Gossip::ClientsGone => self.drain.on_others_clients_gone(),
        }
        // A tunnel of this worker may have been superseded.
        self.publish(now);
        self.advance(now);
    }

    /// Brings the directory in line with a fact.
    pub(super) fn apply(&mut self, now: Instant, fact: &Fact) {
        match fact {
            Fact::Opened {
                tunnel,
                introduction,
                owner,
            } => self.list(now, *tunnel, introduction, *owner),
            // The tunnel still counts for its node id.
            Fact::Leaving { tunnel } => self.directory.on_leaving(*tunnel),
            Fact::MaxStreams { tunnel, streams } => {
                self.directory.on_max_streams(*tunnel, *streams);
                if let Some(identity) = self.directory.identity(*tunnel) {
                    self.actions.push_back(Action::WakeAll(Arc::clone(identity)));
                }
            }
            Fact::Draining { tunnel } | Fact::Closed { tunnel } => {
                self.conflicts.on_closed(*tunnel);
                self.unlist(now, *tunnel);
                if let (Fact::Draining { .. }, Some(unlisted)) = (fact, self.unlisted.get_mut(tunnel)) {
                    unlisted.draining = true;
                }
            }
        }
    }

    fn list(&mut self, now: Instant, tunnel: TunnelId, introduction: &Introduction, owner: WorkerId) {
        let Introduction {
            identity,
            instance,
            heard,
        } = introduction;
        self.directory.insert(tunnel, identity, owner);
        self.actions.push_back(Action::List(tunnel));
        if instance.is_some() {
            self.movers.insert(tunnel);
        }
        if let Some(away) = self.absences.on_opened(now, identity)
            && self.is_leader()
        {
            self.actions.push_back(Action::Recovered(away));
        }
        let opening = self.conflicts.on_opened(tunnel, identity, *instance, *heard);
        if opening.is_duplicate && self.is_leader() {
            self.duplicates_total += 1;
            let action = Action::Duplicate(tunnel, Arc::clone(identity));
            self.actions.push_back(action);
        }
        for (old, why) in opening.superseded {
            self.unlist(now, old);
            if self.registry.get(old).is_some() {
                let command = match why {
                    Superseded::GivenUp => Command::GivenUp,
                    Superseded::Replaced => Command::Replaced,
                };
                self.actions.push_back(Action::Command(old, command));
                // The other workers have unlisted it as well: from now on its owner's digest says the same.
                self.registry.on_draining(now, old);
            }
        }
        self.actions.push_back(Action::WakeAll(Arc::clone(identity)));
    }

    /// Stops choosing a tunnel. Requests that are on it stay counted.
    fn unlist(&mut self, now: Instant, tunnel: TunnelId) {
        self.movers.remove(&tunnel);
        self.actions.push_back(Action::Unlist(tunnel));
        let Some(identity) = self.directory.identity(tunnel).map(Arc::clone) else {
            return;
        };
        self.departures.on_gone(now, &identity);
        self.absences.on_gone(now, &identity);
        let streams = self.directory.streams(tunnel);
        if streams > 0 {
            let unlisted = Unlisted {
                identity: Arc::clone(&identity),
                streams,
                draining: false,
            };
            self.unlisted.insert(tunnel, unlisted);
        }
        self.directory.remove(tunnel);
        if self.waiting.for_place > 0 {
            // Requests that wait for a place on it may have nothing left to wait for.
            self.actions.push_back(Action::WakeAll(identity));
        }
    }

    /// Sends this worker's digest to the others, and compares its own copy with it.
    pub(super) fn send_digest(&mut self, now: Instant) {
        let (owner, digest) = (self.settings.worker, self.registry.digest());
        self.actions
            .push_back(Action::Publish(Gossip::Digest(owner, digest)));
        self.compare(now, owner, digest);
    }

    fn compare(&mut self, now: Instant, owner: WorkerId, digest: Digest) {
        let copy = self.directory.digest(owner);
        let comparison = self.comparisons.entry(owner).or_default();
        if !comparison.on_digest(digest, copy) {
            return;
        }
        if owner == self.settings.worker {
            self.repair(now, owner, &self.listings());
        } else {
            let gossip = Gossip::Resend(self.settings.worker);
            self.actions.push_back(Action::Send { to: owner, gossip });
        }
    }

    fn listings(&self) -> Vec<Listing> {
        let listing = |(tunnel, entry): (TunnelId, &crate::registry::Tunnel)| {
            Some(Listing {
                tunnel,
                introduction: entry.introduction(),
                standing: entry.standing()?,
            })
        };
        self.registry.tunnels().filter_map(listing).collect()
    }

    /// Brings this worker's copy of a worker's tunnels in line with the truth.
    fn repair(&mut self, now: Instant, owner: WorkerId, listings: &[Listing]) {
        let copied: BTreeMap<_, _> = self.directory.owned_by(owner).collect();
        let listed: BTreeSet<_> = listings.iter().map(|listing| listing.tunnel).collect();
        for tunnel in copied.keys().filter(|tunnel| !listed.contains(tunnel)) {
            self.report_bug(Bug::Surplus(*tunnel, owner));
            self.learn(now, &Fact::Closed { tunnel: *tunnel });
        }
        for listing in listings {
            let tunnel = listing.tunnel;
            let copy = copied.get(&tunnel);
            if copy == Some(&listing.standing) {
                continue;
            }
            self.report_bug(Bug::Missing(tunnel, owner));
            if copy.is_some() {
                self.learn(now, &Fact::Closed { tunnel });
            }
            let introduction = listing.introduction.clone();
            self.learn(
                now,
                &Fact::Opened {
                    tunnel,
                    introduction,
                    owner,
                },
            );
            if listing.standing.leaving {
                self.learn(now, &Fact::Leaving { tunnel });
            }
            if let Some(streams) = listing.standing.max_streams {
                self.learn(now, &Fact::MaxStreams { tunnel, streams });
            }
        }
    }

    /// A fact about a tunnel has arrived, from its owner or in its owner's name.
    fn learn(&mut self, now: Instant, fact: &Fact) {
        self.registry.on_fact(fact);
        self.apply(now, fact);
    }

    fn report_bug(&mut self, bug: Bug) {
        self.repaired_total += 1;
        self.actions.push_back(Action::Bug(bug));
    }
}
