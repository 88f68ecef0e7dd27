//! A TCP relay that keeps every chunk as it came off the wire.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::kit::{beside, monotonic};

/// Who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Initiator,
    Responder,
}

/// One read of the relay.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) connection: usize,
    pub(crate) from: From,
    pub(crate) at: Duration,
    pub(crate) bytes: Vec<u8>,
}

/// Sits between an initiator and a responder.
#[derive(Clone)]
pub(crate) struct Relay {
    pub(crate) port: u16,
    chunks: Arc<Mutex<Vec<Chunk>>>,
}

impl Relay {
    /// Passes everything on to `target`.
    pub(crate) fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let relay = Self {
            port: listener.local_addr().unwrap().port(),
            chunks: Arc::default(),
        };
        let passing = relay.clone();
        beside(move || {
            for (connection, stream) in listener.incoming().enumerate() {
                let initiator = stream.unwrap();
                // While the responder is down its port refuses; so does the relay, a moment later.
                if let Ok(responder) = TcpStream::connect(("127.0.0.1", target)) {
                    passing.pass(connection, From::Initiator, &initiator, &responder);
                    passing.pass(connection, From::Responder, &responder, &initiator);
                }
            }
        });
        relay
    }

    fn pass(&self, connection: usize, from: From, source: &TcpStream, sink: &TcpStream) {
        let (mut source, mut sink) = (source.try_clone().unwrap(), sink.try_clone().unwrap());
        sink.set_nodelay(true).unwrap();
        let chunks = Arc::clone(&self.chunks);
        beside(move || {
            let mut buffer = vec![0; 256 << 10];
            while let Ok(n @ 1..) = source.read(&mut buffer) {
                let bytes = buffer[..n].to_vec();
                chunks.lock().unwrap().push(Chunk {
                    connection,
                    from,
                    at: monotonic(),
                    bytes,
                });
                if sink.write_all(&buffer[..n]).is_err() {
                    break;
                }
            }
            let _ = sink.shutdown(Shutdown::Both);
            let _ = source.shutdown(Shutdown::Both);
        });
    }

    /// Everything so far.
    pub(crate) fn chunks(&self) -> Vec<Chunk> {
        self.chunks.lock().unwrap().clone()
    }

    /// How many tunnels have sent anything.
    pub(crate) fn tunnels(&self) -> usize {
        let connections: BTreeSet<_> = self.chunks().iter().map(|chunk| chunk.connection).collect();
        connections.len()
    }

    /// How many whole pings one side has sent.
    pub(crate) fn pings(&self, from: From) -> usize {
        self.chunks()
            .iter()
            .filter(|chunk| chunk.from == from && chunk.bytes == b"RPING")
            .count()
    }
}
