//! What a worker answers when somebody asks why a request goes where it goes, or nowhere.

use eddy_core::cache::Standing;
use eddy_core::identity::TunnelId;
use eddy_core::responder::Expected;
use eddy_core::router::{Refusal, RouteKey};
use serde::Serialize;

use super::worker::Worker;
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
        let (tunnel, why) = match self.machine.borrow_mut().explain(now, &key) {
            Ok((tunnel, standing)) => (Some(tunnel), describe(standing)),
            Err((_, Some(expected))) => {
                let grace = self.config.egress.reconnect_grace;
                let because = match expected {
                    Expected::WasHere => "but one was here moments ago",
                    Expected::Startup => "but this process has just started",
                };
                let why = format!("no tunnel, {because}: a request waits up to {grace:?} for it");
                (None, why)
            }
            Err((Refusal::NoTunnel, None)) => (None, "no tunnel, and none was here lately".to_owned()),
            Err((why, _)) => (None, why.to_string()),
        };
        Choice {
            worker: self.id.to_string(),
            tunnel: tunnel.as_ref().map(TunnelId::to_string),
            why,
        }
    }
}

fn describe(standing: Standing) -> String {
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
