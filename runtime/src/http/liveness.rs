//! PING on a tunnel that carries HTTP/2.

use eddy_core::keepalive::{Liveness, LivenessAction, LivenessPolicy};

use crate::clock::Clock;
use crate::net::Meter;
use crate::net::tunnel_io::TunnelControl;

/// Sends PINGs, and ends when the peer is dead.
pub(crate) async fn until_dead<M: Meter>(clock: Clock, policy: LivenessPolicy, tunnel: &TunnelControl<M>) {
    let mut liveness = Liveness::new(clock.now(), policy);
    loop {
        liveness.on_received(tunnel.received());
        clock.until(liveness.poll_timeout()).await;
        liveness.on_received(tunnel.received());
        match liveness.handle_timeout(clock.now(), || tunnel.outstanding()) {
            Some(LivenessAction::Ping) => tunnel.send_ping(),
            Some(LivenessAction::Dead) => return,
            None => {}
        }
    }
}
