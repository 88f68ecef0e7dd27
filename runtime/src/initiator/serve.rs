//! One request out of a tunnel: which service gets it, and what goes back.

use std::rc::Rc;
use std::sync::Arc;

use eddy_core::policy::READER_STALLED;
use eddy_core::router::{Refusal, is_ambiguous};
use eddy_core::time::Instant;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Method, Request, Response, StatusCode, Uri, Version};

use super::carrier::{Carrier, OnTunnel};
use super::services::{self, Return};
use super::worker::Worker;
use crate::config::Protocol;
use crate::http::begun::Begun;
use crate::http::body::{Answer, Follow, Question, is_bodiless};
use crate::http::counters::{Counters, Running};
use crate::http::limits::{Late, Limits, Upload};
use crate::http::{heads, hygiene};
use crate::net::Network;

/// The worker as the owner of its numbers.
struct Numbers<N: Network>(Rc<Worker<N>>);

impl<N: Network> AsRef<Counters> for Numbers<N> {
    fn as_ref(&self) -> &Counters {
        &self.0.telemetry.http
    }
}

/// Lasts as long as the body of an answer.
pub(super) struct Following<N: Network> {
    running: Running<Numbers<N>>,
    back: Option<Return>,
    _on_tunnel: OnTunnel,
}

impl<N: Network> Follow for Following<N> {
    fn passed(&mut self, bytes: usize) {
        self.running.pass(bytes);
    }

    fn finished(&mut self) {
        self.running.end();
        if let Some(back) = self.back.take() {
            back.give_back();
        }
    }

    fn broken(&mut self, error: &hyper::Error) {
        let why = services::refusal(error);
        tracing::debug!(%error, reason = why.label(), "the body of the service's response broke off");
        self.running.truncate(why.label());
    }
}

/// Answers one request.
pub(super) async fn serve<N: Network>(
    worker: Rc<Worker<N>>,
    carrier: Rc<Carrier>,
    mut request: Request<Incoming>,
) -> Response<Answer<Following<N>, Begun>> {
    let record = worker
        .telemetry
        .http
        .recorder
        .begin(&mut request, carrier.host, || worker.net.wall());
    let on_tunnel = OnTunnel::new(carrier);
    let mut running = Running::new(Numbers(Rc::clone(&worker)), record);
    if let Some(record) = running.record() {
        record.tunnel = Some(on_tunnel.0.tunnel);
        record.identity = Some(Arc::clone(&on_tunnel.0.identity));
        record.attempts = 1;
    }
    let method = request.method().clone();
    let count = running.record().map(|record| &record.request_bytes);
    let (request, upload) = Question::of(request, worker.clock, count);
    let answered = forward(&worker, request, upload.as_deref(), running.began()).await;
    let took = worker.clock.now() - running.began();
    match answered {
        Ok((mut response, back)) => {
            running.respond(response.status());
            hygiene::put_service_time(response.headers_mut(), took);
            *response.version_mut() = Version::HTTP_2;
            let bodiless = is_bodiless(&method, response.status());
            let (head, body) = response.into_parts();
            let follow = Following {
                running,
                back,
                _on_tunnel: on_tunnel,
            };
            Response::from_parts(head, Answer::stream(body, follow, bodiless))
        }
        Err(why) => {
            running.refuse(why);
            let text = format!("{why}\n");
            running.pass(text.len());
            let mut response = Response::new(Answer::text(text));
            *response.status_mut() = StatusCode::from_u16(why.status()).unwrap_or(StatusCode::BAD_GATEWAY);
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            headers.insert(hygiene::REASON, HeaderValue::from_static(why.label()));
            response
        }
    }
}

async fn forward<N: Network>(
    worker: &Worker<N>,
    mut request: Request<Question>,
    upload: Option<&Upload>,
    began: Instant,
) -> Result<(Response<Begun>, Option<Return>), Refusal> {
    if worker.memory.is_exceeded() {
        return Err(Refusal::MemoryLimit);
    }
    if is_ambiguous(request.uri().path()) {
        return Err(Refusal::BadPath);
    }
    let route = worker.routes.find(request.uri().path()).ok_or(Refusal::NoRoute)?;
    prepare(&mut request, route.services.protocol())?;
    let limits = Limits {
        clock: worker.clock,
        began,
        response: Some(route.timeout).filter(|t| !t.is_zero()),
        body_idle: Some(route.body_idle_timeout).filter(|t| !t.is_zero()),
    };
    let gives_up = |stalled| {
        let is_short = worker.memory.is_exceeded() && stalled >= READER_STALLED;
        is_short.then_some(Late::Memory)
    };
    let sent = limits.bound(upload, gives_up, route.services.send(request)).await;
    let sent = sent.map_err(|late| match late {
        Late::Sender | Late::Gone => Refusal::BodyIdle,
        Late::Receiver => Refusal::ServiceTimeout,
        Late::Memory => Refusal::MemoryLimit,
    })?;
    let (response, back) = sent.map_err(|error| {
        tracing::debug!(%error, "the service gave no answer");
        error.refusal()
    })?;
    Ok((check(response).await?, back))
}

/// Makes the response fit for a tunnel, or refuses it while the client has seen nothing of it.
async fn check(response: Response<Incoming>) -> Result<Response<Begun>, Refusal> {
    let (mut head, body) = response.into_parts();
    hygiene::strip(&mut head.headers, &[], None);
    // Only Eddy says why Eddy refused.
    head.headers.remove(hygiene::REASON);
    // No request asks for another protocol, so nobody may switch to one.
    if head.status.is_informational() {
        tracing::debug!(
            status = head.status.as_u16(),
            "the service's response has an informational status"
        );
        return Err(Refusal::ServiceProtocol);
    }
    if heads::is_response_head_too_large(&head.headers) {
        tracing::debug!(
            fields = head.headers.len(),
            "the head of the service's response is too large"
        );
        return Err(Refusal::ServiceProtocol);
    }
    let body = Begun::begin(body).await.map_err(|error| {
        tracing::debug!(%error, "the body of the service's response is broken from its beginning");
        services::refusal(&error)
    })?;
    Ok(Response::from_parts(head, body))
}

/// Makes the request fit for the service.
fn prepare(request: &mut Request<Question>, protocol: Protocol) -> Result<(), Refusal> {
    if *request.method() == Method::CONNECT {
        return Err(Refusal::BadRequest);
    }
    hygiene::strip(request.headers_mut(), &[], None);
    match protocol {
        Protocol::H2 => {
            *request.version_mut() = Version::HTTP_2;
            let host = request.headers_mut().remove(header::HOST);
            if request.uri().authority().is_none() {
                let mut parts = std::mem::take(request.uri_mut()).into_parts();
                let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
                parts.authority = Some(authority.ok_or(Refusal::BadRequest)?);
                parts.scheme = Some(Scheme::HTTP);
                *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Refusal::BadRequest)?;
            }
        }
        Protocol::H1 => {
            *request.version_mut() = Version::HTTP_11;
            let mut parts = std::mem::take(request.uri_mut()).into_parts();
            if let Some(authority) = parts.authority.take() {
                let host = HeaderValue::try_from(authority.as_str()).map_err(|_| Refusal::BadRequest)?;
                request.headers_mut().insert(header::HOST, host);
            }
            parts.scheme = None;
            parts
                .path_and_query
                .get_or_insert_with(|| PathAndQuery::from_static("/"));
            *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Refusal::BadRequest)?;
        }
    }
    Ok(())
}
