//! What real processes tell in their logs: one line per tunnel event, with an id that both ends know, and one line per
//! request, with an id that both hops know.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../kit/mod.rs"]
mod kit;
mod signals;
mod stderr;

use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use kit::{
    Eddy, Options, Pair, Service, connect, exchange, get, pause, post, read_all, read_head, stats, wait_for,
};
use serde_json::Value;

/// A pair that writes access logs into a folder.
fn logging_pair(folder: &Path) -> Pair {
    let log = |role: &str| {
        let file = folder.join(role);
        format!("access_log: {{file: {}}}\n", file.display())
    };
    Pair::with(Options {
        responder: &log("responder"),
        initiator: &log("initiator"),
        ..Options::default()
    })
}

/// The lines of a log of JSON, once there are so many.
fn lines(folder: &Path, role: &str, count: usize) -> Vec<Value> {
    wait_for("lines of the access log", || {
        let text = std::fs::read_to_string(folder.join(role)).ok()?;
        // The last one may be under way.
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let lines: Vec<Value> = whole.map(|line| serde_json::from_str(line).unwrap()).collect();
        (lines.len() >= count).then_some(lines)
    })
}

#[test]
fn a_request_is_one_line_on_each_side_under_one_id() {
    let folder = tempfile::tempdir().unwrap();
    let pair = logging_pair(folder.path());
    let answer = get(
        pair.egress,
        "/routed/head?token=secret",
        &[("x-node-id", "edge"), ("authorization", "Bearer secret")],
    );
    assert_eq!(answer.status, 200);
    let id = |head: &str| {
        let id = head.lines().find_map(|line| line.strip_prefix("x-request-id: "));
        id.unwrap().to_owned()
    };
    let seen = id(&answer.body);
    let told = ["responder", "initiator"].map(|role| lines(folder.path(), role, 1).remove(0));
    for (line, hop) in told.iter().zip(["egress", "service"]) {
        assert_eq!(line["request_id"], seen.as_str());
        assert_eq!(line["hop"], hop);
        assert_eq!(line["method"], "GET");
        assert_eq!(line["path"], "/routed/head");
        assert_eq!(line["status"], 200);
        assert_eq!(line["outcome"], "answered");
        assert_eq!(line["reason"], Value::Null);
        assert_eq!(line["node"], "edge");
        assert_eq!(line["cluster"], "edges");
        assert_eq!(line["tenant"], "acme");
        assert_eq!(line["attempts"], 1);
        assert_eq!(line["response_bytes"], answer.body.len());
        assert!(line["duration_ms"].as_f64().unwrap() > 0.0);
        assert!(!line.to_string().contains("secret"), "{line}");
    }
    assert_eq!(told[0]["tunnel"], "0-1");
    let shown = get(pair.responder_admin, "/tunnels", &[]).body;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["tunnels"][0]["peer_tunnel"], told[1]["tunnel"]);

    // A client's own id is kept.
    let answer = get(
        pair.egress,
        "/routed/head",
        &[("x-node-id", "edge"), ("x-request-id", "mine")],
    );
    assert_eq!(id(&answer.body), "mine");
    for role in ["responder", "initiator"] {
        assert_eq!(lines(folder.path(), role, 2)[1]["request_id"], "mine");
        let admin = if role == "responder" {
            pair.responder_admin
        } else {
            pair.initiator_admin
        };
        assert_eq!(stats(admin)["access_log.lost"], 0);
    }
}

#[test]
fn each_kind_of_end_is_told_as_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let pair = logging_pair(folder.path());
    let ask = |path: &str, node: &str| get(pair.egress, path, &[("x-node-id", node)]);
    let told = |role: &str, count: usize| lines(folder.path(), role, count).remove(count - 1);

    assert_eq!(ask("/elsewhere", "edge").status, 404);
    let line = told("responder", 1);
    assert_eq!(
        (&line["outcome"], &line["reason"]),
        (&"refused".into(), &"no_route".into())
    );
    assert_eq!(line["tunnel"], Value::Null);

    assert_eq!(ask("/routed/close", "edge").status, 503);
    let line = told("initiator", 1);
    assert_eq!(
        (&line["outcome"], &line["status"]),
        (&"refused".into(), &503.into())
    );
    assert_eq!(line["reason"], "service_reset");
    assert_eq!(told("responder", 2)["outcome"], "failed");

    let mut body = connect(pair.egress);
    Write::write_all(
        &mut body,
        b"POST /routed/echo HTTP/1.1\r\nhost: h\r\nx-node-id: edge\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello",
    )
    .unwrap();
    assert!(read_all(&mut body).ends_with(b"hello"));
    for (role, count) in [("responder", 3), ("initiator", 2)] {
        let line = told(role, count);
        assert_eq!(
            (&line["request_bytes"], &line["response_bytes"]),
            (&5.into(), &5.into())
        );
    }

    let mut gone = connect(pair.egress);
    Write::write_all(
        &mut gone,
        b"GET /routed/hang HTTP/1.1\r\nhost: h\r\nx-node-id: edge\r\n\r\n",
    )
    .unwrap();
    wait_for("the request to reach the service", || {
        (stats(pair.initiator_admin)["service.in_flight"] == 1).then_some(())
    });
    drop(gone);
    let line = told("responder", 4);
    assert_eq!(
        (&line["outcome"], &line["status"]),
        (&"client_gone".into(), &Value::Null)
    );
}

#[test]
fn what_was_told_before_the_end_is_written_before_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut pair = logging_pair(folder.path());
    for _ in 0..50 {
        pair.assert_good();
    }
    pair.responder.signal("TERM");
    pair.responder.wait();
    let text = std::fs::read_to_string(folder.path().join("responder")).unwrap();
    assert_eq!(text.lines().count(), 50);
}

/// What its client is not to blame for.
#[test]
fn a_request_that_is_cut_at_the_end_of_a_drain_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let log = format!(
        "drain_timeout: 500ms\naccess_log: {{file: {}}}\n",
        folder.path().join("responder").display()
    );
    let mut pair = Pair::with(Options {
        responder: &log,
        ..Options::default()
    });
    let mut client = connect(pair.egress);
    let request = b"GET /routed/hang HTTP/1.1\r\nhost: h\r\nx-node-id: edge\r\n\r\n";
    client.write_all(request).unwrap();
    wait_for("the request to run", || {
        (stats(pair.initiator_admin)["service.in_flight"] == 1).then_some(())
    });
    pair.responder.signal("TERM");
    pair.responder.wait();
    assert_eq!(lines(folder.path(), "responder", 1)[0]["outcome"], "cut");
}

/// Nobody reads the pipe: its lines are lost, and the process ends all the same.
#[test]
fn an_access_log_that_nobody_takes_keeps_no_process_from_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("responder");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let _reader = std::fs::File::options()
        .read(true)
        .write(true)
        .open(&pipe)
        .unwrap();
    let mut pair = logging_pair(folder.path());
    for _ in 0..400 {
        pair.assert_good();
    }
    pair.responder.signal("TERM");
    assert_eq!(pair.responder.wait().code(), Some(0));
    assert!(
        pair.responder.log().contains("could not be written"),
        "{}",
        pair.responder.log()
    );
}

#[test]
fn an_access_log_on_a_full_disk_counts_what_it_loses() {
    let full = "access_log: {file: /dev/full}\n";
    let pair = Pair::with(Options {
        responder: full,
        ..Options::default()
    });
    pair.assert_good();
    wait_for("the loss to be counted and logged", || {
        let counted = stats(pair.responder_admin)["access_log.lost"] == 1;
        (counted && pair.responder.log().contains("cannot write the access log")).then_some(())
    });
}

#[test]
fn a_page_from_elsewhere_changes_nothing() {
    let pair = Pair::start();
    let admin = pair.responder_admin;
    for from in [
        "origin: http://evil.example",
        "origin: null",
        "sec-fetch-site: cross-site",
    ] {
        let request = format!(
            "POST /logging?level=off HTTP/1.1\r\nhost: localhost:{admin}\r\n{from}\r\nconnection: close\r\n\r\n"
        );
        let answer = kit::parse_answer(&exchange(admin, request.as_bytes())).unwrap();
        assert_eq!(answer.status, 403, "{from}");
    }
    let own = format!(
        "POST /logging?level=info HTTP/1.1\r\nhost: localhost:{admin}\r\norigin: http://localhost:{admin}\r\n\
         connection: close\r\n\r\n"
    );
    assert_eq!(
        kit::parse_answer(&exchange(admin, own.as_bytes()))
            .unwrap()
            .status,
        200
    );
    assert_eq!(get(admin, "/logging", &[]).body, "info\n");
}

#[test]
fn a_client_cannot_take_away_the_ids_of_its_request() {
    let pair = Pair::start();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = get(
        pair.egress,
        "/routed/head",
        &[
            ("x-node-id", "edge"),
            ("connection", "x-request-id, traceparent"),
            ("x-request-id", "mine"),
            ("traceparent", parent),
        ],
    );
    for line in [
        "x-request-id: mine\r\n".to_owned(),
        format!("traceparent: {parent}\r\n"),
    ] {
        assert!(answer.body.contains(&line), "{}", answer.body);
    }
}

#[test]
fn a_trace_passes_both_hops_unchanged() {
    let pair = Pair::start();
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = get(
        pair.egress,
        "/routed/head",
        &[
            ("x-node-id", "edge"),
            ("traceparent", parent),
            ("tracestate", "a=b"),
        ],
    );
    assert!(
        answer.body.contains(&format!("traceparent: {parent}\r\n")),
        "{}",
        answer.body
    );
    assert!(answer.body.contains("tracestate: a=b\r\n"), "{}", answer.body);
}

#[test]
fn a_log_of_json_has_a_line_for_each_tunnel_event_with_an_id_of_both_ends() {
    let json = "log: {format: json}\n";
    let pair = Pair::with(Options {
        responder: json,
        initiator: json,
        ..Options::default()
    });
    let event = |eddy: &Eddy, message: &str| {
        wait_for(message, || {
            let log = eddy.log();
            let mut events = log
                .lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap());
            events.find(|event| event["message"] == message)
        })
    };
    let up = [&pair.responder, &pair.initiator].map(|eddy| event(eddy, "tunnel up"));
    for event in &up {
        assert_eq!(event["level"], "INFO");
        assert_eq!(
            (&event["node"], &event["cluster"], &event["tenant"]),
            (&"edge".into(), &"edges".into(), &"acme".into())
        );
    }
    assert_eq!(up[0]["peer_tunnel"], up[1]["tunnel"]);
    assert_eq!(post(pair.responder_admin, "/drain?node=edge").status, 200);
    let down = [&pair.responder, &pair.initiator].map(|eddy| event(eddy, "tunnel down"));
    assert_eq!(down[0]["tunnel"], up[0]["tunnel"]);
    assert_eq!(down[0]["peer_tunnel"], down[1]["tunnel"]);
    assert!(down.iter().all(|event| event["reason"].is_string()), "{down:?}");
}

#[test]
fn what_is_logged_changes_at_run_time() {
    let pair = Pair::start();
    let admin = pair.responder_admin;
    assert_eq!(get(admin, "/logging", &[]).body, "debug,h2=info\n");
    let refuse = || assert_eq!(get(pair.egress, "/nowhere", &[]).status, 404);
    let logged = |count: usize| {
        wait_for("the log", || {
            let found = pair.responder.log().matches("request refused").count();
            (found >= count).then_some(found)
        })
    };
    refuse();
    assert_eq!(logged(1), 1);
    let quiet = post(admin, "/logging?level=info");
    assert_eq!((quiet.status, quiet.body.as_str()), (200, "info\n"));
    refuse();
    assert_eq!(post(admin, "/logging?level=info,eddy_runtime=debug").status, 200);
    refuse();
    assert_eq!(logged(2), 2, "refusals are logged at debug level");

    let wrong = post(admin, "/logging?level=a=loud");
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.contains("MODULE=LEVEL"), "{}", wrong.body);
    assert_eq!(post(admin, "/logging").status, 400);
    assert_eq!(post(admin, "/logging?paths=x").status, 400);
    assert_eq!(get(admin, "/logging", &[]).body, "info,eddy_runtime=debug\n");
}

#[test]
fn trace_lines_have_the_events_and_actions_of_the_machines() {
    let pair = Pair::start();
    for admin in [pair.responder_admin, pair.initiator_admin] {
        let trace = post(admin, "/logging?level=info,eddy_runtime=trace");
        assert_eq!(trace.status, 200);
    }
    let logged = |eddy: &Eddy, wanted: &[&str]| {
        wait_for("trace lines", || {
            let log = eddy.log();
            let has = |words: &&str| {
                log.lines()
                    .any(|line| words.split(' ').all(|word| line.contains(word)))
            };
            wanted.iter().all(has).then_some(())
        });
    };
    logged(
        &pair.responder,
        &["action Ping", "event timer=\"ping\"", "event bytes=5"],
    );
    logged(&pair.initiator, &["action Echo", "event bytes=5"]);
}

#[test]
fn an_access_log_that_cannot_be_opened_is_named_with_its_key() {
    let yaml = "node: {id: a, cluster: b}\ntunnels: {listen: 127.0.0.1:0}\negress: {listen: 127.0.0.1:0, host_id: [x-node-id], \
                routes: [{prefix: /}]}\naccess_log: {file: /nowhere/at/all}\n";
    let mut eddy = Eddy::with_config("responder", yaml);
    assert_eq!(eddy.wait().code(), Some(1));
    let log = eddy.log();
    assert!(
        log.contains("access_log.file: cannot write to /nowhere/at/all: "),
        "{log}"
    );
}

/// What an initiator calls itself stays within its field.
#[test]
fn an_id_cannot_forge_fields_of_the_log() {
    let pair = Pair::start();
    let mut initiator = connect(pair.tunnels);
    let handshake = "GET /reverse_connections/request HTTP/1.1\r\nhost: h\r\n\
        x-envoy-reverse-tunnel-node-id: a b reason=\"x\"\r\nx-envoy-reverse-tunnel-cluster-id: edges\r\n\
        x-envoy-reverse-tunnel-tenant-id: acme\r\ncontent-length: 0\r\n\r\n";
    initiator.write_all(handshake.as_bytes()).unwrap();
    assert!(read_head(&mut initiator).unwrap().starts_with("HTTP/1.1 200"));
    drop(initiator);
    for message in ["tunnel up", "tunnel down"] {
        let line = wait_for(message, || {
            let log = pair.responder.log();
            log.lines()
                .find(|line| line.contains(message) && line.contains("a b"))
                .map(str::to_owned)
        });
        let node = r#" node="a b reason=\"x\"" cluster="edges" tenant="acme" "#;
        assert!(line.contains(node), "{line}");
    }
}

/// A responder whose two readers compete, as Envoy 1.39 without `auto_close_connections`: one of them answers the initiator's
/// frames as if they were HTTP/1.1.
#[test]
fn an_initiator_gives_advice_once_when_tunnels_break_right_after_their_upgrade() {
    let responder = Service::start(|mut stream| {
        let _ = read_head(&mut stream);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        pause(Duration::from_millis(50));
        let _ = stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0");
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        read_all(&mut stream);
    });
    let yaml = format!(
        "node: {{id: edge, cluster: edges}}\nworkers: 2\ntunnels: [\"rc://edge:edges:acme@hub:4\"]\n\
         clusters: {{hub: {{hosts: [\"127.0.0.1:{}\"]}}, service: {{hosts: [\"127.0.0.1:1\"]}}}}\n\
         routes: [{{prefix: /, cluster: service}}]\n",
        responder.port
    );
    let initiator = Eddy::with_config("initiator", &yaml);
    let advice = || initiator.log().matches("auto_close_connections: true").count();
    wait_for("the advice", || (advice() > 0).then_some(()));
    let served = responder.served();
    wait_for("more tunnels to break", || {
        (responder.served() >= served + 8).then_some(())
    });
    assert_eq!(advice(), 1, "{}", initiator.log());
}
