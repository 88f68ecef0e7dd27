//! Uploads that take their time, and uploads that stop.

use std::io::Write;
use std::time::Duration;

use crate::kit::{Options, Pair, connect, parse_answer, pause, read_all};

/// Twice the routes' timeout is no reason to cut an upload that progresses: the time counts from its end.
#[test]
fn an_upload_that_progresses_takes_longer_than_the_timeout() {
    let pair = Pair::with(Options {
        egress_timeout: "700ms",
        service_timeout: "700ms",
        ..Options::default()
    });
    let mut stream = connect(pair.egress);
    stream
        .write_all(
            b"POST /routed/echo HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\nconnection: close\r\ncontent-length: 20\r\n\r\n",
        )
        .unwrap();
    for _ in 0..20 {
        pause(Duration::from_millis(80));
        stream.write_all(b"x").unwrap();
    }
    let answer = parse_answer(&read_all(&mut stream)).unwrap();
    assert_eq!((answer.status, answer.body.len()), (200, 20), "{answer:?}");
    pair.assert_good();
}

/// A client that stops in the middle of its upload is told so, and nobody else is blamed.
#[test]
fn an_upload_that_stops_is_the_clients_fault() {
    let pair = Pair::with(Options {
        egress_timeout: "10s, body_idle_timeout: 300ms",
        ..Options::default()
    });
    let mut stream = connect(pair.egress);
    stream
        .write_all(
            b"POST /routed/echo HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\ncontent-length: 20\r\n\r\nhalf",
        )
        .unwrap();
    let answer = parse_answer(&read_all(&mut stream)).unwrap();
    assert_eq!(
        (answer.status, answer.header("x-eddy-reason")),
        (408, Some("body_idle")),
        "{answer:?}"
    );
    pair.assert_good();
}

/// A service that takes nothing of an upload is the service's fault.
#[test]
fn an_upload_that_is_not_taken_is_the_services_fault() {
    let pair = Pair::with(Options {
        service_timeout: "10s, body_idle_timeout: 500ms",
        ..Options::default()
    });
    let mut stream = connect(pair.egress);
    let head = "POST /routed/hang HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\ncontent-length: 50000000\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut upload = stream.try_clone().unwrap();
    crate::kit::beside(move || while upload.write_all(&[b'x'; 65536]).is_ok() {});
    let answer = parse_answer(&read_all(&mut stream)).unwrap();
    assert_eq!(
        (answer.status, answer.header("x-eddy-reason")),
        (504, Some("service_timeout")),
        "{answer:?}"
    );
    pair.assert_good();
}
