//! Admission of connections on the tunnel port: which connections may wait for their handshake, for how long, and
//! which one is closed when there are too many.
//!
//! A connection is *silent* until its first byte arrives. An honest initiator sends its whole request at once, so a
//! silent connection is the cheapest one to lose:
//!
//! ```text
//!   on_accept ──▶ silent ── on_bytes ──▶ in its head ── on_end ──▶ removed
//!                   │ first_byte            │ handshake
//!                   ▼                       ▼
//!               timed out               timed out        (both counted from the accept)
//!
//!   source at its share   ──▶ evict its oldest silent connection, otherwise its oldest one
//!   table full            ──▶ evict the oldest silent connection, otherwise the oldest one of the largest source
//! ```
//!
//! A new connection is always admitted; an older one makes room for it. The table is bounded by
//! [`Limits::pending_max`], and every operation takes O(log n).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::time::{Deadline, Instant};

/// The limits of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many connections may be pending; at least one is.
    pub pending_max: usize,
    /// How many of them may come from one source; at least one may.
    pub per_source_max: usize,
    /// How long a connection may take from its accept to its first byte; never longer than `handshake`.
    pub first_byte: Duration,
    /// How long a connection may take from its accept to its complete request.
    pub handshake: Duration,
}

/// The peers that share one limit: an IPv4 address, or the /64 network of an IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// One IPv4 address, also when it is mapped into IPv6.
    V4(Ipv4Addr),
    /// The upper 64 bits of an IPv6 address: hosts usually control a whole /64 network.
    V6(u64),
}

impl From<IpAddr> for Source {
    fn from(addr: IpAddr) -> Self {
        match addr.to_canonical() {
            IpAddr::V4(addr) => Self::V4(addr),
            IpAddr::V6(addr) => {
                let [a, b, c, d, ..] = addr.segments();
                let network = [a, b, c, d].map(u64::from);
                Self::V6(network.into_iter().fold(0, |bits, segment| bits << 16 | segment))
            }
        }
    }
}

/// Names one pending connection. Tickets are never reused, and a later ticket is of a later connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Why a pending connection was closed in favor of a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Eviction {
    /// The table was full.
    TableFull,
    /// The source had its share of the table.
    SourceShare,
}

impl Eviction {
    /// The reason in one word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::TableFull => "evicted",
            Self::SourceShare => "source_share",
        }
    }

    /// What happened, for logs.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::TableFull => {
                "a newer connection needed its place: the table of pending handshakes was full"
            }
            Self::SourceShare => {
                "a newer connection needed its place: its source had its share of the pending handshakes"
            }
        }
    }
}

/// A connection to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// Which connection.
    pub ticket: Ticket,
    /// Why it has to go.
    pub why: Eviction,
}

/// The outcome of [`Admission::on_accept`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The new connection.
    pub ticket: Ticket,
    /// The connection that makes room for it, if one has to. It is no longer in the table.
    pub evicted: Option<Evicted>,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    source: Source,
    accepted: Instant,
}

/// The connections of one source, never empty.
#[derive(Clone, Debug, Default)]
struct PerSource {
    all: BTreeSet<Ticket>,
    silent: BTreeSet<Ticket>,
}

impl PerSource {
    /// The position among the sources: larger sources last, and of equally large ones the one with the oldest
    /// connection last.
    fn rank(&self, source: Source) -> Option<Rank> {
        Some((self.all.len(), Reverse(*self.all.first()?), source))
    }
}

type Rank = (usize, Reverse<Ticket>, Source);

/// The pending connections of one worker.
#[derive(Clone, Debug)]
pub struct Admission {
    limits: Limits,
    pending: BTreeMap<Ticket, Pending>,
    silent: BTreeSet<Ticket>,
    sources: BTreeMap<Source, PerSource>,
    ranks: BTreeSet<Rank>,
    next: u64,
    /// The latest time seen: a `now` that goes backwards is ignored.
    now: Instant,
}

impl Admission {
    /// An empty table.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits: Limits {
                pending_max: limits.pending_max.max(1),
                per_source_max: limits.per_source_max.max(1),
                first_byte: limits.first_byte.min(limits.handshake),
                handshake: limits.handshake,
            },
            pending: BTreeMap::new(),
            silent: BTreeSet::new(),
            sources: BTreeMap::new(),
            ranks: BTreeSet::new(),
            next: 0,
            now: Instant::ZERO,
        }
    }

    /// A connection was accepted. It is admitted; the caller closes the evicted one.
    pub fn on_accept(&mut self, now: Instant, source: Source) -> Admitted {
        self.now = self.now.max(now);
        let evicted = self.victim(source);
        if let Some(evicted) = evicted {
            self.on_end(evicted.ticket);
        }
        let ticket = Ticket(self.next);
        self.next += 1;
        let accepted = self.now;
        self.pending.insert(ticket, Pending { source, accepted });
        self.silent.insert(ticket);
        self.change(source, |own| {
            own.all.insert(ticket);
            own.silent.insert(ticket);
        });
        Admitted { ticket, evicted }
    }

    /// The first bytes of a connection have arrived. Has no effect for later bytes and for a stale ticket.
    pub fn on_bytes(&mut self, ticket: Ticket) {
        if !self.silent.remove(&ticket) {
            return;
        }
        if let Some(pending) = self.pending.get(&ticket) {
            self.change(pending.source, |own| {
                own.silent.remove(&ticket);
            });
        }
    }

    /// A connection is no longer pending: its handshake has an outcome. Has no effect for a stale ticket.
    pub fn on_end(&mut self, ticket: Ticket) {
        let Some(pending) = self.pending.remove(&ticket) else {
            return;
        };
        self.silent.remove(&ticket);
        self.change(pending.source, |own| {
            own.all.remove(&ticket);
            own.silent.remove(&ticket);
        });
    }

    /// When a connection has to be closed unless more of it has arrived; `None` for a stale ticket.
    pub fn deadline(&self, ticket: Ticket) -> Option<Deadline> {
        let accepted = self.pending.get(&ticket)?.accepted;
        let (limit, reason) = if self.silent.contains(&ticket) {
            (self.limits.first_byte, "first byte")
        } else {
            (self.limits.handshake, "handshake")
        };
        let at = accepted + limit;
        Some(Deadline { at, reason })
    }

    /// How many connections are pending.
    pub fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether no connection is pending.
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The connection that makes room for one from `source`, if one has to.
    fn victim(&self, source: Source) -> Option<Evicted> {
        let own = self.sources.get(&source);
        if let Some(own) = own.filter(|own| own.all.len() >= self.limits.per_source_max) {
            let ticket = *own.silent.first().or_else(|| own.all.first())?;
            let why = Eviction::SourceShare;
            return Some(Evicted { ticket, why });
        }
        if self.pending.len() < self.limits.pending_max {
            return None;
        }
        let ticket = match self.silent.first() {
            Some(oldest) => *oldest,
            None => self.ranks.last()?.1.0,
        };
        let why = Eviction::TableFull;
        Some(Evicted { ticket, why })
    }

    /// Changes the connections of a source and moves the source to its new position.
    fn change(&mut self, source: Source, change: impl FnOnce(&mut PerSource)) {
        let own = self.sources.entry(source).or_default();
        if let Some(rank) = own.rank(source) {
            self.ranks.remove(&rank);
        }
        change(own);
        match own.rank(source) {
            Some(rank) => {
                self.ranks.insert(rank);
            }
            None => {
                self.sources.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests;
