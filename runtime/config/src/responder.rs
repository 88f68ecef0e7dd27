//! The configuration of a responder: where tunnels arrive, and how requests find them.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use eddy_core::duplicates::Policy;
use eddy_core::identity::ClusterName;
use eddy_core::policy;
use eddy_core::router::Names;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::error::Fault;
use super::section::{
    Key, Optional, Seed, TextVisitor, check, count, default, filled, required, section, subsection, text,
    text_or, within,
};
use super::shared::{
    ANY, AccessLogConfig, AdminConfig, EXCHANGE, Http2Config, LONG_OR_ZERO, LogConfig, MemoryConfig,
    NodeConfig, POSITIVE, StatsConfig, TracesConfig, check_listens, per_cpu,
};
use super::text;
use super::tree::{Located, unique};

const GRACE: RangeInclusive<Duration> = Duration::ZERO..=policy::GRACE_MAX;

section! {
    /// A responder.
    pub struct ResponderConfig {
        /// The identity of the process.
        node: NodeConfig = required(),
        /// Threads that share the work.
        workers: u16 = per_cpu(),
        /// The admin endpoint.
        admin: Option<AdminConfig> = default(None),
        /// The names of the stats.
        stats: StatsConfig = subsection(),
        /// The memory of the process.
        memory: MemoryConfig = subsection(),
        /// The log.
        log: LogConfig = subsection(),
        /// The access log.
        access_log: Option<AccessLogConfig> = default(None),
        /// The destination of spans.
        traces: Option<TracesConfig> = default(None),
        /// Where tunnels arrive.
        tunnels: ListenConfig = required(),
        /// Where requests arrive.
        egress: EgressConfig = required(),
        /// Time for requests in flight at shutdown.
        drain_timeout: Duration = within(policy::DRAIN_TIMEOUT, LONG_OR_ZERO),
    }
}

section! {
    /// Where tunnels arrive, what a handshake must contain, and how a tunnel is kept alive.
    pub struct ListenConfig {
        /// The address that initiators dial.
        listen: SocketAddr = text(text::listen),
        /// The pause between the echo of an idle tunnel's ping and the next ping.
        ping_interval: Duration = within(policy::PING_INTERVAL, policy::PING_INTERVAL_MIN..=policy::EXCHANGE_MAX),
        /// Half intervals without the echo after which the tunnel is closed.
        ping_misses: u32 = count(policy::PING_MISSES, POSITIVE),
        /// Time from accept to the complete request of a handshake.
        handshake_timeout: Duration = within(policy::HANDSHAKE_TIMEOUT, EXCHANGE),
        /// Time from accept to the first byte of the request; at most `handshake_timeout`.
        first_byte_timeout: Duration = within(policy::FIRST_BYTE_TIMEOUT, LONG_OR_ZERO),
        /// The path of a handshake.
        path: String = text_or(text::path, policy::HANDSHAKE_PATH),
        /// Whether handshakes are HTTP upgrades with a 101 response.
        http_upgrade: bool = default(false),
        /// Whether tenants are kept apart: a node or cluster is then looked up within its tenant only.
        tenant_isolation: bool = default(false),
        /// The upstream cluster that a handshake must name.
        required_cluster: Option<ClusterName> = Optional(text(text::id(ClusterName::parse))),
        /// The treatment of several processes under one node id.
        duplicates: Policy = Duplicates,
        /// The pause between the acknowledgement of the response and the first byte in the tunnel (wire.md 2.6).
        settle: Duration = within(policy::SETTLE, Duration::ZERO..=policy::SETTLE_MAX),
        /// Maximum number of pending handshakes on one worker; a further one evicts an older one.
        max_pending_handshakes: u32 = count(policy::MAX_PENDING_HANDSHAKES, POSITIVE),
        /// Maximum number of these from one source; zero for any number.
        max_pending_per_source: u32 = count(policy::max_pending_per_source(policy::MAX_PENDING_HANDSHAKES), ANY),
        /// The HTTP/2 connection inside each tunnel.
        http2: Http2Config = subsection(),
    }
}

section! {
    /// Where requests arrive, and how each one finds its tunnel.
    pub struct EgressConfig {
        /// The address that applications send requests to.
        listen: SocketAddr = text(text::listen),
        /// The headers that name a node or cluster; the first one that is present counts.
        host_id: Vec<HostIdHeader> = filled(),
        /// The header that names the tenant: present exactly if tenants are kept apart.
        tenant: Option<String> = Optional(text(text::header)),
        /// The requests that are accepted.
        routes: Vec<EgressRoute> = filled(),
        /// Wait of a request for a node or cluster that was connected moments ago; zero: no wait.
        reconnect_grace: Duration = within(policy::RECONNECT_GRACE, GRACE),
        /// Maximum number of requests that wait so on one worker.
        max_waiting: u32 = count(policy::MAX_WAITING, ANY),
        /// Time for which a draining process still accepts clients, while its initiators dial elsewhere.
        drain_delay: Duration = within(policy::DRAIN_DELAY, GRACE),
    }
}

section! {
    /// Requests whose path begins with a prefix. The longest prefix wins.
    pub struct EgressRoute {
        /// The prefix.
        prefix: String = text(text::path),
        /// Time for the head of the response, from the end of the request; zero for any time.
        timeout: Duration = within(policy::EGRESS_TIMEOUT, LONG_OR_ZERO),
        /// Maximum pause in the body of the request; zero for any pause.
        body_idle_timeout: Duration = within(policy::BODY_IDLE_TIMEOUT, LONG_OR_ZERO),
        /// Whether a request is sent again when its tunnel dies before the response, if its method allows that.
        retry: bool = default(true),
    }
}

/// A header that names a node or a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct HostIdHeader {
    /// The header, in lower case.
    pub name: String,
    /// The kind of id in its value.
    pub names: Names,
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
            check(self.first_byte_timeout, &allowed).map_err(|problem| at.fault(problem))?;
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
        let names = self.host_id.iter().map(|header| &header.name);
        unique(names.zip(at.at("host_id").items()), |name| format!("{name:?}"))?;
        let prefixes = self.routes.iter().map(|route| &route.prefix);
        let places = at.at("routes").items().map(|route| route.at("prefix"));
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

/// The key `duplicates`.
struct Duplicates;

impl Key for Duplicates {
    type Value = Policy;

    fn read<'de, D: Deserializer<'de>>(&self, deserializer: D) -> Result<Policy, D::Error> {
        deserializer.deserialize_str(TextVisitor("text", text::duplicates))
    }

    fn write<S: Serializer>(&self, value: &Policy, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value.label())
    }

    fn absent(&self) -> Option<Policy> {
        Some(Policy::default())
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
        let (name, names) = (text::header(text).map_err(E::custom)?, Names::Either);
        Ok(HostIdHeader { name, names })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<HostIdHeader, A::Error> {
        let mut found = None;
        while let Some(key) = entries.next_key::<String>()? {
            let names = match key.as_str() {
                "node" => Names::Node,
                "cluster" => Names::Cluster,
                _ => return Err(de::Error::unknown_field(&key, &["node", "cluster"])),
            };
            let name = entries.next_value_seed(Seed(&text(text::header)))?;
            if found.replace(HostIdHeader { name, names }).is_some() {
                let problem =
                    "must be a header name, {node: NAME} or {cluster: NAME}, not a mapping with both keys";
                return Err(de::Error::custom(problem));
            }
        }
        found.ok_or_else(|| {
            de::Error::custom("must be a header name, {node: NAME} or {cluster: NAME}, not an empty mapping")
        })
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
