//! What a seed changes: instants, latencies, how bytes are cut. Under the scenario's own seed nothing is changed.

use std::time::Duration;

use eddy_core::rng::Rng;

use super::hostility::Hostility;
use crate::fabric::{Conditions, Stall};
use crate::scenario::{Action, Noise, Scenario};

/// All faults together come so much later, at most.
const SHIFT: Duration = Duration::from_millis(700);
/// Each fault alone comes so much later, at most.
const JITTER: Duration = Duration::from_millis(120);
/// Every segment takes so much longer, at most.
const SLOWER: Duration = Duration::from_millis(20);

/// How a run differs from what the file says.
#[derive(Clone, Debug)]
pub(crate) struct Variation {
    /// When each event of the timeline happens.
    pub(crate) instants: Vec<Duration>,
    /// Clients send at uneven times.
    pub(crate) shake: bool,
    /// What happens beside the timeline, in order.
    pub(crate) drawn: Vec<(Duration, Action, String)>,
    /// Connections of strangers beside those of the scenario.
    pub(crate) noise: Vec<Noise>,
    slower: Duration,
    cut: Option<usize>,
    glue: bool,
    stall: Option<Stall>,
}

impl Variation {
    pub(crate) fn of(scenario: &Scenario, seed: u64) -> Self {
        let mut instants: Vec<_> = scenario.timeline.iter().map(|event| event.at).collect();
        if seed == scenario.seed {
            return Self {
                instants,
                shake: false,
                drawn: Vec::new(),
                noise: Vec::new(),
                slower: Duration::ZERO,
                cut: None,
                glue: false,
                stall: None,
            };
        }
        let mut rng = Rng::from_seed(seed ^ 0x5eed);
        let shift = rng.between(Duration::ZERO, SHIFT);
        let mut last = Duration::ZERO;
        for at in &mut instants {
            // Later, but never before what came before.
            *at = (*at + shift + rng.between(Duration::ZERO, JITTER))
                .max(last)
                .min(scenario.duration);
            last = *at;
        }
        let slower = rng.between(Duration::ZERO, SLOWER);
        let (cut, glue, stall) = match rng.below(6) {
            0 => (Some(1), false, None),
            1 => (Some(1 + rng.below(200) as usize), false, None),
            2 => (None, true, None),
            3 => {
                let pause = rng.between(Duration::from_millis(1), Duration::from_millis(60));
                (None, false, Some(Stall { chance: 0.1, pause }))
            }
            _ => (None, false, None),
        };
        let Hostility { drawn, noise } = Hostility::draw(scenario, seed);
        Self {
            instants,
            shake: true,
            drawn,
            noise,
            slower,
            cut,
            glue,
            stall,
        }
    }

    pub(crate) fn vary(&self, conditions: &Conditions) -> Conditions {
        let (low, high) = (conditions.latency.start(), conditions.latency.end());
        Conditions {
            latency: *low..=*high + self.slower,
            // A loss or a stall for every byte would be no network at all.
            cut: conditions
                .cut
                .or_else(|| self.cut.filter(|_| conditions.loss == 0.0)),
            glue: conditions.glue || self.glue,
            stall: conditions
                .stall
                .or_else(|| self.stall.filter(|_| conditions.cut.is_none())),
            ..conditions.clone()
        }
    }
}
