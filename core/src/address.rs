//! `rc://node:cluster:tenant@upstream_cluster:count`: which tunnels an initiator keeps (wire.md 7.1).

use std::fmt;

use crate::identity::{ClusterId, ClusterName, IdError, Identity, NodeId, TenantId};

pub use crate::policy::TUNNEL_COUNT_MAX as COUNT_MAX;

const SCHEME: &str = "rc://";
const FORM: &str = "rc://node:cluster:tenant@upstream_cluster:count";

/// Who an initiator is to which cluster, and how many tunnels it keeps to each of its hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunnelAddress {
    /// Who it is.
    pub identity: Identity,
    /// Whom it dials.
    pub cluster: ClusterName,
    /// How many tunnels per host.
    pub count: u32,
}

/// A part of the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The initiator's node id.
    Node,
    /// The initiator's cluster id.
    Cluster,
    /// The initiator's tenant id.
    Tenant,
    /// The cluster that it dials.
    UpstreamCluster,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Cluster => "cluster",
            Self::Tenant => "tenant",
            Self::UpstreamCluster => "upstream cluster",
        })
    }
}

/// The rule that an address breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressErrorKind {
    /// It does not begin with `rc://`, in lower case.
    Scheme,
    /// It has no `@`, or more than one.
    At {
        /// How many.
        found: usize,
    },
    /// There are not two `:` before the `@`.
    Source {
        /// How many.
        found: usize,
    },
    /// There is not one `:` behind the `@`.
    Target {
        /// How many.
        found: usize,
    },
    /// The tenant is empty, which Envoy's own addresses may be.
    EmptyTenant,
    /// A part is no identifier.
    Id {
        /// Which.
        part: Part,
        /// Why.
        why: IdError,
    },
    /// The count is no number.
    Count {
        /// What it is.
        found: String,
    },
    /// The count is above [`COUNT_MAX`].
    CountRange {
        /// What it is.
        found: u64,
    },
}

/// A text that is no tunnel address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    /// Where, in bytes from the start of the text.
    pub at: usize,
    /// What is wrong there.
    pub kind: AddressErrorKind,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at byte {}: ", self.at)?;
        match &self.kind {
            AddressErrorKind::Scheme => write!(f, "must begin with \"rc://\""),
            AddressErrorKind::At { found } => write!(f, "must have exactly one '@', has {found}"),
            AddressErrorKind::Source { found } => {
                write!(f, "must have exactly two ':' before the '@', has {found}")
            }
            AddressErrorKind::Target { found } => {
                write!(f, "must have exactly one ':' behind the '@', has {found}")
            }
            AddressErrorKind::EmptyTenant => {
                write!(
                    f,
                    "the tenant may not be empty: responders since Envoy 1.40 refuse such handshakes"
                )
            }
            AddressErrorKind::Id { part, why } => write!(f, "the {part} {why}"),
            AddressErrorKind::Count { found } => {
                write!(
                    f,
                    "the count must be a number from 0 to {COUNT_MAX}, is {found:?}"
                )
            }
            AddressErrorKind::CountRange { found } => {
                write!(f, "the count must be from 0 to {COUNT_MAX}, is {found}")
            }
        }?;
        write!(f, "; the form is {FORM}")
    }
}

impl std::error::Error for AddressError {}

impl TunnelAddress {
    /// Reads an address.
    ///
    /// # Errors
    ///
    /// [`AddressError`] says which rule of the grammar is broken, and where.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let error = |at, kind| AddressError { at, kind };
        let rest = text
            .strip_prefix(SCHEME)
            .ok_or_else(|| error(0, AddressErrorKind::Scheme))?;
        let Some(at) = rest.find('@').filter(|_| rest.matches('@').count() == 1) else {
            let second = rest
                .match_indices('@')
                .nth(1)
                .map_or(text.len(), |(i, _)| SCHEME.len() + i);
            return Err(error(
                second,
                AddressErrorKind::At {
                    found: rest.matches('@').count(),
                },
            ));
        };
        let (source, target) = (&rest[..at], &rest[at + 1..]);
        let target_at = SCHEME.len() + at + 1;
        let mut parts = source.split(':');
        let (Some(node), Some(cluster), Some(tenant), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            let found = source.matches(':').count();
            let third = source.match_indices(':').nth(2).map_or(at, |(i, _)| i);
            return Err(error(SCHEME.len() + third, AddressErrorKind::Source { found }));
        };
        let Some((upstream, count)) = target.split_once(':').filter(|(_, count)| !count.contains(':')) else {
            let second = target
                .match_indices(':')
                .nth(1)
                .map_or(text.len(), |(i, _)| target_at + i);
            return Err(error(
                second,
                AddressErrorKind::Target {
                    found: target.matches(':').count(),
                },
            ));
        };
        let node_at = SCHEME.len();
        let cluster_at = node_at + node.len() + 1;
        let tenant_at = cluster_at + cluster.len() + 1;
        if tenant.is_empty() {
            return Err(error(tenant_at, AddressErrorKind::EmptyTenant));
        }
        let identity = Identity {
            node: part(Part::Node, node_at, node, NodeId::parse)?,
            cluster: part(Part::Cluster, cluster_at, cluster, ClusterId::parse)?,
            tenant: part(Part::Tenant, tenant_at, tenant, TenantId::parse)?,
        };
        let cluster = part(Part::UpstreamCluster, target_at, upstream, ClusterName::parse)?;
        let count = parse_count(count, target_at + upstream.len() + 1)?;
        Ok(Self {
            identity,
            cluster,
            count,
        })
    }
}

impl fmt::Display for TunnelAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity {
            tenant,
            cluster,
            node,
        } = &self.identity;
        write!(
            f,
            "{SCHEME}{node}:{cluster}:{tenant}@{}:{}",
            self.cluster, self.count
        )
    }
}

fn part<T>(
    part: Part,
    at: usize,
    text: &str,
    parse: fn(&str) -> Result<T, IdError>,
) -> Result<T, AddressError> {
    parse(text).map_err(|why| {
        let within = match why {
            IdError::Character { at, .. } | IdError::Formatting { at, .. } => at,
            IdError::Empty | IdError::TooLong { .. } | IdError::OuterBlank | IdError::NotUtf8 => 0,
        };
        AddressError {
            at: at + within,
            kind: AddressErrorKind::Id { part, why },
        }
    })
}

/// Blanks around it, one `+` before it and leading zeros are tolerated, as in Envoy.
fn parse_count(text: &str, at: usize) -> Result<u32, AddressError> {
    let digits = text.trim();
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AddressError {
            at,
            kind: AddressErrorKind::Count {
                found: text.to_owned(),
            },
        });
    }
    let found = digits.parse().unwrap_or(u64::MAX);
    match u32::try_from(found) {
        Ok(count) if count <= COUNT_MAX => Ok(count),
        Ok(_) | Err(_) => Err(AddressError {
            at,
            kind: AddressErrorKind::CountRange { found },
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEED: &str = "rc://downstream-node:downstream-cluster:downstream-tenant@upstream-cluster:1";

    fn error(text: &str) -> (usize, AddressErrorKind) {
        let error = TunnelAddress::parse(text).unwrap_err();
        (error.at, error.kind)
    }

    #[test]
    fn the_seed_s_address_reads_and_writes() {
        let address = TunnelAddress::parse(SEED).unwrap();
        assert_eq!(address.identity.node.as_str(), "downstream-node");
        assert_eq!(address.identity.cluster.as_str(), "downstream-cluster");
        assert_eq!(address.identity.tenant.as_str(), "downstream-tenant");
        assert_eq!((address.cluster.as_str(), address.count), ("upstream-cluster", 1));
        assert_eq!(address.to_string(), SEED);
    }

    #[test]
    fn counts_are_read_as_envoy_reads_them() {
        let count = |text| {
            TunnelAddress::parse(&format!("rc://n:c:t@u:{text}"))
                .map(|a| a.count)
                .ok()
        };
        assert_eq!(count("0"), Some(0));
        assert_eq!(count("1024"), Some(1024));
        assert_eq!(count(" 7 "), Some(7));
        assert_eq!(count("+7"), Some(7));
        assert_eq!(count("007"), Some(7));
        for bad in ["1025", "-1", "", "x", "1.5", "++1", "99999999999999999999999"] {
            assert_eq!(count(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn each_rule_says_where_it_is_broken() {
        use AddressErrorKind as K;
        assert_eq!(error("RC://n:c:t@u:1"), (0, K::Scheme));
        assert_eq!(error("n:c:t@u:1"), (0, K::Scheme));
        assert_eq!(error("rc://n:c:t"), (10, K::At { found: 0 }));
        assert_eq!(error("rc://n:c:t@u@v:1"), (12, K::At { found: 2 }));
        assert_eq!(error("rc://n:c@u:1"), (8, K::Source { found: 1 }));
        assert_eq!(error("rc://n:c:t:x@u:1"), (10, K::Source { found: 3 }));
        assert_eq!(error("rc://n:c:t@u"), (12, K::Target { found: 0 }));
        assert_eq!(error("rc://n:c:t@u:1:2"), (14, K::Target { found: 2 }));
        assert_eq!(
            error("rc://:c:t@u:1"),
            (
                5,
                K::Id {
                    part: Part::Node,
                    why: IdError::Empty
                }
            )
        );
        assert_eq!(
            error("rc://n::t@u:1"),
            (
                7,
                K::Id {
                    part: Part::Cluster,
                    why: IdError::Empty
                }
            )
        );
        assert_eq!(error("rc://n:c:@u:1"), (9, K::EmptyTenant));
        assert_eq!(
            error("rc://n:c:t@:1"),
            (
                11,
                K::Id {
                    part: Part::UpstreamCluster,
                    why: IdError::Empty
                }
            )
        );
        let tab = IdError::Character { at: 1, found: '\t' };
        assert_eq!(
            error("rc://a\tb:c:t@u:1"),
            (
                6,
                K::Id {
                    part: Part::Node,
                    why: tab
                }
            )
        );
        let mark = IdError::Formatting {
            at: 1,
            found: '\u{200F}',
        };
        assert_eq!(
            error("rc://n:c:t@u\u{200F}:1"),
            (
                12,
                K::Id {
                    part: Part::UpstreamCluster,
                    why: mark
                }
            )
        );
        assert_eq!(error("rc://n:c:t@u:x"), (13, K::Count { found: "x".into() }));
        assert_eq!(error("rc://n:c:t@u:1025"), (13, K::CountRange { found: 1025 }));
        let long = format!("rc://{}:c:t@u:1", "x".repeat(256));
        assert_eq!(
            error(&long),
            (
                5,
                K::Id {
                    part: Part::Node,
                    why: IdError::TooLong { bytes: 256 }
                }
            )
        );
    }

    #[test]
    fn a_message_has_place_rule_and_form() {
        assert_eq!(
            TunnelAddress::parse("rc://n:c:@u:1").unwrap_err().to_string(),
            "at byte 9: the tenant may not be empty: responders since Envoy 1.40 refuse such handshakes; \
             the form is rc://node:cluster:tenant@upstream_cluster:count"
        );
    }

    #[test]
    fn every_rule_has_a_message() {
        let table: String = [
            "RC://n:c:t@u:1",
            "rc://n:c:t",
            "rc://n:c@u:1",
            "rc://n:c:t@u",
            "rc://n:c:@u:1",
            "rc://:c:t@u:1",
            "rc://n: c:t@u:1",
            "rc://n:c:t\t@u:1",
            "rc://n:c:t@:1",
            "rc://n:c:t@u:x",
            "rc://n:c:t@u:1025",
        ]
        .map(|text| {
            let message = TunnelAddress::parse(text).unwrap_err().to_string();
            let rule = message.strip_suffix(&format!("; the form is {FORM}"));
            format!("{:17} {}\n", text.escape_debug().to_string(), rule.unwrap())
        })
        .concat();
        insta::assert_snapshot!(table, @r#"
        RC://n:c:t@u:1    at byte 0: must begin with "rc://"
        rc://n:c:t        at byte 10: must have exactly one '@', has 0
        rc://n:c@u:1      at byte 8: must have exactly two ':' before the '@', has 1
        rc://n:c:t@u      at byte 12: must have exactly one ':' behind the '@', has 0
        rc://n:c:@u:1     at byte 9: the tenant may not be empty: responders since Envoy 1.40 refuse such handshakes
        rc://:c:t@u:1     at byte 5: the node is empty
        rc://n: c:t@u:1   at byte 7: the cluster begins or ends with a blank
        rc://n:c:t\t@u:1  at byte 10: the tenant has '\t' at byte 1, which cannot travel in an HTTP header
        rc://n:c:t@:1     at byte 11: the upstream cluster is empty
        rc://n:c:t@u:x    at byte 13: the count must be a number from 0 to 1024, is "x"
        rc://n:c:t@u:1025 at byte 13: the count must be from 0 to 1024, is 1025
        "#);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            node in "[!-9;-?A-~]{1,255}", cluster in "[a-zäß]{1,100}", tenant in "[a-z]{1,9}", count in 0..=COUNT_MAX,
        ) {
            let text = format!("rc://{node}:{cluster}:{tenant}@u:{count}");
            prop_assert_eq!(TunnelAddress::parse(&text).unwrap().to_string(), text);
        }

        /// The place of an error lies within the text, or right behind it.
        #[test]
        fn no_text_panics(text in "(rc://)?[a:@ 0-9+\u{e9}\t]{0,12}(@u:[0-9 +]{0,3})?") {
            match TunnelAddress::parse(&text) {
                Ok(address) => prop_assert_eq!(TunnelAddress::parse(&address.to_string()).unwrap(), address),
                Err(error) => prop_assert!(error.at <= text.len() && text.is_char_boundary(error.at)),
            }
        }
    }
}
