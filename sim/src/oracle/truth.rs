//! Invariant 5: what a process says of itself is what everybody else knows, as soon as all is quiet.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Breach, Invariant, Oracle};
use crate::claims::Claims;
use crate::request::Outcome;
use crate::scenario::Role;
use crate::slot::Slot;

/// For so long nothing must have happened.
const QUIET: Duration = Duration::from_secs(1);
/// How old the numbers of a process may be.
const FRESH: Duration = Duration::from_millis(600);

impl Oracle {
    /// Compares the numbers of each process with the network, the clients and the services.
    pub(super) fn check_truth(&self, now: Duration) -> Result<(), Breach> {
        let last = self.tunnels.last_change.max(self.disturbances.last_change());
        let quiet = last.max(self.noise_until) + QUIET + FRESH <= now && !self.disturbances.any_ongoing();
        if !quiet || self.tunnels.any_half_open() {
            return Ok(());
        }
        for slot in self.slots.iter().filter(|slot| slot.is_alive()) {
            let claims = slot.claims.borrow();
            let Some(claims) = claims.as_ref().filter(|claims| claims.at + FRESH >= now) else {
                continue;
            };
            if matches!(self.processes[slot.id.0].role, Role::Peer { .. }) {
                continue;
            }
            self.check_tunnels(slot, claims)?;
            self.check_directories(slot, claims)?;
            if self.ledger.open() == 0 && self.ledger.last_change() + QUIET + FRESH <= now {
                self.check_requests(slot, claims)?;
            }
        }
        Ok(())
    }

    /// The list of tunnels, the gauge, and the counters agree with the network.
    fn check_tunnels(&self, slot: &Slot, claims: &Claims) -> Result<(), Breach> {
        let truth = self.tunnels.held_by(slot.id) as u64;
        let numbers = Numbers::of(claims);
        let open = numbers.get("reverse_tunnel.open");
        let counted = numbers.get("reverse_tunnel.opened") - numbers.sum("reverse_tunnel.closed.");
        for (what, said) in [
            ("/tunnels", claims.tunnels as u64),
            ("reverse_tunnel.open", open),
            ("opened less closed", counted),
        ] {
            expect(slot, what, said, truth..=truth)?;
        }
        Ok(())
    }

    /// The counters agree with what the clients saw, and nothing is under way.
    fn check_requests(&self, slot: &Slot, claims: &Claims) -> Result<(), Breach> {
        let numbers = Numbers::of(claims);
        for hop in ["egress", "service"] {
            expect(slot, "in_flight", numbers.get(&format!("{hop}.in_flight")), 0..=0)?;
        }
        if self.processes[slot.id.0].role != Role::Responder {
            return Ok(());
        }
        let (mut answered, mut unclear) = (0, 0);
        self.ledger.each(|request| {
            let began = slot.began.get();
            let ended_before = request.ended.as_ref().is_some_and(|(at, _)| *at < began);
            if request.via == slot.id && !ended_before {
                match &request.ended {
                    Some((_, Outcome::Answer { .. })) if request.sent >= began => answered += 1,
                    // Sent to the process before this one, it may have come to this one.
                    Some((_, Outcome::Answer { .. })) => unclear += 1,
                    // It may have had its answer on the way, or never have come.
                    Some((
                        _,
                        Outcome::Broken(_) | Outcome::TimedOut | Outcome::Stopped | Outcome::Foreign(_),
                    ))
                    | None => unclear += 1,
                }
            }
        });
        let said = numbers.sum("egress.responses.") + numbers.sum("egress.refused.");
        expect(slot, "answers", said, answered..=answered + unclear)
    }
}

/// The lines of `/stats`.
struct Numbers<'a>(BTreeMap<&'a str, u64>);

impl<'a> Numbers<'a> {
    fn of(claims: &'a Claims) -> Self {
        Self(
            claims
                .stats
                .iter()
                .map(|(name, value)| (name.as_str(), *value))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    fn sum(&self, prefix: &str) -> u64 {
        let named = self.0.iter().filter(|(name, _)| name.starts_with(prefix));
        named.map(|(_, value)| value).sum()
    }
}

fn expect(slot: &Slot, what: &str, said: u64, truth: std::ops::RangeInclusive<u64>) -> Result<(), Breach> {
    if truth.contains(&said) {
        return Ok(());
    }
    let (least, most) = truth.into_inner();
    let truth = if least == most {
        least.to_string()
    } else {
        format!("{least} to {most}")
    };
    Err(Breach {
        invariant: Invariant::Truth,
        expected: format!("{} says {truth} ({what})", slot.name),
        seen: format!("it says {said}"),
    })
}
