//! Trackers: nodes that can't reach each other.

use crate::error::{Delivery, ErrorCode};
use crate::info::Route;
use crate::mesh::sim::*;

/// A tracker (0), and two nodes behind it that can't be dialled: a caller (1) and a provider (2).
fn behind_a_tracker() -> World {
    let mut w = World::new(5);
    let t = w.add(Spec::new("t").tracker());
    let a = w.add(Spec::new("a").hidden());
    let b = w.add(Spec::new("b").hidden().provides("echo"));
    w.join(a, t);
    w.join(b, t);
    w.run(secs(2));
    w
}

fn carried(w: &World) -> usize {
    w.nodes[0].state.relays.len()
}

#[test]
fn two_undialable_nodes_talk_through_their_tracker() {
    let mut w = behind_a_tracker();
    let call = w.call(1, Ask::new("echo"));
    let (t, b) = (w.id(0), w.id(2));
    let done = w.success(&call);
    assert_eq!((done.responder, done.route, done.via, done.hops), (b, Route::Relay, Some(t), 2));
    assert_eq!(carried(&w), 0);
    // By its name as well, without a word about what it provides.
    let call = w.call(1, Ask::new("ping").to("b"));
    assert_eq!(w.success(&call).responder, b);
    // And through a tracker that is named.
    let call = w.call(1, Ask { via: Some("t".into()), ..Ask::new("echo") });
    assert_eq!(w.success(&call).via, Some(t));
}

#[test]
fn chunks_acceptance_and_errors_pass_the_relay() {
    let mut w = behind_a_tracker();
    let call = w.call(1, Ask { takes: false, ..Ask::new("echo").plan(|p| (p.chunks, p.ms) = (100, 1000)) });
    w.until(secs(5), "accepted", |w| w.own(&call).accepted || !w.own(&call).chunks.is_empty());
    w.run(secs(5));
    assert_eq!(w.own(&call).chunks.len(), 32, "a window full");
    let own = w.nodes[1].calls.get_mut(&call.1).unwrap();
    own.takes = true;
    let untaken = std::mem::take(&mut own.untaken);
    w.with(1, |s, _, out| s.chunks_taken(&call.1, untaken, out));
    assert_eq!(w.success(&call).chunks, 100);
    let call = w.call(1, Ask::new("echo").plan(|p| p.error = Some(ErrorCode::HandlerError)));
    assert_eq!(w.error(&call).code, ErrorCode::HandlerError);
    let call = w.call(1, Ask::new("echo").plan(|p| p.ms = 3000));
    w.until(secs(1), "accepted", |w| w.own(&call).accepted);
    w.with(1, |s, now, out| s.cancel_call(&call.1, now, out));
    assert_eq!(w.error(&call).code, ErrorCode::Cancelled);
    w.run(secs(1));
    assert_eq!((w.nodes[2].jobs.len(), carried(&w)), (0, 0));
}

#[test]
fn the_tracker_forgets_a_node_that_left() {
    let mut w = behind_a_tracker();
    let b = w.id(2);
    assert!(w.nodes[0].state.table.get(&b).is_some());
    w.kill(2, true);
    w.run(secs(1));
    assert!(w.nodes[0].state.table.get(&b).is_none());
    let before = w.now;
    let call = w.call(1, Ask::new("echo"));
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::NoPeer, Delivery::NotSent));
    assert!(w.now - before < secs(4));
}

#[test]
fn the_caller_is_told_when_the_responder_is_lost_to_its_tracker() {
    let mut w = behind_a_tracker();
    let call = w.call(1, Ask::new("echo").plan(|p| p.ms = 30_000));
    w.until(secs(1), "accepted", |w| w.own(&call).accepted);
    let before = w.now;
    let relays = w.received["relay"];
    w.kill(2, true);
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::PeerGone, Delivery::Accepted));
    assert!(w.now - before < secs(12), "{:?}", w.now - before);
    assert!(w.received["relay"] - relays < 30, "looking for it is not a storm: {}", w.received["relay"] - relays);
    assert_eq!(carried(&w), 0);
}

#[test]
fn a_responder_that_comes_back_to_its_tracker_is_found_again() {
    let mut w = behind_a_tracker();
    let call = w.call(1, Ask::new("echo").plan(|p| p.ms = 6000));
    w.until(secs(1), "accepted", |w| w.own(&call).accepted);
    let (link, _) = w.link(2, 0).unwrap();
    w.cut(link, [ms(50), ms(50)]);
    assert_eq!(w.success(&call).route, Route::Relay);
    assert_eq!(w.ledger.runs(), 1);
}

#[test]
fn a_restarted_responder_ends_its_relayed_calls_at_once() {
    let mut w = behind_a_tracker();
    let call = w.call(1, Ask::new("echo").plan(|p| p.ms = 30_000));
    w.until(secs(1), "accepted", |w| w.own(&call).accepted);
    // The tracker has not noticed that the old connection is dead when the new one comes.
    w.kill(2, false);
    w.run(ms(100));
    w.revive(2, 7000);
    let before = w.now;
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::PeerGone, Delivery::Answered));
    assert!(w.now - before < secs(2), "{:?}", w.now - before);
    assert_eq!(w.ledger.runs(), 1, "the new run did not run it again");
    let call = w.call(1, Ask::new("echo"));
    w.success(&call);
}

#[test]
fn lost_frames_are_sent_again_and_nothing_runs_twice() {
    for seed in 0..20 {
        let mut w = behind_a_tracker();
        w.rng = rand::SeedableRng::seed_from_u64(seed);
        w.seed = seed;
        w.faults = super::super::world::Faults { relay_loss: 0.3, relay_full: 0.05, relay_twice: 0.2, relay_late: 0.2 };
        let plan = |p: &mut Plan| (p.chunks, p.ms) = (20, 500);
        let calls: Vec<_> = (0..4).map(|_| w.call(1, Ask::new("echo").plan(plan).timeout(secs(900)))).collect();
        w.until(secs(901), "all end", |w| calls.iter().all(|c| w.ended(c)));
        w.check_calls();
        let good = calls.iter().filter(|c| w.result(c).is_ok()).count();
        // Only the first copy of a task may be refused for want of room, and then it did not run.
        for call in &calls {
            if let Err(e) = w.result(call) {
                assert_eq!(e.delivery, Delivery::NotSent, "seed {seed}: {e:?}");
            }
        }
        assert!(good >= 2, "seed {seed}: {good}");
    }
}

#[test]
fn an_overflow_is_told_and_the_task_was_not_sent() {
    let mut w = behind_a_tracker();
    w.faults.relay_full = 1.0;
    let call = w.call(1, Ask::new("echo"));
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::Overloaded, Delivery::NotSent));
    assert_eq!((w.ledger.runs(), carried(&w)), (0, 0));
}

#[test]
fn a_private_tracker_admits_only_whom_it_knows() {
    let mut w = World::new(6);
    // Ids depend on the order only.
    let ids: Vec<_> = {
        let mut v = World::new(0);
        (0..4)
            .map(|_| {
                let n = v.add(Spec::new("x"));
                v.id(n)
            })
            .collect()
    };
    let t = w.add(Spec::new("t").private(&ids[1..3]));
    let a = w.add(Spec::new("a").hidden());
    let b = w.add(Spec::new("b").hidden().provides("echo"));
    let stranger = w.add(Spec::new("s").hidden().provides("echo"));
    for n in [a, b, stranger] {
        w.join(n, t);
    }
    w.run(secs(10));
    assert!(w.link(stranger, t).is_none() && w.link(a, t).is_some());
    assert!(w.refusals["NOT_ALLOWED"] > 0);
    let call = w.call(a, Ask::new("echo"));
    w.success(&call);
    assert!(w.nodes[t].state.table.get(&w.nodes[stranger].id).is_none());
}

#[test]
fn two_trackers_pass_a_call_on_between_them() {
    let mut w = World::new(7);
    let (s, t) = (w.add(Spec::new("s").tracker()), w.add(Spec::new("t").tracker()));
    let a = w.add(Spec::new("a").hidden());
    let b = w.add(Spec::new("b").hidden().provides("echo"));
    w.join(t, s);
    w.join(a, s);
    w.join(b, t);
    // The caller can't reach the other's tracker itself.
    w.blocked.insert((a, t));
    w.run(secs(2));
    let call = w.call(a, Ask::new("echo").plan(|p| (p.chunks, p.ms) = (50, 1000)));
    w.success(&call);
    w.kill(b, true);
    let call = w.call(a, Ask::new("echo").timeout(secs(20)));
    assert_eq!(w.error(&call).delivery, Delivery::NotSent);
}

#[test]
fn a_relay_ends_after_three_trackers() {
    let mut w = World::new(8);
    let n = 5;
    for i in 0..n {
        w.add(Spec::new(&format!("t{i}")).tracker());
        if i > 0 {
            w.join(i, i - 1);
        }
    }
    w.run(secs(2));
    // A frame is sent around by trackers that each name the next one as the target's.
    let target = w.id(4);
    let id = "loop";
    let cancel = crate::wire::Draft::Cancel { id: id.into() }.sign(&w.nodes[0].identity);
    let source = w.id(0);
    for (hops, refused) in [(2, false), (3, true), (200, true)] {
        let relay = crate::wire::draft::relay(&target, &source, hops, &cancel);
        let before = w.refused(3, "relay_refused");
        let (link, side) = w.link(2, 3).unwrap();
        w.push(link, 1 - side, relay.raw().clone());
        w.run(secs(1));
        assert_eq!(w.refused(3, "relay_refused") > before, refused, "{hops}");
    }
}

#[test]
fn a_node_without_a_tracker_role_relays_for_nobody() {
    let mut w = World::new(9);
    let m = w.add(Spec::new("m"));
    let a = w.add(Spec::new("a").hidden());
    let b = w.add(Spec::new("b").hidden().provides("echo"));
    w.join(a, m);
    w.join(b, m);
    w.run(secs(2));
    let call = w.call(a, Ask::new("echo"));
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::NoPeer, Delivery::NotSent));
}

#[test]
fn a_tracker_that_dials_is_one_again_after_a_cut() {
    let mut w = World::new(10);
    let t = w.add(Spec::new("t").tracker());
    let a = w.add(Spec::new("a"));
    let b = w.add(Spec::new("b").hidden().provides("echo"));
    w.join(t, a);
    w.join(b, t);
    w.run(secs(2));
    let seq = |w: &World| w.nodes[t].state.record.as_ref().unwrap().seq;
    let before = seq(&w);
    let (link, _) = w.link(t, a).unwrap();
    w.cut(link, [ms(5); 2]);
    w.run(secs(5));
    assert_eq!(seq(&w), before, "it has nothing new to say");
    assert_eq!(w.nodes[a].state.trackers, [w.id(t)]);
    let call = w.call(a, Ask { via: Some("t".into()), ..Ask::new("echo") });
    w.success(&call);
}

#[test]
fn a_task_that_is_to_go_through_one_tracker_goes_through_no_other_whatever_way_its_answers_come() {
    let mut w = World::new(60);
    for t in 0..2 {
        w.add(Spec::new(&format!("t{t}")).tracker().limits(|l| l.max_trackers = 0));
    }
    let caller = w.add(Spec::new("caller").hidden().provides("news").limits(|l| l.max_trackers = 0));
    let provider = w.add(Spec::new("provider").hidden().provides("echo").interest("news"));
    for n in [caller, provider] {
        w.join(n, 0);
        w.join(n, 1);
    }
    w.run(secs(5));
    let plan = |p: &mut Plan| (p.chunks, p.ms) = (20, 20_000);
    let call = w.call(caller, Ask { via: Some("t0".into()), ..Ask::new("echo").plan(plan) });
    w.run(ms(1500));
    let heard = w.own(&call).chunks.len();
    assert!(heard > 0);
    w.kill(0, true);
    w.run(secs(8));
    assert!(w.own(&call).chunks.len() > heard, "the provider answers over the other one");
    assert_eq!(w.nodes[1].state.relays.len(), 0, "the task went there as well");
    // It is sent again over its own when that is back.
    w.revive(0, 7000);
    assert_eq!(w.success(&call).chunks, 20);
    assert_eq!((w.nodes[1].state.relays.len(), w.ledger.runs()), (0, 1));
}
