//! Drives [`eddy_core`] over a network: the shipping code of both roles.
//!
//! Generic over [`net::Network`], so that the very same code runs on the operating system's sockets and on a
//! simulation's. Workers are futures that are not `Send`: who starts them decides whether each gets a thread.

pub mod admin;
mod api;
pub mod clock;
pub mod hello;
mod http;
pub mod initiator;
mod latch;
mod limited_log;
mod mailbox;
mod memory;
pub mod net;
pub mod overview;
pub mod record;
pub mod report;
pub mod responder;

pub use eddy_config as config;
