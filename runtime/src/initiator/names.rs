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
pub(super) const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// The address of a host that is written as one.
pub(super) fn literal(host: &HostPort) -> Option<SocketAddr> {
    host.host
        .parse::<IpAddr>()
        .ok()
        .map(|ip| SocketAddr::new(ip, host.port))
}

/// Replaces the known addresses of the family that was found; those of the other family stay.
pub(super) fn replace_family(known: &mut Vec<SocketAddr>, found: Vec<SocketAddr>) {
    known.retain(|old| found.iter().all(|new| new.is_ipv4() != old.is_ipv4()));
    known.extend(found);
}

/// The last known addresses of each host, so that a name that cannot be resolved for a while keeps what it had.
#[derive(Debug, Default)]
struct Book(BTreeMap<(String, u16), Vec<SocketAddr>>);

impl Book {
    fn learn(&mut self, host: &HostPort, found: Vec<SocketAddr>) {
        self.0.insert((host.host.clone(), host.port), found);
    }

    /// Of an answer that tells the addresses of one family: those of the other stay.
    fn learn_half(&mut self, host: &HostPort, found: Vec<SocketAddr>) {
        let known = self.0.entry((host.host.clone(), host.port)).or_default();
        replace_family(known, found);
    }

    fn knows(&self, host: &HostPort) -> bool {
        self.0
            .get(&(host.host.clone(), host.port))
            .is_some_and(|known| !known.is_empty())
    }

    /// Every address of every host, each once.
    fn addresses(&self, hosts: &[HostPort]) -> Vec<SocketAddr> {
        let known = hosts
            .iter()
            .filter_map(|host| self.0.get(&(host.host.clone(), host.port)));
        known
            .flatten()
            .copied()
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }
}

/// Tells all workers the hosts of every upstream cluster, for as long as the process runs.
pub(super) async fn run<N: Network>(
    net: N,
    config: Arc<InitiatorConfig>,
    workers: Vec<mpsc::UnboundedSender<Message>>,
    mut stale: mpsc::UnboundedReceiver<ClusterName>,
) {
    let dialed: BTreeSet<_> = config.tunnels.iter().map(|t| &t.address.cluster).collect();
    let clusters: Vec<_> = dialed
        .into_iter()
        .filter_map(|name| Some((name, &config.clusters.get(name)?.hosts)))
        .collect();
    let hosts = || clusters.iter().flat_map(|(_, hosts)| hosts.iter());
    let named: Vec<_> = hosts().filter(|host| literal(host).is_none()).collect();
    let mut book = Book::default();
    let mut fresh_for = BTreeMap::new();
    let mut told: BTreeMap<&ClusterName, Vec<SocketAddr>> = BTreeMap::new();
    let mut tell = |book: &Book| {
        for (name, hosts) in &clusters {
            let addresses = book.addresses(hosts);
            if !addresses.is_empty() && told.get(name) != Some(&addresses) {
                say_how_many(&config, name, &addresses);
                for worker in &workers {
                    // A worker that is gone needs no hosts.
                    let _ = worker.send(Message::Hosts((*name).clone(), addresses.clone()));
                }
                told.insert(name, addresses);
            }
        }
    };
    hosts().for_each(|host| book.learn(host, literal(host).into_iter().collect()));
    tell(&book);
    while !named.is_empty() {
        for host in &named {
            if let Some(fresh) = look_up(&net, host, &mut book).await {
                fresh_for.insert((&host.host, host.port), fresh);
            }
            // At once: the next name may take its time.
            tell(&book);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
        while stale.try_recv().is_ok() {}
        // Nobody dials a name that was never resolved, so nobody will ask for it again.
        let complete = named.iter().all(|host| book.knows(host));
        let rest = if complete {
            let first = fresh_for.values().copied().min();
            let refresh = config.dial.dns_refresh;
            first
                .map_or(refresh, |first| first.min(refresh))
                .saturating_sub(LOOK_PAUSE)
        } else {
            Duration::ZERO
        };
        tokio::select! {
            biased;
            _ = stale.recv() => {}
            () = tokio::time::sleep(rest) => {}
        }
    }
}

/// Says how long the answer holds, if that is known.
async fn look_up<N: Network>(net: &N, host: &HostPort, book: &mut Book) -> Option<Duration> {
    match net.resolve(&host.host, host.port).await {
        Ok(found) if !found.addresses.is_empty() => {
            if found.is_whole {
                book.learn(host, found.addresses);
            } else {
                tracing::warn!(name = host.host, "half an answer; the last known stay");
                book.learn_half(host, found.addresses);
            }
            return found.fresh_for;
        }
        Ok(_) => tracing::warn!(name = host.host, "has no address; the last known stay"),
        Err(error) => tracing::warn!(name = host.host, %error, "cannot resolve; the last known stay"),
    }
    None
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
        let node = tunnel.address.identity.node.as_str();
        tracing::info!(
            cluster = cluster.as_str(),
            node,
            hosts,
            count,
            per_worker = tunnel.per_worker,
            total,
            "keeping tunnels"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostPort {
        HostPort {
            host: name.into(),
            port: 1,
        }
    }

    fn addr(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 1))
    }

    #[test]
    fn a_name_that_cannot_be_resolved_hides_no_other_and_keeps_what_it_had() {
        let (a, b) = (host("a"), host("b"));
        let hosts = [a.clone(), b.clone()];
        let mut book = Book::default();
        book.learn(&a, vec![addr(2), addr(1)]);
        assert_eq!(
            book.addresses(&hosts),
            [addr(1), addr(2)],
            "b is missing, a is dialed"
        );
        assert!(book.knows(&a) && !book.knows(&b));
        book.learn(&b, vec![addr(2), addr(3)]);
        assert_eq!(book.addresses(&hosts), [addr(1), addr(2), addr(3)], "each once");
        book.learn(&a, vec![addr(9)]);
        assert_eq!(book.addresses(&hosts), [addr(2), addr(3), addr(9)]);
    }

    #[test]
    fn half_an_answer_leaves_the_other_half_as_it_was() {
        let a = host("a");
        let hosts = [a.clone()];
        let v6 = SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 1));
        let mut book = Book::default();
        book.learn(&a, vec![addr(1), v6]);
        book.learn_half(&a, vec![addr(2)]);
        assert_eq!(book.addresses(&hosts), [addr(2), v6]);
    }

    #[test]
    fn an_address_needs_no_resolver() {
        assert_eq!(
            literal(&host("::1")),
            Some(SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 1)))
        );
        assert_eq!(literal(&host("localhost")), None);
    }
}
