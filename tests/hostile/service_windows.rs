//! Flow control between the initiator and a service that speaks HTTP/2: all requests share one connection, so a client that
//! does not read its response must not use up the window of the others.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::h2::{Frame, INITIAL_WINDOW_SIZE, PREFACE, flag, kind};
use crate::kit::{Options, Pair, Service, beside, connect, get, monotonic, stats, wait_for};
use crate::raw_initiator::{await_preface, good};

/// Clients that read nothing. Each keeps a stream's window (128 KiB) of the connection to the service in use: 12.5 MiB together.
const STALLED: usize = 100;
/// The initial windows of RFC 9113, section 6.9.2.
const DEFAULT_WINDOW: i64 = 65_535;
/// The largest DATA frame that every peer accepts.
const PIECE: i64 = 16 << 10;
/// The limit for a response of four bytes that needs no window of another stream.
const AT_ONCE: Duration = Duration::from_secs(2);

/// An HTTP/2 connection of a service: the first [`STALLED`] responses are endless, the others have four bytes. It sends
/// exactly what the windows of its peer permit.
struct Connection {
    stream: TcpStream,
    /// The number of endless responses whose window is used up, for the test to read.
    blocked: Arc<AtomicUsize>,
    initial_window: i64,
    connection_window: i64,
    /// The endless responses: stream and window.
    endless: BTreeMap<u32, i64>,
    /// Responses of four bytes that wait for a window.
    short: Vec<u32>,
    requests: usize,
}

impl Connection {
    fn serve(mut stream: TcpStream, blocked: Arc<AtomicUsize>) {
        await_preface(&mut stream);
        Frame::settings(&[]).write(&mut stream);
        let mut connection = Self {
            stream,
            blocked,
            initial_window: DEFAULT_WINDOW,
            connection_window: DEFAULT_WINDOW,
            endless: BTreeMap::new(),
            short: Vec::new(),
            requests: 0,
        };
        while let Some(frame) = Frame::read(&mut connection.stream) {
            connection.on_frame(&frame);
            connection.send();
        }
    }

    fn on_frame(&mut self, frame: &Frame) {
        match frame.kind {
            kind::SETTINGS if frame.flags & flag::ACK == 0 => {
                for setting in frame.payload.chunks(6) {
                    if setting[..2] == INITIAL_WINDOW_SIZE.to_be_bytes() {
                        self.initial_window = i64::from(u32::from_be_bytes(setting[2..].try_into().unwrap()));
                    }
                }
                Frame::new(kind::SETTINGS, flag::ACK, 0, b"").write(&mut self.stream);
            }
            kind::PING if frame.flags & flag::ACK == 0 => {
                Frame::new(kind::PING, flag::ACK, 0, &frame.payload).write(&mut self.stream);
            }
            kind::WINDOW_UPDATE => {
                let increment = i64::from(u32::from_be_bytes(frame.payload[..4].try_into().unwrap()));
                if frame.stream == 0 {
                    self.connection_window += increment;
                } else if let Some(window) = self.endless.get_mut(&frame.stream) {
                    *window += increment;
                }
            }
            kind::RST_STREAM => {
                self.endless.remove(&frame.stream);
            }
            kind::HEADERS => {
                self.requests += 1;
                if self.requests <= STALLED {
                    Frame::headers(frame.stream, false, &[(":status", "200")]).write(&mut self.stream);
                    self.endless.insert(frame.stream, self.initial_window);
                } else {
                    self.short.push(frame.stream);
                }
            }
            _ => {}
        }
    }

    /// Sends what the windows permit.
    fn send(&mut self) {
        for (stream, window) in &mut self.endless {
            while *window > 0 && self.connection_window > 0 {
                let bytes = PIECE.min(*window).min(self.connection_window);
                *window -= bytes;
                self.connection_window -= bytes;
                let piece = vec![b'e'; usize::try_from(bytes).unwrap()];
                Frame::data(*stream, false, &piece).write(&mut self.stream);
            }
        }
        while self.connection_window >= 4
            && let Some(stream) = self.short.pop()
        {
            self.connection_window -= 4;
            for frame in good(stream) {
                frame.write(&mut self.stream);
            }
        }
        let is_blocked = |window: &&i64| self.connection_window == 0 || **window == 0;
        let blocked = self.endless.values().filter(is_blocked).count();
        self.blocked.store(blocked, Ordering::SeqCst);
    }
}

/// One HTTP/2 client of the egress that permits no byte of any response, so that no socket buffer between the two ends hides
/// what is not read.
fn stall(pair: &Pair) -> TcpStream {
    let mut stream = connect(pair.egress);
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "x"),
        (":path", "/routed"),
        ("x-node-id", "edge"),
    ];
    stream.write_all(PREFACE).unwrap();
    Frame::settings(&[(INITIAL_WINDOW_SIZE, 0)]).write(&mut stream);
    for n in 0..u32::try_from(STALLED).unwrap() {
        Frame::headers(2 * n + 1, true, &fields).write(&mut stream);
    }
    let mut reader = stream.try_clone().unwrap();
    beside(move || while reader.read(&mut [0; 65536]).is_ok_and(|n| n > 0) {});
    stream
}

#[test]
fn stalled_readers_leave_the_window_to_others() {
    let blocked = Arc::new(AtomicUsize::new(0));
    let observed = Arc::clone(&blocked);
    let service = Service::start(move |stream| Connection::serve(stream, Arc::clone(&observed)));
    let pair = Pair::with(Options {
        service_port: Some(service.port),
        protocol: "h2",
        ..Options::default()
    });
    let stalled = stall(&pair);
    wait_for("all endless responses to use up a window", || {
        (blocked.load(Ordering::SeqCst) == STALLED).then_some(())
    });
    let began = monotonic();
    let response = get(pair.egress, "/routed", &[("x-node-id", "edge")]);
    let took = monotonic() - began;
    assert_eq!((response.status, response.body.as_str()), (200, "good"));
    assert!(took < AT_ONCE, "{took:?} beside {STALLED} stalled readers");
    assert_eq!(
        service.served(),
        1,
        "all requests share one connection to the service"
    );
    assert_eq!(stats(pair.responder_admin)["reverse_tunnel.opened"], 1);
    pair.assert_good();
    drop(stalled);
}
