//! Much of everything, and what is left of it: nothing. Gauges go back to zero, and neither memory nor file handles
//! grow from one half to the next. By itself in its process, as both are counted for the whole of it.
#![cfg(target_os = "linux")]
// Helpers of tests are tests too.
#![allow(clippy::unwrap_used)]

mod mesh;
#[path = "common/proc.rs"]
mod proc;

use std::sync::Arc;
use std::time::Duration;

use elo::{Context, Limits, Node, Task, TaskResult, Tracker};
use mesh::{addr_of, eventually, node};
use proc::{descriptors, memory_kib};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

/// Rounds in each half; a round is some forty calls and two nodes that come and go.
const ROUNDS: usize = 25;

async fn echo(task: Task, _: Context) -> TaskResult {
    Ok(task.payload.into())
}

async fn count(task: Task, context: Context) -> TaskResult {
    for n in 0..task.parse::<u64>()? {
        context.chunk(json!(n)).await?;
    }
    Ok(Value::Null)
}

async fn hang(_: Task, context: Context) -> TaskResult {
    context.cancelled().await;
    Err("cancelled".into())
}

fn limits() -> Limits {
    // Answers are remembered for a minute or more: little room, so that it is full within the first half.
    Limits::default().with(|l| {
        l.max_answers = 256;
        l.remembered_bytes = 64 * 1024;
        l.max_seen = 256;
        l.max_records = 16;
        l.messages_per_second = 1_000_000;
        l.floods_per_second = 100_000;
    })
}

fn provider(name: &str) -> elo::Builder {
    let builder = node(name).limits(limits()).handler("echo", echo).handler("count", count).handler("hang", hang);
    builder.agent("echo").agent("count").agent("hang")
}

async fn round(caller: &Node, tracker: &Node, target: &Node) {
    // Two that come, are of use through the tracker, and go: one with a word, one without.
    let visitor = provider("visitor").no_listen().peer(addr_of(tracker)).start().await.unwrap();
    let other = node("other").limits(limits()).peer(addr_of(tracker)).start().await.unwrap();
    eventually("they meet", || visitor.peers().len() == 1 && other.peers().len() == 1).await;
    let relayed = other.call("echo", json!("hello")).to(visitor.id().to_string()).via(tracker.id().to_string());
    assert_eq!(relayed.await.unwrap().payload, json!("hello"));
    let mut events = visitor.subscribe("soak.*").unwrap();
    caller.publish("soak.round", json!(1)).unwrap();

    let room = Arc::new(Semaphore::new(8));
    let mut running = Vec::new();
    for n in 0..40u64 {
        let (caller, room, target) = (caller.clone(), Arc::clone(&room), target.id().to_string());
        running.push(tokio::spawn(async move {
            let _room = room.acquire().await.unwrap();
            match n % 4 {
                0 => assert_eq!(caller.call("echo", json!("x".repeat(2000))).to(target).await.unwrap().hops, 1),
                1 => {
                    let mut call = caller.call("count", json!(50)).to(target).start().await.unwrap();
                    let mut seen = 0;
                    while call.next_chunk().await.is_some() {
                        seen += 1;
                    }
                    assert_eq!((seen, call.outcome().await.unwrap().chunks), (50, 50));
                }
                2 => drop(caller.call("hang", Value::Null).to(target).start().await.unwrap()),
                _ => {
                    let call = caller.call("count", json!(500)).to(target).start().await.unwrap();
                    call.cancel();
                    assert!(call.outcome().await.is_err());
                }
            }
        }));
    }
    for one in running {
        one.await.unwrap();
    }
    drop(caller.find("nobody-has-this", Some(Duration::from_millis(20))).await.unwrap());
    let _ = tokio::time::timeout(Duration::from_millis(1), events.recv()).await;
    visitor.shutdown().await;
    drop(other);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_over() {
    let tracker = node("tracker").limits(limits()).tracker(Tracker::Public).start().await.unwrap();
    let target = provider("target").peer(addr_of(&tracker)).start().await.unwrap();
    let caller = node("caller").limits(limits()).peer(addr_of(&tracker)).peer(addr_of(&target)).start().await.unwrap();
    eventually("they meet", || caller.peers().len() == 2 && target.peers().len() == 2).await;
    let all = [&tracker, &target, &caller];

    let own = std::process::id();
    let mut after = Vec::new();
    for _ in 0..3 {
        for _ in 0..ROUNDS {
            round(&caller, &tracker, &target).await;
        }
        for one in all {
            eventually("it is at rest", || {
                let now = one.metrics();
                (now.calls_running, now.tasks_running, now.peers, now.connections) == (0, 0, 2, 2)
            })
            .await;
        }
        after.push((memory_kib(own, "VmRSS"), descriptors(own)));
    }
    // The first third fills what is kept by design.
    let [_, (memory, files), (memory_later, files_later)] = after[..] else { panic!("three thirds") };
    assert!(memory_later < memory + 4096, "from {memory} to {memory_later} kB");
    assert!(files_later <= files + 4, "from {files} to {files_later} file handles");
    for one in all {
        assert!(one.metrics().records <= 16);
        one.shutdown().await;
    }
    eprintln!("memory and file handles after each third: {after:?}");
}
