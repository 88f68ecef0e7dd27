//! Keeps the HTTP/2 preface back until the frames behind it come, so that both leave in one segment.
//!
//! Envoy's HTTP/1-or-2 detection decides on its first read (wire.md section 4): a preface that arrives in
//! parts is answered with `HTTP/1.1 400`. The HTTP/2 library writes the preface apart from its SETTINGS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

#[derive(Debug)]
enum Cork {
    /// Nothing was written yet.
    In,
    /// The first write, and how much of it has left.
    Holding {
        bytes: Vec<u8>,
        sent: usize,
    },
    Out,
}

/// A stream whose first write waits for the second, or for a flush.
#[derive(Debug)]
pub struct Corked<T> {
    stream: T,
    cork: Cork,
    /// Told by being dropped: the connection lets go of its socket.
    _gone: oneshot::Sender<()>,
}

impl<T: AsyncWrite + Unpin> Corked<T> {
    /// Wraps a stream; the receiver ends when the stream is dropped.
    pub fn new(stream: T) -> (Self, oneshot::Receiver<()>) {
        let (gone, when_gone) = oneshot::channel();
        (
            Self {
                stream,
                cork: Cork::In,
                _gone: gone,
            },
            when_gone,
        )
    }

    /// Writes what is held together with `more`; ready with how much of `more` was taken.
    fn poll_release(&mut self, cx: &mut Context<'_>, more: &[u8]) -> Poll<io::Result<usize>> {
        let Cork::Holding { bytes, sent } = &mut self.cork else {
            return Poll::Ready(Ok(0));
        };
        let held = bytes.len() - *sent;
        let mut both = Vec::with_capacity(held + more.len());
        both.extend_from_slice(&bytes[*sent..]);
        both.extend_from_slice(more);
        let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &both))?;
        if n < held {
            *sent += n;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.cork = Cork::Out;
        Poll::Ready(Ok(n - held))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Corked<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Corked<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.cork {
            Cork::Out => Pin::new(&mut self.stream).poll_write(cx, buf),
            Cork::In => {
                self.cork = Cork::Holding {
                    bytes: buf.to_vec(),
                    sent: 0,
                };
                Poll::Ready(Ok(buf.len()))
            }
            Cork::Holding { .. } => {
                let taken = ready!(self.poll_release(cx, buf))?;
                if taken == 0 && !buf.is_empty() {
                    return Pin::new(&mut self.stream).poll_write(cx, buf);
                }
                Poll::Ready(Ok(taken))
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.cork {
            Cork::Out => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
            Cork::In | Cork::Holding { .. } => {
                let first = bufs.iter().find(|b| !b.is_empty()).map_or(&[][..], |b| &**b);
                self.poll_write(cx, first)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_release(cx, &[]))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_release(cx, &[]))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// A sink that keeps each write apart.
    #[derive(Default)]
    struct Segments(Vec<Vec<u8>>);

    impl AsyncWrite for Segments {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.0.push(buf.to_vec());
            Poll::Ready(Ok(buf.len()))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn the_first_write_leaves_with_the_second() {
        let (mut corked, _gone) = Corked::new(Segments::default());
        corked.write_all(b"preface").await.unwrap();
        corked.write_all(b"settings").await.unwrap();
        corked.write_all(b"more").await.unwrap();
        assert_eq!(corked.stream.0, [b"prefacesettings".to_vec(), b"more".to_vec()]);
    }

    #[tokio::test]
    async fn a_flush_lets_go() {
        let (mut corked, _gone) = Corked::new(Segments::default());
        corked.write_all(b"preface").await.unwrap();
        corked.flush().await.unwrap();
        corked.write_all(b"more").await.unwrap();
        assert_eq!(corked.stream.0, [b"preface".to_vec(), b"more".to_vec()]);
    }

    #[tokio::test]
    async fn a_narrow_pipe_loses_nothing() {
        let (near, mut far) = tokio::io::duplex(3);
        let (mut corked, gone) = Corked::new(near);
        let write = async move {
            corked.write_all(b"preface").await.unwrap();
            corked.write_all(b"settings").await.unwrap();
            corked.flush().await.unwrap();
        };
        let mut got = String::new();
        let (_, read) = tokio::join!(write, far.read_to_string(&mut got));
        read.unwrap();
        assert_eq!(got, "prefacesettings");
        assert!(gone.await.is_err(), "the receiver ends with the stream");
    }
}
