//! Wire rule 1 of the responder: nothing follows the answer until it is acknowledged, and a little later.
//!
//! On loopback every byte is acknowledged at once, so this network says when.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use eddy_runtime::clock::Clock;
use eddy_runtime::config::Config;
use eddy_runtime::net::os::{OsListener, OsNetwork, OsStream};
use eddy_runtime::net::{Listener, Meter, Network, Resolved, Sharing, Stream};
use eddy_runtime::responder::{self, Start};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// What the kernel says of every connection.
type Acknowledged = Arc<AtomicBool>;

#[derive(Clone)]
struct Slow(OsNetwork, Acknowledged);

struct SlowListener(OsListener, Acknowledged);

struct SlowStream(OsStream, Acknowledged);

struct SlowMeter(Acknowledged);

impl Meter for SlowMeter {
    fn unacknowledged(&self) -> Option<u64> {
        Some(u64::from(!self.0.load(Ordering::SeqCst)))
    }

    fn is_peer_closed(&self) -> bool {
        false
    }
}

impl Stream for SlowStream {
    type Meter = SlowMeter;

    fn meter(&self) -> SlowMeter {
        SlowMeter(Arc::clone(&self.1))
    }

    fn limit_unsent(&self, bytes: u32) {
        self.0.limit_unsent(bytes);
    }

    fn give_up_after(&self, limit: Duration) {
        self.0.give_up_after(limit);
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

impl AsyncRead for SlowStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for SlowStream {
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

impl Listener for SlowListener {
    type Stream = SlowStream;

    async fn accept(&self) -> io::Result<(SlowStream, SocketAddr)> {
        let (stream, peer) = self.0.accept().await?;
        Ok((SlowStream(stream, Arc::clone(&self.1)), peer))
    }
}

impl Network for Slow {
    type Stream = SlowStream;
    type Bound = <OsNetwork as Network>::Bound;
    type Parcel = <OsNetwork as Network>::Parcel;
    type Listener = SlowListener;

    async fn connect(&self, to: SocketAddr) -> io::Result<SlowStream> {
        Ok(SlowStream(self.0.connect(to).await?, Arc::clone(&self.1)))
    }

    async fn bind(
        &self,
        addr: SocketAddr,
        shares: u16,
        sharing: Sharing,
    ) -> io::Result<(SocketAddr, Vec<Self::Bound>)> {
        self.0.bind(addr, shares, sharing).await
    }

    fn listen(&self, bound: Self::Bound) -> io::Result<SlowListener> {
        Ok(SlowListener(self.0.listen(bound)?, Arc::clone(&self.1)))
    }

    fn release(&self, stream: SlowStream) -> io::Result<Self::Parcel> {
        self.0.release(stream.0)
    }

    fn adopt(&self, parcel: Self::Parcel) -> io::Result<SlowStream> {
        Ok(SlowStream(self.0.adopt(parcel)?, Arc::clone(&self.1)))
    }

    fn is_taken(&self, addr: SocketAddr) -> bool {
        self.0.is_taken(addr)
    }

    async fn resolve(&self, name: &str, port: u16) -> io::Result<Resolved> {
        self.0.resolve(name, port).await
    }

    fn wall(&self) -> Duration {
        self.0.wall()
    }
}

const REQUEST: &[u8] = b"GET /reverse_connections/request HTTP/1.1\r\n\
    x-envoy-reverse-tunnel-node-id: n\r\nx-envoy-reverse-tunnel-cluster-id: c\r\n\
    x-envoy-reverse-tunnel-tenant-id: t\r\n\r\n";

/// Reads what comes within a time.
async fn within(stream: &mut TcpStream, time: Duration) -> Vec<u8> {
    let mut buffer = vec![0; 1024];
    match tokio::time::timeout(time, stream.read(&mut buffer)).await {
        Ok(n) => buffer[..n.unwrap()].to_vec(),
        Err(_) => Vec::new(),
    }
}

async fn ask(egress: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(egress).await.unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-node-id: n\r\n\r\n")
        .await
        .unwrap();
    client
}

/// The status of an answer that comes at once.
async fn status(egress: SocketAddr) -> u16 {
    let mut client = ask(egress).await;
    let answer = String::from_utf8(within(&mut client, Duration::from_secs(2)).await).unwrap();
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

/// `settle` in the configuration below.
const SETTLE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn nothing_follows_the_answer_until_it_is_acknowledged_and_a_little_later() {
    let yaml = "node: {id: hub, cluster: hubs}\nworkers: 1\n\
        tunnels: {listen: 127.0.0.1:0, settle: 3s}\n\
        egress: {listen: 127.0.0.1:0, host_id: [x-node-id], routes: [{prefix: /}]}\n";
    let Config::Responder(config) = Config::parse("test", yaml).unwrap() else {
        panic!("a responder's configuration");
    };
    let acknowledged = Acknowledged::default();
    let net = Slow(OsNetwork, Arc::clone(&acknowledged));
    let (control, seeds) = responder::prepare(&net, Arc::new(config), Clock::start(), 1, Start::Fresh)
        .await
        .unwrap();
    let local = tokio::task::LocalSet::new();
    for seed in seeds {
        local.spawn_local(responder::run(net.clone(), seed));
    }
    let story = async {
        let mut initiator = TcpStream::connect(control.tunnels).await.unwrap();
        initiator.write_all(REQUEST).await.unwrap();
        let answer = within(&mut initiator, Duration::from_secs(2)).await;
        assert_eq!(answer, b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");

        // Not acknowledged, for however long: requests find no tunnel, and nothing is sent into it.
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(60)).await;
            assert_eq!(status(control.egress).await, 503);
        }
        assert_eq!(within(&mut initiator, Duration::from_millis(50)).await, b"");

        // Acknowledged: still none for the time of `settle`, then requests may come. The gap is measured here alone and
        // has no upper limit, so a busy machine makes it longer and nothing else.
        acknowledged.store(true, Ordering::SeqCst);
        let clock = Clock::start();
        let told = clock.now();
        assert_eq!(status(control.egress).await, 503);
        let preface = loop {
            let _client = ask(control.egress).await;
            let bytes = within(&mut initiator, Duration::from_millis(20)).await;
            if !bytes.is_empty() {
                break bytes;
            }
            assert!(
                clock.now() - told < Duration::from_secs(30),
                "nothing follows at all"
            );
        };
        let gap = clock.now() - told;
        assert!(gap >= SETTLE, "{gap:?}");
        assert!(preface.starts_with(b"PRI * HTTP/2.0"), "{preface:?}");
    };
    local.run_until(story).await;
}
