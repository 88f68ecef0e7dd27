//! What other workers, and the admin, send to a worker.

use std::rc::Rc;

use eddy_core::close::CloseReason;
use eddy_core::responder::Responder;

use super::worker::Worker;
use super::{Message, Newcomer, tunnel};
use crate::net::Network;

impl<N: Network> Worker<N> {
    pub(super) fn apply(self: &Rc<Self>, message: Message<N>) {
        match message {
            Message::Adopt { stream, newcomer } => self.adopt(stream, newcomer),
            Message::Gossip(gossip, introduced) => self.hear(&gossip, &introduced),
            Message::Serving(tunnel, sender) => self.tunnels.serve(tunnel, sender),
            // In each of these, the receiver of the answer may have gone.
            Message::Report(ask, answer) => drop(answer.send(self.report(&ask))),
            Message::Overview(wanted, answer) => drop(answer.send(self.overview(&wanted))),
            Message::Requests(whose, answer) => {
                let machine = self.machine.borrow();
                let counts = whose.iter().map(|identity| machine.requests_of(identity));
                drop(answer.send(counts.collect()));
            }
            Message::Explain(asked, answer) => drop(answer.send(self.explain(&asked))),
            Message::Drain => self.with(Responder::drain),
            Message::SendAway(selection, answer) => {
                let sent = self.with(|machine, now| machine.send_away_selected(now, &selection));
                let _ = answer.send(sent);
            }
        }
    }

    fn adopt(self: &Rc<Self>, parcel: N::Parcel, newcomer: Newcomer) {
        let tunnel = newcomer.tunnel;
        let identity = &newcomer.introduction.identity;
        self.machine.borrow_mut().on_adopted(tunnel, identity);
        match self.net.adopt(parcel) {
            Ok(stream) => {
                tokio::task::spawn_local(tunnel::run(Rc::clone(self), stream, newcomer));
            }
            Err(error) => {
                tracing::warn!(%tunnel, %error, "cannot adopt a tunnel");
                self.count_handshake("registration_failed");
                self.with(|machine, now| machine.on_closed(now, tunnel, CloseReason::PeerReset));
            }
        }
    }
}
