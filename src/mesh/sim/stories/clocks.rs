//! Wall clocks that are set forward and back while nodes run. What a node waits for it measures with a clock that only
//! goes on; the wall clock dates what is sent, and judges what is received.

use crate::error::ErrorCode;
use crate::mesh::sim::*;

const HOUR_MS: i64 = 3_600_000;

/// A tracker, a provider, and a caller connected with both.
fn three() -> (World, [N; 3]) {
    let mut w = World::new(70);
    let t = w.add(Spec::new("t").tracker());
    let p = w.add(Spec::new("p").provides("echo"));
    let a = w.add(Spec::new("a"));
    w.join(p, t);
    w.join(a, t);
    w.join(a, p);
    w.run(secs(3));
    (w, [t, p, a])
}

#[test]
fn a_clock_that_is_set_by_minutes_harms_nothing() {
    for jump in [120_000, -120_000] {
        for who in 0..3 {
            let (mut w, nodes) = three();
            let slow = w.call(nodes[2], Ask::new("echo").plan(|p| (p.ms, p.chunks) = (20_000, 20)).timeout(secs(300)));
            w.run(secs(5));
            w.nodes[nodes[who]].spec.offset_ms += jump;
            w.success(&slow);
            w.run(secs(400));
            let call = w.call(nodes[2], Ask::new("echo").timeout(secs(300)));
            assert_eq!(w.success(&call).hops, 1);
            assert!(w.nodes[nodes[0]].state.table.get(&w.id(nodes[1])).is_some());
        }
    }
}

#[test]
fn who_has_the_wrong_hour_is_told_so_and_is_whole_again_when_it_is_mended() {
    for jump in [HOUR_MS, -HOUR_MS] {
        for who in [1, 2] {
            let (mut w, nodes) = three();
            let [t, p, a] = nodes;
            let before = w.call(a, Ask::new("echo").plan(|p| p.ms = 10_000));
            w.run(secs(1));
            w.nodes[nodes[who]].spec.offset_ms += jump;
            w.success(&before);
            let call = w.call(a, Ask::new("echo"));
            let error = w.error(&call);
            assert_eq!(error.code, ErrorCode::Expired, "{error}");
            assert!(error.message.contains("check the clocks"), "{error}");
            // Long enough for records to be renewed by the wrong clock.
            w.run(secs(400));
            w.nodes[nodes[who]].spec.offset_ms -= jump;
            w.run(secs(10));
            let call = w.call(a, Ask::new("echo"));
            assert_eq!(w.success(&call).hops, 1, "{jump} {who}");
            for n in [p, a] {
                let (seq, now) = (w.nodes[n].state.record.as_ref().unwrap().seq, w.nodes[n].now(w.now).unix_ms);
                assert!(seq <= now, "its record is dated {} ms in the future", seq - now);
                w.until(secs(200), "the tracker has its record", |w| {
                    w.nodes[t].state.table.get(&w.id(n)).is_some_and(|r| r.seq <= now + 200_000)
                });
            }
        }
    }
}

#[test]
fn a_deadline_that_a_wrong_clock_brought_near_says_so() {
    let (mut w, [_, p, a]) = three();
    w.nodes[p].spec.offset_ms += 50_000;
    let call = w.call(a, Ask::new("echo").plan(|p| p.ms = 30_000).timeout(secs(60)));
    let error = w.error(&call);
    assert_eq!(error.code, ErrorCode::Expired);
    assert!(error.message.contains("50 s after it was issued") && error.message.contains("clocks"), "{error}");
}

#[test]
fn a_clock_that_is_set_back_makes_no_old_task_new() {
    let (mut w, [_, p, a]) = three();
    let call = w.call(a, Ask::new("echo").timeout(secs(30)));
    w.success(&call);
    let (link, side) = w.link(a, p).unwrap();
    let is_task = |bytes: &&bytes::Bytes| String::from_utf8_lossy(bytes).contains("\"type\":\"task\"");
    let task = w.checked.keys().find(is_task).unwrap().clone();
    // It is forgotten, and then by the clock it is young again.
    w.run(secs(60));
    assert_eq!(w.nodes[p].state.tasks.weight(), 0);
    w.nodes[p].spec.offset_ms -= 60_000;
    w.receive(link, 1 - side, task);
    w.run(secs(1));
    assert_eq!((w.ledger.runs(), w.refused(p, "expired_task")), (1, 1));
    // Tasks with time enough go on being taken.
    let call = w.call(a, Ask::new("echo").timeout(secs(90)));
    w.success(&call);
}
