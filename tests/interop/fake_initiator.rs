//! An initiator made by hand against Eddy's responder: what a real one would do rarely.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::kit::{Options, Pair, beside, connect, get, pause, read_all, stats, wait_for};

const REQUEST: &str = "GET /reverse_connections/request HTTP/1.1\r\nhost: x\r\n\
    x-envoy-reverse-tunnel-node-id: fake\r\nx-envoy-reverse-tunnel-cluster-id: fakes\r\n\
    x-envoy-reverse-tunnel-tenant-id: acme\r\ncontent-length: 0\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A responder that pings each second, with a tunnel of ours.
fn tunnel(tunnels: &str) -> (Pair, TcpStream) {
    let pair = Pair::with(Options {
        tunnels: &format!("  ping_interval: 1s\n{tunnels}"),
        ..Options::default()
    });
    let mut stream = connect(pair.tunnels);
    stream.write_all(REQUEST.as_bytes()).unwrap();
    let mut answer = [0; 38];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, ANSWER);
    wait_for("the tunnel", || {
        (stats(pair.responder_admin).get("r.nodes.fake") == Some(&1)).then_some(())
    });
    (pair, stream)
}

fn ping(stream: &mut TcpStream) {
    let mut ping = [0; 5];
    stream.read_exact(&mut ping).unwrap();
    assert_eq!(&ping, b"RPING");
}

/// What comes within a time.
fn within(stream: &mut TcpStream, time: Duration) -> Vec<u8> {
    stream.set_read_timeout(Some(time)).unwrap();
    let mut buffer = [0; 4096];
    let n = stream.read(&mut buffer).unwrap_or(0);
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    buffer[..n].to_vec()
}

#[test]
fn a_split_echo_a_doubled_echo_and_a_late_echo_keep_the_tunnel() {
    let (pair, mut stream) = tunnel("");
    ping(&mut stream);
    stream.write_all(b"RP").unwrap();
    pause(Duration::from_millis(50));
    stream.write_all(b"ING").unwrap();
    ping(&mut stream);
    stream.write_all(b"RPINGRPING").unwrap();
    ping(&mut stream);
    pause(Duration::from_millis(900));
    stream.write_all(b"RPING").unwrap();
    ping(&mut stream);
    let stats = stats(pair.responder_admin);
    assert_eq!(stats.get("r.nodes.fake"), Some(&1));
    assert!(
        stats["reverse_tunnel.ping.missed"] >= 1,
        "the late one was missed for a while"
    );
}

#[test]
fn a_peer_that_never_echoes_is_pinged_once_and_dead_in_time() {
    let (pair, mut stream) = tunnel("");
    ping(&mut stream);
    let began = crate::kit::monotonic();
    assert_eq!(read_all(&mut stream), b"", "no second ping while one is owed");
    let took = crate::kit::monotonic() - began;
    assert!(
        (1_400..2_200).contains(&took.as_millis()),
        "{took:?}: three half intervals"
    );
    wait_for("the reason", || {
        (stats(pair.responder_admin).get("reverse_tunnel.closed.ping_timeout") == Some(&1)).then_some(())
    });
}

#[test]
fn a_request_waits_for_the_echo_that_is_owed() {
    let (pair, mut stream) = tunnel("");
    ping(&mut stream);
    let egress = pair.egress;
    let request = beside(move || get(egress, "/routed", &[("x-node-id", "fake")]));
    assert_eq!(
        within(&mut stream, Duration::from_millis(300)),
        b"",
        "the preface does not overtake the echo"
    );
    stream.write_all(b"RPING").unwrap();
    let first = within(&mut stream, Duration::from_secs(2));
    assert!(
        first.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        "{first:?}"
    );
    drop(stream);
    let answer = request.join().unwrap();
    assert_eq!(
        (answer.status, answer.header("x-eddy-reason")),
        (503, Some("tunnel_lost"))
    );
}

#[test]
fn an_initiator_that_breaks_http2_costs_its_client_a_502() {
    let (pair, mut stream) = tunnel("");
    let egress = pair.egress;
    let request = beside(move || get(egress, "/routed", &[("x-node-id", "fake")]));
    let preface = within(&mut stream, Duration::from_secs(2));
    assert!(preface.starts_with(b"PRI"), "{preface:?}");
    // A DATA frame for a stream that nobody opened.
    stream.write_all(b"\0\0\x01\0\0\0\0\0\x63x").unwrap();
    let answer = request.join().unwrap();
    assert_eq!(
        (answer.status, answer.header("x-eddy-reason")),
        (502, Some("tunnel_protocol"))
    );
    pair.assert_good();
}

#[test]
fn the_upgrade_mode_answers_101() {
    let pair = Pair::with(Options {
        tunnels: "  http_upgrade: true\n",
        initiator: "dial: {http_upgrade: true}\n",
        ..Options::default()
    });
    pair.assert_good();
    let answer = crate::kit::exchange(pair.tunnels, REQUEST.as_bytes());
    assert!(
        answer.starts_with(b"HTTP/1.1 426 Upgrade Required\r\n"),
        "{answer:?}"
    );
}
