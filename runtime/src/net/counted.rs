//! A stream that counts what is read from it: how a connection that never says what it speaks is told from one that
//! rests.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use super::pass::pass_writes;

/// How many bytes decide between the versions of HTTP: the length of the HTTP/2 preface.
const DECIDING_BYTES: usize = 24;

/// What has been read so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard(Rc<Cell<usize>>);

impl Heard {
    /// Whether the peer has said which HTTP it speaks, or something that is long enough to.
    pub(crate) fn enough(&self) -> bool {
        self.0.get() >= DECIDING_BYTES
    }
}

/// Passes everything on.
#[derive(Debug)]
pub(crate) struct Counted<T> {
    stream: T,
    heard: Heard,
}

impl<T> Counted<T> {
    /// Wraps a stream; the count is seen from outside.
    pub(crate) fn new(stream: T) -> (Self, Heard) {
        let heard = Heard::default();
        let counted = Self {
            stream,
            heard: heard.clone(),
        };
        (counted, heard)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let heard = &self.heard.0;
        heard.set(heard.get().saturating_add(buf.filled().len() - before));
        read
    }
}

pass_writes!(Counted);
