//! Performs what the root machine wants.

use std::net::SocketAddr;
use std::rc::Rc;

use eddy_core::initiator::{Action, Dial, SlotAddress};

use super::worker::{Signals, Task, Worker};
use super::{Message, dial};
use crate::net::Network;

impl<N: Network> Worker<N> {
    /// Performs what the machine wants. Returns whether a drain has come to its end.
    pub(super) fn perform_all(self: &Rc<Self>) -> bool {
        loop {
            let action = self.machine.borrow_mut().poll_action();
            let Some(action) = action else {
                return self.machine.borrow().is_drained();
            };
            tracing::trace!(worker = %self.id, ?action, "action");
            self.perform(action);
        }
    }

    fn perform(self: &Rc<Self>, action: Action) {
        match action {
            Action::Dial(dial) => {
                let at = dial.at;
                let signals = Signals::default();
                let task = dial::run(Rc::clone(self), dial, signals.clone());
                let task = Task {
                    abort: tokio::task::spawn_local(task).abort_handle(),
                    signals,
                    carrier: None,
                };
                self.tasks.borrow_mut().insert(at, task);
            }
            Action::Overlap(at) => self.signal(at, |signals| signals.overlap.notify_one()),
            Action::Drain(at) => self.signal(at, |signals| signals.drain.set()),
            Action::Abort(at) => self.cut(at),
            Action::Close(at) => {
                let is_draining = self.machine.borrow().is_draining();
                self.telemetry.http.cutting.set(is_draining);
                self.cut(at);
            }
            Action::DialFailed { dial, why } => self.log_failure(&dial, why.reason()),
            Action::Resolve(cluster) => {
                // Worker 0 may have ended first.
                let _ = self.stale.send(cluster);
            }
            Action::ReportEarlyBreak(host) => {
                if let Some(first) = &self.first {
                    // Worker 0 may have ended first.
                    let _ = first.send(Message::BrokeEarly(host));
                }
            }
            Action::AdviseOnSharedSocket(host) => advise(host),
        }
    }

    fn signal(&self, at: SlotAddress, send: impl FnOnce(&Signals)) {
        if let Some(task) = self.tasks.borrow().get(&at) {
            send(&task.signals);
        }
    }

    /// Ends a task where it stands.
    fn cut(&self, at: SlotAddress) {
        let task = self.tasks.borrow_mut().remove(&at);
        if let Some(task) = task {
            task.abort.abort();
        }
    }

    fn log_failure(&self, dial: &Dial, reason: &str) {
        let machine = self.machine.borrow();
        let node = machine.identity(dial.at).node.as_str();
        tracing::info!(host = %dial.host, cluster = dial.cluster.as_str(), node, reason, "dial failed");
    }
}

fn advise(host: SocketAddr) {
    tracing::warn!(%host, "tunnels break HTTP/2 soon after their first request; if the responder is Envoy 1.36 to \
        1.39, its reverse_tunnel filter needs auto_close_connections: true");
}
