//! What the status page shows of a worker.

use super::worker::Worker;
use crate::net::Network;
use crate::overview::{Event, Overview, Wanted, newest};
use crate::report::Calendar;

impl<N: Network> Worker<N> {
    pub(super) fn overview(&self, wanted: &Wanted) -> Overview {
        let calendar = Calendar {
            now: self.clock.now(),
            wall: self.net.wall(),
        };
        let mut overview = Overview::new(self.telemetry.http.overview());
        let machine = self.machine.borrow();
        if machine.is_leader() {
            let (nodes, clusters) = machine.directory().counts();
            overview.nodes = nodes as u64;
            overview.clusters = clusters as u64;
            overview.tunnels.duplicates = machine.conflicts().shared() as u64;
            overview.matching = machine.absences().here(|i| wanted.matches(i)) as u64;
        }
        let registry = machine.registry();
        overview.tunnels.opened = registry.opened_total();
        let owned = self.tunnels.owned.borrow();
        let peer = |id| owned.get(&id).map(|owned| owned.peer.to_string());
        let mut opened = Vec::new();
        for (id, tunnel) in registry.tunnels() {
            let phase = tunnel.state.into();
            overview.tunnels.count(phase);
            if let Some(row) = overview.row(wanted, &tunnel.identity) {
                row.count(phase);
                row.host = row.host.take().or_else(|| peer(id));
                row.has_been_up_for(calendar.ago(tunnel.opened));
            }
            if wanted.matches(&tunnel.identity) {
                opened.push((tunnel.opened, id, &tunnel.identity));
            }
        }
        for refused in self
            .handshakes
            .refusals
            .borrow()
            .iter()
            .filter(|refused| refused.is_looked_for(wanted))
        {
            overview.events.push(refused.event(&calendar));
        }
        for (at, id, identity) in newest(opened, |(at, ..)| *at) {
            let event = Event::up(id, identity, peer(id), calendar.unix_ms(at));
            overview.events.push(event);
        }
        overview.tell_closed(wanted, registry.closed(), &calendar);
        overview
    }
}
