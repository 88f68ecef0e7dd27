//! Services that speak HTTP/2 and break it: the client gets Eddy's own 502, and the tunnel stays.

use crate::h2::Frame;
use crate::kit::{Options, Pair, Service, get, stats};
use crate::raw_initiator::{self, Reply, good};

/// A service whose replies to the first request are `bad`, and good to all others.
fn spoils(bad: impl Fn(u32) -> Reply + Send + Sync + Clone + 'static, name: &str) {
    let service = Service::start(move |stream| {
        let bad = bad.clone();
        let mut asked = 0;
        let served = raw_initiator::serve(stream, vec![], move |stream| {
            asked += 1;
            if asked == 1 { bad(stream) } else { good(stream) }
        });
        let _ = served.join();
    });
    let pair = Pair::with(Options {
        service_port: Some(service.port),
        protocol: "h2",
        ..Options::default()
    });
    let answer = get(pair.egress, "/routed", &[("x-node-id", "edge")]);
    let outcome = (answer.status, answer.header("x-eddy-reason"));
    assert_eq!(outcome, (502, Some("service_protocol")), "{name}: {answer:?}");
    assert_eq!(stats(pair.initiator_admin)["service.refused.service_protocol"], 1);
    assert_eq!(stats(pair.responder_admin)["reverse_tunnel.closed.http_error"], 0);
    pair.assert_good();
}

#[test]
fn a_head_of_more_than_60_kib_is_a_protocol_error() {
    spoils(
        |stream| {
            let value = "v".repeat(61 << 10);
            vec![Frame::headers(
                stream,
                true,
                &[(":status", "200"), ("x-long", &value)],
            )]
        },
        "61 KiB",
    );
}

#[test]
fn more_than_100_fields_are_a_protocol_error() {
    spoils(
        |stream| {
            let mut fields = vec![(":status", "200")];
            fields.resize(102, ("a", "b"));
            vec![Frame::headers(stream, true, &fields)]
        },
        "101 fields",
    );
}

#[test]
fn an_unsolicited_101_is_a_protocol_error() {
    spoils(
        |stream| vec![Frame::headers(stream, true, &[(":status", "101")])],
        "101",
    );
}

#[test]
fn a_length_that_contradicts_the_data_is_a_protocol_error() {
    spoils(
        |stream| {
            let fields = [(":status", "200"), ("content-length", "4")];
            vec![Frame::headers(stream, true, &fields)]
        },
        "content-length",
    );
}
