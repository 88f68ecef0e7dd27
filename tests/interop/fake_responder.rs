//! A responder made by hand against Eddy's initiator: what a real one would do rarely.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use crate::kit::{Eddy, free_port, monotonic, pause, read_head, stats, wait_for};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
/// The preface, an empty SETTINGS, and nothing else.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

struct Fake {
    listener: TcpListener,
    admin: u16,
    _initiator: Eddy,
}

impl Fake {
    fn start(more: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (port, admin) = (listener.local_addr().unwrap().port(), free_port());
        let initiator = Eddy::with_config(
            "initiator",
            &format!(
                "node: {{id: edge, cluster: edges}}\nworkers: 1\nadmin: {{listen: 127.0.0.1:{admin}}}\n\
                 stats: {{prefix: i, detailed: true}}\ntunnels: [\"rc://edge:edges:acme@hub:1\"]\n\
                 clusters: {{hub: {{hosts: [\"127.0.0.1:{port}\"]}}}}\nroutes: []\n{more}"
            ),
        );
        Self {
            listener,
            admin,
            _initiator: initiator,
        }
    }

    /// The next handshake, not yet answered.
    fn accept(&self) -> TcpStream {
        let mut stream = wait_for("a dial", || self.listener.accept().ok()).0;
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_nodelay(true).unwrap();
        let head = read_head(&mut stream).unwrap();
        assert!(
            head.starts_with("GET /reverse_connections/request HTTP/1.1\r\n"),
            "{head}"
        );
        stream
    }

    fn tunnel(&self) -> TcpStream {
        let mut stream = self.accept();
        stream.write_all(ANSWER).unwrap();
        stream
    }
}

fn expect_echoes(stream: &mut TcpStream, count: usize) {
    let mut echoes = vec![0; 5 * count];
    stream.read_exact(&mut echoes).unwrap();
    assert_eq!(echoes, b"RPING".repeat(count));
}

fn expect_silence(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut byte = [0];
    assert!(stream.read(&mut byte).is_err(), "{byte:?} came, or the end");
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
}

fn expect_settings(stream: &mut TcpStream) {
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!(frame[3], 0x04, "{frame:?}");
}

#[test]
fn pings_glued_split_and_doubled_are_echoed() {
    let fake = Fake::start("");
    let mut stream = fake.accept();
    stream.write_all(&[ANSWER, b"RPING"].concat()).unwrap();
    expect_echoes(&mut stream, 1);
    for byte in b"RPING" {
        stream.write_all(&[*byte]).unwrap();
        pause(Duration::from_millis(10));
    }
    expect_echoes(&mut stream, 1);
    stream.write_all(b"RPINGRPINGRP").unwrap();
    expect_echoes(&mut stream, 2);
    stream.write_all(b"ING").unwrap();
    expect_echoes(&mut stream, 1);
}

#[test]
fn nothing_is_sent_before_the_preface_is_complete() {
    let fake = Fake::start("");
    let mut stream = fake.tunnel();
    expect_silence(&mut stream);
    stream.write_all(&PREFACE[..10]).unwrap();
    expect_silence(&mut stream);
    stream.write_all(&PREFACE[10..]).unwrap();
    expect_settings(&mut stream);
}

#[test]
fn a_ping_glued_to_the_preface_is_not_echoed() {
    let fake = Fake::start("");
    let mut stream = fake.tunnel();
    stream.write_all(&[b"RPING", PREFACE].concat()).unwrap();
    expect_settings(&mut stream);
}

#[test]
fn the_preface_may_come_with_the_answer() {
    let fake = Fake::start("");
    let mut stream = fake.accept();
    stream.write_all(&[ANSWER, PREFACE].concat()).unwrap();
    expect_settings(&mut stream);
}

#[test]
fn a_responder_that_falls_silent_is_left_and_dialed_again() {
    let fake = Fake::start("liveness: {first_ping: 300ms}\n");
    let silent = fake.tunnel();
    let began = monotonic();
    let _again = fake.tunnel();
    assert!((250..2_000).contains(&(monotonic() - began).as_millis()));
    wait_for("the reason", || {
        (stats(fake.admin).get("reverse_tunnel.closed.silent") == Some(&1)).then_some(())
    });
    drop(silent);
}

/// What is known of a responder's interval is no longer true when another one has taken its place.
#[test]
fn a_responder_that_pings_more_rarely_than_the_one_before_keeps_its_tunnel() {
    let fake = Fake::start("");
    let mut often = fake.tunnel();
    for _ in 0..3 {
        pause(Duration::from_millis(100));
        often.write_all(b"RPING").unwrap();
        expect_echoes(&mut often, 1);
    }
    drop(often);
    let _given_up = fake.tunnel();
    let mut rarely = fake.tunnel();
    pause(Duration::from_secs(4));
    rarely.write_all(b"RPING").unwrap();
    expect_echoes(&mut rarely, 1);
}

#[test]
fn a_responder_that_falls_silent_in_the_middle_of_its_preface_is_left() {
    let fake = Fake::start("liveness: {first_ping: 300ms}\n");
    let mut stuck = fake.tunnel();
    stuck.write_all(&PREFACE[..10]).unwrap();
    let _again = fake.tunnel();
    wait_for("the reason", || {
        (stats(fake.admin).get("reverse_tunnel.closed.silent") == Some(&1)).then_some(())
    });
}

#[test]
fn a_responder_that_never_answers_times_out_and_is_dialed_again() {
    let fake = Fake::start("dial: {timeout: 300ms}\n");
    let unanswered = fake.accept();
    let _again = fake.tunnel();
    let counter = "i.handshake.worker.worker_0.cluster.hub.result.failed.failure_reason.timeout";
    assert_eq!(stats(fake.admin).get(counter), Some(&1));
    drop(unanswered);
}

#[test]
fn a_lost_tunnel_is_dialed_again_at_once() {
    let fake = Fake::start("");
    drop(fake.tunnel());
    let began = monotonic();
    let _again = fake.accept();
    assert!((monotonic() - began).as_millis() < 300, "no maintenance tick");
}

#[test]
fn a_goaway_is_answered_with_a_new_dial_before_the_old_tunnel_ends() {
    let fake = Fake::start("");
    let mut leaving = fake.tunnel();
    leaving.write_all(PREFACE).unwrap();
    expect_settings(&mut leaving);
    let goaway = b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0";
    leaving.write_all(goaway).unwrap();
    let mut replacement = fake.tunnel();
    // The old one is still there, and ends when the responder ends it.
    leaving.shutdown(std::net::Shutdown::Write).unwrap();
    crate::kit::read_all(&mut leaving);
    wait_for("the reason", || {
        (stats(fake.admin).get("reverse_tunnel.closed.go_away") == Some(&1)).then_some(())
    });
    replacement.write_all(b"RPING").unwrap();
    expect_echoes(&mut replacement, 1);
}

#[test]
fn a_429_says_when_to_come_back() {
    let fake = Fake::start("");
    let mut turned_away = fake.accept();
    turned_away
        .write_all(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\n\r\n")
        .unwrap();
    drop(turned_away);
    let began = monotonic();
    let _again = fake.accept();
    let waited = (monotonic() - began).as_millis();
    assert!((950..1_500).contains(&waited), "{waited} ms");
}

#[test]
fn every_status_but_200_is_a_no() {
    let fake = Fake::start("dial: {first_retry: 20ms, silent_max: 100ms, refused_max: 100ms}\n");
    for status in [
        "201 Created",
        "204 No Content",
        "301 Moved",
        "403 Forbidden",
        "500 Oops",
        "101 Switching",
    ] {
        let mut stream = fake.accept();
        stream
            .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())
            .unwrap();
        assert_eq!(
            stream.read(&mut [0]).unwrap_or(0),
            0,
            "{status}: the initiator hangs up"
        );
    }
    let mut stream = fake.tunnel();
    stream.write_all(b"RPING").unwrap();
    expect_echoes(&mut stream, 1);
}

/// The number of failed dials for one reason.
fn failures(fake: &Fake, reason: &str) -> i64 {
    let counter = format!("i.handshake.worker.worker_0.cluster.hub.result.failed.failure_reason.{reason}");
    stats(fake.admin).get(&counter).copied().unwrap_or(0)
}

#[test]
fn an_answer_that_is_none_is_counted_once_and_dialed_past() {
    let fake = Fake::start("dial: {first_retry: 20ms, silent_max: 50ms, refused_max: 50ms}\n");
    let mut endless = b"HTTP/1.1 200 OK\r\nx-long: ".to_vec();
    endless.resize(1 << 20, b'a');
    for (times, bad) in (1..).zip([
        &b"\x16\x03\x01\x02\x00 no HTTP\r\n\r\n"[..],
        &endless,
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ]) {
        let mut stream = fake.accept();
        // The initiator may hang up before it has heard everything.
        let _ = stream.write_all(bad);
        wait_for("the failure", || {
            (failures(&fake, "protocol") == times).then_some(())
        });
    }
    let mut stream = fake.tunnel();
    stream.write_all(b"RPING").unwrap();
    expect_echoes(&mut stream, 1);
}

#[test]
fn an_early_close_at_each_byte_of_the_answer_is_dialed_past() {
    let fake = Fake::start("dial: {first_retry: 10ms, silent_max: 10ms, refused_max: 10ms}\n");
    for end in 0..ANSWER.len() {
        let mut stream = fake.accept();
        stream.write_all(&ANSWER[..end]).unwrap();
    }
    let mut stream = fake.tunnel();
    let length = i64::try_from(ANSWER.len()).unwrap();
    assert_eq!(failures(&fake, "refused"), length, "each counted once");
    stream.write_all(b"RPING").unwrap();
    expect_echoes(&mut stream, 1);
}
