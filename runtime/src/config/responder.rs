//! The configuration of a responder: where tunnels come in, and how requests find theirs.

use std::net::SocketAddr;
use std::time::Duration;

use eddy_core::duplicates::Policy;
use eddy_core::identity::ClusterName;
use eddy_core::policy;
use eddy_core::router::Names;

use super::error::{Fault, Problem};
use super::section::{Item, Section, Unique};
use super::shared::{
    AccessLogConfig, AdminConfig, Http2Config, Listens, LogConfig, NodeConfig, StatsConfig, TracesConfig,
    drain_timeout, or_none, positive, workers,
};
use super::value;

const KEYS: &[&str] = &[
    "node",
    "workers",
    "admin",
    "stats",
    "log",
    "access_log",
    "traces",
    "tunnels",
    "egress",
    "drain_timeout",
];

/// Everything a responder is told.
#[derive(Clone, Debug, PartialEq)]
pub struct ResponderConfig {
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
    /// Where tunnels come in.
    pub tunnels: ListenConfig,
    /// Where requests come in.
    pub egress: EgressConfig,
    /// How long requests under way may take when it is told to stop.
    pub drain_timeout: Duration,
}

/// Where tunnels come in, what a handshake must say, and how a tunnel is kept alive.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenConfig {
    /// The address that initiators dial.
    pub listen: SocketAddr,
    /// The pause from the echo of an idle tunnel's ping to the next ping.
    pub ping_interval: Duration,
    /// For how many halves of the interval the echo may be missing before the tunnel is closed.
    pub ping_misses: u32,
    /// How long a handshake may take, from accept to the complete request.
    pub handshake_timeout: Duration,
    /// How long it may take to the first byte of the request; at most `handshake_timeout`.
    pub first_byte_timeout: Duration,
    /// The path that a handshake must ask for.
    pub path: String,
    /// Whether handshakes are HTTP upgrades, answered 101.
    pub http_upgrade: bool,
    /// Whether tenants are kept apart: a node or cluster is then looked up within its tenant only.
    pub tenant_isolation: bool,
    /// The upstream cluster that a handshake must name, if any.
    pub required_cluster: Option<ClusterName>,
    /// What becomes of several processes under one node id.
    pub duplicates: Policy,
    /// How long a tunnel rests after the answer is acknowledged, before anything is sent through it (wire.md 2.6).
    pub settle: Duration,
    /// How many handshakes may be pending on one worker; beyond it, older ones are evicted.
    pub max_pending_handshakes: u32,
    /// How many of these may come from one source; zero for any number.
    pub max_pending_per_source: u32,
    /// The HTTP/2 connection inside each tunnel.
    pub http2: Http2Config,
}

/// Where requests come in, and how each finds its tunnel.
#[derive(Clone, Debug, PartialEq)]
pub struct EgressConfig {
    /// The address that applications send requests to.
    pub listen: SocketAddr,
    /// The headers that name a node or cluster; the first that is present counts.
    pub host_id: Vec<HostIdHeader>,
    /// The header that names the tenant: there exactly if tenants are kept apart.
    pub tenant: Option<String>,
    /// Which requests are let through.
    pub routes: Vec<EgressRoute>,
    /// How long a request waits for the return of somebody who was here moments ago; zero: not at all.
    pub reconnect_grace: Duration,
    /// How many requests may wait so on one worker.
    pub max_waiting: u32,
    /// How long a process that drains still accepts clients, while its initiators dial elsewhere.
    pub drain_delay: Duration,
}

/// A header that names a node or a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct HostIdHeader {
    /// The header, in lower case.
    pub name: String,
    /// What its value names.
    pub names: Names,
}

/// Requests whose path begins with a prefix. The longest prefix wins.
#[derive(Clone, Debug, PartialEq)]
pub struct EgressRoute {
    /// The prefix.
    pub prefix: String,
    /// How long the head of the response may take, from the end of the request; zero for as long as it takes.
    pub timeout: Duration,
    /// How long the body of the request may pause; zero for as long as it likes.
    pub body_idle_timeout: Duration,
    /// Whether a request may be sent again when its tunnel dies before the answer, if its method allows that.
    pub retry: bool,
}

impl ResponderConfig {
    pub(super) fn read(root: &Item<'_>) -> Result<Self, Fault> {
        let root = root.section(KEYS)?;
        let mut listens = Listens::new();
        let node = NodeConfig::read(&root)?;
        let workers = workers(&root)?;
        let admin = listens
            .read_section(&root, "admin")?
            .map(|listen| AdminConfig { listen });
        let stats = StatsConfig::read(&root, policy::RESPONDER_STATS_PREFIX)?;
        let tunnels = ListenConfig::read(&root.required("tunnels")?, &mut listens)?;
        let egress = EgressConfig::read(&root.required("egress")?, &mut listens, tunnels.tenant_isolation)?;
        Ok(Self {
            node,
            workers,
            admin,
            stats,
            log: LogConfig::read(&root)?,
            access_log: AccessLogConfig::read(&root)?,
            traces: TracesConfig::read(&root)?,
            tunnels,
            egress,
            drain_timeout: drain_timeout(&root)?,
        })
    }
}

impl ListenConfig {
    fn read(item: &Item<'_>, listens: &mut Listens) -> Result<Self, Fault> {
        let tunnels = item.section(&[
            "listen",
            "ping_interval",
            "ping_misses",
            "handshake_timeout",
            "first_byte_timeout",
            "path",
            "http_upgrade",
            "tenant_isolation",
            "required_cluster",
            "duplicates",
            "settle",
            "max_pending_handshakes",
            "max_pending_per_source",
            "http2",
        ])?;
        let required_cluster = tunnels.optional("required_cluster");
        let handshake_timeout = tunnels.duration(
            "handshake_timeout",
            policy::HANDSHAKE_TIMEOUT,
            positive(policy::EXCHANGE_MAX),
        )?;
        let first_byte_timeout = tunnels.duration(
            "first_byte_timeout",
            policy::FIRST_BYTE_TIMEOUT.min(handshake_timeout),
            positive(handshake_timeout),
        )?;
        let max_pending_handshakes = tunnels.number(
            "max_pending_handshakes",
            policy::MAX_PENDING_HANDSHAKES,
            1..=u32::MAX,
        )?;
        let share = policy::max_pending_per_source(max_pending_handshakes);
        Ok(Self {
            listen: listens.read(&tunnels.required("listen")?)?,
            ping_interval: tunnels.duration(
                "ping_interval",
                policy::PING_INTERVAL,
                policy::PING_INTERVAL_MIN..=policy::EXCHANGE_MAX,
            )?,
            ping_misses: tunnels.number("ping_misses", policy::PING_MISSES, 1..=u32::MAX)?,
            handshake_timeout,
            first_byte_timeout,
            path: tunnels.text("path", policy::HANDSHAKE_PATH.to_owned(), value::path)?,
            http_upgrade: tunnels.flag("http_upgrade", false)?,
            tenant_isolation: tunnels.flag("tenant_isolation", false)?,
            required_cluster: required_cluster
                .map(|item| item.text(value::cluster_name))
                .transpose()?,
            duplicates: tunnels.text("duplicates", Policy::Pool, value::duplicates)?,
            settle: tunnels.duration("settle", policy::SETTLE, or_none(policy::SETTLE_MAX))?,
            max_pending_handshakes,
            max_pending_per_source: tunnels.number("max_pending_per_source", share, 0..=u32::MAX)?,
            http2: Http2Config::read(&tunnels)?,
        })
    }
}

impl EgressConfig {
    fn read(item: &Item<'_>, listens: &mut Listens, tenant_isolation: bool) -> Result<Self, Fault> {
        let egress = item.section(&[
            "listen",
            "host_id",
            "tenant",
            "routes",
            "reconnect_grace",
            "max_waiting",
            "drain_delay",
        ])?;
        let listen = listens.read(&egress.required("listen")?)?;
        let mut host_id = Vec::new();
        let mut names = Unique::new();
        for item in egress.required("host_id")?.filled_list()? {
            let header = HostIdHeader::read(&item)?;
            names.admit(header.name.clone(), &item, format!("{:?}", header.name))?;
            host_id.push(header);
        }
        let mut routes = Vec::new();
        let mut prefixes = Unique::new();
        for item in egress.required("routes")?.filled_list()? {
            routes.push(EgressRoute::read(&item, &mut prefixes)?);
        }
        Ok(Self {
            listen,
            host_id,
            tenant: tenant(&egress, tenant_isolation)?,
            routes,
            reconnect_grace: egress.duration(
                "reconnect_grace",
                policy::RECONNECT_GRACE,
                or_none(policy::GRACE_MAX),
            )?,
            max_waiting: egress.number("max_waiting", policy::MAX_WAITING, 0..=u32::MAX)?,
            drain_delay: egress.duration("drain_delay", policy::DRAIN_DELAY, or_none(policy::GRACE_MAX))?,
        })
    }
}

fn tenant(egress: &Section<'_>, isolation: bool) -> Result<Option<String>, Fault> {
    match (egress.optional("tenant"), isolation) {
        (Some(item), true) => item.text(value::header).map(Some),
        (Some(item), false) => Err(item.fault(Problem::TenantHeaderUnused)),
        (None, true) => Err(egress.fault("tenant", Problem::TenantHeaderMissing)),
        (None, false) => Ok(None),
    }
}

impl HostIdHeader {
    fn read(item: &Item<'_>) -> Result<Self, Fault> {
        const FORMS: &str = "a header name, {node: NAME} or {cluster: NAME}";
        if !item.is_mapping() {
            return Ok(Self {
                name: item.text(value::header)?,
                names: Names::Either,
            });
        }
        let section = item.section(&["node", "cluster"])?;
        let (name, names) = match (section.find("node"), section.find("cluster")) {
            (Some(name), None) => (name, Names::Node),
            (None, Some(name)) => (name, Names::Cluster),
            (Some(_), Some(_)) => return Err(wrong(item, FORMS, "a mapping with both keys")),
            (None, None) => return Err(wrong(item, FORMS, "an empty mapping")),
        };
        Ok(Self {
            name: name.text(value::header)?,
            names,
        })
    }
}

fn wrong(item: &Item<'_>, wanted: &'static str, found: &str) -> Fault {
    item.fault(Problem::WrongType {
        wanted,
        found: found.to_owned(),
        quote: false,
    })
}

impl EgressRoute {
    fn read(item: &Item<'_>, prefixes: &mut Unique<String>) -> Result<Self, Fault> {
        let route = item.section(&["prefix", "timeout", "body_idle_timeout", "retry"])?;
        let prefix = route.required("prefix")?;
        let text = prefix.text(value::path)?;
        prefixes.admit(text.clone(), &prefix, format!("{text:?}"))?;
        Ok(Self {
            prefix: text,
            timeout: route.duration("timeout", policy::EGRESS_TIMEOUT, or_none(policy::DURATION_MAX))?,
            body_idle_timeout: route.duration(
                "body_idle_timeout",
                policy::BODY_IDLE_TIMEOUT,
                or_none(policy::DURATION_MAX),
            )?,
            retry: route.flag("retry", true)?,
        })
    }
}
