//! Goodbyes to initiators: make before break.
//!
//! A tunnel that is sent away is *leaving*: it is chosen where nothing else is. An Eddy gets a GOAWAY, dials a replacement and
//! serves on; its tunnel is let go after [`PATIENCE`], or at the end of the process's drain. Any other initiator may
//! read nothing any more once it has read a GOAWAY (Envoy 1.40 swallows all frames after it), so its tunnel is let go
//! instead: its requests end, and the HTTP/2 library says GOAWAY with the last one.

use std::time::Duration;

use super::{Action, Command, Responder};
use crate::identity::{Identity, TunnelId};
use crate::time::Instant;

/// How long a single tunnel that was sent away is still used where nothing else is: its replacement takes a dial, and where
/// that is refused at first, some more.
const PATIENCE: Duration = Duration::from_secs(2);

/// The tunnels that an operator means; a field that is not set means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Those of this node.
    pub node: Option<String>,
    /// Those of this cluster.
    pub cluster: Option<String>,
    /// Those of this tenant.
    pub tenant: Option<String>,
    /// The tunnel of this id.
    pub tunnel: Option<String>,
}

impl Selection {
    /// Whether it contains a tunnel.
    pub fn means(&self, tunnel: TunnelId, identity: &Identity) -> bool {
        let fits = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|wanted| wanted == is);
        fits(&self.node, identity.node.as_str())
            && fits(&self.cluster, identity.cluster.as_str())
            && fits(&self.tenant, identity.tenant.as_str())
            && self.tunnel.as_ref().is_none_or(|id| *id == tunnel.to_string())
    }
}

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
                self.patience.insert(tunnel, now + PATIENCE);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{ClusterId, NodeId, TenantId, WorkerId};

    #[test]
    fn fields_that_are_not_set_mean_all() {
        let identity = Identity {
            node: NodeId::parse("n").unwrap(),
            cluster: ClusterId::parse("c").unwrap(),
            tenant: TenantId::parse("t").unwrap(),
        };
        let tunnel = TunnelId {
            named_by: WorkerId(1),
            serial: 7,
        };
        let means = |node: Option<&str>, cluster: Option<&str>, tenant: Option<&str>, id: Option<&str>| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            let selection = Selection {
                node: own(node),
                cluster: own(cluster),
                tenant: own(tenant),
                tunnel: own(id),
            };
            selection.means(tunnel, &identity)
        };
        let id = tunnel.to_string();
        assert!(means(None, None, None, None));
        assert!(means(Some("n"), Some("c"), Some("t"), Some(&id)));
        assert!(!means(Some("m"), Some("c"), None, None));
        assert!(!means(None, Some("d"), None, None));
        assert!(!means(None, None, Some("u"), None));
        assert!(!means(None, None, None, Some("9-9")));
    }
}
