use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Wake;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

/// A sink that keeps each write apart, and whose peer acknowledges nothing.
#[derive(Default)]
struct Segments(Vec<Vec<u8>>);

struct Nothing;

impl Meter for Nothing {
    fn unacknowledged(&self) -> Option<u64> {
        Some(10)
    }
    fn is_peer_closed(&self) -> bool {
        false
    }
}

impl AsyncRead for Segments {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

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

/// A pipe.
struct Pipe(DuplexStream);

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

macro_rules! stream {
    ($stream:ty) => {
        impl Stream for $stream {
            type Meter = Nothing;
            fn meter(&self) -> Nothing {
                Nothing
            }
            fn give_up_after(&self, _: Duration) {}
            fn limit_unsent(&self, _: u32) {}
            fn local_addr(&self) -> io::Result<SocketAddr> {
                Err(io::ErrorKind::Unsupported.into())
            }
        }
    };
}

stream!(Segments);
stream!(Pipe);

fn of_client() -> (TunnelIo<Segments>, TunnelControl<Nothing>) {
    TunnelIo::of_client(Segments::default(), Clock::start())
}

#[tokio::test]
async fn the_first_write_leaves_with_the_second() {
    let (mut io, _control) = of_client();
    io.write_all(b"preface").await.unwrap();
    io.write_all(b"settings").await.unwrap();
    io.write_all(b"more").await.unwrap();
    assert_eq!(io.stream.0, [b"prefacesettings".to_vec(), b"more".to_vec()]);
}

#[tokio::test]
async fn a_flush_releases_the_first_write() {
    let (mut io, _control) = of_client();
    io.write_all(b"preface").await.unwrap();
    io.flush().await.unwrap();
    io.write_all(b"more").await.unwrap();
    assert_eq!(io.stream.0, [b"preface".to_vec(), b"more".to_vec()]);
}

#[tokio::test]
async fn goaway_and_ping_stand_between_two_frames() {
    let (mut io, control) = of_client();
    io.write_all(b"preface").await.unwrap();
    io.write_all(b"settings").await.unwrap();
    io.write_all(b"half a ").await.unwrap();
    control.send_goaway();
    control.send_ping();
    assert_eq!(
        control.outstanding(),
        Some(10 + 17),
        "the ping comes behind everything"
    );
    io.write_all(b"frame").await.unwrap();
    io.flush().await.unwrap();
    io.write_all(b"another").await.unwrap();
    io.flush().await.unwrap();
    let expected = [b"prefacesettingshalf a frame", &GOAWAY[..], &PING, b"another"].concat();
    assert_eq!(io.stream.0.concat(), expected);
    assert_eq!(
        control.outstanding(),
        Some(10 - 7),
        "what was written behind it does not count"
    );
}

#[tokio::test]
async fn a_narrow_pipe_loses_nothing() {
    let (near, mut far) = tokio::io::duplex(3);
    let (mut io, control) = TunnelIo::of_client(Pipe(near), Clock::start());
    let write = async move {
        io.write_all(b"preface").await.unwrap();
        io.write_all(b"settings").await.unwrap();
        io.flush().await.unwrap();
    };
    let mut got = String::new();
    let (_, read) = tokio::join!(write, far.read_to_string(&mut got));
    read.unwrap();
    assert_eq!(got, "prefacesettings");
    control.gone().await;
}

#[tokio::test]
async fn the_head_comes_first_and_what_the_peer_states_is_seen() {
    let (near, mut far) = tokio::io::duplex(300);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let (head, settings) = (
        Bytes::from_static(&preface[..10]),
        [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 5],
    );
    let (mut io, control) = TunnelIo::of_server(Pipe(near), head, Clock::start());
    far.write_all(&preface[10..]).await.unwrap();
    far.write_all(&settings).await.unwrap();
    far.write_all(&GOAWAY).await.unwrap();
    let mut got = vec![0; 24 + 15 + 17];
    io.read_exact(&mut got).await.unwrap();
    assert_eq!(got[..39], [&preface[..], &settings].concat());
    assert_ne!(got[42], 7, "the library does not get the GOAWAY");
    control.settings().await;
    control.goaway().await;
    assert_eq!(control.max_streams(None).await, 5);
    assert_eq!(control.received_bytes(), 56);
}

#[tokio::test]
async fn a_cut_ends_reads_and_writes() {
    let (mut io, control) = of_client();
    io.write_all(b"preface").await.unwrap();
    control.cut();
    assert!(io.write_all(b"more").await.is_err());
    assert!(io.read(&mut [0]).await.is_err());
}

#[derive(Default)]
struct Wakes(AtomicU32);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn each_command_wakes_a_connection_that_has_not_read_since_the_last_one() {
    let (mut io, control) = of_client();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut byte = [0];
    let mut buf = ReadBuf::new(&mut byte);
    let read = Pin::new(&mut io).poll_read(&mut Context::from_waker(&waker), &mut buf);
    assert!(read.is_pending());
    control.send_ping();
    control.cut();
    assert_eq!(wakes.0.load(Ordering::Relaxed), 2);
}
