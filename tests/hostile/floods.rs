//! Responses that a service sends as fast as they are taken. One thread sends all of them: a thread each would keep the machine
//! from running what is tested.

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;

use crate::kit::{beside, pause};

/// What a service's own kernel takes of a response ahead of what leaves.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// The responses of one service.
#[derive(Clone)]
pub(crate) struct Floods(Arc<Mutex<Vec<(TcpStream, usize)>>>);

impl Floods {
    pub(crate) fn start() -> Self {
        let floods = Self(Arc::default());
        let all = Arc::downgrade(&floods.0);
        beside(move || {
            let piece = [b'f'; 16 << 10];
            while let Some(all) = all.upgrade() {
                for (stream, left) in &mut *all.lock().unwrap() {
                    while let Ok(bytes @ 1..) = stream.write(&piece[..piece.len().min(*left)]) {
                        *left -= bytes;
                    }
                }
                drop(all);
                pause(Duration::from_millis(20));
            }
        });
        floods
    }

    /// Responds with so many bytes.
    pub(crate) fn respond(&self, mut stream: TcpStream, bytes: usize) {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
        let _ = stream.write_all(head.as_bytes());
        stream.set_nonblocking(true).unwrap();
        SockRef::from(&stream)
            .set_send_buffer_size(SEND_BUFFER_BYTES)
            .unwrap();
        self.0.lock().unwrap().push((stream, bytes));
    }
}
