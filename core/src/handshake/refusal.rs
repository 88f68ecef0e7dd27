//! Every way in which a responder says no, and the bytes that say it (wire.md 2.3).

use std::time::Duration;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What came is no HTTP/1 request.
    HttpError,
    /// HTTP/1.0.
    HttpVersion,
    /// The head is longer than [`super::HEAD_BYTES_MAX`], or has more headers than [`super::HEADERS_MAX`].
    HeadTooLarge {
        /// The method was HEAD: Envoy then sends the body as if it were not chunked.
        head: bool,
    },
    /// The request has a body.
    Body,
    /// Another method or path.
    NotFound {
        /// The method was HEAD.
        head: bool,
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
            Self::HeadTooLarge { .. } => "head_too_large",
            Self::Body => "body_rejected",
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
            Self::Limit { .. } => "rejected",
            Self::HttpError
            | Self::HttpVersion
            | Self::HeadTooLarge { .. }
            | Self::Body
            | Self::NotFound { .. }
            | Self::Pipelined
            | Self::Timeout
            | Self::PeerClosed => self.label(),
        }
    }

    /// The status line's code and phrase; none where nothing is said.
    pub const fn status(&self) -> Option<(u16, &'static str)> {
        match self {
            Self::HttpError
            | Self::Body
            | Self::MissingIds
            | Self::EmptyTenant
            | Self::BadId { .. }
            | Self::TenantSeparator
            | Self::MissingClusterName
            | Self::ClusterMismatch
            | Self::Pipelined => Some((400, "Bad Request")),
            Self::NotFound { .. } => Some((404, "Not Found")),
            Self::HttpVersion | Self::UpgradeRequired => Some((426, "Upgrade Required")),
            Self::Limit { .. } => Some((429, "Too Many Requests")),
            Self::HeadTooLarge { .. } => Some((431, "Request Header Fields Too Large")),
            Self::Timeout | Self::PeerClosed => None,
        }
    }

    /// The text for people.
    pub fn body(&self) -> String {
        match self {
            Self::HttpError | Self::Pipelined => "Bad Request".into(),
            Self::HttpVersion => "Upgrade Required".into(),
            Self::HeadTooLarge { .. } => "Request Header Fields Too Large".into(),
            Self::Body => "Reverse tunnel handshake must not carry a body".into(),
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
            Self::Limit { .. } => "rejected".into(),
            Self::Timeout | Self::PeerClosed => String::new(),
        }
    }

    /// The whole answer, byte for byte Envoy's where Envoy has it. After it the stream ends.
    pub fn encode(&self) -> Vec<u8> {
        let Some((code, phrase)) = self.status() else {
            return Vec::new();
        };
        let body = self.body();
        let mut answer = format!("HTTP/1.1 {code} {phrase}\r\n");
        if *self == Self::UpgradeRequired {
            answer += "upgrade: reverse-tunnel\r\n";
        }
        if let Self::Limit { retry_after: Some(after) } = self {
            answer += &format!("retry-after: {}\r\n", after.as_secs().max(1));
        }
        answer += "content-type: text/plain\r\n";
        let (length, is_head) = (body.len(), matches!(self, Self::HeadTooLarge { head: true } | Self::NotFound { head: true }));
        if *self == Self::HttpVersion {
            answer += &format!("\r\n{body}");
        } else if is_head {
            answer += &format!("transfer-encoding: chunked\r\n\r\n{body}");
        } else {
            answer += &format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n");
        }
        answer.into_bytes()
    }
}
