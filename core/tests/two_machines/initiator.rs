//! A driver of the initiator's machines: `Dialer`, the handshake's `Offer` and `response::parse`, `Echoer`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use eddy_core::close::CloseReason;
use eddy_core::dialer::{Action, DialFailure, Dialer, DialerPolicy, Slot, Target};
use eddy_core::handshake::request::Offer;
use eddy_core::handshake::response::{self, Rejection};
use eddy_core::handshake::{DEFAULT_PATH, Mode, Parsed};
use eddy_core::identity::{ClusterId, ClusterName, Identity, NodeId, TenantId, WorkerId};
use eddy_core::instance::{Berth, Instance};
use eddy_core::keepalive::{EchoAction, Echoer, PING, SilencePolicy};
use eddy_core::rng::Rng;
use eddy_core::time::Instant;

use crate::wire::{Conn, Parcel, Toward, Wire};

enum Task {
    Handshake(Vec<u8>),
    Tunnel(Echoer),
}

pub(crate) struct Initiator {
    me: usize,
    pub(crate) identity: Identity,
    /// The process, if it says that it is an Eddy.
    process: Option<u64>,
    pub(crate) dialer: Dialer,
    /// How many tunnels to keep to each responder.
    pub(crate) wanted: Vec<u32>,
    tasks: BTreeMap<Slot, (Conn, Task)>,
}

pub(crate) fn address(responder: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(responder).unwrap()], 9_000))
}

fn hub() -> ClusterName {
    ClusterName::parse("hub").unwrap()
}

impl Initiator {
    pub(crate) fn new(me: usize, responders: usize, mut rng: Rng) -> Self {
        let identity = Identity {
            tenant: TenantId::parse("t").unwrap(),
            cluster: ClusterId::parse("edges").unwrap(),
            node: NodeId::parse(&format!("edge-{me}")).unwrap(),
        };
        Self {
            me,
            identity,
            process: (me == 0).then(|| rng.next_u64()),
            dialer: Dialer::new(
                DialerPolicy {
                    max_dials: 3,
                    ..DialerPolicy::default()
                },
                rng,
            ),
            wanted: vec![0; responders],
            tasks: BTreeMap::new(),
        }
    }

    pub(crate) fn want(&mut self, now: Instant, wanted: Vec<u32>) {
        let targets = wanted.iter().enumerate().filter(|(_, count)| **count > 0);
        let targets: Vec<_> = targets
            .map(|(n, count)| Target {
                host: address(n),
                count: *count,
            })
            .collect();
        self.dialer.on_targets(now, &hub(), &targets);
        self.wanted = wanted;
    }

    /// At any time there is one place for each tunnel that is wanted, and the dialer knows where each stands.
    pub(crate) fn check(&self) {
        for view in self.dialer.hosts() {
            let n = (0..self.wanted.len()).find(|n| address(*n) == view.host).unwrap();
            let places = view.connected + view.connecting + view.backing_off;
            assert_eq!(places, self.wanted[n], "{view:?}");
        }
        let connected: u32 = self.dialer.hosts().map(|view| view.connected).sum();
        assert_eq!(connected as usize, self.up().len());
    }

    /// The connections whose handshake came to its end.
    pub(crate) fn up(&self) -> BTreeSet<Conn> {
        let up = self
            .tasks
            .values()
            .filter(|(_, task)| matches!(task, Task::Tunnel(_)));
        up.map(|(conn, _)| *conn).collect()
    }

    pub(crate) fn has(&self, conn: Conn) -> bool {
        self.tasks.values().any(|(of, _)| *of == conn)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        let echoers = self.tasks.values().filter_map(|(_, task)| match task {
            Task::Tunnel(echoer) => echoer.poll_timeout(),
            Task::Handshake(_) => None,
        });
        echoers
            .chain(self.dialer.poll_timeout())
            .map(|deadline| deadline.at)
            .min()
    }

    pub(crate) fn receive(&mut self, now: Instant, conn: Conn, parcel: Parcel) {
        let Some((slot, (_, task))) = self.tasks.iter_mut().find(|(_, (of, _))| *of == conn) else {
            return;
        };
        let slot = *slot;
        match (task, parcel) {
            (Task::Handshake(_), Parcel::End) => {
                self.tasks.remove(&slot);
                self.dialer.on_failed(now, slot, &DialFailure::Refused);
            }
            (Task::Tunnel(_), Parcel::End) => {
                self.tasks.remove(&slot);
                self.dialer.on_closed(now, slot, CloseReason::PeerClosed);
            }
            (Task::Tunnel(echoer), Parcel::Bytes(bytes)) => echoer.on_bytes(now, &bytes),
            (Task::Handshake(so_far), Parcel::Bytes(bytes)) => {
                so_far.extend(bytes);
                match response::parse(Mode::Plain, so_far) {
                    Ok(None) => {}
                    Ok(Some(Parsed { consumed, .. })) => {
                        let mut echoer = Echoer::new(now, SilencePolicy::default());
                        echoer.on_bytes(now, &so_far[consumed..]);
                        self.tasks.insert(slot, (conn, Task::Tunnel(echoer)));
                        self.dialer.on_established(now, slot, None);
                    }
                    Err(Rejection::Status {
                        code, retry_after, ..
                    }) => {
                        self.tasks.remove(&slot);
                        let reason = format!("http.{code}");
                        self.dialer
                            .on_failed(now, slot, &DialFailure::Rejected { reason, retry_after });
                    }
                    Err(other) => panic!("the responder answers {other:?}"),
                }
            }
        }
    }

    /// Fires what is due and does what the machines want.
    pub(crate) fn turn(&mut self, now: Instant, wire: &mut Wire) {
        self.dialer.handle_timeout(now);
        let mut silent = Vec::new();
        for (slot, (conn, task)) in &mut self.tasks {
            let Task::Tunnel(echoer) = task else { continue };
            echoer.handle_timeout(now, || None);
            while let Some(action) = echoer.poll_action() {
                match action {
                    EchoAction::Echo => {
                        wire.send(now, *conn, Toward::Responder, Parcel::Bytes(PING.to_vec()))
                    }
                    EchoAction::Silent => silent.push(*slot),
                    EchoAction::HandOff(bytes) => panic!("nobody sends data: {bytes:?}"),
                    EchoAction::Unexpected => panic!("nobody sends anything but pings"),
                }
            }
        }
        for slot in silent {
            self.hang_up(now, slot, wire);
            self.dialer.on_closed(now, slot, CloseReason::Silent);
        }
        while let Some(action) = self.dialer.poll_action() {
            match action {
                Action::Dial { slot, host, .. } => {
                    let responder = (0..self.wanted.len()).find(|n| address(*n) == host).unwrap();
                    let conn = wire.dial(now, self.me, responder);
                    wire.send(
                        now,
                        conn,
                        Toward::Responder,
                        Parcel::Bytes(self.offer(host, conn, slot)),
                    );
                    self.tasks.insert(slot, (conn, Task::Handshake(Vec::new())));
                }
                // The wire of this test loses no SYN.
                Action::Overlap { .. } => {}
                Action::Abort { slot, .. } | Action::Close { slot } => self.hang_up(now, slot, wire),
                // An idle tunnel has nothing to finish.
                Action::Drain { slot } => {
                    self.hang_up(now, slot, wire);
                    self.dialer.on_closed(now, slot, CloseReason::Drained);
                }
            }
        }
    }

    fn hang_up(&mut self, now: Instant, slot: Slot, wire: &mut Wire) {
        if let Some((conn, _)) = self.tasks.remove(&slot) {
            wire.send(now, conn, Toward::Responder, Parcel::End);
        }
    }

    fn offer(&self, host: SocketAddr, conn: Conn, slot: Slot) -> Vec<u8> {
        let berth = Berth {
            worker: WorkerId(0),
            lane: 0,
            slot: slot.index(),
        };
        let offer = Offer {
            path: DEFAULT_PATH,
            mode: Mode::Plain,
            host,
            identity: &self.identity,
            upstream_cluster: &hub(),
            initiation_time_ms: 0,
            worker: WorkerId(0),
            connection: conn.serial,
            instance: self.process.map(|nonce| Instance { nonce, berth }),
        };
        offer.encode()
    }
}
