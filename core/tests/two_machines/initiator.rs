//! A driver of the initiator's machines: the root machine, the handshake's `Offer` and `response::parse`, `Echoer`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use eddy_core::address::TunnelAddress;
use eddy_core::close::CloseReason;
use eddy_core::dialer::{DialFailure, DialerPolicy};
use eddy_core::handshake::request::Offer;
use eddy_core::handshake::response::{self, Rejection};
use eddy_core::handshake::{DEFAULT_PATH, Mode, Parsed};
use eddy_core::identity::{ClusterId, ClusterName, Identity, NodeId, TenantId, TunnelId, WorkerId};
use eddy_core::initiator::{Action, Dial, Initiator as Machine, Settings, SlotAddress, UpstreamSettings};
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
    /// Whether it says that it is an Eddy.
    is_eddy: bool,
    pub(crate) machine: Machine,
    /// How many tunnels to keep to each responder.
    pub(crate) wanted: Vec<u32>,
    tasks: BTreeMap<SlotAddress, (Conn, TunnelId, Task)>,
}

pub(crate) fn address(responder: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(responder).unwrap()], 9_000))
}

/// The most tunnels to one responder: one for each of its upstreams.
pub(crate) const TUNNELS_MAX: usize = 3;

/// The cluster of one upstream, which keeps one tunnel to a responder, or none.
pub(crate) fn cluster(responder: usize, upstream: usize) -> ClusterName {
    ClusterName::parse(&format!("hub-{responder}-{upstream}")).unwrap()
}

impl Initiator {
    pub(crate) fn new(me: usize, responders: usize, mut rng: Rng) -> Self {
        let identity = Identity {
            tenant: TenantId::parse("t").unwrap(),
            cluster: ClusterId::parse("edges").unwrap(),
            node: NodeId::parse(&format!("edge-{me}")).unwrap(),
        };
        let upstreams = (0..responders).flat_map(|n| (0..TUNNELS_MAX).map(move |k| cluster(n, k)));
        let settings = Settings {
            worker: WorkerId(0),
            workers: 1,
            nonce: rng.next_u64(),
            dial: DialerPolicy {
                max_dials: 3,
                ..DialerPolicy::default()
            },
            upstreams: upstreams
                .map(|cluster| UpstreamSettings {
                    address: TunnelAddress {
                        identity: identity.clone(),
                        cluster,
                        count: 1,
                    },
                    per_worker: false,
                })
                .collect(),
        };
        Self {
            me,
            identity,
            is_eddy: me == 0,
            machine: Machine::new(settings, &mut rng),
            wanted: vec![0; responders],
            tasks: BTreeMap::new(),
        }
    }

    pub(crate) fn want(&mut self, now: Instant, wanted: Vec<u32>) {
        for (n, count) in wanted.iter().enumerate() {
            for k in 0..TUNNELS_MAX {
                let hosts = if k < *count as usize {
                    vec![address(n)]
                } else {
                    vec![]
                };
                self.machine.on_hosts(now, &cluster(n, k), &hosts);
            }
        }
        self.wanted = wanted;
    }

    /// At any time there is one place for each tunnel that is wanted, and the machine knows where each stands.
    pub(crate) fn check(&self) {
        for (n, wanted) in self.wanted.iter().enumerate() {
            let views = self.machine.hosts().filter(|view| view.host == address(n));
            let places: u32 = views
                .map(|view| view.connected + view.connecting + view.backing_off)
                .sum();
            assert_eq!(places, *wanted, "responder {n}");
        }
        let connected: u32 = self.machine.hosts().map(|view| view.connected).sum();
        assert_eq!(connected as usize, self.up().len());
        let known: BTreeSet<_> = self.machine.tunnels().map(|(tunnel, _)| tunnel).collect();
        let up = self
            .tasks
            .values()
            .filter(|(.., task)| matches!(task, Task::Tunnel(_)));
        assert_eq!(known, up.map(|(_, tunnel, _)| *tunnel).collect());
        let ended: u64 = self.machine.closed().by_reason().values().sum();
        assert_eq!(
            self.machine.opened_total(),
            ended + known.len() as u64,
            "each ends once"
        );
    }

    /// The connections whose handshake came to its end.
    pub(crate) fn up(&self) -> BTreeSet<Conn> {
        let up = self
            .tasks
            .values()
            .filter(|(.., task)| matches!(task, Task::Tunnel(_)));
        up.map(|(conn, ..)| *conn).collect()
    }

    pub(crate) fn has(&self, conn: Conn) -> bool {
        self.tasks.values().any(|(of, ..)| *of == conn)
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        let echoers = self.tasks.values().filter_map(|(.., task)| match task {
            Task::Tunnel(echoer) => echoer.poll_timeout(),
            Task::Handshake(_) => None,
        });
        echoers
            .chain(self.machine.poll_timeout())
            .map(|deadline| deadline.at)
            .min()
    }

    pub(crate) fn receive(&mut self, now: Instant, conn: Conn, parcel: Parcel) {
        let mut tasks = self.tasks.iter_mut();
        let Some((at, (_, tunnel, task))) = tasks.find(|(_, (of, ..))| *of == conn) else {
            return;
        };
        let (at, tunnel) = (*at, *tunnel);
        match (task, parcel) {
            (Task::Handshake(_), Parcel::End) => {
                self.tasks.remove(&at);
                self.machine.on_failed(now, at, DialFailure::Refused);
            }
            (Task::Tunnel(_), Parcel::End) => {
                self.tasks.remove(&at);
                self.machine.on_closed(now, tunnel, CloseReason::PeerClosed);
            }
            (Task::Tunnel(echoer), Parcel::Bytes(bytes)) => echoer.on_bytes(now, &bytes),
            (Task::Handshake(so_far), Parcel::Bytes(bytes)) => {
                so_far.extend(bytes);
                match response::parse(Mode::Plain, so_far) {
                    Ok(None) => {}
                    Ok(Some(Parsed { consumed, .. })) => {
                        let mut echoer = Echoer::new(now, SilencePolicy::default());
                        echoer.on_bytes(now, &so_far[consumed..]);
                        self.tasks.insert(at, (conn, tunnel, Task::Tunnel(echoer)));
                        self.machine.on_established(now, at, None);
                    }
                    Err(Rejection::Status {
                        code, retry_after, ..
                    }) => {
                        self.tasks.remove(&at);
                        let reason = format!("http.{code}");
                        self.machine
                            .on_failed(now, at, DialFailure::Rejected { reason, retry_after });
                    }
                    Err(other) => panic!("the responder answers {other:?}"),
                }
            }
        }
    }

    /// Fires what is due and does what the machines want.
    pub(crate) fn turn(&mut self, now: Instant, wire: &mut Wire) {
        self.machine.handle_timeout(now);
        let mut silent = Vec::new();
        for (at, (conn, tunnel, task)) in &mut self.tasks {
            let Task::Tunnel(echoer) = task else { continue };
            echoer.handle_timeout(now, || None);
            while let Some(action) = echoer.poll_action() {
                match action {
                    EchoAction::Echo => {
                        wire.send(now, *conn, Toward::Responder, Parcel::Bytes(PING.to_vec()))
                    }
                    EchoAction::Silent => silent.push((*at, *tunnel)),
                    EchoAction::HandOff(bytes) => panic!("nobody sends data: {bytes:?}"),
                    EchoAction::Unexpected => panic!("nobody sends anything but pings"),
                }
            }
        }
        for (at, tunnel) in silent {
            self.hang_up(now, at, wire);
            self.machine.on_closed(now, tunnel, CloseReason::Silent);
        }
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Dial(dial) => {
                    let host = dial.host;
                    let responder = (0..self.wanted.len()).find(|n| address(*n) == host).unwrap();
                    let conn = wire.dial(now, self.me, responder);
                    wire.send(
                        now,
                        conn,
                        Toward::Responder,
                        Parcel::Bytes(self.offer(&dial, conn)),
                    );
                    let task = Task::Handshake(Vec::new());
                    self.tasks.insert(dial.at, (conn, dial.tunnel, task));
                }
                // The wire of this test loses no SYN.
                Action::Overlap(_) => {}
                Action::Abort(at) => drop(self.hang_up(now, at, wire)),
                Action::Close(at) => {
                    if let Some(tunnel) = self.hang_up(now, at, wire) {
                        self.machine.on_cut(now, tunnel);
                    }
                }
                // An idle tunnel has nothing to finish.
                Action::Drain(at) => {
                    if let Some(tunnel) = self.hang_up(now, at, wire) {
                        self.machine.on_closed(now, tunnel, CloseReason::Drained);
                    }
                }
                // Hosts are addresses here, and logs are not read.
                Action::DialFailed { .. }
                | Action::Resolve(_)
                | Action::ReportEarlyBreak(_)
                | Action::AdviseOnSharedSocket(_) => {}
            }
        }
    }

    /// Ends a dial or a tunnel; returns the tunnel.
    fn hang_up(&mut self, now: Instant, at: SlotAddress, wire: &mut Wire) -> Option<TunnelId> {
        let (conn, tunnel, _) = self.tasks.remove(&at)?;
        wire.send(now, conn, Toward::Responder, Parcel::End);
        Some(tunnel)
    }

    fn offer(&self, dial: &Dial, conn: Conn) -> Vec<u8> {
        let offer = Offer {
            path: DEFAULT_PATH,
            mode: Mode::Plain,
            host: dial.host,
            identity: self.machine.identity(dial.at),
            upstream_cluster: &dial.cluster,
            initiation_time_ms: 0,
            worker: WorkerId(0),
            connection: conn.serial,
            instance: self.is_eddy.then(|| self.machine.instance(dial.at)),
        };
        offer.encode()
    }
}
