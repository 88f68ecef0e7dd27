//! What the command line and the configuration may do: a clear message and an exit code.

use std::net::TcpListener;

use crate::kit::{Eddy, config_file};

/// Runs to the end; says how, and the last line.
fn ends(arguments: &[&str]) -> (i32, String) {
    let mut eddy = Eddy::start(arguments);
    let code = eddy.wait().code().unwrap();
    let log = eddy.log();
    assert!(!log.contains("panicked"), "{log}");
    (code, log)
}

fn responder(listen: &str) -> String {
    format!(
        "node: {{id: hub, cluster: hubs}}\nworkers: 2\ntunnels: {{listen: {listen}}}\n\
         egress: {{listen: 127.0.0.1:0, host_id: [x-node-id], routes: [{{prefix: /}}]}}\n"
    )
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let file = config_file(&responder(&addr));
    let (code, log) = ends(&["responder", "-c", file.path().to_str().unwrap()]);
    assert_eq!(code, 1, "{log}");
    assert!(
        log.contains(&format!(
            "eddy: tunnels.listen: cannot listen on {addr}: Address already in use"
        )),
        "{log}"
    );
}

#[test]
fn a_second_process_on_the_same_port_is_refused_though_workers_share_ports() {
    let port = crate::kit::free_port();
    let file = config_file(&responder(&format!("127.0.0.1:{port}")));
    let path = file.path().to_str().unwrap();
    let first = Eddy::start(&["responder", "-c", path]);
    crate::kit::wait_for("the first", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    let (code, log) = ends(&["responder", "-c", path]);
    assert_eq!(code, 1, "{log}");
    assert!(log.contains("Address already in use"), "{log}");
    drop(first);
}

#[test]
fn no_file() {
    let (code, log) = ends(&["check", "-c", "/nowhere/eddy.yaml"]);
    assert_eq!(code, 2, "{log}");
    assert!(
        log.contains("/nowhere/eddy.yaml") && log.contains("No such file"),
        "{log}"
    );
}

#[test]
fn an_empty_file() {
    let file = config_file("");
    let (code, log) = ends(&["responder", "-c", file.path().to_str().unwrap()]);
    assert_eq!(code, 2, "{log}");
    assert!(log.contains(".yaml") && log.contains("empty"), "{log}");
}

#[test]
fn the_other_role_s_configuration() {
    let file = config_file(&responder("127.0.0.1:0"));
    let (code, log) = ends(&["initiator", "-c", file.path().to_str().unwrap()]);
    assert_eq!(code, 2, "{log}");
    assert!(log.contains("this is the configuration of a responder"), "{log}");
}

#[test]
fn an_unknown_argument() {
    let (code, log) = ends(&["sandbox", "--wokers", "2"]);
    assert_eq!(code, 2, "{log}");
    assert!(log.contains("--wokers") && log.contains("--workers"), "{log}");
}

#[test]
fn a_bad_log_filter() {
    let (code, log) = ends(&["--log", "loud=shouting", "hello"]);
    assert_eq!(code, 2, "{log}");
    assert!(log.contains("allowed: error, warn, info, debug, trace"), "{log}");
}
