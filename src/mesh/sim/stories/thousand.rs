//! A thousand nodes with ten trackers, from their start through the loss of a tracker and a cut network.

use std::time::{Duration, Instant};

use crate::mesh::sim::*;

const TRACKERS: usize = 10;
const NODES: usize = 1000;
const CAPS: usize = 100;

/// Each node knows one tracker; the trackers know the first one.
fn mesh(seed: u64) -> World {
    let mut w = World::new(seed);
    w.delay = ms(20);
    for i in 0..TRACKERS {
        let t = w.add(Spec::new(&format!("t{i}")).tracker());
        if t > 0 {
            w.join(t, 0);
        }
    }
    for i in 0..NODES {
        let mut spec = Spec::new(&format!("n{i}")).provides(&format!("cap.{}", i % CAPS));
        // Most are behind a NAT, as at home.
        spec.listens = i % 10 == 0;
        if i % 20 == 7 {
            spec = spec.interest(&format!("cap.{}", (i + 3) % CAPS));
        }
        let n = w.add(spec);
        let tracker = w.below(TRACKERS);
        w.join(n, tracker);
        // They don't all start in one moment.
        w.run(ms(5));
    }
    w
}

/// With how many trackers a node is registered.
pub fn registered(w: &World, n: N) -> usize {
    w.nodes[n].state.peers.trackers().count()
}

/// Whether all that belongs together is connected: configured peers with each other, every node with a tracker, and the
/// trackers (which come first) among each other.
pub fn is_whole(w: &World, trackers: usize) -> bool {
    let mut links: std::collections::BTreeMap<(N, N), bool> = std::collections::BTreeMap::new();
    for link in (0..w.links.len()).filter(|l| w.is_live(*l) && !w.is_apart(*l)) {
        let ends = w.links[link].ends;
        links.insert((ends[0].0, ends[1].0), true);
        links.insert((ends[1].0, ends[0].0), true);
    }
    let mut reached = vec![false; trackers];
    let mut next = vec![0];
    while let Some(t) = next.pop() {
        if !std::mem::replace(&mut reached[t], true) {
            next.extend((0..trackers).filter(|o| links.contains_key(&(t, *o))));
        }
    }
    let configured = |n: N| {
        let peers = w.nodes[n].configured.iter().filter_map(|c| super::super::node::number(c.addr.ip()));
        peers.filter(|p| w.nodes[*p].up).all(|p| links.contains_key(&(n, p)))
    };
    let up = |n: &N| w.nodes[*n].up;
    reached.iter().enumerate().all(|(t, r)| *r || !w.nodes[t].up)
        && (0..w.nodes.len()).filter(up).all(configured)
        && (trackers..w.nodes.len()).filter(up).all(|n| (0..trackers).any(|t| links.contains_key(&(n, t))))
}

#[test]
fn a_thousand_nodes() {
    let began = Instant::now();
    let lap = |what: &str| eprintln!("{what}: {:.1} s", began.elapsed().as_secs_f64());
    let mut w = mesh(1);
    lap("started");
    w.run(secs(45));
    lap("settled");
    let few = (TRACKERS..TRACKERS + NODES).filter(|n| registered(&w, *n) < 4).count();
    eprintln!("{few} with fewer than 4; {:?} dials {} throttled {:?}", w.received, w.dials, w.throttled);
    for n in 0..TRACKERS {
        eprintln!("t{n}: {} peers, {} trackers, {} records", w.nodes[n].state.peers.iter().count(), registered(&w, n), w.nodes[n].state.table.len());
    }
    let weights: Vec<_> = (0..w.nodes.len()).map(|n| w.nodes[n].state.discovery_weight()).collect();
    let max = weights[TRACKERS..].iter().max_by_key(|w| w.total()).unwrap();
    let avg = weights.iter().map(|w| w.total()).sum::<usize>() / weights.len();
    eprintln!("max {} {max:?}, average {avg}, trackers {:?}", max.total(), weights[..TRACKERS].iter().map(|w| w.total() / 1024).collect::<Vec<_>>());
    let n = TRACKERS + 3;
    eprintln!("records of one: {}", w.nodes[n].state.table.len());
    let one = w.nodes[n].state.table.iter().next().unwrap().weight();
    eprintln!("a record: {one}, {} {}", size_of::<crate::wire::Record>(), String::from_utf8_lossy(w.nodes[n].state.table.iter().next().unwrap().object.raw()));
    let _ = Duration::ZERO;
}
