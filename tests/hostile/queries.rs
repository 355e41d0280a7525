//! Queries and events that are forged, repeated, too old, or too many.

use std::time::Duration;

use elo::Identity;
use serde_json::Value;

use crate::raw::{Raw, unix_s};
use crate::target::{Target, limited, target};

fn answers<'a>(messages: &'a [Value], id: &str) -> Vec<&'a Value> {
    messages.iter().filter(|m| m["type"] == "query_resp" && m["id"] == id).collect()
}

/// Sends a query; gives how many answers came to it.
async fn asked(raw: &mut Raw, query: elo::wire::Object) -> usize {
    let id = query.str("id").unwrap().unwrap();
    raw.send(&query).await;
    let heard = raw.heard().await;
    answers(&heard, &id).len()
}

#[tokio::test]
async fn forged_repeated_and_old_queries_are_not_answered() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    let (me, victim, node) = (raw.identity.clone(), Identity::generate(), raw.peer.to_string());
    let plain = raw.query("", "work");
    let mine = |id: &str| plain.clone().str("id", id);
    let ttl = |builder: elo::wire::Builder, by: &Identity| builder.sign(by, &["ttl"]);
    assert_eq!(asked(&mut raw, ttl(mine("1"), &me)).await, 1);
    // Once, whatever its ttl says, which is not signed.
    assert_eq!(asked(&mut raw, ttl(mine("1"), &me)).await, 0);
    assert_eq!(asked(&mut raw, ttl(mine("1"), &me).with_member("ttl", b"4")).await, 0);
    assert_eq!(target.refused("duplicate_query"), 2);
    // In another's name, without a signature, changed, signed in another's name.
    let in_his_name = || mine("2").str("origin", &victim.id().to_string());
    let rows = [
        ttl(in_his_name(), &me),
        in_his_name().build(),
        ttl(mine("2"), &me).with_member("capability", b"\"kind\""),
        mine("2").null("origin").build(),
    ];
    for row in rows {
        assert_eq!(asked(&mut raw, row).await, 0);
    }
    assert_eq!(target.refused("bad_signature"), 4);
    // None of it silences the real ones.
    assert_eq!(asked(&mut raw, ttl(mine("2"), &me)).await, 1);
    let his = mine("2").str("origin", &victim.id().to_string());
    assert_eq!(asked(&mut raw, ttl(his, &victim)).await, 1, "an id is its origin's own");
    for timestamp in [unix_s() - 302, unix_s() + 302, i64::MIN, i64::MAX] {
        assert_eq!(asked(&mut raw, ttl(mine("3").i64("timestamp", timestamp), &me)).await, 0);
    }
    assert_eq!(target.refused("query_clock"), 4);
    // A query that names the node itself as its origin is nobody's.
    assert_eq!(asked(&mut raw, ttl(mine("4").str("origin", &node), &me)).await, 0);
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn a_query_of_any_size_is_answered_within_bounds() {
    let target = target().await;
    let mut raw = Raw::connect(&target.node).await;
    for (id, limit, ttl, least) in [("a", 0, 0, 1), ("b", u64::MAX, u64::MAX, 2), ("c", 1, 1, 1)] {
        let query = raw.query(id, "").u64("limit", limit).u64("ttl", ttl).sign(&raw.identity, &["ttl"]);
        raw.send(&query).await;
        let heard = raw.heard().await;
        let nodes: usize = answers(&heard, id).iter().map(|m| m["nodes"].as_array().unwrap().len()).sum();
        assert_eq!(nodes, least, "{id}: {heard:?}");
    }
    drop(raw);
    target.unharmed().await;
}

#[tokio::test]
async fn a_flood_of_queries_is_answered_rate_limited_and_when_to_come_back() {
    let target = limited(|l| (l.floods_per_second, l.flood_burst) = (5, 20)).await;
    let mut raw = Raw::connect(&target.node).await;
    for n in 0..300 {
        let query = raw.query(&format!("q{n}"), "work").sign(&raw.identity, &["ttl"]);
        raw.send(&query).await;
    }
    let heard = raw.heard().await;
    let all: Vec<_> = heard.iter().filter(|m| m["type"] == "query_resp").collect();
    assert_eq!(all.len(), 300, "each is answered, one way or the other");
    let limited: Vec<_> = all.iter().filter(|m| m["error"]["code"] == "RATE_LIMITED").collect();
    assert!((200..=280).contains(&limited.len()), "{}", limited.len());
    assert!(limited.iter().all(|m| m["error"]["retry_after_s"].as_u64().is_some_and(|s| (1..=60).contains(&s))));
    assert_eq!(target.refused("rate_limited"), limited.len() as u64);
    // Tasks of the same peer are another matter.
    raw.sends(raw.task("t")).await;
    assert_eq!(raw.result("t").await["status"], "success");
    drop(raw);
    target.unharmed().await;
}

/// Everything that has come to a subscriber so far, up to a last event of the node's own.
async fn delivered(target: &Target, news: &mut elo::Subscription) -> Vec<String> {
    let last = target.node.publish("news", Value::Null).unwrap();
    let mut ids = Vec::new();
    loop {
        let event = tokio::time::timeout(Duration::from_secs(10), news.recv()).await.unwrap().unwrap();
        if event.id == last {
            return ids;
        }
        ids.push(event.id);
    }
}

#[tokio::test]
async fn forged_repeated_and_old_events_are_not_delivered() {
    let target = target().await;
    let mut news = target.node.subscribe("news").unwrap();
    let mut raw = Raw::connect(&target.node).await;
    let mut other = Raw::connect(&target.node).await;
    let (me, victim) = (raw.identity.clone(), Identity::generate());
    let signed = |builder: elo::wire::Builder| builder.sign(&me, &["ttl"]);
    let real = signed(raw.event("real"));
    raw.send(&real).await;
    raw.send(&real).await;
    raw.send(&real.with_member("ttl", b"3")).await;
    raw.heard().await;
    // The same over another connection.
    other.send(&real).await;
    other.heard().await;
    assert_eq!(target.refused("duplicate_event"), 3);
    raw.send(&raw.event("unsigned").build()).await;
    raw.send(&signed(raw.event("changed")).with_member("data", b"2")).await;
    raw.send(&signed(raw.event("another's").str("origin", &victim.id().to_string()))).await;
    raw.send(&signed(raw.event("the node's own").str("origin", &raw.peer.to_string()))).await;
    raw.send(&signed(raw.event("nobody's").null("origin"))).await;
    for timestamp in [unix_s() - 302, unix_s() + 302, 0, i64::MIN, i64::MAX] {
        raw.send(&signed(raw.event("out of time").i64("timestamp", timestamp))).await;
    }
    raw.send(&signed(raw.event("not wanted").str("event_type", "newspaper"))).await;
    // Somebody else's event of the same id is another one.
    raw.send(&raw.event("real").str("origin", &victim.id().to_string()).sign(&victim, &["ttl"])).await;
    raw.heard().await;
    assert_eq!((target.refused("bad_signature"), target.refused("event_clock")), (5, 5));
    assert_eq!(delivered(&target, &mut news).await, ["real", "real"]);
    drop((raw, other, news));
    target.unharmed().await;
}

#[tokio::test]
async fn a_flood_of_events_is_dropped_and_counted_and_a_slow_subscriber_holds_up_nobody() {
    let target = limited(|l| (l.floods_per_second, l.flood_burst) = (1, 300)).await;
    let news = target.node.subscribe("news").unwrap();
    let mut raw = Raw::connect(&target.node).await;
    for n in 0..1000 {
        let event = raw.event(&n.to_string()).sign(&raw.identity, &["ttl"]);
        raw.send(&event).await;
    }
    raw.heard().await;
    assert!(target.refused("rate_limited") >= 600, "{}", target.refused("rate_limited"));
    assert!(news.lost() > 0, "what a subscriber doesn't take is lost to it, and counted");
    target.serves().await;
    drop((raw, news));
    target.unharmed().await;
}
