//! The shipping code on a simulated network: it works, it recovers, and it does the same twice.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use eddy_sim::{probe, process};
use turmoil::{Builder, Sim};

const RESPONDER: &str = "node: {id: hub, cluster: hubs}\nworkers: @workers@\nadmin: {listen: ':8889'}\n\
    stats: {prefix: reverse_connections, detailed: true}\ntunnels: {listen: 0.0.0.0:9001}\n\
    egress: {listen: 0.0.0.0:8085, host_id: [x-node-id], routes: [{prefix: /}]}\n";
const INITIATOR: &str = "node: {id: edge, cluster: edges}\nworkers: @workers@\nadmin: {listen: ':8888'}\n\
    stats: {prefix: downstream_reverse_connection, detailed: true}\n\
    tunnels: [\"rc://edge:edges:acme@hub:1\"]\n\
    clusters: {hub: {hosts: [\"hub:9001\"]}, service: {hosts: [\"service:80\"]}}\n\
    routes: [{prefix: /, cluster: service}]\n";

fn world(seed: u64, workers: u16) -> Sim<'static> {
    let mut sim = Builder::new()
        .rng_seed(seed)
        .epoch(UNIX_EPOCH + Duration::from_secs(1_700_000_000))
        .simulation_duration(Duration::from_secs(60))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .tcp_capacity(4096)
        .build();
    let with_workers = |yaml: &str| yaml.replace("@workers@", &workers.to_string());
    let (responder, initiator) = (with_workers(RESPONDER), with_workers(INITIATOR));
    sim.host("service", move || process::service(80, seed));
    sim.host("hub", move || {
        let yaml = responder.clone();
        async move { process::run(&yaml, seed).await }
    });
    sim.host("edge", move || {
        let yaml = initiator.clone();
        async move { process::run(&yaml, seed + 1).await }
    });
    sim
}

type Story = Rc<RefCell<String>>;

async fn ask(story: &Story, count: usize) {
    for _ in 0..count {
        let answer = probe::get("hub", 8085, "/hello", "x-node-id: edge\r\n").await;
        let what = answer.map_or_else(|error| error.kind().to_string(), |(status, _)| status.to_string());
        writeln!(
            story.borrow_mut(),
            "{:>6} ms  {what}",
            turmoil::sim_elapsed().unwrap().as_millis()
        )
        .unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn tell_stats(story: &Story) {
    for (host, port) in [("edge", 8888), ("hub", 8889)] {
        let (status, body) = probe::get(host, port, "/stats?usedonly", "").await.unwrap();
        assert_eq!(status, 200);
        write!(story.borrow_mut(), "-- {host}\n{body}").unwrap();
    }
}

fn first_contact(seed: u64, workers: u16) -> String {
    let (mut sim, story) = (world(seed, workers), Story::default());
    let told = Rc::clone(&story);
    sim.client("client", async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        ask(&told, 5).await;
        tell_stats(&told).await;
        Ok(())
    });
    sim.run().unwrap();
    story.take()
}

/// The hub crashes at 3 s and is back at 5 s.
fn restart(seed: u64) -> String {
    let (mut sim, story) = (world(seed, 2), Story::default());
    let told = Rc::clone(&story);
    sim.client("client", async move {
        tokio::time::sleep(Duration::from_secs(6)).await;
        ask(&told, 5).await;
        tell_stats(&told).await;
        Ok(())
    });
    let mut crashed = false;
    let mut back = false;
    while !sim.step().unwrap() {
        if !crashed && sim.elapsed() >= Duration::from_secs(3) {
            crashed = true;
            sim.crash("hub");
        }
        if !back && sim.elapsed() >= Duration::from_secs(5) {
            back = true;
            sim.bounce("hub");
        }
    }
    story.take()
}

#[test]
fn first_contact_tells_what_the_seed_tells() {
    let story = first_contact(7, 1);
    let lines = |host: &str| story.lines().filter(|line| line.contains(host)).count();
    assert_eq!(
        story.lines().filter(|line| line.ends_with("ms  200")).count(),
        5,
        "{story}"
    );
    assert_eq!(lines("reverse_connections."), 4, "{story}");
    assert_eq!(
        lines("downstream_reverse_connection."),
        4,
        "the connecting ones are 0: {story}"
    );
    insta::assert_snapshot!(story);
}

#[test]
fn one_tunnel_serves_one_two_and_eight_workers() {
    for workers in [1, 2, 8] {
        let story = first_contact(11, workers);
        assert_eq!(
            story.lines().filter(|line| line.ends_with("ms  200")).count(),
            5,
            "{workers}: {story}"
        );
    }
}

#[test]
fn after_a_restart_of_the_responder_the_tunnel_is_back_within_a_second() {
    for seed in 0..20 {
        let story = restart(seed);
        assert_eq!(
            story.lines().filter(|line| line.ends_with("ms  200")).count(),
            5,
            "seed {seed}: {story}"
        );
    }
}

#[test]
fn the_same_seed_tells_the_same_story_and_another_seed_another() {
    assert_eq!(first_contact(3, 2), first_contact(3, 2));
    assert_eq!(restart(3), restart(3));
    assert_ne!(first_contact(3, 2), first_contact(4, 2));
}
