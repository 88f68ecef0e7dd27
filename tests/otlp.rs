//! Spans of real processes, as a collector gets them. Needs `--features otlp`; without it, `eddy` says so.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kit/mod.rs"]
mod kit;

use kit::Eddy;

const CONFIG: &str = "node: {id: a, cluster: b}\ntunnels: {listen: 127.0.0.1:0}\negress: {listen: 127.0.0.1:0, host_id: [x-node-id], \
                      routes: [{prefix: /}]}\ntraces: {otlp: 'http://127.0.0.1:9'}\n";

#[cfg(not(feature = "otlp"))]
#[test]
fn an_eddy_that_is_built_without_spans_says_so() {
    let mut eddy = Eddy::with_config("responder", CONFIG);
    assert_eq!(eddy.wait().code(), Some(2));
    let file = kit::config_file(CONFIG);
    let mut check = Eddy::start(&["check", "-c", file.path().to_str().unwrap()]);
    assert_eq!(check.wait().code(), Some(2));
    let log = eddy.log();
    assert!(
        log.contains("traces.otlp: this eddy is built without it; build it with --features otlp"),
        "{log}"
    );
}

#[cfg(feature = "otlp")]
mod with_spans {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::trace::v1::Span;
    use prost::Message;

    use super::kit::{Options, PATIENCE, Pair, get, read_head, wait_for};
    use super::{CONFIG, Eddy};

    /// Takes spans; says whose they are.
    fn collector() -> (u16, Receiver<(String, Span)>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (spans, taken) = channel();
        #[expect(
            clippy::disallowed_methods,
            reason = "a stub of a collector, with a thread of its own"
        )]
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let head = read_head(&mut stream).unwrap();
                assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
                let length = |line: &str| line.strip_prefix("content-length: ")?.parse().ok();
                let mut body = vec![0; head.lines().find_map(length).unwrap()];
                stream.read_exact(&mut body).unwrap();
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                    .unwrap();
                let request = ExportTraceServiceRequest::decode(&*body).unwrap();
                for resource in request.resource_spans {
                    let role = text(&resource.resource.unwrap().attributes, "eddy.role");
                    for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                        if spans.send((role.clone(), span)).is_err() {
                            return;
                        }
                    }
                }
            }
        });
        (port, taken)
    }

    fn text(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue], key: &str) -> String {
        let found = attributes.iter().find(|attribute| attribute.key == key);
        match found.and_then(|found| found.value.as_ref()?.value.clone()) {
            Some(Value::StringValue(text)) => text,
            Some(Value::IntValue(number)) => number.to_string(),
            other => panic!("{key} is {other:?}"),
        }
    }

    fn pair_with(collector: u16) -> Pair {
        let traces = format!("traces: {{otlp: 'http://127.0.0.1:{collector}'}}\n");
        Pair::with(Options {
            responder: &traces,
            initiator: &traces,
            ..Options::default()
        })
    }

    /// The spans of both sides.
    fn both(taken: &Receiver<(String, Span)>) -> [Span; 2] {
        let mut two = [(); 2].map(|()| taken.recv_timeout(PATIENCE).unwrap());
        two.sort_by_key(|(role, _)| role != "responder");
        assert_eq!((&*two[0].0, &*two[1].0), ("responder", "initiator"));
        two.map(|(_, span)| span)
    }

    #[test]
    fn each_side_sends_a_span_that_continues_the_trace_of_the_hop_before() {
        let (collector, taken) = collector();
        let pair = pair_with(collector);
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let answer = get(
            pair.egress,
            "/routed/head?token=secret",
            &[("x-node-id", "edge"), ("traceparent", parent)],
        );
        assert_eq!(answer.status, 200);
        let [egress, service] = both(&taken);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for span in [&egress, &service] {
            assert_eq!(hex(&span.trace_id), "0af7651916cd43dd8448eb211c80319c");
            assert_eq!(text(&span.attributes, "http.response.status_code"), "200");
            assert_eq!(text(&span.attributes, "url.path"), "/routed/head");
            assert_eq!(text(&span.attributes, "eddy.node"), "edge");
            assert!(span.end_time_unix_nano > span.start_time_unix_nano);
        }
        assert_eq!((&*egress.name, &*service.name), ("egress GET", "service GET"));
        assert_eq!(hex(&egress.parent_span_id), "b7ad6b7169203331");
        assert_eq!(service.parent_span_id, egress.span_id);
        let passed = format!(
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-{}-01\r\n",
            hex(&service.span_id)
        );
        assert!(answer.body.contains(&passed), "{}", answer.body);
    }

    #[test]
    fn a_request_without_a_trace_begins_one_and_an_unrecorded_trace_passes() {
        let (collector, taken) = collector();
        let pair = pair_with(collector);
        let unrecorded = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let ask = |path: &str, headers: &[(&str, &str)]| get(pair.egress, path, headers);
        let answer = ask(
            "/routed/head",
            &[("x-node-id", "edge"), ("traceparent", unrecorded)],
        );
        assert!(answer.body.contains(unrecorded), "{}", answer.body);
        assert_eq!(ask("/routed/close", &[("x-node-id", "edge")]).status, 503);
        let [egress, service] = both(&taken);
        assert!(egress.parent_span_id.is_empty());
        assert_eq!(service.parent_span_id, egress.span_id);
        assert_eq!(service.trace_id, egress.trace_id);
        assert_eq!(text(&service.attributes, "eddy.reason"), "service_reset");
        assert_eq!(service.status.unwrap().message, "service_reset");
        let more = taken.recv_timeout(Duration::from_secs(1));
        assert!(more.is_err(), "the unrecorded one has no span: {more:?}");
    }

    #[test]
    fn a_collector_that_is_away_costs_no_request() {
        let pair = pair_with(9);
        for _ in 0..20 {
            pair.assert_good();
        }
        wait_for("the loss to be told", || {
            pair.responder
                .log()
                .contains("the collector takes no spans")
                .then_some(())
        });
        let mut eddy = Eddy::with_config("responder", CONFIG);
        wait_for("the process to run", || {
            eddy.log().contains("responder tunnels=").then_some(())
        });
        eddy.signal("TERM");
        assert_eq!(eddy.wait().code(), Some(0));
    }
}
