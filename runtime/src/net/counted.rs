//! A client's stream: counts what is read, which tells a connection that never says what it speaks from one that rests, and
//! can be closed with a reset.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, ReadBuf};

use super::Stream;
use super::pass::pass_writes;

/// How many bytes decide between the versions of HTTP: the length of the HTTP/2 preface.
const DECIDING_BYTES: usize = 24;

/// A client's stream, seen from outside the HTTP library that has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched(Rc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    heard: Cell<usize>,
    reset: Cell<bool>,
}

impl Watched {
    /// Whether the peer has said which HTTP it speaks, or something that is long enough to.
    pub(crate) fn has_heard_enough(&self) -> bool {
        self.0.heard.get() >= DECIDING_BYTES
    }

    /// Has the kernel drop what the peer has not read, when the stream is closed.
    pub(crate) fn reset_on_close(&self) {
        self.0.reset.set(true);
    }
}

/// Passes everything on.
#[derive(Debug)]
pub(crate) struct Counted<T: Stream> {
    stream: T,
    watched: Watched,
}

impl<T: Stream> Counted<T> {
    /// Wraps a stream.
    pub(crate) fn new(stream: T) -> (Self, Watched) {
        let watched = Watched::default();
        let counted = Self {
            stream,
            watched: watched.clone(),
        };
        (counted, watched)
    }
}

impl<T: Stream> Drop for Counted<T> {
    fn drop(&mut self) {
        if self.watched.0.reset.get() {
            self.stream.reset_on_close();
        }
    }
}

impl<T: Stream> AsyncRead for Counted<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let heard = &self.watched.0.heard;
        heard.set(heard.get().saturating_add(buf.filled().len() - before));
        read
    }
}

pass_writes!(Counted: Stream);
