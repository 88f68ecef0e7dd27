//! The sections that both roles have.

use std::net::SocketAddr;
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::time::Duration;

use eddy_core::identity::{ClusterId, NodeId};
use eddy_core::policy;

use super::error::{Fault, Problem};
use super::section::{Item, Section, Unique};
use super::value;

/// Who this process is.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// The process.
    pub id: NodeId,
    /// The group that it belongs to.
    pub cluster: ClusterId,
}

/// Where stats, readiness and the configuration are shown.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminConfig {
    /// The address.
    pub listen: SocketAddr,
}

/// Where an initiator answers questions about its tunnels.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiConfig {
    /// The address.
    pub listen: SocketAddr,
}

/// How stats are named, and how many there are.
#[derive(Clone, Debug, PartialEq)]
pub struct StatsConfig {
    /// What the names begin with.
    pub prefix: String,
    /// Whether there is a gauge for each node, cluster, host and worker.
    pub detailed: bool,
    /// How many series of single nodes, clusters and hosts `/metrics` has at most.
    pub max_series: u32,
}

/// What is logged, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// What: levels, also by module.
    pub filter: String,
    /// How.
    pub format: LogFormat,
}

/// How lines of the log are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object each.
    Json,
}

impl LogFormat {
    /// The format in one word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }

    /// The format of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Text, Self::Json]
            .into_iter()
            .find(|format| format.label() == name)
    }
}

/// Where a line is written for each request.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLogConfig {
    /// The file, which is appended to; `-` is standard output.
    pub file: String,
}

/// Where spans are sent.
#[derive(Clone, Debug, PartialEq)]
pub struct TracesConfig {
    /// The address of a collector that speaks OTLP over HTTP.
    pub otlp: String,
}

/// The HTTP/2 connection inside a tunnel.
#[derive(Clone, Debug, PartialEq)]
pub struct Http2Config {
    /// How long it may be silent before a PING is sent.
    pub ping_interval: Duration,
    /// How long the PING's answer may take before the tunnel is closed.
    pub ping_timeout: Duration,
    /// How many requests may be under way in one tunnel.
    pub max_streams: u32,
}

/// Durations that must not be zero.
pub(super) const fn positive(most: Duration) -> RangeInclusive<Duration> {
    policy::DURATION_MIN..=most
}

/// Durations of which zero means none.
pub(super) const fn or_none(most: Duration) -> RangeInclusive<Duration> {
    Duration::ZERO..=most
}

impl NodeConfig {
    pub(super) fn read(root: &Section<'_>) -> Result<Self, Fault> {
        let node = root.required("node")?.section(&["id", "cluster"])?;
        Ok(Self {
            id: node.required("id")?.text(value::node_id)?,
            cluster: node.required("cluster")?.text(value::cluster_id)?,
        })
    }
}

impl StatsConfig {
    pub(super) fn read(root: &Section<'_>, prefix: &str) -> Result<Self, Fault> {
        let stats = root.section("stats", &["prefix", "detailed", "max_series"])?;
        Ok(Self {
            prefix: stats.text("prefix", prefix.to_owned(), value::stats_prefix)?,
            detailed: stats.flag("detailed", false)?,
            max_series: stats.number("max_series", policy::MAX_SERIES, 0..=u32::MAX)?,
        })
    }
}

impl LogConfig {
    pub(super) fn read(root: &Section<'_>) -> Result<Self, Fault> {
        let log = root.section("log", &["filter", "format"])?;
        Ok(Self {
            filter: log.text("filter", policy::LOG_FILTER.to_owned(), value::log_filter)?,
            format: log.text("format", LogFormat::Text, value::log_format)?,
        })
    }
}

impl AccessLogConfig {
    pub(super) fn read(root: &Section<'_>) -> Result<Option<Self>, Fault> {
        let Some(item) = root.optional("access_log") else {
            return Ok(None);
        };
        let file = item.section(&["file"])?.required("file")?;
        let file = file.text(value::file)?;
        Ok(Some(Self { file }))
    }
}

impl TracesConfig {
    pub(super) fn read(root: &Section<'_>) -> Result<Option<Self>, Fault> {
        let Some(item) = root.optional("traces") else {
            return Ok(None);
        };
        let otlp = item.section(&["otlp"])?.required("otlp")?;
        let otlp = otlp.text(value::collector)?;
        Ok(Some(Self { otlp }))
    }
}

impl Http2Config {
    pub(super) fn read(parent: &Section<'_>) -> Result<Self, Fault> {
        let http2 = parent.section("http2", &["ping_interval", "ping_timeout", "max_streams"])?;
        Ok(Self {
            ping_interval: http2.duration(
                "ping_interval",
                policy::HTTP2_PING_INTERVAL,
                positive(policy::EXCHANGE_MAX),
            )?,
            ping_timeout: http2.duration(
                "ping_timeout",
                policy::HTTP2_PING_TIMEOUT,
                positive(policy::EXCHANGE_MAX),
            )?,
            max_streams: http2.number("max_streams", policy::MAX_STREAMS, 1..=u32::MAX)?,
        })
    }
}

/// How many workers: by default, as many as there are CPUs.
pub(super) fn workers(root: &Section<'_>) -> Result<u16, Fault> {
    let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
    let default = u32::try_from(cpus).unwrap_or(u32::MAX).min(policy::WORKERS_MAX);
    let workers = root.number("workers", default, 1..=policy::WORKERS_MAX)?;
    Ok(u16::try_from(workers).unwrap_or(u16::MAX))
}

/// How long a process waits for what is under way when it is told to stop.
pub(super) fn drain_timeout(root: &Section<'_>) -> Result<Duration, Fault> {
    root.duration(
        "drain_timeout",
        policy::DRAIN_TIMEOUT,
        or_none(policy::DURATION_MAX),
    )
}

/// The addresses that a process listens on: each once, as the system would let two listeners share one and
/// spread the connections over both.
pub(super) struct Listens(Unique<SocketAddr>);

impl Listens {
    pub(super) fn new() -> Self {
        Self(Unique::new())
    }

    pub(super) fn read(&mut self, item: &Item<'_>) -> Result<SocketAddr, Fault> {
        self.read_as(item, value::listen)
    }

    fn read_as(
        &mut self,
        item: &Item<'_>,
        parse: fn(&str) -> Result<SocketAddr, Problem>,
    ) -> Result<SocketAddr, Fault> {
        let addr = item.text(parse)?;
        if addr.port() != 0 {
            self.0.admit(addr, item, addr)?;
        }
        Ok(addr)
    }

    /// The address of a section with nothing else in it, which may be left out. Such a section is for the
    /// people who run the process, so a port alone is on the loopback address.
    pub(super) fn read_section(
        &mut self,
        root: &Section<'_>,
        key: &'static str,
    ) -> Result<Option<SocketAddr>, Fault> {
        let Some(item) = root.optional(key) else {
            return Ok(None);
        };
        let listen = item.section(&["listen"])?.required("listen")?;
        self.read_as(&listen, value::loopback_listen).map(Some)
    }
}
