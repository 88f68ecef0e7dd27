//! The configuration in force, written out: every key, also those whose default was taken.

use std::fmt::{Display, Write};

use eddy_core::router::Names;

use super::initiator::{DialConfig, LivenessConfig, ServicesConfig};
use super::responder::{EgressConfig, ListenConfig};
use super::shared::{AccessLogConfig, Http2Config, LogConfig, NodeConfig, StatsConfig, TracesConfig};
use super::value::Text;
use super::{InitiatorConfig, ResponderConfig};

pub(super) fn responder(config: &ResponderConfig) -> String {
    let mut page = Page::default();
    page.node(&config.node);
    page.entry("workers", config.workers);
    page.listen("admin", config.admin.as_ref().map(|admin| &admin.listen));
    page.stats(&config.stats);
    page.logs(&config.log, config.access_log.as_ref(), config.traces.as_ref());
    page.tunnels(&config.tunnels);
    page.egress(&config.egress);
    page.entry("drain_timeout", Text(config.drain_timeout));
    page.text
}

pub(super) fn initiator(config: &InitiatorConfig) -> String {
    let mut page = Page::default();
    page.node(&config.node);
    page.entry("workers", config.workers);
    page.listen("admin", config.admin.as_ref().map(|admin| &admin.listen));
    page.listen("api", config.api.as_ref().map(|api| &api.listen));
    page.stats(&config.stats);
    page.logs(&config.log, config.access_log.as_ref(), config.traces.as_ref());
    page.section("tunnels", |page| {
        for tunnel in &config.tunnels {
            page.item(|page| {
                page.entry("address", quoted(&tunnel.address.to_string()));
                page.entry("per_worker", tunnel.per_worker);
            });
        }
    });
    page.section("clusters", |page| {
        for (name, cluster) in &config.clusters {
            page.section(&scalar(name.as_str()), |page| {
                page.section("hosts", |page| {
                    for host in &cluster.hosts {
                        page.line(format_args!("- {}", quoted(&host.to_string())));
                    }
                });
                page.entry("protocol", cluster.protocol.label());
            });
        }
    });
    if config.routes.is_empty() {
        page.entry("routes", "[]");
    } else {
        page.section("routes", |page| {
            for route in &config.routes {
                page.item(|page| {
                    page.entry("prefix", scalar(&route.prefix));
                    page.entry("cluster", scalar(route.cluster.as_str()));
                    page.entry("timeout", Text(route.timeout));
                    page.entry("body_idle_timeout", Text(route.body_idle_timeout));
                });
            }
        });
    }
    page.dial(&config.dial);
    page.liveness(&config.liveness);
    page.services(&config.services);
    page.entry("drain_timeout", Text(config.drain_timeout));
    page.text
}

/// YAML in block style.
#[derive(Default)]
struct Page {
    text: String,
    depth: usize,
    item: bool,
}

impl Page {
    fn line(&mut self, line: impl Display) {
        let bullet = if std::mem::take(&mut self.item) { "- " } else { "" };
        let width = 2 * self.depth - bullet.len();
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{:width$}{bullet}{line}", "");
    }

    fn entry(&mut self, key: &str, value: impl Display) {
        self.line(format_args!("{key}: {value}"));
    }

    fn section(&mut self, key: &str, body: impl FnOnce(&mut Self)) {
        self.line(format_args!("{key}:"));
        self.depth += 1;
        body(self);
        self.depth -= 1;
    }

    /// An entry of a list that is a mapping: its first line carries the dash.
    fn item(&mut self, body: impl FnOnce(&mut Self)) {
        self.depth += 1;
        self.item = true;
        body(self);
        self.depth -= 1;
    }

    fn listen(&mut self, key: &str, listen: Option<&std::net::SocketAddr>) {
        match listen {
            Some(addr) => self.section(key, |page| page.entry("listen", quoted(&addr.to_string()))),
            None => self.entry(key, "null"),
        }
    }

    fn node(&mut self, node: &NodeConfig) {
        self.section("node", |page| {
            page.entry("id", scalar(node.id.as_str()));
            page.entry("cluster", scalar(node.cluster.as_str()));
        });
    }

    fn stats(&mut self, stats: &StatsConfig) {
        self.section("stats", |page| {
            page.entry("prefix", scalar(&stats.prefix));
            page.entry("detailed", stats.detailed);
            page.entry("max_series", stats.max_series);
        });
    }

    fn logs(&mut self, log: &LogConfig, access_log: Option<&AccessLogConfig>, traces: Option<&TracesConfig>) {
        self.section("log", |page| {
            page.entry("filter", scalar(&log.filter));
            page.entry("format", log.format.label());
        });
        match access_log {
            Some(log) => self.section("access_log", |page| page.entry("file", quoted(&log.file))),
            None => self.entry("access_log", "null"),
        }
        match traces {
            Some(traces) => self.section("traces", |page| page.entry("otlp", quoted(&traces.otlp))),
            None => self.entry("traces", "null"),
        }
    }

    fn http2(&mut self, http2: &Http2Config) {
        self.section("http2", |page| {
            page.entry("ping_interval", Text(http2.ping_interval));
            page.entry("ping_timeout", Text(http2.ping_timeout));
            page.entry("max_streams", http2.max_streams);
        });
    }

    fn tunnels(&mut self, tunnels: &ListenConfig) {
        self.section("tunnels", |page| {
            page.entry("listen", quoted(&tunnels.listen.to_string()));
            page.entry("ping_interval", Text(tunnels.ping_interval));
            page.entry("ping_misses", tunnels.ping_misses);
            page.entry("handshake_timeout", Text(tunnels.handshake_timeout));
            page.entry("first_byte_timeout", Text(tunnels.first_byte_timeout));
            page.entry("path", scalar(&tunnels.path));
            page.entry("http_upgrade", tunnels.http_upgrade);
            page.entry("tenant_isolation", tunnels.tenant_isolation);
            page.entry(
                "required_cluster",
                or_null(tunnels.required_cluster.as_ref().map(|name| name.as_str())),
            );
            page.entry("duplicates", tunnels.duplicates.label());
            page.entry("settle", Text(tunnels.settle));
            page.entry("max_pending_handshakes", tunnels.max_pending_handshakes);
            page.entry("max_pending_per_source", tunnels.max_pending_per_source);
            page.http2(&tunnels.http2);
        });
    }

    fn egress(&mut self, egress: &EgressConfig) {
        self.section("egress", |page| {
            page.entry("listen", quoted(&egress.listen.to_string()));
            page.section("host_id", |page| {
                for header in &egress.host_id {
                    let name = scalar(&header.name);
                    match header.names {
                        Names::Either => page.line(format_args!("- {name}")),
                        Names::Node => page.line(format_args!("- node: {name}")),
                        Names::Cluster => page.line(format_args!("- cluster: {name}")),
                    }
                }
            });
            page.entry("tenant", or_null(egress.tenant.as_deref()));
            page.section("routes", |page| {
                for route in &egress.routes {
                    page.item(|page| {
                        page.entry("prefix", scalar(&route.prefix));
                        page.entry("timeout", Text(route.timeout));
                        page.entry("body_idle_timeout", Text(route.body_idle_timeout));
                        page.entry("retry", route.retry);
                    });
                }
            });
            page.entry("reconnect_grace", Text(egress.reconnect_grace));
            page.entry("max_waiting", egress.max_waiting);
            page.entry("drain_delay", Text(egress.drain_delay));
        });
    }

    fn dial(&mut self, dial: &DialConfig) {
        self.section("dial", |page| {
            page.entry("timeout", Text(dial.timeout));
            page.entry("max_in_flight", dial.max_in_flight);
            page.entry("first_retry", Text(dial.first_retry));
            page.entry("refused_max", Text(dial.refused_max));
            page.entry("silent_max", Text(dial.silent_max));
            page.entry("rejected_max", Text(dial.rejected_max));
            page.entry("overlap", Text(dial.overlap));
            page.entry("stable_after", Text(dial.stable_after));
            page.entry("path", scalar(&dial.path));
            page.entry("http_upgrade", dial.http_upgrade);
            page.entry("dns_refresh", Text(dial.dns_refresh));
        });
    }

    fn liveness(&mut self, liveness: &LivenessConfig) {
        self.section("liveness", |page| {
            page.entry("first_ping", Text(liveness.first_ping));
            page.entry("intervals", liveness.intervals);
            page.http2(&liveness.http2);
        });
    }

    fn services(&mut self, services: &ServicesConfig) {
        self.section("services", |page| {
            page.entry("connect_timeout", Text(services.connect_timeout));
            page.entry("idle_timeout", Text(services.idle_timeout));
            page.entry("max_idle", services.max_idle);
        });
    }
}

fn or_null(text: Option<&str>) -> String {
    text.map_or_else(|| "null".to_owned(), scalar)
}

/// A text as YAML reads it back: in quotes unless it can be nothing but a text.
fn scalar(text: &str) -> String {
    const OTHER: [&str; 10] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan"];
    let first = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'/' | b'_' | b'-' | b'.');
    let other = OTHER.iter().any(|other| text.eq_ignore_ascii_case(other));
    if first && !other && text.bytes().all(plain) {
        text.to_owned()
    } else {
        quoted(text)
    }
}

/// A text in double quotes. JSON's escapes are among YAML's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::tree::{Tree, Value};
    use super::*;

    #[test]
    fn a_text_is_read_back_as_it_was() {
        for text in [
            "a",
            "a-b_c.d/e",
            "/",
            "true",
            "No",
            "null",
            "~",
            "12",
            "1e3",
            "0x1f",
            ".5",
            "-",
            "- a",
            "a: b",
            "a #b",
            "#",
            "",
            " ",
            "'",
            "\"",
            "\\",
            "käse",
            "\u{2028}",
            "\u{feff}a",
            "🦀",
            "{a}",
            "[",
            "*a",
            "&a",
            "!a",
            "%a",
            "@",
            "`",
            "a,b",
            "<<",
            "=",
            "2001-01-01",
            "1:30",
            "?",
            "|",
            ">",
        ] {
            for yaml in [format!("k: {}\n", scalar(text)), format!("k: {}\n", quoted(text))] {
                let Value::Mapping(entries) = Tree::parse(&yaml).unwrap().value else {
                    panic!("{yaml}")
                };
                let Value::Text(read) = &entries[0].value.value else {
                    panic!("{yaml}")
                };
                assert_eq!(read, text, "{yaml}");
            }
            let yaml = format!("{}: 1\n", scalar(text));
            let Value::Mapping(entries) = Tree::parse(&yaml).unwrap().value else {
                panic!("{yaml}")
            };
            assert_eq!(entries[0].key, text, "as a key");
        }
    }
}
