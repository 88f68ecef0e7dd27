//! Asks the kernel how many bytes of a connection the peer has not acknowledged, and whether the peer has closed it.
//!
//! `TCP_INFO` holds both too, but no maintained crate reads that without `unsafe` here or a C toolchain. The kernel's socket
//! diagnosis (`NETLINK_SOCK_DIAG`, which `ss` uses) returns it by the connection's addresses: a hash lookup, some
//! microseconds. It is asked after each handshake (wire.md 2.6), and while a PING is unanswered.

use std::cell::{Cell, RefCell};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h
const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const ENOENT: i32 = 2;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const NLMSGHDR_LEN: usize = 16;
const REQUEST_LEN: usize = NLMSGHDR_LEN + 56;
/// The sequence number in a `nlmsghdr`: behind length, type and flags.
const SEQUENCE_AT: usize = 8;
/// `inet_diag_msg`: family, state, timer, retransmissions, a 48-byte socket id, then expires, rqueue, wqueue.
const STATE_AT: usize = NLMSGHDR_LEN + 1;
const WQUEUE_AT: usize = NLMSGHDR_LEN + 4 + 48 + 8;
// linux/tcp_states.h
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;
/// The kernel answers within the send; the limit is for sandboxes that swallow the question.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(5);

/// A worker's door to the kernel's socket diagnosis.
struct Diagnosis {
    socket: Socket,
    sequence: u32,
}

thread_local! {
    /// Opened at the first question of a worker.
    static DIAGNOSIS: RefCell<Option<Diagnosis>> = const { RefCell::new(None) };
    /// That it cannot be opened was logged.
    static WARNED: Cell<bool> = const { Cell::new(false) };
}

/// What the kernel knows of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Diagnosed {
    /// Both ends are open; so many bytes were written and are not acknowledged.
    Open { unacknowledged: u32 },
    /// An end has been closed.
    Closing { unacknowledged: u32 },
    /// There is no such connection: it was reset.
    Gone,
}

impl Diagnosed {
    /// How many bytes were written and are not acknowledged.
    pub(super) const fn unacknowledged(self) -> Option<u32> {
        match self {
            Self::Open { unacknowledged } | Self::Closing { unacknowledged } => Some(unacknowledged),
            Self::Gone => None,
        }
    }
}

impl Diagnosis {
    fn open() -> Option<Self> {
        let (family, protocol) = (Domain::from(AF_NETLINK), Protocol::from(NETLINK_SOCK_DIAG));
        let socket = Socket::new(family, Type::DGRAM, Some(protocol)).ok()?;
        socket.set_read_timeout(Some(ANSWER_TIMEOUT)).ok()?;
        Some(Self { socket, sequence: 0 })
    }

    fn ask(&mut self, local: SocketAddr, peer: SocketAddr) -> Option<Diagnosed> {
        self.sequence = self.sequence.wrapping_add(1);
        self.socket
            .write_all(&request(local, peer, self.sequence)?)
            .ok()?;
        let mut answer = [0; 512];
        loop {
            let n = self.socket.read(&mut answer).ok()?;
            let answer = &answer[..n];
            // The answer to an earlier question may have come too late for it.
            if answer.get(SEQUENCE_AT..SEQUENCE_AT + 4)? == self.sequence.to_ne_bytes() {
                return parse(answer);
            }
        }
    }
}

/// What the kernel knows of a connection; `None` if it does not answer, for example in a sandbox without netlink.
pub(super) fn diagnose(local: SocketAddr, peer: SocketAddr) -> Option<Diagnosed> {
    DIAGNOSIS.with_borrow_mut(|diagnosis| {
        if diagnosis.is_none() {
            *diagnosis = Diagnosis::open();
            if diagnosis.is_none() && !WARNED.replace(true) {
                tracing::warn!(
                    "cannot open a netlink socket for socket diagnosis: on slow links, large uploads may end their tunnel"
                );
            }
        }
        diagnosis.as_mut()?.ask(local, peer)
    })
}

fn request(local: SocketAddr, peer: SocketAddr, sequence: u32) -> Option<Vec<u8>> {
    let (family, from, to) = match (local.ip(), peer.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let wide = |ip: std::net::Ipv4Addr| {
                let mut bytes = [0; 16];
                bytes[..4].copy_from_slice(&ip.octets());
                bytes
            };
            (AF_INET, wide(from), wide(to))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => (AF_INET6, from.octets(), to.octets()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let mut bytes = Vec::with_capacity(REQUEST_LEN);
    bytes.extend(u32::try_from(REQUEST_LEN).ok()?.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend(NLM_F_REQUEST.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]); // port id
    bytes.extend([family, IPPROTO_TCP, 0, 0]);
    bytes.extend(u32::MAX.to_ne_bytes()); // any state
    bytes.extend(local.port().to_be_bytes());
    bytes.extend(peer.port().to_be_bytes());
    bytes.extend(from);
    bytes.extend(to);
    bytes.extend(0u32.to_ne_bytes()); // any interface
    bytes.extend([0xff; 8]); // no cookie
    Some(bytes)
}

fn parse(answer: &[u8]) -> Option<Diagnosed> {
    let four = |at: usize| answer.get(at..at + 4)?.try_into().ok();
    match u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?) {
        SOCK_DIAG_BY_FAMILY => {
            let unacknowledged = u32::from_ne_bytes(four(WQUEUE_AT)?);
            Some(match *answer.get(STATE_AT)? {
                ESTABLISHED => Diagnosed::Open { unacknowledged },
                // Where there is no such connection, the kernel finds the listener of its address.
                LISTEN => Diagnosed::Gone,
                _ => Diagnosed::Closing { unacknowledged },
            })
        }
        NLMSG_ERROR if i32::from_ne_bytes(four(NLMSGHDR_LEN)?) == -ENOENT => Some(Diagnosed::Gone),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn bytes_in_the_kernel_of_the_peer_are_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut writer, peer) = listener.accept().unwrap();
        let local = writer.local_addr().unwrap();
        writer.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let soon = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            diagnose(local, peer) == Some(Diagnosed::Open { unacknowledged: 0 })
        });
        assert!(soon, "loopback acknowledges at once");

        // Nobody reads: at some point the windows are full and bytes stay unacknowledged.
        writer.set_nonblocking(true).unwrap();
        while writer.write(&[0; 65536]).is_ok() {}
        let full = |known| matches!(known, Some(Diagnosed::Open { unacknowledged: 1.. }));
        assert!(full(diagnose(local, peer)));
        reader.shutdown(std::net::Shutdown::Write).unwrap();
        let closing = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            matches!(
                diagnose(local, peer),
                Some(Diagnosed::Closing { unacknowledged: 1.. })
            )
        });
        assert!(closing);
        // Bytes that nobody has read turn the end of a connection into a reset.
        drop(reader);
        let gone = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(1));
            diagnose(local, peer) == Some(Diagnosed::Gone)
        });
        assert!(gone);
    }

    #[test]
    fn an_unknown_connection_is_gone() {
        let nobody = "127.0.0.1:1".parse().unwrap();
        for _ in 0..3 {
            assert_eq!(diagnose(nobody, nobody), Some(Diagnosed::Gone));
        }
    }
}
