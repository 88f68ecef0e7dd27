//! [`Network`] over turmoil's sockets.
//!
//! What turmoil does not model: nobody can say what the peer has acknowledged. Segments are never glued or cut, so
//! that every byte counts as acknowledged once it is written.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use eddy_runtime::net::{Listener, Network, Stream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use turmoil::net::{TcpListener, TcpStream};

/// The network of the simulated host that it is used on.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimNetwork;

/// A simulated connection.
pub struct SimStream(TcpStream);

/// A worker's share of a listener: the workers of a host take turns at one.
pub struct SimListener(Rc<TcpListener>);

impl Stream for SimStream {
    fn acknowledged(&self) -> Option<bool> {
        Some(true)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl AsyncRead for SimStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for SimStream {
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

impl Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&self) -> io::Result<(SimStream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((SimStream(stream), peer))
    }
}

impl Network for SimNetwork {
    type Stream = SimStream;
    type Bound = Rc<TcpListener>;
    type Parcel = SimStream;
    type Listener = SimListener;

    async fn connect(&self, to: SocketAddr) -> io::Result<SimStream> {
        TcpStream::connect(to).await.map(SimStream)
    }

    async fn bind(&self, addr: SocketAddr, shares: u16) -> io::Result<(SocketAddr, Vec<Self::Bound>)> {
        // A simulated host has one address, and turmoil takes the wildcard for it.
        let everywhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), addr.port());
        let listener = Rc::new(TcpListener::bind(everywhere).await?);
        let addr = listener.local_addr()?;
        Ok((addr, (0..shares).map(|_| Rc::clone(&listener)).collect()))
    }

    fn listen(&self, bound: Self::Bound) -> io::Result<SimListener> {
        Ok(SimListener(bound))
    }

    fn release(&self, stream: SimStream) -> io::Result<SimStream> {
        Ok(stream)
    }

    fn adopt(&self, parcel: SimStream) -> io::Result<SimStream> {
        Ok(parcel)
    }

    async fn resolve(&self, name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(vec![SocketAddr::new(turmoil::lookup(name), port)])
    }

    fn wall(&self) -> Duration {
        turmoil::since_epoch().unwrap_or_default()
    }
}
