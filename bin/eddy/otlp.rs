//! Spans to a collector of OpenTelemetry: one for each request and side, over OTLP/HTTP in protobuf (feature `otlp`).

use std::borrow::Cow;
use std::io;
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use eddy_core::timings::Outcome;
use eddy_runtime::clock::Clock;
use eddy_runtime::config::TracesConfig;
use eddy_runtime::record::{Record, Records};
use http_body_util::{BodyExt, Full, Limited};
use hyper::http::uri::Authority;
use hyper_util::rt::TokioIo;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter as _};
use tokio::net::TcpStream;

use crate::sinks::Sinks;

/// How many spans are sent at once at most.
const BATCH: usize = 512;
/// How long spans wait for company.
const LINGER: Duration = Duration::from_millis(500);
/// How long the collector may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of its answer is read.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// What sends spans.
pub(crate) fn exporter(config: &TracesConfig, sinks: &Sinks<'_>) -> Result<SpanExporter, ExporterBuildError> {
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector)
        .with_endpoint(&config.otlp)
        .with_timeout(PATIENCE)
        .build()?;
    let resource = Resource::builder_empty().with_attributes([
        KeyValue::new("service.name", "eddy"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", sinks.node.id.to_string()),
        KeyValue::new("eddy.role", sinks.role),
        KeyValue::new("eddy.cluster", sinks.node.cluster.to_string()),
    ]);
    exporter.set_resource(&resource.build());
    Ok(exporter)
}

/// Sends until all workers have ended. What the collector does not take is lost, and the log says how much.
pub(crate) fn send(records: &Records, exporter: &SpanExporter) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let clock = Clock::start();
    while let Ok(first) = records.queue.recv() {
        let mut batch: Vec<_> = span(&first).into_iter().collect();
        // Those that come together go together.
        let until = clock.now() + LINGER;
        while batch.len() < BATCH {
            let Ok(next) = records.queue.recv_timeout(until - clock.now()) else {
                break;
            };
            batch.extend(span(&next));
        }
        let spans = batch.len();
        if let Err(error) = runtime.block_on(exporter.export(batch)) {
            records.lost.add(spans);
            tracing::warn!(%error, spans, "the collector takes no spans");
        }
    }
    Ok(())
}

fn span(record: &Record) -> Option<SpanData> {
    let (own, parent) = record.span?;
    let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let mut attributes = vec![
        KeyValue::new("http.request.method", record.method.clone()),
        KeyValue::new("url.path", record.path.clone()),
        KeyValue::new("http.request.body.size", number(record.request_bytes())),
        KeyValue::new("http.response.body.size", number(record.response_bytes)),
        KeyValue::new("network.peer.address", record.peer.clone()),
        KeyValue::new("eddy.request_id", record.request_id.clone()),
        KeyValue::new("eddy.outcome", record.outcome.label()),
        KeyValue::new("eddy.attempts", i64::from(record.attempts)),
    ];
    if let Some(status) = record.status {
        attributes.push(KeyValue::new("http.response.status_code", i64::from(status)));
    }
    if let Some(reason) = record.reason {
        attributes.push(KeyValue::new("eddy.reason", reason));
    }
    if let Some(tunnel) = record.tunnel {
        attributes.push(KeyValue::new("eddy.tunnel", tunnel.to_string()));
    }
    if let Some(identity) = &record.identity {
        attributes.extend([
            KeyValue::new("eddy.tenant", identity.tenant.to_string()),
            KeyValue::new("eddy.cluster", identity.cluster.to_string()),
            KeyValue::new("eddy.node", identity.node.to_string()),
        ]);
    }
    let began = UNIX_EPOCH + record.began;
    let failed = record.outcome == Outcome::Truncated || record.status.is_none_or(|status| status >= 500);
    let context = SpanContext::new(
        TraceId::from(own.trace),
        SpanId::from(own.span),
        TraceFlags::new(own.flags),
        false,
        TraceState::default(),
    );
    Some(SpanData {
        span_context: context,
        parent_span_id: parent.map_or(SpanId::INVALID, SpanId::from),
        parent_span_is_remote: parent.is_some(),
        span_kind: SpanKind::Server,
        name: Cow::Owned(format!("{} {}", record.hop, record.method)),
        start_time: began,
        end_time: began + record.took,
        attributes,
        dropped_attributes_count: 0,
        events: Default::default(),
        links: Default::default(),
        status: if failed {
            Status::error(record.reason.unwrap_or_else(|| record.outcome.label()))
        } else {
            Status::Unset
        },
        instrumentation_scope: InstrumentationScope::builder("eddy").build(),
    })
}

/// One connection for each batch: there are a few a second at most.
#[derive(Debug)]
struct Collector;

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = tokio::time::timeout(PATIENCE, post(request)).await;
        answer.unwrap_or_else(|_| Err("no answer in time".into()))
    }
}

/// The name or address, without the brackets of IPv6.
fn host_of(authority: &Authority) -> &str {
    authority.host().trim_start_matches('[').trim_end_matches(']')
}

async fn post(mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let uri = request.uri().clone();
    let authority = uri.authority().ok_or("the address has no host")?;
    let stream = TcpStream::connect((host_of(authority), authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = hyper::header::HeaderValue::from_str(authority.as_str())?;
    request.headers_mut().insert(hyper::header::HOST, host);
    *request.uri_mut() = path.parse()?;
    let exchange = async {
        let answer = sender.send_request(request.map(Full::new)).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    // The end of the connection shows at the exchange, which may have its answer already.
    let driven = async {
        drop(connection.await);
        std::future::pending().await
    };
    tokio::select! {
        biased;
        answered = exchange => answered,
        () = driven => Err("the connection is gone".into()),
    }
}
