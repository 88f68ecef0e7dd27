//! The configuration of a responder: where tunnels arrive, and how requests find them.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use eddy_core::duplicates::Policy;
use eddy_core::identity::ClusterName;
use eddy_core::policy;
use eddy_core::router::Names;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::error::Fault;
use super::shared::{
    AccessLogConfig, AdminConfig, Http2Config, LogConfig, NodeConfig, StatsConfig, TracesConfig,
    check_listens,
};
use super::tree::{Located, unique};
use super::{de::absent, limits, text};

/// A responder.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct ResponderConfig {
    /// The identity of the process.
    pub node: NodeConfig,
    /// Threads that share the work.
    #[serde(with = "limits::workers", default = "limits::workers::default")]
    pub workers: u16,
    /// The admin endpoint.
    pub admin: Option<AdminConfig>,
    /// The names of the stats.
    #[serde(default = "absent")]
    pub stats: StatsConfig,
    /// The log.
    #[serde(default = "absent")]
    pub log: LogConfig,
    /// The access log.
    pub access_log: Option<AccessLogConfig>,
    /// The destination of spans.
    pub traces: Option<TracesConfig>,
    /// Where tunnels arrive.
    pub tunnels: ListenConfig,
    /// Where requests arrive.
    pub egress: EgressConfig,
    /// Time for requests in flight at shutdown.
    #[serde(with = "limits::drain_timeout", default = "limits::drain_timeout::default")]
    pub drain_timeout: Duration,
}

/// Where tunnels arrive, what a handshake must contain, and how a tunnel is kept alive.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct ListenConfig {
    /// The address that initiators dial.
    #[serde(deserialize_with = "text::listen")]
    pub listen: SocketAddr,
    /// The pause between the echo of an idle tunnel's ping and the next ping.
    #[serde(with = "limits::ping_interval", default = "limits::ping_interval::default")]
    pub ping_interval: Duration,
    /// Half intervals without the echo after which the tunnel is closed.
    #[serde(with = "limits::ping_misses", default = "limits::ping_misses::default")]
    pub ping_misses: u32,
    /// Time from accept to the complete request of a handshake.
    #[serde(
        with = "limits::handshake_timeout",
        default = "limits::handshake_timeout::default"
    )]
    pub handshake_timeout: Duration,
    /// Time from accept to the first byte of the request; at most `handshake_timeout`.
    #[serde(
        with = "limits::first_byte_timeout",
        default = "limits::first_byte_timeout::default"
    )]
    pub first_byte_timeout: Duration,
    /// The path of a handshake.
    #[serde(default = "handshake_path", deserialize_with = "text::path")]
    pub path: String,
    /// Whether handshakes are HTTP upgrades with a 101 response.
    #[serde(default)]
    pub http_upgrade: bool,
    /// Whether tenants are kept apart: a node or cluster is then looked up within its tenant only.
    #[serde(default)]
    pub tenant_isolation: bool,
    /// The upstream cluster that a handshake must name.
    #[serde(with = "text::optional", default)]
    pub required_cluster: Option<ClusterName>,
    /// The treatment of several processes under one node id.
    #[serde(with = "text", default)]
    pub duplicates: Policy,
    /// The pause between the acknowledgement of the response and the first byte in the tunnel (wire.md 2.6).
    #[serde(with = "limits::settle", default = "limits::settle::default")]
    pub settle: Duration,
    /// Maximum number of pending handshakes on one worker; a further one evicts an older one.
    #[serde(
        with = "limits::max_pending_handshakes",
        default = "limits::max_pending_handshakes::default"
    )]
    pub max_pending_handshakes: u32,
    /// Maximum number of these from one source; zero for any number.
    #[serde(
        with = "limits::max_pending_per_source",
        default = "limits::max_pending_per_source::default"
    )]
    pub max_pending_per_source: u32,
    /// The HTTP/2 connection inside each tunnel.
    #[serde(default = "absent")]
    pub http2: Http2Config,
}

/// The path of a handshake, unless configured otherwise.
pub(crate) fn handshake_path() -> String {
    policy::HANDSHAKE_PATH.to_owned()
}

/// Where requests arrive, and how each one finds its tunnel.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct EgressConfig {
    /// The address that applications send requests to.
    #[serde(deserialize_with = "text::listen")]
    pub listen: SocketAddr,
    /// The headers that name a node or cluster; the first one that is present counts.
    pub host_id: Vec<HostIdHeader>,
    /// The header that names the tenant: present exactly if tenants are kept apart.
    #[serde(default, deserialize_with = "tenant")]
    pub tenant: Option<String>,
    /// The requests that are accepted.
    pub routes: Vec<EgressRoute>,
    /// Wait of a request for a node or cluster that was connected moments ago; zero: no wait.
    #[serde(
        with = "limits::reconnect_grace",
        default = "limits::reconnect_grace::default"
    )]
    pub reconnect_grace: Duration,
    /// Maximum number of requests that wait so on one worker.
    #[serde(with = "limits::max_waiting", default = "limits::max_waiting::default")]
    pub max_waiting: u32,
    /// Time for which a draining process still accepts clients, while its initiators dial elsewhere.
    #[serde(with = "limits::drain_delay", default = "limits::drain_delay::default")]
    pub drain_delay: Duration,
}

fn tenant<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(Option::<text::Header>::deserialize(deserializer)?.map(|header| header.0))
}

/// A header that names a node or a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct HostIdHeader {
    /// The header, in lower case.
    pub name: String,
    /// The kind of id in its value.
    pub names: Names,
}

/// Requests whose path begins with a prefix. The longest prefix wins.
#[derive(Clone, Debug, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct EgressRoute {
    /// The prefix.
    #[serde(deserialize_with = "text::path")]
    pub prefix: String,
    /// Time for the head of the response, from the end of the request; zero for any time.
    #[serde(with = "limits::egress_timeout", default = "limits::egress_timeout::default")]
    pub timeout: Duration,
    /// Maximum pause in the body of the request; zero for any pause.
    #[serde(
        with = "limits::body_idle_timeout",
        default = "limits::body_idle_timeout::default"
    )]
    pub body_idle_timeout: Duration,
    /// Whether a request is sent again when its tunnel dies before the response, if its method allows that.
    #[serde(default = "yes")]
    pub retry: bool,
}

const fn yes() -> bool {
    true
}

impl ResponderConfig {
    /// Sets the defaults that depend on other keys, and checks what serde cannot.
    pub(crate) fn finish(&mut self, root: &Located<'_>) -> Result<(), Fault> {
        self.stats.finish(policy::RESPONDER_STATS_PREFIX);
        let listens = [
            ("admin", self.admin.as_ref().map(|admin| admin.listen)),
            ("tunnels", Some(self.tunnels.listen)),
            ("egress", Some(self.egress.listen)),
        ];
        check_listens(root, listens)?;
        self.tunnels.finish(&root.at("tunnels"))?;
        self.egress
            .finish(&root.at("egress"), self.tunnels.tenant_isolation)
    }
}

impl ListenConfig {
    fn finish(&mut self, at: &Located<'_>) -> Result<(), Fault> {
        if let Some(at) = at.find("first_byte_timeout") {
            let allowed = policy::DURATION_MIN..=self.handshake_timeout;
            limits::check(self.first_byte_timeout, &allowed).map_err(|problem| at.fault(problem))?;
        }
        self.first_byte_timeout = self.first_byte_timeout.min(self.handshake_timeout);
        if at.find("max_pending_per_source").is_none() {
            self.max_pending_per_source = policy::max_pending_per_source(self.max_pending_handshakes);
        }
        Ok(())
    }
}

impl EgressConfig {
    fn finish(&self, at: &Located<'_>, tenant_isolation: bool) -> Result<(), Fault> {
        let headers = at.at("host_id");
        if self.host_id.is_empty() {
            return Err(headers.fault("needs at least one entry"));
        }
        let names = self.host_id.iter().map(|header| &header.name);
        unique(names.zip(headers.items()), |name| format!("{name:?}"))?;
        let routes = at.at("routes");
        if self.routes.is_empty() {
            return Err(routes.fault("needs at least one entry"));
        }
        let prefixes = self.routes.iter().map(|route| &route.prefix);
        let places = routes.items().map(|route| route.at("prefix"));
        unique(prefixes.zip(places), |prefix| format!("{prefix:?}"))?;
        match (at.find("tenant"), tenant_isolation) {
            (Some(at), false) => Err(at.fault("allowed only with tunnels.tenant_isolation: true")),
            (None, true) => Err(Fault {
                key: format!("{}.tenant", at.path),
                ..at.fault("this key is required with tunnels.tenant_isolation: it names the header that names the tenant")
            }),
            (Some(_), true) | (None, false) => Ok(()),
        }
    }
}

impl<'de> Deserialize<'de> for HostIdHeader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HostIdVisitor)
    }
}

struct HostIdVisitor;

impl<'de> Visitor<'de> for HostIdVisitor {
    type Value = HostIdHeader;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header name, {node: NAME} or {cluster: NAME}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<HostIdHeader, E> {
        let name = text::parse_header(text).map_err(E::custom)?;
        Ok(HostIdHeader {
            name,
            names: Names::Either,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<HostIdHeader, A::Error> {
        const KEYS: &[&str] = &["node", "cluster"];
        let mut found = Vec::new();
        while let Some(key) = entries.next_key::<String>()? {
            let names = match key.as_str() {
                "node" => Names::Node,
                "cluster" => Names::Cluster,
                _ => return Err(de::Error::unknown_field(&key, KEYS)),
            };
            let name = entries.next_value::<text::Header>()?.0;
            found.push(HostIdHeader { name, names });
        }
        let wrong = |what: &str| {
            de::Error::custom(format!(
                "must be a header name, {{node: NAME}} or {{cluster: NAME}}, not {what}"
            ))
        };
        match found.len() {
            0 => Err(wrong("an empty mapping")),
            1 => Ok(found.remove(0)),
            _ => Err(wrong("a mapping with both keys")),
        }
    }
}

impl Serialize for HostIdHeader {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let key = match self.names {
            Names::Either => return serializer.serialize_str(&self.name),
            Names::Node => "node",
            Names::Cluster => "cluster",
        };
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(key, &self.name)?;
        map.end()
    }
}
