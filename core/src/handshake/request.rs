//! The request: what an initiator offers, and what a responder demands of it.

use std::time::Duration;

use std::net::SocketAddr;

use super::head::{self, Body};
use super::{HEAD_BYTES_MAX, HEADERS_MAX, Mode, Parsed};
use crate::identity::{ClusterId, ClusterName, ID_BYTES_MAX, IdError, Identity, NodeId, TenantId, WorkerId};
use crate::instance::{self, Instance};

pub use super::refusal::{IdKind, Refusal};

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
    /// Which process, and which tunnel of it.
    pub instance: Option<Instance>,
}

impl Offer<'_> {
    /// The bytes as Envoy 1.40 sends them (wire.md 2.1), with the instance, if there is one, as one more header; to be
    /// written at once with nothing behind them.
    pub fn encode(&self) -> Vec<u8> {
        let Self {
            path,
            host,
            upstream_cluster,
            initiation_time_ms,
            worker,
            connection,
            ..
        } = self;
        let instance = self
            .instance
            .map(|instance| format!("{}: {instance}\r\n", instance::HEADER))
            .unwrap_or_default();
        let Identity {
            tenant,
            cluster,
            node,
        } = self.identity;
        let upgrade = match self.mode {
            Mode::Plain => "",
            Mode::Upgrade => "connection: upgrade\r\nupgrade: reverse-tunnel\r\n",
        };
        format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\n{upgrade}{NODE}: {node}\r\n{CLUSTER}: {cluster}\r\n\
             {TENANT}: {tenant}\r\n{UPSTREAM}: {upstream_cluster}\r\n{INITIATION_TIME}: {initiation_time_ms}\r\n\
             {WORKER}: {worker}\r\n{CONNECTION}: {connection}\r\n{instance}content-length: 0\r\n\r\n"
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
///
/// Except for the identity and the instance, it is for logs: a value that is longer than an id may be is left out, as Envoy
/// overlooks it. The name of the upstream cluster matters only to [`Demands::required_cluster`], and nothing reads the
/// initiation time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Who it is.
    pub identity: Identity,
    /// Its worker (since Envoy 1.40).
    pub worker: Option<String>,
    /// Its connection (since Envoy 1.40).
    pub connection: Option<String>,
    /// Which process, and which tunnel of it (Eddy).
    pub instance: Option<Instance>,
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

    /// As [`Demands::accept`], and asks an Eddy to spread its redials.
    pub fn accept_and_spread(&self, spread: Duration) -> Vec<u8> {
        let plain = self.accept();
        let head = plain.strip_suffix(b"\r\n").unwrap_or(plain);
        let field = format!("{}: {}\r\n\r\n", super::REDIAL_SPREAD, spread.as_millis());
        [head, field.as_bytes()].concat()
    }

    /// Reads a request from all that has come so far; `None` needs more.
    ///
    /// The checks come in Envoy's order (wire.md 2.3); what Envoy does not check (ids that are none, bytes
    /// behind the request) comes last.
    ///
    /// # Errors
    ///
    /// [`Refusal`] says what to answer.
    pub fn parse(&self, bytes: &[u8]) -> Result<Option<Parsed<Verdict>>, Refusal> {
        let window = head::window(bytes);
        check_method(window)?;
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let end = match request.parse(window) {
            Ok(httparse::Status::Complete(end)) if end <= HEAD_BYTES_MAX => end,
            Ok(httparse::Status::Partial) if window.len() <= HEAD_BYTES_MAX => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(Refusal::HeadTooLarge),
            Err(_) => return Err(Refusal::HttpError),
        };
        let head = Head::of(&request)?;
        if head.asks_for_api() && head.path != self.path {
            return Ok(Some(Parsed {
                value: Verdict::Api,
                consumed: 0,
            }));
        }
        let consumed = match head::empty_body(head.headers, &bytes[end..]) {
            Body::Ends(body) => end + body,
            Body::Partial => return Ok(None),
            Body::Payload => {
                return Err(Refusal::Body {
                    to_head: head.method == "HEAD",
                });
            }
            Body::Malformed => return Err(Refusal::HttpError),
            Body::TooLarge => return Err(Refusal::HeadTooLarge),
        };
        let announcement = self.judge(&head)?;
        if consumed < bytes.len() {
            return Err(Refusal::Pipelined);
        }
        Ok(Some(Parsed {
            value: Verdict::Tunnel(announcement),
            consumed,
        }))
    }

    fn judge(&self, head: &Head<'_>) -> Result<Announcement, Refusal> {
        if head.method != "GET" || head.path != self.path {
            return Err(Refusal::NotFound {
                to_head: head.method == "HEAD",
            });
        }
        if self.mode == Mode::Upgrade
            && !head
                .value("upgrade")
                .is_some_and(|v| v.eq_ignore_ascii_case(b"reverse-tunnel"))
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
        let text = |name| {
            let value = head.value(name).filter(|value| value.len() <= ID_BYTES_MAX)?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        Ok(Announcement {
            identity,
            worker: text(WORKER),
            connection: text(CONNECTION),
            instance: text(instance::HEADER).and_then(|instance| Instance::parse(&instance)),
        })
    }
}

fn id<T>(which: IdKind, value: &[u8], parse: fn(&str) -> Result<T, IdError>) -> Result<T, Refusal> {
    let text = std::str::from_utf8(value).map_err(|_| IdError::NotUtf8);
    text.and_then(parse).map_err(|why| Refusal::BadId { which, why })
}

/// Refuses with its first wrong byte what will never be a request: a method is upper case, and HTTP/2 begins
/// with the method `PRI`.
fn check_method(bytes: &[u8]) -> Result<(), Refusal> {
    let newlines = bytes
        .iter()
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    let mut words = bytes[newlines..].splitn(2, |byte| *byte == b' ');
    let (method, rest) = (words.next().unwrap_or_default(), words.next());
    let legal = method
        .iter()
        .all(|byte| byte.is_ascii_uppercase() || *byte == b'-');
    if !legal || rest.is_some() && method == b"PRI" {
        return Err(Refusal::HttpError);
    }
    Ok(())
}

/// A complete head.
struct Head<'h> {
    method: &'h str,
    path: &'h str,
    headers: &'h [httparse::Header<'h>],
}

impl<'h> Head<'h> {
    fn of(request: &'h httparse::Request<'h, 'h>) -> Result<Self, Refusal> {
        match (request.method, request.path, request.version) {
            (Some(method), Some(path), Some(1)) => Ok(Self {
                method,
                path,
                headers: request.headers,
            }),
            (_, _, Some(0)) => Err(Refusal::HttpVersion),
            _ => Err(Refusal::HttpError),
        }
    }

    fn value(&self, name: &'h str) -> Option<&'h [u8]> {
        head::value(self.headers, name)
    }

    fn asks_for_api(&self) -> bool {
        let rest = self.path.strip_prefix(API_PATH);
        self.method == "GET" && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('?'))
    }
}

#[cfg(test)]
mod tests;
