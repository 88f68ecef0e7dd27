//! Storms of streams that stall: memory stays bounded while they last, and is given back when they are over.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::floods::Floods;
use crate::h2::{Frame, INITIAL_WINDOW_SIZE, PREFACE, kind};
use crate::kit::{Eddy, Options, Pair, Service, connect, get, monotonic, pause, read_head, stats};
use crate::slow_clients::slow_client;

/// How many streams stall at once.
const STALLED: usize = 900;
/// The most that a process may have resident while they do, and ten seconds after they have gone, in KiB (issue of the
/// storm: 256 MB and 40 MB).
const PEAK_KIB: u64 = 256_000;
const AFTER_KIB: u64 = 40_000;
/// The length of a response: more than the kernel takes for a client that reads nothing.
const FLOOD_BYTES: usize = 64 << 20;

/// Sends without end and reads nothing, or reads nothing and never responds; good to everybody else.
fn service() -> Service {
    let floods = Floods::start();
    Service::start(move |mut stream| {
        while let Some(head) = read_head(&mut stream) {
            if head.contains("/flood") {
                return floods.respond(stream, FLOOD_BYTES);
            }
            if head.contains("/swallow") {
                pause(Duration::from_secs(60));
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood");
        }
    })
}

fn pair(service: &Service) -> Pair {
    limited(service, "")
}

/// A pair whose responder has these keys, too.
fn limited(service: &Service, responder: &str) -> Pair {
    Pair::with(Options {
        responder,
        service_port: Some(service.port),
        egress_timeout: "60s",
        service_timeout: "60s",
        // One tunnel's places are for more clients than this one.
        count: 2,
        ..Options::default()
    })
}

/// What both processes have resident, in KiB.
fn resident(pair: &Pair) -> [u64; 2] {
    [&pair.responder, &pair.initiator].map(Eddy::memory_kib)
}

/// One storm at a time: each measures processes that need the machine for themselves.
pub(crate) static STORM: Mutex<()> = Mutex::new(());

/// Waits until neither process has grown for two seconds: every buffer is full.
fn until_full(pair: &Pair) {
    let (mut most, mut grown) = (resident(pair), monotonic());
    let end = grown + Duration::from_secs(20);
    while monotonic() < end.min(grown + Duration::from_secs(2)) {
        pause(Duration::from_millis(100));
        let now = resident(pair);
        if (0..2).any(|side| now[side] > most[side] + most[side] / 50) {
            (most, grown) = (now, monotonic());
        }
    }
}

fn storm(name: &str, pair: &Pair, stall: impl FnOnce() -> Vec<TcpStream>) {
    let _alone = STORM.lock().unwrap_or_else(PoisonError::into_inner);
    let before = resident(pair);
    let stalled = stall();
    until_full(pair);
    pair.assert_good();
    let during = resident(pair);
    let peak = [&pair.responder, &pair.initiator].map(Eddy::peak_memory_kib);
    for stream in &stalled {
        let _ = stream.shutdown(Shutdown::Write);
    }
    drop(stalled);
    let end = monotonic() + Duration::from_secs(10);
    while monotonic() < end && resident(pair).iter().any(|kib| *kib >= AFTER_KIB) {
        pause(Duration::from_millis(50));
    }
    let after = resident(pair);
    eprintln!("{name}: responder and initiator, KiB: {before:?}, {during:?} (peak {peak:?}), {after:?}");
    assert!(peak.iter().all(|kib| *kib < PEAK_KIB), "{name}: {peak:?}");
    assert!(after.iter().all(|kib| *kib < AFTER_KIB), "{name}: {after:?}");
    pair.assert_good();
}

/// Writes until nothing more is taken.
fn fill(stream: &mut TcpStream) {
    stream.set_nonblocking(true).unwrap();
    let piece = [b'u'; 65536];
    while stream.write(&piece).is_ok() {}
}

#[test]
fn stalled_uploads_give_their_memory_back() {
    let service = service();
    let pair = pair(&service);
    storm("900 stalled uploads", &pair, || {
        let mut all: Vec<_> = (0..STALLED)
            .map(|_| {
                let mut stream = connect(pair.egress);
                let head = "POST /routed/swallow HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\n\
                            expect: 100-continue\r\ncontent-length: 90000000\r\n\r\n";
                // It never reads the 100, so that the end of its connection is a reset. The end of one that has sent more
                // than is read cannot be noticed otherwise: it stands behind the bytes.
                stream.write_all(head.as_bytes()).unwrap();
                stream
            })
            .collect();
        for _ in 0..3 {
            all.iter_mut().for_each(fill);
            pause(Duration::from_millis(200));
        }
        all
    });
}

/// A client that asks for much and reads nothing.
fn stalled_reader(pair: &Pair) -> TcpStream {
    let head = "GET /routed/flood HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\n\r\n";
    slow_client(pair, head)
}

#[test]
fn stalled_readers_give_their_memory_back() {
    let service = service();
    let pair = pair(&service);
    storm("900 stalled readers", &pair, || {
        (0..STALLED).map(|_| stalled_reader(&pair)).collect()
    });
}

/// One HTTP/2 client that allows no byte of any response.
#[test]
fn a_client_without_a_window_gives_its_memory_back() {
    let service = service();
    let pair = pair(&service);
    storm("1 client, 1000 streams, no window", &pair, || {
        let mut stream = connect(pair.egress);
        stream.write_all(PREFACE).unwrap();
        Frame::settings(&[(INITIAL_WINDOW_SIZE, 0)]).write(&mut stream);
        loop {
            let frame = Frame::read(&mut stream).unwrap();
            if frame.is(kind::SETTINGS) && frame.flags == 0 {
                break;
            }
        }
        Frame::new(kind::SETTINGS, 1, 0, b"").write(&mut stream);
        for at in 0..1_000 {
            let fields = [
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "x"),
                (":path", "/routed/flood"),
                ("x-node-id", "edge"),
            ];
            Frame::headers(2 * at + 1, true, &fields).write(&mut stream);
        }
        let mut reader = stream.try_clone().unwrap();
        crate::kit::beside(move || while reader.read(&mut [0; 65536]).is_ok_and(|n| n > 0) {});
        vec![stream]
    });
}

/// The responder may have 64 MiB: readers that stall are ended until it has less, and requests are answered again.
#[test]
fn readers_that_stall_are_ended_at_the_memory_limit() {
    let _alone = STORM.lock().unwrap_or_else(PoisonError::into_inner);
    let service = service();
    let pair = limited(&service, "memory: {limit: 64MiB}\n");
    let stalled: Vec<_> = (0..STALLED).map(|_| stalled_reader(&pair)).collect();
    let reason = || {
        let answer = get(pair.egress, "/routed", &[("x-node-id", "edge")]);
        (answer.status, answer.header("x-eddy-reason").map(str::to_owned))
    };
    // Requests are refused at once, and readers are ended once they have stalled: the kernels take data for a while.
    let end = monotonic() + Duration::from_secs(30);
    let mut refused = 0;
    loop {
        pause(Duration::from_millis(100));
        match reason() {
            (503, Some(why)) if why == "memory_limit" => refused += 1,
            (200, None) if refused > 0 => break,
            (200, None) => {}
            other => panic!("{other:?}"),
        }
        assert!(monotonic() < end, "{refused} refused\n{}", pair.responder.log());
    }
    let numbers = stats(pair.responder_admin);
    let ended = numbers["egress.truncated"];
    eprintln!(
        "{ended} of {STALLED} ended, {refused} refused, peak {} KiB, then {} KiB",
        pair.responder.peak_memory_kib(),
        pair.responder.memory_kib()
    );
    assert!((1..900).contains(&ended), "{ended} ended");
    assert!(pair.responder.log().contains("clients ended that do not read"));
    drop(stalled);
    pair.assert_good();
}
