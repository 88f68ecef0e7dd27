//! The rules of the wire, one test each, seen at the relay between Eddy and a real Envoy.
//!
//! One session per direction is recorded and looked at by all: three pings, some requests, and a rest.

use std::sync::OnceLock;
use std::time::Duration;

use crate::kit::{pause, wait_for};
use crate::relay::{Chunk, From};
use crate::world::{Eddys, Options, World};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn session(eddys: Eddys) -> &'static [Chunk] {
    static SESSIONS: [OnceLock<Vec<Chunk>>; 2] = [OnceLock::new(), OnceLock::new()];
    SESSIONS[usize::from(eddys == Eddys::Responder)].get_or_init(|| {
        let world = World::start(eddys);
        wait_for("three echoes", || {
            (world.relay.pings(From::Initiator) >= 3).then_some(())
        });
        (0..3).for_each(|_| world.assert_good());
        pause(Duration::from_millis(2_500));
        world.relay.chunks()
    })
}

/// Where the preface is among all chunks.
fn preface(chunks: &[Chunk]) -> usize {
    chunks
        .iter()
        .position(|c| c.from == From::Responder && c.bytes.starts_with(b"PRI"))
        .unwrap()
}

#[test]
fn initiator_1_the_request_has_the_nine_headers_and_eddy_s_own_no_body_and_nothing_behind_it() {
    let request = &session(Eddys::Initiator)[0];
    assert_eq!(request.from, From::Initiator);
    let request = String::from_utf8(request.bytes.clone()).unwrap();
    let lines: Vec<_> = request.split("\r\n").collect();
    assert_eq!(lines[0], "GET /reverse_connections/request HTTP/1.1");
    let names: Vec<_> = lines[1..11]
        .iter()
        .map(|line| line.split_once(": ").unwrap().0)
        .collect();
    let x = "x-envoy-reverse-tunnel-";
    assert_eq!(
        names,
        [
            "host".to_owned(),
            format!("{x}node-id"),
            format!("{x}cluster-id"),
            format!("{x}tenant-id"),
            format!("{x}upstream-cluster-name"),
            format!("{x}initiation-time"),
            format!("{x}worker-id"),
            format!("{x}connection-id"),
            "x-eddy-reverse-tunnel-instance".to_owned(),
            "content-length".to_owned(),
        ]
    );
    assert!(request.contains("tenant-id: acme\r\n"), "never an empty tenant");
    assert!(
        request.ends_with("content-length: 0\r\n\r\n"),
        "nothing behind the head"
    );
    assert_eq!(
        session(Eddys::Initiator)[1].from,
        From::Responder,
        "the answer comes next"
    );
}

#[test]
fn initiator_3_each_ping_is_echoed_once_alone_and_at_once() {
    let chunks = session(Eddys::Initiator);
    let idle = &chunks[2..preface(chunks)];
    assert!(idle.len() >= 6, "{idle:?}");
    for pair in idle.chunks(2) {
        assert_eq!(
            (pair[0].from, pair[0].bytes.as_slice()),
            (From::Responder, &b"RPING"[..])
        );
        assert_eq!(
            (pair[1].from, pair[1].bytes.as_slice()),
            (From::Initiator, &b"RPING"[..])
        );
        assert!(
            pair[1].at - pair[0].at < Duration::from_millis(400),
            "before half the interval"
        );
    }
}

#[test]
fn initiator_4_nothing_but_echoes_before_the_preface_and_settings_after_it() {
    let chunks = session(Eddys::Initiator);
    let at = preface(chunks);
    let early = chunks[1..at].iter().filter(|c| c.from == From::Initiator);
    assert!(early.into_iter().all(|c| c.bytes == b"RPING"));
    let first = chunks[at..].iter().find(|c| c.from == From::Initiator).unwrap();
    assert_eq!(
        first.bytes[3], 0x04,
        "SETTINGS is the first frame: {:?}",
        first.bytes
    );
    let later = chunks[at..].iter().filter(|c| c.from == From::Initiator);
    assert!(
        later.into_iter().all(|c| c.bytes != b"RPING"),
        "no echo behind the preface"
    );
}

#[test]
fn initiator_8_a_used_tunnel_is_checked_with_http2_pings_which_envoy_answers() {
    assert_pings(Eddys::Initiator, From::Initiator, From::Responder);
}

#[test]
fn responder_1_the_answer_is_alone_in_its_segment() {
    // That a gap follows, and how long it is, is measured where nothing else runs: `runtime/tests/settle.rs`.
    let world = World::begin(Eddys::Responder, Options::default());
    // Clients that wait for the node ask all the time, so that the first request comes as early as it can.
    world.await_good();
    let chunks = world.relay.chunks();
    let sent: Vec<_> = chunks
        .iter()
        .filter(|chunk| chunk.from == From::Responder)
        .collect();
    assert_eq!(sent[0].bytes, ANSWER, "38 bytes, alone");
    assert!(sent[1].bytes.starts_with(PREFACE));
}

#[test]
fn responder_2_pings_come_one_at_a_time_each_alone() {
    let chunks = session(Eddys::Responder);
    let idle = &chunks[2..preface(chunks)];
    assert!(idle.len() >= 6, "{idle:?}");
    for pair in idle.chunks(2) {
        assert_eq!(
            (pair[0].from, pair[0].bytes.as_slice()),
            (From::Responder, &b"RPING"[..])
        );
        assert_eq!(
            (pair[1].from, pair[1].bytes.as_slice()),
            (From::Initiator, &b"RPING"[..]),
            "one is outstanding"
        );
    }
}

#[test]
fn responder_3_preface_and_settings_share_a_segment_and_no_ping_follows() {
    let chunks = session(Eddys::Responder);
    let at = preface(chunks);
    let first = &chunks[at].bytes;
    assert!(first.starts_with(PREFACE));
    assert!(first.len() > PREFACE.len() + 9, "SETTINGS comes with it");
    assert_eq!(first[PREFACE.len() + 3], 0x04, "and is the first frame");
    assert!(
        chunks[at..].iter().all(|c| c.bytes != b"RPING"),
        "the idle phase is over for good"
    );
}

#[test]
fn responder_4_a_used_tunnel_is_checked_with_http2_pings_which_envoy_answers() {
    assert_pings(Eddys::Responder, From::Responder, From::Initiator);
}

/// Eddy sends PING frames on a tunnel that rests, and Envoy answers each.
fn assert_pings(eddys: Eddys, eddy: From, envoy: From) {
    let chunks = session(eddys);
    let frames = |by: From, ack: u8| {
        let pings = chunks.iter().filter(move |c| c.from == by && c.bytes.len() == 17);
        pings.filter(move |c| c.bytes[..5] == [0, 0, 8, 6, ack]).count()
    };
    assert!(frames(eddy, 0) >= 1, "Eddy asks");
    assert!(frames(envoy, 1) >= 1, "Envoy answers");
}
