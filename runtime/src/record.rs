//! What is told of a request once it has ended: a line of the access log, and a span of its trace.
//!
//! A worker hands the record to a bounded queue and goes on; whoever writes reads from there. Where the queue is full the
//! record is dropped, and counted. Nothing here is made where nobody asked for records.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eddy_core::identity::{Identity, TunnelId};
use eddy_core::rng::Rng;
use eddy_core::timings::Outcome;
use eddy_core::traceparent::{self, TraceParent};
use hyper::Request;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

/// Names a request on all its hops.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static(traceparent::HEADER);
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// How many records may wait to be written.
const QUEUE_MAX: usize = 8192;
/// The most of a client's own text, such as a path, that is told.
const TEXT_BYTES_MAX: usize = 1024;

/// The end where records are written.
#[derive(Debug)]
pub struct Records {
    /// The records.
    pub queue: Receiver<Arc<Record>>,
    /// Those that could not be written.
    pub lost: Lost,
}

/// How many records a writer has lost: its queue was full, or nobody took them.
#[derive(Clone, Debug, Default)]
pub struct Lost(Arc<AtomicU64>);

impl Lost {
    /// So many more.
    pub fn add(&self, records: usize) {
        self.0.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// All of them.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where the workers of a process put their records for one writer.
#[derive(Clone, Debug)]
struct Queue {
    records: SyncSender<Arc<Record>>,
    lost: Lost,
}

impl Queue {
    fn new() -> (Self, Records) {
        let (records, queue) = sync_channel(QUEUE_MAX);
        let lost = Lost::default();
        let written = Records {
            queue,
            lost: lost.clone(),
        };
        (Self { records, lost }, written)
    }

    fn put(&self, record: &Arc<Record>) {
        if self.records.try_send(Arc::clone(record)).is_err() {
            self.lost.add(1);
        }
    }
}

/// A queue for each writer, so that a slow one keeps up no other.
#[derive(Clone, Debug, Default)]
pub struct RecordQueues {
    access_log: Option<Queue>,
    traces: Option<Queue>,
}

impl RecordQueues {
    /// For the access log.
    pub fn open_access_log(&mut self) -> Records {
        let (queue, records) = Queue::new();
        self.access_log = Some(queue);
        records
    }

    /// For spans: from now on each hop continues the trace of the one before.
    pub fn open_traces(&mut self) -> Records {
        let (queue, records) = Queue::new();
        self.traces = Some(queue);
        records
    }

    /// What each writer has lost, by its name; those that are there.
    pub fn losses(&self) -> Vec<(&'static str, Lost)> {
        let writers = [("access_log", &self.access_log), ("traces", &self.traces)];
        let losses = writers
            .into_iter()
            .filter_map(|(name, queue)| Some((name, queue.as_ref()?.lost.clone())));
        losses.collect()
    }
}

/// What is known of a request.
#[derive(Clone, Debug)]
pub struct Record {
    /// Who tells: `egress` (the responder) or `service` (the initiator).
    pub hop: &'static str,
    /// When its head had come, since 1970.
    pub began: Duration,
    /// From its head to the end of its answer.
    pub took: Duration,
    /// The client's, or the one made in its place.
    pub request_id: String,
    /// The method.
    pub method: String,
    /// The path, without the query, which may hold a secret.
    pub path: String,
    /// Who asked: the client at the responder, the responder at the initiator.
    pub peer: String,
    /// Whose tunnel carried it, if one did.
    pub identity: Option<Arc<Identity>>,
    /// The tunnel, as this process calls it.
    pub tunnel: Option<TunnelId>,
    /// How often it was sent into a tunnel.
    pub attempts: u32,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why Eddy answered it itself, or why the body of its answer broke off.
    pub reason: Option<&'static str>,
    /// Grows as its body comes.
    pub(crate) request_bytes: Arc<AtomicU64>,
    /// How much of the answer's body was passed on.
    pub response_bytes: u64,
    /// Its own span, and its parent's, if it is to be traced.
    pub span: Option<(TraceParent, Option<u64>)>,
}

#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    hop: &'a str,
    request_id: &'a str,
    method: &'a str,
    path: &'a str,
    status: Option<u16>,
    outcome: &'a str,
    reason: Option<&'a str>,
    duration_ms: f64,
    request_bytes: u64,
    response_bytes: u64,
    tenant: Option<&'a str>,
    cluster: Option<&'a str>,
    node: Option<&'a str>,
    tunnel: Option<String>,
    attempts: u32,
    peer: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

impl Record {
    /// How much of its body has come; of one that is kept to be sent again, all of it.
    pub fn request_bytes(&self) -> u64 {
        self.request_bytes.load(Ordering::Relaxed)
    }

    /// One line of JSON, with its end.
    pub fn line(&self) -> String {
        let identity = self.identity.as_deref();
        let line = Line {
            timestamp: rfc3339(self.began),
            hop: self.hop,
            request_id: &self.request_id,
            method: &self.method,
            path: &self.path,
            status: self.status,
            outcome: self.outcome.label(),
            reason: self.reason,
            duration_ms: self.took.as_micros() as f64 / 1000.0,
            request_bytes: self.request_bytes(),
            response_bytes: self.response_bytes,
            tenant: identity.map(|identity| identity.tenant.as_str()),
            cluster: identity.map(|identity| identity.cluster.as_str()),
            node: identity.map(|identity| identity.node.as_str()),
            tunnel: self.tunnel.map(|tunnel| tunnel.to_string()),
            attempts: self.attempts,
            peer: &self.peer,
            trace_id: self.span.map(|(own, _)| format!("{:032x}", own.trace)),
        };
        // Texts and numbers always are JSON.
        serde_json::to_string(&line).unwrap_or_default() + "\n"
    }
}

fn rfc3339(since_1970: Duration) -> String {
    let at: SystemTime = UNIX_EPOCH + since_1970;
    humantime::format_rfc3339_millis(at).to_string()
}

/// What makes the records of one worker.
#[derive(Debug)]
pub(crate) struct Recorder {
    hop: &'static str,
    records: RecordQueues,
    ids: RefCell<Rng>,
}

impl Recorder {
    /// One whom nobody hears. `rng` is of its own.
    pub(crate) const fn new(hop: &'static str, rng: Rng) -> Self {
        Self {
            hop,
            records: RecordQueues {
                access_log: None,
                traces: None,
            },
            ids: RefCell::new(rng),
        }
    }

    /// From now on it tells of requests, if it is to.
    pub(crate) fn tell(&mut self, records: RecordQueues) {
        self.records = records;
    }

    /// Sees to it that a request has an id, and begins its record, if anybody wants one. `wall` is what time it is, since 1970.
    pub(crate) fn begin<B>(
        &self,
        request: &mut Request<B>,
        peer: impl ToString,
        wall: impl FnOnce() -> Duration,
    ) -> Option<Box<Record>> {
        let headers = request.headers_mut();
        let id = headers.entry(REQUEST_ID).or_insert_with(|| self.new_id());
        // No two are alike: in HPACK's table each would push out one that comes again (RFC 7541, section 7.1.3).
        id.set_sensitive(true);
        if self.records.access_log.is_none() && self.records.traces.is_none() {
            return None;
        }
        let request_id = cut(&String::from_utf8_lossy(id.as_bytes()));
        let span = match self.records.traces {
            Some(_) => self.continue_trace(headers),
            None => None,
        };
        Some(Box::new(Record {
            hop: self.hop,
            began: wall(),
            took: Duration::ZERO,
            request_id,
            method: cut(request.method().as_str()),
            path: cut(request.uri().path()),
            peer: peer.to_string(),
            identity: None,
            tunnel: None,
            attempts: 0,
            status: None,
            outcome: Outcome::ClientGone,
            reason: None,
            request_bytes: Arc::default(),
            response_bytes: 0,
            span,
        }))
    }

    /// Hands a record over without waiting.
    pub(crate) fn end(&self, record: Record) {
        let record = Arc::new(record);
        if let Some(queue) = &self.records.access_log {
            queue.put(&record);
        }
        if let Some(queue) = self.records.traces.as_ref().filter(|_| record.span.is_some()) {
            queue.put(&record);
        }
    }

    /// 128 bits in the form of a UUID, as Envoy makes them (RFC 9562, version 4).
    fn new_id(&self) -> HeaderValue {
        let mut ids = self.ids.borrow_mut();
        let (high, low) = (ids.next_u64(), ids.next_u64());
        let high = high & !0xf000 | 0x4000;
        let low = low & !(0b11 << 62) | 0b10 << 62;
        let mut left = u128::from(high) << 64 | u128::from(low);
        let mut text = [b'-'; 36];
        for (at, digit) in text.iter_mut().enumerate().rev() {
            if !matches!(at, 8 | 13 | 18 | 23) {
                *digit = HEX[(left & 0xf) as usize];
                left >>= 4;
            }
        }
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("none"))
    }

    /// Makes this hop the parent of the next. A trace that is not recorded passes as it is.
    fn continue_trace(&self, headers: &mut HeaderMap) -> Option<(TraceParent, Option<u64>)> {
        let mut ids = self.ids.borrow_mut();
        let parent = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let parent = parent.and_then(TraceParent::parse);
        let own = match parent {
            Some(parent) if !parent.is_sampled() => return None,
            Some(parent) => parent.child(&mut ids),
            None => TraceParent::begin(&mut ids),
        };
        let value = HeaderValue::try_from(own.to_string()).ok()?;
        headers.insert(TRACEPARENT, value);
        if parent.is_none() {
            // It belongs to a trace that was none (Trace Context, section 3.3.1).
            headers.remove(TRACESTATE);
        }
        Some((own, parent.map(|parent| parent.span)))
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// As much of a text as is told.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = "http://h/a/b?secret=1".parse().unwrap();
        for (name, value) in headers {
            request
                .headers_mut()
                .insert(*name, HeaderValue::from_static(value));
        }
        request
    }

    fn recorder(traces: bool) -> (Recorder, Records) {
        let mut queues = RecordQueues::default();
        let records = if traces {
            queues.open_traces()
        } else {
            queues.open_access_log()
        };
        let mut recorder = Recorder::new("egress", Rng::from_seed(1));
        recorder.tell(queues);
        (recorder, records)
    }

    #[test]
    fn a_line_has_no_query_and_nothing_that_breaks_it() {
        let (recorder, records) = recorder(false);
        let mut request = request(&[("x-request-id", "a\"b")]);
        let mut record = recorder
            .begin(&mut request, "p", || Duration::from_millis(86_400_001))
            .unwrap();
        record.took = Duration::from_micros(1_500);
        record.status = Some(200);
        recorder.end(*record);
        let line = records.queue.recv().unwrap().line();
        assert_eq!(
            line,
            "{\"timestamp\":\"1970-01-02T00:00:00.001Z\",\"hop\":\"egress\",\"request_id\":\"a\\\"b\",\"method\":\"GET\",\
             \"path\":\"/a/b\",\"status\":200,\"outcome\":\"client_gone\",\"reason\":null,\"duration_ms\":1.5,\
             \"request_bytes\":0,\"response_bytes\":0,\"tenant\":null,\"cluster\":null,\"node\":null,\"tunnel\":null,\
             \"attempts\":0,\"peer\":\"p\"}\n"
        );
    }

    #[test]
    fn a_request_without_an_id_gets_one_of_its_own() {
        let recorder = Recorder::new("egress", Rng::from_seed(1));
        let ids = [(); 2].map(|()| {
            let mut request = request(&[]);
            assert!(recorder.begin(&mut request, "p", || Duration::ZERO).is_none());
            request.headers()[REQUEST_ID].to_str().unwrap().to_owned()
        });
        assert_ne!(ids[0], ids[1]);
        let parts: Vec<_> = ids[0].split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{}", ids[0]);
        assert_eq!(&ids[0][14..15], "4");
    }

    #[test]
    fn traces_go_on_from_hop_to_hop_and_those_that_are_not_recorded_pass() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let (recorder, _records) = recorder(true);
        let mut traced = request(&[("traceparent", parent)]);
        let record = recorder.begin(&mut traced, "p", || Duration::ZERO).unwrap();
        let (own, above) = record.span.unwrap();
        assert_eq!(above, Some(0xb7ad_6b71_6920_3331));
        assert_eq!(traced.headers()["traceparent"], own.to_string().as_str());

        let unrecorded = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let mut untraced = request(&[("traceparent", unrecorded)]);
        let record = recorder.begin(&mut untraced, "p", || Duration::ZERO).unwrap();
        assert!(record.span.is_none());
        assert_eq!(untraced.headers()["traceparent"], unrecorded);

        let mut first = request(&[]);
        let record = recorder.begin(&mut first, "p", || Duration::ZERO).unwrap();
        assert_eq!(record.span.unwrap().1, None);
        assert!(first.headers().contains_key("traceparent"));
    }

    #[test]
    fn of_too_many_records_the_latest_are_dropped_and_counted() {
        let (recorder, records) = recorder(false);
        for _ in 0..QUEUE_MAX + 3 {
            let record = recorder.begin(&mut request(&[]), "p", || Duration::ZERO).unwrap();
            recorder.end(*record);
        }
        assert_eq!(records.lost.count(), 3);
        assert_eq!(records.queue.try_iter().count(), QUEUE_MAX);
    }
}
