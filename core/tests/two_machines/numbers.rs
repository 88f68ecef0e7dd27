//! The numbers of both sides, filled from the machines as the runtime fills them, and what they must be at rest.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use eddy_core::identity::ClusterName;
use eddy_core::initiator::Initiator;
use eddy_core::registry::Registry;
use eddy_core::stats::{DialState, Name, Sheet};

/// Name to value, of everything that a `/stats` can show.
pub(crate) type Lines = BTreeMap<String, u64>;

pub(crate) fn of_initiator(machine: &Initiator) -> Lines {
    let mut sheet = Sheet::default();
    for view in machine.hosts() {
        let counts = [view.connecting, view.connected, view.backing_off, view.draining];
        for (state, count) in DialState::ALL.into_iter().zip(counts) {
            sheet.add(Name::HostTunnels(None, view.host, state), count.into());
            sheet.add(
                Name::UpstreamTunnels(None, view.cluster.clone(), state),
                count.into(),
            );
        }
    }
    lines(&sheet)
}

pub(crate) fn of_responder<'r>(registries: impl Iterator<Item = &'r Registry>) -> Lines {
    let mut whole = Sheet::default();
    for registry in registries {
        let mut sheet = Sheet::default();
        for (_, tunnel) in registry.tunnels() {
            let (node, cluster) = (tunnel.identity.node.clone(), tunnel.identity.cluster.clone());
            sheet.add(Name::NodeTunnels(None, node.clone()), 1);
            sheet.add(Name::ClusterTunnels(None, cluster.clone()), 1);
            sheet.add(Name::IdentityTunnels(cluster, node), 1);
        }
        let ended: u64 = registry.closed().by_reason().values().sum();
        assert_eq!(
            registry.opened_total(),
            ended + registry.tunnels().count() as u64,
            "each ends once"
        );
        whole.merge(&sheet);
    }
    lines(&whole)
}

fn lines(sheet: &Sheet) -> Lines {
    sheet.lines("p", true).into_iter().collect()
}

/// What an initiator shows that has a tunnel to each of these hosts, under a cluster each, and nothing else.
pub(crate) fn dialed_at_rest(tunnels: impl Iterator<Item = (SocketAddr, ClusterName)>) -> Lines {
    let mut lines = Lines::new();
    for (host, cluster) in tunnels {
        for state in DialState::ALL.map(DialState::label) {
            let count = u64::from(state == "connected");
            *lines.entry(format!("p.host.{host}.{state}")).or_default() += count;
            *lines.entry(format!("p.cluster.{cluster}.{state}")).or_default() += count;
        }
    }
    lines
}

/// What a responder shows that has so many tunnels of each node.
pub(crate) fn accepted_at_rest<'w>(nodes: impl Iterator<Item = (&'w str, u32)>) -> Lines {
    let mut lines = Lines::new();
    for (node, count) in nodes.filter(|(_, count)| *count > 0) {
        for name in [
            format!("p.nodes.{node}"),
            "p.clusters.edges".into(),
            format!("p.tunnels.edges:{node}"),
        ] {
            *lines.entry(name).or_default() += u64::from(count);
        }
    }
    lines
}
