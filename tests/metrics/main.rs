//! The numbers of real processes in every form in which they are asked for: they say the same, and Prometheus understands.
//!
//! `$EDDY_PROMETHEUS_CLIENT` is the folder of Prometheus' Python client, or what `.ci/install-prometheus-client` fetched.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test that cannot go on fails; it measures real time"
)]

#[path = "../kit/mod.rs"]
mod kit;
mod truth;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use kit::{Options, Pair, get, stats, wait_for};
use serde_json::Value;

/// Reads the page with Prometheus' own parser: for each sample its family's type, its name, labels and value.
const PARSER: &str = "\
import json, sys
from prometheus_client.parser import text_string_to_metric_families as families
for family in families(sys.stdin.read()):
    assert family.documentation and family.type in ('counter', 'gauge', 'histogram'), family
    for sample in family.samples:
        print(json.dumps([family.type, sample.name, sample.labels, sample.value]))
";

fn client() -> PathBuf {
    let given = std::env::var_os("EDDY_PROMETHEUS_CLIENT").map(PathBuf::from);
    let cache = || {
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/eddy");
        let cache = std::env::var_os("XDG_CACHE_HOME").map(|dir| PathBuf::from(dir).join("eddy"));
        cache.unwrap_or_else(home).join("prometheus-client-0.22.1")
    };
    let path = given.unwrap_or_else(cache);
    let there = path.join("prometheus_client").exists();
    assert!(
        there,
        "nothing at {}: run .ci/install-prometheus-client",
        path.display()
    );
    path
}

/// The samples of a process, by name and labels.
pub(crate) fn samples(admin: u16) -> BTreeMap<String, f64> {
    let answer = get(admin, "/metrics", &[]);
    assert_eq!(answer.status, 200);
    let version = Some("text/plain; version=0.0.4; charset=utf-8");
    assert_eq!(answer.header("content-type"), version);
    let mut parser = Command::new("python3")
        .args(["-c", PARSER])
        .env("PYTHONPATH", client())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    parser
        .stdin
        .take()
        .unwrap()
        .write_all(answer.body.as_bytes())
        .unwrap();
    let parsed = parser.wait_with_output().unwrap();
    assert!(parsed.status.success(), "{}", answer.body);
    let lines = String::from_utf8(parsed.stdout).unwrap();
    let samples = lines.lines().map(|line| {
        let sample: (String, String, BTreeMap<String, String>, f64) = serde_json::from_str(line).unwrap();
        let (kind, name, labels, value) = sample;
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        let labels: Vec<_> = labels
            .iter()
            .map(|(label, value)| format!("{label}={value}"))
            .collect();
        (format!("{name}{{{}}}", labels.join(",")), value)
    });
    samples.collect()
}

fn of(samples: &BTreeMap<String, f64>, name: &str) -> i64 {
    let value = samples
        .get(name)
        .unwrap_or_else(|| panic!("no {name} in {samples:?}"));
    value.to_string().parse().unwrap()
}

#[test]
fn prometheus_json_and_text_say_the_same_on_both_sides() {
    let pair = Pair::with(Options {
        workers: 2,
        count: 3,
        ..Options::default()
    });
    (0..20).for_each(|_| pair.assert_good());
    wait_for("the initiator's tunnels", || {
        (stats(pair.initiator_admin).get("reverse_tunnel.open") == Some(&3)).then_some(())
    });
    for (admin, hop) in [
        (pair.responder_admin, "egress"),
        (pair.initiator_admin, "service"),
    ] {
        // Pings move while we look.
        let text = stats(admin);
        let prometheus = samples(admin);
        for (line, sample) in [
            ("reverse_tunnel.open".to_owned(), "eddy_tunnels_open{}".to_owned()),
            (
                "reverse_tunnel.opened".into(),
                "eddy_tunnels_opened_total{}".into(),
            ),
            (
                format!("{hop}.requests"),
                format!("eddy_requests_total{{hop={hop}}}"),
            ),
            (
                format!("{hop}.in_flight"),
                format!("eddy_requests_in_flight{{hop={hop}}}"),
            ),
            (
                format!("{hop}.responses.2xx"),
                format!("eddy_responses_total{{class=2xx,hop={hop}}}"),
            ),
        ] {
            assert_eq!(text[&line], of(&prometheus, &sample), "{line}");
        }
        let json: Value =
            serde_json::from_str(&get(admin, "/stats?format=json&hidden=include", &[]).body).unwrap();
        let names: Vec<_> = json["stats"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stat| &stat["name"])
            .collect();
        assert_eq!(names, text.keys().collect::<Vec<_>>());
        assert_eq!(get(admin, "/stats?format=prometheus", &[]).status, 200);
        assert_eq!(get(admin, "/stats/prometheus", &[]).status, 200);
    }
    let responder = samples(pair.responder_admin);
    assert_eq!(of(&responder, "eddy_node_tunnels{node=edge}"), 3);
    assert_eq!(
        of(
            &responder,
            "eddy_identity_tunnels{cluster=edges,node=edge,tenant=acme}"
        ),
        3
    );
    assert_eq!(of(&responder, "eddy_handshakes_total{outcome=accepted}"), 3);
    assert_eq!(of(&responder, "eddy_series_dropped{}"), 0);
    let initiator = samples(pair.initiator_admin);
    assert_eq!(
        of(&initiator, "eddy_upstream_tunnels{cluster=hub,state=connected}"),
        3
    );
    assert_eq!(of(&initiator, "eddy_dials_total{cluster=hub,outcome=success}"), 3);
}

#[test]
fn a_series_vanishes_with_its_node_and_the_reason_is_counted() {
    let pair = Pair::start();
    pair.assert_good();
    pair.initiator.signal("KILL");
    let after = wait_for("the tunnel to go", || {
        Some(samples(pair.responder_admin)).filter(|now| now["eddy_tunnels_open{}"] == 0.0)
    });
    assert!(!after.keys().any(|name| name.contains("node=edge")), "{after:?}");
    let closed: f64 = after
        .iter()
        .filter(|(name, _)| name.starts_with("eddy_tunnels_closed_total{"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(closed.to_string(), "1");
}

#[test]
fn every_family_is_documented() {
    let guide = include_str!("../../docs/operations.md");
    let pair = Pair::start();
    for admin in [pair.responder_admin, pair.initiator_admin] {
        for line in get(admin, "/metrics", &[]).body.lines() {
            if let Some(family) = line.strip_prefix("# TYPE ") {
                let name = family.split(' ').next().unwrap();
                if name.starts_with("process_") {
                    continue;
                }
                assert!(
                    guide.contains(&format!("| `{name}`")),
                    "{name} is not in docs/operations.md"
                );
            }
        }
    }
}

#[test]
fn a_form_that_is_none_is_refused() {
    let pair = Pair::start();
    let answer = get(pair.responder_admin, "/stats?format=xml", &[]);
    let allowed = "format: \"xml\" is unknown; allowed: text, json, prometheus\n";
    assert_eq!((answer.status, answer.body.as_str()), (400, allowed));
}

/// An operator who meets an outcome of a handshake finds it in the guide.
#[test]
fn every_outcome_of_a_handshake_is_explained_in_the_guide() {
    let guide = include_str!("../../docs/operations.md");
    let (_, section) = guide.split_once("### How a handshake ended\n").unwrap();
    let (section, _) = section.split_once("\n### ").unwrap();
    let pair = Pair::start();
    let stats = stats(pair.responder_admin);
    let outcomes = stats
        .keys()
        .filter_map(|name| name.strip_prefix("reverse_tunnel.handshake."));
    let counted: std::collections::BTreeSet<_> = outcomes.collect();
    let rows = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let explained: std::collections::BTreeSet<_> = rows.map(|(outcome, _)| outcome).collect();
    assert_eq!(counted, explained);
}
