//! Eddy beside a real Envoy 1.40.0, in both directions, and the wire rules seen at a recording relay.
//!
//! The binary is `$EDDY_ENVOY`, or what `.ci/install-envoy` fetched; without it these tests fail.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../kit/mod.rs"]
mod kit;

mod both_ways;
mod fake_initiator;
mod fake_responder;
mod relay;
mod restart;
mod rules;
mod world;
