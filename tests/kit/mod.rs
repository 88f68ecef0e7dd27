//! Real processes and raw sockets, for tests that send what no library would.
//!
//! Blocking, from the standard library: a test is a thread, and reads from top to bottom.

#![allow(dead_code, reason = "each test binary uses a part")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests wait in real time"
)]

pub(crate) mod load;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long anything may take that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Runs something beside the test: the one home of threads in tests.
pub(crate) fn beside<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    std::thread::spawn(run)
}

/// Time since the first call in this process.
pub(crate) fn monotonic() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Lets time pass, where its passing is what is tested.
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// A port that nobody listens on, below those that the kernel gives to connections.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 10_000 + u16::try_from(std::process::id() % 170).unwrap() * 100;
    loop {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed) % 2_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Waits until `look` sees something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The binary under test, running.
pub(crate) struct Eddy {
    child: Child,
    log: tempfile::NamedTempFile,
    /// Kept as long as the process may read it.
    config: Option<tempfile::NamedTempFile>,
}

impl Eddy {
    /// Starts it with these arguments.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        Self::program(Path::new(env!("CARGO_BIN_EXE_eddy")), arguments)
    }

    /// Starts a role with a configuration of this text.
    pub(crate) fn with_config(role: &str, yaml: &str) -> Self {
        let arguments = |file: &str| [role, "-c", file].map(str::to_owned).to_vec();
        Self::program_with_config(Path::new(env!("CARGO_BIN_EXE_eddy")), yaml, arguments)
    }

    /// Starts a role with a configuration of this text and more arguments.
    pub(crate) fn with_config_and(role: &str, yaml: &str, more: &[&str]) -> Self {
        let arguments = |file: &str| {
            let all = [role, "-c", file].into_iter().chain(more.iter().copied());
            all.map(str::to_owned).collect()
        };
        Self::program_with_config(Path::new(env!("CARGO_BIN_EXE_eddy")), yaml, arguments)
    }

    /// Starts a role inside a network namespace.
    pub(crate) fn inside(space: &str, role: &str, yaml: &str) -> Self {
        let eddy = Path::new(env!("CARGO_BIN_EXE_eddy"));
        Self::program_inside(space, eddy, &[role], yaml)
    }

    /// Starts another program inside a network namespace, with arguments before `-c FILE`.
    pub(crate) fn program_inside(space: &str, program: &Path, arguments: &[&str], yaml: &str) -> Self {
        let program = program.to_str().unwrap();
        let before = ["netns", "exec", space, program]
            .into_iter()
            .chain(arguments.iter().copied());
        let all = |file: &str| before.chain(["-c", file]).map(str::to_owned).collect();
        Self::program_with_config(Path::new("ip"), yaml, all)
    }

    /// Starts a role with a configuration of this text. Its standard error is a pipe, which nobody reads unless the test does.
    pub(crate) fn with_stderr_pipe(role: &str, yaml: &str) -> Self {
        let file = config_file(yaml);
        let arguments = [role, "-c", file.path().to_str().unwrap()].map(str::to_owned);
        let program = Path::new(env!("CARGO_BIN_EXE_eddy"));
        let mut eddy = Self::spawn(program, arguments.to_vec(), Some(Stdio::piped()));
        eddy.config = Some(file);
        eddy
    }

    /// The other end of its standard error, if that is a pipe.
    pub(crate) fn stderr(&mut self) -> ChildStderr {
        self.child.stderr.take().unwrap()
    }

    /// The text of its configuration.
    pub(crate) fn config(&self) -> String {
        std::fs::read_to_string(self.config.as_ref().unwrap().path()).unwrap()
    }

    /// Starts another program with a configuration of this text.
    pub(crate) fn program_with_config(
        program: &Path,
        yaml: &str,
        arguments: impl FnOnce(&str) -> Vec<String>,
    ) -> Self {
        let file = config_file(yaml);
        let mut eddy = Self::program(program, arguments(file.path().to_str().unwrap()));
        eddy.config = Some(file);
        eddy
    }

    fn program(program: &Path, arguments: Vec<String>) -> Self {
        Self::spawn(program, arguments, None)
    }

    fn spawn(program: &Path, arguments: Vec<String>, stderr: Option<Stdio>) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let file: File = log.reopen().unwrap();
        let child = Command::new(program)
            .args(arguments)
            .env("EDDY_LOG", "debug,h2=info")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(stderr.unwrap_or_else(|| file.into()))
            .spawn()
            .unwrap();
        Self {
            child,
            log,
            config: None,
        }
    }

    /// What it wrote so far.
    pub(crate) fn log(&self) -> String {
        let mut text = String::new();
        self.log.reopen().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// Sends a signal by name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
    }

    /// The most memory that it ever had resident, in KiB.
    pub(crate) fn peak_memory_kib(&self) -> u64 {
        self.status_kib("VmHWM:")
    }

    /// The memory that it has resident, in KiB.
    pub(crate) fn memory_kib(&self) -> u64 {
        self.status_kib("VmRSS:")
    }

    /// A line of `/proc/PID/status`.
    fn status_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_for("the process to end", || self.child.try_wait().unwrap())
    }
}

impl Drop for Eddy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- log of eddy\n{}", self.log());
        }
    }
}

/// The real Envoy.
pub(crate) fn envoy_binary() -> PathBuf {
    let given = std::env::var_os("EDDY_ENVOY").map(PathBuf::from);
    let cached = || {
        let cache = std::env::var_os("EDDY_ENVOY_CACHE").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/eddy");
        let xdg = std::env::var_os("XDG_CACHE_HOME").map(|dir| PathBuf::from(dir).join("eddy"));
        cache.or(xdg).unwrap_or_else(home).join("envoy-1.40.0/envoy")
    };
    let path = given.unwrap_or_else(cached);
    assert!(
        path.exists(),
        "no Envoy at {}: run .ci/install-envoy",
        path.display()
    );
    path
}

/// A configuration on disk.
pub(crate) fn config_file(yaml: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    file.write_all(yaml.as_bytes()).unwrap();
    file
}

/// An answer, read to the end of the connection.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (n, value) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A connection to a port of this machine.
pub(crate) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Everything until the peer ends the stream; a reset counts as its end.
pub(crate) fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65536];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..n]);
    }
    bytes
}

/// Sends bytes and reads what comes back until the end.
pub(crate) fn exchange(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(port);
    // The peer may refuse before it has heard everything.
    let _ = stream.write_all(bytes);
    read_all(&mut stream)
}

/// An empty POST to an admin.
pub(crate) fn post(port: u16, path: &str) -> Answer {
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    let bytes = exchange(port, request.as_bytes());
    parse_answer(&bytes).unwrap_or_else(|| panic!("no answer to POST {path}"))
}

/// One GET with these headers on a connection of its own.
pub(crate) fn get(port: u16, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = format!("GET {path} HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    let bytes = exchange(port, format!("{request}\r\n").as_bytes());
    parse_answer(&bytes)
        .unwrap_or_else(|| panic!("no answer to {path}: {:?}", String::from_utf8_lossy(&bytes)))
}

/// Reads an answer, chunked or not.
pub(crate) fn parse_answer(bytes: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let (head, rest) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut answer = Answer {
        status,
        head: head.to_owned(),
        body: rest.to_owned(),
    };
    if answer.header("transfer-encoding") == Some("chunked") {
        answer.body = unchunk(rest);
    }
    Some(answer)
}

fn unchunk(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let Ok(size @ 1..) = usize::from_str_radix(size, 16) else {
            break;
        };
        let Some(chunk) = rest.get(..size) else {
            break;
        };
        body += chunk;
        text = rest[size..].strip_prefix("\r\n").unwrap_or_default();
    }
    body
}

/// Numbers by name.
pub(crate) type Stats = BTreeMap<String, i64>;

/// The numbers of a process, the hidden ones too.
pub(crate) fn stats(admin: u16) -> Stats {
    let answer = get(admin, "/stats?hidden=include", &[]);
    answer
        .body
        .lines()
        .filter_map(|line| {
            let (name, value) = line.rsplit_once(": ")?;
            Some((name.to_owned(), value.parse().ok()?))
        })
        .collect()
}

/// What has changed between two looks, without what pings change by themselves.
pub(crate) fn moved(before: &Stats, after: &Stats) -> Vec<(String, i64)> {
    let value = |stats: &Stats, name: &String| stats.get(name).copied().unwrap_or(0);
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let changes = names
        .into_iter()
        .map(|name| (name.clone(), value(after, name) - value(before, name)));
    changes
        .filter(|(name, by)| *by != 0 && !name.starts_with("reverse_tunnel.ping."))
        .collect()
}

/// A service that treats each connection as it is told.
pub(crate) struct Service {
    pub(crate) port: u16,
    served: Arc<AtomicU32>,
}

impl Service {
    /// Calls `treat` on a thread for each connection.
    pub(crate) fn start(treat: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, served) = (listener.local_addr().unwrap().port(), Arc::new(AtomicU32::new(0)));
        let (treat, counter) = (Arc::new(treat), Arc::clone(&served));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                counter.fetch_add(1, Ordering::SeqCst);
                let treat = Arc::clone(&treat);
                std::thread::spawn(move || treat(stream));
            }
        });
        Self { port, served }
    }

    /// A service that behaves, unless the path says otherwise.
    pub(crate) fn moody() -> Self {
        Self::start(|mut stream| {
            stream.set_nodelay(true).unwrap();
            while let Some(head) = read_head(&mut stream) {
                let mood = head
                    .split(' ')
                    .nth(1)
                    .unwrap_or("/")
                    .split('?')
                    .next()
                    .unwrap_or("/")
                    .rsplit('/')
                    .next()
                    .unwrap_or("")
                    .to_owned();
                match mood.as_str() {
                    "hang" => std::thread::sleep(PATIENCE),
                    "garbage" => {
                        let _ = stream.write_all(b"\x00\x01 this is no HTTP\r\n\r\n");
                        return;
                    }
                    "close" => return,
                    "head" => {
                        let length = head.len();
                        let _ = stream.write_all(
                            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{head}").as_bytes(),
                        );
                    }
                    "reset-mid-body" => {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf");
                        std::thread::sleep(Duration::from_millis(50));
                        return;
                    }
                    "slow" => {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nsl");
                        std::thread::sleep(Duration::from_millis(500));
                        let _ = stream.write_all(b"ow");
                    }
                    "echo" => {
                        let length = head
                            .lines()
                            .find_map(|line| line.strip_prefix("content-length: "));
                        let mut body = vec![0; length.unwrap().parse().unwrap()];
                        stream.read_exact(&mut body).unwrap();
                        let length = body.len();
                        let _ = stream.write_all(
                            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes(),
                        );
                        let _ = stream.write_all(&body);
                    }
                    _ => {
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ngood");
                    }
                }
            }
        })
    }

    /// How many connections came.
    pub(crate) fn served(&self) -> u32 {
        self.served.load(Ordering::SeqCst)
    }
}

/// The head of the next request; none when the client is gone.
pub(crate) fn read_head(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// A responder, an initiator and a service, connected.
pub(crate) struct Pair {
    pub(crate) responder: Eddy,
    pub(crate) initiator: Eddy,
    pub(crate) service: Service,
    pub(crate) tunnels: u16,
    pub(crate) egress: u16,
    pub(crate) responder_admin: u16,
    pub(crate) initiator_admin: u16,
    pub(crate) api: u16,
}

/// What differs from the plain pair, as lines of YAML.
#[derive(Default)]
pub(crate) struct Options<'a> {
    pub(crate) workers: u16,
    pub(crate) count: u32,
    /// More keys under the responder's `tunnels`.
    pub(crate) tunnels: &'a str,
    /// More keys under its `egress`, in flow style, each behind a comma.
    pub(crate) egress: &'a str,
    /// Top-level keys of the responder.
    pub(crate) responder: &'a str,
    /// Top-level keys of the initiator.
    pub(crate) initiator: &'a str,
    /// The egress route's timeout; empty for the default.
    pub(crate) egress_timeout: &'a str,
    /// The service route's timeout; empty for the default.
    pub(crate) service_timeout: &'a str,
    /// What the service speaks; empty for the default.
    pub(crate) protocol: &'a str,
    /// Another port than the service's.
    pub(crate) service_port: Option<u16>,
    /// The responder's standard error is a pipe.
    pub(crate) stderr_pipe: bool,
}

impl Pair {
    pub(crate) fn start() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options<'_>) -> Self {
        let service = Service::moody();
        let [tunnels, egress, responder_admin, initiator_admin, api] = [(); 5].map(|()| free_port());
        let (workers, count) = (options.workers.max(1), options.count.max(1));
        let timeout = |t: &str| {
            if t.is_empty() {
                String::new()
            } else {
                format!(", timeout: {t}")
            }
        };
        let protocol = match options.protocol {
            "" => String::new(),
            protocol => format!(", protocol: {protocol}"),
        };
        let start_responder = if options.stderr_pipe {
            Eddy::with_stderr_pipe
        } else {
            Eddy::with_config
        };
        let responder = start_responder(
            "responder",
            &format!(
                "node: {{id: hub, cluster: hubs}}\nworkers: {workers}\n\
                 admin: {{listen: 127.0.0.1:{responder_admin}}}\nstats: {{prefix: r, detailed: true}}\n\
                 tunnels:\n  listen: 127.0.0.1:{tunnels}\n{}\
                 egress: {{listen: 127.0.0.1:{egress}, host_id: [x-node-id, x-cluster-id], \
                 routes: [{{prefix: /routed{}}}]{}}}\n{}",
                options.tunnels,
                timeout(options.egress_timeout),
                options.egress,
                options.responder,
            ),
        );
        let initiator = Eddy::with_config(
            "initiator",
            &format!(
                "node: {{id: edge, cluster: edges}}\nworkers: {workers}\n\
                 admin: {{listen: 127.0.0.1:{initiator_admin}}}\napi: {{listen: 127.0.0.1:{api}}}\n\
                 stats: {{prefix: i, detailed: true}}\ntunnels: [\"rc://edge:edges:acme@hub:{count}\"]\n\
                 clusters: {{hub: {{hosts: [\"127.0.0.1:{tunnels}\"]}}, \
                 service: {{hosts: [\"127.0.0.1:{}\"]{protocol}}}}}\n\
                 routes: [{{prefix: /routed, cluster: service{}}}]\n{}",
                options.service_port.unwrap_or(service.port),
                timeout(options.service_timeout),
                options.initiator,
            ),
        );
        let pair = Self {
            responder,
            initiator,
            service,
            tunnels,
            egress,
            responder_admin,
            initiator_admin,
            api,
        };
        wait_for("the tunnels to come up", || {
            let _ = TcpStream::connect(("127.0.0.1", responder_admin)).ok()?;
            (stats(responder_admin).get("reverse_tunnel.open") == Some(&i64::from(count))).then_some(())
        });
        wait_for("the initiator's admin", || {
            TcpStream::connect(("127.0.0.1", initiator_admin)).ok()
        });
        pair
    }

    /// A request that must work.
    pub(crate) fn assert_good(&self) {
        let answer = get(self.egress, "/routed", &[("x-node-id", "edge")]);
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "good"),
            "{}\nresponder:\n{}\ninitiator:\n{}",
            answer.head,
            self.responder.log(),
            self.initiator.log()
        );
    }
}
