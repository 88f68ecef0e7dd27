//! What is shipped for Prometheus and Grafana is accepted by Prometheus' own tool, and asks for nothing that Eddy does not have.
//!
//! `$EDDY_PROMTOOL` is promtool, `none` where there is none, or what `.ci/install-promtool` unpacked.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kit/mod.rs"]
mod kit;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use kit::{Pair, get};
use serde_json::Value;

const GUIDE: &str = include_str!("../docs/operations.md");
const ALERTS: &str = include_str!("../docs/alerts.yaml");
const DASHBOARD: &str = include_str!("../docs/dashboard.json");

fn promtool() -> Option<PathBuf> {
    let cached = || {
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/eddy");
        let cache = std::env::var_os("XDG_CACHE_HOME").map(|dir| PathBuf::from(dir).join("eddy"));
        cache.unwrap_or_else(home).join("promtool/usr/bin/promtool")
    };
    let path = std::env::var_os("EDDY_PROMTOOL").map_or_else(cached, PathBuf::from);
    if path.as_os_str() == "none" {
        eprintln!("NOT TESTED: there is no promtool here (EDDY_PROMTOOL=none)");
        return None;
    }
    assert!(
        path.exists(),
        "nothing at {}: run .ci/install-promtool",
        path.display()
    );
    Some(path)
}

/// Runs promtool in `docs`.
fn accepts(arguments: &[&str], input: &str) {
    let Some(promtool) = promtool() else { return };
    let mut tool = Command::new(promtool)
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/docs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    tool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let ended = tool.wait_with_output().unwrap();
    let said = [ended.stdout, ended.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(ended.status.success(), "{arguments:?}: {}", said.concat());
}

#[test]
fn promtool_accepts_the_pages_of_both_roles() {
    let pair = Pair::start();
    pair.assert_good();
    for admin in [pair.responder_admin, pair.initiator_admin] {
        accepts(&["check", "metrics"], &get(admin, "/metrics", &[]).body);
    }
}

#[test]
fn promtool_accepts_the_rules_and_each_alert_fires_when_it_should() {
    accepts(&["check", "rules", "alerts.yaml"], "");
    accepts(&["test", "rules", "alerts-test.yaml"], "");
}

/// Every word that could be a metric of ours.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("eddy_")).collect()
}

#[test]
fn rules_and_dashboard_ask_for_what_there_is() {
    let known = |metric: &str| {
        let family = ["_bucket", "_count", "_sum"]
            .iter()
            .find_map(|end| metric.strip_suffix(end))
            .unwrap_or(metric);
        [metric, family]
            .iter()
            .any(|name| GUIDE.contains(&format!("| `{name}`")))
    };
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut asked = metrics_in(ALERTS);
    let expressions = expressions(&dashboard);
    asked.extend(expressions.iter().flat_map(|expression| metrics_in(expression)));
    assert!(asked.len() > 20, "{asked:?}");
    let unknown: Vec<_> = asked.into_iter().filter(|metric| !known(metric)).collect();
    assert_eq!(unknown, [""; 0], "not in docs/operations.md");
}

/// The queries of a dashboard, at any depth.
fn expressions(value: &Value) -> Vec<String> {
    if let Some(fields) = value.as_object() {
        let own = fields.get("expr").and_then(Value::as_str).map(str::to_owned);
        own.into_iter()
            .chain(fields.values().flat_map(expressions))
            .collect()
    } else {
        value
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(expressions)
            .collect()
    }
}

/// An operator comes from the words of a log, a metric or a page: each must be explained.
#[test]
fn every_reason_is_explained_in_the_guide() {
    let closes = eddy_core::close::CloseReason::ALL.map(|why| why.label());
    let refusals = eddy_core::router::Refusal::ALL.map(|why| why.label());
    let missing: Vec<_> = closes
        .into_iter()
        .chain(refusals)
        .filter(|reason| !GUIDE.contains(&format!("| `{reason}`")))
        .collect();
    assert_eq!(missing, [""; 0], "not in docs/operations.md");
}
