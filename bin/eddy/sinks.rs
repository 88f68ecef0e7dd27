//! Where a process writes its request records, and under which name.

use eddy_runtime::config::{AccessLogConfig, NodeConfig, TracesConfig};

/// The configured destinations of request records, and the process that they come from.
pub(crate) struct Sinks<'a> {
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "an attribute of spans"))]
    pub(crate) role: &'static str,
    #[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "an attribute of spans"))]
    pub(crate) node: &'a NodeConfig,
    pub(crate) access_log: Option<&'a AccessLogConfig>,
    pub(crate) traces: Option<&'a TracesConfig>,
}
