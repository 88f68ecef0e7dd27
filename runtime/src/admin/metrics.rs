//! `/metrics`: the same numbers as `/stats`, in Prometheus' text format, with identities as labels.

use std::collections::BTreeMap;

use eddy_core::stats::{Hop, Http, Name, Ping, Sheet};
use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// A family of series: its name, its type, and its meaning in one sentence.
type Family = (&'static str, MetricType, &'static str);
/// The labels of a series, in the order in which they are written.
type Labels = Vec<(&'static str, String)>;

/// What is true of a process besides its numbers.
pub(super) struct About<'a> {
    pub(super) role: &'static str,
    pub(super) node: &'a str,
    pub(super) cluster: &'a str,
    /// When it began, in seconds since 1970.
    pub(super) began: f64,
    pub(super) draining: bool,
    /// How many series of single nodes, clusters and hosts there may be.
    pub(super) max_series: u32,
}

/// The page.
pub(super) fn render(about: &About<'_>, sheet: &Sheet) -> Result<String, prometheus::Error> {
    let mut page = Page::default();
    page.tell(about);
    let mut room = about.max_series;
    let mut dropped = 0;
    for (name, value) in sheet.iter() {
        let Some((family, labels)) = series(name) else {
            continue;
        };
        if is_of_a_peer(name) {
            if room == 0 {
                dropped += 1;
                continue;
            }
            room -= 1;
        }
        page.add(family, labels, value);
    }
    page.add(DROPPED, vec![], dropped);
    TextEncoder::new().encode_to_string(&page.families())
}

const DROPPED: Family = (
    "eddy_series_dropped",
    MetricType::GAUGE,
    "Series of single nodes, clusters and hosts that are left out, as there are more than stats.max_series.",
);

/// A gauge or counter of the page.
fn series(name: &Name) -> Option<(Family, Labels)> {
    use MetricType::{COUNTER, GAUGE};
    Some(match name {
        // Those of single workers are for `/stats`: here they add up.
        Name::HostTunnels(Some(_), ..)
        | Name::UpstreamTunnels(Some(_), ..)
        | Name::NodeTunnels(Some(_), _)
        | Name::ClusterTunnels(Some(_), _) => return None,
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
        Name::IdentityTunnels(cluster, node) => (
            (
                "eddy_identity_tunnels",
                GAUGE,
                "Tunnels of one node in one cluster at a responder.",
            ),
            vec![("cluster", cluster.to_string()), ("node", node.to_string())],
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
        Name::Duplicates => (
            (
                "eddy_duplicate_nodes_total",
                COUNTER,
                "Tunnels that opened under a node id that another process had too.",
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
    let at = ("hop", label(hop).to_owned());
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

const fn label(hop: Hop) -> &'static str {
    match hop {
        Hop::Egress => "egress",
        Hop::Service => "service",
    }
}

/// Whether there are as many series as peers.
const fn is_of_a_peer(name: &Name) -> bool {
    matches!(
        name,
        Name::HostTunnels(..)
            | Name::UpstreamTunnels(..)
            | Name::NodeTunnels(..)
            | Name::ClusterTunnels(..)
            | Name::IdentityTunnels(..)
    )
}

/// One series.
enum Sample {
    Number(u64),
    Real(f64),
}

/// One family, with its series by labels.
struct Group {
    kind: MetricType,
    help: &'static str,
    series: BTreeMap<Labels, Sample>,
}

/// Families by name.
#[derive(Default)]
struct Page(BTreeMap<&'static str, Group>);

impl Page {
    fn tell(&mut self, about: &About<'_>) {
        let info = (
            "eddy_info",
            MetricType::GAUGE,
            "1; says in its labels which Eddy this is.",
        );
        let labels = vec![
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("role", about.role.to_owned()),
            ("node", about.node.to_owned()),
            ("cluster", about.cluster.to_owned()),
        ];
        self.add(info, labels, 1);
        let draining = (
            "eddy_draining",
            MetricType::GAUGE,
            "1 while the process finishes what runs, to end then.",
        );
        self.add(draining, vec![], u64::from(about.draining));
        let began = (
            "eddy_start_time_seconds",
            MetricType::GAUGE,
            "When the process began, in seconds since 1970.",
        );
        self.put(began, vec![], Sample::Real(about.began));
    }

    fn add(&mut self, family: Family, labels: Labels, value: u64) {
        let group = self.group(family);
        match group.series.entry(labels).or_insert(Sample::Number(0)) {
            Sample::Number(number) => *number += value,
            Sample::Real(_) => {}
        }
    }

    fn put(&mut self, family: Family, labels: Labels, sample: Sample) {
        self.group(family).series.insert(labels, sample);
    }

    fn group(&mut self, (name, kind, help): Family) -> &mut Group {
        self.0.entry(name).or_insert_with(|| Group {
            kind,
            help,
            series: BTreeMap::new(),
        })
    }

    fn families(self) -> Vec<MetricFamily> {
        let families = self.0.into_iter().map(|(name, group)| {
            let mut family = MetricFamily::default();
            family.set_name(name.to_owned());
            family.set_help(group.help.to_owned());
            family.set_field_type(group.kind);
            let metrics = group.series.into_iter();
            family.set_metric(
                metrics
                    .map(|(labels, sample)| metric(group.kind, labels, sample))
                    .collect(),
            );
            family
        });
        families.collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus' numbers are floats")]
fn metric(kind: MetricType, labels: Labels, sample: Sample) -> Metric {
    let labels = labels.into_iter().map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(value);
        label
    });
    let mut metric = Metric::from_label(labels.collect());
    let value = match sample {
        Sample::Number(number) => number as f64,
        Sample::Real(real) => real,
    };
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

#[cfg(test)]
mod tests {
    use eddy_core::identity::NodeId;

    use super::*;

    fn page(max_series: u32, nodes: &[&str]) -> String {
        let mut sheet = Sheet::default();
        for node in nodes {
            sheet.add(Name::NodeTunnels(None, NodeId::parse(node).unwrap()), 2);
            sheet.add(
                Name::NodeTunnels(
                    Some(eddy_core::identity::WorkerId(0)),
                    NodeId::parse(node).unwrap(),
                ),
                2,
            );
        }
        sheet.add(Name::Opened, 7);
        let about = About {
            role: "responder",
            node: "hub",
            cluster: "hubs",
            began: 1.5,
            draining: false,
            max_series,
        };
        render(&about, &sheet).unwrap()
    }

    #[test]
    fn identities_are_labels_and_whatever_they_hold_is_escaped() {
        let page = page(10, &["a\"b\\c", "a:b.c"]);
        for line in [
            "# HELP eddy_node_tunnels Tunnels of one node at a responder.",
            "# TYPE eddy_node_tunnels gauge",
            "eddy_node_tunnels{node=\"a\\\"b\\\\c\"} 2",
            "eddy_node_tunnels{node=\"a:b.c\"} 2",
            "# TYPE eddy_tunnels_opened_total counter",
            "eddy_tunnels_opened_total 7",
            "eddy_start_time_seconds 1.5",
            "eddy_series_dropped 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
    }

    #[test]
    fn series_above_the_cap_are_left_out_and_counted() {
        let page = page(1, &["a", "b", "c"]);
        assert!(page.contains("eddy_node_tunnels{node=\"a\"} 2\n"), "{page}");
        assert!(!page.contains("node=\"b\""), "{page}");
        assert!(page.contains("eddy_series_dropped 2\n"), "{page}");
    }
}
