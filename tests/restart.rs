//! Planned restarts of either side, with real processes under load: no request is lost.
//!
//! `EDDY_RESTARTS` says how many in a row; the default is for every day.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "kit/mod.rs"]
mod kit;

use std::time::Duration;

use kit::load::{Load, PER_SECOND, assert_nothing_lost, restarts};
use kit::{Eddy, Options, Pair, get, pause, post, stats, wait_for};

fn open_tunnels(admin: u16) -> Option<i64> {
    let _ = std::net::TcpStream::connect(("127.0.0.1", admin)).ok()?;
    stats(admin).get("reverse_tunnel.open").copied()
}

/// The next process waits with `--take-over`; SIGTERM to the old one is all that a supervisor does.
fn replace_responder(workers: u16, count: u32) {
    let mut pair = Pair::with(Options {
        workers,
        count,
        ..Options::default()
    });
    let load = Load::start(pair.egress, "edge", PER_SECOND);
    for turn in 0..restarts() {
        pause(Duration::from_millis(500));
        let next = Eddy::with_config_and("responder", &pair.responder.config(), &["--take-over"]);
        // However long the next one has waited.
        pause(Duration::from_millis(if turn == 0 { 2_500 } else { 300 }));
        pair.responder.signal("TERM");
        assert!(pair.responder.wait().success());
        pair.responder = next;
        wait_for("the new one's admin and tunnels", || {
            (open_tunnels(pair.responder_admin)? == i64::from(count)).then_some(())
        });
    }
    pause(Duration::from_millis(500));
    assert_nothing_lost(
        &load.finish(),
        &format!("responder with {workers} workers replaced"),
    );
}

#[test]
fn a_responder_is_replaced_on_its_addresses_and_no_request_is_lost() {
    replace_responder(1, 1);
}

#[test]
fn so_is_one_with_several_workers_and_tunnels() {
    replace_responder(3, 4);
}

/// The next process has the same file: it dials at once, and waits for the addresses of the admin and the API.
fn replace_initiator(workers: u16, count: u32) {
    let mut pair = Pair::with(Options {
        workers,
        count,
        ..Options::default()
    });
    let load = Load::start(pair.egress, "edge", PER_SECOND);
    for _ in 0..restarts() {
        pause(Duration::from_millis(500));
        let next = Eddy::with_config_and("initiator", &pair.initiator.config(), &["--take-over"]);
        wait_for("the new one's tunnels", || {
            (open_tunnels(pair.responder_admin)? == 2 * i64::from(count)).then_some(())
        });
        pair.initiator.signal("TERM");
        assert!(pair.initiator.wait().success());
        pair.initiator = next;
        wait_for("the new one's admin", || {
            (open_tunnels(pair.initiator_admin)? == i64::from(count)).then_some(())
        });
        assert_eq!(get(pair.initiator_admin, "/ready", &[]).status, 200);
        wait_for("the new one's API", || {
            std::net::TcpStream::connect(("127.0.0.1", pair.api)).ok()
        });
        let connected = get(pair.api, "/reverse_connections", &[]);
        assert!(connected.body.contains("\"hub\""), "{}", connected.body);
    }
    pause(Duration::from_millis(500));
    assert_nothing_lost(
        &load.finish(),
        &format!("initiator with {workers} workers replaced"),
    );
}

#[test]
fn an_initiator_is_replaced_under_its_node_id_and_no_request_is_lost() {
    replace_initiator(1, 1);
}

#[test]
fn so_is_one_with_several_workers() {
    replace_initiator(2, 4);
}

/// Without `--take-over` a second process with the same file is a mistake. With it, but without a predecessor, the process just starts.
#[test]
fn an_initiator_takes_over_only_when_told_to() {
    let mut pair = Pair::start();
    let config = pair.initiator.config();
    let mut second = Eddy::with_config("initiator", &config);
    assert_eq!(second.wait().code(), Some(1));
    let log = second.log();
    assert!(log.contains("eddy: admin.listen: cannot listen on"), "{log}");
    pair.initiator.signal("TERM");
    assert!(pair.initiator.wait().success());
    pair.initiator = Eddy::with_config_and("initiator", &config, &["--take-over"]);
    wait_for("its admin and tunnel", || {
        (open_tunnels(pair.initiator_admin)? == 1).then_some(())
    });
}

/// A supervisor may change its mind.
#[test]
fn a_successor_that_waits_can_be_ended() {
    let mut pair = Pair::start();
    let config = pair.responder.config();
    let mut next = Eddy::with_config_and("responder", &config, &["--take-over"]);
    pause(Duration::from_millis(300));
    for harmless in ["HUP", "USR1", "USR2"] {
        next.signal(harmless);
    }
    wait_for("the signals to be handled", || {
        next.log().contains("SIGUSR2 ignored").then_some(())
    });
    assert!(next.is_running());
    next.signal("TERM");
    assert!(next.wait().success());
    assert!(pair.responder.is_running());
    pair.assert_good();
}

/// Nobody takes over: the next process starts when the old one has ended. Requests wait for the tunnels.
#[test]
fn an_initiator_that_is_back_at_once_loses_nothing_either() {
    let mut pair = Pair::start();
    let load = Load::start(pair.egress, "edge", PER_SECOND);
    for _ in 0..restarts() {
        pause(Duration::from_millis(500));
        pair.initiator.signal("TERM");
        assert!(pair.initiator.wait().success());
        pair.initiator = Eddy::with_config("initiator", &pair.initiator.config());
        wait_for("its tunnel", || {
            (open_tunnels(pair.responder_admin)? == 1).then_some(())
        });
    }
    pause(Duration::from_millis(500));
    assert_nothing_lost(&load.finish(), "initiator restarted");
}

/// Single tunnels can be told to go, from either end; the initiator replaces them, and the process goes on.
#[test]
fn tunnels_are_drained_one_by_one_under_load() {
    let pair = Pair::with(Options {
        count: 2,
        ..Options::default()
    });
    let tunnels = |admin| -> Vec<serde_json::Value> {
        let all: serde_json::Value = serde_json::from_str(&get(admin, "/tunnels", &[]).body).unwrap();
        all["tunnels"].as_array().unwrap().clone()
    };
    let load = Load::start(pair.egress, "edge", PER_SECOND);
    pause(Duration::from_millis(500));
    for admin in [pair.responder_admin, pair.initiator_admin] {
        let before = tunnels(admin);
        let first = before[0]["id"].as_str().unwrap().to_owned();
        let told = post(admin, &format!("/drain?tunnel={first}"));
        assert_eq!((told.status, told.body.as_str()), (200, "draining 1 tunnel\n"));
        wait_for("the tunnel to be replaced", || {
            let now = tunnels(admin);
            let gone = now.iter().all(|tunnel| tunnel["id"] != first.as_str());
            (gone && now.len() == 2).then_some(())
        });
    }
    wait_for("the responder to have both", || {
        (tunnels(pair.responder_admin).len() == 2).then_some(())
    });
    assert_eq!(
        post(pair.responder_admin, "/drain?node=edge").body,
        "draining 2 tunnels\n"
    );
    assert_eq!(
        post(pair.responder_admin, "/drain?node=other").body,
        "draining 0 tunnels\n"
    );
    pause(Duration::from_secs(1));
    assert_nothing_lost(&load.finish(), "tunnels drained");
}

#[test]
fn what_cannot_be_drained_is_said() {
    let pair = Pair::start();
    let answer = get(pair.responder_admin, "/drain", &[]);
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    let answer = post(pair.responder_admin, "/drain?nod=x");
    assert_eq!(answer.status, 400);
    assert!(
        answer
            .body
            .starts_with("nod: no such parameter; ask for ?node=ID, ?cluster=ID"),
        "{}",
        answer.body
    );
    let mut pair = pair;
    assert_eq!(post(pair.initiator_admin, "/drain").status, 200);
    assert!(pair.initiator.wait().success(), "POST /drain ends the process");
}
