//! Planned restarts of Eddy's side in front of a real Envoy, under 500 requests a second.

use std::time::Duration;

use crate::kit::load::{Load, PER_SECOND, Tally, assert_nothing_lost, restarts};
use crate::kit::{Eddy, pause, stats, wait_for};
use crate::world::{Eddys, Options, World};

fn tunnels(admin: u16) -> Option<i64> {
    let _ = std::net::TcpStream::connect(("127.0.0.1", admin)).ok()?;
    stats(admin).get("r.nodes.edge").copied()
}

/// Envoy stops sending into a tunnel on its GOAWAY, and on the end of an idle one.
#[test]
fn an_initiator_is_replaced_in_front_of_envoy_and_no_request_is_lost() {
    let mut world = World::start(Eddys::Initiator);
    let load = Load::start(world.egress, "edge", PER_SECOND);
    for _ in 0..restarts() {
        pause(Duration::from_millis(500));
        let next = world.second_initiator();
        wait_for("the new one's tunnel", || {
            (tunnels(world.responder_admin)? == 2).then_some(())
        });
        world.initiator.signal("TERM");
        assert!(world.initiator.wait().success());
        world.initiator = next;
        wait_for("the old one's tunnel to go", || {
            (tunnels(world.responder_admin)? == 1).then_some(())
        });
    }
    pause(Duration::from_millis(500));
    assert_nothing_lost(&load.finish(), "initiator replaced, Envoy responds");
}

fn replace_responder(drain_aware: bool) -> Tally {
    let mut world = World::with(
        Eddys::Responder,
        Options {
            drain_aware,
            ..Options::default()
        },
    );
    let load = Load::start(world.egress, "edge", PER_SECOND);
    for _ in 0..restarts() {
        pause(Duration::from_millis(1_500));
        let next = Eddy::with_config_and("responder", &world.responder.config(), &["--take-over"]);
        pause(Duration::from_millis(300));
        world.responder.signal("TERM");
        assert!(world.responder.wait().success());
        world.responder = next;
        wait_for("the new one's tunnel", || {
            (tunnels(world.responder_admin)? == 1).then_some(())
        });
    }
    pause(Duration::from_millis(500));
    load.finish()
}

/// Envoy's drain-aware connection manager dials the replacement when it reads the GOAWAY, as Eddy does.
#[test]
fn a_responder_is_replaced_in_front_of_an_envoy_that_understands_goaway_and_no_request_is_lost() {
    assert_nothing_lost(
        &replace_responder(true),
        "responder replaced, Envoy dials on GOAWAY",
    );
}

/// A plain one overlooks the GOAWAY and dials at its next tick after the end of the tunnel: here within 0.2 s, so that the
/// requests wait for it; with its default of 10 s they would not.
#[test]
fn so_is_one_in_front_of_a_plain_envoy_whose_tick_is_short() {
    assert_nothing_lost(
        &replace_responder(false),
        "responder replaced, Envoy dials on its tick",
    );
}
