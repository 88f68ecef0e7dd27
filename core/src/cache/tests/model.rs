//! The cache beside a naive model: one list of tunnels, searched from end to end for every question.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::*;

/// Ids that glued strings, indices or escapes would mix up. Tenants, clusters and nodes share them.
fn id() -> impl Strategy<Value = String> {
    let long = "x".repeat(255);
    let odd = [
        "a",
        "b",
        "a:b",
        ":",
        "a:",
        "::",
        "b:a",
        "käse",
        "日本",
        "a b",
        "%3A",
        "a.b",
        long.as_str(),
    ];
    select(odd.map(str::to_owned).to_vec())
}

#[derive(Clone, Debug)]
enum Step {
    Insert {
        tenant: String,
        cluster: String,
        node: String,
        own: bool,
    },
    /// A tunnel that is there already, as someone else's.
    InsertAgain(Index),
    Remove(Index),
    Leaving(Index),
    Missing(Index, bool),
    Pick {
        tenant: Option<String>,
        names: Names,
        id: String,
    },
    /// A request that runs ends; without an answer, it may have failed.
    Release(Index, bool),
    /// The answer to a request begins.
    Answered(Index),
    Sleep(u64),
    /// Events of a tunnel that is gone, or never was.
    Stale(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let names = select(vec![Names::Either, Names::Node, Names::Cluster]);
    prop_oneof![
        4 => (id(), id(), id(), any::<bool>())
            .prop_map(|(tenant, cluster, node, own)| Step::Insert { tenant, cluster, node, own }),
        1 => any::<Index>().prop_map(Step::InsertAgain),
        2 => any::<Index>().prop_map(Step::Remove),
        2 => any::<Index>().prop_map(Step::Leaving),
        3 => (any::<Index>(), any::<bool>()).prop_map(|(at, missing)| Step::Missing(at, missing)),
        8 => (prop::option::weighted(0.9, id()), names, id())
            .prop_map(|(tenant, names, id)| Step::Pick { tenant, names, id }),
        4 => (any::<Index>(), any::<bool>()).prop_map(|(at, fails)| Step::Release(at, fails)),
        4 => any::<Index>().prop_map(Step::Answered),
        2 => (0..600u64).prop_map(Step::Sleep),
        1 => (0..30u64).prop_map(Step::Stale),
    ]
}

#[derive(Clone, Debug)]
struct Line {
    tunnel: TunnelId,
    identity: Arc<Identity>,
    own: bool,
    streams: u32,
    /// When it was last chosen, or came.
    turn: u64,
    unanswered: u32,
    owes_since: Instant,
    missing: bool,
    leaving: bool,
}

impl Line {
    fn is_last_resort(&self, now: Instant) -> bool {
        self.leaving || self.is_suspect(now)
    }

    fn is_suspect(&self, now: Instant) -> bool {
        self.missing || self.unanswered > 0 && now - self.owes_since >= SUSPECT_AFTER
    }
}

/// The list.
struct Model {
    isolated: bool,
    max_streams: u32,
    lines: Vec<Line>,
    /// When a cluster's node last had its turn, or came.
    turns: Vec<(Option<TenantId>, ClusterId, NodeId, u64)>,
    clock: u64,
    now: Instant,
}

impl Model {
    fn scope(&self, identity: &Identity) -> Option<TenantId> {
        self.isolated.then(|| identity.tenant.clone())
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn insert(&mut self, tunnel: TunnelId, identity: &Arc<Identity>, own: bool) {
        let (turn, scope) = (self.tick(), self.scope(identity));
        let Identity { cluster, node, .. } = &**identity;
        if !self
            .turns
            .iter()
            .any(|(s, c, n, _)| (s, c, n) == (&scope, cluster, node))
        {
            self.turns.push((scope, cluster.clone(), node.clone(), turn));
        }
        self.lines.push(Line {
            tunnel,
            identity: Arc::clone(identity),
            own,
            streams: 0,
            turn,
            unanswered: 0,
            owes_since: self.now,
            missing: false,
            leaving: false,
        });
    }

    fn remove(&mut self, tunnel: TunnelId) -> bool {
        let had = self.lines.len();
        self.lines.retain(|line| line.tunnel != tunnel);
        let (isolated, lines) = (self.isolated, &self.lines);
        self.turns.retain(|(s, c, n, _)| {
            lines.iter().any(|line| {
                let Identity {
                    tenant,
                    cluster,
                    node,
                } = &*line.identity;
                (s.as_ref(), c, n) == (isolated.then_some(tenant), cluster, node)
            })
        });
        self.lines.len() < had
    }

    /// Suspects last, before them those that leave; own first, then the fewest streams, then who waits longest.
    fn choose(&mut self, fits: impl Fn(&Line) -> bool) -> Option<TunnelId> {
        let turn = self.tick();
        let (max, now) = (self.max_streams, self.now);
        let fit = self
            .lines
            .iter_mut()
            .filter(|line| fits(line) && line.streams < max);
        let best = fit.min_by_key(|line| {
            (
                line.is_suspect(now),
                line.leaving,
                !line.own,
                line.streams,
                line.turn,
            )
        })?;
        if best.unanswered == 0 {
            best.owes_since = now;
        }
        best.streams += 1;
        best.unanswered += 1;
        best.turn = turn;
        Some(best.tunnel)
    }

    fn pick(&mut self, key: &RouteKey<'_>) -> Result<TunnelId, Refusal> {
        let scope = match key.tenant {
            _ if !self.isolated => None,
            None => return Err(Refusal::NoTenant),
            Some(tenant) => Some(TenantId::parse(tenant).unwrap()),
        };
        let isolated = self.isolated;
        let in_scope = move |line: &Line| !isolated || Some(&line.identity.tenant) == scope.as_ref();
        let is_node = |line: &Line| in_scope(line) && line.identity.node.as_str() == key.id;
        let is_cluster = |line: &Line| in_scope(line) && line.identity.cluster.as_str() == key.id;
        let node_exists = self.lines.iter().any(is_node);
        if node_exists && key.names != Names::Cluster {
            return self.choose(is_node).ok_or(Refusal::Overloaded);
        }
        if key.names == Names::Node || !self.lines.iter().any(is_cluster) {
            return Err(Refusal::NoTunnel);
        }
        let of_cluster = self.lines.iter().filter(|line| is_cluster(line));
        let mut nodes: Vec<_> = of_cluster
            .map(|line| (self.scope(&line.identity), line.identity.node.clone()))
            .collect();
        let turn_of = |model: &Self, (scope, node): &(Option<TenantId>, NodeId)| {
            let of =
                |(s, c, n, _): &&(_, ClusterId, NodeId, u64)| s == scope && c.as_str() == key.id && n == node;
            model.turns.iter().find(of).unwrap().3
        };
        nodes.sort_by_key(|node| turn_of(self, node));
        nodes.dedup();
        // Those in doubt are asked when nobody else is left.
        let now = self.now;
        for doubtful in [false, true] {
            for (scope, node) in &nodes {
                let turn = self.tick();
                let of = |(s, c, n, _): &&mut (_, ClusterId, NodeId, u64)| {
                    s == scope && c.as_str() == key.id && n == node
                };
                self.turns.iter_mut().find(of).unwrap().3 = turn;
                let chosen = self.choose(|line| {
                    is_cluster(line) && line.identity.node == *node && (doubtful || !line.is_last_resort(now))
                });
                if let Some(chosen) = chosen {
                    return Ok(chosen);
                }
            }
        }
        Err(Refusal::Overloaded)
    }
}

fn play(isolated: bool, max_streams: u32, steps: Vec<Step>) {
    let mut cache = Cache::new(OWN, max_streams, isolated);
    let mut model = Model {
        isolated,
        max_streams,
        lines: Vec::new(),
        turns: Vec::new(),
        clock: 0,
        now: Instant::ZERO,
    };
    let (mut serial, mut running) = (100, Vec::new());
    for step in steps {
        match step {
            Step::Insert {
                tenant,
                cluster,
                node,
                own,
            } => {
                serial += 1;
                let who = identity(&tenant, &cluster, &node);
                cache.insert(t(serial), &who, if own { OWN } else { OTHER });
                model.insert(t(serial), &who, own);
            }
            Step::InsertAgain(at) if !model.lines.is_empty() => {
                let tunnel = at.get(&model.lines).tunnel;
                cache.insert(tunnel, &identity("z", "z", "z"), OWN);
            }
            Step::Remove(at) if !model.lines.is_empty() => {
                let tunnel = at.get(&model.lines).tunnel;
                assert!(cache.remove(tunnel) && model.remove(tunnel));
            }
            Step::Leaving(at) if !model.lines.is_empty() => {
                let line = at.index(model.lines.len());
                model.lines[line].leaving = true;
                cache.on_leaving(model.lines[line].tunnel);
            }
            Step::Missing(at, missing) if !model.lines.is_empty() => {
                let line = at.index(model.lines.len());
                model.lines[line].missing = missing;
                cache.on_missing(model.lines[line].tunnel, missing);
            }
            Step::Pick { tenant, names, id } => {
                let key = RouteKey {
                    tenant: tenant.as_deref(),
                    names,
                    id: &id,
                };
                let peeked = cache.peek(&key);
                if let Ok((tunnel, standing)) = peeked {
                    let line = model.lines.iter().find(|line| line.tunnel == tunnel).unwrap();
                    let expected = Standing {
                        own: line.own,
                        streams: line.streams,
                        suspect: line.is_suspect(model.now),
                        leaving: line.leaving,
                    };
                    assert_eq!(standing, expected);
                }
                let answer = cache.pick(&key);
                assert_eq!(answer, model.pick(&key));
                assert_eq!(
                    answer,
                    peeked.map(|(tunnel, _)| tunnel),
                    "who peeks sees what a pick takes"
                );
                running.extend(answer.map(|tunnel| (tunnel, false)));
            }
            Step::Release(at, fails) if !running.is_empty() => {
                let (tunnel, answered) = running.swap_remove(at.index(running.len()));
                let how = match (answered, fails) {
                    (true, _) => Ended::Answered,
                    (false, true) => Ended::Failed(Failure::StreamReset),
                    (false, false) => Ended::Abandoned,
                };
                cache.release(tunnel, how);
                if let Some(line) = model.lines.iter_mut().find(|line| line.tunnel == tunnel) {
                    line.streams -= 1;
                    line.unanswered -= u32::from(!answered);
                }
            }
            Step::Answered(at) if !running.is_empty() => {
                let index = at.index(running.len());
                let (tunnel, answered) = &mut running[index];
                if !std::mem::replace(answered, true) {
                    cache.on_answered(*tunnel);
                    if let Some(line) = model.lines.iter_mut().find(|line| line.tunnel == *tunnel) {
                        line.unanswered -= 1;
                        line.owes_since = model.now;
                    }
                }
            }
            Step::Sleep(ms) => {
                cache.see(Instant::ZERO);
                model.now = model.now + Duration::from_millis(ms);
                cache.see(model.now);
            }
            Step::Stale(serial) => {
                assert!(!cache.remove(t(serial)));
                cache.release(t(serial), Ended::Abandoned);
                cache.on_answered(t(serial));
                cache.on_leaving(t(serial));
                assert_eq!(cache.identity(t(serial)), None);
                assert_eq!(cache.streams(t(serial)), 0);
            }
            Step::InsertAgain(_)
            | Step::Remove(_)
            | Step::Leaving(_)
            | Step::Missing(..)
            | Step::Release(..)
            | Step::Answered(_) => {}
        }
        let mut identities = BTreeMap::new();
        for line in &model.lines {
            *identities.entry(Arc::clone(&line.identity)).or_insert(0) += 1;
            assert_eq!(cache.streams(line.tunnel), line.streams);
            assert_eq!(cache.identity(line.tunnel), Some(&line.identity));
        }
        assert_eq!(cache.identities(), identities);
    }
    // With the last tunnel the last entry goes: nothing is left to grow.
    model
        .lines
        .iter()
        .for_each(|line| assert!(cache.remove(line.tunnel)));
    match cache.tenancy {
        Tenancy::Shared(index) => assert!(index.nodes.is_empty() && index.clusters.is_empty()),
        Tenancy::Isolated(tenants) => assert!(tenants.is_empty()),
    }
}

proptest! {
    #[test]
    fn the_answers_are_those_of_a_list(
        isolated: bool, max_streams in 1..4u32, steps in prop::collection::vec(step(), 0..80),
    ) {
        play(isolated, max_streams, steps);
    }

    /// What a tenant is answered does not depend on what others do.
    #[test]
    fn isolated_tenants_do_not_even_notice_each_other(steps in prop::collection::vec(step(), 0..80)) {
        let (mut alone, mut among_others) = (Cache::new(OWN, 2, true), Cache::new(OWN, 2, true));
        for (serial, step) in (1..).zip(steps) {
            match step {
                Step::Insert { tenant, cluster, node, own } => {
                    let (who, owner) = (identity(&tenant, &cluster, &node), if own { OWN } else { OTHER });
                    among_others.insert(t(serial), &who, owner);
                    if tenant == "a" {
                        alone.insert(t(serial), &who, owner);
                    }
                }
                Step::Remove(at) => {
                    let tunnel = t(1 + at.index(80) as u64);
                    among_others.remove(tunnel);
                    alone.remove(tunnel);
                }
                Step::Pick { tenant, names, id } => {
                    let key = RouteKey { tenant: tenant.as_deref(), names, id: &id };
                    let answer = among_others.pick(&key);
                    if key.tenant == Some("a") {
                        prop_assert_eq!(answer, alone.pick(&key));
                    }
                }
                Step::InsertAgain(_)
                | Step::Leaving(_)
            | Step::Missing(..)
                | Step::Release(..)
                | Step::Answered(_)
                | Step::Sleep(_)
                | Step::Stale(_) => {}
            }
        }
    }
}
