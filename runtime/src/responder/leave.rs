//! How a responder takes its leave of initiators: make before break.
//!
//! ```text
//!   drain ─▶ no new tunnels, GOAWAY on every tunnel, idle ones too
//!            │  initiators dial elsewhere; clients are still served, over the old tunnels, and told to come anew
//!            ▼  egress.drain_delay, or as soon as no tunnel is left
//!            no new clients ─▶ their requests end ─▶ the tunnels go
//! ```
//!
//! Single tunnels are told to go in the same way: they are chosen where nothing else is, for [`PATIENCE`], then let go.
//!
//! Initiators that are no Eddy do not serve on after a goodbye. Here the clients move first, as soon as a successor has the
//! address: new ones come to it, and wait there for the tunnels; when the old ones have gone, the tunnels go.

use std::rc::Rc;
use std::time::Duration;

use super::{Message, Selection, Worker};
use crate::net::Network;

/// How long a tunnel that was told to go is still used where nothing else is: its replacement takes a dial, and where
/// that is refused at first, some more of up to half a second each.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// How often to look whether a successor has the address for tunnels.
const SUCCESSOR_LOOK: Duration = Duration::from_millis(20);
/// How long the last words on tunnels may take, when nobody needs those any more.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// To which tunnels to say goodbye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    /// Those whose initiators serve on until they have dialed elsewhere.
    Movers,
    /// All.
    All,
}

impl<N: Network> Worker<N> {
    /// Says goodbye on those of this worker's tunnels that are meant; says how many.
    pub(super) fn say_goodbye(&self, to: &Selection, whom: Whom) -> usize {
        let meant: Vec<_> = {
            let registry = self.registry.borrow();
            let all = registry.tunnels();
            let movers = self.movers.borrow();
            all.filter(|(id, tunnel)| to.means(*id, &tunnel.identity))
                .filter(|(id, _)| whom == Whom::All || movers.contains(id))
                .map(|(id, _)| id)
                .collect()
        };
        for &tunnel in &meant {
            self.tell_registry(|registry, now| registry.on_leaving(now, tunnel));
            if let Some(guest) = self.guests.borrow().get(&tunnel) {
                guest.orders.leave.set();
            }
        }
        meant.len()
    }

    /// Waits while initiators dial elsewhere, and where they do not, while clients do.
    pub(super) async fn hand_over(&self) {
        let moved = async {
            self.until(|| self.movers.borrow().is_empty()).await;
            if self.links.borrow().is_empty() {
                return;
            }
            self.successor.wait().await;
            self.door.set();
            self.clients.gone().await;
        };
        // Those that are still there have nowhere to go, or take their time.
        let _ = tokio::time::timeout(self.config.egress.drain_delay, moved).await;
    }

    /// Nobody needs the tunnels any more: says goodbye on those where it was not said.
    pub(super) async fn dismiss(&self) {
        self.say_goodbye(&Selection::default(), Whom::All);
        // Who does not hear it in time sees the end of the connection.
        let _ = tokio::time::timeout(LAST_WORDS, self.tunnels.gone()).await;
    }

    /// Waits until something is true that changes when a tunnel leaves the directory.
    async fn until(&self, is: impl Fn() -> bool) {
        loop {
            let left = self.left.notified();
            if is() {
                return;
            }
            left.await;
        }
    }

    /// The listener for tunnels is closed.
    pub(super) fn note_no_more_tunnels(self: &Rc<Self>) {
        match self.others.first() {
            Some(Some(first)) => {
                // A worker that is gone looks for nobody.
                let _ = first.send(Message::NoMoreTunnels);
            }
            _ => drop(tokio::task::spawn_local(Rc::clone(self).look_for_a_successor())),
        }
    }

    /// What the first worker does for all, once none of them has the address for tunnels.
    async fn look_for_a_successor(self: Rc<Self>) {
        self.tunnel_doors.gone().await;
        while !self.net.is_taken(self.config.tunnels.listen) {
            tokio::time::sleep(SUCCESSOR_LOOK).await;
        }
        self.successor.set();
        self.tell_others(|| Message::Succeeded);
    }
}

#[cfg(test)]
mod tests {
    use eddy_core::identity::{ClusterId, Identity, NodeId, TenantId, TunnelId, WorkerId};

    use super::*;

    #[test]
    fn what_is_not_said_means_all() {
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
        assert!(!means(Some("n"), Some("d"), None, None));
        assert!(!means(None, None, Some("u"), None));
        assert!(!means(None, None, None, Some("another")));
    }
}
