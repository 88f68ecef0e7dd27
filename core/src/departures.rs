//! Whose last tunnels went moments ago: a request for one of them may wait for its return instead of failing.
//!
//! The machine remembers instants and answers questions; it owns no timer. It is bounded: of too many departures
//! at once the oldest are forgotten, whose requests are then refused at once.

use std::collections::{BTreeMap, VecDeque};

use crate::identity::{ClusterId, Identity, NodeId, TenantId};
use crate::router::{Names, RouteKey};
use crate::time::Instant;

pub use crate::policy::{DEPARTURES_MAX, EXPECTED_FOR};

/// When, and the how manieth departure it was: two may be at one instant.
type Last = (Instant, u64);

/// The last departures of each node and cluster of one tenant, or of all if tenants share one space of ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Gone {
    nodes: BTreeMap<NodeId, Last>,
    clusters: BTreeMap<ClusterId, Last>,
}

/// The departures of one worker's directory.
#[derive(Clone, Debug)]
pub struct Departures {
    tenant_isolation: bool,
    shared: Gone,
    isolated: BTreeMap<TenantId, Gone>,
    order: VecDeque<(Last, Identity)>,
    serial: u64,
}

impl Departures {
    /// Nobody has gone yet.
    pub const fn new(tenant_isolation: bool) -> Self {
        Self {
            tenant_isolation,
            shared: Gone {
                nodes: BTreeMap::new(),
                clusters: BTreeMap::new(),
            },
            isolated: BTreeMap::new(),
            order: VecDeque::new(),
            serial: 0,
        }
    }

    /// A tunnel has gone, perhaps the last of its identity; it does no harm if it was not.
    pub fn on_gone(&mut self, now: Instant, identity: &Identity) {
        self.forget(now);
        let gone = if self.tenant_isolation {
            self.isolated.entry(identity.tenant.clone()).or_default()
        } else {
            &mut self.shared
        };
        self.serial += 1;
        let last = (now, self.serial);
        gone.nodes.insert(identity.node.clone(), last);
        gone.clusters.insert(identity.cluster.clone(), last);
        self.order.push_back((last, identity.clone()));
    }

    /// Whether who is asked for may be back soon.
    pub fn expects(&self, now: Instant, key: &RouteKey<'_>) -> bool {
        let gone = match key.tenant {
            _ if !self.tenant_isolation => Some(&self.shared),
            Some(tenant) => self.isolated.get(tenant),
            None => None,
        };
        let Some(gone) = gone else { return false };
        let node = gone.nodes.get(key.id);
        let cluster = gone.clusters.get(key.id);
        let at = match key.names {
            Names::Node => node,
            Names::Cluster => cluster,
            Names::Either => node.max(cluster),
        };
        at.is_some_and(|(at, _)| now - *at < EXPECTED_FOR)
    }

    /// How many departures are remembered.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    fn forget(&mut self, now: Instant) {
        while let Some(((at, _), _)) = self.order.front() {
            if now - *at < EXPECTED_FOR && self.order.len() < DEPARTURES_MAX {
                return;
            }
            let Some((last, identity)) = self.order.pop_front() else {
                return;
            };
            let gone = if self.tenant_isolation {
                self.isolated.get_mut(&identity.tenant)
            } else {
                Some(&mut self.shared)
            };
            let Some(gone) = gone else { continue };
            // It may have gone again since.
            if gone.nodes.get(&identity.node) == Some(&last) {
                gone.nodes.remove(&identity.node);
            }
            if gone.clusters.get(&identity.cluster) == Some(&last) {
                gone.clusters.remove(&identity.cluster);
            }
            if self.tenant_isolation && *gone == Gone::default() {
                self.isolated.remove(&identity.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn identity(node: &str, cluster: &str, tenant: &str) -> Identity {
        Identity {
            node: NodeId::parse(node).unwrap(),
            cluster: ClusterId::parse(cluster).unwrap(),
            tenant: TenantId::parse(tenant).unwrap(),
        }
    }

    fn key<'a>(names: Names, id: &'a str, tenant: Option<&'a str>) -> RouteKey<'a> {
        RouteKey { tenant, names, id }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn who_went_is_expected_for_ten_seconds() {
        let mut departures = Departures::new(false);
        let node = key(Names::Node, "edge", None);
        assert!(!departures.expects(at(0), &node));
        departures.on_gone(at(5), &identity("edge", "edges", "acme"));
        assert!(departures.expects(at(14), &node));
        assert!(!departures.expects(at(15), &node));
        assert!(departures.expects(at(14), &key(Names::Cluster, "edges", None)));
        assert!(departures.expects(at(14), &key(Names::Either, "edges", None)));
        assert!(!departures.expects(at(14), &key(Names::Node, "edges", None)));
        assert!(!departures.expects(at(14), &key(Names::Cluster, "edge", None)));
        assert!(!departures.expects(at(14), &key(Names::Either, "other", None)));
    }

    #[test]
    fn a_second_departure_counts_anew() {
        let mut departures = Departures::new(false);
        departures.on_gone(at(0), &identity("edge", "edges", "acme"));
        departures.on_gone(at(8), &identity("edge", "edges", "acme"));
        departures.on_gone(at(12), &identity("other", "others", "acme"));
        assert!(departures.expects(at(17), &key(Names::Node, "edge", None)));
    }

    #[test]
    fn tenants_do_not_see_each_other_s_departures() {
        let mut departures = Departures::new(true);
        departures.on_gone(at(0), &identity("edge", "edges", "acme"));
        assert!(departures.expects(at(1), &key(Names::Node, "edge", Some("acme"))));
        assert!(!departures.expects(at(1), &key(Names::Node, "edge", Some("other"))));
        assert!(!departures.expects(at(1), &key(Names::Node, "edge", None)));
        departures.on_gone(at(20), &identity("edge", "edges", "other"));
        assert_eq!(
            departures.isolated.len(),
            1,
            "nothing is left of a tenant that is forgotten"
        );
    }

    #[test]
    fn of_too_many_the_oldest_are_forgotten_and_nothing_is_left_of_them() {
        let mut departures = Departures::new(false);
        for i in 0..=DEPARTURES_MAX {
            departures.on_gone(at(0), &identity(&format!("edge-{i}"), "edges", "acme"));
        }
        assert_eq!(departures.len(), DEPARTURES_MAX);
        assert!(!departures.expects(at(1), &key(Names::Node, "edge-0", None)));
        assert!(departures.expects(at(1), &key(Names::Node, "edge-1", None)));
        departures.on_gone(at(100), &identity("last", "edges", "acme"));
        assert_eq!(departures.len(), 1);
        let gone = &departures.shared;
        assert_eq!((gone.nodes.len(), gone.clusters.len()), (1, 1));
    }

    /// Of a node's two tunnels that went at one instant, forgetting the one once forgot the other.
    #[test]
    fn two_departures_at_one_instant_are_two() {
        let mut departures = Departures::new(false);
        departures.on_gone(at(0), &identity("edge", "edges", "acme"));
        departures.on_gone(at(0), &identity("edge", "edges", "acme"));
        for i in 2..=DEPARTURES_MAX {
            departures.on_gone(at(0), &identity(&format!("edge-{i}"), "others", "acme"));
        }
        assert_eq!(departures.len(), DEPARTURES_MAX);
        assert!(departures.expects(at(1), &key(Names::Node, "edge", None)));
        assert!(departures.expects(at(1), &key(Names::Cluster, "edges", None)));
        departures.on_gone(at(0), &identity("last", "others", "acme"));
        assert!(!departures.expects(at(1), &key(Names::Node, "edge", None)));
    }

    fn name() -> impl Strategy<Value = String> {
        select(vec!["a", "b", "a:b", ":"]).prop_map(str::to_owned)
    }

    proptest! {
        /// Beside a list of all departures, searched from end to end.
        #[test]
        fn expected_is_who_went_lately(
            isolation: bool,
            history in vec((0..4_000u64, (name(), name(), name())), 0..30),
            names in select(vec![Names::Either, Names::Node, Names::Cluster]),
            id in name(), tenant in option::of(name()), later in 0..12_000u64,
        ) {
            let ms = |ms| Instant::from_origin(Duration::from_millis(ms));
            let (mut departures, mut now, mut list) = (Departures::new(isolation), 0, Vec::new());
            prop_assert!(departures.is_empty());
            for (passed, (node, cluster, tenant)) in history {
                now += passed;
                departures.on_gone(ms(now), &identity(&node, &cluster, &tenant));
                list.push((now, node, cluster, tenant));
                let lately = list.iter().filter(|(at, ..)| now - at < 10_000).count();
                prop_assert_eq!((departures.len(), departures.is_empty()), (lately, false));
            }
            now += later;
            let expected = list.iter().any(|(at, node, cluster, of)| {
                let named = match names {
                    Names::Node => id == *node,
                    Names::Cluster => id == *cluster,
                    Names::Either => id == *node || id == *cluster,
                };
                now - at < 10_000 && named && (!isolation || tenant.as_ref() == Some(of))
            });
            let key = RouteKey { tenant: tenant.as_deref(), names, id: &id };
            prop_assert_eq!(departures.expects(ms(now), &key), expected);
        }
    }
}
