//! A responder that wants more from an initiator than its routes: other machines, other paths, all of its memory. It reaches the
//! configured services alone, and the tunnel to the other responder carries requests all the while.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use crate::h2::{Frame, PREFACE, code, flag, kind, literal};
use crate::kit::{Service, read_all, read_head, stats, wait_for};
use crate::memory::STORM;
use crate::raw_responder::{Between, Outcome};

/// The most that the initiator may have resident, in KiB: with as many requests as it takes at once, and with requests that it
/// refuses for their heads.
const STREAMS_PEAK_KIB: u64 = 256_000;
const HEADS_PEAK_KIB: u64 = 40_000;
/// The default of `http2.max_streams`.
const STREAMS_MAX: usize = 1024;
/// The address of the metadata service in many clouds.
const METADATA: &str = "169.254.169.254";

/// The service of the only route, and the heads of all requests that reach it. It never responds to `/routed/hold`.
struct Recorder {
    port: u16,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn start() -> Self {
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heads);
        let service = Service::start(move |mut stream| {
            while let Some(head) = read_head(&mut stream) {
                let is_held = head.contains("/hold");
                kept.lock().unwrap().push(head);
                if is_held {
                    read_all(&mut stream);
                    return;
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood");
            }
        });
        Self {
            port: service.port,
            heads,
        }
    }

    /// How many of the requests that have reached it contain a text in their heads.
    fn count(&self, text: &str) -> usize {
        let heads = self.heads.lock().unwrap();
        heads.iter().filter(|head| head.contains(text)).count()
    }
}

/// A service that no route leads to.
struct Forbidden {
    listener: TcpListener,
    authority: String,
}

impl Forbidden {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        Self { listener, authority }
    }

    fn assert_never_reached(&self) {
        let connection = self.listener.accept();
        assert!(connection.is_err(), "{connection:?}");
    }
}

fn start() -> (Recorder, Between) {
    let service = Recorder::start();
    let between = Between::with_service(Some(service.port));
    (service, between)
}

fn assert_peak_memory_below(between: &Between, limit_kib: u64) {
    let peak = between.initiator.peak_memory_kib();
    assert!(peak < limit_kib, "{peak} KiB");
}

fn get<'a>(authority: &'a str, path: &'a str) -> [(&'a str, &'a str); 4] {
    [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", authority),
        (":path", path),
    ]
}

#[test]
fn connect_is_refused() {
    let ((service, between), forbidden) = (start(), Forbidden::start());
    let to = (":authority", forbidden.authority.as_str());
    let mut tunnel = between.http_2();
    for fields in [
        &[(":method", "CONNECT"), to][..],
        &[
            (":method", "CONNECT"),
            (":scheme", "http"),
            to,
            (":path", "/routed"),
        ],
        &[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            to,
            (":path", "/routed"),
        ],
    ] {
        let outcome = tunnel.request(fields);
        assert!(outcome.is_refusal(), "{fields:?}: {outcome:?}");
        between.assert_others_are_served();
    }
    assert_eq!(tunnel.request(&get("x", "/routed")), Outcome::Status(200));
    assert_eq!(service.count("CONNECT"), 0);
    forbidden.assert_never_reached();
}

#[test]
fn connect_of_http_1_is_refused() {
    let ((service, between), forbidden) = (start(), Forbidden::start());
    let to = &forbidden.authority;
    let mut tunnel = between.tunnel();
    let request = format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\n\r\n");
    tunnel.write_all(request.as_bytes()).unwrap();
    let head = read_head(&mut tunnel).unwrap();
    assert!(head.starts_with("HTTP/1.1 4"), "{head}");
    between.assert_others_are_served();
    assert_eq!(service.count("CONNECT"), 0);
    forbidden.assert_never_reached();
}

/// The authority of a request is a header for the service of the route, never an address.
#[test]
fn an_authority_never_chooses_the_machine() {
    let ((service, between), forbidden) = (start(), Forbidden::start());
    let mut tunnel = between.http_2();
    for authority in [METADATA, &forbidden.authority] {
        let fields = get(authority, "/routed/authority");
        assert_eq!(tunnel.request(&fields), Outcome::Status(200), "{authority}");
        let host_field = format!("host: {authority}\r\n");
        assert_eq!(
            service.count(&host_field),
            1,
            "the service of the route receives it"
        );
        let [method, scheme, x, path] = get("x", "/routed");
        let host = ("host", authority);
        for fields in [
            &[method, scheme, x, path, host][..],
            &[method, scheme, path, host],
        ] {
            let outcome = tunnel.request(fields);
            let is_routed = outcome == Outcome::Status(200);
            assert!(is_routed || outcome.is_refusal(), "{fields:?}: {outcome:?}");
        }
        between.assert_others_are_served();
    }
    forbidden.assert_never_reached();
}

#[test]
fn a_target_of_http_1_never_chooses_the_machine() {
    let ((service, between), forbidden) = (start(), Forbidden::start());
    let mut tunnel = between.tunnel();
    for authority in [METADATA, &forbidden.authority] {
        for target in [format!("http://{authority}/routed"), "/routed".to_owned()] {
            let request = format!("GET {target} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
            tunnel.write_all(request.as_bytes()).unwrap();
            let head = read_head(&mut tunnel).unwrap();
            assert!(head.starts_with("HTTP/1.1 200 "), "{target}: {head}");
            tunnel.read_exact(&mut [0; 4]).unwrap();
        }
        let host = format!("host: {authority}\r\n");
        assert_eq!(service.count(&host), 2, "the service of the route receives both");
        between.assert_others_are_served();
    }
    forbidden.assert_never_reached();
}

#[test]
fn a_path_without_a_route_is_not_found() {
    let (service, between) = start();
    let mut tunnel = between.http_2();
    let paths = [
        "/",
        "/metadata",
        "/latest/meta-data/",
        "/route",
        "//routed",
        "/ROUTED",
    ];
    for path in paths {
        assert_eq!(tunnel.request(&get("x", path)), Outcome::Status(404), "{path}");
    }
    let refused = stats(between.admin)["service.refused.no_route"];
    assert_eq!(usize::try_from(refused).unwrap(), paths.len());
    between.assert_others_are_served();
    assert_eq!(
        service.count("GET /routed HTTP/1.1"),
        service.heads.lock().unwrap().len()
    );
}

#[test]
fn streams_beyond_the_limit_are_refused_one_by_one() {
    const STREAMS: usize = 10_000;
    let _alone = STORM.lock().unwrap_or_else(PoisonError::into_inner);
    let (service, between) = start();
    let mut tunnel = between.http_2();
    let ids: Vec<u32> = (0..STREAMS).map(|_| tunnel.id()).collect();
    let requests = ids
        .iter()
        .flat_map(|id| Frame::headers(*id, true, &get("x", "/routed/hold")).encode());
    tunnel.send(&requests.collect::<Vec<_>>()).unwrap();
    let (taken, refused) = ids.split_at(STREAMS_MAX);
    for id in refused {
        let frame = loop {
            let frame = tunnel.frame().expect("the tunnel stays");
            if frame.stream != 0 {
                break frame;
            }
        };
        assert_eq!(frame, Frame::reset(*id, code::REFUSED_STREAM));
    }
    wait_for("the service to have the others", || {
        (service.count("/hold") == STREAMS_MAX).then_some(())
    });
    between.assert_others_are_served();
    assert_peak_memory_below(&between, STREAMS_PEAK_KIB);
    // The places of requests that are given up are free again.
    let resets = taken
        .iter()
        .flat_map(|id| Frame::reset(*id, code::CANCEL).encode());
    tunnel.send(&resets.collect::<Vec<_>>()).unwrap();
    assert_eq!(tunnel.request(&get("x", "/routed")), Outcome::Status(200));
    between.assert_others_are_served();
}

/// A GET whose header block ends with these bytes.
fn get_and(more: &[u8]) -> Vec<u8> {
    let fields = get("x", "/routed/bomb");
    let mut block: Vec<u8> = fields.iter().flat_map(|(n, v)| literal(n, v)).collect();
    block.extend(more);
    block
}

/// Sends requests that end at the initiator: the request is refused, or the tunnel ends and the initiator dials again.
fn assert_refused(blocks: &[Vec<u8>]) {
    let (service, between) = start();
    let mut tunnel = between.http_2();
    for block in blocks {
        let outcome = tunnel.request_with(block);
        if outcome == Outcome::Ended {
            tunnel = between.http_2();
        } else {
            assert!(outcome.is_refusal(), "{outcome:?}");
        }
        assert_eq!(service.count("/bomb"), 0);
    }
    assert_eq!(tunnel.request(&get("x", "/routed")), Outcome::Status(200));
    between.assert_others_are_served();
    assert_peak_memory_below(&between, HEADS_PEAK_KIB);
}

#[test]
fn header_blocks_of_more_than_64_kib_are_refused() {
    let one = literal("x-long", &"v".repeat(70 << 10));
    let many = literal("x-long", &"v".repeat(7 << 10)).repeat(10);
    let tiny = literal("a", "").repeat(20 << 10);
    assert_refused(&[one, many, tiny].map(|more| get_and(&more)));
}

/// Each byte stands for a field of 4 KB: 80 KB are refused, and for 60 MB the tunnel may end.
#[test]
fn references_to_a_large_field_are_refused() {
    let bomb = |references: usize| {
        let mut large = literal("x-bomb", &"v".repeat(4_000));
        // With incremental indexing: the field is entry 62, the first of the dynamic table (RFC 7541, section 6.2.1).
        large[0] = 0x40;
        get_and(&[large, vec![0x80 | 62; references]].concat())
    };
    let mut bombs = vec![bomb(20); 100];
    bombs.extend(vec![bomb(15_000); 5]);
    assert_refused(&bombs);
}

#[test]
fn continuations_without_end_end_the_tunnel_alone() {
    let (service, between) = start();
    for (times, piece) in (1..).zip([vec![], literal("a", "b"), literal("x-long", &"v".repeat(16_000))]) {
        // Without an acknowledgement of anything: nothing but CONTINUATION may follow.
        let mut tunnel = between.tunnel();
        let head = Frame::new(kind::HEADERS, flag::END_STREAM, 1, &get_and(b""));
        let begin = [&PREFACE[..], &Frame::settings(&[]).encode(), &head.encode()].concat();
        tunnel.write_all(&begin).unwrap();
        let pieces = Frame::new(kind::CONTINUATION, 0, 1, &piece).encode().repeat(100);
        // 16 KiB add up to 64 MiB, unless the initiator ends the tunnel first.
        for _ in 0..40 {
            if tunnel.write_all(&pieces).is_err() {
                break;
            }
        }
        read_all(&mut tunnel);
        wait_for("the end of the tunnel", || {
            (stats(between.admin)["reverse_tunnel.closed.http_error"] == times).then_some(())
        });
        between.assert_others_are_served();
    }
    let mut tunnel = between.http_2();
    assert_eq!(tunnel.request(&get("x", "/routed")), Outcome::Status(200));
    assert_eq!(service.count("/bomb"), 0);
    assert_peak_memory_below(&between, HEADS_PEAK_KIB);
    between.assert_others_are_served();
}
