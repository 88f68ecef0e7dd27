//! A responder made by hand: it accepts the tunnel of a real initiator and sends through it what no library would.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};

use crate::h2::{Frame, HEADER_TABLE_SIZE, PREFACE, flag, kind};
use crate::kit::{
    Eddy, Options, PATIENCE, Pair, beside, free_port, get, monotonic, read_head, stats, wait_for,
};

/// An initiator that holds two tunnels: one to the responder of the pair, one to a responder made by hand.
pub(crate) struct Between {
    pub(crate) pair: Pair,
    pub(crate) initiator: Eddy,
    pub(crate) admin: u16,
    listener: TcpListener,
}

impl Between {
    pub(crate) fn start() -> Self {
        Self::with_service(None)
    }

    /// Both initiators have a service on this port, instead of the pair's own.
    pub(crate) fn with_service(port: Option<u16>) -> Self {
        let pair = Pair::with(Options {
            service_port: port,
            ..Options::default()
        });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (raw, admin) = (listener.local_addr().unwrap().port(), free_port());
        let initiator = Eddy::with_config(
            "initiator",
            &format!(
                "node: {{id: other, cluster: edges}}\nworkers: 1\nadmin: {{listen: 127.0.0.1:{admin}}}\n\
                 dial: {{first_retry: 20ms, silent_max: 100ms, refused_max: 100ms}}\n\
                 tunnels: [\"rc://other:edges:acme@hub:1\"]\n\
                 clusters: {{hub: {{hosts: [\"127.0.0.1:{}\", \"127.0.0.1:{raw}\"]}}, \
                 service: {{hosts: [\"127.0.0.1:{}\"]}}}}\nroutes: [{{prefix: /routed, cluster: service}}]\n",
                pair.tunnels,
                port.unwrap_or(pair.service.port)
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

    /// The tunnel to the responder made by hand, after one ping and its echo. After the end of the previous one, the initiator
    /// dials again.
    pub(crate) fn tunnel(&self) -> TcpStream {
        let (mut stream, _) = wait_for("a dial", || self.listener.accept().ok());
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
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

    /// The same tunnel, in use.
    pub(crate) fn http_2(&self) -> Requests {
        let mut stream = self.tunnel();
        stream.write_all(PREFACE).unwrap();
        // Without a dynamic table, equal response heads are equal bytes.
        Frame::settings(&[(HEADER_TABLE_SIZE, 0)]).write(&mut stream);
        let settings = Frame::read(&mut stream).unwrap();
        assert!(settings.is(kind::SETTINGS), "{settings:?}");
        Frame::new(kind::SETTINGS, flag::ACK, 0, b"").write(&mut stream);
        Requests::over(stream)
    }

    /// A client of the pair reaches this initiator.
    pub(crate) fn assert_others_are_served(&self) {
        wait_for("the other node", || {
            let answer = get(self.pair.egress, "/routed", &[("x-node-id", "other")]);
            (answer.status == 200).then_some(())
        });
        self.pair.assert_good();
    }
}

/// How the initiator responds to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// A response with this status.
    Status(u16),
    /// RST_STREAM with this code.
    Reset(u32),
    /// The end of the tunnel.
    Ended,
}

impl Outcome {
    /// Whether the initiator has refused the request and nothing else.
    pub(crate) fn is_refusal(self) -> bool {
        matches!(self, Self::Status(400..=499) | Self::Reset(_))
    }
}

/// A tunnel that carries HTTP/2 requests. PINGs are acknowledged beside the test, so that the tunnel stays while the test waits.
pub(crate) struct Requests {
    writer: Arc<Mutex<TcpStream>>,
    frames: Receiver<Frame>,
    next: u32,
}

impl Requests {
    fn over(mut stream: TcpStream) -> Self {
        let writer = Arc::new(Mutex::new(stream.try_clone().unwrap()));
        let (send, frames) = channel();
        let acknowledge = Arc::clone(&writer);
        stream.set_read_timeout(None).unwrap();
        beside(move || {
            while let Some(frame) = Frame::read(&mut stream) {
                if frame.is(kind::PING) && frame.flags & flag::ACK == 0 {
                    let pong = Frame::new(kind::PING, flag::ACK, 0, &frame.payload);
                    let _ = acknowledge.lock().unwrap().write_all(&pong.encode());
                }
                // The test may have ended.
                let _ = send.send(frame);
            }
        });
        Self {
            writer,
            frames,
            next: 1,
        }
    }

    /// The id of a new stream.
    pub(crate) fn id(&mut self) -> u32 {
        self.next += 2;
        self.next - 2
    }

    /// Sends bytes; an error means that the initiator has ended the tunnel.
    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.writer.lock().unwrap().write_all(bytes)
    }

    /// Sends one request without a body and waits for its outcome.
    pub(crate) fn request(&mut self, fields: &[(&str, &str)]) -> Outcome {
        let id = self.id();
        let _ = self.send(&Frame::headers(id, true, fields).encode());
        self.outcome(id)
    }

    /// Sends a request with this header block, in frames of 16 KiB, and waits for its outcome.
    pub(crate) fn request_with(&mut self, block: &[u8]) -> Outcome {
        let id = self.id();
        let head = Frame::new(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, id, block);
        // The initiator may end the tunnel before it has read everything.
        let _ = self.send(&head.encode());
        self.outcome(id)
    }

    /// Waits for the first sign of how a request ends.
    pub(crate) fn outcome(&self, id: u32) -> Outcome {
        let end = monotonic() + PATIENCE;
        loop {
            assert!(
                monotonic() < end,
                "waited {PATIENCE:?} for the outcome of stream {id}"
            );
            match self.frame() {
                None => return Outcome::Ended,
                Some(frame) if frame.stream != id => {}
                Some(frame) if frame.is(kind::HEADERS) => return Outcome::Status(frame.status()),
                Some(frame) if frame.is(kind::RST_STREAM) => return Outcome::Reset(frame.reset_code()),
                Some(_) => {}
            }
        }
    }

    /// The next frame; none at the end of the tunnel.
    pub(crate) fn frame(&self) -> Option<Frame> {
        match self.frames.recv_timeout(PATIENCE) {
            Ok(frame) => Some(frame),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the initiator sent nothing for {PATIENCE:?}"),
        }
    }
}
