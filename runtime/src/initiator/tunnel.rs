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
use eddy_core::initiator::{Dial, Initiator, SlotAddress};
use eddy_core::keepalive::{EchoAction, Echoer, LivenessPolicy, PING, SilencePolicy};
use eddy_core::time::Instant;
use eddy_core::timings::Timing;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::carrier::Carrier;
use super::serve;
use super::worker::Worker;
use crate::http::counters::increase;
use crate::http::liveness;
use crate::latch::Latch;
use crate::net::tunnel_io::TunnelIo;
use crate::net::{Meter, Network, Stream};

/// Keeps the tunnel that a dial has become until it is gone.
pub(super) async fn run<N: Network>(
    worker: &Rc<Worker<N>>,
    dial: &Dial,
    stream: N::Stream,
    leftover: &[u8],
    drain: Latch,
) {
    let Some(open) = Open::new(worker, dial) else {
        return;
    };
    let why = match idle(worker, dial.host, stream, leftover, &drain).await {
        Idle::Closed(why) => why,
        // Boxed: an idle tunnel does not pay for the state of one that carries HTTP.
        Idle::Data(head, stream) => {
            open.tell("upgraded", Initiator::on_upgraded);
            Box::pin(active(&open, head, stream, drain)).await
        }
    };
    open.close(why);
}

/// A tunnel that is up. Ends with the task, however that ends.
struct Open<N: Network> {
    worker: Rc<Worker<N>>,
    at: SlotAddress,
    tunnel: TunnelId,
    carrier: Rc<Carrier>,
}

impl<N: Network> Open<N> {
    fn new(worker: &Rc<Worker<N>>, dial: &Dial) -> Option<Self> {
        let Dial { at, tunnel, host, .. } = *dial;
        let identity = Arc::clone(worker.machine.borrow().tunnel(tunnel)?);
        tracing::info!(%tunnel, node = identity.node.as_str(), cluster = identity.cluster.as_str(),
            tenant = identity.tenant.as_str(), %host, worker = %worker.id, "tunnel up");
        let carrier = Rc::new(Carrier {
            tunnel,
            identity,
            host,
            streams: Cell::new(0),
        });
        if let Some(task) = worker.tasks.borrow_mut().get_mut(&at) {
            task.carrier = Some(Rc::clone(&carrier));
        }
        Some(Self {
            worker: Rc::clone(worker),
            at,
            tunnel,
            carrier,
        })
    }

    fn tell<R>(&self, fact: &'static str, tell: impl FnOnce(&mut Initiator, Instant, TunnelId) -> R) -> R {
        self.worker
            .tell(fact, self.at, |machine, now| tell(machine, now, self.tunnel))
    }

    fn close(&self, why: CloseReason) {
        self.worker.tasks.borrow_mut().remove(&self.at);
        let closed = self.tell("closed", |machine, now, tunnel| {
            machine.on_closed(now, tunnel, why)
        });
        self.log(closed);
    }

    fn log(&self, closed: Option<Closed>) {
        let Some(closed) = closed else { return };
        let Identity {
            node,
            cluster,
            tenant,
        } = &*closed.identity;
        tracing::info!(tunnel = %self.tunnel, node = node.as_str(), cluster = cluster.as_str(), tenant = tenant.as_str(),
            host = %self.carrier.host, reason = closed.why.label(), "tunnel down");
        let mut timings = self.worker.telemetry.timings.borrow_mut();
        timings.record(Timing::Lifetime, closed.lived);
    }
}

impl<N: Network> Drop for Open<N> {
    fn drop(&mut self) {
        let now = self.worker.clock.now();
        let closed = self.worker.machine.borrow_mut().on_cut(now, self.tunnel);
        self.log(closed);
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
    let known = worker.machine.borrow().ping_gap(host);
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
                    increase(&worker.telemetry.echoed);
                    if let Some(gap) = echoer.interval() {
                        worker.machine.borrow_mut().on_ping_gap(host, gap);
                    }
                    if stream.write_all(PING).await.is_err() {
                        return Idle::Closed(CloseReason::PeerReset);
                    }
                }
                EchoAction::HandOff(data) => return Idle::Data(Bytes::from(data), stream),
                EchoAction::Unexpected => return Idle::Closed(CloseReason::UnexpectedBytes),
                EchoAction::Silent => return Idle::Closed(CloseReason::Silent),
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

async fn active<N: Network>(open: &Open<N>, head: Bytes, stream: N::Stream, drain: Latch) -> CloseReason {
    let worker = &open.worker;
    let service = service_fn(|request| {
        let (worker, carrier) = (Rc::clone(worker), Rc::clone(&open.carrier));
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
                open.tell("goaway", Initiator::on_goaway);
            }
            // Requests in flight end as they may; the dialer bounds how long.
            () = drain.wait(), if !draining => {
                draining = true;
                open.tell("draining", Initiator::on_draining);
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
