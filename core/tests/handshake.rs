//! The handshake, both roles, attacked with bytes.
//!
//! The contract of a parser that is given all that has come so far: it asks for more, or takes a value and says
//! how many bytes that was, or refuses with a typed reason. How the bytes were cut makes no difference. It never
//! panics, and decides before [`NEEDS_AT_MOST`] bytes are there, whatever they are.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::SocketAddr;

use eddy_core::handshake::request::{Announcement, Demands, Offer, Verdict};
use eddy_core::handshake::response::{self, Rejection};
use eddy_core::handshake::{DEFAULT_PATH, HEAD_BYTES_MAX, Mode, Parsed, Refusal};
use eddy_core::identity::{ClusterId, ClusterName, Identity, NodeId, TenantId, WorkerId};
use eddy_core::instance::{Berth, Instance};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A head, and a body that is empty but for its trailers, each at its limit; one byte more decides.
const NEEDS_AT_MOST: usize = 2 * HEAD_BYTES_MAX + 1;

/// Every text that is an id: of any script, with colons and blanks within, from 1 to 255 bytes.
fn id() -> impl Strategy<Value = String> {
    let texts = prop_oneof![
        "\\PC{1,20}",
        "[!-~]{1,255}",
        "[:@ a]{1,9}",
        "\\PC{255}",
        "a\\p{Cf}b"
    ];
    texts.prop_filter("an id", |text| NodeId::parse(text).is_ok())
}

fn identity() -> impl Strategy<Value = Identity> {
    (id(), id(), id()).prop_map(|(node, cluster, tenant)| Identity {
        node: NodeId::parse(&node).unwrap(),
        cluster: ClusterId::parse(&cluster).unwrap(),
        tenant: TenantId::parse(&tenant).unwrap(),
    })
}

fn instance() -> impl Strategy<Value = Instance> {
    (any::<u64>(), any::<u16>(), any::<u32>(), any::<u32>()).prop_map(|(nonce, worker, lane, slot)| {
        let worker = WorkerId(worker);
        let berth = Berth { worker, lane, slot };
        Instance { nonce, berth }
    })
}

/// A valid offer, what it announces, and a responder's demands that it meets.
fn offer() -> impl Strategy<Value = (Vec<u8>, Announcement, Demands)> {
    let mode = select(vec![Mode::Plain, Mode::Upgrade]);
    let numbers = (any::<u64>(), any::<u16>(), any::<u64>());
    let flags = (any::<bool>(), any::<bool>());
    (
        identity(),
        id(),
        "(/[a-z%.]{0,9}){1,3}",
        mode,
        any::<SocketAddr>(),
        numbers,
        flags,
        proptest::option::of(instance()),
    )
        .prop_map(
            |(
                identity,
                upstream,
                path,
                mode,
                host,
                (time, worker, connection),
                (required, isolated),
                instance,
            )| {
                let upstream_cluster = ClusterName::parse(&upstream).unwrap();
                let offer = Offer {
                    path: &path,
                    mode,
                    host,
                    identity: &identity,
                    upstream_cluster: &upstream_cluster,
                    initiation_time_ms: time,
                    worker: WorkerId(worker),
                    connection,
                    instance,
                };
                let bytes = offer.encode();
                let Identity {
                    tenant,
                    cluster,
                    node,
                } = &identity;
                let separated = [tenant.as_str(), cluster.as_str(), node.as_str()]
                    .iter()
                    .any(|id| id.contains(':'));
                let demands = Demands {
                    path: path.clone(),
                    mode,
                    tenant_isolation: isolated && !separated,
                    required_cluster: required.then_some(upstream_cluster),
                };
                let announcement = Announcement {
                    identity,
                    worker: Some(format!("worker_{worker}")),
                    connection: Some(connection.to_string()),
                    instance,
                };
                (bytes, announcement, demands)
            },
        )
}

/// What somebody might send: valid messages and pieces of them, endless runs, noise, damage.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let text = |text: &'static str| Just(text.as_bytes().to_vec());
    let run = |piece: &'static str| (0..70_000 / piece.len()).prop_map(move |n| piece.repeat(n).into_bytes());
    let piece = prop_oneof![
        8 => offer().prop_map(|(bytes, ..)| bytes),
        2 => text("GET /reverse_connections/request HTTP/1.1\r\n"),
        2 => text("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        1 => text("HTTP/1.1 101 Switching Protocols\r\n"),
        1 => text("HTTP/1.1 100 Continue\r\n\r\n"),
        1 => text("HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\n"),
        2 => text("transfer-encoding: chunked\r\n\r\n0"),
        2 => text("\r\n"),
        2 => text("x: "),
        1 => run("\r\n"),
        1 => run("HTTP/1.1 100 Continue\r\n\r\n"),
        1 => run("a: b\r\n"),
        1 => run("a"),
        1 => run("0"),
        2 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    let damage = prop::collection::vec((any::<Index>(), any::<u8>()), 0..3);
    (prop::collection::vec(piece, 0..6), damage).prop_map(|(pieces, damage)| {
        let mut bytes = pieces.concat();
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes
    })
}

proptest! {
    #[test]
    fn an_offer_is_heard_as_it_was_meant((bytes, announcement, demands) in offer()) {
        let consumed = bytes.len();
        let value = Verdict::Tunnel(announcement);
        prop_assert_eq!(demands.parse(&bytes), Ok(Some(Parsed { value, consumed })));
    }

    /// Neither a responder nor an initiator decides before the last byte.
    #[test]
    fn every_prefix_asks_for_more((offer, _, demands) in offer()) {
        for cut in 0..offer.len() {
            prop_assert_eq!(demands.parse(&offer[..cut]), Ok(None), "cut at {}", cut);
        }
        let answer = demands.accept();
        for cut in 0..answer.len() {
            prop_assert_eq!(response::parse(demands.mode, &answer[..cut]), Ok(None), "cut at {}", cut);
        }
    }

    /// What follows an answer is the tunnel's; what follows a request, before its answer, is refused.
    #[test]
    fn what_follows_changes_nothing_of_the_answer(
        (offer, _, demands) in offer(), more in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let answer = demands.accept();
        let consumed = answer.len();
        let followed = [answer, &more].concat();
        let expected = Ok(Some(Parsed { value: Default::default(), consumed }));
        prop_assert_eq!(response::parse(demands.mode, &followed), expected);
        prop_assert_eq!(demands.parse(&[offer, more].concat()), Err(Refusal::Pipelined));
    }

    #[test]
    fn a_responder_decides_about_any_bytes_in_bounded_memory(
        bytes in bytes(), padding in select(vec![&b"a"[..], b"0", b"\r\n", b"a: b\r\n", b"\0"]),
    ) {
        let demands = Demands::default();
        if let Ok(Some(Parsed { consumed, .. })) = demands.parse(&bytes) {
            prop_assert!(consumed <= bytes.len());
        }
        let mut long = bytes;
        while long.len() < NEEDS_AT_MOST {
            long.extend_from_slice(padding);
        }
        prop_assert!(demands.parse(&long[..NEEDS_AT_MOST]) != Ok(None));
    }

    #[test]
    fn an_initiator_decides_about_any_bytes_in_bounded_memory(
        bytes in bytes(), padding in select(vec![&b"a"[..], b"0", b"\r\n", b"a: b\r\n", b"\0"]),
        mode in select(vec![Mode::Plain, Mode::Upgrade]),
    ) {
        match response::parse(mode, &bytes) {
            Ok(Some(Parsed { consumed, .. })) => prop_assert!(consumed <= bytes.len()),
            Err(Rejection::Status { detail, .. }) => {
                prop_assert!(detail.len() <= 200 && detail.chars().all(|c| !c.is_control()));
            }
            Ok(None) | Err(Rejection::Malformed | Rejection::Body | Rejection::HeadTooLarge) => {}
        }
        let mut long = bytes;
        while long.len() < NEEDS_AT_MOST {
            long.extend_from_slice(padding);
        }
        prop_assert!(response::parse(mode, &long[..NEEDS_AT_MOST]) != Ok(None));
    }

    /// However the bytes come, the first decision is the decision: later bytes turn a request into one that was
    /// pipelined, and lengthen the text of a refusal, and that is all.
    #[test]
    fn the_cut_makes_no_difference(bytes in bytes(), cuts in prop::collection::vec(any::<Index>(), 1..20)) {
        let demands = Demands::default();
        let (request, answer) = (demands.parse(&bytes), response::parse(Mode::Plain, &bytes));
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        for cut in cuts {
            match demands.parse(&bytes[..cut]) {
                Ok(None) => {}
                Ok(Some(Parsed { value: Verdict::Tunnel(_), consumed })) if consumed < bytes.len() => {
                    prop_assert_eq!(&request, &Err(Refusal::Pipelined));
                }
                decided => prop_assert_eq!(&request, &decided),
            }
            match response::parse(Mode::Plain, &bytes[..cut]) {
                Ok(None) => {}
                Err(early) => prop_assert_eq!(answer.clone().map_err(|late| late.reason()), Err(early.reason())),
                taken => prop_assert_eq!(&answer, &taken),
            }
        }
    }
}

/// Each row of the table of wire.md 2.3 that this responder has: what is asked, and the answer byte for byte.
#[test]
fn every_refusal_of_the_wire_rules_comes_out_byte_exact() {
    let plain = Demands::default();
    let upgrade = Demands {
        mode: Mode::Upgrade,
        ..plain.clone()
    };
    let isolated = Demands {
        tenant_isolation: true,
        ..plain.clone()
    };
    let cluster = Demands {
        required_cluster: Some(ClusterName::parse("up").unwrap()),
        ..plain.clone()
    };
    let head = format!("GET {DEFAULT_PATH} HTTP/1.1\r\n");
    let id = |name, value| format!("x-envoy-reverse-tunnel-{name}: {value}\r\n");
    let ids = |node, tenant| id("node-id", node) + &id("cluster-id", "c") + &id("tenant-id", tenant);
    let good = ids("n", "t");
    let rows = [
        ("0 parse", &plain, "get / HTTP/1.1\r\n\r\n".to_owned()),
        ("0 HTTP/1.0", &plain, "GET / HTTP/1.0\r\n\r\n".to_owned()),
        (
            "0 head",
            &plain,
            format!("{head}x: {}", "y".repeat(HEAD_BYTES_MAX)),
        ),
        (
            "0 headers",
            &plain,
            format!("{head}{}\r\n", "a: b\r\n".repeat(101)),
        ),
        ("1 body", &plain, format!("{head}{good}content-length: 5\r\n\r\n")),
        (
            "1 body, HEAD",
            &plain,
            "HEAD / HTTP/1.1\r\ncontent-length: 5\r\n\r\n".to_owned(),
        ),
        ("2 path", &plain, format!("GET /other HTTP/1.1\r\n{good}\r\n")),
        (
            "2 method",
            &plain,
            format!("POST {DEFAULT_PATH} HTTP/1.1\r\n{good}\r\n"),
        ),
        (
            "2 HEAD",
            &plain,
            format!("HEAD {DEFAULT_PATH} HTTP/1.1\r\n{good}\r\n"),
        ),
        ("3 upgrade", &upgrade, format!("{head}{good}\r\n")),
        ("4 ids", &plain, format!("{head}{}\r\n", id("node-id", "n"))),
        ("5 tenant", &plain, format!("{head}{}\r\n", ids("n", ""))),
        ("6 separator", &isolated, format!("{head}{}\r\n", ids("n:1", "t"))),
        ("7 name missing", &cluster, format!("{head}{good}\r\n")),
        (
            "7 name differs",
            &cluster,
            format!("{head}{good}{}\r\n", id("upstream-cluster-name", "down")),
        ),
        ("- node", &plain, format!("{head}{}\r\n", ids("", "t"))),
        ("- pipelined", &plain, format!("{head}{good}\r\nRPING")),
    ];
    let mut table = String::new();
    for (row, demands, request) in rows {
        let refusal = demands.parse(request.as_bytes()).unwrap_err();
        let answer = String::from_utf8(refusal.encode()).unwrap();
        table += &format!(
            "{row:15}{:18}{}\n",
            refusal.counter(),
            answer.replace("\r\n", "\\r\\n")
        );
    }
    let limit = Refusal::Limit { retry_after: None };
    let answer = String::from_utf8(limit.encode()).unwrap();
    table += &format!(
        "{:15}{:18}{}\n",
        "9 limit",
        limit.counter(),
        answer.replace("\r\n", "\\r\\n")
    );
    insta::assert_snapshot!(table, @r"
        0 parse        http_error        HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\nb\r\nBad Request\r\n0\r\n\r\n
        0 HTTP/1.0     http_version      HTTP/1.1 426 Upgrade Required\r\ncontent-type: text/plain\r\n\r\nUpgrade Required
        0 head         head_too_large    HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n1f\r\nRequest Header Fields Too Large\r\n0\r\n\r\n
        0 headers      head_too_large    HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n1f\r\nRequest Header Fields Too Large\r\n0\r\n\r\n
        1 body         body_rejected     HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n2e\r\nReverse tunnel handshake must not carry a body\r\n0\r\n\r\n
        1 body, HEAD   body_rejected     HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\nReverse tunnel handshake must not carry a body
        2 path         not_found         HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n1c\r\nNot a reverse tunnel request\r\n0\r\n\r\n
        2 method       not_found         HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n1c\r\nNot a reverse tunnel request\r\n0\r\n\r\n
        2 HEAD         not_found         HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\nNot a reverse tunnel request
        3 upgrade      parse_error       HTTP/1.1 426 Upgrade Required\r\ncontent-type: text/plain\r\nupgrade: reverse-tunnel\r\ntransfer-encoding: chunked\r\n\r\n20\r\nUpgrade: reverse-tunnel required\r\n0\r\n\r\n
        4 ids          parse_error       HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n27\r\nMissing required reverse tunnel headers\r\n0\r\n\r\n
        5 tenant       parse_error       HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n1c\r\nEmpty tenant-id header value\r\n0\r\n\r\n
        6 separator    parse_error       HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n50\r\nReverse tunnel identifiers must not contain ':' when tenant isolation is enabled\r\n0\r\n\r\n
        7 name missing parse_error       HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n24\r\nMissing upstream cluster name header\r\n0\r\n\r\n
        7 name differs validation_failed HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n15\r\nCluster name mismatch\r\n0\r\n\r\n
        - node         parse_error       HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n25\r\nBad node-id header value: it is empty\r\n0\r\n\r\n
        - pipelined    pipelined         HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\nb\r\nBad Request\r\n0\r\n\r\n
        9 limit        rejected          HTTP/1.1 429 Too Many Requests\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n8\r\nrejected\r\n0\r\n\r\n
    ");
}
