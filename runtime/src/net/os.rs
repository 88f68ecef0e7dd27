//! The network of the operating system.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

use super::outq::Diagnosed;
use super::{Listener, Meter, Network, Resolved, Sharing, Stream, lookup, memory, outq};

/// How many connections the kernel keeps for a listener that is busy.
const BACKLOG: i32 = 4096;

/// Sockets of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsNetwork;

/// A TCP connection without Nagle's delay: pings and small answers leave at once.
#[derive(Debug)]
pub struct OsStream(TcpStream);

/// A listener that shares its port with the other workers (`SO_REUSEPORT`).
#[derive(Debug)]
pub struct OsListener(TcpListener);

impl OsStream {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }
}

/// A connection by its addresses, as the kernel's socket diagnosis finds it.
#[derive(Clone, Copy, Debug)]
pub struct OsMeter {
    /// This end's address and the peer's, if the connection still had them.
    ends: Option<(SocketAddr, SocketAddr)>,
}

impl Meter for OsMeter {
    fn unacknowledged(&self) -> Option<u64> {
        let (local, peer) = self.ends?;
        outq::diagnose(local, peer)?.unacknowledged().map(u64::from)
    }

    fn is_peer_closed(&self) -> bool {
        let known = self.ends.and_then(|(local, peer)| outq::diagnose(local, peer));
        matches!(known, Some(Diagnosed::Closing { .. } | Diagnosed::Gone))
    }
}

impl Stream for OsStream {
    type Meter = OsMeter;

    fn meter(&self) -> OsMeter {
        OsMeter {
            ends: self.0.local_addr().ok().zip(self.0.peer_addr().ok()),
        }
    }

    fn limit_unsent(&self, bytes: u32) {
        if let Err(error) = SockRef::from(&self.0).set_tcp_notsent_lowat(bytes) {
            tracing::debug!(%error, "cannot limit the unsent bytes of a connection");
        }
    }

    fn give_up_after(&self, limit: Duration) {
        let socket = SockRef::from(&self.0);
        let probes = TcpKeepalive::new().with_time(limit / 2).with_interval(limit / 4);
        let set = socket
            .set_tcp_user_timeout(Some(limit))
            .and_then(|()| socket.set_tcp_keepalive(&probes));
        if let Err(error) = set {
            tracing::debug!(%error, "the kernel takes no limit");
        }
    }

    fn reset_on_close(&self) {
        if let Err(error) = self.0.set_zero_linger() {
            tracing::debug!(%error, "cannot have a connection reset");
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl AsyncRead for OsStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for OsStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Listener for OsListener {
    type Stream = OsStream;

    async fn accept(&self) -> io::Result<(OsStream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((OsStream::new(stream)?, peer))
    }
}

/// A socket bound to `addr`. Only listeners of this very process, and of one that it takes over from, share the port:
/// the first asks without `SO_REUSEPORT`, so that another process there is an error and not a silent rival.
fn bound(addr: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn local_addr(socket: &Socket) -> io::Result<SocketAddr> {
    socket
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("not an internet address"))
}

impl Network for OsNetwork {
    type Stream = OsStream;
    type Bound = std::net::TcpListener;
    type Listener = OsListener;
    type Parcel = std::net::TcpStream;

    async fn connect(&self, to: SocketAddr) -> io::Result<OsStream> {
        OsStream::new(TcpStream::connect(to).await?)
    }

    async fn bind(
        &self,
        mut addr: SocketAddr,
        shares: u16,
        sharing: Sharing,
    ) -> io::Result<(SocketAddr, Vec<Self::Bound>)> {
        let mut sockets = Vec::new();
        for share in 0..shares {
            let first = share == 0;
            let socket = bound(addr, sharing != Sharing::Alone || !first)?;
            // SO_REUSEADDR lets two sockets bind; listening is where the kernel says that a port is taken.
            socket.listen(BACKLOG)?;
            if first {
                // It stays, because a probe that is closed would reset whoever has connected meanwhile.
                socket.set_reuse_port(true)?;
                addr = local_addr(&socket)?;
            }
            sockets.push(socket.into());
        }
        Ok((addr, sockets))
    }

    fn listen(&self, bound: Self::Bound) -> io::Result<OsListener> {
        Ok(OsListener(TcpListener::from_std(bound)?))
    }

    fn release(&self, stream: OsStream) -> io::Result<Self::Parcel> {
        stream.0.into_std()
    }

    fn adopt(&self, parcel: Self::Parcel) -> io::Result<OsStream> {
        Ok(OsStream(TcpStream::from_std(parcel)?))
    }

    fn is_taken(&self, addr: SocketAddr) -> bool {
        // Bound and not listening, so that nobody can connect meanwhile.
        bound(addr, false).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    }

    async fn resolve(&self, name: &str, port: u16) -> io::Result<Resolved> {
        lookup::by_system(name, port).await
    }

    #[expect(clippy::disallowed_methods, reason = "the one home of the wall clock")]
    fn wall(&self) -> Duration {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
    }

    fn memory_resident(&self) -> Option<u64> {
        memory::resident()
    }

    fn memory_available(&self) -> Option<u64> {
        memory::available()
    }
}
