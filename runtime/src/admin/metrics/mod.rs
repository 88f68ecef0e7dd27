//! `/metrics`: the same numbers as `/stats`, in Prometheus' text format, with identities as labels.

mod series;

use std::collections::BTreeMap;
use std::sync::Arc;

use eddy_core::histogram;
use eddy_core::identity::Identity;
use eddy_core::stats::{Name, Sheet};
use eddy_core::timings::{Timing, Timings};
use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use self::series::{series, timing};

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
pub(super) fn render(
    about: &About<'_>,
    sheet: &Sheet,
    identities: &BTreeMap<Arc<Identity>, u64>,
    timings: &Timings,
) -> Result<String, prometheus::Error> {
    let mut page = Page::default();
    page.tell(about);
    // Where there is not room for all: clusters and hosts come first, then nodes, identities last.
    let mut room = Room::of(about.max_series);
    for late in [false, true] {
        let now = sheet
            .iter()
            .filter(|(name, _)| matches!(name, Name::NodeTunnels(..)) == late);
        for (name, value) in now {
            if let Some((family, labels)) = series(name)
                && (!is_of_a_peer(name) || room.take())
            {
                page.add(family, labels, value);
            }
        }
    }
    for (identity, count) in identities {
        if room.take() {
            page.add(IDENTITY, labels_of(identity), *count);
        }
    }
    let dropped = room.missing;
    page.add(DROPPED, vec![], dropped);
    for (what, histogram) in timings.iter() {
        page.histogram(what, histogram);
    }
    let mut families = page.families();
    // What the operating system says of the process, under the names that all programs have for it.
    families.extend(ProcessCollector::for_self().collect());
    TextEncoder::new().encode_to_string(&families)
}

/// How many more series of single peers there may be.
struct Room {
    left: u32,
    missing: u64,
}

impl Room {
    const fn of(series: u32) -> Self {
        Self {
            left: series,
            missing: 0,
        }
    }

    /// Whether there is room for one more.
    const fn take(&mut self) -> bool {
        let there_is = self.left > 0;
        if there_is {
            self.left -= 1;
        } else {
            self.missing += 1;
        }
        there_is
    }
}

const IDENTITY: Family = (
    "eddy_identity_tunnels",
    MetricType::GAUGE,
    "Tunnels of one node in one cluster of one tenant at a responder.",
);

fn labels_of(
    Identity {
        tenant,
        cluster,
        node,
    }: &Identity,
) -> Labels {
    vec![
        ("tenant", tenant.to_string()),
        ("cluster", cluster.to_string()),
        ("node", node.to_string()),
    ]
}

const DROPPED: Family = (
    "eddy_series_dropped",
    MetricType::GAUGE,
    "Series of single nodes, clusters and hosts that are left out, as there are more than stats.max_series.",
);

/// Whether there are as many series as peers.
const fn is_of_a_peer(name: &Name) -> bool {
    matches!(
        name,
        Name::HostTunnels(..) | Name::UpstreamTunnels(..) | Name::NodeTunnels(..) | Name::ClusterTunnels(..)
    )
}

/// One series.
enum Sample {
    Number(u64),
    Real(f64),
    Histogram(Histogram),
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
            Sample::Real(_) | Sample::Histogram(_) => {}
        }
    }

    fn put(&mut self, family: Family, labels: Labels, sample: Sample) {
        self.group(family).series.insert(labels, sample);
    }

    fn histogram(&mut self, what: Timing, timed: &histogram::Histogram) {
        let (family, labels) = timing(what);
        let buckets = timed.cumulative().map(|(bound, within)| {
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(bound.as_secs_f64());
            bucket.set_cumulative_count(within);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(timed.count());
        histogram.set_sample_sum(timed.sum().as_secs_f64());
        self.put(family, labels, Sample::Histogram(histogram));
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
        Sample::Histogram(histogram) => {
            metric.set_histogram(histogram);
            return metric;
        }
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
    use std::time::Duration;

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
        let mut timings = Timings::default();
        timings.record(Timing::Dial, Duration::from_millis(3));
        timings.record(Timing::Dial, Duration::from_secs(9));
        render(&about, &sheet, &BTreeMap::new(), &timings).unwrap()
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
            "# TYPE eddy_dial_duration_seconds histogram",
            "eddy_dial_duration_seconds_bucket{le=\"0.001\"} 0",
            "eddy_dial_duration_seconds_bucket{le=\"0.005\"} 1",
            "eddy_dial_duration_seconds_bucket{le=\"+Inf\"} 2",
            "eddy_dial_duration_seconds_sum 9.003",
            "eddy_dial_duration_seconds_count 2",
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
