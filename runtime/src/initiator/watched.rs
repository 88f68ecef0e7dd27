//! A stream that tells when a GOAWAY came in on it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use eddy_core::goaway::GoAwayWatch;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::latch::Latch;

/// Passes everything on, and looks at what is read.
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
        if self.watch.on_bytes(&buf.filled()[before..]) {
            self.goaway.set();
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
