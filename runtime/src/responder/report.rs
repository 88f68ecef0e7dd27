//! What a worker tells of itself.

use std::collections::BTreeSet;

use eddy_core::identity::{Identity, WorkerId};
use eddy_core::registry::Registry;
use eddy_core::stats::{Name, Ping, Sheet};

use super::{Worker, accept};
use crate::net::Network;
use crate::report::{Calendar, ClosedLine, Report, TunnelLine, round};

impl<N: Network> Worker<N> {
    pub(super) fn report(&self) -> Report {
        let calendar = Calendar {
            now: self.clock.now(),
            wall: self.net.wall(),
        };
        let registry = self.registry.borrow();
        let guests = self.guests.borrow();
        let duplicates = self.duplicates.borrow();
        let cache = self.cache.borrow();
        let tunnels = registry.tunnels().map(|(id, tunnel)| TunnelLine {
            id: id.to_string(),
            identity: (&*tunnel.identity).into(),
            host: guests
                .get(&id)
                .map(|guest| guest.peer.to_string())
                .unwrap_or_default(),
            worker: self.id.to_string(),
            state: tunnel.state.label(),
            since_unix_ms: calendar.unix_ms(tunnel.since),
            for_seconds: calendar.ago(tunnel.since),
            open_seconds: calendar.ago(tunnel.opened),
            streams: 0,
            peer_tunnel: guests.get(&id).and_then(|guest| guest.peer_tunnel.clone()),
            instance: guests
                .get(&id)
                .and_then(|guest| guest.instance)
                .map(|i| i.to_string()),
            is_duplicate: duplicates.is_duplicate(id),
        });
        let closed = registry.closed().iter().map(|closed| ClosedLine {
            id: closed.tunnel.to_string(),
            identity: (&*closed.identity).into(),
            at_unix_ms: calendar.unix_ms(closed.at),
            lived_seconds: round(closed.lived),
            reason: closed.why.label(),
        });
        let streams = self
            .links
            .borrow()
            .keys()
            .map(|id| (id.to_string(), cache.streams(*id)))
            .collect();
        Report {
            stats: self.stats(),
            timings: {
                let mut timings = self.http.durations();
                timings.merge(&self.timings.borrow());
                timings
            },
            tunnels: tunnels.collect(),
            closed: closed.collect(),
            streams,
            hosts: Vec::new(),
        }
    }

    fn stats(&self) -> Sheet {
        let mut sheet = Sheet::default();
        let registry = self.registry.borrow();
        if self.config.stats.detailed {
            fill_detailed(&mut sheet, &registry, self.id);
        }
        if self.tells_for_all() {
            let absences = self.absences.borrow();
            let different = |of: fn(&Identity) -> &str| {
                let places = absences
                    .here()
                    .map(|identity| (identity.tenant.as_str(), of(identity)));
                places.collect::<BTreeSet<_>>().len() as u64
            };
            sheet.add(Name::NodesShared, self.duplicates.borrow().shared() as u64);
            sheet.add(Name::Nodes, different(|i| i.node.as_str()));
            sheet.add(Name::Clusters, different(|i| i.cluster.as_str()));
        }
        let distinct = |of: fn(&Identity) -> &str| {
            registry
                .tunnels()
                .map(|(_, t)| of(&t.identity).to_owned())
                .collect::<BTreeSet<_>>()
        };
        sheet.add(
            Name::TotalNodes(self.id),
            distinct(|i| i.node.as_str()).len() as u64,
        );
        sheet.add(
            Name::TotalClusters(self.id),
            distinct(|i| i.cluster.as_str()).len() as u64,
        );
        for outcome in accept::OUTCOMES {
            sheet.add(Name::Handshake(outcome), 0);
        }
        for (outcome, count) in &*self.handshakes.borrow() {
            sheet.add(Name::Handshake(outcome), *count);
        }
        for (what, cell) in [
            (Ping::Sent, &self.pings.sent),
            (Ping::Echoed, &self.pings.echoed),
            (Ping::Missed, &self.pings.missed),
        ] {
            sheet.add(Name::Ping(what), cell.get());
        }
        sheet.add(Name::Duplicates, self.duplicates_seen.get());
        sheet.add(Name::Opened, registry.opened_total());
        sheet.add(Name::Open, registry.tunnels().count() as u64);
        for (why, count) in registry.closed().by_reason() {
            sheet.add(Name::Closed(*why), *count);
        }
        self.http.fill(&mut sheet);
        sheet
    }
}

fn fill_detailed(sheet: &mut Sheet, registry: &Registry, worker: WorkerId) {
    for (_, tunnel) in registry.tunnels() {
        let Identity { node, cluster, .. } = &*tunnel.identity;
        for on in [None, Some(worker)] {
            sheet.add(Name::NodeTunnels(on, node.clone()), 1);
            sheet.add(Name::ClusterTunnels(on, cluster.clone()), 1);
        }
        sheet.add(Name::IdentityTunnels(cluster.clone(), node.clone()), 1);
    }
}
