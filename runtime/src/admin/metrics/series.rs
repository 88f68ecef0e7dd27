//! What each number is called on the page, and which labels it has.

use eddy_core::stats::{Hop, Http, Name, Ping};
use eddy_core::timings::Timing;
use prometheus::proto::MetricType;

use super::{Family, Labels};

/// A gauge or counter of the page.
pub(super) fn series(name: &Name) -> Option<(Family, Labels)> {
    use MetricType::{COUNTER, GAUGE};
    Some(match name {
        // Those of single workers are for `/stats`: here they add up.
        Name::HostTunnels(Some(_), ..)
        | Name::UpstreamTunnels(Some(_), ..)
        | Name::NodeTunnels(Some(_), _)
        | Name::ClusterTunnels(Some(_), _)
        // Here they have a tenant besides.
        | Name::IdentityTunnels(..) => return None,
        Name::HostTunnels(None, host, state) => (
            (
                "eddy_host_tunnels",
                GAUGE,
                "Tunnels of an initiator to one host, by state.",
            ),
            vec![("host", host.to_string()), ("state", state.label().into())],
        ),
        Name::UpstreamTunnels(None, cluster, state) => (
            (
                "eddy_upstream_tunnels",
                GAUGE,
                "Tunnels of an initiator to one upstream cluster, by state.",
            ),
            vec![("cluster", cluster.to_string()), ("state", state.label().into())],
        ),
        Name::HandshakeSucceeded(_, cluster) => (
            DIALS,
            vec![("cluster", cluster.to_string()), ("outcome", "success".into())],
        ),
        Name::HandshakeFailed(_, cluster, reason) => (
            DIALS,
            vec![("cluster", cluster.to_string()), ("outcome", reason.clone())],
        ),
        Name::NodeTunnels(None, node) => (
            ("eddy_node_tunnels", GAUGE, "Tunnels of one node at a responder."),
            vec![("node", node.to_string())],
        ),
        Name::ClusterTunnels(None, cluster) => (
            (
                "eddy_cluster_tunnels",
                GAUGE,
                "Tunnels of one cluster at a responder.",
            ),
            vec![("cluster", cluster.to_string())],
        ),
        Name::TotalNodes(worker) => (
            (
                "eddy_worker_nodes",
                GAUGE,
                "Different nodes that have a tunnel on a worker of a responder.",
            ),
            vec![("worker", worker.to_string())],
        ),
        Name::TotalClusters(worker) => (
            (
                "eddy_worker_clusters",
                GAUGE,
                "Different clusters that have a tunnel on a worker of a responder.",
            ),
            vec![("worker", worker.to_string())],
        ),
        Name::Handshake(outcome) => (
            (
                "eddy_handshakes_total",
                COUNTER,
                "Handshakes at a responder, by outcome.",
            ),
            vec![("outcome", (*outcome).into())],
        ),
        Name::Ping(ping) => {
            let event = match ping {
                Ping::Sent => "sent",
                Ping::Echoed => "echoed",
                Ping::Missed => "missed",
            };
            (
                (
                    "eddy_pings_total",
                    COUNTER,
                    "RPING on idle tunnels, by what happened.",
                ),
                vec![("event", event.into())],
            )
        }
        Name::Nodes => (
            (
                "eddy_nodes",
                GAUGE,
                "Different nodes that have a tunnel at a responder.",
            ),
            vec![],
        ),
        Name::Clusters => (
            (
                "eddy_clusters",
                GAUGE,
                "Different clusters that have a tunnel at a responder.",
            ),
            vec![],
        ),
        Name::NodesShared => (
            (
                "eddy_nodes_shared",
                GAUGE,
                "Node ids that several processes have a tunnel under now.",
            ),
            vec![],
        ),
        Name::Wanted => (
            (
                "eddy_tunnels_wanted",
                GAUGE,
                "Tunnels that an initiator is to keep.",
            ),
            vec![],
        ),
        Name::RecordsLost(writer) => (
            (
                "eddy_records_lost_total",
                COUNTER,
                "Records of requests that were lost, as a writer did not keep up or could not write.",
            ),
            vec![("writer", (*writer).to_owned())],
        ),
        Name::LogLinesLost => (
            (
                "eddy_log_lines_lost_total",
                COUNTER,
                "Log lines that were lost because standard error was read too slowly or is closed.",
            ),
            vec![],
        ),
        Name::Duplicates => (
            (
                "eddy_duplicate_nodes_total",
                COUNTER,
                "Tunnels that opened under a node id that another process had too.",
            ),
            vec![],
        ),
        Name::DirectoryRepaired => (
            (
                "eddy_directory_repaired_total",
                COUNTER,
                "Tunnels by which a worker's copy of the directory was wrong when it was repaired: a bug if not 0.",
            ),
            vec![],
        ),
        Name::Opened => (
            ("eddy_tunnels_opened_total", COUNTER, "Tunnels that have opened."),
            vec![],
        ),
        Name::Open => (("eddy_tunnels_open", GAUGE, "Tunnels that are open."), vec![]),
        Name::Closed(why) => (
            (
                "eddy_tunnels_closed_total",
                COUNTER,
                "Tunnels that have ended, by reason.",
            ),
            vec![("reason", why.label().into())],
        ),
        Name::Http(hop, what) => return Some(http(*hop, *what)),
    })
}

const DIALS: Family = (
    "eddy_dials_total",
    MetricType::COUNTER,
    "Dials of an initiator that have ended, by upstream cluster and outcome: success, or why not.",
);

fn http(hop: Hop, what: Http) -> (Family, Labels) {
    use MetricType::{COUNTER, GAUGE};
    let at = ("hop", hop.label().to_owned());
    match what {
        Http::Requests => (
            ("eddy_requests_total", COUNTER, "Requests that have come."),
            vec![at],
        ),
        Http::InFlight => (
            (
                "eddy_requests_in_flight",
                GAUGE,
                "Requests that have come and not ended.",
            ),
            vec![at],
        ),
        Http::Responses(class) => (
            (
                "eddy_responses_total",
                COUNTER,
                "Answers of services that were passed on, by class of status.",
            ),
            vec![at, ("class", format!("{class}xx"))],
        ),
        Http::Refused(why) => (
            (
                "eddy_requests_refused_total",
                COUNTER,
                "Requests that Eddy answered itself, by reason.",
            ),
            vec![at, ("reason", why.label().into())],
        ),
        Http::Truncated => (
            (
                "eddy_responses_truncated_total",
                COUNTER,
                "Answers that broke off in their body.",
            ),
            vec![at],
        ),
        Http::ClientGone => (
            (
                "eddy_requests_client_gone_total",
                COUNTER,
                "Requests whose sender went away before the end of the answer.",
            ),
            vec![at],
        ),
        Http::Waited => (
            (
                "eddy_requests_waited_total",
                COUNTER,
                "Requests that waited for the return of whom they asked for.",
            ),
            vec![at],
        ),
        Http::Retried => (
            (
                "eddy_requests_retried_total",
                COUNTER,
                "Times that a request was sent again, as its tunnel had died.",
            ),
            vec![at],
        ),
    }
}

/// The family of what is timed, and the labels there.
pub(super) fn timing(what: Timing) -> (Family, Labels) {
    let family = |name, help| (name, MetricType::HISTOGRAM, help);
    match what {
        Timing::Request(hop, outcome) => (
            family(
                "eddy_request_duration_seconds",
                "Requests, from the head to the end of the answer.",
            ),
            vec![
                ("hop", hop.label().to_owned()),
                ("outcome", outcome.label().to_owned()),
            ],
        ),
        Timing::Handshake => (
            family(
                "eddy_handshake_duration_seconds",
                "Accepted handshakes at a responder, from the connection to the answer.",
            ),
            vec![],
        ),
        Timing::Dial => (
            family(
                "eddy_dial_duration_seconds",
                "Dials of an initiator that became tunnels, from their start.",
            ),
            vec![],
        ),
        Timing::Lifetime => (
            family(
                "eddy_tunnel_lifetime_seconds",
                "Tunnels that have ended, from opening to their end.",
            ),
            vec![],
        ),
        Timing::Recovery => (
            family(
                "eddy_recovery_duration_seconds",
                "Nodes that had lost their last tunnel at a responder, until they had one again, of those back within ten minutes.",
            ),
            vec![],
        ),
    }
}
