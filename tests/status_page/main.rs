//! The status page, in a real headless Chromium beside real processes.
//!
//! `$EDDY_CHROMIUM` says where Chromium is, if not at `/usr/bin/chromium`.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test that cannot go on fails; it measures real time, and reads in a thread of its own"
)]

mod browser;
#[path = "../kit/mod.rs"]
mod kit;

use std::time::{Duration, Instant};

use browser::{PATIENCE, Page, chromium};
use kit::{Eddy, Options, Pair, exchange, free_port, get, wait_for};
use serde_json::Value;

fn page_of(admin: u16) -> Option<Page> {
    Some(Page::open(&chromium()?, &format!("http://127.0.0.1:{admin}/")))
}

/// Waits until an expression is true in the page; says how long that took. Browsers that start side by side on two cores
/// need more patience than processes do.
fn until(page: &mut Page, expression: &str) -> Duration {
    let began = Instant::now();
    while page.eval(expression) != true {
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {expression}");
        std::thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

const LIVE: &str = "document.getElementById('connection')?.dataset.live === 'true'";

/// One more initiator of the pair's responder.
fn another_initiator(pair: &Pair, node: &str) -> Eddy {
    let admin = free_port();
    let initiator = Eddy::with_config(
        "initiator",
        &format!(
            "node: {{id: {node}, cluster: edges}}\nworkers: 1\nadmin: {{listen: 127.0.0.1:{admin}}}\n\
             tunnels: [\"rc://{node}:edges:acme@hub:1\"]\nclusters: {{hub: {{hosts: [\"127.0.0.1:{}\"]}}}}\nroutes: []\n",
            pair.tunnels
        ),
    );
    wait_for("the other initiator", || {
        let up = initiator.log().contains("tunnel up");
        up.then_some(())
    });
    initiator
}

#[test]
fn a_tunnel_that_comes_and_one_that_goes_are_shown_within_two_seconds_with_the_reason() {
    let pair = Pair::start();
    let Some(mut page) = page_of(pair.responder_admin) else {
        return;
    };
    until(&mut page, LIVE);
    until(
        &mut page,
        "document.querySelector('tr[data-node=edge]')?.dataset.state === 'idle'",
    );
    assert_eq!(page.eval("document.getElementById('open').textContent"), "1");

    let is = |node: &str, state: &str| {
        format!("document.querySelector('tr[data-node=\"{node}\"]')?.dataset.state === '{state}'")
    };
    // The machine may be busy with other tests, for once.
    let in_time = |took: &[Duration]| took.iter().all(|took| *took < Duration::from_secs(2));
    let mut took = Vec::new();
    for node in ["edge-2", "edge-3", "edge-4"] {
        let other = another_initiator(&pair, node);
        took = vec![until(&mut page, &is(node, "idle"))];
        until(&mut page, "document.getElementById('open').textContent === '2'");
        drop(other);
        took.push(until(&mut page, &is(node, "gone")));
        if in_time(&took) {
            break;
        }
    }
    assert!(in_time(&took), "{took:?}");
    let row = page.eval("document.querySelector('tr[data-node=\"edge-2\"]').innerText");
    assert!(row.as_str().unwrap().contains("peer_"), "{row}");
    let event = page.eval("document.querySelector('[data-event=down]').dataset.reason");
    assert!(event.as_str().unwrap().starts_with("peer_"), "{event}");
    assert_eq!(page.errors, [""; 0]);
}

#[test]
fn the_page_alone_says_why_a_node_cannot_be_reached() {
    let pair = Pair::start();
    let Some(mut page) = page_of(pair.responder_admin) else {
        return;
    };
    until(&mut page, LIVE);
    drop(another_initiator(&pair, "edge-2"));
    page.search("EDGE-2");
    until(
        &mut page,
        "document.querySelector('tr[data-node=\"edge-2\"]')?.dataset.state === 'gone'",
    );
    until(
        &mut page,
        "document.querySelectorAll('tr[data-node]').length === 1",
    );
    page.eval("document.querySelector('tr[data-node=\"edge-2\"] button').click()");
    until(
        &mut page,
        "/no tunnel/i.test(document.getElementById('explain')?.textContent ?? '')",
    );

    page.search("nobody-has-this");
    until(
        &mut page,
        "document.querySelectorAll('tr[data-node]').length === 0",
    );
    until(
        &mut page,
        "/nobody-has-this/.test(document.getElementById('empty').innerText)",
    );
    assert_eq!(page.errors, [""; 0]);
}

#[test]
fn an_initiator_s_page_shows_its_hosts_and_why_none_is_reached() {
    let mut pair = Pair::start();
    let Some(mut page) = page_of(pair.initiator_admin) else {
        return;
    };
    let host = format!("tr[data-host='127.0.0.1:{}']", pair.tunnels);
    until(
        &mut page,
        &format!("document.querySelector(\"{host}\")?.dataset.state === 'active'"),
    );
    pair.responder.signal("KILL");
    pair.responder.wait();
    until(
        &mut page,
        &format!("document.querySelector(\"{host}\")?.dataset.state === 'gone'"),
    );
    until(
        &mut page,
        &format!("/refused/.test(document.querySelector(\"{host}\")?.innerText)"),
    );
    until(&mut page, "document.querySelector('[data-event=down]') !== null");
    assert_eq!(page.errors, [""; 0]);
}

#[test]
fn a_node_whose_handshake_is_refused_is_among_the_events() {
    let pair = Pair::start();
    let Some(mut page) = page_of(pair.responder_admin) else {
        return;
    };
    until(&mut page, LIVE);
    exchange(
        pair.tunnels,
        b"GET /reverse_connections/request HTTP/1.1\r\nhost: h\r\n\r\n",
    );
    until(
        &mut page,
        "document.querySelector('[data-event=refused]')?.dataset.reason === 'missing_ids'",
    );
    assert_eq!(page.errors, [""; 0]);
}

#[test]
fn an_initiator_s_cluster_is_explained_by_its_hosts() {
    let mut pair = Pair::with(Options {
        workers: 3,
        ..Options::default()
    });
    let explained = || get(pair.initiator_admin, "/explain?cluster=hub&format=text", &[]).body;
    assert!(
        explained().starts_with("cluster hub: reachable, through 1 tunnel\n"),
        "{}",
        explained()
    );
    let overview =
        || -> Value { serde_json::from_str(&get(pair.initiator_admin, "/overview", &[]).body).unwrap() };
    let hosts = overview()["hosts"].clone();
    assert_eq!(
        hosts.as_array().unwrap().len(),
        1,
        "one line of all workers: {hosts}"
    );
    assert_eq!(
        (&overview()["matching"], &overview()["state"]),
        (&1.into(), &"LIVE".into())
    );
    pair.responder.signal("KILL");
    pair.responder.wait();
    wait_for("the loss to be seen", || {
        (overview()["state"] == "NOT READY").then_some(())
    });
    assert_eq!(overview()["matching"], 0);
}

#[test]
fn the_page_needs_nothing_but_itself_and_its_numbers_are_json() {
    let pair = Pair::start();
    let page = get(pair.responder_admin, "/", &[]);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    assert!(!page.body.contains("https://"), "nothing from elsewhere");
    for admin in [pair.responder_admin, pair.initiator_admin] {
        let overview = get(admin, "/overview?search=EDGE", &[]);
        let overview: Value = serde_json::from_str(&overview.body).unwrap();
        assert_eq!(overview["tunnels"]["open"], 1);
        assert_eq!(overview["rows"][0]["node"], "edge");
        assert_eq!(overview["events"][0]["event"], "up");
    }
    let wrong = get(pair.responder_admin, "/overview?after=x", &[]);
    assert_eq!(wrong.status, 400);
    assert!(
        wrong.body.starts_with("after: \"x\" is no cursor; allowed: "),
        "{}",
        wrong.body
    );
}
