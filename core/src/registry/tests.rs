//! The registry as scripts of lifecycle facts and the exact facts that it publishes.

use std::time::Duration;

use super::*;
use crate::identity::ClusterId;

fn who(node: &str) -> Arc<Identity> {
    Arc::new(Identity {
        tenant: TenantId::parse("t").unwrap(),
        cluster: ClusterId::parse("c").unwrap(),
        node: NodeId::parse(node).unwrap(),
    })
}

fn at(seconds: u64) -> Instant {
    Instant::from_origin(Duration::from_secs(seconds))
}

fn introduced(node: &str) -> Introduction {
    Introduction {
        identity: who(node),
        instance: None,
        heard: at(0),
    }
}

fn published(registry: &mut Registry) -> Vec<Fact> {
    std::iter::from_fn(|| registry.poll_action())
        .map(|Action::Publish(fact)| fact)
        .collect()
}

fn open(registry: &mut Registry, node: &str) -> TunnelId {
    let placed = registry.place(&who(node));
    assert_eq!(placed.worker, registry.worker);
    registry.on_opened(at(0), placed.tunnel, &introduced(node));
    placed.tunnel
}

#[test]
fn a_life_is_published_step_by_step() {
    let mut registry = Registry::new(WorkerId(0), 1);
    let tunnel = open(&mut registry, "n");
    assert_eq!(
        published(&mut registry),
        [Fact::Opened {
            tunnel,
            introduction: introduced("n"),
            owner: WorkerId(0)
        }]
    );
    registry.on_upgraded(at(1), tunnel);
    assert_eq!(published(&mut registry), []);
    registry.on_draining(at(2), tunnel);
    assert_eq!(published(&mut registry), [Fact::Draining { tunnel }]);
    registry.on_closed(at(3), tunnel, CloseReason::Drained);
    assert_eq!(published(&mut registry), [Fact::Closed { tunnel }]);
    let closed: Vec<_> = registry
        .closed()
        .iter()
        .map(|c| (c.lived.as_secs(), c.why))
        .collect();
    assert_eq!(closed, [(3, CloseReason::Drained)]);
}

/// State × event → state, where placement counts it, what others are told: as one table to read.
#[test]
fn every_event_in_every_state_has_one_outcome() {
    type Step = fn(&mut Registry, TunnelId);
    let states: [(&str, Step); 6] = [
        ("settling", |_, _| {}),
        ("idle", |r, t| r.on_opened(at(1), t, &introduced("n"))),
        ("active", |r, t| {
            r.on_opened(at(1), t, &introduced("n"));
            r.on_upgraded(at(1), t);
        }),
        ("leaving", |r, t| {
            r.on_opened(at(1), t, &introduced("n"));
            _ = r.on_leaving(at(1), t);
        }),
        ("draining", |r, t| {
            r.on_opened(at(1), t, &introduced("n"));
            r.on_draining(at(1), t);
        }),
        ("closed", |r, t| {
            r.on_opened(at(1), t, &introduced("n"));
            r.on_closed(at(1), t, CloseReason::PeerClosed);
        }),
    ];
    let events: [(&str, Step); 10] = [
        ("opened", |r, t| r.on_opened(at(2), t, &introduced("n"))),
        ("misplaced", |r, t| r.on_misplaced(t)),
        ("fact opened", |r, t| {
            r.on_fact(&Fact::Opened {
                tunnel: t,
                introduction: introduced("n"),
                owner: WorkerId(1),
            });
        }),
        ("fact leaving", |r, t| r.on_fact(&Fact::Leaving { tunnel: t })),
        ("fact draining", |r, t| r.on_fact(&Fact::Draining { tunnel: t })),
        ("fact closed", |r, t| r.on_fact(&Fact::Closed { tunnel: t })),
        ("upgraded", |r, t| r.on_upgraded(at(2), t)),
        ("leaving", |r, t| _ = r.on_leaving(at(2), t)),
        ("draining", |r, t| r.on_draining(at(2), t)),
        ("closed", |r, t| r.on_closed(at(2), t, CloseReason::PeerClosed)),
    ];
    let mut table = String::new();
    for (state, reach) in states {
        for (event, apply) in events {
            let mut registry = Registry::new(WorkerId(0), 2);
            let tunnel = registry.place(&who("n")).tunnel;
            reach(&mut registry, tunnel);
            published(&mut registry);
            apply(&mut registry, tunnel);
            let then = registry
                .tunnels()
                .next()
                .map_or_else(|| "-".into(), |(_, t)| format!("{:?}", t.state).to_lowercase());
            let told: Vec<_> = published(&mut registry)
                .into_iter()
                .map(|fact| match fact {
                    Fact::Opened { .. } => "Opened",
                    Fact::Leaving { .. } => "Leaving",
                    Fact::MaxStreams { .. } => "MaxStreams",
                    Fact::Draining { .. } => "Draining",
                    Fact::Closed { .. } => "Closed",
                })
                .collect();
            let sits = registry
                .seats
                .get(&tunnel)
                .map_or_else(|| "-".into(), |seat| seat.worker.to_string());
            let line = format!("{state:<9}{event:<14}-> {then:<9}{sits:<9}{}", told.join(" "));
            table += &format!("{}\n", line.trim_end());
        }
    }
    insta::assert_snapshot!(table, @r"
        settling opened        -> idle     worker_0 Opened
        settling misplaced     -> -        -
        settling fact opened   -> -        worker_1
        settling fact leaving  -> -        worker_0
        settling fact draining -> -        worker_0
        settling fact closed   -> -        -
        settling upgraded      -> -        worker_0
        settling leaving       -> -        worker_0
        settling draining      -> -        worker_0
        settling closed        -> -        -        Closed
        idle     opened        -> idle     worker_0
        idle     misplaced     -> idle     worker_0
        idle     fact opened   -> idle     worker_0
        idle     fact leaving  -> idle     worker_0
        idle     fact draining -> idle     worker_0
        idle     fact closed   -> idle     worker_0
        idle     upgraded      -> active   worker_0
        idle     leaving       -> leaving  worker_0 Leaving
        idle     draining      -> draining worker_0 Draining
        idle     closed        -> -        -        Closed
        active   opened        -> active   worker_0
        active   misplaced     -> active   worker_0
        active   fact opened   -> active   worker_0
        active   fact leaving  -> active   worker_0
        active   fact draining -> active   worker_0
        active   fact closed   -> active   worker_0
        active   upgraded      -> active   worker_0
        active   leaving       -> leaving  worker_0 Leaving
        active   draining      -> draining worker_0 Draining
        active   closed        -> -        -        Closed
        leaving  opened        -> leaving  worker_0
        leaving  misplaced     -> leaving  worker_0
        leaving  fact opened   -> leaving  worker_0
        leaving  fact leaving  -> leaving  worker_0
        leaving  fact draining -> leaving  worker_0
        leaving  fact closed   -> leaving  worker_0
        leaving  upgraded      -> leaving  worker_0
        leaving  leaving       -> leaving  worker_0
        leaving  draining      -> draining worker_0 Draining
        leaving  closed        -> -        -        Closed
        draining opened        -> draining worker_0
        draining misplaced     -> draining worker_0
        draining fact opened   -> draining worker_0
        draining fact leaving  -> draining worker_0
        draining fact draining -> draining worker_0
        draining fact closed   -> draining worker_0
        draining upgraded      -> draining worker_0
        draining leaving       -> draining worker_0
        draining draining      -> draining worker_0
        draining closed        -> -        -        Closed
        closed   opened        -> -        -
        closed   misplaced     -> -        -
        closed   fact opened   -> -        worker_1
        closed   fact leaving  -> -        -
        closed   fact draining -> -        -
        closed   fact closed   -> -        -
        closed   upgraded      -> -        -
        closed   leaving       -> -        -
        closed   draining      -> -        -
        closed   closed        -> -        -
    ");
}

#[test]
fn a_node_s_tunnels_spread_over_the_workers() {
    let mut registry = Registry::new(WorkerId(1), 3);
    let places: Vec<_> = (0..6).map(|_| registry.place(&who("n")).worker.0).collect();
    assert_eq!(places, [1, 0, 2, 1, 0, 2], "its own first, then the emptiest");
    assert_eq!(
        registry.place(&who("m")).worker.0,
        1,
        "another node counts for itself"
    );
}

#[test]
fn placement_counts_what_other_workers_told_and_forgets_what_closed() {
    let mut registry = Registry::new(WorkerId(0), 2);
    let theirs = TunnelId {
        named_by: WorkerId(1),
        serial: 9,
    };
    let opened = Fact::Opened {
        tunnel: theirs,
        introduction: introduced("n"),
        owner: WorkerId(0),
    };
    registry.on_fact(&opened);
    registry.on_fact(&opened);
    assert_eq!(
        registry.place(&who("n")).worker,
        WorkerId(1),
        "told twice, counted once"
    );
    registry.on_fact(&Fact::Closed { tunnel: theirs });
    assert_eq!(registry.place(&who("n")).worker, WorkerId(0));
}

#[test]
fn a_tunnel_that_dies_before_it_opens_leaves_nothing() {
    let mut registry = Registry::new(WorkerId(0), 2);
    let placed = registry.place(&who("n"));
    registry.on_closed(at(1), placed.tunnel, CloseReason::PeerClosed);
    assert_eq!(
        published(&mut registry),
        [Fact::Closed {
            tunnel: placed.tunnel
        }]
    );
    assert!(registry.loads.is_empty() && registry.seats.is_empty());
    assert_eq!(registry.closed().iter().count(), 0, "it never was a tunnel");
}

#[test]
fn one_reason_is_counted_per_tunnel() {
    let mut registry = Registry::new(WorkerId(0), 1);
    let tunnel = open(&mut registry, "n");
    registry.on_closed(at(1), tunnel, CloseReason::PingTimeout);
    registry.on_closed(at(2), tunnel, CloseReason::PeerClosed);
    assert_eq!(
        registry.closed().by_reason(),
        &BTreeMap::from([(CloseReason::PingTimeout, 1)])
    );
}

/// It once rose from the dead, was counted twice, and never left the directory again.
#[test]
fn a_tunnel_that_is_closed_does_not_open_again() {
    let mut registry = Registry::new(WorkerId(0), 1);
    let tunnel = open(&mut registry, "n");
    registry.on_closed(at(1), tunnel, CloseReason::PeerClosed);
    published(&mut registry);
    registry.on_opened(at(2), tunnel, &introduced("n"));
    assert_eq!(published(&mut registry), []);
    assert_eq!((registry.tunnels().count(), registry.opened_total()), (0, 1));
    assert!(registry.seats.is_empty());
}

#[test]
fn a_tunnel_that_dies_on_its_way_to_another_worker_is_forgotten_by_both() {
    let mut placing = Registry::new(WorkerId(0), 2);
    let mut owning = Registry::new(WorkerId(1), 2);
    placing.place(&who("n"));
    let placed = placing.place(&who("n"));
    assert_eq!(placed.worker, WorkerId(1));
    owning.on_adopted(placed.tunnel, &who("n"));
    owning.on_closed(at(1), placed.tunnel, CloseReason::PeerReset);
    let told = published(&mut owning);
    assert_eq!(
        told,
        [Fact::Closed {
            tunnel: placed.tunnel
        }]
    );
    placing.on_fact(&told[0]);
    assert_eq!(
        placing.place(&who("n")).worker,
        WorkerId(1),
        "its seat is free again"
    );
    assert!(owning.loads.is_empty() && owning.seats.is_empty());
}

#[test]
fn a_tunnel_that_never_left_frees_its_seat() {
    let mut registry = Registry::new(WorkerId(0), 2);
    registry.place(&who("n"));
    let placed = registry.place(&who("n"));
    registry.on_misplaced(placed.tunnel);
    assert_eq!(registry.place(&who("n")).worker, WorkerId(1));
}
