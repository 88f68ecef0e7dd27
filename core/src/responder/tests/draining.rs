//! The drain: its table, and its course.

use super::*;
use crate::responder::drain::Step;

/// What happens beside the drain.
type Event = fn(&mut Responder, Instant);

/// A machine of two workers with a client, an Eddy's tunnel (1) and another initiator's (2).
fn serving() -> Responder {
    let mut machine = Responder::new(settings(0, 2), at(0), Rng::from_seed(1));
    machine.on_client();
    open(&mut machine, at(0), &introduced("eddy", Some(eddy(7, 0)), at(0)));
    open(&mut machine, at(0), &introduced("envoy", None, at(0)));
    actions(&mut machine);
    machine
}

fn t(serial: u64) -> TunnelId {
    TunnelId {
        named_by: WorkerId(0),
        serial,
    }
}

const EDDY_GOES: Event = |m, now| m.on_closed(now, t(1), CloseReason::PeerClosed);
const ENVOY_GOES: Event = |m, now| m.on_closed(now, t(2), CloseReason::PeerClosed);
const SUCCESSOR: Event = |m, now| m.on_gossip(now, &Gossip::Succeeded);
const CLIENT_GOES: Event = Responder::on_client_gone;
const OTHERS_GO: Event = |m, now| m.on_gossip(now, &Gossip::ClientsGone);

fn phase(machine: &Responder) -> &'static str {
    let deadline = machine.drain.poll_timeout().map(|deadline| deadline.reason);
    match (machine.drain.is_draining(), deadline) {
        (false, _) => "serving",
        (true, None) => "ended",
        (true, Some(reason)) => reason,
    }
}

/// State × event → state and steps: as one table to read. States of one deadline differ by what they wait for.
#[test]
fn every_event_in_every_state_has_one_outcome() {
    let states: [(&str, &[Event]); 7] = [
        ("serving", &[]),
        ("moving", &[Responder::drain]),
        ("succession", &[Responder::drain, EDDY_GOES]),
        ("closing", &[Responder::drain, EDDY_GOES, SUCCESSOR]),
        (
            "finishing",
            &[Responder::drain, EDDY_GOES, SUCCESSOR, CLIENT_GOES],
        ),
        (
            "dismissing",
            &[Responder::drain, EDDY_GOES, SUCCESSOR, CLIENT_GOES, OTHERS_GO],
        ),
        (
            "ended",
            &[
                Responder::drain,
                EDDY_GOES,
                SUCCESSOR,
                CLIENT_GOES,
                OTHERS_GO,
                ENVOY_GOES,
            ],
        ),
    ];
    let events: [(&str, Event); 8] = [
        ("drain", Responder::drain),
        ("eddy gone", EDDY_GOES),
        ("envoy gone", ENVOY_GOES),
        ("successor", SUCCESSOR),
        ("client gone", CLIENT_GOES),
        ("others gone", OTHERS_GO),
        ("delay over", |m, _| m.handle_timeout(at(10_001))),
        ("timeout over", |m, _| m.handle_timeout(at(60_000))),
    ];
    let mut table = String::new();
    for (state, path) in states {
        for (event, apply) in events {
            let mut machine = serving();
            path.iter().for_each(|step| step(&mut machine, at(1)));
            actions(&mut machine);
            apply(&mut machine, at(2));
            let steps = actions(&mut machine)
                .into_iter()
                .filter_map(|action| match action {
                    Action::Drain(step) => Some(format!("{step:?}")),
                    Action::Publish(Gossip::ClientsGone) => Some("TellClientsGone".into()),
                    Action::Command(tunnel, command) => Some(format!("{command:?}({tunnel})")),
                    Action::Publish(_)
                    | Action::Send { .. }
                    | Action::List(_)
                    | Action::Unlist(_)
                    | Action::WakeAll(_)
                    | Action::WakeOne(_)
                    | Action::WakeNext(_)
                    | Action::Recovered(_)
                    | Action::Duplicate(..)
                    | Action::Bug(_) => None,
                });
            let steps: Vec<_> = steps.collect();
            let line = format!(
                "{state:<11}{event:<13}-> {:<15}{}",
                phase(&machine),
                steps.join(" ")
            );
            table += &format!("{}\n", line.trim_end());
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn a_drain_without_tunnels_and_clients_ends_at_once() {
    let mut machine = machine();
    machine.drain(at(1));
    let actions = actions(&mut machine);
    assert!(actions.contains(&Action::Drain(Step::Stop)), "{actions:?}");
}

#[test]
fn a_tunnel_that_opens_during_the_drain_is_sent_away() {
    let mut machine = serving();
    machine.drain(at(1));
    actions(&mut machine);
    let tunnel = open(&mut machine, at(2), &introduced("late", Some(eddy(8, 0)), at(2)));
    let actions = actions(&mut machine);
    assert!(
        actions.contains(&Action::Command(tunnel, Command::SayGoodbye)),
        "{actions:?}"
    );
}

#[test]
fn a_single_tunnel_is_let_go_after_its_replacement_had_time() {
    let mut machine = serving();
    let selection = Selection {
        node: Some("eddy".into()),
        ..Selection::default()
    };
    assert_eq!(machine.send_away_selected(at(0), &selection), 1);
    assert!(actions(&mut machine).contains(&Action::Command(t(1), Command::SayGoodbye)));
    machine.handle_timeout(at(1_999));
    assert!(!actions(&mut machine).contains(&Action::Command(t(1), Command::LetGo)));
    machine.handle_timeout(at(2_000));
    assert!(actions(&mut machine).contains(&Action::Command(t(1), Command::LetGo)));
}

#[test]
fn the_leader_looks_for_a_successor_when_no_worker_accepts_tunnels() {
    let (mut leader, mut other) = (serving(), {
        Responder::new(settings(1, 2), at(0), Rng::from_seed(2))
    });
    other.on_tunnel_listener_closed();
    let told = Action::Send {
        to: WorkerId(0),
        gossip: Gossip::NoMoreTunnels,
    };
    assert_eq!(actions(&mut other), [told]);
    leader.on_tunnel_listener_closed();
    assert_eq!(actions(&mut leader), []);
    leader.on_gossip(at(1), &Gossip::NoMoreTunnels);
    assert_eq!(actions(&mut leader), [Action::Drain(Step::LookForSuccessor)]);
    leader.on_successor(at(2));
    assert_eq!(actions(&mut leader), [Action::Publish(Gossip::Succeeded)]);
}
