//! The configuration of an initiator: which tunnels it holds open, and which services receive the requests that arrive
//! through them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use eddy_core::address::TunnelAddress;
use eddy_core::identity::ClusterName;
use eddy_core::policy;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::error::Fault;
use super::section::{
    Key, check, count, default, filled, required, section, subsection, text, text_or, within,
};
use super::shared::{
    ANY, AccessLogConfig, AdminConfig, ApiConfig, EXCHANGE, LONG, LONG_OR_ZERO, LogConfig, MemoryConfig,
    NodeConfig, POSITIVE, StatsConfig, TracesConfig, check_listens, per_cpu,
};
use super::text;
use super::tree::{Located, unique};
use super::warnings::Warnings;

type Clusters = BTreeMap<ClusterName, ClusterConfig>;

section! {
    /// An initiator.
    pub struct InitiatorConfig {
        /// The identity of the process.
        node: NodeConfig = required(),
        /// Threads that share the work.
        workers: u16 = per_cpu(),
        /// The admin endpoint.
        admin: Option<AdminConfig> = default(None),
        /// The endpoint for questions about tunnels.
        api: Option<ApiConfig> = default(None),
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
        /// The tunnels to hold open.
        tunnels: Vec<TunnelConfig> = Tunnels,
        /// The hosts to dial and to call, by the name in addresses and routes.
        clusters: Clusters = ByName,
        /// The services that receive requests.
        routes: Vec<ServiceRoute> = required(),
        /// How to dial.
        dial: DialConfig = subsection(),
        /// How a dead tunnel is noticed.
        liveness: LivenessConfig = subsection(),
        /// The HTTP/2 connection inside each tunnel.
        http2: StreamsConfig = subsection(),
        /// How to call services.
        services: ServicesConfig = subsection(),
        /// Time for requests in flight at shutdown.
        drain_timeout: Duration = within(policy::DRAIN_TIMEOUT, LONG_OR_ZERO),
    }
    beside
    /// Notes on the spelling of the file.
    warnings: Warnings
}

section! {
    /// Tunnels to hold open to each host of a cluster.
    pub struct TunnelConfig {
        /// The announced identity, the cluster to dial, and the number of tunnels to each host.
        address: TunnelAddress = text(tunnel_address),
        /// Whether the number is for each worker, as in Envoy, instead of for the process.
        per_worker: bool = default(false),
    }
}

section! {
    /// A set of hosts.
    pub struct ClusterConfig {
        /// The hosts.
        hosts: Vec<HostPort> = filled(),
        /// The protocol of requests to these hosts.
        protocol: Protocol = text_or(text::protocol, Protocol::H1),
    }
}

/// A host and a port to connect to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A name or an IP address; an IPv6 address has no brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2 without TLS, from the first byte.
    H2,
}

impl Protocol {
    /// As it is written in a configuration.
    pub const fn label(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

section! {
    /// Requests whose path begins with a prefix, and the service that receives them. The longest prefix wins.
    pub struct ServiceRoute {
        /// The prefix.
        prefix: String = text(text::path),
        /// The service's hosts.
        cluster: ClusterName = text(text::id(ClusterName::parse)),
        /// Time for the head of the response; zero for any time.
        timeout: Duration = within(policy::SERVICE_TIMEOUT, LONG_OR_ZERO),
        /// Maximum pause in the body of the request; zero for any pause.
        body_idle_timeout: Duration = within(policy::BODY_IDLE_TIMEOUT, LONG_OR_ZERO),
    }
}

section! {
    /// How to dial.
    pub struct DialConfig {
        /// Time from the first packet to the complete response of the handshake.
        timeout: Duration = within(policy::DIAL_TIMEOUT, EXCHANGE),
        /// Dials in flight at once, on each worker and for each address.
        max_in_flight: u32 = count(policy::MAX_DIALS, POSITIVE),
        /// The pause after the first failure; it doubles with each further one.
        first_retry: Duration = within(policy::FIRST_RETRY, LONG),
        /// Maximum pause after a host refused.
        refused_max: Duration = within(policy::REFUSED_MAX, LONG_OR_ZERO),
        /// Maximum pause after a host stayed silent.
        silent_max: Duration = within(policy::SILENT_MAX, LONG_OR_ZERO),
        /// Maximum pause after a responder rejected this initiator, or where an address seems to be out of date.
        rejected_max: Duration = within(policy::REJECTED_MAX, LONG_OR_ZERO),
        /// Time without a connection after which another connect starts beside those in flight.
        overlap: Duration = within(policy::DIAL_OVERLAP, policy::DIAL_OVERLAP_MIN..=policy::DURATION_MAX),
        /// Lifetime of a tunnel that resets the count of failures.
        stable_after: Duration = within(policy::STABLE_AFTER, LONG_OR_ZERO),
        /// The path of the handshake.
        path: String = text_or(text::path, policy::HANDSHAKE_PATH),
        /// Whether the handshake is an HTTP upgrade.
        http_upgrade: bool = default(false),
        /// Interval at which names are resolved again.
        dns_refresh: Duration = within(policy::DNS_REFRESH, policy::DNS_REFRESH_MIN..=policy::DURATION_MAX),
    }
}

section! {
    /// How an initiator notices a dead tunnel: by the responder's pings while it is idle, by its own PINGs in use.
    pub struct LivenessConfig {
        /// Time for the first ping.
        first_ping: Duration = within(policy::FIRST_PING, LONG),
        /// Longest gaps between the responder's pings for which an idle tunnel may be silent.
        intervals: u32 = count(policy::SILENT_INTERVALS, POSITIVE),
        /// The HTTP/2 connection inside each tunnel.
        http2: PingConfig = subsection(),
    }
}

section! {
    /// PINGs on a tunnel in use.
    pub struct PingConfig {
        /// Silence after which a PING is sent.
        ping_interval: Duration = within(policy::HTTP2_PING_INTERVAL, EXCHANGE),
        /// Time for the acknowledgement of the PING, after which the tunnel is closed.
        ping_timeout: Duration = within(policy::HTTP2_PING_TIMEOUT, EXCHANGE),
    }
}

section! {
    /// The HTTP/2 connection inside a tunnel, at the initiator.
    pub struct StreamsConfig {
        /// Maximum number of requests in flight in one tunnel.
        max_streams: u32 = count(policy::MAX_STREAMS, POSITIVE),
    }
}

section! {
    /// How to call services.
    pub struct ServicesConfig {
        /// Time for the connect to a service.
        connect_timeout: Duration = within(policy::SERVICE_CONNECT_TIMEOUT, EXCHANGE),
        /// Time for which an idle connection is kept.
        idle_timeout: Duration = within(policy::SERVICE_IDLE_TIMEOUT, LONG),
        /// Maximum number of idle connections that each worker keeps for each host.
        max_idle: u32 = count(policy::SERVICE_MAX_IDLE, ANY),
    }
}

impl InitiatorConfig {
    /// Sets the defaults that depend on other keys, and checks what serde cannot.
    pub(crate) fn finish(&mut self, root: &Located<'_>) -> Result<(), Fault> {
        self.stats.finish(policy::INITIATOR_STATS_PREFIX);
        let listens = [
            ("admin", self.admin.as_ref().map(|admin| admin.listen)),
            ("api", self.api.as_ref().map(|api| api.listen)),
        ];
        check_listens(root, listens)?;
        self.check_clusters(&root.at("clusters"))?;
        self.check_tunnels(&root.at("tunnels"))?;
        self.check_routes(&root.at("routes"))?;
        self.dial.finish(&root.at("dial"))
    }

    fn check_clusters(&self, at: &Located<'_>) -> Result<(), Fault> {
        for (name, cluster) in &self.clusters {
            unique(
                cluster.hosts.iter().zip(at.at(name.as_str()).at("hosts").items()),
                ToString::to_string,
            )?;
        }
        Ok(())
    }

    fn check_tunnels(&self, at: &Located<'_>) -> Result<(), Fault> {
        let all = || {
            self.tunnels
                .iter()
                .zip(at.items().map(|tunnel| tunnel.at("address")))
        };
        for (tunnel, at) in all() {
            self.check_defined(&tunnel.address.cluster, &at)?;
        }
        let who = all().map(|(tunnel, at)| ((&tunnel.address.identity, &tunnel.address.cluster), at));
        unique(who, |_| {
            "an address with the same ids and cluster (add up the counts)".to_owned()
        })
    }

    fn check_routes(&self, at: &Located<'_>) -> Result<(), Fault> {
        for (route, at) in self.routes.iter().zip(at.items()) {
            self.check_defined(&route.cluster, &at.at("cluster"))?;
        }
        let prefixes = self.routes.iter().map(|route| &route.prefix);
        unique(
            prefixes.zip(at.items().map(|route| route.at("prefix"))),
            |prefix| format!("{prefix:?}"),
        )
    }

    fn check_defined(&self, name: &ClusterName, at: &Located<'_>) -> Result<(), Fault> {
        if self.clusters.contains_key(name) {
            return Ok(());
        }
        let defined: Vec<_> = self.clusters.keys().map(|name| name.as_str()).collect();
        let defined = if defined.is_empty() {
            " none".to_owned()
        } else {
            format!(": {}", defined.join(", "))
        };
        let name = name.as_str();
        Err(at.fault(format!(
            "cluster {name:?} is not defined; `clusters` defines{defined}"
        )))
    }
}

impl DialConfig {
    /// A maximum below the first pause would contradict "doubles".
    fn finish(&mut self, at: &Located<'_>) -> Result<(), Fault> {
        let first = self.first_retry;
        for (key, most) in [
            ("refused_max", &mut self.refused_max),
            ("silent_max", &mut self.silent_max),
            ("rejected_max", &mut self.rejected_max),
        ] {
            match at.find(key) {
                Some(at) => {
                    check(*most, &(first..=policy::DURATION_MAX)).map_err(|problem| at.fault(problem))?
                }
                None => *most = first.max(*most),
            }
        }
        Ok(())
    }
}

/// The key `clusters`.
struct ByName;

impl Key for ByName {
    type Value = Clusters;

    fn read<'de, D: Deserializer<'de>>(&self, deserializer: D) -> Result<Clusters, D::Error> {
        #[derive(PartialEq, Eq, PartialOrd, Ord)]
        struct Name(ClusterName);

        impl<'de> Deserialize<'de> for Name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                text(text::id(ClusterName::parse)).read(deserializer).map(Self)
            }
        }

        let clusters = BTreeMap::<Name, ClusterConfig>::deserialize(deserializer)?;
        Ok(clusters
            .into_iter()
            .map(|(name, cluster)| (name.0, cluster))
            .collect())
    }

    fn write<S: Serializer>(&self, clusters: &Clusters, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(clusters.iter().map(|(name, cluster)| (name.as_str(), cluster)))
    }

    fn absent(&self) -> Option<Clusters> {
        None
    }
}

fn tunnel_address(text: &str) -> Result<TunnelAddress, String> {
    TunnelAddress::parse(text).map_err(|rule| format!("{text:?}: {rule}"))
}

/// The key `tunnels`, a list whose entries are mappings or addresses alone.
struct Tunnels;

impl Key for Tunnels {
    type Value = Vec<TunnelConfig>;

    fn read<'de, D: Deserializer<'de>>(&self, deserializer: D) -> Result<Vec<TunnelConfig>, D::Error> {
        #[derive(serde::Deserialize)]
        #[serde(transparent)]
        struct Entry(#[serde(deserialize_with = "tunnel")] TunnelConfig);

        let tunnels = Vec::<Entry>::deserialize(deserializer)?;
        if tunnels.is_empty() {
            return Err(de::Error::custom("needs at least one entry"));
        }
        Ok(tunnels.into_iter().map(|tunnel| tunnel.0).collect())
    }

    fn write<S: Serializer>(&self, tunnels: &Vec<TunnelConfig>, serializer: S) -> Result<S::Ok, S::Error> {
        tunnels.serialize(serializer)
    }

    fn absent(&self) -> Option<Vec<TunnelConfig>> {
        None
    }
}

fn tunnel<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TunnelConfig, D::Error> {
    deserializer.deserialize_any(TunnelVisitor)
}

struct TunnelVisitor;

impl<'de> Visitor<'de> for TunnelVisitor {
    type Value = TunnelConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TunnelConfig, E> {
        let (address, per_worker) = (tunnel_address(text).map_err(E::custom)?, false);
        Ok(TunnelConfig { address, per_worker })
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<TunnelConfig, A::Error> {
        TunnelConfig::deserialize(MapAccessDeserializer::new(entries))
    }
}
