//! Envelopes that are signed together: over a tracker that takes that, and over no other.

use std::collections::HashSet;

use elo::wire::{Object, Roots, verify_signed};
use elo::{Node, NodeId, Route, Sealing, Task};
use serde_json::{Value, json};

use crate::evil::Evil;
use crate::mesh::eventually;

const CALLS: usize = 64;

fn builder(name: &str, evil: &Evil) -> elo::Builder {
    Node::builder().name(name).no_listen().peer(evil.addr.clone()).sealing(Sealing::Required)
}

fn is_batched(frame: &Value) -> bool {
    frame["signature"].as_str().is_some_and(|text| text.starts_with('m') && text.len() > 86)
}

async fn over(features: &'static [&'static str], takes: bool) {
    let evil = Evil::listing(features).await;
    let provider = builder("provider", &evil)
        .agent("echo")
        .handler("echo", |task: Task, _| async move {
            assert!(task.sealed);
            Ok(task.payload)
        })
        .start()
        .await
        .unwrap();
    let caller = builder("caller", &evil).start().await.unwrap();
    eventually("the tracker knows both", || evil.knows(&provider.id()) && evil.knows(&caller.id())).await;
    let batched = |kind: &str| evil.frames(kind).iter().filter(|frame| is_batched(frame)).count();
    // What is ready at once is signed together; how much that is depends on the machine.
    for round in 0..50 {
        let mut calls = Vec::new();
        for n in 0..CALLS {
            calls.push(caller.call("echo", json!([round, n])).to(provider.id().to_string()).start().await.unwrap());
        }
        for (n, call) in calls.into_iter().enumerate() {
            let outcome = call.outcome().await.unwrap();
            assert_eq!(outcome.payload, json!([round, n]));
            assert_eq!((outcome.sealed, outcome.route, outcome.responder), (true, Route::Relay, provider.id()));
        }
        if !takes || (batched("task") > 0 && batched("result") > 0) {
            break;
        }
    }
    assert_eq!((batched("task") > 0, batched("result") > 0), (takes, takes));
    // Whatever a tracker is given it can check.
    let mut roots = Roots::new();
    let frames = [evil.frames("task"), evil.frames("result")].concat();
    let distinct: HashSet<String> = frames.iter().map(Value::to_string).collect();
    assert!(distinct.len() >= 2 * CALLS);
    for frame in &frames {
        let source: NodeId = frame["source"].as_str().unwrap().parse().unwrap();
        let object = Object::parse(frame.to_string().into_bytes().into()).unwrap();
        verify_signed(&object, &source, &mut roots).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_tracker_that_takes_batches() {
    over(&["sealed", "batch"], true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_tracker_that_takes_none() {
    over(&["sealed"], false).await;
}
