//! A stream with bytes in front of it that were read already.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};

use super::pass::pass_writes;

/// Gives `head` to the reader first, then what the stream has.
#[derive(Debug)]
pub struct Prefixed<T> {
    head: Bytes,
    stream: T,
}

impl<T> Prefixed<T> {
    /// Puts `head` in front of `stream`.
    pub const fn new(head: Bytes, stream: T) -> Self {
        Self { head, stream }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Prefixed<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.head.has_remaining() {
            let n = self.head.remaining().min(buf.remaining());
            buf.put_slice(&self.head.split_to(n));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

pass_writes!(Prefixed: tokio::io::AsyncWrite);
