//! What a query costs: messages over links, and who it reaches.

use std::collections::BTreeSet;

use crate::mesh::sim::*;

/// A mesh of `n` nodes, each link with a delay of its own.
fn shaped(seed: u64, n: usize, edges: &BTreeSet<(N, N)>, spread: (u64, u64)) -> World {
    let mut w = World::new(seed);
    w.delays = Some(spread);
    for i in 0..n {
        w.add(Spec::new(&format!("n{i}")));
    }
    for (a, b) in edges {
        w.join(*a, *b);
    }
    w.run(secs(2));
    w
}

fn ring(n: usize) -> BTreeSet<(N, N)> {
    (0..n).map(|i| (i, (i + 1) % n)).collect()
}

fn clique(n: usize) -> BTreeSet<(N, N)> {
    (0..n).flat_map(|a| (0..a).map(move |b| (a, b))).collect()
}

/// A connected graph in which each node has about so many links.
fn random(n: usize, degree: usize, seed: u64) -> BTreeSet<(N, N)> {
    let mut w = World::new(seed);
    let mut edges: BTreeSet<(N, N)> = (1..n).map(|i| (i, w.below(i))).collect();
    while edges.len() < n * degree / 2 {
        let (a, b) = (w.below(n), w.below(n));
        if a != b && !edges.contains(&(a, b)) && !edges.contains(&(b, a)) {
            edges.insert((a, b));
        }
    }
    edges
}

/// How far apart nodes are from one, in links.
fn distances(n: usize, edges: &BTreeSet<(N, N)>, from: N) -> Vec<usize> {
    let mut far = vec![usize::MAX; n];
    far[from] = 0;
    for step in 0..n {
        let mut more = false;
        for (a, b) in edges {
            for (a, b) in [(*a, *b), (*b, *a)] {
                if far[a] == step && far[b] == usize::MAX {
                    (far[b], more) = (step + 1, true);
                }
            }
        }
        if !more {
            break;
        }
    }
    far
}

struct Cost {
    /// Messages of a query over links, of all there are and of those that it had to cross or might have.
    per_link: f64,
    per_link_in_reach: f64,
    /// Of those whom five links lead to, how many it reached.
    reached: f64,
}

fn cost(w: &mut World, edges: &BTreeSet<(N, N)>, queries: usize) -> Cost {
    let n = w.nodes.len();
    let (mut sent, mut touched, mut reached, mut reachable) = (0, 0, 0, 0);
    for _ in 0..queries {
        let from = w.below(n);
        let far = distances(n, edges, from);
        let before = w.received.get("query").copied().unwrap_or(0);
        let seen: usize = w.nodes.iter().map(|node| node.state.queries.len()).sum();
        w.find(from, "nothing", secs(3));
        w.run(secs(4));
        sent += w.received["query"] - before;
        reached += w.nodes.iter().map(|node| node.state.queries.len()).sum::<usize>() - seen;
        reachable += far.iter().filter(|d| (1..=5).contains(*d)).count();
        // Over the others nobody has a step left.
        touched += edges.iter().filter(|(a, b)| far[*a].min(far[*b]) < 5).count();
    }
    Cost {
        per_link: sent as f64 / (edges.len() * queries) as f64,
        per_link_in_reach: sent as f64 / touched as f64,
        reached: reached as f64 / reachable as f64,
    }
}

#[test]
fn a_query_costs_little_more_than_a_message_for_each_link() {
    let shapes = [
        ("ring of 8", 8, ring(8), 20),
        ("clique of 8", 8, clique(8), 20),
        ("clique of 30", 30, clique(30), 10),
        ("100 nodes, 4 links each", 100, random(100, 4, 1), 10),
        ("100 nodes, 6 links each", 100, random(100, 6, 2), 10),
        ("100 nodes, 8 links each", 100, random(100, 8, 3), 10),
        ("1000 nodes, 4 links each", 1000, random(1000, 4, 4), 3),
        ("1000 nodes, 6 links each", 1000, random(1000, 6, 6), 3),
        ("1000 nodes, 8 links each", 1000, random(1000, 8, 5), 3),
    ];
    for (name, n, edges, queries) in shapes {
        for spread in [(1, 2), (5, 60), (20, 20)] {
            if n == 1000 && spread != (5, 60) {
                continue;
            }
            let mut w = shaped(7, n, &edges, spread);
            let cost = cost(&mut w, &edges, queries);
            eprintln!(
                "{name}, {}-{} ms: {:.3} messages for each of {} links, {:.3} for each in reach; reached {:.1} %",
                spread.0,
                spread.1,
                cost.per_link,
                edges.len(),
                cost.per_link_in_reach,
                100.0 * cost.reached
            );
            assert!(cost.per_link <= 1.2, "{name} {spread:?}: {}", cost.per_link);
            assert!(cost.per_link_in_reach <= 1.2, "{name} {spread:?}: {}", cost.per_link_in_reach);
            // Waiting makes longer ways the quicker ones at times, and a step is lost at the end.
            assert!(cost.reached > 0.95, "{name} {spread:?}: {}", cost.reached);
        }
    }
}
