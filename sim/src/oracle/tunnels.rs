//! The tunnels as the network knows them: connections from initiators to the ports where responders accept.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use crate::fabric::{ConnectionId, ProcessId, Side};

/// A tunnel's connection.
#[derive(Clone, Debug)]
pub(crate) struct Tunnel {
    pub(crate) initiator: ProcessId,
    pub(crate) responder: ProcessId,
    /// The address of the initiator's end.
    pub(crate) client: SocketAddr,
    pub(crate) client_open: bool,
    pub(crate) server_open: bool,
    /// When both ends were there.
    pub(crate) opened_at: Duration,
    /// When the first end went.
    pub(crate) torn_at: Option<Duration>,
    /// When it fell silent.
    pub(crate) silent_at: Option<Duration>,
}

impl Tunnel {
    /// Both ends are there, and bytes get through as far as the connection itself knows.
    pub(crate) const fn is_whole(&self) -> bool {
        self.client_open && self.server_open && self.silent_at.is_none()
    }
}

/// Every tunnel of which an end is open.
#[derive(Default)]
pub(crate) struct Tunnels {
    open: BTreeMap<ConnectionId, Tunnel>,
    /// When one came or went.
    pub(crate) last_change: Duration,
    /// The last close of a responder's end, by responder and initiator.
    server_closed: BTreeMap<(ProcessId, ProcessId), Duration>,
    /// Those that each process has or had an end of.
    by_process: BTreeMap<ProcessId, BTreeSet<ConnectionId>>,
}

impl Tunnels {
    /// Both ends are there; says whether that is news.
    pub(crate) fn opened(
        &mut self,
        now: Duration,
        id: ConnectionId,
        (initiator, responder): (ProcessId, ProcessId),
        client: SocketAddr,
    ) -> bool {
        let Entry::Vacant(place) = self.open.entry(id) else {
            return false;
        };
        self.last_change = now;
        place.insert(Tunnel {
            initiator,
            responder,
            client,
            client_open: true,
            server_open: true,
            opened_at: now,
            torn_at: None,
            silent_at: None,
        });
        for process in [initiator, responder] {
            self.by_process.entry(process).or_default().insert(id);
        }
        true
    }

    /// Says whose ends they were.
    pub(crate) fn closed(
        &mut self,
        now: Duration,
        id: ConnectionId,
        side: Side,
    ) -> Option<(ProcessId, ProcessId)> {
        let tunnel = self.open.get_mut(&id)?;
        self.last_change = now;
        tunnel.torn_at.get_or_insert(now);
        let ends = (tunnel.initiator, tunnel.responder);
        match side {
            Side::Client => tunnel.client_open = false,
            Side::Server => {
                tunnel.server_open = false;
                self.server_closed.insert((ends.1, ends.0), now);
            }
        }
        if !tunnel.client_open && !tunnel.server_open {
            self.open.remove(&id);
            for process in [ends.0, ends.1] {
                self.by_process.entry(process).or_default().remove(&id);
            }
        }
        Some(ends)
    }

    pub(crate) fn silent(&mut self, now: Duration, id: ConnectionId) {
        if let Some(tunnel) = self.open.get_mut(&id) {
            tunnel.silent_at.get_or_insert(now);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnectionId, &Tunnel)> {
        self.open.iter().map(|(id, tunnel)| (*id, tunnel))
    }

    /// Those that a process has or had an end of, the other one being open.
    pub(crate) fn of(&self, process: ProcessId) -> impl Iterator<Item = &Tunnel> {
        let ids = self.by_process.get(&process).into_iter().flatten();
        ids.filter_map(|id| self.open.get(id))
    }

    /// Between an initiator and a responder.
    pub(crate) fn between(
        &self,
        initiator: ProcessId,
        responder: ProcessId,
    ) -> impl Iterator<Item = &Tunnel> {
        self.of(initiator)
            .filter(move |tunnel| tunnel.responder == responder)
    }

    /// When the responder's end of such a tunnel was last closed.
    pub(crate) fn last_closed_at(&self, responder: ProcessId, initiator: ProcessId) -> Option<Duration> {
        self.server_closed.get(&(responder, initiator)).copied()
    }

    /// How many ends a process holds.
    pub(crate) fn held_by(&self, process: ProcessId) -> usize {
        let held = |tunnel: &&Tunnel| {
            (tunnel.client_open && tunnel.initiator == process)
                || (tunnel.server_open && tunnel.responder == process)
        };
        self.of(process).filter(held).count()
    }

    /// How many whole ones a process has an end of.
    pub(crate) fn whole_of(&self, process: ProcessId) -> usize {
        self.of(process).filter(|tunnel| tunnel.is_whole()).count()
    }

    pub(crate) fn any_half_open(&self) -> bool {
        self.open.values().any(|tunnel| !tunnel.is_whole())
    }

    pub(crate) fn any_whole(&self) -> bool {
        self.open.values().any(Tunnel::is_whole)
    }
}
