//! What a service may do to the initiator.

use std::io::Write;

use crate::kit::{Options, Pair, connect, free_port, get, moved, read_all, stats, wait_for};

/// A request that the service spoils: what the client gets, and the numbers of the initiator that move.
fn spoilt(pair: &Pair, mood: &str, status: u16, reason: &str) {
    let before = stats(pair.initiator_admin);
    let answer = get(pair.egress, &format!("/routed/{mood}"), &[("x-node-id", "edge")]);
    assert_eq!(
        (answer.status, answer.header("x-eddy-reason")),
        (status, Some(reason)),
        "{}",
        answer.body
    );
    assert!(
        answer.header("x-envoy-upstream-service-time").is_some(),
        "it came through the tunnel"
    );
    let after = stats(pair.initiator_admin);
    let expected = [
        (format!("service.refused.{reason}"), 1),
        ("service.requests".to_owned(), 1),
    ];
    assert_eq!(moved(&before, &after), expected);
}

#[test]
fn a_service_that_refuses() {
    let port = free_port();
    let pair = Pair::with(Options {
        service_port: Some(port),
        ..Options::default()
    });
    spoilt(&pair, "", 503, "service_unreachable");
    // It is back: the next request works.
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    crate::kit::beside(move || {
        let (mut stream, _) = listener.accept().unwrap();
        crate::kit::read_head(&mut stream).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood")
            .unwrap();
        read_all(&mut stream);
    });
    pair.assert_good();
}

#[test]
fn a_service_that_hangs() {
    let pair = Pair::with(Options {
        service_timeout: "200ms",
        ..Options::default()
    });
    spoilt(&pair, "hang", 504, "service_timeout");
    pair.assert_good();
}

#[test]
fn a_service_that_hangs_longer_than_the_client_s_route_allows() {
    let pair = Pair::with(Options {
        egress_timeout: "200ms",
        ..Options::default()
    });
    let before = stats(pair.responder_admin);
    let answer = get(pair.egress, "/routed/hang", &[("x-node-id", "edge")]);
    assert_eq!(
        (answer.status, answer.header("x-eddy-reason")),
        (504, Some("tunnel_timeout"))
    );
    let expected = [("egress.refused.tunnel_timeout", 1), ("egress.requests", 1)];
    let moved = moved(&before, &stats(pair.responder_admin));
    assert_eq!(moved, expected.map(|(name, by)| (name.to_owned(), by)));
    pair.assert_good();
}

#[test]
fn a_service_that_answers_garbage() {
    let pair = Pair::start();
    spoilt(&pair, "garbage", 502, "service_protocol");
    pair.assert_good();
}

#[test]
fn a_service_that_hangs_up_before_it_answers() {
    let pair = Pair::start();
    spoilt(&pair, "close", 503, "service_reset");
    pair.assert_good();
}

#[test]
fn a_service_that_breaks_off_in_the_middle_of_its_body() {
    let pair = Pair::start();
    let head = "/routed/reset-mid-body HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\n";
    // A body that the service never reads turns the end of its connection into a reset.
    let (goodbye, reset) = (
        format!("GET {head}\r\n"),
        format!("POST {head}content-length: 10\r\n\r\n0123456789"),
    );
    for request in [goodbye, reset] {
        let before = [stats(pair.initiator_admin), stats(pair.responder_admin)];
        let mut stream = connect(pair.egress);
        stream.write_all(request.as_bytes()).unwrap();
        let answer = String::from_utf8(read_all(&mut stream)).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200 OK") && answer.contains("content-length: 100"),
            "{answer}"
        );
        assert!(
            !answer.ends_with(&"half".repeat(25)),
            "the client sees that the rest is missing: {answer}"
        );
        for (side, admin, before) in [
            ("service", pair.initiator_admin, &before[0]),
            ("egress", pair.responder_admin, &before[1]),
        ] {
            let expected =
                ["requests", "responses.2xx", "truncated"].map(|name| (format!("{side}.{name}"), 1));
            wait_for(&format!("{expected:?}"), || {
                let moved: Vec<_> = moved(before, &stats(admin))
                    .into_iter()
                    .filter(|(name, _)| name.starts_with(side))
                    .collect();
                (moved == expected).then_some(())
            });
        }
        pair.assert_good();
    }
}
