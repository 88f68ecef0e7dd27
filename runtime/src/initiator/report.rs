//! What a worker tells of itself.

use std::collections::BTreeMap;

use eddy_core::close::CloseReason;
use eddy_core::dialer::{DialFailure, HostView};
use eddy_core::identity::WorkerId;
use eddy_core::initiator::{SlotAddress, Tunnel};
use eddy_core::stats::{DialState, Name, Ping, Sheet};
use eddy_core::time::Instant;

use super::worker::{Task, Worker};
use crate::net::Network;
use crate::report::{Ask, Calendar, ClosedLine, HostLine, Report, TunnelLine, round};

impl<N: Network> Worker<N> {
    pub(super) fn report(&self, ask: &Ask) -> Report {
        let calendar = Calendar {
            now: self.clock.now(),
            wall: self.net.wall(),
        };
        let (machine, tasks) = (self.machine.borrow(), self.tasks.borrow());
        let asked = machine.tunnels().filter(|(_, up)| ask.is_about(&up.identity));
        let tunnels = asked.map(|(id, up)| TunnelLine {
            id: id.to_string(),
            identity: (&*up.identity).into(),
            host: up.host.to_string(),
            worker: self.id.to_string(),
            state: up.phase.label(),
            since_unix_ms: calendar.unix_ms(up.since),
            for_seconds: calendar.ago(up.since),
            open_seconds: calendar.ago(up.opened),
            streams: streams(&tasks, up),
            peer_tunnel: None,
            instance: Some(machine.instance(up.at).to_string()),
            is_duplicate: false,
        });
        let log = machine.closed().iter();
        let closed = log.filter(|gone| ask.is_about(&gone.identity));
        let closed = closed.map(|gone| ClosedLine {
            id: gone.tunnel.to_string(),
            identity: (&*gone.identity).into(),
            at_unix_ms: calendar.unix_ms(gone.at),
            lived_seconds: round(gone.lived),
            reason: gone.why.label(),
        });
        Report {
            stats: self.stats(),
            identities: None,
            timings: {
                let mut timings = self.telemetry.http.durations();
                timings.merge(&self.telemetry.timings.borrow());
                timings
            },
            tunnels: tunnels.collect(),
            closed: closed.collect(),
            streams: Vec::new(),
            routable: Vec::new(),
            hosts: self.hosts(calendar.now),
        }
    }

    pub(super) fn hosts(&self, now: Instant) -> Vec<HostLine> {
        let machine = self.machine.borrow();
        let lines = machine.hosts().map(|view| HostLine {
            cluster: view.cluster.to_string(),
            host: view.host.to_string(),
            worker: self.id.to_string(),
            connected: view.connected,
            connecting: view.connecting,
            backing_off: view.backing_off,
            draining: view.draining,
            failures: view
                .failures
                .iter()
                .map(|(why, n)| ((*why).to_owned(), *n))
                .collect(),
            last_failure: view.last_failure,
            next_dial_in_seconds: view.next_attempt.map(|at| round(at - now)),
        });
        lines.collect()
    }

    fn stats(&self) -> Sheet {
        let (mut sheet, machine) = (Sheet::default(), self.machine.borrow());
        if self.config.stats.detailed {
            machine
                .hosts()
                .for_each(|view| fill_host(&mut sheet, &view, self.id));
        }
        for cluster in machine.upstream_clusters() {
            sheet.add(Name::HandshakeSucceeded(self.id, cluster.clone()), 0);
            for why in DialFailure::WITHOUT_STATUS {
                let reason = why.reason().to_owned();
                sheet.add(Name::HandshakeFailed(self.id, cluster.clone(), reason), 0);
            }
        }
        for (cluster, count) in machine.succeeded() {
            sheet.add(Name::HandshakeSucceeded(self.id, cluster.clone()), *count);
        }
        for ((cluster, reason), count) in machine.failed() {
            sheet.add(
                Name::HandshakeFailed(self.id, cluster.clone(), reason.clone()),
                *count,
            );
        }
        for view in machine.hosts() {
            let wanted = view.connected + view.connecting + view.backing_off;
            sheet.add(Name::Wanted, u64::from(wanted));
        }
        sheet.add(Name::Ping(Ping::Echoed), self.telemetry.echoed.get());
        sheet.add(Name::Opened, machine.opened_total());
        sheet.add(Name::Open, machine.tunnels().count() as u64);
        for why in CloseReason::ALL {
            sheet.add(Name::Closed(why), 0);
        }
        for (why, count) in machine.closed().by_reason() {
            sheet.add(Name::Closed(*why), *count);
        }
        self.telemetry.http.fill(&mut sheet);
        sheet
    }
}

/// How many requests are on a tunnel.
pub(super) fn streams(tasks: &BTreeMap<SlotAddress, Task>, tunnel: &Tunnel) -> u32 {
    let carrier = tasks.get(&tunnel.at).and_then(|task| task.carrier.as_ref());
    carrier.map_or(0, |carrier| carrier.streams.get())
}

fn fill_host(sheet: &mut Sheet, view: &HostView<'_>, worker: WorkerId) {
    let states = [
        (DialState::Connecting, view.connecting),
        (DialState::Connected, view.connected),
        (DialState::Backoff, view.backing_off),
        (DialState::Draining, view.draining),
    ];
    for (state, count) in states {
        // The total appears with the host; a worker's line only where the worker has a share.
        let here = view.connecting + view.connected + view.backing_off + view.draining > 0;
        for on in [Some(worker).filter(|_| here).map(Some), Some(None)]
            .into_iter()
            .flatten()
        {
            sheet.add(Name::HostTunnels(on, view.host, state), u64::from(count));
            sheet.add(
                Name::UpstreamTunnels(on, view.cluster.clone(), state),
                u64::from(count),
            );
        }
    }
}
