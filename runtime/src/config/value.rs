//! The forms that texts have: durations, addresses, paths, header names. Each function is one form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use eddy_core::address::TunnelAddress;
use eddy_core::duplicates::Policy;
use eddy_core::identity::{ClusterId, ClusterName, NodeId, TenantId};
use eddy_core::policy::{HOST_BYTES_MAX, PATH_BYTES_MAX};
use hyper::header::HeaderName;

use super::error::Problem;
use super::shared::LogFormat;
use super::{HostPort, Protocol};

fn form<T>(found: &str, rule: &'static str) -> Result<T, Problem> {
    Err(Problem::Form {
        found: found.to_owned(),
        rule,
    })
}

/// A duration as it is written in a configuration, in the largest unit that it is a whole number of.
pub(super) struct Text(pub(super) Duration);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        if !ms.is_multiple_of(1000) {
            return write!(f, "{ms}ms");
        }
        match ms / 1000 {
            0 => f.write_str("0s"),
            s if s % 3600 == 0 => write!(f, "{}h", s / 3600),
            s if s % 60 == 0 => write!(f, "{}m", s / 60),
            s => write!(f, "{s}s"),
        }
    }
}

/// A whole number and a unit: `250ms`, `2s`, `1m`, `1h`.
///
/// # Errors
///
/// It is none, or too long to count.
pub fn duration(text: &str) -> Result<Duration, Problem> {
    const RULE: &str = "is no duration; write a whole number and its unit: 250ms, 2s, 1m, 1h";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return form(text, RULE),
    };
    match number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(ms))
    {
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => form(text, RULE),
    }
}

/// An IP address and a port to listen on.
pub(super) fn listen(text: &str) -> Result<SocketAddr, Problem> {
    if let Ok(addr) = text.parse() {
        return Ok(addr);
    }
    if text.starts_with(':') {
        return form(
            text,
            "names no IP address; write 127.0.0.1:PORT, or 0.0.0.0:PORT for all interfaces",
        );
    }
    if text.parse::<IpAddr>().is_ok() {
        return form(
            text,
            "names no port; write IP:PORT, such as 127.0.0.1:8889 or [::1]:8889",
        );
    }
    form(
        text,
        "is no address to listen on; write IP:PORT, such as 127.0.0.1:8889 or [::1]:8889",
    )
}

/// An address for people of this machine: `:PORT` alone is the loopback address.
pub(super) fn loopback_listen(text: &str) -> Result<SocketAddr, Problem> {
    match text.strip_prefix(':').and_then(|port| port.parse().ok()) {
        Some(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        None => listen(text),
    }
}

/// A host and a port to connect to.
pub(super) fn host_port(text: &str) -> Result<HostPort, Problem> {
    const RULE: &str = "is no host; write NAME:PORT, IPV4:PORT or [IPV6]:PORT, with a port from 1 to 65535";
    let Some((host, port)) = text.rsplit_once(':') else {
        return form(text, RULE);
    };
    let Some(port) = decimal(port).filter(|&port| port != 0) else {
        return form(text, RULE);
    };
    if let Some(inner) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let Ok(ip) = inner.parse::<Ipv6Addr>() else {
            return form(text, RULE);
        };
        return Ok(HostPort {
            host: ip.to_string(),
            port,
        });
    }
    let named = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.bytes().all(named) {
        return form(text, RULE);
    }
    Ok(HostPort {
        host: host.to_owned(),
        port,
    })
}

fn decimal(text: &str) -> Option<u16> {
    if !text.bytes().all(|c| c.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// A path, or the beginning of one: no query, nothing that would need an escape.
pub(super) fn path(text: &str) -> Result<String, Problem> {
    if !text.starts_with('/') {
        return form(text, "is no path; it must begin with /");
    }
    if text.len() > PATH_BYTES_MAX {
        return form(text, "is too long; a path has at most 255 bytes");
    }
    if !text
        .bytes()
        .all(|c| c.is_ascii_graphic() && !matches!(c, b'?' | b'#'))
    {
        return form(
            text,
            "is no path; blanks, ?, # and what is not ASCII are not allowed",
        );
    }
    Ok(text.to_owned())
}

/// The name of a header, as it is written on an HTTP/2 stream.
pub(super) fn header(text: &str) -> Result<String, Problem> {
    if HeaderName::from_lowercase(text.as_bytes()).is_ok() {
        return Ok(text.to_owned());
    }
    if text.bytes().any(|c| c.is_ascii_uppercase()) {
        return form(text, "is no header name; write it in lower case");
    }
    form(text, "is no header name; letters, digits and - are allowed")
}

/// The first part of the name of each of a process's stats.
pub(super) fn stats_prefix(text: &str) -> Result<String, Problem> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.');
    if text.is_empty() || !text.bytes().all(allowed) {
        return form(
            text,
            "is no prefix; it needs one or more of A-Z, a-z, 0-9, _ and .",
        );
    }
    Ok(text.to_owned())
}

/// Which HTTP a service speaks.
pub(super) fn protocol(text: &str) -> Result<Protocol, Problem> {
    match text {
        "h1" => Ok(Protocol::H1),
        "h2" => Ok(Protocol::H2),
        _ => form(text, "is no protocol; allowed: h1, h2"),
    }
}

/// What is logged, as `--log` says it.
pub(super) fn log_filter(text: &str) -> Result<String, Problem> {
    match text.parse::<tracing_subscriber::filter::Targets>() {
        Ok(_) if !text.is_empty() => Ok(text.to_owned()),
        Ok(_) | Err(_) => form(
            text,
            "is no filter; allowed: error, warn, info, debug, trace, off, or MODULE=LEVEL, with commas between",
        ),
    }
}

/// How lines of the log are written.
pub(super) fn log_format(text: &str) -> Result<LogFormat, Problem> {
    LogFormat::named(text).map_or_else(|| form(text, "is no format; allowed: text, json"), Ok)
}

/// The address of a collector of spans; without a path, the one that collectors have by default.
pub(super) fn collector(text: &str) -> Result<String, Problem> {
    let uri = text.parse::<hyper::Uri>().ok();
    let has_password = text.contains('@');
    let fits = |uri: &hyper::Uri| uri.scheme_str() == Some("http") && uri.query().is_none() && !has_password;
    let Some(uri) = uri.filter(fits) else {
        return form(
            text,
            "is no address of a collector; give http://HOST:PORT or http://HOST:PORT/PATH",
        );
    };
    Ok(if uri.path() == "/" {
        format!("{}/v1/traces", text.trim_end_matches('/'))
    } else {
        text.to_owned()
    })
}

/// A file to write to.
pub(super) fn file(text: &str) -> Result<String, Problem> {
    if text.is_empty() || text.contains('\0') {
        return form(text, "is no file; give a path, or - for standard output");
    }
    Ok(text.to_owned())
}

/// What becomes of several processes under one node id.
pub(super) fn duplicates(text: &str) -> Result<Policy, Problem> {
    match text {
        "pool" => Ok(Policy::Pool),
        "supersede" => Ok(Policy::Supersede),
        "reject" => Ok(Policy::Reject),
        _ => form(text, "is no policy; allowed: pool, supersede, reject"),
    }
}

/// The id of a node.
///
/// # Errors
///
/// Those of [`NodeId::parse`].
pub fn node_id(text: &str) -> Result<NodeId, Problem> {
    NodeId::parse(text).map_err(|source| Problem::Id {
        found: text.to_owned(),
        source,
    })
}

/// The id of a cluster.
///
/// # Errors
///
/// Those of [`ClusterId::parse`].
pub fn cluster_id(text: &str) -> Result<ClusterId, Problem> {
    ClusterId::parse(text).map_err(|source| Problem::Id {
        found: text.to_owned(),
        source,
    })
}

/// The id of a tenant.
///
/// # Errors
///
/// Those of [`TenantId::parse`].
pub fn tenant_id(text: &str) -> Result<TenantId, Problem> {
    TenantId::parse(text).map_err(|source| Problem::Id {
        found: text.to_owned(),
        source,
    })
}

pub(super) fn cluster_name(text: &str) -> Result<ClusterName, Problem> {
    ClusterName::parse(text).map_err(|source| Problem::Id {
        found: text.to_owned(),
        source,
    })
}

pub(super) fn address(text: &str) -> Result<TunnelAddress, Problem> {
    TunnelAddress::parse(text).map_err(|source| Problem::Address {
        found: text.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_a_unit_and_is_written_back_in_the_largest() {
        for (text, ms, back) in [
            ("0s", 0, "0s"),
            ("0ms", 0, "0s"),
            ("250ms", 250, "250ms"),
            ("1500ms", 1500, "1500ms"),
            ("2000ms", 2000, "2s"),
            ("90s", 90_000, "90s"),
            ("60s", 60_000, "1m"),
            ("60m", 3_600_000, "1h"),
        ] {
            assert_eq!(duration(text).unwrap(), Duration::from_millis(ms), "{text}");
            assert_eq!(Text(Duration::from_millis(ms)).to_string(), back);
        }
        for bad in [
            "",
            "s",
            "2",
            "2 s",
            "-2s",
            "1.5s",
            "2S",
            "2sec",
            "99999999999999999999s",
            "9999999999999999h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_ip_address_and_a_port() {
        for (text, host, port) in [
            ("127.0.0.1:80", "127.0.0.1", 80),
            ("[::1]:65535", "::1", 65535),
            ("a_b.example-1.com:1", "a_b.example-1.com", 1),
        ] {
            let parsed = host_port(text).unwrap();
            assert_eq!((parsed.host.as_str(), parsed.port), (host, port));
            assert_eq!(parsed.to_string(), text);
        }
        for bad in [
            "",
            "a",
            "a:",
            ":80",
            "a:0",
            "a:65536",
            "a:+1",
            "::1:80",
            "[::1]",
            "[x]:1",
            "a b:1",
            "http://a:1",
        ] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }
}
