//! The admin, and the questions on the tunnel port, against pages in a browser and against strangers.

use std::fmt::Write as _;

use crate::kit::{Answer, Eddy, PATIENCE, Pair, exchange, free_port, parse_answer, wait_for};
use crate::spaces::{Envoy, in_namespaces, request};

fn ask(port: u16, method: &str, path: &str, host: &str, more: &[(&str, &str)]) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in more {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    request += "content-length: 0\r\n\r\n";
    let bytes = exchange(port, request.as_bytes());
    parse_answer(&bytes).unwrap_or_else(|| panic!("no answer to {request}"))
}

#[test]
fn a_page_that_rebinds_its_name_reads_and_changes_nothing() {
    let pair = Pair::start();
    for admin in [pair.responder_admin, pair.initiator_admin] {
        let evil = format!("evil.example:{admin}");
        let origin = format!("http://{evil}");
        for (method, path) in [
            ("GET", "/config_dump"),
            ("GET", "/tunnels"),
            ("GET", "/nothing"),
            ("POST", "/drain"),
            ("POST", "/logging?level=trace"),
        ] {
            // Its own origin: a check of the origin alone would let it pass.
            let answer = ask(admin, method, path, &evil, &[("origin", &origin)]);
            assert_eq!(answer.status, 421, "{method} {path}");
            assert!(!answer.body.contains("edge"), "{}", answer.body);
        }
        for (host, status) in [
            ("", 421),
            ("127.1", 421),
            ("localhost.evil.example", 421),
            ("[::1]", 200),
            ("LOCALHOST", 200),
            ("127.0.0.1", 200),
            ("192.0.2.1:80", 200),
        ] {
            assert_eq!(ask(admin, "GET", "/ready", host, &[]).status, status, "{host:?}");
        }
    }
    pair.assert_good();
}

#[test]
fn a_form_or_a_websocket_of_another_page_changes_nothing() {
    let pair = Pair::start();
    let admin = pair.responder_admin;
    let form = [
        ("origin", "http://evil.example"),
        ("content-type", "application/x-www-form-urlencoded"),
    ];
    assert_eq!(ask(admin, "POST", "/drain", "localhost", &form).status, 403);
    let websocket = [
        ("origin", "http://evil.example"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(ask(admin, "GET", "/socket", "localhost", &websocket).status, 404);
    assert_eq!(ask(admin, "GET", "/ready", "localhost", &[]).body, "LIVE\n");
    pair.assert_good();
}

#[test]
fn the_admin_is_addressed_by_its_configured_names_too() {
    let port = free_port();
    let yaml = format!(
        "node: {{id: hub, cluster: hubs}}\nworkers: 1\nadmin: {{listen: 127.0.0.1:{port}, hosts: [hub.example.com]}}\n\
         tunnels: {{listen: 127.0.0.1:0}}\negress: {{listen: 127.0.0.1:0, host_id: [x-node-id], routes: [{{prefix: /}}]}}\n"
    );
    let _named = Eddy::with_config("responder", &yaml);
    wait_for("the admin", || {
        std::net::TcpStream::connect(("127.0.0.1", port)).ok()
    });
    assert_eq!(ask(port, "GET", "/help", "Hub.example.com:80", &[]).status, 200);
    assert_eq!(ask(port, "GET", "/help", "hub.example.org", &[]).status, 421);
}

#[test]
fn a_stranger_learns_nothing_on_the_tunnel_port() {
    in_namespaces(
        "admin::a_stranger_learns_nothing_on_the_tunnel_port",
        None,
        Envoy::Neither,
        |pair| {
            let question = b"GET /reverse_connections HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            let answer = pair.as_stranger(question).unwrap();
            assert_eq!(answer.status, 404, "{}", answer.head);
            assert!(!answer.body.contains("edge"), "{}", answer.body);
            eprintln!("figure: a stranger gets {}", answer.status);
            assert_eq!(request("GET", 4, 0, PATIENCE).unwrap(), (200, 4));
        },
    );
}
