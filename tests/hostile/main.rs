//! Hostile and broken peers, services and clients, made by hand, against real processes.
//!
//! Each test ends with the same question: was another client's request answered in the meantime?

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../kit/mod.rs"]
mod kit;

mod admin;
mod client_abuse;
mod descriptors;
mod drain;
mod egress_heads;
mod floods;
#[allow(
    dead_code,
    reason = "the vocabulary of HTTP/2 is wider than what the tests use of it"
)]
mod h2;
mod idle_junk;
mod memory;
mod partition;
mod paths;
mod pending;
mod raw_initiator;
mod raw_responder;
mod rogue_responder;
mod service_abuse;
mod service_windows;
mod services;
mod slow_clients;
mod slow_link;
mod smuggling;
mod spaces;
mod stream_errors;
mod trailers;
mod uploads;
