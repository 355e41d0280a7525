//! What queries and changes cost, and what nodes keep, as a mesh grows: see "Growth" in docs/performance.md.
//!
//! `cargo bench --bench growth` runs [`curves`] for its larger meshes. The simulator is in no build but the tests', so it
//! is a test that is passed over; the others hold the slopes in small.

use std::sync::OnceLock;

use super::*;
use crate::wire::TrackerRole;

/// The meshes and what is told of them: the bench's own.
#[path = "../../../benches/growth/plan.rs"]
mod plan;

use plan::{COMMON, Case, Cost, DEGREE, Point, RARE, Shape, WANTED};

/// A mesh whose nodes have all met, and know what they will.
fn mesh(case: Case) -> World {
    let mut w = World::new(1);
    let links = case.links();
    for n in 0..case.all() {
        let mut spec = match case.is_tracker(n) {
            true => Spec::new(&format!("t{n}")).tracker(),
            false => Spec::new(&format!("n{n}")).provides(COMMON).interest(WANTED),
        };
        if n == case.rare() {
            spec = spec.provides(RARE);
        }
        // At home, behind a NAT, where there are trackers.
        spec.listens = case.is_tracker(n) || case.shape == Shape::Mesh;
        spec.limits = Case::limits();
        w.add(spec);
        for (from, to) in links.range((n, 0)..(n + 1, 0)) {
            w.join(*from, *to);
        }
        // They don't all start in one moment.
        w.run(ms(5));
    }
    w.run(secs(20));
    // Trackers tell each other of whom they know at no more than a certain rate.
    for _ in 0..600 {
        let told = |t: N| w.nodes[t].state.table.len() == case.all() - 1 && w.nodes[t].state.shares.waiting() == 0;
        if (0..case.trackers).all(told) {
            break;
        }
        w.run(secs(5));
    }
    w
}

/// What so many nodes bring about, one after the other or all at once, in messages of these types.
fn cost(w: &mut World, who: &[N], kinds: [&str; 2], act: impl Fn(&mut World, N)) -> Cost {
    let sum = |w: &World| {
        let of = |map: &std::collections::BTreeMap<String, u64>| kinds.iter().filter_map(|k| map.get(*k)).sum::<u64>();
        (of(&w.received), of(&w.received_bytes))
    };
    let before = sum(w);
    who.iter().for_each(|n| act(w, *n));
    w.run(secs(10));
    let after = sum(w);
    Cost::each(after.0 - before.0, after.1 - before.1, who.len())
}

/// A query of each of them; and the share of them that was answered.
fn queries(w: &mut World, who: &[N], capability: &str) -> (Cost, f64) {
    let answered = |w: &World| who.iter().map(|n| w.nodes[*n].found.len()).sum::<usize>();
    let before = answered(w);
    let cost = cost(w, who, ["query", "query_resp"], |w, n| {
        w.find(n, capability, secs(9));
    });
    (cost, (answered(w) - before) as f64 / who.len() as f64)
}

/// A capability of each of them that comes and goes.
fn changes(w: &mut World, who: &[N], capability: &str) -> Cost {
    let came = cost(w, who, ["announce", ""], |w, n| w.register(n, capability));
    let went =
        cost(w, who, ["announce", ""], |w, n| assert!(w.with(n, |s, now, out| s.unregister(capability, now, out))));
    Cost { messages: (came.messages + went.messages) / 2.0, bytes: (came.bytes + went.bytes) / 2.0 }
}

fn measured(case: Case, times: usize) -> Point {
    let mut w = mesh(case);
    let who = case.some(times);
    let weight = |n: N| w.nodes[n].state.discovery_weight().total();
    let records = |n: N| w.nodes[n].state.table.len();
    let average =
        |of: &dyn Fn(N) -> usize| (case.trackers..case.all()).map(of).sum::<usize>() as f64 / case.nodes as f64;
    let (knowledge, tracker_knowledge) = (average(&weight), (0..case.trackers).map(weight).max());
    let (few, tracker_records) = (average(&records), (0..case.trackers).map(records).max());
    let (rare, found) = queries(&mut w, &who, RARE);
    let (common, _) = queries(&mut w, &who, COMMON);
    let quiet = changes(&mut w, &who, "quiet.x");
    let wanted = changes(&mut w, &who, "wanted.x");
    assert_eq!(w.rejected, 0);
    assert!(w.throttled.is_empty(), "{:?}", w.throttled);
    Point {
        case,
        real: false,
        links: case.links().len(),
        rare,
        found,
        common,
        quiet,
        wanted,
        records: few,
        tracker_records,
        knowledge: Some(knowledge),
        tracker_knowledge,
        resident: None,
    }
}

/// Measures the meshes in `ELO_GROWTH`, as JSON `[{"shape", "nodes", "trackers"}]`, and prints a point for each on a line
/// of its own.
#[test]
#[ignore = "run by `cargo bench --bench growth`"]
fn curves() {
    let cases = std::env::var("ELO_GROWTH").expect("ELO_GROWTH: a list of meshes");
    for case in serde_json::from_str::<Vec<Case>>(&cases).expect("a list of meshes") {
        let times = if case.nodes > 1000 { 4 } else { 10 };
        println!("\n{}", serde_json::to_string(&measured(case, times)).unwrap());
    }
}

fn case(shape: Shape, nodes: usize) -> Case {
    let trackers = match shape {
        Shape::Tracker => 1,
        Shape::Federation => 6,
        Shape::Mesh => 0,
    };
    Case { shape, nodes, trackers }
}

/// A small mesh and one that is twice as large, measured once for all tests. There are more providers in it than a query
/// can want.
fn two(shape: Shape) -> [Point; 2] {
    static MEASURED: OnceLock<Vec<[Point; 2]>> = OnceLock::new();
    let all = || {
        let of = |shape: &Shape| [70, 140].map(|nodes| measured(case(*shape, nodes), 5));
        [Shape::Tracker, Shape::Federation, Shape::Mesh].iter().map(of).collect()
    };
    let measured = MEASURED.get_or_init(all);
    measured.iter().find(|both| both[0].case.shape == shape).expect("each was measured").clone()
}

#[test]
fn a_query_costs_a_message_for_each_link_and_each_answers_way() {
    for shape in [Shape::Tracker, Shape::Federation, Shape::Mesh] {
        for point in two(shape) {
            assert_eq!(point.found, 1.0, "{point:?}");
            // Its own links are all it takes, and in a ring of nodes that heard of it at once some twice.
            let links = point.links as f64;
            assert!(point.rare.messages >= 0.7 * links, "{point:?}");
            assert!(point.rare.messages <= 1.3 * links + 2.0 * 5.0, "{point:?}");
        }
    }
}

#[test]
fn what_a_tracker_knows_enough_of_it_answers_alone_however_many_nodes_there_are() {
    let [small, large] = two(Shape::Tracker);
    assert_eq!(small.common.messages, 2.0, "{small:?}");
    assert_eq!(large.common.messages, 2.0, "{large:?}");
    let [small, large] = two(Shape::Federation);
    // Each tracker that is asked answers; none asks any further.
    assert_eq!(small.common.messages, 8.0, "{small:?}");
    assert_eq!(large.common.messages, 8.0, "{large:?}");
}

#[test]
fn a_change_that_interests_nobody_is_told_to_peers_and_among_trackers_only() {
    let [small, large] = two(Shape::Tracker);
    assert_eq!((small.quiet.messages, large.quiet.messages), (1.0, 1.0));
    for point in two(Shape::Mesh) {
        assert!(point.quiet.messages <= DEGREE as f64, "{point:?}");
        assert!(point.quiet.messages > DEGREE as f64 - 1.0, "{point:?}");
    }
    for point in two(Shape::Federation) {
        // The four that it is registered with each tell the two others, and those each other.
        assert!(point.quiet.messages >= 6.0, "{point:?}");
        assert!(point.quiet.messages <= 4.0 + 2.0 * 5.0, "{point:?}");
    }
}

#[test]
fn a_change_that_interests_all_crosses_no_link_more_than_twice() {
    for shape in [Shape::Tracker, Shape::Federation, Shape::Mesh] {
        for point in two(shape) {
            let (links, nodes) = (point.links as f64, point.case.nodes as f64);
            assert!(point.wanted.messages <= 2.0 * links, "{point:?}");
            assert!(point.wanted.messages >= nodes - 1.0, "{point:?}");
        }
    }
}

#[test]
fn what_a_node_keeps_does_not_grow_with_the_mesh_and_what_a_tracker_keeps_does() {
    for shape in [Shape::Tracker, Shape::Federation, Shape::Mesh] {
        let [small, large] = two(shape);
        assert!(large.records <= 1.2 * small.records, "{small:?} {large:?}");
        assert!(large.knowledge <= small.knowledge.map(|k| 1.2 * k), "{small:?} {large:?}");
        let all = |p: &Point| (p.case.trackers > 0).then(|| p.case.all() - 1);
        assert_eq!((small.tracker_records, large.tracker_records), (all(&small), all(&large)));
    }
}

#[test]
fn the_meshes_are_what_they_are_said_to_be() {
    for nodes in [10, 100] {
        for shape in [Shape::Tracker, Shape::Federation, Shape::Mesh] {
            let case = case(shape, nodes);
            let links = case.links();
            assert!(links.iter().all(|(a, b)| a > b && *a < case.all()));
            let degree = |n: N| links.iter().filter(|(a, b)| *a == n || *b == n).count();
            assert!((case.trackers..case.all()).all(|n| match shape {
                Shape::Tracker => degree(n) == 1,
                Shape::Federation => degree(n) == 4,
                Shape::Mesh => (2..=DEGREE).contains(&degree(n)),
            }));
            let w = mesh(case);
            let roles = w.nodes.iter().filter(|n| n.spec.tracker == TrackerRole::Public).count();
            assert_eq!(roles, case.trackers);
            assert_eq!(w.links.iter().filter(|l| l.alive && l.open == [true; 2]).count(), links.len());
            assert!(case.some(5).len() <= 5 && !case.some(5).contains(&case.rare()));
        }
    }
}
