//! An initiator made by hand: it holds a tunnel and answers requests frame by frame.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use crate::h2::{Frame, PREFACE, flag, kind};
use crate::kit::{Pair, beside, connect, stats, wait_for};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// A tunnel under a node id of its own, still idle.
pub(crate) fn tunnel(pair: &Pair, node: &str) -> TcpStream {
    let mut stream = connect(pair.tunnels);
    let request = format!(
        "GET /reverse_connections/request HTTP/1.1\r\nhost: x\r\n\
         x-envoy-reverse-tunnel-node-id: {node}\r\nx-envoy-reverse-tunnel-cluster-id: raw\r\n\
         x-envoy-reverse-tunnel-tenant-id: acme\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = vec![0; ANSWER.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, ANSWER);
    wait_for("the tunnel", || {
        (stats(pair.responder_admin).get(&format!("r.nodes.{node}")) == Some(&1)).then_some(())
    });
    stream
}

/// Echoes pings until the preface has come, and says what comes behind it.
pub(crate) fn await_preface(stream: &mut TcpStream) {
    let mut five = [0; 5];
    loop {
        stream.read_exact(&mut five).unwrap();
        if &five == b"RPING" {
            stream.write_all(b"RPING").unwrap();
        } else {
            break;
        }
    }
    let mut rest = [0; 19];
    stream.read_exact(&mut rest).unwrap();
    assert_eq!([&five[..], &rest].concat(), PREFACE);
}

/// What a raw initiator is to send for one frame of the responder.
pub(crate) type Reply = Vec<Frame>;

/// Replies that are sent later than at once.
#[derive(Clone, Default)]
pub(crate) struct Replies(Arc<Mutex<Option<TcpStream>>>);

impl Replies {
    /// Sends frames, if the tunnel is still there.
    pub(crate) fn send(&self, frames: Reply) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::encode).collect();
        if let Some(stream) = &mut *self.0.lock().unwrap() {
            let _ = stream.write_all(&bytes);
        }
    }
}

/// Serves a tunnel on a thread until it ends: `settings` first, then for each request that is complete what `reply`
/// says. SETTINGS and PING are acknowledged.
pub(crate) fn serve(
    stream: TcpStream,
    settings: Vec<(u16, u32)>,
    reply: impl FnMut(u32) -> Reply + Send + 'static,
) -> std::thread::JoinHandle<()> {
    serve_later(stream, settings, Replies::default(), reply)
}

/// As [`serve`], with replies that `later` brings.
pub(crate) fn serve_later(
    mut stream: TcpStream,
    settings: Vec<(u16, u32)>,
    later: Replies,
    mut reply: impl FnMut(u32) -> Reply + Send + 'static,
) -> std::thread::JoinHandle<()> {
    beside(move || {
        await_preface(&mut stream);
        Frame::settings(&settings).write(&mut stream);
        *later.0.lock().unwrap() = Some(stream.try_clone().unwrap());
        let mut open = BTreeSet::new();
        while let Some(frame) = Frame::read(&mut stream) {
            let mut replies = Vec::new();
            match frame.kind {
                kind::SETTINGS if frame.flags & flag::ACK == 0 => {
                    replies.push(Frame::new(kind::SETTINGS, flag::ACK, 0, b""));
                }
                kind::PING if frame.flags & flag::ACK == 0 => {
                    replies.push(Frame::new(kind::PING, flag::ACK, 0, &frame.payload));
                }
                kind::HEADERS | kind::DATA => {
                    open.insert(frame.stream);
                    if frame.ends_stream() && open.remove(&frame.stream) {
                        replies.extend(reply(frame.stream));
                    }
                }
                _ => {}
            }
            later.send(replies);
        }
    })
}

/// A good response of four bytes.
pub(crate) fn good(stream: u32) -> Reply {
    vec![
        Frame::headers(stream, false, &[(":status", "200"), ("content-length", "4")]),
        Frame::data(stream, true, b"good"),
    ]
}
