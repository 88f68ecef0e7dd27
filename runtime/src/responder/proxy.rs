//! One request of a client: which tunnel takes it, and what comes back.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use eddy_core::attempts::{Attempts, Budget, Failure, Next, RETRIES_MAX};
use eddy_core::cache::Ended;
use eddy_core::identity::TunnelId;
use eddy_core::policy::READER_STALLED;
use eddy_core::responder::{Pick, Wait};
use eddy_core::router::{Refusal, is_ambiguous};
use eddy_core::time::Deadline;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};

use super::client::Client;
use super::client_load::{ClientLoad, Counted};
use super::readers::Unread;
use super::worker::Worker;
use crate::http::body::{Answer, Follow, Loan, Question, Whole, is_bodiless};
use crate::http::counters::{Counters, Running, increase};
use crate::http::limits::{Late, Limits};
use crate::http::{heads, hygiene};
use crate::net::Network;

/// A request's place on a tunnel; given back when dropped.
struct Lease<N: Network> {
    worker: Rc<Worker<N>>,
    tunnel: TunnelId,
    how: Ended,
    _in_flight: Counted,
}

impl<N: Network> Lease<N> {
    fn answered(&mut self) {
        self.how = Ended::Answered;
        let now = self.worker.clock.now();
        let mut machine = self.worker.machine.borrow_mut();
        machine.on_answered(now, self.tunnel);
    }
}

impl<N: Network> Drop for Lease<N> {
    fn drop(&mut self) {
        self.worker.release(self.tunnel, self.how);
    }
}

/// The worker as the owner of its numbers.
struct Numbers<N: Network>(Rc<Worker<N>>);

impl<N: Network> AsRef<Counters> for Numbers<N> {
    fn as_ref(&self) -> &Counters {
        &self.0.telemetry.http
    }
}

/// Why a response broke off that was on a tunnel which one of its ends drained: the drain took longer than that end allows.
const DRAINED: &str = "drained";

/// Lasts as long as the body of an answer.
pub(super) struct Following<N: Network> {
    running: Running<Numbers<N>>,
    unread: Unread,
    lease: Lease<N>,
}

impl<N: Network> Drop for Following<N> {
    fn drop(&mut self) {
        if let Some(end) = self.unread.end() {
            self.running.truncate(end.label());
        }
    }
}

impl<N: Network> Follow for Following<N> {
    fn passed(&mut self, bytes: usize) {
        self.running.pass(bytes);
        self.unread.take(bytes);
    }

    fn awaited(&mut self) {
        self.unread.clear();
    }

    fn finished(&mut self) {
        self.running.end();
        self.unread.clear();
    }

    fn broken(&mut self, _: &hyper::Error) {
        let drained = {
            let machine = self.lease.worker.machine.borrow();
            machine.is_draining(self.lease.tunnel)
        };
        self.running.truncate(if drained {
            DRAINED
        } else {
            Refusal::TunnelLost.label()
        });
    }
}

/// Answers one request.
pub(super) async fn proxy<N: Network>(
    worker: Rc<Worker<N>>,
    mut request: Request<Incoming>,
    client: Rc<Client<N>>,
) -> Response<Answer<Following<N>>> {
    // Before Eddy's own headers are there.
    let too_large = heads::is_request_head_too_large(request.method(), request.uri(), request.headers());
    let record = worker
        .telemetry
        .http
        .recorder
        .begin(&mut request, client.address, || worker.net.wall());
    let mut running = Running::new(Numbers(Rc::clone(&worker)), record);
    let one_by_one = request.version() < Version::HTTP_2;
    let method = request.method().clone();
    let prepared = if too_large {
        Err(Refusal::HeadTooLarge)
    } else if worker.clients.memory.is_exceeded() {
        Err(Refusal::MemoryLimit)
    } else {
        prepare(&worker, &mut request)
    };
    let forwarded = match prepared {
        Ok(demand) => forward(&worker, request, demand, &client, &mut running).await,
        Err(why) => Err(why.into()),
    };
    match forwarded {
        Ok((response, lease)) => {
            running.respond(response.status());
            let bodiless = is_bodiless(&method, response.status());
            let (mut head, body) = response.into_parts();
            if one_by_one && worker.signals.tunnels_closed.is_set() {
                // The client's next request comes on a connection of its own, which finds who takes over.
                head.headers
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            let follow = Following {
                running,
                unread: client.reader.response(),
                lease,
            };
            Response::from_parts(head, Answer::stream(body, follow, bodiless))
        }
        Err(Failed::Refused(why, text)) => {
            running.refuse(why);
            running.pass(text.len() + 1);
            tracing::debug!(reason = why.label(), text, "request refused");
            refusal(why, text)
        }
        // Nobody is left to read this; what counts is that the request ends as one whose client went away.
        Err(Failed::ClientGone) => refusal(Refusal::BadRequest, "the request broke off".into()),
    }
}

/// Why a request has no answer of the service.
enum Failed {
    /// Eddy says why, with a text for people.
    Refused(Refusal, String),
    /// The client broke off in the middle of its request.
    ClientGone,
}

impl From<Refusal> for Failed {
    fn from(why: Refusal) -> Self {
        Self::Refused(why, why.to_string())
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        failure.refusal().map_or(Self::ClientGone, Self::from)
    }
}

fn refusal<F>(why: Refusal, text: String) -> Response<Answer<F>> {
    let mut response = Response::new(Answer::text(text + "\n"));
    *response.status_mut() = StatusCode::from_u16(why.status()).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    headers.insert(hygiene::REASON, HeaderValue::from_static(why.label()));
    response
}

/// What the route says of a request.
#[derive(Clone, Copy)]
struct Demand {
    /// How long the response may take, from the end of the request.
    timeout: Option<Duration>,
    /// How long its body may rest.
    body_idle: Option<Duration>,
    /// Whether it may be sent again when its tunnel dies.
    retry: bool,
}

/// Makes the request fit for a tunnel; says what the route gives it.
fn prepare<N: Network>(worker: &Worker<N>, request: &mut Request<Incoming>) -> Result<Demand, Refusal> {
    if *request.method() == Method::CONNECT {
        return Err(Refusal::BadRequest);
    }
    if is_ambiguous(request.uri().path()) {
        return Err(Refusal::BadPath);
    }
    let route = worker
        .rules
        .routes
        .find(request.uri().path())
        .ok_or(Refusal::NoRoute)?;
    let (keys, tenant) = (&worker.rules.key_headers, worker.rules.tenant_header.as_ref());
    if hygiene::has_misspelt_name(request.headers(), keys, tenant) {
        return Err(Refusal::BadRequest);
    }
    if heads::has_other_transfer_encoding(request.headers()) {
        return Err(Refusal::TransferEncoding);
    }
    hygiene::strip(request.headers_mut(), keys, tenant);
    request.headers_mut().remove(header::EXPECT);
    let authority = match request.uri().authority() {
        Some(authority) => authority.clone(),
        None => only_host(request.headers()).ok_or(Refusal::BadRequest)?,
    };
    // Who a request is for is no place for a password (RFC 9110, section 4.2.4).
    if authority.as_str().contains('@') {
        return Err(Refusal::BadRequest);
    }
    request.headers_mut().remove(header::HOST);
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    parts
        .path_and_query
        .get_or_insert_with(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Refusal::BadRequest)?;
    *request.version_mut() = Version::HTTP_2;
    Ok(Demand {
        timeout: Some(route.timeout).filter(|t| !t.is_zero()),
        body_idle: Some(route.body_idle_timeout).filter(|t| !t.is_zero()),
        retry: route.retry,
    })
}

async fn forward<N: Network>(
    worker: &Rc<Worker<N>>,
    request: Request<Incoming>,
    demand: Demand,
    client: &Client<N>,
    running: &mut Running<Numbers<N>>,
) -> Result<(Response<Incoming>, Lease<N>), Failed> {
    let began = running.began();
    let count = running.record().map(|record| &record.request_bytes);
    let (request, upload) = Question::of(request, worker.clock, count);
    let limits = Limits {
        clock: worker.clock,
        began,
        response: demand.timeout,
        body_idle: demand.body_idle,
    };
    let waits = Cell::new(false);
    let attempt = send(worker, request, demand.retry, &client.load, &waits, running);
    let gives_up = |stalled| {
        if client.is_gone() {
            return Some(Late::Gone);
        }
        let is_short = worker.clients.memory.is_exceeded() && stalled >= READER_STALLED;
        is_short.then_some(Late::Memory)
    };
    let sent = limits.bound(upload.as_deref(), gives_up, attempt).await;
    let (mut response, lease) = sent.unwrap_or_else(|late| {
        Err(match late {
            Late::Gone => Failed::ClientGone,
            Late::Memory => Refusal::MemoryLimit.into(),
            Late::Sender | Late::Receiver if waits.get() => Refusal::Overloaded.into(),
            Late::Sender => Refusal::BodyIdle.into(),
            Late::Receiver => Refusal::TunnelTimeout.into(),
        })
    })?;
    hygiene::strip(response.headers_mut(), &[], None);
    hygiene::put_service_time(response.headers_mut(), worker.clock.now() - began);
    *response.version_mut() = Version::HTTP_11;
    Ok((response, lease))
}

/// Sends the request into a tunnel, and into another one as long as [`Attempts`] allows it. `waits` is set while it waits
/// for a place.
async fn send<N: Network>(
    worker: &Rc<Worker<N>>,
    request: Request<Question>,
    retry: bool,
    load: &ClientLoad,
    waits: &Cell<bool>,
    running: &mut Running<Numbers<N>>,
) -> Result<(Response<Incoming>, Lease<N>), Failed> {
    let (mut request, budget) = keep(request, retry).await?;
    let mut attempts = Attempts::new(running.began(), budget);
    // Ends: each turn sends the request, avoids one more tunnel, or uses up time.
    loop {
        let tunnel = match pick(worker, request.headers(), load, &mut attempts)? {
            Ok(tunnel) => tunnel,
            Err(wait) => {
                wait_for(worker, request.headers(), wait, load, waits).await?;
                continue;
            }
        };
        let mut lease = Lease {
            worker: Rc::clone(worker),
            tunnel,
            how: Ended::Abandoned,
            _in_flight: load.begin(),
        };
        let sender = worker.tunnels.sender(tunnel, !attempts.survives_loss());
        let Some(mut sender) = sender.await else {
            lease.how = Ended::Failed(Failure::Unsent);
            attempts.on_failed(tunnel, Failure::Unsent);
            continue;
        };
        if let Some(record) = running.record() {
            record.attempts += 1;
            record.tunnel = Some(tunnel);
            let machine = worker.machine.borrow();
            record.identity = machine.directory().identity(tunnel).map(Arc::clone);
        }
        let again = Again::of(&mut request, &attempts);
        let failure = match sender.try_send_request(request).await {
            Ok(response) => {
                lease.answered();
                return Ok((response, lease));
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) => {
                    lease.how = Ended::Failed(Failure::Unsent);
                    attempts.on_failed(tunnel, Failure::Unsent);
                    request = unsent;
                    if let Some(record) = running.record() {
                        record.attempts -= 1;
                    }
                    continue;
                }
                None => failure(&error.into_error()),
            },
        };
        lease.how = Ended::Failed(failure);
        request = match (attempts.on_failed(tunnel, failure), again.request()) {
            (Next::Again, Some(again)) => again,
            (Next::Again | Next::GiveUp, _) => return Err(failure.into()),
        };
        increase(&worker.telemetry.http.retried);
    }
}

/// The largest body that is kept to be sent again: what a call of an API has, not an upload.
const REPLAY_BYTES_MAX: u64 = 64 << 10;

/// Keeps what is needed to send the request again, and says how often that may happen. A request whose stream was refused, or
/// that came after the peer's GOAWAY, was not processed, so it may be sent again whatever its method. After a lost connection
/// its method must allow that (RFC 9110, section 9.2.2). Where the route allows retries, a small body is read and kept; a
/// larger one can be sent again as long as nothing of it was used.
async fn keep(request: Request<Question>, retry: bool) -> Result<(Request<Question>, Budget), Failed> {
    let repeatable = retry && request.method().is_idempotent();
    let budget = Budget {
        lost: if repeatable { RETRIES_MAX } else { 0 },
        refused: RETRIES_MAX,
    };
    let once = Budget { lost: 0, ..budget };
    if request.body().is_end_stream() {
        return Ok((request.map(|_| Question::Whole(Whole::default())), budget));
    }
    if !retry {
        return Ok((request, once));
    }
    let small = request
        .body()
        .size_hint()
        .exact()
        .is_some_and(|bytes| bytes <= REPLAY_BYTES_MAX);
    if !small {
        return Ok((request, once));
    }
    let (head, body) = request.into_parts();
    let whole = body.collect().await.map_err(|_| Failed::ClientGone)?;
    let request = Request::from_parts(head, Question::Whole(whole.into()));
    Ok((request, budget))
}

/// What is kept of a request for another attempt.
enum Again {
    /// All of it.
    Copy(Request<Question>),
    /// Its head, and a claim to its body until that is used.
    Lent(Request<()>, Loan),
    /// Nothing.
    Never,
}

impl Again {
    fn of(request: &mut Request<Question>, attempts: &Attempts) -> Self {
        if let Question::Whole(whole) = request.body() {
            if !attempts.may_repeat() {
                return Self::Never;
            }
            let copy = Question::Whole(whole.clone());
            return Self::Copy(head_of(request).map(|()| copy));
        }
        let body = std::mem::take(request.body_mut());
        let (body, loan) = body.lend();
        *request.body_mut() = body;
        loan.map_or(Self::Never, |loan| Self::Lent(head_of(request), loan))
    }

    fn request(self) -> Option<Request<Question>> {
        match self {
            Self::Copy(request) => Some(request),
            Self::Lent(head, loan) => {
                let body = loan.reclaim()?;
                Some(head.map(|()| body))
            }
            Self::Never => None,
        }
    }
}

fn head_of(request: &Request<Question>) -> Request<()> {
    let mut head = Request::new(());
    *head.method_mut() = request.method().clone();
    *head.uri_mut() = request.uri().clone();
    *head.version_mut() = request.version();
    *head.headers_mut() = request.headers().clone();
    head
}

/// Gives a request's wait back to the machine when dropped.
struct Waiting<'w, N: Network>(&'w Worker<N>, Wait);

impl<N: Network> Drop for Waiting<'_, N> {
    fn drop(&mut self) {
        self.0.machine.borrow_mut().on_waited(self.1);
    }
}

/// Waits as the machine has decided; then it is worth to ask it again.
async fn wait_for<N: Network>(
    worker: &Worker<N>,
    headers: &HeaderMap,
    wait: Wait,
    load: &ClientLoad,
    waits: &Cell<bool>,
) -> Result<(), Refusal> {
    let _waiting = Waiting(worker, wait);
    let id = worker.rules.key(headers)?.id;
    let at = |at, reason| worker.clock.until(Some(Deadline { at, reason }));
    match wait {
        Wait::Pause { until } => at(until, "tunnels that have refused the request").await,
        Wait::Place { until } => {
            let (seat, _counted) = (worker.clients.places.enter(id), load.wait());
            waits.set(true);
            tokio::select! {
                biased;
                () = seat.woken() => {}
                () = at(until, "place on a tunnel") => {}
            }
            waits.set(false);
        }
        Wait::Return { until, is_first } => {
            if is_first {
                increase(&worker.telemetry.http.waited);
            }
            let seat = worker.clients.returns.enter(id);
            tokio::select! {
                biased;
                () = seat.woken() => {}
                () = worker.signals.tunnels_closed.wait() => {}
                () = at(until, "reconnect grace") => {}
            }
        }
    }
    Ok(())
}

/// The `Host` of a request, of which there must be one (RFC 9112, section 3.2).
fn only_host(headers: &HeaderMap) -> Option<Authority> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().filter(|_| hosts.next().is_none());
    Authority::try_from(host?.as_bytes()).ok()
}

/// The tunnel of a request, or what it must wait for.
fn pick<N: Network>(
    worker: &Worker<N>,
    headers: &HeaderMap,
    load: &ClientLoad,
    attempts: &mut Attempts,
) -> Result<Result<TunnelId, Wait>, Failed> {
    let key = worker.rules.key(headers)?;
    let (now, share) = (worker.clock.now(), load.share());
    let picked = worker.machine.borrow_mut().pick(now, &key, share, attempts);
    match picked {
        Pick::Tunnel(tunnel) => Ok(Ok(tunnel)),
        Pick::Wait(wait) => {
            // The machine may want another request to be woken.
            worker.perform_all(&[]);
            Ok(Err(wait))
        }
        Pick::Refuse(Refusal::NoTunnel) => {
            let text = format!("no tunnel to {}", key.id);
            Err(Failed::Refused(Refusal::NoTunnel, text))
        }
        Pick::Refuse(why) => Err(why.into()),
    }
}

/// Why a request that was sent has no response.
fn failure(error: &hyper::Error) -> Failure {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            return match h2.reason() {
                Some(h2::Reason::REFUSED_STREAM) if h2.is_reset() => Failure::StreamRefused,
                // A request beyond the last stream of the peer's GOAWAY, or one that came after it, was not processed
                // (RFC 9113, section 6.8).
                Some(h2::Reason::NO_ERROR) if h2.is_go_away() && h2.is_remote() => Failure::Unsent,
                Some(_) if h2.is_reset() && h2.is_remote() => Failure::StreamReset,
                // This end resets a stream before its answer for one reason: the body to send has failed.
                Some(_) if h2.is_reset() && !h2.is_library() => Failure::Body,
                Some(_) if h2.is_library() => Failure::Protocol,
                _ => Failure::ConnectionLost,
            };
        }
        source = cause.source();
    }
    Failure::ConnectionLost
}
