//! The sandbox: what the seed's commands show, word for word.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kit/mod.rs"]
mod kit;

use std::net::TcpListener;

use kit::{Eddy, Options, Pair, get, stats, wait_for};

const PORTS: [u16; 5] = [9000, 9001, 8888, 8889, 8085];

struct Sandbox {
    eddy: Eddy,
    offset: u16,
}

impl Sandbox {
    fn start(arguments: &[&str]) -> Self {
        let free = |offset: &u16| {
            PORTS
                .iter()
                .all(|p| TcpListener::bind(("127.0.0.1", p + offset)).is_ok())
        };
        let first = u16::try_from(std::process::id() % 200).unwrap() * 100;
        let offset = (first..first + 2_000).step_by(10).find(free).expect("free ports");
        let with_offset = ["sandbox", "--port-offset", &offset.to_string()];
        let eddy = Eddy::start(&[&with_offset, arguments].concat());
        let sandbox = Self { eddy, offset };
        wait_for("the sandbox to say that it is up", || {
            sandbox.eddy.log().contains("More: curl").then_some(())
        });
        sandbox
    }

    fn get(&self, port: u16, path: &str, headers: &[(&str, &str)]) -> kit::Answer {
        get(port + self.offset, path, headers)
    }

    /// `curl …/stats | grep PATTERN`
    fn grep(&self, port: u16, pattern: &str) -> Vec<String> {
        let stats = self.get(port, "/stats", &[]).body;
        stats
            .lines()
            .filter(|line| line.contains(pattern))
            .map(str::to_owned)
            .collect()
    }
}

#[test]
fn the_seed_s_commands_show_what_the_seed_shows() {
    let sandbox = Sandbox::start(&[]);
    let host = format!("127.0.0.1:{}", 9001 + sandbox.offset);
    let i = "downstream_reverse_connection";
    let expected = [
        format!("{i}.cluster.upstream-cluster.connected: 1"),
        format!("{i}.cluster.upstream-cluster.connecting: 0"),
        format!("{i}.host.{host}.connected: 1"),
        format!("{i}.host.{host}.connecting: 0"),
        format!("{i}.worker_0.cluster.upstream-cluster.connected: 1"),
        format!("{i}.worker_0.cluster.upstream-cluster.connecting: 0"),
        format!("{i}.worker_0.host.{host}.connected: 1"),
        format!("{i}.worker_0.host.{host}.connecting: 0"),
    ];
    assert_eq!(sandbox.grep(8888, "reverse_connection"), expected);
    assert_eq!(
        sandbox.grep(8889, "reverse_connections"),
        [
            "reverse_connections.clusters.downstream-cluster: 1",
            "reverse_connections.nodes.downstream-node: 1",
            "reverse_connections.worker_0.cluster.downstream-cluster: 1",
            "reverse_connections.worker_0.node.downstream-node: 1",
        ]
    );

    let node = ("x-remote-node-id", "downstream-node");
    let cluster = ("x-dst-cluster-uuid", "downstream-cluster");
    let newer = [
        ("x-node-id", "downstream-node"),
        ("x-cluster-id", "downstream-cluster"),
    ];
    for headers in [
        &[node, cluster][..],
        &[node],
        &[cluster],
        &newer[..1],
        &newer[1..],
    ] {
        let answer = sandbox.get(8085, "/downstream_service", headers);
        assert_eq!(answer.status, 200, "{headers:?}");
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        answer
            .header("x-envoy-upstream-service-time")
            .unwrap()
            .parse::<u64>()
            .unwrap();
        let lines: Vec<_> = answer
            .body
            .lines()
            .map(|line| line.split(": ").next().unwrap())
            .collect();
        assert_eq!(
            lines,
            ["Server address", "Server name", "Date", "URI", "Request ID"]
        );
        assert!(answer.body.contains("URI: /downstream_service\n"));
    }

    let api = |port| sandbox.get(port, "/reverse_connections", &[]).body;
    assert_eq!(api(9000), r#"{"accepted":[],"connected":["upstream-cluster"]}"#);
    assert_eq!(api(9001), r#"{"accepted":["downstream-node"],"connected":[]}"#);
}

#[test]
fn with_four_workers_a_request_works_on_each_and_the_lines_add_up() {
    let sandbox = Sandbox::start(&["--workers", "4"]);
    for _ in 0..40 {
        // A connection of its own each, so that they land on all workers.
        let answer = sandbox.get(8085, "/downstream_service", &[("x-node-id", "downstream-node")]);
        assert_eq!(answer.status, 200);
    }
    for (port, total, part) in [
        (
            8888,
            "cluster.upstream-cluster.connected",
            "cluster.upstream-cluster.connected",
        ),
        (8889, "nodes.downstream-node", "node.downstream-node"),
    ] {
        let stats = stats(port + sandbox.offset);
        let sum: i64 = stats
            .iter()
            .filter(|(n, _)| n.contains(".worker_") && n.ends_with(part))
            .map(|(_, v)| v)
            .sum();
        let whole = stats
            .iter()
            .find(|(n, _)| !n.contains("worker_") && n.ends_with(total))
            .unwrap()
            .1;
        assert_eq!(
            (sum, *whole),
            (1, 1),
            "one tunnel for the process, not one per worker"
        );
    }
}

#[test]
fn six_tunnels_spread_over_four_workers_on_both_sides() {
    let pair = Pair::with(Options {
        workers: 4,
        count: 6,
        ..Options::default()
    });
    for (admin, suffix) in [
        (pair.initiator_admin, ".cluster.hub.connected"),
        (pair.responder_admin, ".node.edge"),
    ] {
        let stats = stats(admin);
        let mut shares: Vec<_> = stats
            .iter()
            .filter(|(n, _)| n.contains(".worker_") && n.ends_with(suffix))
            .map(|(_, v)| *v)
            .collect();
        shares.sort_unstable();
        assert_eq!(shares.iter().sum::<i64>(), 6, "{shares:?}");
        // Handshakes that land on different workers at one instant may misplace a tunnel each.
        assert!(shares.len() >= 3 && shares.last() <= Some(&3), "{shares:?}");
    }
    (0..40).for_each(|_| pair.assert_good());
}

#[test]
fn per_worker_tunnels_are_dialed_where_asked_for() {
    let pair = Pair::with(Options {
        workers: 3,
        ..Options::default()
    });
    let port = kit::free_port();
    let initiator = Eddy::with_config(
        "initiator",
        &format!(
            "node: {{id: b, cluster: edges}}\nworkers: 2\nadmin: {{listen: 127.0.0.1:{port}}}\n\
             stats: {{prefix: i, detailed: true}}\n\
             tunnels: [{{address: \"rc://b:edges:acme@hub:2\", per_worker: true}}]\n\
             clusters: {{hub: {{hosts: [\"127.0.0.1:{}\"]}}}}\nroutes: []\n",
            pair.tunnels
        ),
    );
    wait_for("2 per worker", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()?;
        let stats = stats(port);
        let up = |name: &str| stats.get(name).copied();
        (up("i.cluster.hub.connected") == Some(4)
            && up("i.worker_0.cluster.hub.connected") == Some(2)
            && up("i.worker_1.cluster.hub.connected") == Some(2))
        .then_some(())
    });
    drop(initiator);
}

#[test]
fn hosts_may_have_names_and_one_that_has_no_address_hides_no_other() {
    let pair = Pair::start();
    let initiator = Eddy::with_config(
        "initiator",
        &format!(
            "node: {{id: named, cluster: edges}}\nworkers: 1\ntunnels: [\"rc://named:edges:acme@hub:1\"]\n\
             clusters: {{hub: {{hosts: [\"localhost:{}\", \"no-such-host.invalid:1\"]}}}}\nroutes: []\n",
            pair.tunnels
        ),
    );
    wait_for("the tunnel", || {
        (stats(pair.responder_admin).get("r.nodes.named") == Some(&1)).then_some(())
    });
    drop(initiator);
}

#[test]
fn the_admin_answers_what_its_help_lists() {
    let pair = Pair::start();
    for (admin, role) in [
        (pair.responder_admin, "responder"),
        (pair.initiator_admin, "initiator"),
    ] {
        let help = get(admin, "/help", &[]).body;
        for path in [
            "/stats",
            "/ready",
            "/server_info",
            "/config_dump",
            "/tunnels",
            "/help",
        ] {
            assert!(help.contains(&format!("GET {path}")), "{help}");
            assert_eq!(get(admin, path, &[]).status, 200, "{path}");
        }
        assert_eq!(get(admin, "/ready", &[]).body, "LIVE\n");
        let info: serde_json::Value = serde_json::from_str(&get(admin, "/server_info", &[]).body).unwrap();
        assert_eq!(info["role"], role);
        assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(info["workers"], 1);
        assert!(
            get(admin, "/config_dump", &[])
                .body
                .contains("drain_timeout: 10s")
        );
        let tunnels: serde_json::Value = serde_json::from_str(&get(admin, "/tunnels", &[]).body).unwrap();
        let tunnel = &tunnels["tunnels"][0];
        for (key, value) in [
            ("node", "edge"),
            ("cluster", "edges"),
            ("tenant", "acme"),
            ("worker", "worker_0"),
            ("state", "idle"),
        ] {
            assert_eq!(tunnel[key], value, "{tunnel}");
        }
        assert_eq!(
            get(admin, "/stats?filter=^reverse_tunnel.open$", &[]).body,
            "reverse_tunnel.open: 1\n"
        );
        assert_eq!(get(admin, "/stats?filter=(", &[]).status, 400);
        assert!(
            get(admin, "/stats?usedonly", &[])
                .body
                .lines()
                .all(|line| !line.ends_with(": 0"))
        );
        assert_eq!(get(admin, "/nowhere", &[]).status, 404);
        let post = kit::exchange(
            admin,
            b"POST /stats HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        );
        assert_eq!(kit::parse_answer(&post).unwrap().status, 405);
    }
}

#[test]
fn an_initiator_is_ready_while_it_has_a_tunnel_and_says_why_the_last_one_closed() {
    let mut pair = Pair::start();
    pair.responder.signal("KILL");
    pair.responder.wait();
    let answer = wait_for("unready", || {
        Some(get(pair.initiator_admin, "/ready", &[])).filter(|answer| answer.status == 503)
    });
    assert_eq!(answer.body, "no tunnel is up\n");
    let tunnels: serde_json::Value =
        serde_json::from_str(&get(pair.initiator_admin, "/tunnels", &[]).body).unwrap();
    assert_eq!(tunnels["tunnels"].as_array().unwrap().len(), 0);
    assert_eq!(tunnels["closed"][0]["reason"], "peer_closed");
    assert!(
        tunnels["hosts"][0]["failures"]["refused"].as_u64() > Some(0)
            || tunnels["hosts"][0]["backing_off"] == 1
    );
}

#[test]
fn a_signal_drains_and_ends_well_on_both_sides() {
    for name in ["TERM", "INT"] {
        let mut pair = Pair::start();
        pair.assert_good();
        pair.initiator.signal(name);
        assert_eq!(pair.initiator.wait().code(), Some(0));
        pair.responder.signal(name);
        assert_eq!(pair.responder.wait().code(), Some(0));
    }
}

#[test]
fn running_requests_end_well_when_the_responder_drains_whichever_worker_has_the_tunnel() {
    for workers in [1, 4] {
        let mut pair = Pair::with(Options {
            workers,
            ..Options::default()
        });
        let (egress, count) = (pair.egress, 12);
        let slow: Vec<_> = (0..count)
            .map(|_| kit::beside(move || get(egress, "/routed/slow", &[("x-node-id", "edge")])))
            .collect();
        wait_for("the requests", || {
            (stats(pair.responder_admin).get("egress.responses.2xx") == Some(&count)).then_some(())
        });
        pair.responder.signal("TERM");
        wait_for("not ready", || {
            let answer = get(pair.responder_admin, "/ready", &[]);
            (answer.status == 503 && answer.body == "draining\n").then_some(())
        });
        for request in slow {
            let answer = request.join().unwrap();
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (200, "slow"),
                "{workers} workers"
            );
        }
        assert_eq!(pair.responder.wait().code(), Some(0));
    }
}

#[test]
fn a_running_request_ends_well_when_the_initiator_drains() {
    let mut pair = Pair::start();
    let egress = pair.egress;
    let slow = kit::beside(move || get(egress, "/routed/slow", &[("x-node-id", "edge")]));
    wait_for("the request", || {
        (stats(pair.responder_admin).get("egress.in_flight") == Some(&1)).then_some(())
    });
    pair.initiator.signal("TERM");
    assert_eq!(slow.join().unwrap().body, "slow");
    assert_eq!(pair.initiator.wait().code(), Some(0));
}

#[test]
fn a_second_signal_ends_at_once() {
    let mut pair = Pair::start();
    let egress = pair.egress;
    let hung = kit::beside(move || {
        let _ = kit::exchange(
            egress,
            b"GET /routed/hang HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\n\r\n",
        );
    });
    wait_for("the request", || {
        (stats(pair.responder_admin).get("egress.in_flight") == Some(&1)).then_some(())
    });
    pair.responder.signal("TERM");
    wait_for("the drain", || {
        pair.responder.log().contains("draining").then_some(())
    });
    assert!(pair.responder.is_running());
    pair.responder.signal("TERM");
    assert_eq!(pair.responder.wait().code(), Some(0));
    hung.join().unwrap();
}

#[test]
fn a_killed_initiator_takes_its_route_and_its_series_with_it() {
    let mut pair = Pair::start();
    pair.assert_good();
    pair.initiator.signal("KILL");
    pair.initiator.wait();
    let gone = wait_for("the node to go", || {
        Some(get(pair.egress, "/routed", &[("x-node-id", "edge")])).filter(|answer| answer.status == 503)
    });
    assert_eq!(gone.header("x-eddy-reason"), Some("no_tunnel"));
    assert_eq!(
        stats(pair.responder_admin).get("r.nodes.edge"),
        None,
        "a series goes with its subject"
    );
    // The kernel of a killed process says goodbye for it, or resets where it had bytes unread.
    let stats = stats(pair.responder_admin);
    let closed = |why| {
        stats
            .get(&format!("reverse_tunnel.closed.{why}"))
            .copied()
            .unwrap_or(0)
    };
    assert_eq!(
        (closed("peer_closed") + closed("peer_reset"), closed("http_error")),
        (1, 0)
    );
}
