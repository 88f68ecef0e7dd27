//! Nobody starves: how long a tunnel, or a node of a cluster, may wait for its turn while others come and go.
//!
//! Requests here end at once, so that all tunnels are equally loaded and turns alone decide.

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Insert,
    Remove(Index),
    Pick,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => Just(Step::Insert),
        1 => any::<Index>().prop_map(Step::Remove),
        4 => Just(Step::Pick),
    ];
    prop::collection::vec(step, 0..80)
}

/// Plays a history of tunnels that lead to `id`, each with the node that `node_of` gives its serial. None of
/// them waits for more turns of others than there were others when it had its last turn, or came.
fn play(steps: Vec<Step>, id: &RouteKey<'_>, node_of: fn(u64) -> String) {
    let mut cache = Cache::new(OWN, 100, false);
    let mut live: Vec<(u64, usize, usize)> = Vec::new();
    let mut serial = 0;
    for step in steps {
        match step {
            Step::Insert => {
                serial += 1;
                cache.insert(t(serial), &identity("t", "c", &node_of(serial)), OWN);
                live.push((serial, 0, live.len()));
            }
            Step::Remove(at) if !live.is_empty() => {
                let (gone, ..) = live.remove(at.index(live.len()));
                assert!(cache.remove(t(gone)));
            }
            Step::Pick if !live.is_empty() => {
                let chosen = cache.pick(id).unwrap();
                cache.release(chosen, Ended::Answered);
                let others = live.len() - 1;
                for (tunnel, waited, patience) in &mut live {
                    if t(*tunnel) == chosen {
                        (*waited, *patience) = (0, others);
                    } else {
                        *waited += 1;
                        assert!(
                            waited <= patience,
                            "{tunnel} waits for turn {waited}, of {patience}"
                        );
                    }
                }
            }
            Step::Remove(_) | Step::Pick => {}
        }
    }
}

/// Picks once, by a request that ends at once; says which.
fn turn(cache: &mut Cache, id: &RouteKey<'_>) -> u64 {
    let tunnel = cache.pick(id).unwrap();
    cache.release(tunnel, Ended::Answered);
    tunnel.serial
}

/// Once a position in the list said whose turn it is, and the list moved under it: in this very rhythm tunnel 1
/// was never chosen again.
#[test]
fn a_tunnel_gets_its_turn_while_another_comes_and_goes() {
    let mut cache = Cache::new(OWN, 100, false);
    let who = identity("t", "c", "n");
    (1..=3).for_each(|i| cache.insert(t(i), &who, OWN));
    let node = key(Names::Node, "n");
    assert_eq!(turn(&mut cache, &node), 1);
    for comes_and_goes in 4..10 {
        let before = [turn(&mut cache, &node), turn(&mut cache, &node)];
        cache.insert(t(comes_and_goes), &who, OWN);
        assert_eq!((before, turn(&mut cache, &node)), ([2, 3], 1));
        cache.remove(t(comes_and_goes));
    }
}

/// The same among the nodes of a cluster.
#[test]
fn a_node_gets_its_turn_while_another_comes_and_goes() {
    let mut cache = Cache::new(OWN, 100, false);
    (1..=3).for_each(|i| cache.insert(t(i), &identity("t", "c", &format!("n{i}")), OWN));
    let cluster = key(Names::Cluster, "c");
    assert_eq!(turn(&mut cache, &cluster), 1);
    for comes_and_goes in 4..10 {
        let before = [turn(&mut cache, &cluster), turn(&mut cache, &cluster)];
        cache.insert(t(comes_and_goes), &identity("t", "c", "n4"), OWN);
        assert_eq!((before, turn(&mut cache, &cluster)), ([2, 3], 1));
        cache.remove(t(comes_and_goes));
    }
}

proptest! {
    #[test]
    fn no_tunnel_of_a_node_starves(steps in steps()) {
        play(steps, &key(Names::Node, "n"), |_| "n".into());
    }

    /// In the order of their names, the nodes come as if at random.
    #[test]
    fn no_node_of_a_cluster_starves(steps in steps()) {
        play(steps, &key(Names::Cluster, "c"), |serial| format!("{:x}", serial.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    }
}
