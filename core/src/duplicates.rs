//! Several tunnels of one node: which are spares of one process, which are left over from before, and which are another
//! process's that took the same id.
//!
//! The machine of one worker knows all live tunnels, as the workers tell each other, and says which of them must go. Of two
//! tunnels the one that opened earlier is the older, whoever hears of which first: all workers say the same.

use std::collections::{BTreeMap, VecDeque};

use crate::identity::{Identity, NodeId, TenantId, TunnelId};
use crate::instance::Instance;
use crate::time::Instant;

pub use crate::policy::SUPERSEDED_MAX;

/// What becomes of tunnels from several processes under one node id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// They share the requests, as in Envoy.
    #[default]
    Pool,
    /// The process whose tunnel opened last has them all; the tunnels of others are let go.
    Supersede,
    /// Who is there keeps them; others are refused.
    Reject,
}

impl Policy {
    /// The policy in one word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Supersede => "supersede",
            Self::Reject => "reject",
        }
    }
}

/// Why a tunnel must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Superseded {
    /// Its initiator has dialed again for the same place: it has given this one up.
    GivenUp,
    /// Another process has its node id.
    Replaced,
}

/// What the opening of a tunnel means for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opening {
    /// Tunnels that must go; the new one may be among them, if it is news of long ago.
    pub superseded: Vec<(TunnelId, Superseded)>,
    /// Another process has a tunnel under the same node id.
    pub is_duplicate: bool,
}

type NodeKey = (TenantId, NodeId);

#[derive(Clone, Copy, Debug)]
struct Presence {
    tunnel: TunnelId,
    instance: Option<Instance>,
    opened: Instant,
}

/// One node id that somebody has.
#[derive(Clone, Debug, Default)]
struct Node {
    there: Vec<Presence>,
    /// The processes that were superseded, by their nonces, the last [`SUPERSEDED_MAX`] of them. Who is told to go dials again:
    /// to let it in would make two processes throw each other out for ever.
    superseded: VecDeque<u64>,
}

/// The live tunnels of all workers, by node.
#[derive(Clone, Debug, Default)]
pub struct Duplicates {
    policy: Policy,
    nodes: BTreeMap<NodeKey, Node>,
    keys: BTreeMap<TunnelId, NodeKey>,
}

impl Duplicates {
    /// Nobody is there yet.
    pub const fn new(policy: Policy) -> Self {
        Self {
            policy,
            nodes: BTreeMap::new(),
            keys: BTreeMap::new(),
        }
    }

    /// Whether a handshake is refused: somebody else is there.
    pub fn refuses(&self, identity: &Identity, instance: Option<Instance>) -> bool {
        let Some(node) = self.nodes.get(&key(identity)) else {
            return false;
        };
        match self.policy {
            Policy::Pool => false,
            Policy::Supersede => instance.is_some_and(|instance| node.superseded.contains(&instance.nonce)),
            Policy::Reject => node.has_another(instance),
        }
    }

    /// A tunnel has opened, here or on another worker. Telling it again has no effect.
    pub fn on_opened(
        &mut self,
        tunnel: TunnelId,
        identity: &Identity,
        instance: Option<Instance>,
        opened: Instant,
    ) -> Opening {
        let mut opening = Opening::default();
        if self.keys.contains_key(&tunnel) {
            return opening;
        }
        let newcomer = Presence {
            tunnel,
            instance,
            opened,
        };
        self.keys.insert(tunnel, key(identity));
        let node = self.nodes.entry(key(identity)).or_default();
        for presence in &node.there {
            let another = is_another(presence.instance, instance);
            opening.is_duplicate |= another;
            let (older, younger) = if presence.age() < newcomer.age() {
                (presence, &newcomer)
            } else {
                (&newcomer, presence)
            };
            if instance.is_some() && presence.instance == instance {
                opening.superseded.push((older.tunnel, Superseded::GivenUp));
            }
            match self.policy {
                Policy::Supersede if another => {
                    opening.superseded.push((older.tunnel, Superseded::Replaced));
                    remember(&mut node.superseded, older.instance);
                }
                // Both asked before either was there.
                Policy::Reject if another => opening.superseded.push((younger.tunnel, Superseded::Replaced)),
                Policy::Pool | Policy::Supersede | Policy::Reject => {}
            }
        }
        node.there.push(newcomer);
        // Who has lost may have won since.
        let youngest = node.there.iter().max_by_key(|presence| presence.age());
        if let Some(winner) = youngest.and_then(|presence| presence.instance) {
            node.superseded.retain(|nonce| *nonce != winner.nonce);
        }
        opening.superseded.sort_unstable();
        opening.superseded.dedup_by_key(|(tunnel, _)| *tunnel);
        opening
    }

    /// A tunnel is gone. No effect if it never opened.
    pub fn on_closed(&mut self, tunnel: TunnelId) {
        let Some(key) = self.keys.remove(&tunnel) else {
            return;
        };
        if let Some(node) = self.nodes.get_mut(&key) {
            node.there.retain(|presence| presence.tunnel != tunnel);
            if node.there.is_empty() {
                self.nodes.remove(&key);
            }
        }
    }

    /// How many node ids several processes have a live tunnel under.
    pub fn shared(&self) -> usize {
        let several = |node: &&Node| {
            let first = node.there.first().and_then(|presence| presence.instance);
            node.has_another(first)
        };
        self.nodes.values().filter(several).count()
    }

    /// Whether another process has a tunnel under the node id of this live one.
    pub fn is_duplicate(&self, tunnel: TunnelId) -> bool {
        let node = self.keys.get(&tunnel).and_then(|key| self.nodes.get(key));
        node.is_some_and(|node| {
            let itself = node.there.iter().find(|presence| presence.tunnel == tunnel);
            node.has_another(itself.and_then(|presence| presence.instance))
        })
    }
}

impl Node {
    fn has_another(&self, instance: Option<Instance>) -> bool {
        self.there
            .iter()
            .any(|presence| is_another(presence.instance, instance))
    }
}

impl Presence {
    const fn age(&self) -> (Instant, TunnelId) {
        (self.opened, self.tunnel)
    }
}

fn remember(superseded: &mut VecDeque<u64>, instance: Option<Instance>) {
    let Some(instance) = instance else { return };
    if !superseded.contains(&instance.nonce) {
        superseded.push_back(instance.nonce);
    }
    if superseded.len() > SUPERSEDED_MAX {
        superseded.pop_front();
    }
}

fn key(identity: &Identity) -> NodeKey {
    (identity.tenant.clone(), identity.node.clone())
}

/// Whether two tunnels are known to be of different processes.
fn is_another(one: Option<Instance>, other: Option<Instance>) -> bool {
    one.zip(other)
        .is_some_and(|(one, other)| one.nonce != other.nonce)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::identity::{ClusterId, WorkerId};
    use crate::instance::Berth;

    fn who(node: &str, cluster: &str) -> Identity {
        Identity {
            node: NodeId::parse(node).unwrap(),
            cluster: ClusterId::parse(cluster).unwrap(),
            tenant: TenantId::parse("t").unwrap(),
        }
    }

    fn t(serial: u64) -> TunnelId {
        TunnelId {
            named_by: WorkerId(0),
            serial,
        }
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(seconds))
    }

    fn of(nonce: u64, slot: u32) -> Option<Instance> {
        let berth = Berth {
            worker: WorkerId(0),
            lane: 0,
            slot,
        };
        Some(Instance { nonce, berth })
    }

    /// With tunnel 1 of process 7, slot 0, open since second 1.
    fn with_one(policy: Policy) -> Duplicates {
        let mut duplicates = Duplicates::new(policy);
        let opening = duplicates.on_opened(t(1), &who("n", "c"), of(7, 0), at(1));
        assert_eq!(opening, Opening::default());
        duplicates
    }

    #[test]
    fn a_second_tunnel_of_a_process_is_a_spare() {
        for policy in [Policy::Pool, Policy::Supersede, Policy::Reject] {
            let mut duplicates = with_one(policy);
            assert!(!duplicates.refuses(&who("n", "c"), of(7, 1)));
            let opening = duplicates.on_opened(t(2), &who("n", "c"), of(7, 1), at(2));
            assert_eq!(opening, Opening::default(), "{policy:?}");
        }
    }

    #[test]
    fn who_dials_again_for_the_same_place_has_given_the_tunnel_there_up() {
        for policy in [Policy::Pool, Policy::Supersede, Policy::Reject] {
            let mut duplicates = with_one(policy);
            let opening = duplicates.on_opened(t(2), &who("n", "c"), of(7, 0), at(2));
            assert_eq!(opening.superseded, [(t(1), Superseded::GivenUp)], "{policy:?}");
            assert!(!opening.is_duplicate);
        }
    }

    #[test]
    fn another_process_is_pooled_or_takes_over_or_is_refused() {
        for (policy, refused, superseded) in [
            (Policy::Pool, false, vec![]),
            (Policy::Supersede, false, vec![(t(1), Superseded::Replaced)]),
            (Policy::Reject, true, vec![(t(2), Superseded::Replaced)]),
        ] {
            let mut duplicates = with_one(policy);
            let another_cluster = who("n", "d");
            assert_eq!(
                duplicates.refuses(&another_cluster, of(8, 0)),
                refused,
                "{policy:?}"
            );
            let opening = duplicates.on_opened(t(2), &another_cluster, of(8, 0), at(2));
            assert_eq!(opening.superseded, superseded, "{policy:?}");
            assert!(opening.is_duplicate, "{policy:?}");
        }
    }

    /// Envoy's initiators do not say which process they are: they are left alone, and pooled.
    #[test]
    fn who_does_not_say_is_taken_for_nobody_else() {
        for policy in [Policy::Pool, Policy::Supersede, Policy::Reject] {
            let mut duplicates = with_one(policy);
            assert!(!duplicates.refuses(&who("n", "c"), None));
            assert_eq!(
                duplicates.on_opened(t(2), &who("n", "c"), None, at(2)),
                Opening::default()
            );
            assert_eq!(
                duplicates.on_opened(t(3), &who("n", "c"), None, at(3)),
                Opening::default()
            );
        }
    }

    #[test]
    fn other_nodes_and_tenants_are_somebody_else_anyway() {
        let mut duplicates = with_one(Policy::Reject);
        let tenant = Identity {
            tenant: TenantId::parse("u").unwrap(),
            ..who("n", "c")
        };
        for other in [who("m", "c"), tenant] {
            assert!(!duplicates.refuses(&other, of(8, 0)));
            assert_eq!(
                duplicates.on_opened(t(9), &other, of(8, 0), at(2)),
                Opening::default()
            );
            duplicates.on_closed(t(9));
        }
    }

    #[test]
    fn news_of_long_ago_does_not_supersede_what_is_younger() {
        let mut duplicates = with_one(Policy::Supersede);
        let opening = duplicates.on_opened(t(2), &who("n", "c"), of(8, 0), at(0));
        assert_eq!(opening.superseded, [(t(2), Superseded::Replaced)]);
    }

    #[test]
    fn who_was_superseded_stays_out_as_long_as_the_other_is_there() {
        let mut duplicates = with_one(Policy::Supersede);
        let _ = duplicates.on_opened(t(2), &who("n", "c"), of(8, 0), at(2));
        duplicates.on_closed(t(1));
        assert!(duplicates.refuses(&who("n", "c"), of(7, 0)));
        assert!(!duplicates.refuses(&who("n", "c"), of(8, 1)));
        assert!(!duplicates.refuses(&who("n", "c"), of(9, 0)));
        assert!(!duplicates.refuses(&who("n", "c"), None));
        duplicates.on_closed(t(2));
        assert!(!duplicates.refuses(&who("n", "c"), of(7, 0)));
    }

    #[test]
    fn of_two_that_take_turns_the_last_one_is_let_in() {
        let mut duplicates = with_one(Policy::Supersede);
        let _ = duplicates.on_opened(t(2), &who("n", "c"), of(8, 0), at(2));
        // Its handshake was under way already.
        let _ = duplicates.on_opened(t(3), &who("n", "c"), of(7, 1), at(3));
        assert!(!duplicates.refuses(&who("n", "c"), of(7, 0)));
        assert!(duplicates.refuses(&who("n", "c"), of(8, 0)));
    }

    #[test]
    fn of_many_that_were_superseded_the_last_ones_are_remembered() {
        let mut duplicates = Duplicates::new(Policy::Supersede);
        for nonce in 100..200 {
            let _ = duplicates.on_opened(t(nonce), &who("n", "c"), of(nonce, 0), at(nonce));
            duplicates.on_closed(t(nonce - 1));
        }
        let refused = (100..200).filter(|nonce| duplicates.refuses(&who("n", "c"), of(*nonce, 0)));
        assert_eq!(refused.collect::<Vec<_>>(), (183..199).collect::<Vec<_>>());
    }

    #[test]
    fn who_shares_its_id_is_shown_so() {
        let mut duplicates = with_one(Policy::Pool);
        let _ = duplicates.on_opened(t(2), &who("n", "c"), of(7, 1), at(2));
        let _ = duplicates.on_opened(t(3), &who("m", "c"), of(8, 0), at(2));
        assert!(
            ![1, 2, 3, 4]
                .map(t)
                .into_iter()
                .any(|tunnel| duplicates.is_duplicate(tunnel))
        );
        let _ = duplicates.on_opened(t(4), &who("n", "d"), of(8, 0), at(3));
        assert_eq!(
            [1, 2, 3, 4].map(|n| duplicates.is_duplicate(t(n))),
            [true, true, false, true]
        );
        let _ = duplicates.on_opened(t(5), &who("n", "c"), None, at(4));
        assert!(!duplicates.is_duplicate(t(5)), "nobody knows of whom it is");
    }

    #[test]
    fn each_policy_has_its_word() {
        let all = [Policy::Pool, Policy::Supersede, Policy::Reject];
        assert_eq!(all.map(Policy::label), ["pool", "supersede", "reject"]);
    }

    #[test]
    fn news_told_twice_is_no_news() {
        let mut duplicates = with_one(Policy::Supersede);
        assert_eq!(
            duplicates.on_opened(t(1), &who("n", "c"), of(8, 0), at(2)),
            Opening::default()
        );
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let mut duplicates = with_one(Policy::Reject);
        duplicates.on_closed(t(1));
        assert!(!duplicates.refuses(&who("n", "c"), of(8, 0)));
        assert!(duplicates.nodes.is_empty() && duplicates.keys.is_empty());
    }

    proptest! {
        /// Two workers that hear of the same tunnels in different orders say the same of who must go.
        #[test]
        fn the_order_of_the_news_makes_no_difference(
            policy in select(vec![Policy::Pool, Policy::Supersede, Policy::Reject]),
            tunnels in prop::collection::vec((0..3u64, 0..2u32, 0..4u64), 0..7),
            shuffle in prop::collection::vec(any::<prop::sample::Index>(), 7),
        ) {
            let mut news: Vec<_> = (1..).zip(tunnels).collect();
            let told = |news: &[(u64, (u64, u32, u64))]| {
                let mut duplicates = Duplicates::new(policy);
                let openings = news.iter().flat_map(|&(serial, (nonce, slot, opened))| {
                    duplicates.on_opened(t(serial), &who("n", "c"), of(nonce, slot), at(opened)).superseded
                });
                openings.map(|(tunnel, _)| tunnel).collect::<std::collections::BTreeSet<_>>()
            };
            let first = told(&news);
            for (i, swap) in (0..news.len()).zip(&shuffle) {
                let other = swap.index(news.len());
                news.swap(i, other);
            }
            prop_assert_eq!(&first, &told(&news));
            if policy == Policy::Supersede && !news.is_empty() {
                let left: Vec<_> = news.iter().filter(|(serial, _)| !first.contains(&t(*serial))).collect();
                let nonce = left.first().map(|(_, (nonce, ..))| *nonce);
                prop_assert!(!left.is_empty() && left.iter().all(|(_, (of, ..))| Some(*of) == nonce), "{left:?}");
            }
        }
    }
}
