//! Every way in which a responder says no, and the bytes that say it (wire.md 2.3).

use std::fmt;
use std::time::Duration;

use crate::admission::Eviction;
use crate::identity::IdError;

/// Which id of a request is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// The node.
    Node,
    /// The cluster.
    Cluster,
    /// The tenant.
    Tenant,
}

impl IdKind {
    const fn label(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Cluster => "cluster",
            Self::Tenant => "tenant",
        }
    }
}

/// Why a handshake is refused.
///
/// `to_head` says that the method was HEAD: Envoy then sends the body unchunked, though its head says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What came is no HTTP/1 request.
    HttpError,
    /// HTTP/1.0.
    HttpVersion,
    /// The head is longer than [`super::HEAD_BYTES_MAX`], or has more headers than [`super::HEADERS_MAX`].
    HeadTooLarge,
    /// The request has a body.
    Body {
        /// The method was HEAD.
        to_head: bool,
    },
    /// Another method or path.
    NotFound {
        /// The method was HEAD.
        to_head: bool,
    },
    /// The upgrade mode is demanded and not asked for.
    UpgradeRequired,
    /// The node, cluster or tenant header is missing.
    MissingIds,
    /// The tenant header is there and empty.
    EmptyTenant,
    /// An id is none.
    BadId {
        /// Which.
        which: IdKind,
        /// The rule that it breaks.
        why: IdError,
    },
    /// Tenants are kept apart and an id has the character that separates them in Envoy.
    TenantSeparator,
    /// The name of the upstream cluster is demanded and missing.
    MissingClusterName,
    /// The name of the upstream cluster is another.
    ClusterMismatch,
    /// Bytes behind the request, before its answer.
    Pipelined,
    /// There are too many already.
    Limit {
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// A newer connection needed the place in the table of pending handshakes.
    Evicted {
        /// Which limit was reached.
        why: Eviction,
        /// When to dial again.
        retry_after: Duration,
    },
    /// Another process has the node id.
    Duplicate,
    /// The request did not come in time.
    Timeout,
    /// The peer went away.
    PeerClosed,
}

impl Refusal {
    /// The reason in one word.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::HttpError => "http_error",
            Self::HttpVersion => "http_version",
            Self::HeadTooLarge => "head_too_large",
            Self::Body { .. } => "body_rejected",
            Self::NotFound { .. } => "not_found",
            Self::UpgradeRequired => "upgrade_required",
            Self::MissingIds => "missing_ids",
            Self::EmptyTenant => "empty_tenant",
            Self::BadId { .. } => "bad_id",
            Self::TenantSeparator => "tenant_separator",
            Self::MissingClusterName => "missing_cluster_name",
            Self::ClusterMismatch => "cluster_mismatch",
            Self::Pipelined => "pipelined",
            Self::Limit { .. } => "limit",
            Self::Evicted { why, .. } => why.label(),
            Self::Duplicate => "duplicate",
            Self::Timeout => "timeout",
            Self::PeerClosed => "peer_closed",
        }
    }

    /// The counter that it moves: Envoy's where Envoy has one, else one of its own.
    pub const fn counter(&self) -> &'static str {
        match self {
            Self::UpgradeRequired
            | Self::MissingIds
            | Self::EmptyTenant
            | Self::BadId { .. }
            | Self::TenantSeparator
            | Self::MissingClusterName => "parse_error",
            Self::ClusterMismatch => "validation_failed",
            Self::Limit { .. } | Self::Duplicate => "rejected",
            Self::HttpError
            | Self::HttpVersion
            | Self::HeadTooLarge
            | Self::Body { .. }
            | Self::NotFound { .. }
            | Self::Pipelined
            | Self::Evicted { .. }
            | Self::Timeout
            | Self::PeerClosed => self.label(),
        }
    }

    /// The code and the phrase of the status line; none where nothing is said.
    pub const fn status(&self) -> Option<(u16, &'static str)> {
        match self {
            Self::HttpError
            | Self::Body { .. }
            | Self::MissingIds
            | Self::EmptyTenant
            | Self::BadId { .. }
            | Self::TenantSeparator
            | Self::MissingClusterName
            | Self::ClusterMismatch
            | Self::Pipelined => Some((400, "Bad Request")),
            Self::NotFound { .. } => Some((404, "Not Found")),
            Self::Duplicate => Some((409, "Conflict")),
            Self::HttpVersion | Self::UpgradeRequired => Some((426, "Upgrade Required")),
            Self::Limit { .. } | Self::Evicted { .. } => Some((429, "Too Many Requests")),
            Self::HeadTooLarge => Some((431, "Request Header Fields Too Large")),
            Self::Timeout | Self::PeerClosed => None,
        }
    }

    /// The text for people.
    pub fn body(&self) -> String {
        match self {
            Self::HttpError | Self::Pipelined => "Bad Request".into(),
            Self::HttpVersion => "Upgrade Required".into(),
            Self::HeadTooLarge => "Request Header Fields Too Large".into(),
            Self::Body { .. } => "Reverse tunnel handshake must not carry a body".into(),
            Self::NotFound { .. } => "Not a reverse tunnel request".into(),
            Self::UpgradeRequired => "Upgrade: reverse-tunnel required".into(),
            Self::MissingIds => "Missing required reverse tunnel headers".into(),
            Self::EmptyTenant => "Empty tenant-id header value".into(),
            Self::BadId { which, why } => format!("Bad {}-id header value: it {why}", which.label()),
            Self::TenantSeparator => {
                "Reverse tunnel identifiers must not contain ':' when tenant isolation is enabled".into()
            }
            Self::MissingClusterName => "Missing upstream cluster name header".into(),
            Self::ClusterMismatch => "Cluster name mismatch".into(),
            Self::Limit { .. } | Self::Evicted { .. } => "rejected".into(),
            Self::Duplicate => "Another process has this node id".into(),
            Self::Timeout | Self::PeerClosed => String::new(),
        }
    }

    /// The whole answer, byte for byte Envoy's where Envoy has it. After it the stream ends.
    pub fn encode(&self) -> Vec<u8> {
        let Some((code, phrase)) = self.status() else {
            return Vec::new();
        };
        let mut answer = format!("HTTP/1.1 {code} {phrase}\r\ncontent-type: text/plain\r\n");
        if *self == Self::UpgradeRequired {
            answer += "upgrade: reverse-tunnel\r\n";
        }
        if let Self::Limit {
            retry_after: Some(after),
        }
        | Self::Evicted {
            retry_after: after, ..
        } = self
        {
            // Rounded up: 0 would say nothing, and less than meant would say too little.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            answer += &format!("retry-after: {}\r\n", seconds.max(1));
        }
        let body = self.body();
        if *self == Self::HttpVersion {
            answer += &format!("\r\n{body}");
        } else if matches!(
            self,
            Self::Body { to_head: true } | Self::NotFound { to_head: true }
        ) {
            answer += &format!("transfer-encoding: chunked\r\n\r\n{body}");
        } else {
            let length = body.len();
            answer += &format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n");
        }
        answer.into_bytes()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HttpError => f.write_str("the request is no HTTP/1.1"),
            Self::HttpVersion => f.write_str("the request is HTTP/1.0"),
            Self::HeadTooLarge => f.write_str("the request's head is too large"),
            Self::Pipelined => f.write_str("bytes follow the request before its answer"),
            Self::Limit { .. } => f.write_str("there are too many already"),
            Self::Evicted { why, .. } => f.write_str(why.describe()),
            Self::Duplicate => f.write_str("another process has the node id"),
            Self::Timeout => f.write_str("the request did not come in time"),
            Self::PeerClosed => f.write_str("the peer went away"),
            Self::Body { .. }
            | Self::NotFound { .. }
            | Self::UpgradeRequired
            | Self::MissingIds
            | Self::EmptyTenant
            | Self::BadId { .. }
            | Self::TenantSeparator
            | Self::MissingClusterName
            | Self::ClusterMismatch => f.write_str(&self.body()),
        }
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(refusal: &Refusal) -> String {
        String::from_utf8(refusal.encode()).unwrap()
    }

    fn answer(status: &str, length: &str, body: &str) -> String {
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n\
             {length}\r\n{body}\r\n0\r\n\r\n"
        )
    }

    /// Copied from wire/10-refusals.txt and wire/11-handshake-edges-responder.txt.
    #[test]
    fn refusals_are_envoy_s_byte_for_byte() {
        let bad = "400 Bad Request";
        let isolation = "Reverse tunnel identifiers must not contain ':' when tenant isolation is enabled";
        for (refusal, status, length, body) in [
            (Refusal::HttpError, bad, "b", "Bad Request"),
            (
                Refusal::HeadTooLarge,
                "431 Request Header Fields Too Large",
                "1f",
                "Request Header Fields Too Large",
            ),
            (
                Refusal::Body { to_head: false },
                bad,
                "2e",
                "Reverse tunnel handshake must not carry a body",
            ),
            (
                Refusal::NotFound { to_head: false },
                "404 Not Found",
                "1c",
                "Not a reverse tunnel request",
            ),
            (
                Refusal::MissingIds,
                bad,
                "27",
                "Missing required reverse tunnel headers",
            ),
            (Refusal::EmptyTenant, bad, "1c", "Empty tenant-id header value"),
            (Refusal::TenantSeparator, bad, "50", isolation),
            (
                Refusal::MissingClusterName,
                bad,
                "24",
                "Missing upstream cluster name header",
            ),
            (Refusal::ClusterMismatch, bad, "15", "Cluster name mismatch"),
            (
                Refusal::Limit { retry_after: None },
                "429 Too Many Requests",
                "8",
                "rejected",
            ),
            (Refusal::Pipelined, bad, "b", "Bad Request"),
            (
                Refusal::Duplicate,
                "409 Conflict",
                "20",
                "Another process has this node id",
            ),
        ] {
            assert_eq!(text(&refusal), answer(status, length, body), "{refusal:?}");
        }
    }

    #[test]
    fn the_odd_shapes_are_envoy_s_too() {
        assert_eq!(
            text(&Refusal::HttpVersion),
            "HTTP/1.1 426 Upgrade Required\r\ncontent-type: text/plain\r\n\r\nUpgrade Required"
        );
        assert_eq!(
            text(&Refusal::NotFound { to_head: true }),
            "HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n\
             Not a reverse tunnel request"
        );
        assert_eq!(
            text(&Refusal::UpgradeRequired),
            "HTTP/1.1 426 Upgrade Required\r\ncontent-type: text/plain\r\nupgrade: reverse-tunnel\r\n\
             transfer-encoding: chunked\r\n\r\n20\r\nUpgrade: reverse-tunnel required\r\n0\r\n\r\n"
        );
    }

    #[test]
    fn a_limit_may_say_when_to_come_back_in_whole_seconds() {
        let after = |millis| {
            text(&Refusal::Limit {
                retry_after: Some(Duration::from_millis(millis)),
            })
        };
        for (millis, seconds) in [(0, 1), (1, 1), (1_000, 1), (1_001, 2), (7_000, 7)] {
            assert!(
                after(millis).contains(&format!("\r\nretry-after: {seconds}\r\n")),
                "{millis}"
            );
        }
    }

    /// For logs: where the peer is told why, the same text.
    #[test]
    fn every_refusal_has_a_text_for_the_log() {
        let logged = |refusal: Refusal| refusal.to_string();
        assert_eq!(logged(Refusal::HttpError), "the request is no HTTP/1.1");
        assert_eq!(logged(Refusal::HttpVersion), "the request is HTTP/1.0");
        assert_eq!(logged(Refusal::HeadTooLarge), "the request's head is too large");
        assert_eq!(
            logged(Refusal::Pipelined),
            "bytes follow the request before its answer"
        );
        assert_eq!(
            logged(Refusal::Limit { retry_after: None }),
            "there are too many already"
        );
        let evicted = |why| Refusal::Evicted {
            why,
            retry_after: Duration::ZERO,
        };
        assert_eq!(
            logged(evicted(Eviction::TableFull)),
            "a newer connection needed its place: the table of pending handshakes was full"
        );
        assert_eq!(
            logged(evicted(Eviction::SourceShare)),
            "a newer connection needed its place: its source had its share of the pending handshakes"
        );
        assert_eq!(logged(Refusal::Duplicate), "another process has the node id");
        assert_eq!(logged(Refusal::Timeout), "the request did not come in time");
        assert_eq!(logged(Refusal::PeerClosed), "the peer went away");
        assert_eq!(logged(Refusal::MissingIds), Refusal::MissingIds.body());
    }

    #[test]
    fn an_evicted_initiator_is_told_when_to_dial_again() {
        let evicted = |why| Refusal::Evicted {
            why,
            retry_after: Duration::from_secs(2),
        };
        let limit = Refusal::Limit {
            retry_after: Some(Duration::from_secs(2)),
        };
        for why in [Eviction::TableFull, Eviction::SourceShare] {
            assert_eq!(text(&evicted(why)), text(&limit));
        }
    }

    #[test]
    fn where_nobody_listens_nothing_is_said() {
        assert_eq!(text(&Refusal::Timeout), "");
        assert_eq!(text(&Refusal::PeerClosed), "");
    }

    #[test]
    fn a_bad_id_says_which_and_why() {
        let refusal = Refusal::BadId {
            which: IdKind::Cluster,
            why: IdError::TooLong { bytes: 300 },
        };
        assert_eq!(
            refusal.body(),
            "Bad cluster-id header value: it has 300 bytes; at most 255 are allowed"
        );
        let strange = Refusal::BadId {
            which: IdKind::Node,
            why: IdError::Character {
                at: 0,
                found: '\u{85}',
            },
        };
        assert!(
            strange.body().is_ascii(),
            "what the peer sent is escaped: {}",
            strange.body()
        );
    }

    #[test]
    fn envoy_s_counters_move_where_envoy_has_one() {
        for (refusal, label, counter) in [
            (Refusal::HttpError, "http_error", "http_error"),
            (Refusal::HttpVersion, "http_version", "http_version"),
            (Refusal::HeadTooLarge, "head_too_large", "head_too_large"),
            (Refusal::Body { to_head: false }, "body_rejected", "body_rejected"),
            (Refusal::NotFound { to_head: false }, "not_found", "not_found"),
            (Refusal::UpgradeRequired, "upgrade_required", "parse_error"),
            (Refusal::MissingIds, "missing_ids", "parse_error"),
            (Refusal::EmptyTenant, "empty_tenant", "parse_error"),
            (
                Refusal::BadId {
                    which: IdKind::Node,
                    why: IdError::Empty,
                },
                "bad_id",
                "parse_error",
            ),
            (Refusal::TenantSeparator, "tenant_separator", "parse_error"),
            (Refusal::MissingClusterName, "missing_cluster_name", "parse_error"),
            (Refusal::ClusterMismatch, "cluster_mismatch", "validation_failed"),
            (Refusal::Pipelined, "pipelined", "pipelined"),
            (Refusal::Limit { retry_after: None }, "limit", "rejected"),
            (
                Refusal::Evicted {
                    why: Eviction::TableFull,
                    retry_after: Duration::ZERO,
                },
                "evicted",
                "evicted",
            ),
            (
                Refusal::Evicted {
                    why: Eviction::SourceShare,
                    retry_after: Duration::ZERO,
                },
                "source_share",
                "source_share",
            ),
            (Refusal::Duplicate, "duplicate", "rejected"),
            (Refusal::Timeout, "timeout", "timeout"),
            (Refusal::PeerClosed, "peer_closed", "peer_closed"),
        ] {
            assert_eq!((refusal.label(), refusal.counter()), (label, counter));
        }
    }
}
