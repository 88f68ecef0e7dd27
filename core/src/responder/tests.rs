//! The root machine: as scripts with exact actions, as a table of its drain, and as histories of all workers of a process.

mod draining;
mod histories;
mod waits;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::attempts::{Attempts, Budget, RETRIES_MAX};
use crate::cache::Ended;
use crate::identity::{ClusterId, NodeId, TenantId};
use crate::instance::{Berth, Instance};
use crate::router::{Names, Refusal, RouteKey};
use crate::selection::Selection;

const DRAIN_DELAY: Duration = Duration::from_secs(10);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(1);

fn settings(worker: u16, workers: u16) -> Settings {
    Settings {
        worker: WorkerId(worker),
        workers,
        demands: Demands::default(),
        duplicates: duplicates::Policy::Pool,
        max_streams: 100,
        max_waiting: 8,
        reconnect_grace: GRACE,
        drain_delay: DRAIN_DELAY,
        drain_timeout: DRAIN_TIMEOUT,
    }
}

fn machine() -> Responder {
    Responder::new(settings(0, 1), at(0), Rng::from_seed(1))
}

fn at(millis: u64) -> Instant {
    Instant::from_origin(Duration::from_millis(millis))
}

fn who(node: &str) -> Arc<Identity> {
    Arc::new(Identity {
        tenant: TenantId::parse("t").unwrap(),
        cluster: ClusterId::parse("c").unwrap(),
        node: NodeId::parse(node).unwrap(),
    })
}

/// The tunnel in a place of an Eddy's process.
fn eddy(nonce: u64, slot: u32) -> Instance {
    let berth = Berth {
        worker: WorkerId(0),
        lane: 0,
        slot,
    };
    Instance { nonce, berth }
}

fn introduced(node: &str, instance: Option<Instance>, heard: Instant) -> Introduction {
    Introduction {
        identity: who(node),
        instance,
        heard,
    }
}

fn node(id: &str) -> RouteKey<'_> {
    RouteKey {
        tenant: None,
        names: Names::Node,
        id,
    }
}

fn request(began: Instant) -> Attempts {
    let budget = Budget {
        lost: RETRIES_MAX,
        refused: RETRIES_MAX,
    };
    Attempts::new(began, budget)
}

fn actions(machine: &mut Responder) -> Vec<Action> {
    std::iter::from_fn(|| machine.poll_action()).collect()
}

fn open(machine: &mut Responder, now: Instant, introduction: &Introduction) -> TunnelId {
    let placement = machine.registry.place(&introduction.identity);
    machine.on_opened(now, placement.tunnel, introduction);
    placement.tunnel
}
