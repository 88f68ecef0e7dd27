//! Requests that two parsers could read differently: refused, or read as exactly one request by everybody.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use crate::h2::{Frame, PREFACE, code, kind};
use crate::kit::{Options, Pair, Service, connect, exchange, read_head};

/// A service that keeps the heads of all requests that reach it, and reads no body.
fn recorder() -> (Service, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&heads);
    let service = Service::start(move |mut stream| {
        while let Some(head) = read_head(&mut stream) {
            kept.lock().unwrap().push(head);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood");
        }
    });
    (service, heads)
}

fn pair(service: &Service) -> Pair {
    Pair::with(Options {
        service_port: Some(service.port),
        ..Options::default()
    })
}

#[test]
fn ambiguous_framing_is_refused_or_read_once() {
    let (service, heads) = recorder();
    let pair = pair(&service);
    let to = "host: x\r\nx-node-id: edge\r\nconnection: close\r\n";
    let long = "e".repeat(40 << 10);
    for (name, request) in [
        (
            "two lengths",
            format!("POST /routed HTTP/1.1\r\n{to}content-length: 1\r\ncontent-length: 5\r\n\r\nGET /evil"),
        ),
        (
            "a signed length",
            format!("POST /routed HTTP/1.1\r\n{to}content-length: +5\r\n\r\nabcde"),
        ),
        (
            "a length in hex",
            format!("POST /routed HTTP/1.1\r\n{to}content-length: 0x5\r\n\r\nabcde"),
        ),
        (
            "a blank before a colon",
            format!("GET /routed HTTP/1.1\r\n{to}content-length : 5\r\n\r\nabcde"),
        ),
        (
            "a folded line",
            format!("GET /routed HTTP/1.1\r\n{to}x-a: 1\r\n  content-length: 5\r\n\r\nabcde"),
        ),
        (
            "a bare CR",
            format!("GET /routed HTTP/1.1\r\n{to}x-a: 1\rcontent-length: 5\r\n\r\nabcde"),
        ),
        ("a NUL", format!("GET /routed HTTP/1.1\r\n{to}x-a: 1\0\r\n\r\n")),
        (
            "a blank in the path",
            format!("GET /routed /evil HTTP/1.1\r\n{to}\r\n"),
        ),
        (
            "a chunk of no size",
            format!("POST /routed HTTP/1.1\r\n{to}transfer-encoding: chunked\r\n\r\n\r\nGET /evil"),
        ),
        (
            "a negative chunk",
            format!(
                "POST /routed HTTP/1.1\r\n{to}transfer-encoding: chunked\r\n\r\n-5\r\nabcde\r\n0\r\n\r\n"
            ),
        ),
        (
            "a chunk beyond 64 bits",
            format!("POST /routed HTTP/1.1\r\n{to}transfer-encoding: chunked\r\n\r\n1ffffffffffffffff\r\n"),
        ),
        (
            "an endless chunk extension",
            format!(
                "POST /routed HTTP/1.1\r\n{to}transfer-encoding: chunked\r\n\r\n5;{long}\r\nabcde\r\n0\r\n\r\n"
            ),
        ),
        (
            "two node ids",
            format!("GET /routed HTTP/1.1\r\n{to}x-node-id: other\r\n\r\n"),
        ),
    ] {
        let answer = exchange(pair.egress, request.as_bytes());
        let answer = String::from_utf8_lossy(&answer);
        let good = answer.matches(" 200 OK\r\n").count();
        assert_eq!(good, 0, "{name}: {answer}");
        pair.assert_good();
    }
    let heads = heads.lock().unwrap();
    assert!(heads.iter().all(|head| !head.contains("evil")), "{heads:?}");
}

#[test]
fn a_length_beside_chunks_is_not_passed_on() {
    let (service, heads) = recorder();
    let pair = pair(&service);
    let request = "POST /routed HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\nconnection: close\r\ncontent-length: 4\r\n\
                   transfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    exchange(pair.egress, request.as_bytes());
    pair.assert_good();
    for head in heads.lock().unwrap().iter() {
        let lower = head.to_ascii_lowercase();
        let both = lower.contains("content-length") && lower.contains("transfer-encoding");
        assert!(!both, "{head}");
    }
}

#[test]
fn the_target_counts_and_not_a_host_beside_it() {
    let (service, heads) = recorder();
    let pair = pair(&service);
    let request = "GET http://a/routed HTTP/1.1\r\nhost: b\r\nx-node-id: edge\r\nconnection: close\r\n\r\n";
    exchange(pair.egress, request.as_bytes());
    let heads = heads.lock().unwrap();
    assert_eq!(heads.len(), 1);
    assert!(
        heads[0].contains("host: a\r\n") && !heads[0].contains("host: b"),
        "{heads:?}"
    );
    drop(heads);
    pair.assert_good();
}

/// HTTP/2 has no text between its fields; HTTP/1 behind the initiator has.
#[test]
fn fields_that_would_be_more_in_http_1_never_reach_the_service() {
    let (service, heads) = recorder();
    let pair = pair(&service);
    let good = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "x"),
        (":path", "/routed"),
        ("x-node-id", "edge"),
    ];
    let with = |name: &'static str, value: &'static str| {
        let mut fields: Vec<_> = good.iter().copied().filter(|(n, _)| *n != name).collect();
        let at = if name.starts_with(':') { 0 } else { fields.len() };
        fields.insert(at, (name, value));
        fields
    };
    for fields in [
        with(":path", "/routed HTTP/1.1\r\nx-evil: 1"),
        with(":path", "/routed evil"),
        with(":method", "GET /evil HTTP/1.1\r\nx:"),
        with("x-a", "1\r\nx-evil: 1"),
        with("x-a", "1\nx-evil: 1"),
        with("x-evil\r\nx-a", "1"),
        with("X-Evil", "1"),
        with("connection", "evil"),
        with("transfer-encoding", "evil"),
        with(":evil", "1"),
    ] {
        let mut stream = connect(pair.egress);
        stream.write_all(PREFACE).unwrap();
        Frame::settings(&[]).write(&mut stream);
        Frame::headers(1, true, &fields).write(&mut stream);
        // A refusal, or the end of the connection, or of the stream.
        while let Some(frame) = Frame::read(&mut stream) {
            match frame.kind {
                kind::HEADERS => {
                    assert_ne!(frame.status(), 200, "{fields:?}");
                    break;
                }
                kind::RST_STREAM => {
                    assert_ne!(frame.reset_code(), code::NO_ERROR);
                    break;
                }
                kind::GOAWAY => break,
                _ => {}
            }
        }
        pair.assert_good();
    }
    let heads = heads.lock().unwrap();
    assert!(heads.iter().all(|head| !head.contains("evil")), "{heads:?}");
}

#[test]
fn a_body_of_another_length_than_announced_is_no_whole_request() {
    let (service, _) = recorder();
    let pair = pair(&service);
    for body in [&b"abc"[..], b"abcdefgh"] {
        let mut stream = connect(pair.egress);
        stream.write_all(PREFACE).unwrap();
        Frame::settings(&[]).write(&mut stream);
        let fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "x"),
            (":path", "/routed"),
            ("x-node-id", "edge"),
            ("content-length", "5"),
        ];
        Frame::headers(1, false, &fields).write(&mut stream);
        Frame::data(1, true, body).write(&mut stream);
        stream
            .set_read_timeout(Some(std::time::Duration::from_secs(5)))
            .unwrap();
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        pair.assert_good();
    }
}
