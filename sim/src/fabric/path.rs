//! Paths: one direction between two addresses, with its condition and whether it lets anything through.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::task::Waker;

use super::bottleneck::Bottleneck;
use super::conditions::Conditions;
use super::flow::Condition;

/// Whether a path lets segments through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Segments get through.
    Open,
    /// Segments are lost.
    Cut,
    /// Segments wait until the path opens.
    Held,
}

/// Every path of a network.
#[derive(Default)]
pub(super) struct Paths {
    conditions: BTreeMap<(IpAddr, IpAddr), Conditions>,
    /// The paths with limited bandwidth.
    pub(super) bottlenecks: BTreeMap<(IpAddr, IpAddr), Bottleneck>,
    /// The paths that are not open.
    blocked: BTreeMap<(IpAddr, IpAddr), Passage>,
    waiting: Vec<Waker>,
}

impl Paths {
    pub(super) fn set_conditions(&mut self, from: IpAddr, to: IpAddr, conditions: Conditions) {
        if let Some(rate) = conditions.bandwidth {
            self.bottlenecks
                .entry((from, to))
                .and_modify(|link| link.set_limits(rate, conditions.queue))
                .or_insert_with(|| Bottleneck::new(rate, conditions.queue));
        }
        self.conditions.insert((from, to), conditions);
    }

    pub(super) fn conditions(&self, from: IpAddr, to: IpAddr) -> Conditions {
        self.conditions.get(&(from, to)).cloned().unwrap_or_default()
    }

    pub(super) fn set_passage(&mut self, from: IpAddr, to: IpAddr, passage: Passage) {
        if passage == Passage::Open {
            self.blocked.remove(&(from, to));
            self.waiting.drain(..).for_each(Waker::wake);
        } else {
            self.blocked.insert((from, to), passage);
        }
    }

    /// What becomes of bytes from one address to another, and of their acknowledgements.
    pub(super) fn condition(&self, from: IpAddr, to: IpAddr) -> Condition {
        match (self.blocked.get(&(from, to)), self.blocked.get(&(to, from))) {
            (Some(Passage::Cut), _) => Condition::Cut,
            (Some(Passage::Held), _) => Condition::Held,
            (None | Some(Passage::Open), Some(Passage::Cut | Passage::Held)) => Condition::OneWay,
            (None | Some(Passage::Open), None | Some(Passage::Open)) => Condition::Open,
        }
    }

    /// Whether a SYN and its answer both get through.
    pub(super) fn are_open(&self, here: IpAddr, there: IpAddr) -> bool {
        !self.blocked.contains_key(&(here, there)) && !self.blocked.contains_key(&(there, here))
    }

    pub(super) fn wait(&mut self, waker: &Waker) {
        self.waiting.push(waker.clone());
    }
}
