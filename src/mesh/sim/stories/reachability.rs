//! Who can be dialled, who can't, and what is published of it.

use std::net::SocketAddr;

use crate::info::{Reachability, Route};
use crate::mesh::sim::node::ip;
use crate::mesh::sim::*;

fn addr(n: N) -> SocketAddr {
    SocketAddr::new(ip(n), 7000)
}

/// What the tracker (0) knows of where a node is dialled.
fn published(w: &World, n: N) -> Vec<SocketAddr> {
    w.nodes[0].state.table.get(&w.id(n)).map(|r| r.addrs.clone()).unwrap_or_default()
}

fn is_nat(w: &World, n: N) -> bool {
    matches!(w.nodes[n].state.reachability(), Reachability::Nat { .. })
}

/// A tracker (0), a caller (1) and a provider (2).
fn meet(provider: Spec) -> World {
    let mut w = World::new(11);
    let t = w.add(Spec::new("t").tracker());
    let a = w.add(Spec::new("a").hidden());
    let b = w.add(provider.provides("echo"));
    w.join(a, t);
    w.join(b, t);
    w
}

#[test]
fn a_node_that_can_be_dialled_says_so_at_once_and_is_dialled() {
    let mut w = meet(Spec::new("b"));
    w.until(secs(1), "its address is known", |w| published(w, 2) == [addr(2)]);
    let Reachability::Dialable { addrs } = w.nodes[2].state.reachability() else { panic!() };
    assert_eq!((addrs[0].addr, addrs[0].by[0].name.as_str()), (addr(2), "t"));
    let call = w.call(1, Ask::new("echo"));
    assert_eq!(w.success(&call).via, None);
    // Verified again and again, without another word to anybody.
    let before = w.nodes[2].state.record.as_ref().unwrap().seq;
    w.run(secs(148));
    assert_eq!(w.nodes[2].state.record.as_ref().unwrap().seq, before);
    w.run(secs(3600));
    assert!((5..=8).contains(&w.dials_back), "{}", w.dials_back);
    assert_eq!(published(&w, 2), [addr(2)]);
    // What is asked of a tracker by a node that doesn't listen: nothing.
    assert!(matches!(w.nodes[1].state.reachability(), Reachability::Unknown { .. }));
}

#[test]
fn a_node_that_cannot_be_dialled_publishes_nothing_and_is_called_through_its_tracker() {
    let mut w = meet(Spec::new("b").nated());
    // Also before it is known.
    let early = w.call(1, Ask::new("echo"));
    w.until(secs(2), "it knows", |w| is_nat(w, 2));
    w.run(secs(1));
    assert_eq!((published(&w, 2), w.dials_back), (vec![], 1));
    assert_eq!(w.nodes[0].state.table.get(&w.id(2)).unwrap().trackers, [w.id(0)]);
    let dials = w.dials;
    let call = w.call(1, Ask::new("echo"));
    assert_eq!(w.success(&call).route, Route::Relay);
    assert_eq!(w.success(&early).route, Route::Relay);
    assert_eq!(w.dials, dials, "nobody tries in vain");
    // Asked about ever less often; and when the router opens, it is found out.
    w.run(secs(3600));
    assert!((8..=15).contains(&w.dials_back), "{}", w.dials_back);
    w.nodes[2].spec.nated = false;
    w.until(secs(800), "its address is known", |w| published(w, 2) == [addr(2)]);
    // The caller's own record of it may be an older one: the tracker tells when it is asked to relay.
    let call = w.call(1, Ask::new("echo"));
    w.success(&call);
    w.run(secs(1));
    let call = w.call(1, Ask::new("echo"));
    assert_eq!(w.success(&call).via, None);
}

#[test]
fn an_address_that_is_no_longer_reached_is_taken_back() {
    let mut w = meet(Spec::new("b"));
    w.until(secs(1), "its address is known", |w| published(w, 2) == [addr(2)]);
    w.nodes[2].spec.nated = true;
    w.until(secs(800), "it is taken back", |w| published(w, 2).is_empty() && is_nat(w, 2));
    let call = w.call(1, Ask::new("echo"));
    assert_eq!(w.success(&call).route, Route::Relay);
}

#[test]
fn one_tracker_that_comes_through_is_enough_and_its_loss_changes_nothing_yet() {
    let mut w = meet(Spec::new("b"));
    let second = w.add(Spec::new("t2").tracker());
    w.blocked.insert((second, 2));
    w.join(2, second);
    w.run(secs(5));
    assert_eq!(published(&w, 2), [addr(2)]);
    // Both were asked; so may others be, by whoever registers with them meanwhile.
    assert!(w.dials_back >= 2, "{}", w.dials_back);
    let (link, _) = w.link(2, 0).unwrap();
    w.blocked.insert((2, 0));
    w.cut(link, [ms(1), ms(1)]);
    w.run(secs(1000));
    let known = &w.nodes[second].state.table.get(&w.id(2)).unwrap().addrs;
    assert_eq!(*known, [addr(2)], "the other tracker still passes it on");
    w.run(secs(1000));
    let known = &w.nodes[second].state.table.get(&w.id(2)).unwrap().addrs;
    assert!(known.is_empty(), "nobody has come through for half an hour: {known:?}");
}

#[test]
fn where_no_tracker_can_tell_the_local_address_is_published() {
    let mut w = World::new(12);
    let a = w.add(Spec::new("a"));
    let b = w.add(Spec::new("b").nated());
    w.join(b, a);
    w.run(secs(5));
    assert_eq!((published(&w, b), w.dials_back), (vec![addr(b)], 0));
}

#[test]
fn hundreds_that_come_at_once_are_all_tested_and_the_tracker_keeps_its_pace() {
    let mut w = World::new(13);
    let t = w.add(Spec::new("t").tracker());
    let nodes: Vec<N> = (0..300)
        .map(|i| {
            let spec = Spec::new(&format!("n{i}"));
            w.add(if i % 3 == 0 { spec.nated() } else { spec })
        })
        .collect();
    for n in &nodes {
        w.join(*n, t);
    }
    w.run(secs(3));
    assert!(w.dials_back <= 40 + 3 * 20, "{}", w.dials_back);
    let told = |w: &World, n: N| match w.nodes[n].spec.nated {
        true => is_nat(w, n) && published(w, n).is_empty(),
        false => published(w, n) == [addr(n)],
    };
    let all = nodes.clone();
    w.until(secs(120), "everybody knows", move |w| all.iter().all(|n| told(w, *n)));
    let most = nodes.iter().map(|n| w.received_by[*n]).max();
    println!(
        "300 nodes at once: settled {:?} after the start of the clock at 1 s, {} dial-backs, at most {most:?} messages to one node",
        w.now, w.dials_back
    );
}
