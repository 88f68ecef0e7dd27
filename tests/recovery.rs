//! What happens when an initiator dies and comes back, with real processes: requests wait for it, and the admin
//! explains.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kit/mod.rs"]
mod kit;

use kit::load::Load;
use kit::{Eddy, Pair, beside, get, monotonic, pause, stats, wait_for};
use std::time::Duration;

fn explain(admin: u16, question: &str) -> serde_json::Value {
    let answer = get(admin, &format!("/explain?{question}"), &[]);
    assert_eq!(answer.status, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

fn replacement(pair: &Pair) -> Eddy {
    let (tunnels, service) = (pair.tunnels, pair.service.port);
    Eddy::with_config(
        "initiator",
        &format!(
            "node: {{id: edge, cluster: edges}}\ntunnels: [\"rc://edge:edges:acme@hub:1\"]\n\
             clusters: {{hub: {{hosts: [\"127.0.0.1:{tunnels}\"]}}, service: {{hosts: [\"127.0.0.1:{service}\"]}}}}\n\
             routes: [{{prefix: /routed, cluster: service}}]\n"
        ),
    )
}

fn gone(pair: &Pair) {
    pair.initiator.signal("KILL");
    wait_for("the responder to notice", || {
        (stats(pair.responder_admin).get("reverse_tunnel.open") == Some(&0)).then_some(())
    });
}

#[test]
fn a_request_waits_for_an_initiator_that_was_here_moments_ago() {
    let pair = Pair::start();
    pair.assert_good();
    gone(&pair);
    let egress = pair.egress;
    let waiting = beside(move || get(egress, "/routed", &[("x-node-id", "edge")]));
    pause(Duration::from_millis(200));
    let _back = replacement(&pair);
    assert_eq!(waiting.join().unwrap().status, 200);
    let numbers = stats(pair.responder_admin);
    assert_eq!(numbers.get("egress.waited"), Some(&1));
    assert_eq!(numbers.get("egress.refused.no_tunnel"), Some(&0));
}

#[test]
fn it_waits_a_second_and_no_longer_and_for_a_stranger_not_at_all() {
    let pair = Pair::start();
    gone(&pair);
    let asked = monotonic();
    assert_eq!(get(pair.egress, "/routed", &[("x-node-id", "edge")]).status, 503);
    let took = monotonic() - asked;
    assert!(
        took >= Duration::from_millis(900) && took < Duration::from_secs(4),
        "{took:?}"
    );
    // By now the responder is older than the time in which it takes nobody for a stranger.
    pause(Duration::from_millis(1_500));
    let asked = monotonic();
    assert_eq!(
        get(pair.egress, "/routed", &[("x-node-id", "stranger")]).status,
        503
    );
    assert!(monotonic() - asked < Duration::from_millis(900));
}

#[test]
fn the_admin_explains_why_a_node_can_be_reached_and_why_not() {
    let pair = Pair::start();
    let told = explain(pair.responder_admin, "node=edge");
    assert_eq!(told["verdict"], "reachable, through 1 tunnel");
    assert_eq!(told["choices"][0]["tunnel"], told["tunnels"][0]["id"]);
    assert_eq!(told["choices"][0]["why"], "its own, with 0 of its requests on it");
    assert_eq!(
        explain(pair.responder_admin, "cluster=edges")["verdict"],
        told["verdict"]
    );
    let dialed = explain(pair.initiator_admin, "cluster=hub");
    assert_eq!(dialed["hosts"][0]["connected"], 1);

    let told = wait_for("the end of the startup grace", || {
        let told = explain(pair.responder_admin, "node=stranger");
        let why = told["choices"][0]["why"].as_str().unwrap();
        (why != "no tunnel, but this process has just started: a request waits up to 1s for it")
            .then_some(told)
    });
    let verdict =
        "not reachable: no tunnel is up, and none was lately: is it dialing this process, under this name?";
    assert_eq!(told["verdict"], verdict);
    assert_eq!(told["choices"][0]["why"], "no tunnel, and none was here lately");

    gone(&pair);
    let told = explain(pair.responder_admin, "node=edge");
    let verdict = told["verdict"].as_str().unwrap();
    assert!(
        verdict.starts_with("not reachable: no tunnel is up; the last one ended with peer_"),
        "{verdict}"
    );
    let why = told["choices"][0]["why"].as_str().unwrap();
    assert_eq!(
        why,
        "no tunnel, but one was here moments ago: a request waits up to 1s for it"
    );
    let text = get(pair.responder_admin, "/explain?node=edge&format=text", &[]).body;
    assert!(
        text.starts_with(&format!(
            "node edge: {verdict}\nworker_0 takes no tunnel: {why}\n"
        )),
        "{text}"
    );
}

#[test]
fn a_question_that_makes_no_sense_is_refused_with_what_is_allowed() {
    let pair = Pair::start();
    for (question, said) in [
        ("", "ask for one of ?node=ID and ?cluster=ID"),
        ("?node=a&cluster=b", "ask for one of ?node=ID and ?cluster=ID"),
        ("?nod=a", "nod: no such parameter; ask for one of"),
        (
            "?node=a&format=xml",
            "format: \"xml\" is unknown; allowed: json, text",
        ),
    ] {
        let answer = get(pair.responder_admin, &format!("/explain{question}"), &[]);
        assert_eq!(answer.status, 400);
        assert!(answer.body.starts_with(said), "{question}: {}", answer.body);
    }
}

/// The other one has the same node id; requests that can be sent twice find it, and nobody waits for the frozen one for long.
#[test]
fn a_frozen_initiator_costs_nobody_more_than_two_seconds_where_another_one_is() {
    let pair = Pair::start();
    let _other = replacement(&pair);
    wait_for("both", || {
        (stats(pair.responder_admin).get("reverse_tunnel.open") == Some(&2)).then_some(())
    });
    let load = Load::start(pair.egress, "edge", 200);
    pause(Duration::from_secs(1));
    pair.initiator.signal("STOP");
    pause(Duration::from_secs(5));
    pair.initiator.signal("CONT");
    pause(Duration::from_secs(1));
    let tally = load.finish();
    eprintln!(
        "frozen: {} good, longest {:?}, {:?}",
        tally.good, tally.longest, tally.bad
    );
    assert!(tally.longest < Duration::from_millis(2_500), "{tally:?}");
    // A POST on the frozen tunnel may have been served; nothing else is lost.
    let lost: Vec<_> = tally
        .bad
        .keys()
        .filter(|why| *why != "POST: 503 tunnel_lost")
        .collect();
    assert!(lost.is_empty(), "{tally:?}");
    let lost: u32 = tally.bad.values().sum();
    assert!(lost <= 100, "those of the first half second: {tally:?}");
}
