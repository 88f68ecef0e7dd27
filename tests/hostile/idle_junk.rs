//! A responder made by hand that sends something other than pings into an idle tunnel.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::h2::{Frame, PREFACE, kind};
use crate::kit::{Eddy, Pair, free_port, get, read_all, read_head, stats, wait_for};

/// An initiator that holds two tunnels: one to the responder of the pair, one to a responder made by hand.
struct Between {
    pair: Pair,
    initiator: Eddy,
    admin: u16,
    listener: TcpListener,
}

impl Between {
    fn start() -> Self {
        let pair = Pair::start();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (raw, admin) = (listener.local_addr().unwrap().port(), free_port());
        let initiator = Eddy::with_config(
            "initiator",
            &format!(
                "node: {{id: other, cluster: edges}}\nworkers: 1\nadmin: {{listen: 127.0.0.1:{admin}}}\n\
                 tunnels: [\"rc://other:edges:acme@hub:1\"]\n\
                 clusters: {{hub: {{hosts: [\"127.0.0.1:{}\", \"127.0.0.1:{raw}\"]}}, \
                 service: {{hosts: [\"127.0.0.1:{}\"]}}}}\nroutes: [{{prefix: /routed, cluster: service}}]\n",
                pair.tunnels, pair.service.port
            ),
        );
        let between = Self {
            pair,
            initiator,
            admin,
            listener,
        };
        between.assert_others_are_served();
        between
    }

    /// The tunnel to the responder made by hand, after one ping and its echo.
    fn tunnel(&self) -> TcpStream {
        let (mut stream, _) = self.listener.accept().unwrap();
        stream.set_read_timeout(Some(crate::kit::PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        read_head(&mut stream).unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .unwrap();
        wait_for("both tunnels", || {
            (stats(self.admin).get("reverse_tunnel.open") == Some(&2)).then_some(())
        });
        stream.write_all(b"RPING").unwrap();
        let mut echo = [0; 5];
        stream.read_exact(&mut echo).unwrap();
        assert_eq!(&echo, b"RPING");
        stream
    }

    /// A client of the pair reaches this initiator.
    fn assert_others_are_served(&self) {
        wait_for("the other node", || {
            let answer = get(self.pair.egress, "/routed", &[("x-node-id", "other")]);
            (answer.status == 200).then_some(())
        });
        self.pair.assert_good();
    }
}

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
