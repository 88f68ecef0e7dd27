//! Whether a service or a peer keeps to the rules, request by request.

use std::cell::RefCell;
use std::time::Duration;

use eddy_core::rng::Rng;
use tokio::sync::Notify;

use crate::scenario::{Misbehaviour, Misdeed};

/// The same for all seeds, so that a draw does not repeat those of the run's own generator.
const SALT: u64 = 0x6d69_7362_6568_6176;

/// The conduct of one service or peer.
pub(crate) struct Conduct {
    current: RefCell<Option<Misbehaviour>>,
    changed: Notify,
    rng: RefCell<Rng>,
}

impl Conduct {
    pub(crate) fn new(seed: u64, process: usize) -> Self {
        let seed = seed ^ SALT ^ (process as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self {
            current: RefCell::default(),
            changed: Notify::new(),
            rng: RefCell::new(Rng::from_seed(seed)),
        }
    }

    pub(crate) fn set(&self, misbehaviour: Option<Misbehaviour>) {
        *self.current.borrow_mut() = misbehaviour;
        self.changed.notify_waiters();
    }

    /// Decides about the next request.
    pub(crate) fn draw(&self) -> Option<Misdeed> {
        const PARTS: u32 = 1_000_000;
        let current = self.current.borrow();
        let misbehaviour = current.as_ref()?;
        let mut rng = self.rng.borrow_mut();
        let drawn = rng.below(u64::from(PARTS)) as f64 / f64::from(PARTS);
        let which = rng.below(misbehaviour.how.len() as u64) as usize;
        (drawn < misbehaviour.share).then(|| misbehaviour.how[which])
    }

    /// Waits as long as a stall lasts; returns whether the response goes on.
    pub(crate) async fn stall(&self) -> bool {
        let changed = self.changed.notified();
        let lasts = self.current.borrow().as_ref().and_then(|current| current.lasts);
        let Some(lasts) = lasts else {
            changed.await;
            return false;
        };
        tokio::select! {
            biased;
            () = changed => false,
            () = tokio::time::sleep(lasts.max(Duration::from_millis(1))) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_kept_and_all_ways_are_drawn() {
        let conduct = Conduct::new(7, 1);
        assert_eq!(conduct.draw(), None);
        conduct.set(Some(Misbehaviour {
            how: vec![Misdeed::Garbage, Misdeed::Stall],
            share: 0.2,
            lasts: None,
        }));
        let drawn: Vec<_> = (0..1000).filter_map(|_| conduct.draw()).collect();
        assert!((150..250).contains(&drawn.len()), "{}", drawn.len());
        let garbage = drawn.iter().filter(|drawn| **drawn == Misdeed::Garbage).count();
        assert!((60..140).contains(&garbage), "{garbage}");
        conduct.set(None);
        assert_eq!(conduct.draw(), None);
    }
}
