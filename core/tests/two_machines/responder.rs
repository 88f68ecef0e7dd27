//! A driver of the responder's root machines, one per worker, with a `Pinger` for each tunnel. What workers tell each
//! other arrives late: in order between two of them, in any order between different pairs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use eddy_core::attempts::{Attempts, Budget};
use eddy_core::cache::Ended;
use eddy_core::close::CloseReason;
use eddy_core::duplicates::Policy;
use eddy_core::handshake::request::{Announcement, Demands, Verdict};
use eddy_core::handshake::{Parsed, Refusal};
use eddy_core::identity::{TunnelId, WorkerId};
use eddy_core::keepalive::{PING, PingAction, PingPolicy, Pinger};
use eddy_core::policy;
use eddy_core::registry::{Introduction, Registry};
use eddy_core::responder::{Action, ClientShare, Command, Gossip, Pick, Responder as Machine, Settings};
use eddy_core::rng::Rng;
use eddy_core::router::{Names, RouteKey};
use eddy_core::selection::Selection;
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
        introduction: Introduction,
        until: Instant,
    },
    Open {
        tunnel: TunnelId,
        owner: WorkerId,
        pinger: Pinger,
    },
}

/// How late a message between workers may be.
const MAIL_DELAY_MAX: Duration = Duration::from_millis(50);

pub(crate) struct Responder {
    pub(crate) machines: Vec<Machine>,
    /// By sender and receiver, with the time of arrival.
    mail: BTreeMap<(usize, usize), VecDeque<(Instant, Gossip)>>,
    ends: BTreeMap<Conn, End>,
    /// Connections of the past: what still comes on them is answered with a reset.
    past: BTreeSet<Conn>,
    /// Handshakes are refused with 429, to come back after so long.
    pub(crate) full: Option<Duration>,
    policy: Policy,
    rng: Rng,
}

impl Responder {
    pub(crate) fn new(now: Instant, workers: u16, policy: Policy, mut rng: Rng) -> Self {
        let mut machine = |worker| {
            let settings = Settings {
                worker: WorkerId(worker),
                workers,
                demands: Demands::default(),
                duplicates: policy,
                max_streams: 100,
                max_waiting: policy::MAX_WAITING,
                reconnect_grace: policy::RECONNECT_GRACE,
                drain_delay: policy::DRAIN_DELAY,
                drain_timeout: policy::DRAIN_TIMEOUT,
            };
            Machine::new(settings, now, rng.fork())
        };
        Self {
            machines: (0..workers).map(&mut machine).collect(),
            mail: BTreeMap::new(),
            ends: BTreeMap::new(),
            past: BTreeSet::new(),
            full: None,
            policy,
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
        let workers = u16::try_from(self.machines.len()).unwrap();
        let new = Self::new(now, workers, self.policy, self.rng.fork());
        self.past = std::mem::replace(self, new).past;
    }

    /// A request on a worker. Whatever becomes of it, the worker goes on to know the tunnel.
    pub(crate) fn request(&mut self, now: Instant, worker: Index, node: &str, how: Ended) {
        let worker = worker.index(self.machines.len());
        let machine = &mut self.machines[worker];
        let key = RouteKey {
            tenant: None,
            names: Names::Node,
            id: node,
        };
        let mut attempts = Attempts::new(now, Budget::default());
        match machine.pick(now, &key, ClientShare::default(), &mut attempts) {
            Pick::Tunnel(tunnel) => {
                if how == Ended::Answered {
                    machine.on_answered(now, tunnel);
                }
                machine.release(tunnel, how);
                let listed = machine.directory().identity(tunnel);
                assert!(listed.is_some(), "a request has removed {tunnel}");
            }
            Pick::Wait(wait) => machine.on_waited(wait),
            Pick::Refuse(_) => {}
        }
    }

    /// An operator sends all tunnels away.
    pub(crate) fn send_away(&mut self, now: Instant, wire: &mut Wire) {
        for worker in 0..self.machines.len() {
            self.machines[worker].send_away_selected(now, &Selection::default());
            self.perform(now, worker, wire);
        }
    }

    /// The registries of all workers.
    pub(crate) fn registries(&self) -> impl Iterator<Item = &Registry> {
        self.machines.iter().map(Machine::registry)
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
        let ends = self.ends.values().filter_map(next);
        let machines = self.machines.iter().filter_map(Machine::poll_timeout);
        let mail = self.mail.values().filter_map(|queue| queue.front());
        let machines = machines.map(|deadline| deadline.at);
        ends.chain(machines).chain(mail.map(|(at, _)| *at)).min()
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
            (_, Parcel::End) => self.close(now, conn, CloseReason::PeerClosed, wire),
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
                        self.admit(now, conn, announcement, wire);
                    }
                    other => panic!("the initiator asks {other:?}"),
                }
            }
        }
    }

    fn admit(&mut self, now: Instant, conn: Conn, announced: Announcement, wire: &mut Wire) {
        let accepting = usize::try_from(self.rng.below(self.machines.len() as u64)).unwrap();
        let decision = match self.full {
            Some(_) => Err(Refusal::Limit {
                retry_after: self.full,
            }),
            None => self.machines[accepting].on_handshake(&announced),
        };
        let placement = match decision {
            Ok(placement) => placement,
            Err(refusal) => {
                wire.send(now, conn, Toward::Initiator, Parcel::Bytes(refusal.encode()));
                wire.send(now, conn, Toward::Initiator, Parcel::End);
                return self.close(now, conn, CloseReason::Shutdown, wire);
            }
        };
        let (tunnel, owner) = (placement.tunnel, placement.worker);
        if usize::from(owner.0) != accepting {
            self.machines[usize::from(owner.0)].on_adopted(tunnel, &announced.identity);
        }
        let introduction = Introduction {
            identity: announced.identity.into(),
            instance: announced.instance,
            heard: now,
        };
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
                introduction,
                until,
            },
        );
    }

    /// Fires what is due and does what the machines want.
    pub(crate) fn turn(&mut self, now: Instant, wire: &mut Wire) {
        self.deliver(now, wire);
        for worker in 0..self.machines.len() {
            self.machines[worker].handle_timeout(now);
            self.perform(now, worker, wire);
        }
        for conn in self.ends.keys().copied().collect::<Vec<_>>() {
            match self.ends.get_mut(&conn) {
                Some(End::Request { until, .. }) if *until <= now => {
                    wire.send(now, conn, Toward::Initiator, Parcel::End);
                    self.close(now, conn, CloseReason::Silent, wire);
                }
                Some(End::Settling {
                    tunnel,
                    owner,
                    introduction,
                    until,
                }) if *until <= now => {
                    let (tunnel, owner) = (*tunnel, *owner);
                    let pinger = Pinger::new(now, PingPolicy::default(), self.rng.fork());
                    let introduction = introduction.clone();
                    self.ends.insert(
                        conn,
                        End::Open {
                            tunnel,
                            owner,
                            pinger,
                        },
                    );
                    self.machines[usize::from(owner.0)].on_opened(now, tunnel, &introduction);
                    self.perform(now, owner.0.into(), wire);
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
                    self.close(now, conn, CloseReason::PingTimeout, wire);
                }
                PingAction::HandOff | PingAction::Unexpected => panic!("{action:?} of an idle tunnel"),
            }
        }
    }

    fn close(&mut self, now: Instant, conn: Conn, why: CloseReason, wire: &mut Wire) {
        self.past.insert(conn);
        match self.ends.remove(&conn) {
            Some(End::Settling { tunnel, owner, .. } | End::Open { tunnel, owner, .. }) => {
                self.machines[usize::from(owner.0)].on_closed(now, tunnel, why);
                self.perform(now, owner.0.into(), wire);
            }
            Some(End::Request { .. }) | None => {}
        }
    }

    /// Delivers the messages between workers that are due.
    fn deliver(&mut self, now: Instant, wire: &mut Wire) {
        for pair in self.mail.keys().copied().collect::<Vec<_>>() {
            while let Some(queue) = self.mail.get_mut(&pair)
                && queue.front().is_some_and(|(at, _)| *at <= now)
                && let Some((_, gossip)) = queue.pop_front()
            {
                self.machines[pair.1].on_gossip(now, &gossip);
                self.perform(now, pair.1, wire);
            }
        }
    }

    fn send(&mut self, now: Instant, from: usize, to: usize, gossip: Gossip) {
        let queue = self.mail.entry((from, to)).or_default();
        let before = queue.back().map_or(now, |(at, _)| *at);
        let at = (now + self.rng.between(Duration::ZERO, MAIL_DELAY_MAX)).max(before);
        queue.push_back((at, gossip));
    }

    /// Does what a driver does.
    fn perform(&mut self, now: Instant, worker: usize, wire: &mut Wire) {
        while let Some(action) = self.machines[worker].poll_action() {
            match action {
                Action::Publish(gossip) => {
                    for other in (0..self.machines.len()).filter(|other| *other != worker) {
                        self.send(now, worker, other, gossip.clone());
                    }
                }
                Action::Send { to, gossip } => self.send(now, worker, to.0.into(), gossip),
                // The initiator dials elsewhere when it is let go: an idle tunnel of these histories speaks no HTTP/2.
                Action::Command(_, Command::SayGoodbye) => {}
                Action::Command(tunnel, Command::LetGo | Command::Replaced | Command::GivenUp) => {
                    if let Some(conn) = self.conn_of(tunnel) {
                        wire.send(now, conn, Toward::Initiator, Parcel::End);
                        self.close(now, conn, CloseReason::Superseded, wire);
                    }
                }
                Action::Bug(bug) => panic!("{bug:?}"),
                Action::List(_)
                | Action::Unlist(_)
                | Action::WakeAll(_)
                | Action::WakeOne(_)
                | Action::WakeNext(_)
                | Action::Recovered(_)
                | Action::Duplicate(..)
                | Action::Drain(_) => {}
            }
        }
    }

    fn conn_of(&self, tunnel: TunnelId) -> Option<Conn> {
        let is_its = |end: &End| match end {
            End::Open { tunnel: open, .. } => *open == tunnel,
            End::Settling { .. } | End::Request { .. } => false,
        };
        self.ends
            .iter()
            .find(|(_, end)| is_its(end))
            .map(|(conn, _)| *conn)
    }
}
