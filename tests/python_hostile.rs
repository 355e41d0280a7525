//! Nodes in the Python package's framing that lie, forge or ask for too much, and how much they are sent themselves.
//!
//! On with `ELO_INTEROP=1`; see `python_interop.rs`.

// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod mesh;
mod python;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use elo::{Context, Delivery, ErrorCode, Identity, Node, NodeId, Task, TaskResult};
use mesh::{addr_of, eventually, meets, node};
use python::{Python, is_on, legacy, provides, unproven};
use serde_json::{Value, json};

async fn echo(task: Task, _: Context) -> TaskResult {
    Ok(task.payload.into())
}

fn hello(node_id: &str, agents: &[&str]) -> Value {
    let named: Vec<Value> = agents.iter().map(|name| json!({"name": name})).collect();
    json!({
        "type": "hello", "node_id": node_id, "interests": agents, "tracker": "public", "version": "0.4.9",
        "caps": {"agents": named, "models": [], "tools": []},
    })
}

fn task(id: &str, caller: &str, target: &str) -> Value {
    let timestamp = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    json!({
        "type": "task", "id": id, "target": target, "caller": caller, "capability": "count", "payload": {},
        "protocol": "elo.v1", "timestamp": timestamp, "ttl_s": 60, "signature": "SIGN",
    })
}

/// A node that counts the tasks it runs, and one that speaks the package's frames to it by hand.
async fn counting() -> (Node, Arc<AtomicUsize>, Python) {
    let ran = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&ran);
    let handler = move |task: Task, _: Context| {
        counter.fetch_add(1, Ordering::SeqCst);
        async move { TaskResult::Ok(task.payload.into()) }
    };
    let ours = legacy("ours").agent("count").handler("count", handler).start().await.unwrap();
    let mut frames = Python::frames(&ours).await;
    frames.write(&hello("ME", &[]));
    let ack = frames.frame("hello_ack").await;
    assert_eq!(ack["caps"]["agents"][0]["name"], "count", "{ack}");
    (ours, ran, frames)
}

#[tokio::test]
async fn only_tasks_that_their_caller_signed_are_run() {
    if !is_on() {
        return;
    }
    let (ours, ran, mut frames) = counting().await;
    let me = frames.node_id.clone();
    let other = Identity::generate().id().to_string();
    let with = |mut task: Value, signature: Option<&str>| {
        match signature {
            Some(signature) => task["signature"] = json!(signature),
            None => drop(task.as_object_mut().unwrap().remove("signature")),
        }
        task
    };
    let wrong = "A".repeat(86);
    let us = ours.id().to_string();
    let refused = [
        (with(task("missing", &me, ""), None), "BAD_SIGNATURE"),
        (with(task("empty", &me, ""), Some("")), "BAD_SIGNATURE"),
        (with(task("wrong", &me, ""), Some(&wrong)), "BAD_SIGNATURE"),
        (with(task("no base64", &me, ""), Some("***")), "BAD_SIGNATURE"),
        // Signed by itself, in the name of another.
        (task("another's", &other, ""), "BAD_SIGNATURE"),
        (task("for another", &me, &other), "BAD_REQUEST"),
        (task("for another prefix", &me, &other[..12]), "BAD_REQUEST"),
        (task("too short", &me, &us[..11]), "BAD_REQUEST"),
        (task("to a name", &me, "ours"), "BAD_REQUEST"),
    ];
    for (task, code) in refused {
        frames.write(&task);
        let result = frames.frame("result").await;
        assert_eq!((&result["id"], &result["error"]["code"]), (&task["id"], &json!(code)), "{result}");
    }
    assert_eq!(ran.load(Ordering::SeqCst), 0);
    assert_eq!(ours.metrics().refused["bad_signature"], 5);

    frames.write(&task("right", &me, ""));
    assert_eq!(frames.frame("result").await["status"], "success");
    // The same again is answered from memory.
    frames.write(&task("right", &me, ""));
    assert_eq!(frames.frame("result").await["status"], "success");
    assert_eq!(ran.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn another_ones_signed_task_is_not_run_for_who_brings_it() {
    if !is_on() {
        return;
    }
    // It claims one id in its hello, and brings a task that another has signed.
    let (ours, ran, mut frames) = counting().await;
    let mut thief = Python::frames(&ours).await;
    thief.write(&hello(&Identity::generate().id().to_string(), &[]));
    thief.frame("hello_ack").await;
    thief.write(&task("stolen", "ME", ""));
    let result = thief.frame("result").await;
    assert_eq!(result["error"]["code"], "NOT_ALLOWED", "{result}");
    assert_eq!(ran.load(Ordering::SeqCst), 0);
    assert_eq!(ours.metrics().refused["not_the_signer"], 1);
    frames.write(&task("own", "ME", ""));
    assert_eq!(frames.frame("result").await["status"], "success");
}

#[tokio::test]
async fn a_success_that_is_not_signed_by_the_responder_is_none() {
    if !is_on() {
        return;
    }
    let (ours, _, mut frames) = counting().await;
    frames.write(&json!({"type": "interest_update", "interests": ["forged"]}));
    provides(&ours, &frames, "forged").await;
    let call = ours.call("forged", json!({})).start().await.unwrap();
    let task = frames.frame("task").await;
    let answer = |payload: &str, signature: &str| {
        json!({"type": "result", "id": task["id"], "status": "success", "protocol": "elo.v1", "payload": payload,
            "signature": signature})
    };
    let mut unsigned = answer("unsigned", "");
    unsigned.as_object_mut().unwrap().remove("signature");
    frames.write(&unsigned);
    frames.write(&answer("empty", ""));
    frames.write(&answer("wrong", &"A".repeat(86)));
    let mut named = answer("in another's name", "SIGN");
    named["responder"] = json!(Identity::generate().id().to_string());
    frames.write(&named);
    frames.write(&answer("right", "SIGN"));
    assert_eq!(call.outcome().await.unwrap().payload, "right");
    assert_eq!(ours.metrics().refused["bad_signature"], 4);
}

/// An id that begins as another does, for 12 characters.
fn lookalike(id: NodeId) -> String {
    let mut bytes = *id.as_bytes();
    bytes[20] ^= 1;
    NodeId::from_bytes(bytes).to_string()
}

#[tokio::test]
async fn nobody_takes_the_place_of_a_proven_peer() {
    if !is_on() {
        return;
    }
    let ours = legacy("ours").start().await.unwrap();
    let native = node("native").agent("work").default_handler(echo).peer(addr_of(&ours)).start().await.unwrap();
    meets(&native, &[&ours]).await;
    let ids = [native.id().to_string(), lookalike(native.id()), lookalike(ours.id())];
    for id in &ids {
        let mut impostor = Python::frames(&ours).await;
        impostor.write(&hello(id, &[]));
        assert_eq!(impostor.frame("bye").await["code"], "NOT_ALLOWED", "{id}");
        impostor.line(|l| l["event"] == "closed").await;
        assert_eq!(ours.call("work", json!(1)).await.unwrap().responder, native.id());
        assert_eq!(ours.call("work", json!(2)).to(native.id().to_string()).await.unwrap().payload, json!(2));
    }
    let mut itself = Python::frames(&ours).await;
    itself.write(&hello(&ours.id().to_string(), &[]));
    assert_eq!(itself.frame("bye").await["code"], "SELF");
    assert_eq!(ours.peers().len(), 1);
}

#[tokio::test]
async fn a_proven_peer_displaces_who_claimed_its_id_before() {
    if !is_on() {
        return;
    }
    let ours = legacy("ours").start().await.unwrap();
    let identity = Identity::generate();
    let mut impostors = Vec::new();
    for id in [identity.id().to_string(), lookalike(identity.id())] {
        let mut impostor = Python::frames(&ours).await;
        impostor.write(&hello(&id, &["work"]));
        impostor.frame("hello_ack").await;
        impostors.push(impostor);
    }
    unproven(&ours, 2).await;
    let native = node("native").identity(identity).agent("work").default_handler(echo).peer(addr_of(&ours));
    let native = native.start().await.unwrap();
    meets(&native, &[&ours]).await;
    for mut impostor in impostors {
        assert_eq!(impostor.frame("bye").await["code"], "NOT_ALLOWED");
    }
    unproven(&ours, 0).await;
    assert_eq!(ours.call("work", json!(1)).await.unwrap().payload, json!(1));
}

#[tokio::test]
async fn calls_beyond_a_hundred_a_minute_fail_at_once_and_say_when_to_come_back() {
    if !is_on() {
        return;
    }
    let ours = legacy("ours").start().await.unwrap();
    let mut python = Python::node(json!({"peers": [addr_of(&ours)], "agents": ["work"]})).await;
    provides(&ours, &python, "work").await;
    let calls: Vec<_> = (0..130).map(|n| tokio::spawn(ours.call("work", json!(n)).into_future())).collect();
    let (mut done, mut limited) = (0, 0);
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => done += 1,
            Err(error) => {
                assert_eq!((error.code, error.delivery), (ErrorCode::RateLimited, Delivery::NotSent), "{error}");
                let wait = error.retry_after.unwrap();
                assert!(wait > Duration::ZERO && wait <= Duration::from_secs(62), "{wait:?}");
                limited += 1;
            }
        }
    }
    assert_eq!((done, limited), (94, 36));
    let counts = python.ask("counts", json!({})).await;
    assert_eq!((&counts["dropped"], &counts["received"]["task"]), (&json!(0), &json!(94)), "{counts}");
}

#[tokio::test]
async fn a_python_node_is_sent_no_more_than_it_reads_and_what_is_held_back_is_not_lost() {
    if !is_on() {
        return;
    }
    let mut limits = elo::Limits::default();
    // Heartbeats count too; here they come much more often than they would.
    limits.heartbeat_interval = Duration::from_secs(5);
    let ours = legacy("ours").limits(limits).agent("count").default_handler(echo).start().await.unwrap();
    let mut python = Python::node(json!({"peers": [addr_of(&ours)], "agents": ["work"]})).await;
    provides(&ours, &python, "work").await;
    // Queries, answers, errors and calls of ours share what there is.
    for n in 0..10 {
        assert_eq!(ours.call("work", json!(n)).await.unwrap().payload["echo"], n);
        assert_eq!(python.call("", "count", json!({})).await["status"], "success");
    }
    python.begin("calls", json!({"capability": "count", "n": 120}));
    eventually("the tasks ran", || ours.metrics().tasks_done == 130).await;
    let error = ours.call("work", json!({})).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::RateLimited, "answers that wait come first: {error}");
    // 98 less 13 for heartbeats, less the hello_ack, 10 calls of ours and 10 answers before.
    python.received("result", 74).await;
    // What is sent next is heartbeats alone.
    let heartbeats = python.ask("counts", json!({})).await["received"]["heartbeat"].as_u64().unwrap_or(0);
    python.received("heartbeat", heartbeats + 2).await;
    let counts = python.ask("counts", json!({})).await;
    let received: u64 = counts["received"].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum();
    assert_eq!((&counts["dropped"], &counts["received"]["result"]), (&json!(0), &json!(74)), "{counts}");
    assert!(received <= 100, "{counts}");
}
