//! The configuration of an initiator: which tunnels it holds open, and which services receive the requests that arrive
//! through them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use eddy_core::address::TunnelAddress;
use eddy_core::identity::ClusterName;
use eddy_core::policy;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};

use super::error::Fault;
use super::responder::handshake_path;
use super::shared::{
    AccessLogConfig, AdminConfig, ApiConfig, LogConfig, NodeConfig, StatsConfig, TracesConfig, check_listens,
};
use super::text::{As, Text};
use super::tree::{Located, unique};
use super::warnings::Warnings;
use super::{de::absent, limits, text};

/// An initiator.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InitiatorConfig {
    /// The identity of the process.
    pub node: NodeConfig,
    /// Threads that share the work.
    #[serde(with = "limits::workers", default = "limits::workers::default")]
    pub workers: u16,
    /// The admin endpoint.
    pub admin: Option<AdminConfig>,
    /// The endpoint for questions about tunnels.
    pub api: Option<ApiConfig>,
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
    /// The tunnels to hold open.
    pub tunnels: Vec<TunnelConfig>,
    /// The hosts to dial and to call, by the name in addresses and routes.
    #[serde(deserialize_with = "clusters", serialize_with = "write_clusters")]
    pub clusters: BTreeMap<ClusterName, ClusterConfig>,
    /// The services that receive requests.
    pub routes: Vec<ServiceRoute>,
    /// How to dial.
    #[serde(default = "absent")]
    pub dial: DialConfig,
    /// How a dead tunnel is noticed.
    #[serde(default = "absent")]
    pub liveness: LivenessConfig,
    /// The HTTP/2 connection inside each tunnel.
    #[serde(default = "absent")]
    pub http2: StreamsConfig,
    /// How to call services.
    #[serde(default = "absent")]
    pub services: ServicesConfig,
    /// Time for requests in flight at shutdown.
    #[serde(with = "limits::drain_timeout", default = "limits::drain_timeout::default")]
    pub drain_timeout: Duration,
    /// Notes on the spelling of the file.
    #[serde(skip)]
    pub warnings: Warnings,
}

/// Tunnels to hold open to each host of a cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TunnelConfig {
    /// The announced identity, the cluster to dial, and the number of tunnels to each host.
    #[serde(serialize_with = "text::serialize")]
    pub address: TunnelAddress,
    /// Whether the number is for each worker, as in Envoy, instead of for the process.
    pub per_worker: bool,
}

/// A set of hosts.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// The hosts.
    pub hosts: Vec<HostPort>,
    /// The protocol of requests to these hosts.
    #[serde(default)]
    pub protocol: Protocol,
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
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

/// Requests whose path begins with a prefix, and the service that receives them. The longest prefix wins.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRoute {
    /// The prefix.
    #[serde(deserialize_with = "text::path")]
    pub prefix: String,
    /// The service's hosts.
    #[serde(with = "text")]
    pub cluster: ClusterName,
    /// Time for the head of the response; zero for any time.
    #[serde(
        with = "limits::service_timeout",
        default = "limits::service_timeout::default"
    )]
    pub timeout: Duration,
    /// Maximum pause in the body of the request; zero for any pause.
    #[serde(
        with = "limits::body_idle_timeout",
        default = "limits::body_idle_timeout::default"
    )]
    pub body_idle_timeout: Duration,
}

/// How to dial.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DialConfig {
    /// Time from the first packet to the complete response of the handshake.
    #[serde(with = "limits::dial_timeout", default = "limits::dial_timeout::default")]
    pub timeout: Duration,
    /// Dials in flight at once, on each worker and for each address.
    #[serde(with = "limits::max_in_flight", default = "limits::max_in_flight::default")]
    pub max_in_flight: u32,
    /// The pause after the first failure; it doubles with each further one.
    #[serde(with = "limits::first_retry", default = "limits::first_retry::default")]
    pub first_retry: Duration,
    /// Maximum pause after a host refused.
    #[serde(with = "limits::refused_max", default = "limits::refused_max::default")]
    pub refused_max: Duration,
    /// Maximum pause after a host stayed silent.
    #[serde(with = "limits::silent_max", default = "limits::silent_max::default")]
    pub silent_max: Duration,
    /// Maximum pause after a responder rejected this initiator, or where an address seems to be out of date.
    #[serde(with = "limits::rejected_max", default = "limits::rejected_max::default")]
    pub rejected_max: Duration,
    /// Time without a connection after which another connect starts beside those in flight.
    #[serde(with = "limits::overlap", default = "limits::overlap::default")]
    pub overlap: Duration,
    /// Lifetime of a tunnel that resets the count of failures.
    #[serde(with = "limits::stable_after", default = "limits::stable_after::default")]
    pub stable_after: Duration,
    /// The path of the handshake.
    #[serde(default = "handshake_path", deserialize_with = "text::path")]
    pub path: String,
    /// Whether the handshake is an HTTP upgrade.
    #[serde(default)]
    pub http_upgrade: bool,
    /// Interval at which names are resolved again.
    #[serde(with = "limits::dns_refresh", default = "limits::dns_refresh::default")]
    pub dns_refresh: Duration,
}

/// How an initiator notices a dead tunnel: by the responder's pings while it is idle, by its own PINGs in use.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LivenessConfig {
    /// Time for the first ping.
    #[serde(with = "limits::first_ping", default = "limits::first_ping::default")]
    pub first_ping: Duration,
    /// Longest gaps between the responder's pings for which an idle tunnel may be silent.
    #[serde(with = "limits::intervals", default = "limits::intervals::default")]
    pub intervals: u32,
    /// The HTTP/2 connection inside each tunnel.
    #[serde(default = "absent")]
    pub http2: PingConfig,
}

/// PINGs on a tunnel in use.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PingConfig {
    /// Silence after which a PING is sent.
    #[serde(
        with = "limits::http2_ping_interval",
        default = "limits::http2_ping_interval::default"
    )]
    pub ping_interval: Duration,
    /// Time for the acknowledgement of the PING, after which the tunnel is closed.
    #[serde(
        with = "limits::http2_ping_timeout",
        default = "limits::http2_ping_timeout::default"
    )]
    pub ping_timeout: Duration,
}

/// The HTTP/2 connection inside a tunnel, at the initiator.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StreamsConfig {
    /// Maximum number of requests in flight in one tunnel.
    #[serde(with = "limits::max_streams", default = "limits::max_streams::default")]
    pub max_streams: u32,
}

/// How to call services.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServicesConfig {
    /// Time for the connect to a service.
    #[serde(
        with = "limits::connect_timeout",
        default = "limits::connect_timeout::default"
    )]
    pub connect_timeout: Duration,
    /// Time for which an idle connection is kept.
    #[serde(with = "limits::idle_timeout", default = "limits::idle_timeout::default")]
    pub idle_timeout: Duration,
    /// Maximum number of idle connections that each worker keeps for each host.
    #[serde(with = "limits::max_idle", default = "limits::max_idle::default")]
    pub max_idle: u32,
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
        for entry in at.tree.entries() {
            let hosts = at.inside(entry).at("hosts");
            if hosts.items().next().is_none() {
                return Err(hosts.fault("needs at least one entry"));
            }
        }
        for (name, cluster) in &self.clusters {
            unique(
                cluster.hosts.iter().zip(at.at(name.as_str()).at("hosts").items()),
                ToString::to_string,
            )?;
        }
        Ok(())
    }

    fn check_tunnels(&self, at: &Located<'_>) -> Result<(), Fault> {
        if self.tunnels.is_empty() {
            return Err(at.fault("needs at least one entry"));
        }
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
                Some(at) => limits::check(*most, &(first..=policy::DURATION_MAX))
                    .map_err(|problem| at.fault(problem))?,
                None => *most = first.max(*most),
            }
        }
        Ok(())
    }
}

fn clusters<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<ClusterName, ClusterConfig>, D::Error> {
    let clusters = BTreeMap::<As<ClusterName>, ClusterConfig>::deserialize(deserializer)?;
    Ok(clusters
        .into_iter()
        .map(|(name, cluster)| (name.0, cluster))
        .collect())
}

fn write_clusters<S: Serializer>(
    clusters: &BTreeMap<ClusterName, ClusterConfig>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(clusters.iter().map(|(name, cluster)| (name.as_str(), cluster)))
}

impl<'de> Deserialize<'de> for TunnelConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TunnelVisitor)
    }
}

struct TunnelVisitor;

impl<'de> Visitor<'de> for TunnelVisitor {
    type Value = TunnelConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<TunnelConfig, E> {
        Ok(TunnelConfig {
            address: Text::parse(text).map_err(E::custom)?,
            per_worker: false,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<TunnelConfig, A::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Full {
            #[serde(with = "text")]
            address: TunnelAddress,
            #[serde(default)]
            per_worker: bool,
        }

        let Full { address, per_worker } = Full::deserialize(MapAccessDeserializer::new(entries))?;
        Ok(TunnelConfig { address, per_worker })
    }
}
