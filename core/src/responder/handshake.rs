//! Handshakes: who gets a tunnel, which worker owns it, and what the response says.

use std::borrow::Cow;
use std::time::Duration;

use super::Responder;
use crate::handshake::Refusal;
use crate::handshake::request::{Announcement, Demands};
use crate::identity::{Identity, TunnelId};
use crate::instance::Instance;
use crate::policy::{COME_BACK_EACH, COME_BACK_MAX, COME_BACK_MIN, REDIAL_SPREAD_EACH, REDIAL_SPREAD_MIN};
use crate::registry::Placement;

/// What becomes of a handshake.
pub type Decision = Result<Placement, Refusal>;

impl Responder {
    /// What handshakes must satisfy.
    pub const fn demands(&self) -> &Demands {
        &self.settings.demands
    }

    /// A handshake that satisfies the demands is complete. Places its tunnel on a worker.
    ///
    /// # Errors
    ///
    /// [`Refusal::Duplicate`] if another process has the node id and keeps it.
    pub fn on_handshake(&mut self, announced: &Announcement) -> Decision {
        if self.conflicts.refuses(&announced.identity, announced.instance) {
            return Err(Refusal::Duplicate);
        }
        Ok(self.registry.place(&announced.identity))
    }

    /// A tunnel that another worker placed here has arrived.
    pub fn on_adopted(&mut self, tunnel: TunnelId, identity: &Identity) {
        self.registry.on_adopted(tunnel, identity);
    }

    /// A tunnel that was placed on another worker could not be sent there.
    pub fn on_misplaced(&mut self, tunnel: TunnelId) {
        self.registry.on_misplaced(tunnel);
    }

    /// The response that makes a connection a tunnel. An Eddy is asked to spread its redials if the fleet is large.
    pub fn accept(&self, instance: Option<Instance>) -> Cow<'static, [u8]> {
        let tunnels = u32::try_from(self.directory.len()).unwrap_or(u32::MAX);
        let spread = REDIAL_SPREAD_EACH.saturating_mul(tunnels);
        if instance.is_none() || spread < REDIAL_SPREAD_MIN {
            return self.settings.demands.accept().into();
        }
        self.settings.demands.accept_and_spread(spread).into()
    }

    /// When an initiator that came on top of too many may come back: the more initiators are away, the later.
    pub fn retry_after(&mut self) -> Duration {
        let away = u32::try_from(self.absences.away()).unwrap_or(u32::MAX);
        let latest = COME_BACK_MAX.max(COME_BACK_EACH.saturating_mul(away));
        self.rng.between(COME_BACK_MIN, latest)
    }
}
