//! The end that drains decides how long its drain lasts; the other end follows, and notices it at once.

use std::io::{Read, Write};
use std::time::Duration;

use crate::h2::{Frame, code};
use crate::kit::{Options, Pair, Service, beside, connect, get, pause, read_head, stats, wait_for};
use crate::raw_initiator;
use crate::raw_responder::Between;

/// Sends a byte each 100 ms, as server-sent events come, and ends after so many.
fn dripping(bytes: usize) -> Service {
    Service::start(move |mut stream| {
        while let Some(head) = read_head(&mut stream) {
            if !head.contains("/drip") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood");
                continue;
            }
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes());
            for _ in 0..bytes {
                pause(Duration::from_millis(100));
                if stream.write_all(b".").is_err() {
                    return;
                }
            }
        }
    })
}

/// A stream that runs for 4 s while its initiator drains for up to 20 s, and its responder's own drain would take 1 s.
#[test]
fn a_stream_outlives_the_responders_drain_timeout_when_the_initiator_drains() {
    let service = dripping(40);
    let mut pair = Pair::with(Options {
        responder: "drain_timeout: 1s\n",
        initiator: "drain_timeout: 20s\n",
        service_port: Some(service.port),
        ..Options::default()
    });
    let egress = pair.egress;
    let drip = beside(move || {
        let mut stream = connect(egress);
        stream
            .write_all(
                b"GET /routed/drip HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\nconnection: close\r\n\r\n",
            )
            .unwrap();
        let mut bytes = Vec::new();
        let ended = stream.read_to_end(&mut bytes);
        (
            ended.is_ok(),
            bytes.iter().rev().take_while(|byte| **byte == b'.').count(),
        )
    });
    wait_for("the stream", || {
        let stats = stats(pair.initiator_admin);
        (stats.get("service.responses.2xx") == Some(&1)).then_some(())
    });
    pair.initiator.signal("TERM");
    // No request is needed for the responder to notice.
    wait_for("the responder to notice the drain", || {
        let tunnels = get(pair.responder_admin, "/tunnels", &[]).body;
        tunnels.contains("\"draining\"").then_some(())
    });
    let explained = get(pair.responder_admin, "/explain?node=edge", &[]).body;
    assert!(explained.contains("no tunnel"), "{explained}");
    assert_eq!(drip.join().unwrap(), (true, 40));
    assert!(pair.initiator.wait().success());
    wait_for("the cause in the log", || {
        pair.responder.log().contains("reason=\"go_away\"").then_some(())
    });
}

/// A GOAWAY with an error code is not a drain: the connection has failed, and the tunnel ends at once.
#[test]
fn a_goaway_with_an_error_ends_the_tunnel_at_once() {
    let pair = Pair::with(Options {
        responder: "drain_timeout: 1h\n",
        ..Options::default()
    });
    let stream = raw_initiator::tunnel(&pair, "broken");
    let _serving = raw_initiator::serve(stream, vec![], |stream| {
        vec![Frame::goaway(stream, code::INTERNAL_ERROR)]
    });
    let answer = get(pair.egress, "/routed", &[("x-node-id", "broken")]);
    assert_eq!(answer.status, 503, "{}", answer.head);
    wait_for("the end of the tunnel", || {
        let log = pair.responder.log();
        let down = log.lines().find(|line| line.contains("tunnel down"))?;
        assert!(down.contains("reason=\"http_error\""), "{down}");
        Some(())
    });
    pair.assert_good();
}

#[test]
fn a_goaway_of_a_responder_with_an_error_ends_the_tunnel_and_the_initiator_redials() {
    let between = Between::start();
    let tunnel = between.http_2();
    tunnel
        .send(&Frame::goaway(0, code::INTERNAL_ERROR).encode())
        .unwrap();
    wait_for("the end of the tunnel", || {
        (stats(between.admin)["reverse_tunnel.closed.http_error"] == 1).then_some(())
    });
    between.tunnel();
    between.assert_others_are_served();
}
