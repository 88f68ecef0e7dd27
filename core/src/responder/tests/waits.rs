//! Requests that wait: for a place, and for a return.

use super::*;

/// A machine whose tunnel to `n` takes four requests, all taken.
fn full() -> (Responder, TunnelId) {
    let mut machine = Responder::new(
        Settings {
            max_streams: 4,
            ..settings(0, 1)
        },
        at(0),
        Rng::from_seed(1),
    );
    let tunnel = open(&mut machine, at(0), &introduced("n", None, at(0)));
    for _ in 0..4 {
        let picked = pick(&mut machine, 0, ClientShare::default());
        assert_eq!(picked, Pick::Tunnel(tunnel));
    }
    actions(&mut machine);
    (machine, tunnel)
}

fn pick(machine: &mut Responder, now: u64, client: ClientShare) -> Pick {
    machine.pick(at(now), &node("n"), client, &mut request(at(now)))
}

#[test]
fn a_request_waits_for_a_place_and_is_woken_by_a_release() {
    let (mut machine, tunnel) = full();
    let wait = Wait::Place { until: at(15_000) };
    assert_eq!(pick(&mut machine, 0, ClientShare::default()), Pick::Wait(wait));
    machine.release(tunnel, Ended::Answered);
    assert_eq!(actions(&mut machine), [Action::WakeOne(who("n"))]);
    machine.on_waited(wait);
    assert_eq!(
        pick(&mut machine, 1, ClientShare::default()),
        Pick::Tunnel(tunnel)
    );
    machine.release(tunnel, Ended::Answered);
    assert_eq!(actions(&mut machine), [], "no request waits");
}

#[test]
fn a_woken_request_without_a_place_wakes_the_next_one_once() {
    let (mut machine, tunnel) = full();
    let greedy = ClientShare {
        in_flight: 100,
        waiting: 1,
    };
    let mut mine = request(at(0));
    let picked = machine.pick(at(0), &node("n"), greedy, &mut mine);
    let Pick::Wait(wait) = picked else {
        panic!("{picked:?}")
    };
    assert!(matches!(
        pick(&mut machine, 0, ClientShare::default()),
        Pick::Wait(_)
    ));
    actions(&mut machine);
    machine.release(tunnel, Ended::Answered);
    assert_eq!(actions(&mut machine), [Action::WakeOne(who("n"))]);
    // The free place is kept for other clients.
    machine.on_waited(wait);
    let picked = machine.pick(at(1), &node("n"), greedy, &mut mine);
    assert!(matches!(picked, Pick::Wait(_)));
    assert_eq!(actions(&mut machine), [Action::WakeNext("n".into())]);
    // It comes round: no request after this one fits either.
    machine.on_waited(wait);
    let picked = machine.pick(at(2), &node("n"), greedy, &mut mine);
    assert!(matches!(picked, Pick::Wait(_)));
    assert_eq!(actions(&mut machine), []);
}

#[test]
fn a_wait_for_a_place_ends() {
    let (mut machine, _) = full();
    let mut mine = request(at(0));
    let picked = machine.pick(at(15_000), &node("n"), ClientShare::default(), &mut mine);
    assert_eq!(picked, Pick::Refuse(Refusal::Overloaded));
}

#[test]
fn requests_that_wait_for_a_place_are_woken_when_the_tunnel_goes() {
    let (mut machine, tunnel) = full();
    assert!(matches!(
        pick(&mut machine, 0, ClientShare::default()),
        Pick::Wait(_)
    ));
    machine.on_closed(at(1), tunnel, CloseReason::PeerClosed);
    assert!(actions(&mut machine).contains(&Action::WakeAll(who("n"))));
}

#[test]
fn one_client_leaves_seats_to_others() {
    let (mut machine, _) = full();
    let mut waiting = 0;
    let refused = loop {
        let client = ClientShare {
            in_flight: 0,
            waiting,
        };
        match pick(&mut machine, 0, client) {
            Pick::Wait(_) => waiting += 1,
            refused @ (Pick::Tunnel(_) | Pick::Refuse(_)) => break refused,
        }
    };
    assert_eq!((refused, waiting), (Pick::Refuse(Refusal::Overloaded), 4));
    assert!(matches!(
        pick(&mut machine, 0, ClientShare::default()),
        Pick::Wait(_)
    ));
}

#[test]
fn a_request_waits_for_a_return_once_and_not_while_the_process_drains() {
    let mut machine = machine();
    let mut mine = request(at(100));
    let picked = machine.pick(at(100), &node("n"), ClientShare::default(), &mut mine);
    let (first, again) = (
        Wait::Return {
            until: at(1_100),
            is_first: true,
        },
        Wait::Return {
            until: at(1_100),
            is_first: false,
        },
    );
    assert_eq!(picked, Pick::Wait(first), "the process is young");
    machine.on_waited(first);
    let picked = machine.pick(at(200), &node("n"), ClientShare::default(), &mut mine);
    assert_eq!(picked, Pick::Wait(again));
    machine.on_waited(again);
    let picked = machine.pick(at(1_100), &node("n"), ClientShare::default(), &mut mine);
    assert_eq!(picked, Pick::Refuse(Refusal::NoTunnel));

    machine.drain(at(1_200));
    let mut another = request(at(1_200));
    let picked = machine.pick(at(1_200), &node("n"), ClientShare::default(), &mut another);
    assert_eq!(picked, Pick::Refuse(Refusal::NoTunnel));
}

#[test]
fn a_node_is_expected_after_its_tunnel_has_gone_and_not_for_ever() {
    let mut machine = machine();
    let tunnel = open(&mut machine, at(0), &introduced("n", None, at(0)));
    machine.on_closed(at(5_000), tunnel, CloseReason::PeerClosed);
    for (now, waits) in [(5_000, true), (14_999, true), (15_000, false)] {
        let picked = pick(&mut machine, now, ClientShare::default());
        assert_eq!(matches!(picked, Pick::Wait(_)), waits, "{now}");
    }
}

#[test]
fn seats_for_returns_are_bounded() {
    let mut machine = machine();
    for _ in 0..8 {
        assert!(matches!(
            pick(&mut machine, 0, ClientShare::default()),
            Pick::Wait(_)
        ));
    }
    let refused = pick(&mut machine, 0, ClientShare::default());
    assert_eq!(refused, Pick::Refuse(Refusal::NoTunnel));
}
