//! A tracker that lies: whatever it does, nothing is read, nothing wrong is believed, and calls end.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use elo::{Context, Delivery, ErrorCode, Node, Route, Sealing, Task};
use serde_json::{Value, json};

use crate::evil::Evil;
use crate::mesh::eventually;

const MARKER: &str = "the-crown-jewels";

struct Scene {
    evil: Evil,
    caller: Node,
    provider: Node,
    runs: Arc<AtomicUsize>,
}

/// A caller and a provider that reach each other through a tracker that lies, and in no other way.
async fn scene(sealing: Sealing) -> Scene {
    let evil = Evil::start().await;
    let runs = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&runs);
    let provider = Node::builder()
        .name("provider")
        .no_listen()
        .peer(evil.addr.clone())
        .sealing(sealing)
        .agent("work")
        .handler("work", move |task: Task, context: Context| {
            counted.fetch_add(1, Ordering::SeqCst);
            async move {
                context.chunk(json!([MARKER, task.payload])).await.map_err(|e| e.to_string())?;
                Ok(json!({ "said": task.payload, "sealed": task.sealed }))
            }
        })
        .start()
        .await
        .unwrap();
    let caller =
        Node::builder().name("caller").no_listen().peer(evil.addr.clone()).sealing(sealing).start().await.unwrap();
    eventually("the tracker knows both", || evil.knows(&provider.id()) && evil.knows(&caller.id())).await;
    Scene { evil, caller, provider, runs }
}

impl Scene {
    async fn call(&self, payload: Value) -> Result<elo::Outcome, elo::CallError> {
        let call = self.caller.call("work", payload).to(self.provider.id().to_string());
        call.timeout(Duration::from_secs(60)).await
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }

    fn refused(&self, node: &Node, reason: &str) -> u64 {
        node.metrics().refused.get(reason).copied().unwrap_or(0)
    }
}

#[tokio::test]
async fn a_tracker_reads_nothing_of_what_it_passes_on() {
    let scene_ = scene(Sealing::Preferred).await;
    let outcome = scene_.call(json!(MARKER)).await.unwrap();
    assert_eq!((outcome.route, outcome.sealed, outcome.chunks), (Route::Relay, true, 1));
    assert_eq!(outcome.payload, json!({ "said": MARKER, "sealed": true }));
    let heard = scene_.evil.heard();
    assert!(!heard.contains(MARKER) && heard.contains("\"sealed\""));
    assert!(heard.contains(&outcome.id), "what it needs to pass it on it sees");
    // The check can fail: a node that seals nothing is read.
    let open = scene(Sealing::Off).await;
    let outcome = open.call(json!(MARKER)).await.unwrap();
    assert_eq!((outcome.sealed, &outcome.payload["sealed"]), (false, &json!(false)));
    assert!(open.evil.heard().contains(MARKER));
}

#[tokio::test]
async fn a_tracker_that_keeps_the_record_to_itself_is_sent_no_task() {
    let scene = scene(Sealing::Preferred).await;
    scene.evil.withhold();
    let error = scene.call(json!(MARKER)).await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::NoPeer, Delivery::NotSent));
    assert!(error.message.contains("its record is not known here"), "{error}");
    assert!(scene.evil.frames("task").is_empty() && !scene.evil.heard().contains(MARKER));
    assert_eq!(scene.runs(), 0);
}

#[tokio::test]
async fn whatever_is_changed_on_the_way_the_call_succeeds_by_its_next_copy() {
    type Change = fn(&mut Value);
    let changes: &[(&str, Change)] = &[
        ("n", |f| f["n"] = json!(f["n"].as_u64().unwrap() + 1)),
        ("id", |f| f["id"] = json!("another")),
        ("kind", |f| f["kind"] = json!("cancel")),
        ("instance", |f| f["instance"] = json!("another")),
        ("ttl_s", |f| f["ttl_s"] = json!(1)),
        ("target", |f| f["target"] = f["source"].clone()),
        ("source", |f| f["source"] = f["target"].clone()),
        ("key", |f| f["key"] = f["enc"].clone()),
        ("enc", |f| f["enc"] = f["key"].clone()),
        ("box", |f| f["box"] = json!(f["box"].as_str().unwrap().replacen('A', "B", 1) + "AAAA")),
        ("no box", |f| drop(f.as_object_mut().unwrap().remove("box"))),
        ("no signature", |f| drop(f.as_object_mut().unwrap().remove("signature"))),
        ("no key", |f| drop(f.as_object_mut().unwrap().remove("key"))),
        ("type", |f| f["type"] = json!("task")),
        ("nothing left", |f| *f = json!({})),
    ];
    let scene = scene(Sealing::Required).await;
    for (n, (what, change)) in changes.iter().enumerate() {
        let mut first = true;
        scene.evil.twist(move |mut frame| {
            if std::mem::take(&mut first) {
                change(&mut frame);
            }
            vec![frame]
        });
        let outcome = scene.call(json!(what)).await.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!((&outcome.payload["said"], outcome.sealed), (&json!(what), true), "{what}");
        assert_eq!(scene.runs(), n + 1, "{what}");
    }
    assert!(scene.refused(&scene.provider, "bad_signature") > 5);
}

#[tokio::test]
async fn what_comes_back_changed_is_not_believed() {
    let scene = scene(Sealing::Preferred).await;
    // Every answer is turned, once each, into something else; the responder is asked again, and answers again.
    let seen = Mutex::new(std::collections::HashSet::new());
    scene.evil.twist(move |mut frame| {
        let kind = frame["kind"].as_str().unwrap_or_default().to_owned();
        if kind != "task" && kind != "chunk_ack" && seen.lock().unwrap().insert(kind) {
            frame["box"] = json!("A".repeat(64));
        }
        vec![frame]
    });
    let outcome = scene.call(json!(MARKER)).await.unwrap();
    assert_eq!((&outcome.payload["said"], outcome.chunks, scene.runs()), (&json!(MARKER), 1, 1));
    // Made up in the open, and in nobody's or somebody else's name.
    let liar = elo::Identity::generate();
    scene.evil.twist(move |frame| {
        let id = frame["id"].as_str().unwrap().to_owned();
        let forged = |responder: &str| {
            elo::wire::Builder::new("result")
                .str("id", &id)
                .str("protocol", "elo.v1")
                .str("responder", responder)
                .str("status", "success")
                .raw("payload", b"\"a lie\"")
                .sign(&liar, &[])
        };
        let value = |o: elo::wire::Object| serde_json::from_slice::<Value>(o.raw()).unwrap();
        if frame["kind"] == "result" {
            let mut lies =
                vec![value(forged(frame["source"].as_str().unwrap())), value(forged(&liar.id().to_string()))];
            lies.push(frame);
            return lies;
        }
        vec![frame]
    });
    let outcome = scene.call(json!("the truth")).await.unwrap();
    assert_eq!((&outcome.payload["said"], scene.runs()), (&json!("the truth"), 2));
    assert!(scene.refused(&scene.caller, "bad_signature") >= 2);
}

#[tokio::test]
async fn everything_may_come_three_times_and_in_any_order() {
    let scene = scene(Sealing::Preferred).await;
    let mut held: Vec<Value> = Vec::new();
    scene.evil.twist(move |frame| {
        held.push(frame.clone());
        let again = held.iter().rev().take(3).cloned();
        again.chain([frame]).collect::<Vec<_>>()
    });
    for n in 0..5 {
        let outcome = scene.call(json!(n)).await.unwrap();
        assert_eq!((&outcome.payload["said"], outcome.chunks), (&json!(n), 1));
    }
    assert_eq!(scene.runs(), 5);
}

#[tokio::test]
async fn boxes_that_are_swapped_between_envelopes_open_nothing() {
    let scene = scene(Sealing::Preferred).await;
    let mut waiting: Option<Value> = None;
    let mut swapped = false;
    scene.evil.twist(move |mut frame| {
        if swapped || frame["kind"] != "task" {
            return vec![frame];
        }
        let Some(mut first) = waiting.take() else {
            waiting = Some(frame);
            return Vec::new();
        };
        if first["id"] == frame["id"] {
            waiting = Some(first);
            return Vec::new();
        }
        swapped = true;
        let (a, b) = (first["box"].take(), frame["box"].take());
        (first["box"], frame["box"]) = (b, a);
        vec![first, frame]
    });
    let (one, two) = tokio::join!(scene.call(json!("one")), scene.call(json!("two")));
    assert_eq!((&one.unwrap().payload["said"], &two.unwrap().payload["said"]), (&json!("one"), &json!("two")));
    assert_eq!(scene.runs(), 2);
    assert!(scene.refused(&scene.provider, "bad_signature") >= 2);
}

#[tokio::test]
async fn a_tracker_that_lets_nothing_through_leaves_an_error_and_no_plain_text() {
    let scene = scene(Sealing::Preferred).await;
    scene.evil.twist(|mut frame| {
        frame["box"] = json!("");
        vec![frame]
    });
    let call = scene.caller.call("work", json!(MARKER)).to(scene.provider.id().to_string());
    let error = call.timeout(Duration::from_secs(5)).await.unwrap_err();
    assert_eq!((error.code, error.delivery), (ErrorCode::Timeout, Delivery::Unconfirmed));
    let frames = scene.evil.frames("task");
    assert!(!frames.is_empty() && frames.iter().all(|f| f["type"] == "sealed"), "{frames:?}");
    assert!(!scene.evil.heard().contains(MARKER));
    assert_eq!(scene.runs(), 0);
}
