//! The notations of texts: addresses, paths, header names, ids. Each function parses one of them.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use eddy_core::duplicates::Policy;
use eddy_core::policy::{HOST_BYTES_MAX, PATH_BYTES_MAX};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::section::{self, Key};
use super::{HostPort, LogFormat, Protocol};

/// The id that `parse` accepts.
pub(crate) fn id<T, E: Display>(parse: fn(&str) -> Result<T, E>) -> impl Fn(&str) -> Result<T, String> {
    move |text| parse(text).map_err(|rule| format!("{text:?} {rule}"))
}

fn check(text: &str, is_valid: bool, what: &str, rule: &str) -> Result<String, String> {
    if is_valid {
        Ok(text.to_owned())
    } else {
        Err(invalid(what, text, rule))
    }
}

fn invalid(what: &str, found: &str, rule: &str) -> String {
    format!("invalid {what} {found:?}: {rule}")
}

fn unknown(what: &str, found: &str, allowed: &str) -> String {
    format!("unknown {what} {found:?}; allowed: {allowed}")
}

fn is_host_name(text: &str) -> bool {
    let named = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= HOST_BYTES_MAX && text.bytes().all(named)
}

/// The name of a machine.
pub(crate) fn host_name(text: &str) -> Result<String, String> {
    let is_lower = !text.bytes().any(|c| c.is_ascii_uppercase());
    let rule = "expected a name in lower case, without a port";
    check(text, is_host_name(text) && is_lower, "host name", rule)
}

/// The address in `[IPV6]`.
fn in_brackets(text: &str) -> Option<Result<Ipv6Addr, std::net::AddrParseError>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    Some(inner.parse())
}

/// An IP address and a port.
pub(crate) fn listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let rule = if text.starts_with(':') {
            "missing IP address; expected 127.0.0.1:PORT, or 0.0.0.0:PORT for all interfaces"
        } else if text.parse::<IpAddr>().is_ok() {
            "missing port; expected IP:PORT, such as 127.0.0.1:8889 or [::1]:8889"
        } else {
            "expected IP:PORT, such as 127.0.0.1:8889 or [::1]:8889"
        };
        invalid("listen address", text, rule)
    })
}

/// An address for people on this machine: `:PORT` alone is on the loopback address.
pub(crate) fn loopback_listen(text: &str) -> Result<SocketAddr, String> {
    match text.strip_prefix(':').and_then(|port| port.parse().ok()) {
        Some(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        None => listen(text),
    }
}

/// A host and a port to connect to.
pub(crate) fn host_port(text: &str) -> Result<HostPort, String> {
    let parse = || {
        let (host, port) = text.rsplit_once(':')?;
        let is_decimal = port.bytes().all(|c| c.is_ascii_digit());
        let port = port.parse().ok().filter(|&port| is_decimal && port != 0)?;
        let host = match in_brackets(host) {
            Some(ip) => ip.ok()?.to_string(),
            None => is_host_name(host).then(|| host.to_owned())?,
        };
        Some(HostPort { host, port })
    };
    let rule = "expected NAME:PORT, IPV4:PORT or [IPV6]:PORT, with a port from 1 to 65535";
    parse().ok_or_else(|| invalid("host", text, rule))
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        section::text(host_port).read(deserializer)
    }
}

impl Serialize for HostPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A path or the beginning of one, without a query or anything that needs an escape.
pub(crate) fn path(text: &str) -> Result<String, String> {
    let allowed = |c: u8| c.is_ascii_graphic() && !matches!(c, b'?' | b'#');
    let longest = format!("a path has at most {PATH_BYTES_MAX} bytes");
    check(text, text.starts_with('/'), "path", "a path begins with /")?;
    check(text, text.len() <= PATH_BYTES_MAX, "path", &longest)?;
    check(
        text,
        text.bytes().all(allowed),
        "path",
        "blanks, ?, # and non-ASCII characters are not allowed",
    )
}

/// A header name (RFC 9110 section 5.1) in lower case, as on an HTTP/2 stream (RFC 9113 section 8.2.1).
pub(crate) fn header(text: &str) -> Result<String, String> {
    let token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    let is_lower = !text.bytes().any(|c| c.is_ascii_uppercase());
    check(text, is_lower, "header name", "expected lower case")?;
    check(
        text,
        !text.is_empty() && text.bytes().all(token),
        "header name",
        "letters, digits and - are allowed",
    )
}

/// The first part of the names of stats.
pub(crate) fn stats_prefix(text: &str) -> Result<String, String> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.');
    let is_valid = !text.is_empty() && text.bytes().all(allowed);
    check(
        text,
        is_valid,
        "prefix",
        "expected one or more of A-Z, a-z, 0-9, _ and .",
    )
}

/// The protocol of a service.
pub(crate) fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "h1" => Ok(Protocol::H1),
        "h2" => Ok(Protocol::H2),
        _ => Err(unknown("protocol", text, "h1, h2")),
    }
}

/// The treatment of several processes under one node id.
pub(crate) fn duplicates(text: &str) -> Result<Policy, String> {
    match text {
        "pool" => Ok(Policy::Pool),
        "supersede" => Ok(Policy::Supersede),
        "reject" => Ok(Policy::Reject),
        _ => Err(unknown("policy", text, "pool, supersede, reject")),
    }
}

/// The format of the log.
pub(crate) fn log_format(text: &str) -> Result<LogFormat, String> {
    LogFormat::named(text).ok_or_else(|| unknown("format", text, "text, json"))
}

/// Levels, as in `--log`.
pub(crate) fn log_filter(text: &str) -> Result<String, String> {
    let rule = "allowed: error, warn, info, debug, trace, off, or MODULE=LEVEL, with commas between";
    check(text, text.split(',').all(is_directive), "filter", rule)
}

/// A level, a module, or both; what it accepts is accepted by `tracing_subscriber::filter::Targets` (tests/config.rs).
fn is_directive(text: &str) -> bool {
    const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];
    let is_level = |text: &str| LEVELS.iter().any(|level| text.eq_ignore_ascii_case(level));
    let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b':' | b'-' | b'.');
    let is_module = |text: &str| !text.is_empty() && text.bytes().all(allowed);
    match text.split_once('=') {
        Some((module, level)) => is_module(module) && is_level(level),
        None => is_module(text),
    }
}

/// A file to write to.
pub(crate) fn file(text: &str) -> Result<String, String> {
    let is_valid = !text.is_empty() && !text.contains('\0');
    check(
        text,
        is_valid,
        "file",
        "expected a path, or - for standard output",
    )
}

/// The address of a collector; without a path, the usual one is appended.
pub(crate) fn collector(text: &str) -> Result<String, String> {
    let parse = || {
        let rest = text.strip_prefix("http://")?;
        let (authority, at) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = match authority.rsplit_once(':').filter(|_| !authority.ends_with(']')) {
            Some((host, port)) => port.parse::<u16>().ok().map(|_| host)?,
            None => authority,
        };
        let is_host = in_brackets(host).map_or_else(|| is_host_name(host), |ip| ip.is_ok());
        (is_host && (at.is_empty() || path(at).is_ok())).then_some(at)
    };
    match parse() {
        Some("" | "/") => Ok(format!("{}/v1/traces", text.trim_end_matches('/'))),
        Some(_) => Ok(text.to_owned()),
        None => Err(invalid(
            "collector address",
            text,
            "expected http://HOST:PORT or http://HOST:PORT/PATH",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            "[x:1",
            "a b:1",
            "http://a:1",
        ] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_collector_has_a_host_and_no_secret() {
        for (text, address) in [
            ("http://c:4318", "http://c:4318/v1/traces"),
            ("http://c", "http://c/v1/traces"),
            ("http://c:4318/", "http://c:4318/v1/traces"),
            ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
            ("http://[::1]/x", "http://[::1]/x"),
            ("http://c:1/a/b", "http://c:1/a/b"),
        ] {
            assert_eq!(collector(text).as_deref(), Ok(address));
        }
        for bad in [
            "",
            "c:1",
            "https://c:1",
            "http://",
            "http://u:p@c:1",
            "http://c:x",
            "http://c:1/a?b",
            "http://[x]:1",
        ] {
            assert!(collector(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_header_name_is_a_token_in_lower_case() {
        for good in ["x-node", "a", "x_1.~"] {
            assert!(header(good).is_ok(), "{good}");
        }
        for bad in ["", "X", "x node", "x:", "é"] {
            assert!(header(bad).is_err(), "{bad}");
        }
    }
}
