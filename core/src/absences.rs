//! How long an identity that has lost its last tunnel is without one.
//!
//! Bounded: of too many that are away at once the oldest are forgotten, and so is who stays away for longer than
//! [`REMEMBERED_FOR`]; their returns are not timed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::identity::Identity;
use crate::time::Instant;

pub use crate::policy::{ABSENCE_REMEMBERED_FOR as REMEMBERED_FOR, ABSENCES_MAX};

/// Who has how many tunnels, and since when others have none.
#[derive(Clone, Debug, Default)]
pub struct Absences {
    /// Those that have tunnels.
    here: BTreeMap<Arc<Identity>, usize>,
    away: BTreeMap<Arc<Identity>, Instant>,
    /// In the order in which they went, those that came back since among them.
    order: VecDeque<(Instant, Arc<Identity>)>,
}

impl Absences {
    /// Nobody was here yet.
    pub const fn new() -> Self {
        Self {
            here: BTreeMap::new(),
            away: BTreeMap::new(),
            order: VecDeque::new(),
        }
    }

    /// A tunnel has opened; says how long its identity had none, if it had one before.
    pub fn on_opened(&mut self, now: Instant, identity: &Arc<Identity>) -> Option<Duration> {
        self.forget(now);
        *self.here.entry(Arc::clone(identity)).or_default() += 1;
        self.away.remove(identity).map(|since| now - since)
    }

    /// A tunnel that has opened takes no more requests.
    pub fn on_gone(&mut self, now: Instant, identity: &Arc<Identity>) {
        self.forget(now);
        let Some(count) = self.here.get_mut(identity) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.here.remove(identity);
            self.away.insert(Arc::clone(identity), now);
            self.order.push_back((now, Arc::clone(identity)));
        }
    }

    /// How many of those that have tunnels are such.
    pub fn here(&self, such: impl Fn(&Identity) -> bool) -> usize {
        self.here.keys().filter(|identity| such(identity)).count()
    }

    /// How many have lost their last tunnel and are not back.
    pub fn away(&self) -> usize {
        self.away.len()
    }

    fn forget(&mut self, now: Instant) {
        while let Some((went, identity)) = self.order.front() {
            // If not, it has come back, or gone again since.
            if self.away.get(identity) == Some(went) {
                if now - *went < REMEMBERED_FOR && self.order.len() < ABSENCES_MAX {
                    return;
                }
                self.away.remove(identity);
            }
            self.order.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::{ClusterId, NodeId, TenantId};

    fn identity(node: u8) -> Arc<Identity> {
        Arc::new(Identity {
            node: NodeId::parse(&format!("n{node}")).unwrap(),
            cluster: ClusterId::parse("c").unwrap(),
            tenant: TenantId::parse("t").unwrap(),
        })
    }

    fn at(s: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(s))
    }

    #[test]
    fn only_the_last_tunnel_s_end_begins_an_absence() {
        let mut absences = Absences::new();
        let edge = identity(0);
        assert_eq!(absences.on_opened(at(0), &edge), None, "it was never away");
        absences.on_opened(at(1), &edge);
        absences.on_gone(at(2), &edge);
        assert_eq!(absences.on_opened(at(3), &edge), None, "it had another");
        absences.on_gone(at(4), &edge);
        absences.on_gone(at(5), &edge);
        assert_eq!(absences.here(|_| true), 0);
        assert_eq!(absences.on_opened(at(7), &edge), Some(Duration::from_secs(2)));
        assert_eq!(absences.here(|_| true), 1);
    }

    #[test]
    fn who_stays_away_is_forgotten_and_so_are_the_oldest_of_too_many() {
        let mut absences = Absences::new();
        let edge = identity(0);
        absences.on_opened(at(0), &edge);
        absences.on_gone(at(0), &edge);
        assert_eq!(absences.on_opened(at(600), &edge), None);
        absences.on_gone(at(600), &edge);
        for _ in 0..ABSENCES_MAX {
            absences.on_opened(at(600), &identity(1));
            absences.on_gone(at(600), &identity(1));
        }
        assert_eq!(absences.on_opened(at(600), &edge), None);
        assert!(absences.order.len() <= ABSENCES_MAX);
    }

    proptest! {
        /// The model: a list of everything that happened, searched backwards.
        #[test]
        fn an_absence_is_what_lies_between_the_last_end_and_the_next_begin(
            steps in prop::collection::vec((0..3u8, any::<bool>(), 0..9u64), 0..60),
        ) {
            let mut absences = Absences::new();
            let mut now = 0;
            let mut open = [0u32; 3];
            let mut went = [None; 3];
            for (node, opens, later) in steps {
                now += later;
                let n = usize::from(node);
                if opens {
                    let expected = if open[n] == 0 { went[n].map(|then: u64| Duration::from_secs(now - then)) } else { None };
                    prop_assert_eq!(absences.on_opened(at(now), &identity(node)), expected);
                    open[n] += 1;
                } else if open[n] > 0 {
                    absences.on_gone(at(now), &identity(node));
                    open[n] -= 1;
                    if open[n] == 0 {
                        went[n] = Some(now);
                    }
                }
                prop_assert_eq!(absences.here(|_| true), open.iter().filter(|n| **n > 0).count());
            }
        }
    }
}
