//! Heads of requests that no proxy should pass on: encodings, sizes, ids. Each is refused by itself.

use std::io::Write;
use std::net::TcpStream;

use crate::h2::{Frame, PREFACE, flag, kind};
use crate::kit::{Options, Pair, Service, connect, exchange, get, parse_answer, read_head, stats, wait_for};

const LIMIT: usize = 48 << 10;

/// A responder that does not wait for nodes that it does not know.
fn pair() -> Pair {
    Pair::with(Options {
        egress: ", reconnect_grace: 0s",
        ..Options::default()
    })
}

/// Sends one request; its status and the reason that Eddy gives.
fn refusal(pair: &Pair, request: &[u8]) -> (u16, Option<String>) {
    let answer = exchange(pair.egress, request);
    let answer = parse_answer(&answer).unwrap_or_else(|| panic!("{:?}", String::from_utf8_lossy(&answer)));
    (answer.status, answer.header("x-eddy-reason").map(str::to_owned))
}

fn refused(status: u16, reason: &str) -> (u16, Option<String>) {
    (status, Some(reason.to_owned()))
}

#[test]
fn a_transfer_encoding_other_than_chunked_is_not_implemented() {
    let pair = pair();
    for encodings in [
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: identity\r\ntransfer-encoding: chunked",
    ] {
        let request = format!(
            "POST /routed HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\nconnection: close\r\n{encodings}\r\n\r\n0\r\n\r\n"
        );
        let outcome = refusal(&pair, request.as_bytes());
        assert_eq!(outcome, refused(501, "transfer_encoding"), "{encodings}");
        pair.assert_good();
    }
    // hyper refuses by itself what does not end in chunked. Envoy answers 501 here too.
    for encodings in ["transfer-encoding: gzip", "transfer-encoding: xchunked"] {
        let request = format!(
            "POST /routed HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\nconnection: close\r\n{encodings}\r\n\r\n0\r\n\r\n"
        );
        assert_eq!(refusal(&pair, request.as_bytes()), (400, None), "{encodings}");
        pair.assert_good();
    }
    assert_eq!(
        pair.service.served(),
        1,
        "only good requests have reached the service"
    );
}

#[test]
fn chunked_passes_in_any_case() {
    let service = Service::start(|mut stream| {
        let head = read_head(&mut stream).unwrap();
        if head.contains("chunked") {
            // The chunk, and the last one.
            read_head(&mut stream).unwrap();
        }
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ngood");
    });
    let pair = Pair::with(Options {
        service_port: Some(service.port),
        ..Options::default()
    });
    for encoding in ["chunked", "Chunked"] {
        let request = format!(
            "POST /routed HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\nconnection: close\r\n\
             transfer-encoding: {encoding}\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        );
        assert_eq!(refusal(&pair, request.as_bytes()), (200, None), "{encoding}");
    }
    pair.assert_good();
}

/// A request whose head has exactly so many bytes, with a body behind it.
fn request_of(head_bytes: usize, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /routed/echo HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\nconnection: close\r\ncontent-length: {length}\r\nx-long: "
    );
    let value = "v".repeat(head_bytes - head.len() - 4);
    [head.as_bytes(), value.as_bytes(), b"\r\n\r\n", body].concat()
}

#[test]
fn a_head_has_at_most_48_kib_and_a_body_any_size() {
    let pair = pair();
    let body = vec![b'b'; 1 << 20];
    for head_bytes in [LIMIT - 1, LIMIT] {
        assert_eq!(
            refusal(&pair, &request_of(head_bytes, &body)),
            (200, None),
            "{head_bytes}"
        );
    }
    for head_bytes in [LIMIT + 1, 60 << 10] {
        let outcome = refusal(&pair, &request_of(head_bytes, b""));
        assert_eq!(outcome, refused(431, "head_too_large"), "{head_bytes}");
        pair.assert_good();
    }
    // Beyond the buffer of hyper, which answers by itself.
    assert_eq!(refusal(&pair, &request_of(66 << 10, b"")).0, 431);
    assert_eq!(stats(pair.responder_admin)["egress.refused.head_too_large"], 2);
    pair.assert_good();
}

/// The head of a request with so many fields.
fn fields(count: usize) -> String {
    let own = "GET /routed HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\nconnection: close\r\n".to_owned();
    own + &"a: b\r\n".repeat(count - 3) + "\r\n"
}

#[test]
fn a_head_has_at_most_100_fields() {
    let pair = pair();
    assert_eq!(refusal(&pair, fields(100).as_bytes()).0, 200);
    // hyper has the same limit and answers by itself.
    assert_eq!(refusal(&pair, fields(101).as_bytes()).0, 431);
    pair.assert_good();
}

/// An HTTP/2 connection to the egress.
struct Client {
    stream: TcpStream,
    next: u32,
}

impl Client {
    fn new(pair: &Pair) -> Self {
        let mut stream = connect(pair.egress);
        stream.write_all(PREFACE).unwrap();
        Frame::settings(&[]).write(&mut stream);
        Self { stream, next: 1 }
    }

    /// The status of the response to a GET with these headers. The stream ends, the connection goes on.
    fn get(&mut self, more: &[(&str, &str)]) -> u16 {
        let own = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "x"),
            (":path", "/routed"),
        ];
        let id = self.next;
        self.next += 2;
        Frame::headers(id, true, &[&own[..], more].concat()).write(&mut self.stream);
        loop {
            let frame = Frame::read(&mut self.stream).expect("the connection goes on");
            assert!(!frame.is(kind::GOAWAY), "{frame:?}");
            if frame.is(kind::SETTINGS) && frame.flags & flag::ACK == 0 {
                Frame::new(kind::SETTINGS, flag::ACK, 0, b"").write(&mut self.stream);
            } else if frame.is(kind::HEADERS) && frame.stream == id {
                return frame.status();
            }
        }
    }

    /// The same with a header list of so many bytes, as HTTP/2 counts.
    fn get_sized(&mut self, list_bytes: usize) -> u16 {
        let own = [
            (":method", "GET"),
            (":scheme", "http"),
            (":authority", "x"),
            (":path", "/routed"),
            ("x-node-id", "edge"),
            ("x-long", ""),
        ];
        let counted: usize = own
            .iter()
            .map(|(name, value)| name.len() + value.len() + 32)
            .sum();
        let value = "v".repeat(list_bytes - counted);
        self.get(&[("x-node-id", "edge"), ("x-long", &value)])
    }
}

#[test]
fn the_same_limits_hold_for_http_2() {
    let pair = pair();
    let mut client = Client::new(&pair);
    // h2 answers by itself, and takes less than the limit that it announces.
    assert_eq!(client.get_sized(LIMIT - 1), 200);
    assert_eq!(client.get_sized(LIMIT + 1), 431);
    assert_eq!(
        client.get(&[("x-node-id", "edge")]),
        200,
        "the connection goes on"
    );
    pair.assert_good();
    let mut client = Client::new(&pair);
    let mut headers = vec![("x-node-id", "edge")];
    headers.resize(100, ("a", "b"));
    assert_eq!(client.get(&headers), 200);
    headers.push(("a", "b"));
    assert_eq!(client.get(&headers), 431);
    assert_eq!(stats(pair.responder_admin)["egress.refused.head_too_large"], 1);
    assert_eq!(
        client.get(&[("x-node-id", "edge")]),
        200,
        "the connection goes on"
    );
    pair.assert_good();
}

#[test]
fn a_host_id_of_more_than_255_bytes_is_refused_and_never_echoed() {
    let pair = pair();
    let most = "n".repeat(255);
    let answer = get(pair.egress, "/routed", &[("x-node-id", &most)]);
    assert_eq!(
        (answer.status, answer.header("x-eddy-reason")),
        (503, Some("no_tunnel"))
    );
    for header in ["x-node-id", "x-cluster-id"] {
        let long = "m".repeat(256);
        let answer = get(pair.egress, "/routed", &[(header, &long)]);
        assert_eq!(
            (answer.status, answer.header("x-eddy-reason")),
            (400, Some("host_id_too_long"))
        );
        assert!(!format!("{answer:?}").contains("mmmm"), "{answer:?}");
    }
    wait_for("the log line", || {
        pair.responder.log().contains("host_id_too_long").then_some(())
    });
    assert!(!pair.responder.log().contains("mmmm"));
    pair.assert_good();
}

#[test]
fn a_tenant_of_more_than_255_bytes_is_refused_and_never_echoed() {
    let pair = Pair::with(Options {
        tunnels: "  tenant_isolation: true\n",
        egress: ", tenant: x-tenant, reconnect_grace: 0s",
        ..Options::default()
    });
    let ask = |tenant: &str| {
        get(
            pair.egress,
            "/routed",
            &[("x-node-id", "edge"), ("x-tenant", tenant)],
        )
    };
    let answer = ask(&"m".repeat(256));
    assert_eq!(
        (answer.status, answer.header("x-eddy-reason")),
        (400, Some("host_id_too_long"))
    );
    assert!(!format!("{answer:?}").contains("mmmm"), "{answer:?}");
    assert!(!pair.responder.log().contains("mmmm"));
    assert_eq!(ask("acme").body, "good", "another client");
}
