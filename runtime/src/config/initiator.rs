//! The configuration of an initiator: which tunnels it holds open, and who answers what comes through them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use eddy_core::address::TunnelAddress;
use eddy_core::identity::ClusterName;
use eddy_core::policy;

use super::error::{Fault, Problem};
use super::section::{Item, Section, Unique};
use super::shared::{
    AccessLogConfig, AdminConfig, ApiConfig, Http2Config, Listens, LogConfig, NodeConfig, StatsConfig,
    TracesConfig, drain_timeout, or_none, positive, workers,
};
use super::value;

const KEYS: &[&str] = &[
    "node",
    "workers",
    "admin",
    "api",
    "stats",
    "log",
    "access_log",
    "traces",
    "tunnels",
    "clusters",
    "routes",
    "dial",
    "liveness",
    "services",
    "drain_timeout",
];

/// Everything an initiator is told.
#[derive(Clone, Debug, PartialEq)]
pub struct InitiatorConfig {
    /// Who it is.
    pub node: NodeConfig,
    /// How many threads share the work.
    pub workers: u16,
    /// The admin endpoint, if there is one.
    pub admin: Option<AdminConfig>,
    /// How its stats are named.
    pub stats: StatsConfig,
    /// What is logged.
    pub log: LogConfig,
    /// Where requests are told, if they are.
    pub access_log: Option<AccessLogConfig>,
    /// Where spans are sent, if they are.
    pub traces: Option<TracesConfig>,
    /// The endpoint for questions about its tunnels, if there is one.
    pub api: Option<ApiConfig>,
    /// Which tunnels it holds open.
    pub tunnels: Vec<TunnelConfig>,
    /// The hosts to dial and to call, by the name that addresses and routes use.
    pub clusters: BTreeMap<ClusterName, ClusterConfig>,
    /// Who answers which requests.
    pub routes: Vec<ServiceRoute>,
    /// How it dials.
    pub dial: DialConfig,
    /// How it notices that a tunnel is dead.
    pub liveness: LivenessConfig,
    /// How it calls services.
    pub services: ServicesConfig,
    /// How long requests under way may take when it is told to stop.
    pub drain_timeout: Duration,
}

/// Tunnels to hold open to each host of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct TunnelConfig {
    /// Who it says it is, which cluster it dials, and how many tunnels each host gets.
    pub address: TunnelAddress,
    /// Whether the number is for each worker, as Envoy counts, rather than for the process.
    pub per_worker: bool,
}

/// A set of hosts.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterConfig {
    /// The hosts.
    pub hosts: Vec<HostPort>,
    /// What they speak, where requests are sent to them.
    pub protocol: Protocol,
}

/// A host and a port to connect to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A name or an IP address; one of IPv6 stands without brackets.
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

/// What a service speaks.
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

/// Requests whose path begins with a prefix, and the service that answers them. The longest prefix wins.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceRoute {
    /// The prefix.
    pub prefix: String,
    /// The service's hosts.
    pub cluster: ClusterName,
    /// How long the head of the response may take; zero for as long as it takes.
    pub timeout: Duration,
    /// How long the body of the request may pause; zero for as long as it likes.
    pub body_idle_timeout: Duration,
}

/// How tunnels are dialed.
#[derive(Clone, Debug, PartialEq)]
pub struct DialConfig {
    /// How long a dial may take, from the first packet to the complete answer.
    pub timeout: Duration,
    /// How many dials may be under way at once, on each worker and for each address.
    pub max_in_flight: u32,
    /// The pause after the first failure; it doubles with each further one.
    pub first_retry: Duration,
    /// The longest pause after a host refused, which costs nobody anything to try again.
    pub refused_max: Duration,
    /// The longest pause after a host stayed silent.
    pub silent_max: Duration,
    /// The longest pause after a responder rejected this initiator, or where an address seems to be out of date.
    pub rejected_max: Duration,
    /// After how long without a connection another connect starts beside those in flight.
    pub overlap: Duration,
    /// How long a tunnel must live for its failures to be forgotten.
    pub stable_after: Duration,
    /// The path that the handshake asks for.
    pub path: String,
    /// Whether the handshake is an HTTP upgrade.
    pub http_upgrade: bool,
    /// After how long names are resolved again.
    pub dns_refresh: Duration,
}

/// How an initiator notices that a tunnel is dead: while idle by the responder's pings, later by its own.
#[derive(Clone, Debug, PartialEq)]
pub struct LivenessConfig {
    /// How long the first ping may take.
    pub first_ping: Duration,
    /// For how many of the longest gaps between the responder's pings an idle tunnel may then be silent.
    pub intervals: u32,
    /// The HTTP/2 connection inside each tunnel.
    pub http2: Http2Config,
}

/// How services are called.
#[derive(Clone, Debug, PartialEq)]
pub struct ServicesConfig {
    /// How long connecting to a service may take.
    pub connect_timeout: Duration,
    /// How long a connection is kept for further requests: below the 5 s after which some servers close theirs.
    pub idle_timeout: Duration,
    /// How many idle connections each worker keeps for each host.
    pub max_idle: u32,
}

impl InitiatorConfig {
    pub(super) fn read(root: &Item<'_>) -> Result<Self, Fault> {
        let root = root.section(KEYS)?;
        let mut listens = Listens::new();
        let node = NodeConfig::read(&root)?;
        let workers = workers(&root)?;
        let admin = listens
            .read_section(&root, "admin")?
            .map(|listen| AdminConfig { listen });
        let api = listens
            .read_section(&root, "api")?
            .map(|listen| ApiConfig { listen });
        let stats = StatsConfig::read(&root, policy::INITIATOR_STATS_PREFIX)?;
        let clusters = clusters(&root.required("clusters")?)?;
        Ok(Self {
            node,
            workers,
            admin,
            stats,
            log: LogConfig::read(&root)?,
            access_log: AccessLogConfig::read(&root)?,
            traces: TracesConfig::read(&root)?,
            api,
            tunnels: tunnels(&root.required("tunnels")?, &clusters)?,
            routes: routes(&root.required("routes")?, &clusters)?,
            clusters,
            dial: DialConfig::read(&root)?,
            liveness: LivenessConfig::read(&root)?,
            services: ServicesConfig::read(&root)?,
            drain_timeout: drain_timeout(&root)?,
        })
    }
}

type Clusters = BTreeMap<ClusterName, ClusterConfig>;

fn clusters(item: &Item<'_>) -> Result<Clusters, Fault> {
    let mut clusters = BTreeMap::new();
    for (name, at, item) in item.named()? {
        let name = value::cluster_name(name).map_err(|problem| Fault {
            at,
            ..item.fault(problem)
        })?;
        clusters.insert(name, ClusterConfig::read(&item)?);
    }
    Ok(clusters)
}

impl ClusterConfig {
    fn read(item: &Item<'_>) -> Result<Self, Fault> {
        let cluster = item.section(&["hosts", "protocol"])?;
        let mut hosts = Vec::new();
        let mut unique = Unique::new();
        for item in cluster.required("hosts")?.filled_list()? {
            let host = item.text(value::host_port)?;
            unique.admit(host.clone(), &item, &host)?;
            hosts.push(host);
        }
        Ok(Self {
            hosts,
            protocol: cluster.text("protocol", Protocol::H1, value::protocol)?,
        })
    }
}

fn defined(name: &ClusterName, item: &Item<'_>, clusters: &Clusters) -> Result<(), Fault> {
    if clusters.contains_key(name) {
        return Ok(());
    }
    let defined = clusters.keys().map(ToString::to_string).collect();
    Err(item.fault(Problem::UndefinedCluster {
        name: name.to_string(),
        defined,
    }))
}

fn tunnels(item: &Item<'_>, clusters: &Clusters) -> Result<Vec<TunnelConfig>, Fault> {
    let mut tunnels = Vec::new();
    let mut unique = Unique::new();
    for item in item.filled_list()? {
        let (text, per_worker) = if item.is_mapping() {
            let section = item.section(&["address", "per_worker"])?;
            (section.required("address")?, section.flag("per_worker", false)?)
        } else {
            (item, false)
        };
        let address = text.text(value::address)?;
        defined(&address.cluster, &text, clusters)?;
        let who = (address.identity.clone(), address.cluster.clone());
        unique.admit(
            who,
            &text,
            "an address with the same ids and cluster (add up the counts)",
        )?;
        tunnels.push(TunnelConfig { address, per_worker });
    }
    Ok(tunnels)
}

fn routes(item: &Item<'_>, clusters: &Clusters) -> Result<Vec<ServiceRoute>, Fault> {
    let mut routes = Vec::new();
    let mut prefixes = Unique::new();
    for item in item.list()? {
        let route = item.section(&["prefix", "cluster", "timeout", "body_idle_timeout"])?;
        let item = route.required("prefix")?;
        let prefix = item.text(value::path)?;
        prefixes.admit(prefix.clone(), &item, format!("{prefix:?}"))?;
        let item = route.required("cluster")?;
        let cluster = item.text(value::cluster_name)?;
        defined(&cluster, &item, clusters)?;
        let timeout = route.duration("timeout", policy::SERVICE_TIMEOUT, or_none(policy::DURATION_MAX))?;
        let body_idle_timeout = route.duration(
            "body_idle_timeout",
            policy::BODY_IDLE_TIMEOUT,
            or_none(policy::DURATION_MAX),
        )?;
        routes.push(ServiceRoute {
            prefix,
            cluster,
            timeout,
            body_idle_timeout,
        });
    }
    Ok(routes)
}

impl DialConfig {
    fn read(root: &Section<'_>) -> Result<Self, Fault> {
        let dial = root.section(
            "dial",
            &[
                "timeout",
                "max_in_flight",
                "first_retry",
                "refused_max",
                "silent_max",
                "rejected_max",
                "overlap",
                "stable_after",
                "path",
                "http_upgrade",
                "dns_refresh",
            ],
        )?;
        let first_retry =
            dial.duration("first_retry", policy::FIRST_RETRY, positive(policy::DURATION_MAX))?;
        // A longest pause that is below the first would make "doubles" a lie.
        let longest = |key, default: Duration| {
            dial.duration(key, default.max(first_retry), first_retry..=policy::DURATION_MAX)
        };
        Ok(Self {
            timeout: dial.duration("timeout", policy::DIAL_TIMEOUT, positive(policy::EXCHANGE_MAX))?,
            max_in_flight: dial.number("max_in_flight", policy::MAX_DIALS, 1..=u32::MAX)?,
            first_retry,
            refused_max: longest("refused_max", policy::REFUSED_MAX)?,
            silent_max: longest("silent_max", policy::SILENT_MAX)?,
            rejected_max: longest("rejected_max", policy::REJECTED_MAX)?,
            overlap: dial.duration(
                "overlap",
                policy::DIAL_OVERLAP,
                policy::DIAL_OVERLAP_MIN..=policy::DURATION_MAX,
            )?,
            stable_after: dial.duration(
                "stable_after",
                policy::STABLE_AFTER,
                or_none(policy::DURATION_MAX),
            )?,
            path: dial.text("path", policy::HANDSHAKE_PATH.to_owned(), value::path)?,
            http_upgrade: dial.flag("http_upgrade", false)?,
            dns_refresh: dial.duration(
                "dns_refresh",
                policy::DNS_REFRESH,
                policy::DNS_REFRESH_MIN..=policy::DURATION_MAX,
            )?,
        })
    }
}

impl LivenessConfig {
    fn read(root: &Section<'_>) -> Result<Self, Fault> {
        let liveness = root.section("liveness", &["first_ping", "intervals", "http2"])?;
        Ok(Self {
            first_ping: liveness.duration(
                "first_ping",
                policy::FIRST_PING,
                positive(policy::DURATION_MAX),
            )?,
            intervals: liveness.number("intervals", policy::SILENT_INTERVALS, 1..=u32::MAX)?,
            http2: Http2Config::read(&liveness)?,
        })
    }
}

impl ServicesConfig {
    fn read(root: &Section<'_>) -> Result<Self, Fault> {
        let services = root.section("services", &["connect_timeout", "idle_timeout", "max_idle"])?;
        Ok(Self {
            connect_timeout: services.duration(
                "connect_timeout",
                policy::SERVICE_CONNECT_TIMEOUT,
                positive(policy::EXCHANGE_MAX),
            )?,
            idle_timeout: services.duration(
                "idle_timeout",
                policy::SERVICE_IDLE_TIMEOUT,
                positive(policy::DURATION_MAX),
            )?,
            max_idle: services.number("max_idle", policy::SERVICE_MAX_IDLE, 0..=u32::MAX)?,
        })
    }
}
