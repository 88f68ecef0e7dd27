//! The life of one tunnel on its owner.
//!
//! ```text
//!   answer ─▶ settle ─▶ idle (RPING) ──first request, or goodbye──▶ HTTP/2 ─▶ gone
//! ```

use std::io;
use std::rc::Rc;
use std::time::Duration;

use eddy_core::close::CloseReason;
use eddy_core::identity::TunnelId;
use eddy_core::keepalive::{LivenessPolicy, PING, PingAction, PingPolicy, Pinger};
use eddy_core::timings::Timing;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::senders::{Claim, Commands, OwnedTunnel, Sender};
use super::worker::Worker;
use super::{Message, Newcomer};
use crate::http::counters::increase;
use crate::http::liveness;
use crate::net::tunnel_io::{TunnelControl, TunnelIo};
use crate::net::{BACKSTOP, Meter, Network, Stream, UNSENT_MAX};

/// How often to look whether the answer was acknowledged: soon at first, then rarely.
const ACK_LOOK_FIRST: Duration = Duration::from_millis(1);
const ACK_LOOK_MAX: Duration = Duration::from_millis(20);
/// How long to wait where nobody can tell: a round trip around the world.
const ACK_UNKNOWN: Duration = Duration::from_millis(300);

/// Answers the handshake and keeps the tunnel until it is gone.
pub(super) async fn run<N: Network>(worker: Rc<Worker<N>>, mut stream: N::Stream, newcomer: Newcomer) {
    let Newcomer {
        tunnel,
        introduction,
        peer,
        peer_tunnel,
        accepted,
    } = newcomer;
    stream.give_up_after(BACKSTOP);
    stream.limit_unsent(UNSENT_MAX);
    let response = worker.machine.borrow().accept(introduction.instance);
    let answered = async {
        stream.write_all(&response).await.ok()?;
        stream.flush().await.ok()
    };
    let answered = answered.await.is_some();
    if answered {
        worker.count_handshake("accepted");
        worker.time(Timing::Handshake, accepted);
    } else {
        worker.count_handshake("peer_closed");
    }
    let settle = settle(&worker, &stream);
    let limit = worker.config.tunnels.handshake_timeout;
    if !answered || tokio::time::timeout(limit, settle).await.is_err() {
        worker.with(|machine, now| machine.on_closed(now, tunnel, CloseReason::PeerReset));
        return;
    }

    let (claims, claimed) = mpsc::unbounded_channel();
    let commands = Commands::default();
    let owned = OwnedTunnel {
        peer,
        peer_tunnel: peer_tunnel.clone(),
        claims,
        commands: commands.clone(),
    };
    worker.tunnels.owned.borrow_mut().insert(tunnel, owned);
    worker.with(|machine, now| machine.on_opened(now, tunnel, &introduction));
    let identity = introduction.identity;
    tracing::info!(%tunnel, node = identity.node.as_str(), cluster = identity.cluster.as_str(),
        tenant = identity.tenant.as_str(), %peer, peer_tunnel, worker = %worker.id, "tunnel up");
    let opened = worker.clock.now();
    let why = match idle(&worker, tunnel, &mut stream, claimed, &commands).await {
        Idle::Closed(why) => why,
        // Boxed: an idle tunnel does not pay for the state of one that carries HTTP/2.
        Idle::Wanted(first) => Box::pin(active(&worker, tunnel, stream, first, &commands)).await,
    };
    worker.with(|machine, now| machine.on_closed(now, tunnel, why));
    worker.tunnels.owned.borrow_mut().remove(&tunnel);
    worker.time(Timing::Lifetime, opened);
    tracing::info!(%tunnel, node = identity.node.as_str(), cluster = identity.cluster.as_str(),
        tenant = identity.tenant.as_str(), %peer, peer_tunnel, reason = why.label(), "tunnel down");
}

/// Waits until nothing that is sent can reach the initiator glued to the answer (wire.md 2.6).
async fn settle<N: Network>(worker: &Worker<N>, stream: &N::Stream) {
    let mut look = ACK_LOOK_FIRST;
    let meter = stream.meter();
    loop {
        match meter.unacknowledged() {
            Some(0) => break,
            Some(_) => tokio::time::sleep(look).await,
            None => {
                tokio::time::sleep(ACK_UNKNOWN).await;
                break;
            }
        }
        look = (look * 2).min(ACK_LOOK_MAX);
    }
    tokio::time::sleep(worker.config.tunnels.settle).await;
}

impl Commands {
    async fn superseded(&self) {
        tokio::select! {
            biased;
            () = self.given_up.wait() => {}
            () = self.replaced.wait() => {}
        }
    }

    async fn sent_away(&self) {
        tokio::select! {
            biased;
            () = self.say_goodbye.wait() => {}
            () = self.let_go.wait() => {}
        }
    }
}

/// How the idle phase ended.
enum Idle {
    Closed(CloseReason),
    /// Requests want the tunnel, and nothing is owed on the socket.
    Wanted(Waiting),
}

/// The requests that wait for the sender, and where more of them come from.
struct Waiting {
    first: Vec<Claim>,
    more: mpsc::UnboundedReceiver<Claim>,
}

async fn idle<N: Network>(
    worker: &Worker<N>,
    tunnel: TunnelId,
    stream: &mut N::Stream,
    mut more: mpsc::UnboundedReceiver<Claim>,
    commands: &Commands,
) -> Idle {
    let tunnels = &worker.config.tunnels;
    let policy = PingPolicy {
        interval: tunnels.ping_interval,
        misses: tunnels.ping_misses,
    };
    let mut pinger = Pinger::new(worker.clock.now(), policy, worker.machine.borrow_mut().fork_rng());
    let meter = stream.meter();
    let mut first = Vec::new();
    let mut leaving = false;
    let mut missing = false;
    let mut bytes = [0; 64];
    loop {
        while let Some(action) = pinger.poll_action() {
            tracing::trace!(%tunnel, ?action, "action");
            match action {
                PingAction::Ping => {
                    increase(&worker.telemetry.pings.sent);
                    if stream.write_all(PING).await.is_err() {
                        return Idle::Closed(CloseReason::PeerReset);
                    }
                }
                PingAction::Echoed { .. } => {
                    increase(&worker.telemetry.pings.echoed);
                    if std::mem::take(&mut missing) {
                        worker.with(|machine, _| machine.on_missing(tunnel, false));
                    }
                }
                PingAction::Missed => {
                    increase(&worker.telemetry.pings.missed);
                    if !std::mem::replace(&mut missing, true) {
                        worker.with(|machine, _| machine.on_missing(tunnel, true));
                    }
                }
                PingAction::HandOff => return Idle::Wanted(Waiting { first, more }),
                PingAction::Dead => return Idle::Closed(CloseReason::PingTimeout),
                PingAction::Unexpected => return Idle::Closed(CloseReason::UnexpectedBytes),
            }
        }
        let deadline = pinger.poll_timeout();
        tokio::select! {
            biased;
            () = worker.signals.stop.wait() => return Idle::Closed(CloseReason::Shutdown),
            // Nothing runs on it.
            () = commands.superseded() => return Idle::Closed(CloseReason::Superseded),
            read = stream.read(&mut bytes) => match read {
                Ok(0) => return Idle::Closed(CloseReason::PeerClosed),
                Ok(n) => {
                    tracing::trace!(%tunnel, bytes = n, "event");
                    pinger.on_bytes(worker.clock.now(), &bytes[..n]);
                }
                Err(_) => return Idle::Closed(CloseReason::PeerReset),
            },
            Some(claim) = more.recv() => {
                first.push(claim);
                pinger.hand_off(worker.clock.now());
            }
            // A goodbye is a word of HTTP/2.
            () = commands.sent_away(), if !leaving => {
                leaving = true;
                pinger.hand_off(worker.clock.now());
            }
            () = worker.clock.until(deadline) => {
                tracing::trace!(%tunnel, timer = deadline.map(|deadline| deadline.reason), "event");
                pinger.handle_timeout(worker.clock.now(), || meter.unacknowledged());
            }
        }
    }
}

/// Carries HTTP/2 from the first request on.
async fn active<N: Network>(
    worker: &Worker<N>,
    tunnel: TunnelId,
    stream: N::Stream,
    waiting: Waiting,
    commands: &Commands,
) -> CloseReason {
    let (stream, control) = TunnelIo::of_client(stream, worker.clock);
    let http2 = &worker.config.tunnels.http2;
    let policy = LivenessPolicy {
        interval: http2.ping_interval,
        timeout: http2.ping_timeout,
    };
    let client = crate::http::tunnel_client(http2);
    let Ok((sender, connection)) = client.handshake(TokioIo::new(stream)).await else {
        return CloseReason::HttpError;
    };
    worker.with(|machine, now| machine.on_upgraded(now, tunnel));
    let mut connection = Box::pin(connection);
    let mut dead = Box::pin(liveness::until_dead(worker.clock, policy, &control));
    let (ended, why) = tokio::select! {
        biased;
        ended = &mut connection => (true, match ended {
            Ok(()) => CloseReason::PeerClosed,
            Err(error) => {
                tracing::debug!(%tunnel, ?error, "the connection broke");
                reason(&error)
            }
        }),
        () = worker.signals.stop.wait() => return CloseReason::Shutdown,
        () = commands.given_up.wait() => {
            control.cut();
            return CloseReason::Superseded;
        }
        () = &mut dead => {
            control.cut();
            return CloseReason::HttpPing;
        }
        () = control.failed() => {
            control.cut();
            return CloseReason::HttpError;
        }
        () = commands.replaced.wait() => (false, CloseReason::Superseded),
        () = control.goaway() => (false, CloseReason::GoAway),
        () = follow_limits(worker, tunnel, &control) => (false, CloseReason::Drained),
        () = answer_claims(worker, tunnel, &sender, &control, waiting) => (false, CloseReason::Drained),
        () = say_goodbye(&control, commands) => (false, CloseReason::Drained),
    };
    let why = if control.is_goaway() {
        CloseReason::GoAway
    } else {
        why
    };
    if ended && why != CloseReason::GoAway {
        // Nothing can end well any more: requests on it must find the tunnel closed, not draining.
        control.cut();
        return why;
    }
    // Requests that come now must look for another tunnel.
    drop(sender);
    worker.with(|machine, now| machine.on_draining(now, tunnel));
    // Requests in flight may still end well, and the socket goes with the last one. The end that drains decides how long
    // that may take.
    let peer_decides = why == CloseReason::GoAway;
    let rest = async {
        if !ended {
            let _ = (&mut connection).await;
        }
        // It keeps the socket.
        drop(connection);
        control.gone().await;
    };
    let patience = async {
        if peer_decides {
            std::future::pending().await
        }
        tokio::time::sleep(worker.config.drain_timeout).await;
    };
    tokio::select! {
        biased;
        () = rest => {}
        () = worker.signals.stop.wait() => {}
        () = commands.given_up.wait() => {}
        () = &mut dead => {}
        () = patience => {}
    }
    control.cut();
    why
}

/// Follows how many streams the peer allows, without end.
async fn follow_limits<N: Network>(
    worker: &Worker<N>,
    tunnel: TunnelId,
    control: &TunnelControl<<N::Stream as Stream>::Meter>,
) {
    let mut known = None;
    loop {
        let limit = control.max_streams(known).await;
        known = Some(limit);
        worker.with(|machine, now| machine.on_max_streams(now, tunnel, limit));
    }
}

/// Gives the sender to who asks for it, without end. The first request goes with the preface. Others wait for the peer's
/// SETTINGS, which say how many streams it allows at once; so do requests that must not be lost on a tunnel that its
/// initiator is about to leave. From then on every worker sends straight into the tunnel.
async fn answer_claims<N: Network>(
    worker: &Worker<N>,
    tunnel: TunnelId,
    sender: &Sender,
    control: &TunnelControl<<N::Stream as Stream>::Meter>,
    waiting: Waiting,
) {
    let Waiting { first, mut more } = waiting;
    let give = |claim: Claim| {
        // A request that waited may have been given up.
        let _ = claim.answer.send(sender.clone());
    };
    let (mut later, mut opened) = (Vec::new(), false);
    let mut take = |claim: Claim| {
        if opened || claim.careful {
            later.push(claim);
        } else {
            opened = true;
            give(claim);
        }
    };
    first.into_iter().for_each(&mut take);
    loop {
        tokio::select! {
            biased;
            () = control.settings() => break,
            Some(claim) = more.recv() => take(claim),
        }
    }
    later.into_iter().for_each(give);
    worker.tunnels.serve(tunnel, sender.clone());
    worker.send_others(|| Message::Serving(tunnel, sender.clone()));
    while let Some(claim) = more.recv().await {
        give(claim);
    }
    std::future::pending().await
}

/// Says goodbye when told to, and returns when the tunnel is to be let go.
async fn say_goodbye<M: Meter>(control: &TunnelControl<M>, commands: &Commands) {
    tokio::select! {
        biased;
        () = commands.let_go.wait() => return,
        () = commands.say_goodbye.wait() => {}
    }
    control.send_goaway();
    commands.let_go.wait().await;
}

fn reason(error: &hyper::Error) -> CloseReason {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            return crate::http::ended_by(io);
        }
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            if h2.is_go_away() && h2.is_remote() {
                return match h2.reason() {
                    Some(h2::Reason::NO_ERROR) => CloseReason::GoAway,
                    _ => CloseReason::HttpError,
                };
            }
            if let Some(io) = h2.get_io() {
                return crate::http::ended_by(io);
            }
        }
        source = cause.source();
    }
    CloseReason::HttpError
}
