//! The request: what an initiator offers, and what a responder demands of it.

use std::net::SocketAddr;

use super::refusal::IdKind;
use super::{
    EmptyBody, HEAD_BYTES_MAX, HEADERS_MAX, Mode, Parsed, Refusal, UPGRADE_TOKEN, empty_chunked, head_end,
};
use crate::identity::{ClusterId, ClusterName, IdError, Identity, NodeId, TenantId, WorkerId};

const NODE: &str = "x-envoy-reverse-tunnel-node-id";
const CLUSTER: &str = "x-envoy-reverse-tunnel-cluster-id";
const TENANT: &str = "x-envoy-reverse-tunnel-tenant-id";
const UPSTREAM: &str = "x-envoy-reverse-tunnel-upstream-cluster-name";
const INITIATION_TIME: &str = "x-envoy-reverse-tunnel-initiation-time";
const WORKER: &str = "x-envoy-reverse-tunnel-worker-id";
const CONNECTION: &str = "x-envoy-reverse-tunnel-connection-id";

/// The JSON API shares the tunnel port.
const API_PATH: &str = "/reverse_connections";

/// What an initiator sends.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// Where it asks.
    pub path: &'a str,
    /// Whether it asks for an upgrade.
    pub mode: Mode,
    /// The address that it dialed.
    pub host: SocketAddr,
    /// Who it is.
    pub identity: &'a Identity,
    /// What it calls the cluster that it dials.
    pub upstream_cluster: &'a ClusterName,
    /// When it began, in milliseconds since 1970.
    pub initiation_time_ms: u64,
    /// The worker that dials.
    pub worker: WorkerId,
    /// A number of the connection, for logs.
    pub connection: u64,
}

impl Offer<'_> {
    /// The bytes as Envoy 1.40 sends them (wire.md 2.1), to be written at once with nothing behind them.
    pub fn encode(&self) -> Vec<u8> {
        let Self { path, host, upstream_cluster, initiation_time_ms, worker, connection, .. } = self;
        let Identity { tenant, cluster, node } = self.identity;
        let upgrade = match self.mode {
            Mode::Plain => "",
            Mode::Upgrade => "connection: upgrade\r\nupgrade: reverse-tunnel\r\n",
        };
        format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\n{upgrade}{NODE}: {node}\r\n{CLUSTER}: {cluster}\r\n\
             {TENANT}: {tenant}\r\n{UPSTREAM}: {upstream_cluster}\r\n{INITIATION_TIME}: {initiation_time_ms}\r\n\
             {WORKER}: {worker}\r\n{CONNECTION}: {connection}\r\ncontent-length: 0\r\n\r\n"
        )
        .into_bytes()
    }
}

/// What a responder demands of a request.
#[derive(Clone, Debug)]
pub struct Demands {
    /// The path, byte for byte.
    pub path: String,
    /// Whether it must ask for an upgrade.
    pub mode: Mode,
    /// Whether tenants are kept apart, which forbids `:` in ids.
    pub tenant_isolation: bool,
    /// What the initiator must call the cluster that it dials.
    pub required_cluster: Option<ClusterName>,
}

impl Default for Demands {
    fn default() -> Self {
        Self {
            path: super::DEFAULT_PATH.into(),
            mode: Mode::Plain,
            tenant_isolation: false,
            required_cluster: None,
        }
    }
}

/// What an initiator says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Who it is.
    pub identity: Identity,
    /// What it calls the cluster that it dials (since Envoy 1.37).
    pub upstream_cluster: Option<String>,
    /// When it began, in milliseconds since 1970 (since Envoy 1.39).
    pub initiation_time_ms: Option<u64>,
    /// Its worker (since Envoy 1.40).
    pub worker: Option<String>,
    /// Its connection (since Envoy 1.40).
    pub connection: Option<String>,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A tunnel.
    Tunnel(Announcement),
    /// `GET /reverse_connections`, which is not for the handshake to answer. Nothing is consumed.
    Api,
}

impl Demands {
    /// The answer that makes the connection a tunnel (wire.md 2.2), to be written as one segment.
    pub const fn accept(&self) -> &'static [u8] {
        match self.mode {
            Mode::Plain => b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            Mode::Upgrade => {
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: reverse-tunnel\r\n\r\n"
            }
        }
    }

    /// Reads a request from all that has come so far; `None` needs more.
    ///
    /// The checks come in Envoy's order (wire.md 2.3).
    ///
    /// # Errors
    ///
    /// [`Refusal`] says what to answer.
    pub fn parse(&self, bytes: &[u8]) -> Result<Option<Parsed<Verdict>>, Refusal> {
        let Some(end) = head_end(bytes).filter(|end| *end <= HEAD_BYTES_MAX) else {
            return unfinished(bytes);
        };
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Request::new(&mut headers);
        let method_is_head = bytes.starts_with(b"HEAD ");
        match head.parse(&bytes[..end]) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge { head: method_is_head }),
            Err(_) => return Err(Refusal::HttpError),
        }
        let head = Head::of(&head)?;
        if head.is_api() {
            return Ok(Some(Parsed { value: Verdict::Api, consumed: 0 }));
        }
        let Some(consumed) = head.body_end(&bytes[end..])?.map(|body| end + body) else {
            return Ok(None);
        };
        let announcement = self.judge(&head)?;
        if consumed < bytes.len() {
            return Err(Refusal::Pipelined);
        }
        Ok(Some(Parsed { value: Verdict::Tunnel(announcement), consumed }))
    }

    fn judge(&self, head: &Head<'_>) -> Result<Announcement, Refusal> {
        if head.method != "GET" || head.path != self.path {
            return Err(Refusal::NotFound { head: head.method == "HEAD" });
        }
        if self.mode == Mode::Upgrade
            && !head.value("upgrade").is_some_and(|v| v.eq_ignore_ascii_case(UPGRADE_TOKEN.as_bytes()))
        {
            return Err(Refusal::UpgradeRequired);
        }
        let ids = (head.value(NODE), head.value(CLUSTER), head.value(TENANT));
        let (Some(node), Some(cluster), Some(tenant)) = ids else {
            return Err(Refusal::MissingIds);
        };
        if tenant.is_empty() {
            return Err(Refusal::EmptyTenant);
        }
        if self.tenant_isolation && [node, cluster, tenant].iter().any(|id| id.contains(&b':')) {
            return Err(Refusal::TenantSeparator);
        }
        if let Some(required) = &self.required_cluster {
            let name = head.value(UPSTREAM).ok_or(Refusal::MissingClusterName)?;
            if name != required.as_str().as_bytes() {
                return Err(Refusal::ClusterMismatch);
            }
        }
        let identity = Identity {
            node: id(IdKind::Node, node, NodeId::parse)?,
            cluster: id(IdKind::Cluster, cluster, ClusterId::parse)?,
            tenant: id(IdKind::Tenant, tenant, TenantId::parse)?,
        };
        let text = |name| head.value(name).map(|v| String::from_utf8_lossy(v).into_owned());
        Ok(Announcement {
            identity,
            upstream_cluster: text(UPSTREAM),
            initiation_time_ms: text(INITIATION_TIME).and_then(|time| time.parse().ok()),
            worker: text(WORKER),
            connection: text(CONNECTION),
        })
    }
}

fn id<T>(which: IdKind, value: &[u8], parse: fn(&str) -> Result<T, IdError>) -> Result<T, Refusal> {
    let text = std::str::from_utf8(value).map_err(|_| IdError::NotUtf8);
    text.and_then(parse).map_err(|why| Refusal::BadId { which, why })
}

/// What can be said of a head that has no end yet: refuse what cannot become a request.
fn unfinished(bytes: &[u8]) -> Result<Option<Parsed<Verdict>>, Refusal> {
    if bytes.len() > HEAD_BYTES_MAX {
        return Err(Refusal::HeadTooLarge { head: bytes.starts_with(b"HEAD ") });
    }
    // Each byte is looked at again with each read, so what is long is left to the end of the head.
    let first = &bytes[..bytes.len().min(512)];
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(first) {
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::HeadTooLarge { head: bytes.starts_with(b"HEAD ") }),
        Err(_) => Err(Refusal::HttpError),
        Ok(_) if head.method.is_some_and(|method| !is_method(method)) => Err(Refusal::HttpError),
        Ok(_) if first.starts_with(b"PRI * HTTP/2") => Err(Refusal::HttpError),
        Ok(_) => Ok(None),
    }
}

/// Methods are upper case; anything else is no HTTP for Envoy's parser.
fn is_method(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-' || b == b'_')
}

/// A complete head.
struct Head<'h> {
    method: &'h str,
    path: &'h str,
    headers: &'h [httparse::Header<'h>],
}

impl<'h> Head<'h> {
    fn of(head: &'h httparse::Request<'h, 'h>) -> Result<Self, Refusal> {
        let (Some(method), Some(path), Some(version)) = (head.method, head.path, head.version) else {
            return Err(Refusal::HttpError);
        };
        if !is_method(method) || method == "PRI" {
            return Err(Refusal::HttpError);
        }
        if version == 0 {
            return Err(Refusal::HttpVersion);
        }
        Ok(Self { method, path, headers: head.headers })
    }

    /// The first header of that name, without blanks around it.
    fn value(&self, name: &str) -> Option<&'h [u8]> {
        let header = self.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(header.value.trim_ascii())
    }

    fn is_api(&self) -> bool {
        let rest = self.path.strip_prefix(API_PATH);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('?'))
    }

    /// How long the body is, which must be empty; `None` needs more.
    fn body_end(&self, rest: &[u8]) -> Result<Option<usize>, Refusal> {
        if self.value("content-length").is_some_and(|length| length != b"0") {
            return Err(Refusal::Body);
        }
        let chunked = self.value("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case(b"chunked"));
        if !chunked {
            return Ok(Some(0));
        }
        match empty_chunked(rest) {
            EmptyBody::Ends(end) => Ok(Some(end)),
            EmptyBody::Partial if rest.len() > HEAD_BYTES_MAX => Err(Refusal::HeadTooLarge { head: false }),
            EmptyBody::Partial => Ok(None),
            EmptyBody::Not => Err(Refusal::Body),
        }
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
