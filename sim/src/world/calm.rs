//! After the story: every fault ends, everything must come back, and at last everything must go without a trace.

use std::time::Duration;

use super::faults::Link;
use super::services::Mood;
use super::{Step, World};
use crate::oracle::{Breach, Invariant};
use crate::scenario::Role;
use crate::slot::{Life, Signal};

/// How long the world may take to be whole again once nothing disturbs it: the longest pause of the dialer, a
/// verdict on what seemed alive, and a dial.
pub(super) const CALM: Duration = Duration::from_secs(30);
/// What a process may take to end beyond its drain timeout.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl World<'_> {
    pub(super) fn calm_down(&mut self) -> Step {
        self.end_every_fault();
        self.expect_by(
            CALM,
            Invariant::Liveness,
            "every tunnel is up, and every request has ended",
            |world| world.every_tunnel_is_up() && world.ledger.open() == 0,
        )?;
        self.probe_every_worker()?;
        self.end_everything()
    }

    fn end_every_fault(&mut self) {
        let machines: Vec<_> = self.addresses.keys().cloned().collect();
        for (at, here) in machines.iter().enumerate() {
            for there in &machines[at + 1..] {
                self.set_state(here, there, Link::Open);
            }
        }
        self.set_links(false);
        let all: Vec<_> = (0..self.slots.len()).collect();
        for &process in &all {
            let slot = &self.slots[process];
            if slot.frozen.get() {
                self.signal(&[process], &[Signal::Continue]);
            }
            // What is about to leave leaves, and comes back.
            if self.slots[process].life.get() != Life::Running {
                self.signal(&[process], &[Signal::Kill, Signal::Start]);
            }
        }
        self.set_mood(&all, Mood::Well(Duration::ZERO));
        self.set_conduct(&all, None);
    }

    /// Lets time pass until something is so.
    pub(super) fn expect_by(
        &mut self,
        within: Duration,
        invariant: Invariant,
        what: &str,
        is_so: impl Fn(&Self) -> bool,
    ) -> Step {
        let until = self.sim.elapsed() + within;
        while self.sim.elapsed() < until {
            self.step()?;
            if is_so(self) {
                return Ok(());
            }
        }
        Err(self.broken(&Breach {
            invariant,
            expected: format!("{what}, {within:?} after the last fault ended"),
            seen: self.state_in_words(),
        }))
    }

    fn state_in_words(&self) -> String {
        let told = self.slots.iter().take(20).map(|slot| {
            let truth = self.oracle.tunnels.whole_of(slot.id);
            let claims = slot.claims.borrow().as_ref().map(|claims| claims.tunnels);
            let claims = claims.map_or_else(|| "nothing".to_owned(), |claims| claims.to_string());
            format!("{} has {truth} tunnels and says {claims}", slot.name)
        });
        let open = self.ledger.open();
        format!(
            "{}; {open} requests are open",
            told.collect::<Vec<_>>().join(", ")
        )
    }

    /// Tells the initiators to end, and then the responders.
    fn end_everything(&mut self) -> Step {
        for responders in [false, true] {
            let mut longest = Duration::ZERO;
            let mut leaving = Vec::new();
            for (process, at) in self.scenario.processes.iter().zip(0..) {
                if (process.role == Role::Responder) == responders {
                    longest = longest.max(process.drain_timeout());
                    leaving.push(at);
                }
            }
            self.signal(&leaving, &[Signal::Terminate]);
            self.expect_by(
                longest + LAST_WORDS,
                Invariant::Leftover,
                "every process has ended",
                |world| {
                    leaving
                        .iter()
                        .all(|&process| world.slots[process].life.get() == Life::Ended)
                },
            )?;
        }
        for slot in &self.slots {
            let left = self.fabric.held_by(slot.id);
            if left > 0 {
                return Err(self.broken(&Breach {
                    invariant: Invariant::Leftover,
                    expected: format!("{} has closed everything, as it has ended", slot.name),
                    seen: format!("{left} connections are open"),
                }));
            }
        }
        Ok(())
    }
}
