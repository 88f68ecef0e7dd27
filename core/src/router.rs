//! From a request to the tunnel key it asks for, and every way in which Eddy answers a request itself.

use std::fmt;

use crate::identity::ID_BYTES_MAX;

/// What the value of a host-id header may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// A node; if there is no such node, a cluster.
    Either,
    /// A node only.
    Node,
    /// A cluster only.
    Cluster,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteKey<'r> {
    /// The tenant, where tenants are kept apart.
    pub tenant: Option<&'r str>,
    /// What `id` may name.
    pub names: Names,
    /// The node or cluster.
    pub id: &'r str,
}

/// Where the key of a request stands in its headers.
///
/// The headers themselves stay with the runtime: `rules` are asked by position.
#[derive(Clone, Debug)]
pub struct KeyRules {
    rules: Vec<Names>,
    tenant_isolation: bool,
}

impl KeyRules {
    /// The first header present, in the order of `rules`, names the host; with `tenant_isolation` the
    /// request must name its tenant too.
    pub const fn new(rules: Vec<Names>, tenant_isolation: bool) -> Self {
        Self {
            rules,
            tenant_isolation,
        }
    }

    /// Reads the key of one request. `header(i)` is the value of the header of rule `i`.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoHostId`] or [`Refusal::NoTenant`]. An empty value counts as absent, as in Envoy.
    /// [`Refusal::HostIdTooLong`] if the host id or the tenant is longer than any id.
    pub fn key<'r>(
        &self,
        header: impl Fn(usize) -> Option<&'r str>,
        tenant: Option<&'r str>,
    ) -> Result<RouteKey<'r>, Refusal> {
        let present = |value: &&str| !value.is_empty();
        let tenant = match (self.tenant_isolation, tenant.filter(present)) {
            (false, _) => None,
            (true, Some(tenant)) => Some(tenant),
            (true, None) => return Err(Refusal::NoTenant),
        };
        let key = self.rules.iter().enumerate().find_map(|(i, names)| {
            header(i).filter(present).map(|id| RouteKey {
                tenant,
                names: *names,
                id,
            })
        });
        let key = key.ok_or(Refusal::NoHostId)?;
        if key.id.len().max(tenant.map_or(0, str::len)) > ID_BYTES_MAX {
            return Err(Refusal::HostIdTooLong);
        }
        Ok(key)
    }
}

/// Prefix routes: the longest prefix of the path wins.
#[derive(Clone, Debug)]
pub struct Prefixes<T> {
    by_length: Vec<(String, T)>,
}

impl<T> Prefixes<T> {
    /// Takes the routes in any order.
    pub fn new(routes: impl IntoIterator<Item = (String, T)>) -> Self {
        let mut by_length: Vec<_> = routes.into_iter().collect();
        by_length.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.0.cmp(&b.0)));
        Self { by_length }
    }

    /// The route for a path, without its query.
    pub fn find(&self, path: &str) -> Option<&T> {
        self.by_length
            .iter()
            .find(|(prefix, _)| path.starts_with(prefix.as_str()))
            .map(|(_, route)| route)
    }
}

/// Whether a path can be read in more than one way, so that it might pass a prefix and lead elsewhere behind it: it has a dot
/// segment (RFC 3986, section 3.3), a backslash or a control character, plain or with `%` escapes.
pub fn is_ambiguous(path: &str) -> bool {
    fn hex(digit: u8) -> Option<u8> {
        char::from(digit)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    }
    let (mut rest, mut dots, mut others) = (path.as_bytes(), 0, 0);
    loop {
        let (byte, after) = match rest {
            [] => return others == 0 && dots > 0 && dots <= 2,
            [b'%', high, low, after @ ..] => match hex(*high).zip(hex(*low)) {
                // An escaped slash is not the end of a segment.
                Some((high, low)) if high << 4 | low != b'/' => (high << 4 | low, after),
                _ => (b'%', &rest[1..]),
            },
            [byte, after @ ..] => (*byte, after),
        };
        rest = after;
        match byte {
            b'/' if others == 0 && dots > 0 && dots <= 2 => return true,
            b'/' => (dots, others) = (0, 0),
            b'.' => dots += 1,
            b'\\' | 0..=0x1f | 0x7f => return true,
            _ => others += 1,
        }
    }
}

/// Why Eddy answers a request itself. The label is the one source of the metric's name, the log field and
/// the `x-eddy-reason` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// No route has a prefix of the path.
    NoRoute,
    /// None of the host-id headers is present.
    NoHostId,
    /// Tenants are kept apart and the request names none.
    NoTenant,
    /// The host id or the tenant is longer than any id.
    HostIdTooLong,
    /// Nobody with that id has a tunnel.
    NoTunnel,
    /// Every tunnel to that id carries as many requests as it may.
    Overloaded,
    /// The process has as much memory as it may.
    MemoryLimit,
    /// The tunnel died under the request.
    TunnelLost,
    /// The initiator refused the stream before it looked at it.
    StreamRefused,
    /// The initiator ended the stream.
    StreamReset,
    /// The initiator broke HTTP/2.
    TunnelProtocol,
    /// No answer came through the tunnel in the route's time.
    TunnelTimeout,
    /// The client, or the tunnel, paused for too long in the middle of the request's body.
    BodyIdle,
    /// The service cannot be connected to.
    ServiceUnreachable,
    /// The service closed or reset the connection before it answered.
    ServiceReset,
    /// The service's answer is no HTTP.
    ServiceProtocol,
    /// The service did not answer in the route's time.
    ServiceTimeout,
    /// The request itself cannot be forwarded (no authority, a method without meaning here).
    BadRequest,
    /// The path can be read in more than one way.
    BadPath,
    /// The head of the request is too long, or has too many fields.
    HeadTooLarge,
    /// The body of the request is encoded in another way than in chunks.
    TransferEncoding,
}

impl Refusal {
    /// All of them, in the order of their labels' documentation.
    pub const ALL: [Self; 21] = [
        Self::NoRoute,
        Self::NoHostId,
        Self::NoTenant,
        Self::HostIdTooLong,
        Self::NoTunnel,
        Self::Overloaded,
        Self::MemoryLimit,
        Self::TunnelLost,
        Self::StreamRefused,
        Self::StreamReset,
        Self::TunnelProtocol,
        Self::TunnelTimeout,
        Self::BodyIdle,
        Self::ServiceUnreachable,
        Self::ServiceReset,
        Self::ServiceProtocol,
        Self::ServiceTimeout,
        Self::BadRequest,
        Self::BadPath,
        Self::HeadTooLarge,
        Self::TransferEncoding,
    ];

    /// The reason in one word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoRoute => "no_route",
            Self::NoHostId => "no_host_id",
            Self::NoTenant => "no_tenant",
            Self::HostIdTooLong => "host_id_too_long",
            Self::NoTunnel => "no_tunnel",
            Self::Overloaded => "overloaded",
            Self::MemoryLimit => "memory_limit",
            Self::TunnelLost => "tunnel_lost",
            Self::StreamRefused => "stream_refused",
            Self::StreamReset => "stream_reset",
            Self::TunnelProtocol => "tunnel_protocol",
            Self::TunnelTimeout => "tunnel_timeout",
            Self::BodyIdle => "body_idle",
            Self::ServiceUnreachable => "service_unreachable",
            Self::ServiceReset => "service_reset",
            Self::ServiceProtocol => "service_protocol",
            Self::ServiceTimeout => "service_timeout",
            Self::BadRequest => "bad_request",
            Self::BadPath => "bad_path",
            Self::HeadTooLarge => "head_too_large",
            Self::TransferEncoding => "transfer_encoding",
        }
    }

    /// The status that the client gets: where Envoy has the case, Envoy's (wire.md section 4).
    pub const fn status(self) -> u16 {
        match self {
            Self::NoHostId | Self::NoTenant | Self::HostIdTooLong | Self::BadRequest | Self::BadPath => 400,
            Self::NoRoute => 404,
            Self::BodyIdle => 408,
            Self::HeadTooLarge => 431,
            Self::TransferEncoding => 501,
            Self::TunnelProtocol | Self::ServiceProtocol => 502,
            Self::NoTunnel
            | Self::Overloaded
            | Self::MemoryLimit
            | Self::TunnelLost
            | Self::StreamRefused
            | Self::StreamReset
            | Self::ServiceUnreachable
            | Self::ServiceReset => 503,
            Self::TunnelTimeout | Self::ServiceTimeout => 504,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRoute => "no route for this path",
            Self::NoHostId => "no host id",
            Self::NoTenant => "no tenant",
            Self::HostIdTooLong => "the host id or the tenant is longer than 255 bytes",
            Self::NoTunnel => "no tunnel to the node or cluster asked for",
            Self::Overloaded => "every tunnel to it is full",
            Self::MemoryLimit => "the memory limit is reached",
            Self::TunnelLost => "the tunnel was lost before the answer",
            Self::StreamRefused => "the initiator refused the request",
            Self::StreamReset => "the initiator reset the request",
            Self::TunnelProtocol => "the initiator broke the protocol",
            Self::TunnelTimeout => "no answer through the tunnel in time",
            Self::BodyIdle => "the body of the request paused for too long",
            Self::ServiceUnreachable => "the service cannot be reached",
            Self::ServiceReset => "the service closed the connection before it answered",
            Self::ServiceProtocol => "the service's answer is not HTTP",
            Self::ServiceTimeout => "the service did not answer in time",
            Self::BadRequest => "this request cannot be forwarded",
            Self::BadPath => "a path must not have dot segments, backslashes or control characters",
            Self::HeadTooLarge => "the head of the request is larger than 48 KiB or has more than 100 fields",
            Self::TransferEncoding => "only the transfer encoding \"chunked\" is supported",
        })
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn header<'r>(values: &'r [Option<&'r str>]) -> impl Fn(usize) -> Option<&'r str> {
        |i| values[i]
    }

    #[test]
    fn the_first_header_present_names_the_host() {
        let rules = KeyRules::new(vec![Names::Either, Names::Cluster], false);
        let key = |values: &[Option<&'static str>]| rules.key(|i| values[i], None).map(|k| (k.names, k.id));
        assert_eq!(key(&[Some("n"), Some("c")]), Ok((Names::Either, "n")));
        assert_eq!(key(&[None, Some("c")]), Ok((Names::Cluster, "c")));
        assert_eq!(
            key(&[Some(""), Some("c")]),
            Ok((Names::Cluster, "c")),
            "an empty value is absent"
        );
        assert_eq!(key(&[None, None]), Err(Refusal::NoHostId));
    }

    #[test]
    fn with_isolation_a_request_must_name_its_tenant() {
        let rules = KeyRules::new(vec![Names::Either], true);
        let values = [Some("n")];
        assert_eq!(rules.key(header(&values), None), Err(Refusal::NoTenant));
        assert_eq!(rules.key(header(&values), Some("")), Err(Refusal::NoTenant));
        assert_eq!(rules.key(header(&values), Some("t")).unwrap().tenant, Some("t"));
    }

    #[test]
    fn ids_that_no_initiator_can_have_are_refused() {
        let (long, most) = ("n".repeat(256), "n".repeat(255));
        let rules = KeyRules::new(vec![Names::Either, Names::Cluster], true);
        let key = |id, tenant| {
            rules
                .key(|i| [Some(id), Some("c")][i], Some(tenant))
                .map(|key| key.id)
        };
        assert_eq!(key(&*most, &*most), Ok(&*most));
        assert_eq!(
            key(&*long, "t"),
            Err(Refusal::HostIdTooLong),
            "no other header counts"
        );
        assert_eq!(key("n", &*long), Err(Refusal::HostIdTooLong));
        let rules = KeyRules::new(vec![Names::Either], false);
        assert!(
            rules.key(|_| Some("n"), Some(&long)).is_ok(),
            "nobody reads that tenant"
        );
    }

    #[test]
    fn without_isolation_a_tenant_header_means_nothing() {
        let rules = KeyRules::new(vec![Names::Either], false);
        assert_eq!(rules.key(header(&[Some("n")]), Some("t")).unwrap().tenant, None);
    }

    #[test]
    fn the_longest_prefix_wins() {
        let routes = Prefixes::new([("/".into(), 'a'), ("/api".into(), 'b'), ("/api/v2".into(), 'c')]);
        assert_eq!(routes.find("/api/v2/x"), Some(&'c'));
        assert_eq!(
            routes.find("/apiary"),
            Some(&'b'),
            "a prefix of the text, as in Envoy"
        );
        assert_eq!(routes.find("/"), Some(&'a'));
        assert_eq!(Prefixes::new([("/api".to_owned(), 'b')]).find("/"), None);
    }

    #[test]
    fn a_path_with_two_readings_is_ambiguous() {
        for path in [
            "/shop/../admin",
            "/shop/%2e%2e/admin",
            "/shop/.%2E/admin",
            "/shop/./x",
            "/shop/..",
            "/.",
            "/shop\\..\\admin",
            "/shop%5c..%5Cadmin",
            "/shop%00",
            "/shop/a%0d%0ab",
            "/shop%7f",
        ] {
            assert!(is_ambiguous(path), "{path}");
        }
        for path in [
            "/",
            "",
            "*",
            "/shop",
            "//shop//",
            "/a..b/c.d/...",
            "/.well-known/x",
            "/..a",
            "/%2e%2e%2e",
            "/%2f",
            "/100%",
            "/%zz/%4",
            "/\u{e9}",
        ] {
            assert!(!is_ambiguous(path), "{path}");
        }
    }

    #[test]
    fn labels_are_distinct() {
        let labels: std::collections::BTreeSet<_> = Refusal::ALL.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), Refusal::ALL.len());
    }

    /// What a client sees, as one table to read.
    #[test]
    fn every_refusal_has_its_status_its_word_and_its_text() {
        let line = |r: &Refusal| format!("{} {:19} {r}\n", r.status(), r.label());
        let table: String = Refusal::ALL.iter().map(line).collect();
        insta::assert_snapshot!(table, @r#"
        404 no_route            no route for this path
        400 no_host_id          no host id
        400 no_tenant           no tenant
        400 host_id_too_long    the host id or the tenant is longer than 255 bytes
        503 no_tunnel           no tunnel to the node or cluster asked for
        503 overloaded          every tunnel to it is full
        503 memory_limit        the memory limit is reached
        503 tunnel_lost         the tunnel was lost before the answer
        503 stream_refused      the initiator refused the request
        503 stream_reset        the initiator reset the request
        502 tunnel_protocol     the initiator broke the protocol
        504 tunnel_timeout      no answer through the tunnel in time
        408 body_idle           the body of the request paused for too long
        503 service_unreachable the service cannot be reached
        503 service_reset       the service closed the connection before it answered
        502 service_protocol    the service's answer is not HTTP
        504 service_timeout     the service did not answer in time
        400 bad_request         this request cannot be forwarded
        400 bad_path            a path must not have dot segments, backslashes or control characters
        431 head_too_large      the head of the request is larger than 48 KiB or has more than 100 fields
        501 transfer_encoding   only the transfer encoding "chunked" is supported
        "#);
    }

    fn value() -> impl Strategy<Value = Option<String>> {
        option::of(select(vec!["", "n", "a:b", ":", "käse", " ", "a%3Ab"]).prop_map(str::to_owned))
    }

    proptest! {
        /// Searched from front to back: the first rule whose header has a value decides, and the value is taken as it
        /// is, whatever is in it.
        #[test]
        fn a_key_is_what_a_search_finds(
            rules in vec(select(vec![Names::Either, Names::Node, Names::Cluster]), 0..5),
            values in vec(value(), 5), tenant in value(), isolation: bool,
        ) {
            let key = KeyRules::new(rules.clone(), isolation).key(|i| values[i].as_deref(), tenant.as_deref());
            let present = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
            let found = rules.iter().zip(&values).find_map(|(names, value)| Some((*names, present(value)?)));
            match (isolation, present(&tenant), found) {
                (true, None, _) => prop_assert_eq!(key, Err(Refusal::NoTenant)),
                (_, _, None) => prop_assert_eq!(key, Err(Refusal::NoHostId)),
                (_, tenant, Some((names, id))) => {
                    let tenant = tenant.as_deref().filter(|_| isolation);
                    prop_assert_eq!(key, Ok(RouteKey { tenant, names, id: &id }));
                }
            }
        }

        /// The longest prefix wins in any order of the routes; of two equal ones the first.
        #[test]
        fn a_route_is_what_a_search_finds(prefixes in vec("(/|a|b){0,4}", 0..8), path in "(/|a|b|\\?){0,6}") {
            let routes = Prefixes::new(prefixes.iter().cloned().zip(0..));
            let fit = prefixes.iter().enumerate().filter(|(_, prefix)| path.starts_with(prefix.as_str()));
            let longest = fit.max_by_key(|(at, prefix)| (prefix.len(), std::cmp::Reverse(*at)));
            prop_assert_eq!(routes.find(&path).copied(), longest.map(|(at, _)| at));
        }
    }
}
