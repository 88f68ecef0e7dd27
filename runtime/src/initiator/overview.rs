//! What the status page shows of a worker.

use std::sync::Arc;

use super::report::streams;
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
        let (machine, tasks) = (self.machine.borrow(), self.tasks.borrow());
        overview.tunnels.opened = machine.opened_total();
        let mut opened = Vec::new();
        for (id, up) in machine.tunnels() {
            overview.tunnels.count(up.phase);
            if let Some(row) = overview.row(wanted, &up.identity) {
                row.count(up.phase);
                row.requests += u64::from(streams(&tasks, up));
                row.host = row.host.take().or_else(|| Some(up.host.to_string()));
                row.has_been_up_for(calendar.ago(up.opened));
            }
            if wanted.matches(&up.identity) {
                overview.here.insert(Arc::clone(&up.identity));
                opened.push((id, up));
            }
        }
        for (id, up) in newest(opened, |(_, up)| up.opened) {
            let host = Some(up.host.to_string());
            let event = Event::up(id, &up.identity, host, calendar.unix_ms(up.opened));
            overview.events.push(event);
        }
        overview.tell_closed(wanted, machine.closed(), &calendar);
        for host in self.hosts(calendar.now) {
            overview.add_host(host);
        }
        overview
    }
}
