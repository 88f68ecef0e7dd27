//! One end of a connection: turmoil's stream, with what real networks do to bytes.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use eddy_core::rng::Rng;
use eddy_runtime::net::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use turmoil::net::TcpStream;

use super::conditions::{CUT_UNTIL, Conditions, RETRANSMISSION, SEGMENT};
use super::connection::{Connection, End, Side};
use super::meter::SimMeter;
use super::traffic::Readable;
use super::{ConnectionId, Fabric, NetEvent, now};

/// Chances are drawn as parts of this.
const PARTS: u64 = 1 << 32;
/// How long a glued read waits for what comes next.
const GLUE: Duration = Duration::from_millis(3);
/// One read in so many finds nothing at first where bytes are cut: a spurious wake-up.
const SPURIOUS: u64 = 8;

/// A simulated connection.
pub struct SimStream {
    pub(super) fabric: Fabric,
    pub(super) id: ConnectionId,
    pub(super) side: Side,
    inner: TcpStream,
    incoming: Conditions,
    outgoing: Conditions,
    rng: Rng,
    received: u64,
    /// The segment that is next has been judged: it was late, or is not.
    judged: bool,
    pause: Option<Pin<Box<Sleep>>>,
    /// What was under way with a lost segment comes with its retransmission: no second loss before then.
    sound_until: Duration,
    /// The next bytes are on a link with limited bandwidth until then.
    transmission: Option<Pin<Box<Sleep>>>,
    /// The send buffer holds as many unsent bytes as it may until then.
    unsent: Option<Pin<Box<Sleep>>>,
}

impl SimStream {
    pub(super) fn new(
        fabric: Fabric,
        id: ConnectionId,
        side: Side,
        inner: TcpStream,
        (incoming, outgoing): (Conditions, Conditions),
        seed: u64,
    ) -> Self {
        Self {
            fabric,
            id,
            side,
            inner,
            incoming,
            outgoing,
            rng: Rng::from_seed(seed),
            received: 0,
            judged: false,
            pause: None,
            sound_until: Duration::ZERO,
            transmission: None,
            unsent: None,
        }
    }

    /// Has the send buffer take at most so many bytes that have not been sent, as `TCP_NOTSENT_LOWAT` does. Without a limit
    /// it takes as many as the window of the path.
    pub fn limit_unsent_to(&self, bytes: u32) {
        self.with(|connection| connection.flow(self.side).unsent_max = Some(bytes.into()));
    }

    /// The account of this end's kernel; it stays valid while another owner has the stream.
    pub fn account_of_kernel(&self) -> SimMeter {
        SimMeter::new(self.fabric.clone(), self.id, self.side)
    }

    fn with<T>(&self, look: impl FnOnce(&mut Connection) -> T) -> Option<T> {
        self.fabric.state().connections.get_mut(&self.id).map(look)
    }

    fn is_silent(&self) -> bool {
        self.with(|connection| connection.silent.is_some())
            .unwrap_or(false)
    }

    fn hits(&mut self, chance: f64) -> bool {
        // Exact for the chances that people write: 2^32 parts.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a chance is 0 to 1"
        )]
        let part = (chance * PARTS as f64) as u64;
        chance > 0.0 && self.rng.below(PARTS) < part
    }

    /// How late the segment is that comes next.
    fn judge(&mut self) -> Duration {
        let mut late = Duration::ZERO;
        if now() >= self.sound_until && self.hits(self.incoming.loss) {
            let trip = *self.incoming.latency.end();
            late += RETRANSMISSION + trip * 2;
            self.sound_until = now() + late + trip;
        }
        if let Some(stall) = self.incoming.stall
            && self.hits(stall.chance)
        {
            late += stall.pause;
        }
        if self.incoming.glue {
            late += self.rng.between(Duration::ZERO, GLUE);
        }
        late
    }

    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Poll::Ready(())
    }

    /// How many bytes the next piece may have, where `moved` went before.
    fn piece(&mut self, cut: Option<usize>, moved: u64) -> usize {
        match cut {
            Some(cut) if moved < CUT_UNTIL => 1 + self.rng.below(cut as u64) as usize,
            Some(_) => SEGMENT,
            None => usize::MAX,
        }
    }

    /// Whether there is something to read, now.
    fn poll_arrived(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut one = [0];
        self.inner.poll_peek(cx, &mut ReadBuf::new(&mut one)).map_ok(drop)
    }

    /// How many bytes have come through a link with limited bandwidth; waits until there are some.
    fn poll_transmitted(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.incoming.bandwidth.is_none() {
            return Poll::Ready(usize::MAX);
        }
        loop {
            if let Some(transmission) = &mut self.transmission {
                ready!(transmission.as_mut().poll(cx));
                self.transmission = None;
            }
            let (id, writer) = (self.id, self.side.other());
            let mut state = self.fabric.state();
            match state.readable(id, writer, self.received, now()) {
                Readable::UpTo(bytes) => return Poll::Ready(usize::try_from(bytes).unwrap_or(usize::MAX)),
                Readable::At(at) => self.transmission = Some(wait_until(at)),
                Readable::Never => {
                    state.wake_reader(id, writer, cx.waker());
                    return Poll::Pending;
                }
            }
        }
    }

    fn read_piece(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let most = self
            .piece(self.incoming.cut, self.received)
            .min(most)
            .min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        Poll::Ready(Ok(read))
    }

    fn account(&mut self, read: usize) {
        self.received += read as u64;
        let side = self.side.other();
        let writer = self.with(|connection| {
            let flow = connection.flow(side);
            flow.unread = flow.unread.saturating_sub(read);
            flow.writer.take()
        });
        if let Some(writer) = writer.flatten() {
            writer.wake();
        }
    }

    /// How much may be written; 0: the window is full, and the writer is woken when it is not.
    fn room(&self, cx: &Context<'_>) -> usize {
        let (side, window) = (self.side, self.outgoing.window);
        let room = self.with(|connection| {
            // What nobody reads any more is refused by the socket itself.
            if matches!(connection.end(side.other()), End::Closed(_)) && connection.silent.is_none() {
                return window;
            }
            let flow = connection.flow(side);
            let room = window.saturating_sub(flow.unread);
            if room == 0 {
                flow.writer = Some(cx.waker().clone());
            }
            room
        });
        room.unwrap_or(window)
    }

    /// How many bytes the send buffer takes; waits until it takes some.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.outgoing.bandwidth.is_none() {
            return Poll::Ready(usize::MAX);
        }
        loop {
            if let Some(unsent) = &mut self.unsent {
                ready!(unsent.as_mut().poll(cx));
                self.unsent = None;
            }
            let mut state = self.fabric.state();
            match state.unsent_room(self.id, self.side, now()) {
                Ok(room) => return Poll::Ready(usize::try_from(room).unwrap_or(usize::MAX)),
                Err(Some(at)) => self.unsent = Some(wait_until(at)),
                Err(None) => {
                    state.wake_writer(self.id, self.side, cx.waker());
                    return Poll::Pending;
                }
            }
        }
    }

    fn wrote(&self, bytes: usize) {
        self.fabric.state().wrote(self.id, self.side, bytes, now());
        let written = self.with(|connection| connection.flow(self.side).written);
        if let (Some(written), Some(silence)) = (written, self.outgoing.silence)
            && written >= silence.after
        {
            self.silence(silence.connections);
        }
    }

    fn silence(&self, most: u32) {
        let mut state = self.fabric.state();
        let state = &mut *state;
        let Some(connection) = state.connections.get_mut(&self.id).filter(|c| c.silent.is_none()) else {
            return;
        };
        let count = state
            .silenced
            .entry((connection.client.ip(), connection.server.ip()))
            .or_default();
        if *count < most {
            *count += 1;
            connection.fall_silent(now());
            state.events.push((now(), NetEvent::Silenced(self.id)));
        }
    }
}

fn wait_until(at: Duration) -> Pin<Box<Sleep>> {
    // Timers count milliseconds.
    let wait = at.saturating_sub(now()).max(Duration::from_millis(1));
    Box::pin(tokio::time::sleep(wait))
}

impl Stream for SimStream {
    type Meter = SimMeter;

    fn meter(&self) -> SimMeter {
        self.account_of_kernel()
    }

    fn limit_unsent(&self, bytes: u32) {
        self.limit_unsent_to(bytes);
    }

    /// The backstop is not modelled: it must never be what notices.
    fn give_up_after(&self, _: Duration) {}

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let side = self.side.other();
        let readable = self
            .with(|connection| connection.readable(side))
            .unwrap_or(u64::MAX);
        if self.received >= readable {
            return Poll::Pending;
        }
        if self.incoming.cut.is_some() && self.rng.below(SPURIOUS) == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let transmitted = ready!(self.poll_transmitted(cx));
        loop {
            ready!(self.poll_pause(cx));
            if self.judged {
                break;
            }
            ready!(self.poll_arrived(cx))?;
            self.judged = true;
            let late = self.judge();
            if !late.is_zero() {
                self.pause = Some(Box::pin(tokio::time::sleep(late)));
            }
        }
        let mut read = ready!(self.read_piece(cx, buf, transmitted))?;
        self.judged = false;
        while read > 0
            && read < transmitted
            && self.incoming.glue
            && self.incoming.cut.is_none()
            && buf.remaining() > 0
        {
            match self.poll_arrived(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) | Poll::Pending => break,
            }
            match self.read_piece(cx, buf, transmitted - read) {
                // The end of the stream is for the next read to tell.
                Poll::Ready(Ok(0) | Err(_)) | Poll::Pending => break,
                Poll::Ready(Ok(more)) => read += more,
            }
        }
        self.account(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SimStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let unsent = ready!(self.poll_unsent(cx));
        let room = self.room(cx).min(unsent);
        if room == 0 {
            return Poll::Pending;
        }
        let moved = self
            .with(|connection| connection.flow(self.side).written)
            .unwrap_or(0);
        let cut = self.outgoing.cut;
        let most = buf.len().min(room).min(self.piece(cut, moved));
        let wrote = if self.is_silent() {
            most
        } else {
            ready!(Pin::new(&mut self.inner).poll_write(cx, &buf[..most]))?
        };
        self.wrote(wrote);
        Poll::Ready(Ok(wrote))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_silent() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let mut state = self.fabric.state();
        let (id, side) = (self.id, self.side);
        state.stop_sending(id, side.other());
        if let Some(connection) = state.connections.get_mut(&id) {
            if let End::Open(process) = connection.end(side) {
                connection.set_end(side, End::Closed(process));
            }
            let waiting = connection.flow(side.other()).writer.take();
            if let Some(writer) = waiting {
                writer.wake();
            }
        }
        state.events.push((now(), NetEvent::Closed(id, side)));
        state.forget(id);
    }
}
