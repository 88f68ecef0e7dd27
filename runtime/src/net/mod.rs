//! The only door to the outside: sockets, names and the wall clock.
//!
//! Everything above is generic over [`Network`]; the operating system's is [`os::OsNetwork`], a simulation
//! brings its own. Monotonic time is not here: it is tokio's ([`crate::clock`]).

pub(crate) mod counted;
mod lookup;
mod memory;
pub mod os;
mod outq;
pub(crate) mod pass;
pub mod prefixed;
pub mod tunnel_io;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

/// What [`Stream::give_up_after`] is told of a tunnel: above all that the keepalives take by default, so that they, who say
/// why, speak first.
pub(crate) const BACKSTOP: Duration = Duration::from_secs(15);

/// How many unsent bytes the kernel takes from a tunnel at most: what a PING waits for beside the bytes in flight, and a
/// few segments, so that the link never idles (tcp(7), `TCP_NOTSENT_LOWAT`).
pub(crate) const UNSENT_MAX: u32 = 16 << 10;

/// What this end's kernel knows of a connection; it stays valid while another owner has the stream.
pub trait Meter: 'static {
    /// How many of the written bytes the peer's kernel has not acknowledged; `None` where that is unknown.
    fn unacknowledged(&self) -> Option<u64>;

    /// Whether the peer is known to have closed its end, also if bytes in front of that are still to be read.
    fn is_peer_closed(&self) -> bool;
}

/// One connection.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// See [`Stream::meter`].
    type Meter: Meter;

    /// The account of what is under way.
    fn meter(&self) -> Self::Meter;

    /// Has the kernel take no more than about so many bytes ahead of what it can send. No effect where that is unknown.
    fn limit_unsent(&self, bytes: u32);

    /// Has the kernel end the connection when something that was sent stays unacknowledged for so long, as a backstop of
    /// the keepalives above. No effect where that is unknown.
    fn give_up_after(&self, limit: Duration);

    /// Has the kernel drop what the peer has not read when the stream is closed, and tell it so. No effect where that is
    /// unknown.
    fn reset_on_close(&self) {}

    /// This end's address.
    ///
    /// # Errors
    ///
    /// Those of the operating system, for a connection that is gone.
    fn local_addr(&self) -> io::Result<SocketAddr>;
}

/// One worker's share of a listening address.
pub trait Listener: 'static {
    /// What it accepts.
    type Stream: Stream;

    /// The next connection and its peer.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Stream, SocketAddr)>>;
}

/// With whom a listener shares its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// With nobody: another process there is an error.
    Alone,
    /// With a process that is about to go: connections come to both until it has closed.
    WithPredecessor,
}

/// What a name stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Its addresses, sorted, each once.
    pub addresses: Vec<SocketAddr>,
    /// How long that holds, if the answer says so.
    pub fresh_for: Option<Duration>,
    /// Whether it has no other. If not, these are all of one family, and nobody could tell the other's.
    pub is_whole: bool,
}

impl Resolved {
    /// These addresses, and no other.
    pub fn new(mut addresses: Vec<SocketAddr>, fresh_for: Option<Duration>) -> Self {
        addresses.sort();
        addresses.dedup();
        Self {
            addresses,
            fresh_for,
            is_whole: true,
        }
    }
}

/// The outside world.
pub trait Network: Clone + 'static {
    /// A connection.
    type Stream: Stream;
    /// An address that is bound, but not yet listened to by a worker.
    type Bound: 'static;
    /// What travels between workers in place of a stream.
    type Parcel: Send + 'static;
    /// A worker's listener.
    type Listener: Listener<Stream = Self::Stream>;

    /// Connects, without a timeout of its own.
    fn connect(&self, to: SocketAddr) -> impl Future<Output = io::Result<Self::Stream>>;

    /// Binds an address once per worker; connections spread over the `shares`. Also says the address, which
    /// matters where the port asked for was 0.
    ///
    /// # Errors
    ///
    /// The address is in use, not ours, or not permitted.
    fn bind(
        &self,
        addr: SocketAddr,
        shares: u16,
        sharing: Sharing,
    ) -> impl Future<Output = io::Result<(SocketAddr, Vec<Self::Bound>)>>;

    /// Starts accepting, on the worker that is to own what comes.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    fn listen(&self, bound: Self::Bound) -> io::Result<Self::Listener>;

    /// Lets go of a stream, so that it can be sent to another worker.
    ///
    /// # Errors
    ///
    /// Those of the operating system; the stream is closed.
    fn release(&self, stream: Self::Stream) -> io::Result<Self::Parcel>;

    /// Takes a stream from another worker.
    ///
    /// # Errors
    ///
    /// Those of the operating system; the stream is closed.
    fn adopt(&self, parcel: Self::Parcel) -> io::Result<Self::Stream>;

    /// Whether somebody listens on an address of this machine.
    fn is_taken(&self, addr: SocketAddr) -> bool;

    /// Every address of a name.
    fn resolve(&self, name: &str, port: u16) -> impl Future<Output = io::Result<Resolved>>;

    /// Time since 1970 by the wall clock, for people and for the handshake's initiation time.
    fn wall(&self) -> Duration;

    /// The memory that this process has resident, in bytes; `None` where that is unknown.
    fn memory_resident(&self) -> Option<u64> {
        None
    }

    /// The memory that this process may use, in bytes; `None` where that is unknown.
    fn memory_available(&self) -> Option<u64> {
        None
    }
}
