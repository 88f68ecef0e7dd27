//! Between HTTP/2 and a responder's tunnel: keeps the preface back until the frames behind it come, so that both leave in
//! one segment; and says GOAWAY, which the HTTP/2 library of a client says only when it hangs up.
//!
//! Envoy's HTTP/1-or-2 detection decides on its first read (wire.md section 4): a preface that arrives in
//! parts is answered with `HTTP/1.1 400`. The HTTP/2 library writes the preface apart from its SETTINGS.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;

use crate::latch::Latch;

/// GOAWAY, NO_ERROR, no stream of the peer's processed, as there is none (RFC 9113, section 6.8).
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[derive(Debug)]
enum Cork {
    /// Nothing was written yet.
    In,
    /// What goes before anything else, and how much of it has left.
    Holding {
        bytes: Vec<u8>,
        sent: usize,
    },
    Out,
}

/// A stream whose first write waits for the second, or for a flush.
#[derive(Debug)]
pub(crate) struct Corked<T> {
    stream: T,
    cork: Cork,
    shared: Rc<Shared>,
    /// Told by being dropped: the connection lets go of its socket.
    _gone: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Something was read.
    heard: Latch,
    /// A GOAWAY is to be written.
    farewell: Cell<bool>,
    /// The connection is over, whatever the HTTP/2 library still has to do.
    cut: Cell<bool>,
    /// Who waits for something to read: the task of the connection, which flushes whenever it runs.
    task: RefCell<Option<Waker>>,
}

/// The hand of whoever gave the stream away.
#[derive(Debug)]
pub(crate) struct Hand {
    shared: Rc<Shared>,
    gone: oneshot::Receiver<()>,
}

impl Hand {
    /// Tells the peer that this end is going to leave; the connection goes on as before.
    pub(crate) fn say_goodbye(&self) {
        self.shared.farewell.set(true);
        if let Some(task) = self.shared.task.borrow_mut().take() {
            task.wake();
        }
    }

    /// Ends the connection under the HTTP/2 library, whose own task would go on as long as a request runs.
    pub(crate) fn cut(&self) {
        self.shared.cut.set(true);
        if let Some(task) = self.shared.task.borrow_mut().take() {
            task.wake();
        }
    }

    /// Waits for the first bytes of the peer: it has taken the connection for what it is.
    pub(crate) async fn heard(&self) {
        self.shared.heard.wait().await;
    }

    /// Waits until the connection has let go of the stream.
    pub(crate) async fn gone(&mut self) {
        // It is never sent, only dropped.
        let _ = (&mut self.gone).await;
    }
}

impl Shared {
    fn still_there(&self) -> io::Result<()> {
        if self.cut.get() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }
}

impl<T: AsyncWrite + Unpin> Corked<T> {
    /// Wraps a stream.
    pub(crate) fn new(stream: T) -> (Self, Hand) {
        let (gone, when_gone) = oneshot::channel();
        let shared = Rc::new(Shared::default());
        let hand = Hand {
            shared: Rc::clone(&shared),
            gone: when_gone,
        };
        let corked = Self {
            stream,
            cork: Cork::In,
            shared,
            _gone: gone,
        };
        (corked, hand)
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
        self.shared.still_there()?;
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before && !self.shared.heard.is_set() {
            self.shared.heard.set();
        }
        if read.is_pending() {
            let mut task = self.shared.task.borrow_mut();
            if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Corked<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.still_there()?;
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
        // Whoever flushes has written whole frames.
        if self.shared.farewell.take() {
            self.cork = Cork::Holding {
                bytes: GOAWAY.to_vec(),
                sent: 0,
            };
            ready!(self.poll_release(cx, &[]))?;
        }
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
        let (mut corked, _hand) = Corked::new(Segments::default());
        corked.write_all(b"preface").await.unwrap();
        corked.write_all(b"settings").await.unwrap();
        corked.write_all(b"more").await.unwrap();
        assert_eq!(corked.stream.0, [b"prefacesettings".to_vec(), b"more".to_vec()]);
    }

    #[tokio::test]
    async fn a_flush_lets_go() {
        let (mut corked, _hand) = Corked::new(Segments::default());
        corked.write_all(b"preface").await.unwrap();
        corked.flush().await.unwrap();
        corked.write_all(b"more").await.unwrap();
        assert_eq!(corked.stream.0, [b"preface".to_vec(), b"more".to_vec()]);
    }

    #[tokio::test]
    async fn a_goodbye_stands_between_two_frames() {
        let (mut corked, hand) = Corked::new(Segments::default());
        corked.write_all(b"preface").await.unwrap();
        corked.write_all(b"settings").await.unwrap();
        corked.write_all(b"half a ").await.unwrap();
        hand.say_goodbye();
        corked.write_all(b"frame").await.unwrap();
        corked.flush().await.unwrap();
        corked.write_all(b"another").await.unwrap();
        corked.flush().await.unwrap();
        let left = corked.stream.0.concat();
        assert_eq!(
            left,
            [b"prefacesettingshalf a frame", &GOAWAY[..], b"another"].concat()
        );
    }

    #[tokio::test]
    async fn a_narrow_pipe_loses_nothing() {
        let (near, mut far) = tokio::io::duplex(3);
        let (mut corked, mut hand) = Corked::new(near);
        let write = async move {
            corked.write_all(b"preface").await.unwrap();
            corked.write_all(b"settings").await.unwrap();
            corked.flush().await.unwrap();
        };
        let mut got = String::new();
        let (_, read) = tokio::join!(write, far.read_to_string(&mut got));
        read.unwrap();
        assert_eq!(got, "prefacesettings");
        hand.gone().await;
    }
}
