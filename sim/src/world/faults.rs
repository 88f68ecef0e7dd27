//! Does what the timeline says: to links through turmoil and the fabric, to processes by signals.

use std::time::Duration;

use super::World;
use super::process::Signal;
use super::services::Mood;
use crate::journal::What;
use crate::oracle::Impediment;
use crate::scenario::Action;

/// What can be done to a link.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Cut,
    CutOneWay,
    Healed,
    Held,
    Released,
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
            self.act(now, &event.action);
        }
    }

    fn act(&mut self, now: Duration, action: &Action) {
        match action {
            Action::Partition(here, there) => self.set_all(here, there, Link::Cut),
            Action::PartitionOneWay(from, to) => self.set_all(from, to, Link::CutOneWay),
            Action::Heal(here, there) => self.set_all(here, there, Link::Healed),
            Action::Hold(here, there) => self.set_all(here, there, Link::Held),
            Action::Release(here, there) => self.set_all(here, there, Link::Released),
            Action::Crash(who) => self.signal(now, who, &[Signal::Kill], Some(Impediment::Down)),
            Action::Start(who) => self.signal(now, who, &[Signal::Start], None),
            Action::Restart(who) => self.signal(now, who, &[Signal::Kill, Signal::Start], None),
            Action::Drain(who) => self.signal(now, who, &[Signal::Terminate], Some(Impediment::Leaving)),
            Action::Freeze(who) => self.signal(now, who, &[Signal::Stop], Some(Impediment::Frozen)),
            Action::Thaw(who) => self.signal(now, who, &[Signal::Continue], None),
            Action::Dns(book) => self.set_book(book),
            Action::SlowService(of, by) => self.set_mood(of, Mood::Well(*by)),
            Action::StopService(of) => self.set_mood(of, Mood::Stopped),
            Action::ResetService(of) => self.set_mood(of, Mood::Resetting),
            Action::StartService(of) => self.set_mood(of, Mood::Well(Duration::ZERO)),
        }
    }

    pub(super) fn signal(
        &mut self,
        now: Duration,
        who: &[usize],
        signals: &[Signal],
        lasts: Option<Impediment>,
    ) {
        for &process in who {
            let slot = &self.slots[process];
            signals.iter().for_each(|signal| slot.signal(*signal));
            self.oracle.disturbances.process(now, slot.id, lasts);
        }
    }

    pub(super) fn set_mood(&self, of: &[usize], mood: Mood) {
        for service in of.iter().filter_map(|&process| self.services[process].as_ref()) {
            service.set_mood(mood);
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
            Link::Healed => self.sim.repair(here, there),
            Link::Held => self.sim.hold(here, there),
            Link::Released => self.sim.release(here, there),
        }
        let open = matches!(to, Link::Healed | Link::Released);
        self.fabric.set_open(a, b, open);
        self.oracle.disturbances.path(now, here, there, open);
        if to != Link::CutOneWay {
            self.fabric.set_open(b, a, open);
            self.oracle.disturbances.path(now, there, here, open);
        }
    }
}
