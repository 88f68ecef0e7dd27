//! Goodbyes to initiators: make before break.
//!
//! A tunnel that is sent away is *leaving*: it is chosen where nothing else is. An Eddy gets a GOAWAY, dials a replacement and
//! serves on; its tunnel is let go after [`REPLACEMENT_TIME`], or at the end of the process's drain. Any other initiator may
//! read nothing any more once it has read a GOAWAY (Envoy 1.40 swallows all frames after it), so its tunnel is let go
//! instead: its requests end, and the HTTP/2 library says GOAWAY with the last one.

use super::{Action, Command, Responder};
use crate::identity::TunnelId;
use crate::policy::REPLACEMENT_TIME;
use crate::selection::Selection;
use crate::time::Instant;

impl Responder {
    /// Sends the selected tunnels of this worker away. Returns how many those are.
    pub fn send_away_selected(&mut self, now: Instant, selection: &Selection) -> usize {
        let tunnels = self.registry.tunnels();
        let selected: Vec<_> = tunnels
            .filter(|(id, tunnel)| selection.means(*id, &tunnel.identity))
            .map(|(id, _)| id)
            .collect();
        for &tunnel in &selected {
            self.send_away(now, tunnel);
        }
        self.advance(now);
        selected.len()
    }

    /// Sends a tunnel of this worker away. No effect if that has happened already.
    pub(super) fn send_away(&mut self, now: Instant, tunnel: TunnelId) {
        let is_mover = self.is_from_eddy(tunnel);
        if !self.registry.on_leaving(now, tunnel) {
            return;
        }
        self.publish(now);
        let command = if is_mover {
            // The end of a process is the end of its tunnels.
            if !self.drain.is_draining() {
                self.patience.insert(tunnel, now + REPLACEMENT_TIME);
            }
            Command::SayGoodbye
        } else {
            Command::LetGo
        };
        self.actions.push_back(Action::Command(tunnel, command));
    }

    /// Whether the initiator of a tunnel of this worker is an Eddy.
    fn is_from_eddy(&self, tunnel: TunnelId) -> bool {
        self.registry
            .get(tunnel)
            .is_some_and(|entry| entry.instance.is_some())
    }

    /// Lets tunnels go whose time is over.
    pub(super) fn let_go_when_due(&mut self, now: Instant) {
        if self.drain.is_draining() {
            self.patience.clear();
        }
        let due = self.patience.iter().filter(|(_, at)| **at <= now);
        for tunnel in due.map(|(tunnel, _)| *tunnel).collect::<Vec<_>>() {
            self.patience.remove(&tunnel);
            self.actions.push_back(Action::Command(tunnel, Command::LetGo));
        }
    }
}
