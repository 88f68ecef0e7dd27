//! The life of one tunnel on the side that dialed it: echo pings, then serve HTTP.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use eddy_core::close::CloseReason;
use eddy_core::closed::Closed;
use eddy_core::identity::{Identity, TunnelId};
use eddy_core::keepalive::{EchoAction, Echoer, LivenessPolicy, PING, SilencePolicy};
use eddy_core::shared_socket::SharedSocketWatch;
use eddy_core::time::Instant;
use eddy_core::timings::Timing;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::serve::Carrier;
use super::{Berth, Up, Worker, serve};
use crate::http::counters::increase;
use crate::http::liveness;
use crate::latch::Latch;
use crate::net::tunnel_io::TunnelIo;
use crate::net::{Meter, Network, Stream};
use crate::report::Phase;

/// Keeps a tunnel until it is gone; says why it went.
pub(super) async fn run<N: Network>(
    worker: &Rc<Worker<N>>,
    berth: Berth,
    tunnel: TunnelId,
    host: SocketAddr,
    stream: N::Stream,
    leftover: Vec<u8>,
    drain: Latch,
) -> CloseReason {
    let Some(identity) = worker
        .lanes
        .borrow()
        .get(berth.0)
        .map(|lane| lane.address.identity.clone())
    else {
        return CloseReason::HostGone;
    };
    let entry = Entry::open(worker, berth, tunnel, Arc::new(identity), host);
    let why = match idle(worker, host, stream, &leftover, &drain).await {
        Idle::Closed(why) => why,
        // Boxed: an idle tunnel does not pay for the state of one that carries HTTP.
        Idle::Data(head, stream) => {
            entry.change(Phase::Active);
            let upgraded = worker.clock.now();
            let why = Box::pin(active(worker, berth, &entry, head, stream, drain)).await;
            if SharedSocketWatch::is_early_break(worker.clock.now(), upgraded, why) {
                worker.on_early_break(host);
            }
            why
        }
    };
    entry.why.set(why);
    why
}

/// A tunnel's line in the admin's list. Ends with the task, however that ends.
struct Entry<N: Network> {
    worker: Rc<Worker<N>>,
    tunnel: TunnelId,
    opened: Instant,
    carrier: Rc<Carrier>,
    why: Cell<CloseReason>,
}

impl<N: Network> Entry<N> {
    fn open(
        worker: &Rc<Worker<N>>,
        berth: Berth,
        tunnel: TunnelId,
        identity: Arc<Identity>,
        host: SocketAddr,
    ) -> Self {
        let opened = worker.clock.now();
        tracing::info!(%tunnel, node = identity.node.as_str(), cluster = identity.cluster.as_str(),
            tenant = identity.tenant.as_str(), %host, worker = %worker.id, "tunnel up");
        increase(&worker.opened);
        let carrier = Rc::new(Carrier {
            tunnel,
            identity: Arc::clone(&identity),
            host,
            streams: Cell::new(0),
        });
        let up = Up {
            berth,
            identity,
            host,
            phase: Phase::Idle,
            since: opened,
            opened,
            carrier: Rc::clone(&carrier),
        };
        worker.tunnels.borrow_mut().insert(tunnel, up);
        // A task that is aborted says nothing: its drain took too long.
        let why = Cell::new(CloseReason::Drained);
        Self {
            worker: Rc::clone(worker),
            tunnel,
            opened,
            carrier,
            why,
        }
    }

    fn change(&self, phase: Phase) {
        if let Some(up) = self.worker.tunnels.borrow_mut().get_mut(&self.tunnel) {
            up.phase = phase;
            up.since = self.worker.clock.now();
        }
    }
}

impl<N: Network> Drop for Entry<N> {
    fn drop(&mut self) {
        let Some(up) = self.worker.tunnels.borrow_mut().remove(&self.tunnel) else {
            return;
        };
        let (now, why) = (self.worker.clock.now(), self.why.get());
        let Identity {
            node,
            cluster,
            tenant,
        } = &*up.identity;
        tracing::info!(tunnel = %self.tunnel, node = node.as_str(), cluster = cluster.as_str(), tenant = tenant.as_str(),
            host = %up.host, reason = why.label(), "tunnel down");
        let lived = now - self.opened;
        self.worker.time(Timing::Lifetime, self.opened);
        self.worker.closed.borrow_mut().push(Closed {
            tunnel: self.tunnel,
            identity: up.identity,
            at: now,
            lived,
            why,
        });
    }
}

/// How the idle phase ended.
enum Idle<S> {
    Closed(CloseReason),
    /// The responder sent something that is no ping: HTTP begins, with these bytes.
    Data(Bytes, S),
}

/// How many bytes decide between the versions of HTTP: the length of the HTTP/2 preface (RFC 9113, section 3.4).
const PREFACE_BYTES: u64 = 24;

async fn idle<N: Network>(
    worker: &Worker<N>,
    host: SocketAddr,
    mut stream: N::Stream,
    leftover: &[u8],
    drain: &Latch,
) -> Idle<N::Stream> {
    let liveness = &worker.config.liveness;
    let policy = SilencePolicy {
        first: liveness.first_ping,
        intervals: liveness.intervals,
    };
    let known = worker.ping_gaps.borrow().get(&host).copied();
    let policy = known.map_or(policy, |gap| policy.knowing(gap));
    let mut echoer = Echoer::new(worker.clock.now(), policy);
    echoer.on_bytes(worker.clock.now(), leftover);
    let meter = stream.meter();
    let mut bytes = [0; 512];
    loop {
        while let Some(action) = echoer.poll_action() {
            tracing::trace!(%host, ?action, "action");
            match action {
                EchoAction::Echo => {
                    increase(&worker.echoed);
                    if let Some(gap) = echoer.interval() {
                        let mut gaps = worker.ping_gaps.borrow_mut();
                        let longest = gaps.entry(host).or_default();
                        *longest = gap.max(*longest);
                    }
                    if stream.write_all(PING).await.is_err() {
                        return Idle::Closed(CloseReason::PeerReset);
                    }
                }
                EchoAction::HandOff(data) => return Idle::Data(Bytes::from(data), stream),
                EchoAction::Unexpected => return Idle::Closed(CloseReason::UnexpectedBytes),
                EchoAction::Silent => {
                    // Who is there now may take longer from ping to ping than who was.
                    worker.ping_gaps.borrow_mut().remove(&host);
                    return Idle::Closed(CloseReason::Silent);
                }
            }
        }
        let deadline = echoer.poll_timeout();
        tokio::select! {
            biased;
            read = stream.read(&mut bytes) => match read {
                Ok(0) => return Idle::Closed(CloseReason::PeerClosed),
                Ok(n) => {
                    tracing::trace!(%host, bytes = n, "event");
                    echoer.on_bytes(worker.clock.now(), &bytes[..n]);
                }
                Err(_) => return Idle::Closed(CloseReason::PeerReset),
            },
            () = drain.wait() => return Idle::Closed(CloseReason::Drained),
            () = worker.clock.until(deadline) => {
                tracing::trace!(%host, timer = deadline.map(|deadline| deadline.reason), "event");
                echoer.handle_timeout(worker.clock.now(), || meter.unacknowledged());
            }
        }
    }
}

async fn active<N: Network>(
    worker: &Rc<Worker<N>>,
    berth: Berth,
    entry: &Entry<N>,
    head: Bytes,
    stream: N::Stream,
    drain: Latch,
) -> CloseReason {
    let service = service_fn(|request| {
        let (worker, carrier) = (Rc::clone(worker), Rc::clone(&entry.carrier));
        async move { Ok::<_, Infallible>(serve::serve(worker, carrier, request).await) }
    });
    let config = &worker.config.liveness;
    let (stream, control) = TunnelIo::of_server(stream, head, worker.clock);
    let silent = async {
        tokio::time::sleep(config.first_ping).await;
        if control.received_bytes() >= PREFACE_BYTES {
            std::future::pending().await
        }
    };
    let dead = async {
        control.settings().await;
        let policy = LivenessPolicy {
            interval: config.http2.ping_interval,
            timeout: config.http2.ping_timeout,
        };
        liveness::until_dead(worker.clock, policy, &control).await;
    };
    let server = crate::http::server(Some(&worker.config.http2));
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    let (mut silent, mut dead) = (pin!(silent), pin!(dead));
    let (mut told, mut draining) = (false, false);
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                let well = if told { CloseReason::GoAway } else { CloseReason::PeerClosed };
                return if draining { CloseReason::Drained } else { why(ended, well) };
            }
            // HTTP/2's own PING begins with the whole preface; until then nothing else would notice.
            () = silent.as_mut() => return CloseReason::Silent,
            () = dead.as_mut() => return CloseReason::HttpPing,
            () = control.failed() => return CloseReason::HttpError,
            // The responder drains: a replacement is dialed. Until the responder ends this tunnel it may need it.
            () = control.goaway(), if !told => {
                told = true;
                entry.change(Phase::Draining);
                worker.tell(berth, "goaway", |dialer, now, slot| dialer.on_goaway(now, slot));
            }
            // Requests in flight end as they may; the dialer bounds how long.
            () = drain.wait(), if !draining => {
                draining = true;
                entry.change(Phase::Draining);
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

fn why(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>, well: CloseReason) -> CloseReason {
    ended.map_or_else(|error| reason(&*error), |()| well)
}

fn reason(error: &(dyn std::error::Error + 'static)) -> CloseReason {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return crate::http::ended_by(io);
        }
        cause = error.source();
    }
    CloseReason::HttpError
}
