//! Does what the timeline says: to links through turmoil and the fabric, to processes by signals.

use std::time::Duration;

use super::World;
use super::services::Mood;
use crate::fabric::Passage;
use crate::journal::What;
use crate::scenario::{Action, Misbehaviour};
use crate::slot::Signal;

/// What can be done to a link.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Cut,
    CutOneWay,
    Held,
    Open,
}

impl World<'_> {
    pub(super) fn do_what_is_due(&mut self) {
        let now = self.sim.elapsed();
        while let Some(event) = self.scenario.timeline.get(self.next_event) {
            if self.variation.instants[self.next_event] > now {
                return;
            }
            self.next_event += 1;
            let text = event.text.clone();
            self.journal.record(now, "timeline", What::Fault { text });
            self.act(&event.action);
        }
    }

    /// Does what the seed adds to the timeline.
    pub(super) fn do_what_is_drawn(&mut self) {
        let now = self.sim.elapsed();
        while let Some((at, action, text)) = self.variation.drawn.get(self.next_drawn).cloned() {
            if at > now {
                return;
            }
            self.next_drawn += 1;
            self.journal.record(now, "timeline", What::Fault { text });
            self.act(&action);
        }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Partition(here, there) => self.set_all(here, there, Link::Cut),
            Action::PartitionOneWay(from, to) => self.set_all(from, to, Link::CutOneWay),
            Action::Heal(here, there) | Action::Release(here, there) => self.set_all(here, there, Link::Open),
            Action::Hold(here, there) => self.set_all(here, there, Link::Held),
            Action::Crash(who) => self.signal(who, &[Signal::Kill]),
            Action::Start(who) => self.signal(who, &[Signal::Start]),
            Action::Restart(who) => self.signal(who, &[Signal::Kill, Signal::Start]),
            Action::Drain(who) => self.signal(who, &[Signal::Terminate]),
            Action::Renew(who) => self.signal(who, &[Signal::Renew]),
            Action::Freeze(who) => self.signal(who, &[Signal::Stop]),
            Action::Thaw(who) => self.signal(who, &[Signal::Continue]),
            Action::Dns(book) => self.set_book(book),
            Action::SlowService(of, by) => self.set_mood(of, Mood::Well(*by)),
            Action::StopService(of) => self.set_mood(of, Mood::Stopped),
            Action::ResetService(of) => self.set_mood(of, Mood::Resetting),
            Action::StartService(of) => {
                self.set_mood(of, Mood::Well(Duration::ZERO));
                self.set_conduct(of, None);
            }
            Action::Misbehave(who, misbehaviour) => self.set_conduct(who, Some(misbehaviour)),
            Action::Behave(who) => self.set_conduct(who, None),
            Action::Probe(via) => self.probe(via),
        }
    }

    pub(super) fn signal(&self, who: &[usize], signals: &[Signal]) {
        for &process in who {
            let slot = &self.slots[process];
            signals.iter().for_each(|signal| slot.signal(*signal));
        }
    }

    pub(super) fn set_mood(&self, of: &[usize], mood: Mood) {
        for service in of.iter().filter_map(|&process| self.services[process].as_ref()) {
            service.set_mood(mood);
        }
    }

    pub(super) fn set_conduct(&self, of: &[usize], misbehaviour: Option<&Misbehaviour>) {
        for &process in of {
            self.conducts[process].set(misbehaviour.cloned());
        }
    }

    fn set_all(&mut self, here: &[String], there: &[String], to: Link) {
        for here in here {
            for there in there.iter().filter(|there| *there != here) {
                self.set_state(here, there, to);
            }
        }
    }

    pub(super) fn set_state(&mut self, here: &str, there: &str, to: Link) {
        let (Some(&a), Some(&b)) = (self.addresses.get(here), self.addresses.get(there)) else {
            return;
        };
        let now = self.sim.elapsed();
        match to {
            Link::Cut => self.sim.partition(here, there),
            Link::CutOneWay => self.sim.partition_oneway(here, there),
            Link::Held => self.sim.hold(here, there),
            // Whichever it was, and be it both one after the other.
            Link::Open => {
                self.sim.repair(here, there);
                self.sim.release(here, there);
            }
        }
        let open = to == Link::Open;
        let passage = match to {
            Link::Open => Passage::Open,
            Link::Held => Passage::Held,
            Link::Cut | Link::CutOneWay => Passage::Cut,
        };
        self.fabric.set_passage(now, a, b, passage);
        self.oracle.disturbances.path(now, here, there, open);
        if to != Link::CutOneWay {
            self.fabric.set_passage(now, b, a, passage);
            self.oracle.disturbances.path(now, there, here, open);
        }
    }
}
