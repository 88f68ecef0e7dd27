//! HTTP/2 clients of the egress that abuse their connection: it may end, the tunnel and other clients go on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::h2::{Frame, PREFACE, code, kind};
use crate::kit::{Options, Pair, Service, beside, connect, pause, read_head, stats};

/// RFC 9113, section 6.10.
/// How often each abuse is repeated, where it is cheap to send.
const MANY: u32 = 10_000;

const GET: [(&str, &str); 5] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "x"),
    (":path", "/routed"),
    ("x-node-id", "edge"),
];
const POST: [(&str, &str); 5] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "x"),
    (":path", "/routed/swallow"),
    ("x-node-id", "edge"),
];

/// Good, but for those who are swallowed: nothing of their body is read.
fn service() -> Service {
    Service::start(|mut stream| {
        while let Some(head) = read_head(&mut stream) {
            if head.contains("/swallow") {
                pause(Duration::from_secs(30));
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood");
        }
    })
}

/// Lets a client do something, reading what comes so that nothing blocks. Then the only tunnel must be the one from before.
fn abuse(name: &str, act: impl FnOnce(&mut TcpStream) -> std::io::Result<()>) {
    let service = service();
    let pair = Pair::with(Options {
        service_port: Some(service.port),
        ..Options::default()
    });
    let mut stream = connect(pair.egress);
    stream.write_all(PREFACE).unwrap();
    Frame::settings(&[]).write(&mut stream);
    let mut reader = stream.try_clone().unwrap();
    let reading = beside(move || {
        let mut scratch = [0; 65536];
        while matches!(reader.read(&mut scratch), Ok(1..)) {}
    });
    // The end of the connection is one of the good outcomes.
    let _ = act(&mut stream);
    pair.assert_good();
    let _ = stream.shutdown(std::net::Shutdown::Both);
    reading.join().unwrap();
    pair.assert_good();
    let stats = stats(pair.responder_admin);
    assert_eq!(
        stats["reverse_tunnel.opened"],
        1,
        "{name}: {}",
        pair.responder.log()
    );
    let closed = stats
        .iter()
        .filter(|(stat, _)| stat.contains("reverse_tunnel.closed."));
    assert_eq!(closed.map(|(_, count)| count).sum::<i64>(), 0, "{name}");
}

fn send(stream: &mut TcpStream, frames: &[Frame]) -> std::io::Result<()> {
    let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
    stream.write_all(&bytes)
}

#[test]
fn rapid_reset() {
    abuse("rapid reset", |stream| {
        for n in 0..MANY {
            let id = 2 * n + 1;
            send(
                stream,
                &[Frame::headers(id, true, &GET), Frame::reset(id, code::CANCEL)],
            )?;
        }
        Ok(())
    });
}

/// CVE-2025-8671: the server is made to reset streams.
#[test]
fn made_you_reset() {
    abuse("made you reset", |stream| {
        for n in 0..2_000 {
            let id = 2 * n + 1;
            let nothing = Frame::new(kind::WINDOW_UPDATE, 0, id, &0_u32.to_be_bytes());
            send(stream, &[Frame::headers(id, false, &GET), nothing])?;
        }
        Ok(())
    });
}

#[test]
fn continuation_flood() {
    abuse("continuation flood", |stream| {
        let mut head = Frame::headers(1, true, &GET);
        head.flags = 1;
        send(stream, &[head])?;
        let piece = Frame::new(
            kind::CONTINUATION,
            0,
            1,
            &[b"\0\x01a\x7f\x81\x07".to_vec(), vec![b'v'; 1_024]].concat(),
        );
        for _ in 0..MANY {
            send(stream, std::slice::from_ref(&piece))?;
        }
        Ok(())
    });
}

#[test]
fn empty_data() {
    abuse("empty data", |stream| {
        send(stream, &[Frame::headers(1, false, &POST)])?;
        for _ in 0..MANY {
            send(stream, &[Frame::data(1, false, b"")])?;
        }
        Ok(())
    });
}

#[test]
fn settings_and_ping_floods() {
    abuse("settings and pings", |stream| {
        for n in 0..MANY {
            send(
                stream,
                &[
                    Frame::settings(&[]),
                    Frame::new(kind::PING, 0, 0, &u64::from(n).to_be_bytes()),
                ],
            )?;
        }
        Ok(())
    });
}

/// Each byte is a frame of its own, on its way to a service that does not read.
#[test]
fn bytes_one_by_one() {
    abuse("bytes one by one", |stream| {
        for n in 0..4_u32 {
            let id = 2 * n + 1;
            send(stream, &[Frame::headers(id, false, &POST)])?;
            let some: Vec<Frame> = (0..1_000).map(|_| Frame::data(id, false, b"x")).collect();
            for _ in 0..130 {
                send(stream, &some)?;
            }
        }
        pause(Duration::from_secs(2));
        Ok(())
    });
}
