//! What the status page shows: a page of identities with their tunnels, what happened last, and a few sums. A worker looks at
//! each of its tunnels once, and makes texts for one page alone: 2 ms with 10,000 nodes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use eddy_core::closed::{Closed, ClosedLog};
use eddy_core::histogram::Histogram;
use eddy_core::identity::{Identity, TunnelId};
use eddy_core::time::Instant;
use serde::Serialize;

use crate::report::{Calendar, HostLine, Phase, round};

/// How many identities one page has, and how many events and hosts.
pub(crate) const PAGE: usize = 50;

/// How long an identity without a tunnel stays on the page.
const GONE_SHOWN_FOR: Duration = Duration::from_secs(3600);

/// Which part is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// In lower case; part of a node, cluster or tenant. Nothing means all.
    pub search: String,
    /// The page begins behind this identity.
    pub after: Option<Identity>,
}

impl Wanted {
    /// Whether an identity is looked for.
    pub(crate) fn matches(&self, identity: &Identity) -> bool {
        let found = |text: &str| contains(text, &self.search);
        self.search.is_empty()
            || found(identity.node.as_str())
            || found(identity.cluster.as_str())
            || found(identity.tenant.as_str())
    }

    fn is_on_page(&self, identity: &Identity) -> bool {
        self.after.as_ref().is_none_or(|after| identity > after) && self.matches(identity)
    }
}

/// Whether `text` has `part`, which is in lower case, whatever the case of the former.
fn contains(text: &str, part: &str) -> bool {
    if text.is_ascii() && part.is_ascii() {
        let same = |window: &[u8]| window.eq_ignore_ascii_case(part.as_bytes());
        return text.as_bytes().windows(part.len()).any(same);
    }
    text.to_lowercase().contains(part)
}

/// Tunnels by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tunnels {
    /// All.
    pub open: u64,
    /// Those that carry nothing yet.
    pub idle: u64,
    /// Those that carry HTTP/2.
    pub active: u64,
    /// Those that finish what runs.
    pub draining: u64,
    /// Those that ever opened.
    pub opened: u64,
    /// Node ids that several processes have a tunnel under; told by one worker.
    pub duplicates: u64,
}

impl Tunnels {
    /// Counts one.
    pub(crate) const fn count(&mut self, phase: Phase) {
        self.open += 1;
        match phase {
            Phase::Idle => self.idle += 1,
            Phase::Active => self.active += 1,
            Phase::Draining => self.draining += 1,
        }
    }
}

/// Requests since the start.
#[derive(Clone, Debug)]
pub struct Requests {
    /// Those that have come.
    pub total: u64,
    /// Those that have not ended.
    pub in_flight: u64,
    /// Answers of 5xx, a service's or our own, and those that broke off.
    pub errors: u64,
    /// How long they took.
    pub durations: Histogram,
}

/// One identity of the page.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// Its tunnels by state.
    pub idle: u64,
    /// Those that carry HTTP/2.
    pub active: u64,
    /// Those that finish what runs.
    pub draining: u64,
    /// Requests on them now.
    pub requests: u64,
    /// The address at the other end of one of them.
    pub host: Option<String>,
    /// How long the oldest has been open.
    pub up_seconds: Option<f64>,
    /// The last end of one.
    pub lost: Option<Lost>,
}

/// The last end of a tunnel.
#[derive(Clone, Debug, Serialize)]
pub struct Lost {
    /// Why, in a word.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub meaning: &'static str,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// How long ago.
    pub ago_seconds: f64,
}

impl Row {
    /// Counts a tunnel.
    pub(crate) const fn count(&mut self, phase: Phase) {
        match phase {
            Phase::Idle => self.idle += 1,
            Phase::Active => self.active += 1,
            Phase::Draining => self.draining += 1,
        }
    }

    /// One of its tunnels has been open for so many seconds.
    pub(crate) fn has_been_up_for(&mut self, seconds: f64) {
        self.up_seconds = Some(self.up_seconds.map_or(seconds, |other| other.max(seconds)));
    }

    fn merge(&mut self, other: Self) {
        self.idle += other.idle;
        self.active += other.active;
        self.draining += other.draining;
        self.requests += other.requests;
        self.host = self.host.take().or(other.host);
        self.up_seconds = match (self.up_seconds, other.up_seconds) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
        let at = |lost: &Option<Lost>| lost.as_ref().map(|lost| lost.at_unix_ms);
        if at(&other.lost) > at(&self.lost) {
            self.lost = other.lost;
        }
    }
}

/// What happened to a tunnel.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
    /// up, down or refused.
    pub event: &'static str,
    /// Its id in this process.
    pub tunnel: String,
    /// The tenant.
    pub tenant: String,
    /// The cluster.
    pub cluster: String,
    /// The node.
    pub node: String,
    /// The address at the other end, if that is still known.
    pub host: Option<String>,
    /// Why it ended, in a word.
    pub reason: Option<&'static str>,
    /// Why it ended, in a sentence.
    pub meaning: Option<Cow<'static, str>>,
    /// How long it had been open.
    pub lived_seconds: Option<f64>,
}

/// What one worker knows.
#[derive(Clone, Debug)]
pub struct Overview {
    /// All its tunnels.
    pub tunnels: Tunnels,
    /// How many nodes have a tunnel on any worker; told by one worker.
    pub nodes: u64,
    /// How many clusters do; told by one worker.
    pub clusters: u64,
    /// How many identities that are looked for do; told by one worker.
    pub matching: u64,
    /// Requests of its clients, or out of its tunnels.
    pub requests: Requests,
    /// The first of the page, and one more if there is.
    pub rows: BTreeMap<Arc<Identity>, Row>,
    /// An initiator's identities that are looked for and have a tunnel.
    pub here: BTreeSet<Arc<Identity>>,
    /// The hosts that it dials.
    pub hosts: Vec<HostLine>,
    /// The last ones, the newest first.
    pub events: Vec<Event>,
}

impl Event {
    fn of(event: &'static str, tunnel: TunnelId, identity: &Identity, at_unix_ms: u64) -> Self {
        let Identity {
            tenant,
            cluster,
            node,
        } = identity;
        Self {
            at_unix_ms,
            event,
            tunnel: tunnel.to_string(),
            tenant: tenant.to_string(),
            cluster: cluster.to_string(),
            node: node.to_string(),
            host: None,
            reason: None,
            meaning: None,
            lived_seconds: None,
        }
    }

    /// A tunnel that opened.
    pub(crate) fn up(tunnel: TunnelId, identity: &Identity, host: Option<String>, at_unix_ms: u64) -> Self {
        Self {
            host,
            ..Self::of("up", tunnel, identity, at_unix_ms)
        }
    }

    /// A handshake that was refused.
    pub(crate) fn refused(
        identity: Option<&Identity>,
        peer: SocketAddr,
        reason: &'static str,
        meaning: String,
        at_unix_ms: u64,
    ) -> Self {
        let text = |id: Option<&str>| id.unwrap_or_default().to_owned();
        Self {
            at_unix_ms,
            event: "refused",
            tunnel: String::new(),
            tenant: text(identity.map(|identity| identity.tenant.as_str())),
            cluster: text(identity.map(|identity| identity.cluster.as_str())),
            node: text(identity.map(|identity| identity.node.as_str())),
            host: Some(peer.to_string()),
            reason: Some(reason),
            meaning: Some(meaning.into()),
            lived_seconds: None,
        }
    }

    fn down(closed: &Closed, at_unix_ms: u64) -> Self {
        Self {
            reason: Some(closed.why.label()),
            meaning: Some(closed.why.meaning().into()),
            lived_seconds: Some(round(closed.lived)),
            ..Self::of("down", closed.tunnel, &closed.identity, at_unix_ms)
        }
    }
}

/// The newest of these, in no order.
pub(crate) fn newest<T>(mut all: Vec<T>, at: impl Fn(&T) -> Instant) -> Vec<T> {
    if all.len() > PAGE {
        all.select_nth_unstable_by_key(PAGE, |one| std::cmp::Reverse(at(one)));
        all.truncate(PAGE);
    }
    all
}

impl Overview {
    /// One without anything of a tunnel.
    pub(crate) const fn new(requests: Requests) -> Self {
        Self {
            tunnels: Tunnels {
                open: 0,
                idle: 0,
                active: 0,
                draining: 0,
                opened: 0,
                duplicates: 0,
            },
            nodes: 0,
            clusters: 0,
            matching: 0,
            requests,
            rows: BTreeMap::new(),
            here: BTreeSet::new(),
            hosts: Vec::new(),
            events: Vec::new(),
        }
    }

    /// The row of an identity, if it belongs to the page or right behind it.
    pub(crate) fn row(&mut self, wanted: &Wanted, identity: &Arc<Identity>) -> Option<&mut Row> {
        if !wanted.is_on_page(identity) {
            return None;
        }
        let is_full = self.rows.len() > PAGE;
        if is_full
            && self
                .rows
                .last_key_value()
                .is_some_and(|(last, _)| identity > last)
        {
            return None;
        }
        if is_full && !self.rows.contains_key(identity) {
            self.rows.pop_last();
        }
        Some(self.rows.entry(Arc::clone(identity)).or_default())
    }

    /// Adds the ends that are remembered: as what an identity has lost, and as what happened.
    pub(crate) fn tell_closed(&mut self, wanted: &Wanted, log: &ClosedLog, calendar: &Calendar) {
        let closed: Vec<_> = log
            .iter()
            .filter(|closed| wanted.matches(&closed.identity))
            .collect();
        for closed in &closed {
            // Who has been away for so long is shown to who looks for it.
            if wanted.search.is_empty() && calendar.now - closed.at > GONE_SHOWN_FOR {
                continue;
            }
            if let Some(row) = self.row(wanted, &closed.identity) {
                row.lost = Some(Lost {
                    reason: closed.why.label(),
                    meaning: closed.why.meaning(),
                    at_unix_ms: calendar.unix_ms(closed.at),
                    ago_seconds: calendar.ago(closed.at),
                });
            }
        }
        for closed in newest(closed, |closed| closed.at) {
            let opened = Instant::from_origin(closed.at.since_origin().saturating_sub(closed.lived));
            let opened = calendar.unix_ms(opened);
            self.events.push(Event::down(closed, calendar.unix_ms(closed.at)));
            self.events
                .push(Event::up(closed.tunnel, &closed.identity, None, opened));
        }
        self.trim_events();
    }

    /// Keeps the newest events.
    fn trim_events(&mut self) {
        self.events
            .sort_by_key(|event| std::cmp::Reverse(event.at_unix_ms));
        self.events.truncate(PAGE);
    }

    /// Adds what another worker knows.
    pub(crate) fn merge(&mut self, other: Self) {
        let Self {
            tunnels, requests, ..
        } = self;
        tunnels.open += other.tunnels.open;
        tunnels.idle += other.tunnels.idle;
        tunnels.active += other.tunnels.active;
        tunnels.draining += other.tunnels.draining;
        tunnels.opened += other.tunnels.opened;
        tunnels.duplicates += other.tunnels.duplicates;
        requests.total += other.requests.total;
        requests.in_flight += other.requests.in_flight;
        requests.errors += other.requests.errors;
        requests.durations.merge(&other.requests.durations);
        self.nodes += other.nodes;
        self.clusters += other.clusters;
        self.matching += other.matching;
        for (identity, row) in other.rows {
            self.rows.entry(identity).or_default().merge(row);
        }
        for host in other.hosts {
            self.add_host(host);
        }
        self.here.extend(other.here);
        self.events.extend(other.events);
        self.trim_events();
    }

    /// Adds a worker's share of a host to the others'.
    pub(crate) fn add_host(&mut self, mut line: HostLine) {
        let same = |other: &&mut HostLine| other.cluster == line.cluster && other.host == line.host;
        if line.connected + line.connecting + line.backing_off + line.draining == 0 {
            // It keeps nothing there.
            line.worker.clear();
        }
        let Some(host) = self.hosts.iter_mut().find(same) else {
            self.hosts.push(line);
            return;
        };
        host.connected += line.connected;
        host.connecting += line.connecting;
        host.backing_off += line.backing_off;
        host.draining += line.draining;
        for (why, count) in line.failures {
            *host.failures.entry(why).or_default() += count;
        }
        host.last_failure = host.last_failure.or(line.last_failure);
        host.next_dial_in_seconds = match (host.next_dial_in_seconds, line.next_dial_in_seconds) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        if !line.worker.is_empty() {
            if !host.worker.is_empty() {
                host.worker.push_str(", ");
            }
            host.worker.push_str(&line.worker);
        }
    }

    /// Cuts the rows to the page; says behind whom the next one begins, if there is one.
    pub(crate) fn cut_page(&mut self) -> Option<Arc<Identity>> {
        let mut more = false;
        while self.rows.len() > PAGE {
            self.rows.pop_last();
            more = true;
        }
        let last = self.rows.last_key_value().map(|(last, _)| Arc::clone(last));
        last.filter(|_| more)
    }
}

#[cfg(test)]
mod tests {
    use eddy_core::identity::{ClusterId, NodeId, TenantId};
    use eddy_core::stats::Hop;
    use eddy_core::timings::{Outcome, Timing};

    use super::*;

    fn identity(node: usize) -> Arc<Identity> {
        Arc::new(Identity {
            node: NodeId::parse(&format!("Node-{node:04}")).unwrap(),
            cluster: ClusterId::parse("käse").unwrap(),
            tenant: TenantId::parse("t").unwrap(),
        })
    }

    fn empty() -> Overview {
        Overview::new(Requests {
            total: 0,
            in_flight: 0,
            errors: 0,
            durations: Timing::Request(Hop::Egress, Outcome::Answered).histogram(),
        })
    }

    /// Pages from several workers, with every node on two of three.
    fn pages(wanted: &mut Wanted) -> Vec<String> {
        let mut seen = Vec::new();
        loop {
            let mut all = empty();
            for worker in 0..3 {
                let mut one = empty();
                for node in (0..230).rev().filter(|node| node % 3 != worker) {
                    if let Some(row) = one.row(wanted, &identity(node)) {
                        row.count(Phase::Idle);
                    }
                }
                all.merge(one);
            }
            let next = all.cut_page();
            assert!(all.rows.values().all(|row| row.idle == 2), "each row is whole");
            seen.extend(all.rows.keys().map(|identity| identity.node.to_string()));
            match next {
                Some(last) => wanted.after = Some((*last).clone()),
                None => return seen,
            }
        }
    }

    #[test]
    fn pages_follow_each_other_without_a_gap() {
        let all: Vec<_> = (0..230).map(|node| identity(node).node.to_string()).collect();
        assert_eq!(pages(&mut Wanted::default()), all);
        let mut some = Wanted {
            search: "node-01".into(),
            after: None,
        };
        assert_eq!(pages(&mut some), all[100..200]);
    }

    #[test]
    fn a_search_looks_at_all_three_parts_whatever_their_case() {
        let wanted = |search: &str| Wanted {
            search: search.into(),
            after: None,
        };
        for (search, found) in [
            ("node-0001", true),
            ("äs", true),
            ("t", true),
            ("", true),
            ("x", false),
        ] {
            assert_eq!(wanted(search).matches(&identity(1)), found, "{search}");
        }
    }
}
