//! Two processes under one node id, with real processes: what each policy makes of them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kit/mod.rs"]
mod kit;

use std::collections::BTreeSet;
use std::io::{Read, Write};

use kit::{Eddy, Options, Pair, Service, connect, get, stats, wait_for};
use serde_json::Value;

/// A pair, and another initiator with the node id of the first, in front of a service of its own.
struct Twins {
    pair: Pair,
    second: Eddy,
    _service: Service,
}

/// Starts the second as soon as the first has its tunnels.
fn twins(policy: &str) -> Twins {
    let pair = Pair::with(Options {
        count: 2,
        workers: 2,
        tunnels: &format!("  duplicates: {policy}\n"),
        ..Options::default()
    });
    let service = Service::moody();
    let config = pair.initiator.config();
    let config: Vec<_> = config
        .lines()
        .filter(|line| !line.starts_with("admin:") && !line.starts_with("api:"))
        .map(|line| line.replace(&pair.service.port.to_string(), &service.port.to_string()))
        .collect();
    let second = Eddy::with_config("initiator", &config.join("\n"));
    Twins {
        pair,
        second,
        _service: service,
    }
}

fn tunnels(pair: &Pair) -> Vec<Value> {
    let answer = get(pair.responder_admin, "/tunnels", &[]);
    let all: Value = serde_json::from_str(&answer.body).unwrap();
    all["tunnels"].as_array().unwrap().clone()
}

/// The nonces of the processes that have tunnels, if there are so many tunnels, which are duplicates or not.
fn processes(pair: &Pair, count: usize, duplicates: bool) -> Option<BTreeSet<String>> {
    let tunnels = tunnels(pair);
    let fits = |tunnel: &Value| tunnel["duplicate"].as_bool().unwrap_or(false) == duplicates;
    let nonces = tunnels.iter().map(|tunnel| {
        let instance = tunnel["instance"].as_str().unwrap();
        instance.split('.').next().unwrap().to_owned()
    });
    (tunnels.len() == count && tunnels.iter().all(fits)).then(|| nonces.collect())
}

fn number(pair: &Pair, name: &str) -> i64 {
    stats(pair.responder_admin).get(name).copied().unwrap_or(0)
}

#[test]
fn pooled_they_share_the_requests_and_are_shown_as_two() {
    let twins = twins("pool");
    let nonces = wait_for("both to be there", || processes(&twins.pair, 4, true));
    assert_eq!(nonces.len(), 2);
    assert_eq!(number(&twins.pair, "reverse_tunnel.duplicates"), 2);
    assert_eq!(number(&twins.pair, "reverse_tunnel.closed.superseded"), 0);
    twins.pair.assert_good();
}

#[test]
fn superseded_the_first_one_is_let_go_and_stays_out_until_the_second_is_gone() {
    let twins = twins("supersede");
    wait_for("the first to be refused", || {
        (number(&twins.pair, "reverse_tunnel.handshake.rejected") > 0).then_some(())
    });
    let second = wait_for("the second to be alone", || processes(&twins.pair, 2, false));
    assert_eq!(second.len(), 1);
    assert_eq!(number(&twins.pair, "reverse_tunnel.closed.superseded"), 2);
    twins.pair.assert_good();

    twins.second.signal("KILL");
    let first = wait_for("the first to come back", || {
        processes(&twins.pair, 2, false).filter(|there| *there != second)
    });
    assert_eq!(first.len(), 1);
    twins.pair.assert_good();
}

#[test]
fn rejected_the_second_one_waits_outside() {
    let twins = twins("reject");
    wait_for("the second to be refused", || {
        (number(&twins.pair, "reverse_tunnel.handshake.rejected") > 0).then_some(())
    });
    let first = processes(&twins.pair, 2, false).unwrap();
    assert_eq!(first.len(), 1);
    assert_eq!(number(&twins.pair, "reverse_tunnel.duplicates"), 0);
    twins.pair.assert_good();

    twins.pair.initiator.signal("KILL");
    wait_for("the second to come in", || {
        processes(&twins.pair, 2, false).filter(|there| *there != first)
    });
    twins.pair.assert_good();
}

#[test]
fn a_tunnel_says_the_same_of_its_place_on_both_ends() {
    let pair = Pair::start();
    let there = tunnels(&pair)[0]["instance"].as_str().unwrap().to_owned();
    assert!(there.ends_with(".0.0.0"), "{there}");
    let answer = get(pair.initiator_admin, "/tunnels", &[]);
    let here: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(here["tunnels"][0]["instance"].as_str(), Some(there.as_str()));
}

/// As an initiator does that gave a tunnel up without being able to say so: the responder does not wait for the silence
/// to be long enough.
#[test]
fn who_dials_again_for_a_place_lets_the_old_tunnel_there_go() {
    let pair = Pair::start();
    let dial = || {
        let mut stream = connect(pair.tunnels);
        let request = "GET /reverse_connections/request HTTP/1.1\r\nhost: hub\r\n\
                       x-envoy-reverse-tunnel-node-id: n\r\nx-envoy-reverse-tunnel-cluster-id: c\r\n\
                       x-envoy-reverse-tunnel-tenant-id: t\r\n\
                       x-eddy-reverse-tunnel-instance: 0000000000000007.0.0.0\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        let mut head = [0; 15];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        stream
    };
    let open = |count| (number(&pair, "reverse_tunnel.open") == count).then_some(());
    let _given_up = dial();
    wait_for("the first", || open(2));
    let _again = dial();
    wait_for("the first to go", || {
        (number(&pair, "reverse_tunnel.closed.superseded") == 1).then_some(())
    });
    wait_for("the second", || open(2));
}
