//! Thousands of clients of the egress that are as slow as they can be: memory stays bounded, and other clients are served.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::descriptors;
use crate::floods::Floods;
use crate::kit::{
    Eddy, Options, PATIENCE, Pair, Service, beside, exchange, monotonic, parse_answer, pause, read_head,
    stats, wait_for,
};
use crate::memory::STORM;

/// Connections at once, where the limit of file descriptors permits them.
const CONNECTIONS: usize = 5_000;
/// How many of them are opened before the next ones.
const BATCH: usize = 250;
/// Tunnels of 1,024 places: fewer places than the slow clients want, who need one for two of three connections. Clients of one
/// address leave a quarter of the places to others.
const TUNNELS: u32 = 3;
const SHARE: usize = 3 * 1_024 * 3 / 4;
/// The address of slow clients.
const SLOW: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// How long the slow clients stay, from the moment when all are there.
const WATCHED: Duration = Duration::from_secs(5);
/// The length of a response that is read slowly: more than Eddy's buffers have room for, and little enough for the kernel, which
/// slows down every connection of the machine when all buffers of sockets together exceed `tcp_mem`.
const FLOOD_BYTES: usize = 1 << 20;
/// The longest that a good request may take meanwhile: 0.2 to 1.6 s on an idle machine, up to 4.4 s on one whose two cores have
/// eight other processes to run.
const LONGEST: Duration = Duration::from_secs(8);
/// The time that a client has for the head of its request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// The most that a process may have resident, in KiB: for a connection, and for a response that is not read. Half of the requests in
/// flight ask for one of those.
const CONNECTION_KIB: usize = 40;
const UNREAD_KIB: usize = 280;

/// A service that never reads the body of `/routed/slow`, and sends `/routed/flood` as fast as it can.
fn service() -> Service {
    let floods = Floods::start();
    let unread = Mutex::new(Vec::new());
    Service::start(move |mut stream| {
        while let Some(head) = read_head(&mut stream) {
            if head.contains("/flood") {
                floods.respond(stream, FLOOD_BYTES);
                return;
            }
            if head.contains("/slow") {
                unread.lock().unwrap().push(stream);
                return;
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood");
        }
    })
}

fn pair(service: &Service) -> Pair {
    Pair::with(Options {
        service_port: Some(service.port),
        egress_timeout: "60s",
        service_timeout: "60s",
        count: TUNNELS,
        ..Options::default()
    })
}

/// What a client does once a second.
#[derive(Clone, Copy)]
enum Pace {
    Sends,
    Reads,
    Nothing,
}

const SLOW_HEAD: &str = "GET /routed HTTP/1.1\r\nhost: x\r\nx-slow: ";
const SLOW_BODY: &str =
    "POST /routed/slow HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\ncontent-length: 90000\r\n\r\n";
const FLOOD: &str = "GET /routed/flood HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\n\r\n";

/// A third each: slow heads, slow bodies, slow readers. Half of the readers read nothing at all.
const KINDS: [(&str, Pace); 6] = [
    (SLOW_HEAD, Pace::Sends),
    (SLOW_BODY, Pace::Sends),
    (FLOOD, Pace::Reads),
    (SLOW_HEAD, Pace::Sends),
    (SLOW_BODY, Pace::Sends),
    (FLOOD, Pace::Nothing),
];

/// A connection that receives little, so that Eddy holds what is not read, and not the kernel.
pub(crate) fn slow_client(pair: &Pair, start: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.set_tcp_mss(1_460).unwrap();
    socket.bind(&SocketAddrV4::new(SLOW, 0).into()).unwrap();
    let egress = SocketAddrV4::new(Ipv4Addr::LOCALHOST, pair.egress);
    socket.connect(&egress.into()).unwrap();
    let mut stream = TcpStream::from(socket);
    stream.write_all(start.as_bytes()).unwrap();
    stream.set_nonblocking(true).unwrap();
    stream
}

/// Whether all TCP connections of the machine together have more in their buffers than the kernel gives them gladly. It then
/// slows down every connection, those of other processes too. This test stays below that.
fn is_kernel_short_of_buffers() -> bool {
    let sockets = std::fs::read_to_string("/proc/net/sockstat").unwrap();
    let used = sockets.lines().find(|line| line.starts_with("TCP:")).unwrap();
    let limits = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").unwrap();
    let pages = |text: &str| text.parse::<u64>().unwrap();
    pages(used.split_whitespace().last().unwrap()) >= pages(limits.split_whitespace().next().unwrap())
}

/// Good requests, one after the other, until it is stopped. Those during which the kernel was short of buffers do not count.
struct Good {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Good {
    fn start(pair: &Pair) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, egress) = (Arc::clone(&stop), pair.egress);
        let thread = beside(move || {
            let mut took = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                let (was_short, began) = (is_kernel_short_of_buffers(), monotonic());
                let request =
                    b"GET /routed HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\nconnection: close\r\n\r\n";
                let response = parse_answer(&exchange(egress, request));
                if !was_short && !is_kernel_short_of_buffers() {
                    assert_eq!(response.map(|response| response.body).as_deref(), Some("good"));
                    took.push(monotonic() - began);
                }
                pause(Duration::from_millis(10));
            }
            took
        });
        Self { stop, thread }
    }

    fn finish(self) -> Vec<Duration> {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

#[test]
fn slow_clients_cost_bounded_memory_and_delay_nobody() {
    let _alone = STORM.lock().unwrap_or_else(PoisonError::into_inner);
    // For two of three connections to the egress there is one to the service, and the service is in this process too.
    let connections = (descriptors::raise(2 * CONNECTIONS + 1_000) - 1_000) / 2;
    let service = service();
    let pair = pair(&service);
    let good = Good::start(&pair);
    let mut slow = Vec::new();
    while slow.len() < connections {
        let more = slow.len()..connections.min(slow.len() + BATCH);
        slow.extend(more.map(|n| {
            let (start, pace) = KINDS[n % KINDS.len()];
            (slow_client(&pair, start), pace)
        }));
        let expected = SHARE.min(slow.len() / 3 * 2);
        wait_for("the requests of the slow clients", || {
            let in_flight = stats(pair.initiator_admin)["service.in_flight"];
            (usize::try_from(in_flight).unwrap() >= expected).then_some(())
        });
    }
    let end = monotonic() + WATCHED;
    while monotonic() < end {
        for (stream, pace) in &mut slow {
            match pace {
                Pace::Sends => drop(stream.write(b"s")),
                Pace::Reads => drop(stream.read(&mut [0])),
                Pace::Nothing => {}
            }
        }
        pause(Duration::from_secs(1));
    }
    let took = good.finish();
    let (served, longest) = (took.len(), took.into_iter().max().unwrap_or_default());
    let peak = [&pair.responder, &pair.initiator].map(Eddy::peak_memory_kib);
    eprintln!("{connections} slow clients: {peak:?} KiB; {served} good requests, at most {longest:?}");
    let limit = u64::try_from(connections * CONNECTION_KIB + SHARE / 2 * UNREAD_KIB).unwrap();
    assert!(peak.iter().all(|kib| *kib < limit), "{peak:?} KiB of {limit}");
    assert!(longest < LONGEST, "{longest:?}");
    pair.assert_good();
}

#[test]
#[ignore = "takes as long as a client may take for a head"]
fn slow_heads_are_ended() {
    let service = service();
    let pair = pair(&service);
    let mut stream = slow_client(&pair, SLOW_HEAD);
    let began = monotonic();
    let ended = loop {
        pair.assert_good();
        let _ = stream.write(b"s");
        let waited = monotonic() - began;
        match stream.read(&mut [0; 512]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => break waited,
            Ok(_) => {}
        }
        assert!(waited < HEAD_TIMEOUT + PATIENCE);
        pause(Duration::from_secs(1));
    };
    assert!(ended + Duration::from_secs(1) >= HEAD_TIMEOUT, "{ended:?}");
    pair.assert_good();
}
