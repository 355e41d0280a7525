//! How news spreads: records, queries, events.

use crate::error::ErrorCode;
use crate::info::Route;
use crate::mesh::sim::*;

/// Nodes in a row, each connected to the next.
fn chain(n: usize, spec: impl Fn(usize) -> Spec) -> World {
    let mut w = World::new(2);
    for i in 0..n {
        w.add(spec(i));
        if i > 0 {
            w.join(i, i - 1);
        }
    }
    w.run(secs(2));
    w
}

fn knows(w: &World, n: N, capability: &str) -> bool {
    w.nodes[n].state.table.providers(capability).next().is_some()
}

#[test]
fn a_capability_registered_after_connecting_becomes_known() {
    let mut w = chain(2, |i| Spec::new(&format!("n{i}")));
    w.register(1, "late");
    w.run(ms(100));
    assert!(knows(&w, 0, "late"));
    let call = w.call(0, Ask::new("late"));
    assert_eq!(w.success(&call).route, Route::Direct);
    w.with(1, |s, now, out| s.unregister("late", now, out));
    w.run(ms(100));
    assert!(!knows(&w, 0, "late"));
}

#[test]
fn what_one_is_interested_in_comes_over_several_hops() {
    let mut w = chain(5, |i| Spec::new(&format!("n{i}")).interest("tool.*"));
    w.register(4, "tool.hammer");
    w.register(4, "secret");
    w.run(secs(1));
    assert!(knows(&w, 0, "tool.hammer"));
    // The record is one; a node without the interest would not have it.
    let mut w = chain(5, |i| if i == 2 { Spec::new("deaf") } else { Spec::new("n").interest("tool.*") });
    w.register(4, "tool.hammer");
    w.run(secs(1));
    assert!(knows(&w, 3, "tool.hammer") && !knows(&w, 0, "tool.hammer") && !knows(&w, 2, "tool.hammer"));
    // When it provides that no longer, the interested hear it too.
    w.with(4, |s, now, out| s.unregister("tool.hammer", now, out));
    w.run(secs(1));
    assert!(!knows(&w, 3, "tool.hammer"));
}

#[test]
fn a_new_interest_is_told_what_is_known_and_so_is_one_that_comes_back() {
    let mut w = chain(3, |i| Spec::new(&format!("n{i}")));
    w.register(0, "tool.saw");
    w.run(secs(1));
    assert!(!knows(&w, 2, "tool.saw"));
    w.with(2, |s, now, out| s.add_interest("tool.*", now, out));
    w.run(secs(1));
    assert!(knows(&w, 2, "tool.saw"));
    let (link, _) = w.link(1, 2).unwrap();
    w.blocked.insert((2, 1));
    w.cut(link, [ms(5), ms(5)]);
    w.register(0, "tool.plane");
    w.run(secs(1));
    assert!(!knows(&w, 2, "tool.plane"));
    w.blocked.clear();
    w.run(secs(5));
    assert!(knows(&w, 2, "tool.plane"));
}

#[test]
fn a_flood_finds_a_provider_three_hops_away_and_the_call_goes_straight_to_it() {
    let mut w = chain(4, |i| Spec::new(&format!("n{i}")));
    w.register(3, "far");
    w.run(secs(1));
    let call = w.call(0, Ask::new("far"));
    let id = w.id(3);
    let done = w.success(&call);
    // Its neighbour knows it too, and is asked first: it is found two or three hops away.
    assert_eq!((done.responder, done.route), (id, Route::Flood));
    assert!((2..=3).contains(&done.hops), "{}", done.hops);
    let tried: Vec<_> = done.tried.iter().map(|t| t.step).collect();
    assert_eq!(tried, ["flood", "table"]);
    assert!(w.link(0, 3).is_some());
    // Connected now, it is called without a question.
    let queries = w.received["query"];
    let call = w.call(0, Ask::new("far"));
    assert_eq!(w.success(&call).route, Route::Direct);
    assert_eq!(w.received["query"], queries);
}

#[test]
fn a_flood_ends_after_five_hops() {
    // A provider's neighbour knows it: 5 hops reach a provider 6 away.
    let mut w = chain(8, |i| Spec::new(&format!("n{i}")));
    w.register(7, "too-far");
    w.register(6, "far");
    w.run(secs(1));
    let call = w.call(0, Ask::new("far"));
    w.success(&call);
    let (link, _) = w.link(0, 6).unwrap();
    w.cut(link, [ms(1); 2]);
    w.run(secs(1));
    let call = w.call(0, Ask::new("too-far"));
    assert_eq!(w.error(&call).code, ErrorCode::NoPeer);
}

#[test]
fn a_query_crosses_each_link_at_most_twice_and_reaches_everybody_once() {
    for (shape, n) in [("ring", 8), ("clique", 8)] {
        let mut w = World::new(3);
        for i in 0..n {
            w.add(Spec::new(&format!("n{i}")));
        }
        let mut edges = 0;
        for a in 0..n {
            for b in 0..a {
                if shape == "clique" || (a - b) % n == 1 || (a - b) % n == n - 1 {
                    w.join(a, b);
                    edges += 1;
                }
            }
        }
        w.run(secs(2));
        let before = w.received.get("query").copied().unwrap_or(0);
        let id = w.find(0, "nothing", secs(2));
        w.run(secs(3));
        let queries = w.received["query"] - before;
        eprintln!(
            "{shape}: {queries} messages of one query over {edges} links: {:.2} each",
            queries as f64 / edges as f64
        );
        assert!(queries <= 2 * edges, "{shape}: {queries} over {edges}");
        assert!(w.nodes[0].find_over.contains(&id));
    }
}

#[test]
fn everybody_is_found_and_nobody_twice() {
    let mut w = chain(6, |i| Spec::new(&format!("n{i}")));
    let id = w.find(0, "", secs(2));
    w.run(secs(3));
    let mut found: Vec<_> = w.nodes[0].found[&id].iter().map(|(n, _)| *n).collect();
    let mut all: Vec<_> = (1..6).map(|n| w.id(n)).collect();
    found.sort();
    all.sort();
    assert_eq!(found, all);
    assert!(w.nodes[0].find_over.contains(&id));
}

#[test]
fn an_event_reaches_each_interested_node_once() {
    let mut w = World::new(4);
    for i in 0..6 {
        w.add(Spec::new(&format!("n{i}")).interest("task.*"));
    }
    for a in 0..6 {
        for b in 0..a {
            w.join(a, b);
        }
    }
    w.run(secs(2));
    w.publish(0, "task.done");
    w.publish(0, "other");
    w.run(secs(1));
    for n in 0..6 {
        assert_eq!(w.nodes[n].events.len(), 1, "node {n}: {:?}", w.nodes[n].events);
    }
}

#[test]
fn an_answer_comes_back_although_its_way_was_reconnected_meanwhile() {
    let mut w = chain(4, |i| Spec::new(&format!("n{i}")));
    w.register(3, "far");
    w.run(secs(1));
    w.delay = ms(200);
    let id = w.find(0, "far", secs(4));
    w.run(ms(650));
    // The question has passed node 1; the connection between 0 and 1 breaks and comes back before the answer.
    let (link, _) = w.link(0, 1).unwrap();
    w.delay = ms(1);
    w.nodes[1].spec.limits.redial_max = ms(2);
    w.cut(link, [ms(1); 2]);
    w.until(ms(300), "reconnected", |w| w.link(0, 1).is_some());
    w.run(secs(4));
    assert!(w.nodes[0].found.contains_key(&id));
}
