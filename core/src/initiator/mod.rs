//! The initiator's root machine: one per worker, and every decision of an initiator.
//!
//! A worker's driver passes the hosts of upstream clusters and the lifecycle facts of its own dials and tunnels in, and performs
//! [`Action`]s; it decides nothing. Workers share nothing but the hosts, and the early breaks that worker 0 counts. The bytes
//! of a tunnel never pass through here: each tunnel's task has byte machines of its own ([`crate::keepalive`],
//! [`crate::frame_watch`]).
//!
//! ```text
//!   hosts ─▶ on_hosts ─▶ Dial ─▶ on_connected ─▶ on_established ─▶ on_upgraded ─▶ on_goaway ─▶ on_closed ─▶ Dial
//!                          └──▶ on_failed ─▶ Resolve, and Dial after a pause
//! ```

#[cfg(test)]
mod tests;
mod tunnels;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::address::TunnelAddress;
use crate::close::CloseReason;
use crate::closed::{Closed, ClosedLog};
use crate::dialer::{self, DialFailure, Dialer, DialerPolicy, HostView, Slot, Target, share};
use crate::identity::{ClusterName, Identity, TunnelId, WorkerId};
use crate::instance::{Berth, Instance};
use crate::phase::Phase;
use crate::rng::Rng;
use crate::selection::Selection;
use crate::shared_socket::SharedSocketWatch;
use crate::time::{Deadline, Instant};

pub use self::tunnels::Tunnel;
use self::tunnels::Tunnels;

/// What an initiator runs with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The worker that this machine is for.
    pub worker: WorkerId,
    /// How many workers the process has.
    pub workers: u16,
    /// The process, so that its tunnels are told from those of another one under the same node id.
    pub nonce: u64,
    /// How to dial.
    pub dial: DialerPolicy,
    /// The tunnels to keep.
    pub upstreams: Vec<UpstreamSettings>,
}

/// One `rc://` address of the configuration.
#[derive(Clone, Debug)]
pub struct UpstreamSettings {
    /// The address.
    pub address: TunnelAddress,
    /// Whether each worker keeps the whole number of tunnels, and not its share.
    pub per_worker: bool,
}

/// The place of one tunnel: a slot of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SlotAddress {
    /// The index of the upstream.
    pub upstream: usize,
    /// The slot there.
    pub slot: Slot,
}

/// An effect that the driver must perform, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Connect, and shake hands.
    Dial(Dial),
    /// Start another connect of a dial beside those in flight; the first that gets a connection is the dial's.
    Overlap(SlotAddress),
    /// Drop a dial in flight.
    Abort(SlotAddress),
    /// Let the requests on a tunnel finish, then close it.
    Drain(SlotAddress),
    /// Close a tunnel whose drain took too long.
    Close(SlotAddress),
    /// Log that a dial has failed.
    DialFailed {
        /// The dial.
        dial: Dial,
        /// Why.
        why: DialFailure,
    },
    /// Have the names of this cluster resolved again: a host may have moved.
    Resolve(ClusterName),
    /// Report to worker 0 that a tunnel to this host broke soon after its upgrade.
    ReportEarlyBreak(SocketAddr),
    /// Log advice for an Envoy that reads the sockets of tunnels twice (wire.md section 16).
    AdviseOnSharedSocket(SocketAddr),
}

/// A dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dial {
    /// Its place.
    pub at: SlotAddress,
    /// The tunnel that it becomes.
    pub tunnel: TunnelId,
    /// A cluster.
    pub cluster: ClusterName,
    /// A host of the cluster.
    pub host: SocketAddr,
}

#[derive(Clone, Debug)]
struct Upstream {
    settings: UpstreamSettings,
    dialer: Dialer,
}

/// The root machine of one worker.
#[derive(Clone, Debug)]
pub struct Initiator {
    worker: WorkerId,
    workers: u16,
    nonce: u64,
    upstreams: Vec<Upstream>,
    dials: BTreeMap<SlotAddress, Dial>,
    tunnels: Tunnels,
    /// The longest gap between pings that each host's tunnels have seen.
    ping_gaps: BTreeMap<SocketAddr, Duration>,
    shared_sockets: SharedSocketWatch,
    succeeded: BTreeMap<ClusterName, u64>,
    failed: BTreeMap<(ClusterName, String), u64>,
    /// The serial of the last dial.
    serial: u64,
    draining: bool,
    actions: VecDeque<Action>,
}

impl Initiator {
    /// A machine that knows no host yet.
    pub fn new(settings: Settings, rng: &mut Rng) -> Self {
        let upstream = |upstream| Upstream {
            settings: upstream,
            dialer: Dialer::new(settings.dial, rng.fork()),
        };
        Self {
            worker: settings.worker,
            workers: settings.workers,
            nonce: settings.nonce,
            upstreams: settings.upstreams.into_iter().map(upstream).collect(),
            dials: BTreeMap::new(),
            tunnels: Tunnels::default(),
            ping_gaps: BTreeMap::new(),
            shared_sockets: SharedSocketWatch::new(),
            succeeded: BTreeMap::new(),
            failed: BTreeMap::new(),
            serial: 0,
            draining: false,
            actions: VecDeque::new(),
        }
    }

    /// The hosts of an upstream cluster are these.
    pub fn on_hosts(&mut self, now: Instant, cluster: &ClusterName, hosts: &[SocketAddr]) {
        let others = self
            .upstreams
            .iter()
            .filter(|upstream| upstream.settings.address.cluster != *cluster);
        let dialed_by_others: Vec<_> = others
            .flat_map(|upstream| upstream.dialer.hosts())
            .map(|view| view.host)
            .collect();
        self.ping_gaps
            .retain(|host, _| hosts.contains(host) || dialed_by_others.contains(host));
        for upstream in &mut self.upstreams {
            let UpstreamSettings { address, per_worker } = &upstream.settings;
            if address.cluster != *cluster {
                continue;
            }
            let count = |host| share(address.count, self.workers, self.worker, host, *per_worker);
            let targets = hosts.iter().map(|&host| Target {
                host,
                count: count(host),
            });
            let targets: Vec<_> = targets.collect();
            upstream.dialer.on_targets(now, cluster, &targets);
        }
        self.collect();
    }

    /// A dial has its connection; the handshake is under way.
    pub fn on_connected(&mut self, now: Instant, at: SlotAddress) {
        self.with(at, |dialer| dialer.on_connected(now, at.slot));
    }

    /// A handshake was accepted: the tunnel is up. The responder may have asked to spread redials over some time.
    pub fn on_established(&mut self, now: Instant, at: SlotAddress, spread: Option<Duration>) {
        let Some(dial) = self.dials.remove(&at) else {
            return;
        };
        *self.succeeded.entry(dial.cluster).or_default() += 1;
        let identity = &self.upstreams[at.upstream].settings.address.identity;
        self.tunnels.open(now, dial.tunnel, at, identity, dial.host);
        self.with(at, |dialer| dialer.on_established(now, at.slot, spread));
    }

    /// A dial has failed.
    pub fn on_failed(&mut self, now: Instant, at: SlotAddress, why: DialFailure) {
        let Some(dial) = self.dials.remove(&at) else {
            return;
        };
        self.with(at, |dialer| dialer.on_failed(now, at.slot, &why));
        self.count_failure(dial, why);
    }

    /// A tunnel carries HTTP from now on.
    pub fn on_upgraded(&mut self, now: Instant, tunnel: TunnelId) {
        self.tunnels.change(now, tunnel, Phase::Active);
    }

    /// The responder drains a tunnel: a replacement is dialed. Until the responder ends the tunnel it may need it.
    pub fn on_goaway(&mut self, now: Instant, tunnel: TunnelId) {
        self.tunnels.change(now, tunnel, Phase::Draining);
        if let Some(at) = self.tunnels.get(tunnel).map(|tunnel| tunnel.at) {
            self.with(at, |dialer| dialer.on_goaway(now, at.slot));
        }
    }

    /// This end drains a tunnel.
    pub fn on_draining(&mut self, now: Instant, tunnel: TunnelId) {
        self.tunnels.change(now, tunnel, Phase::Draining);
    }

    /// A tunnel is gone. Returns what is remembered of it; nothing if it was closed before.
    pub fn on_closed(&mut self, now: Instant, tunnel: TunnelId, why: CloseReason) -> Option<Closed> {
        let (gone, closed) = self.tunnels.close(now, tunnel, why)?;
        if why == CloseReason::Silent && gone.upgraded.is_none() {
            // The next responder there may take longer from ping to ping than this one.
            self.ping_gaps.remove(&gone.host);
        }
        if let Some(upgraded) = gone.upgraded
            && SharedSocketWatch::is_early_break(now, upgraded, why)
        {
            self.actions.push_back(Action::ReportEarlyBreak(gone.host));
        }
        let at = gone.at;
        self.with(at, |dialer| dialer.on_closed(now, at.slot, why));
        Some(closed)
    }

    /// The task of a tunnel was cut, because its drain took too long ([`Action::Close`]). Returns what is remembered of the tunnel.
    pub fn on_cut(&mut self, now: Instant, tunnel: TunnelId) -> Option<Closed> {
        let (_, closed) = self.tunnels.close(now, tunnel, CloseReason::Drained)?;
        Some(closed)
    }

    /// A tunnel to this host, of any worker, broke soon after its upgrade. For worker 0.
    pub fn on_early_break(&mut self, now: Instant, host: SocketAddr) {
        if self.shared_sockets.on_early_break(now, host) {
            self.actions.push_back(Action::AdviseOnSharedSocket(host));
        }
    }

    /// Two pings to a host's tunnel had this gap between them.
    pub fn on_ping_gap(&mut self, host: SocketAddr, gap: Duration) {
        let longest = self.ping_gaps.entry(host).or_default();
        *longest = gap.max(*longest);
    }

    /// The longest gap between two pings that tunnels to this host have seen.
    pub fn ping_gap(&self, host: SocketAddr) -> Option<Duration> {
        self.ping_gaps.get(&host).copied()
    }

    /// Replaces the selected tunnels, each once its replacement is up. Returns how many those are.
    pub fn renew(&mut self, now: Instant, selection: &Selection) -> usize {
        let selected = self
            .tunnels
            .iter()
            .filter(|(id, tunnel)| selection.means(*id, &tunnel.identity));
        let selected: Vec<_> = selected.map(|(_, tunnel)| tunnel.at).collect();
        for at in &selected {
            self.with(*at, |dialer| dialer.renew(now, at.slot));
        }
        selected.len()
    }

    /// The process ends: dial no more, and let what runs finish.
    pub fn drain(&mut self, now: Instant) {
        self.draining = true;
        for upstream in &mut self.upstreams {
            upstream.dialer.drain(now);
        }
        self.collect();
    }

    /// Whether the process ends.
    pub const fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether a drain has come to its end.
    pub fn is_drained(&self) -> bool {
        let is_drained = |upstream: &Upstream| upstream.dialer.is_drained();
        self.draining && self.actions.is_empty() && self.upstreams.iter().all(is_drained)
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for upstream in &mut self.upstreams {
            upstream.dialer.handle_timeout(now);
        }
        self.collect();
    }

    /// When to call [`Initiator::handle_timeout`].
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.upstreams
            .iter()
            .map(|upstream| upstream.dialer.poll_timeout())
            .fold(None, Deadline::earlier)
    }

    /// The next effect to perform.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The identity that an upstream's tunnels announce.
    pub fn identity(&self, at: SlotAddress) -> &Identity {
        &self.upstreams[at.upstream].settings.address.identity
    }

    /// What a handshake says of the process and of the place in it.
    pub fn instance(&self, at: SlotAddress) -> Instance {
        Instance {
            nonce: self.nonce,
            berth: Berth {
                worker: self.worker,
                lane: u32::try_from(at.upstream).unwrap_or(u32::MAX),
                slot: at.slot.index(),
            },
        }
    }

    /// The identity of a tunnel that is up.
    pub fn tunnel(&self, tunnel: TunnelId) -> Option<&Arc<Identity>> {
        self.tunnels.get(tunnel).map(|tunnel| &tunnel.identity)
    }

    /// The tunnels that are up.
    pub fn tunnels(&self) -> impl Iterator<Item = (TunnelId, &Tunnel)> {
        self.tunnels.iter()
    }

    /// How many tunnels have come up.
    pub const fn opened_total(&self) -> u64 {
        self.tunnels.opened_total()
    }

    /// The tunnels that were up.
    pub const fn closed(&self) -> &ClosedLog {
        self.tunnels.closed()
    }

    /// The upstream clusters, in the order of the configuration.
    pub fn upstream_clusters(&self) -> impl Iterator<Item = &ClusterName> {
        self.upstreams
            .iter()
            .map(|upstream| &upstream.settings.address.cluster)
    }

    /// Each host, once for each upstream that dials it.
    pub fn hosts(&self) -> impl Iterator<Item = HostView<'_>> {
        self.upstreams.iter().flat_map(|upstream| upstream.dialer.hosts())
    }

    /// How many handshakes were accepted, by upstream cluster.
    pub const fn succeeded(&self) -> &BTreeMap<ClusterName, u64> {
        &self.succeeded
    }

    /// How many dials have failed, by upstream cluster and reason.
    pub const fn failed(&self) -> &BTreeMap<(ClusterName, String), u64> {
        &self.failed
    }

    fn with(&mut self, at: SlotAddress, tell: impl FnOnce(&mut Dialer)) {
        if let Some(upstream) = self.upstreams.get_mut(at.upstream) {
            tell(&mut upstream.dialer);
        }
        self.collect();
    }

    /// Takes over what the dialers want.
    fn collect(&mut self) {
        for upstream in 0..self.upstreams.len() {
            while let Some(action) = self.upstreams[upstream].dialer.poll_action() {
                self.apply(upstream, action);
            }
        }
    }

    fn apply(&mut self, upstream: usize, action: dialer::Action) {
        let at = |slot| SlotAddress { upstream, slot };
        match action {
            dialer::Action::Dial { slot, cluster, host } => {
                self.serial += 1;
                let tunnel = TunnelId {
                    named_by: self.worker,
                    serial: self.serial,
                };
                let at = at(slot);
                let dial = Dial {
                    at,
                    tunnel,
                    cluster,
                    host,
                };
                self.dials.insert(at, dial.clone());
                self.actions.push_back(Action::Dial(dial));
            }
            dialer::Action::Overlap { slot } => self.actions.push_back(Action::Overlap(at(slot))),
            dialer::Action::Abort { slot, timed_out } => {
                self.actions.push_back(Action::Abort(at(slot)));
                if let Some(dial) = self.dials.remove(&at(slot)).filter(|_| timed_out) {
                    self.count_failure(dial, DialFailure::TimedOut);
                }
            }
            dialer::Action::Drain { slot } => self.actions.push_back(Action::Drain(at(slot))),
            dialer::Action::Close { slot } => self.actions.push_back(Action::Close(at(slot))),
        }
    }

    fn count_failure(&mut self, dial: Dial, why: DialFailure) {
        let cluster = dial.cluster.clone();
        let key = (cluster.clone(), why.reason().to_owned());
        *self.failed.entry(key).or_default() += 1;
        self.actions.push_back(Action::DialFailed { dial, why });
        self.actions.push_back(Action::Resolve(cluster));
    }
}
