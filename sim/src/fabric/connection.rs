//! A connection as both its ends share it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::ProcessId;
use super::flow::Flow;

/// Numbers connections in the order in which they came up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Who dialed.
    Client,
    /// Who accepted.
    Server,
}

impl Side {
    pub(super) const fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Client => 0,
            Self::Server => 1,
        }
    }
}

/// What one end knows of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// Not there yet.
    #[default]
    Coming,
    /// Held by a process.
    Open(usize),
    /// Let go.
    Closed(usize),
}

/// The shared state of a connection.
pub(super) struct Connection {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    pub(super) opened_at: Duration,
    ends: [End; 2],
    flows: [Flow; 2],
    /// It swallows what is written; what was written before still comes, so many bytes of either side.
    pub(super) silent: Option<[u64; 2]>,
}

/// A connection, for an observer.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionInfo {
    /// The address of who dialed.
    pub client: SocketAddr,
    /// The address of who accepted.
    pub server: SocketAddr,
    /// Since when it is up at one end.
    pub opened_at: Duration,
    /// Who dialed, while that end is open.
    pub dialed_by: Option<ProcessId>,
    /// Who accepted, while that end is open.
    pub accepted_by: Option<ProcessId>,
    /// It swallows what is written.
    pub silent: bool,
}

impl Connection {
    pub(super) fn new(client: SocketAddr, server: SocketAddr, opened_at: Duration, flows: [Flow; 2]) -> Self {
        Self {
            client,
            server,
            opened_at,
            ends: [End::Coming; 2],
            flows,
            silent: None,
        }
    }

    pub(super) fn end(&self, side: Side) -> End {
        self.ends[side.index()]
    }

    pub(super) fn set_end(&mut self, side: Side, end: End) {
        self.ends[side.index()] = end;
    }

    /// What `side` writes.
    pub(super) fn flow(&mut self, side: Side) -> &mut Flow {
        &mut self.flows[side.index()]
    }

    pub(super) fn fall_silent(&mut self, now: Duration) {
        self.silent = Some([self.flows[0].written, self.flows[1].written]);
        self.flows.iter_mut().for_each(|flow| flow.fall_silent(now));
    }

    /// The addresses that the bytes of `side` go from and to.
    pub(super) const fn path(&self, side: Side) -> (IpAddr, IpAddr) {
        match side {
            Side::Client => (self.client.ip(), self.server.ip()),
            Side::Server => (self.server.ip(), self.client.ip()),
        }
    }

    /// How much of what `side` writes can be read at all.
    pub(super) fn readable(&self, side: Side) -> u64 {
        self.silent.map_or(u64::MAX, |written| written[side.index()])
    }

    fn holder(&self, side: Side) -> Option<ProcessId> {
        match self.end(side) {
            End::Open(process) => Some(ProcessId(process)),
            End::Coming | End::Closed(_) => None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.ends.iter().all(|end| matches!(end, End::Closed(_)))
    }

    pub(super) fn is_held_by(&self, process: ProcessId) -> bool {
        self.holder(Side::Client) == Some(process) || self.holder(Side::Server) == Some(process)
    }

    pub(super) fn info(&self) -> ConnectionInfo {
        ConnectionInfo {
            client: self.client,
            server: self.server,
            opened_at: self.opened_at,
            dialed_by: self.holder(Side::Client),
            accepted_by: self.holder(Side::Server),
            silent: self.silent.is_some(),
        }
    }
}
