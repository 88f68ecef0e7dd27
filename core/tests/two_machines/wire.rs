//! The network between the machines: connections that delay, cut up, lose and end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use eddy_core::rng::Rng;
use eddy_core::time::Instant;

/// One connection, from the initiator that dialed to the responder that was dialed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Conn {
    pub(crate) serial: u64,
    pub(crate) initiator: usize,
    pub(crate) responder: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toward {
    Initiator,
    Responder,
}

impl Toward {
    pub(crate) const BOTH: [Self; 2] = [Self::Initiator, Self::Responder];
}

#[derive(Debug)]
pub(crate) enum Parcel {
    Bytes(Vec<u8>),
    /// The end of the stream, or a reset: nothing comes after it.
    End,
}

/// How a responder's address treats who dials it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Open,
    /// Nobody listens.
    Refuses,
    /// What is sent there vanishes.
    Vanishes,
}

#[derive(Debug, Default)]
struct Way {
    under_way: VecDeque<(Instant, Parcel)>,
    hole: bool,
}

/// All connections that some end still has.
pub(crate) struct Wire {
    ways: BTreeMap<(Conn, bool), Way>,
    pub(crate) doors: Vec<Door>,
    /// One way takes at most this.
    pub(crate) longest: Duration,
    rng: Rng,
    serial: u64,
}

impl Wire {
    pub(crate) fn new(responders: usize, rng: Rng) -> Self {
        Self {
            ways: BTreeMap::new(),
            doors: vec![Door::Open; responders],
            longest: Duration::ZERO,
            rng,
            serial: 0,
        }
    }

    pub(crate) fn dial(&mut self, now: Instant, initiator: usize, responder: usize) -> Conn {
        self.serial += 1;
        let conn = Conn {
            serial: self.serial,
            initiator,
            responder,
        };
        for toward in Toward::BOTH {
            let way = self.ways.entry((conn, toward == Toward::Initiator)).or_default();
            way.hole = self.doors[responder] == Door::Vanishes;
        }
        if self.doors[responder] == Door::Refuses {
            self.send(now, conn, Toward::Initiator, Parcel::End);
            self.hole(conn, Toward::Responder);
        }
        conn
    }

    /// Bytes are cut anywhere, and each piece has its own delay; none overtakes another of its connection.
    pub(crate) fn send(&mut self, now: Instant, conn: Conn, toward: Toward, parcel: Parcel) {
        match parcel {
            Parcel::Bytes(mut bytes) => {
                while !bytes.is_empty() {
                    let length = 1 + self.rng.below(bytes.len() as u64 * 2) as usize;
                    let rest = bytes.split_off(length.min(bytes.len()));
                    self.post(now, conn, toward, Parcel::Bytes(bytes));
                    bytes = rest;
                }
            }
            Parcel::End => self.post(now, conn, toward, Parcel::End),
        }
    }

    fn post(&mut self, now: Instant, conn: Conn, toward: Toward, parcel: Parcel) {
        let at = now + self.rng.between(Duration::ZERO, self.longest);
        if let Some(way) = self.ways.get_mut(&(conn, toward == Toward::Initiator))
            && !way.hole
        {
            let at = way.under_way.back().map_or(at, |(before, _)| at.max(*before));
            way.under_way.push_back((at, parcel));
        }
    }

    /// From now on one direction loses everything, without a word.
    pub(crate) fn hole(&mut self, conn: Conn, toward: Toward) {
        if let Some(way) = self.ways.get_mut(&(conn, toward == Toward::Initiator)) {
            way.hole = true;
            way.under_way.clear();
        }
    }

    /// Neither end has it any more.
    pub(crate) fn forget(&mut self, conn: Conn) {
        for toward in Toward::BOTH {
            self.ways.remove(&(conn, toward == Toward::Initiator));
        }
    }

    pub(crate) fn conns(&self) -> Vec<Conn> {
        let mut conns: Vec<_> = self.ways.keys().map(|(conn, _)| *conn).collect();
        conns.dedup();
        conns
    }

    pub(crate) fn is_busy(&self, conn: Conn) -> bool {
        let ways = self.ways.iter().filter(|((of, _), _)| *of == conn);
        ways.into_iter().any(|(_, way)| !way.under_way.is_empty())
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        let first = self.ways.values().filter_map(|way| way.under_way.front());
        first.map(|(at, _)| *at).min()
    }

    pub(crate) fn arrived(&mut self, now: Instant) -> Option<(Conn, Toward, Parcel)> {
        let due = |way: &Way| way.under_way.front().is_some_and(|(at, _)| *at <= now);
        let ((conn, to_initiator), way) = self.ways.iter_mut().find(|(_, way)| due(way))?;
        let toward = if *to_initiator {
            Toward::Initiator
        } else {
            Toward::Responder
        };
        let (_, parcel) = way.under_way.pop_front()?;
        Some((*conn, toward, parcel))
    }
}
