//! A thousand nodes with ten trackers, from their start through the loss of a tracker and a cut network.

use std::time::{Duration, Instant};

use crate::info::Route;
use crate::mesh::TaskId;
use crate::mesh::sim::big::seeds;
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

/// What a node keeps to find others: the most and the average of ordinary nodes, and the most of trackers, in bytes.
fn weights(w: &World) -> (usize, usize, usize) {
    let all: Vec<usize> = w.nodes.iter().map(|n| n.state.discovery_weight().total()).collect();
    let (trackers, others) = all.split_at(TRACKERS);
    let most = |all: &[usize]| all.iter().copied().max().unwrap_or(0);
    (most(others), others.iter().sum::<usize>() / others.len(), most(trackers))
}

/// Calls from a node to a capability that another one provides, and whether all went well.
fn calls(w: &mut World, n: usize, spread: Duration) -> Vec<(N, TaskId)> {
    let calls = (0..n).map(|i| {
        let from = TRACKERS + w.below(NODES);
        let ask = Ask::new(&format!("cap.{}", i % CAPS)).plan(|p| p.ms = (i % 4) as u64 * 100).timeout(secs(20));
        let call = w.call(from, ask);
        w.run(spread);
        call
    });
    calls.collect()
}

fn good(w: &World, calls: &[(N, TaskId)]) -> usize {
    calls.iter().filter(|c| w.ended(c) && w.result(c).is_ok()).count()
}

#[test]
fn a_thousand_nodes_with_ten_trackers() {
    seeds(1).into_iter().for_each(from_start_to_cut);
}

fn from_start_to_cut(seed: u64) {
    let began = Instant::now();
    let took = |what: &str| eprintln!("seed {seed}: {what} ({:.1} s)", began.elapsed().as_secs_f64());
    let mut w = mesh(seed);
    w.run(secs(45));
    let everybody = TRACKERS..TRACKERS + NODES;
    let few = everybody.clone().filter(|n| registered(&w, *n) < 4).count();
    let (most, average, trackers) = weights(&w);
    let dials = w.dials;
    took(&format!(
        "settled: {dials} dials, {} announces; discovery state: {} KiB at most, {} KiB on the average, \
         {} KiB on a tracker, which knows all {}",
        w.received["announce"],
        most.div_ceil(1024),
        average.div_ceil(1024),
        trackers.div_ceil(1024),
        w.nodes[0].state.table.len(),
    ));
    assert!(is_whole(&w, TRACKERS));
    assert_eq!(few, 0, "nodes with fewer than four trackers");
    assert!(most <= 64 * 1024, "{most} bytes of discovery state");
    assert!((0..TRACKERS).all(|t| w.nodes[t].state.table.len() == NODES + TRACKERS - 1));
    assert!(w.throttled.is_empty(), "{:?}", w.throttled);

    // Everybody can call by capability.
    let before = w.received.get("query").copied().unwrap_or(0);
    let made = calls(&mut w, 30, ms(10));
    w.run(secs(5));
    let queries = w.received["query"] - before;
    took(&format!("{} of {} calls by capability good, {queries} query messages", good(&w, &made), made.len()));
    assert_eq!(good(&w, &made), made.len());

    // A tracker dies with calls under way, and returns.
    let lost = 3;
    let its: Vec<N> = everybody.clone().filter(|n| w.link(*n, lost).is_some()).collect();
    let mut made = calls(&mut w, 10, ms(20));
    let died = w.now;
    w.kill(lost, true);
    made.extend(calls(&mut w, 10, ms(20)));
    w.until(secs(5), "its nodes are registered elsewhere", |w| its.iter().all(|n| registered(w, *n) > 0));
    let elsewhere = w.now - died;
    made.extend(calls(&mut w, 10, ms(20)));
    w.run(secs(15));
    w.check_calls();
    assert!(made.iter().all(|c| w.ended(c)), "every call ends");
    assert!(made.iter().all(|c| w.result(c).as_ref().map_or_else(|e| e.is_retryable(), |_| true)));
    assert_eq!(good(&w, &made[20..]), 10, "those made after the loss");
    let back = w.now;
    w.revive(lost, 7000);
    w.run(secs(40));
    let peak = w.peak_of_arrivals(lost, back);
    let returned = w.nodes[lost].state.peers.iter().count();
    took(&format!(
        "a tracker with {} nodes died: all registered elsewhere after {elsewhere:?}, {} of {} calls good; it returned: {returned} \
         came, {peak} in the busiest second",
        its.len(),
        good(&w, &made),
        made.len(),
    ));
    assert!(peak <= NODES / 10, "{peak} registrations in a second");
    assert!(is_whole(&w, TRACKERS));
    w.settle_calls();

    // The network is cut in two, and heals.
    let halves = w.halves();
    w.part(halves);
    w.run(secs(30));
    assert!(!is_whole(&w, TRACKERS), "it was cut");
    w.heal();
    let healed = w.now;
    w.until(secs(10), "the mesh is whole again", |w| w.ticks % 4096 == 0 && is_whole(w, TRACKERS));
    let whole = w.now - healed;
    let made = calls(&mut w, 20, ms(10));
    w.run(secs(10));
    took(&format!("cut for 30 s: whole again {whole:?} after it healed, {} of 20 calls good", good(&w, &made)));
    assert_eq!(good(&w, &made), 20);
    w.check_calls();
    assert_eq!(w.rejected, 0);
    assert!(w.throttled.is_empty(), "{:?}", w.throttled);
    let (most, average, trackers) = weights(&w);
    // With what the calls found, which is forgotten when its time is up.
    took(&format!(
        "after all that: {} KiB at most, {} KiB on the average, {} KiB on a tracker",
        most / 1024,
        average / 1024,
        trackers / 1024
    ));
}

#[test]
fn a_thousand_nodes_at_two_trackers_that_come_to_know_each_other() {
    let mut w = World::new(2);
    w.delay = ms(20);
    let trackers = [0, 1].map(|i| w.add(Spec::new(&format!("t{i}")).tracker()));
    for i in 0..NODES {
        let n =
            w.add(Spec::new(&format!("n{i}")).hidden().provides(&format!("cap.{i}")).limits(|l| l.max_trackers = 1));
        w.join(n, trackers[i % 2]);
        w.run(ms(5));
    }
    w.run(secs(2));
    let known = |w: &World| trackers.map(|t| w.nodes[t].state.table.len());
    assert_eq!(known(&w), [NODES / 2; 2]);
    let (before, announces) = (w.now, w.received["announce"]);
    w.join(trackers[1], trackers[0]);
    w.until(secs(12), "each knows the other's nodes", |w| known(w) == [NODES + 1; 2]);
    let took = w.now - before;
    let announces = w.received["announce"] - announces;
    // A call for what only one node on the other side provides.
    let queries = w.received.get("query").copied().unwrap_or(0);
    let calls: Vec<_> = (0..100)
        .map(|i| {
            let call = w.call(2 + i, Ask::new(&format!("cap.{}", (i + 501) % NODES)).timeout(secs(10)));
            w.run(ms(20));
            call
        })
        .collect();
    w.run(secs(3));
    let queries = w.received["query"] - queries;
    for call in &calls {
        assert_eq!(w.result(call).as_ref().unwrap().hops, 3);
    }
    eprintln!(
        "two trackers told each other of {NODES} nodes in {took:?}, with {announces} announces; 100 calls, {queries} queries"
    );
    assert!(w.throttled.is_empty(), "{:?}", w.throttled);
}

#[test]
fn of_a_thousand_nodes_behind_nats_those_that_can_punch_do_and_the_others_stay_with_the_relay() {
    let mut w = World::new(1);
    w.delay = ms(20);
    for i in 0..TRACKERS {
        let t = w.add(Spec::new(&format!("t{i}")).tracker().punches());
        if t > 0 {
            w.join(t, 0);
        }
    }
    let nodes: Vec<N> = (0..NODES)
        .map(|i| {
            let n = w.add(Spec::new(&format!("n{i}")).hidden().punches().limits(|l| l.max_trackers = 1));
            // The two of a pair know the same one.
            w.join(n, i / 2 % TRACKERS);
            w.run(ms(5));
            n
        })
        .collect();
    w.run(secs(30));
    let pairs: Vec<(N, N)> = nodes.chunks(2).map(|pair| (pair[0], pair[1])).collect();
    // One of each fifth pair is behind a NAT with changing ports.
    w.symmetric.extend(pairs.iter().skip(4).step_by(5).map(|(_, callee)| *callee));
    let call_all = |w: &mut World| -> Vec<Route> {
        let calls: Vec<_> = pairs
            .iter()
            .map(|(caller, callee)| {
                w.run(ms(50));
                let callee = w.id(*callee);
                w.call(*caller, Ask::new("ping").to(callee).timeout(secs(20)))
            })
            .collect();
        calls.iter().map(|call| w.success(call).route).collect()
    };
    assert!(call_all(&mut w).iter().all(|route| *route == Route::Relay), "nobody can be dialled");
    w.run(secs(10));
    let routes = call_all(&mut w);
    let direct = routes.iter().filter(|route| **route == Route::Direct).count();
    println!("of {} pairs behind NATs {direct} are connected by now, {} relayed", pairs.len(), routes.len() - direct);
    for (i, route) in routes.iter().enumerate() {
        assert_eq!(*route, if i % 5 == 4 { Route::Relay } else { Route::Direct }, "pair {i}");
    }
    w.check_calls();
}
