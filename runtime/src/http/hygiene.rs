//! Headers that end at each hop (RFC 9110, section 7.6.1), and the few that Eddy writes.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{self, HeaderName, HeaderValue};

/// How long the other side took, in milliseconds; the name is Envoy's.
pub(crate) const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
/// Why Eddy answered a request itself.
pub(crate) const REASON: HeaderName = HeaderName::from_static("x-eddy-reason");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Headers that `Connection` cannot take away: a client that lists them there would make the next hop
/// forget where the request comes from or goes to (field-notes.md section 4).
const PROTECTED: [&str; 9] = [
    "host",
    "content-length",
    "x-forwarded-",
    "forwarded",
    "x-envoy-",
    "x-eddy-",
    "x-request-id",
    "traceparent",
    "tracestate",
];

/// Removes what concerns one hop only. `keep` and `also` are further names that `Connection` cannot take away.
pub(crate) fn strip(headers: &mut HeaderMap, keep: &[HeaderName], also: Option<&HeaderName>) {
    if headers.contains_key(header::CONNECTION) {
        strip_listed(headers, keep, also);
        headers.remove(header::CONNECTION);
    }
    headers.remove(KEEP_ALIVE);
    headers.remove(PROXY_CONNECTION);
    headers.remove(header::TRANSFER_ENCODING);
    headers.remove(header::UPGRADE);
    if headers.get_all(header::TE).iter().any(|te| te != "trailers") {
        headers.remove(header::TE);
    }
}

fn strip_listed(headers: &mut HeaderMap, keep: &[HeaderName], also: Option<&HeaderName>) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .filter(|name| *name != header::TE && !keep.contains(name) && also != Some(name))
        .filter(|name| !PROTECTED.iter().any(|p| name.as_str().starts_with(p)))
        .collect();
    for name in listed {
        headers.remove(name);
    }
}

/// Whether a header is there under a name that services may take for a protected one: many read `_` as `-`. `keys` and `tenant`
/// are protected, too.
pub(crate) fn has_misspelt_name(
    headers: &HeaderMap,
    keys: &[HeaderName],
    tenant: Option<&HeaderName>,
) -> bool {
    headers
        .keys()
        .filter(|name| name.as_str().contains('_'))
        .filter(|name| !keys.contains(name) && tenant != Some(name))
        .any(|name| {
            let meant = name.as_str().replace('_', "-");
            let routes = keys.iter().chain(tenant);
            PROTECTED.iter().any(|protected| meant.starts_with(protected))
                || routes
                    .map(|route| route.as_str().replace('_', "-"))
                    .any(|route| route == meant)
        })
}

/// Names that mean something else in a trailer than in a head: framing, routing, authentication, and what says where a
/// request comes from (RFC 9110, section 6.5.1). A name that ends with `-` stands for all that begin with it.
const NOT_IN_TRAILERS: [&str; 27] = [
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "max-forwards",
    "proxy-",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "www-authenticate",
    "x-eddy-",
    "x-envoy-",
    "x-forwarded-",
    "x-real-ip",
    "x-request-id",
];

/// Removes the fields that may not stand in trailers.
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    let is_forbidden = |name: &str| {
        NOT_IN_TRAILERS
            .iter()
            .any(|forbidden| name == *forbidden || forbidden.ends_with('-') && name.starts_with(forbidden))
    };
    let forbidden: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| is_forbidden(name.as_str()))
        .cloned()
        .collect();
    for name in forbidden {
        trailers.remove(name);
    }
}

/// Says in an answer how long it took.
pub(crate) fn put_service_time(headers: &mut HeaderMap, took: Duration) {
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    headers.insert(SERVICE_TIME, HeaderValue::from(millis));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stripped(pairs: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        strip(&mut headers, &[HeaderName::from_static("x-node-id")], None);
        headers
            .iter()
            .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()))
            .collect()
    }

    #[test]
    fn what_concerns_one_hop_ends_there() {
        let left = stripped(&[
            ("connection", "close, x-mine"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "gzip"),
            ("x-mine", "1"),
            ("accept", "*/*"),
        ]);
        assert_eq!(left, ["accept: */*"]);
    }

    #[test]
    fn trailers_may_pass() {
        let left = stripped(&[("connection", "te"), ("te", "trailers"), ("trailer", "x-sum")]);
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[test]
    fn trailers_keep_what_means_the_same_there() {
        let mut trailers = HeaderMap::new();
        for name in [
            "grpc-status",
            "transfer-encoding",
            "x-forwarded-for",
            "proxy-status",
            "teapot",
        ] {
            trailers.insert(name, HeaderValue::from_static("1"));
        }
        strip_trailers(&mut trailers);
        let left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["grpc-status", "teapot"]);
    }

    #[test]
    fn an_underscore_does_not_make_another_name() {
        let keys = ["x-node-id", "x_odd"].map(HeaderName::from_static);
        let tenant = HeaderName::from_static("x-tenant-id");
        let is_misspelt = |name: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static("1"));
            has_misspelt_name(&headers, &keys, Some(&tenant))
        };
        for name in [
            "x_node_id",
            "x-node_id",
            "x_tenant_id",
            "x_forwarded_for",
            "content_length",
        ] {
            assert!(is_misspelt(name), "{name}");
        }
        for name in ["x-node-id", "x_odd", "my_header", "x-forwarded-for"] {
            assert!(!is_misspelt(name), "{name}");
        }
    }

    #[test]
    fn connection_cannot_take_away_what_others_rely_on() {
        let left = stripped(&[
            ("connection", "X-Forwarded-For, Host, x-node-id, x-envoy-internal"),
            ("host", "h"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-node-id", "n"),
            ("x-envoy-internal", "true"),
        ]);
        assert_eq!(left.len(), 4);
    }
}
