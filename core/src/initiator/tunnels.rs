//! The tunnels of one worker that are up, and those that were.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::SlotAddress;
use crate::close::CloseReason;
use crate::closed::{Closed, ClosedLog};
use crate::identity::{Identity, TunnelId};
use crate::phase::Phase;
use crate::time::Instant;

/// A tunnel that is up.
#[derive(Clone, Debug)]
pub struct Tunnel {
    /// Its place.
    pub at: SlotAddress,
    /// The identity that it has announced.
    pub identity: Arc<Identity>,
    /// The responder.
    pub host: SocketAddr,
    /// Where it is in its life.
    pub phase: Phase,
    /// Since when it is there.
    pub since: Instant,
    /// When it came up.
    pub opened: Instant,
    /// When it became HTTP.
    pub upgraded: Option<Instant>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Tunnels {
    up: BTreeMap<TunnelId, Tunnel>,
    closed: ClosedLog,
    opened_total: u64,
}

impl Tunnels {
    pub(super) fn open(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        at: SlotAddress,
        identity: &Identity,
        host: SocketAddr,
    ) {
        self.opened_total += 1;
        let opened = Tunnel {
            at,
            identity: Arc::new(identity.clone()),
            host,
            phase: Phase::Idle,
            since: now,
            opened: now,
            upgraded: None,
        };
        self.up.insert(tunnel, opened);
    }

    pub(super) fn change(&mut self, now: Instant, tunnel: TunnelId, phase: Phase) {
        if let Some(tunnel) = self.up.get_mut(&tunnel) {
            (tunnel.phase, tunnel.since) = (phase, now);
            if phase == Phase::Active {
                tunnel.upgraded = Some(now);
            }
        }
    }

    pub(super) fn close(
        &mut self,
        now: Instant,
        tunnel: TunnelId,
        why: CloseReason,
    ) -> Option<(Tunnel, Closed)> {
        let gone = self.up.remove(&tunnel)?;
        let closed = Closed {
            tunnel,
            identity: Arc::clone(&gone.identity),
            at: now,
            lived: now - gone.opened,
            why,
        };
        self.closed.push(closed.clone());
        Some((gone, closed))
    }

    pub(super) fn get(&self, tunnel: TunnelId) -> Option<&Tunnel> {
        self.up.get(&tunnel)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (TunnelId, &Tunnel)> {
        self.up.iter().map(|(id, tunnel)| (*id, tunnel))
    }

    pub(super) const fn opened_total(&self) -> u64 {
        self.opened_total
    }

    pub(super) const fn closed(&self) -> &ClosedLog {
        &self.closed
    }
}
