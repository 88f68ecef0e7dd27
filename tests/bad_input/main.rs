//! Bad input: for each kind, what the process answers, which one counter moves, and that it goes on serving.

#[path = "../kit/mod.rs"]
mod kit;

mod handshake;
mod process;
mod request;
mod service;
