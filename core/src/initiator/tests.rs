//! The composition of an initiator's machines, event by event.

use std::time::Duration;

use super::*;
use crate::identity::{ClusterId, NodeId, TenantId};
use crate::phase::Phase;

const HOST: SocketAddr = host(1);

const fn host(last: u8) -> SocketAddr {
    SocketAddr::new(
        std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, last)),
        9_000,
    )
}

fn at(seconds: u64) -> Instant {
    Instant::from_origin(Duration::from_secs(seconds))
}

fn cluster(name: &str) -> ClusterName {
    ClusterName::parse(name).unwrap()
}

fn upstream(node: &str, name: &str, count: u32) -> UpstreamSettings {
    UpstreamSettings {
        address: TunnelAddress {
            identity: Identity {
                node: NodeId::parse(node).unwrap(),
                cluster: ClusterId::parse("edges").unwrap(),
                tenant: TenantId::parse("t").unwrap(),
            },
            cluster: cluster(name),
            count,
        },
        per_worker: false,
    }
}

fn initiator(upstreams: Vec<UpstreamSettings>) -> Initiator {
    let settings = Settings {
        worker: WorkerId(0),
        workers: 1,
        nonce: 7,
        dial: DialerPolicy::default(),
        upstreams,
    };
    Initiator::new(settings, &mut Rng::from_seed(1))
}

fn actions(machine: &mut Initiator) -> Vec<Action> {
    std::iter::from_fn(|| machine.poll_action()).collect()
}

/// The dials that the machine wants, and nothing else.
fn dials(machine: &mut Initiator) -> Vec<Dial> {
    let only_dials = actions(machine).into_iter().map(|action| {
        let Action::Dial(dial) = action else {
            panic!("{action:?}")
        };
        dial
    });
    only_dials.collect()
}

/// A machine with one tunnel that is up since second 1.
fn with_tunnel() -> (Initiator, Dial) {
    let mut machine = initiator(vec![upstream("edge", "hub", 1)]);
    machine.on_hosts(at(0), &cluster("hub"), &[HOST]);
    let dial = dials(&mut machine).remove(0);
    machine.on_connected(at(0), dial.at);
    machine.on_established(at(1), dial.at, None);
    (machine, dial)
}

#[test]
fn each_upstream_dials_its_share_of_every_host_under_names_of_its_own() {
    let mut machine = initiator(vec![
        upstream("a", "hub", 2),
        upstream("b", "hub", 1),
        upstream("c", "other", 1),
    ]);
    machine.on_hosts(at(0), &cluster("hub"), &[HOST, host(2)]);
    let dials = dials(&mut machine);
    let nodes: Vec<_> = dials
        .iter()
        .map(|dial| (machine.identity(dial.at).node.as_str(), dial.host == HOST))
        .collect();
    let expected = [
        ("a", true),
        ("a", true),
        ("a", false),
        ("a", false),
        ("b", true),
        ("b", false),
    ];
    assert_eq!(nodes, expected);
    let serials: Vec<_> = dials.iter().map(|dial| dial.tunnel.serial).collect();
    assert_eq!(serials, [1, 2, 3, 4, 5, 6]);
    let mut instances: Vec<_> = dials.iter().map(|dial| machine.instance(dial.at)).collect();
    instances.sort();
    instances.dedup();
    assert_eq!(instances.len(), 6, "each place has a name of its own");
}

#[test]
fn a_tunnel_goes_through_its_phases_and_is_remembered() {
    let (mut machine, dial) = with_tunnel();
    let phase = |machine: &Initiator| machine.tunnels().next().map(|(_, tunnel)| tunnel.phase);
    assert_eq!(phase(&machine), Some(Phase::Idle));
    machine.on_upgraded(at(2), dial.tunnel);
    assert_eq!(phase(&machine), Some(Phase::Active));
    machine.on_goaway(at(8), dial.tunnel);
    assert_eq!(phase(&machine), Some(Phase::Draining));
    assert_eq!(dials(&mut machine).len(), 1, "a replacement is dialed");
    let closed = machine
        .on_closed(at(9), dial.tunnel, CloseReason::GoAway)
        .unwrap();
    assert_eq!(
        (closed.lived, closed.why),
        (Duration::from_secs(8), CloseReason::GoAway)
    );
    assert_eq!(
        machine.on_closed(at(9), dial.tunnel, CloseReason::GoAway),
        None,
        "it ends once"
    );
    assert_eq!(machine.on_cut(at(9), dial.tunnel), None);
    assert_eq!((phase(&machine), machine.opened_total()), (None, 1));
    assert_eq!(machine.closed().by_reason()[&CloseReason::GoAway], 1);
    assert_eq!(machine.succeeded()[&cluster("hub")], 1);
}

#[test]
fn a_failed_dial_is_told_and_counted_and_has_the_names_resolved_again() {
    let mut machine = initiator(vec![upstream("edge", "hub", 1)]);
    machine.on_hosts(at(0), &cluster("hub"), &[HOST]);
    let dial = dials(&mut machine).remove(0);
    machine.on_failed(at(0), dial.at, DialFailure::Refused);
    let told = [
        Action::DialFailed {
            dial: dial.clone(),
            why: DialFailure::Refused,
        },
        Action::Resolve(cluster("hub")),
    ];
    assert_eq!(actions(&mut machine), told);
    machine.on_failed(at(0), dial.at, DialFailure::Refused);
    assert_eq!(actions(&mut machine), [], "it fails once");
    let reason = DialFailure::Refused.reason().to_owned();
    assert_eq!(machine.failed()[&(cluster("hub"), reason)], 1);
}

#[test]
fn a_dial_that_takes_too_long_is_dropped_and_fails() {
    let mut machine = initiator(vec![upstream("edge", "hub", 1)]);
    machine.on_hosts(at(0), &cluster("hub"), &[HOST]);
    let dial = dials(&mut machine).remove(0);
    machine.handle_timeout(at(10));
    let wanted = actions(&mut machine);
    assert!(wanted.contains(&Action::Abort(dial.at)), "{wanted:?}");
    let failed = Action::DialFailed {
        dial: dial.clone(),
        why: DialFailure::TimedOut,
    };
    assert!(wanted.contains(&failed), "{wanted:?}");
    machine.on_established(at(10), dial.at, None);
    assert_eq!(machine.opened_total(), 0, "it comes too late");
}

#[test]
fn a_dial_that_nobody_wants_any_more_is_dropped_without_a_word() {
    let mut machine = initiator(vec![upstream("edge", "hub", 1)]);
    machine.on_hosts(at(0), &cluster("hub"), &[HOST]);
    let dial = dials(&mut machine).remove(0);
    machine.on_hosts(at(1), &cluster("hub"), &[]);
    assert_eq!(actions(&mut machine), [Action::Abort(dial.at)]);
    assert!(machine.failed().is_empty());
}

#[test]
fn the_gap_between_pings_is_known_as_long_as_somebody_dials_the_host() {
    let mut machine = initiator(vec![upstream("a", "hub", 1), upstream("b", "other", 1)]);
    for name in ["hub", "other"] {
        machine.on_hosts(at(0), &cluster(name), &[HOST]);
    }
    let gap = Duration::from_secs;
    machine.on_ping_gap(HOST, gap(5));
    machine.on_ping_gap(HOST, gap(2));
    assert_eq!(machine.ping_gap(HOST), Some(gap(5)), "the longest");
    machine.on_hosts(at(1), &cluster("hub"), &[]);
    assert_eq!(machine.ping_gap(HOST), Some(gap(5)), "the other cluster has it");
    machine.on_hosts(at(1), &cluster("other"), &[]);
    assert_eq!(machine.ping_gap(HOST), None);
}

#[test]
fn silence_of_an_idle_tunnel_forgets_the_gap_and_silence_of_a_used_one_does_not() {
    for (is_used, expected) in [(false, None), (true, Some(Duration::from_secs(5)))] {
        let (mut machine, dial) = with_tunnel();
        machine.on_ping_gap(HOST, Duration::from_secs(5));
        if is_used {
            machine.on_upgraded(at(2), dial.tunnel);
        }
        machine.on_closed(at(20), dial.tunnel, CloseReason::Silent);
        assert_eq!(machine.ping_gap(HOST), expected, "used: {is_used}");
    }
}

#[test]
fn a_break_soon_after_the_upgrade_is_reported_and_the_third_one_leads_to_advice() {
    let (mut machine, dial) = with_tunnel();
    machine.on_upgraded(at(2), dial.tunnel);
    machine.on_closed(at(3), dial.tunnel, CloseReason::HttpError);
    assert!(actions(&mut machine).contains(&Action::ReportEarlyBreak(HOST)));
    for second in [3, 4] {
        machine.on_early_break(at(second), HOST);
        assert_eq!(actions(&mut machine), []);
    }
    machine.on_early_break(at(5), HOST);
    assert_eq!(actions(&mut machine), [Action::AdviseOnSharedSocket(HOST)]);
    let (mut machine, dial) = with_tunnel();
    machine.on_closed(at(3), dial.tunnel, CloseReason::HttpError);
    let reported = actions(&mut machine).contains(&Action::ReportEarlyBreak(HOST));
    assert!(!reported, "it was never upgraded");
}

#[test]
fn only_the_selected_tunnels_are_renewed() {
    let (mut machine, dial) = with_tunnel();
    let of = |node: &str| Selection {
        node: Some(node.into()),
        ..Selection::default()
    };
    assert_eq!(machine.renew(at(2), &of("other")), 0);
    assert_eq!(machine.renew(at(9), &of("edge")), 1);
    let replacement = dials(&mut machine).remove(0);
    machine.on_established(at(9), replacement.at, None);
    assert_eq!(
        actions(&mut machine),
        [Action::Drain(dial.at)],
        "once the other one is up"
    );
}

#[test]
fn a_drain_ends_with_the_last_tunnel_and_cuts_it_when_it_takes_too_long() {
    let (mut machine, dial) = with_tunnel();
    machine.drain(at(2));
    assert!(machine.is_draining() && !machine.is_drained());
    assert_eq!(actions(&mut machine), [Action::Drain(dial.at)]);
    let deadline = machine.poll_timeout().unwrap().at;
    machine.handle_timeout(deadline);
    assert_eq!(actions(&mut machine), [Action::Close(dial.at)]);
    let closed = machine.on_cut(deadline, dial.tunnel).unwrap();
    assert_eq!(closed.why, CloseReason::Drained);
    assert!(machine.is_drained());
}
