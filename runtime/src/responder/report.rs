//! What a worker tells of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use eddy_core::close::CloseReason;
use eddy_core::identity::{Identity, TunnelId};
use eddy_core::responder::Responder;
use eddy_core::stats::{Name, Ping, Sheet};

use super::accept;
use super::worker::Worker;
use crate::net::Network;
use crate::report::{Ask, Calendar, ClosedLine, Phase, Report, TunnelLine, round};

impl<N: Network> Worker<N> {
    pub(super) fn report(&self, ask: &Ask) -> Report {
        let calendar = Calendar {
            now: self.clock.now(),
            wall: self.net.wall(),
        };
        let machine = self.machine.borrow();
        let (registry, cache) = (machine.registry(), machine.directory());
        let owned = self.tunnels.owned.borrow();
        let asked = registry
            .tunnels()
            .filter(|(_, tunnel)| ask.is_about(&tunnel.identity));
        let tunnels = asked.map(|(id, tunnel)| TunnelLine {
            id: id.to_string(),
            identity: (&*tunnel.identity).into(),
            host: owned
                .get(&id)
                .map(|owned| owned.peer.to_string())
                .unwrap_or_default(),
            worker: self.id.to_string(),
            state: Phase::from(tunnel.state).label(),
            since_unix_ms: calendar.unix_ms(tunnel.since),
            for_seconds: calendar.ago(tunnel.since),
            open_seconds: calendar.ago(tunnel.opened),
            streams: 0,
            peer_tunnel: owned.get(&id).and_then(|owned| owned.peer_tunnel.clone()),
            instance: tunnel.instance.map(|instance| instance.to_string()),
            is_duplicate: machine.conflicts().is_duplicate(id),
        });
        let closed = registry
            .closed()
            .iter()
            .filter(|closed| ask.is_about(&closed.identity));
        let closed = closed.map(|closed| ClosedLine {
            id: closed.tunnel.to_string(),
            identity: (&*closed.identity).into(),
            at_unix_ms: calendar.unix_ms(closed.at),
            lived_seconds: round(closed.lived),
            reason: closed.why.label(),
        });
        let is_asked = |id: &TunnelId| cache.identity(*id).is_some_and(|identity| ask.is_about(identity));
        let listed = cache.tunnels().filter(is_asked);
        let listed = listed.map(|id| (id.to_string(), cache.streams(id)));
        let unlisted = machine.unlisted();
        let unlisted = unlisted.filter(|(_, identity, _)| ask.is_about(identity));
        let unlisted = unlisted.map(|(id, _, streams)| (id.to_string(), streams));
        let streams = listed.chain(unlisted).collect();
        let identities = self.config.stats.detailed.then(|| {
            let mut identities = BTreeMap::new();
            for (_, tunnel) in registry.tunnels() {
                *identities.entry(Arc::clone(&tunnel.identity)).or_default() += 1;
            }
            (self.id, identities)
        });
        Report {
            stats: self.stats(&machine),
            identities,
            timings: {
                let mut timings = self.telemetry.http.durations();
                timings.merge(&self.telemetry.timings.borrow());
                timings
            },
            tunnels: tunnels.collect(),
            closed: closed.collect(),
            streams,
            routable: match ask {
                Ask::Everything => cache.tunnels().collect(),
                Ask::Numbers | Ask::Of(_) => Vec::new(),
            },
            hosts: Vec::new(),
        }
    }

    fn stats(&self, machine: &Responder) -> Sheet {
        let mut sheet = Sheet::default();
        let registry = machine.registry();
        if machine.is_leader() {
            let (nodes, clusters) = machine.directory().counts();
            sheet.add(Name::NodesShared, machine.conflicts().shared() as u64);
            sheet.add(Name::Nodes, nodes as u64);
            sheet.add(Name::Clusters, clusters as u64);
        }
        let distinct = |of: fn(&Identity) -> &str| {
            let ids = registry.tunnels().map(|(_, tunnel)| of(&tunnel.identity));
            ids.collect::<BTreeSet<_>>()
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
        for (outcome, count) in &*self.handshakes.outcomes.borrow() {
            sheet.add(Name::Handshake(outcome), *count);
        }
        for (what, cell) in [
            (Ping::Sent, &self.telemetry.pings.sent),
            (Ping::Echoed, &self.telemetry.pings.echoed),
            (Ping::Missed, &self.telemetry.pings.missed),
        ] {
            sheet.add(Name::Ping(what), cell.get());
        }
        sheet.add(Name::Duplicates, machine.duplicates_total());
        sheet.add(Name::DirectoryRepaired, machine.repaired_total());
        sheet.add(Name::Opened, registry.opened_total());
        sheet.add(Name::Open, registry.tunnels().count() as u64);
        for why in CloseReason::ALL {
            sheet.add(Name::Closed(why), 0);
        }
        for (why, count) in registry.closed().by_reason() {
            sheet.add(Name::Closed(*why), *count);
        }
        self.telemetry.http.fill(&mut sheet);
        sheet
    }
}
