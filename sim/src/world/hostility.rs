//! What a seed adds to a scenario that is `hostile`: services that misbehave, and floods of strangers.
//!
//! Both leave the scenario's expectations as they are: requests that are mistreated do not count as lost, and a flood stays
//! below what a responder takes by default.

use std::time::Duration;

use eddy_core::rng::Rng;
use eddy_runtime::config::Config;

use crate::scenario::{Action, Misbehaviour, Misdeed, Noise, Role, Scenario};

/// One seed in so many has services that misbehave.
const MISBEHAVIOUR: u64 = 2;
/// One seed in so many has a flood.
const FLOOD: u64 = 3;
/// The share of requests that are mistreated, in per cent.
const SHARES: (u64, u64) = (1, 10);
/// How long a stall lasts: shorter than the timeouts of clients.
const STALL: Duration = Duration::from_secs(2);
/// The most connections of a flood for each worker of its responder: below `max_pending_handshakes` by default.
const FLOOD_MAX: u64 = 600;

/// How long after its end a connection of a flood is replaced: a source has no more than 16,384 ports.
const AGAIN: Duration = Duration::from_secs(1);

/// What is added.
#[derive(Default)]
pub(super) struct Hostility {
    pub(super) drawn: Vec<(Duration, Action, String)>,
    pub(super) noise: Vec<Noise>,
}

impl Hostility {
    pub(super) fn draw(scenario: &Scenario, seed: u64) -> Self {
        let mut hostility = Self::default();
        if !scenario.hostile {
            return hostility;
        }
        let mut rng = Rng::from_seed(seed ^ 0x4057_11e5);
        if rng.below(MISBEHAVIOUR) == 0 {
            hostility.misbehave(scenario, &mut rng);
        }
        if rng.below(FLOOD) == 0 {
            hostility.flood(scenario, &mut rng);
        }
        hostility
    }

    fn misbehave(&mut self, scenario: &Scenario, rng: &mut Rng) {
        let processes = scenario.processes.iter().zip(0..);
        let initiators = processes.filter(|(process, _)| matches!(process.role, Role::Initiator { .. }));
        let who: Vec<usize> = initiators.map(|(_, at)| at).collect();
        let ways = 1 + rng.below(3);
        let mut how: Vec<Misdeed> = (0..ways)
            .map(|_| Misdeed::OF_SERVICES[rng.below(Misdeed::OF_SERVICES.len() as u64) as usize])
            .collect();
        how.sort();
        how.dedup();
        let percent = SHARES.0 + rng.below(SHARES.1 - SHARES.0 + 1);
        let from = rng.between(scenario.duration / 10, scenario.duration / 2);
        let to = from + rng.between(scenario.duration / 5, scenario.duration / 2);
        let names: Vec<_> = how.iter().map(|misdeed| misdeed.label()).collect();
        let text = format!("misbehave (drawn): {percent}% of requests, {}", names.join(", "));
        let misbehaviour = Misbehaviour {
            how,
            share: percent as f64 / 100.0,
            lasts: Some(STALL),
        };
        self.drawn
            .push((from, Action::Misbehave(who.clone(), misbehaviour), text));
        let text = "behave (drawn)".to_owned();
        self.drawn.push((to, Action::Behave(who), text));
    }

    fn flood(&mut self, scenario: &Scenario, rng: &mut Rng) {
        let responders = scenario.processes.iter().zip(0..);
        let responders: Vec<_> = responders
            .filter_map(|(process, at)| match &process.config {
                Config::Responder(config) => Some((at, u64::from(config.workers))),
                Config::Initiator(_) => None,
            })
            .collect();
        if responders.is_empty() {
            return;
        }
        let (to, workers) = responders[rng.below(responders.len() as u64) as usize];
        let connections = 100 + rng.below(FLOOD_MAX * workers - 99);
        let start = rng.between(Duration::ZERO, scenario.duration / 2);
        self.noise.push(Noise {
            to,
            start,
            connections: u32::try_from(connections).unwrap_or(u32::MAX),
            every: Duration::from_millis(1),
            sources: 1 + rng.below(3) as u32,
            sends: String::new(),
            drip: Duration::ZERO,
            stays: scenario.duration / 3,
            again: (rng.below(2) == 0).then_some(AGAIN),
        });
    }
}
