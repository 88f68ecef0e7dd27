//! Runs the shipping code of [`eddy_runtime`] on turmoil's simulated network.
//!
//! Nothing of the protocol is here: [`fabric`] gives the runtime simulated sockets, [`scenario`] reads a story,
//! [`world`] plays it, an oracle watches from outside, and [`journal`] keeps what happened.

mod claims;
pub mod fabric;
pub mod journal;
mod ledger;
mod oracle;
mod panics;
pub mod report;
pub mod request;
pub mod scenario;
mod slot;
pub mod snapshot;
pub mod verdict;
pub mod world;
