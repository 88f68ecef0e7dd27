//! The same stories with Eddy on either side.

use std::time::Duration;

use crate::kit::{beside, get, pause, stats, wait_for};
use crate::relay::From;
use crate::world::{Eddys, Options, World};

const BOTH: [Eddys; 2] = [Eddys::Initiator, Eddys::Responder];

#[test]
fn requests_of_every_shape_are_right() {
    for eddys in BOTH {
        let world = World::start(eddys);
        world.assert_good();
        let body: Vec<u8> = (0..1u32 << 20).map(|i| b'a' + (i % 23) as u8).collect();
        world.echo(&body);
        (0..200).for_each(|_| world.assert_good());
        let egress = world.egress;
        let calls: Vec<_> = (0..64)
            .map(|_| beside(move || get(egress, "/routed", &[("x-node-id", "edge")]).status))
            .collect();
        let answers: Vec<_> = calls.into_iter().map(|call| call.join().unwrap()).collect();
        assert_eq!(answers, [200; 64], "{eddys:?}");
        // Node and cluster are both names of it; nobody else answers.
        assert_eq!(get(egress, "/routed", &[("x-cluster-id", "edges")]).status, 200);
        assert_eq!(get(egress, "/routed", &[("x-node-id", "nobody")]).status, 503);
        assert_eq!(world.relay.tunnels(), 1, "{eddys:?}: one tunnel carried it all");
    }
}

/// An Envoy that allows five streams at once: of 120 requests over two workers none is refused, and the tunnels stay.
#[test]
fn an_initiator_that_allows_few_streams_refuses_none() {
    let world = World::with(
        Eddys::Responder,
        Options {
            workers: 2,
            max_streams: 5,
            ..Options::default()
        },
    );
    let egress = world.egress;
    let calls: Vec<_> = (0..120)
        .map(|_| beside(move || get(egress, "/routed", &[("x-node-id", "edge")]).status))
        .collect();
    let answers: Vec<_> = calls.into_iter().map(|call| call.join().unwrap()).collect();
    assert_eq!(answers, [200; 120]);
    (0..20).for_each(|_| world.assert_good());
    assert_eq!(world.eddy_stat("egress.retried"), 0);
}

/// Envoy ends a body with an empty frame of its own: whoever has all the bytes has the whole answer.
#[test]
fn a_whole_answer_is_counted_as_one_whoever_is_on_the_other_side() {
    for (eddys, hop) in [(Eddys::Responder, "egress"), (Eddys::Initiator, "service")] {
        let world = World::start(eddys);
        (0..20).for_each(|_| world.assert_good());
        world.echo(&[b'a'; 100_000]);
        wait_for("all to have ended", || {
            (world.eddy_stat(&format!("{hop}.in_flight")) == 0).then_some(())
        });
        assert_eq!(world.eddy_stat(&format!("{hop}.client_gone")), 0, "{eddys:?}");
        assert_eq!(world.eddy_stat(&format!("{hop}.truncated")), 0, "{eddys:?}");
    }
}

#[test]
fn an_idle_tunnel_is_pinged_for_three_intervals_and_then_used() {
    for eddys in BOTH {
        let world = World::start(eddys);
        wait_for("three pings", || {
            (world.relay.pings(From::Responder) >= 3).then_some(())
        });
        wait_for("three echoes", || {
            (world.relay.pings(From::Initiator) >= 3).then_some(())
        });
        world.assert_good();
        assert_eq!(world.relay.tunnels(), 1, "{eddys:?}");
    }
}

#[test]
fn a_used_tunnel_may_rest_and_serves_again() {
    for eddys in BOTH {
        let world = World::start(eddys);
        world.assert_good();
        // Eddy's HTTP/2 PINGs, every 2 s, are all that passes; Envoy answers them.
        pause(Duration::from_millis(4_500));
        world.assert_good();
        assert_eq!(world.relay.tunnels(), 1, "{eddys:?}");
    }
}

#[test]
fn a_killed_responder_is_found_again() {
    for eddys in BOTH {
        let mut world = World::start(eddys);
        world.assert_good();
        world.responder.signal("KILL");
        world.responder.wait();
        pause(Duration::from_millis(300));
        world.restart_responder();
        world.await_good();
    }
}

#[test]
fn a_killed_initiator_is_forgotten_and_comes_back() {
    for eddys in BOTH {
        let mut world = World::start(eddys);
        world.assert_good();
        world.initiator.signal("KILL");
        world.initiator.wait();
        wait_for("its tunnel to go", || {
            (world.get("/routed").status == 503).then_some(())
        });
        world.restart_initiator();
        world.await_good();
    }
}

#[test]
fn two_workers_on_each_side_answer_every_request() {
    for eddys in BOTH {
        // A worker of Envoy without a tunnel answers 503, so there are twice as many as it has.
        let world = World::with(
            eddys,
            Options {
                workers: 2,
                count: 4,
                ..Options::default()
            },
        );
        for _ in 0..100 {
            world.assert_good();
        }
    }
}

#[test]
fn eddy_as_initiator_understands_a_404_and_a_403() {
    let wrong_path = Options {
        initiator: "dial: {path: /elsewhere}\n",
        ..Options::default()
    };
    let validated = Options {
        filter: "validation: {node_id_format: \"someone-else\"}",
        ..Options::default()
    };
    for (options, status) in [(wrong_path, 404), (validated, 403)] {
        let mut world = World::begin(Eddys::Initiator, options);
        let counter =
            format!("i.handshake.worker.worker_0.cluster.hub.result.failed.failure_reason.http.{status}");
        wait_for(&counter, || {
            std::net::TcpStream::connect(("127.0.0.1", world.initiator_admin)).ok()?;
            (world.eddy_stat(&counter) >= 2).then_some(())
        });
        assert_eq!(get(world.initiator_admin, "/ready", &[]).status, 503);
        wait_for("the line in the log", || {
            world
                .initiator
                .log()
                .contains(&format!("code={status}"))
                .then_some(())
        });
        // It backs off instead of hammering.
        let before = world.eddy_stat(&counter);
        pause(Duration::from_secs(1));
        assert!(world.eddy_stat(&counter) - before < 10);
        assert!(world.initiator.is_running());
    }
}

#[test]
fn envoy_as_initiator_understands_a_refusal_of_eddy() {
    let world = World::begin(
        Eddys::Responder,
        Options {
            tunnels: "  path: /elsewhere\n",
            ..Options::default()
        },
    );
    let counter = "i.handshake.worker.worker_0.cluster.hub.result.failed.failure_reason.http.404";
    wait_for("Envoy to count the 404", || {
        std::net::TcpStream::connect(("127.0.0.1", world.initiator_admin)).ok()?;
        (stats(world.initiator_admin).get(counter)? > &0).then_some(())
    });
    assert!(world.eddy_stat("reverse_tunnel.handshake.not_found") > 0);
    assert_eq!(world.eddy_stat("reverse_tunnel.handshake.accepted"), 0);
}
