//! Tasks that are late, early, repeated, forged, or meant for somebody else.

use elo::Identity;
use elo::wire::{Builder, Object};
use serde_json::Value;

use crate::mesh::eventually;
use crate::raw::{Raw, relay, sign, unix_s};
use crate::target::target;

/// With another bit in the middle of the value, still of the same form.
fn flipped(task: &Object) -> Object {
    task.with_member("payload", br#"{"a":3}"#)
}

#[tokio::test]
async fn tasks_out_of_time_are_expired_and_never_run() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    let now = unix_s();
    for (id, timestamp, ttl) in [
        ("302 s ahead", now + 302, 60),
        ("past its deadline", now - 12, 10),
        ("of the year 1970", 0, 86_400),
        ("before all time", i64::MIN, 60),
        ("after all time", i64::MAX, 60),
        ("before 1970", -now, 60),
    ] {
        raw.sends(raw.task(id).i64("timestamp", timestamp).u64("ttl_s", ttl)).await;
        assert_eq!(raw.error(id).await, "EXPIRED", "{id}");
    }
    assert_eq!((target.refused("expired_task"), target.runs()), (6, 0));
    for (id, timestamp, ttl) in
        [("298 s ahead", now + 298, 60), ("old but alive", now - 500, 600), ("a day", now, 86_400)]
    {
        raw.sends(raw.task(id).i64("timestamp", timestamp).u64("ttl_s", ttl)).await;
        assert_eq!(raw.result(id).await["status"], "success", "{id}");
    }
    for ttl in ["0", "-5", "86401", "18446744073709551615", "1.0"] {
        raw.sends(raw.task(ttl).raw("ttl_s", ttl.as_bytes())).await;
        assert_eq!(raw.error(ttl).await, "BAD_REQUEST", "ttl_s {ttl}");
    }
    assert_eq!(target.runs(), 3);
    target.serves().await;
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn a_repeated_task_is_answered_from_memory_on_whatever_connection_and_runs_once() {
    let target = target().await;
    let me = Identity::generate();
    let mut raw = Raw::connect_as(&target.node, &me, "run").await;
    let task = sign(raw.task("once"), &me);
    raw.send(&task).await;
    let first = raw.result("once").await;
    raw.send(&task).await;
    assert_eq!(raw.result("once").await, first);
    // Another task under the same id is the same task: what ran, ran.
    raw.sends(raw.task("once").raw("payload", b"2")).await;
    assert_eq!(raw.result("once").await, first);
    let mut again = Raw::connect_as(&target.node, &me, "run").await;
    again.send(&task).await;
    assert_eq!(again.result("once").await, first);
    drop(raw);
    drop(again);
    eventually("it is gone", || target.node.peers().len() == 1).await;
    let mut later = Raw::connect_as(&target.node, &me, "other run").await;
    later.send(&task).await;
    assert_eq!(later.result("once").await, first);
    assert_eq!((target.runs(), target.refused("repeated_task")), (1, 4));
    // Somebody else's task of the same id is another one.
    let mut other = Raw::connect(&target.node).await;
    other.sends(other.task("once").raw("payload", b"3")).await;
    assert_eq!(other.result("once").await["payload"], 3);
    assert_eq!(target.runs(), 2);
    drop((later, other));
    target.unharmed().await;
}

#[tokio::test]
async fn a_repeated_task_that_still_runs_is_accepted_and_runs_once() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    let task = sign(raw.task("long").str("capability", "wait"), &raw.identity);
    for _ in 0..3 {
        raw.send(&task).await;
    }
    for _ in 0..2 {
        raw.until("accepted", |m| m["type"] == "accepted" && m["id"] == "long").await;
    }
    // A handler begins on a thread of its own, a moment after it was counted.
    eventually("it runs", || target.runs() == 1).await;
    assert_eq!(target.node.metrics().tasks_running, 1);
    raw.sends(Builder::new("cancel").str("id", "long").str("caller", &raw.id().to_string())).await;
    assert_eq!(raw.error("long").await, "CANCELLED");
    raw.send(&task).await;
    assert_eq!(raw.error("long").await, "CANCELLED");
    assert_eq!(target.runs(), 1);
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn a_task_for_another_node_is_refused_also_when_it_was_captured() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    let elsewhere = Identity::generate().id().to_string();
    raw.sends(raw.task("1").str("target", &elsewhere)).await;
    assert_eq!(raw.error("1").await, "BAD_REQUEST");
    // The honest peer's own task for somebody, brought to us by a third: whoever brings it is not its signer.
    let victim = Identity::generate();
    let captured = sign(raw.task("2").str("target", &elsewhere).str("caller", &victim.id().to_string()), &victim);
    raw.send(&captured).await;
    assert_eq!(raw.error("2").await, "NOT_ALLOWED");
    // And as if it came over a tracker.
    raw.send(&relay(&raw.peer, &victim.id(), &captured).build()).await;
    raw.heard().await;
    assert_eq!((target.runs(), target.refused("bad_task")), (0, 3));
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn a_task_without_target_runs_only_from_its_callers_own_mouth() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    raw.sends(raw.task("open").null("target")).await;
    assert_eq!(raw.result("open").await["status"], "success");
    let victim = Identity::generate();
    let overheard = sign(raw.task("heard").null("target").str("caller", &victim.id().to_string()), &victim);
    raw.send(&relay(&raw.peer, &victim.id(), &overheard).build()).await;
    raw.heard().await;
    assert_eq!((target.runs(), target.refused("bad_task")), (1, 1));
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn a_task_signed_by_another_than_who_sends_it_is_refused() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    let victim = Identity::generate();
    let stolen = sign(raw.task("stolen").str("caller", &victim.id().to_string()), &victim);
    raw.send(&stolen).await;
    let answer = raw.result("stolen").await;
    assert_eq!(answer["error"]["code"], "NOT_ALLOWED");
    assert!(answer["error"]["message"].as_str().unwrap().contains("signed by another"), "{answer}");
    assert_eq!((target.refused("bad_task"), target.runs()), (1, 0));
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn a_task_that_its_caller_did_not_sign_so_is_refused() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    let (me, other) = (raw.identity.clone(), Identity::generate());
    let other_task = sign(raw.task("other"), &me);
    let rows = [
        ("unsigned", raw.task("unsigned").build()),
        ("flipped", flipped(&sign(raw.task("flipped"), &me))),
        ("by another key", sign(raw.task("by another key"), &other)),
        ("in another's name", sign(raw.task("in another's name").str("caller", &other.id().to_string()), &me)),
        (
            "another's signature",
            sign(raw.task("another's signature"), &me).with_member("signature", other_task.get("signature").unwrap()),
        ),
        // A signature that is right for some message of another type.
        (
            "of another type",
            raw.task("of another type")
                .str(
                    "signature",
                    &sign(raw.task("of another type").str("type", "result"), &me).str("signature").unwrap().unwrap(),
                )
                .build(),
        ),
    ];
    for (id, task) in &rows {
        raw.send(task).await;
        assert_eq!(raw.error(id).await, "BAD_SIGNATURE", "{id}");
    }
    assert_eq!((target.refused("bad_signature"), target.runs()), (rows.len() as u64, 0));
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn nobody_cancels_or_acknowledges_for_somebody_else() {
    let target = target().await;
    let mut caller = Raw::connect(&target.node).await;
    caller.sends(caller.task("mine").str("capability", "wait")).await;
    caller.sends(caller.task("flow").str("capability", "stream").raw("payload", b"20").u64("window", 4)).await;
    caller.until("the window is full", |m| m["type"] == "chunk" && m["seq"] == 3).await;
    let (mine, name) = (caller.id().to_string(), "caller");
    let mut thief = Raw::connect(&target.node).await;
    let his = thief.id().to_string();
    for (id, kind) in [("mine", "cancel"), ("flow", "chunk_ack"), ("flow", "cancel")] {
        let of = |who: &str| Builder::new(kind).str("id", id).u64("next", 20).str(name, who);
        // In his own name; in the caller's name without its key; as signed by the caller, and captured.
        thief.sends(of(&his)).await;
        thief.sends(of(&mine)).await;
        thief.send(&sign(of(&mine), &caller.identity)).await;
        thief.send(&of(&mine).build()).await;
    }
    thief.heard().await;
    assert_eq!((target.refused("bad_signature"), target.refused("not_the_signer")), (6, 3));
    let heard = caller.heard().await;
    let news: Vec<&Value> = heard.iter().filter(|m| m["type"] == "result" || m["type"] == "chunk").collect();
    assert!(news.is_empty(), "{news:?}");
    caller.sends(Builder::new("chunk_ack").str("id", "flow").u64("next", u64::MAX).str("caller", &mine)).await;
    caller.until("more", |m| m["type"] == "chunk" && m["seq"] == 7).await;
    for id in ["flow", "mine"] {
        caller.sends(Builder::new("cancel").str("id", id).str("caller", &mine)).await;
        assert_eq!(caller.error(id).await, "CANCELLED");
    }
    drop((caller, thief));
    target.unharmed().await;
}

#[tokio::test]
async fn tasks_for_what_is_not_provided_or_for_another_run_are_refused() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    raw.sends(raw.task("1").str("capability", "nothing")).await;
    assert_eq!(raw.error("1").await, "UNKNOWN_CAPABILITY");
    raw.sends(raw.task("2").str("instance", "an earlier run")).await;
    assert_eq!(raw.error("2").await, "PEER_GONE");
    raw.sends(raw.task("3").str("protocol", "elo.v9")).await;
    assert_eq!(raw.error("3").await, "BAD_REQUEST");
    assert_eq!(target.runs(), 0);
    drop(raw);
    target.unharmed().await;
}
