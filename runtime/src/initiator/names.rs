//! Which addresses the upstream clusters have: asked at the start, again after a while, and again when a dial
//! failed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use eddy_core::identity::ClusterName;
use tokio::sync::mpsc;

use super::Message;
use crate::config::{HostPort, InitiatorConfig};
use crate::net::Network;

/// The least time between two looks at the same names, however many dials fail.
const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// The address of a host that is written as one.
pub(super) fn literal(host: &HostPort) -> Option<SocketAddr> {
    host.host
        .parse::<IpAddr>()
        .ok()
        .map(|ip| SocketAddr::new(ip, host.port))
}

/// Tells all workers the hosts of every upstream cluster, for as long as the process runs.
pub(super) async fn run<N: Network>(
    net: N,
    config: Arc<InitiatorConfig>,
    workers: Vec<mpsc::UnboundedSender<Message>>,
    mut stale: mpsc::UnboundedReceiver<ClusterName>,
) {
    let dialed: BTreeSet<_> = config.tunnels.iter().map(|t| t.address.cluster.clone()).collect();
    let mut known: BTreeMap<ClusterName, Vec<SocketAddr>> = BTreeMap::new();
    loop {
        let mut named = false;
        for name in &dialed {
            let Some(cluster) = config.clusters.get(name) else {
                continue;
            };
            named |= cluster.hosts.iter().any(|host| literal(host).is_none());
            let Some(hosts) = resolve(&net, &cluster.hosts).await else {
                tracing::warn!(cluster = %name, "no address for its hosts; the last known stay");
                continue;
            };
            if known.get(name) != Some(&hosts) {
                say_how_many(&config, name, &hosts);
                for worker in &workers {
                    // A worker that is gone needs no hosts.
                    let _ = worker.send(Message::Hosts(name.clone(), hosts.clone()));
                }
                known.insert(name.clone(), hosts);
            }
        }
        if !named {
            return;
        }
        tokio::time::sleep(LOOK_PAUSE).await;
        while stale.try_recv().is_ok() {}
        let rest = config.dial.dns_refresh.saturating_sub(LOOK_PAUSE);
        tokio::select! {
            biased;
            _ = stale.recv() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// States the final number, which surprises people where it is a product (field-notes.md, Envoy #46169).
fn say_how_many(config: &InitiatorConfig, cluster: &ClusterName, hosts: &[SocketAddr]) {
    for tunnel in config.tunnels.iter().filter(|t| t.address.cluster == *cluster) {
        let workers = if tunnel.per_worker {
            u32::from(config.workers)
        } else {
            1
        };
        let (count, hosts) = (tunnel.address.count, hosts.len());
        let total = u64::from(count) * u64::from(workers) * hosts as u64;
        let node = &tunnel.address.identity.node;
        tracing::info!(%cluster, %node, hosts, count, per_worker = tunnel.per_worker, total, "keeping tunnels");
    }
}

/// Every address of every host; `None` if a name that has never been resolved leaves us with nothing.
async fn resolve<N: Network>(net: &N, hosts: &[HostPort]) -> Option<Vec<SocketAddr>> {
    let mut found = BTreeSet::new();
    for host in hosts {
        match literal(host) {
            Some(addr) => {
                found.insert(addr);
            }
            None => match net.resolve(&host.host, host.port).await {
                Ok(addresses) => found.extend(addresses),
                Err(error) => {
                    tracing::warn!(name = host.host, %error, "cannot resolve");
                    return None;
                }
            },
        }
    }
    Some(found.into_iter().collect()).filter(|found: &Vec<_>| !found.is_empty())
}
