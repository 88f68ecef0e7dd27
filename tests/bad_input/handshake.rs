//! What a peer may do to the tunnel port.

use std::io::Write;
use std::net::Shutdown;
use std::time::Duration;

use crate::kit::{Options, Pair, connect, exchange, moved, parse_answer, read_all, stats, wait_for};

/// A handshake that would be accepted, under an id of its own.
const REQUEST: &str = "GET /reverse_connections/request HTTP/1.1\r\n\
    host: 127.0.0.1:1\r\n\
    x-envoy-reverse-tunnel-node-id: other\r\n\
    x-envoy-reverse-tunnel-cluster-id: others\r\n\
    x-envoy-reverse-tunnel-tenant-id: acme\r\n\
    content-length: 0\r\n\r\n";

/// Does something bad; exactly one outcome of a handshake is counted, once, and a good request still works.
fn one_outcome(pair: &Pair, outcome: &str, bad: impl FnOnce(u16)) {
    outcomes(pair, outcome, 1, bad);
}

fn outcomes(pair: &Pair, outcome: &str, times: i64, bad: impl FnOnce(u16)) {
    let before = stats(pair.responder_admin);
    bad(pair.tunnels);
    let counter = format!("reverse_tunnel.handshake.{outcome}");
    let after = wait_for(&counter, || {
        let after = stats(pair.responder_admin);
        (after.get(&counter).copied().unwrap_or(0) - before.get(&counter).copied().unwrap_or(0) >= times)
            .then_some(after)
    });
    assert_eq!(moved(&before, &after), [(counter, times)]);
    pair.assert_good();
}

fn answered(port: u16, bytes: &[u8]) -> (u16, String) {
    let answer = exchange(port, bytes);
    let parsed = parse_answer(&answer).unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(&answer)));
    (parsed.status, parsed.body)
}

fn refused(outcome: &str, bytes: &[u8], status: u16, body: &str) {
    let pair = Pair::start();
    one_outcome(&pair, outcome, |port| {
        assert_eq!(answered(port, bytes), (status, body.to_owned()))
    });
}

#[test]
fn a_peer_that_sends_nothing_is_let_go_after_the_handshake_timeout() {
    let pair = Pair::with(Options {
        tunnels: "  handshake_timeout: 200ms\n",
        ..Options::default()
    });
    one_outcome(&pair, "timeout", |port| {
        assert_eq!(read_all(&mut connect(port)), b"")
    });
}

#[test]
fn a_slow_trickle_is_cut_off_however_it_goes_on() {
    let pair = Pair::with(Options {
        tunnels: "  handshake_timeout: 300ms\n",
        ..Options::default()
    });
    one_outcome(&pair, "timeout", |port| {
        let mut stream = connect(port);
        for byte in REQUEST.as_bytes() {
            if stream.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(read_all(&mut stream), b"");
    });
}

#[test]
fn a_mebibyte_of_headers_is_refused_without_being_kept() {
    let mut request = b"GET /reverse_connections/request HTTP/1.1\r\nx-long: ".to_vec();
    request.resize(1 << 20, b'a');
    refused("head_too_large", &request, 431, "Request Header Fields Too Large");
}

#[test]
fn too_many_headers_are_refused() {
    let mut request = "GET /reverse_connections/request HTTP/1.1\r\n".to_owned();
    for i in 0..101 {
        request += &format!("x-{i}: y\r\n");
    }
    refused(
        "head_too_large",
        (request + "\r\n").as_bytes(),
        431,
        "Request Header Fields Too Large",
    );
}

#[test]
fn binary_junk_is_no_http() {
    refused(
        "http_error",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        400,
        "Bad Request",
    );
}

#[test]
fn an_http2_preface_at_once_is_no_handshake() {
    refused(
        "http_error",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        400,
        "Bad Request",
    );
}

#[test]
fn a_wrong_path_is_not_found() {
    let request = REQUEST.replace("/request ", "/requests ");
    refused(
        "not_found",
        request.as_bytes(),
        404,
        "Not a reverse tunnel request",
    );
}

#[test]
fn a_wrong_method_is_not_found() {
    let request = REQUEST.replace("GET ", "POST ");
    refused(
        "not_found",
        request.as_bytes(),
        404,
        "Not a reverse tunnel request",
    );
}

#[test]
fn missing_identity_headers_are_refused() {
    for header in ["node", "cluster", "tenant"] {
        let line = REQUEST
            .lines()
            .find(|l| l.contains(&format!("{header}-id")))
            .unwrap();
        let request = REQUEST.replace(&format!("{line}\r\n"), "");
        refused(
            "parse_error",
            request.as_bytes(),
            400,
            "Missing required reverse tunnel headers",
        );
    }
}

#[test]
fn an_empty_tenant_is_refused() {
    let request = REQUEST.replace(": acme", ": ");
    refused(
        "parse_error",
        request.as_bytes(),
        400,
        "Empty tenant-id header value",
    );
}

#[test]
fn an_empty_node_is_refused_and_not_left_hanging() {
    let request = REQUEST.replace(": other\r", ": \r");
    refused(
        "parse_error",
        request.as_bytes(),
        400,
        "Bad node-id header value: it is empty",
    );
}

#[test]
fn a_body_is_refused() {
    let request = REQUEST.replace("content-length: 0", "content-length: 3") + "abc";
    let body = "Reverse tunnel handshake must not carry a body";
    refused("body_rejected", request.as_bytes(), 400, body);
}

#[test]
fn two_handshakes_in_one_segment_are_refused() {
    refused(
        "pipelined",
        [REQUEST, REQUEST].concat().as_bytes(),
        400,
        "Bad Request",
    );
}

#[test]
fn http2_bytes_behind_the_handshake_are_refused() {
    let request = [REQUEST, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"].concat();
    refused("pipelined", request.as_bytes(), 400, "Bad Request");
}

#[test]
fn http_1_0_must_upgrade() {
    let pair = Pair::start();
    one_outcome(&pair, "http_version", |port| {
        let request = REQUEST.replace("HTTP/1.1", "HTTP/1.0");
        let expected = "HTTP/1.1 426 Upgrade Required\r\ncontent-type: text/plain\r\n\r\nUpgrade Required";
        assert_eq!(
            String::from_utf8(exchange(port, request.as_bytes())).unwrap(),
            expected
        );
    });
}

#[test]
fn an_early_close_at_each_byte_of_the_handshake_leaves_nothing() {
    let pair = Pair::start();
    let length = i64::try_from(REQUEST.len()).unwrap();
    outcomes(&pair, "peer_closed", length, |port| {
        for end in 0..REQUEST.len() {
            let mut stream = connect(port);
            stream.write_all(&REQUEST.as_bytes()[..end]).unwrap();
            stream.shutdown(Shutdown::Both).unwrap();
        }
    });
}

/// What an evicted peer is sent.
fn is_turned_away(stream: &mut std::net::TcpStream) {
    let answer = parse_answer(&read_all(stream)).unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (429, "rejected"));
    let retry_after: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=5).contains(&retry_after), "{retry_after}");
}

#[test]
fn a_full_table_evicts_the_oldest_silent_connection() {
    let pair = Pair::with(Options {
        tunnels: "  max_pending_handshakes: 2\n  max_pending_per_source: 0\n",
        ..Options::default()
    });
    let mut half = connect(pair.tunnels);
    let (begin, rest) = REQUEST.split_at(8);
    half.write_all(begin.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let (mut silent, mut newest) = (connect(pair.tunnels), None);
    one_outcome(&pair, "evicted", |port| {
        newest = Some(connect(port));
        is_turned_away(&mut silent);
    });
    half.write_all(rest.as_bytes()).unwrap();
    wait_for("the tunnel of the peer that was in its head", || {
        (stats(pair.responder_admin).get("r.nodes.other") == Some(&1)).then_some(())
    });
    drop(newest);
    pair.assert_good();
}

#[test]
fn a_source_at_its_share_evicts_its_own_connection() {
    let pair = Pair::with(Options {
        tunnels: "  max_pending_per_source: 1\n",
        ..Options::default()
    });
    let (mut silent, mut newest) = (connect(pair.tunnels), None);
    one_outcome(&pair, "source_share", |port| {
        newest = Some(connect(port));
        is_turned_away(&mut silent);
    });
    drop(newest);
    pair.assert_good();
}

#[test]
fn junk_on_an_idle_tunnel_ends_that_tunnel_alone() {
    let pair = Pair::start();
    let before = stats(pair.responder_admin);
    let mut stream = connect(pair.tunnels);
    stream.write_all(REQUEST.as_bytes()).unwrap();
    wait_for("the tunnel", || {
        (stats(pair.responder_admin).get("r.nodes.other") == Some(&1)).then_some(())
    });
    stream.write_all(b"\0\0\x18\x04\0\0\0\0\0").unwrap();
    assert_eq!(
        read_all(&mut stream),
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    );
    let after = wait_for("the close", || {
        let after = stats(pair.responder_admin);
        (after.get("reverse_tunnel.closed.unexpected_bytes") == Some(&1)).then_some(after)
    });
    let expected = [
        ("reverse_tunnel.closed.unexpected_bytes", 1),
        ("reverse_tunnel.handshake.accepted", 1),
        ("reverse_tunnel.opened", 1),
    ];
    assert_eq!(
        moved(&before, &after),
        expected.map(|(name, by)| (name.to_owned(), by))
    );
    pair.assert_good();
}
