//! How the numbers are spelt: every name can be read back, so no two numbers share one, whatever is in the ids.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use eddy_core::close::CloseReason;
use eddy_core::identity::{ClusterId, ClusterName, NodeId, WorkerId};
use eddy_core::router::Refusal;
use eddy_core::stats::{DialState, Hop, Http, Name, Ping, Sheet};
use proptest::prelude::*;
use proptest::sample::select;

const PREFIX: &str = "p";

/// Ids made of what the names are made of.
fn id() -> impl Strategy<Value = String> {
    let part = select(vec![
        "a",
        "result",
        "success",
        "failed",
        "failure_reason",
        "connected",
        "draining",
        "cluster",
        "worker_0",
        "tunnels",
        "%",
        "%2E",
        "%3A",
        "käse",
        "",
    ]);
    let parts = prop::collection::vec((part, select(vec![".", ":", ""])), 1..8);
    let text = parts.prop_map(|parts| {
        parts
            .iter()
            .map(|(part, sign)| format!("{part}{sign}"))
            .collect::<String>()
    });
    text.prop_filter("an id", |text| NodeId::parse(text).is_ok())
}

/// A host has no flow label: what differs in that alone is the same host.
fn host() -> impl Strategy<Value = SocketAddr> {
    any::<SocketAddr>().prop_map(|mut host| {
        if let SocketAddr::V6(host) = &mut host {
            host.set_flowinfo(0);
        }
        host
    })
}

fn name() -> impl Strategy<Value = Name> {
    let worker = || (0..3u16).prop_map(WorkerId);
    let on = || prop::option::of(worker());
    let state = || select(DialState::ALL.to_vec());
    let up = || id().prop_map(|text| ClusterName::parse(&text).unwrap());
    let cluster = || id().prop_map(|text| ClusterId::parse(&text).unwrap());
    let node = || id().prop_map(|text| NodeId::parse(&text).unwrap());
    prop_oneof![
        (on(), host(), state()).prop_map(|(on, host, state)| Name::HostTunnels(on, host, state)),
        (on(), up(), state()).prop_map(|(on, cluster, state)| Name::UpstreamTunnels(on, cluster, state)),
        (worker(), up()).prop_map(|(worker, cluster)| Name::HandshakeSucceeded(worker, cluster)),
        (worker(), up(), id()).prop_map(|(worker, cluster, why)| Name::HandshakeFailed(worker, cluster, why)),
        (on(), node()).prop_map(|(on, node)| Name::NodeTunnels(on, node)),
        (on(), cluster()).prop_map(|(on, cluster)| Name::ClusterTunnels(on, cluster)),
        (cluster(), node()).prop_map(|(cluster, node)| Name::IdentityTunnels(cluster, node)),
        worker().prop_map(Name::TotalNodes),
        worker().prop_map(Name::TotalClusters),
    ]
}

/// The numbers whose names have no id in them.
fn plain_names() -> Vec<Name> {
    let mut names = vec![
        Name::Duplicates,
        Name::DirectoryRepaired,
        Name::Nodes,
        Name::Clusters,
        Name::NodesShared,
        Name::Wanted,
        Name::RecordsLost("access_log"),
        Name::RecordsLost("traces"),
        Name::LogLinesLost,
        Name::Opened,
        Name::Open,
        Name::Handshake("accepted"),
        Name::Handshake("rejected"),
    ];
    names.extend([Ping::Sent, Ping::Echoed, Ping::Missed].map(Name::Ping));
    names.extend(CloseReason::ALL.map(Name::Closed));
    for hop in [Hop::Egress, Hop::Service] {
        names.extend(
            [Http::Requests, Http::InFlight, Http::Truncated, Http::ClientGone]
                .map(|http| Name::Http(hop, http)),
        );
        names.extend((1..6).map(|class| Name::Http(hop, Http::Responses(class))));
        names.extend(Refusal::ALL.map(|why| Name::Http(hop, Http::Refused(why))));
    }
    names
}

fn unescape(text: &str) -> String {
    text.replace("%2E", ".").replace("%3A", ":").replace("%25", "%")
}

/// What a name is the name of.
fn read_back(name: &str) -> Option<Name> {
    let up = |text: &str| ClusterName::parse(text).ok();
    let cluster = |text: &str| ClusterId::parse(text).ok();
    let node = |text: &str| NodeId::parse(text).ok();
    let worker = |text: &str| Some(WorkerId(text.strip_prefix("worker_")?.parse().ok()?));
    let state = |text: &str| DialState::ALL.into_iter().find(|state| state.label() == text);
    let rest = name.strip_prefix(PREFIX)?.strip_prefix('.')?;
    let (first, behind) = rest.split_once('.')?;
    match first {
        "nodes" => return Some(Name::NodeTunnels(None, node(behind)?)),
        "clusters" => return Some(Name::ClusterTunnels(None, cluster(behind)?)),
        "tunnels" => {
            let (of, who) = behind.split_once(':')?;
            return Some(Name::IdentityTunnels(cluster(&unescape(of))?, node(who)?));
        }
        "handshake" => {
            let (on, behind) = behind.strip_prefix("worker.")?.split_once(".cluster.")?;
            let (to, result) = behind.rsplit_once(".result.")?;
            return Some(match result.strip_prefix("failed.failure_reason.") {
                None => Name::HandshakeSucceeded(worker(on)?, up(to)?),
                Some(why) => Name::HandshakeFailed(worker(on)?, up(to)?, unescape(why)),
            });
        }
        _ => {}
    }
    let on = worker(first);
    let (kind, behind) = if on.is_some() {
        behind.split_once('.').unwrap_or((behind, ""))
    } else {
        (first, behind)
    };
    let dialed = behind
        .rsplit_once('.')
        .and_then(|(of, last)| Some((of, state(last)?)));
    match (kind, on, dialed) {
        ("host", on, Some((host, state))) => Some(Name::HostTunnels(on, host.parse().ok()?, state)),
        ("cluster", on, Some((to, state))) => Some(Name::UpstreamTunnels(on, up(to)?, state)),
        ("cluster", Some(_), None) => Some(Name::ClusterTunnels(on, cluster(&unescape(behind))?)),
        ("node", Some(_), _) => Some(Name::NodeTunnels(on, node(behind)?)),
        ("total_nodes", Some(on), _) => Some(Name::TotalNodes(on)),
        ("total_clusters", Some(on), _) => Some(Name::TotalClusters(on)),
        _ => None,
    }
}

#[test]
fn names_without_ids_are_distinct_and_none_can_be_taken_for_one_with_an_id() {
    let names = plain_names();
    let spelt: BTreeSet<_> = names.iter().map(|name| name.spell("reverse_tunnel")).collect();
    assert_eq!(spelt.len(), names.len());
    let prefixed = spelt
        .iter()
        .filter_map(|name| name.strip_prefix("reverse_tunnel"));
    for rest in prefixed {
        assert_eq!(read_back(&format!("{PREFIX}{rest}")), None, "{rest}");
    }
}

proptest! {
    #[test]
    fn every_name_can_be_read_back(name in name()) {
        let spelt = name.spell(PREFIX);
        prop_assert_eq!(read_back(&spelt), Some(name), "{}", spelt);
    }

    /// An id of what Envoy's own examples have is spelt as Envoy spells it.
    #[test]
    fn plain_ids_stand_as_they_are(text in "[a-z0-9_-]{1,9}(\\.[0-9a-b-]{1,9}){0,2}", worker in 0..9u16) {
        let (node, cluster) = (NodeId::parse(&text).unwrap(), ClusterId::parse(&text).unwrap());
        let worker = WorkerId(worker);
        let spell = |name: Name| name.spell(PREFIX);
        prop_assert_eq!(spell(Name::NodeTunnels(None, node.clone())), format!("p.nodes.{text}"));
        prop_assert_eq!(spell(Name::NodeTunnels(Some(worker), node.clone())), format!("p.{worker}.node.{text}"));
        prop_assert_eq!(spell(Name::ClusterTunnels(None, cluster.clone())), format!("p.clusters.{text}"));
        let on_worker = Name::ClusterTunnels(Some(worker), cluster.clone());
        prop_assert_eq!(spell(on_worker), format!("p.{worker}.cluster.{text}"));
        prop_assert_eq!(spell(Name::IdentityTunnels(cluster, node)), format!("p.tunnels.{text}:{text}"));
    }

    /// Sheets add up in any order and grouping; the lines are sorted, each is there once, and hiding only hides.
    #[test]
    fn sheets_add_up(numbers in prop::collection::vec((name(), 0..9u64), 0..40), cut in 0..40usize) {
        let fill = |numbers: &[(Name, u64)]| {
            let mut sheet = Sheet::default();
            numbers.iter().for_each(|(name, n)| sheet.add(name.clone(), *n));
            sheet
        };
        let whole = fill(&numbers);
        let (left, right) = numbers.split_at(cut.min(numbers.len()));
        let (mut one, mut other) = (fill(left), fill(right));
        one.merge(&fill(right));
        other.merge(&fill(left));
        prop_assert_eq!((&one, &other), (&whole, &whole));
        let total: u64 = numbers.iter().map(|(_, n)| n).sum();
        let all = whole.lines(PREFIX, true);
        prop_assert_eq!(all.iter().map(|(_, n)| n).sum::<u64>(), total);
        prop_assert!(all.windows(2).all(|pair| pair[0].0 < pair[1].0));
        let shown = whole.lines(PREFIX, false);
        let shows = |(name, n): &(&Name, u64)| !name.is_hidden(*n);
        let expected: BTreeSet<_> = whole.iter().filter(shows).map(|(name, n)| (name.spell(PREFIX), n)).collect();
        prop_assert_eq!(shown, expected.into_iter().collect::<Vec<_>>());
    }
}
