//! A tracker's relay in the wrong hands, and other nodes' patience with what comes through one.

use std::time::Duration;

use elo::wire::{Builder, Object};
use elo::{Identity, Limits, NodeId, Tracker};
use serde_json::Value;

use crate::mesh::eventually;
use crate::raw::{Raw, relay, sign};
use crate::target::{Target, target};

async fn tracker(set: impl FnOnce(&mut Limits)) -> Target {
    let mut limits = Limits::default();
    set(&mut limits);
    Target::of(|builder| builder.tracker(Tracker::Public).limits(limits)).await
}

fn task_for(raw: &Raw, id: &str, target: &NodeId) -> Object {
    sign(raw.task(id).str("target", &target.to_string()), &raw.identity)
}

async fn relay_error(raw: &mut Raw, id: &str) -> Value {
    raw.until("relay_error", |m| m["type"] == "relay_error" && m["id"] == id).await
}

#[tokio::test]
async fn a_node_that_is_no_tracker_relays_for_nobody() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    let to = target.honest.id();
    let frame = task_for(&raw, "1", &to);
    raw.send(&relay(&to, &raw.id(), &frame).build()).await;
    assert_eq!(relay_error(&mut raw, "1").await["code"], "NO_TRACKER");
    assert_eq!((target.refused("relay_refused"), target.node.metrics().relayed), (1, 0));
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn a_tracker_passes_on_only_what_its_bringer_signed_and_only_what_is_about_tasks() {
    let tracker = tracker(|_| {}).await;
    let mut raw = Raw::connect(&tracker.node).await;
    let mut to = Raw::connect(&tracker.node).await;
    let (target, me, victim) = (to.id(), raw.id(), Identity::generate());
    let mine = task_for(&raw, "mine", &target);
    raw.send(&relay(&target, &me, &mine).build()).await;
    let passed = to.until("the frame", |m| m["type"] == "relay").await;
    assert_eq!((&passed["frame"]["id"], &passed["hops"]), (&"mine".into(), &1.into()));

    // Signed by another, in whose name it comes.
    let his = sign(raw.task("his").str("caller", &victim.id().to_string()), &victim);
    raw.send(&relay(&target, &victim.id(), &his).build()).await;
    assert_eq!(relay_error(&mut raw, "his").await["code"], "NOT_ALLOWED");
    raw.send(&relay(&target, &victim.id(), &his).u64("hops", 1).build()).await;
    assert_eq!(relay_error(&mut raw, "his").await["code"], "NOT_ALLOWED", "who is no tracker can't say it passed one");
    for hops in [3, 4, 255, u64::MAX] {
        raw.send(&relay(&target, &me, &mine).u64("hops", hops).build()).await;
        assert_eq!(relay_error(&mut raw, "mine").await["code"], "BAD_REQUEST", "{hops} hops");
    }
    let nobody = Identity::generate().id();
    raw.send(&relay(&nobody, &me, &task_for(&raw, "lost", &nobody)).build()).await;
    assert_eq!(relay_error(&mut raw, "lost").await["code"], "NO_PEER");

    // Not its signer's, not signed, changed on the way, not about a task, a relay in a relay.
    raw.send(&relay(&target, &me, &his).build()).await;
    let told = relay_error(&mut raw, "his").await;
    assert_eq!((&told["code"], &told["source"]), (&"BAD_SIGNATURE".into(), &me.to_string().into()));
    raw.send(&relay(&target, &victim.id(), &mine).build()).await;
    raw.send(&relay(&target, &me, &raw.task("x").build()).build()).await;
    raw.send(&relay(&target, &me, &mine.with_member("payload", b"2")).build()).await;
    raw.heard().await;
    assert_eq!(tracker.refused("bad_signature"), 4);
    let frames = [
        crate::raw::announce(&sign(crate::raw::record(&raw.identity, "x"), &raw.identity)),
        sign(raw.query("q", "x"), &raw.identity),
        sign(raw.event("e"), &raw.identity),
        relay(&target, &me, &mine).build(),
        Builder::new("bye").str("code", "SHUTDOWN").build(),
        Builder::new("heartbeat").u64("ask", 1).build(),
        Builder::new("hello").build(),
        Builder::untyped().build(),
    ];
    for frame in &frames {
        raw.send(&relay(&target, &me, frame).build()).await;
    }
    assert_eq!(relay_error(&mut raw, "q").await["code"], "BAD_REQUEST");
    raw.heard().await;
    assert_eq!(tracker.refused("malformed"), frames.len() as u64);
    let heard = to.heard().await;
    assert!(heard.iter().all(|m| m["type"] != "relay"), "{heard:?}");
    assert_eq!(tracker.node.metrics().relayed, 1);
    drop((raw, to));
    tracker.unharmed().await;
}

#[tokio::test]
async fn the_source_is_told_when_the_target_is_lost() {
    let tracker = tracker(|_| {}).await;
    let mut raw = Raw::connect(&tracker.node).await;
    let mut to = Raw::connect(&tracker.node).await;
    let target = to.id();
    let frame = task_for(&raw, "1", &target);
    raw.send(&relay(&target, &raw.id(), &frame).build()).await;
    to.until("the frame", |m| m["type"] == "relay").await;
    drop(to);
    assert_eq!(relay_error(&mut raw, "1").await["code"], "PEER_GONE");
    drop(raw);
    tracker.unharmed().await;
}

#[tokio::test]
async fn a_relayed_task_is_answered_the_way_it_came_and_runs_once() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    // The raw client is somebody's tracker here.
    let caller = Identity::generate();
    let task = sign(raw.task("far").str("caller", &caller.id().to_string()), &caller);
    for _ in 0..2 {
        raw.send(&relay(&raw.peer, &caller.id(), &task).u64("hops", 1).build()).await;
        let back = raw.until("the answer", |m| m["type"] == "relay").await;
        assert_eq!(back["target"], caller.id().to_string());
        assert_eq!((&back["frame"]["id"], &back["frame"]["status"]), (&"far".into(), &"success".into()));
    }
    assert_eq!(target.runs(), 1);
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn relays_to_a_node_that_does_not_read_are_told_overloaded_and_nobody_else_waits() {
    const FRAME: usize = 200 * 1024;
    const OUTBOX: usize = 1024 * 1024;
    let tracker = tracker(|l| {
        (l.outbox_bytes, l.write_timeout) = (OUTBOX, Duration::from_millis(1500));
    })
    .await;
    let deaf = Raw::connect_narrow(&tracker.node).await;
    let mut raw = Raw::connect(&tracker.node).await;
    let target = deaf.id();
    let payload = format!("\"{}\"", "x".repeat(FRAME));
    let (mut told, mut sent) = (0, 0);
    for n in 0..100 {
        let task = raw.task(&n.to_string()).str("target", &target.to_string()).raw("payload", payload.as_bytes());
        let frame = sign(task, &raw.identity);
        raw.send(&relay(&target, &raw.id(), &frame).build()).await;
        sent += 1;
        let heard = raw.heard().await;
        told += heard.iter().filter(|m| m["type"] == "relay_error" && m["code"] == "OVERLOADED").count() as u64;
        if told >= 5 {
            break;
        }
    }
    assert!(told >= 5, "the source is told that the target doesn't read");
    // The last one may still be looked at.
    eventually("all are looked at", || tracker.node.metrics().relayed == sent).await;
    let overflown = tracker.refused("relay_overflow");
    assert!((told..=told + 1).contains(&overflown), "{overflown} {told}");
    // What the tracker took is in its outbox and in the sockets' buffers, and no more.
    let held = sent - overflown;
    assert!(held * FRAME as u64 <= OUTBOX as u64 + 16 * 1024 * 1024, "{held} frames are held");
    tracker.serves().await;
    tracker.closes("TOO_SLOW", 1).await;
    // Its callers hear that it is gone.
    relay_error(&mut raw, "0").await;
    drop((raw, deaf));
    tracker.unharmed().await;
}
