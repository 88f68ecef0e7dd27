//! What a service may do to the initiator.

use std::io::Write;

use crate::kit::{
    Options, Pair, Service, connect, free_port, get, moved, pause, read_all, read_head, stats, wait_for,
};

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
        read_head(&mut stream).unwrap();
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

/// A service that sends `bad` in pieces where the path ends with `bad`, and then says nothing more.
fn broken(bad: Vec<&'static [u8]>) -> Service {
    Service::start(move |mut stream| {
        stream.set_nodelay(true).unwrap();
        while let Some(head) = read_head(&mut stream) {
            if !head.starts_with("GET /routed/bad ") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood");
                continue;
            }
            for piece in &bad {
                let _ = stream.write_all(piece);
                pause(std::time::Duration::from_millis(50));
            }
        }
    })
}

/// Whatever the service sends in one piece is refused by Eddy itself, and the tunnel and other requests are as before.
fn is_a_protocol_error(response: String) {
    let service = broken(vec![response.leak().as_bytes()]);
    let pair = Pair::with(Options {
        service_port: Some(service.port),
        ..Options::default()
    });
    spoilt(&pair, "bad", 502, "service_protocol");
    pair.assert_good();
    assert_eq!(stats(pair.responder_admin)["reverse_tunnel.opened"], 1);
}

#[test]
fn a_service_whose_first_chunk_is_broken() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for chunk in [
        "x\r\n",
        "\r\n",
        "4;a\nb\r\ngood\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
    ] {
        is_a_protocol_error(format!("{head}{chunk}"));
    }
}

#[test]
fn a_service_that_switches_protocols_unasked() {
    is_a_protocol_error(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n".to_owned(),
    );
}

#[test]
fn a_service_whose_head_is_too_large() {
    let head = |list_bytes: usize| {
        // As HTTP/2 counts: 32 bytes more for each field, of which :status is one.
        let value = "v".repeat(list_bytes - 42 - (14 + 1 + 32) - (6 + 32));
        format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-long: {value}\r\n\r\n")
    };
    is_a_protocol_error(head((60 << 10) + 1));
    is_a_protocol_error(head(1 << 20));
    // HTTP/1.1 connections to services have a smaller buffer.
    let service = broken(vec![head(47 << 10).leak().as_bytes()]);
    let pair = Pair::with(Options {
        service_port: Some(service.port),
        ..Options::default()
    });
    assert_eq!(
        get(pair.egress, "/routed/bad", &[("x-node-id", "edge")]).status,
        200
    );
    pair.assert_good();
}

#[test]
fn a_service_with_too_many_fields() {
    is_a_protocol_error(format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(101)));
}

/// The head has gone by then: the record of the request says why its body broke off.
#[test]
fn a_service_whose_later_chunk_is_broken() {
    let service = broken(vec![
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\n",
        b"x\r\n",
    ]);
    let log = tempfile::NamedTempFile::new().unwrap();
    let access_log = format!("access_log: {{file: {:?}}}\n", log.path());
    let pair = Pair::with(Options {
        service_port: Some(service.port),
        initiator: &access_log,
        ..Options::default()
    });
    let before = stats(pair.initiator_admin);
    let answer = get(pair.egress, "/routed/bad", &[("x-node-id", "edge")]);
    assert_eq!((answer.status, answer.body.as_str()), (200, "good"));
    let line = wait_for("the line of the access log", || {
        let lines = std::fs::read_to_string(log.path()).unwrap();
        lines
            .lines()
            .find(|line| line.contains("/routed/bad"))
            .map(str::to_owned)
    });
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(
        (&line["outcome"], &line["reason"]),
        (&"truncated".into(), &"service_protocol".into())
    );
    let moved: Vec<_> = moved(&before, &stats(pair.initiator_admin));
    let expected = ["requests", "responses.2xx", "truncated"].map(|name| (format!("service.{name}"), 1));
    assert_eq!(moved, expected);
    pair.assert_good();
}
