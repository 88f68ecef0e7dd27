//! Floods of connections on the tunnel port that never become a tunnel: an honest initiator connects within two seconds.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::descriptors;
use crate::kit::{Eddy, Options, Pair, beside, connect, get, monotonic, pause, stats, wait_for};

/// How many connections an attacker opens: more than two workers have places for by default.
const FLOOD: usize = 5_000;
/// How long an honest initiator may take.
const CONNECTED: Duration = Duration::from_secs(2);
/// The source address of honest initiators.
const HONEST: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// A connection from an address of our choice.
pub(crate) fn connect_from(source: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddrV4::new(source, 0).into())?;
    socket.connect_timeout(
        &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port).into(),
        Duration::from_secs(5),
    )?;
    Ok(socket.into())
}

/// Opens connections and holds them until it is told to stop.
struct Flood {
    opened: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Connections from `sources` in turn, each of which sends `first` and then nothing.
    fn start(port: u16, sources: Vec<Ipv4Addr>, first: &'static [u8]) -> Self {
        let needed = FLOOD + 2_000;
        assert_eq!(descriptors::raise(needed), needed, "file descriptors");
        let (opened, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, stopped) = (Arc::clone(&opened), Arc::clone(&stop));
        let thread = beside(move || {
            let mut held = Vec::new();
            for source in sources.into_iter().cycle() {
                if held.len() == FLOOD || stopped.load(Ordering::Relaxed) {
                    break;
                }
                let Ok(mut stream) = connect_from(source, port) else {
                    continue;
                };
                // A connection that has been closed already is one that the responder got rid of.
                let _ = stream.write_all(first);
                held.push(stream);
                count.fetch_add(1, Ordering::Relaxed);
            }
            while !stopped.load(Ordering::Relaxed) {
                pause(Duration::from_millis(10));
            }
        });
        Self {
            opened,
            stop,
            thread: Some(thread),
        }
    }

    fn await_opened(&self, connections: usize) {
        wait_for("the flood", || {
            (self.opened.load(Ordering::Relaxed) >= connections).then_some(())
        });
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One handshake by hand; how long it took until it was accepted.
fn handshake(port: u16, node: &str) -> Duration {
    let began = monotonic();
    let mut stream = connect(port);
    let request = format!(
        "GET /reverse_connections/request HTTP/1.1\r\nhost: x\r\n\
         x-envoy-reverse-tunnel-node-id: {node}\r\nx-envoy-reverse-tunnel-cluster-id: raw\r\n\
         x-envoy-reverse-tunnel-tenant-id: acme\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(
        &answer,
        b"HTTP/1.1 200 OK",
        "{}",
        String::from_utf8_lossy(&answer)
    );
    monotonic() - began
}

/// While the flood grows and while it is held, honest initiators get in, and clients are served.
fn initiators_connect_during(sources: Vec<Ipv4Addr>, first: &'static [u8], counter: &str) {
    let pair = Pair::with(Options {
        workers: 2,
        ..Options::default()
    });
    let flood = Flood::start(pair.tunnels, sources, first);
    for reached in [100, 1_000, 2_100, 3_000, 4_000, FLOOD] {
        flood.await_opened(reached);
        let took = handshake(pair.tunnels, &format!("raw-{reached}"));
        assert!(took < CONNECTED, "{took:?} at {reached} connections");
        pair.assert_good();
    }
    // A whole initiator: what it asks for when a dial fails would cost it the two seconds.
    let began = monotonic();
    let service = pair.service.port;
    let initiator = Eddy::with_config(
        "initiator",
        &format!(
            "node: {{id: late, cluster: edges}}\nworkers: 1\ntunnels: [\"rc://late:edges:acme@hub:1\"]\n\
             clusters: {{hub: {{hosts: [\"127.0.0.1:{}\"]}}, service: {{hosts: [\"127.0.0.1:{service}\"]}}}}\n\
             routes: [{{prefix: /routed, cluster: service}}]\n",
            pair.tunnels
        ),
    );
    wait_for("the late initiator", || {
        (stats(pair.responder_admin).get("r.nodes.late") == Some(&1)).then_some(())
    });
    let took = monotonic() - began;
    assert!(took < CONNECTED, "{took:?}");
    let counted = stats(pair.responder_admin)[&format!("reverse_tunnel.handshake.{counter}")];
    assert!(counted > 0, "{counter}: {counted}");
    let answer = get(pair.egress, "/routed", &[("x-node-id", "late")]);
    assert_eq!(answer.status, 200);
    pair.assert_good();
    drop((flood, initiator));
    pair.assert_good();
}

#[test]
fn silent_connections_from_one_source_keep_nobody_out() {
    let attacker = Ipv4Addr::new(127, 0, 0, 2);
    initiators_connect_during(vec![attacker], b"", "source_share");
}

#[test]
fn silent_connections_from_the_same_source_keep_nobody_out() {
    initiators_connect_during(vec![HONEST], b"", "source_share");
}

#[test]
fn silent_connections_from_many_sources_keep_nobody_out() {
    let attackers = (1..=250).map(|n| Ipv4Addr::new(127, 0, 1, n)).collect();
    initiators_connect_during(attackers, b"", "evicted");
}

#[test]
fn half_a_request_from_many_sources_keeps_nobody_out() {
    let attackers = (1..=250).map(|n| Ipv4Addr::new(127, 0, 1, n)).collect();
    initiators_connect_during(attackers, b"GET /reverse_connections/re", "evicted");
}

/// The end of a connection that the peer has closed; none while it is open.
fn ended(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let mut byte = [0];
    let ended = match stream.read(&mut byte) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false).unwrap();
    ended
}

#[test]
fn a_silent_peer_has_less_time_than_one_in_its_head() {
    let pair = Pair::with(Options {
        tunnels: "  first_byte_timeout: 300ms\n  handshake_timeout: 5m\n",
        ..Options::default()
    });
    let (mut silent, mut slow) = (connect(pair.tunnels), connect(pair.tunnels));
    slow.write_all(b"GET /rev").unwrap();
    wait_for("the silent peer's end", || ended(&mut silent).then_some(()));
    pair.assert_good();
    let rest = "erse_connections/request HTTP/1.1\r\nhost: x\r\n\
        x-envoy-reverse-tunnel-node-id: slow\r\nx-envoy-reverse-tunnel-cluster-id: raw\r\n\
        x-envoy-reverse-tunnel-tenant-id: acme\r\n\r\n";
    slow.write_all(rest.as_bytes()).unwrap();
    let mut answer = [0; 15];
    slow.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    assert_eq!(stats(pair.responder_admin)["reverse_tunnel.handshake.timeout"], 1);
    pair.assert_good();
}
