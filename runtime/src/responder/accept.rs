//! New connections on the tunnel port: the handshake, its refusals, and the JSON API that shares the port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eddy_core::handshake::request::{Announcement, Verdict};
use eddy_core::handshake::{HEAD_BYTES_MAX, Refusal};
use eddy_core::registry::{Introduction, Placement};
use eddy_core::time::Instant;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::pending::Place;
use super::refusals::Refused;
use super::worker::Worker;
use super::{Message, Newcomer, tunnel};
use crate::api;
use crate::latch::Present;
use crate::limited_log::LimitedLog;
use crate::net::prefixed::Prefixed;
use crate::net::{Listener, Network};

/// How long to go on reading from a peer that was refused, so that its kernel does not throw the answer away
/// (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(1);
/// How much of it to read at most.
const LINGER_BYTES_MAX: usize = 4 << 20;
/// A pause where accepting fails because something has run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Every outcome of a handshake that is counted, Envoy's names first.
pub(super) const OUTCOMES: [&str; 16] = [
    "accepted",
    "body_rejected",
    "parse_error",
    "registration_failed",
    "rejected",
    "timeout",
    "validation_failed",
    "api",
    "evicted",
    "head_too_large",
    "http_error",
    "http_version",
    "not_found",
    "peer_closed",
    "pipelined",
    "source_share",
];

/// Accepts until the worker drains.
pub(super) async fn run<N: Network>(worker: Rc<Worker<N>>, listener: N::Listener) {
    let refusals = LimitedLog::new(worker.clock, |suppressed| {
        tracing::info!(suppressed, "more handshakes refused");
    });
    let failures = LimitedLog::new(worker.clock, |suppressed| {
        tracing::warn!(suppressed, "accepting tunnels failed more often");
    });
    loop {
        let accepted = tokio::select! {
            biased;
            () = worker.signals.tunnels_closed.wait() => {
                drop(listener);
                return worker.with(|machine, _| machine.on_tunnel_listener_closed());
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let accepted = worker.clock.now();
                let place = worker.handshakes.pending.enter(accepted, peer);
                let crowded = place.has_evicted();
                let handshake = handshake(
                    Rc::clone(&worker),
                    stream,
                    peer,
                    accepted,
                    place,
                    refusals.clone(),
                );
                tokio::task::spawn_local(handshake);
                if crowded {
                    // Lets the bytes of each connection be read before many later ones are accepted: otherwise an honest
                    // initiator would lose its place as a silent connection, though its request has arrived.
                    tokio::task::yield_now().await;
                }
            }
            Err(error) => {
                failures.line(|| tracing::warn!(%error, "cannot accept a tunnel"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn handshake<N: Network>(
    worker: Rc<Worker<N>>,
    mut stream: N::Stream,
    peer: SocketAddr,
    accepted: Instant,
    mut place: Place,
    refusals: LimitedLog,
) {
    let outcome = read_request(&worker, &mut stream, peer, &mut place).await;
    drop(place);
    let (refusal, identity) = match outcome {
        Ok(Heard::Tunnel(announcement)) => {
            let decision = worker.machine.borrow_mut().on_handshake(&announcement);
            match decision {
                Ok(placement) => return take(&worker, stream, peer, accepted, announcement, placement),
                Err(refusal) => (refusal, Some(Arc::new(announcement.identity))),
            }
        }
        Ok(Heard::Api(bytes)) => {
            worker.count_handshake("api");
            return serve_api(worker, Prefixed::new(bytes, stream)).await;
        }
        Err(refusal) => (refusal, None),
    };
    worker.count_handshake(refusal.counter());
    let node = identity.as_ref().map(|identity| identity.node.as_str());
    refusals.line(|| tracing::info!(%peer, node, reason = refusal.label(), "handshake refused"));
    let lingering = worker.enter_linger(&refusal);
    let answer = refusal.encode();
    worker.handshakes.refusals.borrow_mut().push(Refused {
        at: worker.clock.now(),
        peer,
        identity,
        why: refusal,
    });
    refuse(stream, &answer, lingering).await;
}

impl<N: Network> Worker<N> {
    /// A place among the refused connections that are read for a while. There are as many as for pending handshakes, and
    /// none for a connection that was closed because there were too many.
    fn enter_linger(&self, refusal: &Refusal) -> Option<Present> {
        let places = usize::try_from(self.config.tunnels.max_pending_handshakes).unwrap_or(usize::MAX);
        let room = self.handshakes.lingering.count() < places;
        let evicted = matches!(refusal, Refusal::Evicted { .. });
        (room && !evicted).then(|| self.handshakes.lingering.enter())
    }
}

enum Heard {
    Tunnel(Announcement),
    Api(Bytes),
}

async fn read_request<N: Network>(
    worker: &Worker<N>,
    stream: &mut N::Stream,
    peer: SocketAddr,
    place: &mut Place,
) -> Result<Heard, Refusal> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let had = bytes.len();
        let deadline = place.deadline();
        // What has arrived is read even if the connection has just been evicted: it may be the whole request.
        let read = tokio::select! {
            biased;
            read = stream.read_buf(&mut bytes) => read,
            why = place.evicted() => {
                let retry_after = worker.machine.borrow_mut().retry_after();
                return Err(Refusal::Evicted { why, retry_after });
            }
            () = worker.clock.until(deadline) => return Err(Refusal::Timeout),
        };
        match read {
            Ok(0) | Err(_) => return Err(Refusal::PeerClosed),
            Ok(_) => place.on_bytes(),
        }
        // A head changes its meaning at the ends of lines: one that trickles in is not read again for each byte.
        if had > 0 && bytes.len() <= HEAD_BYTES_MAX && !bytes[had..].contains(&b'\n') {
            continue;
        }
        let parsed = worker.machine.borrow().demands().parse(&bytes)?;
        if let Some(parsed) = parsed {
            return Ok(match parsed.value {
                Verdict::Tunnel(announcement) => Heard::Tunnel(announcement),
                // It tells who has a tunnel: that is for this machine alone.
                Verdict::Api if peer.ip().to_canonical().is_loopback() => Heard::Api(bytes.into()),
                Verdict::Api => {
                    return Err(Refusal::NotFound {
                        to_head: bytes.starts_with(b"HEAD "),
                    });
                }
            });
        }
    }
}

/// Gives a tunnel to the worker that is to own it.
fn take<N: Network>(
    worker: &Rc<Worker<N>>,
    stream: N::Stream,
    peer: SocketAddr,
    accepted: Instant,
    announced: Announcement,
    placement: Placement,
) {
    let newcomer = Newcomer {
        tunnel: placement.tunnel,
        introduction: Introduction {
            identity: Arc::new(announced.identity),
            instance: announced.instance,
            heard: worker.clock.now(),
        },
        peer,
        peer_tunnel: peer_tunnel(announced.worker, announced.connection),
        accepted,
    };
    let Some(owner) = worker.other(placement.worker) else {
        tokio::task::spawn_local(tunnel::run(Rc::clone(worker), stream, newcomer));
        return;
    };
    match worker.net.release(stream) {
        Ok(stream) => {
            // A worker that is gone means that the process ends.
            let _ = owner.send(Message::Adopt { stream, newcomer });
        }
        Err(error) => {
            tracing::warn!(%error, "cannot move a tunnel to its worker");
            worker.machine.borrow_mut().on_misplaced(placement.tunnel);
            worker.count_handshake("registration_failed");
        }
    }
}

/// What the initiator calls the tunnel: its worker and a number, as in its own log lines if it is an Eddy.
fn peer_tunnel(worker: Option<String>, connection: Option<String>) -> Option<String> {
    let worker = worker?;
    let number = worker.strip_prefix("worker_").unwrap_or(&worker);
    Some(format!("{number}-{}", connection?))
}

/// Sends a refusal, and gives the peer a moment to read it if there is a place for that.
async fn refuse(mut stream: impl crate::net::Stream, answer: &[u8], lingering: Option<Present>) {
    // The peer may have gone; then there is nobody to tell.
    let told = stream.write_all(answer).await.is_ok() && stream.shutdown().await.is_ok();
    let Some(_lingering) = lingering.filter(|_| told) else {
        return;
    };
    let mut left = LINGER_BYTES_MAX;
    let mut scratch = vec![0; 16 << 10];
    let drain = async {
        while let Ok(n @ 1..) = stream.read(&mut scratch).await {
            left = left.saturating_sub(n);
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, drain).await;
}

async fn serve_api<N: Network>(worker: Rc<Worker<N>>, stream: Prefixed<N::Stream>) {
    let service = service_fn(|request| {
        let identities = worker.machine.borrow().directory().identities();
        let answer = api::of_responder(&request, &identities);
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let connection = crate::http::server(None);
    let connection = connection.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        () = worker.signals.tunnels_closed.wait() => {}
        // Whatever ends it ends only this client.
        _ = connection => {}
    }
}
