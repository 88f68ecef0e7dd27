//! The routes of one worker, each with the connections of its cluster.

use std::rc::Rc;
use std::time::Duration;

use eddy_core::router::Prefixes;

use super::services::Services;
use crate::clock::Clock;
use crate::config::InitiatorConfig;
use crate::net::Network;

/// Where a prefix leads.
pub(super) struct Route<N: Network> {
    pub(super) services: Rc<Services<N>>,
    pub(super) timeout: Duration,
    pub(super) body_idle_timeout: Duration,
}

/// The routes of one worker, each with the connections of its cluster.
pub(super) fn of<N: Network>(net: &N, config: &InitiatorConfig, clock: Clock) -> Prefixes<Route<N>> {
    let pools: std::collections::BTreeMap<_, _> = config
        .clusters
        .iter()
        .map(|(name, cluster)| {
            let pool = Services::new(
                net.clone(),
                clock,
                config.services.clone(),
                config.dial.dns_refresh,
                cluster,
            );
            (name.clone(), Rc::new(pool))
        })
        .collect();
    Prefixes::new(config.routes.iter().filter_map(|route| {
        let services = Rc::clone(pools.get(&route.cluster)?);
        Some((
            route.prefix.clone(),
            Route {
                services,
                timeout: route.timeout,
                body_idle_timeout: route.body_idle_timeout,
            },
        ))
    }))
}
