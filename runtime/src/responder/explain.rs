//! What a worker answers when somebody asks why a request goes where it goes, or nowhere.

use eddy_core::cache::Standing;
use eddy_core::identity::TunnelId;
use eddy_core::router::{Refusal, RouteKey};
use serde::Serialize;

use super::Worker;
use crate::net::Network;
use crate::report::Asked;

/// What one worker would do with a request that comes now.
#[derive(Clone, Debug, Serialize)]
pub struct Choice {
    /// The worker.
    pub worker: String,
    /// The tunnel that it would choose.
    pub tunnel: Option<String>,
    /// Why that one, or why none.
    pub why: String,
}

impl<N: Network> Worker<N> {
    pub(super) fn explain(&self, asked: &Asked) -> Choice {
        let now = self.clock.now();
        let key = RouteKey {
            tenant: asked.tenant.as_deref(),
            names: asked.names,
            id: &asked.id,
        };
        let mut cache = self.cache.borrow_mut();
        cache.see(now);
        let (tunnel, why) = match cache.peek(&key) {
            Ok((tunnel, standing)) => (Some(tunnel), praise(standing)),
            Err(Refusal::NoTunnel) if self.departures.borrow().expects(now, &key) => {
                let grace = self.config.egress.reconnect_grace;
                let why = format!(
                    "no tunnel, but one was here moments ago: a request waits up to {grace:?} for it"
                );
                (None, why)
            }
            Err(Refusal::NoTunnel) => (None, "no tunnel, and none was here lately".to_owned()),
            Err(why) => (None, why.to_string()),
        };
        Choice {
            worker: self.id.to_string(),
            tunnel: tunnel.as_ref().map(TunnelId::to_string),
            why,
        }
    }
}

fn praise(standing: Standing) -> String {
    let whose = if standing.own {
        "its own"
    } else {
        "another worker's"
    };
    let streams = standing.streams;
    let doubt = if standing.suspect {
        ", though it owes an answer or an echo for long: there is no better one"
    } else if standing.leaving {
        ", though it is about to go: there is no other"
    } else {
        ""
    };
    format!("{whose}, with {streams} of its requests on it{doubt}")
}
