//! Two processes in network namespaces, so that the kernel's own TCP and queues are between them.
//!
//! ```text
//!   eye (client, service) ── fast ── cloud (responder)
//!                         └─ fast ── site (initiator) ── the link ── cloud
//! ```
//!
//! A test starts itself again inside the namespace `eye`. It needs root, `ip` and `tc`; without them it reports that nothing
//! was tested.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::kit::{Answer, Eddy, PATIENCE, beside, envoy_binary, parse_answer, wait_for};

/// Set inside of the namespaces, to the name that makes them unique.
const INSIDE: &str = "EDDY_NAMESPACES";
const CLIENT_TO_CLOUD: &str = "10.231.1";
const CLIENT_TO_SITE: &str = "10.231.2";
const SLOW: &str = "10.231.3";

fn run(program: &str, arguments: &str) -> bool {
    let arguments: Vec<_> = arguments.split(' ').collect();
    let status = Command::new(program)
        .args(arguments)
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

/// The three namespaces; gone when dropped.
struct Spaces(String);

impl Spaces {
    /// Without a `rate`, the link between cloud and site is fast, too.
    fn build(test: &str, rate: Option<&str>) -> Option<Self> {
        // Names of namespaces are short.
        let hash = test.bytes().fold(0_u16, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(byte.into())
        });
        let name = format!("ed{}{hash:x}", std::process::id());
        let spaces = Self(name.clone());
        let [eye, cloud, site] = ["eye", "cloud", "site"].map(|space| format!("{name}-{space}"));
        let ip = |arguments: String| run("ip", &arguments);
        for space in [&eye, &cloud, &site] {
            if !ip(format!("netns add {space}")) {
                return None;
            }
            assert!(ip(format!("-n {space} link set lo up")));
        }
        for (net, near, far) in [
            (CLIENT_TO_CLOUD, &eye, &cloud),
            (CLIENT_TO_SITE, &eye, &site),
            (SLOW, &cloud, &site),
        ] {
            let last = net.rsplit('.').next().unwrap();
            let [here, there] = ["a", "b"].map(|end| format!("v{last}{end}"));
            assert!(ip(format!(
                "-n {near} link add {here} type veth peer name {there} netns {far}"
            )));
            for (space, device, host) in [(near, &here, 1), (far, &there, 2)] {
                assert!(ip(format!("-n {space} addr add {net}.{host}/24 dev {device}")));
                assert!(ip(format!("-n {space} link set {device} up")));
                if let (SLOW, Some(rate)) = (net, rate) {
                    let shape = format!("tbf rate {rate} burst 16kb latency 300ms");
                    if !run("tc", &format!("-n {space} qdisc add dev {device} root {shape}")) {
                        return None;
                    }
                }
            }
        }
        Some(spaces)
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for space in ["eye", "cloud", "site"] {
            run("ip", &format!("netns del {}-{space}", self.0));
        }
    }
}

/// Runs `inside` in the namespace of the eye. The test named `test` calls this, and is started again there.
pub(crate) fn in_namespaces(test: &str, rate: Option<&str>, envoy: Envoy, inside: impl FnOnce(&Pair)) {
    match std::env::var(INSIDE) {
        Ok(spaces) => inside(&Pair::start(&spaces, envoy)),
        Err(_) => outside(test, rate),
    }
}

fn outside(test: &str, rate: Option<&str>) {
    let Some(spaces) = Spaces::build(test, rate) else {
        eprintln!("NOT TESTED: no network namespaces, or no tc, on this machine");
        return;
    };
    let inner = Command::new("ip")
        .args(["netns", "exec", &format!("{}-eye", spaces.0)])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--include-ignored"])
        .env(INSIDE, &spaces.0)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&inner.stdout).into_owned() + &String::from_utf8_lossy(&inner.stderr);
    assert!(inner.status.success(), "{told}");
    let figures: Vec<_> = told.lines().filter(|line| line.starts_with("figure: ")).collect();
    assert!(!figures.is_empty(), "nothing was tested: {told}");
    eprintln!("{test}: {figures:?}");
}

/// A responder in the cloud and an initiator at the site.
pub(crate) struct Pair {
    pub(crate) responder: Eddy,
    pub(crate) initiator: Eddy,
    spaces: String,
}

fn address(net: &str, host: u8, port: u16) -> SocketAddr {
    format!("{net}.{host}:{port}").parse().unwrap()
}

/// A service that sends as many bytes as its path says, and takes whatever comes.
fn service() {
    let listener = TcpListener::bind(address(CLIENT_TO_SITE, 1, 8080)).unwrap();
    beside(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            beside(move || {
                while let Some(head) = crate::kit::read_head(&mut stream) {
                    let length = head
                        .lines()
                        .find_map(|line| line.strip_prefix("content-length: "));
                    let mut left: u64 = length.map_or(0, |length| length.parse().unwrap());
                    let mut scratch = [0; 65536];
                    while left > 0 {
                        let most = scratch.len().min(usize::try_from(left).unwrap());
                        left -= stream.read(&mut scratch[..most]).unwrap() as u64;
                    }
                    let path = head.split(' ').nth(1).unwrap();
                    let bytes: usize = path.rsplit('/').next().unwrap().parse().unwrap_or(4);
                    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
                    let body = vec![b'b'; bytes];
                    if stream.write_all(&[head.as_bytes(), &body].concat()).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// Which side of a pair is a real Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Envoy {
    Neither,
    Responder,
    Initiator,
}

fn envoy(space: &str, template: &str, values: &[(&str, &str)]) -> Eddy {
    let filled = values
        .iter()
        .fold(template.to_owned(), |text, (from, to)| text.replace(from, to));
    let arguments = ["--disable-hot-restart", "-l", "warn", "--concurrency", "1"];
    Eddy::program_inside(space, &envoy_binary(), &arguments, &filled)
}

fn start_responder(space: &str, is_envoy: bool) -> Eddy {
    if is_envoy {
        let template = include_str!("../interop/envoy-responder.yaml");
        let values = [
            ("127.0.0.1", "0.0.0.0"),
            ("@tunnels@", "9001"),
            ("@egress@", "8085"),
            ("@admin@", "8889"),
            ("@filter@", ""),
        ];
        return envoy(space, template, &values);
    }
    let yaml = format!(
        "node: {{id: hub, cluster: hubs}}\nworkers: 1\n\
         admin: {{listen: {CLIENT_TO_CLOUD}.2:8889}}\n\
         tunnels: {{listen: {SLOW}.1:9001}}\n\
         egress: {{listen: {CLIENT_TO_CLOUD}.2:8085, host_id: [x-node-id], routes: [{{prefix: /}}]}}\n"
    );
    Eddy::inside(space, "responder", &yaml)
}

fn start_initiator(space: &str, is_envoy: bool) -> Eddy {
    if is_envoy {
        let template = include_str!("../interop/envoy-initiator.yaml");
        let filters = "type.googleapis.com/envoy.extensions.filters";
        let hcm = format!(
            "{{\"@type\": {filters}.network.http_connection_manager.v3.HttpConnectionManager, \
             stat_prefix: reverse, route_config: {{virtual_hosts: [{{name: all, domains: [\"*\"], \
             routes: [{{match: {{prefix: /}}, route: {{cluster: service, timeout: 0s}}}}]}}]}}, \
             http_filters: [{{name: router, typed_config: {{\"@type\": {filters}.http.router.v3.Router}}}}]}}"
        );
        let at = |host: &str, port: &str| format!("address: {host}, port_value: {port}");
        let (hub, service) = (format!("{SLOW}.1"), format!("{CLIENT_TO_SITE}.1"));
        let values = [
            (at("127.0.0.1", "@tunnels@"), at(&hub, "9001")),
            (at("127.0.0.1", "@service@"), at(&service, "8080")),
            ("@admin@".to_owned(), "8888".to_owned()),
            ("@count@".to_owned(), "1".to_owned()),
            ("@hcm@".to_owned(), hcm),
        ];
        let values: Vec<_> = values
            .iter()
            .map(|(from, to)| (from.as_str(), to.as_str()))
            .collect();
        return envoy(space, template, &values);
    }
    let yaml = format!(
        "node: {{id: edge, cluster: edges}}\nworkers: 1\n\
         tunnels: [\"rc://edge:edges:acme@hub:1\"]\n\
         clusters: {{hub: {{hosts: [\"{SLOW}.1:9001\"]}}, \
         service: {{hosts: [\"{CLIENT_TO_SITE}.1:8080\"]}}}}\n\
         routes: [{{prefix: /, cluster: service}}]\n"
    );
    Eddy::inside(space, "initiator", &yaml)
}

impl Pair {
    fn start(spaces: &str, envoy: Envoy) -> Self {
        service();
        let pair = Self {
            responder: start_responder(&format!("{spaces}-cloud"), envoy == Envoy::Responder),
            initiator: start_initiator(&format!("{spaces}-site"), envoy == Envoy::Initiator),
            spaces: spaces.to_owned(),
        };
        wait_for("a response", || {
            (request("GET", 4, 0, PATIENCE).ok()?.0 == 200).then_some(())
        });
        pair
    }

    /// Cuts the link between cloud and site, silently and in both directions: frames go to an address that nobody has. Or
    /// heals it.
    pub(crate) fn cut(&self, cut: bool) {
        for (space, device, peer) in [("cloud", "v3a", 2), ("site", "v3b", 1)] {
            let neighbour = format!("{SLOW}.{peer} dev {device}");
            let change = match cut {
                true => format!("replace {neighbour} lladdr 02:00:00:00:00:99 nud permanent"),
                false => format!("del {neighbour}"),
            };
            assert!(run("ip", &format!("-n {}-{space} neigh {change}", self.spaces)));
        }
    }

    /// What a stranger who reaches the tunnel port gets for these bytes.
    pub(crate) fn as_stranger(&self, bytes: &[u8]) -> Option<Answer> {
        assert!(run(
            "ip",
            &format!("route replace {SLOW}.1 via {CLIENT_TO_CLOUD}.2")
        ));
        let mut stream = TcpStream::connect(address(SLOW, 1, 9001)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        parse_answer(&crate::kit::read_all(&mut stream))
    }

    pub(crate) fn assert_tunnel_lives(&self) {
        for side in [&self.responder, &self.initiator] {
            let log = side.log();
            assert!(!log.contains("tunnel down"), "{log}");
        }
    }
}

/// A request through the responder: status and bytes of the body.
pub(crate) fn request(
    method: &str,
    wanted: usize,
    upload: usize,
    patience: Duration,
) -> std::io::Result<(u16, usize)> {
    let mut stream = TcpStream::connect_timeout(&address(CLIENT_TO_CLOUD, 2, 8085), patience)?;
    stream.set_read_timeout(Some(patience))?;
    let head = format!(
        "{method} /routed/{wanted} HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\nconnection: close\r\ncontent-length: {upload}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(&vec![b'u'; upload])?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let answer = parse_answer(&bytes).ok_or(std::io::ErrorKind::UnexpectedEof)?;
    Ok((answer.status, answer.body.len()))
}
