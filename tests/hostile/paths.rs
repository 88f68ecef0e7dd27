//! Paths that could lead elsewhere behind a route's prefix: refused, whatever their spelling.

use crate::kit::{Pair, get, moved, stats};

/// Spellings of a way out of `/routed`.
const AMBIGUOUS: [&str; 8] = [
    "/routed/../admin",
    "/routed/%2e%2e/admin",
    "/routed/.%2E/admin",
    "/routed/./x",
    "/routed/..",
    "/routed\\..\\admin",
    "/routed%5c..%5Cadmin",
    "/routed%00",
];

#[test]
fn an_ambiguous_path_reaches_no_service() {
    let pair = Pair::start();
    let (before, served) = (stats(pair.responder_admin), pair.service.served());
    for path in AMBIGUOUS {
        let answer = get(pair.egress, path, &[("x-node-id", "edge")]);
        let refused = (answer.status, answer.header("x-eddy-reason"));
        assert_eq!(refused, (400, Some("bad_path")), "{path}");
    }
    let moved: Vec<_> = moved(&before, &stats(pair.responder_admin));
    let refused = AMBIGUOUS.len().try_into().unwrap();
    assert!(
        moved.contains(&("egress.refused.bad_path".to_owned(), refused)),
        "{moved:?}"
    );
    assert_eq!(pair.service.served(), served);
    pair.assert_good();
}

#[test]
fn dots_and_slashes_that_mean_nothing_pass() {
    let pair = Pair::start();
    for path in [
        "/routed/a..b",
        "/routed/...",
        "/routed//x//",
        "/routed/%2f",
        "/routed/.well-known",
    ] {
        let answer = get(pair.egress, path, &[("x-node-id", "edge")]);
        assert_eq!(answer.status, 200, "{path}: {}", answer.head);
    }
    pair.assert_good();
}

/// Many services read `_` as `-`: this would be a second node id to them.
#[test]
fn a_routing_header_has_one_spelling() {
    let pair = Pair::start();
    let served = pair.service.served();
    for name in ["X_Node_Id", "x_node-id", "x_forwarded_for"] {
        let answer = get(pair.egress, "/routed", &[("x-node-id", "edge"), (name, "other")]);
        let refused = (answer.status, answer.header("x-eddy-reason"));
        assert_eq!(refused, (400, Some("bad_request")), "{name}");
    }
    assert_eq!(pair.service.served(), served);
    pair.assert_good();
}
