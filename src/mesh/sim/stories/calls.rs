//! Calls: whom they go to, how they end.

use crate::error::{Delivery, ErrorCode};
use crate::info::Route;
use crate::mesh::sim::*;

/// A caller and providers of "echo", connected.
fn star(providers: usize) -> (World, N, Vec<N>) {
    let mut w = World::new(1);
    let a = w.add(Spec::new("a"));
    let all = (0..providers).map(|i| w.add(Spec::new(&format!("p{i}")).provides("echo"))).collect::<Vec<_>>();
    for p in &all {
        w.join(a, *p);
    }
    w.run(secs(1));
    (w, a, all)
}

#[test]
fn a_call_by_capability_goes_straight_to_a_peer() {
    let (mut w, a, p) = star(1);
    let call = w.call(a, Ask::new("echo"));
    let responder = w.id(p[0]);
    let done = w.success(&call);
    assert_eq!((done.responder, done.route, done.hops, done.via), (responder, Route::Direct, 1, None));
    assert_eq!(done.responder_name, "p0");
    assert_eq!(w.received["task"], 1);
}

#[test]
fn a_node_is_named_by_its_id_its_beginning_or_its_name() {
    let (mut w, a, p) = star(2);
    let id = w.id(p[1]);
    for name in [id.to_string(), id.short(), "p1".into()] {
        let call = w.call(a, Ask::new("echo").to(name));
        assert_eq!(w.success(&call).responder, id);
    }
    let call = w.call(a, Ask::new("echo").to("p9"));
    assert_eq!(w.error(&call).code, ErrorCode::NoPeer);
    // It provides no such thing, and says so itself.
    let call = w.call(a, Ask::new("nothing").to("p1"));
    let error = w.error(&call);
    assert_eq!(
        (error.code, error.delivery, error.responder),
        (ErrorCode::UnknownCapability, Delivery::Answered, Some(id))
    );
}

#[test]
fn the_least_busy_provider_is_chosen() {
    let (mut w, a, p) = star(3);
    let calls: Vec<_> = (0..9).map(|_| w.call(a, Ask::new("echo").plan(|p| p.ms = 1000))).collect();
    let mut shares = [0; 3];
    for call in &calls {
        let responder = w.success(call).responder;
        shares[p.iter().position(|p| w.id(*p) == responder).unwrap()] += 1;
    }
    assert_eq!(shares, [3, 3, 3]);
    assert!(w.nodes[a].state.in_flight.is_empty());
}

#[test]
fn another_provider_is_asked_only_when_the_first_one_did_not_run_it() {
    let (mut w, a, p) = star(2);
    // Neither runs it: both are asked, and the last one's words are given.
    let call = w.call(a, Ask::new("echo").plan(|p| p.error = Some(ErrorCode::Overloaded)));
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::Overloaded, Delivery::Answered));
    assert_eq!(error.tried.iter().filter(|t| t.step == "answer").count(), 2);
    assert_eq!(w.tasks_received, 2);
    // One says that it is no provider any more.
    w.with(p[0], |s, now, out| s.unregister("echo", now, out));
    for _ in 0..3 {
        let call = w.call(a, Ask::new("echo"));
        let responder = w.id(p[1]);
        assert_eq!(w.success(&call).responder, responder);
    }
    // An error of the handler is an answer; so is a code that it has from elsewhere.
    let before = w.tasks_received;
    for code in [ErrorCode::HandlerError, ErrorCode::PeerGone, ErrorCode::Timeout] {
        let call = w.call(a, Ask::new("echo").plan(|p| p.error = Some(code)));
        assert_eq!((w.error(&call).code, w.error(&call).delivery), (code, Delivery::Answered));
    }
    assert_eq!(w.tasks_received, before + 3);
}

#[test]
fn overloaded_after_chunks_is_not_taken_for_untouched() {
    let (mut w, a, _) = star(2);
    let call = w.call(a, Ask::new("echo").plan(|p| (p.chunks, p.error) = (3, Some(ErrorCode::Overloaded))));
    assert_eq!(w.error(&call).code, ErrorCode::Overloaded);
    assert_eq!(w.tasks_received, 1);
    assert_eq!(w.own(&call).chunks, [0, 1, 2]);
}

#[test]
fn a_slow_task_is_accepted_and_a_quick_one_just_answered() {
    let (mut w, a, _) = star(1);
    let quick = w.call(a, Ask::new("echo").plan(|p| p.ms = 50));
    w.success(&quick);
    assert!(!w.own(&quick).accepted);
    let slow = w.call(a, Ask::new("echo").plan(|p| p.ms = 5000));
    w.until(ms(200), "accepted", |w| w.own(&slow).accepted);
    let [sent, sign, total] = w.success(&slow).timings;
    assert!(sent < sign && sign < ms(200) && total > secs(5), "{sent:?} {sign:?} {total:?}");
}

#[test]
fn chunks_come_in_order_and_no_faster_than_they_are_taken() {
    let (mut w, a, _) = star(1);
    let mut ask = Ask::new("echo").plan(|p| p.chunks = 200);
    ask.takes = false;
    let call = w.call(a, ask);
    w.run(secs(2));
    assert_eq!(w.own(&call).chunks.len(), 32, "a window full");
    assert_eq!(w.ledger.blocked, 1);
    let own = w.nodes[a].calls.get_mut(&call.1).unwrap();
    own.takes = true;
    let untaken = std::mem::take(&mut own.untaken);
    w.with(a, |s, _, out| s.chunks_taken(&call.1, untaken, out));
    assert_eq!(w.success(&call).chunks, 200);
}

#[test]
fn large_chunks_are_held_back_by_their_bytes() {
    let (mut w, a, _) = star(1);
    let mut ask = Ask::new("echo").plan(|p| (p.chunks, p.size) = (10, 900_000));
    ask.takes = false;
    let call = w.call(a, ask);
    w.run(secs(2));
    assert_eq!(w.own(&call).chunks.len(), 2);
    w.with(a, |s, now, out| s.cancel_call(&call.1, now, out));
}

#[test]
fn cancel_stops_the_handler() {
    let (mut w, a, p) = star(1);
    let call = w.call(a, Ask::new("echo").plan(|p| p.ms = 50_000));
    w.run(secs(1));
    assert_eq!(w.nodes[p[0]].jobs.len(), 1);
    w.with(a, |s, now, out| s.cancel_call(&call.1, now, out));
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::Cancelled, Delivery::Accepted));
    w.run(ms(200));
    assert_eq!((w.nodes[p[0]].jobs.len(), w.ledger.stopped), (0, 1));
    assert_eq!(w.nodes[p[0]].state.tasks.running(), 0);
}

#[test]
fn at_its_deadline_a_call_tells_how_far_it_came() {
    let (mut w, a, p) = star(1);
    // Working on it.
    let call = w.call(a, Ask::new("echo").plan(|p| p.ms = 50_000).timeout(secs(3)));
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::Timeout, Delivery::Accepted));
    w.run(secs(2));
    assert_eq!(w.nodes[p[0]].jobs.len(), 0, "the handler was told to stop");
    // Sent, and nothing heard.
    let (link, side) = w.link(p[0], a).unwrap();
    w.stall(link, side, true);
    let call = w.call(a, Ask::new("echo").timeout(secs(3)));
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::Timeout, Delivery::Unconfirmed));
    // Nobody to send it to.
    let call = w.call(a, Ask::new("other").timeout(secs(1)));
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::NoPeer, Delivery::NotSent));
    w.stall(link, side, false);
    w.run(secs(5));
    assert_eq!(w.nodes[p[0]].state.tasks.running(), 0);
}

#[test]
fn a_node_may_answer_itself_when_allowed() {
    let (mut w, a, p) = star(1);
    w.register(a, "echo");
    let elsewhere = w.call(a, Ask::new("echo"));
    let id = w.id(p[0]);
    assert_eq!(w.success(&elsewhere).responder, id);
    let local = |plan: fn(&mut Plan)| Ask { local: true, ..Ask::new("echo").plan(plan) };
    let call = w.call(a, local(|p| p.chunks = 100));
    let id = w.id(a);
    let done = w.success(&call);
    assert_eq!((done.responder, done.route, done.hops, done.chunks), (id, Route::Local, 0, 100));
    // Its owner reads slowly.
    let slow = w.call(a, Ask { takes: false, ..local(|p| p.chunks = 100) });
    w.run(secs(1));
    assert_eq!(w.own(&slow).chunks.len(), 32);
    w.with(a, |s, now, out| s.cancel_call(&slow.1, now, out));
    assert_eq!(w.error(&slow).code, ErrorCode::Cancelled);
    let late = w.call(a, local(|p| p.ms = 60_000).timeout(secs(2)));
    assert_eq!(w.error(&late).code, ErrorCode::Timeout);
    w.run(secs(1));
    assert!(w.nodes[a].jobs.is_empty());
    assert_eq!(w.nodes[a].state.tasks.running(), 0);
}

#[test]
fn a_full_outbox_fails_the_call_at_once() {
    let mut w = World::new(1);
    let a = w.add(Spec::new("a").limits(|l| l.outbox_messages = 4));
    let b = w.add(Spec::new("b").provides("echo"));
    w.join(a, b);
    w.run(secs(1));
    let (link, side) = w.link(b, a).unwrap();
    w.stall(link, side, true);
    let calls: Vec<_> = (0..6).map(|_| w.call(a, Ask::new("echo").timeout(secs(5)))).collect();
    let error = w.error(&calls[5]);
    assert_eq!((error.code, error.delivery), (ErrorCode::Overloaded, Delivery::NotSent));
    w.stall(link, side, false);
    assert_eq!(w.success(&calls[0]).hops, 1);
}

#[test]
fn a_node_takes_no_more_than_it_may() {
    let mut w = World::new(1);
    let a = w.add(Spec::new("a").limits(|l| l.max_calls = 5));
    let b = w.add(Spec::new("b").provides("echo").limits(|l| l.max_tasks = 3));
    w.join(a, b);
    w.run(secs(1));
    let calls: Vec<_> = (0..6).map(|_| w.call(a, Ask::new("echo").plan(|p| p.ms = 500))).collect();
    w.run(secs(10));
    let ends: Vec<_> = calls.iter().map(|c| w.result(c).as_ref().map_err(|e| (e.code, e.delivery)).err()).collect();
    let (there, here) = ((ErrorCode::Overloaded, Delivery::Answered), (ErrorCode::Overloaded, Delivery::NotSent));
    assert_eq!(ends, [None, None, None, Some(there), Some(there), Some(here)]);
}
