//! After each fault, within a second of quiet, the numbers in every form are what the kernel, the clients and the services say.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::kit::{Eddy, Options, Pair, Stats, connect, get, parse_answer, post, read_all, stats, wait_for};
use crate::samples;

/// Connections of this port that both ends have, by the kernel's word.
fn established(port: u16) -> usize {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let of_port = |line: &&str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        fields[1].ends_with(&format!(":{port:04X}")) && fields[3] == ESTABLISHED
    };
    table.lines().skip(1).filter(of_port).count()
}

/// What clients have sent to the egress, and what became of it.
#[derive(Default)]
struct Clients {
    answered: i64,
    refused: BTreeMap<&'static str, i64>,
    gone: i64,
}

impl Clients {
    fn ask(&mut self, pair: &Pair, count: i64) {
        for _ in 0..count {
            pair.assert_good();
        }
        self.answered += count;
    }

    /// A request that Eddy refuses for this reason.
    fn ask_in_vain(&mut self, pair: &Pair, path: &str, node: &str, reason: &'static str) {
        let answer = get(pair.egress, path, &[("x-node-id", node)]);
        assert_eq!(answer.header("x-eddy-reason"), Some(reason));
        *self.refused.entry(reason).or_default() += 1;
    }

    /// A request whose client goes away.
    fn leave(&mut self, pair: &Pair) {
        let mut client = connect(pair.egress);
        let request = b"GET /routed/hang HTTP/1.1\r\nhost: h\r\nx-node-id: edge\r\n\r\n";
        std::io::Write::write_all(&mut client, request).unwrap();
        wait_for("the request to run", || {
            (stats(pair.initiator_admin)["service.in_flight"] == 1).then_some(())
        });
        drop(client);
        self.gone += 1;
    }

    fn requests(&self) -> i64 {
        self.answered + self.gone + self.refused.values().sum::<i64>()
    }
}

/// The numbers of a process at one moment in every form in which it tells them.
struct Forms {
    text: Stats,
    json: Stats,
    prometheus: BTreeMap<String, f64>,
}

impl Forms {
    fn of(admin: u16) -> Self {
        let json = get(admin, "/stats?format=json&hidden=include", &[]).body;
        let json: Value = serde_json::from_str(&json).unwrap();
        let stats_of_json = json["stats"].as_array().unwrap().iter();
        let number = |stat: &Value| {
            (
                stat["name"].as_str().unwrap().to_owned(),
                stat["value"].as_i64().unwrap(),
            )
        };
        Self {
            text: stats(admin),
            json: stats_of_json.map(number).collect(),
            prometheus: samples(admin),
        }
    }

    /// The line of `/stats` and the sample of `/metrics` that are one number; an error if they are not.
    fn number(&self, line: &str, sample: &str) -> Result<i64, String> {
        let [text, json] = [&self.text, &self.json].map(|form| form.get(line).copied().unwrap_or(0));
        let prometheus = self.prometheus.get(sample).copied().unwrap_or(0.0);
        if text == json && text.to_string() == prometheus.to_string() {
            Ok(text)
        } else {
            Err(format!(
                "{line}: text says {text}, JSON {json}, Prometheus {prometheus}"
            ))
        }
    }
}

fn same(what: &str, said: i64, truth: i64) -> Result<(), String> {
    let differs = || format!("{what} says {said}, and {truth} is true");
    (said == truth).then_some(()).ok_or_else(differs)
}

/// Whether all numbers of the responder are true.
fn responder_is_true(pair: &Pair, clients: &Clients) -> Result<(), String> {
    let admin = pair.responder_admin;
    let forms = Forms::of(admin);
    let is = |line: &str, sample: &str, truth: i64| same(line, forms.number(line, sample)?, truth);
    let tunnels = i64::try_from(established(pair.tunnels)).unwrap();
    is("reverse_tunnel.open", "eddy_tunnels_open{}", tunnels)?;
    is("r.nodes.edge", "eddy_node_tunnels{node=edge}", tunnels)?;
    let json = |path: &str| serde_json::from_str::<Value>(&get(admin, path, &[]).body).unwrap();
    let listed = json("/tunnels")["tunnels"].as_array().unwrap().len();
    same("/tunnels", i64::try_from(listed).unwrap(), tunnels)?;
    same(
        "/overview",
        json("/overview")["tunnels"]["open"].as_i64().unwrap(),
        tunnels,
    )?;
    is(
        "egress.requests",
        "eddy_requests_total{hop=egress}",
        clients.requests(),
    )?;
    is("egress.in_flight", "eddy_requests_in_flight{hop=egress}", 0)?;
    let gone = "eddy_requests_client_gone_total{hop=egress}";
    is("egress.client_gone", gone, clients.gone)?;
    let ok = "eddy_responses_total{class=2xx,hop=egress}";
    is("egress.responses.2xx", ok, clients.answered)?;
    for (reason, count) in &clients.refused {
        let sample = format!("eddy_requests_refused_total{{hop=egress,reason={reason}}}");
        is(&format!("egress.refused.{reason}"), &sample, *count)?;
    }
    Ok(())
}

/// A reason of ours.
fn known(reason: &str) -> &'static str {
    let labels = eddy_core::router::Refusal::ALL.map(|why| why.label());
    labels.into_iter().find(|label| *label == reason).unwrap()
}

/// Waits for a fault to have its effect; a second later at the latest all numbers are true.
fn after(fault: &str, pair: &Pair, clients: &Clients, tunnels: usize) {
    wait_for(fault, || (established(pair.tunnels) == tunnels).then_some(()));
    let quiet = Instant::now();
    loop {
        let looked = quiet.elapsed();
        let Err(wrong) = responder_is_true(pair, clients) else {
            return;
        };
        assert!(looked < Duration::from_secs(1), "after {fault}: {wrong}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn numbers_are_true_after_each_fault() {
    let mut pair = Pair::with(Options {
        workers: 2,
        count: 2,
        egress: ", reconnect_grace: 0s",
        ..Options::default()
    });
    let mut clients = Clients::default();
    let config = pair.initiator.config();
    after("the start", &pair, &clients, 2);

    clients.ask(&pair, 20);
    clients.ask_in_vain(&pair, "/routed", "nobody", "no_tunnel");
    clients.ask_in_vain(&pair, "/elsewhere", "edge", "no_route");
    clients.leave(&pair);
    after("requests", &pair, &clients, 2);

    pair.initiator.signal("KILL");
    pair.initiator.wait();
    after("the initiator's death", &pair, &clients, 0);
    std::thread::sleep(Duration::from_millis(50));
    clients.ask_in_vain(&pair, "/routed", "edge", "no_tunnel");
    after("a request for the dead", &pair, &clients, 0);

    pair.initiator = Eddy::with_config("initiator", &config);
    after("the initiator's return", &pair, &clients, 2);
    clients.ask(&pair, 10);
    after("requests through new tunnels", &pair, &clients, 2);

    let drained = post(pair.responder_admin, "/drain?node=edge").body;
    assert_eq!(drained, "draining 2 tunnels\n");
    wait_for("the tunnels to be replaced", || {
        let now = stats(pair.responder_admin);
        (now["reverse_tunnel.opened"] == 6 && now["reverse_tunnel.open"] == 2).then_some(())
    });
    after("the replacement of both tunnels", &pair, &clients, 2);
    clients.ask(&pair, 10);

    // What runs on a tunnel that takes nothing new is still to be seen.
    let mut hanging = connect(pair.egress);
    let request = b"GET /routed/hang HTTP/1.1\r\nhost: h\r\nx-node-id: edge\r\nconnection: close\r\n\r\n";
    std::io::Write::write_all(&mut hanging, request).unwrap();
    wait_for("the request to run", || {
        (stats(pair.initiator_admin)["service.in_flight"] == 1).then_some(())
    });
    pair.initiator.signal("TERM");
    wait_for("the initiator to take nothing new", || {
        let answer = get(pair.egress, "/routed", &[("x-node-id", "edge")]);
        match answer.header("x-eddy-reason") {
            None => clients.answered += 1,
            Some(reason) => *clients.refused.entry(known(reason)).or_default() += 1,
        }
        (answer.header("x-eddy-reason") == Some("no_tunnel")).then_some(())
    });
    let list: Value = serde_json::from_str(&get(pair.responder_admin, "/tunnels", &[]).body).unwrap();
    let streams = list["tunnels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tunnel| tunnel["streams"].as_u64());
    assert_eq!(streams.sum::<Option<u64>>(), Some(1), "{list}");
    pair.initiator.signal("KILL");
    pair.initiator.wait();
    let answer = parse_answer(&read_all(&mut hanging)).unwrap();
    let reason = answer.header("x-eddy-reason").unwrap();
    *clients.refused.entry(known(reason)).or_default() += 1;
    pair.initiator = Eddy::with_config("initiator", &config);
    after("a drain of the initiator", &pair, &clients, 2);
    clients.ask(&pair, 10);

    // The kernel keeps a frozen process's connections: the responder closes its ends when it finds out.
    pair.initiator.signal("STOP");
    wait_for("the frozen initiator's tunnels to be given up", || {
        (stats(pair.responder_admin)["reverse_tunnel.open"] == 0).then_some(())
    });
    after("a freeze", &pair, &clients, 0);
    pair.initiator.signal("CONT");
    after("the thaw", &pair, &clients, 2);
    clients.ask(&pair, 10);
    after("requests at the end", &pair, &clients, 2);
    let served = stats(pair.initiator_admin)["service.responses.2xx"];
    assert_eq!(
        served, 20,
        "as the service has answered since the initiator's last start"
    );
}

#[test]
fn an_initiator_s_numbers_are_true_when_its_responder_dies_and_returns() {
    let mut pair = Pair::with(Options {
        count: 2,
        ..Options::default()
    });
    let config = pair.responder.config();
    let told = |pair: &Pair| {
        let forms = Forms::of(pair.initiator_admin);
        let connected = "eddy_upstream_tunnels{cluster=hub,state=connected}";
        let numbers = [
            forms.number("reverse_tunnel.open", "eddy_tunnels_open{}"),
            forms.number("i.cluster.hub.connected", connected),
            forms.number("reverse_tunnel.wanted", "eddy_tunnels_wanted{}"),
        ];
        numbers.map(|number| number.unwrap_or(-1))
    };
    wait_for("both tunnels", || (told(&pair) == [2, 2, 2]).then_some(()));
    pair.responder.signal("KILL");
    pair.responder.wait();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(told(&pair), [0, 0, 2]);
    assert_eq!(get(pair.initiator_admin, "/ready", &[]).status, 503);
    pair.responder = Eddy::with_config("responder", &config);
    wait_for("the tunnels to return", || {
        (established(pair.tunnels) == 2).then_some(())
    });
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(told(&pair), [2, 2, 2]);
    assert_eq!(get(pair.initiator_admin, "/ready", &[]).status, 200);
}
