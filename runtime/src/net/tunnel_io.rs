//! The stream under a tunnel's HTTP/2 library: what the library does not report, and what it cannot send.
//!
//! - Bytes that were read with the handshake come first.
//! - The library's first write, the preface and its SETTINGS, leaves with its second one, the first request (wire.md
//!   section 4): [`TunnelIo::of_client`] only.
//! - GOAWAY, SETTINGS and the time of the last byte are observed ([`FrameWatch`]).
//! - A GOAWAY or a PING is put between two frames: whoever flushes has written whole frames.
//! - The connection can be cut, although the library's own task would go on as long as a request runs.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes};
use eddy_core::frame_watch::{FrameWatch, NO_ERROR, PING, Seen, Sender};
use eddy_core::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;

use super::{Meter, Stream};
use crate::clock::Clock;
use crate::latch::Latch;

/// GOAWAY, NO_ERROR, no stream of the peer's processed, as there is none (RFC 9113, section 6.8).
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// What is written in front of everything else.
#[derive(Debug)]
enum Cork {
    /// Nothing was written yet: the first write waits for the second, or for a flush.
    In,
    /// These bytes come first; so many of them have left.
    Holding {
        bytes: Vec<u8>,
        sent: usize,
    },
    Out,
}

/// The stream of a tunnel.
#[derive(Debug)]
pub struct TunnelIo<S> {
    stream: S,
    head: Bytes,
    cork: Cork,
    watch: FrameWatch,
    shared: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    /// When the last bytes were read.
    received: Cell<Instant>,
    received_bytes: Cell<u64>,
    written_bytes: Cell<u64>,
    /// Where the last PING ends in what is written; none while it is still to be written.
    ping_ends: Cell<Option<u64>>,
    /// The peer's SETTINGS have come.
    settings: Latch,
    /// The peer's GOAWAY has come: it drains.
    goaway: Latch,
    /// The peer's GOAWAY has come with an error: the connection has failed.
    failed: Latch,
    /// The peer's limit of streams.
    max_streams: Cell<Option<u32>>,
    max_streams_changed: Notify,
    /// A GOAWAY, or a PING, is to be written.
    send_goaway: Cell<bool>,
    send_ping: Cell<bool>,
    /// The connection is over, whatever the HTTP/2 library still has to do.
    cut: Cell<bool>,
    /// The library has let go of the stream.
    gone: Latch,
    /// The task of the connection, which flushes whenever it runs: it waits for something to read.
    task: RefCell<Option<Waker>>,
}

/// What the owner of a tunnel keeps when it gives the stream to an HTTP/2 library.
#[derive(Debug)]
pub struct TunnelControl<M> {
    shared: Rc<Shared>,
    meter: M,
}

impl<M: Meter> TunnelControl<M> {
    /// Sends a GOAWAY; the connection goes on as before.
    pub fn send_goaway(&self) {
        self.shared.send_goaway.set(true);
        self.shared.wake();
    }

    /// Sends a PING that asks for a sign of life.
    pub fn send_ping(&self) {
        self.shared.send_ping.set(true);
        self.shared.ping_ends.set(None);
        self.shared.wake();
    }

    /// Ends the connection under the HTTP/2 library.
    pub fn cut(&self) {
        self.shared.cut.set(true);
        self.shared.wake();
    }

    /// Waits for the peer's first SETTINGS: it takes the connection for HTTP/2, and its limits are known.
    pub async fn settings(&self) {
        self.shared.settings.wait().await;
    }

    /// Waits for a GOAWAY of the peer that names an error: it ends the connection (RFC 9113, section 5.4.1).
    pub async fn failed(&self) {
        self.shared.failed.wait().await;
    }

    /// Waits for the peer's GOAWAY without an error: it drains.
    pub async fn goaway(&self) {
        self.shared.goaway.wait().await;
    }

    /// Whether the peer drains.
    pub fn is_goaway(&self) -> bool {
        self.shared.goaway.is_set()
    }

    /// Waits for another limit of streams than `known`, which the peer may state again at any time.
    pub async fn max_streams(&self, known: Option<u32>) -> u32 {
        loop {
            let changed = self.shared.max_streams_changed.notified();
            if let Some(limit) = self
                .shared
                .max_streams
                .get()
                .filter(|limit| Some(*limit) != known)
            {
                return limit;
            }
            changed.await;
        }
    }

    /// Waits until the connection has let go of the stream.
    pub async fn gone(&self) {
        self.shared.gone.wait().await;
    }

    /// When the last bytes were read.
    pub fn received(&self) -> Instant {
        self.shared.received.get()
    }

    /// How many bytes were read.
    pub fn received_bytes(&self) -> u64 {
        self.shared.received_bytes.get()
    }

    /// How many of the bytes up to and including the last PING the peer's kernel has not acknowledged.
    pub fn outstanding(&self) -> Option<u64> {
        let unacknowledged = self.meter.unacknowledged()?;
        let acknowledged = self.shared.written_bytes.get().saturating_sub(unacknowledged);
        // A PING that is still to be written comes behind everything.
        let ends = self.shared.ping_ends.get();
        let ends = ends.unwrap_or_else(|| self.shared.written_bytes.get() + PING.len() as u64);
        Some(ends.saturating_sub(acknowledged))
    }
}

impl Shared {
    fn still_there(&self) -> io::Result<()> {
        if self.cut.get() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        Ok(())
    }

    fn wake(&self) {
        // It stays: the connection may not read before the next wake, and would not leave its waker again.
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    fn wrote(&self, bytes: usize) {
        self.written_bytes.set(self.written_bytes.get() + bytes as u64);
    }

    fn read(&self, watch: &mut FrameWatch, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        self.received.set(self.clock.now());
        self.received_bytes
            .set(self.received_bytes.get() + bytes.len() as u64);
        watch.on_bytes(bytes, |seen| match seen {
            Seen::GoAway(NO_ERROR) => self.goaway.set(),
            Seen::GoAway(_) => self.failed.set(),
            Seen::Settings => self.settings.set(),
            Seen::MaxStreams(limit) => {
                self.max_streams.set(Some(limit));
                self.max_streams_changed.notify_waiters();
            }
        });
    }
}

impl<S: Stream> TunnelIo<S> {
    /// The stream of an HTTP/2 client: the responder's end.
    pub fn of_client(stream: S, clock: Clock) -> (Self, TunnelControl<S::Meter>) {
        Self::new(stream, Bytes::new(), clock, Sender::Server, Cork::In)
    }

    /// The stream of a server: the initiator's end. `head` was read already.
    pub fn of_server(stream: S, head: Bytes, clock: Clock) -> (Self, TunnelControl<S::Meter>) {
        Self::new(stream, head, clock, Sender::Client, Cork::Out)
    }

    fn new(
        stream: S,
        head: Bytes,
        clock: Clock,
        peer: Sender,
        cork: Cork,
    ) -> (Self, TunnelControl<S::Meter>) {
        let shared = Rc::new(Shared {
            received: Cell::new(clock.now()),
            clock,
            received_bytes: Cell::default(),
            written_bytes: Cell::default(),
            ping_ends: Cell::default(),
            settings: Latch::default(),
            goaway: Latch::default(),
            failed: Latch::default(),
            max_streams: Cell::default(),
            max_streams_changed: Notify::new(),
            send_goaway: Cell::default(),
            send_ping: Cell::default(),
            cut: Cell::default(),
            gone: Latch::default(),
            task: RefCell::default(),
        });
        let control = TunnelControl {
            shared: Rc::clone(&shared),
            meter: stream.meter(),
        };
        let io = Self {
            stream,
            head,
            cork,
            watch: FrameWatch::new(peer),
            shared,
        };
        (io, control)
    }
}

impl<S> Drop for TunnelIo<S> {
    fn drop(&mut self) {
        self.shared.gone.set();
    }
}

impl<S: AsyncWrite + Unpin> TunnelIo<S> {
    fn poll_write_through(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.shared.wrote(wrote);
        Poll::Ready(Ok(wrote))
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
        self.shared.wrote(n);
        if n < held {
            *sent += n;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.cork = Cork::Out;
        Poll::Ready(Ok(n - held))
    }

    /// Puts the frames between two of the library's that were asked for.
    fn insert_frames(&mut self) {
        let mut bytes = Vec::new();
        if self.shared.send_goaway.take() {
            bytes.extend(GOAWAY);
        }
        if self.shared.send_ping.take() {
            bytes.extend(PING);
            let ends = self.shared.written_bytes.get() + bytes.len() as u64;
            self.shared.ping_ends.set(Some(ends));
        }
        if !bytes.is_empty() {
            self.cork = Cork::Holding { bytes, sent: 0 };
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TunnelIo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.shared.still_there()?;
        let before = buf.filled().len();
        if this.head.has_remaining() {
            let n = this.head.remaining().min(buf.remaining());
            buf.put_slice(&this.head.split_to(n));
        } else {
            let read = Pin::new(&mut this.stream).poll_read(cx, buf);
            if read.is_pending() {
                let mut task = this.shared.task.borrow_mut();
                if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                    *task = Some(cx.waker().clone());
                }
            }
            ready!(read)?;
        }
        this.shared.read(&mut this.watch, &mut buf.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TunnelIo<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.shared.still_there()?;
        match this.cork {
            Cork::Out => this.poll_write_through(cx, buf),
            Cork::In => {
                this.cork = Cork::Holding {
                    bytes: buf.to_vec(),
                    sent: 0,
                };
                Poll::Ready(Ok(buf.len()))
            }
            Cork::Holding { .. } => {
                let taken = ready!(this.poll_release(cx, buf))?;
                if taken == 0 && !buf.is_empty() {
                    return this.poll_write_through(cx, buf);
                }
                Poll::Ready(Ok(taken))
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        match this.cork {
            Cork::Out => {
                this.shared.still_there()?;
                let wrote = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, bufs))?;
                this.shared.wrote(wrote);
                Poll::Ready(Ok(wrote))
            }
            Cork::In | Cork::Holding { .. } => {
                let first = bufs.iter().find(|b| !b.is_empty()).map_or(&[][..], |b| &**b);
                Pin::new(this).poll_write(cx, first)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_release(cx, &[]))?;
        // Before anything was written there is no place between two frames.
        if this.shared.written_bytes.get() > 0 {
            this.insert_frames();
            ready!(this.poll_release(cx, &[]))?;
        }
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_release(cx, &[]))?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
