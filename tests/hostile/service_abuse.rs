//! Services that respond far too much: they cost their own responses, never the tunnel.

use std::io::{Read, Write};
use std::time::Duration;

use crate::kit::{Options, Pair, Service, connect, get, pause, read_head, stats};

/// By the request: heads of 70 KB, interim responses without end, trailers of a megabyte, or events for ever.
fn service() -> Service {
    Service::start(|mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let done = if head.contains("/heads") {
                let field = format!("x-large: {}\r\n", "v".repeat(7_000));
                stream.write_all(
                    format!(
                        "HTTP/1.1 200 OK\r\n{}content-length: 4\r\n\r\ngood",
                        field.repeat(10)
                    )
                    .as_bytes(),
                )
            } else if head.contains("/interim") {
                loop {
                    if stream
                        .write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
                        .is_err()
                    {
                        return;
                    }
                }
            } else if head.contains("/trailers") {
                let trailer = format!("x-large: {}\r\n", "v".repeat(8_000)).repeat(128);
                stream.write_all(
                    format!(
                        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n{trailer}\r\n"
                    )
                    .as_bytes(),
                )
            } else if head.contains("/events") {
                let event = format!("32\r\n{}\r\n", "e".repeat(50));
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
                while stream.write_all(event.as_bytes()).is_ok() {
                    pause(Duration::from_millis(1));
                }
                return;
            } else {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood")
            };
            if done.is_err() {
                return;
            }
        }
    })
}

fn pair(service: &Service) -> Pair {
    Pair::with(Options {
        service_port: Some(service.port),
        service_timeout: "2s",
        ..Options::default()
    })
}

fn assert_the_tunnel_lives(pair: &Pair) {
    pair.assert_good();
    assert_eq!(
        stats(pair.responder_admin)["reverse_tunnel.opened"],
        1,
        "{}",
        pair.initiator.log()
    );
}

/// More often than HTTP/2 libraries allow resets on a connection (1,024).
#[test]
fn large_heads_again_and_again() {
    let service = service();
    let pair = pair(&service);
    for _ in 0..1_100 {
        let answer = get(pair.egress, "/routed/heads", &[("x-node-id", "edge")]);
        assert_eq!(
            (answer.status, answer.header("x-eddy-reason")),
            (502, Some("service_protocol"))
        );
    }
    assert_the_tunnel_lives(&pair);
}

#[test]
fn interim_responses_without_end() {
    let service = service();
    let pair = pair(&service);
    let answer = get(pair.egress, "/routed/interim", &[("x-node-id", "edge")]);
    assert!([502, 504].contains(&answer.status), "{answer:?}");
    assert_the_tunnel_lives(&pair);
}

#[test]
fn a_megabyte_of_trailers() {
    let service = service();
    let pair = pair(&service);
    let mut stream = connect(pair.egress);
    let request = "GET /routed/trailers HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\nte: trailers\r\nconnection: close, te\r\n\r\n";
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    assert!(bytes.len() < 128 << 10, "{} bytes", bytes.len());
    assert_the_tunnel_lives(&pair);
}

#[test]
fn small_events_for_readers_that_stall() {
    let service = service();
    let pair = pair(&service);
    let stalled: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = connect(pair.egress);
            let request = "GET /routed/events HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\n\r\n";
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    pause(Duration::from_secs(3));
    assert_the_tunnel_lives(&pair);
    drop(stalled);
    assert_the_tunnel_lives(&pair);
}
