//! A responder made by hand that sends something other than pings into an idle tunnel.

use std::io::{Read, Write};

use crate::h2::{Frame, PREFACE, kind};
use crate::kit::{read_all, read_head, stats, wait_for};
use crate::raw_responder::Between;

#[test]
fn junk_instead_of_a_ping_ends_that_tunnel_alone() {
    for junk in [
        &b"\0\0\x18\x04\0\0\0\0\0"[..],
        b"rping",
        b"RPIN\0",
        b"RPINGPRI * HTTP/2.1",
    ] {
        let between = Between::start();
        let mut stream = between.tunnel();
        stream.write_all(junk).unwrap();
        // Closed without a word: no echo, and nothing of HTTP.
        assert_eq!(read_all(&mut stream), b"", "{junk:?}");
        let closed = wait_for("the close", || {
            let stats = stats(between.admin);
            (stats["reverse_tunnel.closed.unexpected_bytes"] > 0).then_some(stats)
        });
        assert_eq!(closed["reverse_tunnel.closed.unexpected_bytes"], 1);
        wait_for("the line in the log", || {
            between.initiator.log().contains("unexpected_bytes").then_some(())
        });
        between.assert_others_are_served();
    }
}

#[test]
fn a_preface_in_pieces_begins_http_2() {
    let between = Between::start();
    let mut stream = between.tunnel();
    for piece in PREFACE.chunks(7) {
        stream.write_all(piece).unwrap();
        crate::kit::pause(std::time::Duration::from_millis(20));
    }
    Frame::settings(&[]).write(&mut stream);
    let first = Frame::read(&mut stream).unwrap();
    assert!(first.is(kind::SETTINGS), "{first:?}");
    between.assert_others_are_served();
}

/// As an Envoy responder does whose cluster has `http_protocol_options`.
#[test]
fn requests_of_http_1_are_answered() {
    let between = Between::start();
    let mut stream = between.tunnel();
    for _ in 0..2 {
        for piece in ["GE", "T /routed HTTP/1.1\r\nhost: x\r\n\r\n"] {
            stream.write_all(piece.as_bytes()).unwrap();
            crate::kit::pause(std::time::Duration::from_millis(20));
        }
        let head = read_head(&mut stream).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        let mut body = [0; 4];
        stream.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"good");
    }
    between.assert_others_are_served();
}
