//! A peer: dials a responder as an initiator does, and speaks its side of the tunnel byte by byte.
//!
//! It is not Eddy's code. It keeps to the protocol, but it may allow few streams at once, and a scenario may have it break
//! the rules for a share of its requests. It stands for other implementations, such as Envoy's.

mod frame;
mod hpack;
mod replies;
mod session;

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use eddy_runtime::net::Network;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use self::frame::PREFACE;
use self::session::Session;
use super::conduct::Conduct;
use crate::claims::Claims;
use crate::fabric::{SimNetwork, SimStream, now};
use crate::journal::Journal;
use crate::ledger::Ledger;
use crate::scenario::{Identity, Peer};
use crate::slot::Slot;

/// The pause before a lost tunnel is dialed again.
const REDIAL: Duration = Duration::from_millis(200);
/// What a responder sends through an idle tunnel, and expects back.
const PING: &[u8; 5] = b"RPING";
/// The port on which responders accept tunnels.
const TUNNELS: u16 = 9001;
/// The longest answer to a handshake.
const ANSWER_MAX: usize = 8 << 10;

/// What all tunnels of a peer share.
pub(crate) struct Program {
    pub(crate) identity: Identity,
    pub(crate) peer: Peer,
    pub(crate) conduct: Rc<Conduct>,
    pub(crate) ledger: Rc<Ledger>,
    pub(crate) journal: Journal,
}

/// Holds the tunnels of a peer until its process ends.
pub(crate) async fn run(program: Rc<Program>, slot: Rc<Slot>, net: SimNetwork) {
    let open = Rc::new(Cell::new(0));
    for (upstream, count) in &program.peer.tunnels {
        // Names are looked up once: a peer does not follow DNS.
        let resolved = net.resolve(upstream, TUNNELS).await;
        let addresses = resolved.map(|found| found.addresses).unwrap_or_default();
        for address in addresses {
            for _ in 0..*count {
                let (program, slot) = (Rc::clone(&program), Rc::clone(&slot));
                let (net, open) = (net.clone(), Rc::clone(&open));
                tokio::task::spawn_local(hold(program, slot, net, open, address));
            }
        }
    }
    loop {
        claim(&slot, open.get());
        tokio::time::sleep(slot.look_every).await;
    }
}

/// Reports how many tunnels are up.
fn claim(slot: &Slot, tunnels: usize) {
    *slot.claims.borrow_mut() = Some(Claims {
        at: now(),
        tunnels,
        ..Claims::default()
    });
}

/// Keeps one tunnel up.
async fn hold(
    program: Rc<Program>,
    slot: Rc<Slot>,
    net: SimNetwork,
    open: Rc<Cell<usize>>,
    address: SocketAddr,
) {
    loop {
        // However a tunnel ends, the next one follows.
        let _ = tunnel(&program, &slot, &net, &open, address).await;
        tokio::time::sleep(REDIAL).await;
    }
}

/// Counts a tunnel while it is up.
struct Up<'a>(&'a Cell<usize>);

impl<'a> Up<'a> {
    fn new(open: &'a Cell<usize>) -> Self {
        open.set(open.get() + 1);
        Self(open)
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn tunnel(
    program: &Rc<Program>,
    slot: &Rc<Slot>,
    net: &SimNetwork,
    open: &Cell<usize>,
    address: SocketAddr,
) -> io::Result<()> {
    let mut stream = net.connect(address).await?;
    let mut ahead = handshake(&program.identity, &mut stream).await?;
    let _up = Up::new(open);
    idle(&mut stream, &mut ahead).await?;
    Session::new(Rc::clone(program), slot.id, &slot.name, ahead)
        .run(stream)
        .await
}

/// Asks for a tunnel; returns what follows the response.
async fn handshake(identity: &Identity, stream: &mut SimStream) -> io::Result<Vec<u8>> {
    let Identity {
        node,
        cluster,
        tenant,
    } = identity;
    let request = format!(
        "GET /reverse_connections/request HTTP/1.1\r\nhost: responder\r\n\
         x-envoy-reverse-tunnel-node-id: {node}\r\nx-envoy-reverse-tunnel-cluster-id: {cluster}\r\n\
         x-envoy-reverse-tunnel-tenant-id: {tenant}\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(end) = end {
            if !answer.starts_with(b"HTTP/1.1 200 ") {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            return Ok(answer.split_off(end + 4));
        }
        if answer.len() > ANSWER_MAX || stream.read_buf(&mut answer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Echoes pings until the preface of HTTP/2 has come.
async fn idle(stream: &mut SimStream, ahead: &mut Vec<u8>) -> io::Result<()> {
    loop {
        while ahead.starts_with(PING) {
            ahead.drain(..PING.len());
            stream.write_all(PING).await?;
        }
        if ahead.starts_with(PREFACE) {
            ahead.drain(..PREFACE.len());
            return Ok(());
        }
        let begun = [&PING[..], PREFACE]
            .into_iter()
            .any(|whole| whole.starts_with(ahead));
        if !begun {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if stream.read_buf(ahead).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
