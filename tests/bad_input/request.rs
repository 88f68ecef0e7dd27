//! What a client may do to the egress.

use std::io::{Read, Write};

use crate::kit::{Options, Pair, connect, exchange, get, moved, parse_answer, stats, wait_for};

/// Sends something bad; exactly these numbers of the responder move, and a good request still works.
fn moves(pair: &Pair, expected: &[(&str, i64)], bad: impl FnOnce()) {
    let before = stats(pair.responder_admin);
    bad();
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, by)| ((*name).to_owned(), *by))
        .collect();
    let mut last = Vec::new();
    wait_for(&format!("{expected:?}"), || {
        last = moved(&before, &stats(pair.responder_admin));
        (last == expected || last.len() > expected.len()).then_some(())
    });
    assert_eq!(last, expected);
    pair.assert_good();
}

fn refused(path: &str, headers: &[(&str, &str)], status: u16, reason: &str, body: &str) {
    // A responder that has just begun would wait for whom it does not know.
    let pair = Pair::with(Options {
        egress: ", reconnect_grace: 0s",
        ..Options::default()
    });
    let refusal = format!("egress.refused.{reason}");
    moves(&pair, &[(&refusal, 1), ("egress.requests", 1)], || {
        let answer = get(pair.egress, path, headers);
        assert_eq!((answer.status, answer.body.as_str()), (status, body));
        assert_eq!(answer.header("x-eddy-reason"), Some(reason));
        assert_eq!(answer.header("content-type"), Some("text/plain"));
    });
}

#[test]
fn no_host_id() {
    refused("/routed", &[], 400, "no_host_id", "no host id\n");
    refused("/routed", &[("x-node-id", "")], 400, "no_host_id", "no host id\n");
}

#[test]
fn an_unknown_node() {
    refused(
        "/routed",
        &[("x-node-id", "nobody")],
        503,
        "no_tunnel",
        "no tunnel to nobody\n",
    );
}

#[test]
fn no_route() {
    refused(
        "/elsewhere",
        &[("x-node-id", "edge")],
        404,
        "no_route",
        "no route for this path\n",
    );
}

#[test]
fn a_request_without_a_host_cannot_be_forwarded() {
    let pair = Pair::start();
    moves(
        &pair,
        &[("egress.refused.bad_request", 1), ("egress.requests", 1)],
        || {
            let answer = exchange(pair.egress, b"GET /routed HTTP/1.0\r\nx-node-id: edge\r\n\r\n");
            assert_eq!(parse_answer(&answer).unwrap().status, 400);
        },
    );
}

#[test]
fn two_hosts_or_a_password_in_the_host_are_refused() {
    let pair = Pair::start();
    for hosts in ["host: a\r\nhost: b", "host: user:secret@a"] {
        moves(
            &pair,
            &[("egress.refused.bad_request", 1), ("egress.requests", 1)],
            || {
                let request = format!(
                    "GET /routed HTTP/1.1\r\n{hosts}\r\nx-node-id: edge\r\nconnection: close\r\n\r\n"
                );
                let answer = exchange(pair.egress, request.as_bytes());
                assert_eq!(parse_answer(&answer).unwrap().status, 400, "{hosts}");
            },
        );
    }
}

#[test]
fn junk_instead_of_a_request_ends_that_connection_alone() {
    let pair = Pair::start();
    moves(&pair, &[], || {
        let answer = exchange(pair.egress, b"\x00\x01\x02 no HTTP at all\r\n\r\n");
        assert!(
            answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"),
            "{answer:?}"
        );
    });
}

#[test]
fn a_client_that_goes_away_while_it_waits_is_counted_once() {
    let pair = Pair::start();
    moves(
        &pair,
        &[("egress.client_gone", 1), ("egress.requests", 1)],
        || {
            let mut stream = connect(pair.egress);
            stream
                .write_all(b"GET /routed/hang HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\n\r\n")
                .unwrap();
            wait_for("the request to run", || {
                (stats(pair.responder_admin).get("egress.in_flight") == Some(&1)).then_some(())
            });
            drop(stream);
        },
    );
    let initiator = wait_for("the initiator to let go", || {
        let stats = stats(pair.initiator_admin);
        (stats.get("service.in_flight") == Some(&0)).then_some(stats)
    });
    assert_eq!(initiator.get("service.client_gone"), Some(&1));
}

#[test]
fn a_client_that_goes_away_in_the_middle_of_the_answer_is_counted_once() {
    let pair = Pair::start();
    let expected = [
        ("egress.client_gone", 1),
        ("egress.requests", 1),
        ("egress.responses.2xx", 1),
    ];
    moves(&pair, &expected, || {
        let mut stream = connect(pair.egress);
        stream
            .write_all(b"GET /routed/slow HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\n\r\n")
            .unwrap();
        let mut begun = [0; 15];
        stream.read_exact(&mut begun).unwrap();
        assert_eq!(&begun, b"HTTP/1.1 200 OK");
        drop(stream);
    });
}

#[test]
fn a_client_that_goes_away_in_the_middle_of_its_body_is_counted_once() {
    let pair = Pair::start();
    moves(
        &pair,
        &[("egress.client_gone", 1), ("egress.requests", 1)],
        || {
            let mut stream = connect(pair.egress);
            let head =
                "POST /routed/hang HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\ncontent-length: 100\r\n\r\nhalf";
            stream.write_all(head.as_bytes()).unwrap();
            wait_for("the request to run", || {
                (stats(pair.responder_admin).get("egress.in_flight") == Some(&1)).then_some(())
            });
            drop(stream);
        },
    );
}

#[test]
fn a_request_waits_for_a_place_on_a_full_tunnel() {
    let pair = Pair::with(Options {
        tunnels: "  http2: {max_streams: 1}\n",
        ..Options::default()
    });
    let egress = pair.egress;
    let slow = crate::kit::beside(move || get(egress, "/routed/slow", &[("x-node-id", "edge")]));
    wait_for("the first request", || {
        (stats(pair.responder_admin).get("egress.in_flight") == Some(&1)).then_some(())
    });
    pair.assert_good();
    assert_eq!(slow.join().unwrap().body, "slow");
}

#[test]
fn a_request_that_waits_for_a_place_too_long_is_overload() {
    let pair = Pair::with(Options {
        tunnels: "  http2: {max_streams: 1}\n",
        egress_timeout: "300ms",
        ..Options::default()
    });
    let mut first = connect(pair.egress);
    // Too long to be kept for another attempt: it goes on its way before it is whole.
    first
        .write_all(
            b"POST /routed/hang HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\ncontent-length: 90000\r\n\r\n",
        )
        .unwrap();
    wait_for("the first request", || {
        (stats(pair.responder_admin).get("egress.in_flight") == Some(&1)).then_some(())
    });
    let answer = get(pair.egress, "/routed", &[("x-node-id", "edge")]);
    assert_eq!(
        (answer.status, answer.header("x-eddy-reason")),
        (503, Some("overloaded"))
    );
}

#[test]
fn a_full_tunnel_refuses_where_no_request_may_wait() {
    let pair = Pair::with(Options {
        tunnels: "  http2: {max_streams: 1}\n",
        egress: ", max_waiting: 0",
        ..Options::default()
    });
    pair.assert_good();
    let mut first = connect(pair.egress);
    first
        .write_all(b"GET /routed/slow HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\n\r\n")
        .unwrap();
    wait_for("the first request", || {
        (stats(pair.responder_admin).get("egress.in_flight") == Some(&1)).then_some(())
    });
    let answer = get(pair.egress, "/routed", &[("x-node-id", "edge")]);
    assert_eq!(
        (answer.status, answer.header("x-eddy-reason")),
        (503, Some("overloaded"))
    );
    let mut rest = [0; 4096];
    while first.read(&mut rest).unwrap() > 0 && !rest.starts_with(b"ow") {}
    wait_for("room", || {
        (get(pair.egress, "/routed", &[("x-node-id", "edge")]).status == 200).then_some(())
    });
}
