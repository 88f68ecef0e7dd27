//! This worker's copy of the directory: kept in line with the facts of all workers, and compared with their digests.

use std::sync::Arc;

use eddy_core::cache::Ended;
use eddy_core::digest::{self, Digest};
use eddy_core::duplicates::Superseded;
use eddy_core::identity::{Identity, TunnelId, WorkerId};
use eddy_core::instance::Instance;
use eddy_core::registry::{Action, Fact, Registry};
use eddy_core::time::Instant;
use eddy_core::timings::Timing;

use super::{Introduction, Link, Listing, Message, Orphans, Sender, Worker, YOUNG_FOR};
use crate::http::counters::increase;
use crate::net::Network;

impl<N: Network> Worker<N> {
    /// Brings the directory in line with a fact.
    pub(super) fn note(&self, fact: &Fact, introduction: Option<Introduction>) {
        match fact {
            Fact::Opened {
                tunnel,
                identity,
                owner,
            } => {
                if let Some(Introduction {
                    claims,
                    instance,
                    heard,
                }) = introduction
                {
                    self.links.borrow_mut().insert(*tunnel, Link::Parked(claims));
                    self.cache.borrow_mut().insert(*tunnel, identity, *owner);
                    if instance.is_some() {
                        self.movers.borrow_mut().insert(*tunnel);
                    }
                    if self.tells_for_all()
                        && let Some(away) = self.absences.borrow_mut().on_opened(self.clock.now(), identity)
                    {
                        self.timings.borrow_mut().record(Timing::Recovery, away);
                    }
                    self.compare(*tunnel, identity, instance, heard);
                    self.waiting.on_arrived(identity);
                    self.places.on_arrived(identity);
                }
            }
            // It still has its node id.
            Fact::Leaving { tunnel } => self.cache.borrow_mut().on_leaving(*tunnel),
            Fact::MaxStreams { tunnel, streams } => {
                let mut cache = self.cache.borrow_mut();
                cache.on_max_streams(*tunnel, *streams);
                if let Some(identity) = cache.identity(*tunnel) {
                    self.places.on_arrived(identity);
                }
            }
            Fact::Draining { tunnel } | Fact::Closed { tunnel } => {
                self.duplicates.borrow_mut().on_closed(*tunnel);
                self.remove(*tunnel);
                if let (Fact::Draining { .. }, Some(orphans)) =
                    (fact, self.orphans.borrow_mut().get_mut(tunnel))
                {
                    orphans.draining = true;
                }
            }
        }
    }

    /// Looks what a new tunnel means for others of its node.
    pub(super) fn compare(
        &self,
        tunnel: TunnelId,
        identity: &Identity,
        instance: Option<Instance>,
        heard: Instant,
    ) {
        let opening = self
            .duplicates
            .borrow_mut()
            .on_opened(tunnel, identity, instance, heard);
        if opening.is_duplicate && self.tells_for_all() {
            increase(&self.duplicates_seen);
            tracing::warn!(%tunnel, node = identity.node.as_str(), tenant = identity.tenant.as_str(),
                "another process has a tunnel under this node id");
        }
        for (old, why) in opening.superseded {
            self.remove(old);
            if let Some(guest) = self.guests.borrow().get(&old) {
                match why {
                    Superseded::GivenUp => guest.orders.given_up.set(),
                    Superseded::Replaced => guest.orders.replaced.set(),
                }
            }
        }
    }

    /// How many requests of this worker are on the tunnels of an identity.
    pub(super) fn requests_of(&self, identity: &Identity) -> u32 {
        let orphans = self.orphans.borrow();
        let orphans = orphans.values().filter(|orphans| *orphans.identity == *identity);
        let left: u32 = orphans.map(|orphans| orphans.streams).sum();
        self.cache.borrow().requests(identity) + left
    }

    /// A request has ended whose tunnel may have left the directory.
    pub(super) fn release(&self, tunnel: TunnelId, how: Ended) {
        {
            let mut cache = self.cache.borrow_mut();
            cache.release(tunnel, how);
            if let Some(identity) = cache.identity(tunnel) {
                self.places.on_place(identity);
            }
        }
        let mut orphans = self.orphans.borrow_mut();
        if let Some(left) = orphans.get_mut(&tunnel) {
            left.streams -= 1;
            if left.streams == 0 {
                orphans.remove(&tunnel);
            }
        }
    }

    /// Stops choosing a tunnel.
    pub(super) fn remove(&self, tunnel: TunnelId) {
        let mut cache = self.cache.borrow_mut();
        if let Some(identity) = cache.identity(tunnel) {
            self.departures.borrow_mut().on_gone(self.clock.now(), identity);
            if self.tells_for_all() {
                self.absences.borrow_mut().on_gone(self.clock.now(), identity);
            }
            let streams = cache.streams(tunnel);
            if streams > 0 {
                let orphans = Orphans {
                    identity: Arc::clone(identity),
                    streams,
                    draining: false,
                };
                self.orphans.borrow_mut().insert(tunnel, orphans);
            }
        }
        cache.remove(tunnel);
        self.links.borrow_mut().remove(&tunnel);
        self.movers.borrow_mut().remove(&tunnel);
        self.left.notify_waiters();
    }

    /// Whether a tunnel on which this worker has requests is drained by one of its ends.
    pub(super) fn is_draining(&self, tunnel: TunnelId) -> bool {
        let orphans = self.orphans.borrow();
        orphans.get(&tunnel).is_some_and(|orphans| orphans.draining)
    }

    /// Whether the initiator of a tunnel of this worker is an Eddy.
    pub(super) fn is_from_eddy(&self, tunnel: TunnelId) -> bool {
        let guests = self.guests.borrow();
        guests
            .get(&tunnel)
            .is_some_and(|guest| guest.introduction.instance.is_some())
    }

    /// All workers hear of every tunnel: one of them counts what is to be counted once.
    pub(super) fn tells_for_all(&self) -> bool {
        self.id == WorkerId(0)
    }

    /// Counts how long something took that began then.
    pub(super) fn time(&self, what: Timing, began: Instant) {
        let took = self.clock.now() - began;
        self.timings.borrow_mut().record(what, took);
    }

    /// Whether the process began so lately that its initiators may not be here yet.
    pub(super) fn is_young(&self) -> bool {
        self.clock.now() - self.began < YOUNG_FOR
    }

    pub(super) fn note_serving(&self, tunnel: TunnelId, sender: Sender) {
        if let Some(link) = self.links.borrow_mut().get_mut(&tunnel) {
            *link = Link::Serving(sender);
        }
    }

    pub(super) fn note_missing(&self, tunnel: TunnelId, missing: bool) {
        self.cache.borrow_mut().on_missing(tunnel, missing);
        self.tell_others(|| Message::Missing(tunnel, missing));
    }

    pub(super) fn tell_others(&self, message: impl Fn() -> Message<N>) {
        for other in self.others.iter().flatten() {
            // A worker that is gone needs no news.
            let _ = other.send(message());
        }
    }

    /// Lets the registry know of something, and everyone else of what follows.
    pub(super) fn tell_registry(&self, tell: impl FnOnce(&mut Registry, Instant)) {
        self.tell_registry_of(tell, None);
    }

    pub(super) fn tell_registry_of(
        &self,
        tell: impl FnOnce(&mut Registry, Instant),
        introduction: Option<&Introduction>,
    ) {
        tell(&mut self.registry.borrow_mut(), self.clock.now());
        while let Some(Action::Publish(fact)) = self.next_action() {
            self.note(&fact, introduction.cloned());
            self.tell_others(|| Message::Fact(fact.clone(), introduction.cloned()));
        }
    }

    pub(super) fn next_action(&self) -> Option<Action> {
        self.registry.borrow_mut().poll_action()
    }

    /// Sends this worker's digest to the others, again and again, and compares its own copy with it.
    pub(super) async fn compare_copies(&self) {
        loop {
            tokio::time::sleep(digest::EVERY).await;
            let digest = self.registry.borrow().digest();
            self.tell_others(|| Message::Digest(self.id, digest));
            self.compare_copy(self.id, digest);
        }
    }

    /// Asks for a snapshot if this worker's copy of another one's tunnels is wrong.
    pub(super) fn compare_copy(&self, owner: WorkerId, digest: Digest) {
        let copy = self.cache.borrow().digest(owner);
        let mut comparisons = self.comparisons.borrow_mut();
        if !comparisons.entry(owner).or_default().on_digest(digest, copy) {
            return;
        }
        drop(comparisons);
        match self.others.get(usize::from(owner.0)).and_then(Option::as_ref) {
            // A worker that is gone has no tunnels.
            Some(owner) => _ = owner.send(Message::Resend(self.id)),
            None => self.repair_copy(owner, self.listings()),
        }
    }

    pub(super) fn send_snapshot(&self, to: WorkerId) {
        if let Some(to) = self.others.get(usize::from(to.0)).and_then(Option::as_ref) {
            // A worker that is gone has no copy.
            let _ = to.send(Message::Snapshot(self.id, self.listings()));
        }
    }

    /// The tunnels of this worker that may be chosen.
    fn listings(&self) -> Vec<Listing> {
        let (registry, guests) = (self.registry.borrow(), self.guests.borrow());
        let listing = |(tunnel, entry): (TunnelId, &eddy_core::registry::Tunnel)| {
            Some(Listing {
                tunnel,
                identity: Arc::clone(&entry.identity),
                standing: entry.standing()?,
                introduction: guests.get(&tunnel)?.introduction.clone(),
            })
        };
        registry.tunnels().filter_map(listing).collect()
    }

    /// Brings this worker's copy of a worker's tunnels in line with the truth.
    pub(super) fn repair_copy(&self, owner: WorkerId, listings: Vec<Listing>) {
        let is_listed = |tunnel: &TunnelId| listings.iter().any(|listing| listing.tunnel == *tunnel);
        let copied: Vec<_> = self.cache.borrow().owned_by(owner).collect();
        let surplus: Vec<_> = copied.iter().filter(|(tunnel, _)| !is_listed(tunnel)).collect();
        let mut repaired = surplus.len();
        for (tunnel, _) in surplus {
            tracing::error!(%tunnel, %owner, worker = %self.id,
                "bug: this worker's directory has a tunnel that its owner does not have; removed");
            self.remove(*tunnel);
        }
        for listing in listings {
            let Listing {
                tunnel,
                identity,
                standing,
                introduction,
            } = listing;
            let copy = copied.iter().find(|(copied, _)| *copied == tunnel);
            if copy.is_some_and(|(_, copy)| *copy == standing) {
                continue;
            }
            tracing::error!(%tunnel, node = identity.node.as_str(), %owner, worker = %self.id,
                "bug: this worker's directory lacks a tunnel, or its state, that its owner has; added");
            repaired += 1;
            if copy.is_none() {
                let opened = Fact::Opened {
                    tunnel,
                    identity,
                    owner,
                };
                self.note(&opened, Some(introduction));
            }
            if standing.leaving {
                self.note(&Fact::Leaving { tunnel }, None);
            }
            if let Some(streams) = standing.max_streams {
                self.note(&Fact::MaxStreams { tunnel, streams }, None);
            }
        }
        let total = self.directory_repaired.get() + repaired as u64;
        self.directory_repaired.set(total);
    }
}
