//! Paths: one direction between two addresses, open or not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::task::Waker;

use super::conditions::Conditions;

/// Every path of a network.
#[derive(Default)]
pub(super) struct Paths {
    conditions: BTreeMap<(IpAddr, IpAddr), Conditions>,
    blocked: BTreeSet<(IpAddr, IpAddr)>,
    waiting: Vec<Waker>,
}

impl Paths {
    pub(super) fn set_conditions(&mut self, from: IpAddr, to: IpAddr, conditions: Conditions) {
        self.conditions.insert((from, to), conditions);
    }

    pub(super) fn conditions(&self, from: IpAddr, to: IpAddr) -> Conditions {
        self.conditions.get(&(from, to)).cloned().unwrap_or_default()
    }

    pub(super) fn set_open(&mut self, from: IpAddr, to: IpAddr, open: bool) {
        if open {
            self.blocked.remove(&(from, to));
            self.waiting.drain(..).for_each(Waker::wake);
        } else {
            self.blocked.insert((from, to));
        }
    }

    /// Whether a SYN and its answer both get through.
    pub(super) fn are_open(&self, here: IpAddr, there: IpAddr) -> bool {
        !self.blocked.contains(&(here, there)) && !self.blocked.contains(&(there, here))
    }

    pub(super) fn wait(&mut self, waker: &Waker) {
        self.waiting.push(waker.clone());
    }
}
