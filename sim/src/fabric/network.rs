//! [`Network`] over turmoil's sockets and the [`Fabric`] around them.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use eddy_runtime::net::{Listener, Network, Resolved, Sharing};
use turmoil::net::{TcpListener, TcpStream};

use super::connection::{Connection, End, Side};
use super::flow::Flow;
use super::stream::SimStream;
use super::{ConnectionId, Fabric, NetEvent, ProcessId, now};

/// The network as one process sees it.
#[derive(Clone)]
pub struct SimNetwork {
    fabric: Fabric,
    process: ProcessId,
    address: IpAddr,
}

/// The first port of a worker's own door.
const FIRST_DOOR: u16 = 30_000;

/// A worker's share of a listener: the workers of a process take turns at one. A worker of several also has a door of its
/// own, so that an observer can choose who serves a request.
pub struct SimListener {
    share: Share,
    net: SimNetwork,
}

/// What a worker listens to, before it does.
pub struct Share {
    common: Rc<TcpListener>,
    door: Option<TcpListener>,
}

impl SimNetwork {
    /// The network of a process on the host that has this address.
    pub const fn new(fabric: Fabric, process: ProcessId, address: IpAddr) -> Self {
        Self {
            fabric,
            process,
            address,
        }
    }

    /// The same network from another address.
    pub(crate) fn at(&self, address: IpAddr) -> Self {
        Self {
            address,
            ..self.clone()
        }
    }

    /// The address at which one worker of a process accepts, of those that share an address.
    pub(crate) fn door(&self, shared: SocketAddr, worker: u16) -> SocketAddr {
        let port = self.fabric.door(shared.ip(), shared.port(), worker);
        SocketAddr::new(shared.ip(), port.unwrap_or_else(|| shared.port()))
    }

    /// Opens a listener that is not shared.
    ///
    /// # Errors
    ///
    /// The port is taken.
    pub async fn listen_at(&self, port: u16) -> io::Result<SimListener> {
        let (_, shares) = self
            .bind(SocketAddr::from(([0, 0, 0, 0], port)), 1, Sharing::Alone)
            .await?;
        let share = shares.into_iter().next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        self.listen(share)
    }

    fn attach(&self, stream: TcpStream, side: Side) -> io::Result<SimStream> {
        let (local, peer) = (stream.local_addr()?, stream.peer_addr()?);
        let pair = match side {
            Side::Client => (local, peer),
            Side::Server => (peer, local),
        };
        let mut state = self.fabric.state();
        let known = state.pairs.get(&pair).copied().filter(|id| {
            let connection = state.connections.get(id);
            connection.is_some_and(|connection| connection.end(side) == End::Coming)
        });
        let id = known.unwrap_or_else(|| {
            state.count += 1;
            let id = ConnectionId(state.count);
            let flow = |from: SocketAddr, to: SocketAddr| {
                let (from, to) = (from.ip(), to.ip());
                let back = *state.paths.conditions(to, from).latency.end();
                Flow::new(back, state.paths.condition(from, to))
            };
            let flows = [flow(pair.0, pair.1), flow(pair.1, pair.0)];
            state
                .connections
                .insert(id, Connection::new(pair.0, pair.1, now(), flows));
            state.pairs.insert(pair, id);
            id
        });
        if let Some(connection) = state.connections.get_mut(&id) {
            connection.set_end(side, End::Open(self.process.0));
        }
        state.events.push((now(), NetEvent::Opened(id, side)));
        let conditions = (
            state.paths.conditions(peer.ip(), local.ip()),
            state.paths.conditions(local.ip(), peer.ip()),
        );
        let seed =
            state.seed ^ (id.0 << 1 | u64::from(side == Side::Server)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        drop(state);
        Ok(SimStream::new(
            self.fabric.clone(),
            id,
            side,
            stream,
            conditions,
            seed,
        ))
    }

    /// Waits until the paths to and from a host are open.
    async fn open_path(&self, to: IpAddr) {
        poll_fn(|cx| {
            let mut state = self.fabric.state();
            if state.paths.are_open(self.address, to) {
                return Poll::Ready(());
            }
            state.paths.wait(cx.waker());
            Poll::Pending
        })
        .await;
    }

    fn is_open(&self, to: IpAddr) -> bool {
        self.fabric.state().paths.are_open(self.address, to)
    }
}

impl Fabric {
    fn door(&self, host: IpAddr, port: u16, worker: u16) -> Option<u16> {
        self.state().doors.get(&(host, port, worker)).copied()
    }

    /// The port of a worker's own door, which stays the same when its process is started again.
    fn make_door(&self, host: IpAddr, port: u16, worker: u16) -> u16 {
        let doors = &mut self.state().doors;
        let next = FIRST_DOOR + u16::try_from(doors.len()).unwrap_or(u16::MAX - FIRST_DOOR);
        *doors.entry((host, port, worker)).or_insert(next)
    }
}

/// When the kernel sends the SYN again: after 1 s, then after twice as long each time (tcp(7), `tcp_syn_retries`).
fn next_syn(started: Duration, now: Duration) -> Duration {
    let mut after = Duration::from_secs(1);
    while started + after < now {
        after = after * 2 + Duration::from_secs(1);
    }
    started + after
}

impl Listener for SimListener {
    type Stream = SimStream;

    async fn accept(&self) -> io::Result<(SimStream, SocketAddr)> {
        let Share { common, door } = &self.share;
        let (stream, peer) = match door {
            None => common.accept().await?,
            Some(door) => tokio::select! {
                biased;
                accepted = common.accept() => accepted?,
                accepted = door.accept() => accepted?,
            },
        };
        Ok((self.net.attach(stream, Side::Server)?, peer))
    }
}

impl Network for SimNetwork {
    type Stream = SimStream;
    type Bound = Share;
    type Parcel = SimStream;
    type Listener = SimListener;

    async fn connect(&self, to: SocketAddr) -> io::Result<SimStream> {
        let dialing = NetEvent::Dialing {
            process: self.process,
            to,
        };
        let started = now();
        self.fabric.state().events.push((started, dialing));
        loop {
            if !self.is_open(to.ip()) {
                self.open_path(to.ip()).await;
                let again = next_syn(started, now());
                tokio::time::sleep(again.saturating_sub(now())).await;
                continue;
            }
            match TcpStream::connect(to).await {
                // Real SYN-ACKs take the path back.
                Ok(stream) if self.is_open(to.ip()) => return self.attach(stream, Side::Client),
                Ok(_) => {}
                // turmoil refuses what a cut swallows.
                Err(_) if !self.is_open(to.ip()) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// No two simulated processes share an address.
    async fn bind(
        &self,
        addr: SocketAddr,
        shares: u16,
        _: Sharing,
    ) -> io::Result<(SocketAddr, Vec<Self::Bound>)> {
        // A simulated host has one address, and turmoil takes the wildcard for it.
        let everywhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), addr.port());
        let common = Rc::new(TcpListener::bind(everywhere).await?);
        let addr = common.local_addr()?;
        let mut bound = Vec::new();
        for worker in 0..shares {
            let door = if shares > 1 {
                let port = self.fabric.make_door(self.address, addr.port(), worker);
                Some(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?)
            } else {
                None
            };
            let common = Rc::clone(&common);
            bound.push(Share { common, door });
        }
        Ok((addr, bound))
    }

    fn listen(&self, share: Share) -> io::Result<SimListener> {
        let net = self.clone();
        Ok(SimListener { share, net })
    }

    fn release(&self, stream: SimStream) -> io::Result<SimStream> {
        Ok(stream)
    }

    fn adopt(&self, parcel: SimStream) -> io::Result<SimStream> {
        Ok(parcel)
    }

    /// Hosts of a simulation share no addresses.
    fn is_taken(&self, _addr: SocketAddr) -> bool {
        false
    }

    async fn resolve(&self, name: &str, port: u16) -> io::Result<Resolved> {
        let found = self.fabric.resolve(name);
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no such name"));
        }
        let addresses = found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        Ok(Resolved::new(addresses, None))
    }

    fn wall(&self) -> Duration {
        turmoil::since_epoch().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syn_is_sent_again_after_1_3_7_seconds() {
        let (s, ms) = (Duration::from_secs, Duration::from_millis);
        assert_eq!(next_syn(s(5), ms(5001)), s(6));
        assert_eq!(next_syn(s(5), ms(6001)), s(8));
        assert_eq!(next_syn(s(5), ms(8001)), s(12));
    }
}
