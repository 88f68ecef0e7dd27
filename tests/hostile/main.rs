//! Hostile and broken peers, services and clients, made by hand, against real processes.
//!
//! Each test ends with the same question: was another client's request answered in the meantime?

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../kit/mod.rs"]
mod kit;

mod drain;
mod h2;
mod memory;
mod raw_initiator;
mod slow_link;
mod stream_errors;
mod trailers;
mod uploads;
