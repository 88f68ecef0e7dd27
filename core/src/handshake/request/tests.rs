use proptest::prelude::*;

use super::*;

const HEAD: &str = "GET /reverse_connections/request HTTP/1.1\r\nhost: 127.0.0.1:20010\r\n";
const IDS: &str = "x-envoy-reverse-tunnel-node-id: n1\r\nx-envoy-reverse-tunnel-cluster-id: c1\r\n\
                   x-envoy-reverse-tunnel-tenant-id: t1\r\n";
const EMPTY: &str = "content-length: 0\r\n\r\n";

/// Copied from wire/01-life-of-a-tunnel.txt.
const ENVOY: &str = "GET /reverse_connections/request HTTP/1.1\r\n\
    host: 127.0.0.1:20110\r\n\
    x-envoy-reverse-tunnel-node-id: downstream-node\r\n\
    x-envoy-reverse-tunnel-cluster-id: downstream-cluster\r\n\
    x-envoy-reverse-tunnel-tenant-id: downstream-tenant\r\n\
    x-envoy-reverse-tunnel-upstream-cluster-name: upstream-cluster\r\n\
    x-envoy-reverse-tunnel-initiation-time: 1795203301733\r\n\
    x-envoy-reverse-tunnel-worker-id: worker_0\r\n\
    x-envoy-reverse-tunnel-connection-id: 0\r\n\
    content-length: 0\r\n\
    \r\n";

fn identity(node: &str, cluster: &str, tenant: &str) -> Identity {
    Identity {
        node: NodeId::parse(node).unwrap(),
        cluster: ClusterId::parse(cluster).unwrap(),
        tenant: TenantId::parse(tenant).unwrap(),
    }
}

fn judge(demands: &Demands, request: &str) -> Result<Option<Parsed<Verdict>>, Refusal> {
    demands.parse(request.as_bytes())
}

#[track_caller]
fn refuses(demands: &Demands, request: &str, refusal: Refusal) {
    assert_eq!(judge(demands, request), Err(refusal), "{request:?}");
}

/// The node's id, of a request that is a tunnel and is consumed whole.
#[track_caller]
fn accepts(demands: &Demands, request: &[u8]) -> String {
    match demands.parse(request).unwrap().unwrap() {
        Parsed {
            value: Verdict::Tunnel(announcement),
            consumed,
        } => {
            assert_eq!(consumed, request.len());
            announcement.identity.node.to_string()
        }
        other @ Parsed {
            value: Verdict::Api, ..
        } => panic!("{other:?}"),
    }
}

#[track_caller]
fn node(request: &str) -> String {
    accepts(&Demands::default(), request.as_bytes())
}

fn ids(node: &str, cluster: &str, tenant: &str) -> String {
    format!(
        "{HEAD}x-envoy-reverse-tunnel-node-id: {node}\r\nx-envoy-reverse-tunnel-cluster-id: {cluster}\r\n\
         x-envoy-reverse-tunnel-tenant-id: {tenant}\r\n{EMPTY}"
    )
}

#[test]
fn an_offer_is_envoy_s_byte_for_byte() {
    let identity = identity("downstream-node", "downstream-cluster", "downstream-tenant");
    let upstream_cluster = ClusterName::parse("upstream-cluster").unwrap();
    let offer = Offer {
        path: crate::handshake::DEFAULT_PATH,
        mode: Mode::Plain,
        host: "127.0.0.1:20110".parse().unwrap(),
        identity: &identity,
        upstream_cluster: &upstream_cluster,
        initiation_time_ms: 1_795_203_301_733,
        worker: WorkerId(0),
        connection: 0,
        instance: None,
    };
    assert_eq!(String::from_utf8(offer.encode()).unwrap(), ENVOY);
    assert_eq!(offer.encode().len(), 448);
    let upgrade = Offer {
        mode: Mode::Upgrade,
        ..offer
    };
    let headers = "127.0.0.1:20110\r\nconnection: upgrade\r\nupgrade: reverse-tunnel\r\n";
    let expected = ENVOY.replacen("127.0.0.1:20110\r\n", headers, 1);
    assert_eq!(String::from_utf8(upgrade.encode()).unwrap(), expected);
    assert_eq!(upgrade.encode().len(), 494);
    let v6 = Offer {
        host: "[::1]:9001".parse().unwrap(),
        ..offer
    };
    assert!(
        String::from_utf8(v6.encode())
            .unwrap()
            .contains("\r\nhost: [::1]:9001\r\n")
    );
}

#[test]
fn an_accept_is_envoy_s_byte_for_byte() {
    let plain = Demands::default();
    assert_eq!(plain.accept(), b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(plain.accept().len(), 38);
    assert_eq!(
        Demands {
            mode: Mode::Upgrade,
            ..plain
        }
        .accept()
        .len(),
        82
    );
}

#[test]
fn what_an_offer_says_is_heard() {
    let parsed = Demands::default().parse(ENVOY.as_bytes()).unwrap().unwrap();
    let announcement = Announcement {
        identity: identity("downstream-node", "downstream-cluster", "downstream-tenant"),
        worker: Some("worker_0".into()),
        connection: Some("0".into()),
        instance: None,
    };
    assert_eq!(
        parsed,
        Parsed {
            value: Verdict::Tunnel(announcement),
            consumed: 448
        }
    );
}

#[test]
fn row_0_what_is_no_http_is_refused_with_its_first_wrong_byte() {
    let demands = Demands::default();
    for bytes in [
        &b"\x16"[..],
        b"\x00",
        b"g",
        b"Ge",
        b" GET",
        b"PRI ",
        b"\x80",
        b"GET / HTTP/2",
        b"GET / X",
    ] {
        assert_eq!(demands.parse(bytes), Err(Refusal::HttpError), "{bytes:?}");
    }
    for start in [
        "",
        "\r\n",
        "G",
        "PRI",
        "GET",
        "GET ",
        "GET /",
        "GET / HTTP/1.",
        "GET / HTTP/1.1\r\nhost",
    ] {
        assert_eq!(judge(&demands, start), Ok(None), "{start:?}");
    }
    for request in [
        "\0\x01\x02garbage\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
        &format!("{}{IDS}{EMPTY}", HEAD.replace("GET", "get")),
        &format!("{HEAD}{IDS}no colon\r\n\r\n"),
        &format!("{HEAD}{IDS}a: b\r\n folded\r\n\r\n"),
    ] {
        refuses(&demands, request, Refusal::HttpError);
    }
}

#[test]
fn row_0_http_1_0_is_too_old() {
    for head in [HEAD, "GET /nope HTTP/1.1\r\n"] {
        let request = format!("{}{IDS}{EMPTY}", head.replace("HTTP/1.1", "HTTP/1.0"));
        refuses(&Demands::default(), &request, Refusal::HttpVersion);
    }
}

#[test]
fn row_0_a_head_has_a_limit() {
    let demands = Demands::default();
    let fixed = HEAD.len() + IDS.len() + "x: \r\n\r\n".len();
    let request = |length: usize| format!("{HEAD}{IDS}x: {}\r\n\r\n", "a".repeat(length - fixed));
    for length in [HEAD_BYTES_MAX - 1, HEAD_BYTES_MAX] {
        assert_eq!(node(&request(length)), "n1");
        assert_eq!(
            judge(&demands, &request(2 * length)[..length]),
            Ok(None),
            "no end within the limit"
        );
    }
    refuses(&demands, &request(HEAD_BYTES_MAX + 1), Refusal::HeadTooLarge);
    refuses(
        &demands,
        &request(2 * HEAD_BYTES_MAX)[..=HEAD_BYTES_MAX],
        Refusal::HeadTooLarge,
    );
    let bad_behind = request(2 * HEAD_BYTES_MAX).replace("\r\n\r\n", "\r\n\0\r\n\r\n");
    refuses(&demands, &bad_behind, Refusal::HeadTooLarge);
}

/// What is wrong behind the limit once changed the verdict, so that it depended on how the bytes were cut.
#[test]
fn row_0_newlines_before_the_method_count_and_what_is_behind_the_limit_does_not() {
    let newlines = "\n".repeat(HEAD_BYTES_MAX + 1);
    assert_eq!(judge(&Demands::default(), &newlines[1..]), Ok(None));
    refuses(&Demands::default(), &newlines, Refusal::HeadTooLarge);
    refuses(
        &Demands::default(),
        &format!("{newlines}x"),
        Refusal::HeadTooLarge,
    );
    refuses(
        &Demands::default(),
        &format!("{}x", &newlines[1..]),
        Refusal::HttpError,
    );
}

#[test]
fn row_0_headers_have_a_limit() {
    let request = |count: usize| format!("{HEAD}{IDS}{}\r\n", "a: b\r\n".repeat(count - 4));
    for count in [HEADERS_MAX - 1, HEADERS_MAX] {
        assert_eq!(node(&request(count)), "n1");
    }
    refuses(
        &Demands::default(),
        &request(HEADERS_MAX + 1),
        Refusal::HeadTooLarge,
    );
    let no_end = format!("{HEAD}{}", "a: b\r\n".repeat(HEADERS_MAX));
    refuses(&Demands::default(), &no_end, Refusal::HeadTooLarge);
}

#[test]
fn row_1_a_body_is_refused_unseen() {
    let demands = Demands::default();
    for rest in [
        "content-length: 5\r\n\r\n",
        "content-length: 5\r\n\r\nhello",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n5",
        "transfer-encoding: gzip\r\n\r\n",
    ] {
        refuses(
            &demands,
            &format!("{HEAD}{IDS}{rest}"),
            Refusal::Body { to_head: false },
        );
        let elsewhere = format!("GET /nope HTTP/1.1\r\n{rest}");
        refuses(&demands, &elsewhere, Refusal::Body { to_head: false });
        refuses(
            &demands,
            &format!("HEAD / HTTP/1.1\r\n{rest}"),
            Refusal::Body { to_head: true },
        );
    }
    refuses(
        &demands,
        &format!("{HEAD}{IDS}transfer-encoding: chunked\r\n\r\nzz"),
        Refusal::HttpError,
    );
}

#[test]
fn row_2_method_and_path_are_exact() {
    let demands = Demands::default();
    let not_found = Refusal::NotFound { to_head: false };
    for target in [
        "/nope",
        "/reverse_connections/request?a=1",
        "/reverse_connections/request/",
        "/reverse_connections/",
        "http://127.0.0.1:20010/reverse_connections/request",
    ] {
        refuses(
            &demands,
            &format!("GET {target} HTTP/1.1\r\n{IDS}{EMPTY}"),
            not_found.clone(),
        );
    }
    refuses(
        &demands,
        &format!("{}{IDS}{EMPTY}", HEAD.replace("GET", "POST")),
        not_found.clone(),
    );
    let to_head = Refusal::NotFound { to_head: true };
    refuses(
        &demands,
        &format!("{}{IDS}{EMPTY}", HEAD.replace("GET", "HEAD")),
        to_head,
    );
    let custom = Demands {
        path: "/rt/hello".into(),
        ..demands
    };
    refuses(&custom, &format!("{HEAD}{IDS}{EMPTY}"), not_found);
    accepts(
        &custom,
        format!("GET /rt/hello HTTP/1.1\r\n{IDS}{EMPTY}").as_bytes(),
    );
}

#[test]
fn row_3_an_upgrade_that_is_demanded_must_be_asked_for() {
    let demands = Demands {
        mode: Mode::Upgrade,
        ..Demands::default()
    };
    refuses(&demands, &format!("{HEAD}{EMPTY}"), Refusal::UpgradeRequired);
    refuses(
        &demands,
        &format!("{HEAD}upgrade: websocket\r\n{IDS}{EMPTY}"),
        Refusal::UpgradeRequired,
    );
    accepts(
        &demands,
        format!("{HEAD}upgrade: Reverse-Tunnel\r\n{IDS}{EMPTY}").as_bytes(),
    );
}

#[test]
fn row_4_every_id_must_be_there() {
    for id in ["node-id", "cluster-id", "tenant-id"] {
        let request = format!("{HEAD}{}{EMPTY}", IDS.replace(id, "other"));
        refuses(&Demands::default(), &request, Refusal::MissingIds);
    }
}

#[test]
fn row_5_a_tenant_is_not_empty() {
    refuses(&Demands::default(), &ids("n", "c", ""), Refusal::EmptyTenant);
    refuses(&Demands::default(), &ids("n", "c", " "), Refusal::EmptyTenant);
    refuses(&Demands::default(), &ids("", "", ""), Refusal::EmptyTenant);
}

#[test]
fn row_6_isolation_forbids_its_separator() {
    let demands = Demands {
        tenant_isolation: true,
        ..Demands::default()
    };
    for request in [ids("n:1", "c", "t"), ids("n", "c:1", "t"), ids("n", "c", "t:1")] {
        refuses(&demands, &request, Refusal::TenantSeparator);
        node(&request);
    }
    accepts(&demands, ids("n@1", "c", "t").as_bytes());
}

#[test]
fn row_7_the_upstream_cluster_may_be_demanded() {
    let required_cluster = Some(ClusterName::parse("up-x").unwrap());
    let demands = Demands {
        required_cluster,
        ..Demands::default()
    };
    let named = |name| format!("{HEAD}x-envoy-reverse-tunnel-upstream-cluster-name: {name}\r\n{IDS}{EMPTY}");
    refuses(
        &demands,
        &format!("{HEAD}{IDS}{EMPTY}"),
        Refusal::MissingClusterName,
    );
    refuses(&demands, &named("other"), Refusal::ClusterMismatch);
    accepts(&demands, named("up-x").as_bytes());
}

#[test]
fn an_id_that_is_none_is_refused_and_not_welcomed() {
    let bad = |which, why| Refusal::BadId { which, why };
    let demands = Demands::default();
    refuses(&demands, &ids("", "c", "t"), bad(IdKind::Node, IdError::Empty));
    refuses(&demands, &ids("n", "", "t"), bad(IdKind::Cluster, IdError::Empty));
    assert_eq!(node(&ids(&"n".repeat(255), "c", "t")).len(), 255);
    let long = IdError::TooLong { bytes: 256 };
    refuses(
        &demands,
        &ids(&"n".repeat(256), "c", "t"),
        bad(IdKind::Node, long),
    );
    refuses(
        &demands,
        &ids("n", "c", &"t".repeat(256)),
        bad(IdKind::Tenant, long),
    );
    let control = IdError::Character {
        at: 1,
        found: '\u{85}',
    };
    refuses(&demands, &ids("n\u{85}", "c", "t"), bad(IdKind::Node, control));
    let formatting = IdError::Formatting {
        at: 1,
        found: '\u{202E}',
    };
    refuses(
        &demands,
        &ids("n", "c\u{202E}", "t"),
        bad(IdKind::Cluster, formatting),
    );
    let mut bytes = ids("n?", "c", "t").into_bytes();
    let at = bytes.iter().rposition(|byte| *byte == b'?').unwrap();
    bytes[at] = 0xff;
    assert_eq!(demands.parse(&bytes), Err(bad(IdKind::Node, IdError::NotUtf8)));
}

#[test]
fn what_envoy_accepts_though_one_might_not_expect_it_is_accepted() {
    node(&format!(
        "GET /reverse_connections/request HTTP/1.1\r\n{IDS}{EMPTY}"
    ));
    node(&format!("\r\n{HEAD}{IDS}{EMPTY}"));
    for rest in [
        "\r\n",
        "connection: close\r\ncontent-length: 0\r\n\r\n",
        "expect: 100-continue\r\ncontent-length: 0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\n0\r\nfoo: bar\r\n\r\n",
        "connection: Upgrade\r\nupgrade: reverse-tunnel\r\n\r\n",
        "x-envoy-reverse-tunnel-node-id: second\r\n\r\n",
        "x-envoy-reverse-tunnel-initiation-time: abc\r\n\r\n",
    ] {
        assert_eq!(node(&format!("{HEAD}{IDS}{rest}")), "n1", "{rest:?}");
    }
    assert_eq!(node(&format!("{HEAD}{IDS}{EMPTY}").replace("\r\n", "\n")), "n1");
    assert_eq!(
        node(&format!("{HEAD}{IDS}{EMPTY}").replace("x-envoy-reverse", "X-Envoy-Reverse")),
        "n1"
    );
    assert_eq!(node(&ids(" n \u{e9} x ", "c1", "t1")), "n \u{e9} x");
    assert_eq!(node(&ids("a:17@x", "c:1", "t:1")), "a:17@x");
}

#[test]
fn what_is_said_for_logs_is_bounded() {
    let worker = |length: usize| {
        let name = "w".repeat(length);
        let request = format!("{HEAD}x-envoy-reverse-tunnel-worker-id: {name}\r\n{IDS}{EMPTY}");
        match judge(&Demands::default(), &request).unwrap().unwrap().value {
            Verdict::Tunnel(announcement) => announcement.worker.map(|worker| worker.len()),
            Verdict::Api => panic!("an API request"),
        }
    };
    assert_eq!(worker(ID_BYTES_MAX), Some(ID_BYTES_MAX));
    assert_eq!(worker(ID_BYTES_MAX + 1), None);
}

#[test]
fn nothing_may_follow_a_request_before_its_answer() {
    let demands = Demands::default();
    let request = format!("{HEAD}{IDS}{EMPTY}");
    for more in ["RPING", "\0\0\0\x04\0\0\0\0\0", &request, "\r\n"] {
        refuses(&demands, &format!("{request}{more}"), Refusal::Pipelined);
    }
    let chunked = format!("{HEAD}{IDS}transfer-encoding: chunked\r\n\r\n0\r\n\r\nR");
    refuses(&demands, &chunked, Refusal::Pipelined);
}

#[test]
fn the_api_is_for_someone_else() {
    let api = Ok(Some(Parsed {
        value: Verdict::Api,
        consumed: 0,
    }));
    let demands = Demands::default();
    for target in ["/reverse_connections", "/reverse_connections?role=both"] {
        assert_eq!(
            judge(&demands, &format!("GET {target} HTTP/1.1\r\nhost: a\r\n\r\n")),
            api
        );
        let post = format!("POST {target} HTTP/1.1\r\ncontent-length: 0\r\n\r\n");
        refuses(&demands, &post, Refusal::NotFound { to_head: false });
    }
    let there = Demands {
        path: "/reverse_connections".into(),
        ..demands
    };
    accepts(
        &there,
        format!("GET /reverse_connections HTTP/1.1\r\n{IDS}{EMPTY}").as_bytes(),
    );
}

#[test]
fn a_request_may_come_cut_anywhere() {
    let chunked = format!("{HEAD}{IDS}transfer-encoding: chunked\r\n\r\n0\r\nfoo: bar\r\n\r\n");
    for request in [ENVOY, &chunked, &ENVOY.replace("\r\n", "\n")] {
        for cut in 0..request.len() {
            assert_eq!(
                judge(&Demands::default(), &request[..cut]),
                Ok(None),
                "{request:?} cut at {cut}"
            );
        }
        node(request);
    }
}

fn piece() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(format!("{HEAD}{IDS}").into_bytes()),
        Just(HEAD.as_bytes().to_vec()),
        Just(b"GET /reverse_connections?a HTTP/1.1\r\n".to_vec()),
        Just(b"HEAD / HTTP/1.0\r\n".to_vec()),
        Just(EMPTY.as_bytes().to_vec()),
        Just(b"content-length: 5\r\n".to_vec()),
        Just(b"transfer-encoding: chunked\r\n\r\n".to_vec()),
        Just(b"0\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"RPING".to_vec()),
        prop::collection::vec(any::<u8>(), 0..4),
    ]
}

proptest! {
    /// However the bytes are cut, the verdict is the same; that bytes follow can only be seen once they do.
    #[test]
    fn segmentation_changes_nothing(pieces in prop::collection::vec(piece(), 0..6)) {
        let (bytes, demands) = (pieces.concat(), Demands::default());
        let whole = demands.parse(&bytes);
        let first = (0..=bytes.len()).find(|cut| demands.parse(&bytes[..*cut]) != Ok(None));
        let first = first.unwrap_or(bytes.len());
        match demands.parse(&bytes[..first]) {
            Ok(Some(Parsed { value: Verdict::Tunnel(_), consumed })) if first < bytes.len() => {
                prop_assert_eq!(consumed, first);
                prop_assert_eq!(whole, Err(Refusal::Pipelined));
            }
            verdict => prop_assert_eq!(verdict, whole),
        }
    }

    #[test]
    fn what_is_offered_is_announced(
        node in "[!-~]{1,255}", cluster in "[!-~äß]{1,100}", tenant in "[!-~][ -~]{0,9}[!-~]", time: u64,
    ) {
        let identity = identity(&node, &cluster, &tenant);
        let upstream_cluster = ClusterName::parse("up").unwrap();
        let offer = Offer {
            path: crate::handshake::DEFAULT_PATH,
            mode: Mode::Upgrade,
            host: "[::1]:1".parse().unwrap(),
            identity: &identity,
            upstream_cluster: &upstream_cluster,
            initiation_time_ms: time,
            worker: WorkerId(3),
            connection: time,
            instance: None,
        };
        let demands = Demands { mode: Mode::Upgrade, ..Demands::default() };
        let announcement = Announcement {
            identity: identity.clone(),
            worker: Some("worker_3".into()),
            connection: Some(time.to_string()),
            instance: None,
        };
        let bytes = offer.encode();
        let expected = Parsed { value: Verdict::Tunnel(announcement), consumed: bytes.len() };
        prop_assert_eq!(demands.parse(&bytes), Ok(Some(expected)));
    }
}
