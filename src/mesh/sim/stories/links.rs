//! Connections that break, are made twice, or end with a run.

use crate::error::{Delivery, ErrorCode};
use crate::mesh::sim::*;

fn pair() -> (World, N, N) {
    let mut w = World::new(10);
    let a = w.add(Spec::new("a"));
    let b = w.add(Spec::new("b").provides("echo"));
    w.join(a, b);
    w.run(secs(1));
    (w, a, b)
}

#[test]
fn a_lost_connection_is_made_again_and_the_task_runs_once() {
    // Noticed by both at once, by the caller only, by the responder only.
    for notice in [[5, 5], [5, 90_000], [90_000, 5]] {
        let (mut w, a, b) = pair();
        let call = w.call(a, Ask::new("echo").plan(|p| (p.ms, p.chunks) = (3000, 40)));
        w.run(secs(1));
        let (link, _) = w.link(a, b).unwrap();
        w.cut(link, notice.map(ms));
        if notice[0] > 5 {
            // The responder finds its caller again: nothing else tells the caller.
            w.join(b, a);
        }
        w.until(secs(50), "the call ends", |w| w.ended(&call));
        w.check_calls();
        assert!(w.result(&call).is_ok(), "{notice:?}: {:?}", w.result(&call));
        assert_eq!(w.ledger.runs(), 1);
    }
}

#[test]
fn an_answer_lost_with_its_connection_comes_from_memory() {
    let (mut w, a, b) = pair();
    let call = w.call(a, Ask::new("echo").plan(|p| p.ms = 1000));
    w.run(ms(990));
    let (link, _) = w.link(a, b).unwrap();
    w.cut(link, [ms(500), ms(0)]);
    w.success(&call);
    assert_eq!((w.ledger.runs(), w.tasks_received), (1, 1));
    assert_eq!(w.refused(b, "repeated_task"), 1);
}

#[test]
fn a_responder_that_does_not_come_back_is_given_up() {
    let (mut w, a, b) = pair();
    let call = w.call(a, Ask::new("echo").plan(|p| p.ms = 30_000));
    w.run(secs(1));
    let (before, dials) = (w.now, w.dials);
    w.kill(b, true);
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::PeerGone, Delivery::Accepted));
    assert!((secs(9)..secs(12)).contains(&(w.now - before)));
    assert!(w.dials - dials < 25, "{}", w.dials - dials);
}

#[test]
fn a_restart_replaces_the_old_run_at_once_and_ends_its_calls() {
    let mut w = World::new(11);
    let a = w.add(Spec::new("a"));
    let b = w.add(Spec::new("b").provides("echo"));
    // The one that restarts dials.
    w.join(b, a);
    w.run(secs(1));
    let call = w.call(a, Ask::new("echo").plan(|p| p.ms = 30_000));
    w.run(secs(1));
    w.kill(b, false);
    w.run(ms(100));
    w.revive(b, 7001);
    let before = w.now;
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::PeerGone, Delivery::Accepted));
    assert!(w.now - before < ms(500));
    w.run(ms(100));
    let (record, id) = (w.nodes[a].state.table.get(&w.nodes[b].id).unwrap(), w.id(b));
    assert_eq!(record.addrs[0].port(), 7001);
    let call = w.call(a, Ask::new("echo"));
    assert_eq!(w.success(&call).responder, id);
    assert_eq!(w.ledger.runs(), 2);
}

#[test]
fn a_node_that_restarted_at_another_port_is_found_there() {
    let mut w = World::new(12);
    let hub = w.add(Spec::new("hub"));
    let a = w.add(Spec::new("a"));
    let b = w.add(Spec::new("b").provides("echo"));
    w.join(a, hub);
    w.join(b, hub);
    w.run(secs(1));
    let call = w.call(a, Ask::new("echo"));
    w.success(&call);
    w.kill(b, true);
    w.revive(b, 7002);
    w.run(secs(1));
    // What the caller knows is old, and nobody tells it until it asks.
    let port = |w: &World| w.nodes[a].state.table.get(&w.nodes[b].id).unwrap().addrs[0].port();
    assert_eq!(port(&w), 7000);
    let call = w.call(a, Ask::new("echo"));
    w.success(&call);
    assert_eq!(port(&w), 7002);
}

#[test]
fn of_two_dials_at_once_one_connection_stays_and_no_call_is_lost() {
    for seed in 0..20 {
        let mut w = World::new(seed);
        let a = w.add(Spec::new("a").provides("x"));
        let b = w.add(Spec::new("b").provides("x"));
        w.join(a, b);
        w.join(b, a);
        let calls: Vec<_> = (0..10)
            .map(|i| {
                let (from, to) = if i % 2 == 0 { (a, b) } else { (b, a) };
                let to = w.id(to);
                let call = w.call(from, Ask::new("x").to(to).plan(|p| p.ms = 40));
                w.run(ms(5));
                call
            })
            .collect();
        w.run(secs(5));
        w.check_calls();
        for call in &calls {
            assert!(w.ended(call), "seed {seed}");
            assert!(w.result(call).is_ok(), "seed {seed}: {:?}", w.result(call));
        }
        assert_eq!(w.links_between(a, b), 1, "seed {seed}");
        assert_eq!(w.nodes[a].state.peers.iter().count(), 1);
        assert!(w.dials < 8, "seed {seed}: {} dials", w.dials);
    }
}

#[test]
fn a_dead_connection_does_not_keep_a_peer_out() {
    // The dialler's id decides nothing: only one side knows that the old connection is dead.
    for (a, b) in [(0, 1), (1, 0)] {
        let mut w = World::new(13);
        w.add(Spec::new("0"));
        w.add(Spec::new("1"));
        w.join(a, b);
        w.run(secs(1));
        let (link, side) = w.link(b, a).unwrap();
        let mut notice = [secs(90); 2];
        notice[side] = ms(5);
        w.cut(link, notice);
        w.join(b, a);
        w.run(secs(15));
        assert_eq!(w.links_between(a, b), 1, "{a} {b}");
    }
}

#[test]
fn a_node_does_not_connect_to_itself() {
    let mut w = World::new(14);
    let a = w.add(Spec::new("a").provides("echo"));
    w.add(Spec::new("b"));
    w.join(a, a);
    w.join(a, 1);
    w.run(secs(2));
    let call = w.call(a, Ask::new("echo"));
    assert_eq!(w.error(&call).code, ErrorCode::NoPeer);
    let me = w.id(a);
    let call = w.call(a, Ask::new("echo").to(me));
    assert_eq!(w.error(&call).code, ErrorCode::BadRequest);
}

/// A hub (0), a caller (1) and a provider (2) that the caller dials.
fn dialled_for_a_call() -> World {
    let mut w = World::new(15);
    w.add(Spec::new("hub"));
    w.add(Spec::new("a").provides("back"));
    w.add(Spec::new("b").provides("echo"));
    w.join(1, 0);
    w.join(2, 0);
    w.run(secs(1));
    let call = w.call(1, Ask::new("echo"));
    w.success(&call);
    assert_eq!(w.links_between(1, 2), 1);
    w
}

#[test]
fn a_connection_made_for_a_call_ends_when_it_is_not_used_and_is_made_again() {
    let mut w = dialled_for_a_call();
    w.run(secs(590));
    assert_eq!(w.links_between(1, 2), 1);
    w.run(secs(20));
    assert_eq!((w.links_between(1, 2), w.links_between(1, 0), w.links_between(2, 0)), (0, 1, 1));
    w.run(secs(1200));
    assert_eq!((w.links_between(1, 0), w.links_between(2, 0)), (1, 1), "configured ones stay");
    let call = w.call(1, Ask::new("echo"));
    w.success(&call);
}

#[test]
fn a_connection_that_either_side_uses_stays() {
    let mut w = dialled_for_a_call();
    // The other side calls from time to time.
    for _ in 0..4 {
        w.run(secs(500));
        assert_eq!(w.links_between(1, 2), 1);
        let call = w.call(2, Ask::new("back"));
        w.success(&call);
    }
    // A task that takes long, of the one and of the other.
    for from in [1, 2] {
        let ask = Ask::new(if from == 1 { "echo" } else { "back" }).plan(|p| p.ms = 1_500_000).timeout(secs(2000));
        let call = w.call(from, ask);
        w.run(secs(1495));
        assert_eq!(w.links_between(1, 2), 1);
        w.success(&call);
    }
    assert_eq!(w.dials, 3);
}

#[test]
fn connections_to_configured_peers_and_to_trackers_stay_and_so_does_the_last_one() {
    // It became a configured peer.
    let mut w = dialled_for_a_call();
    w.join(1, 2);
    w.run(secs(2000));
    assert_eq!(w.links_between(1, 2), 1);
    // Without the hub it is the last one.
    let mut w = dialled_for_a_call();
    w.kill(0, true);
    w.run(secs(2000));
    assert_eq!(w.links_between(1, 2), 1);
    // A tracker that was dialled for a call has our record.
    let mut w = World::new(16);
    let hub = w.add(Spec::new("hub"));
    let t = w.add(Spec::new("t").tracker().provides("echo"));
    let a = w.add(Spec::new("a"));
    w.join(t, hub);
    w.join(a, hub);
    w.run(secs(1));
    let call = w.call(a, Ask::new("echo"));
    w.success(&call);
    w.run(secs(2000));
    assert_eq!(w.links_between(a, t), 1);
}
