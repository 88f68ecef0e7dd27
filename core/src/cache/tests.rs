//! The cache told as histories of tunnels coming and going.

mod fairness;
mod model;

use std::time::Duration;

use super::*;

fn identity(tenant: &str, cluster: &str, node: &str) -> Arc<Identity> {
    Arc::new(Identity {
        tenant: TenantId::parse(tenant).unwrap(),
        cluster: ClusterId::parse(cluster).unwrap(),
        node: NodeId::parse(node).unwrap(),
    })
}

fn t(serial: u64) -> TunnelId {
    TunnelId {
        named_by: WorkerId(0),
        serial,
    }
}

const OWN: WorkerId = WorkerId(0);
const OTHER: WorkerId = WorkerId(1);

fn key(names: Names, id: &str) -> RouteKey<'_> {
    RouteKey {
        tenant: None,
        names,
        id,
    }
}

/// A cache of worker 0 with cap 2, in which nothing is isolated.
fn cache() -> Cache {
    Cache::new(OWN, 2, false)
}

#[test]
fn a_route_exists_while_a_tunnel_does() {
    let mut cache = cache();
    let either = key(Names::Either, "n");
    assert_eq!(cache.pick(&either), Err(Refusal::NoTunnel));
    cache.insert(t(1), &identity("t", "c", "n"), OWN);
    assert_eq!(cache.pick(&either), Ok(t(1)));
    assert!(cache.remove(t(1)));
    assert_eq!(cache.pick(&either), Err(Refusal::NoTunnel));
    assert_eq!(cache.pick(&key(Names::Either, "c")), Err(Refusal::NoTunnel));
    assert!(cache.identities().is_empty());
}

#[test]
fn a_late_close_takes_only_its_own_tunnel() {
    let mut cache = cache();
    let who = identity("t", "c", "n");
    cache.insert(t(1), &who, OWN);
    cache.insert(t(2), &who, OWN);
    assert!(cache.remove(t(1)));
    assert!(!cache.remove(t(1)), "gone already");
    assert_eq!(cache.pick(&key(Names::Node, "n")), Ok(t(2)));
    assert_eq!(cache.pick(&key(Names::Cluster, "c")), Ok(t(2)));
}

#[test]
fn an_id_of_node_and_cluster_reaches_both_where_the_header_says_which() {
    let mut cache = cache();
    cache.insert(t(1), &identity("t", "x", "a"), OWN);
    cache.insert(t(2), &identity("t", "c", "x"), OWN);
    assert_eq!(cache.pick(&key(Names::Cluster, "x")), Ok(t(1)));
    assert_eq!(cache.pick(&key(Names::Node, "x")), Ok(t(2)));
    assert_eq!(
        cache.pick(&key(Names::Either, "x")),
        Ok(t(2)),
        "a node comes first"
    );
}

#[test]
fn a_node_under_two_clusters_is_reachable_under_both() {
    let mut cache = cache();
    cache.insert(t(1), &identity("t", "c1", "n"), OWN);
    cache.insert(t(2), &identity("t", "c2", "n"), OWN);
    assert_eq!(cache.pick(&key(Names::Cluster, "c1")), Ok(t(1)));
    assert_eq!(cache.pick(&key(Names::Cluster, "c2")), Ok(t(2)));
    cache.remove(t(1));
    assert_eq!(cache.pick(&key(Names::Cluster, "c1")), Err(Refusal::NoTunnel));
    assert_eq!(cache.pick(&key(Names::Cluster, "c2")), Ok(t(2)));
}

#[test]
fn own_tunnels_first_then_the_least_loaded() {
    let mut cache = cache();
    let who = identity("t", "c", "n");
    cache.insert(t(1), &who, OTHER);
    cache.insert(t(2), &who, OWN);
    let node = key(Names::Node, "n");
    assert_eq!(cache.pick(&node), Ok(t(2)));
    assert_eq!(cache.pick(&node), Ok(t(2)), "own, though it carries one already");
    assert_eq!(cache.pick(&node), Ok(t(1)), "own is full");
    assert_eq!(cache.pick(&node), Ok(t(1)));
    assert_eq!(cache.pick(&node), Err(Refusal::Overloaded));
    cache.release(t(1), Ended::Answered);
    assert_eq!(cache.pick(&node), Ok(t(1)));
}

#[test]
fn equal_tunnels_take_turns() {
    let mut cache = Cache::new(OWN, 100, false);
    let who = identity("t", "c", "n");
    (1..=3).for_each(|i| cache.insert(t(i), &who, OWN));
    let mut picks = Vec::new();
    for _ in 0..6 {
        let tunnel = cache.pick(&key(Names::Node, "n")).unwrap();
        cache.release(tunnel, Ended::Answered);
        picks.push(tunnel.serial);
    }
    assert_eq!(picks, [1, 2, 3, 1, 2, 3]);
}

#[test]
fn the_nodes_of_a_cluster_take_turns_however_many_tunnels_each_has() {
    let mut cache = Cache::new(OWN, 100, false);
    cache.insert(t(1), &identity("t", "c", "a"), OWN);
    cache.insert(t(2), &identity("t", "c", "a"), OWN);
    cache.insert(t(3), &identity("t", "c", "b"), OTHER);
    let mut shares = [0; 4];
    for _ in 0..40 {
        shares[cache.pick(&key(Names::Cluster, "c")).unwrap().serial as usize] += 1;
    }
    assert_eq!(shares, [0, 10, 10, 20]);
}

#[test]
fn a_full_node_of_a_cluster_is_passed_over() {
    let mut cache = cache();
    cache.insert(t(1), &identity("t", "c", "a"), OWN);
    cache.insert(t(2), &identity("t", "c", "b"), OWN);
    let picks: Vec<_> = (0..5)
        .map(|_| cache.pick(&key(Names::Cluster, "c")).map(|t| t.serial))
        .collect();
    assert_eq!(picks, [Ok(1), Ok(2), Ok(1), Ok(2), Err(Refusal::Overloaded)]);
    cache.release(t(2), Ended::Answered);
    assert_eq!(cache.pick(&key(Names::Cluster, "c")), Ok(t(2)));
}

#[test]
fn isolated_tenants_never_see_each_other() {
    let mut cache = Cache::new(OWN, 2, true);
    cache.insert(t(1), &identity("red", "c", "n"), OWN);
    cache.insert(t(2), &identity("blue", "c", "n"), OWN);
    let ask = |cache: &mut Cache, tenant| {
        cache.pick(&RouteKey {
            tenant: Some(tenant),
            names: Names::Either,
            id: "c",
        })
    };
    assert_eq!(ask(&mut cache, "red"), Ok(t(1)));
    assert_eq!(ask(&mut cache, "blue"), Ok(t(2)));
    assert_eq!(ask(&mut cache, "green"), Err(Refusal::NoTunnel));
    assert_eq!(cache.streams(t(1)), 1);
    cache.release(t(1), Ended::Answered);
    assert_eq!(cache.streams(t(1)), 0);
    cache.remove(t(1));
    assert_eq!(ask(&mut cache, "red"), Err(Refusal::NoTunnel));
}

fn at(ms: u64) -> Instant {
    Instant::from_origin(Duration::from_millis(ms))
}

#[test]
fn a_tunnel_that_owes_an_answer_for_long_comes_last_until_it_gives_one() {
    let mut cache = Cache::new(OWN, 10, false);
    let who = identity("t", "c", "n");
    cache.insert(t(1), &who, OWN);
    cache.insert(t(2), &who, OTHER);
    let node = key(Names::Node, "n");
    cache.see(at(1_000));
    assert_eq!(cache.pick(&node), Ok(t(1)), "own first");
    cache.see(at(1_499));
    assert_eq!(cache.pick(&node), Ok(t(1)));
    cache.see(at(1_500));
    assert_eq!(
        cache.pick(&node),
        Ok(t(2)),
        "the first answer is owed for half a second"
    );
    cache.on_answered(t(1));
    assert_eq!(cache.pick(&node), Ok(t(1)), "one answer is a sign of life");
    cache.see(at(2_000));
    assert_eq!(cache.pick(&node), Ok(t(1)), "both are suspect, so own first");
    for _ in 0..3 {
        cache.release(t(1), Ended::Abandoned);
    }
    cache.release(t(2), Ended::Abandoned);
    cache.see(at(9_000));
    assert_eq!(cache.pick(&node), Ok(t(1)), "who owes nothing is not suspect");
}

#[test]
fn a_tunnel_that_missed_a_ping_is_chosen_last_until_it_echoes() {
    let mut cache = Cache::new(OWN, 10, false);
    let who = identity("t", "c", "n");
    cache.insert(t(1), &who, OWN);
    cache.insert(t(2), &who, OWN);
    let node = key(Names::Node, "n");
    cache.on_missing(t(1), true);
    assert_eq!(cache.pick(&node), Ok(t(2)));
    assert_eq!(
        cache.pick(&node),
        Ok(t(2)),
        "however many requests the other one has"
    );
    cache.on_missing(t(1), false);
    assert_eq!(cache.pick(&node), Ok(t(1)));
}

#[test]
fn a_cluster_s_suspect_node_loses_its_turn_but_is_better_than_none() {
    let mut cache = Cache::new(OWN, 3, false);
    cache.insert(t(1), &identity("t", "c", "n1"), OWN);
    cache.insert(t(2), &identity("t", "c", "n2"), OWN);
    let cluster = key(Names::Cluster, "c");
    assert_eq!(cache.pick(&cluster), Ok(t(1)));
    assert_eq!(cache.pick(&cluster), Ok(t(2)));
    cache.on_answered(t(2));
    cache.see(at(500));
    for _ in 0..2 {
        assert_eq!(cache.pick(&cluster), Ok(t(2)));
    }
    assert_eq!(cache.pick(&cluster), Ok(t(1)), "the other one is full");
    cache.on_answered(t(1));
    cache.release(t(1), Ended::Answered);
    assert_eq!(cache.pick(&cluster), Ok(t(1)));
}

#[test]
fn to_peek_says_what_a_pick_would_choose_and_changes_nothing() {
    let mut cache = Cache::new(OWN, 2, false);
    for (serial, node) in [(1, "n1"), (2, "n1"), (3, "n2")] {
        cache.insert(
            t(serial),
            &identity("t", "c", node),
            if serial == 1 { OWN } else { OTHER },
        );
    }
    for _ in 0..4 {
        let cluster = key(Names::Cluster, "c");
        let (peeked, standing) = cache.peek(&cluster).unwrap();
        assert_eq!(cache.peek(&cluster), Ok((peeked, standing)));
        assert_eq!(cache.pick(&cluster), Ok(peeked));
    }
    assert_eq!(cache.peek(&key(Names::Node, "none")), Err(Refusal::NoTunnel));
    cache.see(at(500));
    let fresh = Standing {
        own: false,
        streams: 0,
        suspect: false,
        leaving: false,
    };
    assert_eq!(
        cache.peek(&key(Names::Either, "n1")),
        Ok((t(2), fresh)),
        "t1 is full"
    );
    cache.release(t(1), Ended::Answered);
    let owing = Standing {
        own: true,
        streams: 1,
        suspect: true,
        leaving: false,
    };
    cache.remove(t(2));
    assert_eq!(cache.peek(&key(Names::Either, "n1")), Ok((t(1), owing)));
}

#[test]
fn a_tunnel_that_failed_is_avoided_and_stays_in_the_directory() {
    let mut cache = cache();
    let (node, who) = (key(Names::Node, "n"), identity("t", "c", "n"));
    cache.insert(t(1), &who, OWN);
    cache.insert(t(2), &who, OWN);
    let (first, both) = ([t(1)], [t(1), t(2)]);
    let avoiding = |avoid| Attempt {
        avoid,
        ..Attempt::default()
    };
    assert_eq!(cache.pick_for(&node, avoiding(&first)), Ok(t(2)));
    assert_eq!(cache.pick_for(&node, avoiding(&first)), Ok(t(2)));
    assert_eq!(cache.pick_for(&node, avoiding(&first)), Err(Refusal::Overloaded));
    assert_eq!(cache.pick_for(&node, avoiding(&both)), Err(Refusal::NoTunnel));
    let cluster = key(Names::Cluster, "c");
    assert_eq!(cache.pick_for(&cluster, avoiding(&both)), Err(Refusal::NoTunnel));
    assert_eq!(cache.pick(&node), Ok(t(1)));
}

#[test]
fn workers_share_what_the_peer_allows() {
    let mut cache = Cache::new(OWN, 100, false).one_of(2);
    let node = key(Names::Node, "n");
    cache.insert(t(1), &identity("t", "c", "n"), OTHER);
    cache.on_max_streams(t(1), 5);
    for _ in 0..3 {
        assert_eq!(cache.pick(&node), Ok(t(1)));
    }
    assert_eq!(cache.pick(&node), Err(Refusal::Overloaded));
    cache.on_max_streams(t(1), 0);
    cache.release(t(1), Ended::Answered);
    assert_eq!(cache.pick(&node), Err(Refusal::Overloaded));
    cache.on_max_streams(t(1), 1_000);
    assert_eq!(cache.pick(&node), Ok(t(1)), "the configuration's limit is 100");
}

#[test]
fn the_last_quarter_of_the_places_is_for_other_clients() {
    let mut cache = Cache::new(OWN, 8, false);
    let node = key(Names::Node, "n");
    cache.insert(t(1), &identity("t", "c", "n"), OWN);
    let client = |client_streams| Attempt {
        client_streams,
        avoid: &[],
    };
    for streams in 0..6 {
        assert_eq!(cache.pick_for(&node, client(streams)), Ok(t(1)), "{streams}");
    }
    assert_eq!(cache.pick_for(&node, client(6)), Err(Refusal::Overloaded));
    assert_eq!(cache.pick_for(&node, client(2)), Err(Refusal::Overloaded));
    assert_eq!(cache.pick_for(&node, client(0)), Ok(t(1)));
    assert_eq!(cache.pick_for(&node, client(1)), Ok(t(1)));
    assert_eq!(
        cache.pick_for(&node, client(0)),
        Err(Refusal::Overloaded),
        "all are taken"
    );
    cache.release(t(1), Ended::Answered);
    assert_eq!(cache.pick_for(&node, client(5)), Err(Refusal::Overloaded));
}

#[test]
fn the_digest_follows_the_tunnels_of_each_owner() {
    let mut cache = cache();
    let recomputed = |cache: &Cache, owner| {
        let mut digest = Digest::default();
        cache
            .owned_by(owner)
            .for_each(|(tunnel, standing)| digest.add(tunnel, standing));
        digest
    };
    let who = identity("t", "c", "n");
    cache.insert(t(1), &who, OWN);
    cache.insert(t(2), &who, OTHER);
    cache.insert(t(2), &who, OWN);
    cache.on_leaving(t(1));
    cache.on_leaving(t(1));
    cache.on_max_streams(t(2), 7);
    for owner in [OWN, OTHER] {
        assert_eq!(cache.digest(owner).tunnels(), 1);
        assert_eq!(cache.digest(owner), recomputed(&cache, owner));
    }
    cache.remove(t(1));
    cache.remove(t(1));
    assert_eq!(cache.digest(OWN), Digest::default());
}
