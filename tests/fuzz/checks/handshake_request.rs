//! What a responder makes of the first bytes of a connection.
//!
//! The first byte of the input says what the responder demands, bit by bit: an upgrade, isolated tenants, a name of
//! the cluster. The rest is what comes.

use eddy_core::handshake::request::{Announcement, Demands, Offer, Verdict};
use eddy_core::handshake::{DEFAULT_PATH, HEAD_BYTES_MAX, Mode, Parsed, Refusal};
use eddy_core::identity::{ClusterName, WorkerId};

use super::one_line;

/// A head, and a body that is empty but for its trailers, each at its limit; one byte more decides.
const NEEDS_AT_MOST: usize = 2 * HEAD_BYTES_MAX + 1;

pub(crate) fn check(data: &[u8]) {
    let Some((demands, bytes)) = demands(data) else {
        return;
    };
    let decided = demands.parse(bytes);
    if bytes.len() >= NEEDS_AT_MOST {
        assert_ne!(decided, Ok(None), "more than {NEEDS_AT_MOST} bytes are wanted");
    }
    match &decided {
        Ok(None) => {}
        Ok(Some(Parsed { value, consumed })) => {
            assert!(*consumed <= bytes.len());
            if let Verdict::Tunnel(announcement) = value {
                for id in ids(announcement) {
                    one_line(id);
                }
                assert_eq!(*consumed, bytes.len(), "nothing may follow a request");
                assert_heard_again(&demands, announcement);
            }
        }
        Err(refusal) => assert_is_an_answer(refusal),
    }
    the_first_decision_stands(&demands, bytes, &decided);
}

fn demands(data: &[u8]) -> Option<(Demands, &[u8])> {
    let (flags, bytes) = data.split_first()?;
    let demands = Demands {
        path: DEFAULT_PATH.to_owned(),
        mode: if flags & 1 == 0 {
            Mode::Plain
        } else {
            Mode::Upgrade
        },
        tenant_isolation: flags & 2 != 0,
        required_cluster: (flags & 4 != 0)
            .then(|| ClusterName::parse("upstream-cluster").ok())
            .flatten(),
    };
    Some((demands, bytes))
}

fn ids(announcement: &Announcement) -> [&str; 3] {
    let identity = &announcement.identity;
    [
        identity.node.as_str(),
        identity.cluster.as_str(),
        identity.tenant.as_str(),
    ]
}

/// However the bytes are cut: what was decided early is what is decided late, but for bytes behind a request.
fn the_first_decision_stands(
    demands: &Demands,
    bytes: &[u8],
    decided: &Result<Option<Parsed<Verdict>>, Refusal>,
) {
    // Every prefix of what is short, and a few of what is long: each costs a whole parse.
    for cut in (0..bytes.len()).step_by(1 + bytes.len() / 512) {
        match demands.parse(&bytes[..cut]) {
            Ok(None) => {}
            Ok(Some(Parsed {
                value: Verdict::Tunnel(_),
                ..
            })) => assert_eq!(*decided, Err(Refusal::Pipelined), "cut at {cut}"),
            early => assert_eq!(*decided, early, "cut at {cut}"),
        }
    }
}

/// An initiator that says the same of itself is heard as the same.
fn assert_heard_again(demands: &Demands, announcement: &Announcement) {
    let upstream_cluster = demands.required_cluster.clone();
    let Some(upstream_cluster) = upstream_cluster.or_else(|| ClusterName::parse("hub").ok()) else {
        return;
    };
    let again = Offer {
        path: &demands.path,
        mode: demands.mode,
        host: ([127, 0, 0, 1], 1).into(),
        identity: &announcement.identity,
        upstream_cluster: &upstream_cluster,
        initiation_time_ms: 0,
        worker: WorkerId(0),
        connection: 0,
        instance: announcement.instance,
    }
    .encode();
    match demands.parse(&again) {
        Ok(Some(Parsed {
            value: Verdict::Tunnel(heard),
            ..
        })) => {
            assert_eq!(heard.identity, announcement.identity);
            assert_eq!(heard.instance, announcement.instance);
        }
        other => panic!("{other:?} for {announcement:?}"),
    }
}

/// A refusal is an answer in ASCII, whatever the request held.
fn assert_is_an_answer(refusal: &Refusal) {
    let answer = refusal.encode();
    assert!(answer.is_ascii(), "{refusal:?}");
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"),
        "{refusal:?}"
    );
    one_line(&refusal.to_string());
}
