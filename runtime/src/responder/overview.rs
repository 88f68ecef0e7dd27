//! What the status page shows of a worker.

use super::Worker;
use crate::net::Network;
use crate::overview::{Event, Overview, Wanted, newest};
use crate::report::Calendar;

impl<N: Network> Worker<N> {
    pub(super) fn overview(&self, wanted: &Wanted) -> Overview {
        let calendar = Calendar {
            now: self.clock.now(),
            wall: self.net.wall(),
        };
        let mut overview = Overview::new(self.http.overview());
        if self.tells_for_all() {
            let (nodes, clusters) = self.cache.borrow().counts();
            overview.nodes = nodes as u64;
            overview.clusters = clusters as u64;
            overview.tunnels.duplicates = self.duplicates.borrow().shared() as u64;
            overview.matching = self.absences.borrow().here(|i| wanted.matches(i)) as u64;
        }
        let registry = self.registry.borrow();
        overview.tunnels.opened = registry.opened_total();
        let guests = self.guests.borrow();
        let peer = |id| guests.get(&id).map(|guest| guest.peer.to_string());
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
