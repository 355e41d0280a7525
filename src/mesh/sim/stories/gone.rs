//! Callers that are gone: nobody works for them until the deadline.

use crate::error::ErrorCode;
use crate::info::Route;
use crate::mesh::TaskId;
use crate::mesh::sim::*;

/// A caller whose task takes ten minutes, and its provider.
fn at_work() -> (World, N, N, (N, TaskId)) {
    let mut w = World::new(60);
    let a = w.add(Spec::new("a"));
    let p = w.add(Spec::new("p").provides("work"));
    w.join(a, p);
    w.run(secs(1));
    let call = w.call(a, Ask::new("work").plan(|p| p.ms = 600_000).timeout(secs(900)));
    w.until(secs(2), "it is accepted", |w| w.own(&call).accepted);
    (w, a, p, call)
}

#[test]
fn the_task_of_a_caller_that_was_killed_ends_soon() {
    let (mut w, a, p, _) = at_work();
    w.kill(a, true);
    w.run(secs(25));
    assert_eq!(w.nodes[p].jobs.len(), 1, "it may come back");
    w.run(secs(10));
    assert_eq!((w.nodes[p].jobs.len(), w.nodes[p].state.tasks.running()), (0, 0));
    assert_eq!(w.refused(p, "caller_gone"), 1);
}

#[test]
fn the_task_of_a_caller_that_restarted_ends_at_once() {
    let (mut w, a, p, _) = at_work();
    w.kill(a, true);
    w.run(secs(1));
    w.revive(a, 7000);
    w.until(secs(8), "the task is given up", |w| w.nodes[p].jobs.is_empty());
    assert_eq!(w.refused(p, "caller_gone"), 1);
    // The killer of connections may also be the first to come: the old connection is replaced while it looks alive.
    let (mut w, a, p, _) = at_work();
    w.kill(a, false);
    w.revive(a, 7000);
    w.until(secs(8), "the task is given up", |w| w.nodes[p].jobs.is_empty());
}

#[test]
fn the_task_of_a_caller_that_comes_back_goes_on() {
    let (mut w, a, p, call) = at_work();
    for _ in 0..20 {
        let (link, _) = w.link(a, p).unwrap();
        w.cut(link, [ms(1), ms(1)]);
        w.run(secs(20));
    }
    w.until(secs(300), "the call ends", |w| w.ended(&call));
    assert_eq!(w.success(&call).hops, 1);
    assert_eq!((w.ledger.runs(), w.refused(p, "caller_gone")), (1, 0));
}

#[test]
fn the_task_of_a_caller_behind_a_tracker_ends_when_its_copies_stop() {
    for dies in [true, false] {
        let mut w = World::new(61);
        let t = w.add(Spec::new("t").tracker());
        let a = w.add(Spec::new("a").hidden());
        let p = w.add(Spec::new("p").provides("work").hidden());
        w.join(a, t);
        w.join(p, t);
        w.run(secs(1));
        let call = w.call(a, Ask::new("work").plan(|p| p.ms = 600_000).timeout(secs(900)));
        w.run(secs(10));
        if dies {
            w.kill(a, true);
            w.run(secs(120));
            assert_eq!((w.nodes[p].jobs.len(), w.refused(p, "caller_gone")), (0, 1));
            continue;
        }
        // The provider's own way to the tracker may be lost now and then.
        for _ in 0..5 {
            let (link, _) = w.link(p, t).unwrap();
            w.cut(link, [ms(1), ms(1)]);
            w.run(secs(60));
        }
        w.until(secs(400), "the call ends", |w| w.ended(&call));
        assert_eq!(w.success(&call).route, Route::Relay);
        assert_eq!(w.refused(p, "caller_gone"), 0);
    }
}

#[test]
fn who_comes_back_too_late_is_told_that_its_task_was_given_up() {
    let (mut w, a, p, call) = at_work();
    // The caller's machine sleeps: its clock stands, so it has given nothing up.
    let id = w.id(a);
    w.with(p, |s, now, out| {
        let conn = s.peers.conn_of(&id).unwrap();
        s.disconnected(conn, None, now, out);
    });
    w.run(secs(35));
    assert_eq!(w.nodes[p].jobs.len(), 0);
    let (link, side) = w.link(a, p).unwrap();
    w.down(link, side, None);
    let error = w.error(&call);
    assert_eq!(error.code, ErrorCode::PeerGone);
    assert!(error.message.contains("did not come back"), "{error}");
    assert_eq!(w.ledger.runs(), 1);
}
