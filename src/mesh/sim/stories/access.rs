//! The owner's lists and rules: who is let in, whose tasks run, and what becomes of those who are not.

use crate::error::{Delivery, ErrorCode};
use crate::identity::NodeId;
use crate::mesh::access::Access;
use crate::mesh::policy::{Policy, Rate};
use crate::mesh::sim::*;

fn set(w: &mut World, n: N, access: Access) {
    w.with(n, |s, now, out| s.set_access(access, now, out));
}

fn knows(w: &World, n: N, node: &NodeId) -> bool {
    w.nodes[n].state.table.get(node).is_some()
}

/// Who can be refused to: a provider (0), a caller that keeps connected to it (1).
fn pair(provider: Spec) -> World {
    let mut w = World::new(60);
    let p = w.add(provider.provides("echo"));
    let c = w.add(Spec::new("caller"));
    w.join(c, p);
    w.run(secs(2));
    w
}

#[test]
fn a_denied_caller_is_answered_closed_and_forgotten_at_once_and_let_in_again_later() {
    let mut w = pair(Spec::new("provider"));
    let caller = w.id(1);
    let call = w.call(1, Ask::new("echo").plan(|p| p.ms = 30_000));
    w.until(secs(1), "accepted", |w| w.own(&call).accepted);
    assert!(knows(&w, 0, &caller));
    let before = w.now;
    set(&mut w, 0, Access::public().deny(caller));
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::NotAllowed, Delivery::Answered));
    assert!(error.message.contains("denied"), "{error}");
    assert!(w.now - before < secs(1));
    w.run(secs(1));
    assert!(w.link(0, 1).is_none() && !knows(&w, 0, &caller));
    assert_eq!(w.nodes[0].jobs.len(), 0, "the handler was stopped");
    assert_eq!(w.nodes[0].state.tasks.running(), 0);
    // It keeps trying, and is refused.
    w.run(secs(20));
    assert!(w.link(0, 1).is_none() && w.refusals["NOT_ALLOWED"] > 1);
    set(&mut w, 0, Access::public());
    w.until(secs(60), "connected again", |w| w.link(0, 1).is_some());
    let call = w.call(1, Ask::new("echo"));
    w.success(&call);
}

#[test]
fn a_node_made_private_keeps_only_those_allowed() {
    let mut w = pair(Spec::new("provider"));
    let friend = w.add(Spec::new("friend"));
    w.join(friend, 0);
    w.run(secs(2));
    let id = w.id(friend);
    set(&mut w, 0, Access::private().allow(id));
    w.run(secs(1));
    assert!(w.link(0, 1).is_none() && w.link(0, friend).is_some());
    let call = w.call(friend, Ask::new("echo"));
    w.success(&call);
}

/// A tracker (0), and behind it a caller (1) and a provider (2) that can't be dialled.
fn behind_a_tracker(provider: Spec) -> World {
    let mut w = World::new(61);
    let t = w.add(Spec::new("t").tracker());
    let a = w.add(Spec::new("a").hidden());
    let b = w.add(provider.hidden().provides("echo"));
    w.join(a, t);
    w.join(b, t);
    w.run(secs(2));
    w
}

#[test]
fn a_task_that_comes_over_a_relay_is_refused_for_its_author() {
    for private in [true, false] {
        let mut w = behind_a_tracker(Spec::new("b"));
        let (tracker, author) = (w.id(0), w.id(1));
        let access = if private { Access::private().allow(tracker) } else { Access::public().deny(author) };
        set(&mut w, 2, access);
        // Also without having asked who provides it.
        let target = w.id(2);
        for ask in [Ask::new("echo"), Ask::new("ping").to(target)] {
            let call = w.call(1, ask);
            let error = w.error(&call);
            assert_eq!((error.code, error.delivery), (ErrorCode::NotAllowed, Delivery::Answered), "{private}");
        }
        assert_eq!((w.ledger.runs(), w.refused(2, "not_allowed")), (0, 2), "{private}");
        assert!(w.link(2, 0).is_some(), "the tracker is let in");
    }
}

#[test]
fn what_was_asked_for_before_is_not_told_to_who_is_denied_since() {
    let mut w = behind_a_tracker(Spec::new("b"));
    let author = w.id(1);
    let call = w.call(1, Ask::new("echo").plan(|p| p.ms = 20_000));
    w.until(secs(2), "accepted", |w| w.own(&call).accepted);
    set(&mut w, 2, Access::public().deny(author));
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::NotAllowed, Delivery::Answered));
    w.run(secs(1));
    assert_eq!(w.nodes[2].jobs.len(), 0);
}

#[test]
fn a_tracker_relays_nothing_of_a_denied_author_that_another_tracker_brings() {
    let mut w = World::new(62);
    let (s, t) = (w.add(Spec::new("s").tracker()), w.add(Spec::new("t").tracker()));
    let a = w.add(Spec::new("a").hidden().limits(|l| l.max_trackers = 0));
    let b = w.add(Spec::new("b").hidden().provides("echo").limits(|l| l.max_trackers = 0));
    w.join(t, s);
    w.join(a, s);
    w.join(b, t);
    w.blocked.insert((a, t));
    w.run(secs(2));
    let call = w.call(a, Ask::new("echo"));
    w.success(&call);
    let author = w.id(a);
    set(&mut w, t, Access::public().deny(author));
    let call = w.call(a, Ask::new("echo"));
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::NotAllowed, Delivery::NotSent));
    assert!(error.message.contains("tracker's owner denied"), "{error}");
    assert_eq!(w.ledger.runs(), 1);
}

#[test]
fn what_a_denied_node_says_through_others_is_neither_kept_nor_passed_on() {
    let mut w = World::new(63);
    // In a row: the denied one, somebody between, who denies it, and one behind.
    let a = w.add(Spec::new("a").provides("bad"));
    let m = w.add(Spec::new("m"));
    let b = w.add(Spec::new("b").interest("*"));
    let c = w.add(Spec::new("c").interest("*"));
    for (x, y) in [(a, m), (m, b), (b, c)] {
        w.join(x, y);
    }
    let denied = w.id(a);
    set(&mut w, b, Access::public().deny(denied));
    w.run(secs(5));
    w.publish(a, "news");
    let from_denied = w.find(a, "", secs(2));
    let id = w.find(c, "bad", secs(2));
    w.run(secs(5));
    assert!(w.nodes[b].events.is_empty() && w.nodes[c].events.is_empty());
    assert!(!knows(&w, b, &denied) && !knows(&w, c, &denied) && knows(&w, m, &denied));
    assert!(!w.nodes[c].found.get(&id).is_some_and(|f| f.iter().any(|(n, _)| *n == denied)));
    let found = w.nodes[a].found.remove(&from_denied).unwrap_or_default();
    assert!(!found.iter().any(|(n, _)| *n == w.id(c)), "its questions go no further");
    assert!(w.refused(b, "denied_origin") > 0);
    // The others are heard as before.
    w.publish(m, "news");
    w.run(secs(2));
    assert_eq!((w.nodes[b].events.len(), w.nodes[c].events.len()), (1, 1));
}

#[test]
fn a_node_asks_nothing_of_whom_it_denies() {
    let mut w = World::new(64);
    let bad = w.add(Spec::new("bad").provides("echo"));
    let good = w.add(Spec::new("good").provides("echo"));
    let c = w.add(Spec::new("c"));
    w.join(c, bad);
    w.join(c, good);
    w.run(secs(2));
    let (denied, friend) = (w.id(bad), w.id(good));
    let running = w.call(c, Ask::new("echo").to(denied).plan(|p| p.ms = 20_000));
    w.until(secs(1), "accepted", |w| w.own(&running).accepted);
    set(&mut w, c, Access::public().deny(denied));
    let error = w.error(&running);
    assert_eq!((error.code, error.delivery), (ErrorCode::NotAllowed, Delivery::Accepted));
    w.run(secs(1));
    assert_eq!(w.nodes[bad].jobs.len(), 0, "it was told to stop");
    for _ in 0..5 {
        let call = w.call(c, Ask::new("echo"));
        assert_eq!(w.success(&call).responder, friend);
    }
    let call = w.call(c, Ask::new("echo").to(denied));
    let error = w.error(&call);
    assert_eq!((error.code, error.delivery), (ErrorCode::NotAllowed, Delivery::NotSent));
}

/// A caller (0) and two providers: one whose rule is given (1), one that serves everybody (2).
fn choice(rule: Policy) -> World {
    let mut w = World::new(65);
    let c = w.add(Spec::new("caller"));
    let strict = w.add(Spec::new("strict").provides("echo").policy(rule));
    let open = w.add(Spec::new("open").provides("echo"));
    w.join(c, strict);
    w.join(c, open);
    w.run(secs(2));
    w
}

#[test]
fn a_call_by_capability_goes_on_to_who_does_not_refuse_it() {
    for (rule, code) in [
        (Policy::new("ec*").allow([]), "NOT_ALLOWED"),
        (Policy::new("echo").rate(Rate::per_day(1)), "RATE_LIMITED"),
        (Policy::new("echo").max_in_flight(1), "RATE_LIMITED"),
    ] {
        let mut w = choice(rule);
        let (strict, open) = (w.id(1), w.id(2));
        if code == "RATE_LIMITED" {
            let first = w.call(0, Ask::new("echo").to(strict).plan(|p| p.ms = 60_000).timeout(secs(100)));
            w.until(secs(1), "accepted", |w| w.own(&first).accepted);
        }
        // While the other one is busy, the one that refuses is asked first.
        let busy = w.call(0, Ask::new("echo").to(open).plan(|p| p.ms = 60_000).timeout(secs(100)));
        let busy_too = w.call(0, Ask::new("echo").to(open).plan(|p| p.ms = 60_000).timeout(secs(100)));
        w.until(secs(1), "accepted", |w| w.own(&busy).accepted && w.own(&busy_too).accepted);
        let call = w.call(0, Ask::new("echo"));
        let done = w.success(&call);
        assert_eq!(done.responder, open, "{code}");
        assert!(done.tried.iter().any(|t| t.node == Some(strict) && t.result.starts_with(code)), "{:?}", done.tried);
        // By its id it is what was asked for: nobody else is.
        let call = w.call(0, Ask::new("echo").to(strict));
        let error = w.error(&call);
        assert_eq!((error.code.as_str(), error.delivery), (code, Delivery::Answered));
        assert_eq!(error.retry_after.is_some(), code == "RATE_LIMITED", "{error}");
    }
}

#[test]
fn a_rate_lets_a_caller_in_again_when_it_said_so() {
    let mut w = pair(Spec::new("provider").policy(Policy::new("echo").rate(Rate::per_minute(2))));
    for _ in 0..2 {
        let call = w.call(1, Ask::new("echo"));
        w.success(&call);
    }
    let call = w.call(1, Ask::new("echo"));
    let error = w.error(&call);
    let wait = error.retry_after.expect("it says when");
    assert_eq!(error.code, ErrorCode::RateLimited);
    assert!(wait > secs(20) && wait <= secs(30), "{wait:?}");
    w.run(wait);
    let call = w.call(1, Ask::new("echo"));
    w.success(&call);
    // What no rule covers is asked for as often as anybody likes.
    for _ in 0..10 {
        let call = w.call(1, Ask::new("ping").to("provider"));
        w.success(&call);
    }
    let refused = &w.nodes[0].state.task_refusals().2;
    assert_eq!((refused["echo"].rate_limited, refused.len()), (1, 1));
}

#[test]
fn tasks_at_once_are_counted_until_their_handlers_come_back() {
    let mut w = pair(Spec::new("provider").policy(Policy::new("echo").max_in_flight(2)));
    let running: Vec<_> = (0..2).map(|_| w.call(1, Ask::new("echo").plan(|p| p.ms = 5000))).collect();
    w.until(secs(1), "accepted", |w| running.iter().all(|call| w.own(call).accepted));
    let call = w.call(1, Ask::new("echo"));
    assert_eq!(w.error(&call).code, ErrorCode::RateLimited);
    w.with(1, |s, now, out| s.cancel_call(&running[0].1, now, out));
    w.run(secs(3));
    let call = w.call(1, Ask::new("echo"));
    w.success(&call);
    w.success(&running[1]);
}

#[test]
fn many_names_asked_for_make_one_line_of_what_was_refused() {
    let mut w = behind_a_tracker(Spec::new("b"));
    let (author, target) = (w.id(1), w.id(2));
    set(&mut w, 2, Access::public().deny(author));
    for n in 0..20 {
        let call = w.call(1, Ask::new(&format!("made-up-{n}")).to(target));
        assert_eq!(w.error(&call).code, ErrorCode::NotAllowed);
    }
    let refused = w.nodes[2].state.task_refusals().2;
    assert_eq!(refused.iter().map(|(name, by)| (name.as_str(), by.not_allowed)).collect::<Vec<_>>(), [("(other)", 20)]);
}
