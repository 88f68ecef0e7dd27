//! The numbers as data, and how each name is spelt.
//!
//! A worker fills a [`Sheet`] when it is asked; sheets of several workers add up. The same sheet feeds the
//! text of `/stats`, JSON and Prometheus, so that they cannot disagree.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::close::CloseReason;
use crate::identity::{ClusterId, ClusterName, NodeId, WorkerId};
use crate::router::Refusal;

/// Where an initiator's tunnels to a host or cluster stand (wire.md 10.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DialState {
    /// Dials and handshakes in flight.
    Connecting,
    /// Tunnels that are up.
    Connected,
    /// Tunnels that wait for their next dial.
    Backoff,
    /// Tunnels that finish what runs on them.
    Draining,
}

impl DialState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Connecting, Self::Connected, Self::Backoff, Self::Draining];

    /// The last part of the name.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Backoff => "backoff",
            Self::Draining => "draining",
        }
    }
}

/// Which HTTP hop a number is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hop {
    /// Requests of clients at the responder.
    Egress,
    /// Requests out of tunnels to the services at the initiator.
    Service,
}

impl Hop {
    /// The hop in one word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Egress => "egress",
            Self::Service => "service",
        }
    }
}

/// What is counted of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Http {
    /// Requests that came in.
    Requests,
    /// Requests that have come and not ended.
    InFlight,
    /// Answers that were passed on, by the first digit of their status.
    Responses(u8),
    /// Answers of our own, by reason.
    Refused(Refusal),
    /// Answers that broke off in the middle of their body.
    Truncated,
    /// Requests whose sender went away before the end of the answer.
    ClientGone,
    /// Times that a request waited for the return of whom it asked for.
    Waited,
    /// Times that a request was sent again, as its tunnel had died.
    Retried,
}

/// What is counted of RPING on idle tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ping {
    /// Pings written (responder).
    Sent,
    /// Echoes that came back (responder), or that were written (initiator).
    Echoed,
    /// Half intervals that passed without an echo.
    Missed,
}

/// One number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Name {
    /// An initiator's tunnels to one host; without a worker, of the whole process.
    HostTunnels(Option<WorkerId>, SocketAddr, DialState),
    /// An initiator's tunnels to one upstream cluster.
    UpstreamTunnels(Option<WorkerId>, ClusterName, DialState),
    /// Handshakes of an initiator that were accepted.
    HandshakeSucceeded(WorkerId, ClusterName),
    /// Dials and handshakes of an initiator that failed, by reason.
    HandshakeFailed(WorkerId, ClusterName, String),
    /// A responder's tunnels of one node.
    NodeTunnels(Option<WorkerId>, NodeId),
    /// A responder's tunnels of one cluster.
    ClusterTunnels(Option<WorkerId>, ClusterId),
    /// A responder's tunnels of one node in one cluster.
    IdentityTunnels(ClusterId, NodeId),
    /// How many different nodes have a tunnel on any worker.
    Nodes,
    /// How many different clusters have a tunnel on any worker.
    Clusters,
    /// How many node ids several processes have a tunnel under.
    NodesShared,
    /// How many tunnels an initiator is to keep.
    Wanted,
    /// Records of requests that a writer has lost: `access_log` or `traces`.
    RecordsLost(&'static str),
    /// Log lines that could not be written.
    LogLinesLost,
    /// How many different nodes have a tunnel on a worker.
    TotalNodes(WorkerId),
    /// How many different clusters have a tunnel on a worker.
    TotalClusters(WorkerId),
    /// Handshakes at a responder, by outcome.
    Handshake(&'static str),
    /// RPING on idle tunnels.
    Ping(Ping),
    /// Tunnels that opened under a node id that another process had too.
    Duplicates,
    /// Tunnels that a worker's copy of the directory lacked, or had too many, when it was repaired.
    DirectoryRepaired,
    /// Tunnels that opened since the start.
    Opened,
    /// Tunnels that are open.
    Open,
    /// Tunnels that ended since the start, by reason.
    Closed(CloseReason),
    /// Requests.
    Http(Hop, Http),
}

impl Name {
    /// The line's name, as in the seed's output and as Envoy spells it where it has the number.
    ///
    /// Ids stand in it as they are, dots and colons and all, and yet no two numbers of a process share a name. Three
    /// names could be read in two ways; there, and only there, the sign that would do it is written as in a URL, and
    /// `%` itself as `%25`:
    ///
    /// - `tunnels.<cluster>:<node>`: a `:` of the cluster is `%3A`.
    /// - `worker_<n>.cluster.<cluster>` of a responder: the `.` before a last part that is a [`DialState`] is `%2E`, as
    ///   an initiator's line ends in its state.
    /// - `….failure_reason.<reason>`: the `.` behind a part `result` is `%2E`, as the cluster ends at the last `.result.`.
    pub fn spell(&self, prefix: &str) -> String {
        let on = |worker: &Option<WorkerId>| worker.map(|w| format!("{w}.")).unwrap_or_default();
        match self {
            Self::HostTunnels(worker, host, state) => {
                format!("{prefix}.{}host.{host}.{}", on(worker), state.label())
            }
            Self::UpstreamTunnels(worker, cluster, state) => {
                format!("{prefix}.{}cluster.{cluster}.{}", on(worker), state.label())
            }
            Self::HandshakeSucceeded(worker, cluster) => {
                format!("{prefix}.handshake.worker.{worker}.cluster.{cluster}.result.success")
            }
            Self::HandshakeFailed(worker, cluster, reason) => format!(
                "{prefix}.handshake.worker.{worker}.cluster.{cluster}.result.failed.failure_reason.{}",
                escape(reason, '.', |before, _| before == "result"
                    || before.ends_with(".result"))
            ),
            Self::NodeTunnels(None, node) => format!("{prefix}.nodes.{node}"),
            Self::NodeTunnels(Some(worker), node) => format!("{prefix}.{worker}.node.{node}"),
            Self::ClusterTunnels(None, cluster) => format!("{prefix}.clusters.{cluster}"),
            Self::ClusterTunnels(Some(worker), cluster) => {
                let is_state =
                    |_: &str, behind: &str| DialState::ALL.iter().any(|state| state.label() == behind);
                format!(
                    "{prefix}.{worker}.cluster.{}",
                    escape(cluster.as_str(), '.', is_state)
                )
            }
            Self::IdentityTunnels(cluster, node) => {
                format!(
                    "{prefix}.tunnels.{}:{node}",
                    escape(cluster.as_str(), ':', |_, _| true)
                )
            }
            Self::Nodes => "reverse_tunnel.nodes".into(),
            Self::Clusters => "reverse_tunnel.clusters".into(),
            Self::NodesShared => "reverse_tunnel.nodes_shared".into(),
            Self::Wanted => "reverse_tunnel.wanted".into(),
            Self::RecordsLost(writer) => format!("{writer}.lost"),
            Self::LogLinesLost => "log.lost".into(),
            Self::TotalNodes(worker) => format!("{prefix}.{worker}.total_nodes"),
            Self::TotalClusters(worker) => format!("{prefix}.{worker}.total_clusters"),
            Self::Handshake(outcome) => format!("reverse_tunnel.handshake.{outcome}"),
            Self::Ping(Ping::Sent) => "reverse_tunnel.ping.sent".into(),
            Self::Ping(Ping::Echoed) => "reverse_tunnel.ping.echoed".into(),
            Self::Ping(Ping::Missed) => "reverse_tunnel.ping.missed".into(),
            Self::Duplicates => "reverse_tunnel.duplicates".into(),
            Self::DirectoryRepaired => "reverse_tunnel.directory_repaired".into(),
            Self::Opened => "reverse_tunnel.opened".into(),
            Self::Open => "reverse_tunnel.open".into(),
            Self::Closed(why) => format!("reverse_tunnel.closed.{}", why.label()),
            Self::Http(hop, http) => {
                let hop = hop.label();
                match http {
                    Http::Requests => format!("{hop}.requests"),
                    Http::InFlight => format!("{hop}.in_flight"),
                    Http::Responses(class) => format!("{hop}.responses.{class}xx"),
                    Http::Refused(why) => format!("{hop}.refused.{}", why.label()),
                    Http::Truncated => format!("{hop}.truncated"),
                    Http::ClientGone => format!("{hop}.client_gone"),
                    Http::Waited => format!("{hop}.waited"),
                    Http::Retried => format!("{hop}.retried"),
                }
            }
        }
    }

    /// Whether the line appears with `?hidden=include` alone. What a plain `/stats` shows of the prefixed
    /// numbers is what the seed shows.
    pub const fn is_hidden(&self, value: u64) -> bool {
        match self {
            Self::HostTunnels(_, _, state) | Self::UpstreamTunnels(_, _, state) => match state {
                DialState::Connecting | DialState::Connected => false,
                DialState::Backoff | DialState::Draining => value == 0,
            },
            Self::HandshakeSucceeded(..)
            | Self::HandshakeFailed(..)
            | Self::IdentityTunnels(..)
            | Self::TotalNodes(_)
            | Self::TotalClusters(_) => true,
            Self::NodeTunnels(..)
            | Self::ClusterTunnels(..)
            | Self::Handshake(_)
            | Self::Ping(_)
            | Self::Nodes
            | Self::Clusters
            | Self::NodesShared
            | Self::Wanted
            | Self::RecordsLost(_)
            | Self::LogLinesLost
            | Self::Duplicates
            | Self::DirectoryRepaired
            | Self::Opened
            | Self::Open
            | Self::Closed(_)
            | Self::Http(..) => false,
        }
    }
}

/// Writes `%` as `%25`, and `sign` likewise where what is before and behind it asks for that.
fn escape(text: &str, sign: char, such: impl Fn(&str, &str) -> bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for (at, found) in text.char_indices() {
        if found == '%' || found == sign && such(&text[..at], &text[at + 1..]) {
            escaped += &format!("%{:02X}", u32::from(found));
        } else {
            escaped.push(found);
        }
    }
    escaped
}

/// Numbers that add up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sheet(BTreeMap<Name, u64>);

impl Sheet {
    /// Adds to a number; adding 0 makes it appear.
    pub fn add(&mut self, name: Name, by: u64) {
        *self.0.entry(name).or_default() += by;
    }

    /// Adds the numbers of another worker.
    pub fn merge(&mut self, other: &Self) {
        for (name, value) in &other.0 {
            self.add(name.clone(), *value);
        }
    }

    /// The numbers in the order of their kinds.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, u64)> {
        self.0.iter().map(|(name, value)| (name, *value))
    }

    /// The spelt numbers, sorted by name; the hidden ones only if asked for.
    pub fn lines(&self, prefix: &str, hidden: bool) -> Vec<(String, u64)> {
        let shown = self
            .iter()
            .filter(|(name, value)| hidden || !name.is_hidden(*value));
        let mut lines: Vec<_> = shown.map(|(name, value)| (name.spell(prefix), value)).collect();
        lines.sort();
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_initiator_s_lines_are_the_seed_s() {
        let cluster = ClusterName::parse("upstream-cluster").unwrap();
        let host: SocketAddr = "172.27.0.2:9000".parse().unwrap();
        let mut sheet = Sheet::default();
        for (state, n) in [
            (DialState::Connecting, 0),
            (DialState::Connected, 1),
            (DialState::Backoff, 0),
        ] {
            for worker in [None, Some(WorkerId(0))] {
                sheet.add(Name::HostTunnels(worker, host, state), n);
                sheet.add(Name::UpstreamTunnels(worker, cluster.clone(), state), n);
            }
        }
        sheet.add(Name::HandshakeSucceeded(WorkerId(0), cluster), 1);
        let p = "downstream_reverse_connection";
        let lines: Vec<_> = sheet
            .lines(p, false)
            .into_iter()
            .map(|(n, v)| format!("{n}: {v}"))
            .collect();
        assert_eq!(
            lines,
            [
                "downstream_reverse_connection.cluster.upstream-cluster.connected: 1",
                "downstream_reverse_connection.cluster.upstream-cluster.connecting: 0",
                "downstream_reverse_connection.host.172.27.0.2:9000.connected: 1",
                "downstream_reverse_connection.host.172.27.0.2:9000.connecting: 0",
                "downstream_reverse_connection.worker_0.cluster.upstream-cluster.connected: 1",
                "downstream_reverse_connection.worker_0.cluster.upstream-cluster.connecting: 0",
                "downstream_reverse_connection.worker_0.host.172.27.0.2:9000.connected: 1",
                "downstream_reverse_connection.worker_0.host.172.27.0.2:9000.connecting: 0",
            ]
        );
        assert_eq!(sheet.lines(p, true).len(), 13);
    }

    /// Each pair once had one name.
    #[test]
    fn what_could_be_read_in_two_ways_is_escaped_there_alone() {
        let spell = |name: Name| name.spell("p");
        let id = |text| ClusterId::parse(text).unwrap();
        let tunnels = |cluster, node| spell(Name::IdentityTunnels(id(cluster), NodeId::parse(node).unwrap()));
        assert_eq!(tunnels("a", "b:c"), "p.tunnels.a:b:c");
        assert_eq!(tunnels("a:b", "c"), "p.tunnels.a%3Ab:c");
        assert_eq!(tunnels("a%3Ab", "c%"), "p.tunnels.a%253Ab:c%");

        let up = |text| ClusterName::parse(text).unwrap();
        let w = WorkerId(0);
        let dialed = Name::UpstreamTunnels(Some(w), up("a.b"), DialState::Connected);
        assert_eq!(spell(dialed), "p.worker_0.cluster.a.b.connected");
        let accepted = |text| spell(Name::ClusterTunnels(Some(w), id(text)));
        assert_eq!(accepted("a.b.connected"), "p.worker_0.cluster.a.b%2Econnected");
        assert_eq!(accepted("a.connected.b"), "p.worker_0.cluster.a.connected.b");

        let failed = |text: &str| Name::HandshakeFailed(w, up("a"), text.into());
        let odd = up("a.result.failed.failure_reason.b");
        assert_eq!(
            spell(Name::HandshakeSucceeded(w, odd)),
            "p.handshake.worker.worker_0.cluster.a.result.failed.failure_reason.b.result.success"
        );
        assert_eq!(
            spell(failed("b.result.success")),
            "p.handshake.worker.worker_0.cluster.a.result.failed.failure_reason.b.result%2Esuccess"
        );
        assert!(spell(failed("result.success")).ends_with(".failure_reason.result%2Esuccess"));
        assert!(spell(failed("http.404")).ends_with(".failure_reason.http.404"));
    }

    #[test]
    fn sheets_of_workers_add_up() {
        let node = NodeId::parse("n").unwrap();
        let sheet = |worker, n| {
            let mut sheet = Sheet::default();
            sheet.add(Name::NodeTunnels(Some(WorkerId(worker)), node.clone()), n);
            sheet.add(Name::NodeTunnels(None, node.clone()), n);
            sheet
        };
        let mut total = sheet(0, 2);
        total.merge(&sheet(1, 3));
        let lines = total.lines("r", false);
        let expected = [
            ("r.nodes.n", 5),
            ("r.worker_0.node.n", 2),
            ("r.worker_1.node.n", 3),
        ];
        assert_eq!(lines, expected.map(|(n, v)| (n.to_owned(), v)));
    }

    #[test]
    fn a_backoff_shows_itself_while_there_is_one() {
        let host: SocketAddr = "[::1]:1".parse().unwrap();
        let name = Name::HostTunnels(None, host, DialState::Backoff);
        assert!(name.is_hidden(0) && !name.is_hidden(1));
        assert_eq!(name.spell("i"), "i.host.[::1]:1.backoff");
    }
}
