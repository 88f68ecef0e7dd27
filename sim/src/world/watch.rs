//! Expectations with a time: looked at while the world runs.

use std::net::IpAddr;
use std::time::Duration;

use eddy_core::duplicates::Policy;
use eddy_runtime::config::{Config, InitiatorConfig};

use super::World;
use super::variation::Variation;
use crate::fabric::ProcessId;
use crate::scenario::{Condition, Fact, Scenario, Start, When};
use crate::slot::{Life, Slot};
use crate::verdict::{Verdict, seconds};

/// How often conditions are looked at.
const LOOK: Duration = Duration::from_millis(10);

/// A condition that is waited for.
struct Pending {
    place: usize,
    text: String,
    condition: Condition,
    from: Duration,
    until: Duration,
    /// When it was true.
    met: Option<Duration>,
}

/// Every condition of a scenario.
pub(super) struct Timed {
    pending: Vec<Pending>,
    next: Duration,
}

impl Timed {
    pub(super) fn new(scenario: &Scenario, variation: &Variation) -> Self {
        let mut pending = Vec::new();
        for (place, expectation) in scenario.expect.iter().enumerate() {
            let Fact::Timed { when, condition } = &expectation.fact else {
                continue;
            };
            let windows: Vec<_> = match when {
                // What is fixed to an instant is said of the file's own seed alone.
                When::At(_) | When::By(_) if variation.shake => Vec::new(),
                When::At(at) => vec![(*at, *at)],
                When::By(at) => vec![(Duration::ZERO, *at)],
                When::Within(time, starts) => {
                    let begin = |start: &Start| match start {
                        Start::Begin => Duration::ZERO,
                        Start::Event(event) => variation.instants[*event],
                    };
                    // Before everybody has noticed the event, the world looks as it did.
                    let window = |start| (begin(start) + LOOK, begin(start) + *time);
                    starts.iter().map(window).collect()
                }
            };
            pending.extend(windows.into_iter().map(|(from, until)| Pending {
                place,
                text: expectation.text.clone(),
                condition: condition.clone(),
                from,
                until: until.min(scenario.duration),
                met: None,
            }));
        }
        Self {
            pending,
            next: Duration::ZERO,
        }
    }

    pub(super) fn look(&mut self, world: &World<'_>) {
        let now = world.sim.elapsed();
        if now < self.next {
            return;
        }
        self.next = now + LOOK;
        for pending in &mut self.pending {
            let exact = pending.from == pending.until;
            let in_time =
                now >= pending.from && (now <= pending.until || (exact && now < pending.until + LOOK));
            if pending.met.is_none() && in_time && world.is_true(&pending.condition) {
                pending.met = Some(now);
            }
        }
    }

    /// One verdict per expectation: all its times must have been met.
    pub(super) fn finish(self) -> Vec<Verdict> {
        let mut verdicts: Vec<Verdict> = Vec::new();
        for pending in self.pending {
            let seen = match pending.met {
                Some(at) if pending.from == pending.until => format!("true at {}", seconds(at)),
                Some(at) => format!("after {}", seconds(at.saturating_sub(pending.from))),
                None => "never in time".to_owned(),
            };
            match verdicts.last_mut().filter(|last| last.place == pending.place) {
                Some(last) => {
                    last.holds &= pending.met.is_some();
                    last.seen = format!("{}, {seen}", last.seen);
                }
                None => verdicts.push(Verdict {
                    place: pending.place,
                    text: pending.text,
                    holds: pending.met.is_some(),
                    seen,
                }),
            }
        }
        verdicts
    }
}

impl World<'_> {
    fn is_true(&self, condition: &Condition) -> bool {
        match condition {
            Condition::EveryTunnelUp => self.every_tunnel_is_up(),
            Condition::NoTunnelUp => !self.oracle.tunnels.any_whole(),
            Condition::Tunnels(who, compare, bound) => {
                let processes = who.iter().map(|&process| &self.slots[process]);
                let (mut truth, mut claimed) = (0, 0);
                for slot in processes {
                    truth += self.oracle.tunnels.held_by(slot.id);
                    let claims = slot.claims.borrow();
                    claimed += claims.as_ref().map_or(0, |claims| claims.tunnels);
                }
                let holds = |seen: usize| {
                    compare.holds(count(seen), count(usize::try_from(*bound).unwrap_or(usize::MAX)))
                };
                holds(truth) && holds(claimed)
            }
            Condition::Stat(process, name, compare, bound) => {
                let claims = self.slots[*process].claims.borrow();
                let stats = claims.as_ref().map_or(&[][..], |claims| &claims.stats);
                let value = stats
                    .iter()
                    .find(|(known, _)| known == name)
                    .map_or(0, |(_, value)| *value);
                #[expect(clippy::cast_precision_loss, reason = "numbers that people write are exact")]
                compare.holds(value as f64, *bound as f64)
            }
        }
    }

    /// Whether each initiator that runs has every tunnel that it should have, whole, and both ends say so.
    pub(super) fn every_tunnel_is_up(&self) -> bool {
        let alive = |slot: &Slot| slot.life.get() == Life::Running && !slot.frozen.get();
        let dialers = self.scenario.processes.iter().zip(&self.slots);
        let mut any = false;
        for (process, slot) in dialers {
            if !alive(slot) {
                continue;
            }
            let claimed = slot.claims.borrow().as_ref().map(|claims| claims.tunnels);
            let held = self.oracle.tunnels.held_by(slot.id);
            if claimed != Some(held) || held != self.oracle.tunnels.whole_of(slot.id) {
                return false;
            }
            if let Config::Initiator(config) = &process.config {
                any = true;
                if held != self.wanted_tunnels(slot.id) && !(held == 0 && self.is_kept_out(config)) {
                    return false;
                }
            }
        }
        any
    }

    /// Whether another initiator has all of one's node ids, and a responder lets only one have them.
    fn is_kept_out(&self, config: &InitiatorConfig) -> bool {
        let mut processes = self.scenario.processes.iter().zip(&self.slots);
        let exclusive = processes.clone().any(|(process, _)| match &process.config {
            Config::Responder(responder) => responder.tunnels.duplicates != Policy::Pool,
            Config::Initiator(_) => false,
        });
        let identities = |config: &InitiatorConfig| -> Vec<_> {
            let tunnels = config.tunnels.iter();
            tunnels.map(|tunnel| tunnel.address.identity.clone()).collect()
        };
        let mine = identities(config);
        exclusive
            && processes.any(|(process, slot)| match &process.config {
                Config::Responder(_) => false,
                Config::Initiator(other) => {
                    let held = self.oracle.tunnels.held_by(slot.id);
                    held > 0 && held == self.wanted_tunnels(slot.id) && identities(other) == mine
                }
            })
    }

    /// How many tunnels an initiator should hold, by its configuration and what names mean now.
    fn wanted_tunnels(&self, process: ProcessId) -> usize {
        let Config::Initiator(config) = &self.scenario.processes[process.0].config else {
            return 0;
        };
        let wanted = config.tunnels.iter().map(|tunnel| {
            let workers = if tunnel.per_worker {
                usize::from(config.workers)
            } else {
                1
            };
            let hosts = config.clusters.get(&tunnel.address.cluster);
            let addresses = hosts.into_iter().flat_map(|cluster| &cluster.hosts);
            let addresses = addresses.map(|host| match host.host.parse::<IpAddr>() {
                Ok(_) => 1,
                Err(_) => self.fabric.resolve(&host.host).len(),
            });
            tunnel.address.count as usize * workers * addresses.sum::<usize>()
        });
        wanted.sum()
    }
}

fn count(number: usize) -> f64 {
    u32::try_from(number).unwrap_or(u32::MAX).into()
}
