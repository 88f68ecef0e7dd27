//! Connections to the services of one cluster: a pool per host for HTTP/1.1, one shared connection for HTTP/2.
//!
//! Each worker has its own, so that no lock is taken for a request.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use eddy_core::router::Refusal;
use eddy_core::time::Instant;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::AbortHandle;

use super::addresses::Addresses;
use crate::clock::Clock;
use crate::config::{ClusterConfig, HostPort, Protocol, ServicesConfig};
use crate::http::body::Question;
use crate::http::{
    BUFFER_BYTES_MAX, LocalExec, SEND_BYTES_MAX, SERVICE_CONNECTION_WINDOW, SERVICE_HEADER_LIST_BYTES_MAX,
    SERVICE_STREAM_WINDOW,
};
use crate::net::Network;

/// How many connections are tried for one request. Only one of which nothing was sent is tried again.
const TRIES_MAX: usize = 3;

/// How long a shared HTTP/2 connection may be silent under requests before it is asked, and how long the answer
/// may take: one that is dead would swallow every request.
const SERVICE_PING: Duration = Duration::from_secs(5);

/// Why a service gave no answer.
#[derive(Debug)]
pub(super) enum ServiceError {
    /// No connection to any host.
    Connect(io::Error),
    /// The connection broke, or what came is no HTTP.
    Http(hyper::Error),
}

impl ServiceError {
    /// Whose fault it is, as the client is told.
    pub(super) fn refusal(&self) -> Refusal {
        match self {
            Self::Connect(_) => Refusal::ServiceUnreachable,
            Self::Http(error) => refusal(error),
        }
    }
}

/// Whether a service broke HTTP or broke the connection.
pub(super) fn refusal(error: &hyper::Error) -> Refusal {
    let is_protocol = error.is_parse() || {
        let mut source = std::error::Error::source(error);
        let mut found = false;
        while let Some(cause) = source {
            // A stream or connection that this end has ended, because of what came on it.
            found |= cause
                .downcast_ref::<h2::Error>()
                .is_some_and(h2::Error::is_library);
            // The body's framing: what hyper cannot decode has one of these kinds, the end of a connection has another.
            found |= cause.downcast_ref::<io::Error>().is_some_and(|error| {
                matches!(
                    error.kind(),
                    io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
                )
            });
            source = cause.source();
        }
        found
    };
    if is_protocol {
        Refusal::ServiceProtocol
    } else {
        Refusal::ServiceReset
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Http(error) => write!(f, "{error}"),
        }
    }
}

/// The services of one cluster as one worker reaches them.
pub(super) struct Services<N: Network> {
    net: N,
    clock: Clock,
    config: ServicesConfig,
    protocol: Protocol,
    hosts: Vec<Rc<Host>>,
    turn: Cell<usize>,
}

/// One host and the connections to it that are free.
struct Host {
    addresses: Addresses,
    idle: RefCell<Vec<Idle>>,
    shared: RefCell<Option<http2::SendRequest<Question>>>,
    sweeping: Cell<bool>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// An HTTP/1.1 connection to a service. Dropping it closes it at once, also while the service takes nothing of what is to be sent:
/// the HTTP library would hold those bytes until it does.
struct Connection {
    sender: http1::SendRequest<Question>,
    task: AbortHandle,
}

impl Connection {
    fn run(
        sender: http1::SendRequest<Question>,
        connection: impl Future<Output = Result<(), hyper::Error>> + 'static,
    ) -> Self {
        // Its end shows at the sender.
        let task = tokio::task::spawn_local(async move { drop(connection.await) });
        Self {
            sender,
            task: task.abort_handle(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Gives a connection back once its answer has been read to the end.
pub(super) struct Return {
    to: Weak<Host>,
    connection: Connection,
    clock: Clock,
    config: ServicesConfig,
}

impl<N: Network> Services<N> {
    pub(super) fn new(
        net: N,
        clock: Clock,
        config: ServicesConfig,
        dns_refresh: Duration,
        cluster: &ClusterConfig,
    ) -> Self {
        let host = |at: &HostPort| {
            Rc::new(Host {
                addresses: Addresses::new(at.clone(), dns_refresh),
                idle: RefCell::default(),
                shared: RefCell::default(),
                sweeping: Cell::default(),
            })
        };
        let hosts = cluster.hosts.iter().map(host).collect();
        Self {
            net,
            clock,
            config,
            protocol: cluster.protocol,
            hosts,
            turn: Cell::default(),
        }
    }

    /// What the services speak.
    pub(super) const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Sends a request to the next host, on a connection that is free or new.
    pub(super) async fn send(
        &self,
        request: Request<Question>,
    ) -> Result<(Response<Incoming>, Option<Return>), ServiceError> {
        match self.protocol {
            Protocol::H1 => self
                .send_h1(request)
                .await
                .map(|(answer, back)| (answer, Some(back))),
            Protocol::H2 => self.send_h2(request).await.map(|answer| (answer, None)),
        }
    }

    async fn send_h1(
        &self,
        mut request: Request<Question>,
    ) -> Result<(Response<Incoming>, Return), ServiceError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (host, mut connection) = self.connection_h1().await.map_err(ServiceError::Connect)?;
            match connection.sender.try_send_request(request).await {
                Ok(answer) => {
                    let (clock, config) = (self.clock, self.config.clone());
                    return Ok((
                        answer,
                        Return {
                            to: Rc::downgrade(&host),
                            connection,
                            clock,
                            config,
                        },
                    ));
                }
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if tries < TRIES_MAX => request = unsent,
                    Some(_) | None => return Err(ServiceError::Http(failed.into_error())),
                },
            }
        }
    }

    async fn send_h2(&self, mut request: Request<Question>) -> Result<Response<Incoming>, ServiceError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut sender = self.connection_h2().await.map_err(ServiceError::Connect)?;
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok(answer),
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) if tries < TRIES_MAX => request = unsent,
                    Some(_) | None => return Err(ServiceError::Http(failed.into_error())),
                },
            }
        }
    }

    /// The hosts, beginning with the one whose turn it is.
    fn in_turn(&self) -> impl Iterator<Item = &Rc<Host>> {
        let first = self.turn.get();
        self.turn.set((first + 1) % self.hosts.len().max(1));
        let (before, from) = self.hosts.split_at(first.min(self.hosts.len()));
        from.iter().chain(before)
    }

    async fn connection_h1(&self) -> io::Result<(Rc<Host>, Connection)> {
        let mut error = no_host();
        for host in self.in_turn() {
            if let Some(connection) = host.take(self.clock.now(), &self.config) {
                return Ok((Rc::clone(host), connection));
            }
            match self.connect_h1(host).await {
                Ok(connection) => return Ok((Rc::clone(host), connection)),
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    async fn connect_h1(&self, host: &Host) -> io::Result<Connection> {
        let stream = self.connect(host).await?;
        let shaken = http1::Builder::new()
            .max_buf_size(BUFFER_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await;
        let (sender, connection) = shaken.map_err(io::Error::other)?;
        let mut connection = Connection::run(sender, connection);
        connection.sender.ready().await.map_err(io::Error::other)?;
        Ok(connection)
    }

    async fn connection_h2(&self) -> io::Result<http2::SendRequest<Question>> {
        let mut error = no_host();
        for host in self.in_turn() {
            let shared = host.shared.borrow().clone();
            if let Some(sender) = shared.filter(|sender| !sender.is_closed()) {
                return Ok(sender);
            }
            match self.connect_h2(host).await {
                Ok(sender) => {
                    *host.shared.borrow_mut() = Some(sender.clone());
                    return Ok(sender);
                }
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }

    async fn connect_h2(&self, host: &Host) -> io::Result<http2::SendRequest<Question>> {
        let stream = self.connect(host).await?;
        let mut client = http2::Builder::new(LocalExec);
        client
            .timer(TokioTimer::new())
            .max_header_list_size(SERVICE_HEADER_LIST_BYTES_MAX)
            .initial_stream_window_size(SERVICE_STREAM_WINDOW)
            .initial_connection_window_size(SERVICE_CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BYTES_MAX)
            .keep_alive_interval(SERVICE_PING)
            .keep_alive_timeout(SERVICE_PING);
        let shaken = client.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = shaken.map_err(io::Error::other)?;
        tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(sender)
    }

    async fn connect(&self, host: &Host) -> io::Result<N::Stream> {
        let resolve = async |name: &str, port| self.net.resolve(name, port).await;
        let connect = async {
            let addresses = host.addresses.get(self.clock, &resolve).await?;
            let error = match self.connect_to(&addresses).await {
                Ok(stream) => return Ok(stream),
                Err(error) => error,
            };
            match host.addresses.others(self.clock, &addresses, &resolve).await {
                Some(others) => self.connect_to(&others).await,
                None => Err(error),
            }
        };
        let limit = tokio::time::timeout(self.config.connect_timeout, connect);
        limit
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// The first connection that can be opened, in the order of the addresses.
    async fn connect_to(&self, addresses: &[SocketAddr]) -> io::Result<N::Stream> {
        let mut error = no_host();
        for addr in addresses {
            match self.net.connect(*addr).await {
                Ok(stream) => return Ok(stream),
                Err(failed) => error = failed,
            }
        }
        Err(error)
    }
}

fn no_host() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the cluster has no address")
}

impl Host {
    /// The connection that was used last and can be used again. The connections are in the order of their last use, so that
    /// only those that are expired or closed are looked at before it.
    fn take(&self, now: Instant, config: &ServicesConfig) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        let expired = idle.partition_point(|c| now - c.since >= config.idle_timeout);
        idle.drain(..expired);
        for at in (0..idle.len()).rev() {
            if idle[at].connection.sender.is_closed() {
                idle.remove(at);
            } else if idle[at].connection.sender.is_ready() {
                return Some(idle.remove(at).connection);
            }
        }
        None
    }
}

impl Return {
    /// The answer has been read: the connection is free for the next request.
    pub(super) fn give_back(self) {
        let Some(host) = self.to.upgrade() else {
            return;
        };
        let mut idle = host.idle.borrow_mut();
        if self.connection.sender.is_closed()
            || idle.len() >= usize::try_from(self.config.max_idle).unwrap_or(0)
        {
            return;
        }
        idle.push(Idle {
            connection: self.connection,
            since: self.clock.now(),
        });
        drop(idle);
        if !host.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(self.to, self.clock, self.config));
        }
    }
}

/// Closes connections that nobody has used for a while, until there are none.
async fn sweep(host: Weak<Host>, clock: Clock, config: ServicesConfig) {
    loop {
        tokio::time::sleep(config.idle_timeout).await;
        let Some(host) = host.upgrade() else {
            return;
        };
        let now = clock.now();
        let mut idle = host.idle.borrow_mut();
        idle.retain(|c| !c.connection.sender.is_closed() && now - c.since < config.idle_timeout);
        if idle.is_empty() {
            host.sweeping.set(false);
            return;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    const CONFIG: ServicesConfig = ServicesConfig {
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(60),
        max_idle: 10,
    };

    fn at(seconds: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(seconds))
    }

    fn host() -> Host {
        let name = HostPort {
            host: "service".into(),
            port: 1,
        };
        Host {
            addresses: Addresses::new(name, Duration::from_secs(30)),
            idle: RefCell::default(),
            shared: RefCell::default(),
            sweeping: Cell::default(),
        }
    }

    /// Adds an idle connection; returns the service's end.
    async fn add(host: &Host, since: Instant) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(64);
        let (sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
        let mut connection = Connection::run(sender, connection);
        connection.sender.ready().await.unwrap();
        host.idle.borrow_mut().push(Idle { connection, since });
        theirs
    }

    #[tokio::test(flavor = "local")]
    async fn takes_the_newest_open_connection() {
        let host = host();
        let _oldest = add(&host, at(1)).await;
        let _open = add(&host, at(2)).await;
        drop(add(&host, at(3)).await);
        tokio::task::yield_now().await;
        assert!(host.take(at(4), &CONFIG).is_some());
        assert_eq!(
            host.idle.borrow().len(),
            1,
            "the closed connection is gone, the oldest is kept"
        );
        assert_eq!(host.idle.borrow()[0].since, at(1));
    }

    #[tokio::test(flavor = "local")]
    async fn takes_nothing_that_was_idle_for_too_long() {
        let host = host();
        let _expired = add(&host, at(1)).await;
        let _fresh = add(&host, at(2)).await;
        assert!(host.take(at(61), &CONFIG).is_some());
        assert!(host.take(at(61), &CONFIG).is_none());
        assert!(host.idle.borrow().is_empty(), "the expired connection is closed");
    }
}
