//! The sections that both roles have.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZero;
use std::ops::RangeInclusive;
use std::time::Duration;

use eddy_core::identity::{ClusterId, NodeId};
use eddy_core::policy;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::byte_size::{self, ByteSize};
use super::error::Fault;
use super::section::{Count, Key, Optional, count, default, section, text, text_or, within};
use super::text;
use super::tree::{Located, unique};

pub(crate) const ANY: RangeInclusive<u32> = 0..=u32::MAX;
pub(crate) const POSITIVE: RangeInclusive<u32> = 1..=u32::MAX;
pub(crate) const LONG: RangeInclusive<Duration> = policy::DURATION_MIN..=policy::DURATION_MAX;
/// Zero means without a limit, or not at all.
pub(crate) const LONG_OR_ZERO: RangeInclusive<Duration> = Duration::ZERO..=policy::DURATION_MAX;
pub(crate) const EXCHANGE: RangeInclusive<Duration> = policy::DURATION_MIN..=policy::EXCHANGE_MAX;

section! {
    /// The identity of this process.
    pub struct NodeConfig {
        /// The process.
        id: NodeId = text(text::id(NodeId::parse)),
        /// The group that it belongs to.
        cluster: ClusterId = text(text::id(ClusterId::parse)),
    }
}

section! {
    /// The endpoint for stats, readiness and the configuration.
    pub struct AdminConfig {
        /// The address.
        listen: SocketAddr = text(text::loopback_listen),
        /// Names under which requests may address it, beside `localhost` and IP addresses.
        hosts: Vec<HostName> = default(Vec::new()),
    }
}

/// The name of a machine, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(String);

impl HostName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for HostName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text(text::host_name).read(deserializer).map(Self)
    }
}

impl Serialize for HostName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

section! {
    /// The endpoint for questions about an initiator's tunnels.
    pub struct ApiConfig {
        /// The address.
        listen: SocketAddr = text(text::loopback_listen),
    }
}

section! {
    /// The names and the number of stats.
    pub struct StatsConfig {
        /// The beginning of the names.
        prefix: String = text_or(text::stats_prefix, ""),
        /// Whether there is a gauge for each node, cluster, host and worker.
        detailed: bool = default(false),
        /// Maximum number of series of single nodes, clusters and hosts in `/metrics`.
        max_series: u32 = count(policy::MAX_SERIES, ANY),
    }
}

impl StatsConfig {
    /// Sets the default of the role.
    pub(crate) fn finish(&mut self, prefix: &str) {
        if self.prefix.is_empty() {
            prefix.clone_into(&mut self.prefix);
        }
    }
}

section! {
    /// The memory of the process.
    pub struct MemoryConfig {
        /// The memory from which on requests are refused; by default a part of what the process may use.
        limit: Option<ByteSize> = Optional(text(byte_size::at_least(policy::MEMORY_LIMIT_MIN))),
    }
}

section! {
    /// The log.
    pub struct LogConfig {
        /// Levels, also by module.
        filter: String = text_or(text::log_filter, policy::LOG_FILTER),
        /// The format of the lines.
        format: LogFormat = text_or(text::log_format, LogFormat::Text),
    }
}

/// The format of log lines.
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
        let all = [Self::Text, Self::Json];
        all.into_iter().find(|format| format.label() == name)
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

section! {
    /// A line for each request.
    pub struct AccessLogConfig {
        /// The file to append to; `-` is standard output.
        file: String = text(text::file),
    }
}

section! {
    /// A span for each request.
    pub struct TracesConfig {
        /// The address of a collector that accepts OTLP over HTTP.
        otlp: String = text(text::collector),
    }
}

section! {
    /// The HTTP/2 connection inside a tunnel, at the responder.
    pub struct Http2Config {
        /// Silence after which a PING is sent.
        ping_interval: Duration = within(policy::HTTP2_PING_INTERVAL, EXCHANGE),
        /// Time for the acknowledgement of the PING, after which the tunnel is closed.
        ping_timeout: Duration = within(policy::HTTP2_PING_TIMEOUT, EXCHANGE),
        /// Maximum number of requests in flight in one tunnel.
        max_streams: u32 = count(policy::MAX_STREAMS, POSITIVE),
    }
}

/// The number of workers: by default one for each CPU.
pub(crate) fn per_cpu() -> Count<u16> {
    let cpus = std::thread::available_parallelism().map_or(1, NonZero::get);
    let most = u16::try_from(policy::WORKERS_MAX).unwrap_or(u16::MAX);
    count(u16::try_from(cpus).unwrap_or(most).min(most), 1..=most)
}

/// Refuses an address that two listeners share: the system would spread the connections over both.
pub(crate) fn check_listens<const N: usize>(
    root: &Located<'_>,
    listens: [(&str, Option<SocketAddr>); N],
) -> Result<(), Fault> {
    let used = listens.into_iter().filter_map(|(key, addr)| {
        let addr = addr.filter(|addr| addr.port() != 0)?;
        Some((addr, root.at(key).at("listen")))
    });
    unique(used, ToString::to_string)
}
