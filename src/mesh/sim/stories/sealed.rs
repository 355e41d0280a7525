//! What goes through trackers sealed: all that goes through them open does so too, and nothing is left open by mistake.

use crate::error::{Delivery, ErrorCode};
use crate::info::{Route, Sealing};
use crate::mesh::sim::world::Faults;
use crate::mesh::sim::*;

/// A tracker (0), and behind it a caller (1) and a provider (2) that can't be dialled.
fn behind_a_tracker(a: Sealing, b: Sealing, limits: impl Fn(&mut crate::limits::Limits)) -> World {
    let mut w = World::new(5);
    let t = w.add(Spec::new("t").tracker());
    let a = w.add(Spec::new("a").hidden().seals(a).limits(&limits));
    let b = w.add(Spec::new("b").hidden().provides("echo").seals(b).limits(&limits));
    w.join(a, t);
    w.join(b, t);
    w.run(secs(2));
    w
}

fn both() -> World {
    behind_a_tracker(Sealing::Preferred, Sealing::Preferred, |_| {})
}

/// A node no longer knows another's record, and may hear of it again.
fn forget(w: &mut World, n: N, of: N) {
    let (node, now) = (w.id(of), w.nodes[n].now(w.now));
    w.nodes[n].state.table.forget(&node, now);
    w.nodes[n].state.table.revive(&node);
}

fn carried(w: &World) -> usize {
    w.nodes[0].state.relays.len()
}

#[test]
fn all_that_is_said_of_a_task_is_sealed() {
    let mut w = both();
    let call = w.call(1, Ask { takes: false, ..Ask::new("echo").plan(|p| (p.chunks, p.ms) = (100, 1000)) });
    w.until(secs(5), "accepted", |w| w.own(&call).accepted || !w.own(&call).chunks.is_empty());
    w.run(secs(5));
    assert_eq!(w.own(&call).chunks.len(), 32, "a window full");
    let own = w.nodes[1].calls.get_mut(&call.1).unwrap();
    own.takes = true;
    let untaken = std::mem::take(&mut own.untaken);
    w.with(1, |s, _, out| s.chunks_taken(&call.1, untaken, out));
    let done = w.success(&call);
    assert_eq!((done.chunks, done.route, done.sealed), (100, Route::Relay, true));
    assert_eq!(carried(&w), 0, "the tracker knows what is a task, and what is its result");
    let call = w.call(1, Ask::new("echo").plan(|p| p.error = Some(ErrorCode::HandlerError)));
    assert_eq!(w.error(&call).code, ErrorCode::HandlerError);
    let call = w.call(1, Ask::new("echo").plan(|p| p.ms = 3000));
    w.until(secs(1), "accepted", |w| w.own(&call).accepted);
    w.with(1, |s, now, out| s.cancel_call(&call.1, now, out));
    assert_eq!(w.error(&call).code, ErrorCode::Cancelled);
    w.run(secs(1));
    assert_eq!((w.nodes[2].jobs.len(), carried(&w)), (0, 0));
    assert_eq!(w.unsealed, 0);
    assert!(w.sealed > 110, "{}", w.sealed);
}

#[test]
fn who_seals_nothing_is_served_and_called_unless_sealing_is_required() {
    use Sealing::{Off, Preferred, Required};
    for (a, b, works, sealed) in [
        (Off, Off, true, false),
        (Off, Preferred, true, false),
        (Preferred, Off, true, false),
        (Preferred, Required, true, true),
        (Required, Preferred, true, true),
        (Required, Required, true, true),
        (Off, Required, false, false),
        (Required, Off, false, false),
    ] {
        let mut w = behind_a_tracker(a, b, |_| {});
        let b_id = w.id(2);
        let call = w.call(1, Ask::new("echo").to(b_id));
        if works {
            assert_eq!(w.success(&call).sealed, sealed, "{a:?} {b:?}");
        } else {
            let error = w.error(&call).clone();
            assert_eq!(w.ledger.runs(), 0, "{a:?} {b:?}");
            let refused = error.code == ErrorCode::NotAllowed && error.message.contains("only when they are sealed");
            let not_sent = error.code == ErrorCode::NoPeer && error.message.contains("takes no sealed messages");
            assert!(if a == Off { refused } else { not_sent && w.unsealed == 0 }, "{a:?} {b:?}: {error:?}");
        }
        assert_eq!(w.sealed > 0, sealed, "{a:?} {b:?}");
    }
}

#[test]
fn frames_that_are_lost_and_repeated_are_sealed_again_and_nothing_runs_twice() {
    for seed in 0..10 {
        let mut w = both();
        w.rng = rand::SeedableRng::seed_from_u64(seed);
        w.seed = seed;
        w.faults = Faults { relay_loss: 0.3, relay_full: 0.05, relay_twice: 0.2, relay_late: 0.2 };
        let plan = |p: &mut Plan| (p.chunks, p.ms) = (20, 500);
        let calls: Vec<_> = (0..4).map(|_| w.call(1, Ask::new("echo").plan(plan).timeout(secs(900)))).collect();
        w.until(secs(901), "all end", |w| calls.iter().all(|c| w.ended(c)));
        w.check_calls();
        for call in &calls {
            if let Err(e) = w.result(call) {
                assert_eq!(e.delivery, Delivery::NotSent, "seed {seed}: {e:?}");
            }
        }
        assert!(calls.iter().filter(|c| w.result(c).is_ok()).count() >= 2, "seed {seed}");
        assert_eq!(w.unsealed, 0, "seed {seed}");
    }
}

#[test]
fn a_target_that_restarted_is_sealed_to_anew() {
    let mut w = both();
    let call = w.call(1, Ask::new("echo"));
    w.success(&call);
    w.kill(2, true);
    w.revive(2, 7000);
    w.run(secs(3));
    // The caller has the record of the run before.
    let before = w.nodes[1].state.table.get(&w.id(2)).unwrap().seal;
    assert_ne!(before, w.nodes[2].sealer.as_ref().map(|s| s.key()));
    let call = w.call(1, Ask::new("echo"));
    assert!(w.success(&call).sealed);
    assert_eq!((w.refused(2, "not_opened"), w.ledger.runs()), (1, 2));
    // Only who could not open it says so in the open, and nothing else.
    assert_eq!(w.unsealed, 1);
}

#[test]
fn a_key_that_was_replaced_meanwhile_is_no_trouble() {
    // Keys of two seconds, which open for little longer than records live.
    let mut w = behind_a_tracker(Sealing::Required, Sealing::Required, |l| {
        (l.seal_key_lifetime, l.record_ttl, l.clock_skew) = (secs(2), secs(1), secs(0));
    });
    // Longer than any key is kept: what follows is sealed to the keys of that time.
    let calls: Vec<_> = (0..5)
        .map(|n| w.call(1, Ask::new("echo").plan(|p| (p.chunks, p.ms) = (3, 400 + n * 2000)).timeout(secs(120))))
        .collect();
    for call in &calls {
        assert!(w.success(call).sealed);
    }
    assert_eq!(w.ledger.runs(), 5);
    // A call that begins with a record from before.
    let stale = w.nodes[2].state.record.clone().unwrap();
    w.run(secs(10));
    let mut record = (*stale).clone();
    let fresh = w.nodes[2].state.record.clone().unwrap();
    (record.seq, record.ttl_s) = (fresh.seq + 1, 300);
    w.with(1, |s, now, _| drop(s.learn(record, None, now)));
    let call = w.call(1, Ask::new("echo"));
    assert!(w.success(&call).sealed);
    assert!(w.refused(2, "not_opened") > 0);
    assert_eq!((w.ledger.runs(), w.refused(2, "bad_task")), (6, 0));
}

#[test]
fn without_its_record_nothing_is_sent_to_a_node() {
    let mut w = both();
    // A tracker may know it all the same, or say that it does: what would reach it could be read on the way.
    let nobody = crate::identity::Identity::from_seed([77; 32]).id();
    let call = w.call(1, Ask::new("echo").to(nobody).timeout(secs(20)));
    let error = w.error(&call).clone();
    assert_eq!((error.code, error.delivery), (ErrorCode::NoPeer, Delivery::NotSent));
    assert!(error.message.contains("its record is not known here"), "{error:?}");
    let call = w.call(1, Ask { via: Some("t".into()), ..Ask::new("echo").to(nobody).timeout(secs(20)) });
    assert_eq!(w.error(&call).code, ErrorCode::NoPeer);
    assert_eq!((w.sealed, w.unsealed), (0, 0));
    let b = w.id(2);
    // Who asks for it gets it, and goes on.
    forget(&mut w, 1, 2);
    let call = w.call(1, Ask { via: Some("t".into()), ..Ask::new("echo").to(b) });
    assert!(w.success(&call).sealed);
}

#[test]
fn two_trackers_carry_what_is_sealed() {
    let mut w = World::new(11);
    let t = w.add(Spec::new("t").tracker());
    let u = w.add(Spec::new("u").tracker());
    let a = w.add(Spec::new("a").hidden().seals(Sealing::Required));
    let b = w.add(Spec::new("b").hidden().provides("echo").seals(Sealing::Required).limits(|l| l.max_trackers = 0));
    w.join(u, t);
    w.join(a, t);
    w.join(b, u);
    w.nodes[a].spec.limits.max_trackers = 0;
    w.run(secs(3));
    let call = w.call(a, Ask::new("echo").plan(|p| (p.chunks, p.ms) = (40, 200)));
    let done = w.success(&call);
    assert_eq!((done.responder, done.sealed, done.chunks), (w.id(b), true, 40));
    assert_eq!((w.unsealed, w.nodes[t].state.relays.len(), w.nodes[u].state.relays.len()), (0, 0, 0));
}
