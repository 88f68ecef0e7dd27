//! The sections that both roles have.

use std::net::SocketAddr;
use std::time::Duration;

use eddy_core::identity::{ClusterId, NodeId};
use eddy_core::policy;
use serde::{Deserialize, Serialize};

use super::error::Fault;
use super::tree::{Located, unique};
use super::{limits, text};

/// The identity of this process.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// The process.
    #[serde(with = "text")]
    pub id: NodeId,
    /// The group that it belongs to.
    #[serde(with = "text")]
    pub cluster: ClusterId,
}

/// The endpoint for stats, readiness and the configuration.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// The address.
    #[serde(deserialize_with = "text::loopback_listen")]
    pub listen: SocketAddr,
}

/// The endpoint for questions about an initiator's tunnels.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ApiConfig {
    /// The address.
    #[serde(deserialize_with = "text::loopback_listen")]
    pub listen: SocketAddr,
}

/// The names and the number of stats.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct StatsConfig {
    /// The beginning of the names.
    #[serde(default, deserialize_with = "text::stats_prefix")]
    pub prefix: String,
    /// Whether there is a gauge for each node, cluster, host and worker.
    #[serde(default)]
    pub detailed: bool,
    /// Maximum number of series of single nodes, clusters and hosts in `/metrics`.
    #[serde(with = "limits::max_series", default = "limits::max_series::default")]
    pub max_series: u32,
}

impl StatsConfig {
    /// Sets the default of the role.
    pub(crate) fn finish(&mut self, prefix: &str) {
        if self.prefix.is_empty() {
            prefix.clone_into(&mut self.prefix);
        }
    }
}

/// The log.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Levels, also by module.
    #[serde(default = "log_filter", deserialize_with = "text::log_filter")]
    pub filter: String,
    /// The format of the lines.
    #[serde(default)]
    pub format: LogFormat,
}

fn log_filter() -> String {
    policy::LOG_FILTER.to_owned()
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

/// A line for each request.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AccessLogConfig {
    /// The file to append to; `-` is standard output.
    #[serde(deserialize_with = "text::file")]
    pub file: String,
}

/// A span for each request.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TracesConfig {
    /// The address of a collector that accepts OTLP over HTTP.
    #[serde(deserialize_with = "text::collector")]
    pub otlp: String,
}

/// The HTTP/2 connection inside a tunnel, at the responder.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Http2Config {
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
    /// Maximum number of requests in flight in one tunnel.
    #[serde(with = "limits::max_streams", default = "limits::max_streams::default")]
    pub max_streams: u32,
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
