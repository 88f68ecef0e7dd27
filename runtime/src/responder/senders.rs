//! The ways to the senders of tunnels: what a request needs once its tunnel is chosen.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;

use eddy_core::identity::TunnelId;
use eddy_core::registry::Fact;
use eddy_core::responder::{Command, Gossip};
use tokio::sync::{mpsc, oneshot};

use crate::http::body::Question;
use crate::latch::Latch;

/// Sends requests into a tunnel that carries HTTP/2, from any worker.
pub(super) type Sender = hyper::client::conn::http2::SendRequest<Question>;
/// Requests senders from the owner of a tunnel.
pub(crate) type Claims = mpsc::UnboundedSender<Claim>;

/// Requests the sender of an idle tunnel from its owner: the first request is what upgrades it.
pub(crate) struct Claim {
    pub(super) answer: oneshot::Sender<Sender>,
    /// The request must not be lost on a tunnel that its initiator is about to leave: it waits until the initiator has
    /// answered the preface.
    pub(super) careful: bool,
}

/// The way to the sender of a listed tunnel.
enum Link {
    /// The tunnel is idle: its owner must be asked.
    Parked(Claims),
    /// The tunnel carries HTTP/2.
    Serving(Sender),
}

/// A tunnel of this worker: where it comes from, and how to reach its task.
pub(super) struct OwnedTunnel {
    pub(super) peer: SocketAddr,
    pub(super) peer_tunnel: Option<String>,
    pub(super) claims: Claims,
    pub(super) commands: Commands,
}

/// What the task of a tunnel must do; each at most once.
#[derive(Clone, Debug, Default)]
pub(super) struct Commands {
    pub(super) say_goodbye: Latch,
    pub(super) let_go: Latch,
    pub(super) replaced: Latch,
    pub(super) given_up: Latch,
}

impl Commands {
    fn set(&self, command: Command) {
        match command {
            Command::SayGoodbye => self.say_goodbye.set(),
            Command::LetGo => self.let_go.set(),
            Command::Replaced => self.replaced.set(),
            Command::GivenUp => self.given_up.set(),
        }
    }
}

/// The tunnels of one worker's directory, and those that it owns.
#[derive(Default)]
pub(super) struct Tunnels {
    links: RefCell<BTreeMap<TunnelId, Link>>,
    pub(super) owned: RefCell<BTreeMap<TunnelId, OwnedTunnel>>,
}

impl Tunnels {
    /// A tunnel is listed. `introduced` has the way to its sender if another worker owns it.
    pub(super) fn list(&self, tunnel: TunnelId, introduced: &[(TunnelId, Claims)]) {
        let owned = self.owned.borrow();
        let own = owned.get(&tunnel).map(|owned| &owned.claims);
        let foreign = || introduced.iter().find(|(id, _)| *id == tunnel);
        if let Some(claims) = own.or_else(|| foreign().map(|(_, claims)| claims)) {
            let link = Link::Parked(claims.clone());
            self.links.borrow_mut().insert(tunnel, link);
        }
    }

    /// A tunnel is listed no longer.
    pub(super) fn unlist(&self, tunnel: TunnelId) {
        self.links.borrow_mut().remove(&tunnel);
    }

    /// A listed tunnel carries HTTP/2 from now on.
    pub(super) fn serve(&self, tunnel: TunnelId, sender: Sender) {
        if let Some(link) = self.links.borrow_mut().get_mut(&tunnel) {
            *link = Link::Serving(sender);
        }
    }

    /// Sends a command to the task of a tunnel of this worker.
    pub(super) fn command(&self, tunnel: TunnelId, command: Command) {
        if let Some(owned) = self.owned.borrow().get(&tunnel) {
            owned.commands.set(command);
        }
    }

    /// The ways to the senders of the tunnels of this worker that a message introduces.
    pub(super) fn introductions(&self, gossip: &Gossip) -> Vec<(TunnelId, Claims)> {
        let owned = self.owned.borrow();
        let claims = |tunnel: TunnelId| Some((tunnel, owned.get(&tunnel)?.claims.clone()));
        match gossip {
            Gossip::Fact(Fact::Opened { tunnel, .. }) => claims(*tunnel).into_iter().collect(),
            Gossip::Snapshot(_, listings) => {
                let listings = listings.iter();
                listings.filter_map(|listing| claims(listing.tunnel)).collect()
            }
            Gossip::Fact(
                Fact::Leaving { .. } | Fact::MaxStreams { .. } | Fact::Draining { .. } | Fact::Closed { .. },
            )
            | Gossip::Missing { .. }
            | Gossip::Digest(..)
            | Gossip::Resend(_)
            | Gossip::NoMoreTunnels
            | Gossip::Succeeded
            | Gossip::ClientsGone => Vec::new(),
        }
    }

    /// The sender of a listed tunnel; asks its owner if it is idle.
    pub(super) async fn sender(&self, tunnel: TunnelId, careful: bool) -> Option<Sender> {
        let claimed = match self.links.borrow().get(&tunnel)? {
            Link::Serving(sender) => return Some(sender.clone()),
            Link::Parked(claims) => {
                let (answer, claimed) = oneshot::channel();
                claims.send(Claim { answer, careful }).ok()?;
                claimed
            }
        };
        claimed.await.ok()
    }
}
