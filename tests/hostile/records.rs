//! Records that are forged, old, from the future, too large, or too many.

use std::collections::HashMap;

use elo::Identity;
use elo::wire::{Builder, canonicalize_value};
use serde_json::json;

use crate::mesh::eventually;
use crate::raw::{Raw, announce, record, sign, unix_ms};
use crate::target::{limited, target};

#[tokio::test]
async fn forged_old_and_future_records_are_not_believed() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    let victim = Identity::generate();
    let now = unix_ms();
    let real = sign(record(&victim, "real").u64("seq", now), &victim);
    let knows = |capability: &'static str| {
        let node = target.node.clone();
        async move { node.find(capability, None).await.unwrap().len() }
    };
    // A stranger brings the real one: it is signed by its subject.
    raw.send(&announce(&real)).await;
    raw.heard().await;
    assert_eq!(knows("real").await, 1);
    let changed = real.with_member("caps", br#"{"agents":[{"name":"evil"}]}"#);
    raw.send(&announce(&changed)).await;
    raw.send(&announce(&changed.with_member("seq", (now + 9).to_string().as_bytes()))).await;
    raw.send(&announce(&sign(record(&victim, "evil").u64("seq", now + 9), &raw.identity))).await;
    raw.send(&announce(&record(&victim, "evil").build())).await;
    raw.heard().await;
    assert_eq!(target.refused("bad_signature"), 4);
    // Signed by its subject, but older than what is known, past its time, or from the future.
    raw.send(&announce(&sign(record(&victim, "evil").u64("seq", now - 1), &victim))).await;
    raw.heard().await;
    assert_eq!(target.refused("dead_record"), 0, "it is just known better");
    for seq in [1, now - 700_000, now + 310_000, u64::MAX, u64::MAX - 300_000] {
        raw.send(&announce(&sign(record(&victim, "evil").u64("seq", seq), &victim))).await;
    }
    raw.heard().await;
    assert_eq!(target.refused("dead_record"), 5);
    // The node's own record, brought back to it, and one it never wrote.
    raw.send(&announce(&sign(record(&victim, "evil").str("node_id", &raw.peer.to_string()), &victim))).await;
    raw.heard().await;
    assert_eq!((knows("evil").await, knows("real").await), (0, 1));
    raw.send(&announce(&sign(record(&victim, "newer").u64("seq", now + 1), &victim))).await;
    raw.heard().await;
    assert_eq!((knows("newer").await, knows("real").await), (1, 0));
    target.serves().await;
}

#[tokio::test]
async fn records_past_their_bounds_are_refused() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    let me = raw.identity.clone();
    let caps = |n: usize| {
        let names: Vec<_> = (0..n).map(|i| json!({ "name": format!("{i}") })).collect();
        canonicalize_value(&json!({ "agents": names })).unwrap()
    };
    let addrs = |n: u16| (0..n).map(|i| format!("127.0.0.1:{}", i + 1)).collect::<Vec<_>>();
    let ids = |n: usize| (0..n).map(|_| Identity::generate().id().to_string()).collect::<Vec<_>>();
    let names = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
    let around = sign(record(&me, "x").str("pad", ""), &me).raw().len();
    let pad = |n: usize| "x".repeat(n - around);
    let wrong: Vec<(&str, Builder)> = vec![
        ("8 KiB and a byte", record(&me, "x").str("pad", &pad(8 * 1024 + 1))),
        ("257 capabilities", record(&me, "x").raw("caps", &caps(257))),
        ("9 addresses", record(&me, "x").strings("addrs", &addrs(9))),
        ("5 trackers", record(&me, "x").strings("trackers", &ids(5))),
        ("257 interests", record(&me, "x").strings("interests", &names(257))),
        ("a name as address", record(&me, "x").strings("addrs", &["localhost:1"])),
        ("an hour and a second", record(&me, "x").u64("ttl_s", 3601)),
        ("no time", record(&me, "x").u64("ttl_s", 0)),
    ];
    for (n, (what, record)) in wrong.into_iter().enumerate() {
        raw.send(&announce(&sign(record, &me))).await;
        raw.heard().await;
        assert_eq!(target.refused("malformed"), n as u64 + 1, "{what}");
    }
    assert_eq!(target.node.metrics().records, 1);
    let right = [
        ("8 KiB", record(&me, "x").str("pad", &pad(8 * 1024))),
        ("256 capabilities", record(&me, "x").raw("caps", &caps(256))),
        ("8 addresses", record(&me, "x").strings("addrs", &addrs(8)).strings("trackers", &ids(4))),
    ];
    for (n, (what, record)) in right.into_iter().enumerate() {
        raw.send(&announce(&sign(record.u64("seq", unix_ms() + n as u64), &me))).await;
        raw.heard().await;
        assert_eq!(target.refused("malformed"), 8, "{what}");
    }
    assert_eq!(target.node.metrics().records, 2);
    target.serves().await;
}

#[tokio::test]
async fn ten_thousand_strangers_records_do_not_push_out_the_connected_peers() {
    let target = limited(|l| {
        (l.max_records, l.floods_per_second, l.flood_burst) = (64, 1_000_000, 1_000_000);
        (l.messages_per_second, l.message_burst) = (1_000_000, 1_000_000);
    })
    .await;
    let mut raw = Raw::connect(&target.node).await;
    raw.provide("mine").await;
    for n in 0..10_000u32 {
        let seed = [&n.to_le_bytes()[..], &[7; 28]].concat().try_into().unwrap();
        let stranger = Identity::from_seed(seed);
        raw.send(&announce(&sign(record(&stranger, &format!("flood{}", n % 10)), &stranger))).await;
        if n % 2000 == 0 {
            raw.heard().await;
            assert!(target.node.metrics().records <= 64);
            target.serves().await;
        }
    }
    raw.heard().await;
    assert_eq!(target.node.metrics().records, 64);
    assert_eq!(target.node.find("kind", None).await.unwrap().len(), 1, "the honest peer's record stayed");
    assert_eq!(target.node.find("mine", None).await.unwrap().len(), 1, "a connected peer's record stayed");
    target.serves().await;
    drop(raw);
    eventually("the attacker is gone", || target.node.peers().len() == 1).await;
}

#[tokio::test]
async fn records_above_the_flood_rate_are_dropped_and_counted() {
    let target = limited(|l| (l.floods_per_second, l.flood_burst) = (1, 10)).await;
    let mut raw = Raw::connect(&target.node).await;
    for n in 0..200u8 {
        let stranger = Identity::from_seed([n + 1; 32]);
        raw.send(&announce(&sign(record(&stranger, "x"), &stranger))).await;
    }
    raw.heard().await;
    let records = target.node.metrics().records;
    assert!((11..=40).contains(&records), "{records}");
    assert_eq!(target.refused("rate_limited"), 201 - records as u64);
    target.serves().await;
}

#[tokio::test]
async fn a_node_that_left_is_not_brought_back_by_its_old_record() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    raw.provide("left").await;
    let old = sign(record(&raw.identity, "left").u64("seq", unix_ms() - 1000), &raw.identity);
    let mut other = Raw::connect(&target.node).await;
    drop(raw);
    eventually("it left", || target.node.metrics().records == 1).await;
    other.send(&announce(&old)).await;
    other.heard().await;
    assert_eq!((target.node.metrics().records, target.refused("dead_record")), (1, 1));
    let counted: HashMap<_, _> = target.node.metrics().refused.into_iter().collect();
    assert_eq!(counted.len(), 1, "{counted:?}");
    drop(other);
    target.unharmed().await;
}
