//! A pair with Eddy on one side and Envoy on the other, a relay between them and a service behind.

use std::io::Write;
use std::net::TcpStream;

use crate::kit::{
    Answer, Eddy, PATIENCE, Service, connect, envoy_binary, free_port, get, parse_answer, read_all, stats,
    wait_for,
};
use crate::relay::Relay;

/// Which side Eddy is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Eddys {
    Initiator,
    Responder,
}

/// What differs from the plain world.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options<'a> {
    /// Workers of Eddy and concurrency of Envoy.
    pub(crate) workers: u16,
    /// Tunnels per host.
    pub(crate) count: u32,
    /// More keys of Envoy's filter.
    pub(crate) filter: &'a str,
    /// More top-level keys of Eddy's initiator.
    pub(crate) initiator: &'a str,
    /// More keys under `tunnels` of Eddy's responder.
    pub(crate) tunnels: &'a str,
    /// Envoy's initiator has the connection manager that understands GOAWAY.
    pub(crate) drain_aware: bool,
    /// How many streams Envoy's initiator allows at once; 0 for its default.
    pub(crate) max_streams: u32,
}

/// The pair.
pub(crate) struct World<'a> {
    pub(crate) eddys: Eddys,
    options: Options<'a>,
    pub(crate) responder: Eddy,
    pub(crate) initiator: Eddy,
    pub(crate) relay: Relay,
    pub(crate) service: Service,
    tunnels: u16,
    pub(crate) egress: u16,
    pub(crate) responder_admin: u16,
    pub(crate) initiator_admin: u16,
}

fn envoy(template: &str, workers: u16, values: &[(&str, &str)]) -> Eddy {
    let filled = values.iter().fold(template.to_owned(), |text, (key, value)| {
        text.replace(&format!("@{key}@"), value)
    });
    Eddy::program_with_config(&envoy_binary(), &filled, |file| {
        [
            "--disable-hot-restart",
            "-l",
            "warn",
            "--concurrency",
            &workers.to_string(),
            "-c",
            file,
        ]
        .map(str::to_owned)
        .to_vec()
    })
}

impl<'a> World<'a> {
    pub(crate) fn start(eddys: Eddys) -> Self {
        Self::with(eddys, Options::default())
    }

    pub(crate) fn with(eddys: Eddys, options: Options<'a>) -> Self {
        let world = Self::begin(eddys, options);
        world.await_tunnels();
        world
    }

    /// Starts everything and waits for nothing.
    pub(crate) fn begin(eddys: Eddys, options: Options<'a>) -> Self {
        let options = Options {
            workers: options.workers.max(1),
            count: options.count.max(1),
            ..options
        };
        let service = Service::moody();
        let [tunnels, egress, responder_admin, initiator_admin] = [(); 4].map(|()| free_port());
        let relay = Relay::to(tunnels);
        let responder = start_responder(eddys, options, tunnels, egress, responder_admin);
        let initiator = start_initiator(eddys, options, relay.port, service.port, initiator_admin);
        Self {
            eddys,
            options,
            responder,
            initiator,
            relay,
            service,
            tunnels,
            egress,
            responder_admin,
            initiator_admin,
        }
    }

    pub(crate) fn restart_responder(&mut self) {
        let Self {
            eddys,
            options,
            tunnels,
            egress,
            responder_admin,
            ..
        } = *self;
        self.responder = start_responder(eddys, options, tunnels, egress, responder_admin);
    }

    pub(crate) fn restart_initiator(&mut self) {
        self.initiator = start_initiator(
            self.eddys,
            self.options,
            self.relay.port,
            self.service.port,
            self.initiator_admin,
        );
    }

    /// Waits until the responder counts the tunnels. Envoy as initiator dials `count` on each worker.
    pub(crate) fn await_tunnels(&self) {
        let per_worker = if self.eddys == Eddys::Responder {
            self.options.workers
        } else {
            1
        };
        let wanted = i64::from(self.options.count) * i64::from(per_worker);
        wait_for("the tunnels to come up", || {
            TcpStream::connect(("127.0.0.1", self.responder_admin)).ok()?;
            (stats(self.responder_admin).get("r.nodes.edge") == Some(&wanted)).then_some(())
        });
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        get(self.egress, path, &[("x-node-id", "edge")])
    }

    pub(crate) fn assert_good(&self) {
        let answer = self.get("/routed");
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "good"),
            "{}",
            answer.head
        );
    }

    /// Another initiator with the same identity beside the first.
    pub(crate) fn second_initiator(&self) -> Eddy {
        start_initiator(
            self.eddys,
            self.options,
            self.relay.port,
            self.service.port,
            free_port(),
        )
    }

    /// Requests until one works again.
    pub(crate) fn await_good(&self) {
        wait_for("a good answer", || {
            TcpStream::connect(("127.0.0.1", self.egress)).ok()?;
            (self.get("/routed").status == 200).then_some(())
        });
    }

    /// A POST whose body comes back.
    pub(crate) fn echo(&self, body: &[u8]) {
        let mut stream = connect(self.egress);
        let head = format!(
            "POST /routed/echo HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let answer = parse_answer(&read_all(&mut stream)).unwrap();
        assert_eq!(answer.status, 200);
        assert!(
            answer.body.as_bytes() == body,
            "{} of {} bytes",
            answer.body.len(),
            body.len()
        );
    }

    /// What Eddy says about why its handshakes ended.
    pub(crate) fn eddy_stat(&self, name: &str) -> i64 {
        let admin = match self.eddys {
            Eddys::Initiator => self.initiator_admin,
            Eddys::Responder => self.responder_admin,
        };
        stats(admin).get(name).copied().unwrap_or(0)
    }
}

/// What an Envoy initiator serves its tunnels with.
fn connection_manager(options: Options<'_>) -> String {
    let filters = "type.googleapis.com/envoy.extensions.filters";
    let http2 = match options.max_streams {
        0 => String::new(),
        streams => format!("http2_protocol_options: {{max_concurrent_streams: {streams}}}, "),
    };
    let keys = format!(
        "stat_prefix: reverse, {http2}route_config: {{virtual_hosts: [{{name: all, domains: [\"*\"], \
         routes: [{{match: {{prefix: /routed}}, route: {{cluster: service}}}}]}}]}}, \
         http_filters: [{{name: router, typed_config: {{\"@type\": {filters}.http.router.v3.Router}}}}]"
    );
    if options.drain_aware {
        format!(
            "{{\"@type\": {filters}.network.reverse_tunnel.v3.DrainAwareHttpConnectionManager, \
             enable_drain_with_goaway: true, hcm_config: {{{keys}}}}}"
        )
    } else {
        format!("{{\"@type\": {filters}.network.http_connection_manager.v3.HttpConnectionManager, {keys}}}")
    }
}

fn start_responder(eddys: Eddys, options: Options<'_>, tunnels: u16, egress: u16, admin: u16) -> Eddy {
    match eddys {
        Eddys::Initiator => envoy(
            include_str!("envoy-responder.yaml"),
            options.workers,
            &[
                ("tunnels", &tunnels.to_string()),
                ("egress", &egress.to_string()),
                ("admin", &admin.to_string()),
                ("filter", options.filter),
            ],
        ),
        Eddys::Responder => Eddy::with_config(
            "responder",
            &format!(
                "node: {{id: hub, cluster: hubs}}\nworkers: {}\nadmin: {{listen: 127.0.0.1:{admin}}}\n\
                 stats: {{prefix: r, detailed: true}}\n\
                 tunnels:\n  listen: 127.0.0.1:{tunnels}\n  ping_interval: 1s\n{}\
                 egress: {{listen: 127.0.0.1:{egress}, host_id: [x-node-id, x-cluster-id], routes: [{{prefix: /routed}}]}}\n",
                options.workers, options.tunnels
            ),
        ),
    }
}

fn start_initiator(eddys: Eddys, options: Options<'_>, tunnels: u16, service: u16, admin: u16) -> Eddy {
    match eddys {
        Eddys::Responder => envoy(
            include_str!("envoy-initiator.yaml"),
            options.workers,
            &[
                ("tunnels", &tunnels.to_string()),
                ("service", &service.to_string()),
                ("admin", &admin.to_string()),
                ("count", &options.count.to_string()),
                ("hcm", &connection_manager(options)),
            ],
        ),
        Eddys::Initiator => Eddy::with_config(
            "initiator",
            &format!(
                "node: {{id: edge, cluster: edges}}\nworkers: {}\nadmin: {{listen: 127.0.0.1:{admin}}}\n\
                 stats: {{prefix: i, detailed: true}}\ntunnels: [\"rc://edge:edges:acme@hub:{}\"]\n\
                 clusters: {{hub: {{hosts: [\"127.0.0.1:{tunnels}\"]}}, service: {{hosts: [\"127.0.0.1:{service}\"]}}}}\n\
                 routes: [{{prefix: /routed, cluster: service}}]\n{}",
                options.workers, options.count, options.initiator
            ),
        ),
    }
}

const _: () = assert!(
    PATIENCE.as_secs() >= 10,
    "Envoy's first tick may come late on a busy machine"
);
