//! Runs the shipping code of [`eddy_runtime`] on turmoil's simulated network.
//!
//! Nothing of the protocol is here: [`net`] gives the runtime simulated sockets, [`process`] starts it on a
//! simulated host as `bin` starts it on threads, and [`probe`] speaks plain HTTP to it from outside.

pub mod net;
pub mod probe;
pub mod process;
