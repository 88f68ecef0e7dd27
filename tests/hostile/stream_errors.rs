//! An error of one stream is an error of one request: the tunnel stays in the directory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::h2::{Frame, MAX_CONCURRENT_STREAMS, code};
use crate::kit::{Options, Pair, beside, get, pause, stats, wait_for};
use crate::raw_initiator::{self, Reply, good};

/// Serves a tunnel of node `raw` whose first reply is `bad`; all others are good. The first request gets `status` and
/// `reason`; the next ones are answered over the same tunnel.
fn one_bad_reply(bad: impl Fn(u32) -> Reply + Send + 'static, status: u16, reason: &str) {
    let pair = Pair::with(Options {
        egress: ", reconnect_grace: 0s",
        ..Options::default()
    });
    let tunnel = raw_initiator::tunnel(&pair, "raw");
    let asked = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&asked);
    raw_initiator::serve(tunnel, vec![], move |stream| {
        match count.fetch_add(1, Ordering::SeqCst) {
            0 => bad(stream),
            _ => good(stream),
        }
    });
    let to = [("x-node-id", "raw")];
    let answer = get(pair.egress, "/routed", &to);
    assert_eq!(
        (answer.status, answer.header("x-eddy-reason")),
        (status, (!reason.is_empty()).then_some(reason)),
        "{answer:?}"
    );
    for _ in 0..3 {
        let answer = get(pair.egress, "/routed", &to);
        assert_eq!((answer.status, answer.body.as_str()), (200, "good"), "{answer:?}");
    }
    assert_eq!(stats(pair.responder_admin)["reverse_tunnel.open"], 2);
    pair.assert_good();
}

#[test]
fn a_refused_stream_is_sent_again_and_costs_nothing() {
    one_bad_reply(|stream| vec![Frame::reset(stream, code::REFUSED_STREAM)], 200, "");
}

#[test]
fn a_reset_stream_is_a_reset_request() {
    one_bad_reply(
        |stream| vec![Frame::reset(stream, code::INTERNAL_ERROR)],
        503,
        "stream_reset",
    );
}

#[test]
fn a_response_without_a_status_is_a_protocol_error() {
    one_bad_reply(
        |stream| vec![Frame::headers(stream, true, &[("x", "y")])],
        502,
        "tunnel_protocol",
    );
}

#[test]
fn a_response_with_a_header_of_one_hop_is_a_protocol_error() {
    one_bad_reply(
        |stream| {
            vec![Frame::headers(
                stream,
                true,
                &[(":status", "200"), ("connection", "close")],
            )]
        },
        502,
        "tunnel_protocol",
    );
}

#[test]
fn a_length_that_contradicts_the_data_is_a_protocol_error() {
    one_bad_reply(
        |stream| {
            vec![Frame::headers(
                stream,
                true,
                &[(":status", "200"), ("content-length", "4")],
            )]
        },
        502,
        "tunnel_protocol",
    );
}

#[test]
fn an_unsolicited_101_is_a_protocol_error() {
    one_bad_reply(
        |stream| vec![Frame::headers(stream, true, &[(":status", "101")])],
        502,
        "tunnel_protocol",
    );
}

#[test]
fn a_head_that_is_too_large_is_a_protocol_error() {
    one_bad_reply(
        |stream| {
            let value = "v".repeat(12 << 10);
            let mut fields = vec![(":status", "200")];
            let names = ["a", "b", "c", "d", "e", "f"];
            fields.extend(names.iter().map(|name| (*name, value.as_str())));
            vec![Frame::headers(stream, true, &fields)]
        },
        502,
        "tunnel_protocol",
    );
}

/// A node whose initiator refuses every stream stays in the directory: the requests fail, the tunnel is there.
#[test]
fn a_tunnel_whose_streams_are_all_refused_stays_reachable() {
    let pair = Pair::with(Options {
        workers: 2,
        egress: ", reconnect_grace: 0s",
        ..Options::default()
    });
    let tunnel = raw_initiator::tunnel(&pair, "raw");
    let left = Arc::new(AtomicU32::new(40));
    let refusals = Arc::clone(&left);
    raw_initiator::serve(tunnel, vec![], move |stream| {
        let refuse = refusals
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .is_ok();
        if refuse {
            vec![Frame::reset(stream, code::REFUSED_STREAM)]
        } else {
            good(stream)
        }
    });
    let to = [("x-node-id", "raw")];
    let answer = get(pair.egress, "/routed", &to);
    assert_eq!(answer.header("x-eddy-reason"), Some("stream_refused"));
    wait_for("the refusals to end", || {
        (get(pair.egress, "/routed", &to).status == 200).then_some(())
    });
    for _ in 0..20 {
        assert_eq!(get(pair.egress, "/routed", &to).status, 200);
    }
    pair.assert_good();
}

/// A peer that allows five streams at once, and refuses what is too much: of 120 requests at once over two workers, all wait
/// their turn, and none runs into a refusal.
#[test]
fn the_peers_limit_of_streams_is_honoured_across_workers() {
    let pair = Pair::with(Options {
        workers: 2,
        ..Options::default()
    });
    let tunnel = raw_initiator::tunnel(&pair, "raw");
    let (open, refused) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let replies = raw_initiator::Replies::default();
    let (count, overrun, later) = (Arc::clone(&open), Arc::clone(&refused), replies.clone());
    let settings = vec![(MAX_CONCURRENT_STREAMS, 5)];
    raw_initiator::serve_later(tunnel, settings, replies, move |stream| {
        if count.fetch_add(1, Ordering::SeqCst) >= 5 {
            count.fetch_sub(1, Ordering::SeqCst);
            overrun.fetch_add(1, Ordering::SeqCst);
            return vec![Frame::reset(stream, code::REFUSED_STREAM)];
        }
        let (count, later) = (Arc::clone(&count), later.clone());
        beside(move || {
            pause(std::time::Duration::from_millis(10));
            count.fetch_sub(1, Ordering::SeqCst);
            later.send(good(stream));
        });
        vec![]
    });
    let egress = pair.egress;
    let calls: Vec<_> = (0..120)
        .map(|_| beside(move || get(egress, "/routed", &[("x-node-id", "raw")]).status))
        .collect();
    let answers: Vec<_> = calls.into_iter().map(|call| call.join().unwrap()).collect();
    assert_eq!(answers, [200; 120]);
    assert_eq!(refused.load(Ordering::SeqCst), 0);
    assert_eq!(get(egress, "/routed", &[("x-node-id", "raw")]).status, 200);
    pair.assert_good();
}
