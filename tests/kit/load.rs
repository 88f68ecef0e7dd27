//! Clients that keep their connections, as applications do, and account for every request.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{monotonic, parse_answer};

/// Requests per second of one client.
const PACE: u32 = 10;
/// How long one answer may take.
const LONGEST: Duration = Duration::from_secs(5);

/// What became of the requests, and how long the longest took.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) good: u32,
    pub(crate) bad: BTreeMap<String, u32>,
    pub(crate) longest: Duration,
}

/// The load under which processes are restarted.
pub(crate) const PER_SECOND: u32 = 500;

/// How many restarts in a row; the default is for every day.
pub(crate) fn restarts() -> u32 {
    std::env::var("EDDY_RESTARTS").map_or(2, |text| text.parse().unwrap())
}

pub(crate) fn assert_nothing_lost(tally: &Tally, what: &str) {
    eprintln!("{what}: {} good, longest {:?}", tally.good, tally.longest);
    assert!(tally.bad.is_empty(), "{what}: {:?} of {}", tally.bad, tally.good);
    assert!(tally.good > PER_SECOND, "{tally:?}");
}

/// A load that runs until it is finished.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    tally: Arc<Mutex<Tally>>,
}

impl Load {
    /// `per_second` requests to a node through an egress; every second one is a POST, which must not be sent twice.
    pub(crate) fn start(egress: u16, node: &'static str, per_second: u32) -> Self {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let clients = (0..per_second / PACE).map(|number| {
            let (stop, tally) = (Arc::clone(&stop), Arc::clone(&tally));
            std::thread::spawn(move || client(egress, node, number, &stop, &tally))
        });
        Self {
            clients: clients.collect(),
            stop,
            tally,
        }
    }

    /// Ends the load and tells what became of it.
    pub(crate) fn finish(self) -> Tally {
        self.stop.store(true, Ordering::SeqCst);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
        std::mem::take(&mut *self.tally.lock().unwrap())
    }
}

fn client(egress: u16, node: &str, number: u32, stop: &AtomicBool, tally: &Mutex<Tally>) {
    let mut connection = None;
    let beat = Duration::from_secs(1) / PACE;
    let mut due = monotonic() + beat * number / 50;
    for turn in 0.. {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        std::thread::sleep(due.saturating_sub(monotonic()));
        due += beat;
        let method = if (turn + number).is_multiple_of(2) {
            "GET"
        } else {
            "POST"
        };
        let began = monotonic();
        let outcome = request(&mut connection, egress, node, method);
        let mut tally = tally.lock().unwrap();
        tally.longest = tally.longest.max(monotonic() - began);
        match outcome {
            Ok(()) => tally.good += 1,
            Err(why) => *tally.bad.entry(format!("{method}: {why}")).or_default() += 1,
        }
    }
}

/// Whether the other end has closed a connection that rests, which a client is to notice before it uses it.
fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let closed =
        !matches!(stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock);
    stream.set_nonblocking(false).unwrap();
    closed
}

fn request(connection: &mut Option<TcpStream>, egress: u16, node: &str, method: &str) -> Result<(), String> {
    let kept = connection.take().filter(|stream| !is_closed(stream));
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect(("127.0.0.1", egress)).map_err(|error| format!("connect: {error}"))?,
    };
    stream.set_read_timeout(Some(LONGEST)).unwrap();
    stream.set_nodelay(true).unwrap();
    let head =
        format!("{method} /routed HTTP/1.1\r\nhost: load\r\nx-node-id: {node}\r\ncontent-length: 0\r\n\r\n");
    stream
        .write_all(head.as_bytes())
        .map_err(|error| format!("write: {error}"))?;
    let (mut bytes, mut more) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut more) {
            Ok(0) => return Err("closed without an answer".into()),
            Ok(n) => bytes.extend_from_slice(&more[..n]),
            Err(error) => return Err(format!("read: {error}")),
        }
        let Some(answer) = parse_answer(&bytes) else {
            continue;
        };
        let length = answer.header("content-length").and_then(|n| n.parse().ok());
        if answer.body.len() < length.unwrap_or(usize::MAX) {
            continue;
        }
        if answer.status != 200 {
            let reason = answer.header("x-eddy-reason").unwrap_or("-");
            return Err(format!("{} {reason}", answer.status));
        }
        if answer.header("connection") != Some("close") {
            *connection = Some(stream);
        }
        return Ok(());
    }
}
