//! The notations of texts: addresses, paths, header names, ids. Each function parses one of them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use eddy_core::address::TunnelAddress;
use eddy_core::duplicates::Policy;
use eddy_core::identity::{ClusterId, ClusterName, NodeId};
use eddy_core::policy::{HOST_BYTES_MAX, PATH_BYTES_MAX};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde::ser::{Serialize, Serializer};

use super::{HostPort, LogFormat, Protocol};

/// A type with a notation of its own.
pub(crate) trait Text: Sized {
    fn parse(text: &str) -> Result<Self, String>;
    fn write(&self) -> String;
}

/// Reads a type with a notation; with [`serialize`], for `#[serde(with = "text")]`.
pub(crate) fn deserialize<'de, T: Text, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
    read_as(deserializer, "text", T::parse)
}

/// Writes a type with a notation.
pub(crate) fn serialize<T: Text, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.write())
}

/// Reads a text that `parse` accepts; `wanted` describes it where the value is not a text.
pub(crate) fn read_as<'de, T, D: Deserializer<'de>>(
    deserializer: D,
    wanted: &'static str,
    parse: fn(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(TextVisitor { wanted, parse })
}

struct TextVisitor<T> {
    wanted: &'static str,
    parse: fn(&str) -> Result<T, String>,
}

impl<T> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(E::custom)
    }
}

/// A wrapper that gives a type with a notation to generic containers.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct As<T>(pub(crate) T);

impl<'de, T: Text> Deserialize<'de> for As<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserialize(deserializer).map(Self)
    }
}

/// A key that may be absent or `null`.
pub(crate) mod optional {
    use super::*;

    pub(crate) fn deserialize<'de, T: Text, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        Ok(Option::<As<T>>::deserialize(deserializer)?.map(|value| value.0))
    }

    pub(crate) fn serialize<T: Text, S: Serializer>(
        value: &Option<T>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(Text::write).serialize(serializer)
    }
}

macro_rules! notations {
    ($($kind:ty: $parse:expr, $write:expr;)*) => {$(
        impl Text for $kind {
            fn parse(text: &str) -> Result<Self, String> {
                $parse(text)
            }

            fn write(&self) -> String {
                $write(self)
            }
        }
    )*};
}

notations! {
    NodeId: |text| Self::parse(text).map_err(|rule| format!("{text:?} {rule}")), ToString::to_string;
    ClusterId: |text| Self::parse(text).map_err(|rule| format!("{text:?} {rule}")), ToString::to_string;
    ClusterName: |text| Self::parse(text).map_err(|rule| format!("{text:?} {rule}")), ToString::to_string;
    TunnelAddress: |text| Self::parse(text).map_err(|rule| format!("{text:?}: {rule}")), ToString::to_string;
    HostPort: host_port, ToString::to_string;
    LogFormat: |text| Self::named(text).ok_or_else(|| unknown("format", text, "text, json")), |it: &Self| it.label().to_owned();
    Protocol: protocol, |it: &Self| it.label().to_owned();
    Policy: duplicates, |it: &Self| it.label().to_owned();
    Header: |text| parse_header(text).map(Self), |it: &Self| it.0.clone();
}

macro_rules! by_notation {
    ($($kind:ty)*) => {$(
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserialize(deserializer)
            }
        }

        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serialize(self, serializer)
            }
        }
    )*};
}

by_notation! { HostPort LogFormat Protocol Header }

/// The name of a header, as it is written on an HTTP/2 stream.
pub(crate) struct Header(pub(crate) String);

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $kind:ty = $parse:expr;)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$kind, D::Error> {
            read_as(deserializer, "text", $parse)
        }
    )*};
}

fields! {
    /// An IP address and a port.
    listen: SocketAddr = parse_listen;
    /// An address for people on this machine: `:PORT` alone is on the loopback address.
    loopback_listen: SocketAddr = |text| match text.strip_prefix(':').and_then(|port| port.parse().ok()) {
        Some(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        None => parse_listen(text),
    };
    /// A path or the beginning of one, without a query or anything that needs an escape.
    path: String = parse_path;
    /// The first part of the names of stats.
    stats_prefix: String = |text| {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.');
        check(text, !text.is_empty() && text.bytes().all(allowed), "prefix", "expected one or more of A-Z, a-z, 0-9, _ and .")
    };
    /// Levels, as in `--log`.
    log_filter: String = |text| {
        let rule = "allowed: error, warn, info, debug, trace, off, or MODULE=LEVEL, with commas between";
        check(text, text.split(',').all(is_directive), "filter", rule)
    };
    /// The address of a collector; without a path, the usual one is appended.
    collector: String = parse_collector;
    /// A file to write to.
    file: String = |text| {
        check(text, !text.is_empty() && !text.contains('\0'), "file", "expected a path, or - for standard output")
    };
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

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
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

/// A host and a port to connect to.
fn host_port(text: &str) -> Result<HostPort, String> {
    let parse = || {
        let (host, port) = text.rsplit_once(':')?;
        let is_decimal = port.bytes().all(|c| c.is_ascii_digit());
        let port = port.parse().ok().filter(|&port| is_decimal && port != 0)?;
        let named = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        let is_name = !host.is_empty() && host.len() <= HOST_BYTES_MAX && host.bytes().all(named);
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(ip) => ip.parse::<Ipv6Addr>().ok()?.to_string(),
            None => is_name.then(|| host.to_owned())?,
        };
        Some(HostPort { host, port })
    };
    parse().ok_or_else(|| {
        let rule = "expected NAME:PORT, IPV4:PORT or [IPV6]:PORT, with a port from 1 to 65535";
        invalid("host", text, rule)
    })
}

fn parse_path(text: &str) -> Result<String, String> {
    let allowed = |c: u8| c.is_ascii_graphic() && !matches!(c, b'?' | b'#');
    if !text.starts_with('/') {
        return Err(invalid("path", text, "a path begins with /"));
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(invalid(
            "path",
            text,
            &format!("a path has at most {PATH_BYTES_MAX} bytes"),
        ));
    }
    check(
        text,
        text.bytes().all(allowed),
        "path",
        "blanks, ?, # and non-ASCII characters are not allowed",
    )
}

/// Parses a header name of RFC 9110 section 5.1 in lower case (RFC 9113 section 8.2.1).
pub(crate) fn parse_header(text: &str) -> Result<String, String> {
    let token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    let is_lower = !text.bytes().any(|c| c.is_ascii_uppercase());
    let rule = if is_lower {
        "letters, digits and - are allowed"
    } else {
        "expected lower case"
    };
    let is_valid = is_lower && !text.is_empty() && text.bytes().all(token);
    check(text, is_valid, "header name", rule)
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "h1" => Ok(Protocol::H1),
        "h2" => Ok(Protocol::H2),
        _ => Err(unknown("protocol", text, "h1, h2")),
    }
}

fn duplicates(text: &str) -> Result<Policy, String> {
    match text {
        "pool" => Ok(Policy::Pool),
        "supersede" => Ok(Policy::Supersede),
        "reject" => Ok(Policy::Reject),
        _ => Err(unknown("policy", text, "pool, supersede, reject")),
    }
}

/// A level, a module, or both; what it accepts is accepted by `tracing_subscriber::filter::Targets` (tests/config.rs).
fn is_directive(text: &str) -> bool {
    const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace", "off"];
    let is_level = |text: &str| LEVELS.iter().any(|level| text.eq_ignore_ascii_case(level));
    let is_module = |text: &str| {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b':' | b'-' | b'.');
        !text.is_empty() && text.bytes().all(allowed)
    };
    match text.split_once('=') {
        Some((module, level)) => is_module(module) && is_level(level),
        None => is_level(text) || is_module(text),
    }
}

fn parse_collector(text: &str) -> Result<String, String> {
    let parse = || {
        let rest = text.strip_prefix("http://")?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host_only = host.rsplit_once(':').filter(|_| !host.ends_with(']'));
        let host_only =
            host_only.map_or(Some(host), |(name, port)| port.parse::<u16>().ok().map(|_| name))?;
        let named = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        let in_brackets = host_only.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
        let is_host = match in_brackets {
            Some(ip) => ip.parse::<Ipv6Addr>().is_ok(),
            None => !host_only.is_empty() && host_only.bytes().all(named),
        };
        let is_path = path.is_empty() || parse_path(path).is_ok();
        (is_host && is_path).then_some(path)
    };
    match parse() {
        Some("" | "/") => Ok(format!("{}/v1/traces", text.trim_end_matches('/'))),
        Some(_) => Ok(text.to_owned()),
        None => {
            let rule = "expected http://HOST:PORT or http://HOST:PORT/PATH";
            Err(invalid("collector address", text, rule))
        }
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
            assert_eq!(parse_collector(text).as_deref(), Ok(address));
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
            assert!(parse_collector(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_header_name_is_a_token_in_lower_case() {
        for good in ["x-node", "a", "x_1.~"] {
            assert!(parse_header(good).is_ok(), "{good}");
        }
        for bad in ["", "X", "x node", "x:", "é"] {
            assert!(parse_header(bad).is_err(), "{bad}");
        }
    }
}
