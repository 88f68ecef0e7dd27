//! New connections on the tunnel port: the handshake, its refusals, and the JSON API that shares the port.

use std::borrow::Cow;
use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eddy_core::handshake::request::{Announcement, Verdict};
use eddy_core::handshake::{HEAD_BYTES_MAX, Refusal};
use eddy_core::identity::Identity;
use eddy_core::instance::Instance;
use eddy_core::time::Instant;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::refusals::Refused;
use super::{Message, Newcomer, Worker, tunnel};
use crate::api;
use crate::limited_log::LimitedLog;
use crate::net::prefixed::Prefixed;
use crate::net::{Listener, Network};

/// How long to go on reading from a peer that was refused, so that its kernel does not throw the answer away
/// (RFC 9112, section 9.6).
const LINGER: Duration = Duration::from_secs(1);
/// How much of it to read at most.
const LINGER_BYTES_MAX: usize = 4 << 20;
/// When a dial that came on top of too many is to come back: spread, so that a stampede does not return as one.
const COME_BACK_MIN: Duration = Duration::from_secs(1);
const COME_BACK_MAX: Duration = Duration::from_secs(5);
/// How many redials of a fleet that is refused a responder wants to see in a second, on average over the fleet's spread: a
/// fleet of N spreads over N times this.
const REDIAL_SPREAD_EACH: Duration = Duration::from_micros(100);
/// Fleets that spread over less are left to `dial.refused_max`.
const REDIAL_SPREAD_MIN: Duration = Duration::from_millis(200);
/// So much later at most, for each initiator that is away, those come back that came on top of too many.
const COME_BACK_EACH: Duration = Duration::from_micros(500);

/// A pause where accepting fails because something has run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Every outcome of a handshake that is counted, Envoy's names first.
pub(super) const OUTCOMES: [&str; 14] = [
    "accepted",
    "body_rejected",
    "parse_error",
    "registration_failed",
    "rejected",
    "timeout",
    "validation_failed",
    "api",
    "head_too_large",
    "http_error",
    "http_version",
    "not_found",
    "peer_closed",
    "pipelined",
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
            () = worker.drain.wait() => {
                drop(listener);
                return worker.note_no_more_tunnels();
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                tokio::task::spawn_local(handshake(Rc::clone(&worker), stream, peer, refusals.clone()));
            }
            Err(error) => {
                failures.line(|| tracing::warn!(%error, "cannot accept a tunnel"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

struct Pending<'w>(&'w Cell<u32>);

impl<'w> Pending<'w> {
    fn enter(count: &'w Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn handshake<N: Network>(
    worker: Rc<Worker<N>>,
    mut stream: N::Stream,
    peer: SocketAddr,
    refusals: LimitedLog,
) {
    let accepted = worker.clock.now();
    let pending = Pending::enter(&worker.pending_handshakes);
    let over = pending.0.get() > worker.config.tunnels.max_pending_handshakes;
    let mut refused = None;
    let outcome = if over {
        let away = u32::try_from(worker.absences.borrow().away()).unwrap_or(u32::MAX);
        let latest = COME_BACK_MAX.max(COME_BACK_EACH.saturating_mul(away));
        let spread = worker.rng.borrow_mut().between(COME_BACK_MIN, latest);
        Err(Refusal::Limit {
            retry_after: Some(spread),
        })
    } else {
        let read = read_request(&worker, &mut stream, &mut refused);
        let limit = worker.config.tunnels.handshake_timeout;
        tokio::time::timeout(limit, read)
            .await
            .unwrap_or(Err(Refusal::Timeout))
    };
    match outcome {
        Ok(Heard::Tunnel(announcement)) => take(&worker, stream, peer, accepted, announcement),
        Ok(Heard::Api(bytes)) => {
            worker.count_handshake("api");
            drop(pending);
            serve_api(worker, Prefixed::new(bytes, stream)).await;
        }
        Err(refusal) => {
            worker.count_handshake(refusal.counter());
            let node = refused.as_ref().map(|identity| identity.node.as_str());
            refusals.line(|| tracing::info!(%peer, node, reason = refusal.label(), "handshake refused"));
            // Who comes on top of too many is not waited for.
            let linger = if over { Duration::ZERO } else { LINGER };
            let answer = refusal.encode();
            worker.refusals.borrow_mut().push(Refused {
                at: worker.clock.now(),
                peer,
                identity: refused,
                why: refusal,
            });
            refuse(stream, &answer, linger).await;
        }
    }
}

enum Heard {
    Tunnel(Announcement),
    Api(Bytes),
}

/// Says in `refused` who it was that is refused, if that is known.
async fn read_request<N: Network>(
    worker: &Worker<N>,
    stream: &mut N::Stream,
    refused: &mut Option<Arc<Identity>>,
) -> Result<Heard, Refusal> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        let had = bytes.len();
        match stream.read_buf(&mut bytes).await {
            Ok(0) | Err(_) => return Err(Refusal::PeerClosed),
            Ok(_) => {}
        }
        // A head changes its meaning at the ends of lines: one that trickles in is not read again for each byte.
        if had > 0 && bytes.len() <= HEAD_BYTES_MAX && !bytes[had..].contains(&b'\n') {
            continue;
        }
        match worker.demands.parse(&bytes)? {
            None => {}
            Some(parsed) => {
                return match parsed.value {
                    Verdict::Tunnel(it) if worker.duplicates.borrow().refuses(&it.identity, it.instance) => {
                        *refused = Some(Arc::new(it.identity));
                        Err(Refusal::Duplicate)
                    }
                    Verdict::Tunnel(announcement) => Ok(Heard::Tunnel(announcement)),
                    Verdict::Api => Ok(Heard::Api(bytes.into())),
                };
            }
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
) {
    let identity = Arc::new(announced.identity);
    let placement = worker.registry.borrow_mut().place(&identity);
    let newcomer = Newcomer {
        tunnel: placement.tunnel,
        identity,
        instance: announced.instance,
        peer,
        peer_tunnel: peer_tunnel(announced.worker, announced.connection),
        accepted,
        heard: worker.clock.now(),
    };
    let owner = worker
        .others
        .get(usize::from(placement.worker.0))
        .and_then(Option::as_ref);
    let Some(owner) = owner else {
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
            worker.registry.borrow_mut().on_misplaced(placement.tunnel);
            worker.count_handshake("registration_failed");
        }
    }
}

impl<N: Network> Worker<N> {
    /// The response that makes a connection a tunnel. An Eddy is asked to spread its redials if the fleet is large.
    pub(super) fn accept(&self, instance: Option<Instance>) -> Cow<'static, [u8]> {
        let tunnels = u32::try_from(self.links.borrow().len()).unwrap_or(u32::MAX);
        let spread = REDIAL_SPREAD_EACH.saturating_mul(tunnels);
        if instance.is_none() || spread < REDIAL_SPREAD_MIN {
            return self.demands.accept().into();
        }
        self.demands.accept_and_spread(spread).into()
    }
}

/// What the initiator calls the tunnel: its worker and a number, as in its own log lines if it is an Eddy.
fn peer_tunnel(worker: Option<String>, connection: Option<String>) -> Option<String> {
    let worker = worker?;
    let number = worker.strip_prefix("worker_").unwrap_or(&worker);
    Some(format!("{number}-{}", connection?))
}

/// Says no, and waits a little for the peer to hear it.
async fn refuse(mut stream: impl crate::net::Stream, answer: &[u8], linger: Duration) {
    // The peer may have gone; then there is nobody to tell.
    if stream.write_all(answer).await.is_err() || stream.shutdown().await.is_err() {
        return;
    }
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
    let _ = tokio::time::timeout(linger, drain).await;
}

async fn serve_api<N: Network>(worker: Rc<Worker<N>>, stream: Prefixed<N::Stream>) {
    let service = service_fn(|request| {
        let identities = worker.cache.borrow().identities();
        let answer = api::of_responder(&request, &identities);
        std::future::ready(Ok::<_, Infallible>(answer))
    });
    let connection = crate::http::server(None);
    let connection = connection.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        biased;
        () = worker.drain.wait() => {}
        // Whatever ends it ends only this client.
        _ = connection => {}
    }
}
