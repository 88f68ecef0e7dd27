//! Who connects while a process takes its port is heard, and a second process there is refused.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test, with a thread of its own"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Sender, channel};

use eddy_runtime::net::os::OsNetwork;
use eddy_runtime::net::{Network, Sharing};

/// An address that nobody listens at.
fn free() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Connects as soon as somebody listens there, and reads one byte. Says when it has been refused once.
fn an_eager_client(addr: SocketAddr, refused: &Sender<()>) -> std::io::Result<()> {
    let mut stream = loop {
        match TcpStream::connect(addr) {
            Ok(stream) => break stream,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                let _ = refused.send(());
            }
            Err(error) => return Err(error),
        }
    };
    stream.read_exact(&mut [0])
}

#[tokio::test]
async fn a_connection_is_heard_however_early_it_comes() {
    for shares in [1, 3].repeat(150) {
        let addr = free();
        let (refused, trying) = channel();
        let client = std::thread::spawn(move || an_eager_client(addr, &refused));
        trying.recv().unwrap();
        let (_, bound) = OsNetwork.bind(addr, shares, Sharing::Alone).await.unwrap();
        let (socket, mut stream) = 'heard: loop {
            for socket in &bound {
                if let Ok((stream, _)) = socket.accept() {
                    break 'heard (socket, stream);
                }
            }
            assert!(!client.is_finished(), "{:?}", client.join());
        };
        assert_eq!(socket.local_addr().unwrap(), addr);
        stream.write_all(b"!").unwrap();
        client.join().unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_second_listener_is_refused_and_its_successor_is_not() {
    for shares in [1, 3] {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (addr, bound) = OsNetwork.bind(any, shares, Sharing::Alone).await.unwrap();
        assert_eq!(bound.len(), usize::from(shares));
        let refused = OsNetwork.bind(addr, shares, Sharing::Alone).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
        let (_, successor) = OsNetwork
            .bind(addr, shares, Sharing::WithPredecessor)
            .await
            .unwrap();
        assert_eq!(successor.len(), usize::from(shares));
        drop(bound);
        let refused = OsNetwork.bind(addr, shares, Sharing::Alone).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AddrInUse);
    }
}
