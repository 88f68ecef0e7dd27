//! A driver of the responder's machines: the handshake's `Demands`, and on each worker `Registry`, `Cache` and
//! `Pinger`. What the workers tell each other arrives at once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use eddy_core::cache::{Cache, Ended};
use eddy_core::close::CloseReason;
use eddy_core::handshake::request::{Demands, Verdict};
use eddy_core::handshake::{Parsed, Refusal};
use eddy_core::identity::{Identity, TunnelId, WorkerId};
use eddy_core::keepalive::{PING, PingAction, PingPolicy, Pinger};
use eddy_core::registry::{Action, Fact, Registry};
use eddy_core::rng::Rng;
use eddy_core::router::{Names, RouteKey};
use eddy_core::time::Instant;

use proptest::sample::Index;

use crate::wire::{Conn, Parcel, Toward, Wire};

const HANDSHAKE: Duration = Duration::from_secs(10);
const SETTLE: Duration = Duration::from_millis(30);

enum End {
    Request {
        bytes: Vec<u8>,
        until: Instant,
    },
    Settling {
        tunnel: TunnelId,
        owner: WorkerId,
        identity: Arc<Identity>,
        until: Instant,
    },
    Open {
        tunnel: TunnelId,
        owner: WorkerId,
        pinger: Pinger,
    },
}

pub(crate) struct Responder {
    pub(crate) registries: Vec<Registry>,
    pub(crate) caches: Vec<Cache>,
    ends: BTreeMap<Conn, End>,
    /// Connections of the past: what still comes on them is answered with a reset.
    past: BTreeSet<Conn>,
    /// Handshakes are refused with 429, to come back after so long.
    pub(crate) full: Option<Duration>,
    rng: Rng,
}

impl Responder {
    pub(crate) fn new(workers: u16, rng: Rng) -> Self {
        Self {
            registries: (0..workers)
                .map(|w| Registry::new(WorkerId(w), workers))
                .collect(),
            caches: (0..workers)
                .map(|w| Cache::new(WorkerId(w), 100, false))
                .collect(),
            ends: BTreeMap::new(),
            past: BTreeSet::new(),
            full: None,
            rng,
        }
    }

    /// The process dies and is there again, knowing nothing. Its peers hear of it, or not.
    pub(crate) fn crash(&mut self, now: Instant, silently: bool, wire: &mut Wire) {
        for conn in std::mem::take(&mut self.ends).into_keys() {
            if !silently {
                wire.send(now, conn, Toward::Initiator, Parcel::End);
            }
            self.past.insert(conn);
        }
        let workers = u16::try_from(self.registries.len()).unwrap();
        let Self { past, rng, .. } = std::mem::replace(self, Self::new(workers, Rng::from_seed(0)));
        (self.past, self.rng) = (past, rng);
    }

    /// A request on a worker, if the node has a tunnel. Whatever becomes of it, the worker goes on to know the tunnel.
    pub(crate) fn request(&mut self, worker: Index, node: &str, how: Ended) {
        let worker = worker.index(self.caches.len());
        let cache = &mut self.caches[worker];
        let key = RouteKey {
            tenant: None,
            names: Names::Node,
            id: node,
        };
        let Ok(tunnel) = cache.pick(&key) else { return };
        if how == Ended::Answered {
            cache.on_answered(tunnel);
        }
        cache.release(tunnel, how);
        assert!(cache.identity(tunnel).is_some(), "a request has removed {tunnel}");
    }

    /// The connections that carry a tunnel that may be chosen.
    pub(crate) fn up(&self) -> BTreeSet<Conn> {
        let open = self
            .ends
            .iter()
            .filter(|(_, end)| matches!(end, End::Open { .. }));
        open.map(|(conn, _)| *conn).collect()
    }

    pub(crate) fn has(&self, conn: Conn) -> bool {
        self.ends.contains_key(&conn)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        let next = |end: &End| match end {
            End::Request { until, .. } | End::Settling { until, .. } => Some(*until),
            End::Open { pinger, .. } => pinger.poll_timeout().map(|deadline| deadline.at),
        };
        self.ends.values().filter_map(next).min()
    }

    pub(crate) fn receive(&mut self, now: Instant, conn: Conn, parcel: Parcel, wire: &mut Wire) {
        if self.past.contains(&conn) {
            wire.send(now, conn, Toward::Initiator, Parcel::End);
            return;
        }
        let accepted = || End::Request {
            bytes: Vec::new(),
            until: now + HANDSHAKE,
        };
        let end = self.ends.entry(conn).or_insert_with(accepted);
        match (end, parcel) {
            (_, Parcel::End) => self.close(now, conn, CloseReason::PeerClosed),
            (End::Open { pinger, .. }, Parcel::Bytes(bytes)) => pinger.on_bytes(now, &bytes),
            (End::Settling { .. }, Parcel::Bytes(bytes)) => panic!("nobody pinged: {bytes:?}"),
            (End::Request { bytes, .. }, Parcel::Bytes(more)) => {
                bytes.extend(more);
                match Demands::default().parse(bytes) {
                    Ok(None) => {}
                    Ok(Some(Parsed {
                        value: Verdict::Tunnel(announcement),
                        ..
                    })) => {
                        self.admit(now, conn, Arc::new(announcement.identity), wire);
                    }
                    other => panic!("the initiator asks {other:?}"),
                }
            }
        }
    }

    fn admit(&mut self, now: Instant, conn: Conn, identity: Arc<Identity>, wire: &mut Wire) {
        if self.full.is_some() {
            let refusal = Refusal::Limit {
                retry_after: self.full,
            };
            wire.send(now, conn, Toward::Initiator, Parcel::Bytes(refusal.encode()));
            wire.send(now, conn, Toward::Initiator, Parcel::End);
            self.close(now, conn, CloseReason::Shutdown);
            return;
        }
        let accepting = usize::try_from(self.rng.below(self.registries.len() as u64)).unwrap();
        let placement = self.registries[accepting].place(&identity);
        let (tunnel, owner) = (placement.tunnel, placement.worker);
        if usize::from(owner.0) != accepting {
            self.registries[usize::from(owner.0)].on_adopted(tunnel, &identity);
        }
        wire.send(
            now,
            conn,
            Toward::Initiator,
            Parcel::Bytes(Demands::default().accept().to_vec()),
        );
        let until = now + SETTLE;
        self.ends.insert(
            conn,
            End::Settling {
                tunnel,
                owner,
                identity,
                until,
            },
        );
    }

    /// Fires what is due and does what the machines want.
    pub(crate) fn turn(&mut self, now: Instant, wire: &mut Wire) {
        for conn in self.ends.keys().copied().collect::<Vec<_>>() {
            match self.ends.get_mut(&conn) {
                Some(End::Request { until, .. }) if *until <= now => {
                    wire.send(now, conn, Toward::Initiator, Parcel::End);
                    self.close(now, conn, CloseReason::Silent);
                }
                Some(End::Settling {
                    tunnel,
                    owner,
                    identity,
                    until,
                }) if *until <= now => {
                    let (tunnel, owner) = (*tunnel, *owner);
                    let pinger = Pinger::new(now, PingPolicy::default(), self.rng.fork());
                    let identity = Arc::clone(identity);
                    self.ends.insert(
                        conn,
                        End::Open {
                            tunnel,
                            owner,
                            pinger,
                        },
                    );
                    self.tell(owner, |registry| registry.on_opened(now, tunnel, &identity));
                }
                Some(End::Open { pinger, .. }) => {
                    pinger.handle_timeout(now, || None);
                    self.ping(now, conn, wire);
                }
                Some(End::Request { .. } | End::Settling { .. }) | None => {}
            }
        }
    }

    fn ping(&mut self, now: Instant, conn: Conn, wire: &mut Wire) {
        while let Some(End::Open { pinger, .. }) = self.ends.get_mut(&conn)
            && let Some(action) = pinger.poll_action()
        {
            match action {
                PingAction::Ping => wire.send(now, conn, Toward::Initiator, Parcel::Bytes(PING.to_vec())),
                PingAction::Echoed { .. } | PingAction::Missed => {}
                PingAction::Dead => {
                    wire.send(now, conn, Toward::Initiator, Parcel::End);
                    self.close(now, conn, CloseReason::PingTimeout);
                }
                PingAction::HandOff | PingAction::Unexpected => panic!("{action:?} of an idle tunnel"),
            }
        }
    }

    fn close(&mut self, now: Instant, conn: Conn, why: CloseReason) {
        self.past.insert(conn);
        match self.ends.remove(&conn) {
            Some(End::Settling { tunnel, owner, .. } | End::Open { tunnel, owner, .. }) => {
                self.tell(owner, |registry| registry.on_closed(now, tunnel, why));
            }
            Some(End::Request { .. }) | None => {}
        }
    }

    fn tell(&mut self, owner: WorkerId, tell: impl FnOnce(&mut Registry)) {
        let owner = usize::from(owner.0);
        tell(&mut self.registries[owner]);
        while let Some(Action::Publish(fact)) = self.registries[owner].poll_action() {
            for (worker, registry) in self.registries.iter_mut().enumerate() {
                if worker != owner {
                    registry.on_fact(&fact);
                }
            }
            for cache in &mut self.caches {
                match &fact {
                    Fact::Opened {
                        tunnel,
                        identity,
                        owner,
                    } => cache.insert(*tunnel, identity, *owner),
                    Fact::Leaving { tunnel } => cache.on_leaving(*tunnel),
                    Fact::MaxStreams { tunnel, streams } => cache.on_max_streams(*tunnel, *streams),
                    Fact::Draining { tunnel } | Fact::Closed { tunnel } => {
                        cache.remove(*tunnel);
                    }
                }
            }
        }
    }
}
