//! What a tracker relays: bytes for each pair of nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use elo::{Context, Limits, Node, Task, Tracker};
use serde_json::json;

use crate::ELSEWHERE;
use crate::mesh::{addr_of, found_when, meets, node};
use crate::raw::Raw;

#[tokio::test]
async fn calls_above_the_relays_rate_wait_and_are_answered_once() {
    let limits =
        Limits::default().with(|l| (l.relay_bytes_per_second, l.relay_byte_burst) = (1024 * 1024, 1024 * 1024));
    let tracker = node("tracker").tracker(Tracker::Public).limits(limits).start().await.unwrap();
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let far = Node::builder().no_listen().name("far").agent("far").peer(addr_of(&tracker));
    let far = far.handler("far", move |task: Task, _: Context| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok(task.payload) }
    });
    let far = far.start().await.unwrap();
    let near = Node::builder().no_listen().name("near").interest("far").peer(addr_of(&tracker)).start().await.unwrap();
    meets(&far, &[&tracker]).await;
    meets(&near, &[&tracker]).await;
    found_when(&near, "far", "it is found", |known| known.len() == 1).await;

    // Five seconds of it, and the answers are as much.
    let payload = json!("x".repeat(500 * 1000));
    let mut calls = Vec::new();
    for _ in 0..12 {
        let call = near.call("far", payload.clone()).to(far.id().to_string()).timeout(Duration::from_secs(120));
        calls.push(call.start().await.unwrap());
    }
    // Another pair is not slowed, nor is who is connected itself.
    let mut other = Raw::connect_from(&tracker, ELSEWHERE).await;
    other.heard().await;
    let pong = tracker.call("ping", json!(1)).to(far.id().to_string()).await.unwrap();
    assert_eq!(pong.responder, far.id());
    for call in calls {
        let outcome = call.outcome().await.unwrap();
        assert_eq!((outcome.responder, outcome.payload == payload), (far.id(), true));
    }
    assert_eq!(runs.load(Ordering::SeqCst), 12);
    let refused = tracker.metrics().refused;
    assert!(refused.get("relay_rate").is_some_and(|n| *n > 0), "{refused:?}");
}
