//! Bad input: for each kind, what the process answers, which one counter moves, and that it goes on serving.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../kit/mod.rs"]
mod kit;

mod handshake;
mod process;
mod request;
mod service;
