//! The memory budget of a process: while it is exceeded, new requests are refused, and clients that do not read are ended.

use std::collections::BTreeMap;

use crate::policy::{READER_IDLE, READER_STALLED, SHED_INTERVAL};
use crate::time::Instant;

/// Whether a process has more memory resident than it may.
#[derive(Clone, Copy, Debug)]
pub struct MemoryBudget {
    limit: u64,
    is_exceeded: bool,
}

impl MemoryBudget {
    /// A budget of `limit` bytes.
    pub const fn new(limit: u64) -> Self {
        Self {
            limit,
            is_exceeded: false,
        }
    }

    /// The process has `resident` bytes. Returns the excess while the budget is exceeded: from the limit on, until the process is an
    /// eighth below it, so that the decision does not flap.
    pub fn on_resident(&mut self, resident: u64) -> Option<Excess> {
        let ends_below = self.limit - self.limit / 8;
        self.is_exceeded = resident >= self.limit || self.is_exceeded && resident >= ends_below;
        self.is_exceeded.then(|| Excess {
            bytes: (resident - ends_below).max(1),
            resident,
        })
    }
}

/// How much of the resident memory is to be freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    bytes: u64,
    resident: u64,
}

impl Excess {
    /// As large a part of `count`, at least one.
    fn part_of(self, count: usize) -> usize {
        let part = u128::from(self.bytes) * count as u128 / u128::from(self.resident);
        usize::try_from(part).unwrap_or(count).clamp(1, count.max(1))
    }
}

/// What a client does with its responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Responses in flight of which there is more than the client takes.
    pub unread: u32,
    /// Bytes of responses that the client has taken so far.
    pub taken: u64,
}

/// Why a client's connection is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReaderEnd {
    /// It has taken nothing for [`READER_IDLE`] although there was more.
    Idle,
    /// The memory budget is exceeded, and it holds more than others.
    Memory,
}

impl ReaderEnd {
    /// The reason in one word.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Idle => "reader_idle",
            Self::Memory => "memory_limit",
        }
    }
}

/// The clients that leave responses unread.
#[derive(Clone, Debug, Default)]
pub struct Readers {
    stalled: BTreeMap<u64, Stalled>,
    /// When clients were last ended for their memory.
    shed: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Stalled {
    taken: u64,
    since: Instant,
}

impl Readers {
    /// Looks at every client, and returns those whose connections are to be ended, each with the reason. `excess` is what the
    /// memory budget says.
    ///
    /// While the budget is exceeded, clients that have taken nothing for [`READER_STALLED`] are ended each [`SHED_INTERVAL`]: as large
    /// a part of them as the excess is of the memory, those with the most unread responses first, then those that have stalled the
    /// longest. If there are none, the client with the most unread responses is ended, provided that it has more than one: a
    /// single slow download is legitimate.
    pub fn look(
        &mut self,
        now: Instant,
        excess: Option<Excess>,
        clients: impl Iterator<Item = (u64, Reading)>,
    ) -> Vec<(u64, ReaderEnd)> {
        let before = std::mem::take(&mut self.stalled);
        let (mut ended, mut stalled, mut most) = (Vec::new(), Vec::new(), None);
        for (client, reading) in clients.filter(|(_, reading)| reading.unread > 0) {
            let known = before
                .get(&client)
                .filter(|stalled| stalled.taken == reading.taken);
            let since = known.map_or(now, |stalled| stalled.since);
            let taken = reading.taken;
            self.stalled.insert(client, Stalled { taken, since });
            if now - since >= READER_IDLE {
                ended.push((client, ReaderEnd::Idle));
            } else if now - since >= READER_STALLED {
                stalled.push((reading.unread, now - since, client));
            }
            most = most.max(Some((reading.unread, client)));
        }
        let Some(excess) = excess.filter(|_| self.shed.is_none_or(|shed| now - shed >= SHED_INTERVAL)) else {
            return ended;
        };
        stalled.sort_unstable();
        let shed = match most {
            Some((2.., client)) if stalled.is_empty() => vec![client],
            _ => {
                let count = excess.part_of(stalled.len());
                let worst = stalled.into_iter().rev().take(count);
                worst.map(|(_, _, client)| client).collect()
            }
        };
        if !shed.is_empty() {
            self.shed = Some(now);
        }
        ended.extend(shed.into_iter().map(|client| (client, ReaderEnd::Memory)));
        ended
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const MUCH: Option<Excess> = Some(Excess {
        bytes: 9,
        resident: 10,
    });

    fn at(seconds: u64) -> Instant {
        Instant::from_origin(Duration::from_secs(seconds))
    }

    fn reading(client: u64, unread: u32, taken: u64) -> (u64, Reading) {
        (client, Reading { unread, taken })
    }

    #[test]
    fn a_budget_is_exceeded_until_an_eighth_is_free() {
        let mut budget = MemoryBudget::new(800);
        let excess = |resident, bytes| Some(Excess { bytes, resident });
        for (resident, expected) in [
            (799, None),
            (800, excess(800, 100)),
            (701, excess(701, 1)),
            (700, excess(700, 1)),
            (699, None),
            (750, None),
            (1400, excess(1400, 700)),
        ] {
            assert_eq!(budget.on_resident(resident), expected, "{resident}");
        }
    }

    #[test]
    fn a_reader_that_takes_nothing_for_five_minutes_is_ended() {
        let mut readers = Readers::default();
        let clients = || [reading(1, 1, 7), reading(2, 0, 7)].into_iter();
        assert_eq!(readers.look(at(0), None, clients()), []);
        assert_eq!(readers.look(at(299), None, clients()), []);
        assert_eq!(readers.look(at(300), None, clients()), [(1, ReaderEnd::Idle)]);
    }

    #[test]
    fn a_byte_is_progress() {
        let mut readers = Readers::default();
        for (second, taken) in [(0, 7), (299, 7), (300, 8), (599, 8)] {
            let clients = [reading(1, 1, taken)].into_iter();
            assert_eq!(readers.look(at(second), None, clients), [], "at {second} s");
        }
    }

    #[test]
    fn memory_is_taken_from_those_that_hold_the_most_first() {
        let mut readers = Readers::default();
        let clients = || (0..8).map(|client| reading(client, 1 + u32::from(client == 3) * 99, 0));
        let third = Some(Excess {
            bytes: 30,
            resident: 100,
        });
        assert_eq!(readers.look(at(0), third, clients()), [(3, ReaderEnd::Memory)]);
        let left = || clients().filter(|(client, _)| *client != 3);
        assert_eq!(
            readers.look(at(1), third, left()),
            [],
            "none has stalled long enough"
        );
        let ended: Vec<_> = readers
            .look(at(2), third, left())
            .into_iter()
            .map(|(client, _)| client)
            .collect();
        assert_eq!(ended, [7, 6], "30 % of seven");
        assert_eq!(
            readers.look(at(2), third, left()),
            [],
            "what was freed is not visible yet"
        );
    }

    #[test]
    fn a_slow_download_alone_is_no_abuse() {
        let mut readers = Readers::default();
        for second in 0..100 {
            let clients = [reading(1, 1, second)].into_iter();
            assert_eq!(readers.look(at(second), MUCH, clients), [], "at {second} s");
        }
    }

    proptest! {
        /// Whatever clients do: nobody is ended who leaves nothing unread, and without pressure nobody who reads.
        #[test]
        fn only_those_that_leave_responses_unread_are_ended(
            steps in proptest::collection::vec(
                (0u64..400, any::<bool>(), proptest::collection::vec((0u64..6, 0u32..3, 0u64..3), 0..6)),
                1..40,
            ),
        ) {
            let (mut readers, mut now) = (Readers::default(), at(0));
            for (pause, is_exceeded, clients) in steps {
                now = now + Duration::from_secs(pause);
                let clients: BTreeMap<_, _> = clients
                    .into_iter()
                    .map(|(client, unread, taken)| reading(client, unread, taken))
                    .collect();
                let excess = MUCH.filter(|_| is_exceeded);
                for (client, why) in readers.look(now, excess, clients.clone().into_iter()) {
                    prop_assert!(clients[&client].unread > 0);
                    prop_assert!(is_exceeded || why == ReaderEnd::Idle);
                }
            }
        }
    }
}
