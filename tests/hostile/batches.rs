//! Signatures over many messages: only for who lists that it takes them, and only of what is a task's course.

use elo::wire::{Object, Roots, verify_signed};
use serde_json::{Value, json};

use crate::raw::{Raw, announce, record, sign};
use crate::target::target;

fn is_batched(message: &Value) -> bool {
    message["signature"].as_str().is_some_and(|text| text.starts_with('m') && text.len() > 86)
}

/// Sends so many tasks at once and gives their results.
async fn results(raw: &mut Raw, round: usize, tasks: usize) -> Vec<Value> {
    let mut lines = Vec::new();
    for n in 0..tasks {
        lines.extend_from_slice(sign(raw.task(&format!("{round}.{n}")), &raw.identity).raw());
        lines.push(b'\n');
    }
    raw.bytes(&lines).await;
    let mut results = Vec::new();
    while results.len() < tasks {
        results.push(raw.until("a result", |m| m["type"] == "result").await);
    }
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_signed_together_for_who_lists_it_and_for_nobody_else() {
    const TASKS: usize = 60;
    let target = target().await;
    for (features, takes) in [(&["batch"][..], true), (&[], false), (&["batches", "sealed"], false)] {
        let mut raw = Raw::connect_listing(&target.node, features).await;
        let mut batched = 0;
        // What is ready at once is signed together; how much that is depends on the machine.
        for round in 0..if takes { 100 } else { 3 } {
            let results = results(&mut raw, round, TASKS).await;
            let mut roots = Roots::new();
            for result in &results {
                let object = Object::parse(result.to_string().into_bytes().into()).unwrap();
                verify_signed(&object, &raw.peer, &mut roots).unwrap();
                assert_eq!(result["status"], "success");
            }
            batched += results.iter().filter(|m| is_batched(m)).count();
            if batched > 0 {
                assert!(roots.checks() < TASKS as u64, "each was signed for itself");
                break;
            }
        }
        assert_eq!(batched > 0, takes, "{features:?}");
    }
    target.unharmed().await;
}

/// A provider that takes batches gets tasks in them; queries, events and records are never in one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_passed_on_is_never_signed_together() {
    let target = target().await;
    let mut raw = Raw::connect_listing(&target.node, &["batch"]).await;
    let mine = record(&raw.identity, "far").strings("interests", &["news"]);
    raw.send(&announce(&sign(mine, &raw.identity))).await;
    let mut seen = raw.heard().await;
    let mut calls = Vec::new();
    for n in 0..200 {
        let call = target.node.call("far", json!(n)).to(raw.id().to_string());
        calls.push(call.start().await.unwrap());
        // Among the tasks, but not between each and the next: what is signed otherwise is never waited for.
        for n in (n / 10 * 10..=n).filter(|_| n % 10 == 9) {
            target.node.publish("news", json!(n)).unwrap();
            calls.push(target.node.call(format!("nobody{n}"), Value::Null).start().await.unwrap());
        }
    }
    let count = |seen: &[Value], kind: &str| seen.iter().filter(|m| m["type"] == kind).count();
    while ["task", "event", "query"].iter().any(|kind| count(&seen, kind) < 200) {
        seen.extend(raw.line().await);
    }
    let mut events = Vec::new();
    for message in &seen {
        if message["type"] == "event" {
            events.push(message["data"].as_u64().unwrap());
        }
        assert!(!is_batched(&message["record"]), "{message}");
        assert!(!is_batched(message) || message["type"] == "task" || message["type"] == "cancel", "{message}");
    }
    assert_eq!(events, (0..200).collect::<Vec<_>>(), "events keep their order");
    assert!(seen.iter().any(is_batched), "tasks are signed together");
    drop((calls, raw));
    target.unharmed().await;
}
