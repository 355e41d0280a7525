//! Hole punching in the wrong hands: those who ask a tracker for too much, and those who pass for one.

use std::time::Duration;

use elo::wire::{Builder, Object};
use elo::{Identity, NodeId, Tracker};
use serde_json::Value;
use tokio::net::TcpListener;

use crate::raw::{Raw, relay, sign};
use crate::target::{Target, target};

async fn tracker() -> Target {
    Target::of(|builder| builder.tracker(Tracker::Public)).await
}

fn punch(id: &str, target: &NodeId, addrs: &[&str]) -> Object {
    Builder::new("punch").str("id", id).str("target", &target.to_string()).strings("addrs", addrs).build()
}

fn start(id: &str, peer: &NodeId, addrs: &[&str]) -> Object {
    Builder::new("punch_start")
        .str("id", id)
        .str("peer", &peer.to_string())
        .strings("addrs", addrs)
        .u64("wait_ms", 0)
        .build()
}

fn count(heard: &[Value], kind: &str) -> usize {
    heard.iter().filter(|m| m["type"] == kind).count()
}

#[tokio::test]
async fn a_tracker_tells_both_once_and_passes_on_no_address_but_private_ones() {
    let tracker = tracker().await;
    let (mut one, mut two) = (Raw::connect_punching(&tracker.node).await, Raw::connect_punching(&tracker.node).await);
    // Told beforehand, without a target; four at most.
    let told = ["10.9.9.9:5000", "8.8.8.8:53", "127.0.0.1:6000", "192.168.1.1:80"];
    two.send(&Builder::new("punch").str("id", "0").strings("addrs", &told).build()).await;
    assert!(two.heard().await.iter().all(|m| m["type"] != "punch_error"));
    one.send(&punch("p", &two.id(), &["10.8.8.8:4000"])).await;
    let ids = [one.id(), two.id()];
    for (raw, other, private) in [(&mut one, ids[1], "10.9.9.9:5000"), (&mut two, ids[0], "10.8.8.8:4000")] {
        let start = raw.until("punch_start", |m| m["type"] == "punch_start").await;
        assert_eq!((&start["id"], &start["peer"]), (&"p".into(), &other.to_string().into()));
        let addrs = start["addrs"].as_array().unwrap();
        assert_eq!((addrs.len(), &addrs[1]), (2, &private.into()), "its public address, and one in its own network");
        assert!(start["wait_ms"].as_u64().unwrap() < 2000);
    }
    drop((one, two));
    tracker.unharmed().await;
}

#[tokio::test]
async fn a_flood_of_wishes_is_answered_and_reaches_the_other_once() {
    let tracker = tracker().await;
    let (mut one, mut two) = (Raw::connect_punching(&tracker.node).await, Raw::connect_punching(&tracker.node).await);
    for n in 0..300 {
        one.send(&punch(&n.to_string(), &two.id(), &[])).await;
    }
    let heard = one.heard().await;
    assert_eq!((count(&heard, "punch_start"), count(&heard, "punch_error")), (1, 299));
    assert!(heard.iter().filter(|m| m["type"] == "punch_error").all(|m| m["code"] == "RATE_LIMITED"));
    assert_eq!(count(&two.heard().await, "punch_start"), 1);
    // Everybody else is out of its reach too now: it has had its share.
    let mut three = Raw::connect_punching(&tracker.node).await;
    one.send(&punch("three", &three.id(), &[])).await;
    assert_eq!(count(&one.heard().await, "punch_error"), 1);
    // And others have theirs.
    three.send(&punch("two", &two.id(), &[])).await;
    assert_eq!((count(&three.heard().await, "punch_start"), count(&two.heard().await, "punch_start")), (1, 1));
    assert_eq!(tracker.refused("punch_refused"), 300);
    drop((one, two, three));
    tracker.unharmed().await;
}

#[tokio::test]
async fn whoever_cannot_punch_is_neither_helped_nor_bothered() {
    let tracker = tracker().await;
    let (mut able, mut unable) = (Raw::connect_punching(&tracker.node).await, Raw::connect(&tracker.node).await);
    let nobody = Identity::generate().id();
    for target in [unable.id(), nobody, tracker.node.id()] {
        able.send(&punch("1", &target, &[])).await;
        let error = able.until("punch_error", |m| m["type"] == "punch_error").await;
        assert_eq!((&error["code"], &error["target"]), (&"NO_PEER".into(), &target.to_string().into()));
    }
    let me = able.id();
    able.send(&punch("2", &me, &[])).await;
    assert_eq!(able.until("punch_error", |m| m["type"] == "punch_error").await["code"], "BAD_REQUEST");
    unable.send(&punch("3", &me, &[])).await;
    assert_eq!(unable.until("punch_error", |m| m["type"] == "punch_error").await["code"], "NO_PEER");
    assert_eq!(count(&able.heard().await, "punch_start") + count(&unable.heard().await, "punch_start"), 0);
    drop((able, unable));
    tracker.unharmed().await;

    let plain = target().await;
    let (mut one, two) = (Raw::connect_punching(&plain.node).await, Raw::connect_punching(&plain.node).await);
    one.send(&punch("1", &two.id(), &[])).await;
    assert_eq!(one.until("punch_error", |m| m["type"] == "punch_error").await["code"], "NO_TRACKER");
}

#[tokio::test]
async fn a_node_does_not_knock_anywhere_because_a_peer_says_so() {
    let target = target().await;
    let victim = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = victim.local_addr().unwrap().to_string();
    let mut raw = Raw::connect_punching(&target.node).await;
    // It even has a task of the peer it is told to meet.
    let friend = Identity::generate();
    let task = sign(raw.task("t").str("caller", &friend.id().to_string()), &friend);
    raw.send(&relay(&raw.peer, &friend.id(), &task).u64("hops", 1).build()).await;
    for n in 0..100 {
        raw.send(&start(&n.to_string(), &friend.id(), &[&addr, "203.0.113.1:80"])).await;
    }
    raw.heard().await;
    assert_eq!(target.refused("unasked_punch"), 100);
    let error = Builder::new("punch_error").str("id", "1").str("target", &friend.id().to_string());
    raw.send(&error.str("code", "NO_PEER").str("message", "no").build()).await;
    raw.heard().await;
    assert_eq!(target.refused("unasked_punch"), 101);
    let knocked = tokio::time::timeout(Duration::from_millis(300), victim.accept()).await;
    assert!(knocked.is_err(), "it was told to, by nobody it asked");
    drop(raw);
    target.unharmed().await;
}
