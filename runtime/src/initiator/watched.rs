//! A stream that tells when a GOAWAY came in on it, and keeps it to itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use eddy_core::goaway::GoAwayWatch;
use tokio::io::{AsyncRead, ReadBuf};

use crate::latch::Latch;
use crate::net::pass::pass_writes;

/// Passes everything on but the first GOAWAY.
pub(super) struct Watched<T> {
    stream: T,
    watch: GoAwayWatch,
    goaway: Latch,
}

impl<T> Watched<T> {
    /// Sets `goaway` when the peer says that it takes its leave.
    pub(super) fn new(stream: T, goaway: Latch) -> Self {
        Self {
            stream,
            watch: GoAwayWatch::default(),
            goaway,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.watch.on_bytes(&mut buf.filled_mut()[before..]) {
            self.goaway.set();
        }
        read
    }
}

pass_writes!(Watched);
