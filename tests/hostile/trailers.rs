//! Trailers that may not stand where they stand (RFC 9110, section 6.5.1): they are dropped, and nothing else is.

use std::io::Write;

use crate::kit::{Options, Pair, Service, connect, parse_answer, read_all, read_head};

const FORBIDDEN: [&str; 6] = [
    "transfer-encoding: chunked",
    "content-length: 3",
    "connection: close",
    "host: elsewhere",
    "x-node-id: other",
    "authorization: Basic Og==",
];

#[test]
fn a_forbidden_trailer_of_a_client_is_dropped() {
    let pair = Pair::start();
    for trailer in FORBIDDEN {
        let mut stream = connect(pair.egress);
        let request = format!(
            "POST /routed HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\nconnection: close\r\n\
             transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n{trailer}\r\nx-sum: 1\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let answer = parse_answer(&read_all(&mut stream)).unwrap_or_else(|| panic!("no answer: {trailer}"));
        assert_eq!((answer.status, answer.body.as_str()), (200, "good"), "{trailer}");
        pair.assert_good();
    }
}

#[test]
fn a_forbidden_trailer_of_a_service_costs_only_itself() {
    let service = Service::start(|mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let at: usize = head.split(['?', ' ']).nth(2).unwrap().parse().unwrap_or(0);
            let answer = format!(
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
                 4\r\ngood\r\n0\r\n{}\r\nx-sum: 1\r\n\r\n",
                FORBIDDEN[at]
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let pair = Pair::with(Options {
        service_port: Some(service.port),
        ..Options::default()
    });
    for (at, trailer) in FORBIDDEN.iter().enumerate() {
        let mut stream = connect(pair.egress);
        let request = format!(
            "GET /routed?{at} HTTP/1.1\r\nhost: x\r\nx-node-id: edge\r\nte: trailers\r\nconnection: close, te\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let bytes = read_all(&mut stream);
        let text = String::from_utf8_lossy(&bytes);
        let answer = parse_answer(&bytes).unwrap_or_else(|| panic!("no answer: {trailer}"));
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, "good"),
            "{trailer}: {text}"
        );
        assert!(text.ends_with("0\r\nx-sum: 1\r\n\r\n"), "{trailer}: {text}");
    }
}
