//! A fingerprint of the tunnels that one worker owns and that may be chosen, by which another worker finds out whether its
//! copy of them is the same.
//!
//! Facts about tunnels travel in order and are never lost, so copies are the same once the facts have arrived. If they are
//! not, it is a bug; but a node that a worker has forgotten must not stay unreachable until its tunnel ends.

use crate::identity::TunnelId;
use crate::rng::Rng;

pub use crate::policy::DIGEST_INTERVAL as EVERY;

/// What others know of a tunnel that may be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Somebody has said goodbye on it: it is chosen only where nothing else is.
    pub leaving: bool,
    /// How many streams the peer allows at once, once it has said so.
    pub max_streams: Option<u32>,
}

/// The same set of tunnels has the same digest, in whichever order they came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    tunnels: u32,
    hash: u64,
}

impl Digest {
    /// Adds a tunnel that is not in it.
    pub fn add(&mut self, tunnel: TunnelId, standing: Standing) {
        self.tunnels = self.tunnels.wrapping_add(1);
        self.hash = self.hash.wrapping_add(hash(tunnel, standing));
    }

    /// Takes out a tunnel that is in it.
    pub fn remove(&mut self, tunnel: TunnelId, standing: Standing) {
        self.tunnels = self.tunnels.wrapping_sub(1);
        self.hash = self.hash.wrapping_sub(hash(tunnel, standing));
    }

    /// How many tunnels are in it.
    pub const fn tunnels(self) -> u32 {
        self.tunnels
    }
}

fn hash(tunnel: TunnelId, standing: Standing) -> u64 {
    let words = [
        u64::from(tunnel.named_by.0),
        tunnel.serial,
        u64::from(standing.leaving),
        standing.max_streams.map_or(u64::MAX, u64::from),
    ];
    words
        .into_iter()
        .fold(0, |hash, word| Rng::from_seed(hash ^ word).next_u64())
}

/// Compares the digests of one owner with the copy of its tunnels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Comparison {
    differed: bool,
}

impl Comparison {
    /// A digest has come. Returns whether the copy must be repaired: it has differed twice in a row.
    pub fn on_digest(&mut self, owner: Digest, copy: Digest) -> bool {
        let differs = owner != copy;
        let repair = differs && self.differed;
        // The repair is under way.
        self.differed = differs && !repair;
        repair
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::WorkerId;

    fn tunnel(serial: u64) -> TunnelId {
        TunnelId {
            named_by: WorkerId(0),
            serial,
        }
    }

    #[test]
    fn each_part_of_a_tunnel_changes_the_digest() {
        let of = |id, leaving, max_streams| {
            let mut digest = Digest::default();
            digest.add(id, Standing { leaving, max_streams });
            digest
        };
        let base = of(tunnel(1), false, None);
        let other_worker = TunnelId {
            named_by: WorkerId(1),
            serial: 1,
        };
        let others = [
            of(tunnel(2), false, None),
            of(other_worker, false, None),
            of(tunnel(1), true, None),
            of(tunnel(1), false, Some(5)),
            Digest::default(),
        ];
        assert!(others.iter().all(|other| *other != base));
    }

    #[test]
    fn a_copy_is_repaired_at_the_second_difference_in_a_row() {
        let (mut owner, empty) = (Digest::default(), Digest::default());
        owner.add(tunnel(1), Standing::default());
        let mut comparison = Comparison::default();
        let repairs =
            [empty, owner, empty, empty, empty, empty].map(|copy| comparison.on_digest(owner, copy));
        assert_eq!(repairs, [false, false, false, true, false, true]);
    }

    proptest! {
        #[test]
        fn the_order_does_not_matter_and_removing_undoes_adding(
            serials in prop::collection::btree_set(0..1_000u64, 0..20),
            extra in 1_000..2_000u64,
        ) {
            let (mut forward, mut backward) = (Digest::default(), Digest::default());
            serials.iter().for_each(|serial| forward.add(tunnel(*serial), Standing::default()));
            backward.add(tunnel(extra), Standing::default());
            serials.iter().rev().for_each(|serial| backward.add(tunnel(*serial), Standing::default()));
            prop_assert_ne!(forward, backward);
            backward.remove(tunnel(extra), Standing::default());
            prop_assert_eq!(forward, backward);
            prop_assert_eq!(forward.tunnels() as usize, serials.len());
        }
    }
}
