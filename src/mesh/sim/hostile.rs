//! What a malicious node may send: forged, replayed, misdirected, too much. None of it is believed.

use bytes::Bytes;

use super::*;
use crate::error::ErrorCode;
use crate::identity::Identity;
use crate::wire::{Draft, Object, ResultDraft, TaskDraft, WireError, draft};

/// The attacker, between a caller and a provider that it knows; all three are connected to each other.
const EVE: N = 0;
const CALLER: N = 1;
const PROVIDER: N = 2;

fn three() -> World {
    let mut w = World::new(20);
    w.add(Spec::new("eve").tracker());
    w.add(Spec::new("caller"));
    w.add(Spec::new("provider").provides("echo"));
    w.join(CALLER, EVE);
    w.join(PROVIDER, EVE);
    w.join(CALLER, PROVIDER);
    w.run(secs(2));
    w
}

impl World {
    /// Sends bytes as a node's process might.
    fn inject(&mut self, from: N, to: N, object: &Object) {
        let (link, side) = self.link(from, to).unwrap();
        assert!(self.push(link, 1 - side, object.raw().clone()));
        self.run(ms(100));
    }

    fn key(&self, n: N) -> Identity {
        self.nodes[n].identity.clone()
    }

    fn unix_s(&self, n: N) -> i64 {
        self.nodes[n].now(self.now).unix_s()
    }

    fn task(&self, target: N, id: &str) -> TaskDraft {
        TaskDraft {
            id: id.into(),
            target: self.id(target),
            capability: "echo".into(),
            payload: Plan::default().to_json(),
            timestamp: self.unix_s(target),
            ttl_s: 60,
            wait_s: None,
            window: Some(32),
            instance: None,
        }
    }
}

/// The same message with one byte of a member changed.
fn flipped(object: &Object, member: &str) -> Object {
    let raw = object.raw().to_vec();
    let name = format!("\"{member}\":");
    let start = raw.windows(name.len()).position(|w| w == name.as_bytes()).unwrap() + name.len();
    let end = start + object.get(member).unwrap().len();
    // The first change that leaves it JSON.
    (start..end)
        .find_map(|at| {
            let mut raw = raw.clone();
            raw[at] = if raw[at] == b'1' { b'2' } else { b'1' };
            Object::parse(raw.into()).ok()
        })
        .unwrap()
}

#[test]
fn a_changed_or_borrowed_signature_dies() {
    let mut w = three();
    let (eve, caller) = (w.key(EVE), w.key(CALLER));
    let good = Draft::Task(w.task(PROVIDER, "t1")).sign(&caller);
    for member in ["payload", "id", "caller", "timestamp", "signature"] {
        let before = w.rejected;
        w.inject(CALLER, PROVIDER, &flipped(&good, member));
        assert_eq!((w.rejected - before, w.ledger.runs()), (1, 0), "{member}");
    }
    // Signed by another than it names.
    let text = Draft::Task(w.task(PROVIDER, "t2")).sign(&eve);
    let text = std::str::from_utf8(text.raw()).unwrap().replace(&eve.id().to_string(), &caller.id().to_string());
    w.inject(EVE, PROVIDER, &Object::parse(Bytes::from(text)).unwrap());
    assert_eq!(w.ledger.runs(), 0);
    w.inject(CALLER, PROVIDER, &good);
    assert_eq!(w.ledger.runs(), 1);
}

#[test]
fn nobody_speaks_for_another_on_its_own_connection() {
    let mut w = three();
    let task = Draft::Task(w.task(PROVIDER, "t1")).sign(&w.key(CALLER));
    w.inject(EVE, PROVIDER, &task);
    assert_eq!((w.ledger.runs(), w.refused(PROVIDER, "bad_task")), (0, 1));
    // Nor for whom it is not: a task for the provider, brought to the caller's door.
    w.inject(PROVIDER, CALLER, &Draft::Task(w.task(PROVIDER, "t2")).sign(&w.key(PROVIDER)));
    assert_eq!(w.ledger.runs(), 0);
}

#[test]
fn a_relayed_frame_travels_only_under_its_signers_name() {
    let mut w = three();
    let (eve, caller, provider) = (w.id(EVE), w.id(CALLER), w.id(PROVIDER));
    let task = Draft::Task(w.task(PROVIDER, "t1")).sign(&w.key(CALLER));
    let before = w.rejected;
    w.inject(EVE, PROVIDER, &draft::relay(&provider, &eve, 1, &task));
    assert_eq!((w.rejected - before, w.ledger.runs()), (1, 0));
    // Rightly wrapped it is the caller's own task: that is what a relay is for.
    w.inject(EVE, PROVIDER, &draft::relay(&provider, &caller, 1, &task));
    assert_eq!(w.ledger.runs(), 1);
    // As often as it likes.
    for _ in 0..5 {
        w.inject(EVE, PROVIDER, &draft::relay(&provider, &caller, 1, &task));
    }
    assert_eq!((w.ledger.runs(), w.refused(PROVIDER, "repeated_task")), (1, 5));
    // A plain node may not pass on what it did not sign.
    let task = Draft::Task(w.task(PROVIDER, "t2")).sign(&w.key(PROVIDER));
    w.inject(CALLER, EVE, &draft::relay(&provider, &provider, 0, &task));
    assert_eq!(w.refused(EVE, "relay_refused"), 1);
}

#[test]
fn an_answer_from_another_than_was_asked_is_not_taken() {
    let mut w = three();
    let to = w.id(PROVIDER);
    let call = w.call(CALLER, Ask::new("echo").to(to).plan(|p| p.ms = 3000));
    w.run(ms(200));
    let (id, eve) = (call.1.to_text(), w.key(EVE));
    let answer =
        ResultDraft { id: id.clone(), caller: w.id(CALLER), body: Ok(Bytes::from_static(b"\"mine\"")), chunks: 0 };
    let refusal = WireError::new(ErrorCode::Overloaded, "no");
    let refusal = ResultDraft { id: id.clone(), caller: w.id(CALLER), body: Err(refusal), chunks: 0 };
    let chunk = Draft::Chunk { id: id.clone(), caller: w.id(CALLER), seq: 0, data: Bytes::from_static(b"\"0\"") };
    for draft in
        [Draft::Result(answer), Draft::Result(refusal), chunk, Draft::Accepted { id: id.clone(), caller: w.id(CALLER) }]
    {
        w.inject(EVE, CALLER, &draft.sign(&eve));
    }
    assert_eq!(w.refused(CALLER, "unasked_result"), 4);
    // A relay error for a call that does not go through it, and a cancel for a task that is not its own.
    let (caller, provider) = (w.id(CALLER), w.id(PROVIDER));
    let gone = WireError::new(ErrorCode::PeerGone, "gone");
    w.inject(EVE, CALLER, &draft::relay_error(&provider, &caller, &id, &gone));
    w.inject(EVE, PROVIDER, &Draft::Cancel { id: id.clone() }.sign(&eve));
    w.inject(EVE, PROVIDER, &Draft::ChunkAck { id, next: 1 }.sign(&eve));
    assert_eq!(w.success(&call).responder, provider);
}

#[test]
fn a_responder_that_overruns_its_window_is_stopped() {
    let mut w = three();
    let to = w.id(PROVIDER);
    let call = w.call(CALLER, Ask { takes: false, ..Ask::new("echo").to(to).plan(|p| p.ms = 9000) });
    w.run(ms(200));
    let provider = w.key(PROVIDER);
    for seq in 0..33 {
        let data = Bytes::from(format!("\"{seq}\""));
        w.inject(
            PROVIDER,
            CALLER,
            &Draft::Chunk { id: call.1.to_text(), caller: w.id(CALLER), seq, data }.sign(&provider),
        );
    }
    assert_eq!(w.error(&call).code, ErrorCode::Internal);
    assert_eq!(w.own(&call).chunks.len(), 32);
}

#[test]
fn tasks_out_of_their_time_are_refused_and_told_why() {
    let mut w = three();
    let caller = w.key(CALLER);
    for (shift, ttl_s, runs) in [(-61, 60, 0), (301, 60, 0), (-59, 60, 1), (299, 60, 2)] {
        let mut task = w.task(PROVIDER, &format!("t{shift}"));
        (task.timestamp, task.ttl_s) = (task.timestamp + shift, ttl_s);
        w.inject(CALLER, PROVIDER, &Draft::Task(task).sign(&caller));
        assert_eq!(w.ledger.runs(), runs, "{shift}");
    }
    assert_eq!(w.refused(PROVIDER, "expired_task"), 2);
}

#[test]
fn a_task_is_remembered_for_as_long_as_it_could_be_sent_again() {
    let mut w = three();
    let caller = w.key(CALLER);
    for (n, shift) in [-50, 0, 290].into_iter().enumerate() {
        let mut task = w.task(PROVIDER, &format!("t{shift}"));
        task.timestamp += shift;
        let task = Draft::Task(task).sign(&caller);
        for _ in 0..400 {
            w.inject(CALLER, PROVIDER, &task);
            w.run(ms(900));
        }
        assert_eq!(w.ledger.runs(), n + 1, "{shift}");
    }
    assert_eq!(w.nodes[PROVIDER].state.tasks.weight(), 0);
}

#[test]
fn a_flood_of_tasks_makes_nobody_elses_run_again() {
    let mut w = World::new(22);
    let small = |l: &mut crate::limits::Limits| {
        (l.max_answers, l.max_remembered_tasks, l.max_tasks_per_caller) = (20, 300, 5);
    };
    w.add(Spec::new("eve").tracker());
    w.add(Spec::new("caller"));
    w.add(Spec::new("provider").provides("echo").limits(small));
    w.join(CALLER, PROVIDER);
    w.join(EVE, PROVIDER);
    w.run(secs(2));
    let (eve, caller) = (w.key(EVE), w.key(CALLER));
    let captured = Draft::Task(w.task(PROVIDER, "once")).sign(&caller);
    w.inject(CALLER, PROVIDER, &captured);
    assert_eq!(w.ledger.runs(), 1);
    for n in 0..500 {
        w.inject(EVE, PROVIDER, &Draft::Task(w.task(PROVIDER, &format!("e{n}"))).sign(&eve));
        w.check_bounds();
        if n % 50 == 0 {
            // The copy of the task is answered, not run: at first from memory, then in words.
            w.inject(CALLER, PROVIDER, &captured);
            w.inject(EVE, PROVIDER, &draft::relay(&w.id(PROVIDER), &caller.id(), 1, &captured));
        }
        w.run(ms(10));
    }
    // 55 seconds: her share was used up, and her own tasks are refused for it.
    assert_eq!(w.ledger.runs(), 1 + 75);
    assert_eq!(w.refused(PROVIDER, "overloaded"), 500 - 75);
    // Others are served meanwhile.
    let to = w.id(PROVIDER);
    let call = w.call(CALLER, Ask::new("echo").to(to));
    w.success(&call);
    // Running tasks have a share as well.
    w.run(secs(70));
    for n in 0..8 {
        let mut task = w.task(PROVIDER, &format!("long{n}"));
        task.payload = Plan { ms: 5000, ..Plan::default() }.to_json();
        w.inject(EVE, PROVIDER, &Draft::Task(task).sign(&eve));
    }
    assert_eq!(w.nodes[PROVIDER].state.tasks.running(), 5);
    let call = w.call(CALLER, Ask::new("echo").to(to));
    w.success(&call);
    w.run(secs(100));
    assert_eq!(w.nodes[PROVIDER].state.tasks.weight(), 0);
}

#[test]
fn an_older_record_and_a_forged_one_change_nothing() {
    let mut w = three();
    let provider = w.id(PROVIDER);
    let old = w.nodes[PROVIDER].state.record.clone().unwrap();
    w.register(PROVIDER, "new");
    w.run(secs(1));
    let seq = |w: &World| w.nodes[CALLER].state.table.get(&provider).unwrap().seq;
    let new = seq(&w);
    assert!(new > old.seq);
    w.inject(EVE, CALLER, &draft::announce(&old.object, 5));
    w.inject(PROVIDER, CALLER, &draft::announce(&old.object, 5));
    assert_eq!(seq(&w), new);
    let record = w.nodes[PROVIDER].state.record.clone().unwrap();
    for member in ["caps", "addrs", "seq", "signature"] {
        let before = w.rejected;
        let object = flipped(&record.object, member);
        let text =
            format!("{{\"record\":{},\"ttl\":5,\"type\":\"announce\"}}", std::str::from_utf8(object.raw()).unwrap());
        w.inject(EVE, CALLER, &Object::parse(text.into()).unwrap());
        assert_eq!((w.rejected - before, seq(&w)), (1, new), "{member}");
    }
}

#[test]
fn an_answer_to_a_question_nobody_asked_is_not_believed() {
    let mut w = three();
    let stranger = w.add(Spec::new("stranger").provides("trap"));
    w.run(ms(10));
    let record = w.nodes[stranger].state.record.clone().unwrap();
    let (caller, eve) = (w.id(CALLER), w.id(EVE));
    let resp = |id: &str, origin| draft::query_resp(id, origin, 1, [&record.object].into_iter(), None);
    w.inject(EVE, CALLER, &resp("never", &caller));
    w.inject(EVE, CALLER, &resp("never", &eve));
    assert_eq!(w.refused(CALLER, "late_answer") + w.refused(CALLER, "unasked_answer"), 2);
    assert!(w.nodes[CALLER].state.table.get(&record.node_id).is_none());
    // To a question that was asked, only what was asked for, and only if it is signed.
    let id = w.find(CALLER, "echo", secs(2));
    w.inject(EVE, CALLER, &resp(&id, &caller));
    let provider = w.nodes[PROVIDER].state.record.clone().unwrap();
    let forged = flipped(&provider.object, "caps");
    w.inject(EVE, CALLER, &draft::query_resp(&id, &caller, 1, [&forged].into_iter(), None));
    assert_eq!(w.refused(CALLER, "forged_record"), 1);
    assert!(w.nodes[CALLER].state.table.get(&record.node_id).is_none());
}

#[test]
fn an_id_used_by_one_does_not_silence_another() {
    let mut w = three();
    let (eve, caller) = (w.key(EVE), w.key(CALLER));
    let timestamp = w.unix_s(PROVIDER);
    let query = |key: &Identity| {
        let (id, capability, node) = ("same".into(), "echo".into(), String::new());
        Draft::Query { id, capability, node, ttl: 5, timestamp, limit: 8 }.sign(key)
    };
    w.inject(EVE, PROVIDER, &query(&eve));
    let answers = |w: &World| w.received.get("query_resp").copied().unwrap_or(0);
    let first = answers(&w);
    w.inject(CALLER, PROVIDER, &query(&caller));
    assert!(answers(&w) > first);
    // The same again is a duplicate, with another ttl too; after it is forgotten its time is over.
    let again = query(&caller).with_member("ttl", b"4");
    let refused = w.refused(PROVIDER, "duplicate_query");
    w.inject(CALLER, PROVIDER, &again);
    assert_eq!(w.refused(PROVIDER, "duplicate_query"), refused + 1);
    for _ in 0..70 {
        w.run(secs(10));
        w.inject(CALLER, PROVIDER, &again);
    }
    assert_eq!(w.refused(PROVIDER, "duplicate_query") + w.refused(PROVIDER, "query_clock"), refused + 71);
    // Tasks as well.
    for key in [&eve, &caller] {
        let task = Draft::Task(w.task(PROVIDER, "same")).sign(key);
        let from = if key.id() == eve.id() { EVE } else { CALLER };
        w.inject(from, PROVIDER, &task);
    }
    assert_eq!(w.ledger.runs(), 2);
}

#[test]
fn events_are_told_once_each_however_often_they_come() {
    let mut w = three();
    w.with(PROVIDER, |s, now, out| s.add_interest("x.*", now, out));
    let (data, timestamp) = (Bytes::from_static(b"1"), w.unix_s(EVE));
    let event = Draft::Event { id: "e".into(), event_type: "x.y".into(), data, timestamp, ttl: 5 }.sign(&w.key(EVE));
    for ttl in [b"5", b"4", b"3"] {
        w.inject(EVE, PROVIDER, &event.with_member("ttl", ttl));
    }
    w.inject(EVE, PROVIDER, &flipped(&event, "data"));
    assert_eq!(w.nodes[PROVIDER].events.len(), 1);
    for id in 0..100 {
        let (id, data) = (format!("e{id}"), Bytes::from_static(b"1"));
        let timestamp = timestamp - 301;
        let event = Draft::Event { id, event_type: "x.y".into(), data, timestamp, ttl: 5 }.sign(&w.key(EVE));
        w.inject(EVE, PROVIDER, &event);
    }
    assert_eq!((w.nodes[PROVIDER].events.len(), w.refused(PROVIDER, "event_clock")), (1, 100));
}

#[test]
fn a_flood_of_everything_stays_within_bounds() {
    let mut w = World::new(21);
    let small = |l: &mut crate::limits::Limits| {
        (l.max_seen, l.max_records, l.max_tasks, l.max_remembered_tasks) = (50, 20, 10, 30);
        l.remembered_bytes = 2000;
    };
    w.add(Spec::new("eve").tracker());
    w.add(Spec::new("victim").tracker().provides("echo").limits(small));
    w.join(0, 1);
    w.run(secs(1));
    let eve = w.key(0);
    let (link, side) = w.link(0, 1).unwrap();
    for i in 0..400u32 {
        let timestamp = w.unix_s(1);
        let (id, capability, node) = (format!("q{i}"), "nothing".to_owned(), String::new());
        let query = Draft::Query { id: id.clone(), capability, node, ttl: 5, timestamp, limit: 8 }.sign(&eve);
        let (event_type, data) = ("x".to_owned(), Bytes::from_static(b"1"));
        let event = Draft::Event { id: id.clone(), event_type, data, timestamp, ttl: 5 }.sign(&eve);
        let mut task = w.task(1, &id);
        task.payload = Plan { ms: 100, chunks: 3, size: 100, ..Plan::default() }.to_json();
        let mut seed = [9; 32];
        seed[..4].copy_from_slice(&i.to_le_bytes());
        let other = Node::new(1000 + i as usize, Spec::new("other"), w.now);
        let record = crate::wire::RecordDraft {
            name: String::new(),
            caps: crate::wire::Caps::default(),
            interests: Vec::new(),
            addrs: Vec::new(),
            trackers: Vec::new(),
            tracker: crate::wire::TrackerRole::None,
            features: Vec::new(),
            version: String::new(),
            instance: "x".into(),
            dht: None,
            seal: None,
            seq: other.now(w.now).unix_ms,
            ttl_s: 300,
        };
        let announce = draft::announce(&record.sign(&other.identity).unwrap().object, 5);
        for object in [query, event, Draft::Task(task).sign(&eve), announce] {
            assert!(w.push(link, 1 - side, object.raw().clone()));
        }
        w.run(ms(5));
        w.check_bounds();
    }
    w.run(secs(1));
    w.check_bounds();
    assert!(w.nodes[1].state.table.get(&eve.id()).is_some(), "a connected peer's record stays");
    w.run(secs(700));
    w.check_empty();
}

#[test]
fn a_copy_turned_away_for_its_rate_does_not_end_the_call() {
    let mut w = three();
    let (caller, to) = (w.id(CALLER), w.id(PROVIDER));
    let via = Some("eve".into());
    let call = w.call(CALLER, Ask { via, ..Ask::new("echo").to(to).plan(|p| p.ms = 8000) });
    // It was sent again after two seconds, and the responder's door refuses the copy.
    w.run(ms(2500));
    let refusal = WireError::new(ErrorCode::RateLimited, "slowly").retry_after_s(1).not_run();
    let refusal = Draft::Result(ResultDraft { id: call.1.to_text(), caller, body: Err(refusal), chunks: 0 });
    let refusal = refusal.sign(&w.key(PROVIDER));
    w.inject(PROVIDER, EVE, &draft::relay(&caller, &to, 0, &refusal));
    assert_eq!(w.success(&call).responder, to);
    assert_eq!(w.ledger.runs(), 1);
}
